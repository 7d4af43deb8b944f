//! Export and conversions: the way of a machine up to the import. Nothing here draws anything, so that the whole way
//! is a function of the source machine and the route, and is remembered.

use super::{SimLab, descriptor, imports, missing, unknown};
use crate::check::Found;
use crate::crossing::{Crossing, Done, Stopped, Unread};
use crate::library::Library;
use crate::machine::Completion;
use crate::policy::Measure;
use drylab_appliance::Package;
use drylab_block::{ContentId, ReadAt};
use drylab_catalog::Witness;
use drylab_converter::os_fixup;
use drylab_filesystem::FileOverlay;
use drylab_guest::inspect::GuestDisk;
use drylab_hypervisor::Need;
use drylab_hypervisor::importer::{Operator, Reading};
use drylab_kernel::{Kind, Trace};
use drylab_scenario::{FaultPlace, Step};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A machine between two hops.
pub(super) struct Moving {
    pub(super) package: Package,
    pub(super) files: FileOverlay,
    pub(super) content: Option<ContentId>,
    pub(super) notes: Vec<Witness>,
    pub(super) edits: Vec<Witness>,
    /// What the last hop needed around it.
    pub(super) needs: Vec<Need>,
}

impl SimLab<'_> {
    /// Does (or remembers) the whole way, and reports one hop of it.
    pub(super) fn hop(&mut self, number: usize, now: u64, trace: &mut Trace) -> (Completion, u64) {
        const ID: &str = "export.completes";
        let step = Step::Export;
        let place = if number == 0 {
            FaultPlace::Source
        } else {
            FaultPlace::Target
        };
        if let Some(crash) = self.tool_crash(ID, place, step, now, trace) {
            return (crash, 1_000_000);
        }
        let crossing = match &self.crossing {
            Some(crossing) => crossing.clone(),
            None => self.cross(),
        };
        self.crossing = Some(crossing.clone());
        let last = number + 1 == crossing.hops.len();
        match crossing.hops.get(number) {
            Some(Ok(done)) => {
                let files = done.files.join(", ");
                let bytes = done.bytes.to_string();
                let hop = format!("{:?}", done.hop);
                trace.record(
                    now,
                    "converter",
                    Kind::Transfer,
                    &[("hop", &hop), ("files", &files), ("guest-bytes", &bytes)],
                );
                if let Some((after, why)) = self.unmet(&done.needs) {
                    let stands = missing(ID, step, after, why);
                    return (Completion::Done(vec![stands]), 60_000_000);
                }
                if let Err(why) = self.staging.put(done.stored) {
                    let full = missing(ID, step, "no share has room", why);
                    return (Completion::Done(vec![full]), 1_000_000);
                }
                let found = if last {
                    vec![self.crossed(&crossing)]
                } else {
                    Vec::new()
                };
                // 100 MB/s between hosts and share.
                (Completion::Done(found), done.bytes / 100)
            }
            Some(Err(Stopped::Unknown(fact))) => {
                (Completion::Done(vec![unknown(ID, step, fact)]), 0)
            }
            Some(Err(Stopped::Failed(message, why))) => (
                Completion::Done(vec![missing(ID, step, message, why.clone())]),
                5_000_000,
            ),
            None => (Completion::Done(Vec::new()), 0),
        }
    }

    /// Why a need of a hop or an import is not met, where one is not.
    pub(super) fn unmet(&self, needs: &[Need]) -> Option<(&'static str, Vec<Witness>)> {
        let lab = &self.scenario.lab;
        let has_leases = lab.dhcp && lab.dhcp_clients.is_none_or(|taken| taken < lab.dhcp_pool);
        let free = self.target.datastore.free();
        let unmet = needs.iter().find(|need| !need.is_met(has_leases, free))?;
        let (after, says) = match unmet {
            Need::Lease { .. } => (
                "no lease for the helper machine",
                "nobody hands one out".to_owned(),
            ),
            Need::Room { file, bytes, .. } => (
                "datastore full",
                format!("{file} needs more than {bytes} bytes, {free} are free"),
            ),
        };
        let place = Witness::lab(format!("{} host", self.target.name), says);
        let chain = std::iter::once(place).chain(unmet.why().iter().cloned());
        Some((after, chain.collect()))
    }

    fn crossed(&self, crossing: &Crossing) -> Found {
        let mut witness = crossing.notes.clone();
        witness.extend(crossing.edits.iter().cloned());
        if witness.is_empty() {
            witness.push(Witness::descriptor(
                crossing.package.descriptor.clone(),
                "written and read without loss",
            ));
        }
        Found {
            id: "export.completes",
            step: Step::Export,
            before: String::new(),
            after: format!(
                "{} files by {}",
                crossing.package.files.len(),
                self.route.id
            ),
            measure: Ok(Measure::Same),
            witness,
        }
    }

    fn cross(&self) -> Arc<Crossing> {
        let edits: Vec<String> = self
            .scenario
            .edits
            .iter()
            .map(|edit| format!("{edit:?}"))
            .collect();
        let key = format!(
            "{}|{}|{}|{:?}|{:?}|{}|{:?}",
            self.scenario.guest,
            self.scenario.source,
            self.route.id,
            self.scenario.source_vm,
            self.scenario.import,
            edits.join("|"),
            self.scenario.descriptor_edits
        );
        self.library.crossing(key, || self.cross_fresh())
    }

    fn cross_fresh(&self) -> Crossing {
        let (source, target) = (
            self.source.facts.product().facts(),
            self.target.facts.product().facts(),
        );
        let mut moving = Moving {
            package: Package::default(),
            files: self.source_disk.disk.files.clone(),
            content: self.library.content(&self.source_disk.disk.bytes).ok(),
            notes: Vec::new(),
            edits: Vec::new(),
            needs: Vec::new(),
        };
        let (before, _) = self.route.split().unwrap_or((&[], self.import));
        let mut hops = Vec::new();
        for hop in before {
            let outcome = self
                .do_hop(*hop, &source, &target, &mut moving)
                .and_then(|()| match hops.is_empty() {
                    true => descriptor::rewrite(&self.scenario.descriptor_edits, &mut moving),
                    false => Ok(()),
                })
                .map(|()| Done {
                    hop: *hop,
                    files: moving.package.files.keys().cloned().collect(),
                    bytes: self.source_disk.disk.bytes.len(),
                    stored: moving.package.bytes(),
                    needs: std::mem::take(&mut moving.needs),
                });
            let failed = outcome.is_err();
            hops.push(outcome);
            if failed {
                break;
            }
        }
        let reading = match hops.last() {
            Some(Err(_)) => Err(Unread::NotReached),
            _ => imports::opened(self.import, &mut moving.package)
                .and_then(|()| {
                    let host = &self.target.host;
                    imports::read(
                        self.import,
                        &target,
                        host,
                        &moving.package,
                        &self.operator(),
                        self.scenario.import,
                    )
                })
                .map_err(Unread::Importer),
        };
        let fixed = match &reading {
            Ok(reading) if self.scenario.import.fixup && imports::fixes_up(self.import) => {
                self.fix_up(reading, &mut moving)
            }
            _ => None,
        };
        let mut facts_used = BTreeSet::new();
        // The machine that is exported was made of what the source's own view has read.
        for facts in [&source, &target, &self.source.facts] {
            facts_used.extend(
                facts
                    .used()
                    .into_iter()
                    .map(|key| format!("{}/{key}", facts.product().id)),
            );
        }
        Crossing {
            hops,
            reading,
            fixed,
            package: moving.package,
            files: moving.files,
            content: moving.content,
            notes: moving.notes,
            edits: moving.edits,
            facts_used,
        }
    }

    /// Lets Operating System Fixup boot once on the imported disk. `None` where it finds nothing to do.
    fn fix_up(&self, reading: &Reading, moving: &mut Moving) -> Option<GuestDisk> {
        let plan = reading.disks.first()?;
        let file = moving.package.file(&plan.file).ok()?;
        let bytes = self
            .library
            .open(file, plan.declared_format.as_deref())
            .ok()?;
        let disk = GuestDisk {
            bytes,
            files: moving.files.clone(),
        };
        match os_fixup::fix_up(&disk) {
            Ok(fixed) => {
                moving.content = self.library.content(&fixed.disk.bytes).ok();
                moving.files = fixed.disk.files.clone();
                moving.edits.extend(fixed.edits);
                moving.notes.extend(fixed.notes);
                Some(fixed.disk)
            }
            Err(error) => {
                // Its machine is switched off again, whatever it has done.
                moving
                    .notes
                    .push(Witness::disk(error.message, "left as it is"));
                moving.notes.extend(error.witness);
                None
            }
        }
    }

    /// What the person at the console knows of the machine.
    fn operator(&self) -> Operator {
        Operator {
            name: super::source::machine_name(self.scenario),
            guest: self.scenario.guest.to_string(),
            vcpus: self.scenario.source_vm.vcpus,
            memory_mib: self.scenario.source_vm.memory_mib,
        }
    }
}

/// The boot disk as the target's guest will see it.
pub(super) fn arrived(
    library: &Library,
    crossing: &Crossing,
    reading: &Reading,
) -> drylab_block::Result<GuestDisk> {
    if let Some(fixed) = &crossing.fixed {
        return Ok(fixed.clone());
    }
    let plan = reading
        .disks
        .first()
        .ok_or_else(|| drylab_block::Error::io("the machine has no disk"))?;
    let file = crossing.package.file(&plan.file)?;
    let bytes = library.open(file, plan.declared_format.as_deref())?;
    Ok(GuestDisk {
        bytes,
        files: crossing.files.clone(),
    })
}
