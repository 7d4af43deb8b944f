//! Programs behind a port that take part in an exchange.

use super::{Frame, Payload, PortId};
use crate::dhcp::{Client, ClientState, Input, LeaseFact, Output, Packet};
use drylab_catalog::Mac;
use std::net::Ipv4Addr;

/// What a station does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends to one, or to everyone.
    Send(Option<Mac>, Payload),
    /// Wants [`Station::wake`] at this time; a later wish replaces an earlier one.
    Wake(u64),
    /// Takes no further part: the exchange may end.
    Done,
}

/// A sans-IO program behind a port.
pub trait Station {
    /// Its port.
    fn port(&self) -> PortId;
    /// It starts.
    fn start(&mut self, now: u64) -> Vec<Action>;
    /// The time it asked for has come.
    fn wake(&mut self, now: u64) -> Vec<Action>;
    /// A frame for it, or for everyone, arrived.
    fn receive(&mut self, now: u64, frame: &Frame) -> Vec<Action>;
}

/// Microseconds an ARP or echo answer is waited for, and how often it is asked.
const WAIT_US: u64 = 1_000_000;
/// Times an ARP probe is sent.
const PROBES: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Checking {
    /// Whether anyone else has the address.
    Conflict(LeaseFact, u8),
    /// Whether the gateway of an old lease is there.
    Gateway(Ipv4Addr, u8),
}

/// A DHCP client with the ARP it needs around it.
///
/// It is done when the client has an address that passed the check, or has exited; a client that goes on in the
/// background is never done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpStation {
    port: PortId,
    client: Client,
    checking: Option<Checking>,
    server_mac: Option<(Ipv4Addr, Mac)>,
    timer: Option<u64>,
    bound: Option<(u64, LeaseFact)>,
    failed_at: Option<u64>,
    stays: bool,
    conflicts: u32,
}

impl DhcpStation {
    /// A client behind a port.
    #[must_use]
    pub fn new(port: PortId, client: Client) -> Self {
        Self {
            port,
            client,
            checking: None,
            server_mac: None,
            timer: None,
            bound: None,
            failed_at: None,
            stays: false,
            conflicts: 0,
        }
    }

    /// Never done: it renews its lease for as long as the exchange runs.
    #[must_use]
    pub fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    /// The lease it has, after the check.
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseFact> {
        self.bound.as_ref().map(|(_, lease)| lease)
    }

    /// When it got that lease first.
    #[must_use]
    pub fn bound_at(&self) -> Option<u64> {
        self.bound.as_ref().map(|(at, _)| *at)
    }

    /// When its first attempt failed.
    #[must_use]
    pub fn failed_at(&self) -> Option<u64> {
        self.failed_at
    }

    /// How many offered addresses were in use by someone else.
    #[must_use]
    pub fn conflicts(&self) -> u32 {
        self.conflicts
    }

