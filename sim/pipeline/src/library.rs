//! What the lab has on its shelves: products, the lab file, routes, the policy, the golden guests; and a memory of
//! what was already read, converted and inspected.
//!
//! The memory changes no outcome: everything in it is a function of bytes that never change. Entries are found by the
//! identity of a shared disk, which the entry itself keeps alive.

use crate::crossing::Crossing;
use crate::policy::Policy;
use crate::route::{Route, routes};
use drylab_block::{
    ContentId, Delta, Error, Limits, Overlay, ReadAt, Result, SparseBytes, Window, WriteAt,
    content_id, copy_data,
};
use drylab_catalog::{GuestId, Mac, Machine, ProductId};
use drylab_guest::boot::{BootReport, boot};
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, inspect};
use drylab_hive::RegType;
use drylab_hypervisor::{Fact, LabFile, Product, products};
use drylab_image::{Target, VhdSize, open, open_vhd, write};
use drylab_scenario::{Edit, Scenario};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A golden guest: one base disk, and how it differs where it was installed.
struct Golden {
    guest: &'static str,
    base: &'static [u8],
    variants: &'static [Variant],
}

/// A golden guest as installed on one product.
struct Variant {
    product: &'static str,
    delta: &'static [u8],
    /// Address of the adapter it was installed with.
    mac: [u8; 6],
    /// Address it leased there, as its own lease file says.
    lease: [u8; 4],
}

macro_rules! golden {
    ($guest:literal, $($product:literal: $mac:expr => $lease:expr),+) => {
        Golden {
            guest: $guest,
            base: include_bytes!(concat!("../../../corpora/guests/", $guest, "/base.qcow2")),
            variants: &[$(Variant {
                product: $product,
                delta: include_bytes!(concat!("../../../corpora/guests/", $guest, "/", $product, ".delta")),
                mac: $mac,
                lease: $lease,
            }),+],
        }
    };
}

/// Registration of golden guests: one line each.
static GOLDEN: [Golden; 3] = [
    golden!("centos-6.3", "esxi-5.0.0": [0x00, 0x0c, 0x29, 0x4f, 0x8e, 0x35] => [10, 20, 0, 135], "kvm-centos-6.3": [0x52, 0x54, 0x00, 0x6b, 0x3c, 0x58] => [10, 20, 0, 158], "xenserver-6.0.2": [0xa6, 0x1f, 0x4e, 0x93, 0x0c, 0x8d] => [10, 20, 0, 141], "hyperv-2008r2": [0x00, 0x15, 0x5d, 0x00, 0x0d, 0x00] => [10, 20, 0, 151]),
    golden!("ubuntu-12.04", "esxi-5.0.0": [0x00, 0x0c, 0x29, 0x4f, 0x8e, 0x36] => [10, 20, 0, 136], "kvm-centos-6.3": [0x52, 0x54, 0x00, 0x6b, 0x3c, 0x59] => [10, 20, 0, 159], "xenserver-6.0.2": [0xbe, 0x52, 0x07, 0x6d, 0xc1, 0x8e] => [10, 20, 0, 142], "hyperv-2008r2": [0x00, 0x15, 0x5d, 0x00, 0x0d, 0x01] => [10, 20, 0, 152]),
    golden!("windows-2008r2", "esxi-5.0.0": [0x00, 0x0c, 0x29, 0x4f, 0x8e, 0x37] => [10, 20, 0, 137], "kvm-centos-6.3": [0x52, 0x54, 0x00, 0x6b, 0x3c, 0x5a] => [10, 20, 0, 160], "xenserver-6.0.2": [0x7a, 0xc4, 0x31, 0xe9, 0x5b, 0x8f] => [10, 20, 0, 143], "hyperv-2008r2": [0x00, 0x15, 0x5d, 0x00, 0x0d, 0x02] => [10, 20, 0, 153]),
];

/// A machine's disk as it stands at the source, with the address it was installed with.
#[derive(Clone)]
pub struct SourceDisk {
    /// Bytes, and files beside them.
    pub disk: GuestDisk,
    /// Bytes before the scenario's edits were made, which is what snapshots hold.
    pub unedited: Arc<dyn ReadAt>,
    /// Address of the adapter.
    pub mac: Mac,
    /// Address it holds a lease of.
    pub lease: std::net::Ipv4Addr,
}

