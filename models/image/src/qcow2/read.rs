//! Reading the active state, or that of a snapshot.

use super::bitmap::Bitmaps;
use super::check;
use super::data::{Backing, DataFile, Declared};
use super::entry::{Bounds, COMPRESSED, Cluster, Entry, OFFSET};
use super::header::{Header, L1_MAX, SUBCLUSTERS};
use super::refcount;
use super::snapshot::{Snapshot, Snapshots};
use super::structure::Structure;
use super::words;
use crate::backed;
use crate::codec::{Engine, Unpackers};
use crate::container::{Container, Opener, Stored};
use crate::edit::Plan;
use crate::finding::Findings;
use crate::image::Image;
use crate::map::{self, Store, Units};
use crate::math::{div, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{Below, Error, Extent, ExtentKind, Limits, ReadAt, Result, read_vec};
use std::ops::Range;
use std::sync::Arc;

/// An open qcow2 image.
pub(crate) struct Qcow2 {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) header: Header,
    pub(super) limits: Limits,
    pub(super) snapshots: Snapshots,
    pub(super) bitmaps: Bitmaps,
    pub(super) data: Option<DataFile>,
    pub(super) backing: Option<Backing>,
    /// Guest-visible bytes: the header's, or the snapshot's.
    size: u64,
    /// What is read is not the active state.
    is_snapshot: bool,
    l1: Vec<u64>,
    /// Bytes of the file that hold no guest data: header and L1 table.
    own: [Range<u64>; 2],
    /// So does the refcount table, where it is one.
    pub(super) refcounts: Range<u64>,
    tables: Recent<[u64]>,
    clusters: Recent<[u8]>,
    unpackers: Unpackers,
    findings: Findings,
}

impl Qcow2 {
    /// Reads header, extensions, the lists of snapshots and bitmaps, and the L1 table; L2 tables and clusters are read
    /// when asked for. Opens the backing file and the data file.
    pub(crate) fn open(
        source: Arc<dyn ReadAt>,
        snapshot: Option<&str>,
        opener: &Opener<'_>,
    ) -> Result<Self> {
        let limits = opener.limits;
        let mut findings = Findings::default();
        let header = Header::read(&*source, limits, &mut findings)?;
        let snapshots = Snapshots::read(&*source, &header, limits, &mut findings)?;
        let bitmaps = Bitmaps::read(&*source, &header, limits, &mut findings)?;
        let chosen = snapshot.map(|wanted| snapshots.find(wanted)).transpose()?;
        let (size, place) = active_table(&header, chosen)?;
        let is_snapshot = chosen.is_some();
        let l1 = match header.l1_needed(size) {
            0 => Vec::new(),
            needed => read_vec(
                &*source,
                "qcow2 L1 table",
                place,
                needed.saturating_mul(8),
                limits,
            )?,
        };
        let data = match header.data_file() {
            true => Some(DataFile::open(&header, opener)?),
            false => None,
        };
        let backing = open_backing(&header, opener)?;
        if let Some(backing) = &backing {
            let image = backing.image();
            findings.extend(backing.key(), &image.info().findings);
        }
        let range = |start: u64, length: u64| start..start.saturating_add(length);
        let own = [range(0, u64::from(header.length)), range(place, len64(&l1))];
        let l1 = words(&l1);
        let refcounts = refcount::trusted(&*source, &header, &own);
        refcount::note(&header, &refcounts, (&own, &l1), &mut findings);
        Ok(Self {
            own,
            refcounts,
            limits: *limits,
            is_snapshot,
            l1,
            tables: Recent::new(8),
            clusters: Recent::new(4),
            unpackers: Unpackers::default(),
            source,
            header,
            snapshots,
            bitmaps,
            data,
            backing,
            size,
            findings,
        })
    }

