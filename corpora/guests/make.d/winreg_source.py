"""Registry of Windows Server 2008 R2: what installation on one machine left behind."""

import struct

import drivers
import tools
from hive import GONE, Registry, binary, dword, expand, multi, sz
from winreg_common import CS, used

NO_CONTAINER = "{00000000-0000-0000-ffff-ffffffffffff}"
GATEWAY_MAC = bytes.fromhex("001b210a2001")
NET = drivers.CLASSES["Net"]


class Device:
    """One device node: an Enum key and its Class key."""

    def __init__(self, path, service, kind, number, inf, desc, hardware, compatible, where=None, number_in_bus=None):
        self.path, self.service, self.kind, self.number, self.inf = path, service, kind, number, inf
        self.desc, self.hardware, self.compatible = desc, hardware, compatible
        self.where, self.bus_number = where, number_in_bus

    def write(self, reg, **more):
        guid = drivers.CLASSES[self.kind].lower()
        values = {
            "Capabilities": dword(6 if self.kind == "Net" else 0), "Class": sz(self.kind), "ClassGUID": sz(guid),
            "CompatibleIDs": multi(*self.compatible), "ConfigFlags": dword(0), "ContainerID": sz(NO_CONTAINER),
            "DeviceDesc": sz(f"@{self.inf},%{self.service.lower()}%;{self.desc}"),
            "Driver": sz(f"{guid}\\{self.number:04d}"), "HardwareID": multi(*self.hardware), "Service": sz(self.service),
        }
        if self.where:
            values["LocationInformation"] = sz(self.where)
        if self.bus_number is not None:
            values["UINumber"] = dword(self.bus_number)
        reg.set(f"{CS}\\Enum\\{self.path}", values)
        reg.set(f"{CS}\\Control\\Class\\{drivers.CLASSES[self.kind]}\\{self.number:04d}", {
            "DriverDate": sz("6-21-2006"), "DriverDesc": sz(self.desc), "DriverVersion": sz("6.1.7601.17514"),
            "InfPath": sz(self.inf), "InfSection": sz(f"{self.service}_Inst"),
            "MatchingDeviceId": sz(self.matching()), "ProviderName": sz("Microsoft"), **more,
        })

    def matching(self):
        for inf, _, _, services in drivers.PACKAGES:
            if inf == self.inf:
                listed = {hardware.lower() for _, _, _, _, ids in services for hardware in ids}
                for hardware in self.hardware + self.compatible:
                    if hardware.lower() in listed:
                        return hardware.lower()
        raise ValueError(f"{self.inf} does not list {self.path}")


def pci(vendor, device, subsystem, revision, class_code, instance, bus, service, kind, number, inf, desc, slot=None):
    """A PCI function with the ids in the order in which Windows 6.1 lists them (checked on a real Enum key)."""
    name = f"PCI\\VEN_{vendor}&DEV_{device}"
    full = f"{name}&SUBSYS_{subsystem}&REV_{revision}"
    long, short = f"CC_{class_code}", f"CC_{class_code[:4]}"
    hardware = [full, f"{name}&SUBSYS_{subsystem}", f"{name}&{long}", f"{name}&{short}"]
    compatible = [f"{name}&REV_{revision}", name, f"PCI\\VEN_{vendor}&{long}", f"PCI\\VEN_{vendor}&{short}",
                  f"PCI\\VEN_{vendor}", f"PCI\\{long}", f"PCI\\{short}"]
    where = f"@system32\\drivers\\pci.sys,#65536;PCI bus %1, device %2, function %3;({bus})"
    return Device(f"{full}\\{instance}", service, kind, number, inf, desc, hardware, compatible, where, slot)


def channel(parent, index, chip):
    return Device(f"PCIIDE\\IDEChannel\\{parent}&{index}", "atapi", "hdc", 1 + index, "mshdc.inf", "IDE Channel",
                  [chip, "Internal_IDE_Channel"], ["*PNP0600"], f"Channel {index}")


def vmbus(guid, instance, service, kind, number, inf, desc):
    """A channel of VMBus: one id, the GUID of its class."""
    name = f"VMBUS\\{guid}"
    return Device(f"{name}\\{instance}", service, kind, number, inf, desc, [name], [])


def of_address(mac):
    """Instance made of a MAC address, in the form in which a serial number of PCI Express is (drylab_guest's)."""
    a, b, c, d, e, f = mac.upper().split(":")
    return f"FF{c}{b}{a}{f}{e}{d}FE00"


