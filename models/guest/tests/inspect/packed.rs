//! Initramfs archives as the tools `xz` and `zstd` pack them, whole, cut and lying.

use crate::foreign::skipping;
use crate::support::{CENTOS, Golden, LIMITS, cpio, gzip, machine};
use drylab_guest::boot::boot;
use drylab_guest::fuzz;
use drylab_guest::inspect::{CpioMember, cpio_walk, read_initramfs};
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const BOOT: &str = "p1";
const INITRAMFS: &str = "/initramfs-2.6.32-279.el6.x86_64.img";

/// Output of a packer for this input; `None` when it is not installed, which fails where oracles are required.
fn packed(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skipping::skip(&format!("{program} is not installed"));
        return None;
    };
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it runs");
    writer.join().expect("it is fed").expect("it reads all");
    assert!(output.status.success(), "{program} {arguments:?}");
    Some(output.stdout)
}

const PACKERS: [(&str, &[&str], CpioMember); 7] = [
    ("xz", &["-c", "--check=crc32", "-6"], CpioMember::Xz),
    ("xz", &["-c", "-0"], CpioMember::Xz),
    (
        "xz",
        &["-c", "--check=sha256", "--block-size=4096"],
        CpioMember::Xz,
    ),
    ("xz", &["-c", "--x86", "--lzma2=dict=1MiB"], CpioMember::Xz),
    ("zstd", &["-c", "-q", "-1"], CpioMember::Zstd),
    ("zstd", &["-c", "-q", "-19"], CpioMember::Zstd),
    (
        "zstd",
        &["-c", "-q", "--ultra", "-22", "--no-check"],
        CpioMember::Zstd,
    ),
];

/// Name, mode and content.
type File = (String, u32, Vec<u8>);

/// Entries of an initramfs.
fn entries(bytes: &[u8]) -> (Vec<CpioMember>, Vec<File>) {
    let mut found = Vec::new();
    let mut keep = |entry: drylab_guest::inspect::CpioEntry<'_>| {
        found.push((entry.name.clone(), entry.mode, entry.data.to_vec()));
    };
    let members = cpio_walk(bytes, &LIMITS, &mut keep).expect("it is read");
    (members, found)
}

/// The archive of the golden initramfs, not compressed.
fn golden() -> &'static Vec<u8> {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let packed = Golden::new(CENTOS, "esxi-5.0.0").read(BOOT, INITRAMFS);
        cpio(&entries(&packed).1)
    })
}

