//! A Windows guest from its NTFS volumes and hives.

use super::bcd;
use super::model::{
    Bcd, Family, Guest, MountedDevice, Os, Service, Sourced, System, WindowsSystem,
};
use super::registry::Registry;
use super::volumes::Volumes;
use super::windows_net;
use crate::Tree;
use drylab_block::{Error, Finding, Limits, Result, Severity, array_at, le_u16, le_u32, le_u64};
use drylab_catalog::Witness;
use drylab_filesystem::{FileType, Filesystem, Kind};
use drylab_hive::Hive;
use std::collections::{BTreeMap, BTreeSet};

/// Most services read of one hive; real ones have fewer than a thousand.
const SERVICES_MAX: usize = 4096;

/// Folder of the Windows system on a filesystem: the one with `system32\config\SYSTEM`.
pub(crate) fn folder(filesystem: &dyn Filesystem, limits: &Limits) -> Option<String> {
    if filesystem.kind() != Kind::Ntfs {
        return None;
    }
    let entries = filesystem.list("/", limits).ok()??;
    let mut names: Vec<String> = entries
        .into_iter()
        .filter(|entry| entry.file_type == FileType::Directory)
        .map(|entry| entry.name)
        .collect();
    names.sort_by_key(|name| !name.eq_ignore_ascii_case("windows"));
    names
        .into_iter()
        .map(|name| format!("/{name}"))
        .find(|folder| {
            let config = filesystem.list(&format!("{folder}/system32/config"), limits);
            config.is_ok_and(|list| {
                list.is_some_and(|list| {
                    list.iter()
                        .any(|entry| entry.name.eq_ignore_ascii_case("system"))
                })
            })
        })
}

/// Opens a hive file.
fn hive(
    filesystem: &dyn Filesystem,
    path: &str,
    name: &'static str,
    limits: &Limits,
) -> Result<Option<Registry>> {
    let Some(bytes) = filesystem.read(path, limits)? else {
        return Ok(None);
    };
    let hive = Hive::open(bytes, limits).map_err(|error| error.within(path))?;
    Ok(Some(Registry::new(hive, name)))
}

/// Inspects the system in `folder` of volume `root`.
pub(crate) fn inspect(
    volumes: Volumes,
    root: usize,
    folder: &str,
    limits: &Limits,
) -> Result<Guest> {
    let Some(Some(filesystem)) = volumes.opened.get(root).cloned() else {
        return Err(Error::corrupt("the system volume has no filesystem"));
    };
    let files = Files {
        filesystem: filesystem.as_ref(),
        folder,
        limits,
    };
    let config = format!("{folder}/System32/config");
    let Some(system) = hive(
        files.filesystem,
        &format!("{config}/SYSTEM"),
        "SYSTEM",
        limits,
    )?
    else {
        return Err(Error::corrupt(format_args!("{config}/SYSTEM is missing")));
    };
    let software = hive(
        files.filesystem,
        &format!("{config}/SOFTWARE"),
        "SOFTWARE",
        limits,
    )?;
    let control_set = control_set(&system);
    let set = control_set.value.as_str();
    let bcd = find_bcd(&volumes, limits);
    let mut findings = volumes.findings.clone();
    findings.append(&mut system.findings.borrow_mut());
    let bcd = match bcd {
        Ok(found) => found.map(|found| Bcd {
            loader_present: files.holds(found.loader.as_ref()),
            ..found
        }),
        Err(error) => {
            findings.push(Finding {
                code: "BCD-UNREADABLE",
                severity: Severity::Error,
                offset: 0,
                message: error.to_string(),
            });
            None
        }
    };
    let os = Product::read(software.as_ref(), &config);
    let arch = architecture(&files, &system, set);
    let hostname = system.text(
        &format!("{set}\\Control\\ComputerName\\ComputerName"),
        "ComputerName",
    );
    let windows = WindowsSystem {
        folder: folder.to_owned(),
        product: os.product.clone(),
        nt: os.nt.clone(),
        build: os.build.clone(),
        services: services(&system, set, &files),
        critical_devices: critical_devices(&system, set),
        driver_database: system.key("DriverDatabase").is_some(),
        bcd,
        mounted: mounted(&system),
        clock_utc: clock(&system, set),
        hibernated: hibernated(files.filesystem, limits)?,
        net: windows_net::read(&system, software.as_ref(), set, &files),
        control_set,
    };
    findings.append(&mut system.findings.borrow_mut());
    let version = format!("{}.{}", os.nt.value, os.build.value);
    let os = Os {
        family: Family::Windows,
        name: Sourced::new("windows".to_owned(), os.nt.witness.clone()),
        version: Sourced::new(version, os.build.witness),
        arch,
        pretty: os.product,
    };
    let Volumes {
        disks,
        facts: layout,
        ..
    } = volumes;
    let system = System::Windows(Box::new(windows));
    Ok(Guest {
        os,
        hostname,
        disks,
        layout,
        root,
        system,
        tree: Tree::new(),
        findings,
    })
}

