//! Guests against the lab's network, packet by packet.

#[path = "bringup/buses.rs"]
mod buses;
#[path = "bringup/golden.rs"]
mod golden;
#[path = "bringup/laws.rs"]
mod laws;
#[path = "bringup/linux.rs"]
mod linux;
#[path = "bringup/windows.rs"]
mod windows;

use drylab_catalog::{Mac, Nic, PciAddress, Place};
use drylab_guest::net::NetReport;
use drylab_network::dhcp::{Pick, Server, ServerConfig};
use drylab_network::{Host, Lan, Network, Subnet};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The gateway that the golden Windows guest has met.
const GATEWAY: Mac = Mac([0x00, 0x1b, 0x21, 0x0a, 0x20, 0x01]);

/// A site with DHCP, DNS and a gateway on 10.20.0.0/24, and a bridge that translates, with its own DHCP.
fn lab() -> Lan {
    let mut lan = Lan::default();
    lan.add_network("VM Network", Network::new("site"));
    lan.add_network("kvm:default", Network::new("virbr0"));
    lan.add_host(
        Host::new("gateway", GATEWAY, "site", [10, 20, 0, 1].into(), 24).on_router("core"),
    );
    let names = BTreeMap::from([("server.lab".to_owned(), Ipv4Addr::new(10, 20, 0, 9))]);
    let server = Host::new(
        "server",
        Mac([2, 0, 0, 0, 0, 2]),
        "site",
        [10, 20, 0, 2].into(),
        24,
    );
    lan.add_host(
        server
            .with_dhcp(dhcp([10, 20, 0, 2], [10, 20, 0, 1], Pick::LeastRecent))
            .with_dns(names.clone()),
    );
    let bridge = Host::new(
        "virbr0",
        Mac([2, 0, 0, 0, 0, 3]),
        "virbr0",
        [192, 168, 122, 1].into(),
        24,
    );
    lan.add_host(
        bridge
            .on_router("kvm")
            .with_dhcp(dhcp([192, 168, 122, 1], [192, 168, 122, 1], Pick::Hash))
            .with_dns(names),
    );
    lan
}

fn dhcp(own: [u8; 4], router: [u8; 4], pick: Pick) -> Server {
    let [a, b, c, _] = own;
    let mut config = ServerConfig::new(own.into(), Subnet::new(own.into(), 24), pick);
    config.ranges = vec![([a, b, c, 100].into(), [a, b, c, 199].into())];
    config.routers = vec![router.into()];
    config.dns = vec![own.into()];
    config.domain = Some("lab.example".into());
    Server::new(config)
}

fn nic(model: &str, mac: &str, slot: u8, network: &str) -> Nic {
    Nic {
        model: model.into(),
        mac: mac.parse().expect("a MAC"),
        slot: Some(PciAddress {
            bus: 0,
            device: slot,
            function: 0,
        }),
        network: network.into(),
    }
}

fn cites(report: &NetReport, fact: &str, id: &str) -> bool {
    report.witnesses.get(fact).is_some_and(|witnesses| {
        witnesses
            .iter()
            .any(|witness| witness.place == Place::Quirk(id.into()))
    })
}

fn kinds(report: &NetReport) -> Vec<&str> {
    report
        .packets
        .iter()
        .map(|packet| packet.summary.split(' ').next().unwrap_or_default())
        .collect()
}
