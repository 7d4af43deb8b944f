//! Which row of knowledge qemu-img 0.12 is said to follow, for one small file each; what it then does is the oracle's.

use drylab_block::{ReadAt, SparseBytes, WriteAt};
use drylab_catalog::Witness;
use drylab_converter::qemu_img_0_12::{Format, convert, create_vpc};
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
