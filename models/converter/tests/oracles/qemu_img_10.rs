//! Our qemu-img 10 beside the real one: what it writes the other reads to the same bytes, both ways.

use crate::common::skipping::skip;
use crate::common::{load, sha256};
use drylab_block::Limits;
use drylab_block::{ReadAt, Reference, Resolver, SparseBytes, WriteAt, copy_data, read_vec};
use drylab_catalog::Witness;
use drylab_converter::qemu_img_10::{Format, Input, convert, convert_named, info};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The folder for files, or `None` after saying why.
fn workshop(name: &str) -> Option<PathBuf> {
    let version = Command::new("qemu-img").arg("--version").output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if !text.as_ref().is_ok_and(|text| text.contains("version 10.")) {
        skip("qemu-img 10 is not installed");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("qemu-img-10-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

fn qemu_img(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("qemu-img");
    let output = command
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn store(path: &Path, bytes: &dyn ReadAt) {
    let sparse = SparseBytes::new(bytes.len());
    copy_data(bytes, &sparse).unwrap();
    let mut file = File::create(path).unwrap();
    let mut at = 0;
    while at < bytes.len() {
        let take = (bytes.len() - at).min(1 << 20);
        let part = read_vec(&sparse, "file", at, take, &Limits::DEFAULT).unwrap();
        file.write_all(&part).unwrap();
        at += take;
    }
}

/// A disk with runs of data that pack well and badly, the last in its last sector.
fn disk(size: u64, seed: u64) -> SparseBytes {
    let disk = SparseBytes::new(size);
    let mut state = seed | 1;
    for number in 0..9u64 {
        let length = if number % 2 == 0 { 100_000 } else { 700 };
        let at = size / 10 * number + seed % 5_000;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let random = state.to_be_bytes()[0];
                if number % 3 == 0 {
                    random
                } else {
                    b'a' + random % 2
                }
            })
            .collect();
        let most = usize::try_from(size.saturating_sub(at)).unwrap();
        disk.write_at(at, &bytes[..bytes.len().min(most)]).unwrap();
    }
    disk.write_at(size - 3, b"end").unwrap();
    disk
}

const SIZES: [u64; 4] = [3 << 20, (5 << 20) + 512, 70_001_664, (2 << 20) + 1_000];

const WRITTEN: [(&str, Format, &[&str]); 6] = [
    ("vmdk", Format::Vmdk, &[]),
    (
        "vmdk",
        Format::VmdkStream,
        &["-o", "subformat=streamOptimized"],
    ),
    (
        "vpc",
        Format::Vpc {
            fixed: false,
            force_size: false,
        },
        &[],
    ),
    (
        "vpc",
        Format::Vpc {
            fixed: false,
            force_size: true,
        },
        &["-o", "force_size=on"],
    ),
    (
        "vpc",
        Format::Vpc {
            fixed: true,
            force_size: false,
        },
        &["-o", "subformat=fixed"],
    ),
    ("qcow2", Format::Qcow2, &[]),
];

struct Beside(PathBuf);

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference) -> drylab_block::Result<Arc<dyn ReadAt>> {
        Ok(load(&self.0.join(&reference.name)))
    }
}

