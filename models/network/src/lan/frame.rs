//! What travels, and the log of it.

use crate::dhcp::Packet;
use drylab_catalog::Mac;
use std::net::Ipv4Addr;

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A DHCP message, as bytes.
    Dhcp(Vec<u8>),
    /// ARP: who has `target`? From `sender`, 0.0.0.0 in a probe (RFC 5227).
    ArpRequest {
        /// Asking address.
        sender: Ipv4Addr,
        /// Address asked for.
        target: Ipv4Addr,
    },
    /// ARP: `address` is mine.
    ArpReply {
        /// The address.
        address: Ipv4Addr,
    },
    /// ICMP echo request, with the hops it may still take.
    Echo {
        /// From.
        source: Ipv4Addr,
        /// To.
        target: Ipv4Addr,
        /// Time to live.
        ttl: u8,
    },
    /// ICMP echo reply.
    EchoReply {
        /// From.
        source: Ipv4Addr,
        /// To.
        target: Ipv4Addr,
        /// Time to live.
        ttl: u8,
    },
    /// DNS query for the address of a name.
    Query {
        /// From.
        source: Ipv4Addr,
        /// To.
        target: Ipv4Addr,
        /// Name.
        name: String,
        /// Time to live.
        ttl: u8,
    },
    /// DNS answer; `None` for no such name.
    Response {
        /// From.
        source: Ipv4Addr,
        /// To.
        target: Ipv4Addr,
        /// Name.
        name: String,
        /// Address.
        answer: Option<Ipv4Addr>,
        /// Time to live.
        ttl: u8,
    },
}

impl Payload {
    /// One line for logs.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Dhcp(bytes) => match Packet::decode(bytes) {
                Ok(packet) => packet.summary(),
                Err(error) => format!("DHCP, {error}"),
            },
            Self::ArpRequest { sender, target } if sender.is_unspecified() => {
                format!("ARP probe for {target}")
            }
            Self::ArpRequest { sender, target } => format!("ARP who has {target}, tell {sender}"),
            Self::ArpReply { address } => format!("ARP {address} is here"),
            Self::Echo { source, target, .. } => format!("ICMP echo request {source} to {target}"),
            Self::EchoReply { source, target, .. } => {
                format!("ICMP echo reply {source} to {target}")
            }
            Self::Query {
                source,
                target,
                name,
                ..
            } => format!("DNS query {source} to {target}: {name}"),
            Self::Response {
                source,
                target,
                name,
                answer,
                ..
            } => match answer {
                Some(answer) => format!("DNS answer {source} to {target}: {name} is {answer}"),
                None => format!("DNS answer {source} to {target}: no {name}"),
            },
        }
    }

    /// Source, destination and time to live of an IP packet.
    pub(crate) fn route(&self) -> Option<(Ipv4Addr, Ipv4Addr, u8)> {
        match self {
            Self::Echo {
                source,
                target,
                ttl,
            }
            | Self::EchoReply {
                source,
                target,
                ttl,
            }
            | Self::Query {
                source,
                target,
                ttl,
                ..
            }
            | Self::Response {
                source,
                target,
                ttl,
                ..
            } => Some((*source, *target, *ttl)),
            Self::Dhcp(_) | Self::ArpRequest { .. } | Self::ArpReply { .. } => None,
        }
    }

    /// One hop further.
    pub(crate) fn forwarded(&self) -> Option<Self> {
        let mut next = self.clone();
        match &mut next {
            Self::Echo { ttl, .. }
            | Self::EchoReply { ttl, .. }
            | Self::Query { ttl, .. }
            | Self::Response { ttl, .. } => {
                *ttl = ttl.checked_sub(1).filter(|ttl| *ttl > 0)?;
            }
            Self::Dhcp(_) | Self::ArpRequest { .. } | Self::ArpReply { .. } => return None,
        }
        Some(next)
    }
}

/// A frame on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Sender.
    pub from: Mac,
    /// Receiver; `None` for everyone.
    pub to: Option<Mac>,
    /// Content.
    pub payload: Payload,
}

/// A line of the log: one frame, when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketLog {
    /// Virtual time, microseconds.
    pub at: u64,
    /// Number of the frame in the life of its [`super::Lan`].
    pub number: u64,
    /// Segment it was sent on; empty without a link.
    pub segment: String,
    /// Sender.
    pub from: Mac,
    /// Receiver; `None` for everyone.
    pub to: Option<Mac>,
    /// One line.
    pub summary: String,
    /// Why nobody got it.
    pub dropped: Option<String>,
}
