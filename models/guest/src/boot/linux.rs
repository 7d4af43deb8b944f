//! Linux from the boot loader to the mounted root.

use super::drivers::{Pool, early, every_family};
use super::names::{Disks, Resolved};
use super::{BootReport, Stop, explain, mounts, on_machine, unplug};
use crate::inspect::{
    BootCode, FstabEntry, Guest, Initramfs, LinuxSystem, LoaderKind, Param, Sourced, VolumeKind,
};
use crate::modalias::Blacklist;
use drylab_catalog::device::device;
use drylab_catalog::{Firmware, Machine, Witness};
use drylab_filesystem::Kind;

/// Boots from disk `disk`.
pub(super) fn boot(
    guest: &Guest,
    system: &LinuxSystem,
    machine: &Machine,
    disk: usize,
    report: &mut BootReport,
) -> Result<(), Stop> {
    boot_loader(guest, system, machine, disk, report)?;
    kernel(system, machine, report)?;
    initramfs(system, report)?;
    let seen = unplug::seen(system, machine);
    if !seen.why.is_empty() {
        report.pass("unplug", seen.why.clone());
    }
    report.unplugged.clone_from(&seen.why);
    report.nics.clone_from(&seen.machine.nics);
    report.notes.extend(seen.kept.iter().cloned());
    let machine = &seen.machine;
    let mut pool = pool(guest, system);
    let disks = Disks::scan(guest, machine, &pool);
    root(guest, system, machine, &disks, &pool, report)?;
    report.early = early(machine, &pool);
    // From here modules of the root can be loaded: disks on other controllers appear.
    pool.with_root = true;
    let disks = Disks::scan(guest, machine, &pool);
    report.disk_names = disks
        .names
        .iter()
        .map(|(index, name)| (*index, name.clone()))
        .collect();
    mounts::mount(guest, system, machine, &disks, report)?;
    notes(guest, system, machine, report);
    Ok(())
}

/// What can be loaded before the root is there.
pub(super) fn pool<'a>(guest: &'a Guest, system: &'a LinuxSystem) -> Pool<'a> {
    let unread = system
        .initramfs
        .as_ref()
        .is_some_and(|initramfs| initramfs.unread.is_some());
    Pool {
        tree: &system.modules,
        initramfs: system.initramfs.as_ref(),
        // An initramfs that cannot be read is taken to hold all the modules there are: the best case.
        with_root: unread,
        blacklist: Blacklist::of(&guest.tree),
        all_generic_ide: params(system, "all_generic_ide").next().is_some(),
    }
}

/// Words of the command line with this key.
fn params<'a>(system: &'a LinuxSystem, key: &'a str) -> impl Iterator<Item = &'a Sourced<Param>> {
    system
        .cmdline
        .iter()
        .filter(move |param| param.value.key == key)
}

/// The loader's menu is found, and its default entry names a kernel on a disk the firmware can read.
fn boot_loader(
    guest: &Guest,
    system: &LinuxSystem,
    machine: &Machine,
    disk: usize,
    report: &mut BootReport,
) -> Result<(), Stop> {
    const STAGE: &str = "boot-loader";
    // pygrub reads the menu itself and runs nothing of the disk.
    let code = guest
        .disks
        .get(disk)
        .map(|fact| fact.boot_code)
        .filter(|_| machine.firmware != Firmware::Pygrub);
    if code == Some(BootCode::Chain) {
        let active = guest.layout.iter().find(|volume| {
            matches!(volume.kind, VolumeKind::Partition { disk: on, active: true, .. } if on == disk)
        });
        let boots = active.is_some_and(|volume| {
            matches!(
                volume.kind,
                VolumeKind::Partition {
                    boot_sector: true,
                    ..
                }
            )
        });
        if !boots {
            let place = active.map_or_else(
                || {
                    Witness::disk(
                        format!("disk {disk} partition table"),
                        "no active partition",
                    )
                },
                |volume| Witness {
                    says: "the active partition has no boot sector".to_owned(),
                    ..volume.witness.clone()
                },
            );
            return Err(report.fail(STAGE, vec![place]));
        }
    }
    let embedded = guest.disks.get(disk).is_some_and(|fact| fact.embedded_code);
    if code == Some(BootCode::Grub) && !embedded {
        let says = "GRUB's first stage, with nothing behind it in sector 1";
        return Err(report.fail(
            STAGE,
            vec![Witness::disk(format!("disk {disk} sector 1"), says)],
        ));
    }
    let Some(loader) = &system.loader else {
        let place = Witness::file(
            "/boot/grub",
            0,
            "no grub.conf, menu.lst or grub.cfg on any volume",
        );
        return Err(report.fail(STAGE, vec![place]));
    };
    let place = Witness::file(
        &loader.path,
        0,
        match loader.kind {
            LoaderKind::GrubLegacy => "menu of GRUB legacy",
            LoaderKind::Grub2 => "configuration of GRUB 2",
        },
    );
    let Some(entry) = loader.default_entry() else {
        let says = format!("there are {} entries", loader.entries.len());
        return Err(report.fail(
            STAGE,
            vec![loader.default.witness.clone(), Witness { says, ..place }],
        ));
    };
    let Some(wanted) = &entry.kernel else {
        let says = format!("entry {:?} names no kernel", entry.title);
        return Err(report.fail(
            STAGE,
            vec![loader.default.witness.clone(), Witness { says, ..place }],
        ));
    };
    let mut witnesses = vec![place, loader.default.witness.clone()];
    witnesses.extend(entry.root.iter().map(|root| root.witness.clone()));
    for volume in [
        Some(loader.volume),
        system.kernel.as_ref().map(|kernel| kernel.volume),
    ]
    .into_iter()
    .flatten()
    {
        let Some(fact) = guest.layout.get(volume) else {
            continue;
        };
        if !on_machine(&fact.disks(), machine) {
            witnesses.extend([
                fact.witness.clone(),
                Witness::descriptor("disks", "its disk is not on this machine"),
            ]);
            return Err(report.fail(STAGE, witnesses));
        }
        if let Some(broken) = &fact.broken {
            report.notes.push(broken.clone());
        }
    }
    witnesses.push(wanted.witness.clone());
    report.pass(STAGE, witnesses);
    Ok(())
}

