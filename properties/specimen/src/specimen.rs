//! An image that was made, with what is known of it.

use crate::choices::Choices;
use crate::damage::{Aim, Change, Corruption};
use crate::expect::Expected;
use crate::field::{Field, Seal};
use drylab_block::{Overlay, ReadAt, SparseBytes, WriteAt};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// A format of which specimens are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// VMware's virtual disk.
    Vmdk,
    /// Microsoft's virtual hard disk, the old one.
    Vhd,
    /// Microsoft's virtual hard disk, the new one.
    Vhdx,
    /// QEMU's copy-on-write image.
    Qcow2,
    /// VirtualBox' disk image.
    Vdi,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Raw,
        Self::Vmdk,
        Self::Vhd,
        Self::Vhdx,
        Self::Qcow2,
        Self::Vdi,
    ];

    /// The name users type: `raw`, `vmdk`, `vhd`, `vhdx`, `qcow2`, `vdi`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Qcow2 => "qcow2",
            Self::Vdi => "vdi",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The kinds of the format that are made, in the format's own words.
    #[must_use]
    pub fn subformats(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &["raw"],
            Self::Vmdk => crate::vmdk::SUBFORMATS,
            Self::Vhd => crate::vhd::SUBFORMATS,
            Self::Vhdx => crate::vhdx::SUBFORMATS,
            Self::Qcow2 => crate::qcow2::SUBFORMATS,
            Self::Vdi => crate::vdi::SUBFORMATS,
        }
    }
}

/// A file of a specimen.
#[derive(Clone)]
pub struct File {
    /// The name by which the others know it; that of the first is its own affair.
    pub name: String,
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({:?}, {} bytes)", self.name, self.bytes.len())
    }
}

/// What a format knows of the fields of one specimen.
pub(crate) trait Rules: Send + Sync {
    /// What must come of a change to a field.
    fn expected(&self, field: usize, change: &Change) -> Expected;

    /// A number for a field that goes where it is aimed, if there is one.
    fn aimed(&self, field: usize, aim: Aim, pick: u64) -> Option<u64> {
        let _ = (field, aim, pick);
        None
    }

    /// Bytes of the disk that a damage to a field may cost; all others stand in the file as before. `None` where that is not
    /// known.
    fn touched(&self, field: usize) -> Option<Vec<Range<u64>>> {
        let _ = field;
        None
    }

    /// What must come of two entries of one table that change places. `None` when they are not to.
    fn swapped(&self, one: usize, other: usize) -> Option<Expected> {
        let _ = (one, other);
        None
    }
}

/// A valid image.
pub struct Specimen {
    /// Its format.
    pub format: Format,
    /// Its kind within the format, one of [`Format::subformats`].
    pub subformat: &'static str,
    /// The image, and the files that it names.
    pub files: Vec<File>,
    /// The bytes that a guest must see.
    pub disk: Arc<SparseBytes>,
    /// Places of the files that have a name.
    pub fields: Vec<Field>,
    /// Codes of findings that the sound image has, because it uses what a format allows and warns of.
    pub known: BTreeSet<&'static str>,
    pub(crate) seals: Vec<Seal>,
    pub(crate) rules: Box<dyn Rules>,
}

impl std::fmt::Debug for Specimen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Specimen")
            .field("format", &self.format)
            .field("subformat", &self.subformat)
            .field("files", &self.files)
            .field("disk", &self.disk.len())
            .field("fields", &self.fields.len())
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Specimen {
    /// Makes an image of a format, and of one kind of it unless that is to be drawn.
    ///
    /// # Panics
    /// When `subformat` is none of [`Format::subformats`].
    #[must_use]
    pub fn draw(choices: &mut impl Choices, format: Format, subformat: Option<&str>) -> Self {
        let all = format.subformats();
        let drawn = choices.pick(all);
        let kind = subformat.map_or(drawn, |wanted| {
            let known = all.iter().find(|known| **known == wanted);
            known.unwrap_or_else(|| panic!("{wanted:?} is no kind of {}", format.name()))
        });
        match format {
            Format::Raw => crate::raw::draw(choices),
            Format::Vmdk => crate::vmdk::draw(choices, kind),
            Format::Vhd => crate::vhd::draw(choices, kind),
            Format::Vhdx => crate::vhdx::draw(choices, kind),
            Format::Qcow2 => crate::qcow2::draw(choices, kind),
            Format::Vdi => crate::vdi::draw(choices, kind),
        }
    }

    /// The bytes of a field.
    #[must_use]
    pub fn bytes(&self, field: &Field) -> Vec<u8> {
        self.read(field.file, field.offset, field.width)
    }

    pub(crate) fn read(&self, file: usize, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = self.files[file].bytes.read_at(offset, &mut bytes);
        read.expect("fields stand inside their files");
        bytes
    }

    /// Bytes of the disk that a damage may cost: whatever a repair does, all others are there after it. `None` where that is
    /// not known.
    #[must_use]
    pub fn touched(&self, damage: &Corruption) -> Option<Vec<Range<u64>>> {
        let mut all = self.rules.touched(damage.field)?;
        if let Some(other) = damage.other {
            all.extend(self.rules.touched(other)?);
        }
        Some(all)
    }

    /// The files with some places changed.
    #[must_use]
    pub fn with(&self, edits: &[(usize, u64, Vec<u8>)]) -> Vec<File> {
        let changed = |(number, file): (usize, &File)| {
            let own: Vec<_> = edits.iter().filter(|(file, ..)| *file == number).collect();
            if own.is_empty() {
                return file.clone();
            }
            let bytes = Overlay::new(file.bytes.clone());
            for (_, offset, new) in own {
                let written = bytes.write_at(*offset, new);
                written.expect("fields stand inside their files");
            }
            File {
                name: file.name.clone(),
                bytes: Arc::new(bytes),
            }
        };
        self.files.iter().enumerate().map(changed).collect()
    }
}
