//! The header.

use super::extension::Extensions;
use super::rules;
use crate::codec::Framing;
use crate::finding::Findings;
use crate::math::rem;
use drylab_block::{Error, Limits, ReadAt, Result, array_at, be_u32, be_u64, read_vec};

/// First bytes of every version, qcow 1 included.
pub(crate) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Header bytes of version 2, and of version 3 without further fields.
pub(crate) const SIZE_V2: u32 = 72;
pub(crate) const SIZE_V3: u32 = 104;
/// Header bytes with the compression type and its padding.
pub(super) const SIZE_COMPRESSION: u32 = 112;

pub(super) const DIRTY: u64 = 1;
pub(super) const CORRUPT: u64 = 1 << 1;
pub(super) const DATA_FILE: u64 = 1 << 2;
pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
pub(super) const EXTENDED_L2: u64 = 1 << 4;
/// Autoclear: the bitmaps are consistent.
pub(super) const BITMAPS: u64 = 1;
/// Autoclear: the data file is the disk.
pub(super) const RAW_EXTERNAL: u64 = 1 << 1;

/// Largest L1 table that QEMU opens, in bytes.
pub(super) const L1_MAX: u64 = 32 << 20;
/// Longest name of a backing file.
pub(super) const NAME_MAX: u32 = 1023;
/// Widest refcounts: 2^6 bits.
const ORDER_MAX: u32 = 6;
/// Subclusters of a cluster in extended L2 entries.
pub(super) const SUBCLUSTERS: u64 = 32;

/// The fields, checked.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) l1_size: u32,
    pub(super) l1_offset: u64,
    pub(super) refcount_offset: u64,
    pub(super) refcount_clusters: u32,
    pub(super) refcount_order: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible: u64,
    pub(super) compatible: u64,
    pub(super) autoclear: u64,
    pub(super) length: u32,
    pub(super) extensions: Extensions,
    /// Name of the backing file, where the header has one.
    pub(super) backing: Option<String>,
    backing_offset: u64,
    backing_length: u32,
    crypt: u32,
    compression: u8,
    /// `refcount_order` as it stands there.
    order_said: u32,
    /// The refcount table is taken for none, and a finding says why.
    no_refcounts: bool,
}

impl Header {
    /// Reads the header and its extensions, and refuses what cannot be read rightly.
    pub(super) fn read(
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let place = |error: Error| error.within("qcow2 header");
        let first = source.len().min(u64::from(SIZE_COMPRESSION));
        let bytes = read_vec(source, "qcow2 header", 0, first, limits)?;
        let mut header = Self::fields(&bytes).ok_or_else(|| {
            place(Error::corrupt(format_args!(
                "{} bytes hold no header",
                source.len()
            )))
        })?;
        if array_at::<4>(&bytes, 0).as_ref() != Some(MAGIC) {
            return Err(place(Error::corrupt("has no magic QFI\\xfb")));
        }
        header.check_numbers(limits).map_err(place)?;
        header.leave_refcounts(findings);
        let start = u64::from(header.length);
        let name = Some(header.backing_offset).filter(|offset| *offset > start);
        let end = name
            .unwrap_or(u64::MAX)
            .min(header.cluster_bytes())
            .max(start);
        header.extensions = Extensions::read(source, start, end, findings)?;
        header.check_features()?;
        header.backing = header.backing_name(source, limits)?;
        header.note(source, findings);
        Ok(header)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let version = be_u32(bytes, 4)?;
        let v3 = version >= 3;
        let length = if v3 { be_u32(bytes, 100)? } else { SIZE_V2 };
        let word = |offset| if v3 { be_u64(bytes, offset) } else { Some(0) };
        let order = if v3 { be_u32(bytes, 96)? } else { 4 };
        Some(Self {
            version,
            backing_offset: be_u64(bytes, 8)?,
            backing_length: be_u32(bytes, 16)?,
            cluster_bits: be_u32(bytes, 20)?,
            size: be_u64(bytes, 24)?,
            crypt: be_u32(bytes, 32)?,
            l1_size: be_u32(bytes, 36)?,
            l1_offset: be_u64(bytes, 40)?,
            refcount_offset: be_u64(bytes, 48)?,
            refcount_clusters: be_u32(bytes, 56)?,
            snapshots: be_u32(bytes, 60)?,
            snapshots_offset: be_u64(bytes, 64)?,
            incompatible: word(72)?,
            compatible: word(80)?,
            autoclear: word(88)?,
            refcount_order: order,
            order_said: order,
            no_refcounts: false,
            length,
            // A header that ends before this byte has type 0 (zlib).
            compression: if length > SIZE_V3 {
                bytes.get(104).copied()?
            } else {
                0
            },
            extensions: Extensions::default(),
            backing: None,
        })
    }