def drive(bus, name, instance, service, kind, inf, desc, generic, where):
    return Device(f"{bus}\\{name}\\{instance}", service, kind, 0, inf, desc, [f"{bus}\\{name}", generic], [generic], where)


SOURCES = {
    "esxi-5.0.0": {
        "address": "10.20.0.137", "mac": "00:0c:29:4f:8e:37", "guid": "{7B1D4E0A-52C3-4F68-9D17-3A5E8C20B137}",
        "profile": "{4E2A9C31-6D58-4B07-A1F3-90D7C5B2E137}", "nic": lambda: pci(
            "8086", "100F", "075015AD", "01", "020000", "4&b70f118&0&0088", "2,0,0", "E1G60", "Net", 7, "nete1g3e.inf",
            "Intel(R) PRO/1000 MT Network Connection", 0x20),
        "devices": lambda: [
            pci("8086", "7111", "197615AD", "01", "01018A", "3&18d45aa6&0&39", "0,7,1", "intelide", "hdc", 0,
                "mshdc.inf", "Intel(R) 82371AB/EB PCI Bus Master IDE Controller"),
            channel("4&39ec5d8a&0", 0, "Intel-PIIX4"), channel("4&39ec5d8a&0", 1, "Intel-PIIX4"),
            pci("1000", "0054", "197615AD", "01", "010700", "4&2732702b&0&00A8", "3,0,0", "LSI_SAS", "SCSIAdapter", 0,
                "lsi_sas.inf", "LSI Adapter, SAS 3000 series, 8-port with 1068", 0xA0),
            drive("SCSI", "Disk&Ven_VMware&Prod_Virtual_disk", "5&1982005&0&000000", "disk", "DiskDrive", "disk.inf",
                  "Disk drive", "GenDisk", "Bus Number 0, Target Id 0, LUN 0"),
            drive("IDE", "CdRomNECVMWar_VMware_IDE_CDR10_______________1.00____", "5&290fd3ab&0&1.0.0", "cdrom", "CDROM",
                  "cdrom.inf", "CD-ROM Drive", "GenCdRom", "Channel 1, Target 0, Lun 0"),
        ],
        "boot": [("intelide", 4, "system32\\drivers\\intelide.sys", False),
                 ("atapi", 33, "system32\\drivers\\atapi.sys", True),
                 ("LSI_SAS", 64, "\\SystemRoot\\system32\\drivers\\lsi_sas.sys", False)],
        "seen": ["PCI#VEN_8086&DEV_7111", "PCI#VEN_1000&DEV_0054"],
    },
    "kvm-centos-6.3": {
        "address": "10.20.0.160", "mac": "52:54:00:6b:3c:5a", "guid": "{7B1D4E0A-52C3-4F68-9D17-3A5E8C20B15A}",
        "profile": "{4E2A9C31-6D58-4B07-A1F3-90D7C5B2E15A}", "nic": lambda: pci(
            "10EC", "8139", "11001AF4", "20", "020000", "3&13c0b0c5&0&18", "0,3,0", "RTL8023x64", "Net", 7,
            "netrtl64.inf", "Realtek RTL8139C+ Fast Ethernet NIC", 0x03),
        "devices": lambda: [
            pci("8086", "7010", "11001AF4", "00", "010180", "3&13c0b0c5&0&09", "0,1,1", "intelide", "hdc", 0,
                "mshdc.inf", "Intel(R) 82371SB PCI Bus Master IDE Controller"),
            channel("4&2617aeae&0", 0, "Intel-PIIX3"), channel("4&2617aeae&0", 1, "Intel-PIIX3"),
            drive("IDE", "DiskQEMU_HARDDISK___________________________0.12.1__", "5&2770a7af&0&0.0.0", "disk", "DiskDrive",
                  "disk.inf", "Disk drive", "GenDisk", "Channel 0, Target 0, Lun 0"),
            drive("IDE", "CdRomQEMU_QEMU_DVD-ROM_____________________0.12.1__", "5&3f0b5c6e&0&1.0.0", "cdrom", "CDROM",
                  "cdrom.inf", "CD-ROM Drive", "GenCdRom", "Channel 1, Target 0, Lun 0"),
        ],
        "boot": [("intelide", 4, "system32\\drivers\\intelide.sys", False),
                 ("atapi", 33, "system32\\drivers\\atapi.sys", True)],
        "seen": ["PCI#VEN_8086&DEV_7010"],
    },
    # Without XenServer Tools: the emulated devices only.
    "xenserver-6.0.2": {
        "address": "10.20.0.143", "mac": "7a:c4:31:e9:5b:8f", "guid": "{7B1D4E0A-52C3-4F68-9D17-3A5E8C20B143}",
        "profile": "{4E2A9C31-6D58-4B07-A1F3-90D7C5B2E143}", "nic": lambda: pci(
            "10EC", "8139", "00015853", "20", "020000", "3&267a616a&0&20", "0,4,0", "RTL8023x64", "Net", 7,
            "netrtl64.inf", "Realtek RTL8139C+ Fast Ethernet NIC", 0x04),
        "devices": lambda: [
            pci("8086", "7010", "00015853", "00", "010180", "3&267a616a&0&09", "0,1,1", "intelide", "hdc", 0,
                "mshdc.inf", "Intel(R) 82371SB PCI Bus Master IDE Controller"),
            channel("4&1f7bc3a2&0", 0, "Intel-PIIX3"), channel("4&1f7bc3a2&0", 1, "Intel-PIIX3"),
            drive("IDE", "DiskQEMU_HARDDISK___________________________0.10.2__", "5&1c2a8f34&0&0.0.0", "disk", "DiskDrive",
                  "disk.inf", "Disk drive", "GenDisk", "Channel 0, Target 0, Lun 0"),
            drive("IDE", "CdRomQEMU_QEMU_DVD-ROM_____________________0.10.2__", "5&2b6d90e1&0&1.1.0", "cdrom", "CDROM",
                  "cdrom.inf", "CD-ROM Drive", "GenCdRom", "Channel 1, Target 1, Lun 0"),
        ],
        "boot": [("intelide", 4, "system32\\drivers\\intelide.sys", False),
                 ("atapi", 33, "system32\\drivers\\atapi.sys", True)],
        "seen": ["PCI#VEN_8086&DEV_7010"],
    },
    # The SCSI controller is the one that the wizard gives every machine; nothing is on it.
    "hyperv-2008r2": {
        "address": "10.20.0.153", "mac": "00:15:5d:00:0d:02", "guid": "{7B1D4E0A-52C3-4F68-9D17-3A5E8C20B153}",
        "profile": "{4E2A9C31-6D58-4B07-A1F3-90D7C5B2E153}", "nic": lambda: vmbus(
            "{f8615163-df3e-46c5-913f-f2d2f965ed0e}", of_address("00:15:5d:00:0d:02"), "netvsc", "Net", 7,
            "wnetvsc.inf", "Microsoft Virtual Machine Bus Network Adapter"),
        "devices": lambda: [
            pci("8086", "7111", "00000000", "01", "010180", "3&267a616a&0&39", "0,7,1", "intelide", "hdc", 0,
                "mshdc.inf", "Intel(R) 82371AB/EB PCI Bus Master IDE Controller"),
            channel("4&10bf2f88&0", 0, "Intel-PIIX4"), channel("4&10bf2f88&0", 1, "Intel-PIIX4"),
            drive("IDE", "DiskVirtual_HD______________________________1.1.0___", "5&35dc7040&0&0.0.0", "disk", "DiskDrive",
                  "disk.inf", "Disk drive", "GenDisk", "Channel 0, Target 0, Lun 0"),
            drive("IDE", "CdRomMsft_Virtual_CD/ROM_____________________1.0_____", "5&cfb56de&0&1.0.0", "cdrom", "CDROM",
                  "cdrom.inf", "CD-ROM Drive", "GenCdRom", "Channel 1, Target 0, Lun 0"),
            Device("ACPI\\VMBus\\0", "vmbus", "System", 0, "wvmbus.inf", "Virtual Machine Bus", ["ACPI\\VMBus"], []),
            vmbus("{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}", "5&2d8f1c07&0&00", "storvsc", "SCSIAdapter", 0,
                  "wstorvsc.inf", "Microsoft Virtual Machine Bus Storage Controller"),
        ],
        "boot": [("intelide", 4, "system32\\drivers\\intelide.sys", False),
                 ("atapi", 33, "system32\\drivers\\atapi.sys", True),
                 ("vmbus", None, "system32\\drivers\\vmbus.sys", False),
                 ("storvsc", None, "system32\\drivers\\storvsc.sys", False)],
        "seen": ["PCI#VEN_8086&DEV_7111", "ACPI#VMBus", "VMBUS#{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}"],
    },
}

