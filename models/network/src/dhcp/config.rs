//! What a DHCP client is told before it starts, and what it keeps.

use crate::Subnet;
use drylab_catalog::Mac;
use std::net::Ipv4Addr;

/// One second of virtual time.
pub const SECOND_US: u64 = 1_000_000;

/// When to send again, and when to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// ISC dhclient.
    Dhclient {
        /// `timeout`: without an offer for so long, the attempt has failed.
        timeout_s: u32,
        /// `retry`: mean pause between attempts.
        retry_s: u32,
        /// `reboot`: how long to insist on a remembered address or an accepted offer.
        reboot_s: u32,
        /// `initial-interval`: first pause between messages.
        initial_s: u32,
        /// `backoff-cutoff`: bound of that pause.
        cutoff_s: u32,
        /// Option `-1`: exit after the first failed attempt.
        one_try: bool,
    },
    /// Windows: waits after each DHCPDISCOVER, then a link-local address and a new attempt every `retry_s`.
    Windows {
        /// Seconds after the first, second, … message.
        waits_s: Vec<u32>,
        /// Pause between attempts.
        retry_s: u32,
    },
}

/// What a client is told before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Hardware address.
    pub mac: Mac,
    /// Option 61; `None` leaves the choice of key to the server (hardware address).
    pub client_id: Option<Vec<u8>>,
    /// Option 12.
    pub host_name: Option<String>,
    /// Option 55.
    pub parameters: Vec<u8>,
    /// Asks for broadcast replies.
    pub broadcast: bool,
    /// Whether the address is looked for by ARP before it is used.
    pub checks_conflict: bool,
    /// Schedule.
    pub schedule: Schedule,
}

impl ClientConfig {
    /// ISC dhclient with its defaults, in the background for ever.
    #[must_use]
    pub fn dhclient(mac: Mac) -> Self {
        Self {
            mac,
            client_id: None,
            host_name: None,
            parameters: vec![1, 28, 2, 3, 15, 6, 12],
            broadcast: false,
            checks_conflict: false,
            schedule: Schedule::Dhclient {
                timeout_s: 60,
                retry_s: 300,
                reboot_s: 10,
                initial_s: 3,
                cutoff_s: 15,
                one_try: false,
            },
        }
    }

    /// ISC dhclient that exits after one failed attempt (`dhclient -1`).
    #[must_use]
    pub fn dhclient_once(mac: Mac) -> Self {
        let mut config = Self::dhclient(mac);
        if let Schedule::Dhclient { one_try, .. } = &mut config.schedule {
            *one_try = true;
        }
        config
    }

    /// Windows NT 6.1: identifier 01 and the MAC, four messages, APIPA, again every five minutes.
    #[must_use]
    pub fn windows(mac: Mac) -> Self {
        let mut client_id = vec![1];
        client_id.extend(mac.0);
        Self {
            mac,
            client_id: Some(client_id),
            host_name: None,
            parameters: vec![1, 15, 3, 6, 44, 46, 47, 31, 33, 121, 249, 43],
            broadcast: true,
            checks_conflict: true,
            schedule: Schedule::Windows {
                waits_s: vec![4, 8, 16, 32],
                retry_s: 300,
            },
        }
    }
}

/// A lease as the client keeps it; times are virtual microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFact {
    /// Address.
    pub address: Ipv4Addr,
    /// Its subnet.
    pub subnet: Subnet,
    /// Server that gave it.
    pub server: Ipv4Addr,
    /// Routers.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain name.
    pub domain: Option<String>,
    /// Host name the server gave.
    pub host_name: Option<String>,
    /// T1.
    pub renew_at: u64,
    /// T2.
    pub rebind_at: u64,
    /// End.
    pub expires_at: u64,
}
