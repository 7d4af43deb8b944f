//! A Linux guest from its filesystems.

use super::config::KernelConfig;
use super::model::{
    BootEntry, Family, Guest, Initramfs, Kernel, LinuxSystem, Loader, LoaderKind, LoaderRoot,
    ModuleTree, Os, Sourced, System, VolumeKind,
};
use super::mounts::Mounts;
use super::volumes::Volumes;
use super::{distro, fstab, grub, initramfs, tree};
use crate::modalias::Builtins;
use crate::modules;
use drylab_block::{Finding, Limits, Result, Severity, array_at, le_u16};
use drylab_catalog::Witness;
use drylab_filesystem::Filesystem;

/// Configurations of boot loaders, relative to the root of a volume: on a volume of its own, or under `/boot`.
const MENUS: [(&str, LoaderKind); 8] = [
    ("/boot/grub2/grub.cfg", LoaderKind::Grub2),
    ("/boot/grub/grub.cfg", LoaderKind::Grub2),
    ("/grub2/grub.cfg", LoaderKind::Grub2),
    ("/grub/grub.cfg", LoaderKind::Grub2),
    ("/boot/grub/grub.conf", LoaderKind::GrubLegacy),
    ("/boot/grub/menu.lst", LoaderKind::GrubLegacy),
    ("/grub/grub.conf", LoaderKind::GrubLegacy),
    ("/grub/menu.lst", LoaderKind::GrubLegacy),
];

/// Whether a filesystem is the root of a Linux system.
pub(crate) fn is_root(filesystem: &dyn Filesystem, limits: &Limits) -> bool {
    let Ok(Some(entries)) = filesystem.list("/etc", limits) else {
        return false;
    };
    let telling = [
        "fstab",
        "inittab",
        "os-release",
        "redhat-release",
        "lsb-release",
        "debian_version",
        "hostname",
    ];
    entries
        .iter()
        .any(|entry| telling.contains(&entry.name.as_str()))
}

/// Inspects the system whose root is volume `root`.
pub(crate) fn inspect(volumes: Volumes, root: usize, limits: &Limits) -> Result<Guest> {
    let Some(Some(filesystem)) = volumes.opened.get(root).cloned() else {
        return Err(drylab_block::Error::corrupt(
            "the root volume has no filesystem",
        ));
    };
    let mut mounts = Mounts::root(root, &filesystem, limits);
    let entries = mounts
        .text("/etc/fstab")
        .map(|text| fstab::fstab(&text))
        .unwrap_or_default();
    mounts.add(&entries, &volumes);

    let mut findings = Vec::new();
    let loader = find_loader(&volumes, &mounts, limits);
    let booted = Booted::read(loader.as_ref(), &volumes, &mounts, limits, &mut findings);
    let folders: Vec<String> = mounts
        .list("/lib/modules")
        .into_iter()
        .map(|entry| format!("/lib/modules/{}", entry.name))
        .collect();
    let (tree, links) = tree::copy(&mounts, limits, &folders);
    let wanted = booted
        .kernel
        .as_ref()
        .map(|kernel| format!("/lib/modules/{}", kernel.version.value));
    let modules = wanted
        .map(|path| module_tree(path, &tree))
        .unwrap_or_default();
    let crypttab = tree
        .text("/etc/crypttab")
        .map(|text| fstab::crypttab(&text))
        .unwrap_or_default();
    let config = booted.kernel.as_ref().map(|kernel| {
        let path = format!("/boot/config-{}", kernel.version.value);
        let text = mounts.read(&path).unwrap_or_default();
        KernelConfig::parse(&path, &String::from_utf8_lossy(&text))
    });
    let os = identify(&mounts, &booted);
    let hostname = hostname(&mounts);

    let mut all = volumes.findings.clone();
    all.append(&mut findings);
    all.append(&mut mounts.findings.borrow_mut());
    drop(mounts);
    let system = LinuxSystem {
        loader,
        kernel: booted.kernel,
        config: config.unwrap_or_default(),
        cmdline: booted.cmdline,
        initramfs: booted.initramfs,
        fstab: entries,
        crypttab,
        modules,
        links,
    };
    let system = System::Linux(Box::new(system));
    let Volumes {
        disks,
        facts: layout,
        ..
    } = volumes;
    Ok(Guest {
        os,
        hostname,
        disks,
        layout,
        root,
        system,
        tree,
        findings: all,
    })
}

