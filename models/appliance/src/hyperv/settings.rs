//! The configuration file of a machine, in UTF-16.
//!
//! ```text
//! configuration
//!   _<instance GUID>_*        settings of a device: controller0/drive0/(pathname, type), MacAddress, boot/device0 …
//!   manifest                  size, vdev001…: device (type GUID), instance, name
//!   properties                global_id, name, notes, version
//!   settings                  memory/bank/size, processors/count
//! ```
//!
//! Every leaf has a `type`: `string`, `integer` or `bool` (`True`, `False`). Elements are in alphabetical order.

use super::{BOOT, Bus, Drive, IDE, Machine, Nic, SERVICES, is_guid, mac_of, mac_text};
use crate::findings::{Findings, quote};
use crate::xml::{self, Printer, Xml, elements, text_of, to_utf16};
use drylab_block::{Error, Finding, Limits, Result};
use roxmltree::Node;
use std::collections::BTreeMap;

/// Type GUIDs of devices.
const SCSI: &str = "d422512d-2bf2-4752-809d-7b82b5fcb1b4";
const SYNTHETIC: &str = "2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778";
const BIOS: &str = "ac6b8dc1-3257-4a70-b1b2-a9c9215659ad";
/// Names of the manifest. An emulated port is known by it alone: no public text gives its type GUID, so none is written.
const LEGACY_NAME: &str = "Emulated Ethernet Port";
const SYNTHETIC_NAME: &str = "Synthetic Ethernet Port";
const LEGACY: &str = "";
/// `version` of 2008 R2 (belief).
const VERSION: &str = "258";
/// Most locations of a SCSI controller.
const LOCATIONS: u32 = 64;

/// Writes a configuration, the same bytes for the same machine.
///
/// # Errors
/// [`Error::Unsupported`] when an id is no GUID, a drive hangs on a controller that is not there or shares its location,
/// or a text cannot be written as XML.
pub fn print(machine: &Machine) -> Result<Vec<u8>> {
    let machine = machine.clone().canonical();
    check(&machine)?;
    let mut printer = Printer::new();
    printer.declaration_of("UTF-16", Some("yes"));
    printer.open("configuration", &[]);
    let mut devices: BTreeMap<String, Device<'_>> = BTreeMap::new();
    devices.insert(IDE.to_owned(), Device::Ide);
    devices.insert(BIOS.to_owned(), Device::Bios);
    for (service, guid, _, _) in &SERVICES {
        let is_on = !machine.disabled.contains(service);
        devices.insert((*guid).to_owned(), Device::Service(is_on));
    }
    for (number, id) in (0u32..).zip(&machine.scsi) {
        devices.insert(id.to_ascii_lowercase(), Device::Scsi(number));
    }
    for nic in &machine.nics {
        devices.insert(nic.instance.to_ascii_lowercase(), Device::Nic(nic));
    }
    for (guid, device) in &devices {
        let name = format!("_{guid}_");
        printer.open(&name, &[]);
        device.print(&machine, &mut printer);
        printer.close(&name);
    }
    print_manifest(&machine, &mut printer);
    print_rest(&machine, &mut printer);
    printer.close("configuration");
    let bytes = printer.finish()?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Error::unsupported("text that is not UTF-8"))?;
    Ok(to_utf16(text))
}

enum Device<'a> {
    Ide,
    Bios,
    Scsi(u32),
    Nic(&'a Nic),
    Service(bool),
}

fn leaf(printer: &mut Printer, name: &str, kind: &str, value: &str) {
    printer.leaf(name, &[("type", kind)], value);
}

fn flag(printer: &mut Printer, name: &str, value: bool) {
    leaf(printer, name, "bool", if value { "True" } else { "False" });
}