NIC_SERVICES = {"E1G60": ("E1G6032E.sys", 22), "RTL8023x64": ("Rtnic64.sys", 23), "netvsc": ("netvsc60.sys", 24)}
# NDIS's numbers of the buses (INTERFACE_TYPE): what an adapter's INF writes into BusType.
PCI_BUS, PNP_BUS = 5, 15


def system(source, infs):
    reg = Registry()
    for name, tag, path, keep in source["boot"]:
        used(reg, infs, name, tag, path, keep)
        if name == "LSI_SAS":
            reg.set(f"{CS}\\services\\LSI_SAS\\Parameters", {"BusType": dword(10)})
    for key in source["seen"]:
        reg.set(f"{CS}\\Control\\CriticalDeviceDatabase\\{key}", {"DriverPackageId": GONE})
    for device in source["devices"]():
        device.write(reg)
    network(reg, source)
    return reg


def network(reg, source):
    nic, guid = source["nic"](), source["guid"]
    binary_name, tag = NIC_SERVICES[nic.service]
    bus = PCI_BUS if nic.path.startswith("PCI\\") else PNP_BUS
    reg.set(f"{CS}\\services\\{nic.service}", {
        "DisplayName": sz(nic.desc + " Driver"), "ErrorControl": dword(1), "Group": sz("NDIS"),
        "ImagePath": expand(f"system32\\DRIVERS\\{binary_name}"), "NdisMajorVersion": dword(6), "NdisMinorVersion": dword(0),
        "Start": dword(3), "Tag": dword(tag), "Type": dword(1)})
    instance = f"{nic.path}"
    nic.write(reg, **{"*IfType": dword(6), "*MediaType": dword(0), "*PhysicalMediaType": dword(14),
                      "Characteristics": dword(0x84), "BusType": sz(str(bus)), "ComponentId": sz(nic.matching()),
                      "DeviceInstanceID": sz(instance), "NetCfgInstanceId": sz(guid), "NetLuidIndex": dword(6),
                      "NewDeviceInstall": dword(1)})
    reg.set(f"{CS}\\Control\\Network\\{NET}\\{guid}\\Connection", {
        "DefaultNameIndex": dword(0), "DefaultNameResourceId": dword(0x70B), "Name": sz("Local Area Connection"),
        "PnpInstanceID": sz(instance)})
    lease, start = 86400, tools.EPOCH
    gateway = bytes([10, 20, 0, 1]) + struct.pack("<I", 6) + GATEWAY_MAC
    reg.set(f"{CS}\\services\\Tcpip\\Parameters\\Interfaces\\{guid}", {
        "AddressType": dword(0), "DhcpConnForceBroadcastFlag": dword(0), "DhcpDefaultGateway": multi("10.20.0.1"),
        "DhcpDomain": sz("lab.example"), "DhcpGatewayHardware": binary(gateway), "DhcpGatewayHardwareCount": dword(1),
        "DhcpIPAddress": sz(source["address"]), "DhcpNameServer": sz("10.20.0.2"), "DhcpServer": sz("10.20.0.2"),
        "DhcpSubnetMask": sz("255.255.255.0"), "DhcpSubnetMaskOpt": multi("255.255.255.0"), "Domain": sz(""),
        "EnableDHCP": dword(1), "EnableDeadGWDetect": dword(1), "IsServerNapAware": dword(0), "Lease": dword(lease),
        "LeaseObtainedTime": dword(start), "LeaseTerminatesTime": dword(start + lease), "NameServer": sz(""),
        "RegisterAdapterName": dword(0), "RegistrationEnabled": dword(1), "T1": dword(start + lease // 2),
        "T2": dword(start + lease * 7 // 8), "UseZeroBroadcast": dword(0)})


def software(source):
    """The network as Network Location Awareness knows it: by the gateway's hardware address; category 1 = private."""
    reg = Registry()
    network_list = "Microsoft\\Windows NT\\CurrentVersion\\NetworkList"
    when = binary(struct.pack("<8H", 2013, 2, 1, 11, 9, 0, 0, 0))
    reg.set(f"{network_list}\\Profiles\\{source['profile']}", {
        "Category": dword(1), "DateCreated": when, "DateLastConnected": when, "Description": sz("Network"),
        "Managed": dword(0), "NameType": dword(6), "ProfileName": sz("Network")})
    signature = "010103000F0000F0080000000F0000F0" + GATEWAY_MAC.hex().upper().ljust(32, "0")
    reg.set(f"{network_list}\\Signatures\\Unmanaged\\{signature}", {
        "DefaultGatewayMac": binary(GATEWAY_MAC), "Description": sz("Network"), "DnsSuffix": sz("lab.example"),
        "FirstNetwork": sz("Network"), "ProfileGuid": sz(source["profile"]), "Source": dword(8)})
    reg.set("Microsoft\\Windows NT\\CurrentVersion\\NetworkCards\\8", {
        "Description": sz(source["nic"]().desc), "ServiceName": sz(source["guid"])})
    return reg
