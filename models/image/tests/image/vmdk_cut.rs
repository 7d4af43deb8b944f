//! Hosted sparse extents that end too early or too late: what QEMU refuses for it is said, and mended.

use crate::common::{Kind, Piece, Plan, have_qemu_img, opened, packed};
use crate::vmdk_damage::{After, bytes_of, damage, file_of, stream};
use crate::vmdk_mended::{codes, mended, sparse_of};
use drylab_image::profile::{Does, LIBVIRT};
use drylab_image::{Target, VmdkOptions};
use std::process::Command;

/// `overHead` of the disks made here.
const OVERHEAD: usize = 128 * 512;

/// A disk of 3 MiB with grains in its first 2.
fn three_mib() -> Vec<u8> {
    let noise = Piece {
        offset: 0,
        length: 2 << 20,
        kind: Kind::Noise(5),
    };
    let plan = Plan {
        size: 3 << 20,
        pieces: vec![noise],
    };
    sparse_of(&plan.disk())
}

/// What `qemu-img info` says of a file: its words, and whether it opened it.
fn qemu_info(file: &[u8]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.vmdk");
    std::fs::write(&path, file).unwrap();
    let how = ["info", "-f", "vmdk"];
    let done = Command::new("qemu-img").args(how).arg(&path).output();
    let done = done.unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.success(), said)
}

#[test]
fn a_file_cut_in_front_of_overhead_is_found_and_gets_its_length_back() {
    let whole = three_mib();
    for length in [OVERHEAD - 536, 27_204, 12_288] {
        let cut = &whole[..length];
        assert!(codes(cut).contains(&"VMDK-OVERHEAD-CUT"), "{length}");
        let after = mended(cut);
        assert_eq!(after.len(), OVERHEAD, "{length}");
        assert!(codes(&after).is_empty(), "{length}: {:?}", codes(&after));
        assert!(bytes_of(&opened(file_of(&after))).iter().all(|b| *b == 0));
        if have_qemu_img() {
            let (opens, said) = qemu_info(cut);
            assert!(!opens && said.contains("File truncated"), "{said}");
            let (opens, said) = qemu_info(&after);
            assert!(opens, "{length}: {said}");
        }
    }
    // A sector that was begun is one to QEMU.
    let begun = &whole[..OVERHEAD - 100];
    assert!(!codes(begun).contains(&"VMDK-OVERHEAD-CUT"));
    assert!(!have_qemu_img() || qemu_info(begun).0);
}

#[test]
fn a_disk_of_zeros_cut_in_front_of_overhead_loses_nothing() {
    let size = 3 << 20;
    let plan = Plan {
        size,
        pieces: Vec::new(),
    };
    let whole = sparse_of(&plan.disk());
    let zeros = vec![0; size as usize];
    let code = "VMDK-OVERHEAD-CUT";
    damage(
        "cut",
        &whole[..32 * 512],
        code,
        (64, 8),
        After::Reads(&zeros),
    );
}

#[test]
fn an_overhead_that_no_layout_explains_is_led_into_the_file() {
    let file = sparse_of(
        &Plan {
            size: 3 << 20,
            pieces: Vec::new(),
        }
        .disk(),
    );
    for far in [1u64 << 20, 1 << 60, u64::MAX] {
        let wrong = crate::vmdk_damage::with(file.clone(), &[(64, &far.to_le_bytes())]);
        assert_eq!(codes(&wrong), ["VMDK-OVERHEAD-CUT"]);
        let after = mended(&wrong);
        assert!(after.len() <= file.len() && codes(&after).is_empty());
        assert!(!have_qemu_img() || qemu_info(&after).0);
    }
}

#[test]
fn a_stream_with_its_directory_in_front_that_was_cut_there_ends_with_the_marker_of_its_end() {
    if !have_qemu_img() {
        return;
    }
    let whole = crate::vmdk_mended::stream_of_qemu_img();
    let cut = &whole[..27_204];
    assert!(codes(cut).contains(&"VMDK-OVERHEAD-CUT") && !qemu_info(cut).0);
    let after = mended(cut);
    assert_eq!(codes(&after), ["VMDK-NOT-A-STREAM"]);
    assert_eq!(after.len(), OVERHEAD + 512);
    assert!(qemu_info(&after).0);
}

#[test]
fn a_footer_that_is_not_at_the_end_of_the_file_is_said_to_hide_the_disk_from_qemu() {
    let file = stream();
    let longer = [&file[..], &[0; 512]].concat();
    let shorter = file[..file.len() - 512].to_vec();
    for (code, odd) in [
        ("VMDK-TRAILING-BYTES", longer),
        ("VMDK-NO-END-OF-STREAM", shorter),
    ] {
        let found = opened(file_of(&odd)).check().unwrap();
        let [finding] = found.list() else {
            panic!("{found:?}")
        };
        assert_eq!(finding.rule.code, code);
        assert!(finding.rule.effect.contains("QEMU"));
        let rows = LIBVIRT.reactions("streamOptimized", &found);
        assert!(
            matches!(&rows[..], [(_, row)] if row.does == Does::Refuses),
            "{code}"
        );
        if have_qemu_img() {
            let (opens, said) = qemu_info(&odd);
            assert!(!opens && said.contains("footer"), "{code}: {said}");
            assert!(qemu_info(&mended(&odd)).0, "{code}");
        }
    }
    // Without a footer nobody looks for one.
    let sparse = packed(
        &crate::vmdk_damage::disk(crate::vmdk_damage::SIZE),
        &Target::VmdkSparse(VmdkOptions::default()),
    );
    let longer = [&bytes_of(&*sparse)[..], &[0; 512]].concat();
    assert!(codes(&longer).is_empty());
}
