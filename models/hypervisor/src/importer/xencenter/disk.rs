//! Disk Image Import: the wizard makes an HVM machine around a VHD or VMDK file.

use super::{image, needs, plan};
use crate::console::{Mode, Request};
use crate::facts::Facts;
use crate::importer::{Operator, ReadError, Reading, Remark, limits, refused};
use drylab_appliance::Package;
use drylab_catalog::Witness;
use drylab_image::detect;

/// XenCenter: File, Import, Disk Image.
///
/// # Errors
/// [`ReadError`].
pub fn xencenter_import_disk(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let formats = facts.list("disk.formats")?;
    let drawn = facts.text("mac.rule")?;
    let (mut plans, mut sizes, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for name in &package.disks {
        let file = package.file(name).map_err(|error| refused(name, error))?;
        let format = detect(file).map_err(|error| refused(name, error))?.format;
        if !formats.value.contains(&format.name()) {
            let says = format!("{} image", format.name());
            let mut witness = vec![Witness::descriptor(name.clone(), says)];
            witness.extend(formats.chain());
            remarks.push(Remark::refused(witness));
        }
        let size = image(name, file, &mut remarks)?.virtual_size();
        plans.push(plan(name, size, Some(format.name())));
        sizes.push(size);
    }
    let machine = (operator.vcpus, operator.memory_mib);
    let mut request = Request::plain(&operator.name, "other", machine, &sizes);
    request.mode = Some(Mode::Hvm);
    let place = package.disks.first().map_or("disk", String::as_str);
    limits::disks(facts, place, &request, &mut remarks)?;
    let needs = needs(facts, &plans)?;
    Ok(Reading {
        remarks,
        request,
        disks: plans,
        by_hand: vec![Witness::quirk("DQ423")],
        mac: drawn.chain(),
        notes: vec![Witness::quirk("HQ16")],
        needs,
    })
}
