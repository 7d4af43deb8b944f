//! How the tool reads a VMX file, and the descriptors of the disks that it names.

use super::ImportError;
use super::machine::{Bus, Disk, Kind, Memory, Vm, integer};
use crate::qemu_img_0_12::Format;
use drylab_appliance::Package;
use drylab_block::{Limits, read_vec};
use std::collections::BTreeMap;

/// Largest file taken for a descriptor (quirk GQ105).
const DESCRIPTOR_MAX: u64 = 10 * 1024;

/// Whether a line says that this is VMX: the interpreter line, or `config.version` followed by a blank.
pub(crate) fn is_vmx(text: &str) -> bool {
    text.lines().any(|line| {
        let versioned = line.strip_prefix("config.version").is_some_and(|rest| {
            rest.starts_with(char::is_whitespace) && rest.trim_start().starts_with('=')
        });
        let interpreter = line.strip_prefix("#!").map(str::trim_start);
        let player = ["/usr/bin/vmware", "/usr/bin/vmplayer"];
        versioned
            || interpreter.is_some_and(|rest| player.iter().any(|path| rest.starts_with(path)))
    })
}

/// Key, lower-cased, and value of a line; `None` for blank lines and comments.
fn pair(line: &str) -> Option<Result<(String, String), ()>> {
    if line.trim().is_empty() || line.starts_with('#') {
        return None;
    }
    let split = line.split_once('=').ok_or(());
    Some(split.map(|(key, value)| {
        let value = value.trim().trim_matches('"');
        (key.trim().to_lowercase(), value.to_owned())
    }))
}

/// Reads a machine; `package` has the disks it names.
pub(crate) fn import(text: &str, file_name: &str, package: &Package) -> Result<Vm, ImportError> {
    let mut vm = Vm::default();
    let mut config: BTreeMap<String, String> = BTreeMap::new();
    for (number, (line, pair)) in
        (1u32..).zip(text.lines().filter_map(|line| Some((line, pair(line)?))))
    {
        let syntax = || ImportError::new(format!("Syntax error at line {number}: {}", line.trim()));
        let (key, value) = pair.map_err(|()| syntax())?;
        if key.starts_with("scsi") || key.starts_with("ide") {
            disk_entry(&mut vm, &key, &value).ok_or_else(syntax)?;
        }
        if key.starts_with("ethernet") {
            nic_entry(&mut vm, &key, &value).ok_or_else(syntax)?;
        }
        config.insert(key, value);
    }
    let mut redirected = BTreeMap::new();
    for (place, disk) in &mut vm.disks {
        let Some(path) = disk.path.clone() else {
            continue;
        };
        if disk.kind != Kind::Disk {
            if path.eq_ignore_ascii_case("auto detect") || !package.files.contains_key(&path) {
                disk.path = None;
            }
            continue;
        }
        if disk.format == Format::Vmdk {
            redirected.insert(*place, descriptor(&path, package)?);
        }
    }
    for (place, outcome) in redirected {
        match outcome {
            Descriptor::None => {}
            Descriptor::TooLarge => vm.cite("GQ105"),
            Descriptor::Unreadable(message) => vm.said.push(message),
            Descriptor::Names(file) => {
                if let Some(disk) = vm.disks.get_mut(&place) {
                    disk.path = Some(file);
                }
            }
        }
    }
    let name = config.remove("displayname").filter(|name| !name.is_empty());
    vm.name = Some(name.ok_or_else(|| {
        ImportError::new(format!("No displayName defined in '{file_name}'")).because("HQ57")
    })?);
    vm.memory = config
        .remove("memsize")
        .filter(|text| !text.is_empty())
        .map(Memory::Text);
    vm.description = config.remove("annotation").unwrap_or_default();
    if let Some(count) = config.remove("numvcpus") {
        vm.vcpus = integer(&count).map_err(ImportError::new)?;
    }
    vm.validated()
}

