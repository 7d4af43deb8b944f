//! Broken and hostile files: an answer with place and bound, never a panic, never more memory than the file deserves.

use crate::common::{Kind, Piece, Plan, packed};
use drylab_block::{Error, Extents, Limits, ReadAt, Result, le_u32};
use drylab_image::{Image, Qcow2Options, Qcow2Version, Target, VmdkOptions, fuzz};
use proptest::prelude::*;
use std::sync::Arc;

fn plan(size: u64) -> Plan {
    let pieces = [
        (0u64, Kind::Text(3)),
        (100_000, Kind::Noise(9)),
        (size - 3000, Kind::Text(7)),
    ];
    let pieces = pieces.map(|(offset, kind)| Piece {
        offset,
        length: 5000,
        kind,
    });
    Plan {
        size,
        pieces: pieces.to_vec(),
    }
}

fn bytes_of(disk: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

fn qcow2(version: Qcow2Version, cluster_bits: u32, compress: bool) -> Target {
    Target::Qcow2(Qcow2Options {
        version,
        cluster_bits,
        compress,
        ..Qcow2Options::default()
    })
}

fn file(target: &Target) -> Vec<u8> {
    bytes_of(&*packed(&plan(300_032).disk(), target))
}

fn valid() -> Vec<Vec<u8>> {
    [
        Target::VmdkSparse(VmdkOptions::default()),
        Target::VmdkStream(VmdkOptions::default()),
        qcow2(Qcow2Version::V3, 16, false),
        qcow2(Qcow2Version::V2, 9, true),
        qcow2(Qcow2Version::V3, 12, true),
    ]
    .iter()
    .map(file)
    .collect()
}

fn open(bytes: Vec<u8>) -> Result<Image> {
    drylab_image::open(Arc::new(bytes), &Limits::DEFAULT)
}

/// The first error of opening or reading everything.
fn first_error(bytes: Vec<u8>) -> Option<Error> {
    let image = match open(bytes) {
        Ok(image) => image,
        Err(error) => return Some(error),
    };
    let bytes = Extents::new(&image).filter(|extent| extent.kind.has_bytes());
    let mut read =
        bytes.map(|extent| image.read_at(extent.offset, &mut vec![0; extent.length as usize]));
    read.find_map(Result::err)
}

#[track_caller]
fn refuses(bytes: Vec<u8>, words: &[&str]) {
    let error = first_error(bytes).expect("an error").to_string();
    assert!(
        words.iter().all(|word| error.contains(word)),
        "{error} lacks {words:?}"
    );
}

fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn sparse() -> Vec<u8> {
    file(&Target::VmdkSparse(VmdkOptions::default()))
}

fn stream() -> Vec<u8> {
    file(&Target::VmdkStream(VmdkOptions::default()))
}

/// Byte offset of a VMDK's first grain table entry.
fn first_entry(vmdk: &[u8]) -> usize {
    let directory = le_u32(vmdk, 56).unwrap() as usize * 512;
    le_u32(vmdk, directory).unwrap() as usize * 512
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn valid_files_with_a_few_changed_bytes_never_panic(
        which in 0..5usize,
        edits in prop::collection::vec((prop_oneof![3 => 0..120usize, 2 => 0..4096usize, 3 => any::<usize>()], any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        thread_local!(static VALID: Vec<Vec<u8>> = valid());
        let mut bytes = VALID.with(|valid| valid[which].clone());
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::detect(&bytes);
        fuzz::vmdk(&bytes);
        fuzz::vmdk_repair(&bytes);
        fuzz::qcow2(&bytes);
    }

    #[test]
    fn random_tables_behind_a_valid_header_never_panic(
        which in 0..5usize, from in 512..70_000usize, seed in any::<u64>(),
    ) {
        thread_local!(static VALID: Vec<Vec<u8>> = valid());
        let mut bytes = VALID.with(|valid| valid[which].clone());
        // From behind the descriptor or the first cluster on: small numbers, so that tables point into the file.
        let from = from.min(bytes.len() - 1);
        for (place, noise) in bytes[from..].iter_mut().zip(crate::common::fill(Kind::Noise(seed), 20_000)) {
            *place = if noise % 4 == 0 { noise / 16 } else { 0 };
        }
        fuzz::detect(&bytes);
        fuzz::vmdk(&bytes);
        fuzz::vmdk_repair(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_magic_never_panic(magic in 0..3usize, seed in any::<u64>(), length in 0..3000usize) {
        let mut bytes = [&b"KDMV\x01\0\0\0"[..], b"QFI\xfb\0\0\0\x03", b"# Disk DescriptorFile\n"][magic].to_vec();
        bytes.extend(crate::common::fill(Kind::Noise(seed), length));
        fuzz::detect(&bytes);
        fuzz::vmdk(&bytes);
        fuzz::qcow2(&bytes);
    }
}

#[test]
fn a_file_cut_anywhere_is_read_rightly_or_refused() {
    let truth = bytes_of(&plan(300_032).disk());
    for whole in valid() {
        for cut in (0..whole.len()).step_by(509) {
            let Ok(image) = open(whole[..cut].to_vec()) else {
                continue;
            };
            if image.format() == drylab_image::Format::Raw {
                assert!(cut < 8, "a cut container is not raw");
                continue;
            }
            for at in (0..truth.len() - 512).step_by(4096) {
                let mut bytes = [0; 512];
                if image.read_at(at as u64, &mut bytes).is_ok() {
                    assert!(
                        bytes == truth[at..at + 512],
                        "cut at {cut}: wrong bytes at {at}"
                    );
                }
            }
        }
    }
}

#[test]
fn sizes_claimed_in_headers_are_checked_against_file_and_limits() {
    let ten_gib = (10u64 << 30).to_le_bytes();
    refuses(with(sparse(), 12, &[0xff; 8]), &["capacity", "allowed"]);
    refuses(
        with(sparse(), 36, &ten_gib),
        &["descriptor", "past the end"],
    );
    refuses(with(sparse(), 20, &ten_gib), &["grain size"]);
    refuses(
        with(sparse(), 20, &(1u64 << 24).to_le_bytes()),
        &["a grain", "more than"],
    );
    // The redundant directory stands in for the other, and nothing for both.
    let neither = with(with(sparse(), 48, &ten_gib), 56, &ten_gib);
    refuses(neither, &["grain directory", "past the end"]);
    refuses(with(sparse(), 44, &[0; 4]), &["0 entries"]);
    let ours = file(&qcow2(Qcow2Version::V3, 16, false));
    refuses(
        with(ours.clone(), 24, &[0xff; 8]),
        &["virtual size", "allowed"],
    );
    refuses(
        with(ours.clone(), 24, &(1u64 << 40).to_be_bytes()),
        &["L1 table has 1 entries"],
    );
    refuses(with(ours.clone(), 36, &[0xff; 4]), &["L1 table", "allowed"]);
    refuses(
        with(ours.clone(), 40, &(1u64 << 40).to_be_bytes()),
        &["L1 table", "past the end"],
    );
    refuses(
        with(ours.clone(), 40, &[0, 0, 0, 0, 0, 0, 0, 8]),
        &["L1 table", "no multiple"],
    );
    refuses(
        with(ours.clone(), 20, &40u32.to_be_bytes()),
        &["cluster_bits 40"],
    );
    refuses(
        with(ours.clone(), 100, &103u32.to_be_bytes()),
        &["header_length 103"],
    );
    refuses(
        with(ours, 100, &(1u32 << 30).to_be_bytes()),
        &["header_length"],
    );
}

#[test]
fn tables_that_point_to_themselves_or_past_the_end_are_refused() {
    let file_sparse = sparse();
    let directory = le_u32(&file_sparse, 56).unwrap();
    let entry = first_entry(&file_sparse);
    let redundant = le_u32(&file_sparse, 48).unwrap();
    let both = |sector: u32| {
        let first = with(
            file_sparse.clone(),
            directory as usize * 512,
            &sector.to_le_bytes(),
        );
        with(first, redundant as usize * 512, &sector.to_le_bytes())
    };
    let none = ["none of the 1 entries", "grain directory"];
    refuses(both(directory), &none);
    refuses(both(9_999_999), &none);
    let twin = le_u32(&file_sparse, redundant as usize * 512).unwrap() as usize * 512;
    let far = 9_999_999u32.to_le_bytes();
    refuses(
        with(with(file_sparse.clone(), entry, &far), twin, &far),
        &["grain 0", "9999999", "past the end"],
    );

    let ours = file(&qcow2(Qcow2Version::V3, 16, false));
    let l2 = u64::from_be_bytes(ours[65536..65544].try_into().unwrap()) & !(1 << 63);
    let l2 = l2 as usize;
    refuses(
        with(ours.clone(), 65536, &65536u64.to_be_bytes()),
        &["L1 entry 0", "own tables"],
    );
    refuses(
        with(ours.clone(), 65536, &(1u64 << 40).to_be_bytes()),
        &["L1 entry 0", "past the end"],
    );
    refuses(
        with(ours.clone(), l2, &65536u64.to_be_bytes()),
        &["cluster 0", "own tables"],
    );
    refuses(
        with(ours.clone(), l2, &(512u64 * 3).to_be_bytes()),
        &["cluster 0", "no multiple"],
    );
    refuses(
        with(ours.clone(), l2, &(1u64 << 50).to_be_bytes()),
        &["cluster 0", "past the end"],
    );
    refuses(
        with(ours, l2, &(1u64 << 62 | 1 << 40).to_be_bytes()),
        &["cluster 0", "past the end"],
    );
}

#[test]
fn a_stream_whose_grain_is_another_or_damaged_is_refused() {
    let file = stream();
    let grain = 128 * 512;
    refuses(
        with(file.clone(), grain, &128u64.to_le_bytes()),
        &["grain 0", "marker says guest sector 128"],
    );
    refuses(
        with(file.clone(), grain + 8, &[0xff; 4]),
        &["grain 0", "compressed bytes"],
    );
    refuses(
        with(file.clone(), grain + 20, &[0xff; 8]),
        &["grain 0", "deflate stream"],
    );
    // A stream without grains has no markers to fall back on.
    let empty = bytes_of(&*packed(
        &Plan {
            size: 300_032,
            pieces: vec![],
        }
        .disk(),
        &Target::VmdkStream(VmdkOptions::default()),
    ));
    let end = empty.len();
    refuses(
        with(empty.clone(), end - 1536 + 12, &[9]),
        &["unknown type 9"],
    );
    refuses(
        with(empty.clone(), end - 1024 + 56, &[0xff; 8]),
        &["points to a footer again"],
    );
    refuses(empty[..end - 1024].to_vec(), &["no footer marker"]);
}

#[test]
fn features_not_read_are_refused_by_name_and_known_damage_is_noted() {
    let ours = file(&qcow2(Qcow2Version::V3, 16, false));
    refuses(
        with(ours.clone(), 79, &[0x20]),
        &["unsupported", "incompatible feature bits 0x20"],
    );
    refuses(
        with(ours.clone(), 72, &[0x80]),
        &["unsupported", "incompatible feature bits"],
    );
    refuses(
        with(ours.clone(), 32, &1u32.to_be_bytes()),
        &["unsupported", "AES"],
    );
    refuses(
        with(sparse(), 4, &4u32.to_le_bytes()),
        &["unsupported", "version 4"],
    );
    refuses(
        with(sparse(), 11, &[0x80]),
        &["unsupported", "unknown flags"],
    );
    refuses(
        with(sparse(), 28, &[0; 8]),
        &["unsupported", "descriptor is another file"],
    );
    for (bytes, code) in [
        (with(ours.clone(), 79, &[1]), "QCOW2-DIRTY"),
        (with(ours.clone(), 79, &[2]), "QCOW2-CORRUPT"),
        (
            with(ours.clone(), 60, &1u32.to_be_bytes()),
            "QCOW2-SNAPSHOTS",
        ),
        (
            with(ours, 104, &[0x77, 0, 0, 9, 0, 0, 0, 3, 1, 2, 3]),
            "QCOW2-UNKNOWN-EXTENSION",
        ),
        (with(sparse(), 72, &[1]), "VMDK-UNCLEAN"),
        (with(sparse(), 73, b"\n\n\r\n"), "VMDK-NEWLINES"),
    ] {
        let image = open(bytes).unwrap();
        assert!(
            image
                .info()
                .findings
                .list()
                .iter()
                .any(|finding| finding.rule.code == code),
            "{code}"
        );
        crate::common::assert_same(&plan(300_032).disk(), &image);
    }
}

#[test]
fn a_snapshot_and_a_split_disk_are_refused_because_they_need_other_files() {
    let replace = |from: &str, to: &str| {
        let file = sparse();
        let text = String::from_utf8(file[512..21 * 512].to_vec())
            .unwrap()
            .replace(from, to);
        let mut text = text.into_bytes();
        text.resize(20 * 512, 0);
        with(file, 512, &text)
    };
    refuses(
        replace("parentCID=ffffffff", "parentCID=12345678"),
        &["unsupported", "parent disk", "12345678", "does not name"],
    );
    refuses(
        replace("\nRW ", "\nRW 1 SPARSE \"a\"\nRW "),
        &["unsupported", "2 extents"],
    );
    refuses(replace(" SPARSE ", " FLAT "), &["unsupported", "FLAT"]);
    refuses(
        replace("monolithicSparse", "vmfsSparse"),
        &["unsupported", "vmfsSparse"],
    );
}

#[test]
fn an_entry_of_one_is_zeros_only_where_the_flag_says_so() {
    let file = sparse();
    let one = with(file.clone(), first_entry(&file), &1u32.to_le_bytes());
    let redundant = le_u32(&file, 48).unwrap() as usize * 512;
    let redundant = le_u32(&file, redundant).unwrap() as usize * 512;
    let one = with(one, redundant, &1u32.to_le_bytes());
    refuses(one.clone(), &["grain 0", "sector 1", "inside the metadata"]);
    let image = open(with(with(one, 4, &[2]), 8, &[7])).unwrap();
    assert_eq!(image.extent_at(0).kind, drylab_block::ExtentKind::Zero);
    let mut bytes = [1; 512];
    image.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 512]);
}

#[test]
fn a_zero_cluster_is_zeros_in_version_3_and_damage_in_version_2() {
    for (version, good) in [(Qcow2Version::V3, true), (Qcow2Version::V2, false)] {
        let ours = file(&qcow2(version, 16, false));
        let l2 = (u64::from_be_bytes(ours[65536..65544].try_into().unwrap()) & !(1 << 63)) as usize;
        let zero = with(ours, l2 + 7, &[1]);
        if good {
            assert_eq!(
                open(zero).unwrap().extent_at(0).kind,
                drylab_block::ExtentKind::Zero
            );
        } else {
            refuses(zero, &["cluster 0", "zero bit in version 2"]);
        }
    }
}

#[test]
fn a_stream_with_its_directory_named_in_the_header_is_read_too() {
    // As open-vmdk writes it: no footer is consulted, and the file may end with the stream.
    let file = stream();
    let directory: [u8; 8] = file[file.len() - 1024 + 56..][..8].try_into().unwrap();
    let image = open(with(file, 56, &directory)).unwrap();
    assert_eq!(image.info().detail("layout"), Some("front GD"));
    crate::common::assert_same(&plan(300_032).disk(), &image);
}

#[test]
fn the_last_grain_need_not_be_longer_than_the_disk() {
    let file = sparse();
    // 300,032 bytes end 37,888 bytes into the fifth grain.
    let short = file[..file.len() - 65536 + 37_888].to_vec();
    crate::common::assert_same(&plan(300_032).disk(), &open(short.clone()).unwrap());
    refuses(
        short[..short.len() - 1].to_vec(),
        &["grain 4", "past the end"],
    );
}

#[test]
fn a_stream_whose_footer_was_cut_and_whose_header_lost_sectors_has_one_size_throughout_its_repair()
{
    let mut bytes = file(&Target::VmdkStream(VmdkOptions::default()));
    // The header says 513 sectors, the footer and the descriptor 586; the file ends within the fields of the footer.
    bytes[12] = 1;
    bytes.truncate(bytes.len() - 946);
    fuzz::vmdk_repair(&bytes);
}

#[test]
fn a_vmdk_of_two_sizes_has_one_of_them_throughout_its_repair() {
    // The header says one sector, the descriptor two, the directory is lost, and tables have to be moved.
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../corpora/fuzz/vmdk_repair"
    );
    let bytes = std::fs::read(format!("{corpus}/two-sizes-and-a-moved-directory")).unwrap();
    fuzz::vmdk_repair(&bytes);
}
