//! Which driver of the guest takes an adapter.
//!
//! The adapter's modalias is looked up in `/lib/modules/<release>/modules.alias` (and among the linked-in drivers of
//! `modules.builtin`); a virtio function then has a device on the virtio bus, which needs a driver of its own.

use super::{Bus, NicView};
use crate::Tree;
use crate::modalias::{Aliases, Blacklist, Builtins, virtio_child};
use drylab_catalog::Witness;

/// The driver and where it was found, or where it was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Driver; None when nothing takes the adapter.
    pub driver: Option<String>,
    /// Lines of the guest's files.
    pub witnesses: Vec<Witness>,
}

/// A device whose revision decides: 8139C+ chips have revision 0x20 and above, and each of the two drivers refuses the
/// other's chips (probe functions of 8139cp and 8139too).
fn probe_refuses(module: &str, nic: &NicView) -> bool {
    let Some(pci) = nic
        .pci
        .filter(|pci| (pci.vendor, pci.device) == (0x10ec, 0x8139))
    else {
        return false;
    };
    match module {
        "8139cp" => pci.revision < 0x20,
        "8139too" => pci.revision >= 0x20,
        _ => false,
    }
}

/// Finds the driver of an adapter.
#[must_use]
pub fn driver(tree: &Tree, kernel: &str, nic: &NicView) -> Bound {
    if let Some(driver) = &nic.driver {
        return Bound {
            driver: Some(driver.clone()),
            witnesses: Vec::new(),
        };
    }
    let directory = format!("/lib/modules/{kernel}");
    let files = Files {
        alias_path: format!("{directory}/modules.alias"),
        builtin_path: format!("{directory}/modules.builtin"),
    };
    let alias_text = tree.text(&files.alias_path).unwrap_or_default();
    let aliases = Aliases::parse(&alias_text);
    let builtins = Builtins::parse(&tree.text(&files.builtin_path).unwrap_or_default());
    let blacklist = Blacklist::of(tree);
    let mut witnesses = Vec::new();
    let Some(modalias) = &nic.modalias else {
        witnesses.push(Witness::file(
            &files.alias_path,
            0,
            "the adapter has no modalias to look up",
        ));
        return Bound {
            driver: None,
            witnesses,
        };
    };
    let mut find = |modalias: &str| -> Option<String> {
        let (module, path, line) = builtins
            .modules_for(modalias)
            .into_iter()
            .map(|(module, line)| (module, &files.builtin_path, line))
            .chain(
                aliases
                    .matches(modalias)
                    .filter(|alias| !blacklist.holds(alias.module))
                    .map(|alias| (alias.module, &files.alias_path, alias.line)),
            )
            .find(|(module, _, _)| !probe_refuses(module, nic))?;
        witnesses.push(Witness::file(
            path,
            line,
            format!("{module} takes {modalias}"),
        ));
        Some(module.to_owned())
    };
    let mut driver = find(modalias);
    let child = driver
        .as_ref()
        .and_then(|_| virtio_child(modalias))
        .filter(|_| nic.bus == Bus::Virtio);
    if let Some(child) = &child {
        driver = find(child);
    }
    if driver.is_none() {
        let wanted = child.as_ref().unwrap_or(modalias);
        witnesses.push(Witness::file(
            &files.alias_path,
            0,
            format!("no module takes {wanted}"),
        ));
    }
    Bound { driver, witnesses }
}

struct Files {
    alias_path: String,
    builtin_path: String,
}
