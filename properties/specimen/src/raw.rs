//! Raw: the bytes of the disk, and nothing that could be damaged but they.

use crate::choices::Choices;
use crate::content::{fill, put};
use crate::damage::Change;
use crate::expect::Expected;
use crate::field::{Class, Endian};
use crate::make::Maker;
use crate::specimen::{File, Format, Rules, Specimen};
use drylab_block::{SparseBytes, WriteAt};
use std::sync::Arc;

struct Bytes;

impl Rules for Bytes {
    fn expected(&self, _: usize, _: &Change) -> Expected {
        Expected::other("none: every byte of a raw image is the guest's")
    }
}

/// Makes an image.
pub(crate) fn draw(choices: &mut impl Choices) -> Specimen {
    let sectors = choices.pick(&[0u64, 1, 3, 128, 2047, 2048, 4097]);
    let size = sectors * 512;
    let disk = SparseBytes::new(size);
    let mut maker: Maker<()> = Maker::new(0, Endian::Little);
    maker.set_len(size);
    if size > 0 {
        for (at, bytes) in fill(choices, size, 1 << 16) {
            // A sector of 7s in front keeps every magic away.
            put(&disk, at, &bytes);
            maker.put(at, &bytes);
        }
        for at in [0, size - 512] {
            put(&disk, at, &[7; 512]);
            maker.put(at, &[7; 512]);
        }
        let at = choices.below(size - 8);
        maker.note("data", (at, 8), Endian::Bytes, Class::Data, ());
    }
    disk.set_len(size).expect("memory has any length");
    let made = maker.made();
    Specimen {
        format: Format::Raw,
        subformat: "raw",
        files: vec![File {
            name: "disk.raw".to_owned(),
            bytes: made.bytes,
        }],
        disk: Arc::new(disk),
        fields: made.fields,
        known: [].into(),
        seals: made.seals,
        rules: Box::new(Bytes),
    }
}
