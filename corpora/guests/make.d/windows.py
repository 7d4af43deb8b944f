"""Windows Server 2008 R2 x64: MBR, System Reserved and C: on NTFS."""

import struct

import drivers
import hive
import ntfs
import tools
import winreg_common
import winreg_source

DISK = 24 << 30
RESERVED_START, RESERVED_COUNT = 2048, 204800
SYSTEM_START, SYSTEM_COUNT = 206848, 50122752
SYSTEM_HIVE, SOFTWARE_HIVE, BCD_HIVE = 256 << 10, 64 << 10, 28 << 10

SOURCES = winreg_source.SOURCES


def program(subsystem, text):
    """A PE32+ file for x64 with one section and our text in it: enough to tell the machine type."""
    header = bytearray(512)
    header[0:2] = b"MZ"
    struct.pack_into("<I", header, 0x3C, 0x80)
    header[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", header, 0x84, 0x8664, 1, tools.EPOCH, 0, 0, 240, 0x22)
    struct.pack_into("<HBBIIIII", header, 0x98, 0x20B, 9, 0, 0x200, 0, 0, 0x1000, 0x1000)
    struct.pack_into("<QIIHHHHHHIIIIHH", header, 0xB0, 0x140000000, 0x1000, 0x200, 6, 1, 6, 1, 6, 1, 0, 0x2000, 0x200,
                     0, subsystem, 0)
    struct.pack_into("<QQQQII", header, 0xF8, 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    struct.pack_into("<8sIIIIIIHHI", header, 0x188, b".text", 0x200, 0x1000, 0x200, 0x200, 0, 0, 0, 0, 0x60000020)
    note = b"\x31\xc0\xc3" + b"Golden guest: stands for " + text.encode()
    return bytes(header) + note.ljust(512, b"\0")


def system_files(shop, name, source):
    infs = drivers.all_infs()
    files = [
        (f"Windows/System32/{leaf}", program(kind, leaf))
        for leaf, kind in (("cmd.exe", 3), ("ntoskrnl.exe", 1), ("hal.dll", 1), ("winload.exe", 16),
                           ("winresume.exe", 16), ("smss.exe", 1), ("services.exe", 3), ("svchost.exe", 3),
                           ("clfs.sys", 1))
    ]
    binaries = {row[6].split("\\")[-1].lower(): row[6].split("\\")[-1] for row in winreg_common.service_rows()
                if row[6].lower().endswith(".sys") and "drivers" in row[6].lower()}
    # Services without an ImagePath: the kernel looks for a file of their name.
    binaries |= {"ntfs.sys": "ntfs.sys", "spldr.sys": "spldr.sys"}
    files += [(f"Windows/System32/drivers/{leaf}", program(1, leaf)) for _, leaf in sorted(binaries.items())]
    files += [("Windows/System32/drivers/etc/hosts", b"# Names are resolved by DNS.\r\n")]
    files += [(f"Windows/inf/{inf}", text) for inf, text in sorted(infs.items())]
    for inf, _, _, services in drivers.PACKAGES:
        folder = f"Windows/System32/DriverStore/FileRepository/{drivers.package_id(inf, infs)}"
        files.append((f"{folder}/{inf}", infs[inf]))
        files += [(f"{folder}/{binary}", program(1, binary)) for _, binary, *_ in services]
    files += [
        ("Program Files/desktop.ini", b"[.ShellClassInfo]\r\n"),
        ("ProgramData/readme.txt", b"Golden guest.\r\n"),
        ("Users/Public/desktop.ini", b"[.ShellClassInfo]\r\n"),
    ]
    system, software = [winreg_common.system(infs)], [winreg_common.software()]
    if source:
        system.append(winreg_source.system(source, infs))
        software.append(winreg_source.software(source))
    config = "Windows/System32/config"
    files += [
        (f"{config}/SYSTEM", hive.build(shop, f"{name}.SYSTEM", "SYSTEM", "CMI-CreateHive{2A7FB991-7BBE-4F9D-B91E-7CB51D4737F5}",
                                        system, SYSTEM_HIVE)),
        (f"{config}/SOFTWARE", hive.build(shop, f"{name}.SOFTWARE", "emRoot\\System32\\Config\\SOFTWARE",
                                          "CMI-CreateHive{199DAFC2-6F16-4946-BF90-5A3FC3A60902}", software,
                                          SOFTWARE_HIVE)),
    ]
    if source:
        # Last, so that what was laid out before is the same on every source.
        leaf = winreg_source.NIC_SERVICES[source["nic"]().service][0]
        files.append((f"Windows/System32/drivers/{leaf}", program(1, leaf)))
    return files


def make(shop, name, source):
    """One disk, as installed on `source` (None: the neutral base)."""
    disk = shop.sparse(name, DISK)
    code = tools.marker_code([(0x163, b"Invalid partition table (golden guest: no boot code)\0")])
    tools.write_at(disk, 0, tools.boot_sector(code, winreg_common.SIGNATURE, [
        tools.entry(True, 0x07, RESERVED_START, RESERVED_COUNT), tools.entry(False, 0x07, SYSTEM_START, SYSTEM_COUNT)]))
    bcd = hive.build(shop, f"{name}.BCD", "\\Device\\HarddiskVolume1\\Boot\\BCD", "NewStoreRoot", [winreg_common.bcd()], BCD_HIVE)
    boot_files = [
        ("bootmgr", b"Golden guest: stands for bootmgr, which the model acts out.\r\n".ljust(4096, b"\0")),
        ("BOOTSECT.BAK", b"Golden guest: stands for the former boot sector.\r\n"),
        ("Boot/memtest.exe", program(16, "memtest.exe")),
        ("Boot/BCD", bcd),
    ]
    reserved = ntfs.build(shop, f"{name}.reserved", RESERVED_START, RESERVED_COUNT, "System Reserved",
                          tools.EPOCH, boot_files)
    tools.paste(disk, RESERVED_START * 512, reserved)
    system = ntfs.build(shop, f"{name}.system", SYSTEM_START, SYSTEM_COUNT, "", tools.EPOCH + 60,
                        system_files(shop, name, source))
    tools.paste(disk, SYSTEM_START * 512, system)
    return disk
