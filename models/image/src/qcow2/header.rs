//! The header and its extensions.

use super::rules;
use crate::codec::Framing;
use crate::finding::Findings;
use drylab_block::{
    DenyAll, Error, Limits, ReadAt, Reference, Resolver, Result, array_at, be_u32, be_u64,
    read_vec, slice_at,
};

/// First bytes of every version, qcow 1 included.
pub(crate) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Header bytes of version 2, and of version 3 as we write it.
pub(crate) const SIZE_V2: u32 = 72;
pub(crate) const SIZE_V3: u32 = 104;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURES: u32 = 0x6803_f857;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// The fields that reading needs, checked.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) size: u64,
    pub(crate) l1_size: u32,
    pub(crate) l1_offset: u64,
    pub(crate) refcount_offset: u64,
    pub(crate) refcount_clusters: u32,
    pub(crate) refcount_order: u32,
    pub(crate) snapshots: u32,
    length: u32,
    incompatible: u64,
    compatible: u64,
    autoclear: u64,
    backing_offset: u64,
    backing_length: u32,
    crypt: u32,
    compression: u8,
}

impl Header {
    /// Reads the header and its extensions, and refuses what cannot be read rightly.
    pub(crate) fn read(
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let place = |error: Error| error.within("qcow2 header");
        let first = source.len().min(u64::from(SIZE_V3) + 8);
        let bytes = read_vec(source, "qcow2 header", 0, first, limits)?;
        let header = Self::fields(&bytes).ok_or_else(|| {
            place(Error::corrupt(format_args!(
                "{} bytes hold no header",
                source.len()
            )))
        })?;
        if array_at::<4>(&bytes, 0).as_ref() != Some(MAGIC) {
            return Err(place(Error::corrupt("has no magic QFI\\xfb")));
        }
        header.check_numbers(limits).map_err(place)?;
        header.check_features(source, limits, findings)?;
        header.check_extensions(source, limits, findings)?;
        Ok(header)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let version = be_u32(bytes, 4)?;
        let v3 = version >= 3;
        let length = if v3 { be_u32(bytes, 100)? } else { SIZE_V2 };
        let word = |offset| if v3 { be_u64(bytes, offset) } else { Some(0) };
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
            incompatible: word(72)?,
            compatible: word(80)?,
            autoclear: word(88)?,
            refcount_order: if v3 { be_u32(bytes, 96)? } else { 4 },
            length,
            // A header that ends before this byte has type 0 (zlib).
            compression: if length > SIZE_V3 {
                bytes.get(104).copied()?
            } else {
                0
            },
        })
    }

    fn check_numbers(&self, limits: &Limits) -> Result<()> {
        let Self {
            version,
            cluster_bits,
            refcount_order,
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
        if *refcount_order > 6 {
            return Err(Error::corrupt(format_args!(
                "refcount_order {refcount_order}, allowed are 0 to 6"
            )));
        }
        let too_long = u64::from(*length) > self.cluster_bytes();
        if *version >= 3 && (*length < SIZE_V3 || length % 8 != 0 || too_long) {
            return Err(Error::corrupt(format_args!(
                "header_length {length}, needed are 104 to the cluster size in steps of 8"
            )));
        }
        if *size > limits.disk_bytes_max {
            let most = limits.disk_bytes_max;
            return Err(Error::unsupported(format_args!(
                "virtual size of {size} bytes, more than the {most} allowed"
            )));
        }
        if self.snapshots > 65_536 {
            return Err(Error::corrupt(format_args!(
                "{} snapshots, allowed are 65536",
                self.snapshots
            )));
        }
        for (name, offset) in [
            ("L1 table", self.l1_offset),
            ("refcount table", self.refcount_offset),
        ] {
            if crate::math::rem(offset, self.cluster_bytes()) != 0 || offset >> 56 != 0 {
                return Err(Error::corrupt(format_args!(
                    "{name} at offset {offset:#x}, no multiple of a cluster"
                )));
            }
        }
        Ok(())
    }

    fn check_features(
        &self,
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<()> {
        let bits = self.incompatible;
        let unknown = bits & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2);
        let refuse = |what: &str| Err(Error::unsupported(format_args!("qcow2 {what}")));
        if unknown != 0 {
            return refuse(&format!("incompatible feature bits {unknown:#x}"));
        }
        if bits & EXTENDED_L2 != 0 {
            return refuse("extended L2 entries (subclusters)");
        }
        match (bits & COMPRESSION_TYPE != 0, self.compression) {
            (_, 0) => {}
            (true, 1) => {}
            (true, other) => return refuse(&format!("compression type {other}")),
            (false, other) => {
                return Err(Error::corrupt(format_args!(
                    "qcow2 compression type {other} without its feature bit"
                )));
            }
        }
        match self.crypt {
            0 => {}
            1 => return refuse("encryption (AES)"),
            2 => return refuse("encryption (LUKS)"),
            other => return refuse(&format!("encryption method {other}")),
        }
        if self.backing_offset != 0 {
            if self.backing_length > 1023 {
                let length = self.backing_length;
                return Err(Error::corrupt(format_args!(
                    "qcow2 backing file name of {length} bytes, allowed are 1023"
                )));
            }
            let length = u64::from(self.backing_length);
            let name = read_vec(
                source,
                "qcow2 backing file name",
                self.backing_offset,
                length,
                limits,
            )?;
            let name = String::from_utf8_lossy(&name).into_owned();
            DenyAll.resolve(&Reference {
                kind: "backing file",
                name,
                by: String::new(),
            })?;
        }
        if bits & DIRTY != 0 {
            findings.add(&rules::DIRTY, (72, 8), "header, dirty bit", 1, 0);
        }
        if bits & CORRUPT != 0 {
            findings.add(&rules::CORRUPT, (72, 8), "header, corrupt bit", 1, 0);
        }
        if self.snapshots > 0 {
            let path = "header, number of internal snapshots";
            findings.add(&rules::SNAPSHOTS, (60, 4), path, self.snapshots, 0);
        }
        let table = u64::from(self.refcount_clusters).saturating_mul(self.cluster_bytes());
        if self
            .refcount_offset
            .checked_add(table)
            .is_none_or(|end| end > source.len())
        {
            let found = format!("of {table} bytes at {}", self.refcount_offset);
            let expected = format!("inside the {} bytes of the file", source.len());
            findings.add(
                &rules::REFCOUNT_TABLE,
                (48, 8),
                "refcount table",
                found,
                expected,
            );
        }
        Ok(())
    }

    /// Walks the extensions: they end with type 0, or with the first cluster.
    fn check_extensions(
        &self,
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<()> {
        let area = source.len().min(self.cluster_bytes());
        let bytes = read_vec(source, "qcow2 header extensions", 0, area, limits)?;
        let mut at = crate::math::index(u64::from(self.length));
        let mut data_file = String::new();
        while let Some((kind, length)) =
            be_u32(&bytes, at).zip(be_u32(&bytes, at.saturating_add(4)))
        {
            if kind == EXTENSION_END {
                break;
            }
            let start = at.saturating_add(8);
            let length = crate::math::index(u64::from(length));
            let Some(data) = slice_at(&bytes, start, length) else {
                return Err(Error::corrupt(format_args!(
                    "qcow2 header extension {kind:#x} at offset {at} has {length} bytes and ends past the first cluster"
                )));
            };
            if kind == EXTENSION_DATA_FILE {
                data_file = String::from_utf8_lossy(data).into_owned();
            }
            match kind {
                EXTENSION_BACKING_FORMAT | EXTENSION_FEATURES => {}
                EXTENSION_ENCRYPTION => return Err(Error::unsupported("qcow2 encryption header")),
                _ => {
                    let rule = match kind {
                        EXTENSION_BITMAPS => &rules::BITMAPS,
                        EXTENSION_DATA_FILE => &rules::DATA_FILE_NAME,
                        _ => &rules::UNKNOWN_EXTENSION,
                    };
                    let place = (
                        u64::try_from(at).unwrap_or(u64::MAX),
                        crate::math::len64(data),
                    );
                    let found = format!("{kind:#x} of {length} bytes");
                    findings.add(
                        rule,
                        place,
                        "header extension",
                        found,
                        "none, or one used for reading",
                    );
                }
            }
            at = start.saturating_add(length.checked_next_multiple_of(8).unwrap_or(usize::MAX));
        }
        if self.incompatible & DATA_FILE != 0 {
            let kind = "external data file";
            DenyAll.resolve(&Reference {
                kind,
                name: data_file,
                by: String::new(),
            })?;
        }
        Ok(())
    }

    /// How compressed clusters are framed.
    pub(crate) fn framing(&self) -> Framing {
        if self.compression == 1 {
            Framing::Zstd
        } else {
            Framing::Raw
        }
    }

    /// Bytes of a cluster.
    pub(crate) fn cluster_bytes(&self) -> u64 {
        1u64.checked_shl(self.cluster_bits).unwrap_or(1 << 21)
    }

    /// Clusters that one L2 table describes.
    pub(crate) fn per_table(&self) -> u64 {
        self.cluster_bytes() / 8
    }

    /// What the header says, for people.
    pub(crate) fn details(&self) -> Vec<(String, String)> {
        [
            ("header.version", self.version.to_string()),
            ("header.cluster_bits", self.cluster_bits.to_string()),
            ("header.refcount_order", self.refcount_order.to_string()),
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
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }
}
