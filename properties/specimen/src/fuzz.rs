//! What a fuzzer calls: bytes make an image and damages to it, and the reader must answer them as the format's rules ask.
//!
//! A fuzzer that mutates files spends most of its time on checksums, magics and lengths; one that mutates choices is behind
//! them from the first input on, and every input has a right answer, so that not only panics are found.

use crate::choices::{Choices, index};
use crate::judge;
use crate::specimen::{File, Format, Specimen};
use arbitrary::Unstructured;
use drylab_block::ReadAt;

/// Most bytes of a file that are handed to the reader's own entry points, which copy it for each step of a repair; a VHDX
/// has megabytes in any case.
fn bytes_max(format: Format) -> u64 {
    match format {
        Format::Vhdx => 8 << 20,
        _ => 1 << 20,
    }
}

/// The reader's own entry points: open and walk, repair.
type Reader = fn(&[u8]);

/// A VMDK of choices.
pub fn vmdk_structure(data: &[u8]) {
    let readers: [Reader; 2] = [drylab_image::fuzz::vmdk, drylab_image::fuzz::vmdk_repair];
    structure(Format::Vmdk, &readers, data);
}

/// A VHD of choices.
pub fn vhd_structure(data: &[u8]) {
    let readers: [Reader; 2] = [drylab_image::fuzz::vhd, drylab_image::fuzz::vhd_repair];
    structure(Format::Vhd, &readers, data);
}

/// A VHDX of choices.
pub fn vhdx_structure(data: &[u8]) {
    structure(Format::Vhdx, &[drylab_image::fuzz::vhdx], data);
}

/// A qcow2 of choices.
pub fn qcow2_structure(data: &[u8]) {
    structure(Format::Qcow2, &[drylab_image::fuzz::qcow2], data);
}

/// A VDI of choices.
pub fn vdi_structure(data: &[u8]) {
    let readers: [Reader; 2] = [drylab_image::fuzz::vdi, drylab_image::fuzz::vdi_repair];
    structure(Format::Vdi, &readers, data);
}

/// How many damages an image gets: half of all images one, since only the answers to one are known.
const DAMAGES: [u8; 6] = [0, 1, 1, 1, 2, 3];

/// No damage: the image must be read without a finding. One: it must be answered as expected. More: nothing breaks.
fn structure(format: Format, readers: &[Reader], data: &[u8]) {
    let mut choices = Unstructured::new(data);
    let count = choices.pick(&DAMAGES);
    let specimen = Specimen::draw(&mut choices, format, None);
    let damages: Vec<_> = (0..count)
        .filter_map(|_| specimen.corrupt(&mut choices))
        .collect();
    let files = specimen.damaged(&damages);
    let answer = match damages.as_slice() {
        [] if judge::is_checked(format) => judge::sound(&specimen),
        [one] if judge::is_checked(format) => judge::judge(&specimen, one).map(drop),
        _ => {
            drop(judge::look(&files, &*specimen.disk));
            Ok(())
        }
    };
    assert_eq!(
        answer,
        Ok(()),
        "the reader and the rules of the format disagree"
    );
    if let Some(bytes) = files
        .first()
        .and_then(|file| small(file, bytes_max(format)))
    {
        for reader in readers {
            reader(&bytes);
        }
    }
}

/// The bytes of a file that is not too large.
fn small(file: &File, most: u64) -> Option<Vec<u8>> {
    let length = file.bytes.len();
    let mut bytes = vec![0; index(length.min(most))];
    let whole = length <= most;
    (whole && file.bytes.read_at(0, &mut bytes).is_ok()).then_some(bytes)
}