#[test]
fn each_reads_what_the_other_wrote_to_the_same_bytes() {
    let Some(folder) = workshop("both") else {
        return;
    };
    let mut compared = 0;
    for (number, size) in (1u64..).zip(SIZES) {
        let raw: Arc<dyn ReadAt> = Arc::new(disk(size, number * 977));
        store(&folder.join("in.raw"), &*raw);
        for (name, format, options) in WRITTEN {
            let ours = convert_named(
                &Input {
                    name: "in.raw",
                    file: Some(&raw),
                    declared: Some("raw"),
                    resolver: &Beside(folder.clone()),
                },
                "theirs",
                format,
            )
            .unwrap();
            store(&folder.join("ours"), &*ours.file);
            qemu_img(
                &folder,
                &["convert", "-f", name, "-O", "raw", "ours", "ours.raw"],
            );
            let mut arguments = vec!["convert", "-f", "raw", "-O", name];
            arguments.extend(options);
            arguments.extend(["in.raw", "theirs"]);
            qemu_img(&folder, &arguments);
            qemu_img(
                &folder,
                &["convert", "-f", name, "-O", "raw", "theirs", "theirs.raw"],
            );
            let theirs = load(&folder.join("theirs"));
            let read = convert(&theirs, Some(name), Format::Raw).unwrap();
            let wanted = sha256(&*load(&folder.join("theirs.raw")));
            assert_eq!(
                sha256(&*load(&folder.join("ours.raw"))),
                wanted,
                "{format:?} {size}"
            );
            assert_eq!(sha256(&*read.file), wanted, "{format:?} {size}");
            compared += 1;
        }
    }
    assert_eq!(compared, 24);
}

#[test]
fn a_sparse_vmdk_is_the_same_file_but_for_its_content_id() {
    let Some(folder) = workshop("sparse") else {
        return;
    };
    for (number, size) in (1u64..).zip(SIZES) {
        let raw: Arc<dyn ReadAt> = Arc::new(disk(size, number * 31));
        store(&folder.join("in.raw"), &*raw);
        qemu_img(
            &folder,
            &["convert", "-f", "raw", "-O", "vmdk", "in.raw", "theirs"],
        );
        let input = Input {
            name: "in.raw",
            file: Some(&raw),
            declared: Some("raw"),
            resolver: &Beside(folder.clone()),
        };
        let ours = convert_named(&input, "theirs", Format::Vmdk).unwrap().file;
        let theirs = load(&folder.join("theirs"));
        assert_eq!(ours.len(), theirs.len(), "{size}");
        let descriptor = |file: &dyn ReadAt| {
            let bytes = read_vec(file, "descriptor", 512, 20 * 512, &Limits::DEFAULT).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            // The text ends at the first NUL: behind it qemu-img leaves the last byte of a longer one when the content id it
            // drew has six digits (3 of 800 conversions).
            let lines = text.split('\0').next().unwrap().lines();
            let kept = lines
                .filter(|line| !line.starts_with("CID="))
                .map(str::to_owned);
            kept.collect::<Vec<_>>()
        };
        assert_eq!(descriptor(&*ours), descriptor(&*theirs));
        let without = |file: &Arc<dyn ReadAt>| {
            let bytes = SparseBytes::new(file.len());
            copy_data(file, &bytes).unwrap();
            bytes.write_at(512, &[0; 20 * 512]).unwrap();
            sha256(&bytes)
        };
        assert_eq!(without(&ours), without(&theirs), "{size}");
    }
}

#[test]
fn what_it_calls_a_stream_has_the_real_ones_header_and_is_none() {
    let Some(folder) = workshop("stream") else {
        return;
    };
    let raw: Arc<dyn ReadAt> = Arc::new(disk(3 << 20, 5));
    store(&folder.join("in.raw"), &*raw);
    let style = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
    ];
    qemu_img(&folder, &[&style[..], &["in.raw", "theirs"]].concat());
    let theirs = load(&folder.join("theirs"));
    let ours = convert(&raw, Some("raw"), Format::VmdkStream).unwrap();
    let head = |file: &dyn ReadAt| read_vec(file, "header", 0, 512, &Limits::DEFAULT).unwrap();
    assert_eq!(head(&*ours.file), head(&*theirs));
    assert!(ours.notes.contains(&Witness::quirk("DQ518")));
    for file in [&ours.file, &theirs] {
        let walk = drylab_image::walk_stream(&**file, &Limits::DEFAULT);
        assert!(
            walk.is_err(),
            "a reader that cannot seek does not come to its end: {walk:?}"
        );
    }
}