/// Everything runs have in common.
pub struct Library {
    /// Products by id.
    pub products: BTreeMap<ProductId, Product>,
    /// Hosts, shares, networks.
    pub lab: LabFile,
    /// The route table, with all converters.
    pub routes: Vec<Route>,
    /// The policy.
    pub policy: Policy,
    memo: Arc<Memo>,
    crossings: Arc<Mutex<BTreeMap<String, Vec<Remembered>>>>,
}

/// Values by key, computed once.
struct Once<K, V>(Mutex<BTreeMap<K, V>>);

impl<K: Ord + Clone, V: Clone> Once<K, V> {
    fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The value of a key. Two threads may compute the same value at the same time; both get an equal one.
    fn get<E>(&self, key: K, compute: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return Ok(known.clone());
        }
        let value = compute()?;
        Ok(lock().entry(key).or_insert(value).clone())
    }
}

type DiskKey = (usize, String);

/// What a value was made of, kept alive by it, and the value.
type Pair = (Arc<dyn ReadAt>, Arc<dyn ReadAt>);

struct Memo {
    bases: Arc<Once<&'static str, Arc<dyn ReadAt>>>,
    disks: Once<(String, String, Option<u64>, String), SourceDisk>,
    converted: Once<DiskKey, Pair>,
    opened: Once<DiskKey, Pair>,
    inspected: Once<DiskKey, (GuestDisk, std::result::Result<Arc<Guest>, Error>)>,
    contents: Once<(usize, u64), (Arc<dyn ReadAt>, ContentId)>,
    booted: Once<(usize, String), (Arc<Guest>, BootReport)>,
}

impl Memo {
    fn new(bases: Arc<Once<&'static str, Arc<dyn ReadAt>>>) -> Self {
        Self {
            bases,
            disks: Once::new(),
            converted: Once::new(),
            opened: Once::new(),
            inspected: Once::new(),
            contents: Once::new(),
            booted: Once::new(),
        }
    }
}

/// A crossing with the facts it rests on: it holds in every lab where these are the same.
struct Remembered {
    rests_on: Vec<(String, Fact)>,
    crossing: Arc<Crossing>,
}

/// Identity of a shared disk: its address, which nothing else has while an entry keeps it alive.
fn identity(disk: &Arc<dyn ReadAt>) -> usize {
    Arc::as_ptr(disk).cast::<u8>().addr()
}

impl Default for Library {
    fn default() -> Self {
        Self::new()
    }
}

impl Library {
    /// The shelves of this program.
    #[must_use]
    pub fn new() -> Self {
        Self {
            products: products(),
            lab: LabFile::of_the_report(),
            routes: routes(),
            policy: Policy::our_reading(),
            memo: Arc::new(Memo::new(Arc::new(Once::new()))),
            crossings: Arc::default(),
        }
    }

