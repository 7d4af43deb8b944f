//! Steps 6 and 7 at the target, and rollback.

use super::crossing::arrived;
use super::observe::{Boots, Power, Setting, observe};
use super::source::{ZONE_S, machine_name, tsc};
use super::{SimLab, TargetVm, missing, unknown, wires};
use crate::check::Found;
use crate::crossing::Crossing;
use crate::machine::Completion;
use crate::policy::Measure;
use drylab_block::{ReadAt, Window};
use drylab_catalog::Witness;
use drylab_guest::inspect::GuestDisk;
use drylab_hypervisor::Need;
use drylab_hypervisor::console::{Draws, Made, Request, create};
use drylab_hypervisor::importer::Reading;

use drylab_kernel::{Kind, Trace};
use drylab_scenario::{FaultKind, FaultPlace, Step, TargetNetwork};
use std::sync::Arc;

impl SimLab<'_> {
    pub(super) fn import(&mut self, now: u64, trace: &mut Trace) -> (Completion, u64) {
        const ID: &str = "import.completes";
        let step = Step::Import;
        if let Some(crash) = self.tool_crash(ID, FaultPlace::Target, step, now, trace) {
            return (crash, 1_000_000);
        }
        self.space_faults(step, now, trace);
        let Some(crossing) = self.crossing.clone() else {
            return (Completion::Done(Vec::new()), 0);
        };
        let Ok(reading) = &crossing.reading else {
            return (Completion::Done(Vec::new()), 0);
        };
        for disk in &reading.disks {
            // The room is looked for at the moment when the disk is copied.
            let of_disk = |need: &&Need| match need {
                Need::Room { file, .. } => *file == disk.file,
                Need::Lease { .. } => true,
            };
            let needs: Vec<Need> = reading.needs.iter().filter(of_disk).cloned().collect();
            if let Some((after, why)) = self.unmet(&needs) {
                let stands = missing(ID, step, after, why);
                return (Completion::Done(vec![stands]), 60_000_000);
            }
            if let Err(free) = self.target.datastore.put(&disk.file, disk.bytes) {
                let says = format!("{} needs {} bytes, {free} are free", disk.file, disk.bytes);
                let why = self.target.space_why(says);
                return (
                    Completion::Done(vec![missing(ID, step, "datastore full", why)]),
                    1_000_000,
                );
            }
            self.note_space(("stored", disk.bytes), &disk.file, now, trace);
        }
        let mut request = reading.request.clone();
        self.by_hand(&mut request);
        let draws = self.draws();
        let made = match create(&self.target.facts, &self.target.host, &request, draws) {
            Ok(made) => made,
            Err(fact) => return (Completion::Done(vec![unknown(ID, step, &fact)]), 0),
        };
        let disk = match arrived(self.library, &crossing, reading) {
            Ok(disk) => disk,
            Err(error) => {
                let why = vec![Witness::descriptor(
                    crossing.package.descriptor.clone(),
                    error.to_string(),
                )];
                return (
                    Completion::Done(vec![missing(ID, step, "the disk cannot be opened", why)]),
                    1_000_000,
                );
            }
        };
        self.target.inventory.push(made.machine.name.clone());
        let found = vec![
            Found {
                id: ID,
                step,
                before: String::new(),
                after: made.machine.name.clone(),
                measure: Ok(Measure::Same),
                witness: made
                    .why("controller")
                    .chain(made.why("nic"))
                    .chain(&reading.notes)
                    .cloned()
                    .chain([Witness::lab(
                        format!("{} inventory", self.target.name),
                        "registered",
                    )])
                    .collect(),
            },
            automated(reading),
            self.disk_content(&crossing, &disk),
        ];
        self.target_vm = Some(TargetVm {
            made,
            disk,
            boots: Boots::default(),
        });
        (Completion::Done(found), 30_000_000)
    }

    /// What a person sets at the console, when the scenario says so.
    fn by_hand(&self, request: &mut Request) {
        let asked = &self.scenario.target_vm;
        if let Some(nic) = request.nics.first_mut() {
            nic.mac = asked.mac.or(nic.mac);
            nic.model = asked.nic_model.clone().or_else(|| nic.model.take());
        }
        for disk in &mut request.disks {
            disk.controller = asked.controller.clone().or_else(|| disk.controller.take());
        }
    }

    fn draws(&self) -> Draws {
        let mut uuid = self.streams.stream("target.uuid", 0);
        Draws {
            mac: self.streams.stream("target.mac", 0).word(),
            uuid: (u128::from(uuid.word()) << 64) | u128::from(uuid.word()),
        }
    }

    fn disk_content(&self, crossing: &Crossing, arrived: &GuestDisk) -> Found {
        let expected = crossing.content;
        let (before, after) = (self.source_disk.disk.bytes.len(), arrived.bytes.len());
        let same = match expected {
            Some(expected) if before == after => self
                .library
                .content(&arrived.bytes)
                .map(|found| found == expected),
            _ => self.same_as_far_as_both_reach(&arrived.bytes),
        };
        let words = |bytes: u64| format!("{bytes} bytes");
        let mut witness = crossing.edits.clone();
        witness.push(Witness::disk(
            "guest-visible bytes",
            format!("{after} bytes compared by their 128-bit name"),
        ));
        if same != Ok(true) {
            witness.splice(
                0..0,
                crossing
                    .notes
                    .iter()
                    .filter(|note| super::observe::is_quirk(note))
                    .cloned(),
            );
        }
        Found {
            id: "disk.content",
            step: Step::Import,
            before: words(before),
            after: words(after),
            measure: match same {
                Ok(true) => Ok(Measure::Same),
                Ok(false) => Ok(Measure::Missing),
                Err(error) => Err(error.to_string()),
            },
            witness,
        }
    }

    /// Disks of different sizes: equal bytes where both have some, zeros where only one has.
    fn same_as_far_as_both_reach(&self, arrived: &Arc<dyn ReadAt>) -> drylab_block::Result<bool> {
        let source = &self.source_disk.disk.bytes;
        let common = source.len().min(arrived.len());
        let part = |disk: &Arc<dyn ReadAt>| self.library.content_to(disk, common);
        if part(source)? != part(arrived)? {
            return Ok(false);
        }
        let longer = if source.len() > arrived.len() {
            source
        } else {
            arrived
        };
        let tail = Window::new(longer.clone(), common, longer.len() - common)?;
        let zeros = drylab_block::SparseBytes::new(tail.len());
        Ok(drylab_block::content_id(&tail)? == drylab_block::content_id(&zeros)?)
    }

    pub(super) fn boot_target(
        &mut self,
        step: Step,
        power: Power,
        now: u64,
        trace: &mut Trace,
    ) -> (Completion, u64) {
        if let Some(crash) = self
            .tool_crash("guest.boots", FaultPlace::Target, step, now, trace)
            .filter(|_| power == Power::First)
        {
            return (crash, 1_000_000);
        }
        if self
            .fault(FaultKind::LinkDown, FaultPlace::Target, step, now, trace)
            .is_some()
        {
            self.link(FaultPlace::Target, false);
        }
        let Some(mut vm) = self.target_vm.take() else {
            return (Completion::Done(Vec::new()), 0);
        };
        if let Some(net) = vm.boots.running.take() {
            net.power_off(&mut self.lan);
        }
        let answer = self.boot(&mut vm, power, now, trace);
        self.target_vm = Some(vm);
        self.note_duplicates();
        answer
    }

    fn boot(
        &mut self,
        vm: &mut TargetVm,
        power: Power,
        now: u64,
        trace: &mut Trace,
    ) -> (Completion, u64) {
        let guest = match self.library.inspect(&vm.disk) {
            Ok(guest) => guest,
            Err(error) => {
                let why = vec![Witness::disk("disk at the target", error.to_string())];
                return (
                    Completion::Done(vec![missing(
                        "guest.boots",
                        Step::Restart,
                        "no guest on the disk",
                        why,
                    )]),
                    0,
                );
            }
        };
        let (extra, elsewhere) = (self.mac_why(), self.elsewhere());
        let instance = u32::from(power == Power::Again);
        let setting = Setting {
            library: self.library,
            guest: &guest,
            made: &vm.made,
            extra: &extra,
            host: &self.target.name,
            seed: self.streams.stream("target.network", instance).word(),
            tsc_ppm: tsc(&self.streams.stream("target.tsc", instance).bounded(101)),
            zone_s: ZONE_S,
            component: "target",
            lab_mark: wires::mark(
                self.library,
                wires::target_segment(self.library, self.scenario, &self.target.host),
            ),
            elsewhere: &elsewhere,
        };
        let (facts, took) = observe(&setting, &mut vm.boots, &mut self.lan, now, trace);
        let machine = &vm.made.machine;
        let mac = machine
            .nics
            .first()
            .map(|nic| nic.mac.to_string())
            .unwrap_or_default();
        self.target.running.insert(machine.name.clone(), mac);
        (Completion::Facts(Box::new(facts), Vec::new()), took)
    }

    /// Why the target's network is another subnet, where it is the product's own one.
    fn elsewhere(&self) -> Vec<Witness> {
        match self.scenario.lab.target_network {
            TargetNetwork::SameSegment => Vec::new(),
            TargetNetwork::OtherSubnet => {
                let own = self.target.facts.text("network.default");
                own.map(|known| known.chain()).unwrap_or_default()
            }
        }
    }

    /// Why the adapter has the address it has.
    fn mac_why(&self) -> Vec<Witness> {
        let scenario = self.scenario;
        let asked = [
            ("source_vm.mac", scenario.source_vm.mac),
            ("target_vm.mac", scenario.target_vm.mac),
        ];
        let asked = asked
            .into_iter()
            .filter_map(|(key, mac)| Some(Witness::asked(key, format!("a person types {}", mac?))));
        let mut why: Vec<Witness> = asked.collect();
        if let Some(Ok(reading)) = self.crossing.as_ref().map(|crossing| &crossing.reading) {
            why.extend(reading.mac.iter().cloned());
        }
        why
    }

    pub(super) fn pause_target(&self) -> Completion {
        const ID: &str = "machine.pause-resume";
        let found = match self.target.facts.text("pause") {
            Err(fact) => unknown(ID, Step::Restart, &fact),
            Ok(known) => Found {
                id: ID,
                step: Step::Restart,
                before: String::new(),
                after: known.value.to_owned(),
                measure: Ok(if known.value == "none" {
                    Measure::Missing
                } else {
                    Measure::Same
                }),
                witness: known.chain(),
            },
        };
        Completion::Done(vec![found])
    }

    /// Removes the machine from the target, clears the share, and lets the source run as before.
    pub(super) fn roll_back(&mut self, now: u64, trace: &mut Trace) -> (Completion, u64) {
        if let Some(vm) = self.target_vm.take() {
            if let Some(net) = &vm.boots.running {
                net.power_off(&mut self.lan);
            }
            self.release(&vm.made, now);
            self.target.running.remove(&vm.made.machine.name);
            self.target.unregister(&vm.made.machine.name);
            trace.record(
                now,
                "target",
                Kind::Rollback,
                &[("removed", &vm.made.machine.name)],
            );
        }
        self.give_space_back(now, trace);
        self.staging.clear();
        self.source_runs_again(now, trace);
        (Completion::Done(Vec::new()), 60_000_000)
    }

    /// The removed machine's lease is given back, as an administrator's clean-up (or its expiry) does.
    fn release(&mut self, made: &Made, now: u64) {
        for nic in &made.machine.nics {
            super::wires::give_back(&mut self.lan, nic.mac, now);
        }
    }

    fn source_runs_again(&mut self, now: u64, trace: &mut Trace) {
        let name = machine_name(self.scenario);
        let Ok(made) = &self.source_vm else { return };
        let mac = made
            .machine
            .nics
            .first()
            .map(|nic| nic.mac.to_string())
            .unwrap_or_default();
        if self.source.running.insert(name.clone(), mac).is_none() {
            trace.record(now, "source", Kind::Rollback, &[("started", &name)]);
        }
    }
}

fn automated(reading: &Reading) -> Found {
    let by_hand = !reading.by_hand.is_empty();
    let witness = if by_hand {
        reading.by_hand.clone()
    } else {
        vec![Witness::lab(
            "import",
            "the importer makes the machine from the descriptor",
        )]
    };
    Found {
        id: "import.automated",
        step: Step::Import,
        before: String::new(),
        after: if by_hand {
            "a person makes the machine"
        } else {
            "no person needed"
        }
        .to_owned(),
        measure: Ok(if by_hand {
            Measure::Changed
        } else {
            Measure::Same
        }),
        witness,
    }
}