/// The system volume's files.
pub(crate) struct Files<'a> {
    filesystem: &'a dyn Filesystem,
    pub(crate) folder: &'a str,
    limits: &'a Limits,
}

impl Files<'_> {
    /// Names in a folder below the system's, in lower case.
    pub(crate) fn names(&self, folder: &str) -> BTreeSet<String> {
        self.names_at(&format!("{}/{folder}", self.folder))
    }

    /// Names in a folder of the system's volume, in lower case.
    pub(crate) fn names_at(&self, path: &str) -> BTreeSet<String> {
        let list = self
            .filesystem
            .list(path, self.limits)
            .ok()
            .flatten()
            .unwrap_or_default();
        list.into_iter()
            .map(|entry| entry.name.to_lowercase())
            .collect()
    }

    /// Whether the loader's file is on this volume.
    fn holds(&self, loader: Option<&Sourced<String>>) -> bool {
        let path = loader.map(|loader| loader.value.replace('\\', "/"));
        path.is_some_and(|path| {
            self.filesystem
                .read(&path, self.limits)
                .is_ok_and(|bytes| bytes.is_some())
        })
    }

    /// Content of a file below the system's folder.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.read_at(&format!("{}/{path}", self.folder))
    }

    /// Content of a file of the system's volume.
    pub(crate) fn read_at(&self, path: &str) -> Option<Vec<u8>> {
        self.filesystem.read(path, self.limits).ok().flatten()
    }
}

/// Windows keeps its memory in the root of the system volume.
fn hibernated(filesystem: &dyn Filesystem, limits: &Limits) -> Result<Option<Witness>> {
    let sleeps = filesystem.is_hibernated(limits)?;
    let says = "starts as that of a Windows that sleeps";
    Ok(sleeps.then(|| Witness::file("/hiberfil.sys", 0, says)))
}

/// `Select\Current` names the control set in use: not always the first.
fn control_set(system: &Registry) -> Sourced<String> {
    match system.number("Select", "Current") {
        Some(number) => Sourced::new(format!("ControlSet{:03}", number.value), number.witness),
        None => Sourced::new(
            "ControlSet001".to_owned(),
            system.witness("Select", "Current", "missing: the first is taken"),
        ),
    }
}

/// Name and version.
struct Product {
    product: Sourced<String>,
    nt: Sourced<String>,
    build: Sourced<String>,
}

