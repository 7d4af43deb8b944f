//! VMDK, by VMware's "Virtual Disk Format 5.0": hosted sparse extents, as they stand and as streams.
//!
//! What varies: version, grain size, a redundant directory or none, zeroed grains, order of grains with gaps between,
//! disks that end inside a grain or a grain table, several grain tables; streams with the directory behind the grains and a
//! footer, or in front.

mod make;
mod rules;
mod stream;

use crate::choices::Choices;
use crate::field::Class;
use crate::make::Maker;
use crate::specimen::{File, Format, Specimen};
use drylab_block::SparseBytes;
use rules::{Head, Layout, Role, Used};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The kinds that are made. The second stream is the one with its directory in front, as open-vmdk writes it.
pub(crate) const SUBFORMATS: &[&str] = &[
    "monolithicSparse",
    "streamOptimized",
    "streamOptimized-front",
];

pub(super) const SECTOR: u64 = 512;
/// Entries of a grain table.
pub(super) const ENTRIES: u64 = 512;

/// What is decided of an image before it is made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) kind: &'static str,
    pub(super) version: u64,
    /// Sectors of the disk and of a grain.
    pub(super) capacity: u64,
    pub(super) grain: u64,
    pub(super) redundant: bool,
    pub(super) zeroed: bool,
}

impl Plan {
    pub(super) fn grains(&self) -> u64 {
        self.capacity.div_ceil(self.grain)
    }

    pub(super) fn tables(&self) -> u64 {
        self.grains().div_ceil(ENTRIES)
    }

    pub(super) fn grain_bytes(&self) -> u64 {
        self.grain * SECTOR
    }

    /// Sectors of a grain table that has the grains of the disk.
    pub(super) fn table_sectors(&self, table: u64) -> u64 {
        let entries = (self.grains() - table * ENTRIES).min(ENTRIES);
        (entries * 4).div_ceil(SECTOR)
    }

    /// Bytes of a grain inside the disk.
    pub(super) fn inside(&self, grain: u64) -> u64 {
        (self.capacity - grain * self.grain).min(self.grain) * SECTOR
    }

    fn flags(&self) -> u64 {
        let stream = self.kind != "monolithicSparse";
        1 | u64::from(self.redundant) << 1
            | u64::from(self.zeroed) << 2
            | if stream { 0x3_0000 } else { 0 }
    }

    /// The embedded descriptor.
    fn descriptor(&self, cid: u64) -> String {
        let kind = self.kind.trim_end_matches("-front");
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n\
             # Extent description\nRW {} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
             ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"255\"\n\
             ddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"4\"\n",
            self.capacity
        )
    }
}

/// Makes an image.
pub(crate) fn draw(choices: &mut impl Choices, kind: &'static str) -> Specimen {
    let grain = choices.pick(&[8u64, 128, 16, 64]);
    let tables = if grain == 8 && choices.one_in(2) {
        ENTRIES
    } else {
        0
    };
    let grains = tables + choices.between(1, 20);
    let capacity = match choices.below(4) {
        0 => grains * grain,
        1 => grains * grain - 1,
        2 => (grains - 1) * grain + choices.between(1, grain),
        _ => choices.pick(&[0, 1, grain]),
    };
    let zeroed = choices.one_in(3);
    let plan = Plan {
        kind,
        version: if zeroed {
            choices.between(2, 3)
        } else {
            choices.between(1, 3)
        },
        capacity,
        grain,
        redundant: kind == "monolithicSparse" && !choices.one_in(3),
        zeroed,
    };
    let (maker, layout, disk) = match kind {
        "monolithicSparse" => make::sparse(choices, &plan),
        _ => stream::stream(choices, &plan),
    };
    let made = maker.made();
    let mut known = BTreeSet::new();
    if kind == "streamOptimized-front" {
        known.insert("VMDK-NOT-A-STREAM");
    }
    Specimen {
        format: Format::Vmdk,
        subformat: kind,
        files: vec![File {
            name: "disk.vmdk".to_owned(),
            bytes: made.bytes,
        }],
        disk: Arc::new(disk),
        fields: made.fields,
        known,
        seals: made.seals,
        rules: Box::new(Layout {
            roles: made.roles,
            ..layout
        }),
    }
}