/// `scsi0:0.fileName` and its like; keys of a whole bus are skipped. `None` for a key of another form.
fn disk_entry(vm: &mut Vm, key: &str, value: &str) -> Option<()> {
    let (bus, rest) = match key.strip_prefix("scsi") {
        Some(rest) => (Bus::Scsi, rest),
        None => (Bus::Ide, key.strip_prefix("ide")?),
    };
    let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let bus_number: i64 = rest.strip_suffix(digits)?.parse().ok()?;
    let Some(rest) = digits.strip_prefix(':') else {
        return Some(());
    };
    let (unit, property) = rest.split_once('.')?;
    let mut unit: i64 = unit.parse().ok()?;
    if property == "present" && value.eq_ignore_ascii_case("false") {
        return Some(());
    }
    match bus {
        Bus::Ide => unit = unit.saturating_add(bus_number.saturating_mul(2)),
        Bus::Scsi => vm.cite("GQ98"),
    }
    let disk = vm.disks.entry((bus, unit)).or_insert(Disk {
        path: None,
        format: Format::Raw,
        kind: Kind::Disk,
    });
    let lower = value.to_lowercase();
    match (property, lower.as_str()) {
        ("devicetype", "atapi-cdrom" | "cdrom-raw") => disk.kind = Kind::Cdrom,
        ("devicetype", "cdrom-image") => disk.kind = Kind::Iso,
        ("filename", _) => {
            disk.path = Some(value.to_owned());
            disk.format = if lower.ends_with(".vmdk") {
                Format::Vmdk
            } else {
                Format::Raw
            };
        }
        _ => {}
    }
    Some(())
}

/// Any key of an adapter but `present = FALSE` makes it one.
fn nic_entry(vm: &mut Vm, key: &str, value: &str) -> Option<()> {
    let rest = key.strip_prefix("ethernet")?;
    let (number, property) = rest.split_once('.')?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if property == "present" && value.eq_ignore_ascii_case("false") {
        return Some(());
    }
    vm.nics.insert(number.to_owned(), ());
    if property == "addresstype" && value.eq_ignore_ascii_case("generated") {
        vm.cite("GQ103");
    }
    Some(())
}

enum Descriptor {
    /// No such file, which is somebody else's trouble.
    None,
    TooLarge,
    /// Not a text of keys and extents; the file is then taken as it is.
    Unreadable(String),
    /// The one extent it names.
    Names(String),
}

/// Looks into a file called .vmdk that is small enough to be a descriptor.
fn descriptor(path: &str, package: &Package) -> Result<Descriptor, ImportError> {
    let Some(file) = package.files.get(path) else {
        return Ok(Descriptor::None);
    };
    if file.len() > DESCRIPTOR_MAX {
        let head = read_vec(file, path, 0, 21, &Limits::DEFAULT).unwrap_or_default();
        let text = head == b"# Disk DescriptorFile";
        return Ok(if text {
            Descriptor::TooLarge
        } else {
            Descriptor::None
        });
    }
    let bytes = read_vec(file, path, 0, file.len(), &Limits::DEFAULT).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut extents = Vec::new();
    for line in text.lines() {
        if line.starts_with("RW ") {
            extents.push(line);
        } else if matches!(pair(line), Some(Err(()))) {
            let says = format!("ERROR    {path} looked like a vmdk file, but parsing failed");
            return Ok(Descriptor::Unreadable(says));
        }
    }
    match extents.as_slice() {
        [] => Err(ImportError::new(
            "Didn't detect a storage line in the VMDK descriptor file",
        )),
        [extent] => {
            let name = extent.split('"').nth(1);
            name.map(|name| Descriptor::Names(name.to_owned()))
                .ok_or_else(|| ImportError::new("Path was not fourth entry in VMDK storage line"))
        }
        _ => Err(
            ImportError::new("Don't know how to handle multistorage VMDK descriptors")
                .because("GQ105")
                .because("HQ56"),
        ),
    }
}
