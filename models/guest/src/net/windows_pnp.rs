//! Plug and play: which instance of the registry an adapter is, and what a new one is called.

use super::windows::{TcpipInterface, WindowsAdapter, WindowsNet, instance_slot, serial_instance};
use drylab_catalog::device::Device;
use drylab_catalog::{Nic, PciAddress, Witness};
use drylab_network::word;

/// Whether an instance of the registry is this adapter: same ids, and same serial number or same place.
pub(super) fn is_same(adapter: &WindowsAdapter, model: &Device, nic: &Nic) -> bool {
    let ids = model.hardware_ids();
    if ids
        .first()
        .is_none_or(|id| !id.eq_ignore_ascii_case(&adapter.device_id))
    {
        return false;
    }
    // PCI Express has a serial number, made of the address. On VMBus and Xen's bus the host gives each adapter an
    // identity of its own, which a machine here does not carry: its address stands for it.
    let Some(slot) = nic.slot.filter(|_| !model.express) else {
        return adapter
            .instance
            .eq_ignore_ascii_case(&serial_instance(nic.mac));
    };
    match adapter.location {
        Some(location) => location == slot,
        None => instance_slot(&adapter.instance) == Some((slot.device, slot.function)),
    }
}

/// Instance id of a conventional adapter: bus level, what stands for the path to it, and its own place. The hash
/// Windows makes of the path is not reproduced: only the place is compared.
pub(super) fn location_instance(slot: PciAddress) -> String {
    let level = if slot.bus == 0 { 3 } else { 4 };
    let place = (slot.device << 3) | slot.function;
    format!("{level}&{:X}&0&{place:02X}", slot.bus)
}

/// `Local Area Connection`, with the lowest free number; connections of adapters that are gone keep theirs.
pub(super) fn free_name(net: &WindowsNet) -> String {
    let base = "Local Area Connection";
    let is_free = |name: &String| !net.connections.values().any(|known| known == name);
    let numbered = (2u32..=u32::MAX).map(|number| format!("{base} {number}"));
    std::iter::once(base.to_owned())
        .chain(numbered)
        .find(is_free)
        .unwrap_or_else(|| base.to_owned())
}

/// GUID of the `index`-th adapter: Windows draws it, here it follows from the seed.
pub(super) fn new_guid(seed: u64, index: u64) -> String {
    let first = index.saturating_mul(2);
    let (high, low) = (word(seed, first), word(seed, first.saturating_add(1)));
    let text = format!("{high:016X}{low:016X}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    format!(
        "{{{}-{}-{}-{}-{}}}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// Why an adapter is new to the guest, and what a new one gets: quirks.
pub(super) fn why_new(net: &WindowsNet, model: &Device) -> Vec<Witness> {
    let ids = model.hardware_ids();
    let same_model = |adapter: &WindowsAdapter| {
        ids.first()
            .is_some_and(|id| id.eq_ignore_ascii_case(&adapter.device_id))
    };
    let mut why = Vec::new();
    // Of the same model, but with another serial number: only the MAC tells them apart.
    if model.express && net.adapters.iter().any(same_model) {
        why.push(Witness::quirk("GQ52"));
    }
    why.push(Witness::quirk("GQ49"));
    why
}

/// Settings of an interface. One that the image's adapter names and Tcpip has no key for begins as a new one does.
pub(super) fn settings(net: &mut WindowsNet, guid: &str) -> TcpipInterface {
    let adapter = net
        .adapters
        .iter()
        .find(|adapter| adapter.interface.as_deref() == Some(guid));
    let made = adapter.map(|adapter| {
        let says = format!("its interface {guid} has no settings: DHCP");
        Witness::key(adapter.key.clone(), says)
    });
    let new = || TcpipInterface {
        dhcp: true,
        made: made.into_iter().collect(),
        ..TcpipInterface::default()
    };
    let known = net.interfaces.entry(guid.to_owned());
    known.or_insert_with(new).clone()
}

/// Why an interface asks for an address: its key in the image's registry, or what made it.
pub(super) fn why_dhcp(settings: &TcpipInterface) -> Vec<Witness> {
    if settings.made.is_empty() {
        vec![Witness::key(settings.key.clone(), "EnableDHCP is not 0")]
    } else {
        settings.made.clone()
    }
}
