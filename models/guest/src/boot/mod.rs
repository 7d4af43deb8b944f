//! Does this guest come up on that machine, and if not, why: firmware → boot loader → kernel and initramfs →
//! driver of the disk's controller → root → `fstab`; for Windows the boot manager's store and the boot-start
//! drivers. Every step looks at the guest's bytes as [`crate::inspect`] found them; nothing is known of products.
//!
//! Disk `i` of the guest is disk `i` of the machine.

mod drivers;
mod explain;
mod firmware;
mod linux;
mod mounts;
mod names;
mod tools;
mod unplug;
mod windows;

use crate::inspect::{Guest, System};
use crate::net::linux::bind::Bound;
use drylab_catalog::{Machine, Nic, Witness};
use std::collections::BTreeMap;

/// How a boot went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootReport {
    /// Whether the system came up as far as starting its services.
    pub reached: bool,
    /// Stages, in order, up to the one that failed.
    pub stages: Vec<Stage>,
    /// Root device as the guest calls it: `/dev/sda1`, `/dev/mapper/vg-root`; Windows: `disk 0 partition 2`.
    pub root_device: Option<String>,
    /// Adapters as the running system sees them: a kernel may have unplugged emulated ones for their twins.
    pub nics: Vec<Nic>,
    /// Drivers of adapters that the initramfs had loaded before the root was there, by the adapter's modalias.
    pub early: BTreeMap<String, Bound>,
    /// Why they are not the ones the machine was given; empty when they are.
    pub unplugged: Vec<Witness>,
    /// What the guest calls its disks: index and name.
    pub disk_names: Vec<(usize, String)>,
    /// Why it was not reached, from the place that decided to what it met.
    pub cause: Vec<Witness>,
    /// What is worth knowing of a boot that goes on.
    pub notes: Vec<Witness>,
    /// What could not be assessed, with the reason; a boot reached with one of these is reached as far as is known.
    pub unassessed: Vec<Witness>,
}

/// One stage of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `firmware`, `boot-loader`, `kernel`, `initramfs`, `unplug`, `drivers`, `root`, `fstab`.
    pub name: &'static str,
    /// Whether it went well.
    pub ok: bool,
    /// Why, what decided it first; at most 8, of a failure the beginning and the end of the cause.
    pub witnesses: Vec<Witness>,
}

/// Most witnesses a stage keeps.
const MOST_WITNESSES: usize = 8;

/// The same list without repetitions.
fn distinct(witnesses: Vec<Witness>) -> Vec<Witness> {
    let mut kept: Vec<Witness> = Vec::new();
    for witness in witnesses {
        if !kept.contains(&witness) {
            kept.push(witness);
        }
    }
    kept
}

/// A stage failed; the report already says why.
struct Stop;

impl BootReport {
    /// A stage went well; what decided it comes first, and of a long list only the beginning is kept.
    fn pass(&mut self, name: &'static str, witnesses: Vec<Witness>) {
        let mut witnesses = distinct(witnesses);
        witnesses.truncate(MOST_WITNESSES);
        self.stages.push(Stage {
            name,
            ok: true,
            witnesses,
        });
    }

    fn fail(&mut self, name: &'static str, witnesses: Vec<Witness>) -> Stop {
        self.cause.clone_from(&witnesses);
        let mut witnesses = distinct(witnesses);
        // A failure is told from where it began to what it is called: the middle can go, the cause has it.
        let more = witnesses.len().saturating_sub(MOST_WITNESSES);
        let middle = MOST_WITNESSES / 2..(MOST_WITNESSES / 2).saturating_add(more);
        let mut index = 0..witnesses.len();
        witnesses.retain(|_| !index.next().is_some_and(|index| middle.contains(&index)));
        self.stages.push(Stage {
            name,
            ok: false,
            witnesses,
        });
        Stop
    }

    /// The stage with this name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// Boots the guest on the machine.
#[must_use]
pub fn boot(guest: &Guest, machine: &Machine) -> BootReport {
    let mut report = BootReport {
        nics: machine.nics.clone(),
        ..BootReport::default()
    };
    let outcome =
        firmware::start(guest, machine, &mut report).and_then(|disk| match &guest.system {
            System::Linux(system) => linux::boot(guest, system, machine, disk, &mut report),
            System::Windows(system) => windows::boot(guest, system, machine, disk, &mut report),
        });
    report.reached = outcome.is_ok();
    report
}

/// Whether the machine has this disk at all.
fn on_machine(disks: &[usize], machine: &Machine) -> bool {
    disks.iter().all(|disk| *disk < machine.disks.len())
}
