//! Which driver takes a controller: its modalias against what the initramfs (or, later, the root) holds.

use crate::inspect::{Initramfs, ModuleFile, ModuleTree};
use crate::modalias::{Blacklist, HYPERV_BUS, fnmatch, virtio_child};
use crate::modules::name_of;
use crate::net::linux::bind::Bound;
use crate::os::linux_drivers::{BUS_DRIVERS, Naming, declines, naming};
use drylab_catalog::device::{Bus, Class, Device, device, devices};
use drylab_catalog::{Machine, Witness};
use std::collections::{BTreeMap, BTreeSet};

/// Modules that can be loaded at one time of the boot.
pub(super) struct Pool<'a> {
    /// The kernel's own modules tree: what is linked in, and what the root would offer.
    pub(super) tree: &'a ModuleTree,
    /// The initramfs, where its content counts.
    pub(super) initramfs: Option<&'a Initramfs>,
    /// Whether modules of the root can be loaded too.
    pub(super) with_root: bool,
    /// Modules the configuration forbids to load by alias.
    pub(super) blacklist: Blacklist,
    /// `all_generic_ide` on the kernel command line.
    pub(super) all_generic_ide: bool,
}

/// Kinds of controllers a machine may have its disks on, by the class of the models in the catalogue.
const FAMILIES: [(Class, &str); 3] = [
    (Class::Ide, "IDE"),
    (Class::Scsi, "SCSI"),
    (Class::Block, "virtio"),
];

/// A module file of the initramfs for each kind of controller: kind and module; `None` when it has none for some kind.
///
/// Told by its bytes alone: an alias of the initramfs matches a model's modalias, and the module is in there, whole,
/// with all it needs. What is linked into the kernel says nothing of how the initramfs was made.
pub(super) fn every_family(pool: &Pool<'_>) -> Option<Vec<(&'static str, String)>> {
    let holds = |modalias: &str| {
        let candidates = pool.candidates(modalias).into_iter();
        let mut own = candidates.filter(|candidate| {
            !candidate.linked_in
                && pool
                    .initramfs
                    .is_some_and(|initramfs| initramfs.modules.contains_key(&candidate.module))
                && declines(&candidate.module, false).is_none()
                && pool.loads(&candidate.module).is_ok()
        });
        own.next().map(|candidate| candidate.module)
    };
    let module = |device: &Device| {
        let modalias = device.modalias();
        match virtio_child(&modalias) {
            Some(child) => holds(&modalias).and_then(|_| holds(&child)),
            None => holds(&modalias),
        }
    };
    let family = |(class, name): &(Class, &'static str)| {
        let mut models = devices().values().filter(|device| device.class == *class);
        Some((*name, models.find_map(module)?))
    };
    FAMILIES.iter().map(family).collect()
}

/// A controller with its driver.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) naming: Naming,
    pub(super) witnesses: Vec<Witness>,
}

/// A module that says it takes a device, and where it says so.
struct Candidate {
    module: String,
    witness: Witness,
    linked_in: bool,
}

impl Pool<'_> {
    fn tree_file(&self, name: &str) -> String {
        format!("{}/{name}", self.tree.path)
    }

    /// Whether any module, of the initramfs or of the root, takes a device.
    pub(super) fn knows(&self, modalias: &str) -> bool {
        let all = Pool {
            blacklist: self.blacklist.clone(),
            with_root: true,
            ..*self
        };
        let mut candidates = all.candidates(modalias).into_iter();
        candidates.any(|candidate| all.loads(&candidate.module).is_ok())
    }

    /// Modules whose alias matches, linked-in ones first, then in the order of the alias file.
    fn candidates(&self, modalias: &str) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (module, line) in self.tree.builtin.modules_for(modalias) {
            let witness = Witness::file(
                self.tree_file("modules.builtin"),
                line,
                format!("{module} is linked in and takes {modalias}"),
            );
            found.push(Candidate {
                module: module.to_owned(),
                witness,
                linked_in: true,
            });
        }
        if let Some(initramfs) = self.initramfs {
            let mut add = |pattern: &str, module: &str, place: String, line: u32| {
                if fnmatch(pattern, modalias) {
                    let witness = Witness::file(place, line, format!("alias {pattern} {module}"));
                    found.push(Candidate {
                        module: module.to_owned(),
                        witness,
                        linked_in: false,
                    });
                }
            };
            for (pattern, module, line) in &initramfs.aliases {
                add(
                    pattern,
                    module,
                    format!("{} (modules.alias)", initramfs.path),
                    *line,
                );
            }
            if initramfs.aliases.is_empty() {
                for (name, module) in &initramfs.modules {
                    for pattern in &module.aliases {
                        add(
                            pattern,
                            name,
                            format!("{} ({})", initramfs.path, module.path),
                            0,
                        );
                    }
                }
            }
        }
        if self.with_root {
            for (pattern, module, line) in &self.tree.aliases {
                if fnmatch(pattern, modalias) {
                    let witness = Witness::file(
                        self.tree_file("modules.alias"),
                        *line,
                        format!("alias {pattern} {module}"),
                    );
                    found.push(Candidate {
                        module: module.clone(),
                        witness,
                        linked_in: false,
                    });
                }
            }
        }
        found.retain(|candidate| candidate.linked_in || !self.blacklist.holds(&candidate.module));
        found
    }

    /// Whether a module and all it needs can be loaded; where it is, or what is missing.
    pub(super) fn loads(&self, module: &str) -> Result<Witness, Witness> {
        let mut seen = BTreeSet::new();
        let mut open = vec![module.to_owned()];
        let mut first = None;
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let (place, needs) = self.find(&name).map_err(|witness| {
                if name == module {
                    witness
                } else {
                    Witness {
                        says: format!("{module} needs {name}: {}", witness.says),
                        ..witness
                    }
                }
            })?;
            first.get_or_insert(place);
            open.extend(needs);
        }
        first.ok_or_else(|| Witness::file(&self.tree.path, 0, format!("no module {module}")))
    }

    /// A module's place and what it needs itself.
    fn find(&self, name: &str) -> Result<(Witness, Vec<String>), Witness> {
        if let Some(line) = self.tree.builtin.line(name) {
            return Ok((
                Witness::file(
                    self.tree_file("modules.builtin"),
                    line,
                    format!("{name} is linked into the kernel"),
                ),
                Vec::new(),
            ));
        }
        if let Some(initramfs) = self.initramfs
            && let Some(module) = initramfs.modules.get(name)
        {
            return match &module.damaged {
                Some(why) => Err(Witness::file(
                    format!("{} ({})", initramfs.path, module.path),
                    0,
                    format!("{name} cannot be loaded: {why}"),
                )),
                None => Ok((
                    Witness::file(&initramfs.path, 0, format!("holds {}", module.path)),
                    module.depends.clone(),
                )),
            };
        }
        if self.with_root
            && let Some(file) = self.tree.files.get(name)
        {
            let needs = self.tree.depends.get(name).cloned().unwrap_or_default();
            // What the initramfs has loaded stays loaded, whatever became of the root's copy.
            let missing = file.missing.as_deref().and_then(name_of);
            let loaded = missing
                .zip(self.initramfs)
                .is_some_and(|(name, initramfs)| initramfs.modules.contains_key(&name));
            let file = ModuleFile {
                missing: file.missing.clone().filter(|_| !loaded),
                ..file.clone()
            };
            let loads = file.loads(name, &self.tree_file("modules.dep"));
            return loads.map(|place| (place, needs));
        }
        let place = self.initramfs.map_or_else(
            || self.tree_file("modules.builtin"),
            |initramfs| initramfs.path.clone(),
        );
        Err(Witness::file(place, 0, format!("no module {name}")))
    }
}

