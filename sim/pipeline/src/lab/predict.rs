//! Preflight of a real disk: what a guest on it would meet on another product's default machine.
//!
//! There is no run and no source: the disk is inspected, the target's console makes a machine for such a guest, and the
//! guest is booted there. Changes against a source cannot be told; what is missing can.

use super::books::Site;
use super::observe::{Boots, Setting, observe};
use super::source::ZONE_S;
use super::{CannotRun, imports, wires};
use crate::check::{Found, Overall, aggregate};
use crate::facts::{Fact, GuestFacts};
use crate::library::Library;
use crate::policy::{Measure, Relaxed};
use crate::route::Hop;
use drylab_appliance::Package;
use drylab_appliance::xva::is_xva;
use drylab_block::ReadAt;
use drylab_catalog::{Mark, Place, ProductId, Witness};
use drylab_guest::inspect::{Family, Guest, GuestDisk};
use drylab_hypervisor::console::{Draws, Made, Request, create};
use drylab_hypervisor::importer::{Operator, ReadError, Reading, Verdict};
use drylab_hypervisor::{Facts, Host, Product};
use drylab_image::Repair;
use drylab_kernel::{Streams, Trace};
use drylab_scenario::{Import, Scenario, Step};
use std::sync::Arc;

/// What is to be expected of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The target.
    pub target: ProductId,
    /// The minimum over the findings.
    pub overall: Overall,
    /// Every check made, passes included; those of the guest first.
    pub findings: Vec<PredictedFinding>,
}

/// One check of a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictedFinding {
    /// Check id; those that begin with `guest.` depend on the disk's bytes alone, not on their container.
    pub id: String,
    /// Its score.
    pub score: Overall,
    /// Where it was decided: file and line, registry key, fact, descriptor.
    pub place: String,
    /// Weakest evidence on its way.
    pub evidence: Mark,
    /// What to do about it, in one line; empty where nothing has to be done.
    pub remedy: String,
    /// Why, as a chain.
    pub witness: Vec<Witness>,
}

/// Predicts how the guest on a disk fares on a target's default machine.
///
/// # Errors
/// [`CannotRun`] when the disk holds no guest, or the target is not known.
pub fn predict(
    library: &Library,
    disk: &GuestDisk,
    target: &ProductId,
) -> Result<Prediction, CannotRun> {
    let guest = library
        .inspect(disk)
        .map_err(|error| CannotRun(error.to_string()))?;
    let request = Request::plain(
        "preflight",
        &guest_key(&guest),
        (1, 2048),
        &[disk.bytes.len()],
    );
    expected(library, &guest, target, &request)
}

/// Predicts how the guest in a package fares: on the machine its descriptor asks for where the target's importer reads
/// one, else on the target's default machine; with what the importer says of the package, and what the machine needs.
///
/// # Errors
/// As [`predict`].
pub fn predict_package(
    library: &Library,
    disk: &GuestDisk,
    package: &Package,
    target: &ProductId,
) -> Result<Prediction, CannotRun> {
    let guest = library
        .inspect(disk)
        .map_err(|error| CannotRun(error.to_string()))?;
    let (product, host) = place_of(library, target)?;
    let facts = product.facts();
    let reading = read(&facts, host, package, &guest);
    let asked = match &reading {
        Some((Ok(reading), _)) if !package.descriptor.is_empty() => Some(reading.request.clone()),
        _ => None,
    };
    let mut prediction = match asked {
        Some(request) => expected(library, &guest, target, &request)?,
        None => predict(library, disk, target)?,
    };
    let mut found = Vec::new();
    if let Some((Ok(reading), _)) = &reading {
        found.extend(Site::new(host.clone(), product.facts(), "", None).needs(reading));
    }
    found.extend(from_reading(&facts, target, package, reading));
    let around = scored(library, target, found);
    prediction.overall = prediction.overall.min(around.overall);
    prediction.findings.extend(around.findings);
    Ok(prediction)
}

fn place_of<'l>(
    library: &'l Library,
    target: &ProductId,
) -> Result<(&'l Product, &'l Host), CannotRun> {
    let product = library
        .products
        .get(target)
        .ok_or_else(|| CannotRun(format!("there is no product {target}")))?;
    let host = library
        .lab
        .host_of(target)
        .ok_or_else(|| CannotRun(format!("the lab has no host for {target}")))?;
    Ok((product, host))
}

/// Boots the guest once on the machine the target's console makes of a request.
fn expected(
    library: &Library,
    guest: &Arc<Guest>,
    target: &ProductId,
    request: &Request,
) -> Result<Prediction, CannotRun> {
    let (product, host) = place_of(library, target)?;
    let site = Site::new(host.clone(), product.facts(), "", None);
    let draws = Draws {
        mac: PREFLIGHT_MAC,
        uuid: 1,
    };
    let found = match create(&site.facts, host, request, draws) {
        Err(fact) => vec![super::unknown("guest.boots", Step::Restart, &fact)],
        Ok(made) => {
            let scenario = Scenario::new(&guest_key(guest), target.as_str(), target.as_str(), "");
            boot_once(library, &scenario, &site, guest, &made)
        }
    };
    Ok(scored(library, target, found))
}

