//! What a plan for another size says to people, the same in all formats.

use crate::common::{opened, packed};
use drylab_block::{ReadAt, SparseBytes};
use drylab_image::vhd::VhdFit;
use drylab_image::{Image, Qcow2Options, Target, VdiOptions, VhdOptions, VhdxOptions, VmdkOptions};

const MIB: u64 = 1 << 20;

fn image_of(target: &Target) -> Image {
    opened(packed(&SparseBytes::new(4 * MIB), target))
}

fn notes(target: &Target, size: u64) -> String {
    image_of(target).resize(size).unwrap().notes().join("; ")
}

#[test]
fn every_format_says_how_much_of_the_disk_a_shrink_gives_up() {
    for target in [
        Target::Raw,
        Target::VmdkSparse(VmdkOptions::default()),
        Target::VhdFixed(VhdOptions::default()),
        Target::VhdDynamic(VhdOptions::default()),
        Target::VhdxFixed(VhdxOptions::default()),
        Target::VhdxDynamic(VhdxOptions::default()),
        Target::VdiFixed(VdiOptions::default()),
        Target::VdiDynamic(VdiOptions::default()),
        Target::Qcow2(Qcow2Options::default()),
    ] {
        let said = notes(&target, MIB);
        assert!(
            said.contains("the last 3145728 bytes"),
            "{target:?}: {said}"
        );
        assert!(!notes(&target, 5 * MIB).contains("the last"), "{target:?}");
    }
}

#[test]
fn a_size_that_a_format_does_not_have_is_said_with_the_one_that_it_gets() {
    let vhd = |fit| {
        Target::VhdDynamic(VhdOptions {
            fit,
            ..VhdOptions::qemu(true)
        })
    };
    for (target, size, says) in [
        (
            Target::VdiDynamic(VdiOptions::default()),
            5 * MIB + 1,
            "gets 5243392 bytes, 5242881 were asked for",
        ),
        (
            vhd(VhdFit::Kept),
            5 * MIB + 1,
            "gets 5243392 bytes, 5242881 were asked for",
        ),
        (
            Target::VhdDynamic(VhdOptions::qemu(false)),
            5 * MIB,
            "5242880 were asked for: readers of this creator take the size of its geometry",
        ),
    ] {
        let said = notes(&target, size);
        assert!(said.contains(says), "{said}");
        let own = image_of(&target).len();
        assert_eq!(notes(&target, own), "", "{target:?}");
    }
}
