//! A disk without a machine: a person makes one at the console and gives it the disk.

use super::{DiskPlan, Operator, ReadError, Reading, Remark, Stored, Verdict, damage, refused};
use crate::console::Request;
use crate::facts::Facts;
use drylab_appliance::Package;
use drylab_block::{Limits, ReadAt};
use drylab_catalog::Witness;
use drylab_image::profile::{ESXI, LIBVIRT_CENTOS_6};
use drylab_image::{Format, VhdSize, open, open_vhd};

fn request(operator: &Operator, disks: &[u64], controller: Option<&str>) -> Request {
    let mut request = Request::plain(
        &operator.name,
        &operator.guest,
        (operator.vcpus, operator.memory_mib),
        disks,
    );
    for disk in &mut request.disks {
        disk.controller = controller.map(str::to_owned);
    }
    request
}

/// Virtual Machine Manager: New, Import existing disk image. The wizard asks for the guest and makes the rest.
///
/// # Errors
/// [`ReadError`].
pub fn virt_manager_import(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let drawn = facts.text("mac.on-import")?;
    let (mut plans, mut sizes, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for disk in &package.disks {
        let (name, file) = package
            .disk_file(disk)
            .map_err(|error| refused(disk, error))?;
        let image = open(file.clone(), &Limits::DEFAULT).map_err(|error| refused(&name, error))?;
        // Damage is of the file; that a size believed and not meant ends behind its table is none.
        damage::react(&LIBVIRT_CENTOS_6, &name, &image, &mut remarks)?;
        // qemu's word for a VHD, whose geometry it believes.
        let (image, format) = match image.format() {
            Format::Vhd => {
                let seen = open_vhd(file.clone(), VhdSize::Geometry, &Limits::DEFAULT);
                (seen.map_err(|error| refused(&name, error))?, "vpc")
            }
            format => (image, format.name()),
        };
        plans.push(DiskPlan {
            file: name,
            declared_format: Some(format.to_owned()),
            stored: Stored::AsIs,
            bytes: file.len(),
        });
        sizes.push(image.virtual_size());
    }
    Ok(Reading {
        remarks,
        request: request(operator, &sizes, None),
        disks: plans,
        by_hand: vec![Witness::quirk("DQ401")],
        mac: drawn.chain(),
        notes: vec![Witness::quirk("HQ59")],
        needs: Vec::new(),
    })
}

/// vSphere Client: New Virtual Machine, Custom, Use an existing virtual disk.
///
/// # Errors
/// [`ReadError`].
pub fn vsphere_existing_disk(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let sparse_boots = facts.flag("disk.hosted-sparse-boots")?;
    let follows = facts.flag("disk.existing-follows-adapter-type")?;
    let drawn = facts.text("mac.on-import")?;
    let (mut plans, mut sizes, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    let mut controller = None;
    let mut notes = Vec::new();
    for disk in &package.disks {
        let (name, file) = package
            .disk_file(disk)
            .map_err(|error| refused(disk, error))?;
        let image = open(file.clone(), &Limits::DEFAULT).map_err(|error| refused(&name, error))?;
        let info = image.info();
        if image.format() == Format::Vmdk && !sparse_boots.value {
            let says = format!("createType {:?} is a hosted disk", image.subformat());
            let witness = vec![
                Witness::descriptor(name.clone(), says),
                Witness::quirk("HQ31"),
                sparse_boots.witness.clone(),
            ];
            remarks.push(Remark {
                verdict: Verdict::Refused,
                witness,
            });
        } else {
            damage::react(&ESXI, &name, &image, &mut remarks)?;
        }
        if image.format() != Format::Vmdk && name == *disk {
            let says = format!(
                "{} without a VMDK descriptor beside it",
                image.format().name()
            );
            let witness = vec![
                Witness::descriptor(name.clone(), says),
                Witness::quirk("DQ414"),
            ];
            remarks.push(Remark {
                verdict: Verdict::Refused,
                witness,
            });
        }
        // The adapter type stands in the sparse file's own descriptor, or in the text file beside a flat extent.
        let text = package
            .text(disk, &Limits::DEFAULT)
            .ok()
            .filter(|_| name != *disk);
        let adapter = match text {
            Some(text) => adapter_type(&String::from_utf8_lossy(&text)),
            None => info.detail("ddb.adapterType").map(str::to_owned),
        };
        if adapter.as_deref() == Some("ide") && follows.value {
            controller = Some(facts.text("cdrom.controller")?.value.to_owned());
            notes.push(Witness::descriptor(
                disk.clone(),
                "ddb.adapterType = \"ide\"",
            ));
            notes.push(Witness::quirk("HQ128"));
        }
        plans.push(DiskPlan {
            file: name,
            declared_format: None,
            stored: Stored::Flat,
            bytes: image.virtual_size(),
        });
        sizes.push(image.virtual_size());
    }
    Ok(Reading {
        remarks,
        request: request(operator, &sizes, controller.as_deref()),
        disks: plans,
        by_hand: vec![Witness::quirk("DQ402")],
        mac: drawn.chain(),
        notes,
        needs: Vec::new(),
    })
}

fn adapter_type(descriptor: &str) -> Option<String> {
    let line = descriptor.lines().find(|line| {
        line.trim_start()
            .to_ascii_lowercase()
            .starts_with("ddb.adaptertype")
    })?;
    Some(line.split_once('=')?.1.trim().trim_matches('"').to_owned())
}