impl Product {
    fn read(software: Option<&Registry>, config: &str) -> Self {
        let key = "Microsoft\\Windows NT\\CurrentVersion";
        let text = |name: &str| {
            software
                .and_then(|software| software.text(key, name))
                .unwrap_or_else(|| {
                    Sourced::new(
                        String::new(),
                        Witness::file(format!("{config}/SOFTWARE"), 0, format!("no value {name}")),
                    )
                })
        };
        let number = |name: &str| software.and_then(|software| software.number(key, name));
        // NT 10 keeps CurrentVersion at 6.3 for old programs; the numbers beside it tell the truth.
        let nt = match (
            number("CurrentMajorVersionNumber"),
            number("CurrentMinorVersionNumber"),
        ) {
            (Some(major), Some(minor)) => {
                Sourced::new(format!("{}.{}", major.value, minor.value), major.witness)
            }
            _ => text("CurrentVersion"),
        };
        Self {
            product: text("ProductName"),
            nt,
            build: text("CurrentBuildNumber"),
        }
    }
}

/// Machine of cmd.exe's PE header, else what the session manager's environment says.
fn architecture(files: &Files<'_>, system: &Registry, set: &str) -> Sourced<String> {
    let path = format!("{}/System32/cmd.exe", files.folder);
    if let Some(bytes) = files.read("System32/cmd.exe")
        && let Some(at) = le_u32(&bytes, 0x3c).and_then(|at| usize::try_from(at).ok())
        && array_at::<4>(&bytes, at) == Some(*b"PE\0\0")
    {
        let name = match at.checked_add(4).and_then(|at| le_u16(&bytes, at)) {
            Some(0x8664) => "x86_64",
            Some(0x014c) => "i686",
            Some(0xaa64) => "aarch64",
            _ => "",
        };
        return Sourced::new(
            name.to_owned(),
            Witness::file(path, 0, format!("PE machine {name}")),
        );
    }
    let key = format!("{set}\\Control\\Session Manager\\Environment");
    match system.text(&key, "PROCESSOR_ARCHITECTURE") {
        Some(text) => {
            let name = match text.value.as_str() {
                "AMD64" => "x86_64",
                "x86" => "i686",
                _ => "",
            };
            Sourced::new(name.to_owned(), text.witness)
        }
        None => Sourced::new(
            String::new(),
            Witness::file(path, 0, "no program tells the architecture"),
        ),
    }
}

/// Services and drivers of the control set.
fn services(system: &Registry, set: &str, files: &Files<'_>) -> BTreeMap<String, Service> {
    let mut found = BTreeMap::new();
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let base = format!("{set}\\Services");
    for key in system.subkeys(&base).into_iter().take(SERVICES_MAX) {
        let name = key.name().to_owned();
        let path = format!("{base}\\{name}");
        let number = |value: &str| {
            key.value(value)
                .ok()
                .flatten()
                .and_then(|value| value.as_u32())
        };
        let text = |value: &str| {
            key.value(value)
                .ok()
                .flatten()
                .and_then(|value| value.as_string())
                .unwrap_or_default()
        };
        let kind = number("Type");
        let image = image_path(&text("ImagePath"), &name, kind, files.folder);
        let driver = matches!(kind, Some(1 | 2));
        let present = driver && {
            let relative = image
                .get(files.folder.len()..)
                .unwrap_or_default()
                .trim_start_matches('/');
            let (folder, file) = relative.rsplit_once('/').unwrap_or(("", relative));
            let names = folders
                .entry(folder.to_lowercase())
                .or_insert_with(|| files.names(folder));
            names.contains(&file.to_lowercase())
        };
        let service = Service {
            key: system.full(&path),
            start: number("Start"),
            kind,
            group: text("Group"),
            image,
            present,
            name,
        };
        found.insert(service.name.to_lowercase(), service);
    }
    found
}

