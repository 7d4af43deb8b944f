//! vCenter Converter Standalone 5: a running machine, or one that is switched off, to a machine of VMware.
//!
//! Source: the manuals of 5.1 (conversion limitations) and 5.5 (settings affected by a conversion), VMware's page on
//! Linux sources (a bare ESXi host is a managed destination), as far as the fact tables tell them; 5.0's own guide was
//! not found.
//!
//! | source | copied | changed inside |
//! |---|---|---|
//! | Windows, running or off | volumes | the driver of the new disk controller starts at boot |
//! | Linux, running | files of each volume, into file systems made anew | `fstab`, boot loader, initramfs |
//! | Linux, off | sectors of each disk | nothing |
//!
//! A running source goes on running: [`Converted::copied_from`] says so, and who migrates shuts it down. Machines of
//! Xen and KVM can be copied while they run only. Not modelled: resizing and alignment of volumes, sysprep, VMware Tools,
//! restore points, synchronisation, dynamic disks.

mod linux;

use crate::ToolError;
use crate::boot_drivers::{BootDriver, SCSI_CLASS, start_at_boot};
use crate::converted::{Converted, Edits, Power, SourceMachine};
use drylab_appliance::Package;
use drylab_appliance::vmx::{self, Adapter};
use drylab_block::{Limits, content_id};
use drylab_catalog::device::device;
use drylab_catalog::{Firmware, Machine, Witness};
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, System, WindowsSystem, inspect};
use drylab_guest::os::windows_nt61::critical_ids;
use drylab_image::{FlatKind, VmdkOptions, flat_descriptor};
use std::sync::Arc;

pub use drylab_appliance::vmx::Destination;

/// Which release, by the Linux systems it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 5.0.0: neither CentOS 6 nor Ubuntu 12.04 (quirk GQ131).
    #[default]
    V5_0,
    /// 5.1: both (quirk DQ511).
    V5_1,
}

/// What is chosen in the wizard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The release.
    pub version: Version,
    /// Where the machine is made.
    pub destination: Destination,
    /// Name of the network there.
    pub network: String,
}

/// What Virtual PC's processor says of itself.
const VIRTUAL_PC: &str = "ConnectixCPU";

/// A tool's error with its usual beginning.
fn failed(says: impl std::fmt::Display) -> ToolError {
    ToolError::new(format!("vCenter Converter: {says}"))
}

/// Converts a machine.
///
/// # Errors
/// [`ToolError`]: the tool does not take such a source, or cannot make its guest ready.
pub fn convert(source: &SourceMachine<'_>, options: &Options) -> Result<Converted, ToolError> {
    let Some(boot) = source.disks.first() else {
        return Err(failed("the source has no disks"));
    };
    let guest = inspect(source.disks, &Limits::DEFAULT);
    let mut edits = Edits::default();
    if source.power == Power::Off {
        accepts_when_off(source.machine)?;
        if source.has_snapshots {
            edits.notes.push(Witness::quirk("GQ128"));
        }
    }
    let disk = match &guest {
        Ok(guest) => match &guest.system {
            System::Windows(system) => windows(source, system, boot, &mut edits)?,
            System::Linux(_) if source.power == Power::Off => {
                edits.notes.push(guest.os.pretty.witness.clone());
                let is_virtual_pc = source.machine.cpu.hypervisor == VIRTUAL_PC;
                let row = if is_virtual_pc { "GQ127" } else { "GQ126" };
                edits.notes.push(Witness::quirk(row));
                boot.clone()
            }
            System::Linux(system) => {
                accepts_running(guest, options, &mut edits)?;
                linux::copy(guest, system, boot, &mut edits)?
            }
        },
        Err(error) if source.power == Power::Off => {
            let says = format!("no system known ({error}), copied sector by sector");
            edits.notes.push(Witness::disk("inspection", says));
            boot.clone()
        }
        Err(error) => {
            return Err(failed("Unable to query the live Linux source machine")
                .because(Witness::disk("inspection", error.to_string())));
        }
    };
    if source.power == Power::Running {
        edits.notes.push(Witness::quirk("GQ132"));
    }
    let (package, mut notes) = target(source, guest.as_ref().ok(), &disk, options)?;
    notes.append(&mut edits.notes);
    Ok(Converted {
        package,
        disk,
        notes,
        edits: edits.edits,
        copied_from: source.power,
    })
}

