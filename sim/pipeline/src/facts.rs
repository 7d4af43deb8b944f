//! What the script inside the guest reports, before and after, and how the two compare.

use crate::check::Found;
use crate::policy::Measure;
use drylab_catalog::{Mac, Witness};
use drylab_scenario::Step;
use std::net::Ipv4Addr;

/// A value with why it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// The value.
    pub value: T,
    /// Why; never empty.
    pub witness: Vec<Witness>,
}

/// A fact, or the reason why it cannot be known.
pub type Fact<T> = Result<Seen<T>, String>;

/// Facts of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFacts {
    /// Whether the guest reached its services.
    pub booted: Fact<bool>,
    /// Brand string of the processor.
    pub cpu_model: Fact<String>,
    /// Clock the guest measures, in kHz.
    pub cpu_khz: Fact<u64>,
    /// Processors.
    pub vcpus: Fact<u64>,
    /// Memory the guest reports, in KiB.
    pub ram_kib: Fact<u64>,
    /// Name of the interface that has the address, or the first there is.
    pub interface: Fact<Option<String>>,
    /// Address of its adapter.
    pub mac: Fact<Option<Mac>>,
    /// IPv4 address; link-local addresses do not count.
    pub address: Fact<Option<Ipv4Addr>>,
    /// `destination via gateway`, sorted, without interface names.
    pub routes: Fact<Vec<String>>,
    /// Name servers, in order.
    pub dns: Fact<Vec<Ipv4Addr>>,
    /// Whether the gateway answers.
    pub gateway: Fact<bool>,
    /// Which probes pass the firewall, in words.
    pub firewall: Fact<String>,
    /// Sizes of the disks the guest sees, in bytes.
    pub disks: Fact<Vec<u64>>,
    /// Seconds the guest's clock is ahead of the host's.
    pub clock_ahead_s: Fact<i64>,
}

/// The checks of step 7 that compare the facts of two boots; only `guest.boots` when the guest does not boot.
#[must_use]
pub fn compare(before: &GuestFacts, after: &GuestFacts) -> Vec<Found> {
    let mut found = vec![boots(&after.booted)];
    if after.booted.as_ref().is_ok_and(|seen| !seen.value) {
        return found;
    }
    found.push(text("guest.cpu-model", &before.cpu_model, &after.cpu_model));
    found.push(number(
        "guest.cpu-speed",
        "kHz",
        &before.cpu_khz,
        &after.cpu_khz,
    ));
    found.push(number(
        "guest.vcpus",
        "processors",
        &before.vcpus,
        &after.vcpus,
    ));
    found.push(number("guest.ram", "KiB", &before.ram_kib, &after.ram_kib));
    found.push(optional(
        "guest.interface-name",
        &before.interface,
        &after.interface,
    ));
    found.push(optional("guest.mac", &before.mac, &after.mac));
    found.push(optional(
        "guest.ip-address",
        &before.address,
        &after.address,
    ));
    found.push(list("guest.routes", &before.routes, &after.routes));
    found.push(list("guest.dns", &before.dns, &after.dns));
    found.push(gateway(&before.gateway, &after.gateway));
    found.push(text("guest.firewall", &before.firewall, &after.firewall));
    found.push(list("guest.disks", &before.disks, &after.disks));
    found.push(clock(&before.clock_ahead_s, &after.clock_ahead_s));
    found
}

/// The check over a second restart at the target.
#[must_use]
pub fn stable(first: &GuestFacts, second: &GuestFacts) -> Found {
    let mut found = optional("guest.ip-stable", &first.address, &second.address);
    if let Some(first) = first
        .address
        .as_ref()
        .ok()
        .filter(|seen| seen.value.is_none())
    {
        found.measure = Err("there was no address after the first restart".to_owned());
        found.witness.clone_from(&first.witness);
    }
    found
}

