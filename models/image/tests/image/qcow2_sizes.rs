//! Every subformat of qcow2 at every size at which formats go wrong: qemu-img reads ours, we read theirs, equal bytes.

use crate::common::{Folder, OnDisk, assert_same, have_qemu_img, qemu_img, try_qemu_img};
use crate::qcow2::{Whole, raw_file, sparse};
use crate::qcow2_check::text;
use drylab_block::{Error, Limits, ReadAt, SparseBytes};
use drylab_image::{
    Image, Qcow2Compression, Qcow2DataFile, Qcow2Layers, Qcow2Version, Work, write_qcow2_layers,
};
use std::path::Path;
use std::sync::Arc;

/// Sizes at which formats go wrong, in bytes.
pub(crate) const SIZES: &[u64] = &[
    0,
    512,
    77 * 512,
    (1 << 20) - 512,
    1 << 20,
    (1 << 20) + 512,
    (4 << 30) + 512,
    2 << 40,
];

/// Subformats by the name of a test's output: how we write one, and how qemu-img is asked for it.
struct Form {
    layers: Qcow2Layers<'static>,
    packed: bool,
    options: &'static str,
    /// With an external data file, which alone may be the disk.
    outside: Option<bool>,
}

fn forms() -> Vec<Form> {
    let plain = Qcow2Layers::default();
    let v2 = Qcow2Layers {
        version: Qcow2Version::V2,
        ..plain
    };
    let extended = Qcow2Layers {
        extended_l2: true,
        ..plain
    };
    let packed = |layers, compression| Qcow2Layers {
        compression: Some((compression, 2)),
        ..layers
    };
    let (zlib, zstd) = (Qcow2Compression::Zlib, Qcow2Compression::Zstd);
    let form = |layers: Qcow2Layers<'static>, options, outside| Form {
        packed: layers.compression.is_some(),
        layers,
        options,
        outside,
    };
    vec![
        form(v2, "compat=0.10", None),
        form(packed(v2, zlib), "compat=0.10", None),
        form(plain, "compat=1.1", None),
        form(packed(plain, zlib), "compression_type=zlib", None),
        form(packed(plain, zstd), "compression_type=zstd", None),
        form(extended, "extended_l2=on", None),
        form(packed(extended, zlib), "extended_l2=on", None),
        form(
            packed(extended, zstd),
            "extended_l2=on,compression_type=zstd",
            None,
        ),
        form(plain, "compat=1.1", Some(false)),
        form(plain, "compat=1.1", Some(true)),
        form(extended, "extended_l2=on", Some(false)),
        form(extended, "extended_l2=on", Some(true)),
    ]
}

fn opened(file: &Path, folder: &Path) -> Image {
    let whole = Whole(Folder(folder.to_owned()));
    let image = drylab_image::open_with(Arc::new(OnDisk::open(file)), &whole, &Limits::DEFAULT);
    image.unwrap()
}

/// Equal bytes, and nothing to find.
fn reads_as(disk: &SparseBytes, image: &Image, what: &str) {
    assert_same(disk, image);
    let found = image.check().unwrap();
    assert!(found.is_empty(), "{what}: {:?}", found.list());
}

