//! What is changed inside a Windows guest: the driver of virtio's disk in the registry, the others for the first boot.

use super::Edits;
use crate::ToolError;
use drylab_catalog::Witness;
use drylab_catalog::device::device;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, WindowsSystem};
use drylab_guest::os::windows_nt61::critical_ids;
use drylab_hive::RegType;

/// Class of SCSI and RAID controllers.
const SCSI_CLASS: &str = "{4D36E97B-E325-11CE-BFC1-08002BE10318}";
/// Services that fail on another processor maker's virtual machine.
const PROCESSOR_SERVICES: [&str; 2] = ["Processor", "Intelppm"];
/// Files of the package, as they are put into the guest.
const UPLOADED: [(&str, &str); 2] = [
    ("viostor.sys", "/Windows/System32/drivers/viostor.sys"),
    ("netkvm.sys", "/Windows/Drivers/VirtIO/netkvm.sys"),
];

/// The error when the host has no drivers.
pub(crate) fn no_drivers(guest: &Guest) -> ToolError {
    let says = "virt-v2v: Installation failed because the following files referenced in the configuration file are required, \
                but missing: /usr/share/virtio-win/drivers";
    ToolError::new(says)
        .because(guest.os.pretty.witness.clone())
        .because(Witness::quirk("GQ70"))
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
    for (name, path) in UPLOADED {
        // Only that the file is there matters to what starts it; the package itself is not ours to carry.
        let applied = editor.write(
            path,
            format!("MZ {name} of virtio-win for {bits}").into_bytes(),
        )?;
        edits.made(&applied, &format!("{name} uploaded"), &[]);
    }
    let set = system.control_set.value.clone();
    let ids = device("virtio-blk").map(critical_ids).unwrap_or_default();
    let exact: Vec<String> = ids.into_iter().take(2).collect();
    let mut deleted = Vec::new();
    let applied = editor.registry("SYSTEM", |hive| {
        let service = format!("{set}\\Services\\viostor");
        hive.create_key(&service)?;
        for (name, number) in [("Type", 1), ("Start", 0), ("ErrorControl", 1), ("Tag", 33)] {
            hive.set_u32(&service, name, number)?;
        }
        hive.set_string(&service, "Group", RegType::SZ, "SCSI miniport")?;
        hive.set_string(
            &service,
            "ImagePath",
            RegType::EXPAND_SZ,
            "system32\\drivers\\viostor.sys",
        )?;
        for id in &exact {
            let key = format!("{set}\\Control\\CriticalDeviceDatabase\\{id}");
            hive.create_key(&key)?;
            hive.set_string(&key, "Service", RegType::SZ, "viostor")?;
            hive.set_string(&key, "ClassGUID", RegType::SZ, SCSI_CLASS)?;
        }
        for name in PROCESSOR_SERVICES {
            if hive.delete_key(&format!("{set}\\Services\\{name}"))? {
                deleted.push(name);
            }
        }
        Ok(())
    })?;
    edits.made(&applied, "viostor as boot driver, with its devices", &[]);
    edits.made_at(
        Witness::key(format!("SYSTEM\\{set}\\Services\\viostor"), "Start = 0"),
        &[],
    );
    for name in deleted {
        edits.made_at(
            Witness::key(format!("SYSTEM\\{set}\\Services\\{name}"), "deleted"),
            &["GQ56"],
        );
    }
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
