//! Images that stand on others, ours and theirs.

use crate::common::{
    Folder, Kind, OnDisk, Plan, assert_same, fill, have_qemu_img, plans, qemu_img,
};
use crate::qcow2::{Whole, raw_file, sparse};
use crate::qcow2_check::{open, text};
use drylab_block::{
    Below, Error, ExtentKind, Extents, Limits, ReadAt, Reference, Resolver, Result, SparseBytes,
    WriteAt,
};
use drylab_image::{
    Image, Qcow2Backing, Qcow2Compression, Qcow2DataFile, Qcow2Layers, Qcow2Options, Qcow2Version,
    Target, Work, write_qcow2_layers,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files in memory, by name.
#[derive(Default)]
pub(crate) struct Files(pub(crate) BTreeMap<&'static str, Arc<dyn ReadAt>>);

impl Resolver for Files {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let file = self.0.get(reference.name.as_str()).cloned();
        file.ok_or_else(|| Error::io(format_args!("no file {:?}", reference.name)))
    }
}

fn clean(image: &Image) {
    let found = image.check().unwrap();
    assert!(found.is_empty(), "{:?}", found.list());
}

/// Options that change the file, with or without another disk below.
fn layers() -> Vec<Qcow2Layers<'static>> {
    let plain = Qcow2Layers::default();
    let zlib = Some((Qcow2Compression::Zlib, 6));
    let zstd = Some((Qcow2Compression::Zstd, 3));
    vec![
        plain,
        Qcow2Layers {
            version: Qcow2Version::V2,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 9,
            refcount_order: 0,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 12,
            refcount_order: 6,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            refcount_order: 1,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            version: Qcow2Version::V2,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            compression: zstd,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 21,
            compression: zstd,
            ..plain
        },
        Qcow2Layers {
            extended_l2: true,
            ..plain
        },
        Qcow2Layers {
            extended_l2: true,
            cluster_bits: 14,
            refcount_order: 3,
            ..plain
        },
        Qcow2Layers {
            extended_l2: true,
            compression: zstd,
            ..plain
        },
        Qcow2Layers {
            extended_l2: true,
            cluster_bits: 21,
            compression: zlib,
            ..plain
        },
    ]
}

fn fits(layers: &Qcow2Layers<'_>, size: u64) -> bool {
    layers.cluster_bits > 9 || size <= 1 << 30
}

#[test]
fn ours_with_every_option_is_read_by_qemu_img() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    // The usual clusters are at every size in `qcow2_sizes`.
    for (size, layers) in [512, (1 << 20) + 512, 2 << 40]
        .iter()
        .flat_map(|size| layers().into_iter().map(move |one| (*size, one)))
    {
        if !fits(&layers, size) {
            assert!(
                write_qcow2_layers(
                    &SparseBytes::new(1 << 40),
                    &layers,
                    &SparseBytes::default(),
                    &Work::ALONE
                )
                .is_err()
            );
            continue;
        }
        let disk = sparse(size).disk();
        raw_file(&raw, &disk);
        write_qcow2_layers(&disk, &layers, &OnDisk::create(&file), &Work::ALONE).unwrap();
        let image = open(&file).unwrap();
        assert_same(&disk, &image);
        clean(&image);
        let said = qemu_img(&[
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            text(&raw),
            text(&file),
        ]);
        assert!(said.contains("identical"), "{layers:?} {size}: {said}");
        let said = qemu_img(&["check", "-f", "qcow2", text(&file)]);
        assert!(said.contains("No errors"), "{layers:?} {size}: {said}");
    }
}

