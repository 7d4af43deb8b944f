//! What is changed inside a Windows guest: the driver of virtio's disk in the registry, the others for the first boot.

use crate::ToolError;
use crate::boot_drivers::{BootDriver, SCSI_CLASS, start_at_boot};
use crate::converted::Edits;
use drylab_catalog::Witness;
use drylab_catalog::device::device;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, WindowsSystem};
use drylab_guest::os::windows_nt61::critical_ids;
use drylab_hive::RegType;

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
    // Only that the file is there matters; the package itself is not ours to carry.
    let netkvm = format!("MZ netkvm.sys of {origin}").into_bytes();
    let applied = editor.write("/Windows/Drivers/VirtIO/netkvm.sys", netkvm)?;
    edits.made(&applied, "netkvm.sys uploaded", &[]);
    start_at_boot(system, &[viostor()], &origin, None, editor, edits)?;
    processor_services(system, editor, edits)?;
    let applied = editor.registry("SOFTWARE", |hive| {
        let key = "Microsoft\\Windows\\CurrentVersion";
        hive.set_string(
            key,
            "DevicePath",
            RegType::EXPAND_SZ,
            "%SystemRoot%\\inf;%SystemRoot%\\Drivers\\VirtIO",
        )
    })?;
    edits.made(&applied, "DevicePath names the uploaded drivers", &[]);
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
