//! VHD, by Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 (October 2006).
//!
//! What varies: size (0, a sector, odd ones, block borders), creator and so which size counts, block size from 512 bytes,
//! gaps between footer copy, header, BAT and blocks, order of blocks, spare BAT entries, clear bits over zero sectors,
//! locators of three platforms.

mod blocks;
mod rules;

use crate::choices::Choices;
use crate::content::{fill, put};
use crate::field::{Class, Endian, Sum};
use crate::make::Maker;
use crate::specimen::{File, Format, Specimen};
use drylab_block::{SparseBytes, WriteAt};
use rules::{Layout, Role};
use std::sync::Arc;

/// The kinds that are made.
pub(crate) const SUBFORMATS: &[&str] = &["fixed", "dynamic", "differencing"];

const SECTOR: u64 = 512;
/// Largest disk: 2040 GiB.
const DISK_MAX: u64 = 2040 << 30;

/// What both footers say.
#[derive(Clone, Debug)]
pub(super) struct Footer {
    pub(super) kind: u32,
    pub(super) data_offset: u64,
    pub(super) size: u64,
    pub(super) creator: [u8; 4],
    pub(super) geometry: (u64, u64, u64),
    pub(super) id: [u8; 16],
    pub(super) timestamp: u64,
}

/// Creators whose disks have the size in the footer, and those whose disks have that of the geometry.
const BY_SIZE: [[u8; 4]; 5] = [*b"win ", *b"tap\0", *b"qem2", *b"vbox", *b"d2v "];
const BY_GEOMETRY: [[u8; 4]; 2] = [*b"qemu", *b"vpc "];

/// Creators whose disks have the size in the footer to whoever asks for the creator at all.
const TOLD_APART: [[u8; 4]; 5] = [*b"win ", *b"tap\0", *b"qem2", *b"d2v ", *b"CTXS"];

/// Whether readers agree on the size in the footer where the geometry has another.
pub(super) fn is_told_apart(creator: &[u8], geometry: (u64, u64, u64)) -> bool {
    let most = bytes_of((65_535, 16, 255));
    TOLD_APART.iter().any(|known| known == creator) || bytes_of(geometry) == most
}

/// Cylinders, heads and sectors of a size, by the appendix "CHS Calculation".
pub(super) fn geometry(sectors: u64) -> (u64, u64, u64) {
    let sectors = sectors.min(65_535 * 16 * 255);
    if sectors >= 65_535 * 16 * 63 {
        return (sectors / 255 / 16, 16, 255);
    }
    let mut per_track = 17;
    let mut tracks = sectors / per_track;
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        (per_track, heads) = (31, 16);
        tracks = sectors / per_track;
    }
    if tracks >= heads * 1024 {
        (per_track, heads) = (63, 16);
        tracks = sectors / per_track;
    }
    (tracks / heads, heads, per_track)
}

pub(super) fn bytes_of((cylinders, heads, sectors): (u64, u64, u64)) -> u64 {
    cylinders * heads * sectors * SECTOR
}

impl Footer {
    /// Draws all but the kind and the place of the header.
    fn draw(choices: &mut impl Choices, sectors: u64) -> Self {
        let by_geometry = choices.one_in(4);
        let mut sectors = sectors;
        if by_geometry {
            // Sizes of the geometry's own: as many sectors as it says.
            let (cylinders, heads, per_track) = geometry(sectors.max(68));
            sectors = cylinders * heads * per_track;
        }
        let creator = if by_geometry {
            choices.pick(&BY_GEOMETRY)
        } else {
            choices.pick(&BY_SIZE)
        };
        let pinned = !by_geometry && choices.one_in(4);
        Self {
            kind: 0,
            data_offset: u64::MAX,
            size: sectors * SECTOR,
            creator,
            geometry: if pinned {
                (65_535, 16, 255)
            } else {
                geometry(sectors)
            },
            id: choices.id(),
            timestamp: choices.below(1 << 30),
        }
    }

    fn two_sizes(&self) -> bool {
        self.size != bytes_of(self.geometry) && !is_told_apart(&self.creator, self.geometry)
    }