    /// The same shelves with a memory of their own, which goes when they go; only the golden guests' base disks are
    /// shared. For work over many differently edited guests, whose disks would fill one memory.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            products: self.products.clone(),
            lab: self.lab.clone(),
            routes: self.routes.clone(),
            policy: self.policy.clone(),
            memo: Arc::new(Memo::new(self.memo.bases.clone())),
            crossings: Arc::default(),
        }
    }

    /// The same shelves for a lab with other hosts: what was done to disks stays known, ways of machines do not.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self {
            memo: self.memo.clone(),
            ..self.apart()
        }
    }

    /// The same shelves with some facts replaced, and one memory for both: what was remembered holds wherever the
    /// facts it rests on are the same.
    ///
    /// # Errors
    /// The `product/key` that is not there.
    pub fn with_facts(&self, facts: &[(String, Fact)]) -> std::result::Result<Self, String> {
        let mut products = self.products.clone();
        for (name, fact) in facts {
            let known = name.split_once('/').and_then(|(product, key)| {
                products
                    .get_mut(&ProductId::from(product))?
                    .facts
                    .get_mut(key)
            });
            *known.ok_or_else(|| name.clone())? = fact.clone();
        }
        Ok(Self {
            products,
            lab: self.lab.clone(),
            routes: self.routes.clone(),
            policy: self.policy.clone(),
            memo: self.memo.clone(),
            crossings: self.crossings.clone(),
        })
    }

    /// A fact by `product/key`.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&Fact> {
        let (product, key) = name.split_once('/')?;
        self.products.get(&ProductId::from(product))?.facts.get(key)
    }

    /// These facts with what they say here.
    pub fn values<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<(String, Fact)> {
        let named = names.into_iter();
        named
            .filter_map(|name| Some((name.clone(), self.fact(name)?.clone())))
            .collect()
    }

    /// Whether all of these facts say the same here.
    #[must_use]
    pub fn agrees(&self, facts: &[(String, Fact)]) -> bool {
        facts
            .iter()
            .all(|(name, fact)| self.fact(name) == Some(fact))
    }

    /// Guests there are golden disks of.
    #[must_use]
    pub fn guests() -> Vec<GuestId> {
        GOLDEN.iter().map(|golden| golden.guest.into()).collect()
    }

    /// The route of a scenario.
    #[must_use]
    pub fn route(&self, id: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.id == id)
    }

    /// The disk of a scenario's machine: the golden guest as installed on the source, with the scenario's edits.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is no such guest or an edit does not apply to it.
    pub fn source_disk(&self, scenario: &Scenario) -> Result<SourceDisk> {
        let edits: Vec<String> = scenario
            .edits
            .iter()
            .map(|edit| format!("{edit:?}"))
            .collect();
        let key = (
            scenario.guest.to_string(),
            scenario.source.to_string(),
            scenario.source_vm.disk_bytes,
            edits.join("\n"),
        );
        self.memo.disks.get(key, || {
            let installed = grown(self.installed(scenario)?, scenario.source_vm.disk_bytes)?;
            if scenario.edits.is_empty() {
                return Ok(installed);
            }
            let disk = apply_edits(&installed.disk, &scenario.edits)?;
            Ok(SourceDisk { disk, ..installed })
        })
    }

    fn installed(&self, scenario: &Scenario) -> Result<SourceDisk> {
        let (guest, product) = (scenario.guest.as_str(), scenario.source.as_str());
        let golden = GOLDEN.iter().find(|golden| golden.guest == guest);
        let golden = golden.ok_or_else(|| {
            Error::unsupported(format_args!("there is no golden guest {guest:?}"))
        })?;
        let variant = golden
            .variants
            .iter()
            .find(|variant| variant.product == product)
            .ok_or_else(|| {
                Error::unsupported(format_args!(
                    "golden guest {guest} was not installed on {product:?}"
                ))
            })?;
        let base = self.memo.bases.get(golden.guest, || {
            let file: Arc<dyn ReadAt> = Arc::new(golden.base);
            let sheet = SparseBytes::default();
            copy_data(&open(file, &Limits::DEFAULT)?, &sheet)?;
            Ok::<Arc<dyn ReadAt>, Error>(Arc::new(sheet))
        })?;
        let delta = Delta::parse(variant.delta, base.len())?;
        let disk = GuestDisk::new(Arc::new(Overlay::with_delta(base, &delta)));
        Ok(SourceDisk {
            unedited: disk.bytes.clone(),
            disk,
            mac: Mac(variant.mac),
            lease: variant.lease.into(),
        })
    }

    /// A disk in a container.
    ///
    /// # Errors
    /// What converting finds.
    pub fn convert(&self, disk: &Arc<dyn ReadAt>, target: &Target) -> Result<Arc<dyn ReadAt>> {
        let key = (identity(disk), format!("{target:?}"));
        let found = self.memo.converted.get(key, || {
            let sink = SparseBytes::default();
            write(disk, target, &sink)?;
            let file: Arc<dyn ReadAt> = Arc::new(sink);
            Ok::<_, Error>((disk.clone(), file))
        })?;
        Ok(found.1)
    }

    /// The guest-visible bytes of a container of a declared format (`None`: told by its content).
    ///
    /// # Errors
    /// What opening finds.
    pub fn open(&self, file: &Arc<dyn ReadAt>, declared: Option<&str>) -> Result<Arc<dyn ReadAt>> {
        if declared == Some("raw") {
            return Ok(file.clone());
        }
        let key = (identity(file), declared.unwrap_or_default().to_owned());
        let found = self.memo.opened.get(key, || {
            let image = match declared {
                // Citrix and Microsoft believe the footer's size, qemu of the time its geometry.
                Some("vhd") => open_vhd(file.clone(), VhdSize::Current, &Limits::DEFAULT)?,
                Some("vpc") => open_vhd(file.clone(), VhdSize::Geometry, &Limits::DEFAULT)?,
                _ => open(file.clone(), &Limits::DEFAULT)?,
            };
            let sheet = SparseBytes::default();
            copy_data(&image, &sheet)?;
            let disk: Arc<dyn ReadAt> = Arc::new(sheet);
            Ok::<_, Error>((file.clone(), disk))
        })?;
        Ok(found.1)
    }

    /// What a disk holds.
    ///
    /// # Errors
    /// What inspecting finds.
    pub fn inspect(&self, disk: &GuestDisk) -> Result<Arc<Guest>> {
        let key = (identity(&disk.bytes), format!("{:?}", disk.files));
        let found = self.memo.inspected.get(key, || {
            let guest = inspect(std::slice::from_ref(disk), &Limits::DEFAULT).map(Arc::new);
            Ok::<_, Error>((disk.clone(), guest))
        })?;
        found.1
    }

    /// The name of a disk's content.
    ///
    /// # Errors
    /// What reading finds.
    pub fn content(&self, disk: &Arc<dyn ReadAt>) -> Result<ContentId> {
        self.content_to(disk, disk.len())
    }

    /// The name of a disk's first bytes.
    ///
    /// # Errors
    /// What reading finds; [`Error::Corrupt`] when the disk is shorter.
    pub fn content_to(&self, disk: &Arc<dyn ReadAt>, bytes: u64) -> Result<ContentId> {
        let found = self.memo.contents.get((identity(disk), bytes), || {
            let first = Window::new(disk.clone(), 0, bytes)?;
            Ok::<_, Error>((disk.clone(), content_id(&first)?))
        })?;
        Ok(found.1)
    }

    /// How a guest boots on a machine. Addresses and UUID decide nothing of that: machines that differ in them only are
    /// booted once.
    #[must_use]
    pub fn boot(&self, guest: &Arc<Guest>, machine: &Machine) -> BootReport {
        let mut plain = machine.clone();
        plain.uuid.clear();
        for nic in &mut plain.nics {
            nic.mac = Mac([0; 6]);
        }
        let key = (Arc::as_ptr(guest).addr(), format!("{plain:?}"));
        let booted = self.memo.booted.get(key, || {
            Ok::<_, std::convert::Infallible>((guest.clone(), boot(guest, &plain)))
        });
        let mut report = match booted {
            Ok((_, report)) => report,
            Err(never) => match never {},
        };
        for (seen, nic) in report.nics.iter_mut().zip(&machine.nics) {
            seen.mac = nic.mac;
        }
        report
    }

    /// The way of a machine through all hops before the import, which no noise touches.
    pub(crate) fn crossing(&self, key: String, make: impl FnOnce() -> Crossing) -> Arc<Crossing> {
        let lock = || {
            let crossings = self.crossings.lock();
            crossings.unwrap_or_else(PoisonError::into_inner)
        };
        let known = |remembered: &&Remembered| self.agrees(&remembered.rests_on);
        if let Some(found) = lock().get(&key).and_then(|all| all.iter().find(known)) {
            return found.crossing.clone();
        }
        let crossing = Arc::new(make());
        lock().entry(key).or_default().push(Remembered {
            rests_on: self.values(&crossing.facts_used),
            crossing: crossing.clone(),
        });
        crossing
    }
}

