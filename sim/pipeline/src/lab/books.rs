//! A host's books: datastore, inventory, what runs.

use crate::library::SourceDisk;
use drylab_catalog::GuestId;
use drylab_catalog::Witness;
use drylab_hypervisor::console::Made;
use drylab_hypervisor::{Datastore, Facts, Host, LabFile, Missing};
use std::collections::BTreeMap;

/// One host with its product.
pub(super) struct Site<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) host: Host,
    /// Name on the lab's network.
    pub(super) name: String,
    pub(super) datastore: Datastore,
    /// Names of registered machines; some products let two have the same.
    pub(super) inventory: Vec<String>,
    /// Running machines with the address of their adapter.
    pub(super) running: BTreeMap<String, String>,
}

/// The shares that exports and conversions are staged on, in the order of the lab file.
pub(super) struct Shares {
    shares: Vec<(String, Datastore)>,
    /// On which of them the last package lies.
    last: Option<usize>,
}

/// The package on the shares.
const STAGED: &str = "package";

impl Shares {
    /// All shares of a lab, empty.
    pub(super) fn new(lab: &LabFile) -> Self {
        let shares = lab.shares.iter();
        Self {
            shares: shares
                .map(|share| (share.name.clone(), Datastore::new(share.bytes)))
                .collect(),
            last: None,
        }
    }

    /// Puts a package on the first share with room, and then takes away the one before, which it was made of.
    ///
    /// # Errors
    /// Why there is no room: each share with the key of the lab file that says its size.
    pub(super) fn put(&mut self, bytes: u64) -> Result<(), Vec<Witness>> {
        let has_room = |(_, store): &(String, Datastore)| store.free() >= bytes;
        let Some(at) = self.shares.iter().position(has_room) else {
            let share = |(name, store): &(String, Datastore)| {
                let (capacity, free) = (store.capacity(), store.free());
                Witness::lab(
                    format!("share {name}"),
                    format!("bytes = {capacity}, {free} free, {bytes} to stage"),
                )
            };
            let mut why: Vec<Witness> = self.shares.iter().map(share).collect();
            let beside = self.last.map(|_| "DQ446");
            why.extend(beside.into_iter().chain(["DQ411"]).map(Witness::quirk));
            return Err(why);
        };
        self.clear();
        if let Some((_, store)) = self.shares.get_mut(at) {
            // It fitted beside the one before.
            let _ = store.put(STAGED, bytes);
            self.last = Some(at);
        }
        Ok(())
    }

    /// Takes the package away.
    pub(super) fn clear(&mut self) {
        let last = self.last.take();
        if let Some((_, store)) = last.and_then(|at| self.shares.get_mut(at)) {
            store.remove(STAGED);
        }
    }

    /// Bytes on all of them.
    pub(super) fn used(&self) -> u64 {
        let used = self.shares.iter().map(|(_, store)| store.used());
        used.fold(0, u64::saturating_add)
    }
}

/// File that stands for everything that was on the datastore before.
const OTHERS: &str = "other machines";

impl<'a> Site<'a> {
    /// A host whose datastore has `free` bytes free (default: all of it).
    pub(super) fn new(host: Host, facts: Facts<'a>, suffix: &str, free: Option<u64>) -> Self {
        let mut datastore = Datastore::new(host.local_bytes);
        let taken = host
            .local_bytes
            .saturating_sub(free.unwrap_or(host.local_bytes));
        if taken > 0 {
            // The store is empty and `taken` is at most its capacity.
            let _ = datastore.put(OTHERS, taken);
        }
        Self {
            facts,
            name: format!("{}{suffix}", host.name),
            host,
            datastore,
            inventory: Vec::new(),
            running: BTreeMap::new(),
        }
    }

    /// Takes one machine of a name off the inventory.
    pub(super) fn unregister(&mut self, name: &str) {
        if let Some(at) = self.inventory.iter().position(|known| known == name) {
            self.inventory.remove(at);
        }
    }

    /// The source machine as it stands before the run: registered, its disk on the datastore, running.
    pub(super) fn take_in(
        &mut self,
        guest: &GuestId,
        disk: &SourceDisk,
        made: &Result<Made, Missing>,
    ) {
        let Ok(made) = made else { return };
        let name = made.machine.name.clone();
        let _ = self
            .datastore
            .put(&format!("{guest}.disk"), disk.disk.bytes.len());
        self.running.insert(name.clone(), disk.mac.to_string());
        self.inventory.push(name);
    }
}