/// Options of kernels that were ported to Xen before paravirt_ops: they run on nothing else.
const XENIFIED: [&str; 2] = ["X86_64_XEN", "X86_XEN"];

/// The kernel file is there, and can run on this kind of machine.
fn kernel(system: &LinuxSystem, machine: &Machine, report: &mut BootReport) -> Result<(), Stop> {
    let wanted = system
        .loader
        .as_ref()
        .and_then(|loader| loader.default_entry())
        .and_then(|entry| entry.kernel.as_ref());
    let line = wanted.map(|wanted| wanted.witness.clone());
    match &system.kernel {
        Some(kernel) if kernel.bytes > 0 => {
            let says = format!("{} bytes, version {}", kernel.bytes, kernel.version.value);
            let mut witnesses = vec![Witness::file(&kernel.path, 0, says)];
            if machine.firmware == Firmware::Pygrub {
                let Some(built) = system.config.built("XEN") else {
                    witnesses.extend([system.config.lacks("XEN"), Witness::quirk("HQ85")]);
                    return Err(report.fail("kernel", witnesses));
                };
                witnesses.push(built);
            } else if let Some(built) = XENIFIED.iter().find_map(|name| system.config.built(name)) {
                witnesses.extend([built, Witness::quirk("GQ41")]);
                return Err(report.fail("kernel", witnesses));
            }
            report.pass("kernel", witnesses);
            Ok(())
        }
        _ => {
            let path = wanted.map_or("/boot", |wanted| wanted.value.as_str());
            let missing = Witness::file(
                path,
                0,
                "the kernel the entry names is not on the volume it names",
            );
            Err(report.fail("kernel", line.into_iter().chain([missing]).collect()))
        }
    }
}

/// The initramfs, where the entry names one, is there and can be unpacked.
fn initramfs(system: &LinuxSystem, report: &mut BootReport) -> Result<(), Stop> {
    let wanted = system
        .loader
        .as_ref()
        .and_then(|loader| loader.default_entry())
        .and_then(|entry| entry.initrd.as_ref());
    let Some(wanted) = wanted else {
        report.pass(
            "initramfs",
            vec![Witness::file(
                "/boot",
                0,
                "the entry names no initramfs: only linked-in drivers count",
            )],
        );
        return Ok(());
    };
    let Some(found) = &system.initramfs else {
        let missing = Witness::file(
            &wanted.value,
            0,
            "the initramfs the entry names is not on the volume it names",
        );
        return Err(report.fail("initramfs", vec![wanted.witness.clone(), missing]));
    };
    if let Some(why) = &found.damaged {
        return Err(report.fail(
            "initramfs",
            vec![wanted.witness.clone(), Witness::file(&found.path, 0, why)],
        ));
    }
    if let Some(lacks) = undecoded(system, found) {
        return Err(report.fail("initramfs", vec![wanted.witness.clone(), lacks]));
    }
    if let Some(why) = &found.unread {
        report.unassessed.push(Witness::file(&found.path, 0, why));
    }
    let says = format!(
        "{} archives, {} files, {} modules",
        found.archives.len(),
        found.files.len(),
        found.modules.len()
    );
    report.pass(
        "initramfs",
        vec![wanted.witness.clone(), Witness::file(&found.path, 0, says)],
    );
    Ok(())
}

