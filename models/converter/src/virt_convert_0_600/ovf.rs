//! How the tool reads OVF: by local names, the first child of a name, and guesses about units.

use super::ImportError;
use super::machine::{Bus, Disk, Kind, Memory, Vm, integer};
use crate::qemu_img_0_12::Format;
use roxmltree::{Document, Node, ParsingOptions};
use std::collections::BTreeMap;

const NAMESPACE: &str = "http://schemas.dmtf.org/ovf/envelope/1";

/// Whether the tool takes a text for OVF: the literal end tag without a prefix, and the root it looks for.
pub(crate) fn is_ovf(text: &str) -> bool {
    text.contains("</Envelope>")
        && document(text).is_ok_and(|document| envelope(&document).is_some())
}

/// Whether it is OVF in fact, only written with a prefix.
pub(crate) fn is_prefixed(text: &str) -> bool {
    !text.contains("</Envelope>")
        && document(text).is_ok_and(|document| envelope(&document).is_some())
}

fn document(text: &str) -> Result<Document<'_>, ImportError> {
    drylab_appliance::xml::check_bounds(text)
        .map_err(|error| ImportError::new(error.to_string()))?;
    let options = ParsingOptions {
        nodes_limit: drylab_appliance::xml::NODES_MAX,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|error| ImportError::new(error.to_string()))
}

fn envelope<'a, 'i>(document: &'a Document<'i>) -> Option<Node<'a, 'i>> {
    let root = document.root_element();
    (root.tag_name().name() == "Envelope" && root.tag_name().namespace() == Some(NAMESPACE))
        .then_some(root)
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

fn named<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    elements(node).filter(move |child| child.tag_name().name() == name)
}

/// All text below a node.
fn content(node: Node<'_, '_>) -> String {
    node.descendants()
        .filter(Node::is_text)
        .filter_map(|text| text.text())
        .collect()
}

fn child(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    named(node, name).next().map(content)
}

/// An attribute by its local name.
fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes()
        .find(|attribute| attribute.name() == name)
        .map(|attribute| attribute.value())
}

/// The tool's guess at a size in MiB, whatever unit was written, and whether it took the number for MiB.
fn guess_mib(text: &str) -> Result<(i64, bool), ImportError> {
    const SCALE: i128 = 1_000_000;
    const KIB: i128 = 1024;
    let wrong = || ImportError::new(format!("could not convert string to float: {text}"));
    let value = decimal(text.trim(), SCALE).ok_or_else(wrong)?;
    let rounded = |unit: i128| {
        let unit = unit.saturating_mul(SCALE);
        let twice = value.saturating_mul(2).saturating_add(unit);
        twice.checked_div(unit.saturating_mul(2)).unwrap_or(0)
    };
    let (mib, plain) = if value > SCALE.saturating_mul(100_000_000) {
        (rounded(KIB * KIB), false)
    } else if value > SCALE.saturating_mul(100_000) {
        (rounded(KIB), false)
    } else if value < SCALE.saturating_mul(32) {
        (
            value.saturating_mul(KIB).checked_div(SCALE).unwrap_or(0),
            false,
        )
    } else {
        (value.checked_div(SCALE).unwrap_or(0), true)
    };
    Ok((i64::try_from(mib).map_err(|_| wrong())?, plain))
}

/// A decimal number times `scale`; digits behind the sixth are dropped.
fn decimal(text: &str, scale: i128) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty())
        || !all_digits(whole)
        || !all_digits(part)
        || whole.len() > 20
    {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let six: String = part.chars().chain("000000".chars()).take(6).collect();
    let value = whole
        .saturating_mul(scale)
        .saturating_add(six.parse().ok()?);
    Some(if negative {
        value.saturating_neg()
    } else {
        value
    })
}

#[derive(Default)]
struct Tables {
    files: BTreeMap<String, String>,
    disks: BTreeMap<String, Option<String>>,
}

/// Reads a machine.
pub(crate) fn import(text: &str) -> Result<Vm, ImportError> {
    let document = document(text)?;
    let envelope =
        envelope(&document).ok_or_else(|| ImportError::new("list index out of range"))?;
    let mut vm = Vm::default();
    let mut tables = Tables::default();
    for section in elements(envelope) {
        read_section(section, &mut tables)?;
    }
    let systems: Vec<_> = named(envelope, "VirtualSystem").collect();
    if systems.len() != 1 {
        vm.cite("GQ102");
        vm.cite("HQ54");
    }
    for system in systems {
        for part in elements(system) {
            match part.tag_name().name() {
                "Name" => vm.name = Some(content(part)),
                "VirtualHardwareSection" => hardware(part, &tables, &mut vm)?,
                "AnnotationSection" => {
                    if let Some(text) = child(part, "Annotation") {
                        vm.description = text;
                    }
                }
                _ => {}
            }
        }
    }
    let collection = vm.quirks.contains(&"GQ102");
    vm.validated().map_err(|error| {
        if collection {
            error.because("GQ102").because("HQ54")
        } else {
            error
        }
    })
}

