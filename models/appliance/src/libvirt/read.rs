//! Text to [`Domain`].

use super::{Address, Controller, Cpu, Disk, Domain, Graphics, Input, Interface, Os, Video};
use crate::findings::{Findings, quote};
use crate::xml::{self, Xml, elements, text_of};
use drylab_block::{Error, Limits, Result};
use roxmltree::Node;

/// Reads a domain.
///
/// # Errors
/// [`Error::Corrupt`] when the text is no XML, its root is no `domain`, or name or memory cannot be read;
/// [`Error::Unsupported`] past a bound of [`crate::xml`] or `limits`, and for document type declarations.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Domain> {
    let mut findings = Findings::default();
    let text = xml::decode(bytes, limits, &mut findings)?;
    let xml = Xml::parse(&text.text)?;
    let root = xml.document.root_element();
    if root.tag_name().name() != "domain" {
        let (line, name) = (xml.at(root).line, quote(root.tag_name().name()));
        return Err(Error::corrupt(format_args!(
            "line {line}: the root element is {name}, not a libvirt domain"
        )));
    }
    let mut reader = Reader {
        xml: &xml,
        findings,
        unknown: 0,
    };
    let mut domain = reader.domain(root)?;
    domain.unknown = reader.unknown;
    domain.findings = reader.findings.into_list();
    Ok(domain)
}

struct Reader<'x, 't> {
    xml: &'x Xml<'t>,
    findings: Findings,
    unknown: u32,
}

fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    node.attribute(name).map(ToOwned::to_owned)
}

fn attribute_or(node: Node<'_, '_>, name: &str, default: &str) -> String {
    node.attribute(name).unwrap_or(default).to_owned()
}

/// The attribute of `source` that a type of disk or interface keeps its name in.
pub(super) fn source_attribute(kind: &str) -> &'static str {
    match kind {
        "block" | "direct" => "dev",
        "dir" => "dir",
        "volume" => "volume",
        "bridge" => "bridge",
        "internal" | "ethernet" | "vhostuser" | "vdpa" => "name",
        "client" | "server" | "mcast" | "udp" => "address",
        "network" => "network",
        _ => "file",
    }
}

impl Reader<'_, '_> {
    fn skip(&mut self, node: Node<'_, '_>) {
        self.unknown = self.unknown.saturating_add(1);
        let at = self.xml.at(node);
        self.findings.note(
            "LIBVIRT-ELEMENT",
            at,
            format_args!("{} is not held by the model", quote(node.tag_name().name())),
        );
    }

    fn number<N: std::str::FromStr>(&mut self, node: Node<'_, '_>, text: &str) -> Option<N> {
        let value = text.trim().parse().ok();
        if value.is_none() {
            let (at, name) = (self.xml.at(node), quote(node.tag_name().name()));
            self.findings.error(
                "LIBVIRT-NUMBER",
                at,
                format_args!("{} in {name} is not a number of its range", quote(text)),
            );
        }
        value
    }