#[test]
fn the_clusters_of_an_image_may_be_in_a_data_file() {
    let have = have_qemu_img();
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    let outside = folder.path().join("data");
    for size in [0, (1 << 20) + 512, 2 << 40] {
        for (extended_l2, alone) in [(false, false), (false, true), (true, true), (true, false)] {
            let disk = sparse(size).disk();
            raw_file(&raw, &disk);
            // qemu-img looks for a data file where it was started.
            let name = text(&outside);
            let sink = OnDisk::create(&outside);
            let data_file = Some(Qcow2DataFile {
                sink: &sink,
                name,
                raw: alone,
            });
            let layers = Qcow2Layers {
                extended_l2,
                data_file,
                ..Qcow2Layers::default()
            };
            write_qcow2_layers(&disk, &layers, &OnDisk::create(&file), &Work::ALONE).unwrap();
            let whole = Whole(Folder(folder.path().to_owned()));
            let source = Arc::new(OnDisk::open(&file));
            let image = drylab_image::open_with(source, &whole, &Limits::DEFAULT).unwrap();
            assert_same(&disk, &image);
            clean(&image);
            if alone && size < 1 << 30 {
                assert_same(&disk, &OnDisk::open(&outside));
            }
            let (_, stored) = image.piece_at(0);
            assert_eq!(
                stored.map(|stored| (stored.file, stored.offset)),
                (size > 0).then(|| (name.to_owned(), 0))
            );
            if have {
                let said = qemu_img(&[
                    "compare",
                    "-f",
                    "raw",
                    "-F",
                    "qcow2",
                    text(&raw),
                    text(&file),
                ]);
                assert!(said.contains("identical"), "{size}: {said}");
                let said = qemu_img(&["check", "-f", "qcow2", text(&file)]);
                assert!(said.contains("No errors"), "{size}: {said}");
            }
        }
    }
    let denied = drylab_image::open(Arc::new(OnDisk::open(&file)), &Limits::DEFAULT).unwrap_err();
    assert!(
        denied.to_string().contains("external data file"),
        "{denied}"
    );
}

