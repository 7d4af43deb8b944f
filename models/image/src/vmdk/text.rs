//! The text of a descriptor in its file: where its values stand, and how it is changed.

use super::descriptor::{FIRST_LINE, is_extent};
use crate::edit::{Edit, Plan};
use crate::math::{index, len64};
use drylab_block::{Error, ReadAt, Result};
use std::ops::Range;

/// The text of a descriptor, up to its first NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// Where it starts in its file.
    pub(super) place: u64,
    /// Bytes kept for it inside a sparse extent; a descriptor that is a file of its own may grow.
    pub(super) area: Option<u64>,
    /// The text itself.
    pub(super) bytes: Vec<u8>,
}

impl Text {
    /// Takes what stands at `place`.
    pub(super) fn new(place: u64, area: Option<u64>, bytes: &[u8]) -> Self {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            place,
            area,
            bytes: text.to_vec(),
        }
    }

    /// Start and text of each line.
    fn lines(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut at = 0usize;
        self.bytes.split(|byte| *byte == b'\n').map(move |line| {
            let start = at;
            at = at.saturating_add(line.len()).saturating_add(1);
            (start, line)
        })
    }

    /// The bytes of the first value of a key, without its quotes.
    pub(super) fn value(&self, key: &str) -> Option<Range<usize>> {
        self.lines().find_map(|(start, line)| {
            let equals = line.iter().position(|byte| *byte == b'=')?;
            let name = line.get(..equals)?.trim_ascii();
            if !name.eq_ignore_ascii_case(key.as_bytes()) {
                return None;
            }
            let value = line.get(equals.saturating_add(1)..)?;
            let inner = value.trim_ascii_start();
            let inner = inner.strip_prefix(b"\"").unwrap_or(inner);
            // What is in front of it is gone, what is behind it not yet.
            let at = start.saturating_add(line.len().saturating_sub(inner.len()));
            let inner = inner.trim_ascii_end();
            let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
            Some(at..at.saturating_add(inner.len()))
        })
    }

    /// Whether it starts as descriptors do.
    pub(super) fn is_descriptor(&self) -> bool {
        let start = self.bytes.get(..FIRST_LINE.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(FIRST_LINE.as_bytes())
    }

    /// Whether it has room where it stands.
    pub(super) fn fits(&self) -> bool {
        self.area.is_none_or(|area| len64(&self.bytes) < area)
    }

    /// Start and text of extent line `number`.
    fn extent(&self, number: usize) -> Option<(usize, &[u8])> {
        let mut lines = self
            .lines()
            .filter(|(_, line)| is_extent(String::from_utf8_lossy(line).trim_ascii()));
        lines.nth(number)
    }

    /// The bytes of word `word` of extent line `number`, none of them behind the name.
    fn word(&self, number: usize, word: usize) -> Option<Range<usize>> {
        let (start, line) = self.extent(number)?;
        let mut from = 0usize;
        for count in 0..=word {
            let rest = line.get(from..)?;
            let first = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
            let found = rest.get(first..)?;
            let length = found.iter().position(u8::is_ascii_whitespace);
            let length = length.unwrap_or(found.len());
            from = from.saturating_add(first);
            if count == word {
                let at = start.saturating_add(from);
                return Some(at..at.saturating_add(length));
            }
            from = from.saturating_add(length);
        }
        None
    }

    /// The bytes of the number of sectors in extent line `number`.
    pub(super) fn sectors(&self, number: usize) -> Option<Range<usize>> {
        self.word(number, 1)
    }

    /// The bytes of the type in extent line `number`.
    pub(super) fn kind(&self, number: usize) -> Option<Range<usize>> {
        self.word(number, 2)
    }

    /// The place behind the name in extent line `number`.
    pub(super) fn behind_name(&self, number: usize) -> Option<Range<usize>> {
        let (start, line) = self.extent(number)?;
        let mut quotes = (0usize..).zip(line).filter(|(_, byte)| **byte == b'"');
        let (last, _) = quotes.nth(1)?;
        let at = start.saturating_add(last).saturating_add(1);
        Some(at..at)
    }

    /// The text with one more line behind that of a key, or behind the first.
    pub(super) fn with_line(&self, key: &str, new: &str) -> Self {
        let is_of = |line: &[u8]| {
            let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(key.as_bytes())
        };
        let found = self.lines().find(|(_, line)| is_of(line));
        let Some((start, line)) = found.or_else(|| self.lines().next()) else {
            return self.clone();
        };
        let end = start.saturating_add(line.len());
        // Lines end as the others do.
        let cr = if line.ends_with(b"\r") { "\r" } else { "" };
        self.with(Some(end..end), format!("\n{new}{cr}"))
    }

    /// Where a range of the text stands in its file: offset and length, of the whole text without one.
    pub(super) fn place_of(&self, range: Option<Range<usize>>) -> (u64, u64) {
        let range = range.unwrap_or(0..self.bytes.len());
        let start = u64::try_from(range.start).unwrap_or(u64::MAX);
        let length = u64::try_from(range.len()).unwrap_or(u64::MAX);
        (self.place.saturating_add(start), length)
    }

    /// The text with another value in a range.
    pub(super) fn with(&self, range: Option<Range<usize>>, value: impl ToString) -> Self {
        let mut text = self.clone();
        if let Some(range) = range
            && range.end <= text.bytes.len()
            && range.start <= range.end
        {
            text.bytes.splice(range, value.to_string().into_bytes());
        }
        text
    }

    /// Plans the change to another text. A file of its own is lengthened by line ends first and never shortened, so that
    /// the text is whole at every step.
    pub(super) fn change(&self, to: &Self, file: &dyn ReadAt, plan: &mut Plan) -> Result<()> {
        let (old, mut new) = (len64(&self.bytes), to.bytes.clone());
        if old == len64(&new) {
            return plan.write(file, self.place, &new);
        }
        match self.area {
            Some(area) if len64(&new) >= area => Err(Error::unsupported(format_args!(
                "VMDK descriptor of {} bytes does not fit the {area} kept for it",
                new.len()
            ))),
            Some(_) => {
                // With its NUL: behind the old one there may be the rest of a longer text.
                new.resize(new.len().saturating_add(1).max(index(old)), 0);
                plan.write(file, self.place, &new)
            }
            None => {
                new.resize(index(len64(&new).max(old)), b'\n');
                // With a NUL, where something stood behind that of the old one.
                if file.len() > len64(&new) {
                    new.push(0);
                }
                let wanted = len64(&new);
                let missing = wanted.saturating_sub(file.len());
                let mut before = vec![0; index(wanted.saturating_sub(missing))];
                file.read_at(0, &mut before)?;
                if missing > 0 {
                    let ends = vec![b'\n'; index(missing)];
                    before.extend_from_slice(&ends);
                    plan.push(Edit::Write {
                        offset: file.len(),
                        old: Vec::new(),
                        new: ends,
                    });
                    plan.push(Edit::Flush);
                }
                let offset = 0;
                if before != new {
                    plan.push(Edit::Write {
                        offset,
                        old: before,
                        new,
                    });
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drylab_block::{SparseBytes, WriteAt};

    const TEXT: &[u8] =
        b"# Disk DescriptorFile\r\nCID = \"12ab\"\nRW 16 FLAT \"16 a.vmdk\" 0\nrw\t8  ZERO\r\nddb.x=\"1\"";

    fn text() -> Text {
        Text::new(0, None, TEXT)
    }

    fn at(range: Option<Range<usize>>) -> String {
        String::from_utf8(TEXT[range.unwrap()].to_vec()).unwrap()
    }

    #[test]
    fn values_and_sectors_are_found_where_they_stand() {
        assert_eq!(at(text().value("cid")), "12ab");
        assert_eq!(at(text().value("DDB.X")), "1");
        assert_eq!(text().value("none"), None);
        assert_eq!(at(text().sectors(0)), "16");
        assert_eq!(at(text().sectors(1)), "8");
        assert_eq!(text().sectors(2), None);
        // A line with a number that is none is no extent's.
        let odd = [b"RW 1f FLAT \"b\" 0\n", TEXT].concat();
        let range = Text::new(0, None, &odd).sectors(0).unwrap();
        assert_eq!(&odd[range], b"16");
        assert_eq!(
            text().sectors(0).unwrap().start,
            TEXT.windows(5).position(|w| w == b"RW 16").unwrap() + 3
        );
    }

    #[test]
    fn a_text_of_its_own_is_changed_so_that_every_step_is_a_text() {
        for sectors in ["1", "16777216"] {
            let old = text();
            let new = old.with(old.sectors(0), sectors);
            let file = || {
                let file = SparseBytes::default();
                file.write_at(0, TEXT).unwrap();
                file
            };
            let mut plan = Plan::default();
            old.change(&new, &file(), &mut plan).unwrap();
            for count in 0..=plan.edits().len() {
                let crashed = file();
                plan.apply_first(count, &crashed).unwrap();
                let mut bytes = vec![0; crashed.len() as usize];
                crashed.read_at(0, &mut bytes).unwrap();
                let found = bytes.trim_ascii_end();
                let expected = if count == plan.edits().len() {
                    &new.bytes[..]
                } else {
                    TEXT
                };
                assert_eq!(found, expected, "{sectors} after {count} steps");
            }
        }
    }

    #[test]
    fn a_text_that_grows_does_not_take_in_what_stood_behind_it() {
        let file = SparseBytes::default();
        let stale = [TEXT, b"\0\0RW 1 FLAT \"b.vmdk\" 0\n\0"].concat();
        file.write_at(0, &stale).unwrap();
        let kept = Some(stale.len() as u64);
        let all = ["160", "1600", "16000"].map(|sectors| [(kept, sectors), (None, sectors)]);
        for (area, sectors) in all.into_iter().flatten() {
            let old = Text::new(0, area, &stale);
            let mut plan = Plan::default();
            let new = old.with(old.sectors(0), sectors);
            old.change(&new, &file, &mut plan).unwrap();
            let changed = SparseBytes::default();
            changed.write_at(0, &stale).unwrap();
            plan.apply(&changed).unwrap();
            let mut bytes = vec![0; stale.len()];
            changed.read_at(0, &mut bytes).unwrap();
            assert_eq!(Text::new(0, None, &bytes).bytes, new.bytes, "{sectors}");
        }
    }

    #[test]
    fn a_text_that_outgrows_its_area_is_refused() {
        let file = vec![0u8; 1024];
        let old = Text::new(512, Some(TEXT.len() as u64 + 3), TEXT);
        let (mut plan, new) = (Plan::default(), old.with(old.sectors(0), "1234567"));
        let error = old.change(&new, &file, &mut plan).unwrap_err().to_string();
        assert!(error.contains("does not fit") && plan.is_empty(), "{error}");
    }
}
