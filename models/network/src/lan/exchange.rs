//! The event loop: frames are delivered in the order of (time, sequence).

use super::{Action, Frame, Lan, PacketLog, Payload, PortId, Station};
use crate::dhcp::{Op, Packet};
use drylab_catalog::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Most events of one exchange: a loop in the network ends here.
const MOST_EVENTS: u32 = 1_000_000;

#[derive(Clone, Debug)]
enum Event {
    Start(usize),
    Wake(usize),
    ToPort(PortId, Frame),
    ToHost(usize, Frame),
    FromHost(usize, Frame),
}

struct Loop<'a> {
    lan: &'a mut Lan,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    log: Vec<PacketLog>,
}

impl Lan {
    /// Runs these stations from `from` until all are done and their frames delivered, or until `until`; returns what
    /// was sent, in order. Stations start in the order given, at the same time.
    pub fn exchange(
        &mut self,
        stations: &mut [&mut dyn Station],
        from: u64,
        until: u64,
    ) -> Vec<PacketLog> {
        let mut events = Loop {
            lan: self,
            queue: BTreeMap::new(),
            sequence: 0,
            log: Vec::new(),
        };
        let active: BTreeMap<PortId, usize> = stations
            .iter()
            .zip(0usize..)
            .map(|(station, index)| (station.port(), index))
            .collect();
        let mut waiting: BTreeSet<usize> = (0..stations.len()).collect();
        let mut wishes: BTreeMap<usize, u64> = BTreeMap::new();
        for index in 0..stations.len() {
            events.push(from, Event::Start(index));
        }
        for _ in 0..MOST_EVENTS {
            let Some(((now, sequence), event)) = events.queue.pop_first() else {
                break;
            };
            if now > until {
                break;
            }
            let (index, actions) = match event {
                Event::FromHost(host, frame) => {
                    events.send_from_host(now, host, frame);
                    continue;
                }
                Event::ToHost(host, frame) => {
                    events.host_receives(now, host, &frame);
                    continue;
                }
                Event::ToPort(port, frame) => match active.get(&port) {
                    Some(index) => match stations.get_mut(*index) {
                        Some(station) => (*index, station.receive(now, &frame)),
                        None => continue,
                    },
                    None => {
                        events.idle_port_receives(now, port, &frame);
                        continue;
                    }
                },
                Event::Start(index) => match stations.get_mut(index) {
                    Some(station) => (index, station.start(now)),
                    None => continue,
                },
                Event::Wake(index) => {
                    // Only the last wish counts; a station that is done sleeps.
                    if wishes.get(&index) != Some(&sequence) || !waiting.contains(&index) {
                        continue;
                    }
                    match stations.get_mut(index) {
                        Some(station) => (index, station.wake(now)),
                        None => continue,
                    }
                }
            };
            let Some(port) = stations.get(index).map(|station| station.port()) else {
                continue;
            };
            for action in actions {
                match action {
                    Action::Send(to, payload) => events.send_from_port(now, port, to, payload),
                    Action::Wake(at) => {
                        let sequence = events.push(at.max(now), Event::Wake(index));
                        wishes.insert(index, sequence);
                    }
                    Action::Done => {
                        waiting.remove(&index);
                    }
                }
            }
            if waiting.is_empty()
                && !events
                    .queue
                    .values()
                    .any(|event| !matches!(event, Event::Wake(_)))
            {
                break;
            }
        }
        events.log
    }
}

