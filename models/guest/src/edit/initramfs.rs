//! Writing an initramfs again without some of its modules.

use crate::inspect::{CpioEntry, CpioMember, cpio_walk};
use drylab_block::{Error, Limits, Result};
use std::io::Write;

/// The same files in one gzip-compressed newc archive, without the named modules and without the lines of
/// `modules.alias` and `modules.dep` that name them. Names compare with `-` and `_` alike.
///
/// # Errors
/// What unpacking finds; [`Error::Unsupported`] for members compressed in a way that is not unpacked here.
pub fn rewrite(bytes: &[u8], limits: &Limits, without: &[&str]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut number = 0u32;
    let members = cpio_walk(bytes, limits, &mut |entry| {
        if entry.name == "TRAILER!!!"
            || module_of(&entry.name).is_some_and(|name| names(without, &name))
        {
            return;
        }
        number = number.saturating_add(1);
        let lists_modules =
            entry.name.ends_with("modules.alias") || entry.name.ends_with("modules.dep");
        if lists_modules {
            let data = without_lines(entry.data, without);
            put(
                &mut archive,
                number,
                &CpioEntry {
                    data: &data,
                    ..entry
                },
            );
        } else {
            put(&mut archive, number, &entry);
        }
    })?;
    if let Some(CpioMember::Other(kind)) = members.last() {
        return Err(Error::unsupported(format_args!(
            "the initramfs has a member compressed by {kind}"
        )));
    }
    put(
        &mut archive,
        0,
        &CpioEntry {
            name: "TRAILER!!!".to_owned(),
            mode: 0,
            data: &[],
        },
    );
    let mut packer = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    packer.write_all(&archive).map_err(Error::io)?;
    packer.finish().map_err(Error::io)
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// `lib/modules/…/virtio_blk.ko` is `virtio_blk`.
fn module_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    file.strip_suffix(".ko").map(plain)
}

fn names(without: &[&str], module: &str) -> bool {
    without.iter().any(|name| plain(name) == module)
}

/// `alias PATTERN MODULE` and `…/module.ko: …` lines of the named modules are left out.
fn without_lines(data: &[u8], without: &[&str]) -> Vec<u8> {
    let text = String::from_utf8_lossy(data);
    let keep = |line: &&str| {
        let aliased = line
            .strip_prefix("alias ")
            .and_then(|rest| rest.trim_end().rsplit(' ').next())
            .map(plain);
        let depends = line.split_once(':').and_then(|(path, _)| module_of(path));
        !aliased
            .or(depends)
            .is_some_and(|module| names(without, &module))
    };
    text.split_inclusive('\n')
        .filter(keep)
        .collect::<String>()
        .into_bytes()
}

/// One entry with its header; fields other than mode, sizes and number are zero.
fn put(archive: &mut Vec<u8>, number: u32, entry: &CpioEntry<'_>) {
    let name_size = entry.name.len().saturating_add(1);
    let links = if entry.mode & 0o170_000 == 0o040_000 {
        2
    } else {
        1
    };
    let header = format!(
        "070701{number:08X}{:08X}{:08X}{:08X}{links:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{name_size:08X}{:08X}",
        entry.mode,
        0,
        0,
        0,
        entry.data.len(),
        0,
        0,
        0,
        0,
        0
    );
    archive.extend(header.as_bytes());
    archive.extend(entry.name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend(entry.data);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    while !archive.len().is_multiple_of(4) {
        archive.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{put, rewrite};
    use crate::inspect::{CpioEntry, cpio_walk};
    use drylab_block::Limits;
    use std::collections::BTreeMap;

    fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        cpio_walk(bytes, &Limits::DEFAULT, &mut |entry| {
            files.insert(entry.name.clone(), entry.data.to_vec());
        })
        .expect("an archive");
        files
    }

    #[test]
    fn a_removed_module_is_gone_with_its_aliases_and_nothing_else() {
        let mut archive = Vec::new();
        let alias = b"alias virtio:d00000002v* virtio_blk\nalias pci:v00008086d00007010sv*sd*bc*sc*i* ata_piix\n";
        for (name, data) in [
            ("init", b"#!/bin/sh".as_slice()),
            ("lib/modules/1/virtio-blk.ko", b"\x7fELF"),
            ("lib/modules/1/ata_piix.ko", b"\x7fELF2"),
            ("lib/modules/1/modules.alias", alias),
        ] {
            put(
                &mut archive,
                1,
                &CpioEntry {
                    name: name.to_owned(),
                    mode: 0o100_644,
                    data,
                },
            );
        }
        put(
            &mut archive,
            0,
            &CpioEntry {
                name: "TRAILER!!!".to_owned(),
                mode: 0,
                data: &[],
            },
        );
        let before = files(&archive);
        let after =
            files(&rewrite(&archive, &Limits::DEFAULT, &["virtio_blk"]).expect("a new archive"));
        let mut expected = before.clone();
        expected.remove("lib/modules/1/virtio-blk.ko");
        let kept = alias
            .split(|byte| *byte == b'\n')
            .nth(1)
            .expect("two lines");
        expected.insert(
            "lib/modules/1/modules.alias".to_owned(),
            [kept, b"\n"].concat(),
        );
        assert_eq!(after, expected);
        assert_eq!(
            files(&rewrite(&archive, &Limits::DEFAULT, &[]).expect("a new archive")),
            before
        );
    }
}
