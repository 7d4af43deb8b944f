//! Disk images made by their formats' documents, and damages to them.

use drylab_kernel::Streams;
use drylab_specimen::{Corruption, Format, Specimen, Stream};
use proptest::prelude::*;

/// The image of a seed, of one kind unless that is to be drawn: the one that `drylab corpus generate` writes.
#[must_use]
pub fn of_seed(format: Format, subformat: Option<&str>, seed: u64) -> Specimen {
    let mut stream = Streams::new(seed).stream("specimen", 0);
    Specimen::draw(&mut Stream(|| stream.word()), format, subformat)
}

/// So many damages of a seed to an image, each with what must come of it alone.
#[must_use]
pub fn damages(made: &Specimen, seed: u64, count: u32) -> Vec<Corruption> {
    let mut stream = Streams::new(seed).stream("damage", 0);
    let mut stream = Stream(|| stream.word());
    let drawn = (0..count).filter_map(|_| made.corrupt(&mut stream));
    drawn.collect()
}

/// Any valid image of a format.
pub fn image(format: Format) -> impl Strategy<Value = Specimen> {
    any::<u64>().prop_map(move |seed| of_seed(format, None, seed))
}

/// Any valid image of a format with so many damages.
pub fn damaged(format: Format, count: u32) -> impl Strategy<Value = (Specimen, Vec<Corruption>)> {
    any::<u64>().prop_map(move |seed| {
        let made = of_seed(format, None, seed);
        let found = damages(&made, seed, count);
        (made, found)
    })
}