fn found<A, B>(
    id: &'static str,
    before: &Fact<A>,
    after: &Fact<B>,
    compared: impl FnOnce(&A, &B) -> (String, String, Measure),
) -> Found {
    let reason = |side: &str, reason: &String| Err(format!("{side}: {reason}"));
    let (words, measure, mut witness) = match (before, after) {
        (Ok(before), Ok(after)) => {
            let (old, new, measure) = compared(&before.value, &after.value);
            (Some((old, new)), Ok(measure), after.witness.clone())
        }
        (Err(why), after) => (
            None,
            reason("before", why),
            after
                .as_ref()
                .map(|seen| seen.witness.clone())
                .unwrap_or_default(),
        ),
        (Ok(before), Err(why)) => (None, reason("after", why), before.witness.clone()),
    };
    let mut seen = std::collections::BTreeSet::new();
    witness.retain(|link| seen.insert(link.clone()));
    let (before, after) = words.unwrap_or_default();
    Found {
        id,
        step: Step::Restart,
        before,
        after,
        measure,
        witness,
    }
}

fn boots(after: &Fact<bool>) -> Found {
    let before: Fact<()> = Ok(Seen {
        value: (),
        witness: Vec::new(),
    });
    found("guest.boots", &before, after, |(), booted| {
        let words = if *booted {
            "reaches its services"
        } else {
            "does not reach its services"
        };
        (
            "boots".to_owned(),
            words.to_owned(),
            if *booted {
                Measure::Same
            } else {
                Measure::Missing
            },
        )
    })
}

fn same(equal: bool) -> Measure {
    if equal {
        Measure::Same
    } else {
        Measure::Changed
    }
}

fn text(id: &'static str, before: &Fact<String>, after: &Fact<String>) -> Found {
    found(id, before, after, |old, new| {
        (old.clone(), new.clone(), same(old == new))
    })
}

fn number(id: &'static str, unit: &str, before: &Fact<u64>, after: &Fact<u64>) -> Found {
    found(id, before, after, |old, new| {
        let ppm = u128::from(old.abs_diff(*new)) * 1_000_000 / u128::from((*old).max(1));
        let measure = if old == new {
            Measure::Same
        } else {
            Measure::Differs(u64::try_from(ppm).unwrap_or(u64::MAX))
        };
        (format!("{old} {unit}"), format!("{new} {unit}"), measure)
    })
}

fn optional<T: PartialEq + std::fmt::Display>(
    id: &'static str,
    before: &Fact<Option<T>>,
    after: &Fact<Option<T>>,
) -> Found {
    let words = |value: &Option<T>| {
        value
            .as_ref()
            .map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    found(id, before, after, |old, new| {
        let measure = match (old, new) {
            (_, None) => Measure::Missing,
            (old, new) => same(old == new),
        };
        (words(old), words(new), measure)
    })
}

fn list<T: PartialEq + std::fmt::Display>(
    id: &'static str,
    before: &Fact<Vec<T>>,
    after: &Fact<Vec<T>>,
) -> Found {
    let words = |values: &[T]| match values {
        [] => "none".to_owned(),
        values => values
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    found(id, before, after, |old, new| {
        let measure = if new.is_empty() && !old.is_empty() {
            Measure::Missing
        } else {
            same(old == new)
        };
        (words(old), words(new), measure)
    })
}

fn gateway(before: &Fact<bool>, after: &Fact<bool>) -> Found {
    let words = |reached: bool| {
        if reached {
            "answers"
        } else {
            "does not answer"
        }
        .to_owned()
    };
    found("guest.gateway", before, after, |old, new| {
        (
            words(*old),
            words(*new),
            if *new {
                Measure::Same
            } else {
                Measure::Missing
            },
        )
    })
}

/// A minute more or less is what a boot without NTP may lose.
fn clock(before: &Fact<i64>, after: &Fact<i64>) -> Found {
    found("guest.clock", before, after, |old, new| {
        (
            format!("{old} s ahead"),
            format!("{new} s ahead"),
            same(new.abs_diff(*old) <= 60),
        )
    })
}