#[test]
fn every_subformat_at_every_size_goes_to_qemu_img_and_comes_from_it() {
    let have = have_qemu_img();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (raw, ours, theirs) = (path("a.raw"), path("ours"), path("theirs"));
    let (our_data, their_data) = (path("our.data"), path("their.data"));
    for size in SIZES {
        let disk = sparse(*size).disk();
        raw_file(&raw, &disk);
        for (number, form) in forms().into_iter().enumerate() {
            let what = format!("form {number} ({}) of {size} bytes", form.options);
            let sink = OnDisk::create(&our_data);
            let data_file = form.outside.map(|raw| Qcow2DataFile {
                sink: &sink,
                // qemu-img looks for a data file where it was started.
                name: text(&our_data),
                raw,
            });
            let layers = Qcow2Layers {
                data_file,
                ..form.layers
            };
            let work = Work {
                jobs: 1 + number as u32 % 3,
                progress: None,
            };
            write_qcow2_layers(&disk, &layers, &OnDisk::create(&ours), &work).unwrap();
            reads_as(&disk, &opened(&ours, folder.path()), &what);
            // A file of this machine does not tell us of its holes.
            if form.outside == Some(true) && *size < 1 << 30 {
                assert_same(&disk, &OnDisk::open(&our_data));
            }
            if !have {
                continue;
            }
            if form.outside == Some(true) {
                let pair = ["-f", "raw", "-F", "raw", text(&raw), text(&our_data)];
                let said = qemu_img(&[&["compare"], &pair[..]].concat());
                assert!(said.contains("identical"), "{what}: {said}");
            }
            let pair = ["-f", "raw", "-F", "qcow2", text(&raw), text(&ours)];
            let said = qemu_img(&[&["compare"], &pair[..]].concat());
            assert!(said.contains("identical"), "{what}: {said}");
            let said = qemu_img(&["check", "-f", "qcow2", text(&ours)]);
            assert!(said.contains("No errors"), "{what}: {said}");
            let mut options = form.options.to_owned();
            if let Some(raw) = form.outside {
                let raw = if raw { "on" } else { "off" };
                options += &format!(",data_file={},data_file_raw={raw}", text(&their_data));
            }
            // Of a raw data file it writes an L2 entry for every cluster, 32 million of them and slowly.
            if form.outside == Some(true) && *size >= 1 << 40 {
                continue;
            }
            let length = size.to_string();
            let create = [
                "create",
                "-f",
                "qcow2",
                "-o",
                &options,
                text(&theirs),
                &length,
            ];
            qemu_img(&create);
            let mut convert = vec![
                "convert",
                "-n",
                "--target-is-zero",
                "-f",
                "raw",
                "-O",
                "qcow2",
            ];
            if form.packed {
                convert.push("-c");
            }
            convert.extend([text(&raw), text(&theirs)]);
            qemu_img(&convert);
            let image = opened(&theirs, folder.path());
            if form.outside == Some(true) && *size >= 1 << 30 {
                // All of it is data: what was written, and no finding, has to do.
                for at in [0, size / 3, size - 100_000] {
                    let (mut one, mut other) = (vec![0; 100_000], vec![0; 100_000]);
                    disk.read_at(at, &mut one).unwrap();
                    image.read_at(at, &mut other).unwrap();
                    assert!(one == other, "{what} at {at}");
                }
                assert!(image.check().unwrap().is_empty(), "{what}");
                continue;
            }
            reads_as(&disk, &image, &what);
        }
    }
}

#[test]
fn the_largest_disk_of_a_cluster_size_is_written_and_a_larger_one_refused_as_qemu_img_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.qcow2");
    let plain = Qcow2Layers::default();
    let extended = Qcow2Layers {
        extended_l2: true,
        cluster_bits: 14,
        ..plain
    };
    // 4,194,304 entries of an L1 table, each for a table of one cluster.
    for (layers, most, options) in [
        (
            Qcow2Layers {
                cluster_bits: 9,
                ..plain
            },
            128u64 << 30,
            "cluster_size=512",
        ),
        (
            Qcow2Layers {
                cluster_bits: 9,
                version: Qcow2Version::V2,
                ..plain
            },
            128 << 30,
            "cluster_size=512,compat=0.10",
        ),
        (
            Qcow2Layers {
                cluster_bits: 12,
                ..plain
            },
            8 << 40,
            "cluster_size=4k",
        ),
        (extended, 64 << 40, "cluster_size=16k,extended_l2=on"),
        (plain, 2 << 50, "cluster_size=64k"),
    ] {
        let mut limits = Limits::DEFAULT;
        limits.disk_bytes_max = most;
        let disk = sparse(most).disk();
        write_qcow2_layers(&disk, &layers, &OnDisk::create(&file), &Work::ALONE).unwrap();
        let image = drylab_image::open(Arc::new(OnDisk::open(&file)), &limits).unwrap();
        reads_as(&disk, &image, options);
        let larger = SparseBytes::new(most + 1);
        let sink = SparseBytes::default();
        let error = write_qcow2_layers(&larger, &layers, &sink, &Work::ALONE).unwrap_err();
        let says = format!("32 MiB, which is enough for {most} bytes");
        assert!(
            matches!(&error, Error::Unsupported(text) if text.contains(&says)),
            "{error}"
        );
        if have_qemu_img() {
            let said = qemu_img(&["check", "-f", "qcow2", text(&file)]);
            assert!(said.contains("No errors"), "{options}: {said}");
            let size = (most + 512).to_string();
            let theirs = text(&file);
            let create = ["create", "-f", "qcow2", "-o", options, theirs, &size];
            assert!(!try_qemu_img(&create).status.success(), "{options} {size}");
        }
    }
}
