//! Questions a guest with an address asks: who has this address, does that one answer, what does this name stand for.

use super::{Action, Frame, Lan, PacketLog, Payload, PortId, Station};
use crate::word;
use drylab_catalog::Mac;
use std::net::Ipv4Addr;

/// Microseconds an answer is waited for before it is asked again.
const WAIT_US: u64 = 1_000_000;
/// Times a question is asked.
const TRIES: u8 = 3;

/// What came back, when, and what was sent meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer; `None` when nobody gave one.
    pub value: Option<T>,
    /// When it came or was no longer waited for.
    pub at: u64,
    /// Frames.
    pub packets: Vec<PacketLog>,
}

struct Question {
    port: PortId,
    to: Option<Mac>,
    payload: Payload,
    asked: u8,
    heard: Option<Frame>,
    at: u64,
}

impl Question {
    fn ask(&mut self, now: u64) -> Vec<Action> {
        self.at = now;
        if self.asked >= TRIES {
            return vec![Action::Done];
        }
        self.asked = self.asked.saturating_add(1);
        vec![
            Action::Send(self.to, self.payload.clone()),
            Action::Wake(now.saturating_add(WAIT_US)),
        ]
    }

    fn is_answered_by(&self, frame: &Frame) -> bool {
        match (&self.payload, &frame.payload) {
            (Payload::ArpRequest { target, .. }, Payload::ArpReply { address }) => {
                target == address
            }
            (
                Payload::Echo { source, target, .. },
                Payload::EchoReply {
                    source: from,
                    target: to,
                    ..
                },
            ) => target == from && source == to,
            (
                Payload::Query { name, source, .. },
                Payload::Response {
                    name: answered,
                    target,
                    ..
                },
            ) => name == answered && source == target,
            _ => false,
        }
    }
}

impl Station for Question {
    fn port(&self) -> PortId {
        self.port
    }

    fn start(&mut self, now: u64) -> Vec<Action> {
        self.ask(now)
    }

    fn wake(&mut self, now: u64) -> Vec<Action> {
        self.ask(now)
    }

    fn receive(&mut self, now: u64, frame: &Frame) -> Vec<Action> {
        if self.heard.is_some() || !self.is_answered_by(frame) {
            return Vec::new();
        }
        self.at = now;
        self.heard = Some(frame.clone());
        vec![Action::Done]
    }
}

impl Lan {
    fn question(
        &mut self,
        port: PortId,
        to: Option<Mac>,
        payload: Payload,
        at: u64,
    ) -> Answer<Frame> {
        let mut question = Question {
            port,
            to,
            payload,
            asked: 0,
            heard: None,
            at,
        };
        let until = at.saturating_add(WAIT_US.saturating_mul(u64::from(TRIES).saturating_add(1)));
        let packets = self.exchange(&mut [&mut question], at, until);
        Answer {
            value: question.heard,
            at: question.at,
            packets,
        }
    }

    /// Asks by ARP who has `target`; `sender` is the asking guest's own address, 0.0.0.0 in a conflict check.
    pub fn ask_arp(
        &mut self,
        port: PortId,
        sender: Ipv4Addr,
        target: Ipv4Addr,
        at: u64,
    ) -> Answer<Mac> {
        let answer = self.question(port, None, Payload::ArpRequest { sender, target }, at);
        Answer {
            value: answer.value.map(|frame| frame.from),
            at: answer.at,
            packets: answer.packets,
        }
    }

    /// Sends an echo request through the neighbour `via`.
    pub fn ask_echo(
        &mut self,
        port: PortId,
        via: Mac,
        source: Ipv4Addr,
        target: Ipv4Addr,
        at: u64,
    ) -> Answer<()> {
        let answer = self.question(
            port,
            Some(via),
            Payload::Echo {
                source,
                target,
                ttl: 64,
            },
            at,
        );
        Answer {
            value: answer.value.map(|_| ()),
            at: answer.at,
            packets: answer.packets,
        }
    }

    /// Asks a name server for a name through the neighbour `via`: the inner `None` says that there is no such name.
    pub fn ask_name(
        &mut self,
        port: PortId,
        via: Mac,
        source: Ipv4Addr,
        server: Ipv4Addr,
        name: &str,
        at: u64,
    ) -> Answer<Option<Ipv4Addr>> {
        let payload = Payload::Query {
            source,
            target: server,
            name: name.to_owned(),
            ttl: 64,
        };
        let answer = self.question(port, Some(via), payload, at);
        let value = answer.value.and_then(|frame| match frame.payload {
            Payload::Response { answer, .. } => Some(answer),
            _ => None,
        });
        Answer {
            value,
            at: answer.at,
            packets: answer.packets,
        }
    }
}

/// The `attempt`-th link-local address an adapter tries (RFC 3927: 169.254.1.0 to 169.254.254.255, from its MAC).
#[must_use]
pub fn link_local(mac: Mac, attempt: u64) -> Ipv4Addr {
    let seed = mac
        .0
        .iter()
        .fold(0u64, |seed, byte| (seed << 8) | u64::from(*byte));
    let [.., third, fourth] = word(seed, attempt).to_be_bytes();
    // 1..=254
    let third = (third % 254).saturating_add(1);
    Ipv4Addr::new(169, 254, third, fourth)
}
