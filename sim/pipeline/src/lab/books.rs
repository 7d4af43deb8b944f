//! A host's books: datastore, inventory, what runs.

use crate::library::SourceDisk;
use drylab_catalog::GuestId;
use drylab_hypervisor::console::Made;
use drylab_hypervisor::{Datastore, Facts, Host, Missing};
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
