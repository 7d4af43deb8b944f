//! The `.exp` file of an export: setting data of the WMI provider, as CIM XML in UTF-16.
//!
//! ```text
//! CIM/DECLARATION/DECLGROUP/VALUE.OBJECT*
//!   INSTANCE CLASSNAME="Msvm_MemorySettingData"
//!     PROPERTY NAME="VirtualQuantity" TYPE="uint64" / VALUE
//!     PROPERTY.ARRAY NAME="BootOrder" TYPE="uint16" / VALUE.ARRAY / VALUE*
//! ```
//!
//! What hangs on what is told by `Parent` and `HostResource`: paths of WMI that end in `InstanceID="…"`.

use super::{BOOT, Bus, Drive, IDE, Machine, Nic, SERVICES, mac_of, mac_text, settings};
use crate::findings::{Findings, quote};
use crate::xml::{self, Printer, Xml, elements, text_of, to_utf16};
use drylab_block::{Error, Finding, Limits, Result};
use roxmltree::Node;
use std::collections::BTreeMap;

const GLOBAL: &str = "Msvm_VirtualSystemGlobalSettingData";
const SYSTEM: &str = "Msvm_VirtualSystemSettingData";
const MEMORY: &str = "Msvm_MemorySettingData";
const PROCESSOR: &str = "Msvm_ProcessorSettingData";
const RESOURCE: &str = "Msvm_ResourceAllocationSettingData";
const SYNTHETIC: &str = "Msvm_SyntheticEthernetPortSettingData";
const LEGACY: &str = "Msvm_EmulatedEthernetPortSettingData";

const IDE_CONTROLLER: &str = "Microsoft Emulated IDE Controller";
const SCSI_CONTROLLER: &str = "Microsoft Synthetic SCSI Controller";
const DISK_DRIVE: &str = "Microsoft Synthetic Disk Drive";
const CD_DRIVE: &str = "Microsoft Synthetic DVD Drive";
const DISK: &str = "Microsoft Virtual Hard Disk";
const CD: &str = "Microsoft Virtual CD/DVD Disk";

/// `EnabledState`: 2 on, 3 off.
const OFF: &str = "3";

/// Writes the settings of a machine, the same bytes for the same machine.
///
/// # Errors
/// As [`settings::print`].
pub fn print(machine: &Machine) -> Result<Vec<u8>> {
    let machine = machine.clone().canonical();
    settings::check(&machine)?;
    let mut out = Out {
        printer: Printer::new(),
        system: format!("Microsoft:{}", machine.id),
    };
    out.printer.declaration_of("UTF-16", None);
    out.printer
        .open("CIM", &[("CIMVERSION", "2.0"), ("DTDVERSION", "2.0")]);
    out.printer.open("DECLARATION", &[]);
    out.printer.open("DECLGROUP", &[]);
    out.system(&machine);
    out.storage(&machine);
    for nic in &machine.nics {
        out.nic(nic);
    }
    for (service, guid, class, name) in &SERVICES {
        let state = if machine.disabled.contains(service) {
            OFF
        } else {
            "2"
        };
        let id = format!("{}\\{}", out.system, guid.to_ascii_uppercase());
        out.instance(
            class,
            &[
                ("InstanceID", "string", &id),
                ("ElementName", "string", name),
                ("EnabledState", "uint16", state),
            ],
        );
    }
    for name in ["DECLGROUP", "DECLARATION", "CIM"] {
        out.printer.close(name);
    }
    let bytes = out.printer.finish()?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Error::unsupported("text that is not UTF-8"))?;
    Ok(to_utf16(text))
}

struct Out {
    printer: Printer,
    /// `Microsoft:` and the machine's GUID: every InstanceID begins so.
    system: String,
}

impl Out {
    fn open(&mut self, class: &str, properties: &[(&str, &str, &str)]) {
        self.printer.open("VALUE.OBJECT", &[]);
        self.printer.open("INSTANCE", &[("CLASSNAME", class)]);
        for (name, kind, value) in properties {
            self.printer
                .open("PROPERTY", &[("NAME", name), ("TYPE", kind)]);
            self.printer.leaf("VALUE", &[], value);
            self.printer.close("PROPERTY");
        }
    }

