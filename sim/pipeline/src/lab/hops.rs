//! One hop each: exports of the source's console, and conversions.

use super::SimLab;
use super::crossing::Moving;
use crate::crossing::Stopped;
use crate::library::Library;
use crate::route::Hop;
use drylab_appliance::Package;
use drylab_block::ReadAt;
use drylab_catalog::Witness;
use drylab_converter::xenconvert_2_3::{self, Asked, Input, Output};
use drylab_converter::{
    Converted, Power, SourceMachine, ToolError, qemu_img_0_12, qemu_img_10, vcenter_converter_5_0,
    virt_convert_0_600, virt_v2v_0_8, virt_v2v_2,
};
use drylab_hypervisor::exporter::{self, ExportError, Exported};
use drylab_hypervisor::{Facts, Missing, datastore, transfer_vm};
use std::sync::Arc;

impl From<ToolError> for Stopped {
    fn from(error: ToolError) -> Self {
        Self::Failed(error.message, error.witness)
    }
}

impl SimLab<'_> {
    pub(super) fn do_hop(
        &self,
        hop: Hop,
        source: &Facts<'_>,
        target: &Facts<'_>,
        moving: &mut Moving,
    ) -> Result<(), Stopped> {
        match hop {
            Hop::VsphereExportOvf
            | Hop::DatastoreCopy
            | Hop::VirshDumpxmlCopy
            | Hop::XencenterExportOvf
            | Hop::XvaExport
            | Hop::HypervExport => self.export(hop, source, moving),
            Hop::VirtV2v => self.virt_v2v(target, moving),
            Hop::VirtV2v2 => self.virt_v2v_2(target, moving),
            Hop::VirtConvert => {
                let options = virt_convert_0_600::Options::default();
                let converted = virt_convert_0_600::convert(&moving.package, &options)?;
                moving.package = converted.package;
                moving.notes.extend(converted.notes);
                Ok(())
            }
            Hop::QemuImgRaw => qemu_img(QemuImg::Of2012(qemu_img_0_12::Format::Raw), moving),
            Hop::QemuImgVmdk => qemu_img(QemuImg::Of2012(qemu_img_0_12::Format::Vmdk), moving),
            Hop::QemuImgVpc => qemu_img(QemuImg::Of2012(qemu_img_0_12::Format::Vpc), moving),
            Hop::QemuImg10Raw => qemu_img(QemuImg::Today(qemu_img_10::Format::Raw), moving),
            Hop::QemuImg10Vmdk => qemu_img(QemuImg::Today(qemu_img_10::Format::Vmdk), moving),
            Hop::QemuImg10VmdkStream => {
                qemu_img(QemuImg::Today(qemu_img_10::Format::VmdkStream), moving)
            }
            Hop::QemuImg10Vpc => {
                let format = qemu_img_10::Format::Vpc {
                    fixed: false,
                    force_size: true,
                };
                qemu_img(QemuImg::Today(format), moving)
            }
            Hop::XenconvertP2v
            | Hop::XenconvertP2vVhd
            | Hop::XenconvertVmware
            | Hop::XenconvertVmwareOvf
            | Hop::XenconvertVhd => self.xenconvert(hop, target, moving),
            Hop::ConverterP2v | Hop::Converter51P2v => {
                self.vcenter_converter(hop, Power::Running, target, moving)
            }
            Hop::ConverterOff => self.vcenter_converter(hop, Power::Off, target, moving),
            Hop::VmkfstoolsClone => {
                moving.package = datastore::vmkfstools_clone(&moving.package).map_err(|error| {
                    Stopped::Failed(
                        "vmkfstools -i fails".to_owned(),
                        vec![Witness::disk("disk to clone", error.to_string())],
                    )
                })?;
                moving.notes.push(Witness::quirk("HQ31"));
                Ok(())
            }
            Hop::VsphereDeployOvf
            | Hop::VsphereRegisterVmx
            | Hop::VsphereExistingDisk
            | Hop::VirshDefine
            | Hop::VirtManagerImport
            | Hop::VirtImage
            | Hop::XencenterImportOvf
            | Hop::XencenterImportDisk
            | Hop::XencenterImportXva
            | Hop::HypervImport
            | Hop::HypervNewMachine => {
                let says = format!("{hop:?} stands before the end of {}", self.route.id);
                let why = vec![Witness::lab("route table", says)];
                Err(Stopped::Failed(
                    "an import is no conversion".to_owned(),
                    why,
                ))
            }
        }
    }

    fn export(&self, hop: Hop, facts: &Facts<'_>, moving: &mut Moving) -> Result<(), Stopped> {
        let made = self
            .source_vm
            .as_ref()
            .map_err(|fact| Stopped::Unknown(fact.clone()))?;
        let disks = [self.source_disk.disk.bytes.clone()];
        let taken = usize::try_from(self.scenario.source_vm.snapshots).unwrap_or(0);
        let snapshots = vec![self.source_disk.unedited.clone(); taken];
        let from = Exported {
            machine: &made.machine,
            guest: self.scenario.guest.as_str(),
            disks: &disks,
            mac_seed: made.mac_seed.as_deref(),
            snapshots: &snapshots,
        };
        self.snapshots(hop, facts, moving)?;
        let library: &Library = self.library;
        let convert =
            |disk: &Arc<dyn ReadAt>, target: &drylab_image::Target| library.convert(disk, target);
        let package = match hop {
            Hop::VsphereExportOvf => exporter::vsphere_export_ovf(facts, &from, &convert),
            Hop::DatastoreCopy => exporter::datastore_copy(facts, &from),
            Hop::XencenterExportOvf => {
                moving.needs = transfer_vm(facts).map_err(Stopped::Unknown)?;
                let notes = exporter::xencenter_export_notes(&made.machine);
                moving.notes.extend(notes);
                exporter::xencenter_export_ovf(&from, &convert)
            }
            Hop::XvaExport => exporter::xva_export(&from),
            Hop::HypervExport => exporter::hyperv_export(&from, &convert),
            _ => exporter::virsh_dumpxml_copy(facts, &from),
        };
        moving.package = package.map_err(|error| match error {
            ExportError::Missing(fact) => Stopped::Unknown(fact),
            ExportError::Bytes(error) => Stopped::Failed(
                "the export fails".to_owned(),
                vec![Witness::disk("source disk", error.to_string())],
            ),
        })?;
        Ok(())
    }

    /// What snapshots of the source machine mean to an export of it, beside what the exporter itself writes.
    fn snapshots(&self, hop: Hop, facts: &Facts<'_>, moving: &mut Moving) -> Result<(), Stopped> {
        let taken = self.scenario.source_vm.snapshots;
        if taken == 0 {
            return Ok(());
        }
        let says = format!("{taken} snapshots, so that its disk is a chain");
        let place = Witness::lab(format!("{} datastore", self.source.name), says);
        match hop {
            Hop::XencenterExportOvf | Hop::XvaExport => {
                moving.notes.extend([place, Witness::quirk("DQ442")]);
                Ok(())
            }
            Hop::HypervExport => {
                moving.notes.extend([place, Witness::quirk("DQ443")]);
                Ok(())
            }
            _ => {
                let product = &facts.product().id;
                Err(Stopped::Unknown(Missing {
                    fact: format!("{product}/what {hop:?} makes of a machine with snapshots"),
                }))
            }
        }
    }

    fn virt_v2v(&self, target: &Facts<'_>, moving: &mut Moving) -> Result<(), Stopped> {
        let virtio_win = target.flag("virtio-win").map_err(Stopped::Unknown)?;
        let options = virt_v2v_0_8::Options {
            bridge: network(target)?,
            virtio_win: virtio_win.value,
        };
        let converted = virt_v2v_0_8::convert_with(&moving.package, &moving.files, &options);
        let converted = converted.map_err(|mut error| {
            error.witness.push(virtio_win.witness.clone());
            Stopped::from(error)
        })?;
        self.take_over(converted, moving);
        Ok(())
    }

    fn virt_v2v_2(&self, target: &Facts<'_>, moving: &mut Moving) -> Result<(), Stopped> {
        let virtio_win = target.flag("virtio-win").map_err(Stopped::Unknown)?;
        let options = virt_v2v_2::Options {
            bridge: network(target)?,
            virtio_win: virtio_win.value,
        };
        let converted = virt_v2v_2::convert_with(&moving.package, &moving.files, &options)?;
        self.take_over(converted, moving);
        Ok(())
    }

    /// Lets a converter read the machine where it lives.
    fn with_source(
        &self,
        power: Power,
        convert: impl FnOnce(&SourceMachine<'_>) -> Result<Converted, ToolError>,
    ) -> Result<Converted, Stopped> {
        let made = self
            .source_vm
            .as_ref()
            .map_err(|fact| Stopped::Unknown(fact.clone()))?;
        let disks = [self.source_disk.disk.clone()];
        Ok(convert(&SourceMachine {
            machine: &made.machine,
            disks: &disks,
            power,
            has_snapshots: self.scenario.source_vm.snapshots > 0,
        })?)
    }

    fn xenconvert(&self, hop: Hop, target: &Facts<'_>, moving: &mut Moving) -> Result<(), Stopped> {
        let options = xenconvert_2_3::Options {
            output: match hop {
                Hop::XenconvertP2vVhd => Output::Vhd,
                Hop::XenconvertVmwareOvf => Output::Ovf,
                _ => Output::XenServer,
            },
            network: network(target)?,
        };
        let vm = &self.scenario.source_vm;
        let name = super::source::machine_name(self.scenario);
        let converted = match hop {
            Hop::XenconvertP2v | Hop::XenconvertP2vVhd => self
                .with_source(Power::Running, |source| {
                    xenconvert_2_3::convert(&Input::ThisMachine(*source), &options)
                })?,
            Hop::XenconvertVhd => {
                let asked = Asked {
                    name: &name,
                    vcpus: vm.vcpus,
                    memory_mib: vm.memory_mib,
                };
                xenconvert_2_3::convert(&Input::Vhd(&moving.package, asked), &options)?
            }
            _ => xenconvert_2_3::convert(&Input::Vmware(&moving.package), &options)?,
        };
        self.take_over(converted, moving);
        Ok(())
    }

    fn vcenter_converter(
        &self,
        hop: Hop,
        power: Power,
        target: &Facts<'_>,
        moving: &mut Moving,
    ) -> Result<(), Stopped> {
        let options = vcenter_converter_5_0::Options {
            version: match hop {
                Hop::Converter51P2v => vcenter_converter_5_0::Version::V5_1,
                _ => vcenter_converter_5_0::Version::V5_0,
            },
            destination: vcenter_converter_5_0::Destination::Esx,
            network: network(target)?,
        };
        let converted = self.with_source(power, |source| {
            vcenter_converter_5_0::convert(source, &options)
        })?;
        self.take_over(converted, moving);
        Ok(())
    }

    /// What a converter of whole machines made replaces what was moved so far.
    fn take_over(&self, converted: Converted, moving: &mut Moving) {
        moving.content = self.library.content(&converted.disk.bytes).ok();
        // A converter that was given a package never saw the files beside the source's disk: they are still there.
        moving.files.files.extend(converted.disk.files.files);
        moving.package = converted.package;
        moving.notes.extend(converted.notes);
        moving.edits.extend(converted.edits);
    }
}