/// Any address the target would draw will do, as long as the guest has not seen it.
const PREFLIGHT_MAC: u64 = 0xd7_1a_b0 << 40;

fn boot_once(
    library: &Library,
    scenario: &Scenario,
    site: &Site<'_>,
    guest: &Arc<Guest>,
    made: &Made,
) -> Vec<Found> {
    let streams = Streams::new(0);
    let mut lan = wires::build(library, scenario, &streams, (site, site), None);
    let mac: Vec<Witness> = site
        .facts
        .text("mac.on-import")
        .map(|known| known.chain())
        .unwrap_or_default();
    let setting = Setting {
        library,
        guest,
        made,
        extra: &mac,
        host: &site.name,
        seed: 0,
        tsc_ppm: 0,
        zone_s: ZONE_S,
        component: "target",
        lab_mark: wires::mark(library, wires::segment_of(library, &site.host)),
        elsewhere: &[],
    };
    let (facts, _) = observe(
        &setting,
        &mut Boots::default(),
        &mut lan,
        0,
        &mut Trace::hashing_only(),
    );
    presence(&facts)
}

/// The checks that need no "before": something is there, or it is not.
fn presence(facts: &GuestFacts) -> Vec<Found> {
    let booted = there(
        "guest.boots",
        &facts.booted,
        |booted| *booted,
        |_| "reaches its services".to_owned(),
    );
    if facts.booted.as_ref().is_ok_and(|seen| !seen.value) {
        return vec![booted];
    }
    let words = |value: &Option<_>| {
        value.map_or_else(
            || "none".to_owned(),
            |value: std::net::Ipv4Addr| value.to_string(),
        )
    };
    let mut clock = there(
        "guest.clock",
        &facts.clock_ahead_s,
        |_| true,
        |ahead| format!("{ahead} s ahead"),
    );
    if facts
        .clock_ahead_s
        .as_ref()
        .is_ok_and(|seen| seen.value != 0)
    {
        clock.measure = Ok(Measure::Changed);
    }
    vec![
        booted,
        there(
            "guest.interface-name",
            &facts.interface,
            Option::is_some,
            |name| name.clone().unwrap_or_default(),
        ),
        there("guest.ip-address", &facts.address, Option::is_some, words),
        there(
            "guest.routes",
            &facts.routes,
            |routes| !routes.is_empty(),
            |routes| routes.join(", "),
        ),
        there(
            "guest.gateway",
            &facts.gateway,
            |reached| *reached,
            |_| "answers".to_owned(),
        ),
        there("guest.firewall", &facts.firewall, |_| true, Clone::clone),
        clock,
    ]
}

fn there<T>(
    id: &'static str,
    fact: &Fact<T>,
    is: impl FnOnce(&T) -> bool,
    words: impl FnOnce(&T) -> String,
) -> Found {
    let (after, measure, witness) = match fact {
        Ok(seen) => {
            let measure = if is(&seen.value) {
                Measure::Same
            } else {
                Measure::Missing
            };
            (words(&seen.value), Ok(measure), seen.witness.clone())
        }
        Err(why) => (
            String::new(),
            Err(why.clone()),
            vec![Witness::disk("disk", why.clone())],
        ),
    };
    Found {
        id,
        step: Step::Restart,
        before: String::new(),
        after,
        measure,
        witness,
    }
}

type Read = Option<(Result<Reading, ReadError>, Option<Witness>)>;

/// Lets the target's importer read a package; `None` when it has none for this kind.
fn read(facts: &Facts<'_>, host: &Host, package: &Package, guest: &Guest) -> Read {
    let descriptor = package.files.get(&package.descriptor);
    let key = match descriptor {
        None => "import.disk",
        Some(file) if is_xva(file).unwrap_or(false) => "import.xva",
        Some(_) => "import.ovf",
    };
    let operator = Operator {
        name: "preflight".to_owned(),
        guest: guest_key(guest),
        vcpus: 1,
        memory_mib: 2048,
    };
    let known = facts.text(key).ok()?;
    let reading = imports::read(
        hop_named(known.value)?,
        facts,
        host,
        package,
        &operator,
        Import::default(),
    );
    Some((reading, known.quirk))
}

fn hop_named(name: &str) -> Option<Hop> {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        name.into_deserializer();
    Hop::deserialize(text).ok()
}

