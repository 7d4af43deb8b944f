//! Segments, DHCP servers and clients, routing, DNS and firewalls, packet by packet.
//!
//! ```
//! use drylab_catalog::Mac;
//! use drylab_network::dhcp::{Client, ClientConfig, Pick, Server, ServerConfig};
//! use drylab_network::{DhcpStation, Host, Lan, Network, Subnet};
//!
//! let subnet: Subnet = "10.0.0.0/24".parse()?;
//! let server = Server::new(ServerConfig::new([10, 0, 0, 2].into(), subnet, Pick::Hash));
//! let mut lan = Lan::default();
//! lan.add_network("LAN", Network::new("site"));
//! lan.add_host(Host::new("dhcp", Mac([2, 0, 0, 0, 0, 2]), "site", [10, 0, 0, 2].into(), 24).with_dhcp(server));
//!
//! let mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
//! let port = lan.attach("LAN", mac, 0);
//! let mut guest = DhcpStation::new(port, Client::new(ClientConfig::dhclient(mac), 7, None));
//! let packets = lan.exchange(&mut [&mut guest], 0, 60_000_000);
//! assert_eq!(packets.len(), 4, "discover, offer, request, acknowledgement");
//! assert!(guest.lease().is_some());
//! # Ok::<(), drylab_network::ParseError>(())
//! ```
//!
//! * [`dhcp`]: messages as real bytes (RFC 2131, 2132), the server machine, the client machine with the schedules
//!   of ISC dhclient and of Windows.
//! * [`Lan`]: networks of products on segments, hosts, routers; [`Lan::exchange`] delivers frames in the order
//!   of (time, sequence) and returns the log of them.
//! * [`firewall`]: what an `iptables-save` text or a Windows policy does to a probe.
//!
//! Everything is a value; time is virtual, in microseconds; whatever is a matter of chance elsewhere (transaction
//! ids, retransmission jitter) comes from a seed the caller passes. What it does not do: TCP beyond the first
//! segment, fragmentation, IPv6.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod error;
mod subnet;
mod words;

pub mod dhcp;
pub mod firewall;
pub mod fuzz;
mod lan;

pub use error::ParseError;
pub use lan::{
    Action, Answer, DhcpStation, Frame, Host, Lan, Network, PacketLog, Payload, Port, PortId,
    Station, link_local,
};
pub use subnet::Subnet;
pub use words::word;
