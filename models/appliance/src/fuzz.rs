//! Entry points for fuzzers: each reads the bytes, walks what it got, and asserts the laws that are cheap to check.
//!
//! A panic in one of them is a bug of this crate, whatever the bytes.

use crate::manifest::{Algorithm, Manifest};
use crate::ova::Ova;
use crate::units::{self, Absent};
use crate::xva::{self, Xva};
use crate::{Limits, hyperv, libvirt, ovf, virt_image, vmx};
use drylab_block::{Extents, ReadAt, SparseBytes};
use std::sync::Arc;

/// Texts and archives of at most 1 MiB: what a fuzzer reaches.
fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.text_bytes_max = 1 << 20;
    limits.entries_max = 1 << 14;
    limits
}

/// OVF: what is read can be printed and read again to the same content, and every href is judged.
pub fn ovf(data: &[u8]) {
    let Ok(envelope) = ovf::parse(data, &limits()) else {
        return;
    };
    for file in &envelope.references {
        if let Ok(name) = crate::safe_href(&file.href) {
            assert!(
                !name.starts_with('/') && name.split('/').all(|part| part != ".."),
                "{name} leaves the folder"
            );
        }
    }
    for system in &envelope.systems {
        for item in system.items() {
            let _ = (item.memory_bytes(), item.sub_types(), item.backing());
        }
    }
    // Comments with two hyphens in a row are refused by the reader already, so everything read can be printed.
    if let Ok(printed) = ovf::print(&envelope) {
        let again = ovf::parse(&printed, &Limits::DEFAULT);
        let again = again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
        assert_eq!(
            again.bare(),
            envelope.bare(),
            "printing and reading keeps the content"
        );
    }
}

/// OVA: every member lies in the archive or is called truncated; descriptor and manifest inside are read too.
pub fn ova(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let length = source.len();
    let limits = limits();
    let Ok(archive) = Ova::open(source, &limits) else {
        return;
    };
    for member in &archive.members {
        let inside = member
            .offset
            .checked_add(member.size)
            .is_some_and(|end| end <= length);
        assert_eq!(inside, !member.truncated, "{member:?} in {length} bytes");
        let _ = archive.member(&member.name);
    }
    let descriptor = archive
        .descriptor()
        .ok()
        .and_then(|member| archive.text(&member.name, &limits).ok());
    if let Some(Ok(envelope)) = descriptor.map(|text| ovf::parse(&text, &limits)) {
        let _ = archive.check_references(&envelope);
    }
    if let Some(text) = archive
        .manifest()
        .and_then(|member| archive.text(&member.name, &limits).ok())
    {
        manifest(&text);
    }
}

/// Largest disk that a target reads and writes again.
const DISK_MAX: u64 = 4 << 20;

/// XVA: extents cover the disks, what is read is written and read again to the same records and bytes; `ova.xml` alone too.
pub fn xva(data: &[u8]) {
    if let Ok(appliance) = xva::Appliance::parse(data, &limits()) {
        records(&appliance);
    }
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let Ok(archive) = Xva::open(source, &limits()) else {
        return;
    };
    records(&archive.appliance);
    let _ = archive.verify();
    let mut whole = true;
    for disk in &archive.disks {
        let covered: u64 = Extents::new(disk).map(|extent| extent.length).sum();
        assert_eq!(covered, disk.len(), "extents cover {disk:?}");
        let mut sample = vec![0; usize::try_from(disk.len().min(4096)).unwrap_or(0)];
        let end = disk.len().saturating_sub(4096);
        whole &= disk.read_at(0, &mut sample).is_ok() && disk.read_at(end, &mut sample).is_ok();
    }
    let bytes = archive
        .disks
        .iter()
        .fold(0u64, |sum, disk| sum.saturating_add(disk.len()));
    if whole && bytes <= DISK_MAX {
        again(&archive);
    }
}

/// Writes what was read, twice.
fn again(archive: &Xva) {
    let mut disks: Vec<(&str, &dyn ReadAt)> = Vec::new();
    for disk in &archive.disks {
        disks.push((disk.id(), disk));
    }
    let sink = SparseBytes::new(0);
    if xva::write(&archive.appliance, &disks, &sink).is_err() {
        return;
    }
    let read = Xva::open(Arc::new(sink), &Limits::DEFAULT);
    let read = read.unwrap_or_else(|wrong| unreachable!("what was written is read: {wrong}"));
    assert_eq!(
        read.verify().map(|findings| findings.len()),
        Ok(0),
        "checksums hold"
    );
    // A disk of no bytes has no blocks to be written.
    let kept = archive.disks.iter().filter(|disk| disk.len() > 0);
    for (old, new) in kept.zip(&read.disks) {
        let mut bytes = [old, new].map(|disk| vec![0; usize::try_from(disk.len()).unwrap_or(0)]);
        let [one, two] = &mut bytes;
        if old.read_at(0, one).is_ok() {
            assert!(
                new.read_at(0, two).is_ok() && one == two,
                "bytes of {old:?} are kept"
            );
        }
    }
}

