"""Registry of Windows Server 2008 R2: what is the same wherever it was installed."""

import struct

import drivers
import tools
from hive import GONE, Registry, binary, dword, expand, multi, sz

SIGNATURE = 0x5A3C71E9
RESERVED_OFFSET = 2048 * 512
SYSTEM_OFFSET = 206848 * 512
CS = "ControlSet001"
LOADER = "{6c1f0b52-3d7e-11e2-9a41-c0ffee2008a2}"
RESUME = "{6c1f0b51-3d7e-11e2-9a41-c0ffee2008a2}"
BOOT_MANAGER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
HOST = "WIN2008R2"


def partition_device(offset):
    """BCD device element: a partition of an MBR disk.

    Layout measured on two real BCD hives (88 bytes): options GUID (16), type 6 = partition (4), flags (4), length of
    what follows the options GUID 0x48 (4), reserved (4), partition: byte offset (8) and zeros (8), device kind 0 =
    disk (4), partition style 1 = MBR, 0 = GPT (4), disk: signature (4) and zeros (12), zeros (16).
    """
    return struct.pack("<16xIIIIQ8xIII12x16x", 6, 0, 0x48, 0, offset, 0, 1, SIGNATURE)


def bcd():
    reg = Registry()

    def thing(guid, kind, **elements):
        reg.set(f"Objects\\{guid}\\Description", {"Type": dword(kind)})
        for element, value in sorted(elements.items()):
            reg.set(f"Objects\\{guid}\\Elements\\{element[1:]}", {"Element": value})

    def number(value):
        return binary(struct.pack("<Q", value))

    reserved, system = binary(partition_device(RESERVED_OFFSET)), binary(partition_device(SYSTEM_OFFSET))
    reg.set("Description", {"KeyName": sz("BCD00000000"), "System": dword(1), "TreatAsSystem": dword(1)})
    globals_, loaders = "{7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e}", "{6efb52bf-1766-41db-a6b3-0ee5eff72bd7}"
    thing(globals_, 0x20100000, e16000048=binary(b"\x01"))
    thing(loaders, 0x20200003, e14000006=multi(globals_))
    thing(BOOT_MANAGER, 0x10100002, e11000001=reserved, e12000004=sz("Windows Boot Manager"), e12000005=sz("en-US"),
          e14000006=multi(globals_), e23000003=sz(LOADER), e23000006=sz(RESUME), e24000001=multi(LOADER),
          e25000004=number(30))
    thing(LOADER, 0x10200003, e11000001=system, e12000002=sz("\\Windows\\system32\\winload.exe"),
          e12000004=sz("Windows Server 2008 R2"), e12000005=sz("en-US"), e14000006=multi(loaders),
          e21000001=system, e22000002=sz("\\Windows"), e23000003=sz(RESUME), e25000020=number(3))
    thing(RESUME, 0x10200004, e11000001=system, e12000002=sz("\\Windows\\system32\\winresume.exe"),
          e12000004=sz("Windows Resume Application"), e12000005=sz("en-US"), e21000001=system,
          e22000002=sz("\\hiberfil.sys"))
    return reg


def service_rows():
    for row in (tools.HERE / "services.tsv").read_text().splitlines():
        if row and not row.startswith("#"):
            yield row.split("\t")


def services(reg, infs):
    for name, start, kind, error, group, tag, path, package in service_rows():
        values = {}
        if package != "-":
            values["DriverPackageId"] = sz(drivers.package_id(package, infs))
        values["ErrorControl"] = dword(int(error))
        if group != "-":
            values["Group"] = sz(group)
        if path != "-":
            values["ImagePath"] = expand(path)
        values["Start"] = dword(int(start))
        if tag != "-":
            values["Tag"] = dword(int(tag))
        values["Type"] = dword(int(kind))
        reg.set(f"{CS}\\services\\{name}", values)


def firewall(reg):
    policy = f"{CS}\\services\\SharedAccess\\Parameters\\FirewallPolicy"
    reg.set(policy, {"DisableStatefulFTP": dword(0), "IPSecExempt": dword(9), "PolicyVersion": dword(0x20A)})
    for profile in ("DomainProfile", "PublicProfile", "StandardProfile"):
        reg.set(f"{policy}\\{profile}", {"DisableNotifications": dword(1), "EnableFirewall": dword(1)})
    private = "|Profile=Domain|Profile=Private"
    reg.set(f"{policy}\\FirewallRules", {
        "CoreNet-DHCP-In": sz("v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=17|LPort=68|RPort=67|"
                              "App=%SystemRoot%\\system32\\svchost.exe|Svc=dhcp|Name=DHCP in|"),
        "CoreNet-ICMP4-DUFRAG-In": sz("v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=1|ICMP4=3:4|App=System|Name=Fragmentation needed in|"),
        "FPS-ICMP4-ERQ-In": sz(f"v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=1{private}|ICMP4=8:*|Name=Echo request in|"),
        "FPS-ICMP4-ERQ-In-NoScope": sz("v2.10|Action=Allow|Active=FALSE|Dir=In|Protocol=1|Profile=Public|ICMP4=8:*|Name=Echo request in|"),
        "RemoteDesktop-In-TCP": sz(f"v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=6{private}|LPort=3389|App=System|Name=Remote Desktop|"),
    })


