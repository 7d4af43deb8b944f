//! The domain that is defined at the end.

use super::Options;
use super::source::Source;
use drylab_appliance::libvirt::{Disk, Domain, Graphics, Input, Interface, Os, Video};

/// What the guest is given: buses and models by what it has drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hardware {
    pub(crate) disk_bus: &'static str,
    pub(crate) disk_prefix: &'static str,
    pub(crate) nic: &'static str,
    pub(crate) clock: &'static str,
}

/// For guests that were made ready for it.
pub(crate) const VIRTIO: Hardware = Hardware {
    disk_bus: "virtio",
    disk_prefix: "vd",
    nic: "virtio",
    clock: "utc",
};

/// For guests the tool knows nothing of.
pub(crate) const DEFAULT: Hardware = Hardware {
    disk_bus: "ide",
    disk_prefix: "hd",
    nic: "rtl8139",
    clock: "utc",
};

/// Name of the `number`-th disk in the guest; letters end at z, where nobody has come.
pub(crate) fn disk_name(hardware: Hardware, number: usize) -> String {
    let letter = ('a'..='z').nth(number).unwrap_or('z');
    format!("{}{letter}", hardware.disk_prefix)
}

/// Name of the `number`-th image file.
pub(crate) fn image_name(source: &Source, number: usize) -> String {
    if number == 0 {
        format!("{}.img", source.name)
    } else {
        format!("{}-{number}.img", source.name)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The domain.
pub(crate) fn domain(source: &Source, hardware: Hardware, options: &Options) -> Domain {
    let text = |text: &str| Some(text.to_owned());
    let disks = (0..source.disks.len()).map(|number| Disk {
        kind: "file".to_owned(),
        device: "disk".to_owned(),
        driver_name: text("qemu"),
        driver_type: text("raw"),
        source: Some(image_name(source, number)),
        target: Some(disk_name(hardware, number)),
        bus: text(hardware.disk_bus),
        ..Disk::default()
    });
    let interfaces = source.macs.iter().map(|mac| Interface {
        kind: "bridge".to_owned(),
        mac: Some(mac.to_string()),
        source: Some(options.bridge.clone()),
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
