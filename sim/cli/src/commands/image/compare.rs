//! `drylab image compare`

use super::document::{FORMAT, ImageDocument, json};
use super::{Opened, open};
use crate::args::Format;
use crate::exit::{Exit, Stop, While};
use crate::image_args::CompareArgs;
use crate::terminal;
use drylab_block::{Extent, ExtentKind, ReadAt, Result};
use serde::Serialize;
use std::path::Path;

/// Bytes compared at a time.
const PIECE: u64 = 1 << 20;

/// How two disks differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Difference {
    /// In the byte at `offset`, the first that does.
    Content,
    /// In their sizes, where that counts.
    Size,
}

#[derive(Serialize)]
struct Document {
    format: u32,
    one: ImageDocument,
    two: ImageDocument,
    equal: bool,
    difference: Option<Difference>,
    /// First byte that differs.
    offset: Option<u64>,
}

pub(super) fn run(args: &CompareArgs) -> Result<Exit, Stop> {
    let [one, two] = [&args.one, &args.two].map(|path| open(path, &args.reading));
    let (one, two) = (one?, two?);
    let found = difference(args, &one, &two)?;
    let document = Document {
        format: FORMAT,
        one: ImageDocument::of(&args.one, &one)?,
        two: ImageDocument::of(&args.two, &two)?,
        equal: found.is_none(),
        difference: found.map(|(difference, _)| difference),
        offset: found.and_then(|(_, offset)| offset),
    };
    terminal::print(&match args.format {
        Format::Json => json(&document)?,
        Format::Text => text(&document),
    })?;
    Ok(if document.equal {
        Exit::Done
    } else {
        Exit::Different
    })
}

fn difference(
    args: &CompareArgs,
    one: &Opened,
    two: &Opened,
) -> Result<Option<(Difference, Option<u64>)>, Stop> {
    let (one, two) = (&one.image, &two.image);
    if args.strict && one.len() != two.len() {
        return Ok(Some((Difference::Size, None)));
    }
    let bar = terminal::byte_progress();
    bar.set_length(one.len().max(two.len()));
    let sides = [Side::of(&args.one, one), Side::of(&args.two, two)];
    let found = first_difference(sides, &|at| bar.set_position(at));
    bar.finish_and_clear();
    let offset = found.on("compare")?;
    Ok(offset.map(|offset| (Difference::Content, Some(offset))))
}

fn text(document: &Document) -> String {
    let (one, two) = (&document.one, &document.two);
    let mut text = match (document.difference, document.offset) {
        (None, _) => "the images are equal\n".to_owned(),
        (Some(_), Some(offset)) => {
            format!("the images differ, first in the byte at {offset}\n")
        }
        _ => "the images differ in size\n".to_owned(),
    };
    if one.virtual_bytes != two.virtual_bytes {
        for side in [one, two] {
            text.push_str(&format!("  {}: {} bytes\n", side.file, side.virtual_bytes));
        }
    }
    text
}

/// One of two disks, and what is known of it from the offset on at which they are compared.
struct Side<'a> {
    name: &'a Path,
    disk: &'a dyn ReadAt,
    extent: Extent,
    bytes: Vec<u8>,
}

impl<'a> Side<'a> {
    fn of(name: &'a Path, disk: &'a dyn ReadAt) -> Self {
        Self {
            name,
            disk,
            extent: Extent {
                offset: 0,
                length: 0,
                kind: ExtentKind::Hole,
            },
            bytes: Vec::new(),
        }
    }

    /// End of what is stored alike at `at`; behind the end of the disk are zeros.
    fn reach(&mut self, at: u64) -> u64 {
        let size = self.disk.len();
        if at >= size {
            self.extent.kind = ExtentKind::Hole;
            return u64::MAX;
        }
        if at >= self.extent.offset.saturating_add(self.extent.length) {
            let found = self.disk.extent_at(at);
            let left = size.saturating_sub(at);
            self.extent = Extent {
                offset: at,
                length: if found.length == 0 {
                    left
                } else {
                    found.length.min(left)
                },
                kind: found.kind,
            };
        }
        self.extent.offset.saturating_add(self.extent.length)
    }

