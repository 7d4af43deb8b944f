//! The folder: what Export writes, what Import takes, what is left of it afterwards.

use super::{Machine, exp, settings};
use crate::Package;
use crate::findings::{At, Findings, quote};
use crate::xml::{self, Printer, Xml, elements, text_of, to_utf16};
use drylab_block::{Error, Finding, Limits, ReadAt, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CONFIG: &str = "config.xml";
const MACHINES: &str = "Virtual Machines";
const DISKS: &str = "Virtual Hard Disks";

/// Whether a folder can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As Export left it.
    Exported,
    /// A machine runs in it: a second import fails.
    Imported,
}

/// An export folder, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Whether it is still to be imported.
    pub state: State,
    /// The machine; paths of its drives are those of the exporting host until the import.
    pub machine: Machine,
    /// Package file of each disk drive, in the order of [`Machine::drives`]; none when the folder lacks it.
    pub disks: Vec<Option<String>>,
    /// What is missing or against the form.
    pub findings: Vec<Finding>,
}

/// Behind the last backslash of a path of Windows.
fn file_name(path: &str) -> &str {
    path.rsplit_once('\\').map_or(path, |(_, name)| name)
}

/// Writes the folder of a machine; `disks` are the bytes of its disk drives, in the order of [`Machine::drives`].
///
/// # Errors
/// As [`exp::print`]; [`Error::Unsupported`] when there are not as many disks as drives, or two have one file name.
pub fn export(machine: &Machine, disks: &[Arc<dyn ReadAt>]) -> Result<Package> {
    let machine = machine.clone().canonical();
    let paths: Vec<&str> = disk_paths(&machine).collect();
    if paths.len() != disks.len() {
        return Err(Error::unsupported(format_args!(
            "{} disks for {} drives of {}",
            disks.len(),
            paths.len(),
            quote(&machine.name)
        )));
    }
    let mut package = Package {
        descriptor: format!("{MACHINES}/{}.exp", machine.id),
        ..Package::default()
    };
    package.put(package.descriptor.clone(), Arc::new(exp::print(&machine)?));
    let mut names = BTreeSet::new();
    for (path, disk) in paths.iter().zip(disks) {
        let name = file_name(path);
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(Error::unsupported(format_args!(
                "two disks have the file name {}",
                quote(name)
            )));
        }
        let file = crate::safe_href(&format!("{DISKS}/{}", name.replace('%', "%25")))?;
        package.put(file.clone(), Arc::clone(disk));
        package.disks.push(file);
    }
    package.put(CONFIG, Arc::new(config(&paths)?));
    Ok(package)
}

fn disk_paths(machine: &Machine) -> impl Iterator<Item = &str> {
    let disks = machine.drives.iter().filter(|drive| !drive.is_cd);
    disks.map(|drive| drive.path.as_str())
}

/// `config.xml`: where each disk was, and its file in the folder.
fn config(paths: &[&str]) -> Result<Vec<u8>> {
    let mut printer = Printer::new();
    printer.declaration_of("UTF-16", None);
    printer.open("configuration", &[]);
    printer.open("vhds", &[]);
    for path in paths {
        printer.open("vhd", &[]);
        printer.leaf("source", &[("type", "string")], path);
        printer.leaf("file", &[("type", "string")], file_name(path));
        printer.close("vhd");
    }
    printer.close("vhds");
    printer.close("configuration");
    let bytes = printer.finish()?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Error::unsupported("text that is not UTF-8"))?;
    Ok(to_utf16(text))
}

/// Source path to file name.
fn read_config(
    bytes: &[u8],
    limits: &Limits,
    findings: &mut Findings,
) -> Result<BTreeMap<String, String>> {
    let text = xml::decode(bytes, limits, findings)?;
    let xml = Xml::parse(&text.text)?;
    let entries = xml
        .document
        .descendants()
        .filter(|node| node.has_tag_name("vhd"));
    let pairs = entries.map(|entry| {
        let field = |name: &str| {
            let node = elements(entry).find(|node| node.has_tag_name(name));
            node.map(text_of).unwrap_or_default()
        };
        (field("source"), field("file"))
    });
    Ok(pairs.collect())
}

