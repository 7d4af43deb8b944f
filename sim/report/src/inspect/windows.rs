//! Facts of a Windows guest.

use super::{Rows, place};
use drylab_guest::inspect::{
    Bcd, BcdDevice, Guest, MountedDevice, Service, Sourced, WindowsSystem,
};
use drylab_guest::net::windows::{TcpipInterface, WindowsNet};
use std::collections::BTreeSet;

pub(super) fn facts(rows: &mut Rows, _guest: &Guest, windows: &WindowsSystem) {
    rows.sourced("product", &windows.product);
    rows.sourced("control set", &windows.control_set);
    let clock = if windows.clock_utc.value {
        "UTC"
    } else {
        "local time"
    };
    rows.add("clock chip", clock, place(&windows.clock_utc.witness));
    rows.section = "boot";
    if let Some(bcd) = &windows.bcd {
        of_bcd(rows, bcd);
    }
    for (name, device) in &windows.mounted {
        if let MountedDevice::Mbr { signature, offset } = &device.value {
            let value = format!("disk {signature:08x}, byte {offset}");
            rows.add(name.clone(), value, place(&device.witness));
        }
    }
    rows.section = "services";
    for service in storage(windows) {
        rows.add(
            service.name.clone(),
            of_service(service),
            service.key.clone(),
        );
    }
    rows.section = "critical devices";
    for (device, service) in &windows.critical_devices {
        rows.add(
            device.clone(),
            service.value.clone(),
            place(&service.witness),
        );
    }
    rows.section = "network";
    network(rows, &windows.net);
}

fn of_bcd(rows: &mut Rows, bcd: &Bcd) {
    let manager = if bcd.manager {
        "bootmgr beside it"
    } else {
        "no bootmgr beside it"
    };
    rows.add("configuration", manager, bcd.path.clone());
    if let Some(default) = &bcd.default {
        rows.sourced("default", default);
    }
    let devices = [
        ("loader device", &bcd.device),
        ("system device", &bcd.os_device),
    ];
    for (name, device) in devices {
        if let Some(Sourced { value, witness }) = device {
            rows.add(name, of_device(value), place(witness));
        }
    }
    if let Some(loader) = &bcd.loader {
        let there = if bcd.loader_present {
            ""
        } else {
            " (not there)"
        };
        rows.add(
            "loader",
            format!("{}{there}", loader.value),
            place(&loader.witness),
        );
    }
}

fn of_device(device: &BcdDevice) -> String {
    match device {
        BcdDevice::Boot => "the partition the boot manager came from".to_owned(),
        BcdDevice::Mbr { signature, offset } => format!("disk {signature:08x}, byte {offset}"),
        BcdDevice::Gpt { .. } => "a partition of a GPT disk".to_owned(),
        BcdDevice::Other(kind) => format!("a device of type {kind}"),
    }
}

/// Drivers that critical devices name, and those of the groups that storage drivers load in.
fn storage(windows: &WindowsSystem) -> Vec<&Service> {
    let named: BTreeSet<String> = windows
        .critical_devices
        .values()
        .map(|service| service.value.to_lowercase())
        .collect();
    let groups = ["scsi miniport", "system bus extender", "boot bus extender"];
    let is_storage = |name: &str, service: &Service| {
        named.contains(name) || groups.contains(&service.group.to_lowercase().as_str())
    };
    let all = windows.services.iter();
    all.filter(|(name, service)| is_storage(name, service))
        .map(|(_, service)| service)
        .collect()
}

fn of_service(service: &Service) -> String {
    let start = match service.start {
        Some(0) => "0 (boot)".to_owned(),
        Some(1) => "1 (system)".to_owned(),
        Some(2) => "2 (automatic)".to_owned(),
        Some(3) => "3 (demand)".to_owned(),
        Some(4) => "4 (disabled)".to_owned(),
        Some(other) => other.to_string(),
        None => "missing".to_owned(),
    };
    let there = if service.present { "" } else { " (not there)" };
    format!("Start {start}, {}{there}", service.image)
}

fn network(rows: &mut Rows, net: &WindowsNet) {
    for adapter in &net.adapters {
        let service = adapter.service.as_deref().unwrap_or("no driver");
        let interface = adapter.interface.as_deref().unwrap_or("no interface");
        rows.add(
            "adapter",
            format!("{} by {service}, {interface}", adapter.device_id),
            adapter.key.clone(),
        );
    }
    for (guid, interface) in &net.interfaces {
        let name = net.connections.get(guid).unwrap_or(guid);
        rows.add(name.clone(), of_interface(interface), interface.key.clone());
    }
    let firewall = &net.firewall;
    let profiles = [
        ("domain", firewall.domain_enabled),
        ("private", firewall.private_enabled),
        ("public", firewall.public_enabled),
    ];
    let on = profiles
        .iter()
        .map(|(name, on)| format!("{name} {}", if *on { "on" } else { "off" }));
    let value = format!(
        "{}, {} rules",
        on.collect::<Vec<_>>().join(", "),
        firewall.rules.len()
    );
    rows.add("firewall", value, firewall.key.clone());
    for network in &net.networks {
        rows.add(
            "known network",
            format!("{}, {:?}", network.name, network.category),
            network.key.clone().unwrap_or_default(),
        );
    }
}

fn of_interface(interface: &TcpipInterface) -> String {
    let mut parts = vec![if interface.dhcp { "DHCP" } else { "static" }.to_owned()];
    parts.extend(
        interface
            .addresses
            .iter()
            .map(|(address, mask)| format!("{address} mask {mask}")),
    );
    parts.extend(
        interface
            .gateways
            .iter()
            .map(|gateway| format!("gateway {gateway}")),
    );
    parts.extend(interface.dns.iter().map(|server| format!("DNS {server}")));
    if let Some(lease) = &interface.lease {
        parts.push(format!(
            "last lease {} from {}",
            lease.address, lease.server
        ));
    }
    parts.join(", ")
}
