//! The descriptor: a text of `key = value` lines and extent lines.
//!
//! ```text
//! # Disk DescriptorFile
//! version=1
//! CID=fffffffe
//! parentCID=ffffffff
//! createType="streamOptimized"
//! # Extent description
//! RDONLY 16777216 SPARSE "disk.vmdk"
//! # The Disk Data Base
//! ddb.adapterType = "lsilogic"
//! ```
//!
//! In a file it is padded with NUL. Keys are compared without case; lines may end in CR LF; names may hold blanks. The
//! text is UTF-8, or what the key `encoding` names: UTF-8 and windows-1252 are known.

use super::header::Geometry;
use super::{VmdkOptions, VmdkParent};
use drylab_block::{Error, Limits, Result};
use std::borrow::Cow;

/// First line of every descriptor.
pub(crate) const FIRST_LINE: &str = "# Disk DescriptorFile";

/// Bytes kept for the descriptors we write: 20 sectors, with room for the keys that other programs add.
pub(super) const ROOM: usize = 10_240;

/// One extent line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtentLine {
    /// `RW`, `RDONLY` or `NOACCESS`, as written.
    pub(crate) access: String,
    pub(crate) sectors: u64,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Sector of the extent's file at which the disk's bytes start, where the line has one.
    pub(crate) offset: Option<u64>,
}

impl ExtentLine {
    /// Whether it must have an offset and has none.
    pub(super) fn lacks_offset(&self) -> bool {
        self.kind.eq_ignore_ascii_case("FLAT") && self.offset.is_none()
    }
}

/// What a descriptor says, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) values: Vec<(String, String)>,
    pub(crate) extents: Vec<ExtentLine>,
    /// The first line that starts as an extent and is none.
    pub(crate) malformed: Option<String>,
    /// The encoding, where it is not one that is known, or the text is not in it.
    pub(crate) strange_encoding: Option<String>,
}

impl Descriptor {
    /// Parses the text up to its first NUL.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut descriptor = Self::default();
        let text = descriptor.decode(text);
        let most = crate::math::index(u64::from(limits.entries_max));
        for (number, line) in text.lines().enumerate() {
            if number >= most {
                return Err(Error::unsupported(format_args!(
                    "VMDK descriptor has more than {most} lines: raise the limit entries"
                )));
            }
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(extent) = extent_line(line) {
                descriptor.extents.push(extent);
            } else if starts_as_extent(line) {
                descriptor.malformed.get_or_insert_with(|| line.to_owned());
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"');
                descriptor
                    .values
                    .push((key.trim().to_owned(), value.to_owned()));
            }
        }
        Ok(descriptor)
    }

    /// The text, as its line `encoding` says it is written.
    fn decode<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(bytes);
        let encoding = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            let named = key.trim().eq_ignore_ascii_case("encoding");
            named.then(|| value.trim().trim_matches('"').to_owned())
        });
        let encoding = encoding.unwrap_or_else(|| "UTF-8".to_owned());
        if ["windows-1252", "ISO-8859-1"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&encoding))
        {
            return bytes.iter().map(|byte| western(*byte)).collect();
        }
        if !bytes.is_ascii()
            && (!encoding.eq_ignore_ascii_case("UTF-8") || text.contains('\u{fffd}'))
        {
            self.strange_encoding = Some(encoding);
        }
        text
    }

    /// Keys and values, then the extents.
    pub(crate) fn details(&self) -> Vec<(String, String)> {
        let extents = self.extents.iter().map(|line| {
            let ExtentLine {
                sectors,
                kind,
                name,
                ..
            } = line;
            ("extent".to_owned(), format!("{sectors} {kind} {name:?}"))
        });
        self.values.iter().cloned().chain(extents).collect()
    }

    /// Whether it is that of a snapshot, or may be.
    pub(super) fn names_parent(&self) -> bool {
        let cid = self.value("parentCID").unwrap_or("ffffffff");
        let hint = self.value("parentFileNameHint").unwrap_or_default();
        !cid.eq_ignore_ascii_case("ffffffff") || !hint.is_empty()
    }

    /// The first value of a key, compared without case.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }
}