impl Device<'_> {
    fn print(&self, machine: &Machine, printer: &mut Printer) {
        match self {
            Self::Ide => {
                for controller in 0..2 {
                    print_controller(machine, Bus::Ide, controller, controller, printer);
                }
            }
            Self::Scsi(number) => print_controller(machine, Bus::Scsi, *number, 0, printer),
            Self::Bios => {
                printer.open("boot", &[]);
                for (number, boot) in machine.boot.iter().enumerate() {
                    let word = BOOT.iter().find(|(known, _, _)| known == boot);
                    let word = word.map_or("", |(_, _, word)| *word);
                    leaf(printer, &format!("device{number}"), "string", word);
                }
                printer.close("boot");
            }
            Self::Nic(nic) => {
                leaf(printer, "FriendlyName", "string", &nic.name);
                flag(printer, "IsConnected", !nic.network.is_empty());
                leaf(printer, "MacAddress", "string", &mac_text(nic.mac, "-"));
                flag(printer, "MacAddressIsStatic", nic.is_static);
                leaf(printer, "SwitchName", "string", &nic.network);
            }
            Self::Service(is_on) => flag(printer, "Enabled", *is_on),
        }
    }
}

fn print_controller(
    machine: &Machine,
    bus: Bus,
    controller: u32,
    name: u32,
    printer: &mut Printer,
) {
    let name = format!("controller{name}");
    printer.open(&name, &[]);
    let drives = machine
        .drives
        .iter()
        .filter(|drive| drive.bus == bus && drive.controller == controller);
    for drive in drives {
        let name = format!("drive{}", drive.location);
        printer.open(&name, &[]);
        leaf(printer, "pathname", "string", &drive.path);
        leaf(
            printer,
            "type",
            "string",
            if drive.is_cd { "ISO" } else { "VHD" },
        );
        printer.close(&name);
    }
    printer.close(&name);
}

fn print_manifest(machine: &Machine, printer: &mut Printer) {
    let upper = |guid: &str| guid.to_ascii_uppercase();
    let mut entries = vec![
        (BIOS, upper(BIOS), "Microsoft Virtual BIOS"),
        (IDE, upper(IDE), "Microsoft Emulated IDE Controller"),
    ];
    entries.extend(
        machine
            .scsi
            .iter()
            .map(|id| (SCSI, id.clone(), "Synthetic SCSI Controller")),
    );
    entries.extend(machine.nics.iter().map(|nic| {
        let (device, name) = if nic.is_legacy {
            (LEGACY, LEGACY_NAME)
        } else {
            (SYNTHETIC, SYNTHETIC_NAME)
        };
        (device, nic.instance.clone(), name)
    }));
    entries.extend(
        SERVICES
            .iter()
            .map(|(_, guid, _, name)| (*guid, upper(guid), *name)),
    );
    printer.open("manifest", &[]);
    leaf(printer, "size", "integer", &entries.len().to_string());
    for (number, (device, instance, name)) in (1u32..).zip(&entries) {
        let vdev = format!("vdev{number:03}");
        printer.open(&vdev, &[]);
        leaf(printer, "device", "string", device);
        leaf(printer, "instance", "string", instance);
        leaf(printer, "name", "string", name);
        printer.close(&vdev);
    }
    printer.close("manifest");
}

fn print_rest(machine: &Machine, printer: &mut Printer) {
    printer.open("properties", &[]);
    leaf(printer, "global_id", "string", &machine.id);
    leaf(printer, "name", "string", &machine.name);
    leaf(printer, "notes", "string", &machine.notes);
    leaf(printer, "type_id", "string", "Virtual Machines");
    leaf(printer, "version", "integer", VERSION);
    printer.close("properties");
    printer.open("settings", &[]);
    printer.open("memory", &[]);
    printer.open("bank", &[]);
    leaf(printer, "size", "integer", &machine.memory_mib.to_string());
    printer.close("bank");
    printer.close("memory");
    printer.open("processors", &[]);
    leaf(printer, "count", "integer", &machine.processors.to_string());
    printer.close("processors");
    printer.close("settings");
}

