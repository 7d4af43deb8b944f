//! Steps 1 and 2: the machine where it lives.

use super::books::Site;
use super::observe::{Setting, observe};
use super::{SimLab, missing, unknown, wires};
use crate::check::Found;
use crate::library::SourceDisk;
use crate::machine::Completion;
use crate::policy::Measure;
use drylab_catalog::Witness;
use drylab_guest::inspect::{Guest, System};
use drylab_hypervisor::console::{CleanShutdown, Draws, Made, Request, clean_shutdown, create};
use drylab_hypervisor::{Facts, Missing};
use drylab_kernel::Trace;
use drylab_scenario::{FaultKind, FaultPlace, Scenario, Step};

/// Name of the machine in both inventories.
pub(super) fn machine_name(scenario: &Scenario) -> String {
    scenario.guest.to_string()
}

/// The machine as its administrator made it with the console's defaults, long before the run.
pub(super) fn machine(
    site: &Site<'_>,
    scenario: &Scenario,
    disk: &SourceDisk,
) -> Result<Made, Missing> {
    let vm = &scenario.source_vm;
    let size = (vm.vcpus, vm.memory_mib);
    let mut request = Request::plain(
        &machine_name(scenario),
        scenario.guest.as_str(),
        size,
        &[disk.disk.bytes.len()],
    );
    for nic in &mut request.nics {
        nic.mac = Some(vm.mac.unwrap_or(disk.mac));
    }
    // Made before the run: its UUID is a property of the machine, not of the seed.
    create(
        &site.facts,
        &site.host,
        &request,
        Draws {
            mac: 0,
            uuid: 0x564d_0c29_4f8e_3500_1122_3344_5566_7788,
        },
    )
}

impl SimLab<'_> {
    /// The source machine's guest.
    pub(super) fn source_guest(
        &self,
    ) -> Result<std::sync::Arc<drylab_guest::inspect::Guest>, drylab_block::Error> {
        self.library.inspect(&self.source_disk.disk)
    }

    pub(super) fn take_source_facts(&mut self, now: u64, trace: &mut Trace) -> (Completion, u64) {
        const ID: &str = "source.sanity";
        let step = Step::SourceSanity;
        if let Some(crash) = self.tool_crash(ID, FaultPlace::Source, step, now, trace) {
            return (crash, 1_000_000);
        }
        let made = match &self.source_vm {
            Ok(made) => made,
            Err(fact) => return (Completion::Done(vec![missing_fact(ID, step, fact)]), 0),
        };
        let guest = match self.source_guest() {
            Ok(guest) => guest,
            Err(error) => {
                let why = vec![Witness::disk("source disk", error.to_string())];
                return (
                    Completion::Done(vec![missing(ID, step, "cannot be inspected", why)]),
                    0,
                );
            }
        };
        let made = made.clone();
        let setting = Setting {
            library: self.library,
            guest: &guest,
            made: &made,
            extra: &[],
            host: &self.source.name.clone(),
            seed: self.streams.stream("source.network", 0).word(),
            tsc_ppm: tsc(&self.streams.stream("source.tsc", 0).bounded(101)),
            zone_s: ZONE_S,
            component: "source",
            lab_mark: wires::mark(
                self.library,
                wires::segment_of(self.library, &self.source.host),
            ),
            elsewhere: &[],
        };
        if self
            .fault(FaultKind::LinkDown, FaultPlace::Source, step, now, trace)
            .is_some()
        {
            self.link(FaultPlace::Source, false);
        }
        let (facts, took) = observe(&setting, &mut self.source_boots, &mut self.lan, now, trace);
        self.note_duplicates();
        let found = sanity(&facts);
        (Completion::Facts(Box::new(facts), vec![found]), took)
    }

    /// Plugs or unplugs a site's network.
    pub(super) fn link(&mut self, place: FaultPlace, up: bool) {
        let site = if place == FaultPlace::Source {
            &self.source
        } else {
            &self.target
        };
        let Ok(network) = site.facts.text("network.name") else {
            return;
        };
        if let Some(network) = self
            .lan
            .network_mut(&format!("{}:{}", site.name, network.value))
        {
            network.up = up;
        }
    }

    pub(super) fn note_duplicates(&mut self) {
        self.duplicate_mac_seen |= !self.lan.duplicate_macs().is_empty();
    }

    pub(super) fn shut_down_source(&mut self, now: u64, trace: &mut Trace) -> (Completion, u64) {
        const ID: &str = "source.shutdown";
        if let Some(crash) = self.tool_crash(ID, FaultPlace::Source, Step::Shutdown, now, trace) {
            return (crash, 1_000_000);
        }
        if let Some(why) = self.library.lab.console_cut_off(&self.source.host) {
            let stands = missing(ID, Step::Shutdown, CUT_OFF, why);
            return (Completion::Done(vec![stands]), 60_000_000);
        }
        if let Some(net) = self.source_boots.running.take() {
            net.power_off(&mut self.lan);
        }
        self.source.running.remove(&machine_name(self.scenario));
        let found = match self.how_it_shuts_down() {
            Ok(how) => Found {
                id: ID,
                step: Step::Shutdown,
                before: String::new(),
                after: if how.is_allowed {
                    "shut down"
                } else {
                    "refused by the console, shut down from inside"
                }
                .to_owned(),
                measure: Ok(if how.is_allowed {
                    Measure::Same
                } else {
                    Measure::Changed
                }),
                witness: how.why,
            },
            Err(fact) => unknown(ID, Step::Shutdown, &fact),
        };
        (Completion::Done(vec![found]), 20_000_000)
    }

    /// Whether the source's console shuts the machine down; its tools are looked for in the guest.
    fn how_it_shuts_down(&self) -> Result<CleanShutdown, Missing> {
        let facts = &self.source.facts;
        let made = self.source_vm.as_ref().map_err(Missing::clone)?;
        let asked = facts.flag("shutdown.needs-tools")?;
        let tools = match self.source_guest() {
            Ok(guest) if asked.value => has_tools(facts, &guest)?,
            _ => false,
        };
        clean_shutdown(facts, &made.machine, tools)
    }
}

