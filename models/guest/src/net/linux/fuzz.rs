//! Entry points for fuzzing: any bytes, never a panic.

use super::ifupdown::{self, Interfaces};
use super::initscripts::{self, Device};
use super::udev::{Rules, device::Facts, device::NetDevice};
use super::{Bus, PciFunction, ifcfg};
use crate::Tree;
use crate::modalias::{Aliases, Builtins, virtio_child};
use drylab_catalog::{Mac, PciAddress};

fn facts() -> Facts<'static> {
    let slot = PciAddress {
        bus: 0,
        device: 3,
        function: 0,
    };
    Facts {
        kernel_name: "eth0",
        address: "52:54:00:12:34:56",
        addr_assign_type: Some(0),
        dev_id: Some(0),
        kind: 1,
        bus: Bus::Virtio,
        driver: "virtio_net",
        pci: Some(PciFunction {
            slot,
            vendor: 0x1af4,
            device: 0x1000,
            revision: 0,
        }),
        ifindex: 2,
    }
}

/// A rule file: read and evaluated for one adapter; what the writer appends is a rule again.
pub fn udev_rules(data: &[u8]) {
    let mut tree = Tree::new();
    tree.write("/lib/udev/rules.d/75-fuzz.rules", data.to_vec());
    let device = NetDevice::new(&facts());
    let before = Rules::of(&tree).rules().len();
    let outcome = Rules::of(&tree).add(&mut tree, &device);
    assert!(
        outcome.name.is_none_or(|name| !name.is_empty()),
        "an empty name is no name"
    );
    assert!(
        Rules::of(&tree).rules().len() >= before,
        "an event removes no rule"
    );
}

/// An ifcfg file: identified, sourced and brought up.
pub fn ifcfg(data: &[u8]) {
    let mut tree = Tree::new();
    tree.write(format!("{}/ifcfg-eth0", ifcfg::DIRECTORY), data.to_vec());
    let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    let tie = ifcfg::rename_device(&tree, "eth0", Some(&mac.to_string()));
    assert!(
        tie.is_none_or(|tie| !tie.device.text.is_empty()),
        "an empty device is no device"
    );
    let devices = [Device {
        name: "eth0".to_owned(),
        mac,
        link: true,
    }];
    for name in initscripts::service_order(&tree) {
        let run = initscripts::ifup(&tree, &name, true, &devices);
        assert!(run.exit <= 1, "ifup ends with 0 or 1");
    }
}

/// An interfaces file: read, and each stanza acted on.
pub fn interfaces(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let interfaces = Interfaces::parse(&text);
    for stanza in &interfaces.stanzas {
        let _ = ifupdown::action(&Tree::new(), stanza);
    }
    let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
    for (_, line) in interfaces.wanted() {
        assert!(
            (1..=lines).contains(&line),
            "a stanza has a line of the file"
        );
    }
}

/// A modules.alias (and modules.builtin) file: looked up with what its own lines say.
pub fn modules_alias(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let aliases = Aliases::parse(&text);
    let builtins = Builtins::parse(&text);
    for modalias in text.split_ascii_whitespace().take(64) {
        let modules = aliases.modules_for(modalias);
        assert!(modules.len() <= aliases.len(), "no module without a line");
        let _ = builtins.modules_for(modalias);
        let _ = virtio_child(modalias);
    }
}