/// Refuses a machine that no reader could take apart again.
pub(super) fn check(machine: &Machine) -> Result<()> {
    let ids = std::iter::once(&machine.id).chain(&machine.scsi);
    let ids: Vec<&String> = ids
        .chain(machine.nics.iter().map(|nic| &nic.instance))
        .collect();
    for (number, id) in ids.iter().enumerate() {
        let is_known = SERVICES
            .iter()
            .map(|(_, guid, _, _)| *guid)
            .chain([IDE, BIOS]);
        let is_taken = ids
            .iter()
            .skip(number.saturating_add(1))
            .any(|other| other == id);
        if !is_guid(id)
            || is_taken
            || is_known
                .into_iter()
                .any(|known| known.eq_ignore_ascii_case(id))
        {
            return Err(Error::unsupported(format_args!(
                "{} is no GUID of its own",
                quote(id)
            )));
        }
    }
    let mut places = std::collections::BTreeSet::new();
    for drive in &machine.drives {
        let controllers = u32::try_from(machine.scsi.len()).unwrap_or(u32::MAX);
        let (controllers, locations, bus) = match drive.bus {
            Bus::Ide => (2, 2, "IDE"),
            Bus::Scsi => (controllers, LOCATIONS, "SCSI"),
        };
        let (controller, location) = (drive.controller, drive.location);
        let is_free = places.insert((drive.bus, controller, location));
        if controller >= controllers || location >= locations || !is_free {
            return Err(Error::unsupported(format_args!(
                "a drive hangs on {bus} {controller}:{location}, which is not there or taken"
            )));
        }
    }
    Ok(())
}

/// Reads a configuration.
///
/// # Errors
/// [`Error::Corrupt`] when the text is no XML, its root is no `configuration`, or id, memory or processors cannot be read;
/// [`Error::Unsupported`] past a bound of [`crate::xml`] or `limits`, and for document type declarations.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<(Machine, Vec<Finding>)> {
    let mut findings = Findings::default();
    let text = xml::decode(bytes, limits, &mut findings)?;
    let xml = Xml::parse(&text.text)?;
    let root = xml.document.root_element();
    if root.tag_name().name() != "configuration" {
        let (line, name) = (xml.at(root).line, quote(root.tag_name().name()));
        return Err(Error::corrupt(format_args!(
            "line {line}: the root element is {name}, not a configuration of Hyper-V"
        )));
    }
    let mut reader = Reader {
        xml: &xml,
        root,
        findings,
    };
    let mut machine = Machine {
        id: reader
            .required(&["properties", "global_id"])?
            .to_ascii_uppercase(),
        name: reader.text(root, &["properties", "name"]),
        notes: reader.text(root, &["properties", "notes"]),
        memory_mib: reader.number(&["settings", "memory", "bank", "size"])?,
        processors: reader.number(&["settings", "processors", "count"])?,
        ..Machine::default()
    };
    reader.devices(&mut machine)?;
    Ok((machine.canonical(), reader.findings.into_list()))
}

struct Reader<'x, 't> {
    xml: &'x Xml<'t>,
    root: Node<'x, 't>,
    findings: Findings,
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    elements(node).find(|node| node.tag_name().name() == name)
}

/// Number at the end of `controller0`, `drive1`, `device2`.
fn numbered(node: Node<'_, '_>, prefix: &str) -> Option<u32> {
    node.tag_name().name().strip_prefix(prefix)?.parse().ok()
}

impl<'x, 't> Reader<'x, 't> {
    fn text(&self, from: Node<'_, '_>, path: &[&str]) -> String {
        let node = path.iter().try_fold(from, |node, name| child(node, name));
        node.map(text_of).unwrap_or_default()
    }

    fn required(&self, path: &[&str]) -> Result<String> {
        let text = self.text(self.root, path);
        if text.is_empty() {
            let path = path.join("/");
            return Err(Error::corrupt(format_args!(
                "the configuration has no {path}"
            )));
        }
        Ok(text)
    }

    fn number<N: std::str::FromStr>(&self, path: &[&str]) -> Result<N> {
        let text = self.required(path)?;
        text.parse().map_err(|_| {
            let (path, text) = (path.join("/"), quote(&text));
            Error::corrupt(format_args!("{path} is {text}, not a number of its range"))
        })
    }

    fn flag(&self, node: Node<'_, '_>, name: &str) -> bool {
        self.text(node, &[name]).eq_ignore_ascii_case("true")
    }

