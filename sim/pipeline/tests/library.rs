//! What the library says of a golden guest is what the guest's own disk says.

use drylab_catalog::Mac;
use drylab_guest::inspect::{Guest, System};
use drylab_pipeline::{Library, SourceDisk};
use drylab_scenario::Scenario;
use std::net::Ipv4Addr;

const SOURCES: [&str; 4] = [
    "esxi-5.0.0",
    "kvm-centos-6.3",
    "xenserver-6.0.2",
    "hyperv-2008r2",
];

/// Address in a dhclient lease file.
fn leased(text: &str) -> Option<Ipv4Addr> {
    let line = text.lines().find(|line| line.contains("fixed-address"))?;
    let address = line.split_whitespace().nth(1)?;
    address.trim_end_matches(';').parse().ok()
}

/// Addresses the disk names: of the adapter, where it does, and of the lease.
fn told(guest: &Guest) -> (Option<Mac>, Option<Ipv4Addr>) {
    match &guest.system {
        System::Linux(_) => {
            let text = |path| guest.tree.text(path);
            let ifcfg = text("/etc/sysconfig/network-scripts/ifcfg-eth0").unwrap_or_default();
            let mac = ifcfg.lines().find_map(|line| line.strip_prefix("HWADDR="));
            let lease = text("/var/lib/dhclient/dhclient-eth0.leases")
                .or_else(|| text("/var/lib/dhcp/dhclient.eth0.leases"));
            (
                mac.and_then(|mac| mac.trim_matches('"').parse().ok()),
                lease.and_then(|lease| leased(&lease)),
            )
        }
        System::Windows(windows) => {
            let mut interfaces = windows.net.interfaces.values();
            let lease = interfaces.find_map(|interface| Some(interface.lease.as_ref()?.address));
            (None, lease)
        }
    }
}

#[test]
fn every_golden_guest_is_there_on_every_source_with_the_addresses_its_disk_names() {
    let library = Library::new();
    let (mut macs, mut leases) = (Vec::new(), Vec::new());
    for guest_id in Library::guests() {
        for source in SOURCES {
            let scenario = Scenario::new(guest_id.as_str(), source, source, "none");
            let SourceDisk {
                disk, mac, lease, ..
            } = library.source_disk(&scenario).expect("it was installed");
            let guest = library.inspect(&disk).expect("it is inspected");
            let (own_mac, own_lease) = told(&guest);
            assert_eq!(own_lease, Some(lease), "{guest_id} {source}");
            let bound = guest_id.as_str() == "centos-6.3";
            assert_eq!(own_mac, bound.then_some(mac), "{guest_id} {source}");
            let [first, second, third, ..] = mac.0;
            match source {
                "esxi-5.0.0" => assert_eq!([first, second, third], [0x00, 0x0c, 0x29]),
                "hyperv-2008r2" => assert_eq!([first, second, third], [0x00, 0x15, 0x5d]),
                "kvm-centos-6.3" => assert_eq!([first, second, third], [0x52, 0x54, 0x00]),
                _ => assert_eq!(first & 3, 2, "locally administered, to one station"),
            }
            macs.push(mac);
            leases.push(lease);
        }
    }
    for found in [macs.len(), leases.len()] {
        assert_eq!(found, 12);
    }
    macs.sort_unstable();
    macs.dedup();
    leases.sort_unstable();
    leases.dedup();
    assert_eq!((macs.len(), leases.len()), (12, 12), "no two are the same");
}
