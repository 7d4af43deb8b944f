//! IPv4 subnets.

use crate::ParseError;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network with its prefix length; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of `address` with a prefix of `prefix` bits; more than 32 counts as 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self {
            network: Ipv4Addr::from(u32::from(address) & mask(prefix)),
            prefix,
        }
    }

    /// From a netmask; `None` when its ones are not contiguous.
    #[must_use]
    pub fn from_mask(address: Ipv4Addr, netmask: Ipv4Addr) -> Option<Self> {
        prefix_of(netmask).map(|prefix| Self::new(address, prefix))
    }

    /// First address, host bits zero.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Bits of the prefix, 0..=32.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The netmask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix))
    }

    /// The broadcast address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !mask(self.prefix))
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.network)
    }
}

/// Prefix length of a netmask; `None` when its ones are not contiguous.
pub(crate) fn prefix_of(netmask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(netmask);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones)
        .then(|| u8::try_from(ones).ok())
        .flatten()
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32u32.saturating_sub(u32::from(prefix)))
        .unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || {
            ParseError::Corrupt(format!(
                "subnet {:?}: a.b.c.d/prefix expected",
                text.chars().take(40).collect::<String>()
            ))
        };
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        if let Ok(netmask) = prefix.parse::<Ipv4Addr>() {
            return Self::from_mask(address, netmask).ok_or_else(error);
        }
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if prefix > 32 {
            return Err(error());
        }
        Ok(Self::new(address, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::Subnet;
    use std::net::Ipv4Addr;

    #[test]
    fn prefixes_and_masks_say_the_same() {
        for prefix in 0..=32u8 {
            let subnet = Subnet::new([10, 1, 2, 3].into(), prefix);
            assert_eq!(
                Subnet::from_mask([10, 1, 2, 3].into(), subnet.mask()),
                Some(subnet)
            );
            assert!(subnet.contains([10, 1, 2, 3].into()) && subnet.contains(subnet.broadcast()));
        }
        assert_eq!(
            Subnet::from_mask([10, 0, 0, 0].into(), Ipv4Addr::new(255, 0, 255, 0)),
            None
        );
        assert_eq!(
            "10.0.0.0/255.255.255.0".parse(),
            Ok(Subnet::new([10, 0, 0, 0].into(), 24))
        );
        assert!("10.0.0.0/33".parse::<Subnet>().is_err());
    }
}