/// A parent and a child that changes some of it, of other sizes.
fn pairs() -> impl Strategy<Value = (Plan, Plan)> {
    (plans(6 << 20), plans(3 << 20), any::<bool>()).prop_map(|(parent, more, same)| {
        let size = if same {
            parent.size
        } else {
            more.size.max(parent.size / 2)
        };
        let size = size.next_multiple_of(512);
        let mut pieces = parent.pieces.clone();
        pieces.extend(more.pieces.iter().cloned());
        let parent = Plan {
            size: parent.size.next_multiple_of(512),
            ..parent
        };
        (parent, Plan { size, pieces })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_child_reads_as_its_disk_and_stores_what_differs(pair in pairs(), which in 0..12usize, jobs in 2..6u32) {
        let (parent, child) = (pair.0.disk(), pair.1.disk());
        let backing = Some(Qcow2Backing { disk: &parent, name: "base", format: "raw" });
        let layers = Qcow2Layers { backing, ..layers()[which] };
        let file = Arc::new(SparseBytes::default());
        write_qcow2_layers(&child, &layers, &*file, &Work::ALONE).unwrap();
        let again = SparseBytes::default();
        write_qcow2_layers(&child, &layers, &again, &Work { jobs, progress: None }).unwrap();
        prop_assert_eq!(drylab_block::content_id(&*file).unwrap(), drylab_block::content_id(&again).unwrap());
        let base = SparseBytes::default();
        drylab_block::copy_data(&parent, &base).unwrap();
        let files = Files([("base", Arc::new(base) as Arc<dyn ReadAt>)].into());
        let image = drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap();
        assert_same(&child, &image);
        clean(&image);
        // Nothing that the parent has is stored again.
        if child.len() <= parent.len() && which == 0 {
            let cluster = 1 << 16;
            let mut stored = 0;
            for at in (0..child.len()).step_by(cluster) {
                let take = (child.len() - at).min(cluster as u64) as usize;
                let (mut one, mut other) = (vec![0; take], vec![0; take]);
                child.read_at(at, &mut one).unwrap();
                parent.read_at(at, &mut other).unwrap();
                stored += u64::from(one != other && one.iter().any(|byte| *byte != 0));
            }
            // Header, L1 table, refcount block and table; an L2 table where there are entries.
            let clusters = file.len() / cluster as u64;
            prop_assert!((stored + 4..=stored + 5).contains(&clusters), "{} {}", clusters, stored);
        }
    }
}

#[test]
fn qemu_img_reads_our_children_and_we_read_theirs() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (base, raw, file) = (path("base"), path("a.raw"), path("a.qcow2"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(32));
    let cases = (pairs(), 0..12usize, any::<bool>());
    runner
        .run(&cases, |((parent, child), which, raw_base)| {
            let (parent, child) = (parent.disk(), child.disk());
            let format = if raw_base { "raw" } else { "qcow2" };
            let target = if raw_base {
                Target::Raw
            } else {
                Target::Qcow2(Qcow2Options::default())
            };
            drylab_image::write(&parent, &target, &OnDisk::create(&base)).unwrap();
            raw_file(&raw, &child);
            let backing = Some(Qcow2Backing {
                disk: &parent,
                name: "base",
                format,
            });
            let layers = Qcow2Layers {
                backing,
                ..layers()[which]
            };
            write_qcow2_layers(&child, &layers, &OnDisk::create(&file), &Work::ALONE).unwrap();
            let said = qemu_img(&[
                "compare",
                "-f",
                "raw",
                "-F",
                "qcow2",
                text(&raw),
                text(&file),
            ]);
            prop_assert!(said.contains("identical"), "{}", said);
            let said = qemu_img(&["check", "-f", "qcow2", text(&file)]);
            prop_assert!(said.contains("No errors"), "{}", said);
            // Theirs holds only what differs, too.
            let extended = if layers.extended_l2 {
                "extended_l2=on"
            } else {
                "compat=1.1"
            };
            let command = [
                "convert",
                "-f",
                "raw",
                "-O",
                "qcow2",
                "-o",
                extended,
                "-B",
                text(&base),
                "-F",
                format,
            ];
            qemu_img(&[&command[..], &[text(&raw), text(&file)]].concat());
            let whole = Whole(Folder(folder.path().to_owned()));
            let source = Arc::new(OnDisk::open(&file));
            let image = drylab_image::open_with(source, &whole, &Limits::DEFAULT).unwrap();
            assert_same(&child, &image);
            Ok(())
        })
        .unwrap();
}

pub(crate) fn child_of(name: &str, format: &str, size: u64) -> Arc<SparseBytes> {
    let (parent, file) = (SparseBytes::new(size), Arc::new(SparseBytes::default()));
    let backing = Some(Qcow2Backing {
        disk: &parent,
        name,
        format,
    });
    let layers = Qcow2Layers {
        backing,
        cluster_bits: 12,
        ..Qcow2Layers::default()
    };
    write_qcow2_layers(&SparseBytes::new(size), &layers, &*file, &Work::ALONE).unwrap();
    file
}

/// Takes the format of the backing file out of the header.
fn without_format(file: &SparseBytes) {
    // The extension becomes one that nobody knows.
    file.write_at(104, &0x1234_5678u32.to_be_bytes()).unwrap();
}

fn opened(file: &Arc<SparseBytes>, files: &Files) -> Result<Image> {
    drylab_image::open_with(file.clone(), files, &Limits::DEFAULT)
}

#[test]
fn backing_files_are_opened_only_by_the_resolver_and_a_chain_that_loops_is_refused() {
    let file = child_of("../etc/shadow", "raw", 1 << 20);
    let error = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap_err();
    assert!(
        error.to_string().contains("backing file") && error.to_string().contains("shadow"),
        "{error}"
    );
    let itself = child_of("itself", "qcow2", 1 << 20);
    let files = Files([("itself", itself.clone() as Arc<dyn ReadAt>)].into());
    let error = opened(&itself, &files).unwrap_err();
    assert!(error.to_string().contains("comes back"), "{error}");
}

#[test]
fn a_backing_file_of_unknown_format_must_not_name_another_file() {
    // A guest with a raw disk wrote the header of an image that names a file of the host.
    let written_by_guest = child_of("secret", "raw", 1 << 20);
    let secret: Arc<dyn ReadAt> = Arc::new(fill(Kind::Noise(5), 1 << 20));
    let files = Files(
        [
            ("base", written_by_guest.clone() as Arc<dyn ReadAt>),
            ("secret", secret),
        ]
        .into(),
    );
    let said_raw = child_of("base", "raw", 1 << 20);
    let image = opened(&said_raw, &files).unwrap();
    let (mut seen, mut bytes) = ([0; 64], [0; 64]);
    image.read_at(0, &mut seen).unwrap();
    written_by_guest.read_at(0, &mut bytes).unwrap();
    assert_eq!(seen, bytes, "raw is raw, whatever it looks like");
    let unsaid = child_of("base", "raw", 1 << 20);
    without_format(&unsaid);
    let error = opened(&unsaid, &files).unwrap_err();
    assert!(
        error.to_string().contains("\"secret\"") && error.to_string().contains("not opened"),
        "{error}"
    );
    // One that names no other file is opened by its content, and that is worth a warning.
    let disk = sparse(1 << 20).disk();
    let base = SparseBytes::default();
    drylab_image::write(&disk, &Target::Qcow2(Qcow2Options::default()), &base).unwrap();
    let files = Files([("base", Arc::new(base) as Arc<dyn ReadAt>)].into());
    let image = opened(&unsaid, &files).unwrap();
    assert_same(&disk, &image);
    assert!(
        image
            .check()
            .unwrap()
            .counts()
            .contains_key("QCOW2-BACKING-FORMAT")
    );
    let wrong = opened(&child_of("base", "vmdk", 1 << 20), &files).unwrap_err();
    assert!(
        wrong.to_string().contains("declared to be \"vmdk\""),
        "{wrong}"
    );
}

#[test]
fn what_shows_through_is_mapped_with_the_file_that_holds_it() {
    let disk = sparse(1 << 20).disk();
    let base = Arc::new(SparseBytes::default());
    drylab_image::write(&disk, &Target::Qcow2(Qcow2Options::default()), &*base).unwrap();
    let files = Files([("base", base.clone() as Arc<dyn ReadAt>)].into());
    // The child is longer than what it stands on.
    let child = child_of("base", "qcow2", 2 << 20);
    let image = opened(&child, &files).unwrap();
    let (extent, stored) = image.piece_at(0);
    let stored = stored.unwrap();
    assert_eq!(
        (extent.kind, stored.file.as_str()),
        (ExtentKind::Data, "base")
    );
    let (mut there, mut here) = ([0; 512], [0; 512]);
    base.read_at(stored.offset, &mut there).unwrap();
    image.read_at(0, &mut here).unwrap();
    assert_eq!(there, here);
    // A copy may take the ranges from the files that hold them.
    let data = Extents::new(&image).filter(|extent| extent.kind == ExtentKind::Data);
    for extent in data {
        let below = image.below(extent.offset).map(Below::lowest).unwrap();
        let length = below.length.min(extent.length).min(4096) as usize;
        let (mut there, mut here) = (vec![0; length], vec![1; length]);
        below.source.read_at(below.offset, &mut there).unwrap();
        image.read_at(extent.offset, &mut here).unwrap();
        assert!(there == here && length > 0, "{extent:?}");
    }
    assert!(image.below((1 << 20) + 5).is_none());
    assert_eq!(image.extent_at((1 << 20) + 5).kind, ExtentKind::Hole);
    let longer = SparseBytes::new(2 << 20);
    drylab_block::copy_data(&disk, &longer).unwrap();
    longer.set_len(2 << 20).unwrap();
    assert_same(&longer, &image);
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let (disk, sink) = (SparseBytes::new(512), SparseBytes::default());
    let other = SparseBytes::default();
    let plain = Qcow2Layers::default();
    let data_file = Some(Qcow2DataFile {
        sink: &other,
        name: "d",
        raw: true,
    });
    let long = "n".repeat(1024);
    let backing = |name| {
        Some(Qcow2Backing {
            disk: &disk,
            name,
            format: "raw",
        })
    };
    let cases = [
        Qcow2Layers {
            cluster_bits: 8,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 22,
            ..plain
        },
        Qcow2Layers {
            refcount_order: 7,
            ..plain
        },
        Qcow2Layers {
            extended_l2: true,
            cluster_bits: 13,
            ..plain
        },
        Qcow2Layers {
            extended_l2: true,
            version: Qcow2Version::V2,
            ..plain
        },
        Qcow2Layers {
            refcount_order: 3,
            version: Qcow2Version::V2,
            ..plain
        },
        Qcow2Layers {
            version: Qcow2Version::V2,
            compression: Some((Qcow2Compression::Zstd, 1)),
            ..plain
        },
        Qcow2Layers {
            data_file,
            version: Qcow2Version::V2,
            ..plain
        },
        Qcow2Layers {
            data_file,
            compression: Some((Qcow2Compression::Zlib, 1)),
            ..plain
        },
        Qcow2Layers {
            data_file,
            backing: backing("b"),
            ..plain
        },
        Qcow2Layers {
            backing: backing(""),
            ..plain
        },
        Qcow2Layers {
            backing: backing(&long),
            ..plain
        },
        Qcow2Layers {
            backing: backing(&long[..600]),
            cluster_bits: 9,
            ..plain
        },
    ];
    for layers in cases {
        let error = write_qcow2_layers(&disk, &layers, &sink, &Work::ALONE).unwrap_err();
        assert!(
            matches!(error, Error::Unsupported(_)),
            "{layers:?}: {error}"
        );
    }
}
