"""Registry hives: an empty one of our own, filled by hivexregedit."""

import struct

import tools

# 2013-02-11 09:00:00 UTC as a Windows file time.
FILETIME = (tools.EPOCH + 11644473600) * 10_000_000


class Registry:
    """Sections of a .reg file; strings go in as UTF-16 so that nothing needs quoting."""

    def __init__(self):
        self.lines = ["Windows Registry Editor Version 5.00", ""]
        self.seen = set()

    def set(self, path, values):
        """Makes a key, its parents first (the merge makes none by itself), and sets values."""
        parts = path.split("\\")
        for count in range(1, len(parts)):
            parent = "\\".join(parts[:count])
            if parent not in self.seen:
                self.seen.add(parent)
                self.lines += [f"[HIVE\\{parent}]", ""]
        self.seen.add(path)
        self.lines += [f"[HIVE\\{path}]"]
        for name, value in values.items():
            quoted = name.replace("\\", "\\\\").replace('"', '\\"')
            left = "@" if name == "" else f'"{quoted}"'
            self.lines.append(f"{left}={value}")
        self.lines.append("")

    def text(self):
        return "\n".join(self.lines).encode()


def dword(value):
    return f"dword:{value:08x}"


def raw(kind, data):
    return f"hex({kind:x}):" + ",".join(f"{byte:02x}" for byte in data)


def sz(text):
    return raw(1, (text + "\0").encode("utf-16le"))


def expand(text):
    return raw(2, (text + "\0").encode("utf-16le"))


def multi(*texts):
    return raw(7, ("".join(text + "\0" for text in texts) + "\0").encode("utf-16le"))


def binary(data):
    return raw(3, data)


GONE = "-"


def security_descriptor():
    """Self-relative: owner and group Administrators; full control for SYSTEM and Administrators."""
    system = bytes([1, 1, 0, 0, 0, 0, 0, 5]) + struct.pack("<I", 18)
    administrators = bytes([1, 2, 0, 0, 0, 0, 0, 5]) + struct.pack("<II", 32, 544)

    def allow(sid):
        return struct.pack("<BBHI", 0, 2, 8 + len(sid), 0x000F003F) + sid

    entries = allow(system) + allow(administrators)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), 2, 0) + entries
    head = 20
    return struct.pack("<BBHIIII", 1, 0, 0x8004, head, head + 16, 0, head + 32) + administrators * 2 + acl


def cell(data):
    length = (len(data) + 4 + 7) // 8 * 8
    return struct.pack("<i", -length) + data.ljust(length - 4, b"\0")


def seal(hive):
    """Checksum of the base block: XOR of its first 127 words, never 0 or all ones."""
    value = 0
    for (word,) in struct.iter_unpack("<I", hive[:508]):
        value ^= word
    value = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(value, value)
    struct.pack_into("<I", hive, 508, value)


def hbin(offset, length, body):
    head = struct.pack("<4sIIQQI", b"hbin", offset, length, 0, FILETIME, 0)
    rest = length - len(head) - len(body)
    return head + body + (struct.pack("<i", rest) + bytes(rest - 4) if rest else b"")


def empty(file_name, root_name):
    """Base block and one bin: root key (nk) and its security (sk)."""
    sd = security_descriptor()
    name = root_name.encode()
    none = 0xFFFFFFFF
    root_size = len(cell(bytes(76) + name))
    key = struct.pack(
        "<2sHQIIIIIIIIIIIIIIIHH", b"nk", 0x2C, FILETIME, 0, 0, 0, 0, none, none, 0, none, 32 + root_size, none,
        0, 0, 0, 0, 0, len(name), 0,
    ) + name
    security_at = 32 + len(cell(key))
    assert security_at == 32 + root_size
    security = struct.pack("<2sHIIII", b"sk", 0, security_at, security_at, 1, len(sd)) + sd
    base = bytearray(4096)
    struct.pack_into("<4sIIQIIIIIII", base, 0, b"regf", 1, 1, FILETIME, 1, 3, 0, 1, 32, 4096, 1)
    label = file_name.encode("utf-16le")[-64:]
    base[48 : 48 + len(label)] = label
    seal(base)
    return bytes(base) + hbin(0, 4096, cell(key) + cell(security))


def build(shop, name, file_name, root_name, registries, total):
    """Merges the registries into an empty hive; a last free bin brings the file to `total` bytes."""
    path = shop.scratch / name
    path.write_bytes(empty(file_name, root_name))
    for number, registry in enumerate(registries):
        source = shop.scratch / f"{name}.{number}.reg"
        source.write_bytes(registry.text())
        shop.run("hivexregedit", "--merge", "--prefix", "HIVE", path, source)
    hive = bytearray(path.read_bytes())
    used = struct.unpack_from("<I", hive, 40)[0]
    hive = hive[: 4096 + used]
    if len(hive) > total:
        raise SystemExit(f"{name}: {len(hive)} bytes do not fit {total}")
    if len(hive) < total:
        hive += hbin(used, total - len(hive), b"")
        struct.pack_into("<I", hive, 40, total - 4096)
    struct.pack_into("<IIQ", hive, 4, 2, 2, FILETIME)
    seal(hive)
    path.unlink()
    return bytes(hive)
