//! What is said of the lines of a descriptor.

use super::disk::{Body, Part, Vmdk};
use super::number;
use super::rules;
use std::ops::Range;

impl Vmdk {
    /// Says that an extent line and the header of the extent have different sizes.
    pub(super) fn note_size(&mut self, key: &str, place: (u64, u64), capacity: u64, line: u64) {
        if capacity == line {
            return;
        }
        let whose = if key.is_empty() {
            String::new()
        } else {
            format!(" of {key:?}")
        };
        let found = format!("{line} sectors");
        let expected = format!("{capacity} as in the header{whose}");
        let path = "descriptor, extent line";
        self.findings
            .add(&rules::EXTENT_SIZE, place, path, found, expected);
    }

    /// Says what is wrong with the lines of the descriptor.
    pub(super) fn note_descriptor(&mut self) {
        let Self {
            text,
            descriptor,
            findings,
            ..
        } = self;
        let cid = descriptor.value("CID").unwrap_or("missing");
        if number(cid).is_none() {
            let place = text.place_of(text.value("CID"));
            let expected = "8 hexadecimal digits";
            findings.add(&rules::CID, place, "descriptor, CID", cid, expected);
        }
        if descriptor.value("parentCID").is_none() {
            let (path, place) = ("descriptor, parentCID", text.place_of(None));
            let expected = "ffffffff, where there is no parent";
            findings.add(&rules::NO_PARENT_CID, place, path, "missing", expected);
        }
        if let Some(long) = descriptor.value("ddb.longContentID") {
            let place = text.place_of(text.value("ddb.longContentID"));
            let path = "descriptor, ddb.longContentID";
            let last = long.len().checked_sub(8).and_then(|at| long.get(at..));
            let short = number(cid).filter(|cid| *cid != 0xffff_fffe);
            let digits = long.bytes().all(|digit| digit.is_ascii_hexdigit());
            if long.len() != 32 || !digits {
                let expected = "32 hexadecimal digits";
                findings.add(&rules::LONG_CONTENT_ID, place, path, long, expected);
            } else if short.is_some() && last.and_then(number) != short {
                let expected = format!("…{cid} as in CID");
                findings.add(&rules::LONG_CONTENT_ID, place, path, long, expected);
            }
        }
        if let Some(encoding) = &descriptor.strange_encoding {
            let place = text.place_of(text.value("encoding"));
            let expected = "the encoding of the text, UTF-8 or windows-1252";
            let path = "descriptor, encoding";
            findings.add(&rules::ENCODING, place, path, encoding, expected);
        }
        if let Some(line) = &descriptor.malformed {
            let place = text.place_of(None);
            let (path, found) = ("descriptor, extent line", format!("{line:?}"));
            let expected = "access, sectors, type, name";
            findings.add(&rules::DESCRIPTOR_LINE, place, path, found, expected);
        }
    }

    /// Says which extent lines of a descriptor of its own have no offset and need one.
    pub(super) fn note_offsets(&mut self) {
        for (number, line) in self.descriptor.extents.iter().enumerate() {
            if !line.lacks_offset() {
                continue;
            }
            let place = self.text.place_of(self.text.behind_name(number));
            let path = format!("descriptor, extent line {number}");
            let expected = "the sector of the file at which the extent starts";
            self.findings.add(
                &rules::EXTENT_OFFSET,
                place,
                path,
                "without offset",
                expected,
            );
        }
    }

    /// Says which extents are the same bytes of one file.
    pub(super) fn note_overlaps(&mut self) {
        let parts = self.parts.iter().filter(|part| part.length > 0);
        let mut taken: Vec<(&str, Range<u64>, usize)> = parts
            .filter_map(|part| Some((part.key.as_str(), part.bytes_of_file()?, part.line)))
            .collect();
        taken.sort_by(|one, other| {
            let order = |(key, bytes, line): &(_, Range<u64>, usize)| (*key, bytes.start, *line);
            order(one).cmp(&order(other))
        });
        let mut found = Vec::new();
        // Of those before in the same file, the one that reaches furthest.
        let mut last: Option<(&str, Range<u64>, usize)> = None;
        for (key, bytes, line) in taken {
            let before = last.take().filter(|(known, ..)| *known == key);
            if let Some((_, other, number)) = &before
                && bytes.start < other.end
            {
                let what = match bytes.end.min(other.end) {
                    u64::MAX => format!("{key:?}"),
                    end => format!("bytes {} to {end} of {key:?}", bytes.start),
                };
                let what = format!("{what}, which extent {number} has, too");
                found.push((line, what));
            }
            last = before
                .filter(|(_, other, _)| other.end > bytes.end)
                .or(Some((key, bytes, line)));
        }
        for (line, what) in found {
            let place = self.text.place_of(self.text.sectors(line));
            let path = format!("descriptor, extent line {line}");
            let expected = "bytes of its own";
            self.findings
                .add(&rules::EXTENT_OVERLAP, place, path, what, expected);
        }
    }
}

impl Part {
    /// Where its bytes stand in its file: all of it where a header or tables tell.
    fn bytes_of_file(&self) -> Option<Range<u64>> {
        match &self.body {
            Body::Zero => None,
            Body::Flat(_, from) => Some(*from..from.saturating_add(self.length)),
            Body::Hosted(_) | Body::Esx(_) => Some(0..u64::MAX),
        }
    }
}