/// A compression of the initramfs that the kernel, by its configuration, has no decoder for. Configurations that say
/// nothing of decoders are no witness.
fn undecoded(system: &LinuxSystem, found: &Initramfs) -> Option<Witness> {
    const DECODERS: [(&str, &str); 7] = [
        ("gzip", "RD_GZIP"),
        ("bzip2", "RD_BZIP2"),
        ("lzma", "RD_LZMA"),
        ("xz", "RD_XZ"),
        ("lzo", "RD_LZO"),
        ("lz4", "RD_LZ4"),
        ("zstd", "RD_ZSTD"),
    ];
    let said = |(_, option): &(&str, &str)| system.config.built(option).is_some();
    if !DECODERS.iter().any(said) {
        return None;
    }
    let needed = DECODERS
        .iter()
        .filter(|(name, _)| found.archives.contains(name));
    let mut missing = needed.filter(|decoder| !said(decoder));
    missing
        .next()
        .map(|(_, option)| system.config.lacks(option))
}

/// The root device appears and can be mounted.
fn root(
    guest: &Guest,
    system: &LinuxSystem,
    machine: &Machine,
    disks: &Disks,
    pool: &Pool<'_>,
    report: &mut BootReport,
) -> Result<(), Stop> {
    let Some((param, device)) = params(system, "root")
        .last()
        .and_then(|param| Some((param, param.value.value.as_ref()?)))
    else {
        return Err(report.fail(
            "root",
            vec![Witness::file(
                "/boot",
                0,
                "no root= on the kernel command line",
            )],
        ));
    };
    let asked = param.witness.clone();
    let (index, node) = match disks.resolve(device, guest) {
        Resolved::Volume { index, node } => (index, node),
        Resolved::Unknown(says) => {
            report.unassessed.push(Witness {
                says,
                ..asked.clone()
            });
            report.pass("root", vec![asked]);
            return Ok(());
        }
        Resolved::Missing(why) => {
            let mut witnesses = vec![asked];
            witnesses.extend(why);
            witnesses.extend(explain::root(guest, system, machine, disks, device));
            let stage = if disks.names.is_empty() {
                "drivers"
            } else {
                "root"
            };
            return Err(report.fail(stage, witnesses));
        }
    };
    let Some(fact) = guest.layout.get(index) else {
        return Err(report.fail("root", vec![asked]));
    };
    let drivers: Vec<Witness> = fact
        .disks()
        .iter()
        .filter_map(|disk| disks.attached.get(disk))
        .flat_map(|attached| attached.witnesses.clone())
        .chain(emulated(machine, pool))
        .chain(generic(system, pool))
        .collect();
    report.pass("drivers", drivers);
    let mut witnesses = vec![asked.clone(), fact.witness.clone()];
    if let VolumeKind::Logical { group, name, .. } = &fact.kind {
        witnesses.extend(logical_volume(system, pool, group, name, &asked, report)?);
    }
    if index != guest.root {
        witnesses.push(Witness {
            says: format!("{} is mounted as root, it holds no system", fact.name()),
            ..fact.witness.clone()
        });
        return Err(report.fail("root", witnesses));
    }
    match filesystem(fact.filesystem.as_ref().map(|found| found.kind), pool) {
        Ok(driver) => witnesses.push(driver),
        Err(why) => {
            witnesses.push(why);
            return Err(report.fail("root", witnesses));
        }
    }
    report.root_device = Some(node);
    report.pass("root", witnesses);
    Ok(())
}

/// The driver of the root's filesystem.
fn filesystem(kind: Option<Kind>, pool: &Pool<'_>) -> Result<Witness, Witness> {
    match kind {
        Some(Kind::Ext) => {
            let later = |missing: Witness| {
                pool.loads("ext3")
                    .or_else(|_| pool.loads("ext2"))
                    .map_err(|_| missing)
            };
            pool.loads("ext4").or_else(later)
        }
        Some(kind) => Err(Witness::disk(
            "root",
            format!("{kind} is no filesystem Linux boots from here"),
        )),
        None => Err(Witness::disk("root", "no known filesystem")),
    }
}

