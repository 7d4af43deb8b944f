//! Every subformat that is written into every other one and back: the disk is the same, and so is the file.

use crate::common::{Kind, Piece, Plan, assert_same, packed, plans};
use drylab_block::{Error, ReadAt, Reference, Resolver, Result, SparseBytes, content_id};
use drylab_image::vhd::{ParentLink, write_child};
use drylab_image::{
    FlatKind, Image, Options, Qcow2Backing, Qcow2Compression, Qcow2DataFile, Qcow2Layers,
    Qcow2Options, Qcow2Version, SplitKind, Target, VdiOptions, VhdOptions, VhdxOptions, VhdxParent,
    VmdkOptions, VmdkParent, Work, open_as, write_flat, write_qcow2_layers, write_split,
    write_vhdx_child, write_vmdk_child,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The files of one image by their names; the one to open is `disk`.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<String, Arc<dyn ReadAt>>);

impl Resolver for Files {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.0.get(&reference.name).cloned();
        found.ok_or_else(|| Error::unsupported(format_args!("no {}", reference.name)))
    }
}

impl Files {
    fn with(mut self, name: &str, file: Arc<dyn ReadAt>) -> Self {
        self.0.insert(name.to_owned(), file);
        self
    }

    fn open(&self) -> Image {
        self.open_as_first(self.first().clone())
    }

    /// The file that is opened.
    pub(crate) fn first(&self) -> &Arc<dyn ReadAt> {
        &self.0["disk"]
    }

    /// Opens `file` in its place.
    pub(crate) fn open_as_first(&self, file: Arc<dyn ReadAt>) -> Image {
        let options = Options {
            resolver: self,
            ..Options::DEFAULT
        };
        open_as(file, &options).unwrap()
    }

    /// Name, length and content of each file.
    fn digest(&self) -> Vec<(String, u64, u128)> {
        let file = |(name, file): (&String, &Arc<dyn ReadAt>)| {
            (name.clone(), file.len(), content_id(file).unwrap().0)
        };
        self.0.iter().map(file).collect()
    }
}

fn sole(disk: &dyn ReadAt, target: &Target) -> Files {
    Files::default().with("disk", packed(disk, target))
}

/// What the children of snapshots stand on: some data that the disk may have, too, and some that it has not.
fn base(disk: &dyn ReadAt) -> SparseBytes {
    let pieces = [0, 300_000, 1 << 20, 5 << 20].map(|offset| Piece {
        offset,
        length: 5000,
        kind: Kind::Noise(offset),
    });
    let inside = pieces.into_iter().filter(|piece| piece.offset < disk.len());
    Plan {
        size: disk.len(),
        pieces: inside.collect(),
    }
    .disk()
}

fn flat(disk: &dyn ReadAt, kind: FlatKind) -> Files {
    let extent = Arc::new(SparseBytes::default());
    let options = VmdkOptions {
        file_name: "disk-flat.vmdk".to_owned(),
        ..VmdkOptions::default()
    };
    let (text, _) = write_flat(disk, &options, kind, &*extent, &Work::ALONE).unwrap();
    Files::default()
        .with("disk", Arc::new(text.into_bytes()))
        .with("disk-flat.vmdk", extent)
}

fn split(disk: &dyn ReadAt, kind: SplitKind) -> Files {
    let made: Mutex<Vec<(String, Arc<SparseBytes>)>> = Mutex::default();
    let options = VmdkOptions {
        file_name: "disk.vmdk".to_owned(),
        ..VmdkOptions::default()
    };
    let make = &mut |name: &str| {
        let file = Arc::new(SparseBytes::default());
        made.lock().unwrap().push((name.to_owned(), file.clone()));
        Ok(file)
    };
    let (text, _) = write_split(disk, &options, kind, make, &Work::ALONE).unwrap();
    let files = Files::default().with("disk", Arc::new(text.into_bytes()));
    let made = made.into_inner().unwrap().into_iter();
    made.fold(files, |files, (name, file)| files.with(&name, file))
}

fn vmdk_child(disk: &dyn ReadAt) -> Files {
    let below = base(disk);
    let files = sole(&below, &Target::VmdkSparse(VmdkOptions::default()));
    let parent = VmdkParent::of(&files.open().info(), "base.vmdk").unwrap();
    let file = SparseBytes::default();
    write_vmdk_child(disk, &below, &parent, &VmdkOptions::default(), &file).unwrap();
    let parent = files.0["disk"].clone();
    files.with("base.vmdk", parent).with("disk", Arc::new(file))
}

