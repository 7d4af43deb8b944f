//! Bounds on the disks of a machine that an importer is about to make.

use super::{ReadError, Remark};
use crate::console::Request;
use crate::facts::Facts;
use drylab_catalog::Witness;

/// Refuses disks larger than the product's, and a boot disk where the firmware does not look.
pub(super) fn disks(
    facts: &Facts<'_>,
    place: &str,
    request: &Request,
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    let most = facts.number("disk.bytes-max")?;
    let too_large = request.disks.iter().enumerate();
    for (number, disk) in too_large.filter(|(_, disk)| disk.bytes > most.value) {
        let says = format!(
            "disk {number} of {} bytes, at most {} fit",
            disk.bytes, most.value
        );
        let mut witness = vec![Witness::descriptor(place, says)];
        witness.extend(most.chain());
        remarks.push(Remark::refused(witness));
    }
    let boot = request
        .disks
        .first()
        .and_then(|disk| disk.controller.as_deref());
    let bootable = facts.list("boot.controllers")?;
    if let Some(controller) = boot.filter(|controller| !bootable.value.contains(controller)) {
        let says = format!("boot disk on {controller}");
        let mut witness = vec![Witness::descriptor(place, says)];
        witness.extend(bootable.chain());
        remarks.push(Remark::refused(witness));
    }
    Ok(())
}
