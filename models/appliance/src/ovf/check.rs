//! Whether the parts of an envelope refer to each other.

use super::{Envelope, HostResource, Item, VirtualSystem, resource};
use crate::findings::{At, Findings, quote};
use crate::href::safe_href;
use std::collections::{BTreeMap, BTreeSet};

fn at(line: u32) -> At {
    At { offset: 0, line }
}

/// Adds a finding for each reference that leads nowhere, each id used twice, each name that must not be followed.
pub(super) fn check(envelope: &Envelope, findings: &mut Findings) {
    let mut files = BTreeSet::new();
    for file in &envelope.references {
        if !files.insert(file.id.as_str()) {
            findings.error(
                "OVF-FILE-ID",
                at(file.line),
                format_args!("file id {} is used twice", quote(&file.id)),
            );
        }
        if let Err(refused) = safe_href(&file.href) {
            findings.warning("OVF-HREF", at(file.line), refused);
        }
        if let Some(other) = file
            .compression
            .as_deref()
            .filter(|kind| !matches!(*kind, "gzip" | "identity" | ""))
        {
            findings.warning(
                "OVF-COMPRESSION",
                at(file.line),
                format_args!("compression {} is not known", quote(other)),
            );
        }
    }
    let mut disks = BTreeSet::new();
    for disk in &envelope.disks {
        if !disks.insert(disk.disk_id.as_str()) {
            findings.error(
                "OVF-DISK-ID",
                at(disk.line),
                format_args!("disk id {} is used twice", quote(&disk.disk_id)),
            );
        }
        if let Some(id) = disk.file_ref.as_deref().filter(|id| !files.contains(id)) {
            findings.error(
                "OVF-DISK-FILE",
                at(disk.line),
                format_args!("fileRef {} names no File of References", quote(id)),
            );
        }
    }
    for disk in &envelope.disks {
        if let Some(id) = disk.parent_ref.as_deref().filter(|id| !disks.contains(id)) {
            findings.error(
                "OVF-DISK-PARENT",
                at(disk.line),
                format_args!("parentRef {} names no Disk", quote(id)),
            );
        }
    }
    let networks: BTreeSet<&str> = envelope
        .networks
        .iter()
        .map(|network| network.name.as_str())
        .collect();
    if envelope.systems.is_empty() {
        findings.error("OVF-NO-SYSTEM", at(0), "the envelope has no VirtualSystem");
    }
    for system in &envelope.systems {
        check_system(
            system,
            &Names {
                files: &files,
                disks: &disks,
                networks: &networks,
            },
            findings,
        );
    }
}

struct Names<'a> {
    files: &'a BTreeSet<&'a str>,
    disks: &'a BTreeSet<&'a str>,
    networks: &'a BTreeSet<&'a str>,
}

fn check_system(system: &VirtualSystem, names: &Names<'_>, findings: &mut Findings) {
    if system.hardware.is_empty() {
        findings.error(
            "OVF-NO-HARDWARE",
            at(system.line),
            "the virtual system has no VirtualHardwareSection",
        );
    }
    if system.hardware.len() > 1 {
        let count = system.hardware.len();
        findings.note(
            "OVF-HARDWARE-ALTERNATIVES",
            at(system.line),
            format_args!("{count} hardware sections are alternatives"),
        );
    }
    for hardware in &system.hardware {
        // Items for one configuration or bound repeat an InstanceID on purpose.
        let plain = || {
            hardware
                .items
                .iter()
                .filter(|item| item.configuration.is_none() && item.bound.is_none())
        };
        let all: BTreeSet<&str> = hardware
            .items
            .iter()
            .map(|item| item.instance_id.as_str())
            .collect();
        let mut ids = BTreeSet::new();
        let mut places: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for item in plain() {
            if !item.instance_id.is_empty() && !ids.insert(item.instance_id.as_str()) {
                let id = quote(&item.instance_id);
                findings.error(
                    "OVF-INSTANCE-ID-TWICE",
                    at(item.line),
                    format_args!("InstanceID {id} is used twice"),
                );
            }
            if let Some(parent) = item
                .parent
                .as_deref()
                .filter(|parent| !parent.is_empty() && !all.contains(parent))
            {
                findings.error(
                    "OVF-PARENT",
                    at(item.line),
                    format_args!("Parent {} is no item's InstanceID", quote(parent)),
                );
            }
            if let (Some(parent), Some(address)) = (&item.parent, &item.address_on_parent)
                && let Some(other) = places.insert((parent, address), item.line)
            {
                let (parent, address) = (quote(parent), quote(address));
                findings.warning(
                    "OVF-ADDRESS-TWICE",
                    at(item.line),
                    format_args!(
                        "AddressOnParent {address} under Parent {parent} is taken by line {other}"
                    ),
                );
            }
            check_item(item, names, findings);
        }
    }
}

fn check_item(item: &Item, names: &Names<'_>, findings: &mut Findings) {
    match item.backing() {
        Some(HostResource::Disk(id)) if !names.disks.contains(id) => {
            findings.error(
                "OVF-HOST-RESOURCE",
                at(item.line),
                format_args!(
                    "HostResource names disk {}, which is not declared",
                    quote(id)
                ),
            );
        }
        Some(HostResource::File(id)) if !names.files.contains(id) => {
            findings.error(
                "OVF-HOST-RESOURCE",
                at(item.line),
                format_args!(
                    "HostResource names file {}, which is not declared",
                    quote(id)
                ),
            );
        }
        _ => {}
    }
    if item.resource_type == resource::ETHERNET {
        for name in item
            .connection
            .iter()
            .filter(|name| !names.networks.contains(name.as_str()))
        {
            findings.warning(
                "OVF-CONNECTION",
                at(item.line),
                format_args!("Connection {} names no Network", quote(name)),
            );
        }
    }
    if item.resource_type == resource::MEMORY && item.virtual_quantity.is_some() {
        match item.memory_bytes() {
            Ok(amount) => {
                if let Some(assumed) = amount.assumed {
                    findings.note("OVF-UNIT", at(item.line), assumed);
                }
            }
            Err(wrong) => findings.error("OVF-UNIT", at(0), wrong),
        }
    }
}