    /// The machine inside.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn step(&mut self, now: u64, input: Input<'_>) -> Vec<Action> {
        let outputs = self.client.step(now, input);
        self.perform(now, outputs)
    }

    fn perform(&mut self, now: u64, outputs: Vec<Output>) -> Vec<Action> {
        let mut actions = Vec::new();
        for output in outputs {
            match output {
                Output::Send(packet, server) => {
                    let to = self
                        .server_mac
                        .filter(|(address, _)| Some(*address) == server)
                        .map(|(_, mac)| mac);
                    actions.push(Action::Send(to, Payload::Dhcp(packet.encode())));
                }
                Output::Wake(at) => self.timer = Some(at),
                Output::Bound(lease) => actions.extend(self.bound(now, lease)),
                Output::Lost => self.bound = None,
                Output::CheckGateway(router) => {
                    self.checking = Some(Checking::Gateway(router, 1));
                    actions.extend(self.ask(now));
                }
                Output::Failed => self.failed_at = self.failed_at.or(Some(now)),
                Output::Exited => {
                    self.failed_at = self.failed_at.or(Some(now));
                    actions.push(Action::Done);
                }
            }
        }
        if self.checking.is_none() {
            actions.extend(self.timer.map(Action::Wake));
        }
        actions
    }

    fn bound(&mut self, now: u64, lease: LeaseFact) -> Vec<Action> {
        let renewed = self
            .bound
            .as_ref()
            .is_some_and(|(_, known)| known.address == lease.address);
        if self.client.config().checks_conflict && !renewed {
            self.checking = Some(Checking::Conflict(lease, 1));
            return self.ask(now);
        }
        self.settle(now, lease)
    }

    fn settle(&mut self, now: u64, lease: LeaseFact) -> Vec<Action> {
        let at = self.bound_at().unwrap_or(now);
        self.bound = Some((at, lease));
        if self.stays {
            Vec::new()
        } else {
            vec![Action::Done]
        }
    }

    fn ask(&self, now: u64) -> Vec<Action> {
        let (sender, target) = match &self.checking {
            Some(Checking::Conflict(lease, _)) => (Ipv4Addr::UNSPECIFIED, lease.address),
            Some(Checking::Gateway(router, _)) => (
                self.client
                    .lease()
                    .map_or(Ipv4Addr::UNSPECIFIED, |lease| lease.address),
                *router,
            ),
            None => return Vec::new(),
        };
        vec![
            Action::Send(None, Payload::ArpRequest { sender, target }),
            Action::Wake(now.saturating_add(WAIT_US)),
        ]
    }

    fn asked_in_vain(&mut self, now: u64) -> Vec<Action> {
        match self.checking.take() {
            Some(Checking::Conflict(lease, tries)) if tries < PROBES => {
                self.checking = Some(Checking::Conflict(lease, tries.saturating_add(1)));
                self.ask(now)
            }
            Some(Checking::Gateway(router, tries)) if tries < PROBES => {
                self.checking = Some(Checking::Gateway(router, tries.saturating_add(1)));
                self.ask(now)
            }
            Some(Checking::Conflict(lease, _)) => {
                let mut actions = self.settle(now, lease);
                actions.extend(self.timer.map(Action::Wake));
                actions
            }
            Some(Checking::Gateway(..)) => self.step(now, Input::Gateway(false)),
            None => Vec::new(),
        }
    }

    fn heard(&mut self, now: u64, address: Ipv4Addr) -> Vec<Action> {
        match self.checking.take() {
            Some(Checking::Conflict(lease, _)) if lease.address == address => {
                self.conflicts = self.conflicts.saturating_add(1);
                self.step(now, Input::Conflict)
            }
            Some(Checking::Gateway(router, _)) if router == address => {
                self.step(now, Input::Gateway(true))
            }
            other => {
                self.checking = other;
                Vec::new()
            }
        }
    }
}

impl Station for DhcpStation {
    fn port(&self) -> PortId {
        self.port
    }

    fn start(&mut self, now: u64) -> Vec<Action> {
        self.step(now, Input::Start)
    }

    fn wake(&mut self, now: u64) -> Vec<Action> {
        if self.checking.is_some() {
            return self.asked_in_vain(now);
        }
        match self.timer {
            Some(at) if at <= now => {
                self.timer = None;
                self.step(now, Input::Timer)
            }
            _ => Vec::new(),
        }
    }

    fn receive(&mut self, now: u64, frame: &Frame) -> Vec<Action> {
        match &frame.payload {
            Payload::Dhcp(bytes) => {
                let Ok(packet) = Packet::decode(bytes) else {
                    return Vec::new();
                };
                let before = self.client.state();
                let actions = self.step(now, Input::Packet(&packet));
                if before != ClientState::Bound && self.client.state() == ClientState::Bound {
                    self.server_mac = packet.options.server.map(|server| (server, frame.from));
                }
                actions
            }
            Payload::ArpReply { address } => self.heard(now, *address),
            Payload::ArpRequest { target, .. }
                if self.lease().is_some_and(|lease| lease.address == *target) =>
            {
                vec![Action::Send(
                    Some(frame.from),
                    Payload::ArpReply { address: *target },
                )]
            }
            _ => Vec::new(),
        }
    }
}
