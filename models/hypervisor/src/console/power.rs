//! Switching a machine off cleanly.

use crate::facts::{Facts, Missing};
use drylab_catalog::{Firmware, Machine, Witness};

/// Whether the console shuts a running machine down cleanly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// It does; else it refuses, and suspending, too: the machine has to be forced off, or shut down from inside.
    pub is_allowed: bool,
    /// Why.
    pub why: Vec<Witness>,
}

/// Whether the console's Shut Down and Suspend work for a machine. Pausing asks nothing of the guest.
///
/// `has_tools` says whether the product's own drivers and agent run in the guest. A paravirtual kernel is asked by the
/// hypervisor itself and needs none.
///
/// # Errors
/// [`Missing`] when nobody wrote down what the product asks for.
pub fn clean_shutdown(
    facts: &Facts<'_>,
    machine: &Machine,
    has_tools: bool,
) -> Result<CleanShutdown, Missing> {
    let needs_tools = facts.flag("shutdown.needs-tools")?;
    let is_asked_by_host = machine.firmware == Firmware::Pygrub;
    let says = match (is_asked_by_host, has_tools) {
        (true, _) => "a paravirtual kernel",
        (false, true) => "the product's tools run in the guest",
        (false, false) => "no tools run in the guest",
    };
    let guest = Witness::descriptor(machine.name.clone(), says);
    Ok(CleanShutdown {
        is_allowed: !needs_tools.value || is_asked_by_host || has_tools,
        why: std::iter::once(guest).chain(needs_tools.chain()).collect(),
    })
}