impl Folder {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has no settings of one machine under `Virtual Machines`; whatever reading them finds.
    pub fn open(package: &Package, limits: &Limits) -> Result<Self> {
        let settings = |extension: &str| {
            let names = package
                .files
                .keys()
                .filter_map(|name| name.strip_prefix(MACHINES)?.strip_prefix('/'));
            let names = names.filter(|name| {
                !name.contains('/') && name.to_ascii_lowercase().ends_with(extension)
            });
            names
                .map(|name| format!("{MACHINES}/{name}"))
                .collect::<Vec<_>>()
        };
        let (exported, imported) = (settings(".exp"), settings(".xml"));
        let mut findings = Findings::default();
        let (state, machine, found) = match (exported.as_slice(), imported.as_slice()) {
            ([name], []) => {
                let (machine, found) = exp::parse(&package.text(name, limits)?, limits)?;
                (State::Exported, machine, found)
            }
            ([], [name]) => {
                let (machine, found) = settings::parse(&package.text(name, limits)?, limits)?;
                (State::Imported, machine, found)
            }
            _ => {
                return Err(Error::corrupt(format_args!(
                    "{} .exp and {} .xml files under {MACHINES}: not the export of one machine",
                    exported.len(),
                    imported.len()
                )));
            }
        };
        let names = if package.files.contains_key(CONFIG) {
            read_config(&package.text(CONFIG, limits)?, limits, &mut findings)?
        } else {
            if state == State::Exported {
                findings.error(
                    "HYPERV-NO-CONFIG",
                    At::default(),
                    "an export without config.xml is not imported",
                );
            }
            BTreeMap::new()
        };
        let mut disks = Vec::new();
        for path in disk_paths(&machine) {
            let name = names
                .get(path)
                .map_or_else(|| file_name(path), String::as_str);
            let wanted = format!("{DISKS}/{name}");
            let file = package
                .files
                .keys()
                .find(|file| file.eq_ignore_ascii_case(&wanted))
                .cloned();
            if file.is_none() {
                findings.error(
                    "HYPERV-DISK-MISSING",
                    At::default(),
                    format_args!("disk {} is not in the folder", quote(&wanted)),
                );
            }
            disks.push(file);
        }
        let mut findings = findings.into_list();
        findings.extend(found);
        Ok(Self {
            state,
            machine,
            disks,
            findings,
        })
    }
}

/// The folder after an import on a host where it stands at `root`: the machine runs from it, so the `.exp` file has become
/// the configuration, the drives have their new places, and a second import finds nothing to take.
///
/// # Errors
/// [`Error::Unsupported`] when it was imported before; as [`Folder::open`] and [`settings::print`].
pub fn import_marks(package: &Package, root: &str, limits: &Limits) -> Result<Package> {
    let folder = Folder::open(package, limits)?;
    if folder.state == State::Imported {
        return Err(Error::unsupported(
            "the export was imported before; its machine runs in this folder",
        ));
    }
    let mut machine = folder.machine;
    let drives = machine.drives.iter_mut().filter(|drive| !drive.is_cd);
    for (drive, file) in drives.zip(&folder.disks) {
        if let Some(file) = file {
            drive.path = format!("{root}\\{}", file.replace('/', "\\"));
        }
    }
    let mut package = package.clone();
    let is_left = |name: &str| name != CONFIG && !name.to_ascii_lowercase().ends_with(".exp");
    package.files.retain(|name, _| is_left(name));
    package.descriptor = format!("{MACHINES}/{}.xml", machine.id);
    package.put(
        package.descriptor.clone(),
        Arc::new(settings::print(&machine)?),
    );
    Ok(package)
}
