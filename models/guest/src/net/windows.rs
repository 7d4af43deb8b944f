//! What a Windows image says of its network: adapters it knows, drivers it can install, interfaces, firewall,
//! network list. The inspector fills these values from the registry and the INF folder; [`super::bring_up_windows`]
//! meets them with a machine.
//!
//! ```text
//! SYSTEM\ControlSet00n\Enum\PCI\VEN_8086&DEV_100F&SUBSYS_075015AD&REV_01\4&3ad87e0a&0&0888
//!     HardwareID, LocationInformation "…;(2,1,0)", Service "E1G60", Driver "{4d36e972-…}\0007"
//! SYSTEM\ControlSet00n\Enum\{VMBUS,XEN,XENBUS,XENVIF}\…                             the same, without a location
//! SYSTEM\ControlSet00n\Control\Class\{4d36e972-e325-11ce-bfc1-08002be10318}\0007   NetCfgInstanceId "{GUID}"
//! SYSTEM\ControlSet00n\Services\Tcpip\Parameters\Interfaces\{GUID}                 EnableDHCP, IPAddress, …
//! SYSTEM\ControlSet00n\Services\SharedAccess\Parameters\FirewallPolicy             profiles and rules
//! SOFTWARE\Microsoft\Windows NT\CurrentVersion\NetworkList\{Profiles,Signatures}   NLA
//! ```

use drylab_catalog::{Mac, PciAddress, Witness};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Everything of the image that decides how its network comes up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsNet {
    /// `ComputerName`, for the DHCP host name option.
    pub host_name: Option<String>,
    /// Adapters the image has seen: one per network-class instance under `Enum\PCI`, `Enum\VMBUS` and Xen's buses, in
    /// key order.
    pub adapters: Vec<WindowsAdapter>,
    /// Drivers the image can install by itself: every hardware id (upper case, as in the INF: `PCI\VEN_8086&DEV_100F`)
    /// of its network INFs, with the service it names.
    pub inf: BTreeMap<String, InfDriver>,
    /// Folders that Windows searches for INFs and that are not in the image: what is in them is not known.
    pub unsearched: Vec<Witness>,
    /// `Services\Tcpip\Parameters\Interfaces\{GUID}`, by GUID in upper case with braces.
    pub interfaces: BTreeMap<String, TcpipInterface>,
    /// Names by interface GUID, upper case with braces: `Control\Network\{4D36E972-…}\{GUID}\Connection`, value Name.
    pub connections: BTreeMap<String, String>,
    /// The firewall's profiles and rules.
    pub firewall: WindowsFirewallFacts,
    /// Networks NLA has met.
    pub networks: Vec<KnownNetwork>,
    /// DNS suffix of the machine (`Tcpip\Parameters\Domain` or `NV Domain`).
    pub domain: Option<String>,
}

/// One adapter the image has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowsAdapter {
    /// Full key for witnesses: `SYSTEM\ControlSet001\Enum\PCI\VEN_…\4&3ad87e0a&0&0888`.
    pub key: String,
    /// Device id, upper case: `PCI\VEN_8086&DEV_100F&SUBSYS_075015AD&REV_01`.
    pub device_id: String,
    /// Instance id: `4&3ad87e0a&0&0888` (location), or a serial number such as `FF290C008E0E28FE00`.
    pub instance: String,
    /// `(bus, device, function)` at the end of `LocationInformation`, where present.
    pub location: Option<PciAddress>,
    /// Value `Service`: the driver bound to it.
    pub service: Option<String>,
    /// `NetCfgInstanceId` of its class key, upper case with braces: the interface GUID.
    pub interface: Option<String>,
}

/// A driver an INF offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfDriver {
    /// Path of the INF: `/Windows/inf/nete1g3e.inf`.
    pub inf: String,
    /// Line in it that names the hardware id, from 1; 0 when not known.
    pub line: u32,
    /// Service it installs: `E1G60`.
    pub service: String,
    /// Why it cannot be installed: what of the package is not in the image, as a clause.
    pub missing: Option<String>,
    /// What makes Windows search the folder of the INF; `None` for a package of the driver store.
    pub searched: Option<Witness>,
}