    fn array(&mut self, name: &str, kind: &str, values: &[String]) {
        self.printer
            .open("PROPERTY.ARRAY", &[("NAME", name), ("TYPE", kind)]);
        self.printer.open("VALUE.ARRAY", &[]);
        for value in values {
            self.printer.leaf("VALUE", &[], value);
        }
        self.printer.close("VALUE.ARRAY");
        self.printer.close("PROPERTY.ARRAY");
    }

    fn close(&mut self) {
        self.printer.close("INSTANCE");
        self.printer.close("VALUE.OBJECT");
    }

    fn instance(&mut self, class: &str, properties: &[(&str, &str, &str)]) {
        self.open(class, properties);
        self.close();
    }

    fn system(&mut self, machine: &Machine) {
        let (system, memory) = (self.system.clone(), machine.memory_mib.to_string());
        let identity = [
            ("InstanceID", "string", system.as_str()),
            ("ElementName", "string", &machine.name),
            ("SystemName", "string", &machine.id),
        ];
        self.instance(GLOBAL, &identity);
        self.open(
            SYSTEM,
            &[
                identity[0],
                identity[1],
                ("Notes", "string", &machine.notes),
            ],
        );
        let codes = machine
            .boot
            .iter()
            .filter_map(|boot| BOOT.iter().find(|(known, _, _)| known == boot));
        let codes: Vec<String> = codes.map(|(_, code, _)| code.to_string()).collect();
        self.array("BootOrder", "uint16", &codes);
        self.close();
        // Device GUIDs of memory and processor are those that WMI shows.
        let id = format!("{system}\\4764334d-e001-4176-82ee-5594ec9b530e");
        self.instance(
            MEMORY,
            &[
                ("InstanceID", "string", &id),
                ("ResourceType", "uint16", "4"),
                ("AllocationUnits", "string", "MB"),
                ("VirtualQuantity", "uint64", &memory),
            ],
        );
        let id = format!("{system}\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\0");
        let count = machine.processors.to_string();
        self.instance(
            PROCESSOR,
            &[
                ("InstanceID", "string", &id),
                ("ResourceType", "uint16", "3"),
                ("VirtualQuantity", "uint64", &count),
            ],
        );
    }

    /// A path of WMI to an instance.
    fn path(&self, id: &str) -> String {
        let id = id.replace('\\', "\\\\");
        format!("\\\\HOST\\root\\virtualization:{RESOURCE}.InstanceID=\"{id}\"")
    }

    fn storage(&mut self, machine: &Machine) {
        let mut controllers: BTreeMap<(Bus, u32), String> = BTreeMap::new();
        for number in 0..2u32 {
            let id = format!("{}\\{}\\{number}", self.system, IDE.to_ascii_uppercase());
            let address = number.to_string();
            self.instance(
                RESOURCE,
                &[
                    ("InstanceID", "string", &id),
                    ("ResourceType", "uint16", "5"),
                    ("ResourceSubType", "string", IDE_CONTROLLER),
                    ("Address", "string", &address),
                ],
            );
            controllers.insert((Bus::Ide, number), id);
        }
        for (number, guid) in (0u32..).zip(&machine.scsi) {
            let id = format!("{}\\{guid}\\0", self.system);
            self.instance(
                RESOURCE,
                &[
                    ("InstanceID", "string", &id),
                    ("ResourceType", "uint16", "6"),
                    ("ResourceSubType", "string", SCSI_CONTROLLER),
                ],
            );
            controllers.insert((Bus::Scsi, number), id);
        }
        for drive in &machine.drives {
            let Some(controller) = controllers.get(&(drive.bus, drive.controller)) else {
                continue;
            };
            let location = drive.location.to_string();
            let id = format!("{controller}\\{location}\\D");
            let (kind, medium) = if drive.is_cd {
                (("16", CD_DRIVE), CD)
            } else {
                (("22", DISK_DRIVE), DISK)
            };
            let parent = self.path(controller);
            self.instance(
                RESOURCE,
                &[
                    ("InstanceID", "string", &id),
                    ("ResourceType", "uint16", kind.0),
                    ("ResourceSubType", "string", kind.1),
                    ("Parent", "string", &parent),
                    ("Address", "string", &location),
                ],
            );
            if drive.path.is_empty() {
                continue;
            }
            let parent = self.path(&id);
            let id = format!("{controller}\\{location}\\L");
            self.open(
                RESOURCE,
                &[
                    ("InstanceID", "string", &id),
                    ("ResourceType", "uint16", "21"),
                    ("ResourceSubType", "string", medium),
                    ("Parent", "string", &parent),
                ],
            );
            self.array("Connection", "string", std::slice::from_ref(&drive.path));
            self.close();
        }
    }

