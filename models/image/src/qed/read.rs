//! Reading.

use super::header::Header;
use crate::backed;
use crate::container::{Container, Opener, Stored};
use crate::finding::Findings;
use crate::image::Image;
use crate::map::{self, Store, Units};
use crate::math::{div, index, rem};
use crate::qcow2::{Backing, Declared};
use crate::recent::Recent;
use drylab_block::{Below, Error, Extent, ExtentKind, Limits, ReadAt, Result, read_vec};
use std::sync::Arc;

/// An entry that says that its cluster reads as zeros.
pub(super) const ZERO: u64 = 1;

/// An open QED image.
pub(crate) struct Qed {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) header: Header,
    pub(super) l1: Vec<u64>,
    backing: Option<Backing>,
    tables: Recent<[u64]>,
    findings: Findings,
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

impl Qed {
    /// Reads the header and the L1 table, and opens the backing file.
    pub(crate) fn open(source: Arc<dyn ReadAt>, opener: &Opener<'_>) -> Result<Self> {
        let mut findings = Findings::default();
        let header = Header::read(&*source, opener.limits, &mut findings)?;
        if !header.holds(header.l1_offset, header.table_bytes(), source.len()) {
            return Err(Error::corrupt(format_args!(
                "QED L1 table at {:#x}: no clusters inside the {} bytes of the file",
                header.l1_offset,
                source.len()
            )));
        }
        let bytes = header.table_bytes();
        let l1 = read_vec(
            &*source,
            "QED L1 table",
            header.l1_offset,
            bytes,
            opener.limits,
        )?;
        let backing = match &header.backing {
            None => None,
            Some(name) => {
                let declared = if header.raw_backing() {
                    Declared::As("raw")
                } else {
                    Declared::Unknown
                };
                Some(Backing::open(name, declared, opener)?)
            }
        };
        if let Some(backing) = &backing {
            findings.extend(backing.key(), &backing.image().info().findings);
        }
        Ok(Self {
            l1: words(&l1),
            source,
            header,
            backing,
            tables: Recent::new(1),
            findings,
        })
    }

    /// An L2 table.
    pub(super) fn read_table(&self, offset: u64) -> Result<Vec<u64>> {
        let bytes = self.header.table_bytes();
        let limits = &Limits::DEFAULT;
        let table = read_vec(&*self.source, "QED L2 table", offset, bytes, limits)?;
        Ok(words(&table))
    }
}

impl Units for Qed {
    type Table = [u64];

    fn size(&self) -> u64 {
        self.header.size
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn unit_bytes(&self) -> u64 {
        self.header.cluster
    }

    fn units_per_table(&self) -> u64 {
        self.header.per_table()
    }

    fn next_table(&self, table: u64) -> u64 {
        let later = self.l1.get(index(table)..).unwrap_or_default();
        let skip = later.iter().position(|entry| *entry != 0);
        table.saturating_add(u64::try_from(skip.unwrap_or(later.len())).unwrap_or(u64::MAX))
    }

    fn table(&self, table: u64) -> Result<Option<Arc<[u64]>>> {
        let offset = self.l1.get(index(table)).copied().unwrap_or(0);
        if offset == 0 {
            return Ok(None);
        }
        let make = || {
            let bytes = self.header.table_bytes();
            if !self.header.holds(offset, bytes, self.source.len()) {
                return Err(Error::corrupt(format_args!(
                    "QED L1 entry {table} points to {offset:#x}, no {bytes} bytes inside the file ({:#x})",
                    self.source.len()
                )));
            }
            Ok(self.read_table(offset)?.into())
        };
        self.tables.get(table, make).map(Some)
    }

    fn store(&self, table: &[u64], unit: u64) -> Result<Store> {
        let at = index(rem(unit, self.units_per_table()));
        match table.get(at).copied().unwrap_or(0) {
            0 => Ok(Store::Hole),
            ZERO => Ok(Store::Zero),
            offset => {
                let file = self.source.len();
                let needed = self.bytes_needed(unit);
                if !self.header.holds(offset, needed, file) {
                    return Err(Error::corrupt(format_args!(
                        "QED L2 entry of cluster {unit} points to {offset:#x}, no {needed} bytes inside the file ({file:#x})"
                    )));
                }
                Ok(Store::At(offset))
            }
        }
    }

    fn unpacked(&self, _: &[u64], unit: u64) -> Result<Arc<[u8]>> {
        Err(Error::corrupt(format_args!(
            "QED cluster {unit} is said to be compressed, which none is"
        )))
    }
}

impl Container for Qed {
    fn subformat(&self) -> String {
        String::new()
    }

    fn details(&self) -> Vec<(String, String)> {
        self.header.details()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn check(&self, found: &mut Findings) -> Result<()> {
        super::check::check(self, found)?;
        match &self.backing {
            Some(backing) => backing.check(|below, found| below.check(found), found),
            None => Ok(()),
        }
    }

    fn check_structure(&self, found: &mut Findings) -> Result<()> {
        super::check::check(self, found)?;
        match &self.backing {
            Some(backing) => backing.check(|below, found| below.check_structure(found), found),
            None => Ok(()),
        }
    }

    fn backing(&self) -> Option<(&str, &Image)> {
        let backing = self.backing.as_ref()?;
        Some((backing.key(), backing.image()))
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        let extent = map::extent(self, offset);
        if extent.kind == ExtentKind::Hole
            && let Some(backing) = &self.backing
        {
            return backing.piece(offset, extent.length);
        }
        let unit = div(offset, self.unit_bytes());
        let Ok(Some(table)) = self.table(div(unit, self.units_per_table())) else {
            return (extent, None);
        };
        let stored = match self.store(&table, unit) {
            Ok(Store::At(host)) => Some(Stored {
                file: String::new(),
                offset: host.saturating_add(rem(offset, self.unit_bytes())),
            }),
            _ => None,
        };
        (extent, stored)
    }
}

impl ReadAt for Qed {
    fn len(&self) -> u64 {
        self.header.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        backed::read(self, self.backing.as_ref(), offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        backed::extent(self, self.backing.as_ref(), offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        backed::below(self, self.backing.as_ref(), offset)
    }
}
