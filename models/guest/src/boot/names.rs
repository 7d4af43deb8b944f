//! Which of the machine's disks the running kernel sees, and what it calls them.

use super::drivers::{Attached, Pool, attach};
use crate::inspect::volumes::{names_filesystem, names_logical};
use crate::inspect::{Guest, VolumeFact, VolumeKind};
use crate::os::linux_drivers::disk_name;
use drylab_catalog::device::device;
use drylab_catalog::{Machine, Witness, place};
use std::collections::BTreeMap;

/// Disks seen so far.
pub(super) struct Disks {
    /// Name by disk index.
    pub(super) names: BTreeMap<usize, String>,
    /// How each disk's controller is driven, by disk index.
    pub(super) attached: BTreeMap<usize, Attached>,
    /// Why a disk is not seen, by disk index.
    pub(super) missing: BTreeMap<usize, Vec<Witness>>,
}

impl Disks {
    /// Lets the pool's drivers attach to the controllers, in the order the buses are scanned: by PCI address, then
    /// by position on the controller, and what is not on PCI behind it. Letters count within a prefix; on Xen's bus
    /// the letter is the device's number.
    pub(super) fn scan(guest: &Guest, machine: &Machine, pool: &Pool<'_>) -> Self {
        let mut order: Vec<usize> = (0..machine.disks.len().min(guest.disks.len())).collect();
        order.sort_by_key(|index| {
            let disk = machine.disks.get(*index);
            let slot = disk
                .and_then(|disk| machine.controller_of(disk))
                .and_then(|controller| controller.slot);
            (slot.is_none(), slot, disk.map(|disk| disk.unit))
        });
        let mut disks = Self {
            names: BTreeMap::new(),
            attached: BTreeMap::new(),
            missing: BTreeMap::new(),
        };
        let mut counted: BTreeMap<&'static str, usize> = BTreeMap::new();
        for index in order {
            match Self::driver(index, machine, pool) {
                Ok(mut attached) => {
                    let count = counted.entry(attached.naming.prefix).or_default();
                    let unit = machine.disks.get(index).map(|disk| disk.unit);
                    let number = unit.and_then(|unit| usize::try_from(unit).ok());
                    if attached.naming.prefix == "xvd" {
                        *count = number.unwrap_or(0).max(*count);
                    }
                    let name = disk_name(attached.naming.prefix, *count);
                    *count = count.saturating_add(1);
                    if let Some(here) = attached.witnesses.first_mut() {
                        here.says.push_str(&format!(": {name}"));
                    }
                    disks.names.insert(index, name);
                    disks.attached.insert(index, attached);
                }
                Err(why) => {
                    disks.missing.insert(index, why);
                }
            }
        }
        disks
    }

    fn driver(index: usize, machine: &Machine, pool: &Pool<'_>) -> Result<Attached, Vec<Witness>> {
        let disk = format!("disk {index}");
        let controller = machine
            .disks
            .get(index)
            .and_then(|disk| machine.controller_of(disk));
        let Some(controller) = controller else {
            return Err(vec![Witness::descriptor(
                disk,
                "hangs on a controller the machine does not have",
            )]);
        };
        let Some(model) = device(&controller.model) else {
            return Err(vec![Witness::descriptor(
                disk,
                format!("hangs on an unknown model {}", controller.model),
            )]);
        };
        let says = format!("on {} at {}", controller.model, place(controller.slot));
        let here = Witness::descriptor(disk, says);
        match attach(model, &controller.model, pool) {
            Ok(mut attached) => {
                let says = format!("{}, {}", here.says, model.modalias());
                attached.witnesses.insert(0, Witness { says, ..here });
                Ok(attached)
            }
            Err(mut why) => {
                why.insert(0, here);
                Err(why)
            }
        }
    }