/// Settings of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpipInterface {
    /// Full key for witnesses: `SYSTEM\ControlSet001\Services\Tcpip\Parameters\Interfaces\{…}`. Empty for an
    /// interface that the image does not have.
    pub key: String,
    /// Why there is an interface that the image does not have: what made it at a boot that was followed here. Empty
    /// for one whose key is in the image's registry.
    pub made: Vec<Witness>,
    /// `EnableDHCP` is not 0 (absent counts as 1, as for a new interface).
    pub dhcp: bool,
    /// `IPAddress` with `SubnetMask`, pairwise; `0.0.0.0` left out.
    pub addresses: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// `DefaultGateway`.
    pub gateways: Vec<Ipv4Addr>,
    /// `NameServer` (static), split at commas and spaces.
    pub dns: Vec<Ipv4Addr>,
    /// The lease it remembers.
    pub lease: Option<WindowsLease>,
}

/// `DhcpIPAddress`, `DhcpServer` and the rest of a remembered lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowsLease {
    /// `DhcpIPAddress`.
    pub address: Ipv4Addr,
    /// `DhcpSubnetMask`.
    pub mask: Ipv4Addr,
    /// `DhcpServer`.
    pub server: Ipv4Addr,
    /// `DhcpDefaultGateway`, first.
    pub gateway: Option<Ipv4Addr>,
    /// `LeaseTerminatesTime`, seconds since 1970.
    pub expires_s: u64,
}

/// The registry's firewall policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsFirewallFacts {
    /// Key of the policy, for witnesses: `SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy`.
    pub key: String,
    /// `DomainProfile\EnableFirewall`; absent counts as on.
    pub domain_enabled: bool,
    /// `StandardProfile\EnableFirewall` (the private profile).
    pub private_enabled: bool,
    /// `PublicProfile\EnableFirewall`.
    pub public_enabled: bool,
    /// `FirewallRules`: value name and text, `v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=3389|…`.
    pub rules: BTreeMap<String, String>,
}

/// One network of NLA's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNetwork {
    /// Key of the signature, for witnesses; `None` for a network first met at a boot that was followed here.
    pub key: Option<String>,
    /// `DefaultGatewayMac` of the signature.
    pub gateway_mac: Option<Mac>,
    /// `DnsSuffix` of the signature; empty or `<none>` is `None`.
    pub dns_suffix: Option<String>,
    /// `ProfileName` of the profile.
    pub name: String,
    /// `Category` of the profile.
    pub category: NetworkCategory,
}

/// NLA's category of a network, value `Category`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkCategory {
    /// 0, also for networks never seen.
    Public,
    /// 1.
    Private,
    /// 2: a domain controller answered.
    Domain,
}

impl NetworkCategory {
    /// From the registry's number; unknown numbers count as public.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Private,
            2 => Self::Domain,
            _ => Self::Public,
        }
    }
}

/// Instance id Windows gives a PCI Express adapter with a device serial number made from its MAC:
/// `FF`, vendor part and device part each with the bytes reversed, `FE00`.
///
/// Read in listings of VMware guests: MAC 00:50:56:95:08:bb has instance `FF565000BB0895FE00`.
#[must_use]
pub fn serial_instance(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac.0;
    format!("FF{c:02X}{b:02X}{a:02X}{f:02X}{e:02X}{d:02X}FE00")
}

/// Device and function from a location-based instance id: `4&3ad87e0a&0&0888` is device 1, function 0, behind
/// the bridge at 0x88. `None` for serial numbers.
#[must_use]
pub fn instance_slot(instance: &str) -> Option<(u8, u8)> {
    let path = instance
        .rsplit('&')
        .next()
        .filter(|_| instance.contains('&'))?;
    let code = u8::from_str_radix(path.get(..2)?, 16).ok()?;
    Some((code >> 3, code & 7))
}

#[cfg(test)]
mod tests {
    use super::{instance_slot, serial_instance};
    use drylab_catalog::Mac;

    #[test]
    fn instance_ids_are_spelled_as_in_listings_of_real_guests() {
        assert_eq!(
            serial_instance(Mac([0x00, 0x50, 0x56, 0x95, 0x08, 0xbb])),
            "FF565000BB0895FE00"
        );
        assert_eq!(instance_slot("4&3AD87E0A&0&0888"), Some((1, 0)));
        assert_eq!(instance_slot("3&267A616A&0&18"), Some((3, 0)));
        assert_eq!(instance_slot("FF565000BB0895FE00"), None);
    }
}
