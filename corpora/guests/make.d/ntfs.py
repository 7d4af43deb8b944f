"""NTFS volumes with mkntfs and libntfs-3g, without mounting anything."""

import os
import subprocess

import tools

LOGFILE = 2 << 20
# Windows gives every long name an 8.3 twin; libntfs-3g can do so only in folders whose index has grown out of the
# MFT record, which here is the root. Other names stand alone, in the POSIX namespace.
SHORT_NAMES = {"Program Files": "PROGRA~1", "ProgramData": "PROGRA~2"}


def fill_program(shop):
    program = shop.scratch / "fill-ntfs"
    if not program.exists():
        subprocess.run(["cc", "-O1", "-o", str(program), str(tools.HERE / "ntfs.c"), "-lntfs-3g"], check=True)
    return program


def build(shop, name, start_sector, sectors, label, serial_clock, files):
    """files: (path, bytes) in the order of layout; folders are added sorted.

    mkntfs draws the volume's serial number from the clock, so each volume has its own.
    """
    image = shop.sparse(name, sectors * 512)
    shop.run("mkntfs", "-F", "-q", "-f", "-I", "-s", 512, "-c", 4096, "-p", start_sector, "-H", 255, "-S", 63,
             "-L", label, image, sectors - 1, clock=serial_clock)
    own_boot_code(image, sectors)
    payload = shop.scratch / (name + ".payload")
    payload.mkdir(exist_ok=True)
    orders = [f"T\t2\t{LOGFILE}"]
    folders = set()
    for path, *_ in files:
        parts = path.split("/")[:-1]
        folders |= {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
    for folder in sorted(folders):
        orders.append(f"D\t{folder}")
        if folder in SHORT_NAMES:
            orders.append(f"S\t{folder}\t{SHORT_NAMES[folder]}")
    for number, (path, data) in enumerate(files):
        source = payload / str(number)
        source.write_bytes(data)
        orders.append(f"F\t{path}\t{source}")
    shop.run(fill_program(shop), image, stdin="\n".join(orders).encode() + b"\n")
    clear_free_clusters(shop, image)
    return image


def own_boot_code(image, sectors):
    """mkntfs brings boot code of its own: ours takes its place, in the sector and in its copy at the end."""
    with open(image, "r+b") as file:
        sector = bytearray(file.read(512))
        assert sector[3:11] == b"NTFS    "
        code = bytes([0xFA, 0x31, 0xC0, 0x8E, 0xD0, 0xBC, 0x00, 0x7C, 0xFB, 0xCD, 0x18, 0xF4, 0xEB, 0xFD])
        sector[0:3] = b"\xeb\x52\x90"
        sector[0x54:0x1FE] = bytes(0x1AA)
        sector[0x54 : 0x54 + len(code)] = code
        text = b"BOOTMGR is looked for here (golden guest)\r\n\0"
        sector[0x18D : 0x18D + len(text)] = text
        sector[0x1FE:0x200] = b"\x55\xaa"
        rest = bytearray(8192 - 512)
        name = "BOOTMGR".encode("utf-16le")
        rest[0 : 2 + len(name)] = bytes([len(name) // 2, 0]) + name
        file.seek(0)
        file.write(sector + rest)
        file.seek((sectors - 1) * 512)
        file.write(sector)


def clear_free_clusters(shop, image):
    """The log file was cut: what it held is no longer anybody's data."""
    raw = subprocess.run(
        ["ntfscat", "-f", "-i", "6", str(image)], env=shop.environment(), check=True, stdout=subprocess.PIPE
    ).stdout
    end = os.path.getsize(image) // 4096
    for at, _ in list(tools.pages(image)):
        cluster = at // 4096
        if cluster < end and not raw[cluster // 8] >> cluster % 8 & 1:
            # The volume's last sectors (the boot sector's copy) lie past the last cluster.
            tools.write_at(image, at, bytes(4096))
    shop.run("fallocate", "--dig-holes", image)
