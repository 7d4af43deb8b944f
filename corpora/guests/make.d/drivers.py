"""Driver packages that Windows Server 2008 R2 brings along: INF files in our own text.

Which ids a package lists: from a real NT 6.1 CriticalDeviceDatabase where the
class is there (storage, system); network ids are belief, except 8086:100F.
"""

import hashlib

CLASSES = {
    "hdc": "{4D36E96A-E325-11CE-BFC1-08002BE10318}", "SCSIAdapter": "{4D36E97B-E325-11CE-BFC1-08002BE10318}",
    "Net": "{4D36E972-E325-11CE-BFC1-08002BE10318}", "DiskDrive": "{4D36E967-E325-11CE-BFC1-08002BE10318}",
    "CDROM": "{4D36E965-E325-11CE-BFC1-08002BE10318}", "System": "{4D36E97D-E325-11CE-BFC1-08002BE10318}",
    "Volume": "{71A27CDD-812A-11D0-BEC7-08002BE2092F}", "HIDClass": "{745A17A0-74D3-11D0-B6FE-00A0C90F57DA}",
    "USB": "{36FC9E60-C465-11CF-8056-444553540000}", "Processor": "{50127DC3-0F36-415E-A6CC-4CB3BE910B65}",
}

# All that a real CriticalDeviceDatabase gives to intelide.
INTEL_IDE = (
    "1222 1230 2411 2421 244A 244B 248A 248B 24C1 24CA 24CB 24D1 24DB 25A2 25A3 2651&CC_0101 2652&CC_0101 "
    "2653&CC_0101 266F 27C0 27C4 27DF 2820 2825 2828 2850 7010 7111 7199 7601"
).split()

# INF, class, maker, and per service: name, binary, start, error, hardware ids.
PACKAGES = [
    ("mshdc.inf", "hdc", "Intel", [
        ("intelide", "intelide.sys", 0, 3, [f"PCI\\VEN_8086&DEV_{device}" for device in INTEL_IDE]),
        ("pciide", "pciide.sys", 0, 3, ["PCI\\CC_0101"]),
        ("msahci", "msahci.sys", 0, 3, ["PCI\\CC_010601"]),
        ("atapi", "atapi.sys", 0, 3, ["Primary_IDE_Channel", "Secondary_IDE_Channel", "Internal_IDE_Channel"]),
    ]),
    ("lsi_sas.inf", "SCSIAdapter", "LSI", [("LSI_SAS", "lsi_sas.sys", 0, 1, [
        f"PCI\\VEN_1000&DEV_{device}" for device in ("0050", "0054", "0056", "0058", "0062")])]),
    ("lsi_scsi.inf", "SCSIAdapter", "LSI", [("LSI_SCSI", "lsi_scsi.sys", 0, 1, ["PCI\\VEN_1000&DEV_0030"])]),
    ("lsi_sas2.inf", "SCSIAdapter", "LSI", [("LSI_SAS2", "lsi_sas2.sys", 0, 1, [
        f"PCI\\VEN_1000&DEV_{device}" for device in ("0064", "0065", "0070", "0072", "0074", "0076", "0077")])]),
    ("megasas.inf", "SCSIAdapter", "LSI", [("megasas", "megasas.sys", 0, 1, [
        "PCI\\VEN_1000&DEV_0078", "PCI\\VEN_1000&DEV_0079", "PCI\\VEN_1000&DEV_0411&SUBSYS_10011000",
        "PCI\\VEN_1000&DEV_0413&SUBSYS_10051000"])]),
    ("disk.inf", "DiskDrive", "(Standard disk drives)", [("disk", "disk.sys", 0, 1, ["GenDisk"])]),
    ("cdrom.inf", "CDROM", "(Standard CD-ROM drives)", [("cdrom", "cdrom.sys", 1, 1, ["GenCdRom"])]),
    ("volume.inf", "Volume", "Microsoft", [("volsnap", "volsnap.sys", 0, 3, ["STORAGE\\Volume"])]),
    ("machine.inf", "System", "(Standard system devices)", [
        ("pci", "pci.sys", 0, 3, ["*PNP0A03", "*PNP0A08", "PCI\\CC_0604"]),
        ("msisadrv", "msisadrv.sys", 0, 3, ["PCI\\CC_0601", "PCI\\VEN_8086&DEV_7000", "PCI\\VEN_8086&DEV_7110&CC_0601"]),
        ("volmgr", "volmgr.sys", 0, 3, ["ROOT\\VOLMGR"]),
        ("vdrvroot", "vdrvroot.sys", 0, 3, ["ROOT\\VDRVROOT"]),
    ]),
    ("acpi.inf", "System", "Microsoft", [("ACPI", "acpi.sys", 0, 3, ["*PNP0C08"])]),
    ("wvmbus.inf", "System", "Microsoft", [("vmbus", "vmbus.sys", 0, 1, ["ROOT\\VMBus", "ACPI\\VMBus"])]),
    ("wstorvsc.inf", "SCSIAdapter", "Microsoft", [
        ("storvsc", "storvsc.sys", 0, 1, ["VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}"])]),
    ("wnetvsc.inf", "Net", "Microsoft", [
        ("netvsc", "netvsc60.sys", 3, 1, ["VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}"])]),
    ("nete1g3e.inf", "Net", "Intel", [("E1G60", "E1G6032E.sys", 3, 1, [
        f"PCI\\VEN_8086&DEV_{device}" for device in (
            "1000", "1001", "1004", "1008", "100C", "100D", "100E", "100F", "1010", "1011", "1013", "1019", "1026",
            "1027", "1028", "1075", "1076", "1077", "1078", "1079", "107A", "107B", "107C")])]),
    ("nete1e3e.inf", "Net", "Intel", [("e1express", "e1e6032e.sys", 3, 1, [
        "PCI\\VEN_8086&DEV_105E", "PCI\\VEN_8086&DEV_107D", "PCI\\VEN_8086&DEV_108B", "PCI\\VEN_8086&DEV_10B9",
        "PCI\\VEN_8086&DEV_10D3"])]),
    ("netrtl64.inf", "Net", "Realtek", [("RTL8023x64", "Rtnic64.sys", 3, 1, [
        "PCI\\VEN_10EC&DEV_8139", "PCI\\VEN_10EC&DEV_8138", "PCI\\VEN_1113&DEV_1211"])]),
]

