//! Network facts of a Windows image, for [`crate::net::windows`].

use super::registry::Registry;
use super::windows::Files;
use super::windows_inf;
use crate::net::windows::{
    KnownNetwork, NetworkCategory, TcpipInterface, WindowsAdapter, WindowsFirewallFacts,
    WindowsLease, WindowsNet,
};
use drylab_catalog::{Mac, PciAddress};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Class of network adapters.
const NET_CLASS: &str = "{4d36e972-e325-11ce-bfc1-08002be10318}";

/// Reads everything the network models need.
pub(crate) fn read(
    system: &Registry,
    software: Option<&Registry>,
    set: &str,
    files: &Files<'_>,
) -> WindowsNet {
    let parameters = format!("{set}\\Services\\Tcpip\\Parameters");
    let name = system.text(
        &format!("{set}\\Control\\ComputerName\\ComputerName"),
        "ComputerName",
    );
    let domain = ["Domain", "NV Domain"]
        .iter()
        .find_map(|value| system.text(&parameters, value));
    let found = windows_inf::search(software, files);
    WindowsNet {
        host_name: name.map(|name| name.value),
        adapters: adapters(system, set),
        inf: found.drivers,
        unsearched: found.unsearched,
        interfaces: interfaces(system, &parameters),
        connections: connections(system, set),
        firewall: firewall(system, set),
        networks: software.map(networks).unwrap_or_default(),
        domain: domain
            .map(|domain| domain.value)
            .filter(|domain| !domain.is_empty()),
    }
}

/// Buses an adapter may sit on: PCI, Hyper-V's, and Xen's as the tools of different years call it.
const BUSES: [&str; 5] = ["PCI", "VMBUS", "XEN", "XENBUS", "XENVIF"];

/// Network-class instances under `Enum`.
fn adapters(system: &Registry, set: &str) -> Vec<WindowsAdapter> {
    let each = |bus: &&str| adapters_on(system, set, bus);
    BUSES.iter().flat_map(each).collect()
}

fn adapters_on(system: &Registry, set: &str, bus: &str) -> Vec<WindowsAdapter> {
    let base = format!("{set}\\Enum\\{bus}");
    let mut found = Vec::new();
    for device in system.names(&base) {
        for instance in system.names(&format!("{base}\\{device}")) {
            let key = format!("{base}\\{device}\\{instance}");
            let text = |value: &str| system.text(&key, value).map(|text| text.value);
            let driver = text("Driver");
            let class = text("ClassGUID")
                .is_some_and(|class| class.eq_ignore_ascii_case(NET_CLASS))
                || driver
                    .as_ref()
                    .is_some_and(|driver| driver.to_lowercase().starts_with(NET_CLASS));
            if !class {
                continue;
            }
            let interface = driver.and_then(|driver| {
                let class = format!("{set}\\Control\\Class\\{driver}");
                system
                    .text(&class, "NetCfgInstanceId")
                    .map(|guid| guid.value.to_uppercase())
            });
            found.push(WindowsAdapter {
                key: system.full(&key),
                device_id: format!("{bus}\\{}", device.to_uppercase()),
                location: text("LocationInformation").as_deref().and_then(location),
                service: text("Service"),
                instance,
                interface,
            });
        }
    }
    found
}

/// `(bus,device,function)` at the end of `LocationInformation`, or the words `PCI bus 2, device 1, function 0`.
fn location(text: &str) -> Option<PciAddress> {
    let tail = match text.rsplit_once('(') {
        Some((_, tail)) => tail.trim_end_matches(')').to_owned(),
        None => text
            .rsplit(';')
            .next()?
            .to_lowercase()
            .replace("pci bus", "")
            .replace("device", "")
            .replace("function", ""),
    };
    let mut numbers = tail
        .split(',')
        .map(|number| number.trim().parse::<u8>().ok());
    Some(PciAddress {
        bus: numbers.next()??,
        device: numbers.next()??,
        function: numbers.next()??,
    })
}

fn address(text: &str) -> Option<Ipv4Addr> {
    text.trim()
        .parse()
        .ok()
        .filter(|address: &Ipv4Addr| !address.is_unspecified())
}