/// Finds the boot loader's configuration on any volume.
fn find_loader(volumes: &Volumes, mounts: &Mounts<'_>, limits: &Limits) -> Option<Loader> {
    for (path, kind) in MENUS {
        for (volume, filesystem) in volumes.filesystems() {
            let Ok(Some(bytes)) = filesystem.read(path, limits) else {
                continue;
            };
            let prefix = mounts.prefix_of(volume).unwrap_or_default().to_owned();
            let full = format!("{prefix}{path}");
            let text = String::from_utf8_lossy(&bytes);
            let menu = match kind {
                LoaderKind::GrubLegacy => grub::legacy(&text, &full),
                LoaderKind::Grub2 => grub::grub2(&text, &full),
            };
            return Some(Loader {
                kind,
                path: full,
                volume,
                prefix,
                entries: menu.entries,
                default: menu.default,
            });
        }
    }
    None
}

/// Volume a boot entry takes its files from: of the ways it names one, the last that succeeds.
fn entry_volume(entry: &BootEntry, loader: &Loader, volumes: &Volumes) -> usize {
    let found = entry
        .root
        .iter()
        .rev()
        .find_map(|root| find_root(&root.value, volumes));
    found.unwrap_or(loader.volume)
}

/// Volume a boot loader's name means.
fn find_root(root: &LoaderRoot, volumes: &Volumes) -> Option<usize> {
    volumes
        .facts
        .iter()
        .position(|fact| match (root, &fact.kind) {
            (
                LoaderRoot::Bios { disk, partition },
                VolumeKind::Partition {
                    disk: on, number, ..
                },
            ) => disk == on && *partition == Some(*number),
            (
                LoaderRoot::Bios {
                    disk,
                    partition: None,
                },
                VolumeKind::Whole { disk: on },
            ) => disk == on,
            (LoaderRoot::Uuid(uuid), _) => {
                !uuid.is_empty() && fact.uuid().eq_ignore_ascii_case(uuid)
            }
            (LoaderRoot::Label(label), _) => fact
                .filesystem
                .as_ref()
                .is_some_and(|filesystem| !label.is_empty() && filesystem.label == *label),
            (
                LoaderRoot::Logical(name),
                VolumeKind::Logical {
                    group, name: lv, ..
                },
            ) => *name == format!("{}-{}", group.replace('-', "--"), lv.replace('-', "--")),
            _ => false,
        })
}

/// What the default entry boots.
#[derive(Default)]
struct Booted {
    kernel: Option<Kernel>,
    cmdline: Vec<Sourced<super::model::Param>>,
    initramfs: Option<Initramfs>,
}

impl Booted {
    fn read(
        loader: Option<&Loader>,
        volumes: &Volumes,
        mounts: &Mounts<'_>,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let Some((loader, entry)) =
            loader.and_then(|loader| Some((loader, loader.default_entry()?)))
        else {
            return Self::default();
        };
        let volume = entry_volume(entry, loader, volumes);
        let Some(Some(filesystem)) = volumes.opened.get(volume) else {
            return Self::default();
        };
        let prefix = mounts.prefix_of(volume).unwrap_or_default();
        let mut read = |path: &str| match filesystem.read(path, limits) {
            Ok(bytes) => bytes,
            Err(error) => {
                findings.push(unreadable(&format!("{prefix}{path}"), &error));
                None
            }
        };
        let kernel_bytes = entry.kernel.as_ref().and_then(|kernel| read(&kernel.value));
        let initrd_bytes = entry.initrd.as_ref().and_then(|initrd| read(&initrd.value));
        let mut booted = Self::default();
        if let Some((kernel, bytes)) = entry.kernel.as_ref().zip(kernel_bytes) {
            booted.kernel = Some(kernel_fact(
                &format!("{prefix}{}", kernel.value),
                volume,
                &bytes,
            ));
        }
        if let Some(kernel) = &entry.kernel {
            booted.cmdline = fstab::cmdline(&entry.cmdline, &kernel.witness);
        }
        if let Some((initrd, bytes)) = entry.initrd.as_ref().zip(initrd_bytes) {
            let path = format!("{prefix}{}", initrd.value);
            booted.initramfs = Some(read_initramfs(path, volume, &bytes, limits, findings));
        }
        booted
    }
}

fn unreadable(path: &str, error: &drylab_block::Error) -> Finding {
    Finding {
        code: "FILE-UNREADABLE",
        severity: Severity::Error,
        offset: 0,
        message: format!("{path}: {error}"),
    }
}

