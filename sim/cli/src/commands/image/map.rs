//! `drylab image map`

use super::document::FORMAT;
use super::open;
use crate::args::Format;
use crate::exit::{Exit, Stop};
use crate::image_args::MapArgs;
use crate::terminal;
use drylab_block::{ExtentKind, ReadAt};
use drylab_image::{Image, Stored};
use drylab_report::harmless;
use serde::Serialize;
use std::fmt::Write;

/// Bytes of text printed at a time: a map may have millions of lines.
const PRINTED: usize = 1 << 16;

/// A range of the disk that is stored in one way.
#[derive(Clone, Serialize)]
struct Range {
    start: u64,
    length: u64,
    kind: &'static str,
    /// Where the bytes stand as they are; absent where they do not.
    file: Option<String>,
    offset: Option<u64>,
}

impl Range {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Whether the other range goes on where this one ends, on the disk and in the file.
    fn goes_on_as(&self, other: &Self) -> bool {
        let offset = self.offset.map(|at| at.saturating_add(self.length));
        self.kind == other.kind && self.file == other.file && offset == other.offset
    }
}

fn kind(kind: ExtentKind) -> &'static str {
    match kind {
        ExtentKind::Data => "data",
        ExtentKind::Zero => "zero",
        ExtentKind::Hole => "hole",
        _ => "compressed",
    }
}

fn range_at(image: &Image, at: u64, first: &str) -> Range {
    let (extent, stored) = image.piece_at(at);
    let left = image.len().saturating_sub(at);
    // Total, whatever a table says.
    let length = if extent.offset == at && extent.length > 0 {
        extent.length.min(left)
    } else {
        left
    };
    let stored = stored.filter(|_| extent.kind == ExtentKind::Data);
    let (file, offset) = match stored {
        Some(Stored { file, offset }) if file.is_empty() => (Some(first.to_owned()), Some(offset)),
        Some(Stored { file, offset }) => (Some(file), Some(offset)),
        None => (None, None),
    };
    Range {
        start: at,
        length,
        kind: kind(extent.kind),
        file,
        offset,
    }
}

pub(super) fn run(args: &MapArgs) -> Result<Exit, Stop> {
    let opened = open(&args.file, &args.reading)?;
    let first = args.file.to_string_lossy();
    let line = match args.format {
        Format::Text => text_line,
        Format::Json => json_line,
    };
    let mut text = match args.format {
        Format::Text => format!(
            "{:>16}  {:>16}  {:<10}  mapped to\n",
            "start", "length", "kind"
        ),
        Format::Json => format!(
            "{{\"format\":{FORMAT},\"virtual_bytes\":{},\"ranges\":[\n",
            opened.image.virtual_size()
        ),
    };
    let mut pending: Option<Range> = None;
    let mut at = 0;
    while at < opened.image.virtual_size() {
        let range = range_at(&opened.image, at, &first);
        at = range.end();
        match &mut pending {
            Some(known) if known.goes_on_as(&range) => {
                known.length = known.length.saturating_add(range.length);
            }
            _ => {
                if let Some(known) = pending.replace(range) {
                    line(&mut text, &known, false)?;
                }
            }
        }
        if text.len() > PRINTED {
            terminal::print(&text)?;
            text.clear();
        }
    }
    if let Some(known) = pending {
        line(&mut text, &known, true)?;
    }
    if args.format == Format::Json {
        text.push_str("]}\n");
    }
    terminal::print(&text)?;
    Ok(Exit::Done)
}

fn text_line(text: &mut String, range: &Range, _: bool) -> Result<(), Stop> {
    let _ = write!(
        text,
        "{:>#16x}  {:>#16x}  {:<10}",
        range.start, range.length, range.kind
    );
    if let (Some(file), Some(offset)) = (&range.file, range.offset) {
        let _ = write!(text, "  {} at {offset:#x}", harmless(file));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(())
}

fn json_line(text: &mut String, range: &Range, last: bool) -> Result<(), Stop> {
    let line = serde_json::to_string(range).map_err(|error| Stop::input("write JSON", error))?;
    text.push_str(&line);
    text.push_str(if last { "\n" } else { ",\n" });
    Ok(())
}
