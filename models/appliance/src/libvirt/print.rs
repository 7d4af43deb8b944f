//! [`Domain`] to text.

use super::{Address, Controller, Cpu, Disk, Domain, Graphics, Interface, Os, Video};
use crate::findings::quote;
use crate::xml::Printer;
use drylab_block::{Error, Result};

type Attributes<'a> = Vec<(&'a str, &'a str)>;

/// Writes a domain the way libvirt 0.9.10 does, the same bytes for the same value, without an XML declaration.
///
/// # Errors
/// [`Error::Unsupported`] when a text has a character that XML cannot spell, or a feature or an attribute of an address
/// has a name that is none.
pub fn print(domain: &Domain) -> Result<Vec<u8>> {
    for name in domain.features.iter().chain(
        domain
            .addresses()
            .flat_map(|address| address.attributes.iter().map(|(name, _)| name)),
    ) {
        check_name(name)?;
    }
    let mut printer = Printer::new();
    printer.open("domain", &[("type", &domain.kind)]);
    printer.leaf("name", &[], &domain.name);
    printer.optional("uuid", domain.uuid.as_deref());
    printer.optional("description", domain.description.as_deref());
    printer.leaf("memory", &[], &domain.memory_kib.to_string());
    printer.optional(
        "currentMemory",
        domain
            .current_memory_kib
            .map(|kib| kib.to_string())
            .as_deref(),
    );
    printer.leaf("vcpu", &[], &domain.vcpus.to_string());
    printer.optional("bootloader", domain.bootloader.as_deref());
    print_os(&mut printer, &domain.os);
    if !domain.features.is_empty() {
        printer.open("features", &[]);
        domain
            .features
            .iter()
            .for_each(|name| printer.empty(name, &[]));
        printer.close("features");
    }
    if let Some(cpu) = &domain.cpu {
        print_cpu(&mut printer, cpu);
    }
    if let Some(offset) = &domain.clock_offset {
        printer.empty("clock", &[("offset", offset)]);
    }
    printer.optional("on_poweroff", domain.on_poweroff.as_deref());
    printer.optional("on_reboot", domain.on_reboot.as_deref());
    printer.optional("on_crash", domain.on_crash.as_deref());
    print_devices(&mut printer, domain);
    printer.close("domain");
    printer.finish()
}

impl Domain {
    fn addresses(&self) -> impl Iterator<Item = &Address> {
        let disks = self.disks.iter().filter_map(|disk| disk.address.as_ref());
        let controllers = self
            .controllers
            .iter()
            .filter_map(|controller| controller.address.as_ref());
        let interfaces = self
            .interfaces
            .iter()
            .filter_map(|interface| interface.address.as_ref());
        disks.chain(controllers).chain(interfaces)
    }
}

/// Names of elements and attributes that come from the value: an XML name without a prefix.
fn check_name(name: &str) -> Result<()> {
    let good = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.')
            || !c.is_ascii() && c.is_alphanumeric()
    };
    let starts = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if starts && name.chars().all(good) && name != "xmlns" {
        return Ok(());
    }
    Err(Error::unsupported(format_args!(
        "{} cannot be the name of an element or attribute",
        quote(name)
    )))
}

fn push<'a>(attributes: &mut Attributes<'a>, name: &'a str, value: Option<&'a str>) {
    attributes.extend(value.map(|value| (name, value)));
}

/// The attribute of a disk's `source`; network disks have a name where interfaces have a network.
pub(super) fn disk_source(kind: &str) -> &'static str {
    if kind == "network" {
        "name"
    } else {
        super::read::source_attribute(kind)
    }
}

fn print_os(printer: &mut Printer, os: &Os) {
    if *os == Os::default() {
        return;
    }
    printer.open("os", &[]);
    if os.kind.is_some() || os.arch.is_some() || os.machine.is_some() {
        let mut attributes = Vec::new();
        push(&mut attributes, "arch", os.arch.as_deref());
        push(&mut attributes, "machine", os.machine.as_deref());
        printer.leaf("type", &attributes, os.kind.as_deref().unwrap_or(""));
    }
    printer.optional("loader", os.loader.as_deref());
    printer.optional("kernel", os.kernel.as_deref());
    printer.optional("initrd", os.initrd.as_deref());
    printer.optional("cmdline", os.cmdline.as_deref());
    os.boot
        .iter()
        .for_each(|device| printer.empty("boot", &[("dev", device)]));
    printer.close("os");
}

fn print_cpu(printer: &mut Printer, cpu: &Cpu) {
    let mut attributes = Vec::new();
    push(&mut attributes, "mode", cpu.mode.as_deref());
    push(&mut attributes, "match", cpu.matching.as_deref());
    printer.open("cpu", &attributes);
    printer.optional("model", cpu.model.as_deref());
    printer.optional("vendor", cpu.vendor.as_deref());
    if let Some((sockets, cores, threads)) = cpu.topology {
        let [sockets, cores, threads] = [sockets, cores, threads].map(|count| count.to_string());
        printer.empty(
            "topology",
            &[
                ("sockets", &sockets),
                ("cores", &cores),
                ("threads", &threads),
            ],
        );
    }
    for (policy, name) in &cpu.features {
        let mut attributes = Vec::new();
        push(&mut attributes, "policy", policy.as_deref());
        attributes.push(("name", name));
        printer.empty("feature", &attributes);
    }
    printer.close("cpu");
}

