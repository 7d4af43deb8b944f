//! What an initial RAM filesystem brings: files, kernel modules, their aliases and dependencies.
//!
//! Module files are read for their own `.modinfo`; `modules.alias` and `modules.dep` beside them are what the
//! `modprobe` in there really uses, so they win where they exist: a module file missing from the tables is not
//! found by udev, a module in the tables without a file cannot be loaded.

use super::model::{Initramfs, Module};
use super::unpack::Packed;
use super::{cpio, elf};
use crate::modules::name_of as module_name;
use drylab_block::{Error, Finding, Limits, Result, Severity};

/// Regular file, in the format bits of a file mode.
const REGULAR: u32 = 0o100_000;

/// Reads an initramfs.
///
/// # Errors
/// [`Error::Corrupt`] when no archive could be read at all, [`Error::Unsupported`] when it is too large.
pub fn read(bytes: &[u8], limits: &Limits, findings: &mut Vec<Finding>) -> Result<Initramfs> {
    let mut found = Initramfs::default();
    let mut depends = String::new();
    // Compressed modules count against the same bound as the archives, once more.
    let mut left = limits.file_bytes_max;
    let members = cpio::walk(bytes, limits, &mut |entry| {
        if entry.mode & 0o170_000 == REGULAR {
            if let Some(name) = module_name(&entry.name) {
                found.modules.insert(name, module(&entry, &mut left));
            } else if entry.name.ends_with("/modules.alias") {
                found
                    .aliases
                    .extend(aliases(&String::from_utf8_lossy(entry.data)));
            } else if entry.name.ends_with("/modules.dep") {
                depends = String::from_utf8_lossy(entry.data).into_owned();
            } else if entry.name.ends_with("initramfs.conf") {
                found.policy =
                    policy(&String::from_utf8_lossy(entry.data)).or_else(|| found.policy.take());
            }
        }
        found.files.insert(entry.name);
    })?;
    found.archives = members.iter().map(|member| member.name()).collect();
    if let Some(cpio::Member::Other(name)) = members.last() {
        found.unread = Some(format!(
            "an archive in it is compressed with {name}, which is not unpacked here"
        ));
        findings.push(Finding {
            code: "INITRAMFS-COMPRESSION",
            severity: Severity::Warning,
            offset: 0,
            message: format!("the initramfs is compressed with {name}: its modules are not known"),
        });
    }
    if members.is_empty() {
        return Err(Error::corrupt("the initramfs holds no archive"));
    }
    // Dependencies as depmod wrote them, where it did.
    for (name, needs) in dependencies(&depends) {
        if let Some(module) = found.modules.get_mut(&name) {
            module.depends = needs;
        }
    }
    Ok(found)
}

/// Reads one module file; a compressed one is unpacked within the `left` bytes.
fn module(entry: &cpio::Entry<'_>, left: &mut u64) -> Module {
    let read = match Packed::of_module(&entry.name) {
        Some(packed) => packed
            .unpack(entry.data, left)
            .and_then(|(content, _)| elf::modinfo(&content)),
        None => elf::modinfo(entry.data),
    };
    match read {
        Ok(module) => Module {
            path: entry.name.clone(),
            ..module
        },
        Err(error) => Module {
            path: entry.name.clone(),
            damaged: Some(error.to_string()),
            ..Module::default()
        },
    }
}

/// Lines of `modules.alias`: pattern, module (with `_`), line from 1.
pub(crate) fn aliases(text: &str) -> impl Iterator<Item = (String, String, u32)> {
    super::fstab::numbered(text).filter_map(|(line, content)| {
        let mut words = content.split_whitespace();
        let pattern = words
            .next()
            .filter(|word| *word == "alias")
            .and_then(|_| words.next())?;
        Some((pattern.to_owned(), words.next()?.replace('-', "_"), line))
    })
}

/// Lines of `modules.dep`: module and the modules it needs, nearest first.
pub(crate) fn dependencies(text: &str) -> impl Iterator<Item = (String, Vec<String>)> {
    text.lines().filter_map(|line| {
        let (path, needs) = line.split_once(':')?;
        Some((
            module_name(path.trim())?,
            needs.split_whitespace().filter_map(module_name).collect(),
        ))
    })
}

/// Value of the `MODULES=` line of `initramfs.conf`.
fn policy(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix("MODULES="))
        .map(|value| value.trim().to_owned())
}
