//! Hyper-V Manager: Export, into a folder of its own.

use super::{Convert, ExportError, Exported};
use drylab_appliance::Package;
use drylab_appliance::hyperv::{self, Boot, Bus, Drive};
use drylab_block::{ReadAt, SparseBytes};
use drylab_catalog::Machine;
use drylab_catalog::device::{self, Class, device};
use drylab_image::{Target, VhdOptions, vhd};
use std::sync::Arc;

/// Where the wizard puts disks on the host.
const DISKS: &str = "C:\\Users\\Public\\Documents\\Hyper-V\\Virtual Hard Disks";

/// Export, of a machine that is off: settings, and its disks as dynamic VHDs, which is what the wizard makes. Snapshots'
/// own settings are left out: no reader here looks at them.
///
/// # Errors
/// [`ExportError`].
pub fn hyperv_export(from: &Exported<'_>, convert: Convert<'_>) -> Result<Package, ExportError> {
    let machine = from.machine;
    let target = Target::VhdDynamic(VhdOptions::default());
    let mut disks = from
        .disks
        .iter()
        .map(|disk| convert(disk, &target))
        .collect::<drylab_block::Result<Vec<_>>>()?;
    let chain = chain(from, convert)?;
    let mut drives = drives(machine);
    if let (Some((name, file)), Some(disk)) = (chain.last(), disks.first_mut()) {
        *disk = file.clone();
        if let Some(drive) = drives.iter_mut().find(|drive| !drive.is_cd) {
            drive.path = format!("{DISKS}\\{name}");
        }
    }
    let nics = machine.nics.iter().enumerate().map(|(number, nic)| {
        let is_legacy = is_on_pci(&nic.model);
        hyperv::Nic {
            instance: guid_of(machine, 0x100 + number),
            is_legacy,
            name: if is_legacy {
                "Legacy Network Adapter"
            } else {
                "Network Adapter"
            }
            .to_owned(),
            mac: Some(nic.mac.0),
            // The console drew it.
            is_static: false,
            network: nic.network.clone(),
        }
    });
    let has_scsi = machine.controllers.iter().any(|controller| {
        device(&controller.model).is_some_and(|model| model.class == Class::Scsi)
    });
    let settings = hyperv::Machine {
        id: machine.uuid.to_ascii_uppercase(),
        name: machine.name.clone(),
        notes: String::new(),
        memory_mib: machine.memory.mib,
        processors: machine.cpu.vcpus,
        boot: vec![Boot::Cd, Boot::Ide, Boot::Network, Boot::Floppy],
        scsi: has_scsi
            .then(|| guid_of(machine, 0x200))
            .into_iter()
            .collect(),
        drives,
        nics: nics.collect(),
        disabled: Vec::new(),
    };
    let mut package = hyperv::export(&settings, &disks)?;
    // The drive names the newest disk; the others lie beside it, where that looks for its parent.
    let folder = package
        .disks
        .first()
        .and_then(|disk| disk.rsplit_once('/'))
        .map_or_else(String::new, |(folder, _)| format!("{folder}/"));
    for (name, file) in chain.iter().rev().skip(1) {
        package.put(format!("{folder}{name}"), file.clone());
    }
    Ok(package)
}

/// A file of the export with its name.
type Named = (String, Arc<dyn ReadAt>);

/// The first disk of a machine with snapshots, oldest file first: a VHD, and one `.avhd` file for each snapshot, with
/// what was written since it was taken. None without snapshots.
fn chain(from: &Exported<'_>, convert: Convert<'_>) -> Result<Vec<Named>, ExportError> {
    let (Some(first), Some(now)) = (from.snapshots.first(), from.disks.first()) else {
        return Ok(Vec::new());
    };
    let options = VhdOptions::default();
    let base = convert(first, &Target::VhdDynamic(options.clone()))?;
    let mut chain = vec![(format!("{}.vhd", from.machine.name), base)];
    let later = from.snapshots.iter().skip(1).chain([now]);
    let mut before = first;
    for (number, disk) in later.enumerate() {
        let Some((name, file)) = chain.last() else {
            break;
        };
        let link = vhd::ParentLink::beside(&**file, name)?;
        let child = SparseBytes::default();
        vhd::write_child(&**disk, &**before, &link, &options, &child)?;
        let id = guid_of(from.machine, 0x300 + number);
        let name = format!("{}_{id}.avhd", from.machine.name);
        chain.push((name, Arc::new(child)));
        before = disk;
    }
    Ok(chain)
}

fn is_on_pci(model: &str) -> bool {
    device(model).is_some_and(|model| model.bus == device::Bus::Pci)
}

/// Disks and CD-ROM drives at their places: two on each IDE controller.
fn drives(machine: &Machine) -> Vec<Drive> {
    let place = |controller: u32, unit: u32| {
        let index = usize::try_from(controller).ok();
        let model = index.and_then(|index| machine.controllers.get(index));
        match model.is_some_and(|controller| is_on_pci(&controller.model)) {
            true => (Bus::Ide, unit / 2, unit % 2),
            false => (Bus::Scsi, 0, unit),
        }
    };
    let disks = machine.disks.iter().enumerate().map(|(number, disk)| {
        let (bus, controller, location) = place(disk.controller, disk.unit);
        let suffix = match number {
            0 => String::new(),
            more => format!("-{more}"),
        };
        Drive {
            bus,
            controller,
            location,
            is_cd: false,
            path: format!("{DISKS}\\{}{suffix}.vhd", machine.name),
        }
    });
    let cd_roms = machine.cdroms.iter().map(|cd| {
        let (bus, controller, location) = place(cd.controller, cd.unit);
        Drive {
            bus,
            controller,
            location,
            is_cd: true,
            path: String::new(),
        }
    });
    disks.chain(cd_roms).collect()
}

/// A GUID for a device that depends on the machine's own.
fn guid_of(machine: &Machine, number: usize) -> String {
    let stem = machine.uuid.get(..28).unwrap_or_default();
    format!("{stem}{number:08x}").to_ascii_uppercase()
}