fn from_reading(
    facts: &Facts<'_>,
    target: &ProductId,
    package: &Package,
    read: Read,
) -> Vec<Found> {
    const ID: &str = "import.consistency";
    let step = Step::TargetConsistency;
    let (reading, by_hand) = match read {
        None => {
            let says = format!(
                "{target} has no importer for this: convert it first, or attach its disk by hand"
            );
            let why = vec![
                Witness::descriptor(package.descriptor.clone(), says),
                Witness::quirk("DQ413"),
            ];
            return vec![super::missing(ID, step, "no importer", why)];
        }
        Some((Err(ReadError::Missing(fact)), _)) => return vec![super::unknown(ID, step, &fact)],
        Some((Err(ReadError::Refused(why)), _)) => {
            return vec![super::missing(ID, step, "refused", why)];
        }
        Some((Ok(reading), by_hand)) => (reading, by_hand),
    };
    let found = |measure, witness: Vec<Witness>| Found {
        id: ID,
        step,
        before: String::new(),
        after: String::new(),
        measure: Ok(measure),
        witness,
    };
    let mut all: Vec<Found> = reading
        .remarks
        .iter()
        .map(|remark| {
            let measure = if remark.verdict == Verdict::Refused {
                Measure::Missing
            } else {
                Measure::Changed
            };
            found(measure, remark.witness.clone())
        })
        .collect();
    if all.is_empty() {
        let accepted = Witness::lab(
            "importer",
            format!("{} accepts it", facts.product().console),
        );
        all.push(found(Measure::Same, vec![accepted]));
    }
    if let Some(quirk) = by_hand {
        let mut automated = found(Measure::Changed, vec![quirk]);
        automated.id = "import.automated";
        all.push(automated);
    }
    all
}

fn scored(library: &Library, target: &ProductId, found: Vec<Found>) -> Prediction {
    let strict = Relaxed {
        names: &[],
        today: "",
    };
    let checks: Vec<_> = found
        .into_iter()
        .map(|found| found.scored(&library.policy, &strict))
        .collect();
    let findings = checks.iter().map(|check| {
        let score = check.score.map_or(Overall::Unknown, Overall::from);
        PredictedFinding {
            id: check.found.id.to_owned(),
            score,
            place: place(&check.found.witness, score),
            evidence: check.weakest(),
            remedy: if score == Overall::Success {
                String::new()
            } else {
                remedy(&check.found.witness)
            },
            witness: check.found.witness.clone(),
        }
    });
    Prediction {
        target: target.clone(),
        overall: aggregate(checks.iter().map(|check| check.score)),
        findings: findings.collect(),
    }
}

/// The place in the guest that decides, where there is one: before a quirk that explains it, else the first link.
fn place(witness: &[Witness], score: Overall) -> String {
    // A STOP screen is what happens, not where it was decided.
    let in_guest = |link: &&Witness| match &link.place {
        Place::File { .. } | Place::Overlay(_) => true,
        Place::Key(key) => !key.starts_with("STOP "),
        _ => false,
    };
    let quirk = witness
        .iter()
        .position(|link| matches!(link.place, Place::Quirk(_)));
    let before = &witness[..quirk.unwrap_or(witness.len())];
    let decides = if score == Overall::Success {
        None
    } else {
        before.iter().rev().find(in_guest)
    };
    let link = decides
        .or_else(|| witness.iter().find(in_guest))
        .or_else(|| witness.first());
    link.map(|link| link.place.to_string()).unwrap_or_default()
}

fn remedy(witness: &[Witness]) -> String {
    let rows = witness.iter().filter_map(|link| match &link.place {
        Place::Quirk(id) => drylab_catalog::quirk(id),
        _ => None,
    });
    rows.map(|row| row.remedy.clone())
        .find(|remedy| !remedy.is_empty())
        .or_else(|| witness.iter().find_map(mending))
        .unwrap_or_default()
}

/// What can be done about a damaged image that the product minds.
fn mending(link: &Witness) -> Option<String> {
    let Place::Fact(key) = &link.place else {
        return None;
    };
    let (_, code) = key.split_once('/')?;
    let rules = drylab_image::rules();
    let rule = rules.iter().find(|rule| rule.code == code)?;
    let remedy = match rule.repair {
        Repair::Lossless => "mend the image with drylab image repair",
        Repair::Lossy => "mend the image with drylab image repair; what is lost stays lost",
        Repair::No => "make the image again from its origin",
    };
    Some(remedy.to_owned())
}

/// The key products know a guest by: `centos-6.3`, `ubuntu-12.04`, `windows-2008r2`.
#[must_use]
pub fn guest_key(guest: &Guest) -> String {
    let os = &guest.os;
    match os.family {
        Family::Linux => format!("{}-{}", os.name.value, os.version.value),
        Family::Windows if os.pretty.value.contains("2008 R2") => "windows-2008r2".to_owned(),
        Family::Windows => format!("windows-{}", os.version.value),
    }
}
