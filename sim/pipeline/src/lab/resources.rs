//! Steps 4 and 5: has the target room for the machine, and can it run it?

use super::books::Site;
use super::{SimLab, missing, unknown};
use crate::check::Found;
use crate::crossing::{Crossing, Unread};
use crate::machine::Completion;
use crate::policy::Measure;
use drylab_catalog::Witness;
use drylab_hypervisor::console::{Request, memory_max};
use drylab_hypervisor::importer::{ReadError, Reading, Verdict};
use drylab_hypervisor::{Known, Missing, Need};
use drylab_kernel::{Kind, Trace};
use drylab_scenario::{FaultKind, FaultPlace, Step};

/// Files of somebody else begin with it.
const TAKEN: &str = "taken by somebody else in ";

impl SimLab<'_> {
    pub(super) fn check_resources(&mut self, now: u64, trace: &mut Trace) -> (Completion, u64) {
        let step = Step::TargetResources;
        if let Some(crash) = self.tool_crash("target.memory", FaultPlace::Target, step, now, trace)
        {
            return (crash, 1_000_000);
        }
        self.space_faults(step, now, trace);
        let Some(crossing) = self.crossing.clone() else {
            return (Completion::Done(Vec::new()), 0);
        };
        let found = match &crossing.reading {
            Ok(reading) => self.target.needs(reading),
            // What the importer cannot read needs nothing; the next step says why it cannot.
            Err(_) => {
                let why = Witness::descriptor(
                    crossing.package.descriptor.clone(),
                    "the importer cannot read it",
                );
                let reason = "what the machine needs is not known".to_owned();
                vec![Found {
                    id: "target.memory",
                    step,
                    before: String::new(),
                    after: String::new(),
                    measure: Err(reason),
                    witness: vec![why],
                }]
            }
        };
        (Completion::Done(found), 500_000)
    }

    pub(super) fn space_faults(&mut self, step: Step, now: u64, trace: &mut Trace) {
        let Some(fault) = self.fault(FaultKind::SpaceTaken, FaultPlace::Target, step, now, trace)
        else {
            return;
        };
        let taken = fault.bytes.min(self.target.datastore.free());
        // One file a step: a second fault takes more, and gives nothing back.
        let file = format!("{TAKEN}{step}");
        let _ = self.target.datastore.put(&file, taken);
        self.note_space(("stored", taken), &file, now, trace);
    }

    /// What was stored on the target's datastore or removed from it, and what is free since.
    pub(super) fn note_space(
        &self,
        (what, bytes): (&str, u64),
        file: &str,
        now: u64,
        trace: &mut Trace,
    ) {
        let (bytes, free) = (bytes.to_string(), self.target.datastore.free().to_string());
        let fields = [("file", file), (what, &bytes), ("free", &free)];
        trace.record(now, "target", Kind::Resource, &fields);
    }

    /// Gives back what a failed migration, and who filled the datastore meanwhile, took of the target's space.
    pub(super) fn give_space_back(&mut self, now: u64, trace: &mut Trace) {
        let mut files: Vec<String> = match self.crossing.as_ref().map(|crossing| &crossing.reading)
        {
            Some(Ok(reading)) => reading.disks.iter().map(|disk| disk.file.clone()).collect(),
            _ => Vec::new(),
        };
        let there = self.target.datastore.files().keys();
        files.extend(there.filter(|name| name.starts_with(TAKEN)).cloned());
        for file in files {
            let Some(bytes) = self.target.datastore.files().get(&file).copied() else {
                continue;
            };
            self.target.datastore.remove(&file);
            self.note_space(("removed", bytes), &file, now, trace);
        }
    }

    pub(super) fn check_consistency(&mut self, now: u64, trace: &mut Trace) -> (Completion, u64) {
        const ID: &str = "import.consistency";
        let step = Step::TargetConsistency;
        if let Some(crash) = self.tool_crash(ID, FaultPlace::Target, step, now, trace) {
            return (crash, 1_000_000);
        }
        let cut_off = self.library.lab.console_cut_off(&self.target.host);
        if let Some(why) = cut_off.filter(|_| self.import.is_by_console()) {
            let stands = missing(ID, step, super::source::CUT_OFF, why);
            return (Completion::Done(vec![stands]), 60_000_000);
        }
        let Some(crossing) = self.crossing.clone() else {
            return (Completion::Done(Vec::new()), 0);
        };
        let found = match &crossing.reading {
            Ok(reading) => self.consistency(&crossing, reading),
            Err(Unread::Importer(ReadError::Missing(fact))) => unknown(ID, step, fact),
            Err(Unread::Importer(ReadError::Refused(why))) => {
                missing(ID, step, "refused", why.clone())
            }
            Err(Unread::NotReached) => missing(
                ID,
                step,
                "nothing arrived",
                vec![Witness::lab("route", "a hop before failed")],
            ),
        };
        (Completion::Done(vec![found]), 2_000_000)
    }

    fn consistency(&self, crossing: &Crossing, reading: &Reading) -> Found {
        const ID: &str = "import.consistency";
        let step = Step::TargetConsistency;
        let boots_from = self.target.facts.list("boot.controllers");
        let worst = reading.remarks.iter().min_by_key(|remark| remark.verdict);
        if let Some(remark) = worst {
            let measure = if remark.verdict == Verdict::Refused {
                Measure::Missing
            } else {
                Measure::Changed
            };
            let after = if measure == Measure::Missing {
                "refused"
            } else {
                "accepted with a warning"
            };
            return Found {
                id: ID,
                step,
                before: String::new(),
                after: after.to_owned(),
                measure: Ok(measure),
                witness: remark.witness.clone(),
            };
        }
        let boot_controller = reading
            .request
            .disks
            .first()
            .and_then(|disk| disk.controller.as_ref());
        let known = match (&boots_from, boot_controller) {
            (Err(fact), _) => return unknown(ID, step, fact),
            (Ok(known), Some(controller)) if !known.value.contains(&controller.as_str()) => {
                let asked = Witness::descriptor(
                    crossing.package.descriptor.clone(),
                    format!("boot disk on {controller}"),
                );
                return missing(
                    ID,
                    step,
                    "no such controller to boot from",
                    vec![asked, known.witness.clone()],
                );
            }
            (Ok(known), _) => known.witness.clone(),
        };
        let mut witness = reading.notes.clone();
        witness.push(known);
        Found {
            id: ID,
            step,
            before: String::new(),
            after: "accepted".to_owned(),
            measure: Ok(Measure::Same),
            witness,
        }
    }
}

