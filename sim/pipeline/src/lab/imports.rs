//! Which importer an import hop is.

use crate::route::Hop;
use drylab_appliance::Package;
use drylab_catalog::Witness;
use drylab_hypervisor::importer::{self, Operator, OvfOptions, ReadError, Reading, XvaOptions};
use drylab_hypervisor::{Facts, Host};

/// Makes the disks inside an archive files of the package, where the import is of one.
pub(super) fn opened(import: Hop, package: &mut Package) -> Result<(), ReadError> {
    if import != Hop::XencenterImportXva {
        return Ok(());
    }
    *package = importer::xva_opened(package).map_err(|error| {
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
) -> Result<Reading, ReadError> {
    match import {
        Hop::VsphereDeployOvf => importer::vsphere_deploy_ovf(facts, package, operator),
        Hop::VsphereRegisterVmx => importer::vsphere_register_vmx(facts, package, operator),
        Hop::VsphereExistingDisk => importer::vsphere_existing_disk(facts, package, operator),
        Hop::VirshDefine => importer::virsh_define(facts, package, operator),
        Hop::VirtManagerImport => importer::virt_manager_import(facts, package, operator),
        Hop::VirtImage => importer::virt_image(facts, package, operator),
        Hop::XencenterImportOvf => {
            importer::xencenter_import_ovf(facts, package, operator, OvfOptions::default())
        }
        Hop::XencenterImportDisk => importer::xencenter_import_disk(facts, package, operator),
        Hop::XencenterImportXva => {
            let options = XvaOptions::default();
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
