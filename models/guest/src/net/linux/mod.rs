//! How a Linux guest names its network adapters and which configuration then brings them up.
//!
//! ```text
//! NicView ──driver──▶ ethN ──udev rules──▶ name ──ifcfg / interfaces / NetworkManager──▶ Ifup
//!          modules.alias   60-, 70-, 75-*.rules   ifup-eth: HWADDR, DEVICE, BOOTPROTO
//! ```
//!
//! Everything is decided by the guest's own files in a [`Tree`](crate::Tree); [`plan`] writes into it what the guest's programs
//! write while booting (a persistent-net rule). Sources: `facts` of the original programs and the measured tables of
//! udev 141 to 182 and initscripts 9.03; see [`udev`], [`initscripts`], [`ifupdown`], [`manager`].
//!
//! What it does not do: exchange packets. A plan says which client would be called with which arguments, or which
//! address would be set; whether that succeeds is the network's business.

pub mod bind;
pub mod events;
pub mod fuzz;
pub mod ifcfg;
pub mod ifupdown;
pub mod initscripts;
pub mod manager;
mod plan;
pub mod shell;
pub mod udev;

use drylab_catalog::{Mac, PciAddress, Witness};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub use plan::plan;

/// The bus an adapter's driver binds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bus {
    /// An ordinary PCI function.
    Pci,
    /// A virtio device behind a virtio PCI function.
    Virtio,
    /// A Xen network front end.
    Xen,
    /// Hyper-V's synthetic bus.
    Vmbus,
    /// No hardware: dummy, bridge, tap. Has no driver for udev.
    Virtual,
}

/// The PCI function of an adapter (for virtio: the parent's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciFunction {
    /// Where it sits.
    pub slot: PciAddress,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
}

/// One adapter as the hardware shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicView {
    /// Its address.
    pub mac: Mac,
    /// Its bus.
    pub bus: Bus,
    /// The PCI function, when it has one.
    pub pci: Option<PciFunction>,
    /// Modalias of the device the driver binds to (for virtio the PCI function's), when known.
    pub modalias: Option<String>,
    /// The driver that took it, when the boot already decided; otherwise it is looked up by `modalias`.
    pub driver: Option<String>,
    /// Whether the cable is in.
    pub link: bool,
}

/// What of the boot matters to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxBootNet {
    /// Release of the running kernel: `2.6.32-279.el6.x86_64`; finds `/lib/modules/<release>`.
    pub kernel: String,
    /// What sysfs `addr_assign_type` reads; None when the kernel has no such file.
    pub addr_assign_type: Option<u8>,
    /// How the daemon handles the adapters' events.
    pub events: Events,
    /// Drivers that the initramfs had loaded already, by the adapter's modalias.
    pub early: BTreeMap<String, bind::Bound>,
}

/// How "add" events are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Events {
    /// At the same time, as the daemon does at boot.
    Together,
    /// Each to its end before the next begins, as `udevadm test` does.
    InTurn,
}

/// What happens to the adapters of a Linux guest at one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxNetPlan {
    /// Adapters with a driver, in the kernel's order.
    pub interfaces: Vec<LinuxInterface>,
    /// Adapters without one.
    pub driverless: Vec<Driverless>,
    /// What the boot scripts do, in their order.
    pub ifups: Vec<Ifup>,
    /// Names of interfaces that no configuration brought up.
    pub unconfigured: Vec<String>,
    /// Time lost waiting: names that stay occupied, interfaces that never appear. Microseconds.
    pub delay_us: u64,
    /// Why the time was lost.
    pub delays: Vec<Witness>,
}

/// An adapter that became an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxInterface {
    /// Index into the adapters given.
    pub nic: u32,
    /// Name the kernel gave.
    pub kernel_name: String,
    /// Name after udev.
    pub name: String,
    /// Its address (after MACADDR, if a configuration sets one).
    pub mac: Mac,
    /// Driver that took it.
    pub driver: String,
    /// Why it has this name and this driver.
    pub witnesses: Vec<Witness>,
}

/// An adapter nothing took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driverless {
    /// Index into the adapters given.
    pub nic: u32,
    /// Where a driver was looked for.
    pub witnesses: Vec<Witness>,
}

/// One configuration brought up, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ifup {
    /// File it comes from; `NetworkManager` for a connection it makes by itself.
    pub config: String,
    /// Device it names.
    pub device: String,
    /// Index into [`LinuxNetPlan::interfaces`] of the interface it acts on.
    pub interface: Option<u32>,
    /// What is done to it.
    pub action: Action,
    /// Exit code of the script; for DHCP the one of a client that gets a lease (otherwise 1).
    pub exit: u8,
    /// What it prints, with the same condition.
    pub message: String,
    /// Why.
    pub witnesses: Vec<Witness>,
}

/// What a configuration does to its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Starts a DHCP client.
    Dhcp(DhcpClient),
    /// Sets an address.
    Static(StaticAddress),
    /// Nothing, or only sets the link up.
    None,
}

/// A DHCP client as it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpClient {
    /// Program and arguments, as executed.
    pub arguments: Vec<String>,
    /// Gives up for good after the first try (`dhclient -1`).
    pub one_try: bool,
    /// Seconds one try lasts.
    pub timeout_s: u32,
    /// Goes on in the background for ever.
    pub persistent: bool,
    /// Host name sent.
    pub hostname: Option<String>,
}

/// An address as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length, 0..=32.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers this configuration puts into resolv.conf.
    pub dns: Vec<Ipv4Addr>,
    /// Whether the address is probed first and given up when another host answers (ifup-eth's arping).
    pub probe: bool,
}
