//! What the tool writes: virt-image XML, or VMX.

use super::machine::{Bus, Disk, Kind, Vm};
use super::{Options, Output};
use crate::ToolError;
use drylab_appliance::virt_image::{self, VirtImage};
use drylab_appliance::vmx::Vmx;
use std::collections::{BTreeMap, BTreeSet};

/// Name of the descriptor: blanks become hyphens.
pub(crate) fn file_name(vm: &Vm, output: Output) -> String {
    let suffix = match output {
        Output::VirtImage => ".virt-image.xml",
        Output::Vmx => ".vmx",
    };
    format!(
        "{}{suffix}",
        vm.name.as_deref().unwrap_or_default().replace(' ', "-")
    )
}

/// The name as the XML has it: runs of what is not plain become one underscore.
fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || "_.:/+-".contains(c) {
            plain.push(c);
        } else if !plain.ends_with('\u{0}') {
            plain.push('\u{0}');
        }
    }
    plain.replace('\u{0}', "_")
}

/// Memory in MiB, or why the tool stops.
pub(crate) fn memory(vm: &Vm) -> Result<i64, String> {
    let mib = vm.memory_mib()?;
    if vm.memory.is_none()
        || (mib == 0 && matches!(vm.memory, Some(super::machine::Memory::Mib(_))))
    {
        return Err("VM must have a memory setting".to_owned());
    }
    Ok(mib)
}

/// All disks as IDE disks: SCSI ones take the first free number, and a path counts once.
fn on_ide(vm: &Vm) -> BTreeMap<i64, &Disk> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut numbered: BTreeMap<i64, &Disk> = BTreeMap::new();
    for ((bus, number), disk) in &vm.disks {
        let path = disk.path.as_deref();
        if path.is_some_and(|path| seen.contains(path)) {
            continue;
        }
        let number = match bus {
            Bus::Ide => *number,
            Bus::Scsi => (0i64..)
                .find(|free| !numbered.contains_key(free))
                .unwrap_or(0),
        };
        numbered.insert(number, disk);
        seen.extend(path);
    }
    numbered
}

fn letter(number: i64) -> char {
    let letters = ('a'..='z').nth(usize::try_from(number.rem_euclid(26)).unwrap_or(0));
    letters.unwrap_or('a')
}

/// virt-image XML.
pub(crate) fn virt_image(vm: &mut Vm, options: &Options, mib: i64) -> Result<Vec<u8>, ToolError> {
    let prefix = if options.paravirt { "xvd" } else { "hd" };
    let numbered = on_ide(vm);
    if numbered.len() > 4 || numbered.len() < vm.disks.len() {
        vm.quirks.push("GQ98");
    }
    let kib = mib.saturating_mul(1024);
    let mut image = VirtImage {
        name: plain_name(vm.name.as_deref().unwrap_or_default()),
        boot: if options.paravirt { "xen" } else { "hvm" }.to_owned(),
        arch: options.arch.clone().unwrap_or_else(|| "x86_64".to_owned()),
        vcpus: u32::try_from(vm.vcpus).unwrap_or(0),
        memory_kib: kib.unsigned_abs(),
        interfaces: u32::from(!vm.nics.is_empty()),
        ..VirtImage::default()
    };
    for (number, disk) in on_ide(vm) {
        let Some(path) = &disk.path else { continue };
        let target = format!("{prefix}{}", letter(number));
        let format = if disk.kind == Kind::Disk {
            disk.format.name()
        } else {
            "raw"
        };
        image.drives.push((path.clone(), target));
        image.disks.push((path.clone(), format.to_owned()));
    }
    if Some(&image.name) != vm.name.as_ref() {
        vm.cite("GQ106");
    }
    vm.cite("GQ97");
    if options.arch.is_none() {
        vm.cite("GQ99");
    }
    let bytes = virt_image::print(&image)?;
    if kib >= 0 {
        return Ok(bytes);
    }
    // The descriptor's model has no negative sizes; this tool writes them.
    let text = String::from_utf8_lossy(&bytes).replacen("<memory>", "<memory>-", 1);
    Ok(text.into_bytes())
}

/// VMX of hardware version 4: one NAT adapter for each, and only the IDE disks.
pub(crate) fn vmx(vm: &mut Vm, mib: i64) -> Result<Vec<u8>, ToolError> {
    let mut vmx = Vmx::default();
    for (key, value) in [
        ("config.version", "8"),
        ("virtualHW.version", "4"),
        ("guestOS", "other"),
    ] {
        vmx.set(key, value);
    }
    vmx.set("displayName", vm.name.as_deref().unwrap_or_default());
    if !vm.description.is_empty() {
        vmx.set("annotation", &vm.description);
    }
    vmx.set("memsize", mib);
    vmx.set("numvcpus", vm.vcpus);
    for (number, _) in (0u32..).zip(&vm.nics) {
        for (key, value) in [
            ("present", "TRUE"),
            ("connectionType", "nat"),
            ("addressType", "generated"),
        ] {
            vmx.set(&format!("ethernet{number}.{key}"), value);
        }
    }
    for ((bus, number), disk) in &vm.disks {
        let (Bus::Ide, Some(path)) = (bus, &disk.path) else {
            continue;
        };
        let place = format!("ide{}:{}", number.div_euclid(2), number.rem_euclid(2));
        let kind = if disk.kind == Kind::Disk {
            "ata-hardDisk"
        } else {
            "cdrom-image"
        };
        vmx.set(&format!("{place}.present"), "TRUE");
        vmx.set(&format!("{place}.fileName"), path);
        vmx.set(&format!("{place}.deviceType"), kind);
    }
    vm.cite("GQ104");
    vm.cite("HQ58");
    Ok(vmx.print()?.into_bytes())
}
