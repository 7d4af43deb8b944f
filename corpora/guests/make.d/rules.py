"""udev rule texts of the guests: the folder rules/, which the project keeps in its own words."""

from tools import HERE


def rule_files(which):
    """(file name, text) of rules/<which>/*.rules, sorted."""
    found = sorted((HERE.parent / "rules" / which).glob("*.rules"))
    if not found:
        raise SystemExit(f"rules/{which} has no rules: the guest would not name its adapters")
    return [(path.name, path.read_text()) for path in found]
