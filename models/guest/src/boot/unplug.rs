//! What a kernel makes of the Xen platform device: it unplugs the emulated disks and adapters that it has front ends
//! for, early and for good, and meets their twins on Xen's own bus.
//!
//! Source: Linux arch/x86/xen/platform-pci-unplug.c (2.6.36, and Red Hat's 2.6.32 from 6.0) and
//! Documentation/kernel-parameters.txt, `xen_emul_unplug`. The kernel decides by how it was built and by its command
//! line; whether the front end can then be loaded is another matter (quirk HQ83).

use crate::inspect::{LinuxSystem, Sourced};
use drylab_catalog::device::{Class, device};
use drylab_catalog::{Controller, Machine, Witness};

/// First build of Red Hat's 2.6.32 that unplugs without being asked to: 6.1's.
const EL6_UNPLUGS: u32 = 131;

/// The machine as the running kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) machine: Machine,
    /// Why it differs from what the firmware saw; empty when it does not.
    pub(super) why: Vec<Witness>,
    /// Why it does not differ, where it might.
    pub(super) kept: Vec<Witness>,
}

impl Seen {
    /// A machine that nothing is unplugged of.
    pub(super) fn same(machine: &Machine) -> Self {
        Self {
            machine: machine.clone(),
            why: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// What is unplugged.
#[derive(Default)]
struct Unplug {
    disks: Option<Vec<Witness>>,
    nics: Option<Vec<Witness>>,
    kept: Vec<Witness>,
}

/// The machine after the kernel has unplugged what it unplugs.
pub(super) fn seen(system: &LinuxSystem, machine: &Machine) -> Seen {
    let mut seen = Seen::same(machine);
    if !machine.xen_platform {
        return seen;
    }
    let unplug = decide(system);
    if let Some(why) = unplug.disks {
        twin_disks(&mut seen.machine);
        seen.why.extend(why);
    }
    if let Some(why) = unplug.nics {
        twin_nics(&mut seen.machine);
        seen.why.extend(why);
    }
    if !seen.why.is_empty() {
        seen.why.push(Witness::quirk("GQ39"));
    }
    seen.kept = unplug.kept;
    seen
}

fn decide(system: &LinuxSystem) -> Unplug {
    let kept = |why: Vec<Witness>| Unplug {
        kept: why,
        ..Unplug::default()
    };
    let Some(platform) = system.config.built("XEN_PLATFORM_PCI") else {
        return kept(vec![system.config.lacks("XEN_PLATFORM_PCI")]);
    };
    let word = |key: &str| {
        let mut params = system.cmdline.iter();
        params.find(|param| param.value.key == key)
    };
    let value = |param: &Sourced<crate::inspect::Param>| param.value.value.clone();
    let asked = word("xen_pv_hvm").is_some_and(|param| value(param).as_deref() == Some("enable"));
    if is_el6_0(system) && !asked {
        let release = system
            .kernel
            .as_ref()
            .map(|kernel| kernel.version.witness.clone());
        return kept(
            release
                .into_iter()
                .chain([Witness::quirk("GQ38")])
                .collect(),
        );
    }
    let words = word("xen_emul_unplug");
    let wanted = words.and_then(value).unwrap_or_default();
    let says = |option: &str| wanted.split(',').any(|word| word == option);
    if says("never") || says("unnecessary") {
        return kept(
            words
                .map(|param| param.witness.clone())
                .into_iter()
                .collect(),
        );
    }
    let front_end = |option: &str, names: &[&str]| {
        let built = system.config.built(option)?;
        let allowed = words.is_none() || names.iter().any(|name| says(name));
        let why = || [platform.clone(), built].to_vec();
        allowed.then(|| {
            why()
                .into_iter()
                .chain(words.map(|param| param.witness.clone()))
                .collect::<Vec<Witness>>()
        })
    };
    Unplug {
        disks: front_end("XEN_BLKDEV_FRONTEND", &["all", "ide-disks"]),
        nics: front_end("XEN_NETDEV_FRONTEND", &["all", "nics"]),
        kept: Vec::new(),
    }
}

/// Red Hat's first 2.6.32 builds unplug only when `xen_pv_hvm=enable` is given (quirk GQ38).
fn is_el6_0(system: &LinuxSystem) -> bool {
    let release = system.kernel.as_ref().map(|kernel| &kernel.version.value);
    let build = release.and_then(|release| release.strip_prefix("2.6.32-"));
    let number = build.and_then(|build| build.split('.').next()?.parse::<u32>().ok());
    build.is_some_and(|build| build.contains("el6")) && number.is_some_and(|n| n < EL6_UNPLUGS)
}

/// Puts each adapter on its front end.
pub(super) fn twin_nics(machine: &mut Machine) {
    for nic in &mut machine.nics {
        "xen-vif".clone_into(&mut nic.model);
        nic.slot = None;
    }
}

/// Puts each disk of an IDE controller on a front end of its own, which keeps the place on the controller as its
/// number; CD-ROM drives stay where they are.
pub(super) fn twin_disks(machine: &mut Machine) {
    let is_ide = |controller: &Controller| {
        device(&controller.model).is_some_and(|model| model.class == Class::Ide)
    };
    for index in 0..machine.disks.len() {
        let emulated = machine
            .disks
            .get(index)
            .and_then(|disk| machine.controller_of(disk))
            .is_some_and(is_ide);
        let Ok(twin) = u32::try_from(machine.controllers.len()) else {
            return;
        };
        let Some(disk) = machine.disks.get_mut(index).filter(|_| emulated) else {
            continue;
        };
        disk.controller = twin;
        machine.controllers.push(Controller {
            model: "xen-vbd".to_owned(),
            slot: None,
        });
    }
}