    fn nic(&mut self, nic: &Nic) {
        let class = if nic.is_legacy { LEGACY } else { SYNTHETIC };
        let id = format!("{}\\{}", self.system, nic.instance);
        let is_static = if nic.is_static { "TRUE" } else { "FALSE" };
        let mac = mac_text(nic.mac, "");
        self.open(
            class,
            &[
                ("InstanceID", "string", &id),
                ("ElementName", "string", &nic.name),
                ("ResourceType", "uint16", "10"),
                ("Address", "string", &mac),
                ("StaticMacAddress", "boolean", is_static),
            ],
        );
        let networks: Vec<String> = Some(nic.network.clone())
            .filter(|name| !name.is_empty())
            .into_iter()
            .collect();
        self.array("Connection", "string", &networks);
        self.close();
    }
}

/// Reads the settings of a machine.
///
/// # Errors
/// [`Error::Corrupt`] when the text is no XML or has no instances of a machine, its memory or its processors;
/// [`Error::Unsupported`] past a bound of [`crate::xml`] or `limits`, and for document type declarations.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<(Machine, Vec<Finding>)> {
    let mut findings = Findings::default();
    let text = xml::decode(bytes, limits, &mut findings)?;
    let xml = Xml::parse(&text.text)?;
    let nodes = xml
        .document
        .descendants()
        .filter(|node| node.has_tag_name("INSTANCE"));
    let instances: Vec<Instance<'_>> = nodes.map(|node| Instance::read(&xml, node)).collect();
    let of = |class: &str| {
        let found = instances.iter().find(|instance| instance.class == class);
        found.ok_or_else(|| Error::corrupt(format_args!("the export has no instance of {class}")))
    };
    let (global, system) = (of(GLOBAL)?, of(SYSTEM)?);
    let id = global.text("SystemName").to_ascii_uppercase();
    if !super::is_guid(&id) {
        return Err(Error::corrupt(format_args!(
            "SystemName {} is no GUID",
            quote(&id)
        )));
    }
    let mut machine = Machine {
        id,
        name: global.text("ElementName").to_owned(),
        notes: system.text("Notes").to_owned(),
        memory_mib: of(MEMORY)?.number("VirtualQuantity")?,
        processors: of(PROCESSOR)?.number("VirtualQuantity")?,
        ..Machine::default()
    };
    for code in system.all("BootOrder") {
        match BOOT.iter().find(|(_, known, _)| code.parse() == Ok(*known)) {
            Some((boot, _, _)) => machine.boot.push(*boot),
            None => findings.warning(
                "HYPERV-BOOT",
                system.at,
                format_args!("boot device {} is not known", quote(code)),
            ),
        }
    }
    storage(&instances, &mut machine, &mut findings);
    for instance in instances
        .iter()
        .filter(|instance| matches!(instance.class, SYNTHETIC | LEGACY))
    {
        machine.nics.push(Nic {
            instance: last_part(instance.text("InstanceID")).to_owned(),
            is_legacy: instance.class == LEGACY,
            name: instance.text("ElementName").to_owned(),
            mac: mac_of(instance.text("Address")),
            is_static: instance
                .text("StaticMacAddress")
                .eq_ignore_ascii_case("true"),
            network: instance
                .all("Connection")
                .first()
                .copied()
                .unwrap_or("")
                .to_owned(),
        });
    }
    for (service, _, class, _) in &SERVICES {
        let is_off = |instance: &&Instance<'_>| {
            instance.class == *class && instance.text("EnabledState") == OFF
        };
        machine
            .disabled
            .extend(instances.iter().find(is_off).map(|_| *service));
    }
    Ok((machine.canonical(), findings.into_list()))
}

