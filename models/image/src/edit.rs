//! Changes to a file, planned first: what a repair or a resize would write, in an order that a crash may cut anywhere.

use crate::math::{index, len64};
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// One step of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Writes bytes over others, and past the end of the file where `old` is shorter than `new`.
    Write {
        /// First byte.
        offset: u64,
        /// What must stand there now.
        old: Vec<u8>,
        /// What stands there afterwards.
        new: Vec<u8>,
    },
    /// Copies bytes within the file. The places do not overlap.
    Copy {
        /// First byte of the place they are taken from.
        from: u64,
        /// First byte of the place they are put.
        to: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Cuts the file or lengthens it with zeros.
    Length {
        /// Bytes it has now.
        old: u64,
        /// Bytes it has afterwards.
        new: u64,
    },
    /// Everything before is on the medium before anything behind it is written.
    Flush,
}

/// Steps that bring a file from one sound state to another; after each prefix of them it is readable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    edits: Vec<Edit>,
    notes: Vec<String>,
    before: Vec<(String, Plan)>,
    after: Vec<(String, Plan)>,
}

/// Bytes moved at a time.
const PIECE: u64 = 1 << 20;

impl Plan {
    /// Appends a step.
    pub fn push(&mut self, edit: Edit) {
        self.edits.push(edit);
    }

    /// Appends the writing of `new` at `offset` of `file`, whose bytes there are looked up; nothing when they are the
    /// same.
    ///
    /// # Errors
    /// What reading finds.
    pub fn write(&mut self, file: &(impl ReadAt + ?Sized), offset: u64, new: &[u8]) -> Result<()> {
        let inside = file.len().saturating_sub(offset).min(len64(new));
        let mut old = vec![0; index(inside)];
        file.read_at(offset, &mut old)?;
        if old != new {
            let new = new.to_vec();
            self.push(Edit::Write { offset, old, new });
        }
        Ok(())
    }

    /// Says what the plan does, or gives up.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The steps, in their order.
    #[must_use]
    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// What the plan does and what it gives up, for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Appends all steps and notes of another plan for the same file.
    pub fn append(&mut self, other: Self) {
        self.edits.extend(other.edits);
        self.notes.extend(other.notes);
        self.before.extend(other.before);
        self.after.extend(other.after);
    }

    /// Adds the plan for another file of the image, called `file` by its resolver, to be applied before this one.
    pub fn first(&mut self, file: &str, plan: Self) {
        if !plan.is_empty() {
            self.before.push((file.to_owned(), plan));
        }
    }

    /// Adds the plan for another file of the image, to be applied after this one.
    pub fn then(&mut self, file: &str, plan: Self) {
        if !plan.is_empty() {
            self.after.push((file.to_owned(), plan));
        }
    }

    /// Plans for other files of the image, by their names, to be applied before this one in their order.
    #[must_use]
    pub fn before(&self) -> &[(String, Self)] {
        &self.before
    }

    /// Plans for other files of the image, by their names, to be applied after this one in their order.
    #[must_use]
    pub fn after(&self) -> &[(String, Self)] {
        &self.after
    }

    /// Whether there is nothing to do, in other files neither.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.before.is_empty() && self.after.is_empty()
    }

    /// Takes every step in this file; those for [other files](Self::before) are the caller's to take.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is not the one that was planned for; what reading and writing find.
    pub fn apply(&self, file: &(impl WriteAt + ?Sized)) -> Result<()> {
        self.apply_first(self.edits.len(), file)
    }

    /// Takes the first `count` steps, as a crash would leave the file.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_first(&self, count: usize, file: &(impl WriteAt + ?Sized)) -> Result<()> {
        self.edits
            .iter()
            .take(count)
            .try_for_each(|edit| edit.apply(file))
    }
}

impl Edit {
    fn apply(&self, file: &(impl WriteAt + ?Sized)) -> Result<()> {
        match self {
            Self::Write { offset, old, new } => {
                let mut found = vec![0; old.len()];
                // What is written behind the end replaces nothing; there is nothing to look at there.
                if !old.is_empty() {
                    file.read_at(*offset, &mut found)?;
                }
                let end = offset.saturating_add(len64(old));
                if found != *old || (old.len() < new.len() && end < file.len()) {
                    return Err(Error::io(format_args!(
                        "the {} bytes at offset {offset} are not those that were planned for; plan again",
                        old.len()
                    )));
                }
                file.write_at(*offset, new)
            }
            Self::Copy { from, to, length } => copy(file, *from, *to, *length),
            Self::Length { old, new } if file.len() == *old => file.set_len(*new),
            Self::Length { old, .. } => Err(Error::io(format_args!(
                "the file has {} bytes, planned for were {old}; plan again",
                file.len()
            ))),
            Self::Flush => file.flush(),
        }
    }
}

fn copy(file: &(impl WriteAt + ?Sized), from: u64, to: u64, length: u64) -> Result<()> {
    let mut buffer = vec![0; index(length.min(PIECE))];
    let mut done = 0u64;
    while done < length {
        let take = index(length.saturating_sub(done).min(PIECE));
        let Some(piece) = buffer.get_mut(..take) else {
            break;
        };
        file.read_at(from.saturating_add(done), piece)?;
        file.write_at(to.saturating_add(done), piece)?;
        done = done.saturating_add(len64(piece));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drylab_block::{Limits, SparseBytes, read_vec};

    fn file(bytes: &[u8]) -> SparseBytes {
        let file = SparseBytes::new(0);
        file.write_at(0, bytes).unwrap();
        file
    }

    fn all(file: &SparseBytes) -> Vec<u8> {
        read_vec(file, "file", 0, file.len(), &Limits::DEFAULT).unwrap()
    }

    #[test]
    fn a_plan_writes_copies_and_cuts_in_its_order_and_a_prefix_of_it_does_less() {
        let before = file(b"abcdefgh");
        let mut plan = Plan::default();
        plan.write(&before, 2, b"cXe").unwrap();
        plan.write(&before, 0, b"ab").unwrap();
        plan.push(Edit::Flush);
        plan.push(Edit::Copy {
            from: 0,
            to: 8,
            length: 4,
        });
        plan.push(Edit::Length { old: 12, new: 10 });
        assert_eq!(plan.edits().len(), 4, "equal bytes are not written");
        let states: [&[u8]; 5] = [
            b"abcdefgh",
            b"abcXefgh",
            b"abcXefgh",
            b"abcXefghabcX",
            b"abcXefghab",
        ];
        for (count, expected) in states.into_iter().enumerate() {
            let crashed = file(b"abcdefgh");
            plan.apply_first(count, &crashed).unwrap();
            assert_eq!(all(&crashed), expected, "after {count} steps");
        }
    }

    #[test]
    fn a_plan_for_another_file_is_refused_before_it_writes() {
        let mut plan = Plan::default();
        plan.write(&file(b"abcd"), 1, b"XY").unwrap();
        let other = file(b"abbd");
        assert!(
            plan.apply(&other)
                .unwrap_err()
                .to_string()
                .contains("plan again")
        );
        assert_eq!(all(&other), b"abbd");
    }
}
