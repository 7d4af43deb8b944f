//! What a host's own firewall does to a probe from outside.

mod iptables;
mod windows;

pub use iptables::{Ruleset, Target, Verdict};
pub use windows::{WindowsRule, judge_windows};

use std::net::Ipv4Addr;

/// Protocol of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ICMP echo request.
    Echo,
    /// First segment of a TCP connection to this port.
    Tcp(u16),
    /// A datagram to this port.
    Udp(u16),
}

/// A packet that belongs to no known connection, as a monitoring host sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Interface it comes in by.
    pub interface: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Sender, where known; rules that name a source match only a known one.
    pub source: Option<Ipv4Addr>,
    /// Address it is sent to, where known.
    pub destination: Option<Ipv4Addr>,
    /// Whether the sender is in the receiver's subnet.
    pub local_subnet: bool,
}

impl Probe {
    /// An echo request on this interface, from the local subnet.
    #[must_use]
    pub fn echo(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            protocol: Protocol::Echo,
            source: None,
            destination: None,
            local_subnet: true,
        }
    }

    /// The first segment of a TCP connection on this interface, from the local subnet.
    #[must_use]
    pub fn tcp(interface: &str, port: u16) -> Self {
        Self {
            protocol: Protocol::Tcp(port),
            ..Self::echo(interface)
        }
    }
}
