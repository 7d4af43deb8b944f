//! The domain that is defined at the end.

use super::source::Source;
use drylab_appliance::libvirt::{Disk, Domain, Graphics, Input, Interface, Os, Video};

/// How the image files of a machine are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Images {
    /// `NAME.img`, `NAME-1.img`: version 0.8.
    Numbered,
    /// `NAME-sda`, `NAME-sdb`: version 2.
    Lettered,
}

/// What the guest is given: buses and models by what it has drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hardware {
    pub(crate) disk_bus: &'static str,
    pub(crate) disk_prefix: &'static str,
    pub(crate) nic: &'static str,
    pub(crate) clock: &'static str,
    /// Machine type; libvirt's default without.
    pub(crate) machine: Option<&'static str>,
    pub(crate) images: Images,
}

/// For guests that were made ready for it.
pub(crate) const VIRTIO: Hardware = Hardware {
    disk_bus: "virtio",
    disk_prefix: "vd",
    nic: "virtio",
    clock: "utc",
    machine: None,
    images: Images::Numbered,
};

/// For guests the tool knows nothing of.
pub(crate) const DEFAULT: Hardware = Hardware {
    disk_bus: "ide",
    disk_prefix: "hd",
    nic: "rtl8139",
    clock: "utc",
    machine: None,
    images: Images::Numbered,
};

/// Letter of the `number`-th disk; they end at z, where nobody has come.
fn letter(number: usize) -> char {
    ('a'..='z').nth(number).unwrap_or('z')
}

/// Name of the `number`-th disk in the guest.
pub(crate) fn disk_name(hardware: Hardware, number: usize) -> String {
    format!("{}{}", hardware.disk_prefix, letter(number))
}

/// Name of the `number`-th image file.
pub(crate) fn image_name(name: &str, images: Images, number: usize) -> String {
    match (images, number) {
        (Images::Lettered, _) => format!("{name}-sd{}", letter(number)),
        (Images::Numbered, 0) => format!("{name}.img"),
        (Images::Numbered, _) => format!("{name}-{number}.img"),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The domain.
pub(crate) fn domain(source: &Source, hardware: Hardware, bridge: &str) -> Domain {
    let text = |text: &str| Some(text.to_owned());
    let disks = (0..source.disks.len()).map(|number| Disk {
        kind: "file".to_owned(),
        device: "disk".to_owned(),
        driver_name: text("qemu"),
        driver_type: text("raw"),
        source: Some(image_name(&source.name, hardware.images, number)),
        target: Some(disk_name(hardware, number)),
        bus: text(hardware.disk_bus),
        ..Disk::default()
    });
    let interfaces = source.macs.iter().map(|mac| Interface {
        kind: "bridge".to_owned(),
        mac: mac.map(|mac| mac.to_string()),
        source: text(bridge),
        model: text(hardware.nic),
        ..Interface::default()
    });
    Domain {
        kind: "kvm".to_owned(),
        name: source.name.clone(),
        uuid: source.uuid.clone(),
        memory_kib: source.memory_kib,
        vcpus: source.vcpus,
        os: Os {
            kind: text("hvm"),
            arch: text("x86_64"),
            machine: hardware.machine.map(str::to_owned),
            boot: words(&["hd"]),
            ..Os::default()
        },
        features: words(&["acpi", "apic", "pae"]),
        clock_offset: text(hardware.clock),
        on_poweroff: text("destroy"),
        on_reboot: text("restart"),
        on_crash: text("restart"),
        disks: disks.collect(),
        interfaces: interfaces.collect(),
        consoles: words(&["pty"]),
        inputs: vec![Input {
            kind: "tablet".to_owned(),
            bus: text("usb"),
        }],
        graphics: vec![Graphics {
            kind: "vnc".to_owned(),
            port: Some(-1),
            autoport: text("yes"),
            ..Graphics::default()
        }],
        videos: vec![Video {
            kind: "cirrus".to_owned(),
            ..Video::default()
        }],
        ..Domain::default()
    }
}