/// A byte of windows-1252.
fn western(byte: u8) -> char {
    const FROM_80: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    match byte.checked_sub(0x80) {
        Some(at @ 0..0x20) => FROM_80.chars().nth(usize::from(at)).unwrap_or('\u{fffd}'),
        _ => char::from(byte),
    }
}

/// Whether a line is that of an extent.
pub(super) fn is_extent(line: &str) -> bool {
    extent_line(line).is_some()
}

/// Whether the first word of a line is an access mode.
fn starts_as_extent(line: &str) -> bool {
    let first = line.split_ascii_whitespace().next().unwrap_or_default();
    ["RW", "RDONLY", "NOACCESS"]
        .iter()
        .any(|known| first.eq_ignore_ascii_case(known))
}

/// `RW 4192256 FLAT "name-flat.vmdk" 0`; `None` when the line is no extent. A `ZERO` extent has no name.
fn extent_line(line: &str) -> Option<ExtentLine> {
    if !starts_as_extent(line) {
        return None;
    }
    // What is a space must not depend on the encoding: other bytes pass for one in some.
    let space = |letter: char| letter.is_ascii_whitespace();
    let (access, rest) = line.split_once(space)?;
    let (sectors, rest) = rest.trim_ascii_start().split_once(space)?;
    let rest = rest.trim_ascii_start();
    let (kind, rest) = rest.split_once(space).unwrap_or((rest, ""));
    let mut parts = rest.split('"');
    let (_, name, behind) = (parts.next(), parts.next(), parts.next());
    let offset = behind.and_then(|behind| behind.split_ascii_whitespace().next());
    Some(ExtentLine {
        access: access.to_owned(),
        sectors: sectors.parse().ok()?,
        kind: kind.to_owned(),
        name: name.unwrap_or_default().to_owned(),
        offset: offset.map(str::parse).transpose().ok()?,
    })
}

/// How a disk of several extents is described.
pub(crate) struct Several<'a> {
    pub(crate) create_type: &'static str,
    pub(crate) kind: &'static str,
    /// What stands behind each name.
    pub(crate) behind: &'static str,
    /// Sectors and name of each.
    pub(crate) extents: &'a [(u64, String)],
}

/// How the one extent of a disk we write is described.
pub(crate) struct Sole {
    pub(crate) create_type: &'static str,
    pub(crate) access: &'static str,
    pub(crate) kind: &'static str,
    /// What stands behind the name.
    pub(crate) behind: &'static str,
}

/// Writes the descriptor of a disk of one extent.
pub(crate) fn compose(
    extent: &Sole,
    capacity: u64,
    cid: u32,
    options: &VmdkOptions,
) -> Result<String> {
    compose_child(extent, capacity, (cid, None), options)
}

/// [`compose`], of what differs from a parent.
pub(crate) fn compose_child(
    extent: &Sole,
    capacity: u64,
    (cid, parent): (u32, Option<&VmdkParent>),
    options: &VmdkOptions,
) -> Result<String> {
    let Sole {
        create_type,
        access,
        kind,
        behind,
    } = extent;
    let name = &options.file_name;
    check_name(name)?;
    let line = format!("{access} {capacity} {kind} \"{name}\"{behind}\n");
    if let Some(parent) = parent {
        check_name(&parent.file_name)?;
    }
    let text = whole(create_type, &line, capacity, (cid, parent), options);
    if text.len() > ROOM {
        return Err(Error::unsupported(format_args!(
            "VMDK descriptor of {} bytes, more than {ROOM}",
            text.len()
        )));
    }
    Ok(text)
}

/// Writes the descriptor of a disk of several extents, which is a file of its own.
pub(crate) fn compose_several(
    disk: &Several<'_>,
    cid: u32,
    options: &VmdkOptions,
) -> Result<String> {
    let (mut lines, mut capacity) = (String::new(), 0u64);
    for (sectors, name) in disk.extents {
        check_name(name)?;
        let Several { kind, behind, .. } = disk;
        lines.push_str(&format!("RW {sectors} {kind} \"{name}\"{behind}\n"));
        capacity = capacity.saturating_add(*sectors);
    }
    Ok(whole(
        disk.create_type,
        &lines,
        capacity,
        (cid, None),
        options,
    ))
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c.is_control() || matches!(c, '"' | '/' | '\\')) {
        return Err(Error::unsupported(format_args!(
            "file name {name:?} cannot stand in a VMDK descriptor"
        )));
    }
    Ok(())
}