/// Machines that are switched off are read through their product, and only some products are known.
fn accepts_when_off(machine: &Machine) -> Result<(), ToolError> {
    let known = ["VMwareVMware", "Microsoft Hv", VIRTUAL_PC];
    let hypervisor = machine.cpu.hypervisor.as_str();
    if known.contains(&hypervisor) {
        return Ok(());
    }
    let says = format!(
        "a machine of {} ({hypervisor:?}), switched off",
        machine.product
    );
    Err(
        failed("the source is no virtual machine that can be read while it is off")
            .because(Witness::descriptor(machine.name.clone(), says))
            .because(Witness::quirk("GQ132")),
    )
}

/// What is asked of a running Linux.
fn accepts_running(guest: &Guest, options: &Options, edits: &mut Edits) -> Result<(), ToolError> {
    if options.destination == Destination::Hosted {
        return Err(
            failed("powered-on Linux sources need a managed destination")
                .because(guest.os.pretty.witness.clone())
                .because(Witness::quirk("GQ125")),
        );
    }
    let too_new = match guest.os.name.value.as_str() {
        "ubuntu" => newer(&guest.os.version.value, (10, 10)),
        "rhel" | "centos" | "scientific" | "oracle" => newer(&guest.os.version.value, (5, 99)),
        "sles" => false,
        _ => true,
    };
    if !too_new {
        return Ok(());
    }
    match options.version {
        Version::V5_0 => Err(failed("the source operating system is not supported")
            .because(guest.os.pretty.witness.clone())
            .because(Witness::quirk("GQ131"))),
        Version::V5_1 => {
            edits.notes.push(Witness::quirk("DQ511"));
            Ok(())
        }
    }
}

/// Whether a version such as `12.04` is newer than major and minor.
fn newer(version: &str, than: (u32, u32)) -> bool {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) > than
}

/// LSI Logic SAS, what VMware gives to Windows Server 2008 and later.
const WINDOWS_SCSI: &str = "lsisas1068";
/// LSI Logic parallel, for all others.
const OTHER_SCSI: &str = "lsilogic";

fn lsi_sas() -> BootDriver {
    // The id without subsystem, as Windows' own setup has it.
    let ids = device(WINDOWS_SCSI).map(critical_ids).unwrap_or_default();
    let plain = |id: &String| {
        id.starts_with("pci#ven_") && id.contains("&dev_") && id.matches('&').count() == 1
    };
    BootDriver {
        service: "LSI_SAS",
        file: "lsi_sas.sys",
        group: "SCSI Miniport",
        tag: None,
        bus_type: Some(10),
        class: SCSI_CLASS,
        ids: ids.into_iter().filter(plain).collect(),
    }
}

fn windows(
    source: &SourceMachine<'_>,
    system: &WindowsSystem,
    boot: &GuestDisk,
    edits: &mut Edits,
) -> Result<GuestDisk, ToolError> {
    if source.machine.firmware == Firmware::Efi {
        edits.notes.push(Witness::quirk("GQ129"));
    }
    let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
    let origin = "vCenter Converter";
    start_at_boot(
        system,
        &[lsi_sas()],
        origin,
        Some("DQ512"),
        &mut editor,
        edits,
    )?;
    Ok(editor.finish())
}

