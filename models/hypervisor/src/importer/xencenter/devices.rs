//! Which disk of an OVF gets which device number, and which one is taken for the boot disk.
//!
//! The machine has no controllers; the importer gives out numbers from a table of 16 (0 is the first disk), controller
//! by controller, writes `device=` and `bootable=` into each item's Connection and then reads them back.

use crate::console::Mode;
use crate::facts::{Facts, Missing};
use crate::importer::{ReadError, Remark};
use drylab_appliance::ovf::{Envelope, Hardware, Item, resource};
use drylab_catalog::Witness;
use std::collections::BTreeSet;

/// Disks in the order in which the machine will have them, by file, with what is to be said.
pub(super) struct Drives {
    pub(super) files: Vec<String>,
    pub(super) remarks: Vec<Remark>,
    pub(super) notes: Vec<Witness>,
}

/// Virtual disk images in Microsoft's manner.
const LOGICAL_DISK: u16 = 21;
/// Where a CD-ROM drive's number is looked for first.
const CD_FROM: usize = 2;
/// The number of a CD-ROM drive that has none.
const CD_DEFAULT: u32 = 3;

fn is_disk(item: &Item) -> bool {
    let kinds = [resource::DISK, resource::STORAGE_EXTENT, LOGICAL_DISK];
    kinds.contains(&item.resource_type)
}

fn is_cd(item: &Item) -> bool {
    [resource::CD, resource::DVD].contains(&item.resource_type)
}

/// What the importer keeps of an item while it works.
struct Slot<'e> {
    item: &'e Item,
    connection: Option<String>,
    is_linked: bool,
}

struct Placing<'e> {
    name: &'e str,
    slots: Vec<Slot<'e>>,
    taken: [bool; 16],
    remarks: Vec<Remark>,
    notes: Vec<Witness>,
}

pub(super) fn drives(
    facts: &Facts<'_>,
    name: &str,
    envelope: &Envelope,
    hardware: &Hardware,
    mode: Mode,
) -> Result<Drives, ReadError> {
    let slots = hardware.items.iter().map(|item| Slot {
        item,
        connection: item
            .connection
            .first()
            .filter(|text| !text.is_empty())
            .cloned(),
        is_linked: false,
    });
    let mut placing = Placing {
        name,
        slots: slots.collect(),
        taken: [false; 16],
        remarks: Vec::new(),
        notes: Vec::new(),
    };
    placing.number_by_controller();
    let bootable = placing.guess_boot(envelope);
    let devices = allowed(facts, mode)?;
    let mut attached = placing.attach(envelope, &devices, &bootable);
    placing.count(facts, attached.len())?;
    let before: Vec<String> = attached.iter().map(|(_, _, file)| file.clone()).collect();
    attached.sort_by_key(|(device, _, _)| *device);
    if mode == Mode::Paravirtual
        && let Some(first) = attached.iter().position(|(_, boots, _)| *boots)
    {
        let boot = attached.remove(first);
        attached.insert(0, boot);
    }
    let files: Vec<String> = attached.into_iter().map(|(_, _, file)| file).collect();
    if files != before {
        let says = format!("disks in the order {}", files.join(", "));
        let place = Witness::descriptor(name, says);
        let witness = vec![place, Witness::quirk("HQ90")];
        placing.remarks.push(Remark::warned(witness));
    }
    Ok(Drives {
        files,
        remarks: placing.remarks,
        notes: placing.notes,
    })
}

/// Free device numbers of a new machine, with why there are no more.
struct Allowed {
    free: BTreeSet<u32>,
    why: Vec<Witness>,
}

fn allowed(facts: &Facts<'_>, mode: Mode) -> Result<Allowed, Missing> {
    let known = match mode {
        Mode::Paravirtual => facts.number("disk.devices")?,
        Mode::Hvm => facts.number("disk.devices-without-drivers")?,
    };
    let count = u32::try_from(known.value).unwrap_or(u32::MAX);
    Ok(Allowed {
        free: (0..count).collect(),
        why: known.chain(),
    })
}