/// The disk with zeros behind it up to a size, as after its administrator gave the machine a larger one.
fn grown(source: SourceDisk, size: Option<u64>) -> Result<SourceDisk> {
    let Some(size) = size else {
        return Ok(source);
    };
    let bytes = &source.disk.bytes;
    if size < bytes.len() {
        return Err(Error::unsupported(format_args!(
            "source_vm.disk_bytes is {size}, the guest's disk has {}",
            bytes.len()
        )));
    }
    let sheet = SparseBytes::default();
    copy_data(bytes, &sheet)?;
    sheet.set_len(size)?;
    let disk = GuestDisk {
        bytes: Arc::new(sheet),
        files: source.disk.files.clone(),
    };
    Ok(SourceDisk {
        unedited: disk.bytes.clone(),
        disk,
        ..source
    })
}

/// Applies a scenario's edits to a disk, which stays as it is; the changed one is returned.
///
/// # Errors
/// [`Error::Unsupported`] when an edit does not apply to this guest.
pub fn apply_edits(disk: &GuestDisk, edits: &[Edit]) -> Result<GuestDisk> {
    let limits = &Limits::DEFAULT;
    let initramfs = match edits
        .iter()
        .any(|edit| matches!(edit, Edit::RemoveModule { .. }))
    {
        true => initramfs_path(&inspect(std::slice::from_ref(disk), limits)?),
        false => None,
    };
    let mut editor = Editor::open(disk, limits)?;
    for edit in edits {
        apply(&mut editor, edit, initramfs.as_deref())
            .map_err(|error| error.within(format_args!("{edit:?}")))?;
    }
    Ok(editor.finish())
}

