//! Which row of knowledge qemu-img 0.12 is said to follow, for one small file each; what it then does is the oracle's.

use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, read_vec};
use drylab_catalog::Witness;
use drylab_converter::qemu_img_0_12::{Format, convert, create_vpc};
use drylab_converter::qemu_img_10;
use drylab_image::{Target, VhdOptions, VmdkOptions, write};
use std::sync::Arc;

fn disk(size: u64) -> SparseBytes {
    let disk = SparseBytes::new(size);
    disk.write_at(0, b"first").unwrap();
    disk
}

fn file(target: &Target) -> Arc<dyn ReadAt> {
    let file = SparseBytes::default();
    write(&disk(8 << 20), target, &file).unwrap();
    Arc::new(file)
}

fn bytes(head: &[u8], length: usize) -> Arc<dyn ReadAt> {
    let mut bytes = head.to_vec();
    bytes.resize(length, 0);
    Arc::new(bytes)
}

/// Notes of a conversion or the witnesses of its error.
fn why(file: &Arc<dyn ReadAt>, declared: Option<&str>, output: Format) -> Vec<Witness> {
    match convert(file, declared, output) {
        Ok(made) => made.notes,
        Err(error) => error.witness,
    }
}

#[test]
fn each_kind_of_input_is_named_by_its_row_and_a_plain_disk_by_none() {
    let mut vdi = b"<<< QEMU VM Virtual Disk Image >>>\n".to_vec();
    vdi.resize(64, 0);
    vdi.extend(0xbeda_107f_u32.to_le_bytes());
    vdi.extend(0x0001_0001_u32.to_le_bytes());
    vdi.resize(368, 0);
    vdi.extend(((8_u64 << 20) + 512).to_le_bytes());
    let rows: [(&str, Arc<dyn ReadAt>, Option<&str>); 6] = [
        (
            "GQ111",
            file(&Target::VmdkStream(VmdkOptions::default())),
            None,
        ),
        (
            "GQ115",
            file(&Target::VhdFixed(VhdOptions::default())),
            None,
        ),
        (
            "GQ115",
            file(&Target::VhdFixed(VhdOptions::default())),
            Some("vpc"),
        ),
        ("GQ116", bytes(b"vhdxfile", 1 << 20), None),
        ("GQ116", bytes(b"vhdxfile", 1 << 20), Some("vhdx")),
        ("GQ119", bytes(&vdi, 1 << 20), None),
    ];
    let plain: Arc<dyn ReadAt> = Arc::new(disk(8 << 20));
    assert_eq!(why(&plain, None, Format::Raw), []);
    for (id, file, declared) in rows {
        let found = why(&file, declared, Format::Raw);
        assert!(found.contains(&Witness::quirk(id)), "{id}: {found:?}");
    }
}

#[test]
fn each_kind_of_output_is_named_by_its_row() {
    let of = |size: u64, output| why(&(Arc::new(disk(size)) as Arc<dyn ReadAt>), None, output);
    let cites = |found: &[Witness], id| found.contains(&Witness::quirk(id));
    assert!(cites(&of(8 << 20, Format::Vmdk), "GQ117"));
    let grown = of(8 << 30, Format::Vpc);
    assert!(
        cites(&grown, "GQ108"),
        "8 GiB end on no cylinder: {grown:?}"
    );
    let spare = of(16 << 30, Format::Vpc);
    assert!(
        cites(&spare, "GQ123"),
        "one block more than it needs: {spare:?}"
    );
    assert!(cites(&of(130 << 30, Format::Vpc), "GQ114"));
    assert!(create_vpc(130 << 30).is_err());
    let even = of(17 * 4 * 296 * 512, Format::Vpc);
    assert!(!cites(&even, "GQ108"), "whole cylinders stay: {even:?}");
}

fn read(file: &Arc<dyn ReadAt>, offset: u64, length: u64) -> Vec<u8> {
    read_vec(file, "file", offset, length, &Limits::DEFAULT).unwrap()
}

