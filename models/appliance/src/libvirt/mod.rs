//! Domain XML of libvirt, as virt-manager 0.9 and libvirt 0.9.10 write it for KVM.
//!
//! Source: libvirt's `docs/formatdomain` of that time; files of libvirt's and virtinst's own tests.
//!
//! ```text
//! domain type
//!   name, uuid, memory, currentMemory (KiB unless unit=), vcpu
//!   os/(type arch machine, loader, kernel, initrd, cmdline, boot dev*), features/*, cpu, clock offset, on_*
//!   devices/(emulator, disk*, controller*, interface*, serial*, console*, input*, graphics*, sound*, video*, memballoon)
//! ```
//!
//! What the model does not hold is counted in [`Domain::unknown`], with a finding for each. libvirt before 0.9.11 writes no
//! `unit` on memory, and reads it as KiB; so does the printer here.

mod print;
mod read;

use drylab_block::Finding;
pub use print::print;
pub use read::parse;

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// `type`: `kvm`, `qemu`, `xen`, `vmware`.
    pub kind: String,
    /// `name`.
    pub name: String,
    /// `uuid` as written.
    pub uuid: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// `memory` in KiB, rounded up as libvirt does.
    pub memory_kib: u64,
    /// `currentMemory` in KiB.
    pub current_memory_kib: Option<u64>,
    /// `vcpu`, 1 when absent.
    pub vcpus: u32,
    /// Xen's `bootloader`.
    pub bootloader: Option<String>,
    /// `os`.
    pub os: Os,
    /// Names under `features`: `acpi`, `apic`, `pae`.
    pub features: Vec<String>,
    /// `cpu`; without it the guest sees the machine type's default processor (quirk HQ62).
    pub cpu: Option<Cpu>,
    /// `clock/@offset`: `utc` or `localtime`.
    pub clock_offset: Option<String>,
    /// `on_poweroff`.
    pub on_poweroff: Option<String>,
    /// `on_reboot`.
    pub on_reboot: Option<String>,
    /// `on_crash`.
    pub on_crash: Option<String>,
    /// `emulator`.
    pub emulator: Option<String>,
    /// Disks, CD drives and floppies in order.
    pub disks: Vec<Disk>,
    /// Controllers in order.
    pub controllers: Vec<Controller>,
    /// Network adapters in order.
    pub interfaces: Vec<Interface>,
    /// Types of serial ports in order, such as `pty`.
    pub serials: Vec<String>,
    /// Types of consoles in order.
    pub consoles: Vec<String>,
    /// Input devices.
    pub inputs: Vec<Input>,
    /// Displays.
    pub graphics: Vec<Graphics>,
    /// Models of sound cards.
    pub sounds: Vec<String>,
    /// Video cards.
    pub videos: Vec<Video>,
    /// `memballoon/@model`.
    pub memballoon: Option<String>,
    /// Number of elements the model does not hold.
    pub unknown: u32,
    /// What was not understood.
    pub findings: Vec<Finding>,
}

/// How the machine starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Os {
    /// Text of `type`: `hvm`, `linux`, `xen`.
    pub kind: Option<String>,
    /// `type/@arch`.
    pub arch: Option<String>,
    /// `type/@machine`, such as `rhel6.3.0`.
    pub machine: Option<String>,
    /// `loader`.
    pub loader: Option<String>,
    /// `kernel`.
    pub kernel: Option<String>,
    /// `initrd`.
    pub initrd: Option<String>,
    /// `cmdline`.
    pub cmdline: Option<String>,
    /// `boot/@dev` in order: `hd`, `cdrom`, `network`, `fd`.
    pub boot: Vec<String>,
}

/// Processor shown to the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// `mode`: `custom`, `host-model`, `host-passthrough`.
    pub mode: Option<String>,
    /// `match`.
    pub matching: Option<String>,
    /// `model`.
    pub model: Option<String>,
    /// `vendor`.
    pub vendor: Option<String>,
    /// `feature` policy and name, in order.
    pub features: Vec<(Option<String>, String)>,
    /// `topology`: sockets, cores, threads.
    pub topology: Option<(u32, u32, u32)>,
}