    /// Where entries may point to.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            file: self.source.len(),
            data: self.data.as_ref().map(|data| data.bytes.len()),
            backed: self.backing.is_some(),
        }
    }

    /// Everything that refers to clusters, with references as they are, or as they should be.
    pub(super) fn structure(
        &self,
        limits: &Limits,
        mended: bool,
        found: &mut Findings,
    ) -> Result<Structure<'_>> {
        Structure::gather(
            (&self.source, &self.header),
            (&self.snapshots, &self.bitmaps),
            self.bounds(),
            limits,
            (mended, found),
        )
    }

    /// Checks that `needed` bytes of a cluster can be at `offset` of the file that holds it.
    fn check_place(
        &self,
        what: &dyn std::fmt::Display,
        (offset, alignment): (u64, u64),
        needed: u64,
        file: &dyn ReadAt,
    ) -> Result<u64> {
        let end = offset.saturating_add(needed);
        if rem(offset, alignment) != 0 {
            return Err(Error::corrupt(format_args!(
                "{what} points to {offset:#x}, no multiple of a cluster"
            )));
        }
        if end > file.len() {
            let length = file.len();
            return Err(Error::corrupt(format_args!(
                "{what} points to {offset:#x}, past the end ({length:#x})"
            )));
        }
        Ok(offset)
    }

    fn check_metadata(&self, what: &dyn std::fmt::Display, offset: u64, needed: u64) -> Result<()> {
        let end = offset.saturating_add(needed);
        let mut ranges = self.own.iter().chain([&self.refcounts]);
        if ranges.any(|range| offset < range.end && range.start < end) {
            return Err(Error::corrupt(format_args!(
                "{what} points to {offset:#x}, inside the image's own tables"
            )));
        }
        Ok(())
    }

    /// Offset and number of the bytes that hold a compressed cluster.
    fn packed_place(&self, unit: u64, entry: u64) -> Result<(u64, u64)> {
        let (offset, length) = self.header.packed(entry);
        if self.data.is_some() {
            return Err(Error::corrupt(format_args!(
                "cluster {unit} is compressed, and the data file holds no such cluster"
            )));
        }
        let left = self
            .source
            .len()
            .checked_sub(offset)
            .filter(|left| *left > 0)
            .ok_or_else(|| {
                let end = self.source.len();
                Error::corrupt(format_args!(
                    "compressed cluster {unit} is at {offset:#x}, past the end ({end:#x})"
                ))
            })?;
        // The last sector of a file may be cut after the last compressed byte.
        Ok((offset, length.min(left)))
    }

    pub(super) fn unpack_cluster(&self, cluster: u64, entry: u64) -> Result<Arc<[u8]>> {
        let (offset, length) = self.packed_place(cluster, entry)?;
        let within = |error: Error| {
            error.within(format_args!(
                "compressed cluster {cluster} at offset {offset:#x}"
            ))
        };
        let whole = self.header.cluster_bytes();
        let bytes = self.unpackers.with(|unpacker| {
            let (packed, mut engine) =
                unpacker.load(index(length), |buffer| self.source.read_at(offset, buffer))?;
            let mut bytes = vec![0; index(whole)];
            let produced = engine.unpack(packed, self.header.framing(), &mut bytes)?;
            bytes.truncate(produced);
            Ok(bytes)
        });
        let bytes = bytes.map_err(within)?;
        if len64(&bytes) != whole {
            let message = format_args!("unpacks to {} bytes of {whole}", bytes.len());
            return Err(within(Error::corrupt(message)));
        }
        Ok(bytes.into())
    }

    /// Units of a cluster: 1, or its subclusters.
    fn parts(&self) -> u64 {
        if self.header.extended() {
            SUBCLUSTERS
        } else {
            1
        }
    }

    fn entry(&self, table: &[u64], cluster: u64) -> Entry {
        let words = self.header.entry_words();
        let at = rem(cluster, self.header.per_table()).saturating_mul(words);
        let word = |at: u64| table.get(index(at)).copied().unwrap_or(0);
        Entry {
            word: word(at),
            bitmap: if words > 1 {
                word(at.saturating_add(1))
            } else {
                0
            },
        }
    }

    /// Where the bytes of a standard cluster's part stand.
    fn standard(&self, unit: u64, offset: u64) -> Result<Store> {
        let (cluster, part) = (div(unit, self.parts()), rem(unit, self.parts()));
        let what = Name {
            cluster,
            table: div(cluster, self.header.per_table()),
        };
        let alignment = self.header.cluster_bytes();
        let within = part.saturating_mul(self.unit_bytes());
        let needed = within.saturating_add(self.bytes_needed(unit));
        let file = self.source();
        let offset = self.check_place(&what, (offset, alignment), needed, file)?;
        if self.data.is_some() {
            let guest = cluster.saturating_mul(alignment);
            if guest != offset {
                return Err(Error::corrupt(format_args!(
                    "{what} points to {offset:#x} of the data file, its place is {guest:#x}"
                )));
            }
        } else {
            self.check_metadata(&what, offset, needed)?;
        }
        Ok(Store::At(offset.saturating_add(within)))
    }
}