    /// Finds the volume a device name means on this machine.
    pub(super) fn resolve(&self, wanted: &str, guest: &Guest) -> Resolved {
        let wanted = wanted.trim_matches('"');
        let named = guest
            .layout
            .iter()
            .enumerate()
            .find(|(_, fact)| match &fact.kind {
                VolumeKind::Partition { disk, number, .. } => {
                    names_filesystem(wanted, fact) || self.is_node(wanted, *disk, Some(*number))
                }
                VolumeKind::Whole { disk } => {
                    names_filesystem(wanted, fact) || self.is_node(wanted, *disk, None)
                }
                VolumeKind::Logical { group, name, .. } => {
                    names_filesystem(wanted, fact) || names_logical(wanted, group, name)
                }
            });
        let Some((index, fact)) = named else {
            return self.unknown(wanted);
        };
        let unseen: Vec<Witness> = fact
            .disks()
            .iter()
            .filter(|disk| !self.names.contains_key(disk))
            .flat_map(|disk| self.why(*disk))
            .collect();
        if !unseen.is_empty() {
            return Resolved::Missing([vec![fact.witness.clone()], unseen].concat());
        }
        if let Some(broken) = &fact.broken {
            return Resolved::Missing(vec![broken.clone(), Witness::quirk("GQ46")]);
        }
        Resolved::Volume {
            index,
            node: self.node(fact),
        }
    }

    /// Why a disk is not seen.
    fn why(&self, disk: usize) -> Vec<Witness> {
        let absent = || {
            vec![Witness::descriptor(
                format!("disk {disk}"),
                "is not on this machine",
            )]
        };
        self.missing.get(&disk).cloned().unwrap_or_else(absent)
    }

    /// A name that means no volume of this guest on this machine.
    fn unknown(&self, wanted: &str) -> Resolved {
        let known = wanted.starts_with("UUID=")
            || wanted.starts_with("LABEL=")
            || [
                "/dev/sd",
                "/dev/hd",
                "/dev/vd",
                "/dev/xvd",
                "/dev/disk/by-uuid/",
                "/dev/disk/by-label/",
                "/dev/mapper/",
            ]
            .iter()
            .any(|prefix| wanted.starts_with(prefix))
            || wanted
                .strip_prefix("/dev/")
                .is_some_and(|rest| rest.contains('/'));
        if !known {
            return Resolved::Unknown(format!(
                "{wanted} is a kind of name that is not followed here"
            ));
        }
        let names: Vec<&str> = self.names.values().map(String::as_str).collect();
        let says = if names.is_empty() {
            "no disk is seen".to_owned()
        } else {
            format!("disks are {}", names.join(", "))
        };
        let mut why = vec![Witness::descriptor("disks as the guest sees them", says)];
        why.extend(self.missing.values().flatten().cloned());
        Resolved::Missing(why)
    }

    fn is_node(&self, wanted: &str, disk: usize, number: Option<u32>) -> bool {
        let Some(name) = self.names.get(&disk) else {
            return false;
        };
        let rest = wanted
            .strip_prefix("/dev/")
            .and_then(|rest| rest.strip_prefix(name.as_str()));
        match number {
            Some(number) => rest == Some(number.to_string().as_str()),
            None => rest == Some(""),
        }
    }

    /// Device node of a volume.
    fn node(&self, fact: &VolumeFact) -> String {
        let name = |disk: &usize| self.names.get(disk).cloned().unwrap_or_default();
        match &fact.kind {
            VolumeKind::Partition { disk, number, .. } => format!("/dev/{}{number}", name(disk)),
            VolumeKind::Whole { disk } => format!("/dev/{}", name(disk)),
            VolumeKind::Logical { group, name, .. } => {
                format!(
                    "/dev/mapper/{}-{}",
                    group.replace('-', "--"),
                    name.replace('-', "--")
                )
            }
        }
    }
}

/// What a device name means.
pub(super) enum Resolved {
    /// A volume that is there.
    Volume {
        /// Index into the layout.
        index: usize,
        /// Device node.
        node: String,
    },
    /// Nothing that is there.
    Missing(Vec<Witness>),
    /// A kind of name that cannot be judged here.
    Unknown(String),
}