fn read_section(section: Node<'_, '_>, tables: &mut Tables) -> Result<(), ImportError> {
    let name = section.tag_name().name();
    match name {
        "References" => {
            for file in section
                .descendants()
                .filter(|node| node.tag_name().name() == "File")
            {
                if let (Some(id), Some(href)) = (attribute(file, "id"), attribute(file, "href")) {
                    tables.files.insert(id.to_owned(), href.to_owned());
                }
            }
        }
        "DiskSection" => {
            for disk in section
                .descendants()
                .filter(|node| node.tag_name().name() == "Disk")
            {
                let capacity = attribute(disk, "capacity").ok_or_else(|| {
                    ImportError::new("float() argument must be a string or a number")
                })?;
                guess_mib(capacity)?;
                let id = attribute(disk, "diskId").unwrap_or_default().to_owned();
                let file = attribute(disk, "fileRef").map(str::to_owned);
                tables.disks.insert(id, file);
            }
        }
        "NetworkSection" => {}
        _ => {
            let required = attribute(section, "required")
                .is_some_and(|text| text.eq_ignore_ascii_case("true"));
            if required {
                return Err(ImportError::new(format!(
                    "OVF section '{name}' is listed as required, but parser doesn't know how to handle it."
                ))
                .because("GQ100"));
            }
        }
    }
    Ok(())
}

fn hardware(section: Node<'_, '_>, tables: &Tables, vm: &mut Vm) -> Result<(), ImportError> {
    let mut buses: BTreeMap<String, Bus> = BTreeMap::new();
    vm.vcpus = 0;
    for item in named(section, "Item") {
        let kind = named(item, "ResourceType")
            .last()
            .map(content)
            .unwrap_or_default();
        match kind.as_str() {
            "3" => {
                if let Some(count) = child(item, "VirtualQuantity").filter(|text| !text.is_empty())
                {
                    let count = integer(&count).map_err(ImportError::new)?;
                    vm.vcpus = vm.vcpus.saturating_add(count);
                }
            }
            "4" => {
                if let Some(amount) = child(item, "VirtualQuantity").filter(|text| !text.is_empty())
                {
                    let (mib, plain) = guess_mib(&amount)?;
                    vm.memory = Some(Memory::Mib(mib));
                    if !plain {
                        vm.cite("GQ94");
                        if decimal(amount.trim(), 1).is_some_and(|value| value < 32) {
                            vm.cite("HQ53");
                        }
                    }
                }
            }
            "10" => {
                vm.nics.insert(vm.nics.len().to_string(), ());
                vm.cite("GQ96");
            }
            "5" | "6" => {
                let bus = if kind == "5" { Bus::Ide } else { Bus::Scsi };
                buses.insert(child(item, "InstanceID").unwrap_or_default(), bus);
            }
            "17" => disk(item, &buses, tables, vm)?,
            // What XenCenter writes for a disk; no reader but its own looks for it.
            "19" => vm.cite("HQ02"),
            _ => {}
        }
    }
    Ok(())
}

fn disk(
    item: Node<'_, '_>,
    buses: &BTreeMap<String, Bus>,
    tables: &Tables,
    vm: &mut Vm,
) -> Result<(), ImportError> {
    let path = child(item, "HostResource").filter(|text| !text.is_empty());
    let address = child(item, "AddressOnParent").ok_or_else(|| {
        ImportError::new("int() argument must be a string or a number, not 'NoneType'")
            .because("GQ101")
    })?;
    let number = integer(&address).map_err(|message| ImportError::new(message).because("GQ101"))?;
    let shown = path.as_deref().unwrap_or("None");
    let bus = match child(item, "Parent").filter(|text| !text.is_empty()) {
        None => Bus::Ide,
        Some(parent) => *buses.get(&parent).ok_or_else(|| {
            ImportError::new(format!("Didn't find parent bus for disk '{shown}'")).because("GQ101")
        })?,
    };
    let (file, format) = match &path {
        None => (None, Format::Raw),
        Some(path) => (Some(file_of(path, tables)?), Format::Vmdk),
    };
    if bus == Bus::Scsi {
        vm.cite("GQ98");
    }
    let kind = Kind::Disk;
    if vm
        .disks
        .insert(
            (bus, number),
            Disk {
                path: file,
                format,
                kind,
            },
        )
        .is_some()
    {
        vm.cite("DQ502");
    }
    Ok(())
}

/// The file that a host resource leads to.
fn file_of(resource: &str, tables: &Tables) -> Result<String, ImportError> {
    let unknown = |reference: Option<&str>| {
        let reference = reference.unwrap_or("None");
        ImportError::new(format!(
            "Unknown reference id '{resource}' for path {reference}."
        ))
    };
    let reference = if let Some(id) = resource.strip_prefix("ovf:/disk/") {
        tables
            .disks
            .get(id)
            .ok_or_else(|| unknown(None))?
            .as_deref()
    } else if let Some(id) = resource.strip_prefix("ovf:/file/") {
        Some(id)
    } else {
        return Err(ImportError::new(format!(
            "Unknown storage path type {resource}."
        )));
    };
    let file = reference.and_then(|id| tables.files.get(id));
    file.cloned().ok_or_else(|| unknown(reference))
}