/// Size of the disk and place of its L1 table.
fn active_table(header: &Header, chosen: Option<&Snapshot>) -> Result<(u64, u64)> {
    let (size, place, listed) = match chosen {
        Some(snapshot) => (
            snapshot.size.unwrap_or(header.size),
            snapshot.l1_offset,
            snapshot.l1_size,
        ),
        None => (header.size, header.l1_offset, header.l1_size),
    };
    let (needed, listed) = (header.l1_needed(size), u64::from(listed));
    if listed < needed || listed.saturating_mul(8) > L1_MAX {
        return Err(Error::corrupt(format_args!(
            "qcow2 L1 table has {listed} entries; {needed} are needed and {} allowed",
            L1_MAX / 8
        )));
    }
    Ok((size, place))
}

fn open_backing(header: &Header, opener: &Opener<'_>) -> Result<Option<Backing>> {
    let Some(name) = &header.backing else {
        return Ok(None);
    };
    let format = header.extensions.backing_format.as_deref();
    let declared = format.map_or(Declared::Unknown, Declared::As);
    Backing::open(name, declared, opener).map(Some)
}

impl Snapshots {
    /// The snapshot of an id, or else of a name.
    fn find(&self, wanted: &str) -> Result<&Snapshot> {
        let id = self.list.iter().find(|snapshot| snapshot.id == wanted);
        let named = || self.list.iter().find(|snapshot| snapshot.name == wanted);
        id.or_else(named).ok_or_else(|| {
            Error::unsupported(format_args!(
                "snapshot {wanted:?}: the image has {} and none of that id or name",
                self.list.len()
            ))
        })
    }
}

impl Units for Qcow2 {
    type Table = [u64];

    fn size(&self) -> u64 {
        self.size
    }

    fn source(&self) -> &dyn ReadAt {
        match &self.data {
            Some(data) => &*data.bytes,
            None => &*self.source,
        }
    }

    fn unit_bytes(&self) -> u64 {
        div(self.header.cluster_bytes(), self.parts())
    }

    fn units_per_table(&self) -> u64 {
        self.header.per_table().saturating_mul(self.parts())
    }