/// Configuration and flat disks.
fn target(
    source: &SourceMachine<'_>,
    guest: Option<&Guest>,
    boot: &GuestDisk,
    options: &Options,
) -> Result<(Package, Vec<Witness>), ToolError> {
    let machine = source.machine;
    let name = machine.name.as_str();
    let controller = match guest.map(|guest| &guest.system) {
        Some(System::Windows(_)) => WINDOWS_SCSI,
        _ => OTHER_SCSI,
    };
    let mut package = Package {
        descriptor: format!("{name}.vmx"),
        ..Package::default()
    };
    let mut places = Vec::new();
    // Unit 7 is the controller's own.
    let units = (0..16u32).filter(|unit| *unit != 7);
    for ((number, disk), unit) in source.disks.iter().enumerate().zip(units) {
        let bytes = if number == 0 {
            &boot.bytes
        } else {
            &disk.bytes
        };
        let stem = if number == 0 {
            name.to_owned()
        } else {
            format!("{name}_{number}")
        };
        let (file, extent) = (format!("{stem}.vmdk"), format!("{stem}-flat.vmdk"));
        let described = VmdkOptions {
            file_name: extent.clone(),
            ..VmdkOptions::default()
        };
        let kind = match options.destination {
            Destination::Hosted => FlatKind::Monolithic,
            Destination::Esx | Destination::VirtualCenter => FlatKind::Vmfs,
        };
        let text = flat_descriptor(&**bytes, &described, kind)?;
        package.put(file.clone(), Arc::new(text.into_bytes()));
        package.put(extent, bytes.clone());
        package.disks.push(file.clone());
        places.push((format!("scsi0:{unit}"), file));
    }
    let mut notes = vec![Witness::quirk("GQ130")];
    let memory_mib = machine.memory.mib.next_multiple_of(4);
    if memory_mib != machine.memory.mib {
        notes.push(Witness::quirk("GQ147"));
    }
    let adapter = nic(guest);
    let mut networks = machine
        .nics
        .iter()
        .zip((0u32..).map(|n| n.saturating_add(32)));
    let made = vmx::Machine {
        name: name.to_owned(),
        guest_os: guest_os(guest),
        memory_mib,
        cpus: machine.cpu.vcpus,
        uuid: uuid(machine, boot)?,
        scsi: Some(vmx_name(controller).to_owned()),
        disks: places,
        cd_rom: machine.cdroms.first().map(|_| "ide1:0".to_owned()),
        nics: networks
            .by_ref()
            .map(|(_, pci_slot)| Adapter {
                model: adapter.to_owned(),
                network: options.network.clone(),
                mac: [0; 6],
                is_static: false,
                pci_slot,
            })
            .collect(),
    };
    let mut text = made.converted(options.destination);
    for number in 0..machine.nics.len() {
        // The host draws the address when the machine is switched on for the first time.
        text.remove(&format!("ethernet{number}.generatedAddress"));
    }
    if machine.firmware == Firmware::Efi {
        text.set("firmware", "efi");
    }
    if !machine.nics.is_empty() {
        let says = format!("{adapter}, address left to the host");
        notes.push(Witness::descriptor("ethernet0", says));
        notes.push(Witness::quirk("GQ124"));
    }
    package.put(
        package.descriptor.clone(),
        Arc::new(text.print()?.into_bytes()),
    );
    Ok((package, notes))
}

/// A controller's name in the configuration.
fn vmx_name(controller: &str) -> &'static str {
    if controller == WINDOWS_SCSI {
        "lsisas1068"
    } else {
        "lsilogic"
    }
}

/// The adapter: 64-bit systems have no driver of the PCnet one.
fn nic(guest: Option<&Guest>) -> &'static str {
    match guest {
        Some(guest) if guest.os.arch.value != "x86_64" => "flexible",
        _ => "e1000",
    }
}

/// VMware's word for the system.
fn guest_os(guest: Option<&Guest>) -> String {
    let Some(guest) = guest else {
        return "other-64".to_owned();
    };
    let stem = match guest.os.name.value.as_str() {
        "windows" if guest.os.version.value.starts_with("6.0") => "longhorn",
        "windows" => "windows7srv",
        "centos" => "centos",
        "ubuntu" => "ubuntu",
        "debian" => "debian6",
        "rhel" => "rhel6",
        _ => "other26xlinux",
    };
    if guest.os.arch.value == "x86_64" {
        format!("{stem}-64")
    } else {
        stem.to_owned()
    }
}

/// A new `uuid.bios`, made of the old one and the disk, in VMware's form.
fn uuid(machine: &Machine, boot: &GuestDisk) -> Result<[u8; 16], ToolError> {
    let seed = content_id(&*boot.bytes)?.0;
    let mut bytes = linux::mixed(machine.uuid.as_bytes(), &seed.to_le_bytes());
    for (place, byte) in bytes.iter_mut().zip([0x56, 0x4d]) {
        *place = byte;
    }
    Ok(bytes)
}