/// Bytes that must be free for all disks of a reading: what they take, one after the other, and where the importer
/// looks for room before it copies one, a byte more than it asks for.
fn bytes_needed(reading: &Reading) -> u64 {
    let room = |name: &str| {
        let mut rooms = reading.needs.iter().filter_map(|need| match need {
            Need::Room { file, bytes, .. } if file == name => Some(bytes.saturating_add(1)),
            _ => None,
        });
        rooms.next().unwrap_or(0)
    };
    let (mut taken, mut needed) = (0u64, 0u64);
    for disk in &reading.disks {
        needed = needed.max(taken.saturating_add(disk.bytes.max(room(&disk.file))));
        taken = taken.saturating_add(disk.bytes);
    }
    needed
}

impl Site<'_> {
    /// Compares what the machine of a reading needs with what the site has.
    pub(super) fn needs(&self, reading: &Reading) -> Vec<Found> {
        let request = &reading.request;
        let site = self;
        let needed = bytes_needed(reading);
        let free = site.datastore.free();
        let words = |id, before: String, after: String, measure, witness| Found {
            id,
            step: Step::TargetResources,
            before,
            after,
            measure: Ok(measure),
            witness,
        };
        let space = words(
            "target.datastore-space",
            format!("{needed} bytes needed"),
            format!("{free} bytes free"),
            if needed <= free {
                Measure::Same
            } else {
                Measure::Missing
            },
            reading
                .needs
                .iter()
                .filter(|need| matches!(need, Need::Room { .. }))
                .flat_map(|need| need.why().to_vec())
                .chain(self.space_why(format!(
                    "{free} of {} bytes free",
                    site.datastore.capacity()
                )))
                .collect(),
        );
        let name = words(
            "target.name-free",
            request.name.clone(),
            if site.inventory.contains(&request.name) {
                "taken"
            } else {
                "free"
            }
            .to_owned(),
            Measure::Same,
            vec![Witness::lab(
                format!("{} inventory", site.name),
                format!("{} machines", site.inventory.len()),
            )],
        );
        let name = self.name_clash(name);
        let limits = [self.memory(request), self.vcpus(request)];
        limits
            .into_iter()
            .map(|found| {
                found.unwrap_or_else(|(id, fact)| unknown(id, Step::TargetResources, &fact))
            })
            .chain([space, name])
            .collect()
    }

    /// Why a datastore's room is what it is: what is there, and the form disks take.
    pub(super) fn space_why(&self, says: String) -> Vec<Witness> {
        vec![
            Witness::lab(format!("{} datastore", self.name), says),
            Witness::quirk("DQ411"),
        ]
    }

    fn name_clash(&self, mut found: Found) -> Found {
        if found.after != "taken" {
            return found;
        }
        match self.facts.text("inventory.name-clash") {
            Ok(known) => {
                found.measure = Ok(match known.value {
                    "allowed" => Measure::Same,
                    "suffixed" => Measure::Changed,
                    _ => Measure::Missing,
                });
                found.witness.extend(known.chain());
                found
            }
            Err(fact) => unknown(found.id, found.step, &fact),
        }
    }

    fn memory(&self, request: &Request) -> Result<Found, (&'static str, Missing)> {
        const ID: &str = "target.memory";
        let tag = |fact| (ID, fact);
        let most = memory_max(&self.facts, &request.guest).map_err(tag)?;
        let over = self.facts.flag("memory.overcommit").map_err(tag)?;
        let host = self.host.memory_mib;
        let measure = match request.memory_mib {
            needed if needed > most.value => Measure::Missing,
            needed if needed <= host => Measure::Same,
            _ if over.value => Measure::Changed,
            _ => Measure::Missing,
        };
        let on_host = Witness::lab(
            format!("host {}", self.name),
            format!("{host} MiB of memory"),
        );
        let mut witness = vec![on_host];
        let decides = match request.memory_mib {
            needed if needed > most.value => most.chain(),
            needed if needed <= host => vec![most.witness],
            _ => over.chain(),
        };
        witness.extend(decides);
        Ok(self.limit(
            ID,
            format!("{} MiB needed", request.memory_mib),
            format!("{host} MiB on the host"),
            measure,
            witness,
        ))
    }

    fn vcpus(&self, request: &Request) -> Result<Found, (&'static str, Missing)> {
        const ID: &str = "target.vcpu-limit";
        let most: Known<u64> = self
            .facts
            .number("cpu.vcpus-max")
            .map_err(|fact| (ID, fact))?;
        let measure = if u64::from(request.vcpus) <= most.value {
            Measure::Same
        } else {
            Measure::Missing
        };
        let (needed, limit) = (
            format!("{} needed", request.vcpus),
            format!("at most {}", most.value),
        );
        Ok(self.limit(ID, needed, limit, measure, most.chain()))
    }

    fn limit(
        &self,
        id: &'static str,
        before: String,
        after: String,
        measure: Measure,
        witness: Vec<Witness>,
    ) -> Found {
        Found {
            id,
            step: Step::TargetResources,
            before,
            after,
            measure: Ok(measure),
            witness,
        }
    }
}