impl Placing<'_> {
    fn place(&self, index: usize, says: impl std::fmt::Display) -> Witness {
        let line = self.slots[index].item.line;
        Witness::descriptor(self.name, format!("line {line}: {says}"))
    }

    /// Controllers by resource type; whatever hangs on one gets the next free number.
    fn number_by_controller(&mut self) {
        let is_controller = |item: &&Item| (5..=9).contains(&item.resource_type);
        let items = self.slots.iter().map(|slot| slot.item);
        let mut controllers: Vec<&Item> = items.filter(is_controller).collect();
        controllers.sort_by_key(|item| item.resource_type);
        for controller in controllers {
            for index in self.connected(&controller.instance_id) {
                let slot = &mut self.slots[index];
                slot.is_linked = true;
                let has_number = slot
                    .connection
                    .as_deref()
                    .is_some_and(|text| text.to_ascii_lowercase().contains("device="));
                if has_number {
                    continue;
                }
                let from = if is_cd(slot.item) { CD_FROM } else { 0 };
                let free = (from..self.taken.len()).find(|number| !self.taken[*number]);
                let number = free.unwrap_or(0);
                self.taken[number] = true;
                let slot = &mut self.slots[index];
                slot.connection = Some(match &slot.connection {
                    Some(text) => format!("{text},device={number}"),
                    None => format!("device={number}"),
                });
                if free.is_none() {
                    let witness = vec![
                        self.place(index, "no number is left"),
                        Witness::quirk("HQ89"),
                    ];
                    self.remarks.push(Remark::warned(witness));
                }
            }
        }
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if is_disk(slot.item) && slot.item.parent.is_some() && !slot.is_linked {
                let name = slot.item.element_name.as_deref().unwrap_or("");
                let says = format!("disk {name:?} is not linked to its controller");
                let place = self.place(index, says);
                self.notes.extend([place, Witness::quirk("HQ132")]);
            }
        }
    }

    /// Items whose Parent contains the id, by their place on the controller.
    fn connected(&mut self, id: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for index in 0..self.slots.len() {
            let item = self.slots[index].item;
            let Some(parent) = item.parent.as_deref().filter(|parent| !parent.is_empty()) else {
                continue;
            };
            if !parent.contains(id) || !(is_cd(item) || is_disk(item) && is_called_disk(item)) {
                continue;
            }
            if parent != id {
                let says = format!("parent {parent} is also taken for {id}");
                let place = self.place(index, says);
                self.notes.extend([place, Witness::quirk("HQ131")]);
            }
            found.push(index);
        }
        let position = |index: &usize| {
            let text = self.slots[*index].item.address_on_parent.as_deref();
            text.and_then(|text| text.parse::<u32>().ok())
        };
        found.sort_by_key(position);
        found
    }

    /// Whether each item is called bootable, by its index.
    fn guess_boot(&mut self, envelope: &Envelope) -> Vec<bool> {
        let guess = |slot: &Slot<'_>| {
            let item = slot.item;
            let names = |id: &str| match item.host_resource.first() {
                Some(resource) => resource.contains(id),
                None => item.instance_id.contains(id),
            };
            let declared = envelope.disks.iter().filter(|disk| names(&disk.disk_id));
            let declared = declared.last().map(|disk| disk.bootable == Some(true));
            let at_first = item.address_on_parent.as_deref() == Some("0")
                && [resource::DISK, resource::STORAGE_EXTENT].contains(&item.resource_type);
            let first_image =
                item.address.as_deref() == Some("0") && item.resource_type == LOGICAL_DISK;
            let device_0 = slot
                .connection
                .as_deref()
                .is_some_and(|text| text.contains("device=0"));
            is_disk(item) && (declared.unwrap_or(true) || at_first || first_image || device_0)
        };
        let bootable: Vec<bool> = self.slots.iter().map(guess).collect();
        let count = bootable.iter().filter(|boots| **boots).count();
        if count > 1 {
            let says = format!("{count} disks are called bootable");
            self.notes.push(Witness::descriptor(self.name, says));
            self.notes.push(Witness::quirk("HQ91"));
        }
        bootable
    }

    /// Drives in document order: device number, whether it is called bootable, file.
    fn attach(
        &mut self,
        envelope: &Envelope,
        allowed: &Allowed,
        bootable: &[bool],
    ) -> Vec<(u32, bool, String)> {
        let mut free = allowed.free.clone();
        let (mut attached, mut has_cd) = (Vec::new(), false);
        for (index, boots) in bootable.iter().enumerate() {
            let item = self.slots[index].item;
            if is_cd(item) {
                if std::mem::replace(&mut has_cd, true) {
                    let place = self.place(index, "another CD-ROM drive");
                    self.notes.extend([place, Witness::quirk("HQ93")]);
                } else {
                    free.remove(&self.asked(index).unwrap_or(CD_DEFAULT));
                }
                continue;
            }
            let Some(file) = is_disk(item).then(|| file_of(envelope, item)).flatten() else {
                continue;
            };
            if let Some(caption) = taken_for_another(item) {
                let says = format!("caption {caption:?}");
                let witness = vec![self.place(index, says), Witness::quirk("HQ94")];
                self.remarks.push(Remark::warned(witness));
                continue;
            }
            let device = match self.asked(index) {
                Some(number) => free.take(&number),
                None => free.pop_first(),
            };
            match device {
                Some(device) => attached.push((device, *boots, file)),
                None => {
                    let says = format!("{file} is copied and not attached");
                    let mut witness = vec![self.place(index, says)];
                    witness.extend(allowed.why.iter().cloned());
                    self.remarks.push(Remark::warned(witness));
                }
            }
        }
        attached
    }

    /// The number in an item's Connection.
    fn asked(&self, index: usize) -> Option<u32> {
        let text = self.slots[index].connection.as_deref()?;
        let mut words = text.split(['=', ',']).map(str::trim);
        words.find(|word| word.eq_ignore_ascii_case("device"))?;
        words.next()?.parse().ok()
    }

    /// More drives than recommended, the CD-ROM drive counted.
    fn count(&mut self, facts: &Facts<'_>, disks: usize) -> Result<(), Missing> {
        let most = facts.number("disk.recommended")?;
        let drives = u64::try_from(disks).unwrap_or(u64::MAX).saturating_add(1);
        if drives > most.value {
            let says = format!("{drives} drives, {} are recommended", most.value);
            let mut witness = vec![Witness::descriptor(self.name, says)];
            witness.extend(most.chain());
            self.remarks.push(Remark::warned(witness));
        }
        Ok(())
    }
}

/// A disk is known by what it is called.
fn is_called_disk(item: &Item) -> bool {
    let lower = |text: &Option<String>| text.as_deref().map(str::to_lowercase);
    let has = |text: &Option<String>| lower(text).is_some_and(|text| text.contains("hard disk"));
    has(&item.element_name)
        || has(&item.caption)
        || lower(&item.caption).is_some_and(|text| text.starts_with("disk"))
}

/// A caption that makes a disk a serial port, a floppy or a CD image.
fn taken_for_another(item: &Item) -> Option<&str> {
    let caption = item.caption.as_deref()?;
    let upper = caption.to_uppercase();
    let words = ["COM", "FLOPPY", "ISO"];
    words
        .iter()
        .any(|word| upper.contains(word))
        .then_some(caption)
}

/// The file behind an item: its disk is looked for in the HostResource, else in the InstanceID.
fn file_of(envelope: &Envelope, item: &Item) -> Option<String> {
    let text = item.host_resource.first().unwrap_or(&item.instance_id);
    let disk = envelope
        .disks
        .iter()
        .find(|disk| !disk.disk_id.is_empty() && text.contains(&disk.disk_id))?;
    let file = envelope.file(disk.file_ref.as_deref()?)?;
    Some(file.href.clone())
}
