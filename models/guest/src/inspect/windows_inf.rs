//! Network drivers that Windows finds by itself: packages of its driver store, and of the folders of `DevicePath`.
//!
//! Microsoft, "Configure Windows to Search Additional Folders for Device Drivers" (Windows 7, Server 2008 R2): first
//! the driver store is searched, then the folders that the value names, whose package is copied to the store and
//! installed from there (quirk DQ312).
//!
//! ```text
//! \Windows\inf\NAME.inf                              published by the store; FileRepository\NAME.inf_…\ has the files
//! SOFTWARE\Microsoft\Windows\CurrentVersion
//!     DevicePath = %SystemRoot%\inf;%SystemRoot%\Drivers\VirtIO
//! \Windows\Drivers\VirtIO\NAME.inf                   its binary and its catalogue stand beside it
//! ```
//!
//! Folders below those named are not searched. What a catalogue is signed with is not read.

use super::inf::{self, Model};
use super::registry::Registry;
use super::windows::Files;
use crate::net::windows::InfDriver;
use drylab_catalog::Witness;
use std::collections::{BTreeMap, BTreeSet};

/// Most folders taken of `DevicePath`.
const FOLDERS_MAX: usize = 64;

/// Hardware ids with the driver for each, and the folders of `DevicePath` that could not be searched.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) drivers: BTreeMap<String, InfDriver>,
    pub(crate) unsearched: Vec<Witness>,
}

/// Searches the driver store, then the folders of `DevicePath` in their order.
pub(crate) fn search(software: Option<&Registry>, files: &Files<'_>) -> Found {
    let mut found = Found::default();
    published(files, &mut found.drivers);
    let key = "Microsoft\\Windows\\CurrentVersion";
    let value = software.and_then(|software| software.text(key, "DevicePath"));
    let Some(value) = value else { return found };
    let entries = value.value.split(';').map(str::trim);
    for entry in entries.filter(|entry| !entry.is_empty()).take(FOLDERS_MAX) {
        let place = |says: String| Witness {
            says,
            ..value.witness.clone()
        };
        match expand(entry, files.folder) {
            Some(folder) if folder.eq_ignore_ascii_case(&format!("{}/inf", files.folder)) => {}
            Some(folder) => {
                let named = place(format!("names the folder {entry}"));
                beside(files, &folder, &named, &mut found.drivers);
            }
            None => {
                let says = format!("names {entry}, which is not on the system's volume");
                found.unsearched.push(place(says));
            }
        }
    }
    found
}

/// Path in the guest of a folder as the registry names it; `None` when it is elsewhere.
fn expand(entry: &str, system: &str) -> Option<String> {
    let path = entry.trim_matches('"').replace('\\', "/");
    let lower = path.to_ascii_lowercase();
    let known = [
        ("%systemroot%", system),
        ("%windir%", system),
        ("%systemdrive%", ""),
        ("c:", ""),
    ];
    let (prefix, stands_for) = known.iter().find(|(name, _)| lower.starts_with(name))?;
    let rest = path.get(prefix.len()..)?.trim_end_matches('/');
    let inside = rest.is_empty() || rest.starts_with('/');
    inside.then(|| format!("{stands_for}{rest}"))
}

/// File of a binary: the part of `%12%\netkvm.sys` behind the folder.
fn file_of(model: &Model) -> String {
    let path = &model.binary;
    path.rsplit('\\').next().unwrap_or_default().to_owned()
}

/// Takes a driver, unless a whole one is known for the id.
fn offer(drivers: &mut BTreeMap<String, InfDriver>, id: String, driver: InfDriver) {
    let whole = |known: &InfDriver| known.missing.is_none();
    if !drivers.get(&id).is_some_and(whole) {
        drivers.insert(id, driver);
    }
}

fn infs(names: &BTreeSet<String>) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| name.ends_with(".inf"))
}

/// Packages of the driver store, as published in `\Windows\inf`.
fn published(files: &Files<'_>, drivers: &mut BTreeMap<String, InfDriver>) {
    let binaries = files.names("System32/drivers");
    let mut store = Store {
        packages: files.names(STORE),
        opened: BTreeMap::new(),
    };
    for name in infs(&files.names("inf")) {
        let Some(bytes) = files.read(&format!("inf/{name}")) else {
            continue;
        };
        for model in inf::network_models(&bytes) {
            let file = file_of(&model);
            let lower = file.to_lowercase();
            let present = binaries.contains(&lower) || store.holds(files, name, &lower);
            let path = format!("{}/System32/drivers/{file}", files.folder);
            let driver = InfDriver {
                inf: format!("{}/inf/{name}", files.folder),
                service: model.service,
                line: model.line,
                missing: (!present).then(|| format!("{path} is not there")),
                searched: None,
            };
            offer(drivers, model.hardware_id, driver);
        }
    }
}

/// Packages of a folder of `DevicePath`: all they need stands beside the INF.
fn beside(
    files: &Files<'_>,
    folder: &str,
    named: &Witness,
    drivers: &mut BTreeMap<String, InfDriver>,
) {
    let names = files.names_at(folder);
    for name in infs(&names) {
        let inf = format!("{folder}/{name}");
        let Some(bytes) = files.read_at(&inf) else {
            continue;
        };
        for model in inf::network_models(&bytes) {
            let file = file_of(&model);
            let catalogue = model.catalogue.as_deref();
            let mut needed = [Some(file.as_str()), catalogue].into_iter().flatten();
            let gone = needed.find(|file| !names.contains(&file.to_lowercase()));
            let unsigned = || {
                catalogue
                    .is_none()
                    .then(|| "it has no catalogue".to_owned())
            };
            let missing = gone
                .map(|file| format!("{folder}/{file} is not there"))
                .or_else(unsigned);
            let driver = InfDriver {
                inf: inf.clone(),
                service: model.service,
                line: model.line,
                missing,
                searched: Some(named.clone()),
            };
            offer(drivers, model.hardware_id, driver);
        }
    }
}

/// The driver store.
const STORE: &str = "System32/DriverStore/FileRepository";

/// Packages of the driver store, each listed once.
struct Store {
    packages: BTreeSet<String>,
    opened: BTreeMap<String, BTreeSet<String>>,
}

impl Store {
    /// Whether a package of this INF holds the file: `FileRepository\<inf>_…\<file>`.
    fn holds(&mut self, files: &Files<'_>, inf: &str, file: &str) -> bool {
        let prefix = format!("{inf}_");
        let packages = self
            .packages
            .range(prefix.clone()..)
            .take_while(|package| package.starts_with(&prefix));
        let opened = &mut self.opened;
        packages.into_iter().any(|package| {
            let listed = opened.entry(package.clone());
            listed
                .or_insert_with(|| files.names(&format!("{STORE}/{package}")))
                .contains(file)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn a_folder_of_device_path_is_on_the_systems_volume_or_elsewhere() {
        for (entry, folder) in [
            ("%SystemRoot%\\inf", Some("/Windows/inf")),
            (
                "%systemroot%\\Drivers\\VirtIO\\",
                Some("/Windows/Drivers/VirtIO"),
            ),
            ("C:\\drivers", Some("/drivers")),
            ("%SystemDrive%\\drivers", Some("/drivers")),
            ("D:\\drivers", None),
            ("\\\\server\\share", None),
            ("%SystemRootish%\\x", None),
            ("C:drivers", None),
        ] {
            assert_eq!(expand(entry, "/Windows").as_deref(), folder, "{entry}");
        }
    }
}