/// Attaches a driver to a controller model, or says why none does.
pub(super) fn attach(
    device: &Device,
    model: &str,
    pool: &Pool<'_>,
) -> Result<Attached, Vec<Witness>> {
    let (driver, mut witnesses) = bind(device, model, pool)?;
    let naming = naming(&driver);
    if naming.scsi {
        let disks = pool
            .loads("sd_mod")
            .map_err(|why| [witnesses.clone(), vec![why]].concat())?;
        witnesses.push(disks);
    }
    witnesses.push(Witness::quirk(naming.quirk));
    Ok(Attached { naming, witnesses })
}

/// Drivers of the machine's adapters that the initramfs has, by modalias: its udev loads what matches, for a disk or
/// not. One that cannot be read says nothing.
pub(super) fn early(machine: &Machine, pool: &Pool<'_>) -> BTreeMap<String, Bound> {
    let mut found = BTreeMap::new();
    if pool.with_root || pool.initramfs.is_none() {
        return found;
    }
    for nic in &machine.nics {
        let Some(model) = device(&nic.model) else {
            continue;
        };
        if let Ok((driver, witnesses)) = bind(model, &nic.model, pool) {
            let driver = Some(driver);
            found.insert(model.modalias(), Bound { driver, witnesses });
        }
    }
    found
}

/// The driver of a device, after those of the buses it is on.
fn bind(
    device: &Device,
    model: &str,
    pool: &Pool<'_>,
) -> Result<(String, Vec<Witness>), Vec<Witness>> {
    let modalias = device.modalias();
    let bus = on_bus(device, pool)?;
    let (driver, mut witnesses) =
        take(&modalias, model, pool).map_err(|why| [bus.clone(), why].concat())?;
    witnesses.splice(..0, bus);
    if !BUS_DRIVERS.contains(&driver.as_str()) {
        return Ok((driver, witnesses));
    }
    let child = virtio_child(&modalias).unwrap_or_default();
    let (driver, more) =
        take(&child, model, pool).map_err(|why| [witnesses.clone(), why].concat())?;
    witnesses.extend(more);
    Ok((driver, witnesses))
}

/// What takes the bus a device is on, where the device appears only with it: Hyper-V's.
fn on_bus(device: &Device, pool: &Pool<'_>) -> Result<Vec<Witness>, Vec<Witness>> {
    if device.bus != Bus::Vmbus {
        return Ok(Vec::new());
    }
    let (_, witnesses) = take(HYPERV_BUS, "Hyper-V's bus", pool).map_err(|mut why| {
        why.push(Witness::quirk("DQ311"));
        why
    })?;
    Ok(witnesses)
}

/// First driver that matches, can be loaded and does not decline.
fn take(
    modalias: &str,
    model: &str,
    pool: &Pool<'_>,
) -> Result<(String, Vec<Witness>), Vec<Witness>> {
    let mut why = Vec::new();
    for candidate in pool.candidates(modalias) {
        if let Some(quirk) = declines(&candidate.module, pool.all_generic_ide) {
            why.extend([candidate.witness, Witness::quirk(quirk)]);
            continue;
        }
        match pool.loads(&candidate.module) {
            Ok(place) => return Ok((candidate.module, vec![candidate.witness, place])),
            Err(missing) => why.extend([candidate.witness, missing]),
        }
    }
    let place = pool.initramfs.map_or_else(
        || pool.tree_file("modules.builtin"),
        |initramfs| initramfs.path.clone(),
    );
    why.push(Witness::file(
        place,
        0,
        format!("no driver in it takes {model}: {modalias}"),
    ));
    Err(why)
}
