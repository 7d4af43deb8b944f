//! What is changed inside a Windows guest: the driver of virtio's disk in the registry, the others for the first boot.

use crate::ToolError;
use crate::boot_drivers::{BootDriver, SCSI_CLASS, start_at_boot};
use crate::converted::Edits;
use crate::v2v::virtio_win::virtio_win;
use drylab_catalog::Witness;
use drylab_catalog::device::device;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, WindowsSystem};
use drylab_guest::os::windows_nt61::critical_ids;

/// Services that fail on another processor maker's virtual machine.
const PROCESSOR_SERVICES: [&str; 2] = ["Processor", "Intelppm"];

/// virtio's disk driver; its ids are the two most exact ones.
fn viostor() -> BootDriver {
    let ids = device("virtio-blk").map(critical_ids).unwrap_or_default();
    BootDriver {
        service: "viostor",
        file: "viostor.sys",
        group: "SCSI miniport",
        tag: Some(33),
        bus_type: None,
        class: SCSI_CLASS,
        ids: ids.into_iter().take(2).collect(),
    }
}

/// Makes the guest ready for virtio.
pub(crate) fn convert(
    guest: &Guest,
    system: &WindowsSystem,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    let bits = if guest.os.arch.value == "x86_64" {
        "amd64"
    } else {
        "i386"
    };
    let origin = format!("virtio-win for {bits}");
    start_at_boot(system, &[viostor()], &origin, None, editor, edits)?;
    upload(&origin, editor, edits)?;
    processor_services(system, editor, edits)?;
    device_path(editor, edits)
}

/// Copies the folder of drivers.
fn upload(origin: &str, editor: &mut Editor, edits: &mut Edits) -> Result<(), ToolError> {
    for package in virtio_win() {
        for (file, bytes) in package.files(origin) {
            let applied = editor.write(&format!("{FOLDER}/{file}"), bytes)?;
            edits.made(&applied, &format!("{file} uploaded"), &[]);
        }
    }
    Ok(())
}

/// Where the drivers are put, as a path and as the registry names it.
const FOLDER: &str = "/Windows/Drivers/VirtIO";
const IN_REGISTRY: &str = ";%SystemRoot%\\Drivers\\VirtIO";

/// Appends the folder to those that plug and play searches, unless it is there; a value that is missing stays missing.
fn device_path(editor: &mut Editor, edits: &mut Edits) -> Result<(), ToolError> {
    let (key, name) = ("Microsoft\\Windows\\CurrentVersion", "DevicePath");
    let mut appended = None;
    let applied = editor.registry("SOFTWARE", |hive| {
        let found = match hive.key(key)? {
            Some(found) => found.value(name)?,
            None => None,
        };
        let known = found.and_then(|value| Some((value.kind(), value.as_string()?)));
        if let Some((kind, before)) = known.filter(|(_, text)| !text.contains(IN_REGISTRY)) {
            hive.set_string(key, name, kind, &format!("{before}{IN_REGISTRY}"))?;
            appended = Some(before);
        }
        Ok(())
    })?;
    let Some(before) = appended else {
        return Ok(());
    };
    edits.made(&applied, "DevicePath names the uploaded drivers", &[]);
    let place = format!("SOFTWARE\\{key}, value {name}");
    edits.made_at(Witness::key(place, format!("was {before}")), &["DQ521"]);
    Ok(())
}

fn processor_services(
    system: &WindowsSystem,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    let set = system.control_set.value.as_str();
    let mut deleted = Vec::new();
    let applied = editor.registry("SYSTEM", |hive| {
        for name in PROCESSOR_SERVICES {
            if hive.delete_key(&format!("{set}\\Services\\{name}"))? {
                deleted.push(name);
            }
        }
        Ok(())
    })?;
    if !deleted.is_empty() {
        edits.made(&applied, "services of the old processor deleted", &[]);
    }
    for name in deleted {
        edits.made_at(
            Witness::key(format!("SYSTEM\\{set}\\Services\\{name}"), "deleted"),
            &["GQ56"],
        );
    }
    Ok(())
}
