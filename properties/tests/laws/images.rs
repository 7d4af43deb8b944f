//! Laws of disk images, over images that are made by the formats' documents and not by our writers.

use drylab_block::{ReadAt, SparseBytes, content_id};
use drylab_image::{
    Qcow2Options, Target, VdiOptions, VhdOptions, VhdSize, VhdxOptions, VmdkOptions, write,
};
use drylab_properties::strategies::images::{damaged, image};
use drylab_specimen::{Format, judge};
use proptest::prelude::*;
use std::sync::Arc;

fn targets() -> Vec<(&'static str, Target)> {
    vec![
        ("raw", Target::Raw),
        ("vmdk", Target::VmdkSparse(VmdkOptions::default())),
        ("vmdk stream", Target::VmdkStream(VmdkOptions::default())),
        ("qcow2", Target::Qcow2(Qcow2Options::default())),
        ("vhd", Target::VhdDynamic(VhdOptions::default())),
        ("vhdx", Target::VhdxDynamic(VhdxOptions::default())),
        ("vdi", Target::VdiDynamic(VdiOptions::default())),
    ]
}

fn format() -> impl Strategy<Value = Format> {
    proptest::sample::select(Format::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_image_of_any_format_is_read_and_written_into_any_other_with_equal_bytes(
        made in format().prop_flat_map(image),
        target in proptest::sample::select(targets()),
    ) {
        prop_assume!(judge::is_checked(made.format) && made.disk.len() <= 256 << 20);
        prop_assert_eq!(judge::sound(&made), Ok(()));
        let image = judge::open(&made.files).expect("a sound image opens");
        let file = SparseBytes::default();
        write(&image, &target.1, &file).expect("every format holds it");
        let options = drylab_image::Options { vhd_size: VhdSize::Current, ..drylab_image::Options::DEFAULT };
        let again = drylab_image::open_as(Arc::new(file), &options).expect("what was written opens");
        prop_assert_eq!(again.len(), made.disk.len());
        prop_assert_eq!(content_id(&again), content_id(&*made.disk), "{}", target.0);
    }

    #[test]
    fn an_image_with_any_damages_is_answered_and_one_damage_rightly(
        (made, damages) in (format(), 1u32..4).prop_flat_map(|(format, count)| damaged(format, count)),
    ) {
        prop_assume!(judge::is_checked(made.format));
        if let [one] = damages.as_slice() {
            prop_assert!(judge::judge(&made, one).is_ok());
        }
        // Several may hide each other; a panic or an extent out of place is what must not be.
        drop(judge::look(&made.damaged(&damages), &*made.disk));
    }
}
