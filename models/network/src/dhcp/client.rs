//! A DHCP client: RFC 2131, section 4.4, with the schedules of ISC dhclient and of Windows.
//!
//! ```text
//!  remembered lease ─ Rebooting ─ ACK ─┐          ┌─ T1 ─ Renewing ─ T2 ─ Rebinding ─ expiry ─┐
//!                        │ NAK, silence│          │         │ ACK            │ ACK            │
//!  none ─ Selecting ─ offer ─ Requesting ─ ACK ─ Bound <────┴────────────────┘                │
//!            │ silence                    │ conflict: DECLINE                                 │
//!         Checking (an old lease whose gateway answers) ─ Waiting or Ended      Selecting <───┘
//! ```
//!
//! The defaults of dhclient are those of `dhclient.conf(5)` of ISC DHCP 4 (timeout 60, retry 300, reboot 10,
//! initial-interval 3, backoff-cutoff 15 s).

use super::config::{ClientConfig, LeaseFact, SECOND_US, Schedule};
use super::packet::{Message, Op, Packet};
use crate::{Subnet, word};
use std::net::Ipv4Addr;

/// Where the client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Not started.
    Init,
    /// Asks for the remembered address.
    Rebooting,
    /// Looks for servers.
    Selecting,
    /// Has accepted an offer.
    Requesting,
    /// Has an address.
    Bound,
    /// Asks its server for more time.
    Renewing,
    /// Asks any server for more time.
    Rebinding,
    /// Tries whether the gateway of the remembered lease answers.
    Checking,
    /// Pauses between attempts.
    Waiting,
    /// Has exited.
    Ended,
}

/// What happens to a client.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// It starts.
    Start,
    /// The time it asked to be woken at has come.
    Timer,
    /// A message arrived.
    Packet(&'a Packet),
    /// Someone else uses the address it was given.
    Conflict,
    /// Whether the gateway asked for by [`Output::CheckGateway`] answered.
    Gateway(bool),
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Sends a message: to a server's address, or to everyone.
    Send(Packet, Option<Ipv4Addr>),
    /// Wants to be woken.
    Wake(u64),
    /// Has an address (again).
    Bound(LeaseFact),
    /// Lost its address.
    Lost,
    /// Wants to know whether this gateway answers.
    CheckGateway(Ipv4Addr),
    /// One attempt has failed; it goes on in the background (Windows: with a link-local address).
    Failed,
    /// Exited without an address.
    Exited,
}

/// A client for one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    config: ClientConfig,
    seed: u64,
    drawn: u64,
    state: ClientState,
    lease: Option<LeaseFact>,
    offer: Option<Packet>,
    xid: u32,
    began: u64,
    tries: u32,
    interval_s: u64,
}

