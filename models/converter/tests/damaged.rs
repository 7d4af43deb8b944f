//! Damaged and foreign bytes: an answer each time, never a panic.

use drylab_block::{Extents, Limits, ReadAt, SparseBytes, WriteAt, read_vec};
use drylab_converter::fuzz;
use drylab_converter::qemu_img_0_12::{Format, convert, info};
use proptest::prelude::*;
use std::sync::Arc;

/// A disk of 1 MiB with a few runs of data, the last at `tail`.
fn disk(seed: u64, tail: u64) -> Arc<dyn ReadAt> {
    let disk = SparseBytes::new(1 << 20);
    for (number, at) in [0u64, 70_000, 300_000, tail].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..700u64)
            .map(|i| (seed.wrapping_mul(31) + i * 7 + number as u64) as u8 | 1)
            .collect();
        disk.write_at(at, &bytes).unwrap();
    }
    Arc::new(disk)
}

fn bytes_of(file: &Arc<dyn ReadAt>) -> Vec<u8> {
    read_vec(file, "file", 0, file.len(), &Limits::DEFAULT).unwrap()
}

const FORMATS: [Format; 4] = [Format::Raw, Format::Vmdk, Format::Vpc, Format::Qcow2];
const OVF: &str = include_str!("descriptors/guest.ovf");
const VMX: &str = include_str!("descriptors/guest.vmx");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_the_tool_writes_it_reads_back_to_the_same_bytes(seed in any::<u64>(), tail in 400_000u64..1_000_000) {
        let disk = disk(seed, tail);
        let bytes = bytes_of(&disk);
        for format in FORMATS {
            let made = convert(&disk, Some("raw"), format).unwrap();
            prop_assert_eq!(made.exit, 0);
            let declared = if format == Format::Raw { Some("raw") } else { None };
            let back = convert(&made.file, declared, Format::Raw).unwrap();
            let back = bytes_of(&back.file);
            let shorter = back.len().min(bytes.len());
            prop_assert_eq!(&back[..shorter], &bytes[..shorter]);
            prop_assert!(bytes[shorter..].iter().all(|byte| *byte == 0), "only zeros may be lost with exit 0");
            prop_assert!(format == Format::Vpc || back.len() == bytes.len());
        }
    }

    #[test]
    fn damaged_images_never_panic(seed in any::<u64>(), format in 1usize..4, hits in proptest::collection::vec((0usize..2048, any::<u8>()), 0..6), cut in 0usize..2_000_000) {
        let made = convert(&disk(seed, 500_000), Some("raw"), FORMATS[format]).unwrap();
        let mut bytes = bytes_of(&made.file);
        for (at, byte) in hits {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut.max(64));
        fuzz::qemu_img(&bytes);
    }

    #[test]
    fn damaged_descriptors_never_panic(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5), cut in any::<prop::sample::Index>()) {
        for (text, target) in [(OVF, fuzz::virt_convert_ovf as fn(&[u8])), (VMX, fuzz::virt_convert_vmx)] {
            let mut bytes = text.as_bytes().to_vec();
            for (at, byte) in &hits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            target(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            target(&bytes);
        }
    }
}

#[test]
fn a_header_that_claims_ten_gibibytes_of_tables_costs_nothing() {
    let mut vmdk = vec![0u8; 4096];
    vmdk[..4].copy_from_slice(b"KDMV");
    vmdk[0x0c..0x14].copy_from_slice(&(1u64 << 60).to_le_bytes());
    vmdk[0x14..0x1c].copy_from_slice(&1u64.to_le_bytes());
    vmdk[0x2c..0x30].copy_from_slice(&1u32.to_le_bytes());
    let file: Arc<dyn ReadAt> = Arc::new(vmdk);
    let error = info(&file, None).unwrap_err();
    assert_eq!(error.message, "qemu-img: Could not open 'disk'");
    assert!(
        error
            .witness
            .iter()
            .any(|witness| witness.says.contains("more than")),
        "{:?}",
        error.witness
    );
}

#[test]
fn a_disk_of_many_terabytes_in_a_small_file_is_converted_by_its_holes() {
    let mut qcow2 = bytes_of(
        &convert(&disk(1, 500_000), Some("raw"), Format::Qcow2)
            .unwrap()
            .file,
    );
    qcow2[0x18..0x20].copy_from_slice(&(500u64 << 20).to_be_bytes());
    let file: Arc<dyn ReadAt> = Arc::new(qcow2);
    let made = convert(&file, None, Format::Vmdk).unwrap();
    assert_eq!(info(&made.file, None).unwrap().virtual_size, 500 << 20);
    assert!(made.file.len() < 1 << 20);
}

/// A few bytes may claim terabytes; how much of a disk is nowhere is then told in as few words.
#[test]
fn a_vast_claim_of_a_small_file_is_told_in_a_few_extents() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpora/fuzz/qemu_img");
    for (name, declared) in [
        ("parallels-two-terabytes", "parallels"),
        ("qed-half-an-exabyte", "qed"),
        ("vmdk-tables-behind-the-end", "vmdk"),
    ] {
        let bytes = std::fs::read(format!("{folder}/{name}")).expect("it is kept");
        let file: Arc<dyn ReadAt> = Arc::new(bytes);
        let raw = convert(&file, Some(declared), Format::Raw).expect("it opens");
        assert!(raw.file.len() > 1 << 40, "{name} claims {}", raw.file.len());
        assert!(Extents::new(&raw.file).take(64).count() < 64, "{name}");
    }
}
