//! libvirt on KVM: `virsh define`, and `virt-image` on what virt-convert wrote.

use super::{DiskPlan, Operator, ReadError, Reading, Remark, Stored, Verdict, damage, refused};
use crate::console::{DiskRequest, NicRequest, Request};
use crate::exporter::LIBVIRT_NICS;
use crate::facts::Facts;
use drylab_appliance::{Package, libvirt};
use drylab_block::Limits;
use drylab_catalog::{Clock, Mac, Witness};
use drylab_image::open;
use drylab_image::profile::LIBVIRT_CENTOS_6;

/// `virsh define` of a domain with its image files in place.
///
/// # Errors
/// [`ReadError`].
pub fn virsh_define(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let name = &package.descriptor;
    let text = package
        .text(name, &Limits::DEFAULT)
        .map_err(|error| refused(name, error))?;
    let domain = libvirt::parse(&text, &Limits::DEFAULT).map_err(|error| refused(name, error))?;
    let mut remarks = Vec::new();
    let disks: Vec<&libvirt::Disk> = domain
        .disks
        .iter()
        .filter(|disk| disk.device == "disk")
        .collect();
    for disk in disks
        .iter()
        .filter(|disk| disk.bus.as_deref() == Some("scsi"))
    {
        let says = format!("line {}: disk on bus scsi", disk.line);
        let fact = facts.list("boot.controllers")?.witness;
        let witness = vec![
            Witness::descriptor(name.clone(), says),
            Witness::quirk("HQ51"),
            fact,
        ];
        remarks.push(Remark {
            verdict: Verdict::Refused,
            witness,
        });
    }
    remarks.extend(beyond_ide(name, &domain));
    let kept = facts.text("mac.on-register")?;
    let mut nics = Vec::new();
    for nic in &domain.interfaces {
        let mac: Option<Mac> = nic
            .mac
            .as_deref()
            .and_then(|mac| mac.parse().ok())
            .filter(|_| kept.value == "kept");
        nics.push(NicRequest {
            model: Some(nic_model(facts, name, nic, &mut remarks)?),
            mac,
            network: None,
        });
    }
    let controllers = disks.iter().map(|disk| {
        if disk.bus.as_deref() == Some("virtio") {
            "virtio-blk"
        } else {
            "piix3-ide"
        }
    });
    let controllers: Vec<&str> = controllers.collect();
    let named: Vec<(String, Option<String>)> = disks
        .iter()
        .map(|disk| {
            (
                disk.source.clone().unwrap_or_default(),
                disk.driver_type.clone(),
            )
        })
        .collect();
    let (plans, sizes) = plans(package, &named, &mut remarks)?;
    let mac_says = nics.first().and_then(|nic| nic.mac).map_or_else(
        || "no address: one is drawn".to_owned(),
        |mac| format!("mac address {mac}"),
    );
    let decides = match nics.first().and_then(|nic| nic.mac) {
        Some(_) => vec![kept.witness],
        None => facts.text("mac.on-import")?.chain(),
    };
    let asked = sizes
        .iter()
        .zip(controllers)
        .map(|(bytes, controller)| DiskRequest {
            bytes: *bytes,
            controller: Some(controller.to_owned()),
        })
        .collect();
    Ok(Reading {
        remarks,
        request: Request {
            name: domain.name.clone(),
            guest: operator.guest.clone(),
            vcpus: domain.vcpus,
            memory_mib: domain.memory_kib.div_ceil(1024),
            disks: asked,
            nics,
            uuid: domain.uuid.clone(),
            mac_seed: None,
            clock: match domain.clock_offset.as_deref() {
                Some("localtime") => Some(Clock::Localtime),
                Some(_) => Some(Clock::Utc),
                None => None,
            },
            mode: None,
        },
        disks: plans,
        by_hand: Vec::new(),
        mac: std::iter::once(Witness::descriptor(name.clone(), mac_says))
            .chain(decides)
            .collect(),
        notes: Vec::new(),
        needs: Vec::new(),
    })
}

/// Disks and CD-ROM drives for which IDE has no room: two channels of two drives, which are the targets `hda` to `hdd`.
fn beyond_ide(name: &str, domain: &libvirt::Domain) -> Vec<Remark> {
    let has_room = |target: &str| matches!(target, "hda" | "hdb" | "hdc" | "hdd");
    let drives = domain.disks.iter().filter(|disk| {
        let target = disk.target.as_deref().unwrap_or_default();
        let bus = disk.bus.as_deref();
        let is_ide = bus.map_or(target.starts_with("hd"), |bus| bus == "ide");
        is_ide && target.starts_with("hd") && !has_room(target)
    });
    drives
        .map(|disk| {
            let target = disk.target.as_deref().unwrap_or_default();
            let says = format!("line {}: {} {target} on bus ide", disk.line, disk.device);
            Remark::refused(vec![
                Witness::descriptor(name, says),
                Witness::quirk("HQ65"),
            ])
        })
        .collect()
}