fn vhd_child(disk: &dyn ReadAt) -> Files {
    let below = base(disk);
    let parent = packed(&below, &Target::VhdDynamic(VhdOptions::default()));
    let link = ParentLink::beside(&*parent, "base.vhd").unwrap();
    let file = SparseBytes::default();
    write_child(disk, &below, &link, &VhdOptions::default(), &file).unwrap();
    let files = Files::default().with("disk", Arc::new(file));
    files.with("base.vhd", parent)
}

fn vhdx_child(disk: &dyn ReadAt) -> Files {
    let below = base(disk);
    let files = sole(&below, &Target::VhdxDynamic(VhdxOptions::default()));
    let parent = VhdxParent::of(&files.open().info(), ".\\base.vhdx").unwrap();
    let file = SparseBytes::default();
    write_vhdx_child(disk, &below, &parent, &VhdxOptions::default(), &file).unwrap();
    let parent = files.0["disk"].clone();
    files.with("base.vhdx", parent).with("disk", Arc::new(file))
}

fn layered(disk: &dyn ReadAt, layers: &Qcow2Layers<'_>) -> Files {
    let file = SparseBytes::default();
    write_qcow2_layers(disk, layers, &file, &Work::ALONE).unwrap();
    Files::default().with("disk", Arc::new(file))
}

fn qcow2_backing(disk: &dyn ReadAt) -> Files {
    let below = Arc::new(base(disk));
    let backing = Qcow2Backing {
        disk: &*below,
        name: "base.raw",
        format: "raw",
    };
    let layers = Qcow2Layers {
        backing: Some(backing),
        ..Qcow2Layers::default()
    };
    layered(disk, &layers).with("base.raw", below.clone())
}

fn qcow2_data_file(disk: &dyn ReadAt) -> Files {
    let data = Arc::new(SparseBytes::default());
    let file = Qcow2DataFile {
        sink: &*data,
        name: "disk.data",
        raw: false,
    };
    let layers = Qcow2Layers {
        data_file: Some(file),
        ..Qcow2Layers::default()
    };
    layered(disk, &layers).with("disk.data", data.clone())
}

fn qcow2(version: Qcow2Version, compress: bool, compression: Qcow2Compression) -> Target {
    Target::Qcow2(Qcow2Options {
        version,
        compress,
        compression,
        ..Qcow2Options::default()
    })
}

pub(crate) type Write = fn(&dyn ReadAt) -> Files;

/// Every subformat that is written.
pub(crate) const WRITERS: [(&str, Write); 23] = [
    ("raw", |disk| sole(disk, &Target::Raw)),
    ("VMDK monolithicSparse", |disk| {
        sole(disk, &Target::VmdkSparse(VmdkOptions::default()))
    }),
    ("VMDK streamOptimized", |disk| {
        sole(disk, &Target::VmdkStream(VmdkOptions::default()))
    }),
    ("VMDK with zeroed grains", |disk| {
        let options = VmdkOptions {
            zeroed_grains: true,
            ..VmdkOptions::default()
        };
        sole(disk, &Target::VmdkSparse(options))
    }),
    ("VMDK monolithicFlat", |disk| {
        flat(disk, FlatKind::Monolithic)
    }),
    ("VMDK vmfs", |disk| flat(disk, FlatKind::Vmfs)),
    ("VMDK twoGbMaxExtentSparse", |disk| {
        split(disk, SplitKind::Sparse)
    }),
    ("VMDK twoGbMaxExtentFlat", |disk| {
        split(disk, SplitKind::Flat)
    }),
    ("VMDK snapshot", vmdk_child),
    ("VHD fixed", |disk| {
        sole(disk, &Target::VhdFixed(VhdOptions::default()))
    }),
    ("VHD dynamic", |disk| {
        sole(disk, &Target::VhdDynamic(VhdOptions::default()))
    }),
    ("VHD differencing", vhd_child),
    ("VHDX fixed", |disk| {
        sole(disk, &Target::VhdxFixed(VhdxOptions::default()))
    }),
    ("VHDX dynamic", |disk| {
        sole(disk, &Target::VhdxDynamic(VhdxOptions::default()))
    }),
    ("VHDX differencing", vhdx_child),
    ("qcow2 v2", |disk| {
        sole(
            disk,
            &qcow2(Qcow2Version::V2, false, Qcow2Compression::Zlib),
        )
    }),
    ("qcow2 v3", |disk| {
        sole(
            disk,
            &qcow2(Qcow2Version::V3, false, Qcow2Compression::Zlib),
        )
    }),
    ("qcow2 zlib", |disk| {
        sole(disk, &qcow2(Qcow2Version::V3, true, Qcow2Compression::Zlib))
    }),
    ("qcow2 zstd", |disk| {
        sole(disk, &qcow2(Qcow2Version::V3, true, Qcow2Compression::Zstd))
    }),
    ("qcow2 extended L2", |disk| {
        let layers = Qcow2Layers {
            extended_l2: true,
            ..Qcow2Layers::default()
        };
        layered(disk, &layers)
    }),
    ("qcow2 data file", qcow2_data_file),
    ("qcow2 backing file", qcow2_backing),
    ("VDI dynamic", |disk| {
        sole(disk, &Target::VdiDynamic(VdiOptions::default()))
    }),
];