fn interfaces(system: &Registry, parameters: &str) -> BTreeMap<String, TcpipInterface> {
    let base = format!("{parameters}\\Interfaces");
    let mut found = BTreeMap::new();
    for guid in system.names(&base) {
        let key = format!("{base}\\{guid}");
        let addresses = |value: &str| -> Vec<Ipv4Addr> {
            system
                .texts(&key, value)
                .iter()
                .filter_map(|text| address(text))
                .collect()
        };
        let dns = system
            .text(&key, "NameServer")
            .map(|text| text.value)
            .unwrap_or_default();
        let interface = TcpipInterface {
            dhcp: system
                .number(&key, "EnableDHCP")
                .is_none_or(|number| number.value != 0),
            addresses: addresses("IPAddress")
                .into_iter()
                .zip(addresses("SubnetMask"))
                .collect(),
            gateways: addresses("DefaultGateway"),
            dns: dns.split([',', ' ']).filter_map(address).collect(),
            lease: lease(system, &key),
            key: system.full(&key),
            made: Vec::new(),
        };
        found.insert(guid.to_uppercase(), interface);
    }
    found
}

fn lease(system: &Registry, key: &str) -> Option<WindowsLease> {
    let one = |value: &str| {
        system
            .texts(key, value)
            .first()
            .and_then(|text| address(text))
    };
    Some(WindowsLease {
        address: one("DhcpIPAddress")?,
        mask: one("DhcpSubnetMask")?,
        server: one("DhcpServer")?,
        gateway: one("DhcpDefaultGateway"),
        expires_s: u64::from(system.number(key, "LeaseTerminatesTime")?.value),
    })
}

fn connections(system: &Registry, set: &str) -> BTreeMap<String, String> {
    let base = format!("{set}\\Control\\Network\\{NET_CLASS}");
    let mut found = BTreeMap::new();
    for guid in system.names(&base) {
        if let Some(name) = system.text(&format!("{base}\\{guid}\\Connection"), "Name") {
            found.insert(guid.to_uppercase(), name.value);
        }
    }
    found
}

fn firewall(system: &Registry, set: &str) -> WindowsFirewallFacts {
    let base = format!("{set}\\Services\\SharedAccess\\Parameters\\FirewallPolicy");
    let enabled = |profile: &str| {
        system
            .number(&format!("{base}\\{profile}"), "EnableFirewall")
            .is_none_or(|number| number.value != 0)
    };
    let mut rules = BTreeMap::new();
    for value in system.values(&format!("{base}\\FirewallRules")) {
        if let Some(text) = value.as_string() {
            rules.insert(value.name().to_owned(), text);
        }
    }
    WindowsFirewallFacts {
        domain_enabled: enabled("DomainProfile"),
        private_enabled: enabled("StandardProfile"),
        public_enabled: enabled("PublicProfile"),
        key: system.full(&base),
        rules,
    }
}

/// `NetworkList`: signatures (gateway's MAC) with the profile each belongs to.
fn networks(software: &Registry) -> Vec<KnownNetwork> {
    let base = "Microsoft\\Windows NT\\CurrentVersion\\NetworkList";
    let mut found = Vec::new();
    for kind in ["Managed", "Unmanaged"] {
        let signatures = format!("{base}\\Signatures\\{kind}");
        for name in software.names(&signatures) {
            let key = format!("{signatures}\\{name}");
            let Some(profile) = software.text(&key, "ProfileGuid") else {
                continue;
            };
            let profile = format!("{base}\\Profiles\\{}", profile.value);
            let mac = software
                .bytes(&key, "DefaultGatewayMac")
                .and_then(|bytes| drylab_block::array_at::<6>(&bytes, 0));
            let suffix = software.text(&key, "DnsSuffix").map(|text| text.value);
            let category = software
                .number(&profile, "Category")
                .map_or(0, |number| number.value);
            let shown = software
                .text(&profile, "ProfileName")
                .map(|text| text.value);
            found.push(KnownNetwork {
                key: Some(software.full(&key)),
                gateway_mac: mac.map(Mac),
                dns_suffix: suffix.filter(|suffix| !suffix.is_empty() && suffix != "<none>"),
                name: shown.unwrap_or_default(),
                category: NetworkCategory::from_number(category),
            });
        }
    }
    found
}