/// What is said of a console that stands in another network without a way.
pub(super) const CUT_OFF: &str = "the console does not reach the host";

/// Local time of the lab is an hour ahead of UTC: the report's lab stood in Germany, in winter.
pub(super) const ZONE_S: i64 = 3600;

/// The clock rate a kernel measures is off by up to 50 parts per million.
pub(super) fn tsc(drawn: &u64) -> i64 {
    i64::try_from(*drawn).unwrap_or(50) - 50
}

/// Whether the product's drivers and agent are in the guest: a module of its kernel, or a service of Windows that starts.
fn has_tools(facts: &Facts<'_>, guest: &Guest) -> Result<bool, Missing> {
    Ok(match &guest.system {
        System::Linux(linux) => {
            let module = facts.text("tools.linux-module")?.value;
            let tree = &linux.modules;
            let file = tree.files.get(module);
            file.is_some_and(|file| file.missing.is_none()) || tree.builtin.line(module).is_some()
        }
        System::Windows(windows) => {
            let service = facts.text("tools.windows-service")?.value;
            let found = windows.services.get(service);
            found.is_some_and(|service| service.start.is_some_and(|start| start < 4))
        }
    })
}

fn missing_fact(id: &'static str, step: Step, fact: &Missing) -> Found {
    unknown(id, step, fact)
}

/// A machine is healthy where it lives when it boots and has an address there.
fn sanity(facts: &crate::facts::GuestFacts) -> Found {
    const ID: &str = "source.sanity";
    let step = Step::SourceSanity;
    match (&facts.booted, &facts.address) {
        (Ok(booted), _) if !booted.value => missing(
            ID,
            step,
            "does not boot at the source",
            booted.witness.clone(),
        ),
        (Ok(_), Ok(address)) if address.value.is_none() => missing(
            ID,
            step,
            "has no address at the source",
            address.witness.clone(),
        ),
        (Ok(booted), Ok(address)) => Found {
            id: ID,
            step,
            before: String::new(),
            after: format!(
                "boots, {}",
                address
                    .value
                    .map_or_else(String::new, |address| address.to_string())
            ),
            measure: Ok(Measure::Same),
            witness: booted
                .witness
                .iter()
                .chain(&address.witness)
                .cloned()
                .collect(),
        },
        (Err(why), _) | (_, Err(why)) => Found {
            id: ID,
            step,
            before: String::new(),
            after: String::new(),
            measure: Err(why.clone()),
            witness: vec![Witness::lab("source", why.clone())],
        },
    }
}