/// The initramfs activates the logical volume: it has device mapper, and its command line does not leave it out.
/// Returns what says so.
fn logical_volume(
    system: &LinuxSystem,
    pool: &Pool<'_>,
    group: &str,
    name: &str,
    asked: &Witness,
    report: &mut BootReport,
) -> Result<Vec<Witness>, Stop> {
    let mapper = pool
        .loads("dm_mod")
        .map_err(|why| report.fail("root", vec![asked.clone(), why]))?;
    let initramfs = system
        .initramfs
        .as_ref()
        .filter(|initramfs| initramfs.unread.is_none());
    if let Some(initramfs) = initramfs
        && !["sbin/lvm", "bin/lvm", "usr/sbin/lvm"]
            .iter()
            .any(|path| initramfs.files.contains(*path))
    {
        let missing = Witness::file(&initramfs.path, 0, "has no program lvm to activate volumes");
        return Err(report.fail("root", vec![asked.clone(), missing]));
    }
    if let Some(refused) = params(system, "rd_NO_LVM")
        .chain(params(system, "rd.lvm=0"))
        .next()
    {
        return Err(report.fail(
            "root",
            vec![
                asked.clone(),
                refused.witness.clone(),
                Witness::quirk("DQ306"),
            ],
        ));
    }
    let volumes = params(system, "rd_LVM_LV").chain(params(system, "rd.lvm.lv"));
    let groups = params(system, "rd_LVM_VG").chain(params(system, "rd.lvm.vg"));
    let full = format!("{group}/{name}");
    let listed: Vec<(&Sourced<Param>, bool)> = volumes
        .map(|param| (param, param.value.value.as_deref() == Some(full.as_str())))
        .chain(groups.map(|param| (param, param.value.value.as_deref() == Some(group))))
        .collect();
    if !listed.is_empty() && !listed.iter().any(|(_, here)| *here) {
        let witnesses: Vec<Witness> = std::iter::once(asked.clone())
            .chain(listed.iter().map(|(param, _)| param.witness.clone()))
            .chain([Witness::quirk("DQ306")])
            .collect();
        return Err(report.fail("root", witnesses));
    }
    let names_it = listed.iter().find(|(_, here)| *here);
    let said = names_it.map(|(param, _)| param.witness.clone());
    Ok(said.into_iter().chain([mapper]).collect())
}

/// That dracut made the initramfs for any machine, as its own files show: worth saying where it is why the boot
/// goes on.
fn generic(system: &LinuxSystem, pool: &Pool<'_>) -> Vec<Witness> {
    let by_dracut = |initramfs: &&Initramfs| {
        let mut names = initramfs.files.iter();
        initramfs.unread.is_none() && names.any(|name| name.starts_with("dracut-"))
    };
    let Some(initramfs) = system.initramfs.as_ref().filter(by_dracut) else {
        return Vec::new();
    };
    let Some(families) = every_family(pool) else {
        return Vec::new();
    };
    let each: Vec<String> = families
        .iter()
        .map(|(family, module)| format!("{family} ({module})"))
        .collect();
    let says = format!("holds drivers of {}", each.join(", "));
    vec![
        Witness::file(&initramfs.path, 0, says),
        Witness::quirk("GQ34"),
    ]
}

/// That a kernel without drivers for Hyper-V's own bus works on what the host emulates.
fn emulated(machine: &Machine, pool: &Pool<'_>) -> Vec<Witness> {
    let bus = device("hyperv-scsi").filter(|_| machine.cpu.hypervisor == "Microsoft Hv");
    let Some(bus) = bus.filter(|bus| !pool.knows(&bus.modalias())) else {
        return Vec::new();
    };
    let path = format!("{}/modules.alias", pool.tree.path);
    let says = format!("no module takes {}", bus.modalias());
    vec![Witness::file(path, 0, says), Witness::quirk("GQ32")]
}

/// What is worth knowing of a boot that went on.
fn notes(guest: &Guest, system: &LinuxSystem, machine: &Machine, report: &mut BootReport) {
    for param in params(system, "console") {
        let console = param.value.value.as_deref().unwrap_or_default();
        let xen = machine.firmware == Firmware::Pygrub;
        if !xen && (console.starts_with("hvc") || console.starts_with("xvc")) {
            report
                .notes
                .extend([param.witness.clone(), Witness::quirk("GQ42")]);
        }
    }
    for volume in &guest.layout {
        let VolumeKind::Logical { physical, .. } = &volume.kind else {
            continue;
        };
        for part in physical
            .iter()
            .filter(|part| part.bytes_claimed > part.bytes_present)
        {
            let says = format!(
                "claims {} bytes, the device has {}",
                part.bytes_claimed, part.bytes_present
            );
            let witness = Witness::disk(format!("LVM physical volume on disk {}", part.disk), says);
            if !report.notes.contains(&witness) {
                report.notes.extend([witness, Witness::quirk("GQ46")]);
            }
        }
    }
}

/// Whether init is Ubuntu's `mountall`, which waits for every device of `fstab`.
pub(super) fn has_mountall(guest: &Guest) -> bool {
    guest.tree.read("/etc/init/mountall.conf").is_some() || guest.os.name.value == "ubuntu"
}

/// Entry of `fstab` in words.
pub(super) fn entry_name(entry: &FstabEntry) -> String {
    format!("{} on {}", entry.device, entry.mount)
}
