//! Tar headers to an index; for OVA and XVA.

use super::{BLOCK, Member};
use crate::findings::{At, Findings, quote};
use drylab_block::{Error, Limits, ReadAt, Result, read_vec, slice_at};

/// Longest extended header or long name read, in bytes.
const EXTENDED_MAX: u64 = 1 << 20;

/// One header, its numbers read.
struct Header {
    name: String,
    size: u64,
    flag: u8,
}

/// What extended headers said about the next member.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

/// Codes of the findings, and what the archive is called.
pub(crate) struct Words {
    pub(crate) what: &'static str,
    pub(crate) header: &'static str,
    pub(crate) zero_block: &'static str,
    pub(crate) end: &'static str,
    pub(crate) pax: &'static str,
    pub(crate) truncated: &'static str,
    pub(crate) kind: &'static str,
}

const OVA: Words = Words {
    what: "an OVA is a plain tar",
    header: "OVA-HEADER",
    zero_block: "OVA-LONE-ZERO-BLOCK",
    end: "OVA-END",
    pax: "OVA-PAX",
    truncated: "OVA-TRUNCATED",
    kind: "OVA-MEMBER-KIND",
};

/// Lists the regular files of an archive.
pub(super) fn index(
    source: &dyn ReadAt,
    limits: &Limits,
    findings: &mut Findings,
) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut take = |member, _: &mut Findings| {
        members.push(member);
        Ok(())
    };
    walk(source, &OVA, limits.entries_max, findings, &mut take)?;
    Ok(members)
}

/// Walks the headers from byte 0 and hands over each regular file as it is met.
///
/// # Errors
/// As [`super::Ova::open`], and whatever `take` answers.
pub(crate) fn walk(
    source: &dyn ReadAt,
    words: &Words,
    headers_max: u32,
    findings: &mut Findings,
    take: &mut dyn FnMut(Member, &mut Findings) -> Result<()>,
) -> Result<()> {
    let length = source.len();
    let mut extended = Extended::default();
    let (mut at, mut headers, mut zeros) = (0u64, 0u32, 0u32);
    let mut ended = false;
    while at.checked_add(BLOCK).is_some_and(|end| end <= length) {
        let mut block = [0u8; 512];
        source.read_at(at, &mut block)?;
        let here = At {
            offset: at,
            line: 0,
        };
        if block.iter().all(|byte| *byte == 0) {
            zeros = zeros.saturating_add(1);
            if zeros == 2 {
                ended = true;
                break;
            }
            at = at.saturating_add(BLOCK);
            continue;
        }
        if zeros == 1 {
            findings.warning(
                words.zero_block,
                here,
                format_args!("a single block of zeros stands before offset {at}"),
            );
            zeros = 0;
        }
        headers = headers.saturating_add(1);
        if headers > headers_max {
            return Err(Error::unsupported(format_args!(
                "the archive has more than {headers_max} headers"
            )));
        }
        let header = match parse(&block, at) {
            Ok(header) => header,
            Err(wrong) if headers == 1 => return Err(not_tar(&block, words, wrong)),
            Err(wrong) => {
                findings.error(
                    words.header,
                    here,
                    format_args!("{wrong}; what follows is not read"),
                );
                return Ok(());
            }
        };
        let start = at.saturating_add(BLOCK);
        let size = member(source, &header, start, &mut extended, words, findings, take)?;
        let Some(next) = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|size| start.checked_add(size))
        else {
            break;
        };
        at = next;
    }
    if headers == 0 {
        return Err(Error::corrupt(format_args!(
            "{length} bytes hold no tar header"
        )));
    }
    if !ended {
        findings.warning(
            words.end,
            At {
                offset: length,
                line: 0,
            },
            "the archive does not end in two blocks of zeros",
        );
    }
    Ok(())
}

/// Takes one header; returns the size of the data behind it.
fn member(
    source: &dyn ReadAt,
    header: &Header,
    start: u64,
    extended: &mut Extended,
    words: &Words,
    findings: &mut Findings,
    take: &mut dyn FnMut(Member, &mut Findings) -> Result<()>,
) -> Result<u64> {
    let here = At {
        offset: start.saturating_sub(BLOCK),
        line: 0,
    };
    match header.flag {
        b'x' => {
            let records = small(source, "extended header", start, header.size)?;
            if !read_records(&records, extended) {
                findings.error(words.pax, here, "an extended header has a broken record");
            }
        }
        b'L' => {
            let name = small(source, "long name", start, header.size)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
            extended.name = Some(text(name, start)?);
        }
        // Global headers and long link names say nothing about names or sizes of files.
        b'g' | b'K' => {}
        b'S' => return Err(sparse(here)),
        b'0' | b'7' | 0 => {
            let Extended {
                name,
                size,
                sparse: is_sparse,
            } = std::mem::take(extended);
            if is_sparse {
                return Err(sparse(here));
            }
            let (name, size) = (
                name.unwrap_or_else(|| header.name.clone()),
                size.unwrap_or(header.size),
            );
            let truncated = start.checked_add(size).is_none_or(|end| end > source.len());
            if truncated {
                let (name, end) = (quote(&name), source.len());
                findings.error(
                    words.truncated,
                    here,
                    format_args!(
                        "{name} of {size} bytes at offset {start} ends past the archive ({end})"
                    ),
                );
            }
            let member = Member {
                name,
                offset: start,
                size,
                truncated,
            };
            take(member, findings)?;
            return Ok(size);
        }
        flag => {
            let Extended { name, size, .. } = std::mem::take(extended);
            let name = quote(&name.unwrap_or_else(|| header.name.clone()));
            let flag = char::from(flag).escape_debug();
            findings.warning(
                words.kind,
                here,
                format_args!("{name} is of type '{flag}', not a file; it is passed over"),
            );
            // Links and folders have no data, whatever their size field says (POSIX.1-2001, ustar interchange format).
            let none = matches!(header.flag, b'1'..=b'6');
            return Ok(if none { 0 } else { size.unwrap_or(header.size) });
        }
    }
    Ok(header.size)
}

