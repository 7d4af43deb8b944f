//! What is written is read again, whatever the route, the pieces or the holes.

use crate::common::{Dense, Kind, Piece, Plan, assert_same, fits, opened, packed, plans, targets};
use drylab_block::{Extents, ReadAt, SparseBytes, WriteAt, content_id};
use drylab_image::{Target, VmdkOptions};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read_again(plan in plans(5 * GIB), target in targets()) {
        prop_assume!(fits(&plan, &target));
        let disk = plan.disk();
        let file = packed(&disk, &target);
        prop_assert_eq!(drylab_image::file_size(&disk, &target).unwrap(), file.len());
        let image = opened(file);
        let known = ["RAW-PARTIAL-SECTOR", "VHD-TWO-SIZES"];
        prop_assert!(image.info().findings.list().iter().all(|finding| known.contains(&finding.rule.code)));
        assert_same(&disk, &image);
    }

    #[test]
    fn any_way_through_other_containers_gives_the_same_file(
        plan in plans(3 * GIB), first in targets(), second in targets(), last in targets(),
    ) {
        prop_assume!([&first, &second, &last].iter().all(|target| fits(&plan, target)));
        let size = plan.size.next_multiple_of(512);
        let disk = Plan { size, ..plan }.disk();
        let way = opened(packed(&opened(packed(&disk, &first)), &second));
        let (direct, indirect) = (packed(&disk, &last), packed(&way, &last));
        prop_assert_eq!(direct.len(), indirect.len());
        prop_assert_eq!(content_id(&*direct).unwrap(), content_id(&*indirect).unwrap());
    }

    #[test]
    fn reading_in_pieces_is_reading_at_once(
        plan in plans(4 << 20), target in targets(), cuts in prop::collection::vec(any::<u64>(), 1..12),
    ) {
        let image = opened(packed(&plan.disk(), &target));
        let mut whole = vec![0; image.len() as usize];
        image.read_at(0, &mut whole).unwrap();
        let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut % (image.len() + 1)).chain([0, image.len()]).collect();
        cuts.sort_unstable();
        let mut pieces = vec![0xff; whole.len()];
        // Backwards, so that the caches do not help.
        for pair in cuts.windows(2).rev() {
            image.read_at(pair[0], &mut pieces[pair[0] as usize..pair[1] as usize]).unwrap();
        }
        prop_assert!(whole == pieces);
        prop_assert!(image.read_at(image.len(), &mut [0]).is_err());
    }

    #[test]
    fn holes_and_written_zeros_give_the_same_file(plan in plans(64 << 20), target in targets()) {
        let disk = plan.disk();
        let (sparse, dense) = (packed(&disk, &target), packed(&Dense(&disk), &target));
        prop_assert_eq!(sparse.len(), dense.len());
        prop_assert_eq!(content_id(&*sparse).unwrap(), content_id(&*dense).unwrap());
    }
}

#[test]
fn the_map_of_an_image_names_only_what_was_written() {
    let piece = Piece {
        offset: 3 * GIB,
        length: 1000,
        kind: Kind::Text(1),
    };
    let disk = Plan {
        size: 4 * GIB,
        pieces: vec![piece],
    }
    .disk();
    for target in [
        Target::VmdkSparse(VmdkOptions::default()),
        Target::Qcow2(Default::default()),
    ] {
        let image = opened(packed(&disk, &target));
        let bytes: Vec<_> = Extents::new(&image)
            .filter(|extent| extent.kind.has_bytes())
            .collect();
        assert_eq!(bytes.len(), 1, "{target:?}");
        assert_eq!((bytes[0].offset, bytes[0].length), (3 * GIB, 65536));
    }
}

#[test]
fn a_sink_that_held_other_bytes_holds_only_the_new_file() {
    let disk = Plan {
        size: 1 << 20,
        pieces: vec![],
    }
    .disk();
    for target in [
        Target::Raw,
        Target::VmdkSparse(VmdkOptions::default()),
        Target::Qcow2(Default::default()),
        Target::VhdFixed(Default::default()),
        Target::VhdDynamic(Default::default()),
        Target::VdiFixed(Default::default()),
        Target::VdiDynamic(Default::default()),
    ] {
        let (fresh, used) = (SparseBytes::default(), SparseBytes::default());
        used.write_at(0, &vec![0xee; 3 << 20]).unwrap();
        drylab_image::write(&disk, &target, &fresh).unwrap();
        drylab_image::write(&disk, &target, &used).unwrap();
        assert_eq!(fresh.len(), used.len());
        assert_eq!(content_id(&fresh).unwrap(), content_id(&used).unwrap());
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let disk = SparseBytes::new(512);
    for cluster_bits in [0, 8, 22, 64] {
        let options = drylab_image::Qcow2Options {
            cluster_bits,
            ..Default::default()
        };
        assert!(drylab_image::file_size(&disk, &Target::Qcow2(options)).is_err());
    }
    let options = drylab_image::VhdOptions {
        block_bytes: 1 << 20,
        ..Default::default()
    };
    assert!(drylab_image::file_size(&disk, &Target::VhdDynamic(options)).is_err());
    for (block_bytes, alignment) in [
        (2048, 512),
        (1 << 27, 512),
        (5000, 512),
        (4096, 256),
        (4096, 1 << 21),
    ] {
        let options = drylab_image::VdiOptions {
            block_bytes,
            alignment,
            ..Default::default()
        };
        assert!(drylab_image::file_size(&disk, &Target::VdiFixed(options)).is_err());
    }
    let huge = SparseBytes::new(1 << 47);
    assert!(drylab_image::file_size(&huge, &Target::VmdkStream(VmdkOptions::default())).is_err());
}

#[test]
fn a_disk_of_no_bytes_can_be_written_and_read() {
    for target in [
        Target::Raw,
        Target::VmdkSparse(VmdkOptions::default()),
        Target::VmdkStream(VmdkOptions::default()),
        Target::Qcow2(Default::default()),
        Target::VhdFixed(Default::default()),
        Target::VhdDynamic(Default::default()),
        Target::VdiFixed(Default::default()),
        Target::VdiDynamic(Default::default()),
    ] {
        assert_eq!(
            opened(packed(&SparseBytes::new(0), &target)).len(),
            0,
            "{target:?}"
        );
    }
}
