"""Kernel modules as minimal ELF64 objects, and the files depmod makes of them."""

import re
import struct

from tools import HERE

KERNELS = {
    "el6": ("2.6.32-279.el6.x86_64", "2.6.32-279.el6.x86_64 SMP mod_unload modversions "),
    "u12": ("3.2.0-23-generic", "3.2.0-23-generic SMP mod_unload modversions "),
}


class Module:
    def __init__(self, row, kernel):
        self.name, folder, depends, symbols, aliases, el6, u12 = row.split("\t")
        self.how = {"el6": el6, "u12": u12}[kernel]
        if kernel == "u12":
            folder = NEW_HOMES.get(self.name, folder)
        self.path = f"kernel/{folder}/{self.name}.ko"
        self.depends = [] if depends == "-" else depends.split(",")
        self.symbols = [] if symbols == "-" else symbols.split(",")
        self.aliases = [] if aliases == "-" else [full(alias) for alias in aliases.split()]

    def elf(self, vermagic, also=()):
        info = [f"alias={alias}" for alias in self.aliases]
        info += ["license=GPL", "depends=" + ",".join(self.depends), f"vermagic={vermagic}"]
        return elf_object(self.name, info, self.symbols + list(also))


# Linux 3.2 sorted network drivers by vendor.
NEW_HOMES = {
    "e1000": "drivers/net/ethernet/intel/e1000", "e1000e": "drivers/net/ethernet/intel/e1000e",
    "e100": "drivers/net/ethernet/intel", "igb": "drivers/net/ethernet/intel/igb",
    "8139cp": "drivers/net/ethernet/realtek", "8139too": "drivers/net/ethernet/realtek",
    "pcnet32": "drivers/net/ethernet/amd", "tulip": "drivers/net/ethernet/dec/tulip",
    "de2104x": "drivers/net/ethernet/dec/tulip", "ne2k-pci": "drivers/net/ethernet/8390",
    "8390": "drivers/net/ethernet/8390",
}


def full(alias):
    pair = re.fullmatch("([0-9A-F]{4}):([0-9A-F]{4})", alias)
    return f"pci:v0000{pair[1]}d0000{pair[2]}sv*sd*bc*sc*i*" if pair else alias


def table(kernel):
    rows = (HERE / "modules.tsv").read_text().splitlines()
    modules = [Module(row, kernel) for row in rows if row and not row.startswith("#")]
    return [module for module in modules if module.how != "-"]


def elf_object(name, info, symbols):
    """ET_REL for x86-64 with .text, .modinfo, .symtab, .strtab and .shstrtab."""
    text = bytes([0x31, 0xC0, 0xC3])  # xor eax,eax; ret
    modinfo = b"".join(line.encode() + b"\0" for line in info)
    strings, table_ = b"\0", bytes(24)
    for symbol, section, kind in [("init_module", 1, 0x12)] + [(s, 0, 0x10) for s in symbols]:
        table_ += struct.pack("<IBBHQQ", len(strings), kind, 0, section, 0, len(text) if section else 0)
        strings += symbol.encode() + b"\0"
    names = b"\0.text\0.modinfo\0.symtab\0.strtab\0.shstrtab\0"
    sections = [
        (".text", 1, 6, text, 0, 0, 16, 0), (".modinfo", 1, 2, modinfo, 0, 0, 8, 0),
        (".symtab", 2, 0, table_, 4, 1, 8, 24), (".strtab", 3, 0, strings, 0, 0, 1, 0),
        (".shstrtab", 3, 0, names, 0, 0, 1, 0),
    ]
    body, headers = bytearray(64), [bytes(64)]
    for label, kind, flags, data, link, info_, align, entry in sections:
        body += bytes(-len(body) % align)
        headers.append(struct.pack(
            "<IIQQQQIIQQ", names.index(b"\0" + label.encode() + b"\0") + 1, kind, flags, 0,
            len(body), len(data), link, info_, align, entry,
        ))
        body += data
    body += bytes(-len(body) % 8)
    body[0:64] = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 1, 62, 1, 0, 0, len(body), 0, 64, 0, 0, 64,
        len(headers), len(headers) - 1,
    )
    return bytes(body) + b"".join(headers)


def index_files(modules):
    """modules.dep, modules.alias, modules.builtin, modules.order, modules.symbols as text."""
    loadable = [module for module in modules if module.how == "m"]
    by_name = {module.name.replace("-", "_"): module for module in loadable}

    def closure(module):
        # Depth first, nearest first: the order in which depmod lists what must be loaded.
        out = []
        for name in module.depends:
            other = by_name.get(name.replace("-", "_"))
            if other:
                out += [item for item in [other.path] + closure(other) if item not in out]
        return out

    loadable.sort(key=lambda module: module.path)
    return {
        "modules.dep": "".join(
            f"{module.path}:" + "".join(" " + path for path in closure(module)) + "\n" for module in loadable
        ),
        "modules.alias": "# Aliases extracted from modules themselves.\n" + "".join(
            f"alias {alias} {module.name.replace('-', '_')}\n" for module in loadable for alias in module.aliases
        ),
        "modules.builtin": "".join(
            f"{module.path}\n" for module in sorted(modules, key=lambda m: m.path) if module.how == "y"
        ),
        "modules.order": "".join(f"{module.path}\n" for module in loadable),
        "modules.symbols": "# Aliases for symbols, used by symbol_request().\n",
    }


def kernel_image(version, banner):
    """A file with the Linux/x86 boot header (Documentation/x86/boot.txt) and no kernel."""
    image = bytearray(0x4000)
    text = f"{version} {banner}".encode() + b"\0"
    struct.pack_into("<BHIHHH", image, 0x1F1, 3, 1, 0x700, 0, 0xFFFF, 0)
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x200:0x202] = b"\xeb\x66"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<HIHH", image, 0x206, 0x020A, 0, 0x1000, 0x300 - 0x200)
    image[0x210:0x214] = bytes([0, 1, 0, 0x80])  # loader, LOADED_HIGH
    struct.pack_into("<I", image, 0x214, 0x100000)
    image[0x300 : 0x300 + len(text)] = text
    note = b"This is a placeholder of the golden guest, not a kernel.\n"
    image[0x800 : 0x800 + len(note)] = note
    return bytes(image)