    fn check_numbers(&self, limits: &Limits) -> Result<()> {
        let Self {
            version,
            cluster_bits,
            size,
            length,
            ..
        } = self;
        if !(2..=3).contains(version) {
            return Err(Error::unsupported(format_args!(
                "version {version}, known are 2 and 3"
            )));
        }
        if !(9..=21).contains(cluster_bits) {
            return Err(Error::corrupt(format_args!(
                "cluster_bits {cluster_bits}, allowed are 9 to 21"
            )));
        }
        let too_long = u64::from(*length) > self.cluster_bytes();
        if *version >= 3 && (*length < SIZE_V3 || length % 8 != 0 || too_long) {
            return Err(Error::corrupt(format_args!(
                "header_length {length}, needed are 104 to the cluster size in steps of 8"
            )));
        }
        limits.check_disk("virtual size", *size)?;
        if self.snapshots > 65_536 {
            return Err(Error::corrupt(format_args!(
                "{} snapshots, allowed are 65536",
                self.snapshots
            )));
        }
        if !self.is_place(self.l1_offset) {
            return Err(Error::corrupt(format_args!(
                "L1 table at offset {:#x}, no multiple of a cluster",
                self.l1_offset
            )));
        }
        Ok(())
    }

    /// Whether a table can be at an offset.
    fn is_place(&self, offset: u64) -> bool {
        rem(offset, self.cluster_bytes()) == 0 && offset >> 56 == 0
    }

    /// Takes refcounts whose table or width cannot be told for none at all: the guest's bytes do not hang on them.
    fn leave_refcounts(&mut self, findings: &mut Findings) {
        let mut wrong = false;
        if self.refcount_order > ORDER_MAX {
            let found = self.refcount_order;
            let (place, path) = ((96, 4), "header, refcount_order");
            let expected = format!("no more than {ORDER_MAX}");
            findings.add(&rules::REFCOUNT_ORDER, place, path, found, expected);
            // The width that new refcounts get, and that of version 2.
            self.refcount_order = 4;
            wrong = true;
        }
        if !self.is_place(self.refcount_offset) {
            let found = format!("{:#x}", self.refcount_offset);
            let (place, path) = ((48, 8), "header, refcount_table_offset");
            let expected = "a multiple of a cluster below 2^56";
            findings.add(&rules::REFCOUNT_ALIGNMENT, place, path, found, expected);
            wrong = true;
        }
        if wrong {
            (self.refcount_offset, self.refcount_clusters) = (0, 0);
            self.no_refcounts = true;
        }
    }