    fn domain(&mut self, root: Node<'_, '_>) -> Result<Domain> {
        let mut domain = Domain {
            kind: attribute_or(root, "type", ""),
            vcpus: 1,
            ..Domain::default()
        };
        let mut memory = None;
        for node in elements(root) {
            if node.tag_name().namespace().is_some() {
                self.skip(node);
                continue;
            }
            match node.tag_name().name() {
                "name" => domain.name = text_of(node),
                "uuid" => domain.uuid = Some(text_of(node)),
                "description" => domain.description = Some(text_of(node)),
                "memory" => memory = Some(self.kibibytes(node)?),
                "currentMemory" => domain.current_memory_kib = Some(self.kibibytes(node)?),
                "vcpu" => domain.vcpus = self.number(node, &text_of(node)).unwrap_or(1),
                "bootloader" => domain.bootloader = Some(text_of(node)),
                "os" => self.os(node, &mut domain.os),
                "features" => {
                    domain.features = elements(node)
                        .map(|node| node.tag_name().name().to_owned())
                        .collect()
                }
                "cpu" => domain.cpu = Some(self.cpu(node)),
                "clock" => {
                    domain.clock_offset = attribute(node, "offset");
                    elements(node).for_each(|timer| self.skip(timer));
                }
                "on_poweroff" => domain.on_poweroff = Some(text_of(node)),
                "on_reboot" => domain.on_reboot = Some(text_of(node)),
                "on_crash" => domain.on_crash = Some(text_of(node)),
                "devices" => elements(node).for_each(|device| self.device(device, &mut domain)),
                _ => self.skip(node),
            }
        }
        let line = self.xml.at(root).line;
        if domain.name.is_empty() {
            return Err(Error::corrupt(format_args!(
                "line {line}: the domain has no name"
            )));
        }
        domain.memory_kib = memory.unwrap_or_else(|| {
            self.findings.error(
                "LIBVIRT-MEMORY",
                self.xml.at(root),
                "the domain has no memory element",
            );
            0
        });
        Ok(domain)
    }

