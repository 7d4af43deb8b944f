//! How a console makes the address of a new adapter.

use super::{Draws, Request, Why, because};
use crate::facts::{Facts, Known, Missing};
use crate::lab::Host;
use drylab_catalog::{Mac, Witness};
use md5::{Digest, Md5};

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

/// Why two hosts hand out the same addresses; `None` when they do not.
///
/// # Errors
/// As [`mac_pool`].
pub fn mac_pools_clash(
    facts: &Facts<'_>,
    one: &Host,
    other: &Host,
) -> Result<Option<Vec<Witness>>, Missing> {
    let (Some(ours), Some(theirs)) = (mac_pool(facts, one)?, mac_pool(facts, other)?) else {
        return Ok(None);
    };
    if ours.value != theirs.value {
        return Ok(None);
    }
    let says = format!("addresses {} and {} end alike", one.address, other.address);
    let hosts = format!("hosts {} and {}", one.name, other.name);
    let mut why = vec![Witness::lab(hosts, says), Witness::quirk("HQ76")];
    why.extend(ours.chain());
    Ok(Some(why))
}

/// The address of a machine's `device`-th adapter, computed from the machine's seed as xapi does it (xen-api,
/// ocaml/xapi/xapi_vif_helpers.ml, gen_mac; no document says it): MD5 is taken of the seed's text, then of the digest
/// again, `2 × device` times more. The first four octets are those of that digest, the others the second and third of
/// the MD5 of it; the first octet is made to say that the address is local and of one station (IEEE 802, bits 1, 0).
///
/// ```
/// use drylab_hypervisor::console::mac_from_seed;
/// let seed = "5e1f0000-0000-4000-8000-000000000000";
/// assert_eq!(mac_from_seed(seed, 0), mac_from_seed(seed, 0));
/// assert_ne!(mac_from_seed(seed, 0), mac_from_seed(seed, 1));
/// assert!(mac_from_seed(seed, 0).is_locally_administered());
/// ```
#[must_use]
pub fn mac_from_seed(seed: &str, device: u8) -> Mac {
    let mut digest = Md5::digest(seed.as_bytes());
    for _ in 0..2 * u16::from(device) {
        digest = Md5::digest(digest);
    }
    let [a, b, c, d, ..]: [u8; 16] = digest.into();
    let [_, e, f, ..]: [u8; 16] = Md5::digest(digest).into();
    Mac([(a | 0x02) & !0x01, b, c, d, e, f])
}

/// The seed of a new machine: the one asked for, else a UUID of drawn bits; `None` on products that compute no address.
pub(super) fn seed(
    facts: &Facts<'_>,
    request: &Request,
    draws: Draws,
) -> Result<Option<String>, Missing> {
    if facts.text("mac.rule")?.value != "seed" {
        return Ok(None);
    }
    // A word has less bits than a UUID: it stands there twice, the second time inverted.
    let bits = (u128::from(draws.mac) << 64) | u128::from(!draws.mac);
    let asked = request.mac_seed.clone();
    Ok(Some(asked.unwrap_or_else(|| super::parts::uuid(bits))))
}

/// A drawn address: a vendor's prefix and three random octets; or the `number`-th of the host's pool from a drawn one
/// on; or what the machine's seed gives.
pub(super) fn drawn(
    facts: &Facts<'_>,
    host: &Host,
    (word, seed): (u64, Option<&str>),
    number: u8,
    why: &mut Why,
) -> Result<Mac, Missing> {
    let rule = facts.text("mac.rule")?;
    match (rule.value, seed) {
        ("prefix", _) => {
            let [a, b, c, ..] = word.rotate_left(24 * u32::from(number)).to_be_bytes();
            let prefix = facts.text("mac.prefix")?;
            because(why, "mac", &prefix);
            let [x, y, z] = octets(facts, prefix.value)?;
            Ok(Mac([x, y, z, a, b, c]))
        }
        ("seed", Some(seed)) => {
            because(why, "mac", &rule);
            let says = format!("mac_seed {seed}, device {number}");
            why.push(("mac", Witness::descriptor("other_config", says)));
            Ok(mac_from_seed(seed, number))
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
