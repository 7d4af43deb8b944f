"""newc cpio archives and their gzip wrapper, always the same bytes."""

import struct
import zlib


def record(inode, name, mode, data, stamp, links=1):
    fields = [inode, mode, 0, 0, links, stamp, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    out = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    out += bytes(-len(out) % 4) + data
    return out + bytes(-len(out) % 4)


def archive(items, stamp):
    """items: path -> (mode with file type, bytes); parents are added."""
    full = dict(items)
    for path in list(full):
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            full.setdefault("/".join(parts[:count]), (0o40755, b""))
    out = record(1, ".", 0o40755, b"", stamp, 2)
    for number, path in enumerate(sorted(full), 2):
        mode, data = full[path]
        out += record(number, path, mode, data, stamp, 2 if mode & 0o170000 == 0o40000 else 1)
    out += record(0, "TRAILER!!!", 0, b"", 0)
    return out + bytes(-len(out) % 512)


def gzip(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\x03" + body + struct.pack("<II", zlib.crc32(data), len(data))
