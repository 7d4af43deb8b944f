//! Files that were a fixed VHD or a VDI, and are told to be raw or another format: never without a word.

use crate::common::{Kind, Piece, Plan, packed};
use crate::vhd_steps::{all, codes, plainly, repaired};
use drylab_block::{Limits, ReadAt, Severity};
use drylab_image::{Format, Image, Target, VdiOptions, VhdOptions};
use std::sync::Arc;

fn plan() -> Plan {
    let pieces = vec![Piece {
        offset: 4096,
        length: 5000,
        kind: Kind::Noise(3),
    }];
    Plan {
        size: 1_200_128,
        pieces,
    }
}

fn fixed() -> Vec<u8> {
    all(&*packed(
        &plan().disk(),
        &Target::VhdFixed(VhdOptions::default()),
    ))
}

#[track_caller]
fn tells(bytes: Vec<u8>, format: Format, expected: &[&str]) {
    let length = bytes.len();
    let image = plainly(Arc::new(bytes)).unwrap();
    assert_eq!(image.format(), format);
    let found = image.check().unwrap();
    assert_eq!(codes(found.list()), expected);
    assert_eq!(codes(image.info().findings.list()), expected);
    if format == Format::Raw && !expected.is_empty() {
        assert_eq!(found.worst(), Some(Severity::Warning));
        assert_eq!(image.len(), length as u64);
        assert!(
            image.repair().unwrap().is_empty(),
            "which of both it is, a person says"
        );
    }
}

#[test]
fn a_file_that_ends_with_a_fixed_vhds_footer_and_more_is_raw_with_a_warning() {
    for sectors in [1, 2, 8, 128] {
        let more = [fixed(), vec![0; 512 * sectors]].concat();
        tells(more, Format::Raw, &["RAW-VHD-FOOTER"]);
    }
    let more = [fixed(), b"some other bytes".repeat(32)].concat();
    tells(more, Format::Raw, &["RAW-VHD-FOOTER"]);
}

#[test]
fn a_file_whose_footer_lacks_only_its_cookie_is_raw_with_a_warning() {
    let good = fixed();
    let last = good.len() - 512;
    for at in 0..8 {
        let mut bytes = good.clone();
        bytes[last + at] ^= 0x20;
        tells(bytes, Format::Raw, &["RAW-VHD-FOOTER"]);
    }
    // A raw disk whose last bytes are no such footer is only raw.
    tells(good[..last].to_vec(), Format::Raw, &[]);
    // Nor is one that holds a VHD as the guest's file: its footer speaks of another length.
    tells(
        [vec![7; 512], good, vec![0; 512]].concat(),
        Format::Raw,
        &[],
    );
}

#[test]
fn a_fixed_disk_whose_footer_fits_the_file_but_for_its_checksum_is_read_and_mended() {
    let good = fixed();
    let last = good.len() - 512;
    for at in 0x40..0x44 {
        let mut bytes = good.clone();
        bytes[last + at] ^= 4;
        tells(bytes.clone(), Format::Vhd, &["VHD-FOOTER-CHECKSUM"]);
        let disk = all(&plainly(Arc::new(bytes.clone())).unwrap());
        assert!(disk[..] == good[..last]);
        assert!(repaired(&bytes, &["VHD-FOOTER-CHECKSUM"], &plainly) == good);
    }
    // The size, the geometry, the type, reserved bytes: then it is not the checksum alone that is in doubt.
    for at in [0x08, 0x0c, 0x10, 0x32, 0x36, 0x39, 0x3b, 0x3f, 0x60] {
        let mut bytes = good.clone();
        bytes[last + at] ^= 1;
        let error = plainly(Arc::new(bytes)).map(drop).unwrap_err().to_string();
        assert!(error.contains("checksum"), "{at:#x}: {error}");
    }
}

#[test]
fn a_file_with_a_vdis_text_and_without_its_signature_is_raw_with_a_warning() {
    for options in [VdiOptions::qemu(), VdiOptions::default()] {
        let mut bytes = all(&*packed(&plan().disk(), &Target::VdiDynamic(options)));
        // With it, it is a VDI that somebody wants to be read raw.
        let raw = Image::raw(Arc::new(bytes.clone()), &Limits::DEFAULT).unwrap();
        assert!(raw.check().unwrap().is_empty());
        bytes[0x41] = 0;
        tells(bytes.clone(), Format::Raw, &["RAW-VDI-HEADER"]);
        bytes[..4].fill(0);
        tells(bytes, Format::Raw, &[]);
    }
}

#[test]
fn a_fixed_vhd_whose_guest_begins_as_another_format_is_that_format_with_a_warning() {
    let mut guest = all(&*packed(
        &plan().disk(),
        &Target::Qcow2(drylab_image::Qcow2Options::default()),
    ));
    guest.resize(guest.len().next_multiple_of(512), 0);
    let around = all(&*packed(&guest, &Target::VhdFixed(VhdOptions::default())));
    let image = plainly(Arc::new(around.clone())).unwrap();
    assert_eq!(image.format(), Format::Qcow2);
    let found = image.check().unwrap();
    assert!(
        found.counts().contains_key("VHD-TWO-READINGS"),
        "{:?}",
        codes(found.list())
    );
    assert!(
        image
            .info()
            .findings
            .counts()
            .contains_key("VHD-TWO-READINGS")
    );
    tells(guest, Format::Qcow2, &[]);
}
