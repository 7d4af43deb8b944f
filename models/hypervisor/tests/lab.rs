//! The lab file: what is one, and what is said of what is none.

use drylab_hypervisor::{LabFile, products};
use proptest::prelude::*;

fn wrong(from: &str, to: &str) -> String {
    assert!(LabFile::REPORT.contains(from), "{from}");
    LabFile::from_toml(&LabFile::REPORT.replacen(from, to, 1)).expect_err(to)
}

#[test]
fn the_lab_of_the_report_has_a_host_and_a_console_for_every_product() {
    let lab = LabFile::of_the_report();
    for id in products().keys() {
        assert!(
            lab.host_of(id).is_some() && lab.console_of(id).is_some(),
            "{id}"
        );
    }
    let with_64_gb = lab.hosts.iter().filter(|host| host.memory_mib == 65_536);
    assert_eq!(with_64_gb.count(), 4);
    let fast: Vec<&str> = lab
        .hosts
        .iter()
        .filter(|host| host.cpu_khz == 2_700_000)
        .map(|host| host.product.as_str())
        .collect();
    assert_eq!(fast, ["hyperv-2008r2"]);
    let shares: Vec<u64> = lab.shares.iter().map(|share| share.bytes).collect();
    assert_eq!(shares, [800_000_000_000, 400_000_000_000]);
}

#[test]
fn what_is_wrong_with_a_lab_is_said_with_its_place_and_value() {
    // from, to, what is said
    let table = [
        (
            "memory_mib = 65536",
            "memory = 65536",
            "line 23: memory: unknown field `memory`",
        ),
        ("[router]", "[modem]", "unknown field `modem`"),
        (
            "mark = \"document\"",
            "mark = \"hearsay\"",
            "unknown variant `hearsay`",
        ),
        ("mark = \"belief\"", "", "missing field `mark`"),
        (
            "memory_mib = 65536",
            "memory_mib = 0",
            "host esxi: memory_mib is 0",
        ),
        (
            "memory_mib = 65536",
            "memory_mib = -1",
            "memory_mib: found integer `-1`, expected a whole number, 0 or more",
        ),
        (
            "bytes = 400000000000",
            "bytes = 0",
            "share nfs-400: bytes is 0",
        ),
        (
            "cpu_khz = 2700000",
            "cpu_khz = 0",
            "host hyperv: cpu_khz is 0",
        ),
        (
            "product = \"esxi-5.0.0\"",
            "product = \"esxi-4.1.0\"",
            "a host is for product esxi-4.1.0",
        ),
        (
            "product = \"xenserver-6.0.2\"",
            "product = \"esxi-5.0.0\"",
            "product esxi-5.0.0 has 2 hosts",
        ),
        (
            "[network.other]",
            "[network.dmz]",
            "network other is missing",
        ),
        (
            "name = \"kvm\"",
            "name = \"esxi\"",
            "host esxi: the name is used twice",
        ),
        ("name = \"kvm\"", "name = \"\"", "a host has an empty name"),
        ("192.168.122.0/24", "10.20.0.128/25", "overlaps with"),
        ("192.168.122.0/24", "10.0.0.0/8", "overlaps with"),
        (
            "192.168.122.0/24",
            "192.168.122.0/33",
            "a.b.c.d/prefix expected",
        ),
        (
            "192.168.122.0/24",
            "192.168.122.0/31",
            "has no room for hosts",
        ),
        (
            "gateway = \"10.20.0.1\"",
            "gateway = \"10.20.1.1\"",
            "network lan: gateway 10.20.1.1 is outside 10.20.0.0/24",
        ),
        (
            "dns = \"10.20.0.2\"",
            "dns = \"10.20.0.255\"",
            "dns 10.20.0.255 is no host's address",
        ),
        (
            "pool_first = \"10.20.0.100\"",
            "pool_first = \"10.20.2.100\"",
            "pool_first 10.20.2.100 is outside",
        ),
        (
            "address = \"10.20.0.11\"",
            "address = \"10.21.0.11\"",
            "host esxi: address 10.21.0.11 is outside 10.20.0.0/24",
        ),
        (
            "address = \"10.20.0.12\"",
            "address = \"10.20.0.11\"",
            "host xenserver: address 10.20.0.11 is taken by host esxi",
        ),
        (
            "address = \"10.20.0.12\"",
            "address = \"10.20.0.1\"",
            "is taken by the gateway of network lan",
        ),
        (
            "address = \"10.20.0.22\"",
            "address = \"10.20.0.2\"",
            "console xencenter: address 10.20.0.2 is taken by a server",
        ),
        (
            "network = \"other\"",
            "network = \"lan\"",
            "network other has no switch",
        ),
        (
            "network = \"other\"",
            "network = \"moon\"",
            "switch virbr0: there is no network moon",
        ),
        (
            "networks = [\"lan\", \"other\"]",
            "networks = [\"lan\", \"moon\"]",
            "router router: there is no network moon",
        ),
        (
            "name = \"switch-lan\"",
            "name = \"switch-1\"",
            "host esxi: there is no switch switch-lan, known are switch-1, virbr0",
        ),
        (
            "switch = \"switch-lan\"",
            "switch = \"virbr0\"",
            "host esxi: address 10.20.0.11 is outside 192.168.122.0/24",
        ),
        (
            "address = \"10.20.0.22\"",
            "address = \"10.20.0.150\"",
            "console xencenter: address 10.20.0.150 is one that the DHCP server of network lan hands out",
        ),
        (
            "pool_first = \"10.20.0.100\"",
            "pool_first = \"10.20.0.13\"",
            "host kvm: address 10.20.0.14 is one that the DHCP server of network lan hands out",
        ),
        (
            "format = 1",
            "format = 2",
            "format 2 of a lab file is not known",
        ),
        ("format = 1", "format = \"1\"", "format is no whole number"),
        ("format = 1", "", "format is missing"),
        (
            "memory_mib = 65536",
            "memory_mib = \"lots\"",
            "memory_mib: found string \"lots\", expected a whole number, 0 or more, without quotes; the lab of the \
             report has memory_mib = 65536",
        ),
        (
            "networks = [\"lan\", \"other\"]",
            "networks = \"lan\"",
            "networks: found string \"lan\", expected a list in brackets; the lab of the report has networks = [",
        ),
        (
            "address = \"10.20.0.12\"",
            "address = 12",
            "address: found integer `12`, expected",
        ),
    ];
    for (from, to, says) in table {
        let error = wrong(from, to);
        assert!(error.contains(says), "{from} -> {to}: {error}");
    }
}

