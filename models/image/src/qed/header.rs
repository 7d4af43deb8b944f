//! The header.

use super::rules;
use crate::finding::Findings;
use drylab_block::{Error, Limits, ReadAt, Result, le_u32, le_u64, read_vec};

/// First bytes.
pub(crate) const MAGIC: &[u8; 4] = b"QED\0";
/// Header bytes.
const SIZE: u64 = 64;

const BACKING_FILE: u64 = 1;
const NEED_CHECK: u64 = 1 << 1;
const NO_PROBE: u64 = 1 << 2;

/// The fields, checked.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) cluster: u64,
    /// Clusters of a table.
    pub(super) table_clusters: u64,
    /// Clusters of the header.
    pub(super) header_clusters: u64,
    pub(super) l1_offset: u64,
    pub(super) size: u64,
    pub(super) backing: Option<String>,
    features: u64,
    autoclear: u64,
}

impl Header {
    pub(super) fn read(
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let place = |error: Error| error.within("QED header");
        let bytes = read_vec(source, "QED header", 0, source.len().min(SIZE), limits)?;
        if !bytes.starts_with(MAGIC) {
            return Err(place(Error::corrupt("has no magic QED")));
        }
        let mut header = Self::fields(&bytes).ok_or_else(|| {
            place(Error::corrupt(format_args!(
                "{} bytes hold no header",
                source.len()
            )))
        })?;
        header.check(limits).map_err(place)?;
        if header.features & BACKING_FILE != 0 {
            let words = le_u32(&bytes, 56).zip(le_u32(&bytes, 60));
            let (offset, length) = words.unwrap_or_default();
            header.backing = Some(header.backing_name(source, offset, length, limits)?);
        }
        header.note(findings);
        Ok(header)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        le_u32(bytes, 60)?;
        Some(Self {
            cluster: u64::from(le_u32(bytes, 4)?),
            table_clusters: u64::from(le_u32(bytes, 8)?),
            header_clusters: u64::from(le_u32(bytes, 12)?),
            features: le_u64(bytes, 16)?,
            autoclear: le_u64(bytes, 32)?,
            l1_offset: le_u64(bytes, 40)?,
            size: le_u64(bytes, 48)?,
            backing: None,
        })
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let unknown = self.features & !(BACKING_FILE | NEED_CHECK | NO_PROBE);
        if unknown != 0 {
            return Err(Error::unsupported(format_args!("features {unknown:#x}")));
        }
        if !self.cluster.is_power_of_two() || !(1 << 12..=1 << 26).contains(&self.cluster) {
            return Err(Error::corrupt(format_args!(
                "cluster_size {}, allowed are powers of two from 4096 to 2^26",
                self.cluster
            )));
        }
        if !self.table_clusters.is_power_of_two() || self.table_clusters > 16 {
            return Err(Error::corrupt(format_args!(
                "table_size {}, allowed are powers of two from 1 to 16",
                self.table_clusters
            )));
        }
        if self.header_clusters == 0 {
            return Err(Error::corrupt("header_size 0, needed is 1"));
        }
        // L1 table, L2 tables at hand and the bytes they are made of are in memory.
        let bytes = self.table_bytes().saturating_mul(4);
        limits.check_table("QED tables", bytes)?;
        limits.check_disk("virtual size", self.size)?;
        let entries = self.per_table();
        let most = u128::from(entries)
            .saturating_mul(u128::from(entries))
            .saturating_mul(u128::from(self.cluster));
        if u128::from(self.size) > most || !self.size.is_multiple_of(512) {
            return Err(Error::corrupt(format_args!(
                "image_size {}, allowed are whole sectors up to {most}",
                self.size
            )));
        }
        Ok(())
    }

    fn backing_name(
        &self,
        source: &dyn ReadAt,
        offset: u32,
        length: u32,
        limits: &Limits,
    ) -> Result<String> {
        let (offset, length) = (u64::from(offset), u64::from(length));
        let area = self.header_clusters.saturating_mul(self.cluster);
        if offset.saturating_add(length) > area || length > 1023 {
            return Err(Error::corrupt(format_args!(
                "QED backing file name of {length} bytes at {offset}, allowed are 1023 in the first {area}"
            )));
        }
        let name = read_vec(source, "QED backing file name", offset, length, limits)?;
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    fn note(&self, findings: &mut Findings) {
        if self.features & NEED_CHECK != 0 {
            let path = "header, QED_F_NEED_CHECK";
            findings.add(&rules::NEED_CHECK, (16, 8), path, 1, 0);
        }
        if self.autoclear != 0 {
            let (path, found) = (
                "header, autoclear_features",
                format!("{:#x}", self.autoclear),
            );
            findings.add(&rules::AUTOCLEAR, (32, 8), path, found, 0);
        }
        if self.backing.is_some() && !self.raw_backing() {
            let path = "header, format of the backing file";
            findings.add(
                &rules::BACKING_FORMAT,
                (16, 8),
                path,
                "not said",
                "raw, said by a bit",
            );
        }
    }

    /// Whether the backing file is said to be raw.
    pub(super) fn raw_backing(&self) -> bool {
        self.features & NO_PROBE != 0
    }

    /// Bytes of a table.
    pub(super) fn table_bytes(&self) -> u64 {
        self.table_clusters.saturating_mul(self.cluster)
    }

    /// Entries of a table.
    pub(super) fn per_table(&self) -> u64 {
        self.table_bytes() / 8
    }

    /// Whether a cluster behind the header can begin at `offset`, and the `needed` bytes from there on are inside a file of
    /// `file` bytes. Only the end of a disk's last cluster is not needed: tables are there to their last entry.
    pub(super) fn holds(&self, offset: u64, needed: u64, file: u64) -> bool {
        let inside = offset < file && offset.saturating_add(needed) <= file;
        self.has_place(offset) && inside
    }

    /// Whether a cluster behind the header can begin at `offset`.
    pub(super) fn has_place(&self, offset: u64) -> bool {
        let first = self.header_clusters.saturating_mul(self.cluster);
        offset & self.cluster.saturating_sub(1) == 0 && offset >= first
    }

    /// What the header says, for people.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("header.cluster_size", self.cluster.to_string()),
            ("header.table_size", self.table_clusters.to_string()),
            ("header.features", format!("{:#x}", self.features)),
        ];
        if let Some(name) = &self.backing {
            all.push(("backing_file", name.clone()));
        }
        let owned = |(key, value): (&str, String)| (key.to_owned(), value);
        all.into_iter().map(owned).collect()
    }
}
