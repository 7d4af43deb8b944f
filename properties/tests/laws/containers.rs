//! Law 45: the same bytes in any container give the same inspection and the same prediction.

use crate::library;
use drylab_block::{Limits, ReadAt, SparseBytes, content_id};
use drylab_guest::inspect::GuestDisk;
use drylab_image::{Qcow2Options, Qcow2Version, Target, VmdkOptions, open, write};
use drylab_pipeline::{Library, PredictedFinding, Prediction, predict};
use drylab_scenario::Scenario;
use std::sync::Arc;

fn containers() -> Vec<(&'static str, Target)> {
    let v2 = Qcow2Options {
        version: Qcow2Version::V2,
        ..Qcow2Options::default()
    };
    vec![
        ("raw", Target::Raw),
        ("vmdk sparse", Target::VmdkSparse(VmdkOptions::default())),
        ("vmdk stream", Target::VmdkStream(VmdkOptions::default())),
        ("qcow2", Target::Qcow2(Qcow2Options::default())),
        ("qcow2 version 2", Target::Qcow2(v2)),
    ]
}

fn of_the_guest(prediction: &Prediction) -> Vec<&PredictedFinding> {
    let guest = |finding: &&PredictedFinding| finding.id.starts_with("guest.");
    prediction.findings.iter().filter(guest).collect()
}

#[test]
fn law_45_a_golden_disk_is_predicted_alike_in_every_container() {
    let mut failures = 0;
    for guest in Library::guests() {
        for source in library().products.keys() {
            let installed = Scenario::new(guest.as_str(), source.as_str(), source.as_str(), "");
            let plain = library().source_disk(&installed).expect("a golden disk");
            let name = content_id(&plain.disk.bytes).expect("a readable disk");
            let expected: Vec<Prediction> = library()
                .products
                .keys()
                .map(|target| predict(library(), &plain.disk, target).expect("a golden guest"))
                .collect();
            failures += expected
                .iter()
                .filter(|found| {
                    of_the_guest(found)
                        .iter()
                        .any(|finding| !finding.remedy.is_empty())
                })
                .count();
            for (container, target) in containers() {
                let file = SparseBytes::default();
                write(&plain.disk.bytes, &target, &file).expect("a golden disk can be written");
                let image = open(Arc::new(file), &Limits::DEFAULT).expect("what we wrote opens");
                let bytes: Arc<dyn ReadAt> = Arc::new(image);
                assert_eq!(
                    content_id(&bytes),
                    Ok(name),
                    "{guest} from {source} in {container}"
                );
                let contained = GuestDisk::new(bytes);
                for expected in &expected {
                    let found = predict(library(), &contained, &expected.target)
                        .expect("still a golden guest");
                    assert_eq!(
                        of_the_guest(&found),
                        of_the_guest(expected),
                        "{guest} from {source} in {container}"
                    );
                }
            }
        }
    }
    assert!(
        failures > 0,
        "predictions that find nothing compare nothing"
    );
}