/// The laws of `ova.xml`.
fn records(appliance: &xva::Appliance) {
    if let Ok(printed) = appliance.print() {
        let again = xva::Appliance::parse(&printed, &Limits::DEFAULT);
        let again = again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
        assert_eq!(
            again.objects, appliance.objects,
            "printing and reading keeps the records"
        );
    }
    if let Ok(machine) = appliance.machine()
        && let Ok(printed) = machine.appliance().print()
    {
        let again =
            xva::Appliance::parse(&printed, &Limits::DEFAULT).and_then(|again| again.machine());
        let again =
            again.unwrap_or_else(|wrong| unreachable!("a machine's records are read: {wrong}"));
        assert_eq!(again.nics, machine.nics, "records keep the adapters");
        assert_eq!(
            again.drives.len(),
            machine.drives.len(),
            "records keep the drives"
        );
    }
}

/// Hyper-V: a configuration or an export that is read can be printed as either and read again to the same machine.
pub fn hyperv_xml(data: &[u8]) {
    let limits = limits();
    let read = [
        hyperv::settings::parse(data, &limits),
        hyperv::exp::parse(data, &limits),
    ];
    for (machine, _) in read.into_iter().flatten() {
        let print = [
            hyperv::settings::print(&machine),
            hyperv::exp::print(&machine),
        ];
        let [Ok(settings), Ok(exp)] = print else {
            continue;
        };
        let again = [
            hyperv::settings::parse(&settings, &Limits::DEFAULT),
            hyperv::exp::parse(&exp, &Limits::DEFAULT),
        ];
        for again in again {
            let (again, _) =
                again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
            assert_eq!(again, machine, "printing and reading keeps the machine");
        }
    }
}

/// Manifest: what is read can be printed and read again to the same entries.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data, &limits()) else {
        return;
    };
    let again = Manifest::parse(manifest.print().as_bytes(), &Limits::DEFAULT);
    let again = again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
    let strip = |manifest: &Manifest| -> Vec<(Algorithm, String, String)> {
        manifest
            .entries
            .iter()
            .map(|entry| (entry.algorithm, entry.name.clone(), entry.digest.clone()))
            .collect()
    };
    assert_eq!(
        strip(&again),
        strip(&manifest),
        "printing and reading keeps the entries"
    );
    let _ = manifest.verify(&["a"], |_| Ok(Some(Vec::new())));
}

/// libvirt: what is read can be printed and read again to the same content.
pub fn libvirt(data: &[u8]) {
    let Ok(domain) = libvirt::parse(data, &limits()) else {
        return;
    };
    if let Ok(printed) = libvirt::print(&domain) {
        let again = libvirt::parse(&printed, &Limits::DEFAULT);
        let again = again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
        assert_eq!(
            again.bare(),
            domain.bare(),
            "printing and reading keeps the content"
        );
    }
}

/// virt-image: what is read can be printed and read again to the same descriptor.
pub fn virt_image(data: &[u8]) {
    let Ok(image) = virt_image::parse(data, &limits()) else {
        return;
    };
    if let Ok(printed) = virt_image::print(&image) {
        let again = virt_image::parse(&printed, &Limits::DEFAULT);
        let again = again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
        assert_eq!(again, image, "printing and reading keeps the descriptor");
    }
}

/// VMX: what is read can be printed and read again to the same keys and values.
pub fn vmx(data: &[u8]) {
    let Ok(read) = vmx::Vmx::parse(data, &limits()) else {
        return;
    };
    let Ok(printed) = read.print() else { return };
    let again = vmx::Vmx::parse(printed.as_bytes(), &Limits::DEFAULT);
    let again = again.unwrap_or_else(|wrong| unreachable!("what was printed is read: {wrong}"));
    for entry in &read.entries {
        assert_eq!(
            again.get(&entry.key),
            read.get(&entry.key),
            "printing and reading keeps {}",
            entry.key
        );
    }
}

/// Units: an answer for any text; twice the value is twice the bytes.
pub fn units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let one = units::to_bytes(1, Some(text), Absent::Byte);
    let two = units::to_bytes(2, Some(text), Absent::Byte);
    if let (Ok(one), Ok(two)) = (one, two) {
        assert_eq!(one.bytes.checked_mul(2), Some(two.bytes), "{text:?}");
    }
}