impl Client {
    /// A client whose transaction ids and jitter follow from `seed`, with the lease it remembers from before.
    #[must_use]
    pub fn new(config: ClientConfig, seed: u64, remembered: Option<LeaseFact>) -> Self {
        Self {
            config,
            seed,
            drawn: 0,
            state: ClientState::Init,
            lease: remembered,
            offer: None,
            xid: 0,
            began: 0,
            tries: 0,
            interval_s: 0,
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// The lease it holds, or remembers when it is not bound.
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseFact> {
        self.lease.as_ref()
    }

    /// One step at `now`.
    pub fn step(&mut self, now: u64, input: Input<'_>) -> Vec<Output> {
        match input {
            Input::Start => self.start(now),
            Input::Timer => self.timer(now),
            Input::Packet(packet) => self.receive(now, packet),
            Input::Conflict => self.conflict(now),
            Input::Gateway(answered) => self.checked(now, answered),
        }
    }

    fn start(&mut self, now: u64) -> Vec<Output> {
        self.lease = self.lease.take().filter(|lease| lease.expires_at > now);
        if self.lease.is_none() {
            return self.discover_anew(now);
        }
        self.enter(ClientState::Rebooting, now);
        self.send_request(now)
    }

    fn enter(&mut self, state: ClientState, now: u64) {
        if matches!(
            state,
            ClientState::Rebooting | ClientState::Selecting | ClientState::Renewing
        ) {
            self.xid = u32::try_from(self.draw() >> 32).unwrap_or_default();
        }
        self.state = state;
        self.began = now;
        self.tries = 0;
        self.interval_s = 0;
    }

    fn discover_anew(&mut self, now: u64) -> Vec<Output> {
        self.enter(ClientState::Selecting, now);
        self.send_discover(now)
    }

    fn timer(&mut self, now: u64) -> Vec<Output> {
        match self.state {
            ClientState::Selecting => self.send_discover(now),
            ClientState::Rebooting | ClientState::Requesting => self.send_request(now),
            ClientState::Waiting => self.discover_anew(now),
            ClientState::Bound => {
                self.enter(ClientState::Renewing, now);
                self.extend(now)
            }
            ClientState::Renewing | ClientState::Rebinding => self.extend(now),
            ClientState::Init | ClientState::Checking | ClientState::Ended => Vec::new(),
        }
    }

    fn receive(&mut self, now: u64, packet: &Packet) -> Vec<Output> {
        if packet.op != Op::Reply || packet.xid != self.xid || packet.chaddr != self.config.mac {
            return Vec::new();
        }
        let asking = matches!(
            self.state,
            ClientState::Rebooting
                | ClientState::Requesting
                | ClientState::Renewing
                | ClientState::Rebinding
        );
        match (packet.options.message, self.state) {
            (Some(Message::Offer), ClientState::Selecting) if packet.options.server.is_some() => {
                self.offer = Some(packet.clone());
                self.enter(ClientState::Requesting, now);
                self.send_request(now)
            }
            (Some(Message::Ack), _) if asking => self.bind(now, packet),
            (Some(Message::Nak), _) if asking => {
                let had = matches!(self.state, ClientState::Renewing | ClientState::Rebinding);
                self.lease = None;
                let mut outputs = if had { vec![Output::Lost] } else { Vec::new() };
                outputs.extend(self.discover_anew(now));
                outputs
            }
            _ => Vec::new(),
        }
    }

    fn bind(&mut self, now: u64, packet: &Packet) -> Vec<Output> {
        let options = &packet.options;
        let lease_s = options.lease_s.unwrap_or(0);
        let at = |seconds: u32| now.saturating_add(u64::from(seconds).saturating_mul(SECOND_US));
        // RFC 2131, section 4.4.5: T1 is half, T2 seven eighths of the lease unless the server says otherwise.
        let rebinding = u32::try_from(u64::from(lease_s).saturating_mul(7) / 8).unwrap_or(u32::MAX);
        let mask = options.mask.unwrap_or_else(|| classful_mask(packet.yiaddr));
        let subnet = Subnet::from_mask(packet.yiaddr, mask)
            .unwrap_or_else(|| Subnet::new(packet.yiaddr, 32));
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map(|bytes| {
                String::from_utf8_lossy(bytes)
                    .trim_end_matches('\0')
                    .to_owned()
            })
        };
        let lease = LeaseFact {
            address: packet.yiaddr,
            subnet,
            server: options.server.unwrap_or(Ipv4Addr::UNSPECIFIED),
            routers: options.routers.clone(),
            dns: options.dns.clone(),
            domain: text(&options.domain),
            host_name: text(&options.host_name),
            renew_at: at(options.renewal_s.unwrap_or(lease_s / 2)),
            rebind_at: at(options.rebinding_s.unwrap_or(rebinding)),
            expires_at: at(lease_s),
        };
        self.enter(ClientState::Bound, now);
        self.lease = Some(lease.clone());
        vec![Output::Wake(lease.renew_at), Output::Bound(lease)]
    }

    fn conflict(&mut self, now: u64) -> Vec<Output> {
        let Some(lease) = self
            .lease
            .take()
            .filter(|_| self.state == ClientState::Bound)
        else {
            return Vec::new();
        };
        let mut decline = self.message(Message::Decline, now);
        decline.options.requested = Some(lease.address);
        decline.options.server = Some(lease.server);
        let mut outputs = vec![Output::Lost, Output::Send(decline, None)];
        // RFC 2131, section 3.1: at least ten seconds before it starts over.
        self.enter(ClientState::Waiting, now);
        outputs.push(Output::Wake(
            now.saturating_add(SECOND_US.saturating_mul(10)),
        ));
        outputs
    }

    fn send_discover(&mut self, now: u64) -> Vec<Output> {
        let Some(pause) = self.pause(now) else {
            return self.failed(now);
        };
        let mut discover = self.message(Message::Discover, now);
        discover
            .options
            .parameters
            .clone_from(&self.config.parameters);
        discover.options.requested = self.lease.as_ref().map(|lease| lease.address);
        vec![
            Output::Send(discover, None),
            Output::Wake(now.saturating_add(pause)),
        ]
    }

    fn send_request(&mut self, now: u64) -> Vec<Output> {
        let Some(pause) = self.pause(now) else {
            return match (&self.config.schedule, self.state) {
                // Windows keeps the remembered address when its gateway answers.
                (Schedule::Windows { .. }, ClientState::Rebooting) => self.check(now),
                _ => self.discover_anew(now),
            };
        };
        let mut request = self.message(Message::Request, now);
        request
            .options
            .parameters
            .clone_from(&self.config.parameters);
        if self.state == ClientState::Requesting {
            let offer = self.offer.as_ref();
            request.options.requested = offer.map(|offer| offer.yiaddr);
            request.options.server = offer.and_then(|offer| offer.options.server);
        } else {
            request.options.requested = self.lease.as_ref().map(|lease| lease.address);
        }
        vec![
            Output::Send(request, None),
            Output::Wake(now.saturating_add(pause)),
        ]
    }

    /// Renewing by unicast until T2, rebinding by broadcast until the end.
    fn extend(&mut self, now: u64) -> Vec<Output> {
        let Some(lease) = self.lease.clone() else {
            return self.discover_anew(now);
        };
        if now >= lease.expires_at {
            self.lease = None;
            let mut outputs = vec![Output::Lost];
            outputs.extend(self.discover_anew(now));
            return outputs;
        }
        let renewing = now < lease.rebind_at;
        self.state = if renewing {
            ClientState::Renewing
        } else {
            ClientState::Rebinding
        };
        let mut request = self.message(Message::Request, now);
        request.ciaddr = lease.address;
        request
            .options
            .parameters
            .clone_from(&self.config.parameters);
        // RFC 2131, section 4.4.5: half of what is left until the next state, at least a minute.
        let end = if renewing {
            lease.rebind_at
        } else {
            lease.expires_at
        };
        let pause = (end.saturating_sub(now) / 2).max(SECOND_US.saturating_mul(60));
        let wake = now.saturating_add(pause).min(end);
        vec![
            Output::Send(request, renewing.then_some(lease.server)),
            Output::Wake(wake),
        ]
    }

    /// The attempt is over: an old lease may serve, else pause or exit.
    fn failed(&mut self, now: u64) -> Vec<Output> {
        match &self.config.schedule {
            Schedule::Dhclient { .. }
                if self
                    .lease
                    .as_ref()
                    .is_some_and(|lease| lease.expires_at > now) =>
            {
                self.check(now)
            }
            _ => self.pause_or_exit(now),
        }
    }

    fn check(&mut self, now: u64) -> Vec<Output> {
        let Some(router) = self
            .lease
            .as_ref()
            .and_then(|lease| lease.routers.first().copied())
        else {
            return self.checked(now, false);
        };
        self.state = ClientState::Checking;
        vec![Output::CheckGateway(router)]
    }

    fn checked(&mut self, now: u64, answered: bool) -> Vec<Output> {
        match self.lease.clone() {
            Some(lease) if answered => {
                self.enter(ClientState::Bound, now);
                vec![Output::Wake(lease.renew_at.max(now)), Output::Bound(lease)]
            }
            _ => {
                self.lease = None;
                match self.config.schedule {
                    Schedule::Windows { .. } => self.discover_anew(now),
                    Schedule::Dhclient { .. } => self.pause_or_exit(now),
                }
            }
        }
    }

    fn pause_or_exit(&mut self, now: u64) -> Vec<Output> {
        let pause_s = match self.config.schedule {
            Schedule::Dhclient { one_try: true, .. } => {
                self.enter(ClientState::Ended, now);
                return vec![Output::Exited];
            }
            Schedule::Dhclient { retry_s, .. } => {
                let retry = u64::from(retry_s);
                retry
                    .saturating_add(1)
                    .saturating_div(2)
                    .saturating_add(self.draw().checked_rem(retry).unwrap_or(0))
            }
            Schedule::Windows { retry_s, .. } => u64::from(retry_s),
        };
        self.enter(ClientState::Waiting, now);
        vec![
            Output::Failed,
            Output::Wake(now.saturating_add(pause_s.saturating_mul(SECOND_US))),
        ]
    }

    /// Microseconds until the next message of this state, or `None` when its time is over.
    fn pause(&mut self, now: u64) -> Option<u64> {
        let elapsed_s = now.saturating_sub(self.began) / SECOND_US;
        let pause_s = match self.config.schedule.clone() {
            Schedule::Dhclient {
                timeout_s,
                reboot_s,
                initial_s,
                cutoff_s,
                ..
            } => {
                let limit = u64::from(if self.state == ClientState::Selecting {
                    timeout_s
                } else {
                    reboot_s
                });
                if elapsed_s > limit {
                    return None;
                }
                self.back_off(u64::from(initial_s), u64::from(cutoff_s));
                self.interval_s
                    .min(limit.saturating_sub(elapsed_s).saturating_add(1))
            }
            Schedule::Windows { waits_s, .. } => {
                // Two requests for a remembered address, then as many messages as there are waits.
                let bound = if self.state == ClientState::Rebooting {
                    waits_s.len().min(2)
                } else {
                    waits_s.len()
                };
                let index = usize::try_from(self.tries)
                    .ok()
                    .filter(|index| *index < bound)?;
                u64::from(waits_s.get(index).copied()?)
            }
        };
        self.tries = self.tries.saturating_add(1);
        Some(pause_s.saturating_mul(SECOND_US))
    }

    /// dhclient's growth: the first pause as configured, then longer by a chance part of twice itself, bounded.
    fn back_off(&mut self, initial_s: u64, cutoff_s: u64) {
        if self.interval_s == 0 {
            self.interval_s = initial_s;
        } else {
            let spread = self.interval_s.saturating_mul(2);
            self.interval_s = self
                .interval_s
                .saturating_add(self.draw().checked_rem(spread).unwrap_or(0));
        }
        if self.interval_s > cutoff_s {
            self.interval_s =
                (cutoff_s / 2).saturating_add(self.draw().checked_rem(cutoff_s).unwrap_or(0));
        }
        self.interval_s = self.interval_s.max(1);
    }

    fn message(&self, message: Message, now: u64) -> Packet {
        let mut packet = Packet::request(message, self.xid, self.config.mac);
        packet.secs = u16::try_from(now.saturating_sub(self.began) / SECOND_US).unwrap_or(u16::MAX);
        packet.broadcast = self.config.broadcast;
        packet.options.client.clone_from(&self.config.client_id);
        packet.options.host_name = self
            .config
            .host_name
            .as_ref()
            .map(|name| name.as_bytes().to_vec());
        packet
    }

    fn draw(&mut self) -> u64 {
        let drawn = word(self.seed, self.drawn);
        self.drawn = self.drawn.saturating_add(1);
        drawn
    }
}

/// Netmask of an address without option 1: by class.
fn classful_mask(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets() {
        [0..=127, ..] => Ipv4Addr::new(255, 0, 0, 0),
        [128..=191, ..] => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}