/// Path of a service's binary in the guest. A driver without one is `system32\drivers\<name>.sys`.
fn image_path(value: &str, name: &str, kind: Option<u32>, folder: &str) -> String {
    let path = value.trim().trim_matches('"').replace('\\', "/");
    let lower = path.to_lowercase();
    let after = |prefix: &str| {
        lower
            .starts_with(prefix)
            .then(|| path.get(prefix.len()..).unwrap_or_default().to_owned())
    };
    if path.is_empty() {
        return match kind {
            Some(1 | 2) => format!("{folder}/System32/drivers/{name}.sys"),
            _ => String::new(),
        };
    }
    if let Some(rest) = after("/systemroot/").or_else(|| after("%systemroot%/")) {
        return format!("{folder}/{rest}");
    }
    let rest = after("/??/").unwrap_or_else(|| path.clone());
    if let Some((drive, rest)) = rest.split_once(':').filter(|(drive, _)| drive.len() == 1) {
        debug_assert_eq!(drive.len(), 1);
        return rest.to_owned();
    }
    if path.starts_with('/') {
        path
    } else {
        format!("{folder}/{path}")
    }
}

/// `CriticalDeviceDatabase`: which service takes a device before the registry can be asked.
fn critical_devices(system: &Registry, set: &str) -> BTreeMap<String, Sourced<String>> {
    let base = format!("{set}\\Control\\CriticalDeviceDatabase");
    let mut found = BTreeMap::new();
    for key in system.subkeys(&base) {
        let Some(service) = key
            .value("Service")
            .ok()
            .flatten()
            .and_then(|value| value.as_string())
        else {
            continue;
        };
        let witness = system.witness(&format!("{base}\\{}", key.name()), "Service", &service);
        found.insert(key.name().to_lowercase(), Sourced::new(service, witness));
    }
    found
}

/// `MountedDevices`: 12 bytes name an MBR partition by disk signature and byte offset.
fn mounted(system: &Registry) -> BTreeMap<String, Sourced<MountedDevice>> {
    let mut found = BTreeMap::new();
    for value in system.values("MountedDevices") {
        let data = value.data();
        let device = match (data.len(), le_u32(&data, 0), le_u64(&data, 4)) {
            (12, Some(signature), Some(offset)) => MountedDevice::Mbr { signature, offset },
            _ => MountedDevice::Other,
        };
        let says = match &device {
            MountedDevice::Mbr { signature, offset } => {
                format!("disk signature {signature:08x}, byte {offset}")
            }
            MountedDevice::Other => format!("{} bytes", data.len()),
        };
        let witness = system.witness("MountedDevices", value.name(), &says);
        found.insert(value.name().to_owned(), Sourced::new(device, witness));
    }
    found
}

/// The clock chip counts local time unless `RealTimeIsUniversal` is 1.
fn clock(system: &Registry, set: &str) -> Sourced<bool> {
    let key = format!("{set}\\Control\\TimeZoneInformation");
    match system.number(&key, "RealTimeIsUniversal") {
        Some(number) => Sourced::new(number.value != 0, number.witness),
        None => Sourced::new(
            false,
            system.witness(
                &key,
                "RealTimeIsUniversal",
                "missing: the clock counts local time",
            ),
        ),
    }
}

/// Finds the boot configuration: `\Boot\BCD` of the first volume that has one, active partitions first.
fn find_bcd(volumes: &Volumes, limits: &Limits) -> Result<Option<Bcd>> {
    let mut order: Vec<usize> = volumes.filesystems().map(|(index, _)| index).collect();
    let active = |index: &usize| {
        volumes.facts.get(*index).is_some_and(|fact| {
            matches!(
                fact.kind,
                super::model::VolumeKind::Partition { active: true, .. }
            )
        })
    };
    order.sort_by_key(|index| !active(index));
    for index in order {
        let Some(Some(filesystem)) = volumes.opened.get(index) else {
            continue;
        };
        if filesystem.kind() != Kind::Ntfs {
            continue;
        }
        if let Some(store) = hive(filesystem.as_ref(), "/Boot/BCD", "BCD", limits)? {
            let manager = filesystem.read("/bootmgr", limits)?.is_some();
            return Ok(Some(Bcd {
                manager,
                ..bcd::read(&store, index, "/Boot/BCD")
            }));
        }
    }
    Ok(None)
}
