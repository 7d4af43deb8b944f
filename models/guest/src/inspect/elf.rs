//! Kernel modules: the `.modinfo` section of an ELF64 object.
//!
//! System V ABI, gABI 4.1 chapter 4; section contents as modinfo(8) shows them.
//!
//! ```text
//! 0x00 7f 'E' 'L' 'F', class 2, data 1      0x28 section headers' offset (u64)
//! 0x3a size of a section header (64)         0x3c number of them     0x3e index of the names' section
//! section header: 0x00 name, 0x18 offset (u64), 0x20 size (u64)
//! .modinfo: "alias=pci:v0000…\0depends=mptscsih,mptbase\0license=GPL\0"
//! ```

use super::model::Module;
use drylab_block::{Error, Result, array_at, le_u16, le_u32, le_u64, slice_at};

/// Sections of a module file looked at; modules have fewer than a hundred.
const SECTIONS_MAX: u16 = 4096;

/// Reads aliases and dependencies of a module.
///
/// # Errors
/// [`Error::Unsupported`] for anything but little-endian ELF64, [`Error::Corrupt`] for structures past the end.
pub fn modinfo(bytes: &[u8]) -> Result<Module> {
    if array_at::<4>(bytes, 0) != Some(*b"\x7fELF") {
        return Err(Error::corrupt("no ELF mark at offset 0"));
    }
    if bytes.get(4) != Some(&2) || bytes.get(5) != Some(&1) {
        return Err(Error::unsupported("not a little-endian ELF64 object"));
    }
    let section = find_section(bytes, b".modinfo")?;
    let mut module = Module::default();
    for line in section.split(|byte| *byte == 0) {
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (key, value) = line.split_at(equals);
        let value = String::from_utf8_lossy(value.get(1..).unwrap_or_default());
        match key {
            b"alias" => module.aliases.push(value.into_owned()),
            b"depends" => {
                let names = value
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(|name| name.replace('-', "_"));
                module.depends.extend(names);
            }
            _ => {}
        }
    }
    Ok(module)
}

/// Content of the section called `wanted`; empty when there is none.
fn find_section<'a>(bytes: &'a [u8], wanted: &[u8]) -> Result<&'a [u8]> {
    let truncated = || {
        Error::corrupt(format_args!(
            "ELF header needs 64 bytes, the file has {}",
            bytes.len()
        ))
    };
    let table = le_u64(bytes, 0x28).ok_or_else(truncated)?;
    let entry = le_u16(bytes, 0x3a).ok_or_else(truncated)?;
    let count = le_u16(bytes, 0x3c).ok_or_else(truncated)?;
    let names = le_u16(bytes, 0x3e).ok_or_else(truncated)?;
    if entry < 64 || count > SECTIONS_MAX {
        return Err(Error::corrupt(format_args!(
            "{count} section headers of {entry} bytes (64, at most {SECTIONS_MAX})"
        )));
    }
    let header = |index: u16| {
        let at = u64::from(index)
            .checked_mul(u64::from(entry))
            .and_then(|at| at.checked_add(table));
        at.and_then(|at| usize::try_from(at).ok())
            .and_then(|at| slice_at(bytes, at, 64))
            .ok_or_else(|| {
                Error::corrupt(format_args!(
                    "section header {index} at {table} ends past the file ({})",
                    bytes.len()
                ))
            })
    };
    let content = |header: &[u8]| {
        let offset = le_u64(header, 0x18).and_then(|value| usize::try_from(value).ok());
        let size = le_u64(header, 0x20).and_then(|value| usize::try_from(value).ok());
        offset
            .zip(size)
            .and_then(|(offset, size)| slice_at(bytes, offset, size))
            .ok_or_else(|| {
                Error::corrupt(format_args!(
                    "a section ends past the file ({})",
                    bytes.len()
                ))
            })
    };
    let strings = content(header(names)?)?;
    for index in 1..count {
        let header = header(index)?;
        let at = le_u32(header, 0).and_then(|at| usize::try_from(at).ok());
        let name = at.and_then(|at| strings.get(at..)).unwrap_or_default();
        if name.split(|byte| *byte == 0).next() == Some(wanted) {
            return content(header);
        }
    }
    Ok(&[])
}

#[cfg(test)]
mod tests {
    use super::modinfo;

    #[test]
    fn a_file_that_is_no_module_is_refused_with_a_reason() {
        assert!(modinfo(b"#!/bin/sh\n").is_err_and(|error| error.to_string().contains("ELF mark")));
        assert!(
            modinfo(b"\x7fELF\x01\x01").is_err_and(|error| error.to_string().contains("ELF64"))
        );
        assert!(
            modinfo(b"\x7fELF\x02\x01").is_err_and(|error| error.to_string().contains("64 bytes"))
        );
    }
}
