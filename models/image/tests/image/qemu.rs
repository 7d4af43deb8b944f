//! qemu-img and we read each other's files to equal bytes.

use crate::common::{
    OnDisk, Plan, assert_same, fits, have_qemu_img, opened, plans, qemu_img, targets, try_qemu_img,
};
use drylab_block::{Error, Limits, ReadAt};
use drylab_image::Target;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn format(target: &Target) -> &'static str {
    match target {
        Target::Raw => "raw",
        Target::VmdkSparse(_) | Target::VmdkStream(_) => "vmdk",
        Target::VhdFixed(_) | Target::VhdDynamic(_) => "vpc",
        Target::VhdxFixed(_) | Target::VhdxDynamic(_) => "vhdx",
        Target::VdiFixed(_) | Target::VdiDynamic(_) => "vdi",
        _ => "qcow2",
    }
}

/// How qemu-img is asked for a file, with the findings that we may have about it.
const THEIRS: &[&[&str]] = &[
    &["-O", "vmdk", "-o", "subformat=monolithicSparse"],
    &[
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicSparse,zeroed_grain=on,adapter_type=lsilogic",
    ],
    &["-O", "vmdk", "-o", "subformat=streamOptimized"],
    &["-O", "vpc", "-o", "subformat=dynamic,force_size=on"],
    &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
    &["-O", "vdi"],
    &["-O", "vdi", "-o", "static=on"],
    &["-O", "qcow2", "-o", "compat=0.10"],
    &["-O", "qcow2", "-o", "compat=1.1"],
    &[
        "-O",
        "qcow2",
        "-o",
        "compat=1.1,cluster_size=512,refcount_bits=1",
    ],
    &[
        "-O",
        "qcow2",
        "-o",
        "compat=1.1,cluster_size=4k,refcount_bits=64,lazy_refcounts=on",
    ],
    &["-O", "qcow2", "-o", "compat=1.1,cluster_size=2M"],
    &["-O", "qcow2", "-c", "-o", "compat=0.10"],
    &["-O", "qcow2", "-c", "-o", "compat=1.1,cluster_size=512"],
    &["-O", "qcow2", "-c", "-o", "compat=1.1,cluster_size=4k"],
    &["-O", "qcow2", "-c", "-o", "compat=1.1,cluster_size=2M"],
    &[
        "-O",
        "qcow2",
        "-S",
        "0",
        "-o",
        "compat=1.1,preallocation=metadata",
    ],
];

/// One law at a time over many disks, without a process for each size that the oracle rounds differently.
fn plans_in_sectors(largest: u64) -> impl Strategy<Value = Plan> {
    plans(largest).prop_map(|plan| Plan {
        size: plan.size.next_multiple_of(512),
        ..plan
    })
}