/// The network adapters are connected to at the target.
fn network(target: &Facts<'_>) -> Result<String, Stopped> {
    let known = target.text("network.name").map_err(Stopped::Unknown)?;
    Ok(known.value.to_owned())
}

/// One of the two qemu-imgs, with what it is asked to write.
#[derive(Clone, Copy)]
enum QemuImg {
    Of2012(qemu_img_0_12::Format),
    Today(qemu_img_10::Format),
}

impl QemuImg {
    fn convert(self, file: &Arc<dyn ReadAt>) -> Result<qemu_img_10::Converted, ToolError> {
        match self {
            Self::Of2012(format) => qemu_img_0_12::convert(file, None, format),
            Self::Today(format) => qemu_img_10::convert(file, None, format),
        }
    }

    /// How a person ends the name of what it writes.
    fn extension(self) -> &'static str {
        let name = match self {
            Self::Of2012(format) => format.name(),
            Self::Today(format) => format.name(),
        };
        match name {
            "raw" => "img",
            "vpc" => "vhd",
            other => other,
        }
    }
}

/// `qemu-img convert` of every disk of the package; only disks travel on.
fn qemu_img(tool: QemuImg, moving: &mut Moving) -> Result<(), Stopped> {
    let mut package = Package::default();
    for disk in &moving.package.disks {
        let (_, file) = moving.package.disk_file(disk).map_err(|error| {
            let why = vec![Witness::descriptor(disk.clone(), error.to_string())];
            Stopped::Failed("no such disk".to_owned(), why)
        })?;
        let converted = tool.convert(file)?;
        if converted.exit != 0 {
            return Err(Stopped::Failed(converted.message, converted.notes));
        }
        let stem = disk
            .rsplit_once('.')
            .map_or(disk.as_str(), |(stem, _)| stem);
        let name = format!("{stem}.{}", tool.extension());
        package.disks.push(name.clone());
        package.put(name, converted.file);
        moving.notes.extend(converted.notes);
    }
    moving.package = package;
    Ok(())
}