fn print_devices(printer: &mut Printer, domain: &Domain) {
    printer.open("devices", &[]);
    printer.optional("emulator", domain.emulator.as_deref());
    domain
        .disks
        .iter()
        .for_each(|disk| print_disk(printer, disk));
    domain
        .controllers
        .iter()
        .for_each(|controller| print_controller(printer, controller));
    domain
        .interfaces
        .iter()
        .for_each(|interface| print_interface(printer, interface));
    domain
        .serials
        .iter()
        .for_each(|kind| printer.empty("serial", &[("type", kind)]));
    domain
        .consoles
        .iter()
        .for_each(|kind| printer.empty("console", &[("type", kind)]));
    for input in &domain.inputs {
        let mut attributes = vec![("type", input.kind.as_str())];
        push(&mut attributes, "bus", input.bus.as_deref());
        printer.empty("input", &attributes);
    }
    domain
        .graphics
        .iter()
        .for_each(|graphics| print_graphics(printer, graphics));
    domain
        .sounds
        .iter()
        .for_each(|model| printer.empty("sound", &[("model", model)]));
    domain
        .videos
        .iter()
        .for_each(|video| print_video(printer, video));
    if let Some(model) = &domain.memballoon {
        printer.empty("memballoon", &[("model", model)]);
    }
    printer.close("devices");
}

fn print_disk(printer: &mut Printer, disk: &Disk) {
    printer.open("disk", &[("type", &disk.kind), ("device", &disk.device)]);
    let mut driver = Vec::new();
    push(&mut driver, "name", disk.driver_name.as_deref());
    push(&mut driver, "type", disk.driver_type.as_deref());
    push(&mut driver, "cache", disk.cache.as_deref());
    if !driver.is_empty() {
        printer.empty("driver", &driver);
    }
    if let Some(source) = &disk.source {
        printer.empty("source", &[(disk_source(&disk.kind), source)]);
    }
    let mut target = Vec::new();
    push(&mut target, "dev", disk.target.as_deref());
    push(&mut target, "bus", disk.bus.as_deref());
    if !target.is_empty() {
        printer.empty("target", &target);
    }
    if disk.readonly {
        printer.empty("readonly", &[]);
    }
    if disk.shareable {
        printer.empty("shareable", &[]);
    }
    printer.optional("serial", disk.serial.as_deref());
    print_address(printer, disk.address.as_ref());
    printer.close("disk");
}

fn print_controller(printer: &mut Printer, controller: &Controller) {
    let index = controller.index.map(|index| index.to_string());
    let mut attributes = vec![("type", controller.kind.as_str())];
    push(&mut attributes, "index", index.as_deref());
    push(&mut attributes, "model", controller.model.as_deref());
    if controller.address.is_none() {
        return printer.empty("controller", &attributes);
    }
    printer.open("controller", &attributes);
    print_address(printer, controller.address.as_ref());
    printer.close("controller");
}

fn print_interface(printer: &mut Printer, interface: &Interface) {
    printer.open("interface", &[("type", &interface.kind)]);
    let source = super::read::source_attribute(&interface.kind);
    for (element, attribute, value) in [
        ("mac", "address", &interface.mac),
        ("source", source, &interface.source),
        ("target", "dev", &interface.target),
        ("model", "type", &interface.model),
    ] {
        if let Some(value) = value {
            printer.empty(element, &[(attribute, value)]);
        }
    }
    print_address(printer, interface.address.as_ref());
    printer.close("interface");
}

fn print_address(printer: &mut Printer, address: Option<&Address>) {
    if let Some(address) = address {
        let mut attributes = vec![("type", address.kind.as_str())];
        attributes.extend(
            address
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        printer.empty("address", &attributes);
    }
}

fn print_graphics(printer: &mut Printer, graphics: &Graphics) {
    let port = graphics.port.map(|port| port.to_string());
    let mut attributes = vec![("type", graphics.kind.as_str())];
    push(&mut attributes, "port", port.as_deref());
    push(&mut attributes, "autoport", graphics.autoport.as_deref());
    push(&mut attributes, "listen", graphics.listen.as_deref());
    push(&mut attributes, "keymap", graphics.keymap.as_deref());
    printer.empty("graphics", &attributes);
}

fn print_video(printer: &mut Printer, video: &Video) {
    let (vram, heads) = (
        video.vram.map(|vram| vram.to_string()),
        video.heads.map(|heads| heads.to_string()),
    );
    let mut attributes = vec![("type", video.kind.as_str())];
    push(&mut attributes, "vram", vram.as_deref());
    push(&mut attributes, "heads", heads.as_deref());
    printer.open("video", &[]);
    printer.empty("model", &attributes);
    printer.close("video");
}
