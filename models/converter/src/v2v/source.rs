//! A machine of VMware, from its configuration and the disks beside it.

use crate::ToolError;
use drylab_appliance::{Package, vmx::Vmx};
use drylab_block::{Limits, ReadAt, read_vec};
use drylab_catalog::{Mac, Witness};
use std::sync::Arc;

/// Key of a place in the configuration, and the bytes of the disk there.
pub(crate) type Found = (String, Arc<dyn ReadAt>);

/// A machine to convert.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) memory_kib: u64,
    pub(crate) vcpus: u32,
    pub(crate) uuid: Option<String>,
    /// Key of the place and bytes, boot disk first.
    pub(crate) disks: Vec<Found>,
    /// Address of each adapter; none where the source has no word of it.
    pub(crate) macs: Vec<Option<Mac>>,
    pub(crate) has_scsi: bool,
}

/// The tool ends.
pub(crate) fn refuse(says: impl Into<String>) -> ToolError {
    ToolError::new(format!("virt-v2v: {}", says.into()))
}

/// The configuration of a machine.
pub(crate) fn configuration(input: &Package) -> Result<Vmx, ToolError> {
    let text = input.text(&input.descriptor, &Limits::DEFAULT)?;
    Ok(Vmx::parse(&text, &Limits::DEFAULT)?)
}

/// A number of a configuration.
pub(crate) fn number(vmx: &Vmx, key: &str) -> Option<u64> {
    vmx.get(key)
        .and_then(|text| text.trim().parse::<u64>().ok())
}

/// The machine a configuration tells of; `snapshot` are the rows of a disk that stands on a snapshot.
pub(crate) fn of_vmx(input: &Package, vmx: &Vmx, snapshot: &[&str]) -> Result<Source, ToolError> {
    let memory = number(vmx, "memsize").unwrap_or(32);
    let vcpus = number(vmx, "numvcpus").unwrap_or(1);
    Ok(Source {
        name: vmx.get("displayName").unwrap_or_default().to_owned(),
        memory_kib: memory.saturating_mul(1024),
        vcpus: u32::try_from(vcpus).unwrap_or(1),
        uuid: vmx.get("uuid.bios").and_then(uuid),
        disks: disks(input, vmx, snapshot)?,
        macs: macs(vmx),
        has_scsi: (0..4).any(|bus| vmx.is_true(&format!("scsi{bus}.present"))),
    })
}

/// What a key of the configuration says.
pub(crate) fn place(input: &Package, vmx: &Vmx, key: &str) -> Witness {
    let value = vmx.get(key).unwrap_or("nothing");
    Witness::descriptor(input.descriptor.clone(), format!("{key} = {value:?}"))
}

/// `56 4d … -4b …` as libvirt writes it.
fn uuid(text: &str) -> Option<String> {
    let digits: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect::<String>()
        .to_lowercase();
    let part = |from: usize, to: usize| digits.get(from..to);
    (digits.len() == 32).then_some(())?;
    Some(format!(
        "{}-{}-{}-{}-{}",
        part(0, 8)?,
        part(8, 12)?,
        part(12, 16)?,
        part(16, 20)?,
        part(20, 32)?
    ))
}

fn disks(input: &Package, vmx: &Vmx, snapshot: &[&str]) -> Result<Vec<Found>, ToolError> {
    let scsi = (0..4).flat_map(|bus| (0..16).map(move |unit| format!("scsi{bus}:{unit}")));
    let ide = (0..2).flat_map(|bus| (0..2).map(move |unit| format!("ide{bus}:{unit}")));
    let mut found = Vec::new();
    for key in scsi
        .chain(ide)
        .filter(|key| vmx.is_true(&format!("{key}.present")))
    {
        let kind = vmx
            .get(&format!("{key}.deviceType"))
            .unwrap_or_default()
            .to_lowercase();
        let Some(file) = vmx
            .get(&format!("{key}.fileName"))
            .filter(|_| !kind.contains("cdrom"))
        else {
            continue;
        };
        if file.to_lowercase().ends_with(".vmdk") {
            let bytes = flat(input, file, snapshot)
                .map_err(|error| error.because(place(input, vmx, &format!("{key}.fileName"))))?;
            found.push((key, bytes));
        }
    }
    if found.is_empty() {
        return Err(refuse("the guest has no disks"));
    }
    Ok(found)
}

/// The bytes of a disk: the tool asks for the name with `-flat` before the suffix.
fn flat(input: &Package, file: &str, snapshot: &[&str]) -> Result<Arc<dyn ReadAt>, ToolError> {
    let stem = file.get(..file.len().saturating_sub(5)).unwrap_or_default();
    let name = format!("{stem}-flat.vmdk");
    if let Some(bytes) = input.files.get(&name) {
        return Ok(bytes.clone());
    }
    let error = refuse(format!(
        "Storage volume {name} does not exist on the datastore"
    ));
    Err(if is_snapshot(input, file, stem) {
        snapshot
            .iter()
            .fold(error, |error, id| error.because(Witness::quirk(id)))
    } else {
        error
    })
}

/// `-000001.vmdk`, or a descriptor whose extents are deltas.
fn is_snapshot(input: &Package, file: &str, stem: &str) -> bool {
    let numbered = stem.rsplit_once('-').is_some_and(|(_, digits)| {
        digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let text = input.files.get(file).and_then(|bytes| {
        let most = bytes.len().min(10_240);
        read_vec(bytes, file, 0, most, &Limits::DEFAULT).ok()
    });
    numbered
        || text.is_some_and(|text| String::from_utf8_lossy(&text).contains("parentFileNameHint"))
}

fn macs(vmx: &Vmx) -> Vec<Option<Mac>> {
    let present = (0..10).filter(|number| vmx.is_true(&format!("ethernet{number}.present")));
    present
        .map(|number| {
            let get = |key: &str| vmx.get(&format!("ethernet{number}.{key}"));
            get("generatedAddress")
                .or_else(|| get("address"))?
                .parse()
                .ok()
        })
        .collect()
}