    fn next_table(&self, table: u64) -> u64 {
        let later = self.l1.get(index(table)..).unwrap_or_default();
        let skip = later
            .iter()
            .position(|entry| entry & OFFSET != 0)
            .unwrap_or(later.len());
        table.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX))
    }

    fn table(&self, table: u64) -> Result<Option<Arc<[u64]>>> {
        let offset = self.l1.get(index(table)).copied().unwrap_or(0) & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        self.tables
            .get(table, || {
                let what = format!("L1 entry {table}");
                let cluster = self.header.cluster_bytes();
                let place = (offset, cluster);
                let place = self.check_place(&what, place, cluster, &*self.source)?;
                self.check_metadata(&what, place, cluster)?;
                let limits = &Limits::DEFAULT;
                let bytes = read_vec(&*self.source, "qcow2 L2 table", place, cluster, limits)?;
                Ok(words(&bytes).into())
            })
            .map(Some)
    }

    fn store(&self, table: &[u64], unit: u64) -> Result<Store> {
        let (cluster, part) = (div(unit, self.parts()), rem(unit, self.parts()));
        let entry = self.entry(table, cluster);
        if entry.word & COMPRESSED != 0 {
            let place = self.packed_place(cluster, entry.word);
            return place.map(|_| Store::Packed);
        }
        if self.header.extended() {
            let state = entry.subcluster(part).ok_or_else(|| {
                Error::corrupt(format_args!(
                    "subcluster {part} of cluster {cluster} is both allocated and zero"
                ))
            })?;
            return match state {
                (false, true) => Ok(Store::Zero),
                (false, false) => Ok(Store::Hole),
                (true, _) => match self.header.cluster(entry) {
                    Cluster::Standard(offset) => self.standard(unit, offset),
                    _ => Err(Error::corrupt(format_args!(
                        "subcluster {part} of cluster {cluster} is allocated nowhere"
                    ))),
                },
            };
        }
        match self.header.cluster(entry) {
            Cluster::Zero(_) if self.header.version < 3 => Err(Error::corrupt(format_args!(
                "L2 entry of cluster {cluster} has the zero bit in version 2"
            ))),
            Cluster::Zero(_) => Ok(Store::Zero),
            Cluster::Standard(offset) => self.standard(unit, offset),
            Cluster::Absent | Cluster::Packed(_, _) => Ok(Store::Hole),
        }
    }

    fn unpackers(&self) -> Option<&Unpackers> {
        // A subcluster is a part of what is packed: such clusters are unpacked by themselves and kept.
        (!self.header.extended()).then_some(&self.unpackers)
    }

    fn packed_at(&self, table: &[u64], unit: u64) -> Result<(u64, u64)> {
        self.packed_place(unit, self.entry(table, unit).word)
    }

    fn unpack(&self, _: u64, packed: &[u8], engine: &mut Engine<'_>, out: &mut [u8]) -> bool {
        engine.unpack(packed, self.header.framing(), out) == Ok(out.len())
    }

    fn unpacked(&self, table: &[u64], unit: u64) -> Result<Arc<[u8]>> {
        let cluster = div(unit, self.parts());
        let word = self.entry(table, cluster).word;
        let whole = self
            .clusters
            .get(cluster, || self.unpack_cluster(cluster, word))?;
        if self.parts() == 1 {
            return Ok(whole);
        }
        let start = rem(unit, self.parts()).saturating_mul(self.unit_bytes());
        let part = drylab_block::slice_at(&whole, index(start), index(self.unit_bytes()));
        Ok(part.unwrap_or_default().into())
    }
}

/// An L2 entry's name in a message, made only when there is one.
struct Name {
    cluster: u64,
    table: u64,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "L2 entry of cluster {} (L2 table {})",
            self.cluster, self.table
        )
    }
}

impl Container for Qcow2 {
    fn subformat(&self) -> String {
        format!("v{}", self.header.version)
    }

    fn details(&self) -> Vec<(String, String)> {
        let mut all = self.header.details();
        let snapshots = self.snapshots.list.iter().enumerate();
        all.extend(snapshots.flat_map(|(number, snapshot)| snapshot.details(number)));
        let bitmaps = self.bitmaps.list.iter().enumerate();
        all.extend(bitmaps.flat_map(|(number, bitmap)| bitmap.details(number)));
        all
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn check(&self, found: &mut Findings) -> Result<()> {
        let structure = self.structure(&self.limits, false, found)?;
        check::check(&structure, Some(self.limits.table_bytes_max), found)?;
        match &self.backing {
            Some(backing) => backing.check(|below, found| below.check(found), found),
            None => Ok(()),
        }
    }

    fn check_structure(&self, found: &mut Findings) -> Result<()> {
        let structure = self.structure(&self.limits, false, found)?;
        check::check(&structure, None, found)?;
        match &self.backing {
            Some(backing) => backing.check(|below, found| below.check_structure(found), found),
            None => Ok(()),
        }
    }

    fn repair(&self) -> Result<Plan> {
        super::repair::repair(self)
    }

    fn resize(&self, size: u64) -> Result<Plan> {
        if self.is_snapshot {
            return Err(Error::unsupported(
                "a snapshot keeps its size: open the active state to resize the image",
            ));
        }
        super::resize::resize(self, size)
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
        let table = self.table(div(unit, self.units_per_table()));
        let Ok(Some(table)) = table else {
            return (extent, None);
        };
        let stored = match self.store(&table, unit) {
            Ok(Store::At(host)) => Some(Stored {
                file: self
                    .data
                    .as_ref()
                    .map_or_else(String::new, |data| data.key.clone()),
                offset: host.saturating_add(rem(offset, self.unit_bytes())),
            }),
            _ => None,
        };
        (extent, stored)
    }
}

impl ReadAt for Qcow2 {
    fn len(&self) -> u64 {
        self.size()
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