fn sparse(at: At) -> Error {
    Error::unsupported(format_args!(
        "the member at offset {} is stored sparse",
        at.offset
    ))
}

fn not_tar(block: &[u8], words: &Words, wrong: Error) -> Error {
    let packed = match block {
        [0x1f, 0x8b, ..] => "compressed with gzip",
        [b'P', b'K', 3, 4, ..] => "a zip",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "compressed with xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "compressed with zstd",
        _ => return wrong,
    };
    Error::unsupported(format_args!("the archive is {packed}; {}", words.what))
}

fn small(source: &dyn ReadAt, what: &str, start: u64, size: u64) -> Result<Vec<u8>> {
    if size > EXTENDED_MAX {
        return Err(Error::unsupported(format_args!(
            "{what} at offset {start} has {size} bytes, more than the {EXTENDED_MAX} allowed"
        )));
    }
    read_vec(source, what, start, size, &Limits::DEFAULT)
}

fn text(bytes: &[u8], offset: u64) -> Result<String> {
    let text = std::str::from_utf8(bytes).map(ToOwned::to_owned);
    text.map_err(|_| Error::corrupt(format_args!("a name at offset {offset} is not UTF-8")))
}

/// `length key=value\n` records of a pax header.
fn read_records(mut records: &[u8], extended: &mut Extended) -> bool {
    while !records.is_empty() {
        let Some(blank) = records.iter().position(|byte| *byte == b' ') else {
            return false;
        };
        let digits = records
            .get(..blank)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(length) = digits.and_then(|digits| digits.parse::<usize>().ok()) else {
            return false;
        };
        let (Some(record), Some(rest)) = (
            records.get(blank.saturating_add(1)..length),
            records.get(length..),
        ) else {
            return false;
        };
        let Some(record) = record
            .strip_suffix(b"\n")
            .and_then(|record| std::str::from_utf8(record).ok())
        else {
            return false;
        };
        match record.split_once('=') {
            Some(("path", value)) => extended.name = Some(value.to_owned()),
            Some(("size", value)) => match value.parse() {
                Ok(size) => extended.size = Some(size),
                Err(_) => return false,
            },
            Some((key, _)) if key.starts_with("GNU.sparse.") => extended.sparse = true,
            Some(_) => {}
            None => return false,
        }
        records = rest;
    }
    true
}

fn parse(block: &[u8; 512], at: u64) -> Result<Header> {
    let corrupt = |what: &str| Error::corrupt(format_args!("tar header at offset {at}: {what}"));
    let field = |offset, length| slice_at(block, offset, length).unwrap_or(&[]);
    let claimed = number(field(148, 8)).ok_or_else(|| corrupt("the checksum is no number"))?;
    if claimed != checksum(block) {
        return Err(corrupt(&format!(
            "the checksum is {claimed}, the bytes add up to {}",
            checksum(block)
        )));
    }
    let size = number(field(124, 12)).ok_or_else(|| corrupt("the size is no number of 64 bits"))?;
    let name = until_zero(field(0, 100));
    // GNU's old format keeps times where ustar has the prefix; only its magic tells.
    let is_ustar = field(257, 8).starts_with(b"ustar\0");
    let prefix = if is_ustar {
        until_zero(field(345, 155))
    } else {
        &[]
    };
    let name = if prefix.is_empty() {
        text(name, at)?
    } else {
        format!("{}/{}", text(prefix, at)?, text(name, at)?)
    };
    let flag = field(156, 1).first().copied().unwrap_or(0);
    Ok(Header { name, size, flag })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// Sum of all bytes with the checksum field taken as blanks.
pub(crate) fn checksum(block: &[u8; 512]) -> u64 {
    let bytes = block.iter().enumerate();
    bytes
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum()
}

/// Octal digits between blanks and NULs, or base-256 when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // 0x80 and not 0xff: negative numbers have no meaning here.
        let mut value = u64::from(first & 0x7f);
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c| c == ' ' || c == '\0');
    if text.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(text, 8).ok()
    }
}