    fn check_features(&self) -> Result<()> {
        let bits = self.incompatible;
        let unknown = bits & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2);
        let refuse = |what: &str| Err(Error::unsupported(format_args!("qcow2 {what}")));
        if unknown != 0 {
            let names = self.extensions.names(0, unknown);
            return refuse(&format!("incompatible feature bits {unknown:#x} ({names})"));
        }
        if self.extended() && self.cluster_bits < 14 {
            return Err(Error::corrupt(format_args!(
                "qcow2 extended L2 entries with cluster_bits {}, needed are 14 or more",
                self.cluster_bits
            )));
        }
        match (bits & COMPRESSION_TYPE != 0, self.compression) {
            (true, 1) | (false, 0) => {}
            (true, 0) => {
                return Err(Error::corrupt(
                    "qcow2 compression type bit without a compression type",
                ));
            }
            (true, other) => return refuse(&format!("compression type {other}")),
            (false, other) => {
                return Err(Error::corrupt(format_args!(
                    "qcow2 compression type {other} without its feature bit"
                )));
            }
        }
        let way = "; decrypt it with qemu-img convert --image-opts and the key";
        match (self.crypt, self.extensions.encryption) {
            (0, None) => Ok(()),
            (1, _) => refuse(&format!("encryption (AES){way}")),
            (2, Some((offset, bytes))) => refuse(&format!(
                "encryption (LUKS, header of {bytes} bytes at {offset}){way}"
            )),
            (2, None) => refuse(&format!("encryption (LUKS){way}")),
            (0, Some(_)) => refuse("encryption header without an encryption method"),
            (other, _) => refuse(&format!("encryption method {other}")),
        }
    }

    fn backing_name(&self, source: &dyn ReadAt, limits: &Limits) -> Result<Option<String>> {
        let length = self.backing_length;
        if self.backing_offset == 0 || length == 0 {
            return Ok(None);
        }
        if length > NAME_MAX {
            return Err(Error::corrupt(format_args!(
                "qcow2 backing file name of {length} bytes, allowed are {NAME_MAX}"
            )));
        }
        let name = read_vec(
            source,
            "qcow2 backing file name",
            self.backing_offset,
            u64::from(length),
            limits,
        )?;
        Ok(Some(String::from_utf8_lossy(&name).into_owned()))
    }

    /// Whether the place of a name is given where QEMU takes none, and the name has no bytes.
    pub(super) fn is_backing_offset_idle(&self) -> bool {
        self.backing_length == 0 && self.backing_offset > self.cluster_bytes()
    }

    /// What is worth knowing and does not hinder reading.
    fn note(&self, source: &dyn ReadAt, findings: &mut Findings) {
        let mut bit = |rule, offset, path: &str, found: &str, expected: &str| {
            findings.add(
                rule,
                (offset, 8),
                format!("header, {path}"),
                found,
                expected,
            );
        };
        if self.incompatible & DIRTY != 0 {
            bit(&rules::DIRTY, 72, "dirty bit", "1", "0");
        }
        if self.incompatible & CORRUPT != 0 {
            bit(&rules::CORRUPT, 72, "corrupt bit", "1", "0");
        }
        let unknown = self.autoclear & !(BITMAPS | RAW_EXTERNAL);
        if unknown != 0 {
            let names = self.extensions.names(2, unknown);
            let path = "autoclear feature bits";
            bit(&rules::AUTOCLEAR, 88, path, &names, "those that are known");
        }
        let raw = self.autoclear & RAW_EXTERNAL != 0;
        if raw && !self.data_file() {
            let expected = "1 only with an external data file";
            bit(&rules::RAW_EXTERNAL, 88, "raw external bit", "1", expected);
        }
        if raw && self.backing.is_some() {
            let path = "raw external bit beside a backing file";
            bit(&rules::RAW_EXTERNAL, 88, path, "1", "0");
        }
        if self.is_backing_offset_idle() {
            let (found, expected) = (
                format!("{:#x}", self.backing_offset),
                "0, or in the first cluster",
            );
            bit(
                &rules::BACKING_OFFSET,
                8,
                "backing_file_offset",
                &found,
                expected,
            );
        }
        if self.backing.is_some() && self.extensions.backing_format.is_none() {
            let (path, expected) = ("backing file format", "named by a header extension");
            bit(&rules::BACKING_FORMAT, 8, path, "absent", expected);
        }
        if self.extensions.data_file.is_some() && !self.data_file() {
            let (path, expected) = ("name of a data file", "absent, as its feature bit is");
            bit(&rules::DATA_FILE_NAME, 72, path, "there", expected);
        }
        if self.extensions.bitmaps.is_some() {
            let (path, expected) = ("bitmaps extension", "absent");
            if self.bitmaps_consistent() {
                bit(&rules::BITMAPS, 88, path, "there", expected);
            } else {
                bit(
                    &rules::BITMAPS_STALE,
                    88,
                    path,
                    "there without its autoclear bit",
                    expected,
                );
            }
        } else if self.bitmaps_consistent() {
            let (path, expected) = ("bitmaps autoclear bit", "0 without the bitmaps extension");
            bit(&rules::EXTENSION, 88, path, "1", expected);
        }
        if self.snapshots > 0 {
            let path = "number of internal snapshots";
            bit(
                &rules::SNAPSHOTS,
                60,
                path,
                &self.snapshots.to_string(),
                "0",
            );
        }
        if self.no_refcounts {
            return;
        }
        let table = self.refcount_table_bytes();
        let end = self.refcount_offset.checked_add(table);
        if end.is_none_or(|end| end > source.len()) || table == 0 {
            let found = format!("of {table} bytes at {}", self.refcount_offset);
            let expected = format!("inside the {} bytes of the file", source.len());
            let place = (48, 12);
            findings.add(
                &rules::REFCOUNT_TABLE,
                place,
                "refcount table",
                found,
                expected,
            );
        }
    }

    /// How compressed clusters are framed.
    pub(super) fn framing(&self) -> Framing {
        match self.compression {
            0 => Framing::Raw,
            _ => Framing::Zstd,
        }
    }

    /// Bytes of a cluster.
    pub(super) fn cluster_bytes(&self) -> u64 {
        1u64.checked_shl(self.cluster_bits).unwrap_or(1 << 21)
    }

    /// Whether L2 entries have 128 bits.
    pub(super) fn extended(&self) -> bool {
        self.incompatible & EXTENDED_L2 != 0
    }

    /// Whether guest clusters stand in another file.
    pub(super) fn data_file(&self) -> bool {
        self.incompatible & DATA_FILE != 0
    }

    pub(super) fn bitmaps_consistent(&self) -> bool {
        self.autoclear & BITMAPS != 0
    }

    /// Words of an L2 entry: 1, or 2 when they are extended.
    pub(super) fn entry_words(&self) -> u64 {
        if self.extended() { 2 } else { 1 }
    }

    /// Clusters that one L2 table describes.
    pub(super) fn per_table(&self) -> u64 {
        crate::math::div(self.cluster_bytes(), if self.extended() { 16 } else { 8 })
    }

    /// L1 entries that a disk of `size` bytes needs.
    pub(super) fn l1_needed(&self, size: u64) -> u64 {
        crate::math::div_up(size, self.cluster_bytes().saturating_mul(self.per_table()))
    }

    pub(super) fn refcount_table_bytes(&self) -> u64 {
        u64::from(self.refcount_clusters).saturating_mul(self.cluster_bytes())
    }

    /// What the header says, for people.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let mut all: Vec<(&str, String)> = vec![
            ("header.version", self.version.to_string()),
            ("header.cluster_bits", self.cluster_bits.to_string()),
            ("header.refcount_order", self.order_said.to_string()),
            (
                "header.incompatible_features",
                format!("{:#x}", self.incompatible),
            ),
            (
                "header.compatible_features",
                format!("{:#x}", self.compatible),
            ),
            (
                "header.autoclear_features",
                format!("{:#x}", self.autoclear),
            ),
            ("header.nb_snapshots", self.snapshots.to_string()),
        ];
        if self.version >= 3 {
            let name = match self.framing() {
                Framing::Zstd => "zstd",
                Framing::Raw | Framing::Zlib => "zlib",
            };
            all.push(("header.compression_type", name.to_owned()));
        }
        let texts = [
            ("backing_file", &self.backing),
            ("backing_format", &self.extensions.backing_format),
            ("data_file", &self.extensions.data_file),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, text.clone()?)));
        all.extend(texts);
        all.into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}