/// Places that a header names, in sectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(super) rgd: u64,
    pub(super) gd: u64,
    pub(super) overhead: u64,
}

/// Sectors of the embedded descriptor.
pub(super) const DESCRIPTOR: u64 = 20;

/// Puts a header, or a footer, at a byte.
pub(crate) fn header(maker: &mut Maker<Role>, plan: &Plan, at: u64, footer: bool, places: &Places) {
    let name = |field: &str| format!("{}.{field}", if footer { "footer" } else { "header" });
    let role = |what| Role::Header { footer, what };
    maker.put(at, &[0; 512]);
    maker.text(
        name("magicNumber"),
        at,
        b"KDMV",
        Class::Magic,
        role(Head::Magic),
    );
    let stream = u64::from(plan.kind != "monolithicSparse");
    for (field, offset, width, value, class, what) in [
        ("version", 4, 4, plan.version, Class::Version, Head::Version),
        ("flags", 8, 4, plan.flags(), Class::Flags, Head::Flags),
        (
            "capacity",
            12,
            8,
            plan.capacity,
            Class::Size,
            Head::Capacity,
        ),
        ("grainSize", 20, 8, plan.grain, Class::Size, Head::Grain),
        ("descriptorOffset", 28, 8, 1, Class::Place, Head::Descriptor),
        (
            "descriptorSize",
            36,
            8,
            DESCRIPTOR,
            Class::Size,
            Head::Descriptor,
        ),
        (
            "numGTEsPerGT",
            44,
            4,
            ENTRIES,
            Class::Count,
            Head::TableEntries,
        ),
        ("rgdOffset", 48, 8, places.rgd, Class::Place, Head::Rgd),
        ("gdOffset", 56, 8, places.gd, Class::Place, Head::Gd),
        (
            "overHead",
            64,
            8,
            places.overhead,
            Class::Place,
            Head::Overhead,
        ),
        ("uncleanShutdown", 72, 1, 0, Class::State, Head::Unclean),
        (
            "compressAlgorithm",
            77,
            2,
            stream,
            Class::State,
            Head::Algorithm,
        ),
    ] {
        maker.number(name(field), (at + offset, width), value, class, role(what));
    }
    maker.text(
        name("newLineTest"),
        at + 73,
        b"\n \r\n",
        Class::Text,
        role(Head::Newlines),
    );
    maker.text(
        name("pad"),
        at + 79,
        &[0; 16],
        Class::Reserved,
        role(Head::Idle),
    );
}

/// Puts the descriptor behind the header.
pub(crate) fn descriptor(choices: &mut impl Choices, maker: &mut Maker<Role>, plan: &Plan) {
    let text = plan.descriptor(choices.below(0xffff_fffe));
    maker.put(SECTOR, text.as_bytes());
    for (name, line) in [
        ("CID", "CID="),
        ("createType", "createType="),
        ("extent", "RW "),
    ] {
        let at = text.find(line).expect("the line is there") + line.len();
        let at = SECTOR + u64::try_from(at).expect("a short text");
        let role = Role::Header {
            footer: false,
            what: Head::Text,
        };
        let place = (at, 4);
        maker.note(
            format!("descriptor.{name}"),
            place,
            crate::Endian::Bytes,
            Class::Text,
            role,
        );
    }
}

/// What every image has: header, descriptor, and the grains.
fn used(plan: &Plan, entries: &[u64]) -> Vec<Used> {
    let mut all = vec![Used::of(0, 1), Used::of(1, DESCRIPTOR)];
    for (grain, entry) in (0u64..).zip(entries).filter(|(_, entry)| **entry > 1) {
        // Compressed it is one sector at least.
        let sectors = match plan.kind {
            "monolithicSparse" => plan.inside(grain) / SECTOR,
            _ => 1,
        };
        all.push(Used::grain(grain, *entry, sectors));
    }
    all
}

/// An empty disk of the plan.
pub(super) fn disk(plan: &Plan) -> SparseBytes {
    SparseBytes::new(plan.capacity * SECTOR)
}
