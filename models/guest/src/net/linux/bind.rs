//! Which driver of the guest takes an adapter.
//!
//! ```text
//! modalias ──modules.alias──▶ module ──modules.dep──▶ its file and those it needs ──▶ all there: it takes the adapter
//!          └─modules.builtin─▶ linked into the kernel
//! ```
//!
//! All of `/lib/modules/<release>`. A virtio function has a device on the virtio bus, which needs a driver of its own;
//! an adapter on Hyper-V's bus is there only when a driver takes the bus (quirk DQ311). A Xen front end needs no
//! driver for its bus: that is part of the kernel.

use super::{Bus, LinuxBootNet, NicView};
use crate::Tree;
use crate::modalias::{Aliases, Blacklist, Builtins, HYPERV_BUS, virtio_child};
use crate::modules::{self, ModuleFile};
use drylab_catalog::Witness;
use std::borrow::Cow;
use std::collections::BTreeMap;

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

/// Finds the driver of an adapter: one of the root, or else one that the initramfs had loaded before.
#[must_use]
pub fn driver(tree: &Tree, boot: &LinuxBootNet, nic: &NicView) -> Bound {
    if let Some(driver) = &nic.driver {
        return Bound {
            driver: Some(driver.clone()),
            witnesses: Vec::new(),
        };
    }
    let root = Root::of(tree, &boot.kernel);
    let mut witnesses = Vec::new();
    let Some(modalias) = &nic.modalias else {
        let says = "the adapter has no modalias to look up";
        witnesses.push(Witness::file(&root.alias_path, 0, says));
        return Bound {
            driver: None,
            witnesses,
        };
    };
    let driver = root.bind(modalias, nic, &mut witnesses);
    let early = boot.early.get(modalias).filter(|_| driver.is_none());
    early.cloned().unwrap_or(Bound { driver, witnesses })
}

/// `/lib/modules/<release>` as `modprobe` reads it.
struct Root<'t> {
    alias_path: String,
    builtin_path: String,
    dep_path: String,
    aliases: Cow<'t, str>,
    builtins: Builtins,
    files: BTreeMap<String, ModuleFile>,
    blacklist: Blacklist,
}

/// A module that says it takes a device, and where it says so.
struct Candidate {
    module: String,
    place: Witness,
    linked_in: bool,
}

impl<'t> Root<'t> {
    fn of(tree: &'t Tree, kernel: &str) -> Self {
        let directory = format!("/lib/modules/{kernel}");
        let path = |name: &str| format!("{directory}/{name}");
        let builtin_path = path("modules.builtin");
        let alias_path = path("modules.alias");
        Self {
            aliases: tree.text(&alias_path).unwrap_or_default(),
            builtins: Builtins::parse(&tree.text(&builtin_path).unwrap_or_default()),
            files: modules::files(tree, &directory),
            blacklist: Blacklist::of(tree),
            dep_path: path("modules.dep"),
            alias_path,
            builtin_path,
        }
    }

    /// The driver of an adapter, after that of its bus where the bus has one.
    fn bind(&self, modalias: &str, nic: &NicView, witnesses: &mut Vec<Witness>) -> Option<String> {
        let bus = nic.bus != Bus::Vmbus || self.take(HYPERV_BUS, nic, witnesses).is_some();
        if !bus {
            witnesses.push(Witness::quirk("DQ311"));
        }
        let driver = self.take(modalias, nic, witnesses).filter(|_| bus)?;
        match virtio_child(modalias).filter(|_| nic.bus == Bus::Virtio) {
            Some(child) => self.take(&child, nic, witnesses),
            None => Some(driver),
        }
    }

    /// First module that matches, is not refused and can be loaded.
    fn take(&self, modalias: &str, nic: &NicView, witnesses: &mut Vec<Witness>) -> Option<String> {
        let aliases = Aliases::parse(&self.aliases);
        let candidates = self.candidates(&aliases, modalias);
        for candidate in candidates.filter(|found| !probe_refuses(&found.module, nic)) {
            let loads = match self.files.get(&candidate.module) {
                _ if candidate.linked_in => Ok(None),
                Some(file) => file.loads(&candidate.module, &self.dep_path).map(Some),
                None => Err(modules::unlisted(&candidate.module, &self.dep_path)),
            };
            witnesses.push(candidate.place);
            match loads {
                Ok(file) => {
                    witnesses.extend(file);
                    return Some(candidate.module);
                }
                Err(missing) => witnesses.extend([missing, Witness::quirk("DQ310")]),
            }
        }
        let says = format!("no module takes {modalias}");
        witnesses.push(Witness::file(&self.alias_path, 0, says));
        None
    }

    /// Modules for a device: linked-in ones, then in the order of the alias file.
    fn candidates<'a>(
        &'a self,
        aliases: &'a Aliases<'a>,
        modalias: &'a str,
    ) -> impl Iterator<Item = Candidate> + 'a {
        let found = move |module: &str, path: &str, line: u32, linked_in: bool| Candidate {
            module: module.to_owned(),
            place: Witness::file(path, line, format!("{module} takes {modalias}")),
            linked_in,
        };
        let builtins = self.builtins.modules_for(modalias).into_iter();
        let builtins =
            builtins.map(move |(name, line)| found(name, &self.builtin_path, line, true));
        let listed = aliases.matches(modalias);
        let listed = listed.filter(|alias| !self.blacklist.holds(alias.module));
        let normal = |alias: &str| alias.replace('-', "_");
        builtins.chain(
            listed.map(move |alias| {
                found(&normal(alias.module), &self.alias_path, alias.line, false)
            }),
        )
    }
}