/// From the one to the other and back.
fn there_and_back(disk: &dyn ReadAt, first: (&str, Write), second: (&str, Write)) {
    let way = format!("{} -> {} -> {}", first.0, second.0, first.0);
    let one = first.1(disk);
    let other = second.1(&one.open());
    let back = first.1(&other.open());
    assert_eq!(one.digest(), back.digest(), "{way}");
    assert_same(disk, &back.open());
}

fn whole_sectors(plan: &Plan) -> SparseBytes {
    let size = plan.size.next_multiple_of(512);
    let pieces = plan.pieces.clone();
    Plan { size, pieces }.disk()
}

#[test]
fn every_subformat_goes_to_every_other_and_back_to_the_same_file() {
    let piece = |offset, length, kind| Piece {
        offset,
        length,
        kind,
    };
    let pieces = vec![
        piece(0, 70_000, Kind::Text(1)),
        piece(1 << 20, 5000, Kind::Noise(1 << 20)),
        piece((3 << 20) - 100, 200_000, Kind::Noise(2)),
    ];
    let disk = Plan {
        size: (3 << 20) + 77 * 512 + 131_072,
        pieces,
    }
    .disk();
    for first in WRITERS {
        for second in WRITERS {
            there_and_back(&disk, first, second);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_disk_goes_from_any_subformat_to_any_other_and_back(
        plan in plans(3 << 30), first in prop::sample::select(&WRITERS[..]), second in prop::sample::select(&WRITERS[..]),
    ) {
        there_and_back(&whole_sectors(&plan), first, second);
    }
}

/// Of any size in whole sectors, and of none.
#[test]
fn what_was_freshly_written_by_default_has_nothing_to_be_found_and_nothing_to_repair() {
    let fixed: (&str, Write) = ("VDI fixed", |disk| {
        sole(disk, &Target::VdiFixed(VdiOptions::default()))
    });
    let vhd: [(&str, Write); 4] = [
        ("VHD for Azure", |disk| {
            sole(disk, &Target::VhdFixed(VhdOptions::azure()))
        }),
        ("VHD for XenServer", |disk| {
            sole(disk, &Target::VhdDynamic(VhdOptions::xen_server()))
        }),
        ("VHD as by qemu-img", |disk| {
            sole(disk, &Target::VhdDynamic(VhdOptions::qemu(false)))
        }),
        ("VHD as by qemu-img, force_size", |disk| {
            sole(disk, &Target::VhdFixed(VhdOptions::qemu(true)))
        }),
    ];
    for size in [0, 512, 77 * 512, (5 << 20) + 512, 40 << 20] {
        let disk = base(&SparseBytes::new(size));
        for (name, write) in WRITERS.iter().chain([&fixed]).chain(&vhd) {
            let image = write(&disk).open();
            let found = image.check().unwrap();
            assert!(found.is_empty(), "{name}, {size}: {:?}", found.list());
            assert!(
                image.repair().map_or(true, |plan| plan.is_empty()),
                "{name}"
            );
        }
    }
}

/// A fixed VDI has an entry for each block and a place for it: by itself, for its size.
#[test]
fn a_fixed_vdi_goes_to_every_subformat_and_back() {
    let fixed: (&str, Write) = ("VDI fixed", |disk| {
        sole(disk, &Target::VdiFixed(VdiOptions::default()))
    });
    let disk = base(&SparseBytes::new(7 << 20));
    for other in WRITERS {
        there_and_back(&disk, fixed, other);
        there_and_back(&disk, other, fixed);
    }
}