impl Loop<'_> {
    fn push(&mut self, at: u64, event: Event) -> u64 {
        let sequence = self.sequence;
        self.sequence = sequence.saturating_add(1);
        self.queue.insert((at, sequence), event);
        sequence
    }

    fn record(&mut self, now: u64, segment: &str, frame: &Frame, dropped: Option<String>) -> bool {
        let number = self.lan.frames_sent;
        self.lan.frames_sent = number.saturating_add(1);
        let dropped = dropped.or_else(|| {
            self.lan
                .lost_frames
                .contains(&number)
                .then(|| "lost on the way".to_owned())
        });
        let passes = dropped.is_none();
        self.log.push(PacketLog {
            at: now,
            number,
            segment: segment.to_owned(),
            from: frame.from,
            to: frame.to,
            summary: frame.payload.summary(),
            dropped,
        });
        passes
    }

    fn send_from_port(&mut self, now: u64, id: PortId, to: Option<Mac>, payload: Payload) {
        let Some(port) = self.lan.ports.get(&id).cloned() else {
            return;
        };
        let frame = Frame {
            from: port.mac,
            to,
            payload,
        };
        let Some(network) = self.lan.networks.get(&port.network).cloned() else {
            self.record(
                now,
                "",
                &frame,
                Some(format!("no network {}", port.network)),
            );
            return;
        };
        let dropped = if !network.up {
            Some(format!("{} has no uplink", port.network))
        } else if now < port.forwarding_at {
            Some(format!(
                "the switch port forwards only from {} us",
                port.forwarding_at
            ))
        } else {
            None
        };
        if self.record(now, &network.segment, &frame, dropped) {
            self.deliver(
                now.saturating_add(network.latency_us),
                &network.segment,
                Some(id),
                None,
                &frame,
            );
        }
    }

    fn send_from_host(&mut self, now: u64, index: usize, frame: Frame) {
        let Some(segment) = self.lan.hosts.get(index).map(|host| host.segment.clone()) else {
            return;
        };
        if self.record(now, &segment, &frame, None) {
            self.deliver(now, &segment, None, Some(index), &frame);
        }
    }

    /// To every host and every port of the segment that the frame is for.
    fn deliver(
        &mut self,
        at: u64,
        segment: &str,
        from_port: Option<PortId>,
        from_host: Option<usize>,
        frame: &Frame,
    ) {
        let is_for = |mac: Mac| frame.to.is_none_or(|to| to == mac);
        let hosts: Vec<usize> = self
            .lan
            .hosts
            .iter()
            .zip(0usize..)
            .filter(|(host, index)| {
                host.up && host.segment == segment && Some(*index) != from_host && is_for(host.mac)
            })
            .map(|(_, index)| index)
            .collect();
        let ports: Vec<(PortId, u64)> = self
            .lan
            .ports
            .iter()
            .filter(|(id, port)| Some(**id) != from_port && is_for(port.mac))
            .filter_map(|(id, port)| {
                let network = self.lan.networks.get(&port.network)?;
                let arrives = at.saturating_add(network.latency_us);
                (network.up && network.segment == segment && arrives >= port.forwarding_at)
                    .then_some((*id, arrives))
            })
            .collect();
        for host in hosts {
            self.push(at, Event::ToHost(host, frame.clone()));
        }
        for (port, arrives) in ports {
            self.push(arrives, Event::ToPort(port, frame.clone()));
        }
    }

    /// The IP stack of the guest behind a port: it answers for the addresses the guest was given.
    fn idle_port_receives(&mut self, now: u64, id: PortId, frame: &Frame) {
        let Some(port) = self.lan.ports.get(&id) else {
            return;
        };
        let reply = match frame.payload {
            Payload::ArpRequest { target, .. } if port.addresses.contains(&target) => {
                Payload::ArpReply { address: target }
            }
            Payload::Echo { source, target, .. } if port.addresses.contains(&target) => {
                Payload::EchoReply {
                    source: target,
                    target: source,
                    ttl: 64,
                }
            }
            _ => return,
        };
        self.send_from_port(now, id, Some(frame.from), reply);
    }

    fn host_receives(&mut self, now: u64, index: usize, frame: &Frame) {
        let way = self.has_way_back(index, frame);
        let Some(host) = self.lan.hosts.get_mut(index) else {
            return;
        };
        let (mac, address, reply_at) = (host.mac, host.address, now.saturating_add(host.reply_us));
        let reply = match &frame.payload {
            Payload::Dhcp(bytes) => {
                let Some(server) = host.dhcp.as_mut() else {
                    return;
                };
                let Some(reply) = Packet::decode(bytes)
                    .ok()
                    .filter(|packet| packet.op == Op::Request)
                    .and_then(|packet| server.handle(now, &packet))
                else {
                    return;
                };
                let to = (!reply.broadcast).then_some(reply.chaddr);
                self.push(
                    reply_at,
                    Event::FromHost(
                        index,
                        Frame {
                            from: mac,
                            to,
                            payload: Payload::Dhcp(reply.encode()),
                        },
                    ),
                );
                return;
            }
            Payload::ArpRequest { target, .. } if *target == address => {
                Payload::ArpReply { address }
            }
            Payload::Echo { source, target, .. } if *target == address && way => {
                Payload::EchoReply {
                    source: *target,
                    target: *source,
                    ttl: 64,
                }
            }
            Payload::Query {
                source,
                target,
                name,
                ..
            } if *target == address && way => {
                let Some(names) = &host.dns else { return };
                let answer = names.get(&name.to_ascii_lowercase()).copied();
                Payload::Response {
                    source: *target,
                    target: *source,
                    name: name.clone(),
                    answer,
                    ttl: 64,
                }
            }
            other => {
                self.forward(reply_at, index, other);
                return;
            }
        };
        self.push(
            reply_at,
            Event::FromHost(
                index,
                Frame {
                    from: mac,
                    to: Some(frame.from),
                    payload: reply,
                },
            ),
        );
    }

    /// Whether a host knows where to send an answer: the asker is in its subnet, or was brought by a router.
    fn has_way_back(&self, index: usize, frame: &Frame) -> bool {
        let Some((source, ..)) = frame.payload.route() else {
            return true;
        };
        let Some(host) = self.lan.hosts.get(index) else {
            return false;
        };
        let mut near = self
            .lan
            .hosts
            .iter()
            .filter(|near| near.segment == host.segment && near.router.is_some());
        host.subnet.contains(source) || near.any(|near| near.mac == frame.from)
    }

    /// A router passes a packet on to the interface whose subnet holds its destination. An interface that translates
    /// lets nothing unasked in; answers find the inner source without rewriting, because a host answers to the
    /// neighbour it was asked by.
    fn forward(&mut self, at: u64, index: usize, payload: &Payload) {
        let Some((_, target, _)) = payload.route() else {
            return;
        };
        let Some(inner) = self
            .lan
            .hosts
            .get(index)
            .filter(|host| host.router.is_some())
        else {
            return;
        };
        let found = self.lan.hosts.iter().zip(0usize..).find(|(host, _)| {
            host.up && host.router == inner.router && host.subnet.contains(target)
        });
        let Some((outer, outer_index)) = found else {
            return;
        };
        let asked = matches!(
            payload,
            Payload::EchoReply { .. } | Payload::Response { .. }
        );
        if inner.nat && outer_index != index && !asked {
            return;
        }
        let own = outer.address == target && !asked;
        let answer = match payload {
            Payload::Echo { source, target, .. } if own => Some(Payload::EchoReply {
                source: *target,
                target: *source,
                ttl: 64,
            }),
            _ => None,
        };
        let (from, to, payload) = match answer {
            // The router's own far interface answers by the near one.
            Some(answer) => (index, self.back(index, &answer), answer),
            None => {
                let Some(next) = payload.forwarded() else {
                    return;
                };
                (outer_index, self.neighbour(&outer.segment, target), next)
            }
        };
        let (Some(to), Some(mac)) = (to, self.lan.hosts.get(from).map(|host| host.mac)) else {
            return;
        };
        self.push(
            at,
            Event::FromHost(
                from,
                Frame {
                    from: mac,
                    to: Some(to),
                    payload,
                },
            ),
        );
    }

    fn back(&self, index: usize, answer: &Payload) -> Option<Mac> {
        let (_, target, _) = answer.route()?;
        self.neighbour(&self.lan.hosts.get(index)?.segment, target)
    }

    /// Who has this address on a segment: what the router's ARP would find.
    fn neighbour(&self, segment: &str, address: Ipv4Addr) -> Option<Mac> {
        let host = self
            .lan
            .hosts
            .iter()
            .find(|host| host.up && host.segment == segment && host.address == address);
        host.map(|host| host.mac).or_else(|| {
            let port = self.lan.ports.iter().find(|(id, port)| {
                port.addresses.contains(&address)
                    && self.lan.segment_of(**id) == Some(segment)
                    && self.lan.has_link(**id)
            });
            port.map(|(_, port)| port.mac)
        })
    }
}
