//! A plan tried in memory: what a file would be, without a byte of it written.
//!
//! Bytes that a plan copies are not held, only where they come from, so that the trial of a plan takes no more memory
//! than the plan.

use drylab_block::{Error, ReadAt, Result};
use drylab_image::{Edit, Plan};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file with changes on top.
pub(super) struct Trial {
    base: Arc<dyn ReadAt>,
    length: u64,
    /// By offset, without overlaps; between them are the base's own bytes.
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Clone)]
struct Piece {
    length: u64,
    from: From,
}

/// Where the bytes of a piece come from.
#[derive(Clone)]
enum From {
    /// These, from an index on.
    Bytes(Arc<[u8]>, u64),
    /// The base, from an offset on.
    Base(u64),
    Zero,
}

impl From {
    fn skip(&self, bytes: u64) -> Self {
        match self {
            Self::Bytes(all, at) => Self::Bytes(all.clone(), at.saturating_add(bytes)),
            Self::Base(at) => Self::Base(at.saturating_add(bytes)),
            Self::Zero => Self::Zero,
        }
    }
}

fn len64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Trial {
    pub(super) fn new(base: Arc<dyn ReadAt>) -> Self {
        Self {
            length: base.len(),
            base,
            pieces: BTreeMap::new(),
        }
    }

    /// Takes every step of the plan for this file; those for other files are theirs.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is not the one that was planned for; what reading finds.
    pub(super) fn apply(&mut self, plan: &Plan) -> Result<()> {
        plan.edits().iter().try_for_each(|edit| self.step(edit))
    }

    fn step(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Write { offset, old, new } => {
                let mut found = vec![0; old.len()];
                if !old.is_empty() {
                    self.read_at(*offset, &mut found)?;
                }
                if found != *old {
                    return Err(Error::io(format_args!(
                        "the {} bytes at offset {offset} are not those that were planned for; plan again",
                        old.len()
                    )));
                }
                self.put(*offset, len64(new), From::Bytes(new.as_slice().into(), 0));
            }
            Edit::Copy { from, to, length } => {
                if from
                    .checked_add(*length)
                    .is_none_or(|end| end > self.length)
                {
                    return Err(Error::io(format_args!(
                        "{length} bytes at {from} cannot be copied: the file has {}",
                        self.length
                    )));
                }
                let mut to = *to;
                for piece in self.view(*from, *length) {
                    self.put(to, piece.length, piece.from);
                    to = to.saturating_add(piece.length);
                }
            }
            Edit::Length { old, new } => {
                if self.length != *old {
                    return Err(Error::io(format_args!(
                        "the file has {} bytes, planned for were {old}; plan again",
                        self.length
                    )));
                }
                self.grow(*new);
                self.cut(*new);
                drop(self.pieces.split_off(new));
                self.length = *new;
            }
            Edit::Flush => {}
        }
        Ok(())
    }

    /// Makes zeros of what lies behind the end, up to a longer one: the base may have other bytes there, once cut off.
    fn grow(&mut self, length: u64) {
        if let Some(more) = length.checked_sub(self.length).filter(|more| *more > 0) {
            let end = self.length;
            self.length = length;
            self.put(end, more, From::Zero);
        }
    }

    fn put(&mut self, start: u64, length: u64, from: From) {
        let end = start.saturating_add(length);
        self.grow(start);
        self.length = self.length.max(end);
        self.cut(start);
        self.cut(end);
        let covered: Vec<u64> = self.pieces.range(start..end).map(|(at, _)| *at).collect();
        for at in covered {
            self.pieces.remove(&at);
        }
        if length > 0 {
            self.pieces.insert(start, Piece { length, from });
        }
    }

    /// Makes two pieces of one that goes over `at`.
    fn cut(&mut self, at: u64) {
        let Some((start, piece)) = self.pieces.range_mut(..at).next_back() else {
            return;
        };
        let front = at.saturating_sub(*start);
        if let Some(length) = piece.length.checked_sub(front).filter(|rest| *rest > 0) {
            let from = piece.from.skip(front);
            piece.length = front;
            self.pieces.insert(at, Piece { length, from });
        }
    }

    /// Where a range that lies in the file comes from.
    fn view(&self, offset: u64, length: u64) -> Vec<Piece> {
        let end = offset.saturating_add(length);
        let mut pieces = Vec::new();
        let mut at = offset;
        while at < end {
            let before = self.pieces.range(..=at).next_back();
            let over = before.filter(|(start, piece)| start.saturating_add(piece.length) > at);
            let (stop, from) = match over {
                Some((start, piece)) => {
                    let from = piece.from.skip(at.saturating_sub(*start));
                    (start.saturating_add(piece.length), from)
                }
                None => {
                    let next = self.pieces.range(at..).next();
                    (next.map_or(end, |(start, _)| *start), From::Base(at))
                }
            };
            let length = stop.min(end).saturating_sub(at);
            pieces.push(Piece { length, from });
            at = at.saturating_add(length.max(1));
        }
        pieces
    }
}

