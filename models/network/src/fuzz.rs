//! Entry points for fuzzing; the tests of this crate call them over mutated valid inputs.

use crate::Subnet;
use crate::dhcp::{Packet, Pick, Server, ServerConfig};
use crate::firewall::{Probe, Ruleset};

/// Reads a DHCP message, writes it back, reads it again, and hands it to a server.
///
/// # Panics
/// When writing what was read gives another message, or the server loses an address.
pub fn dhcp(data: &[u8]) {
    let Ok(packet) = Packet::decode(data) else {
        return;
    };
    let bytes = packet.encode();
    // Duplicate options are joined when read, so what is read is already in its one form.
    assert!(
        bytes.len() > 1500 || Packet::decode(&bytes).as_ref() == Ok(&packet),
        "{packet:?}"
    );
    assert!(!packet.summary().is_empty());
    let mut server = Server::new(ServerConfig::new(
        [10, 0, 0, 1].into(),
        Subnet::new([10, 0, 0, 0].into(), 24),
        Pick::Hash,
    ));
    let reply = server.handle(0, &packet);
    assert!(reply.is_none_or(|reply| reply.xid == packet.xid && reply.chaddr == packet.chaddr));
    let census = server.census(0);
    let sum = [
        census.free,
        census.offered,
        census.leased,
        census.declined,
        census.reserved,
    ]
    .iter()
    .sum::<u64>();
    assert_eq!(sum, census.pool);
}

/// Reads an `iptables-save` text and sends the probes through it.
///
/// # Panics
/// When a verdict names a line the text does not have.
pub fn iptables(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(rules) = Ruleset::parse(&text) else {
        return;
    };
    let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
    for probe in [
        Probe::echo("eth0"),
        Probe::tcp("eth0", 22),
        Probe::tcp("lo", 3389),
    ] {
        let verdict = rules.judge(&probe);
        assert!(
            verdict.line.is_none_or(|line| line >= 1 && line <= lines),
            "{verdict:?}"
        );
    }
    for (line, _) in rules.rules_bound_to_absent(&["eth0"]) {
        assert!(line >= 1 && line <= lines);
    }
}