fn nic_model(
    facts: &Facts<'_>,
    name: &str,
    nic: &libvirt::Interface,
    remarks: &mut Vec<Remark>,
) -> Result<String, ReadError> {
    let Some(model) = nic.model.as_deref() else {
        return Ok("rtl8139".to_owned());
    };
    let offered = facts.list("nic.models")?;
    let named = LIBVIRT_NICS.iter().find(|(_, name)| *name == model);
    if let Some((known, _)) = named.filter(|(known, _)| offered.value.contains(known)) {
        return Ok((*known).to_owned());
    }
    let says = format!("line {}: adapter model {model:?}", nic.line);
    let witness = vec![
        Witness::descriptor(name, says),
        Witness::quirk("HQ52"),
        offered.witness,
    ];
    remarks.push(Remark {
        verdict: Verdict::Refused,
        witness,
    });
    Ok(model.to_owned())
}

/// Sizes the guest will see, by the format libvirt is told (raw when it is told nothing).
fn plans(
    package: &Package,
    named: &[(String, Option<String>)],
    remarks: &mut Vec<Remark>,
) -> Result<(Vec<DiskPlan>, Vec<u64>), ReadError> {
    let (mut plans, mut sizes) = (Vec::new(), Vec::new());
    for (file, format) in named {
        let bytes = package
            .file(file)
            .map_err(|error| refused(&package.descriptor, error))?;
        let raw = format.as_deref().is_none_or(|format| format == "raw");
        let size = if raw {
            bytes.len()
        } else {
            let image =
                open(bytes.clone(), &Limits::DEFAULT).map_err(|error| refused(file, error))?;
            damage::react(&LIBVIRT_CENTOS_6, file, &image, remarks)?;
            image.virtual_size()
        };
        let format = format.clone().unwrap_or_else(|| "raw".to_owned());
        plans.push(DiskPlan {
            file: file.clone(),
            declared_format: Some(format),
            stored: Stored::AsIs,
            bytes: bytes.len(),
        });
        sizes.push(size);
    }
    Ok((plans, sizes))
}

/// `virt-image` on a virt-image descriptor: makes a domain with a drawn address.
///
/// # Errors
/// [`ReadError`].
pub fn virt_image(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let name = &package.descriptor;
    let text = package
        .text(name, &Limits::DEFAULT)
        .map_err(|error| refused(name, error))?;
    let image = drylab_appliance::virt_image::parse(&text, &Limits::DEFAULT)
        .map_err(|error| refused(name, error))?;
    let named: Vec<(String, Option<String>)> = image
        .disks
        .iter()
        .map(|(file, format)| (file.clone(), Some(format.clone())))
        .collect();
    let mut remarks = Vec::new();
    let (plans, sizes) = plans(package, &named, &mut remarks)?;
    let drawn = facts.text("mac.on-import")?;
    if image.interfaces == 0 {
        let witness = vec![
            Witness::descriptor(name.clone(), "no interface element"),
            Witness::quirk("GQ97"),
        ];
        remarks.push(Remark {
            verdict: Verdict::Warned,
            witness,
        });
    }
    Ok(Reading {
        remarks,
        request: Request {
            name: if image.name.is_empty() {
                operator.name.clone()
            } else {
                image.name
            },
            // virt-image has no option that says which guest it is.
            guest: "other".to_owned(),
            vcpus: image.vcpus,
            memory_mib: image.memory_kib.div_ceil(1024),
            disks: sizes
                .iter()
                .map(|bytes| DiskRequest {
                    bytes: *bytes,
                    controller: Some("piix3-ide".to_owned()),
                })
                .collect(),
            nics: (0..image.interfaces)
                .map(|_| NicRequest::default())
                .collect(),
            uuid: None,
            mac_seed: None,
            clock: None,
            mode: None,
        },
        disks: plans,
        by_hand: Vec::new(),
        mac: [vec![Witness::quirk("GQ96")], drawn.chain()].concat(),
        notes: vec![Witness::quirk("GQ98")],
        needs: Vec::new(),
    })
}