/// The text around the extent lines.
fn whole(
    create_type: &str,
    extents: &str,
    capacity: u64,
    (cid, parent): (u32, Option<&VmdkParent>),
    options: &VmdkOptions,
) -> String {
    let adapter = options.adapter.name();
    let Geometry {
        cylinders,
        heads,
        sectors,
    } = Geometry::of(capacity, options.adapter == super::Adapter::Ide);
    let hardware = options.hardware_version;
    let (parent_cid, hint) = match parent {
        Some(VmdkParent {
            content_id,
            file_name,
        }) => (*content_id, format!("parentFileNameHint=\"{file_name}\"\n")),
        None => (u32::MAX, String::new()),
    };
    let encoding = if extents.is_ascii() && hint.is_ascii() {
        ""
    } else {
        "encoding=\"UTF-8\"\n"
    };
    let mut text = format!(
        "{FIRST_LINE}\nversion=1\n{encoding}CID={cid:08x}\nparentCID={parent_cid:08x}\n\
         createType=\"{create_type}\"\n{hint}\n\
         # Extent description\n{extents}\n\
         # The Disk Data Base\n#DDB\n\n\
         ddb.adapterType = \"{adapter}\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{sectors}\"\n"
    );
    if let Some(long) = options.long_content_id {
        text.push_str(&format!("ddb.longContentID = \"{long:032x}\"\n"));
    }
    if let Some(tools) = options.tools_version {
        text.push_str(&format!("ddb.toolsVersion = \"{tools}\"\n"));
    }
    text.push_str(&format!("ddb.virtualHWVersion = \"{hardware}\"\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_no_case_and_names_may_hold_blanks_and_lines_end_in_crlf() {
        let text = b"# Disk DescriptorFile\r\nCreateType = \"monolithicSparse\"\r\nrw 8 SPARSE \"a b=c.vmdk\" 0\r\n\0junk=1";
        let found = Descriptor::parse(text, &Limits::DEFAULT).unwrap();
        assert_eq!(found.value("createtype"), Some("monolithicSparse"));
        assert_eq!(found.value("junk"), None);
        let line = ExtentLine {
            access: "rw".into(),
            sectors: 8,
            kind: "SPARSE".into(),
            name: "a b=c.vmdk".into(),
            offset: Some(0),
        };
        assert_eq!(found.extents, [line]);
        assert_eq!(found.malformed, None);
    }

    #[test]
    fn the_encoding_named_is_the_one_read() {
        let text = |encoding: &str| {
            let mut bytes =
                format!("{FIRST_LINE}\nencoding = \"{encoding}\"\nRW 8 FLAT \"").into_bytes();
            bytes.extend_from_slice(b"f\xfcr 5\x80.vmdk\" 0\n");
            Descriptor::parse(&bytes, &Limits::DEFAULT).unwrap()
        };
        let western = text("Windows-1252");
        assert_eq!(western.extents[0].name, "für 5€.vmdk");
        assert_eq!(western.strange_encoding, None);
        for strange in ["UTF-8", "Shift_JIS"] {
            assert_eq!(text(strange).strange_encoding.as_deref(), Some(strange));
        }
    }

    #[test]
    fn a_line_that_starts_as_an_extent_and_is_none_is_remembered() {
        for line in [
            "RW",
            "RW eight FLAT \"a\" 0",
            "RW 8 FLAT \"a\" b",
            "rdonly -1 ZERO",
        ] {
            let text = format!("{FIRST_LINE}\nRW 8 ZERO\n{line}\n");
            let found = Descriptor::parse(text.as_bytes(), &Limits::DEFAULT).unwrap();
            assert_eq!(
                (found.extents.len(), found.malformed.as_deref()),
                (1, Some(line))
            );
        }
    }

    #[test]
    fn names_that_would_break_out_of_their_quotes_or_folder_are_refused() {
        for name in ["", "a\"b", "../a", "a\nb", "c:\\a"] {
            let options = VmdkOptions {
                file_name: name.into(),
                ..VmdkOptions::default()
            };
            assert!(
                compose(&crate::vmdk::sparse::SOLE, 1, 1, &options).is_err(),
                "{name:?}"
            );
        }
    }
}
