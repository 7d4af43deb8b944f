"""Running tools under a fixed clock, sparse disks, partition tables, deltas."""

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
# 2013-02-11 09:00:00 UTC: the day the golden guests were "installed".
EPOCH = 1360573200
PAGE = 4096
SECTOR = 512

NEEDED = [
    ("cc", "gcc"), ("mke2fs", "e2fsprogs"), ("debugfs", "e2fsprogs"), ("mkntfs", "ntfs-3g"),
    ("ntfscat", "ntfs-3g"),
    ("hivexregedit", "libwin-hivex-perl"), ("qemu-img", "qemu-utils"),
]


def check_tools():
    """Stops with the Debian packages that are missing."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = sorted({package for tool, package in NEEDED if not shutil.which(tool)})
    if not Path("/usr/include/ntfs-3g/volume.h").exists():
        missing.append("ntfs-3g-dev")
    if missing:
        raise SystemExit("missing tools; install the Debian packages: " + " ".join(missing))


class Workshop:
    """A scratch directory and the environment that makes tools repeatable."""

    def __init__(self, scratch):
        self.scratch = Path(scratch)
        self.shim = self.scratch / "clock.so"
        subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", "-o", str(self.shim), str(HERE / "clock.c")], check=True
        )

    def environment(self, clock=EPOCH):
        env = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        env.update(
            LD_PRELOAD=str(self.shim), GUEST_CLOCK=str(clock), SOURCE_DATE_EPOCH=str(clock),
            E2FSPROGS_FAKE_TIME=str(clock), MKE2FS_CONFIG="/dev/null", PERL_HASH_SEED="0",
            PERL_PERTURB_KEYS="0", LC_ALL="C", TZ="UTC",
        )
        return env

    def run(self, *command, clock=EPOCH, stdin=None):
        done = subprocess.run(
            [str(part) for part in command], env=self.environment(clock), input=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise SystemExit(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')}")
        return done.stdout.decode(errors="replace")

    def sparse(self, name, length):
        path = self.scratch / name
        with open(path, "wb") as out:
            out.truncate(length)
        return path


def extents(path):
    """(offset, length) of the parts of a sparse file that hold data."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                start = file.seek(at, os.SEEK_DATA)
            except OSError:
                return
            at = file.seek(start, os.SEEK_HOLE)
            yield start, at - start


def pages(path):
    """Page-aligned offsets and contents of the pages that are not all zero."""
    zero = bytes(PAGE)
    seen = -1
    with open(path, "rb") as file:
        for start, length in extents(path):
            first = start // PAGE * PAGE
            for at in range(first, start + length, PAGE):
                if at <= seen:
                    continue
                seen = at
                file.seek(at)
                data = file.read(PAGE).ljust(PAGE, b"\0")
                if data != zero:
                    yield at, data


def paste(disk, offset, part):
    """Copies the data of `part` into `disk` at a byte offset."""
    with open(disk, "r+b") as out:
        for at, data in pages(part):
            out.seek(offset + at)
            out.write(data[: os.path.getsize(part) - at])


def write_at(disk, offset, data):
    with open(disk, "r+b") as out:
        out.seek(offset)
        out.write(data)


def write_delta(base, other, target):
    """The pages in which `other` differs from `base`; returns how many."""
    length = os.path.getsize(base)
    assert length == os.path.getsize(other) and length % PAGE == 0
    before, after = dict(pages(base)), dict(pages(other))
    zero = bytes(PAGE)
    changed = [
        (at, after.get(at, zero)) for at in sorted(before.keys() | after.keys())
        if before.get(at, zero) != after.get(at, zero)
    ]
    with open(target, "wb") as out:
        out.write(b"DRYDELTA" + struct.pack("<IQII", 1, length, PAGE, len(changed)))
        for at, data in changed:
            out.write(struct.pack("<Q", at) + data)
    return len(changed)


def content_sha256(path):
    """SHA-256 over the disk's length and, in ascending order, each page that is not all zero with its offset.

    All numbers 64-bit little endian, pages of 4096 bytes: the same for every format that holds this disk.
    """
    digest = hashlib.sha256(struct.pack("<Q", os.path.getsize(path)))
    for offset, data in pages(path):
        digest.update(struct.pack("<Q", offset) + data)
    return digest.hexdigest()


def chs(lba):
    cylinder, rest = divmod(lba, 255 * 63)
    head, sector = divmod(rest, 63)
    if cylinder > 1023:
        return b"\xfe\xff\xff"
    return bytes([head, (sector + 1) | (cylinder >> 2 & 0xC0), cylinder & 0xFF])


def entry(active, kind, start, count, base=0):
    """One MBR or EBR entry; CHS fields are of the absolute sectors."""
    return (
        bytes([0x80 if active else 0]) + chs(base + start) + bytes([kind])
        + chs(base + start + count - 1) + struct.pack("<II", start, count)
    )


def boot_sector(code, signature, entries):
    sector = code.ljust(440, b"\0") + struct.pack("<IH", signature, 0)
    sector += b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"
    assert len(code) <= 440 and len(sector) == SECTOR
    return sector


def marker_code(texts):
    """Boot code of our own: it asks the firmware for the next boot device.

    No boot loader's code is in it. The texts stand where a loader of the
    kind keeps its messages, so that a reader finds what it looks for.
    """
    code = bytes([
        0xEB, 0x05,                    # jmp over the parameter bytes
        0x90, 0x90, 0x90, 0x90, 0x90,
        0xFA, 0x31, 0xC0, 0x8E, 0xD0,  # cli; xor ax,ax; mov ss,ax
        0xBC, 0x00, 0x7C, 0xFB,        # mov sp,7c00; sti
        0xCD, 0x18,                    # int 18: nothing to boot here
        0xF4, 0xEB, 0xFD,              # hlt; jmp back
    ])
    sector = bytearray(440)
    sector[: len(code)] = code
    for offset, text in texts:
        sector[offset : offset + len(text)] = text
    return bytes(sector)


def swap_header(length, uuid):
    """First page of a version 1 swap area."""
    page = bytearray(PAGE)
    struct.pack_into("<III", page, 1024, 1, length // PAGE - 1, 0)
    page[1036:1052] = uuid.bytes
    page[4086:4096] = b"SWAPSPACE2"
    return bytes(page)