fn initramfs_path(guest: &Guest) -> Option<String> {
    match &guest.system {
        drylab_guest::inspect::System::Linux(linux) => Some(linux.initramfs.as_ref()?.path.clone()),
        drylab_guest::inspect::System::Windows(_) => None,
    }
}

fn apply(editor: &mut Editor, edit: &Edit, initramfs: Option<&str>) -> Result<()> {
    match edit {
        Edit::Write { path, text } => editor.write(path, text.clone().into_bytes()).map(drop),
        Edit::Replace { path, from, to } => editor
            .rewrite(path, |text| text.replace(from, to))
            .map(drop),
        Edit::Append { path, text } => editor
            .rewrite(path, |before| format!("{before}{text}"))
            .map(drop),
        Edit::RemoveLines { path, containing } => {
            let keep = |text: &str| {
                text.split_inclusive('\n')
                    .filter(|line| !line.contains(containing))
                    .collect()
            };
            editor.rewrite(path, keep).map(drop)
        }
        Edit::Remove { path, if_present } => remove(editor, path, *if_present),
        Edit::RemoveModule { module } => {
            let path = initramfs.ok_or_else(|| Error::unsupported("the guest has no initramfs"))?;
            editor.remove_modules(path, &[module]).map(drop)
        }
        Edit::SetDword {
            hive,
            key,
            value,
            data,
        } => editor
            .registry(hive, |hive| hive.set_u32(key, value, *data))
            .map(drop),
        Edit::SetStrings {
            hive,
            key,
            value,
            data,
        } => editor
            .registry(hive, |hive| {
                hive.set_value(key, value, RegType::MULTI_SZ, &strings(data))
            })
            .map(drop),
        Edit::DeleteKey { hive, key } => editor
            .registry(hive, |hive| hive.delete_key(key).map(drop))
            .map(drop),
        Edit::Bytes { offset, hex } => editor.overwrite(*offset, &bytes_of(hex)?),
    }
}

/// Removes a file. One that is not there is a mistake in the scenario, unless it says that it may be missing: an edit
/// that changes nothing would make a run look like one without the mechanism it takes away.
fn remove(editor: &mut Editor, path: &str, if_present: bool) -> Result<()> {
    if editor.read(path)?.is_none() {
        return match if_present {
            true => Ok(()),
            false => Err(Error::unsupported(format_args!(
                "the guest has no file {path} to remove; if-present = true lets it be missing"
            ))),
        };
    }
    let removed = editor.change(path, drylab_filesystem::edit::Change::Remove);
    removed.map(drop)
}

/// Texts as a `REG_MULTI_SZ` holds them: UTF-16, each with a NUL behind it, and one more at the end.
fn strings(texts: &[String]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| text.encode_utf16().chain([0]))
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

fn bytes_of(hex: &str) -> Result<Vec<u8>> {
    let wrong = || Error::unsupported(format_args!("{hex:?} is not an even number of hex digits"));
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return Err(wrong());
    }
    let pairs = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong()));
    pairs.collect()
}
