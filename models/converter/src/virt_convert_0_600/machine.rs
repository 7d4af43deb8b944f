//! What the tool knows of a machine between reading and writing.

use super::ImportError;
use crate::qemu_img_0_12::Format;
use std::collections::BTreeMap;

/// Bus of a disk; the order is the one in which disks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bus {
    Ide,
    Scsi,
}

/// What a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Disk,
    Cdrom,
    Iso,
}

/// A drive.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) path: Option<String>,
    pub(crate) format: Format,
    pub(crate) kind: Kind,
}

/// Memory as read: a number of MiB, or a text that is looked at when it is written.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    Mib(i64),
    Text(String),
}

/// A machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vm {
    pub(crate) name: Option<String>,
    pub(crate) description: String,
    pub(crate) memory: Option<Memory>,
    pub(crate) vcpus: i64,
    pub(crate) disks: BTreeMap<(Bus, i64), Disk>,
    /// Adapters by their number.
    pub(crate) nics: BTreeMap<String, ()>,
    /// What was printed on the way.
    pub(crate) said: Vec<String>,
    /// Rows of knowledge that acted.
    pub(crate) quirks: Vec<&'static str>,
}

impl Vm {
    /// The tool's last check after reading.
    pub(crate) fn validated(mut self) -> Result<Self, ImportError> {
        if self.name.as_deref().unwrap_or_default().is_empty() {
            return Err(ImportError::new("VM name is not set"));
        }
        if self.vcpus == 0 {
            self.vcpus = 1;
        }
        Ok(self)
    }

    pub(crate) fn cite(&mut self, id: &'static str) {
        if !self.quirks.contains(&id) {
            self.quirks.push(id);
        }
    }

    /// Memory in MiB, 0 when there is none.
    pub(crate) fn memory_mib(&self) -> Result<i64, String> {
        match &self.memory {
            None => Ok(0),
            Some(Memory::Mib(mib)) => Ok(*mib),
            Some(Memory::Text(text)) => integer(text),
        }
    }
}

/// A decimal integer, blanks around it allowed; the message otherwise.
pub(crate) fn integer(text: &str) -> Result<i64, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("invalid literal for int() with base 10: '{text}'"))
}