# Names that the registry refers to and for which nothing more is needed here.
OTHERS = ["iastorv.inf", "lsi_fc.inf", "amdsata.inf", "nvraid.inf", "vsmraid.inf", "wstorflt.inf", "wvmbushid.inf",
          "cpu.inf", "keyboard.inf", "msmouse.inf", "usbport.inf"]

DATE = "06/21/2006,6.1.7601.17514"


def inf_text(name, kind, maker, services):
    lines = [
        "; Golden guest: a driver package of the model, in our own words.", "[Version]", 'Signature="$WINDOWS NT$"',
        f"Class={kind}", f"ClassGUID={CLASSES[kind]}", "Provider=%Provider%", f"DriverVer={DATE}", "",
        "[Manufacturer]", "%Maker%=Models,NTamd64", "", "[Models.NTamd64]",
    ]
    for service, _, _, _, ids in services:
        lines += [f"%{service}.Desc%={service}_Inst,{hardware}" for hardware in ids]
    for service, binary, start, error, _ in services:
        flag = "0x00000002" if kind != "System" else ""
        lines += [
            "", f"[{service}_Inst.NT]", f"CopyFiles=@{binary}", "", f"[{service}_Inst.NT.Services]",
            f"AddService={service},{flag},{service}_Service", "", f"[{service}_Service]", "ServiceType=1",
            f"StartType={start}", f"ErrorControl={error}", f"ServiceBinary=%12%\\{binary}",
        ]
    lines += ["", "[Strings]", 'Provider="Microsoft"', f'Maker="{maker}"']
    lines += [f'{service}.Desc="{service}"' for service, *_ in services]
    return ("\r\n".join(lines) + "\r\n").encode()


def all_infs():
    """INF name -> bytes."""
    found = {name: inf_text(name, *rest) for name, *rest in PACKAGES}
    for name in OTHERS:
        found[name] = b"; Golden guest: a package that the registry names; the model needs no more of it.\r\n"
    return found


def package_id(name, infs):
    """Folder name in the driver store: the hash is of our text, so it differs from Microsoft's."""
    return f"{name}_amd64_neutral_{hashlib.sha256(infs[name]).hexdigest()[:16]}"


def critical_devices():
    """CriticalDeviceDatabase: (key, service, class GUID, INF). The form of keys and values is the real hive's."""
    for name, kind, _, services in PACKAGES:
        if kind == "Net":
            continue
        for service, _, _, _, ids in services:
            for hardware in ids:
                yield hardware.replace("\\", "#"), service, CLASSES[kind], name