#[test]
fn ours_is_read_by_qemu_img_to_equal_bytes() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, ours) = (folder.path().join("a.raw"), folder.path().join("ours"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let cases = (plans_in_sectors(3 << 30), targets());
    runner
        .run(&cases, |(plan, target)| {
            prop_assume!(fits(&plan, &target));
            // It has no map of a VHDX and reads all of it.
            let most = if format(&target) == "vhdx" {
                64 << 20
            } else {
                u64::MAX
            };
            let plan = Plan {
                size: plan.size.min(most),
                ..plan
            };
            let disk = plan.disk();
            drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
            drylab_image::write(&disk, &target, &OnDisk::create(&ours)).unwrap();
            let format = format(&target);
            let verdict = qemu_img(&[
                "compare",
                "-f",
                "raw",
                "-F",
                format,
                text(&raw),
                text(&ours),
            ]);
            prop_assert!(verdict.contains("identical"), "{}", verdict);
            // It cannot check a VHD.
            if !["raw", "vpc"].contains(&format) {
                let verdict = qemu_img(&["check", "-f", format, text(&ours)]);
                prop_assert!(verdict.contains("No errors"), "{}", verdict);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn ours_converted_to_raw_by_qemu_img_is_the_disk_byte_for_byte() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (back, ours) = (folder.path().join("back"), folder.path().join("ours"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(96));
    runner
        .run(
            &(plans_in_sectors(80 << 20), targets()),
            |(plan, target)| {
                let disk = plan.disk();
                drylab_image::write(&disk, &target, &OnDisk::create(&ours)).unwrap();
                qemu_img(&[
                    "convert",
                    "-f",
                    format(&target),
                    "-O",
                    "raw",
                    text(&ours),
                    text(&back),
                ]);
                let mut bytes = vec![0; plan.size as usize];
                disk.read_at(0, &mut bytes).unwrap();
                prop_assert!(std::fs::read(&back).unwrap() == bytes);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn theirs_is_read_by_us_to_equal_bytes() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, theirs) = (folder.path().join("a.raw"), folder.path().join("theirs"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(160));
    let cases = (
        plans_in_sectors(3 << 30),
        prop::sample::select(THEIRS.to_vec()),
    );
    runner
        .run(&cases, |(plan, arguments)| {
            // What covers the whole disk must stay small: its tables, or zeros stored as data.
            let whole = arguments
                .iter()
                .any(|argument| argument.contains("=metadata") || argument.contains("static"));
            let limit = if whole {
                32 << 20
            } else if arguments.concat().contains("=512") {
                1 << 30
            } else {
                3 << 30
            };
            let plan = Plan {
                size: plan.size.min(limit),
                ..plan
            };
            let disk = plan.disk();
            drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
            let command = [
                &["convert", "-f", "raw"],
                arguments,
                &[text(&raw), text(&theirs)],
            ]
            .concat();
            qemu_img(&command);
            let image = opened(Arc::new(OnDisk::open(&theirs)));
            let bad = image
                .info()
                .findings
                .list()
                .iter()
                .find(|f| !["VMDK-NOT-A-STREAM", "VHD-TWO-SIZES"].contains(&f.rule.code))
                .cloned();
            prop_assert!(bad.is_none(), "{:?}", bad);
            assert_same(&disk, &image);
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_we_do_not_read_is_refused_by_name() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let base = path("base.qcow2");
    qemu_img(&["create", "-f", "qcow2", &base, "8M"]);
    let data = format!("data_file={}", path("data.raw"));
    let cases: &[(&[&str], &str)] = &[
        (&["-f", "qcow2", "-b", &base, "-F", "qcow2"], "backing file"),
        (&["-f", "qcow2", "-o", &data], "external data file"),
        (
            &["-f", "vmdk", "-o", "subformat=monolithicFlat"],
            "monolithicFlat",
        ),
        (
            &["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
            "twoGbMaxExtentSparse",
        ),
        (&["-f", "qcow"], "qcow (version 1;"),
        (&["-f", "parallels"], "Parallels"),
    ];
    for (number, (arguments, name)) in cases.iter().enumerate() {
        let file = path(&format!("{number}.img"));
        let output = try_qemu_img(&[&["create"], *arguments, &[&file, "8M"]].concat());
        assert!(
            output.status.success(),
            "{arguments:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let error = drylab_image::open(Arc::new(OnDisk::open(Path::new(&file))), &Limits::DEFAULT)
            .unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported(text) if text.contains(name)),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn qemu_img_says_the_same_of_our_files_as_we_do() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ours");
    let disk = Plan {
        size: 70_000 * 512,
        pieces: vec![],
    }
    .disk();
    let options = drylab_image::VmdkOptions {
        content_id: Some(0x1234_5678),
        ..Default::default()
    };
    let mut seen = Vec::new();
    for target in [
        Target::VmdkSparse(options.clone()),
        Target::VmdkStream(options),
    ] {
        drylab_image::write(&disk, &target, &OnDisk::create(&file)).unwrap();
        let said = qemu_img(&["info", "--output=json", text(&file)]);
        let image = opened(Arc::new(OnDisk::open(&file)));
        assert!(
            said.contains(&format!("\"virtual-size\": {}", image.virtual_size())),
            "{said}"
        );
        assert!(
            said.contains(&format!("\"create-type\": \"{}\"", image.subformat())),
            "{said}"
        );
        assert!(
            said.contains(&format!("\"cid\": {}", 0x1234_5678)),
            "{said}"
        );
        assert_eq!(image.info().detail("ddb.adapterType"), Some("lsilogic"));
        seen.push(image.subformat().to_owned());
    }
    assert_eq!(seen, ["monolithicSparse", "streamOptimized"]);
}