    /// Puts the footer at a place, as `footer` or `copy`.
    fn put(&self, maker: &mut Maker<Role>, at: u64, copy: bool, extras: &Extras) {
        let name = |field: &str| format!("{}.{field}", if copy { "copy" } else { "footer" });
        let role = |what| Role::Footer { copy, what };
        use rules::Foot;
        maker.put(at, &[0; 512]);
        maker.text(
            name("cookie"),
            at,
            b"conectix",
            Class::Magic,
            role(Foot::Cookie),
        );
        let (cylinders, heads, sectors) = self.geometry;
        let numbers = [
            (
                "features",
                0x08,
                4,
                2 | u64::from(extras.temporary),
                Class::Flags,
                Foot::Idle,
            ),
            (
                "fileFormatVersion",
                0x0c,
                4,
                0x1_0000,
                Class::Version,
                Foot::Version,
            ),
            (
                "dataOffset",
                0x10,
                8,
                self.data_offset,
                Class::Place,
                Foot::DataOffset,
            ),
            (
                "timeStamp",
                0x18,
                4,
                self.timestamp,
                Class::Time,
                Foot::Idle,
            ),
            (
                "creatorVersion",
                0x20,
                4,
                0x0005_0003,
                Class::Version,
                Foot::Idle,
            ),
            ("originalSize", 0x28, 8, self.size, Class::Size, Foot::Idle),
            (
                "currentSize",
                0x30,
                8,
                self.size,
                Class::Size,
                Foot::CurrentSize,
            ),
            (
                "geometry.cylinders",
                0x38,
                2,
                cylinders,
                Class::Size,
                Foot::Geometry(0),
            ),
            (
                "geometry.heads",
                0x3a,
                1,
                heads,
                Class::Size,
                Foot::Geometry(1),
            ),
            (
                "geometry.sectorsPerTrack",
                0x3b,
                1,
                sectors,
                Class::Size,
                Foot::Geometry(2),
            ),
            (
                "diskType",
                0x3c,
                4,
                u64::from(self.kind),
                Class::State,
                Foot::Type,
            ),
            ("savedState", 0x54, 1, 0, Class::State, Foot::SavedState),
        ];
        for (field, offset, width, value, class, what) in numbers {
            maker.number(name(field), (at + offset, width), value, class, role(what));
        }
        let bytes = [
            (
                "creatorApplication",
                0x1c,
                &self.creator[..],
                Class::Text,
                Foot::Creator,
            ),
            ("creatorHostOS", 0x24, b"Wi2k", Class::Text, Foot::Idle),
            ("uniqueId", 0x44, &self.id, Class::Id, Foot::Idle),
            ("reserved", 0x55, &[0; 16], Class::Reserved, Foot::Idle),
        ];
        for (field, offset, value, class, what) in bytes {
            maker.text(name(field), at + offset, value, class, role(what));
        }
        let (range, place) = ((at, 512), at + 0x40);
        maker.seal(
            name("checksum"),
            range,
            place,
            Sum::Bytes,
            role(Foot::Checksum),
        );
    }
}

/// What is drawn beside sizes.
pub(super) struct Extras {
    temporary: bool,
}

/// Makes an image.
pub(crate) fn draw(choices: &mut impl Choices, kind: &'static str) -> Specimen {
    match kind {
        "fixed" => fixed(choices),
        "dynamic" => blocks::dynamic(choices),
        _ => blocks::differencing(choices),
    }
}

fn fixed(choices: &mut impl Choices) -> Specimen {
    let sectors = choices.pick(&[2048u64, 0, 1, 7, 4097, 136]);
    let mut footer = Footer::draw(choices, sectors);
    footer.kind = 2;
    let extras = Extras {
        temporary: choices.one_in(4),
    };
    let disk = SparseBytes::new(footer.size);
    let mut maker = Maker::new(0, Endian::Big);
    if footer.size > 0 {
        for (at, bytes) in fill(choices, footer.size, 1 << 15) {
            put(&disk, at, &bytes);
            maker.put(at, &bytes);
        }
        // No first sector of a disk is to look like the header of a format.
        put(&disk, 0, b"boot sector ");
        maker.put(0, b"boot sector ");
        let at = choices.below(footer.size - 8);
        maker.note(
            "data",
            (at, 8),
            Endian::Bytes,
            Class::Data,
            Role::Data { set: true },
        );
    }
    footer.put(&mut maker, footer.size, false, &extras);
    disk.set_len(footer.size).expect("memory has any length");
    let layout = Layout {
        roles: Vec::new(),
        footer: footer.clone(),
        table: None,
    };
    done("fixed", maker, layout, Vec::new(), disk)
}

/// The specimen of an image whose last file is in `maker`.
fn done(
    subformat: &'static str,
    maker: Maker<Role>,
    mut layout: Layout,
    others: Vec<File>,
    disk: SparseBytes,
) -> Specimen {
    let made = maker.made();
    let known = if layout.footer.two_sizes() {
        [rules::TWO_SIZES].into()
    } else {
        [].into()
    };
    layout.roles = made.roles;
    let mut files = vec![File {
        name: "disk.vhd".to_owned(),
        bytes: made.bytes,
    }];
    files.extend(others);
    Specimen {
        format: Format::Vhd,
        subformat,
        files,
        disk: Arc::new(disk),
        fields: made.fields,
        known,
        seals: made.seals,
        rules: Box::new(layout),
    }
}
