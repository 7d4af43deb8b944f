"""udev rule texts of the guests: the folder rules/, which the project keeps in its own words."""

from tools import HERE

FALLBACK = {}


def rule_files(which):
    """(file name, text) of rules/<which>/*.rules, sorted."""
    folder = HERE.parent / "rules" / which
    found = sorted(folder.glob("*.rules"))
    if not found:
        return sorted(FALLBACK.get(which, {}).items())
    return [(path.name, path.read_text()) for path in found]