fn read_initramfs(
    path: String,
    volume: usize,
    bytes: &[u8],
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Initramfs {
    match initramfs::read(bytes, limits, findings) {
        Ok(found) => Initramfs {
            path,
            volume,
            ..found
        },
        Err(error) => {
            findings.push(unreadable(&path, &error));
            // A damaged archive is one the kernel cannot unpack either: it holds nothing.
            Initramfs {
                path,
                volume,
                damaged: Some(error.to_string()),
                ..Initramfs::default()
            }
        }
    }
}

/// Version and protocol mark of a kernel: `HdrS` at 0x202, pointer to the version text at 0x20e
/// (Linux Documentation/x86/boot.rst).
fn kernel_fact(path: &str, volume: usize, bytes: &[u8]) -> Kernel {
    let bootable = array_at::<4>(bytes, 0x202) == Some(*b"HdrS")
        && array_at::<2>(bytes, 0x1fe) == Some([0x55, 0xaa]);
    let text = le_u16(bytes, 0x20e)
        .filter(|at| bootable && *at != 0)
        .and_then(|at| {
            let text = bytes.get(usize::from(at).checked_add(0x200)?..)?;
            let text = text.get(..text.iter().take(256).position(|byte| *byte == 0)?)?;
            String::from_utf8_lossy(text)
                .split_whitespace()
                .next()
                .map(str::to_owned)
        });
    let version = match text {
        Some(version) => Sourced::new(
            version.clone(),
            Witness::file(path, 0, format!("kernel header says {version}")),
        ),
        None => {
            let name = path.rsplit('/').next().unwrap_or_default();
            let version = name
                .split_once('-')
                .map_or("", |(_, version)| version)
                .to_owned();
            Sourced::new(version, Witness::file(path, 0, "by its name"))
        }
    };
    let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Kernel {
        path: path.to_owned(),
        volume,
        version,
        bytes,
        bootable,
    }
}

/// `/lib/modules/<version>` from the copied files.
fn module_tree(path: String, tree: &crate::Tree) -> ModuleTree {
    let text = |name: &str| tree.text(&format!("{path}/{name}")).unwrap_or_default();
    let depends = initramfs::dependencies(&text("modules.dep")).collect();
    let files = modules::files(tree, &path);
    let aliases = initramfs::aliases(&text("modules.alias")).collect();
    let builtin = Builtins::parse(&text("modules.builtin"));
    ModuleTree {
        path,
        depends,
        files,
        aliases,
        builtin,
    }
}

/// Distribution and architecture.
fn identify(mounts: &Mounts<'_>, booted: &Booted) -> Os {
    let arch = architecture(mounts, booted);
    let known: Vec<(&str, String)> = distro::files()
        .filter_map(|path| Some((path, mounts.text(path)?)))
        .collect();
    let read = |path: &str| {
        known
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| text.clone())
    };
    let os = distro::identify(&read, arch);
    debug_assert_eq!(os.family, Family::Linux);
    os
}

/// Architecture: machine of a program's ELF header, else the kernel's version text, else its modules.
fn architecture(mounts: &Mounts<'_>, booted: &Booted) -> Sourced<String> {
    for path in [
        "/bin/bash",
        "/bin/sh",
        "/sbin/init",
        "/bin/dash",
        "/usr/bin/bash",
    ] {
        let Some(bytes) = mounts.read(path) else {
            continue;
        };
        if array_at::<4>(&bytes, 0) != Some(*b"\x7fELF") {
            continue;
        }
        let name = match le_u16(&bytes, 0x12) {
            Some(62) => "x86_64",
            Some(3) => "i686",
            Some(183) => "aarch64",
            _ => continue,
        };
        return Sourced::new(
            name.to_owned(),
            Witness::file(path, 0, format!("ELF machine {name}")),
        );
    }
    if let Some(kernel) = &booted.kernel {
        let version = kernel.version.value.as_str();
        let known = [
            ("x86_64", "x86_64"),
            ("amd64", "x86_64"),
            ("i686", "i686"),
            ("i386", "i686"),
            ("686", "i686"),
        ];
        if let Some((_, name)) = known.iter().find(|(text, _)| version.contains(text)) {
            return Sourced::new((*name).to_owned(), kernel.version.witness.clone());
        }
    }
    if let Some(initramfs) = &booted.initramfs
        && let Some(module) = initramfs
            .modules
            .values()
            .find(|module| module.damaged.is_none())
    {
        let witness = Witness::file(
            &initramfs.path,
            0,
            format!("{} is an ELF64 module", module.path),
        );
        return Sourced::new("x86_64".to_owned(), witness);
    }
    Sourced::new(
        String::new(),
        Witness::file("/bin/sh", 0, "no program tells the architecture"),
    )
}

/// Host name: Debian's file, Red Hat's assignment.
fn hostname(mounts: &Mounts<'_>) -> Option<Sourced<String>> {
    if let Some(text) = mounts.text("/etc/hostname")
        && let Some((line, name)) = fstab::numbered(&text).find(|(_, name)| !name.trim().is_empty())
    {
        let name = name.trim();
        return Some(Sourced::new(
            name.to_owned(),
            Witness::file("/etc/hostname", line, name),
        ));
    }
    let path = "/etc/sysconfig/network";
    distro::assignment(&mounts.text(path)?, path, "HOSTNAME")
}
