//! How sure we are, and why something is so.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Quality of evidence, weakest first: the minimum over a chain is the chain's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// General knowledge, no source opened: a parameter to confirm.
    Belief,
    /// A user reported it publicly.
    Issue,
    /// Vendor documentation or a page that quotes it.
    Document,
    /// Read in source code, or in the guest's own files.
    Source,
    /// Measured on the original artefact.
    Measured,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Belief => "belief",
            Self::Issue => "issue",
            Self::Document => "document",
            Self::Source => "source",
            Self::Measured => "measured",
        })
    }
}

/// A mark with where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Quality.
    pub mark: Mark,
    /// Document and section, repository and path, URL or bug number; empty only for belief.
    #[serde(default)]
    pub source: String,
}

/// Where a witness stands.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file in the guest's disk; line 0 means the file as a whole (or its absence).
    File {
        /// Absolute path in the guest.
        path: String,
        /// Line, from 1; 0 for the whole file.
        line: u32,
    },
    /// A registry key or value of the guest.
    Key(String),
    /// Bytes of the guest's disk outside any file: partition table, superblock, LVM metadata.
    Disk(String),
    /// A row of `quirks/`.
    Quirk(String),
    /// A fact of a product: `esxi-5.0.0/nic.default.linux`.
    Fact(String),
    /// An element of a descriptor, or a line of a configuration made on the way.
    Descriptor(String),
    /// An event of the run's trace, by sequence number.
    Event(u64),
    /// A file written beside the disk by an edit that did not fit in place.
    Overlay(String),
    /// Something of the lab: subnet, DHCP pool, datastore.
    Lab(String),
    /// A decision of the scenario that a person took: `target_vm.mac`.
    Asked(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } => write!(f, "{path}"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Key(what) | Self::Disk(what) | Self::Descriptor(what) => write!(f, "{what}"),
            Self::Quirk(id) => write!(f, "{id}"),
            Self::Fact(key) => write!(f, "fact {key}"),
            Self::Event(sequence) => write!(f, "event {sequence}"),
            Self::Overlay(path) => write!(f, "{path} (file beside the disk)"),
            Self::Lab(what) => write!(f, "lab {what}"),
            Self::Asked(key) => write!(f, "scenario {key}"),
        }
    }
}

/// One link of a chain that says why: a place, what it says, how sure we are of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Witness {
    /// Where to look.
    pub place: Place,
    /// What is found there, as a fragment.
    pub says: String,
    /// How sure.
    pub mark: Mark,
}

impl Witness {
    /// A line of a file in the guest (line 0: the file as a whole, or its absence).
    pub fn file(path: impl Into<String>, line: u32, says: impl Into<String>) -> Self {
        Self {
            place: Place::File {
                path: path.into(),
                line,
            },
            says: says.into(),
            mark: Mark::Source,
        }
    }

    /// A registry key of the guest.
    pub fn key(key: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            place: Place::Key(key.into()),
            says: says.into(),
            mark: Mark::Source,
        }
    }

    /// Structures of the guest's disk.
    pub fn disk(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            place: Place::Disk(what.into()),
            says: says.into(),
            mark: Mark::Source,
        }
    }

    /// A decision of the scenario.
    pub fn asked(key: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            place: Place::Asked(key.into()),
            says: says.into(),
            mark: Mark::Source,
        }
    }

    /// An element of a descriptor.
    pub fn descriptor(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            place: Place::Descriptor(what.into()),
            says: says.into(),
            mark: Mark::Source,
        }
    }

    /// A quirk by id: its statement and mark come from the table.
    ///
    /// # Panics
    /// When the table has no such row: a citation without a row is a bug of ours, and a test walks all of them.
    #[must_use]
    pub fn quirk(id: &str) -> Self {
        let row = crate::quirk(id)
            .unwrap_or_else(|| panic!("quirk {id} is cited but has no row in quirks/"));
        Self {
            place: Place::Quirk(id.to_owned()),
            says: row.states.clone(),
            mark: row.mark,
        }
    }

    /// Something of the lab.
    pub fn lab(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            place: Place::Lab(what.into()),
            says: says.into(),
            mark: Mark::Source,
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.place, self.says, self.mark)
    }
}
