//! Export and conversions: the way of a machine up to the import. Nothing here draws anything, so that the whole way
//! is a function of the source machine and the route, and is remembered.

use super::{SimLab, missing, unknown};
use crate::check::Found;
use crate::crossing::{Crossing, Done, Stopped, Unread};
use crate::library::Library;
use crate::machine::Completion;
use crate::policy::Measure;
use crate::route::Hop;
use drylab_appliance::Package;
use drylab_block::{ContentId, ReadAt};
use drylab_catalog::Witness;
use drylab_converter::{ToolError, qemu_img_0_12, virt_convert_0_600, virt_v2v_0_8};
use drylab_filesystem::FileOverlay;
use drylab_guest::inspect::GuestDisk;
use drylab_hypervisor::exporter::{self, ExportError, Exported};
use drylab_hypervisor::importer::{self, Operator, ReadError, Reading};
use drylab_hypervisor::{Facts, datastore};
use drylab_kernel::{Kind, Trace};
use drylab_scenario::{FaultPlace, Step};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A machine between two hops.
struct Moving {
    package: Package,
    files: FileOverlay,
    content: Option<ContentId>,
    notes: Vec<Witness>,
    edits: Vec<Witness>,
}

impl SimLab<'_> {
    /// Does (or remembers) the whole way, and reports one hop of it.
    pub(super) fn hop(&mut self, number: usize, now: u64, trace: &mut Trace) -> (Completion, u64) {
        const ID: &str = "export.completes";
        let step = Step::Export;
        let place = if number == 0 {
            FaultPlace::Source
        } else {
            FaultPlace::Target
        };
        if let Some(crash) = self.tool_crash(ID, place, step, now, trace) {
            return (crash, 1_000_000);
        }
        let crossing = match &self.crossing {
            Some(crossing) => crossing.clone(),
            None => self.cross(),
        };
        self.crossing = Some(crossing.clone());
        let last = number + 1 == crossing.hops.len();
        match crossing.hops.get(number) {
            Some(Ok(done)) => {
                let files = done.files.join(", ");
                let bytes = done.bytes.to_string();
                let hop = format!("{:?}", done.hop);
                trace.record(
                    now,
                    "converter",
                    Kind::Transfer,
                    &[("hop", &hop), ("files", &files), ("guest-bytes", &bytes)],
                );
                if let Err(free) = self.staging.put(STAGED, done.stored) {
                    let says = format!("{} bytes to stage, {free} free", done.stored);
                    let why = vec![
                        Witness::lab("share for staging", says),
                        Witness::quirk("DQ411"),
                    ];
                    let full = missing(ID, step, "the share is full", why);
                    return (Completion::Done(vec![full]), 1_000_000);
                }
                let found = if last {
                    vec![self.crossed(&crossing)]
                } else {
                    Vec::new()
                };
                // 100 MB/s between hosts and share.
                (Completion::Done(found), done.bytes / 100)
            }
            Some(Err(Stopped::Unknown(fact))) => {
                (Completion::Done(vec![unknown(ID, step, fact)]), 0)
            }
            Some(Err(Stopped::Failed(message, why))) => (
                Completion::Done(vec![missing(ID, step, message, why.clone())]),
                5_000_000,
            ),
            None => (Completion::Done(Vec::new()), 0),
        }
    }

    fn crossed(&self, crossing: &Crossing) -> Found {
        let mut witness = crossing.notes.clone();
        witness.extend(crossing.edits.iter().cloned());
        if witness.is_empty() {
            witness.push(Witness::descriptor(
                crossing.package.descriptor.clone(),
                "written and read without loss",
            ));
        }
        Found {
            id: "export.completes",
            step: Step::Export,
            before: String::new(),
            after: format!(
                "{} files by {}",
                crossing.package.files.len(),
                self.route.id
            ),
            measure: Ok(Measure::Same),
            witness,
        }
    }

    fn cross(&self) -> Arc<Crossing> {
        let edits: Vec<String> = self
            .scenario
            .edits
            .iter()
            .map(|edit| format!("{edit:?}"))
            .collect();
        let key = format!(
            "{}|{}|{}|{:?}|{}",
            self.scenario.guest,
            self.scenario.source,
            self.route.id,
            self.scenario.source_vm,
            edits.join("|")
        );
        self.library.crossing(key, || self.cross_fresh())
    }

    fn cross_fresh(&self) -> Crossing {
        let (source, target) = (
            self.source.facts.product().facts(),
            self.target.facts.product().facts(),
        );
        let mut moving = Moving {
            package: Package::default(),
            files: self.source_disk.disk.files.clone(),
            content: self.library.content(&self.source_disk.disk.bytes).ok(),
            notes: Vec::new(),
            edits: Vec::new(),
        };
        let (before, _) = self.route.split().unwrap_or((&[], self.import));
        let mut hops = Vec::new();
        for hop in before {
            let outcome = self
                .do_hop(*hop, &source, &target, &mut moving)
                .map(|()| Done {
                    hop: *hop,
                    files: moving.package.files.keys().cloned().collect(),
                    bytes: self.source_disk.disk.bytes.len(),
                    stored: moving.package.bytes(),
                });
            let failed = outcome.is_err();
            hops.push(outcome);
            if failed {
                break;
            }
        }
        let reading = match hops.last() {
            Some(Err(_)) => Err(Unread::NotReached),
            _ => self
                .read(&target, &moving.package)
                .map_err(Unread::Importer),
        };
        let mut facts_used = BTreeSet::new();
        // The machine that is exported was made of what the source's own view has read.
        for facts in [&source, &target, &self.source.facts] {
            facts_used.extend(
                facts
                    .used()
                    .into_iter()
                    .map(|key| format!("{}/{key}", facts.product().id)),
            );
        }
        Crossing {
            hops,
            reading,
            package: moving.package,
            files: moving.files,
            content: moving.content,
            notes: moving.notes,
            edits: moving.edits,
            facts_used,
        }
    }

    fn do_hop(
        &self,
        hop: Hop,
        source: &Facts<'_>,
        target: &Facts<'_>,
        moving: &mut Moving,
    ) -> Result<(), Stopped> {
        match hop {
            Hop::VsphereExportOvf | Hop::DatastoreCopy | Hop::VirshDumpxmlCopy => {
                moving.package = self.export(hop, source)?;
                Ok(())
            }
            Hop::VirtV2v => self.virt_v2v(target, moving),
            Hop::VirtConvert => {
                let converted = virt_convert_0_600::convert(
                    &moving.package,
                    &virt_convert_0_600::Options::default(),
                )?;
                moving.package = converted.package;
                moving.notes.extend(converted.notes);
                Ok(())
            }
            Hop::QemuImgRaw => qemu_img(qemu_img_0_12::Format::Raw, "img", moving),
            Hop::QemuImgVmdk => qemu_img(qemu_img_0_12::Format::Vmdk, "vmdk", moving),
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
            | Hop::VirtImage => {
                let why = vec![Witness::lab(
                    "route table",
                    format!("{hop:?} stands before the end of {}", self.route.id),
                )];
                Err(Stopped::Failed(
                    "an import is no conversion".to_owned(),
                    why,
                ))
            }
        }
    }

    fn export(&self, hop: Hop, facts: &Facts<'_>) -> Result<Package, Stopped> {
        let made = self
            .source_vm
            .as_ref()
            .map_err(|fact| Stopped::Unknown(fact.clone()))?;
        let disks = [self.source_disk.disk.bytes.clone()];
        let from = Exported {
            machine: &made.machine,
            guest: self.scenario.guest.as_str(),
            disks: &disks,
        };
        let library: &Library = self.library;
        let convert =
            |disk: &Arc<dyn ReadAt>, target: &drylab_image::Target| library.convert(disk, target);
        let package = match hop {
            Hop::VsphereExportOvf => exporter::vsphere_export_ovf(facts, &from, &convert),
            Hop::DatastoreCopy => exporter::datastore_copy(facts, &from),
            _ => exporter::virsh_dumpxml_copy(facts, &from),
        };
        package.map_err(|error| match error {
            ExportError::Missing(fact) => Stopped::Unknown(fact),
            ExportError::Bytes(error) => Stopped::Failed(
                "the export fails".to_owned(),
                vec![Witness::disk("source disk", error.to_string())],
            ),
        })
    }

    fn virt_v2v(&self, target: &Facts<'_>, moving: &mut Moving) -> Result<(), Stopped> {
        let bridge = target
            .text("network.name")
            .map_err(Stopped::Unknown)?
            .value
            .to_owned();
        let virtio_win = target.flag("virtio-win").map_err(Stopped::Unknown)?;
        let options = virt_v2v_0_8::Options {
            bridge,
            virtio_win: virtio_win.value,
        };
        let converted = virt_v2v_0_8::convert(&moving.package, &options).map_err(|mut error| {
            error.witness.push(virtio_win.witness.clone());
            Stopped::from(error)
        })?;
        moving.content = self.library.content(&converted.disk.bytes).ok();
        moving.files = converted.disk.files;
        moving.package = converted.package;
        moving.notes.extend(converted.notes);
        moving.edits.extend(converted.edits);
        Ok(())
    }

    fn read(&self, target: &Facts<'_>, package: &Package) -> Result<Reading, ReadError> {
        let operator = self.operator();
        match self.import {
            Hop::VsphereDeployOvf => importer::vsphere_deploy_ovf(target, package, &operator),
            Hop::VsphereRegisterVmx => importer::vsphere_register_vmx(target, package, &operator),
            Hop::VsphereExistingDisk => importer::vsphere_existing_disk(target, package, &operator),
            Hop::VirshDefine => importer::virsh_define(target, package, &operator),
            Hop::VirtManagerImport => importer::virt_manager_import(target, package, &operator),
            Hop::VirtImage => importer::virt_image(target, package, &operator),
            other => Err(ReadError::Refused(vec![Witness::lab(
                "route table",
                format!("{other:?} imports nothing"),
            )])),
        }
    }

    /// What the person at the console knows of the machine.
    fn operator(&self) -> Operator {
        Operator {
            name: super::source::machine_name(self.scenario),
            guest: self.scenario.guest.to_string(),
            vcpus: self.scenario.source_vm.vcpus,
            memory_mib: self.scenario.source_vm.memory_mib,
        }
    }
}