    /// A number with `unit`, KiB when absent; rounded up to whole KiB.
    fn kibibytes(&mut self, node: Node<'_, '_>) -> Result<u64> {
        let (line, text) = (self.xml.at(node).line, text_of(node));
        let corrupt =
            |why: &str| Error::corrupt(format_args!("line {line}: memory {} {why}", quote(&text)));
        let value: u64 = text.parse().map_err(|_| corrupt("is not a number"))?;
        let unit = node.attribute("unit").unwrap_or("KiB");
        // libvirt: b and bytes; k, KiB, M, … are powers of 1024; KB, MB, … of 1000.
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "b" | "byte" | "bytes" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(corrupt(&format!("has unit {}", quote(unit)))),
        };
        let bytes = u128::from(value).saturating_mul(u128::from(scale));
        u64::try_from(bytes.div_ceil(1024)).map_err(|_| corrupt("passes 2^64 KiB"))
    }

    fn os(&mut self, section: Node<'_, '_>, os: &mut Os) {
        for node in elements(section) {
            match node.tag_name().name() {
                "type" => {
                    os.kind = Some(text_of(node));
                    os.arch = attribute(node, "arch");
                    os.machine = attribute(node, "machine");
                }
                "loader" => os.loader = Some(text_of(node)),
                "kernel" => os.kernel = Some(text_of(node)),
                "initrd" => os.initrd = Some(text_of(node)),
                "cmdline" => os.cmdline = Some(text_of(node)),
                "boot" => os.boot.push(attribute_or(node, "dev", "")),
                _ => self.skip(node),
            }
        }
    }

    fn cpu(&mut self, section: Node<'_, '_>) -> Cpu {
        let mut cpu = Cpu {
            mode: attribute(section, "mode"),
            matching: attribute(section, "match"),
            ..Cpu::default()
        };
        for node in elements(section) {
            match node.tag_name().name() {
                "model" => cpu.model = Some(text_of(node)),
                "vendor" => cpu.vendor = Some(text_of(node)),
                "feature" => cpu
                    .features
                    .push((attribute(node, "policy"), attribute_or(node, "name", ""))),
                "topology" => {
                    let mut part =
                        |name: &str| self.number(node, node.attribute(name).unwrap_or("1"));
                    if let (Some(sockets), Some(cores), Some(threads)) =
                        (part("sockets"), part("cores"), part("threads"))
                    {
                        cpu.topology = Some((sockets, cores, threads));
                    }
                }
                _ => self.skip(node),
            }
        }
        cpu
    }

    fn device(&mut self, node: Node<'_, '_>, domain: &mut Domain) {
        match node.tag_name().name() {
            "emulator" => domain.emulator = Some(text_of(node)),
            "disk" => domain.disks.push(self.disk(node)),
            "controller" => domain.controllers.push(self.controller(node)),
            "interface" => domain.interfaces.push(self.interface(node)),
            "serial" => domain.serials.push(attribute_or(node, "type", "pty")),
            "console" => domain.consoles.push(attribute_or(node, "type", "pty")),
            "input" => {
                domain.inputs.push(Input {
                    kind: attribute_or(node, "type", ""),
                    bus: attribute(node, "bus"),
                });
            }
            "graphics" => {
                let port = node
                    .attribute("port")
                    .and_then(|port| self.number(node, port));
                domain.graphics.push(Graphics {
                    kind: attribute_or(node, "type", ""),
                    port,
                    autoport: attribute(node, "autoport"),
                    listen: attribute(node, "listen"),
                    keymap: attribute(node, "keymap"),
                });
            }
            "sound" => domain.sounds.push(attribute_or(node, "model", "")),
            "video" => {
                for model in elements(node).filter(|node| node.tag_name().name() == "model") {
                    let vram = model
                        .attribute("vram")
                        .and_then(|vram| self.number(model, vram));
                    let heads = model
                        .attribute("heads")
                        .and_then(|heads| self.number(model, heads));
                    domain.videos.push(Video {
                        kind: attribute_or(model, "type", ""),
                        vram,
                        heads,
                    });
                }
            }
            "memballoon" => domain.memballoon = attribute(node, "model"),
            _ => self.skip(node),
        }
    }

    fn disk(&mut self, device: Node<'_, '_>) -> Disk {
        let mut disk = Disk {
            kind: attribute_or(device, "type", "file"),
            device: attribute_or(device, "device", "disk"),
            line: self.xml.at(device).line,
            ..Disk::default()
        };
        for node in elements(device) {
            match node.tag_name().name() {
                "driver" => {
                    disk.driver_name = attribute(node, "name");
                    disk.driver_type = attribute(node, "type");
                    disk.cache = attribute(node, "cache");
                }
                "source" => disk.source = attribute(node, super::print::disk_source(&disk.kind)),
                "target" => {
                    disk.target = attribute(node, "dev");
                    disk.bus = attribute(node, "bus");
                }
                "readonly" => disk.readonly = true,
                "shareable" => disk.shareable = true,
                "serial" => disk.serial = Some(text_of(node)),
                "address" => disk.address = Some(address(node)),
                _ => self.skip(node),
            }
        }
        disk
    }

    fn controller(&mut self, device: Node<'_, '_>) -> Controller {
        let index = device
            .attribute("index")
            .and_then(|index| self.number(device, index));
        let mut controller = Controller {
            kind: attribute_or(device, "type", ""),
            index,
            model: attribute(device, "model"),
            address: None,
            line: self.xml.at(device).line,
        };
        for node in elements(device) {
            match node.tag_name().name() {
                "address" => controller.address = Some(address(node)),
                _ => self.skip(node),
            }
        }
        controller
    }

    fn interface(&mut self, device: Node<'_, '_>) -> Interface {
        let mut interface = Interface {
            kind: attribute_or(device, "type", ""),
            line: self.xml.at(device).line,
            ..Interface::default()
        };
        for node in elements(device) {
            match node.tag_name().name() {
                "mac" => interface.mac = attribute(node, "address"),
                "source" => interface.source = attribute(node, source_attribute(&interface.kind)),
                "target" => interface.target = attribute(node, "dev"),
                "model" => interface.model = attribute(node, "type"),
                "address" => interface.address = Some(address(node)),
                _ => self.skip(node),
            }
        }
        interface
    }
}

fn address(node: Node<'_, '_>) -> Address {
    let others = node
        .attributes()
        .filter(|attribute| attribute.namespace().is_none() && attribute.name() != "type");
    let attributes = others
        .map(|attribute| (attribute.name().to_owned(), attribute.value().to_owned()))
        .collect();
    Address {
        kind: attribute_or(node, "type", ""),
        attributes,
    }
}