    fn has_bytes(&self) -> bool {
        self.extent.kind.has_bytes()
    }

    fn load(&mut self, at: u64, length: usize) -> Result<()> {
        self.bytes.clear();
        self.bytes.resize(length, 0);
        if self.has_bytes() {
            let read = self.disk.read_at(at, &mut self.bytes);
            return read.map_err(|error| error.within(self.name.display()));
        }
        Ok(())
    }
}

/// The first byte that differs; what neither has is not read.
fn first_difference([mut one, mut two]: [Side<'_>; 2], tell: &dyn Fn(u64)) -> Result<Option<u64>> {
    let end = one.disk.len().max(two.disk.len());
    let mut at = 0;
    while at < end {
        let alike = one.reach(at).min(two.reach(at)).min(end);
        if !one.has_bytes() && !two.has_bytes() {
            at = alike;
            continue;
        }
        let stop = alike.min(at.saturating_add(PIECE));
        let length = usize::try_from(stop.saturating_sub(at)).unwrap_or(0);
        one.load(at, length)?;
        two.load(at, length)?;
        if one.bytes != two.bytes {
            let pairs = one.bytes.iter().zip(&two.bytes);
            let same = pairs.take_while(|(one, two)| one == two).count();
            return Ok(Some(at.saturating_add(u64::try_from(same).unwrap_or(0))));
        }
        at = stop;
        tell(at);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drylab_block::{Error, SparseBytes, WriteAt};

    fn differ(one: &dyn ReadAt, two: &dyn ReadAt) -> Option<u64> {
        let sides = [Side::of(Path::new("1"), one), Side::of(Path::new("2"), two)];
        first_difference(sides, &|_| {}).expect("they read")
    }

    #[test]
    fn the_first_byte_that_differs_is_found_wherever_holes_end() {
        let size = 9 << 20;
        for offset in [
            0,
            4095,
            4096,
            (1 << 20) - 1,
            1 << 20,
            (5 << 20) + 77,
            size - 1,
        ] {
            let [one, two] = [SparseBytes::new(size), SparseBytes::new(size)];
            for disk in [&one, &two] {
                disk.write_at((3 << 20) - 5, &[7; 200_000]).expect("inside");
            }
            assert_eq!(differ(&one, &two), None);
            two.write_at(offset, &[9]).expect("inside");
            assert_eq!(differ(&one, &two), Some(offset));
            assert_eq!(differ(&two, &one), Some(offset));
        }
    }

    #[test]
    fn zeros_and_holes_are_equal_and_what_is_behind_an_end_is_zeros() {
        let [one, two] = [SparseBytes::new(1 << 20), SparseBytes::new(3 << 20)];
        one.write_at(0, &[5; 8192]).expect("inside");
        one.write_at(4096, &[0; 4096]).expect("inside");
        two.write_at(0, &[5; 4096]).expect("inside");
        assert_eq!(differ(&one, &two), None);
        two.write_at((2 << 20) + 1, &[1]).expect("inside");
        assert_eq!(differ(&one, &two), Some((2 << 20) + 1));
        assert_eq!(differ(&one, &Vec::new()), Some(0));
    }

    #[test]
    fn what_is_a_hole_in_both_is_not_read() {
        struct Unread;
        impl ReadAt for Unread {
            fn len(&self) -> u64 {
                1 << 50
            }
            fn read_at(&self, offset: u64, _: &mut [u8]) -> Result<()> {
                Err(Error::io(format_args!("read at {offset}")))
            }
            fn extent_at(&self, offset: u64) -> Extent {
                Extent {
                    offset,
                    length: self.len() - offset,
                    kind: ExtentKind::Zero,
                }
            }
        }
        assert_eq!(differ(&Unread, &SparseBytes::new(1 << 50)), None);
    }
}