impl ReadAt for Trial {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buffer));
        if end.is_none_or(|end| end > self.length) {
            return Err(Error::io(format_args!(
                "read of {} bytes at offset {offset} ends past the end ({})",
                buffer.len(),
                self.length
            )));
        }
        let mut rest = buffer;
        for piece in self.view(offset, len64(rest)) {
            let take = usize::try_from(piece.length).unwrap_or(usize::MAX);
            let (part, later) = rest.split_at_mut(take.min(rest.len()));
            match piece.from {
                From::Bytes(bytes, at) => {
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    let found = drylab_block::slice_at(&bytes, at, part.len());
                    part.copy_from_slice(found.ok_or_else(|| Error::io("a step is cut"))?);
                }
                From::Base(at) => self.base.read_at(at, part)?,
                From::Zero => part.fill(0),
            }
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drylab_block::{Limits, SparseBytes, WriteAt, read_vec};

    /// Steps from a small generator, always possible for the file as it is then.
    fn steps(seed: u64, file: &SparseBytes) -> Plan {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below.max(1)
        };
        let mut plan = Plan::default();
        for _ in 0..24 {
            let length = file.len();
            let edit = match draw(4) {
                0 | 1 => {
                    let offset = draw(length + 40);
                    let new = vec![
                        u8::try_from(draw(255)).expect("a byte");
                        usize::try_from(draw(60) + 1).expect("few")
                    ];
                    let inside = length.saturating_sub(offset).min(len64(&new));
                    let old = read_vec(file, "old", offset.min(length), inside, &Limits::DEFAULT);
                    let old = old.expect("inside");
                    Edit::Write { offset, old, new }
                }
                2 if length >= 8 => {
                    let take = draw(length / 4) + 1;
                    let from = draw(length / 2 - take + 1);
                    let to = length / 2 + draw(length);
                    Edit::Copy {
                        from,
                        to,
                        length: take,
                    }
                }
                _ => Edit::Length {
                    old: length,
                    new: draw(400),
                },
            };
            let mut one = Plan::default();
            one.push(edit.clone());
            one.apply(file).expect("it is possible");
            plan.push(edit);
        }
        plan
    }

    #[test]
    fn a_trial_is_what_the_file_becomes() {
        for seed in 0..400 {
            let base: Vec<u8> = (0..200u8).collect();
            let file = SparseBytes::default();
            file.write_at(0, &base).expect("written");
            let plan = steps(seed, &file);
            let mut trial = Trial::new(Arc::new(base));
            trial.apply(&plan).expect("it is possible");
            let [one, two] = [&file as &dyn ReadAt, &trial].map(|bytes| {
                read_vec(bytes, "all", 0, bytes.len(), &Limits::DEFAULT).expect("it reads")
            });
            assert_eq!(one, two, "{seed}");
        }
    }

    #[test]
    fn a_plan_for_another_file_is_not_possible() {
        let base: Arc<dyn ReadAt> = Arc::new(vec![7u8; 64]);
        for edit in [
            Edit::Write {
                offset: 3,
                old: vec![7, 8],
                new: vec![1, 2],
            },
            Edit::Write {
                offset: 63,
                old: vec![7, 7],
                new: vec![1, 2],
            },
            Edit::Length { old: 65, new: 3 },
            Edit::Copy {
                from: 60,
                to: 70,
                length: 5,
            },
        ] {
            let mut plan = Plan::default();
            plan.push(edit);
            assert!(Trial::new(base.clone()).apply(&plan).is_err(), "{plan:?}");
        }
    }
}