/// Behind the last backslash.
fn last_part(id: &str) -> &str {
    id.rsplit_once('\\').map_or(id, |(_, last)| last)
}

/// The InstanceID that a path of WMI ends in.
fn target(path: &str) -> String {
    let quoted = path
        .split_once('"')
        .and_then(|(_, rest)| rest.rsplit_once('"'));
    quoted.map_or(path, |(id, _)| id).replace("\\\\", "\\")
}

fn storage(instances: &[Instance<'_>], machine: &mut Machine, findings: &mut Findings) {
    let of = |subtype: &'static str| {
        instances
            .iter()
            .filter(move |instance| instance.text("ResourceSubType") == subtype)
    };
    let mut controllers: BTreeMap<String, (Bus, u32)> = BTreeMap::new();
    for controller in of(IDE_CONTROLLER) {
        if let Ok(number) = controller.text("Address").parse() {
            controllers.insert(controller.id(), (Bus::Ide, number));
        }
    }
    for controller in of(SCSI_CONTROLLER) {
        let number = u32::try_from(machine.scsi.len()).unwrap_or(u32::MAX);
        let id = controller.text("InstanceID");
        let guid = id.split('\\').nth(1).unwrap_or("");
        machine.scsi.push(guid.to_owned());
        controllers.insert(controller.id(), (Bus::Scsi, number));
    }
    let mut media: BTreeMap<String, &str> = BTreeMap::new();
    for medium in of(DISK).chain(of(CD)) {
        let path = medium.all("Connection").first().copied().unwrap_or("");
        media.insert(target(medium.text("Parent")).to_ascii_uppercase(), path);
    }
    for drive in of(DISK_DRIVE).chain(of(CD_DRIVE)) {
        let parent = target(drive.text("Parent")).to_ascii_uppercase();
        let (Some((bus, controller)), Ok(location)) =
            (controllers.get(&parent), drive.text("Address").parse())
        else {
            let message = format!(
                "drive {} hangs on no controller",
                quote(drive.text("InstanceID"))
            );
            findings.error("HYPERV-DRIVE", drive.at, message);
            continue;
        };
        machine.drives.push(Drive {
            bus: *bus,
            controller: *controller,
            location,
            is_cd: drive.text("ResourceSubType") == CD_DRIVE,
            path: media.get(&drive.id()).copied().unwrap_or("").to_owned(),
        });
    }
}

/// One instance: its class and the values of its properties.
struct Instance<'a> {
    class: &'a str,
    at: crate::findings::At,
    properties: BTreeMap<&'a str, Vec<String>>,
}

impl<'a> Instance<'a> {
    fn read(xml: &'a Xml<'_>, node: Node<'a, '_>) -> Self {
        let mut properties: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for property in elements(node) {
            let Some(name) = property.attribute("NAME") else {
                continue;
            };
            let values = property
                .descendants()
                .filter(|node| node.has_tag_name("VALUE"));
            properties
                .entry(name)
                .or_insert_with(|| values.map(text_of).collect());
        }
        Self {
            class: node.attribute("CLASSNAME").unwrap_or(""),
            at: xml.at(node),
            properties,
        }
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let values = self.properties.get(name);
        values.map_or_else(Vec::new, |values| {
            values.iter().map(String::as_str).collect()
        })
    }

    fn text(&self, name: &str) -> &str {
        let values = self.properties.get(name);
        values
            .and_then(|values| values.first())
            .map_or("", String::as_str)
    }

    fn id(&self) -> String {
        self.text("InstanceID").to_ascii_uppercase()
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N> {
        let text = self.text(name);
        text.parse().map_err(|_| {
            let (line, class, text) = (self.at.line, self.class, quote(text));
            Error::corrupt(format_args!(
                "line {line}: {name} of {class} is {text}, not a number of its range"
            ))
        })
    }
}