#[test]
fn a_flat_vmdk_is_read_through_its_descriptor_and_a_part_of_a_sector_counts() {
    let Some(folder) = workshop("flat") else {
        return;
    };
    store(&folder.join("in.raw"), &disk(3 << 20, 77));
    let style = ["convert", "-O", "vmdk", "-o", "subformat=monolithicFlat"];
    qemu_img(&folder, &[&style[..], &["in.raw", "flat.vmdk"]].concat());
    let descriptor = load(&folder.join("flat.vmdk"));
    let input = Input {
        name: "flat.vmdk",
        file: Some(&descriptor),
        declared: None,
        resolver: &Beside(folder.clone()),
    };
    let read = convert_named(&input, "out", Format::Raw).unwrap();
    assert_eq!(sha256(&*read.file), sha256(&*load(&folder.join("in.raw"))));
    store(&folder.join("odd.raw"), &b"odd".to_vec());
    qemu_img(&folder, &["convert", "-O", "raw", "odd.raw", "odd.out"]);
    let ours = convert(&load(&folder.join("odd.raw")), None, Format::Raw).unwrap();
    assert_eq!(sha256(&*ours.file), sha256(&*load(&folder.join("odd.out"))));
}

#[test]
fn a_fixed_vhd_is_raw_unless_it_is_named_and_formats_beyond_the_model_are_refused() {
    let raw: Arc<dyn ReadAt> = Arc::new(disk(3 << 20, 5));
    let fixed = Format::Vpc {
        fixed: true,
        force_size: true,
    };
    let vhd = convert(&raw, Some("raw"), fixed).unwrap().file;
    let probed = convert(&vhd, None, Format::Raw).unwrap();
    assert_eq!(probed.file.len(), (3 << 20) + 512);
    assert!(probed.notes.contains(&Witness::quirk("DQ520")));
    let named = convert(&vhd, Some("vpc"), Format::Raw).unwrap();
    assert_eq!(sha256(&*named.file), sha256(&*raw));
    assert!(named.notes.contains(&Witness::quirk("GQ122")));
    for head in [&b"vhdxfile"[..], b"COWD", b"QED\0", b"QFI\xfb\0\0\0\x01"] {
        let mut bytes = head.to_vec();
        bytes.resize(4096, 0);
        let file: Arc<dyn ReadAt> = Arc::new(bytes);
        let error = info(&file, None).err().unwrap();
        assert!(error.message.contains("not part of this model"), "{error}");
    }
    let unknown = info(&raw, Some("nope")).err().unwrap();
    assert!(unknown.message.contains("Unknown driver 'nope'"));
}

#[test]
fn a_differencing_vhd_is_read_without_its_parent_and_nothing_is_said() {
    let Some(folder) = workshop("differencing") else {
        return;
    };
    let before = disk(5 << 20, 11);
    let after = SparseBytes::new(before.len());
    copy_data(&before, &after).unwrap();
    after.write_at(1 << 20, b"since the snapshot").unwrap();
    let options = drylab_image::VhdOptions::default();
    let (base, child) = (SparseBytes::default(), SparseBytes::default());
    let target = drylab_image::Target::VhdDynamic(options.clone());
    drylab_image::write(&before, &target, &base).unwrap();
    let link = drylab_image::vhd::ParentLink::beside(&base, "base.vhd").unwrap();
    drylab_image::vhd::write_child(&after, &before, &link, &options, &child).unwrap();
    store(&folder.join("child.avhd"), &child);
    qemu_img(
        &folder,
        &["convert", "-O", "raw", "child.avhd", "child.raw"],
    );
    let ours = convert(&load(&folder.join("child.avhd")), None, Format::Raw).unwrap();
    assert_eq!(
        sha256(&*ours.file),
        sha256(&*load(&folder.join("child.raw")))
    );
    assert_ne!(sha256(&*ours.file), sha256(&after));
    assert!(ours.exit == 0 && ours.notes.contains(&Witness::quirk("GQ143")));
}
