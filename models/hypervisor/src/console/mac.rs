//! How a console makes the address of a new adapter.

use super::{Why, because};
use crate::facts::{Facts, Known, Missing};
use crate::lab::Host;
use drylab_catalog::Mac;

/// The 256 addresses a Hyper-V host hands out: 00:15:5D, the last two octets of its IPv4 address, a byte that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacPool([u8; 5]);

impl MacPool {
    /// Whether an address is one of this host's.
    #[must_use]
    pub fn contains(self, mac: Mac) -> bool {
        mac.0.starts_with(&self.0)
    }

    /// The address with this number.
    #[must_use]
    pub fn address(self, number: u8) -> Mac {
        let [a, b, c, d, e] = self.0;
        Mac([a, b, c, d, e, number])
    }
}

/// The pool of a host of a product that makes addresses of the host's own; `None` on other products.
///
/// # Errors
/// [`Missing`] when nobody wrote down how the product makes addresses.
pub fn mac_pool(facts: &Facts<'_>, host: &Host) -> Result<Option<Known<MacPool>>, Missing> {
    if facts.text("mac.rule")?.value != "host-pool" {
        return Ok(None);
    }
    let prefix = facts.text("mac.prefix")?;
    let [a, b, c] = octets(facts, prefix.value)?;
    let [_, _, d, e] = host.address.octets();
    Ok(Some(Known {
        value: MacPool([a, b, c, d, e]),
        witness: prefix.witness,
        quirk: prefix.quirk,
    }))
}

/// A drawn address: a vendor's prefix and three random octets; or the `number`-th of the host's pool from a drawn one
/// on; or six random octets, of which the first says that they are local and of one station (IEEE 802, bits 1 and 0).
pub(super) fn drawn(
    facts: &Facts<'_>,
    host: &Host,
    word: u64,
    number: u8,
    why: &mut Why,
) -> Result<Mac, Missing> {
    let rule = facts.text("mac.rule")?;
    let [a, b, c, d, e, f, ..] = word.rotate_left(24 * u32::from(number)).to_be_bytes();
    match rule.value {
        "prefix" => {
            let prefix = facts.text("mac.prefix")?;
            because(why, "mac", &prefix);
            let [x, y, z] = octets(facts, prefix.value)?;
            Ok(Mac([x, y, z, a, b, c]))
        }
        "local" => {
            because(why, "mac", &rule);
            Ok(Mac([(a | 0x02) & !0x01, b, c, d, e, f]))
        }
        _ => {
            let pool = mac_pool(facts, host)?.ok_or_else(|| Missing {
                fact: format!("{}/mac.rule as one of three", facts.product().id),
            })?;
            because(why, "mac", &rule);
            because(why, "mac", &pool);
            let [first, ..] = word.to_be_bytes();
            Ok(pool.value.address(first.wrapping_add(number)))
        }
    }
}

fn octets(facts: &Facts<'_>, prefix: &str) -> Result<[u8; 3], Missing> {
    let whole: Result<Mac, _> = format!("{prefix}:00:00:00").parse();
    match whole {
        Ok(Mac([a, b, c, ..])) => Ok([a, b, c]),
        Err(_) => Err(Missing {
            fact: format!("{}/mac.prefix as three octets", facts.product().id),
        }),
    }
}