def system(infs):
    reg = Registry()
    reg.set("Select", {"Current": dword(1), "Default": dword(1), "Failed": dword(0), "LastKnownGood": dword(1)})
    reg.set("Setup", {"CmdLine": sz(""), "OOBEInProgress": dword(0), "SetupPhase": dword(0), "SetupType": dword(0),
                      "SystemPartition": sz("\\Device\\HarddiskVolume1"), "SystemSetupInProgress": dword(0)})

    def volume(offset):
        return binary(struct.pack("<IQ", SIGNATURE, offset))

    reg.set("MountedDevices", {
        "\\??\\Volume{6c1f0b55-3d7e-11e2-9a41-806e6f6e6963}": volume(RESERVED_OFFSET),
        "\\??\\Volume{6c1f0b56-3d7e-11e2-9a41-806e6f6e6963}": volume(SYSTEM_OFFSET),
        "\\DosDevices\\C:": volume(SYSTEM_OFFSET),
    })
    control = f"{CS}\\Control"
    reg.set(control, {"CurrentUser": sz("USERNAME"), "SystemStartOptions": sz(" NOEXECUTE=OPTOUT"),
                      "FirmwareBootDevice": sz("multi(0)disk(0)rdisk(0)partition(1)"),
                      "SystemBootDevice": sz("multi(0)disk(0)rdisk(0)partition(2)")})
    reg.set(f"{control}\\ComputerName\\ComputerName", {"": sz("mnmsrvc"), "ComputerName": sz(HOST)})
    # A real hive's values; RealTimeIsUniversal is absent, so the clock chip is read as local time.
    reg.set(f"{control}\\TimeZoneInformation", {
        "ActiveTimeBias": dword(0x12C), "Bias": dword(0x12C), "DaylightBias": dword(0xFFFFFFC4),
        "DaylightName": sz("@tzres.dll,-111"), "DaylightStart": binary(bytes.fromhex("00000300020002000000000000000000")),
        "DynamicDaylightTimeDisabled": dword(0), "StandardBias": dword(0), "StandardName": sz("@tzres.dll,-112"),
        "StandardStart": binary(bytes.fromhex("00000b00010002000000000000000000")),
        "TimeZoneKeyName": sz("Eastern Standard Time"),
    })
    reg.set(f"{control}\\ProductOptions", {"ProductSuite": multi("Terminal Server"), "ProductType": sz("ServerNT")})
    reg.set(f"{control}\\ServiceGroupOrder", {"List": multi(
        "System Reserved", "EMS", "WdfLoadGroup", "Boot Bus Extender", "System Bus Extender", "SCSI miniport", "Port",
        "Primary Disk", "SCSI Class", "SCSI CDROM Class", "FSFilter Infrastructure", "FSFilter Bottom", "Filter",
        "Boot File System", "Base", "Extended Base", "Keyboard Port", "Pointer Port", "Keyboard Class", "Pointer Class",
        "Video", "Event Log", "PNP_TDI", "NDIS", "TDI", "NetworkProvider")})
    database = f"{control}\\CriticalDeviceDatabase"
    for key, service, guid, inf in drivers.critical_devices():
        reg.set(f"{database}\\{key}", {
            "ClassGUID": sz(guid), "DriverPackageId": sz(drivers.package_id(inf, infs)), "Service": sz(service)})
    reg.set(f"{database}\\pci#cc_0600", {"ClassGUID": sz(drivers.CLASSES["System"])})
    for kind, guid in drivers.CLASSES.items():
        reg.set(f"{control}\\Class\\{guid}", {"Class": sz(kind)})
    services(reg, infs)
    tcpip = f"{CS}\\services\\Tcpip\\Parameters"
    reg.set(tcpip, {
        "DataBasePath": expand("%SystemRoot%\\System32\\drivers\\etc"), "Domain": sz(""), "Hostname": sz(HOST),
        "NV Hostname": sz(HOST), "NameServer": sz(""), "SearchList": sz(""), "IPEnableRouter": dword(0),
        "UseDomainNameDevolution": dword(1), "EnableICMPRedirect": dword(1)})
    reg.set(f"{tcpip}\\Interfaces", {})
    firewall(reg)
    reg.set(f"{CS}\\services\\W32Time\\Parameters", {"NtpServer": sz("time.windows.com,0x9"), "Type": sz("NTP")})
    return reg


def software():
    reg = Registry()
    reg.set("Microsoft\\Windows NT\\CurrentVersion", {
        "CSDVersion": sz("Service Pack 1"), "CurrentBuild": sz("7601"), "CurrentBuildNumber": sz("7601"),
        "CurrentType": sz("Multiprocessor Free"), "CurrentVersion": sz("6.1"), "EditionID": sz("ServerStandard"),
        "InstallationType": sz("Server"), "ProductName": sz("Windows Server 2008 R2 Standard"),
        "PathName": sz("C:\\Windows"), "SystemRoot": sz("C:\\Windows"), "SoftwareType": sz("System"),
        "InstallDate": dword(tools.EPOCH),
    })
    reg.set("Microsoft\\Windows\\CurrentVersion", {
        "CommonFilesDir": sz("C:\\Program Files\\Common Files"), "ProgramFilesDir": sz("C:\\Program Files"),
        "DevicePath": expand("%SystemRoot%\\inf")})
    reg.set("Microsoft\\Windows\\CurrentVersion\\Group Policy\\History", {})
    reg.set("Microsoft\\Windows NT\\CurrentVersion\\NetworkList\\Profiles", {})
    reg.set("Microsoft\\Windows NT\\CurrentVersion\\NetworkList\\Signatures\\Managed", {})
    reg.set("Microsoft\\Windows NT\\CurrentVersion\\NetworkList\\Signatures\\Unmanaged", {})
    return reg


def used(reg, infs, name, tag, path, keep_package=False):
    """A boot driver whose device was there at installation: the real hive's state of such a driver."""
    key = f"{CS}\\services\\{name}"
    values = {"ImagePath": expand(path), "Start": dword(0)}
    if tag is not None:
        values["Tag"] = dword(tag)
    if not keep_package:
        values["DriverPackageId"] = GONE
    reg.set(key, values)