fn early() -> Vec<u8> {
    let name = "kernel/x86/microcode/GenuineIntel.bin".to_owned();
    let mut bytes = cpio(&[(name, 0o100_644, vec![7; 700])]);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn what_the_tools_pack_is_read_as_the_archive_that_was_packed() {
    let expected = entries(golden()).1;
    for (program, arguments, member) in PACKERS {
        let Some(packed) = packed(program, arguments, golden()) else {
            continue;
        };
        assert_eq!(
            entries(&packed),
            (vec![member], expected.clone()),
            "{program} {arguments:?}"
        );
        let behind = [early(), packed.clone(), vec![0; 12], gzip(golden())].concat();
        let (members, found) = entries(&behind);
        assert_eq!(members, [CpioMember::Plain, member, CpioMember::Gzip]);
        assert_eq!(
            found.len(),
            1 + 2 * expected.len(),
            "{program} {arguments:?}"
        );
    }
}

#[test]
fn a_guest_boots_from_an_initramfs_in_xz_or_zstd_as_from_gzip() {
    for (program, arguments, member) in PACKERS {
        let Some(packed) = packed(program, arguments, golden()) else {
            continue;
        };
        let bytes = [early(), packed].concat();
        let guest = Golden::new(CENTOS, "esxi-5.0.0").with(BOOT, INITRAMFS, Some(&bytes));
        for model in ["lsilogic", "virtio-blk", "piix3-ide"] {
            let report = boot(&guest.inspect(), &machine(model));
            assert!(
                report.reached && report.unassessed.is_empty(),
                "{:#?}",
                report.cause
            );
        }
        assert!(
            !boot(&guest.inspect(), &machine("buslogic")).reached,
            "{member:?}"
        );
    }
}

#[test]
fn a_kernel_that_names_its_decoders_and_lacks_this_one_cannot_unpack_it() {
    let Some(packed) = packed("xz", &["-c", "--check=crc32"], golden()) else {
        return;
    };
    let config = "/config-2.6.32-279.el6.x86_64";
    let guest = |options: &str| {
        Golden::new(CENTOS, "esxi-5.0.0")
            .with(BOOT, INITRAMFS, Some(&packed))
            .replacing(
                BOOT,
                config,
                "CONFIG_PCI=y",
                &format!("CONFIG_PCI=y\n{options}"),
            )
            .inspect()
    };
    let report = boot(&guest("CONFIG_RD_GZIP=y"), &machine("lsilogic"));
    assert!(!report.reached);
    let last = report.stages.last().expect("it has stages");
    assert_eq!(last.name, "initramfs");
    assert!(
        last.witnesses
            .iter()
            .any(|witness| witness.says.contains("CONFIG_RD_XZ"))
    );
    let both = "CONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y";
    assert!(boot(&guest(both), &machine("lsilogic")).reached);
}

#[test]
fn compressed_modules_are_read_too() {
    let (_, files) = entries(golden());
    for (program, arguments, suffix) in [
        ("xz", ["-c", "--check=crc32"].as_slice(), ".xz"),
        ("zstd", &["-c", "-q"], ".zst"),
        ("gzip", &["-c"], ".gz"),
    ] {
        let mut renamed = files.clone();
        for (name, _, data) in renamed
            .iter_mut()
            .filter(|(name, ..)| name.ends_with("mptspi.ko"))
        {
            let Some(packed) = packed(program, arguments, data) else {
                return;
            };
            name.push_str(suffix);
            *data = packed;
        }
        let found = read_initramfs(&cpio(&renamed), &LIMITS, &mut Vec::new()).expect("it is read");
        let plain = read_initramfs(golden(), &LIMITS, &mut Vec::new()).expect("it is read");
        let (found, plain) = (&found.modules["mptspi"], &plain.modules["mptspi"]);
        assert_eq!(
            (&found.aliases, &found.depends),
            (&plain.aliases, &plain.depends)
        );
        assert_eq!(found.damaged, None, "{suffix}");
    }
}

#[test]
fn a_member_that_breaks_off_is_damaged_and_one_that_grows_too_much_is_refused() {
    let small = cpio(&[(
        "a".to_owned(),
        0o100_644,
        (0..2000u32).map(|n| (n % 251) as u8).collect(),
    )]);
    let mut tight = LIMITS;
    tight.file_bytes_max = 64 << 10;
    for (program, arguments, member) in PACKERS {
        let Some(whole) = packed(program, arguments, &small) else {
            continue;
        };
        for cut in 7..whole.len() {
            let read = cpio_walk(&whole[..cut], &LIMITS, &mut |_| ());
            assert!(
                read.is_err(),
                "{program} {arguments:?} cut at {cut} of {}",
                whole.len()
            );
        }
        let bomb = packed(program, arguments, &vec![0; 4 << 20]).expect("it was there before");
        let error = cpio_walk(&bomb, &tight, &mut |_| ())
            .expect_err("it is too large")
            .to_string();
        let refused = error.contains("more than 65536 bytes")
            || error.contains("within 1089 KiB")
            || error.contains("(at most 8388608)");
        assert!(refused, "{program} {arguments:?} ({member:?}): {error}");
    }
}

#[test]
fn a_byte_changed_in_what_is_checked_is_noticed() {
    let small = cpio(&[(
        "a".to_owned(),
        0o100_644,
        (0..3000u32).map(|n| (n * n % 249) as u8).collect(),
    )]);
    for (program, arguments) in [
        ("xz", ["-c"].as_slice()),
        ("zstd", &["-c", "-q", "--check"]),
    ] {
        let Some(whole) = packed(program, arguments, &small) else {
            continue;
        };
        let expected = entries(&whole).1;
        for at in 12..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let mut found = Vec::new();
            let read = cpio_walk(&changed, &LIMITS, &mut |entry| {
                found.push((entry.name.clone(), entry.mode, entry.data.to_vec()));
            });
            assert!(read.is_err() || found == expected, "{program}: byte {at}");
        }
    }
}

#[test]
fn lzma_and_others_are_known_by_name_and_not_unpacked() {
    for (program, arguments, name) in [
        ("xz", ["-c", "--format=lzma"].as_slice(), "lzma"),
        ("bzip2", &["-c"], "bzip2"),
    ] {
        let Some(bytes) = packed(program, arguments, golden()) else {
            continue;
        };
        let mut findings = Vec::new();
        let found = read_initramfs(&bytes, &LIMITS, &mut findings).expect("it is known");
        assert_eq!(found.archives, [name]);
        assert!(found.unread.is_some_and(|why| why.contains(name)));
        assert!(
            findings
                .iter()
                .any(|finding| finding.message.contains(name))
        );
    }
}

/// A small archive in each packing.
fn seeds() -> &'static Vec<Vec<u8>> {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let small = cpio(&[("lib/a.ko".to_owned(), 0o100_644, b"vermagic=1".repeat(40))]);
        let packers = PACKERS.iter();
        packers
            .filter_map(|(program, arguments, _)| packed(program, arguments, &small))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_change_of_a_packed_archive_is_an_error_or_an_archive(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!seeds().is_empty());
        let mut bytes = which.get(seeds()).clone();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        fuzz::initramfs(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        fuzz::initramfs(&bytes);
    }
}