#[test]
fn a_product_without_a_host_is_missed() {
    let text = LabFile::REPORT;
    let start = text.find("# That Hyper-V ran").expect("a comment");
    let end = text.find("# Staging of exports").expect("a comment");
    let without = [&text[..start], &text[end..]].concat();
    let error = LabFile::from_toml(&without).expect_err("three hosts");
    assert_eq!(error, "product hyperv-2008r2 has no host");
}

#[test]
fn a_console_reaches_its_host_on_one_network_or_by_the_router() {
    let xen = |text: &str| {
        let lab = LabFile::from_toml(text).expect("a lab");
        let host = lab.host_of(&"xenserver-6.0.2".into()).expect("a host");
        lab.console_cut_off(host)
    };
    let away = LabFile::REPORT.replacen(
        "name = \"xencenter\"\nnetwork = \"lan\"\naddress = \"10.20.0.22\"",
        "name = \"xencenter\"\nnetwork = \"other\"\naddress = \"192.168.122.250\"",
        1,
    );
    assert_ne!(away, LabFile::REPORT);
    let no_router =
        |text: &str| text.replacen("networks = [\"lan\", \"other\"]", "networks = [\"lan\"]", 1);
    assert_eq!(xen(LabFile::REPORT), None);
    assert_eq!(xen(&no_router(LabFile::REPORT)), None);
    assert_eq!(xen(&away), None);
    let why = xen(&no_router(&away)).expect("no way");
    assert!(why[0].to_string().contains("console xencenter"), "{why:?}");
    assert!(why[0].says.contains("network = \"other\""), "{why:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_lab_moved_to_another_subnet_is_a_lab_and_its_hosts_are_in_it(b in 0u8..=255, c in 0u8..=255) {
        let text = LabFile::REPORT.replace("10.20.0.", &format!("10.{b}.{c}."));
        let lab = LabFile::from_toml(&text).expect("a lab");
        for host in &lab.hosts {
            prop_assert_eq!(&host.address.octets()[..3], &[10, b, c][..]);
        }
    }

    #[test]
    fn a_host_is_in_the_lab_exactly_when_its_address_is_free_and_inside(last in 0u8..=255, third in 0u8..2) {
        let text = LabFile::REPORT.replacen("address = \"10.20.0.14\"", &format!("address = \"10.20.{third}.{last}\""), 1);
        let taken = [0, 1, 2, 11, 12, 13, 21, 22, 23, 24, 255];
        // From 100 on addresses are the DHCP server's.
        let is_lab = third == 0 && last < 100 && !taken.contains(&last);
        prop_assert_eq!(LabFile::from_toml(&text).is_ok(), is_lab);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z_ =\"0-9./\n]{0,200}") {
        let _ = LabFile::from_toml(&text);
    }
}
