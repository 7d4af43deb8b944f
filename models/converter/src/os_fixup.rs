//! Operating System Fixup of XenServer 6.0: the imported machine boots once from an ISO of Citrix', which repairs Windows
//! on the disk.
//!
//! Source: Citrix' guide to virtual machines of 6.0 to 6.2, 11.2: it repairs the boot device of Windows when that changed
//! between SCSI and IDE, disables virtualization tools that it finds, and converts nothing; xenadmin's import (quirk
//! DQ427). What the ISO writes is not public: that it writes what makes any Windows of that age boot from PIIX IDE, as
//! XenConvert of the same maker does, and that `Start` = 4 is how tools are disabled, is our reading (quirk DQ444).
//!
//! | on the disk | |
//! |---|---|
//! | Windows | drivers of PIIX IDE, where their files are there, start at boot with their devices; VMware Tools do not start |
//! | Linux, and what is not known | left as it is |

use crate::ToolError;
use crate::boot_drivers::{piix_ide, start_at_boot};
use crate::converted::Edits;
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{GuestDisk, System, WindowsSystem, inspect};

/// Services of other products' tools, by their keys.
const TOOLS: [&str; 2] = ["VMTools", "VMUpgradeHelper"];
/// A service that does not start.
const DISABLED: u32 = 4;

/// A disk after its fixup.
#[derive(Clone)]
pub struct Fixed {
    /// The disk.
    pub disk: GuestDisk,
    /// What was written.
    pub edits: Vec<Witness>,
    /// What was found.
    pub notes: Vec<Witness>,
}

/// Repairs an imported boot disk.
///
/// # Errors
/// [`ToolError`] when no system is found on the disk, or its registry cannot be written.
pub fn fix_up(disk: &GuestDisk) -> Result<Fixed, ToolError> {
    let guest = inspect(std::slice::from_ref(disk), &Limits::DEFAULT).map_err(|error| {
        ToolError::new("Operating System Fixup finds no system")
            .because(Witness::disk("inspection", error.to_string()))
    })?;
    let mut edits = Edits::default();
    edits.notes.push(Witness::quirk("DQ427"));
    let System::Windows(system) = &guest.system else {
        edits.notes.push(guest.os.pretty.witness.clone());
        return Ok(Fixed {
            disk: disk.clone(),
            edits: edits.edits,
            notes: edits.notes,
        });
    };
    let mut editor = Editor::open(disk, &Limits::DEFAULT)?;
    let mut drivers = Vec::new();
    // It installs none: what has no file cannot start.
    for driver in piix_ide() {
        let path = format!("/Windows/System32/drivers/{}", driver.file);
        if editor.read(&path)?.is_some() {
            drivers.push(driver);
        }
    }
    start_at_boot(
        system,
        &drivers,
        "Operating System Fixup",
        Some("DQ444"),
        &mut editor,
        &mut edits,
    )?;
    disable_tools(system, &mut editor, &mut edits)?;
    Ok(Fixed {
        disk: editor.finish(),
        edits: edits.edits,
        notes: edits.notes,
    })
}

fn disable_tools(
    system: &WindowsSystem,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    let set = system.control_set.value.as_str();
    let there = |name: &&&str| system.services.contains_key(&name.to_lowercase());
    for name in TOOLS.iter().filter(there) {
        let key = format!("{set}\\Services\\{name}");
        let applied = editor.registry("SYSTEM", |hive| hive.set_u32(&key, "Start", DISABLED))?;
        edits.made(&applied, &format!("{name} disabled"), &["DQ444"]);
    }
    Ok(())
}
