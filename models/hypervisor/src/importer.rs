//! What a product's importers demand of a package, and the machine they ask the console for.
//!
//! A damaged disk is refused or misread as its product's [profile](drylab_image::profile) says.
//!
//! Reading a package has no effect: it says what would be refused, what a person would have to do by hand, and which
//! machine would be made of which files. Making it is [`crate::console::create`]'s.

mod by_hand;
mod damage;
mod hyperv;
mod kvm;
mod limits;
mod vsphere;
mod xencenter;

pub use by_hand::{virt_manager_import, vsphere_existing_disk};
pub use hyperv::{hyperv_import, hyperv_new_machine, hyperv_opened};
pub use kvm::{virsh_define, virt_image};
pub use vsphere::{vsphere_deploy_ovf, vsphere_register_vmx};
pub use xencenter::{
    OvfOptions, XvaOptions, xencenter_import_disk, xencenter_import_ovf, xencenter_import_xva,
    xva_opened,
};

use crate::console::Request;
use crate::facts::Missing;
use crate::need::Need;
use drylab_appliance::Package;
use drylab_appliance::manifest::Manifest;
use drylab_block::Severity;
use drylab_catalog::Witness;

/// Whether an importer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It refuses the package.
    Refused,
    /// It goes on with a warning.
    Warned,
}

/// Something an importer has to say of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Whether it goes on.
    pub verdict: Verdict,
    /// Why: the place in the package, then the quirk or the fact.
    pub witness: Vec<Witness>,
}

/// How the product keeps a disk after the import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Rewritten into the product's own flat form: takes its whole size.
    Flat,
    /// Left as it came: takes the size of the file.
    AsIs,
}

/// One disk of the machine to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlan {
    /// Its file in the package.
    pub file: String,
    /// What the product is told its format is; `None` when the product looks itself.
    pub declared_format: Option<String>,
    /// How it is kept.
    pub stored: Stored,
    /// Bytes it takes on the datastore.
    pub bytes: u64,
}

/// What came of reading a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What the importer says.
    pub remarks: Vec<Remark>,
    /// The machine it would ask for.
    pub request: Request,
    /// Its disks, in the order of the request.
    pub disks: Vec<DiskPlan>,
    /// Why a person has to do it at the console; empty when nobody has to.
    pub by_hand: Vec<Witness>,
    /// Why the address is kept or made anew.
    pub mac: Vec<Witness>,
    /// Why memory, processors or devices are what they are, where the importer decides.
    pub notes: Vec<Witness>,
    /// What the import needs around it.
    pub needs: Vec<Need>,
}

/// Why a package could not even be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A fact is not known, so that nobody can say.
    Missing(Missing),
    /// The importer refuses: place and reason.
    Refused(Vec<Witness>),
}

impl From<Missing> for ReadError {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

/// What a person knows of the machine when nothing in the package says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Name in the inventory.
    pub name: String,
    /// Guest, as a key of the product's choices.
    pub guest: String,
    /// Virtual processors the machine had.
    pub vcpus: u32,
    /// Memory the machine had, in MiB.
    pub memory_mib: u64,
}

impl Remark {
    fn refused(witness: Vec<Witness>) -> Self {
        Self {
            verdict: Verdict::Refused,
            witness,
        }
    }

    fn warned(witness: Vec<Witness>) -> Self {
        Self {
            verdict: Verdict::Warned,
            witness,
        }
    }
}

/// Files of a package that are not what its manifest says.
fn differing(package: &Package, name: &str, manifest: &Manifest) -> Result<Vec<String>, ReadError> {
    let members: Vec<&str> = package
        .files
        .keys()
        .map(String::as_str)
        .filter(|member| *member != name)
        .collect();
    let open = |member: &str| Ok(package.files.get(member).cloned());
    let findings = manifest
        .verify(&members, open)
        .map_err(|error| refused(name, error))?;
    let errors = findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error);
    Ok(errors.map(|finding| finding.message).collect())
}

fn refused(place: &str, says: impl std::fmt::Display) -> ReadError {
    ReadError::Refused(vec![Witness::descriptor(place, says.to_string())])
}