#[test]
fn a_stream_with_its_directory_in_front_becomes_other_bytes_without_a_word() {
    let disk: Arc<dyn ReadAt> = Arc::new(disk(8 << 20));
    let now = |input: &Arc<dyn ReadAt>, declared, output| {
        let made = qemu_img_10::convert(input, declared, output);
        made.unwrap().file
    };
    // qemu-img 10 writes such a stream, and reads it back.
    let stream = now(&disk, Some("raw"), qemu_img_10::Format::VmdkStream);
    let read_back = now(&stream, None, qemu_img_10::Format::Raw);
    assert_eq!(read(&read_back, 0, 8 << 20), read(&disk, 0, 8 << 20));
    let made = convert(&stream, None, Format::Raw).unwrap();
    assert_eq!((made.exit, made.message.as_str()), (0, ""));
    assert_eq!(made.file.len(), disk.len());
    // The marker of a compressed grain: its sector, the length of its data, and the data, which deflate begins with 78h.
    let head = read(&made.file, 0, 13);
    assert_eq!((&head[..8], head[12]), (&[0; 8][..], 0x78), "{head:x?}");
    assert!(made.notes.contains(&Witness::quirk("GQ110")));
    let plain = now(&disk, Some("raw"), qemu_img_10::Format::Vmdk);
    let made = convert(&plain, None, Format::Raw).unwrap();
    assert_eq!(read(&made.file, 0, 8 << 20), read(&disk, 0, 8 << 20));
    assert!(!made.notes.contains(&Witness::quirk("GQ110")));
}

/// A delta disk of ESX: grains of one sector, tables of 4096 entries, and sectors 100 and 600 allocated.
fn delta_disk() -> Arc<dyn ReadAt> {
    const SECTOR: u64 = 512;
    let (directory, table, grains) = (4, 8, 64);
    let file = SparseBytes::default();
    let mut head = b"COWD".to_vec();
    for word in [1u32, 3, 8192, 1, directory, 2, grains + 2] {
        head.extend(word.to_le_bytes());
    }
    file.write_at(0, &head).unwrap();
    let put = |sector: u32, entry: u64, value: u32| {
        let at = u64::from(sector) * SECTOR + entry * 4;
        file.write_at(at, &value.to_le_bytes()).unwrap();
    };
    put(directory, 0, table);
    for ((sector, text), place) in [(100, b"near"), (600, b"far.")].into_iter().zip(grains..) {
        put(table, sector, place);
        file.write_at(u64::from(place) * SECTOR, text).unwrap();
    }
    file.set_len(u64::from(grains + 2) * SECTOR).unwrap();
    Arc::new(file)
}

#[test]
fn of_a_delta_disk_of_esx_what_lies_beyond_the_512th_grain_is_lost_without_a_word() {
    let made = convert(&delta_disk(), None, Format::Raw).unwrap();
    assert_eq!((made.exit, made.message.as_str()), (0, ""));
    assert_eq!(made.file.len(), 8192 * 512);
    assert_eq!(read(&made.file, 100 * 512, 4), b"near");
    // Grain 600 is looked for in a second table, where a directory of tables of 512 entries has it.
    assert_eq!(read(&made.file, 600 * 512, 4), [0; 4]);
    assert!(made.notes.contains(&Witness::quirk("GQ118")));
}

#[test]
fn without_force_size_a_vhd_of_today_ends_on_a_cylinder_and_on_no_mib() {
    let disk: Arc<dyn ReadAt> = Arc::new(disk(8 << 30));
    let written = |force_size| {
        let output = qemu_img_10::Format::Vpc {
            fixed: false,
            force_size,
        };
        let made = qemu_img_10::convert(&disk, Some("raw"), output).unwrap();
        let size = drylab_image::open(made.file, &Limits::DEFAULT)
            .unwrap()
            .virtual_size();
        (size, made.notes.contains(&Witness::quirk("GQ121")))
    };
    let (size, is_cited) = written(false);
    assert!(size > 8 << 30 && !size.is_multiple_of(1 << 20), "{size}");
    assert!(is_cited);
    assert_eq!(written(true), (8 << 30, false));
}
