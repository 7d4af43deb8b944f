//! Laws over generated histories of a lab.

use super::{lab, linux, nic, windows};
use drylab_catalog::Mac;
use drylab_guest::net::{NetReport, fuzz};
use drylab_network::dhcp::{Client, ClientConfig};
use drylab_network::{DhcpStation, Lan};
use proptest::prelude::*;

const SECOND_US: u64 = 1_000_000;

/// Other machines arrive, take addresses and leave again.
fn strangers(lan: &mut Lan, macs: &[u16], at: u64) {
    for index in macs {
        let [a, b] = index.to_be_bytes();
        let mac = Mac([2, 7, 7, 7, a, b]);
        let port = lan.attach("VM Network", mac, at);
        let mut station =
            DhcpStation::new(port, Client::new(ClientConfig::dhclient_once(mac), 3, None));
        lan.exchange(&mut [&mut station], at, at + 60 * SECOND_US);
        lan.detach(port);
    }
}

fn address(report: &NetReport) -> Option<std::net::Ipv4Addr> {
    report
        .primary()
        .and_then(|interface| interface.address)
        .map(|(address, _)| address)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// 50, end to end: a guest that starts again inside its lease has the same address, whoever came meanwhile.
    #[test]
    fn a_restart_inside_the_lease_keeps_the_address(
        before in proptest::collection::vec(any::<u16>(), 0..20),
        between in proptest::collection::vec(any::<u16>(), 0..40),
        pause_s in 1u64..80_000,
    ) {
        let mac = "00:0c:29:aa:00:01";
        let mut lan = lab();
        strangers(&mut lan, &before, 0);
        let from = 100 * SECOND_US;
        let first = linux::start(linux::centos("BOOTPROTO=dhcp\n"), mac, "VM Network", &mut lan, from);
        first.power_off(&mut lan);
        strangers(&mut lan, &between, from + 100 * SECOND_US);
        let second = linux::start(first.files.clone(), mac, "VM Network", &mut lan, from + (200 + pause_s) * SECOND_US);
        prop_assert!(address(&first).is_some());
        prop_assert_eq!(address(&first), address(&second));

        let mut lan = lab();
        strangers(&mut lan, &before, 0);
        let adapter = nic("e1000-82540em", mac, 3, "VM Network");
        let net = windows::image(windows::known(&adapter, false), windows::dhcp());
        let first = windows::start(&net, adapter.clone(), &mut lan, from);
        first.power_off(&mut lan);
        strangers(&mut lan, &between, from + 100 * SECOND_US);
        let second = windows::start(first.windows.as_ref().expect("there"), adapter, &mut lan, from + (200 + pause_s) * SECOND_US);
        prop_assert!(address(&first).is_some());
        prop_assert_eq!(address(&first), address(&second));
    }

    /// A guest whose MAC changes never answers for its old address, and Ubuntu has one all the same.
    #[test]
    fn another_mac_is_another_client(last in 2u8..=255, between in proptest::collection::vec(any::<u16>(), 0..20)) {
        let mut lan = lab();
        let first = linux::start(linux::ubuntu("dhcp"), "52:54:00:aa:00:01", "VM Network", &mut lan, 0);
        first.power_off(&mut lan);
        strangers(&mut lan, &between, 100 * SECOND_US);
        let mac = format!("52:54:00:aa:00:{last:02x}");
        let second = linux::start(first.files.clone(), &mac, "VM Network", &mut lan, 300 * SECOND_US);
        prop_assert!(address(&second).is_some());
        prop_assert_ne!(address(&first), address(&second));
        prop_assert!(super::cites(&second, "ip-address", "GQ21"));
    }

    /// Damaged lease files are read as far as they go.
    #[test]
    fn damaged_lease_files_are_read_as_far_as_they_go(edits in proptest::collection::vec((0usize..600, any::<u8>()), 0..20), cut in 0usize..700) {
        let report = linux::start(linux::centos("BOOTPROTO=dhcp\n"), "00:0c:29:aa:00:01", "VM Network", &mut lab(), 0);
        let mut bytes = report.files.read("/var/lib/dhclient/dhclient-eth0.leases").expect("written").to_vec();
        fuzz::dhclient_files(&bytes);
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        fuzz::dhclient_files(&bytes[..cut.min(bytes.len())]);
        fuzz::dhclient_files(&bytes);
    }
}