    /// The devices of the manifest, in its order, with their settings.
    fn devices(&mut self, machine: &mut Machine) -> Result<()> {
        let mut settings: BTreeMap<String, Node<'x, 't>> = BTreeMap::new();
        for node in elements(self.root) {
            let name = node.tag_name().name();
            if let Some(guid) = name
                .strip_prefix('_')
                .and_then(|name| name.strip_suffix('_'))
            {
                settings.entry(guid.to_ascii_lowercase()).or_insert(node);
            }
        }
        if let Some(bios) = settings.get(BIOS) {
            self.boot(*bios, machine);
        }
        let manifest = child(self.root, "manifest");
        let manifest =
            manifest.ok_or_else(|| Error::corrupt("the configuration has no manifest"))?;
        for entry in elements(manifest).filter(|node| node.tag_name().name().starts_with("vdev")) {
            let [device, instance, name] =
                ["device", "instance", "name"].map(|field| self.text(entry, &[field]));
            let device = device.to_ascii_lowercase();
            let Some(node) = settings.remove(&instance.to_ascii_lowercase()) else {
                let at = self.xml.at(entry);
                self.findings.note(
                    "HYPERV-NO-SETTINGS",
                    at,
                    format_args!("{} has no settings", quote(&name)),
                );
                continue;
            };
            let service = SERVICES.iter().find(|(_, guid, _, _)| *guid == device);
            match device.as_str() {
                IDE => self.drives(node, Bus::Ide, 0, machine),
                SCSI => {
                    let number = u32::try_from(machine.scsi.len()).unwrap_or(u32::MAX);
                    machine.scsi.push(instance);
                    self.drives(node, Bus::Scsi, number, machine);
                }
                // Read already: some versions leave it out of the manifest.
                BIOS => {}
                _ if device == SYNTHETIC || name.ends_with("Ethernet Port") => {
                    let is_legacy = device != SYNTHETIC && name.contains("Emulated");
                    machine.nics.push(self.nic(node, instance, is_legacy));
                }
                _ => {
                    // Later versions write `Enabled` only for services that are off from the start.
                    let is_off = self.text(node, &["Enabled"]).eq_ignore_ascii_case("false");
                    machine
                        .disabled
                        .extend(service.filter(|_| is_off).map(|(service, ..)| *service));
                }
            }
        }
        Ok(())
    }

    fn drives(&mut self, device: Node<'_, '_>, bus: Bus, first: u32, machine: &mut Machine) {
        for controller in elements(device) {
            let Some(number) = numbered(controller, "controller") else {
                continue;
            };
            for node in elements(controller) {
                let Some(location) = numbered(node, "drive") else {
                    continue;
                };
                let kind = self.text(node, &["type"]);
                if !matches!(kind.as_str(), "VHD" | "ISO") {
                    if kind != "NONE" {
                        let at = self.xml.at(node);
                        self.findings.warning(
                            "HYPERV-DRIVE",
                            at,
                            format_args!("drive of type {} is not read", quote(&kind)),
                        );
                    }
                    continue;
                }
                machine.drives.push(Drive {
                    bus,
                    controller: first.saturating_add(number),
                    location,
                    is_cd: kind == "ISO",
                    path: self.text(node, &["pathname"]),
                });
            }
        }
    }

    fn boot(&mut self, device: Node<'_, '_>, machine: &mut Machine) {
        let entries = child(device, "boot").into_iter().flat_map(elements);
        let mut entries: Vec<(u32, Node<'_, '_>)> = entries
            .filter_map(|node| Some((numbered(node, "device")?, node)))
            .collect();
        entries.sort_by_key(|(number, _)| *number);
        for (_, node) in entries {
            let word = text_of(node);
            match BOOT.iter().find(|(_, _, known)| *known == word) {
                Some((boot, _, _)) => machine.boot.push(*boot),
                None => {
                    let at = self.xml.at(node);
                    self.findings.warning(
                        "HYPERV-BOOT",
                        at,
                        format_args!("boot device {} is not known", quote(&word)),
                    );
                }
            }
        }
    }

    fn nic(&self, node: Node<'_, '_>, instance: String, is_legacy: bool) -> Nic {
        Nic {
            instance,
            is_legacy,
            name: self.text(node, &["FriendlyName"]),
            mac: mac_of(&self.text(node, &["MacAddress"])),
            is_static: self.flag(node, "MacAddressIsStatic"),
            network: self.text(node, &["SwitchName"]),
        }
    }
}
