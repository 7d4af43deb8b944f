//! The fuzz targets, over bytes of all lengths: what they assert holds, and they break nothing.

use drylab_kernel::Streams;
use drylab_specimen::fuzz;

/// Inputs of a target, of lengths from nothing to more than any image asks for.
fn hold(target: fn(&[u8]), name: &str, count: u32) {
    for number in 0..count {
        let mut stream = Streams::new(7).stream(name, number);
        let words = stream.bounded(1200);
        let bytes: Vec<u8> = (0..words)
            .flat_map(|_| stream.word().to_le_bytes()[..2].to_vec())
            .collect();
        // A panic tells the assertion; this tells the input.
        let done = std::panic::catch_unwind(|| target(&bytes));
        assert!(done.is_ok(), "{name}: input {number}");
    }
}

#[test]
fn vmdks_of_any_choices_are_answered_rightly() {
    hold(fuzz::vmdk_structure, "vmdk_structure", 200);
}

#[test]
fn vhds_of_any_choices_are_answered_rightly_and_repaired() {
    hold(fuzz::vhd_structure, "vhd_structure", 200);
}

#[test]
fn vhdxs_of_any_choices_are_answered_rightly() {
    hold(fuzz::vhdx_structure, "vhdx_structure", 40);
}

#[test]
fn qcow2s_of_any_choices_are_answered_rightly() {
    hold(fuzz::qcow2_structure, "qcow2_structure", 200);
}

#[test]
fn vdis_of_any_choices_are_answered_rightly_and_repaired() {
    hold(fuzz::vdi_structure, "vdi_structure", 200);
}
