//! Which importer an import hop is.

use crate::route::Hop;
use drylab_appliance::Package;
use drylab_catalog::Witness;
use drylab_hypervisor::importer::{self, Operator, OvfOptions, ReadError, Reading, XvaOptions};
use drylab_hypervisor::{Facts, Host};
use drylab_scenario::{Import, Scenario};

/// Makes the disks inside an archive, or on a chain of VHDs, files of the package, where the import is of one.
pub(super) fn opened(import: Hop, package: &mut Package) -> Result<(), ReadError> {
    let opened = match import {
        Hop::XencenterImportXva => importer::xva_opened(package),
        Hop::HypervImport | Hop::HypervNewMachine => importer::hyperv_opened(package),
        _ => return Ok(()),
    };
    *package = opened.map_err(|error| {
        let place = Witness::descriptor(package.descriptor.clone(), error.to_string());
        ReadError::Refused(vec![place])
    })?;
    Ok(())
}

/// Lets an importer read a package.
pub(super) fn read(
    import: Hop,
    facts: &Facts<'_>,
    host: &Host,
    package: &Package,
    operator: &Operator,
    choices: Import,
) -> Result<Reading, ReadError> {
    match import {
        Hop::VsphereDeployOvf => importer::vsphere_deploy_ovf(facts, package, operator),
        Hop::VsphereRegisterVmx => importer::vsphere_register_vmx(facts, package, operator),
        Hop::VsphereExistingDisk => importer::vsphere_existing_disk(facts, package, operator),
        Hop::VirshDefine => importer::virsh_define(facts, package, operator),
        Hop::VirtManagerImport => importer::virt_manager_import(facts, package, operator),
        Hop::VirtImage => importer::virt_image(facts, package, operator),
        Hop::XencenterImportOvf => {
            let options = OvfOptions {
                fixup: choices.fixup,
                ..OvfOptions::default()
            };
            importer::xencenter_import_ovf(facts, package, operator, options)
        }
        Hop::XencenterImportDisk => importer::xencenter_import_disk(facts, package, operator),
        Hop::XencenterImportXva => {
            let options = XvaOptions {
                preserve: choices.preserve,
                ..XvaOptions::default()
            };
            importer::xencenter_import_xva(facts, package, operator, &options)
        }
        Hop::HypervImport => importer::hyperv_import(facts, host, package, operator),
        Hop::HypervNewMachine => importer::hyperv_new_machine(facts, package, operator),
        other => Err(ReadError::Refused(vec![Witness::lab(
            "route table",
            format!("{other:?} imports nothing"),
        )])),
    }
}

/// Why a route's import does not offer what the scenario chooses in it; `None` when it does.
pub(super) fn not_offered(import: Hop, scenario: &Scenario) -> Option<String> {
    let choices = [
        (
            "import.fixup",
            scenario.import.fixup,
            fixes_up(import),
            "XenCenter's import of OVF packages and disk images",
        ),
        (
            "import.preserve",
            scenario.import.preserve,
            import == Hop::XencenterImportXva,
            "XenServer's import of XVA files",
        ),
    ];
    let wrong = choices
        .into_iter()
        .find(|(_, chosen, offered, _)| *chosen && !offered);
    wrong.map(|(key, _, _, by)| format!("{key} is a choice of {by}, and the route ends otherwise"))
}

/// Whether Operating System Fixup can be chosen.
pub(super) fn fixes_up(import: Hop) -> bool {
    matches!(import, Hop::XencenterImportOvf | Hop::XencenterImportDisk)
}