/// `disk`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// `type`: `file`, `block`, `network`; `file` when absent.
    pub kind: String,
    /// `device`: `disk`, `cdrom`, `floppy`, `lun`; `disk` when absent.
    pub device: String,
    /// `driver/@name`.
    pub driver_name: Option<String>,
    /// `driver/@type`: the format; without it libvirt takes raw (or probes, in old versions).
    pub driver_type: Option<String>,
    /// `driver/@cache`.
    pub cache: Option<String>,
    /// `source`: its `file`, `dev`, `dir`, `name` or `volume`, as the type has it.
    pub source: Option<String>,
    /// `target/@dev`, such as `vda`.
    pub target: Option<String>,
    /// `target/@bus`: `virtio`, `ide`, `scsi`, `fdc`.
    pub bus: Option<String>,
    /// `readonly`.
    pub readonly: bool,
    /// `shareable`.
    pub shareable: bool,
    /// `serial`.
    pub serial: Option<String>,
    /// `address`.
    pub address: Option<Address>,
    /// Line of the element.
    pub line: u32,
}

/// `controller`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    /// `type`: `ide`, `scsi`, `usb`.
    pub kind: String,
    /// `index`.
    pub index: Option<u32>,
    /// `model`.
    pub model: Option<String>,
    /// `address`.
    pub address: Option<Address>,
    /// Line of the element.
    pub line: u32,
}

/// `interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `type`: `bridge`, `network`, `user`.
    pub kind: String,
    /// `mac/@address` as written; libvirt makes one when absent.
    pub mac: Option<String>,
    /// `source`: its `bridge`, `network`, `dev`, `name` or `address`, as the type has it.
    pub source: Option<String>,
    /// `target/@dev`.
    pub target: Option<String>,
    /// `model/@type`, such as `virtio`; absent means rtl8139 on KVM.
    pub model: Option<String>,
    /// `address`.
    pub address: Option<Address>,
    /// Line of the element.
    pub line: u32,
}

/// `input`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// `type`: `tablet`, `mouse`.
    pub kind: String,
    /// `bus`: `usb`, `ps2`, `xen`.
    pub bus: Option<String>,
}

/// `graphics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graphics {
    /// `type`: `vnc`, `spice`, `sdl`.
    pub kind: String,
    /// `port`; -1 is any.
    pub port: Option<i32>,
    /// `autoport`.
    pub autoport: Option<String>,
    /// `listen`.
    pub listen: Option<String>,
    /// `keymap`.
    pub keymap: Option<String>,
}

/// `video/model`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Video {
    /// `type`: `cirrus`, `vga`, `qxl`.
    pub kind: String,
    /// `vram` in KiB.
    pub vram: Option<u64>,
    /// `heads`.
    pub heads: Option<u32>,
}

/// `address`: its type and its other attributes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// `type`: `pci`, `drive`.
    pub kind: String,
    /// Names and values, such as `slot` and `0x03`.
    pub attributes: Vec<(String, String)>,
}

impl Address {
    /// A PCI address on bus 0, function 0, as libvirt writes it.
    #[must_use]
    pub fn pci(slot: u8) -> Self {
        let slot = format!("0x{slot:02x}");
        let parts = [
            ("domain", "0x0000"),
            ("bus", "0x00"),
            ("slot", &slot),
            ("function", "0x0"),
        ];
        let attributes = parts
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Self {
            kind: "pci".to_owned(),
            attributes,
        }
    }

    /// A number among the attributes, decimal or hexadecimal.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        let (_, value) = self.attributes.iter().find(|(key, _)| key == name)?;
        match value.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => value.parse().ok(),
        }
    }
}

impl Domain {
    /// What [`print()`] keeps: everything but lines, findings and the count of unknown elements.
    ///
    /// For every domain `d` that can be printed, `parse(print(d)).bare() == d.bare()`.
    #[must_use]
    pub fn bare(&self) -> Self {
        let mut bare = self.clone();
        bare.unknown = 0;
        bare.findings.clear();
        bare.disks.iter_mut().for_each(|disk| disk.line = 0);
        bare.controllers
            .iter_mut()
            .for_each(|controller| controller.line = 0);
        bare.interfaces
            .iter_mut()
            .for_each(|interface| interface.line = 0);
        bare
    }
}