impl From<ToolError> for Stopped {
    fn from(error: ToolError) -> Self {
        Self::Failed(error.message, error.witness)
    }
}

/// The package on the share: a hop replaces what the one before left.
pub(super) const STAGED: &str = "package";

/// `qemu-img convert` of every disk of the package; only disks travel on.
fn qemu_img(
    format: qemu_img_0_12::Format,
    extension: &str,
    moving: &mut Moving,
) -> Result<(), Stopped> {
    let mut package = Package::default();
    for disk in &moving.package.disks {
        let file = moving.package.file(disk).map_err(|error| {
            Stopped::Failed(
                "no such disk".to_owned(),
                vec![Witness::descriptor(disk.clone(), error.to_string())],
            )
        })?;
        let converted = qemu_img_0_12::convert(file, None, format)?;
        if converted.exit != 0 {
            return Err(Stopped::Failed(converted.message, converted.notes));
        }
        let stem = disk
            .rsplit_once('.')
            .map_or(disk.as_str(), |(stem, _)| stem);
        let name = format!("{stem}.{extension}");
        package.disks.push(name.clone());
        package.put(name, converted.file);
        moving.notes.extend(converted.notes);
    }
    moving.package = package;
    Ok(())
}

/// The boot disk as the target's guest will see it.
pub(super) fn arrived(
    library: &Library,
    crossing: &Crossing,
    reading: &Reading,
) -> drylab_block::Result<GuestDisk> {
    let plan = reading
        .disks
        .first()
        .ok_or_else(|| drylab_block::Error::io("the machine has no disk"))?;
    let file = crossing.package.file(&plan.file)?;
    let bytes = library.open(file, plan.declared_format.as_deref())?;
    Ok(GuestDisk {
        bytes,
        files: crossing.files.clone(),
    })
}
