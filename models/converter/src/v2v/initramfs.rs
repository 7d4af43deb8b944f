//! The initramfs of the default kernel gets the drivers of the new disk, unless it has them.
//!
//! The kernel unpacks archives that stand one after another, later files over earlier ones, so what is missing is put
//! into an archive of its own behind the old ones. The tools run the guest's own dracut or update-initramfs instead; what counts, the modules
//! and their aliases inside, is the same.

use crate::ToolError;
use crate::converted::Edits;
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Initramfs, LinuxSystem, cpio_walk};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Modules that the new disk needs, and the tool that puts them there.
pub(crate) struct Wanted {
    /// Names with `_`.
    pub(crate) modules: &'static [&'static str],
    /// Name of the tool in its messages.
    pub(crate) tool: &'static str,
    /// What the modules are for, in its messages.
    pub(crate) disk: &'static str,
    /// The row behind it.
    pub(crate) quirk: &'static str,
}

/// For a disk on virtio.
pub(crate) fn virtio(quirk: &'static str) -> Wanted {
    Wanted {
        modules: &["virtio_pci", "virtio_blk"],
        tool: "virt-v2v",
        disk: "virtio",
        quirk,
    }
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/drivers/block/virtio_blk.ko` is `virtio_blk`.
fn module_of(path: &str) -> Option<String> {
    path.rsplit('/').next()?.strip_suffix(".ko").map(plain)
}

/// Looks at the initramfs, and rewrites it when the drivers are missing.
pub(crate) fn ready(
    system: &LinuxSystem,
    wanted: &Wanted,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    let Some(initramfs) = &system.initramfs else {
        edits.notes.push(Witness::file(
            "/boot",
            0,
            "the default entry has no initramfs",
        ));
        return Ok(());
    };
    let missing: Vec<&str> = wanted
        .modules
        .iter()
        .copied()
        .filter(|name| !initramfs.modules.contains_key(*name) && !builtin(system, name))
        .collect();
    if missing.is_empty() {
        let says = format!("{} are in it, kept as it is", wanted.modules.join(" and "));
        edits.made_at(Witness::file(&initramfs.path, 0, says), &[wanted.quirk]);
        return Ok(());
    }
    let Some(old) = editor.read(&initramfs.path)? else {
        return Ok(());
    };
    let Some(added) = addition(system, initramfs, editor, &old, &missing)? else {
        let says = format!(
            "{} are neither in the initramfs nor in {}",
            missing.join(" and "),
            system.modules.path
        );
        return Err(ToolError::new(format!(
            "{}: the guest's kernel has no {} drivers",
            wanted.tool, wanted.disk
        ))
        .because(Witness::file(&initramfs.path, 0, says)));
    };
    let mut bytes = old;
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
    bytes.extend(added);
    let applied = editor.write(&initramfs.path, bytes)?;
    edits.made(
        &applied,
        &format!("made anew with {}", missing.join(", ")),
        &[wanted.quirk],
    );
    Ok(())
}

fn builtin(system: &LinuxSystem, name: &str) -> bool {
    system.modules.builtin.line(name).is_some()
}

/// A gzip archive with the modules, what they need, and the lists that name them; `None` when the guest has them not.
fn addition(
    system: &LinuxSystem,
    initramfs: &Initramfs,
    editor: &Editor,
    old: &[u8],
    missing: &[&str],
) -> Result<Option<Vec<u8>>, ToolError> {
    let tree = system.modules.path.trim_end_matches('/').to_owned();
    let list = |name: &str| -> Result<String, ToolError> {
        let bytes = editor.read(&format!("{tree}/{name}"))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (dependencies, aliases) = (list("modules.dep")?, list("modules.alias")?);
    let paths: BTreeMap<String, &str> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(path, _)| Some((module_of(path)?, path)))
        .collect();
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut queue: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = queue.pop() {
        if initramfs.modules.contains_key(&name) || !wanted.insert(name.clone()) {
            continue;
        }
        queue.extend(
            system
                .modules
                .depends
                .get(&name)
                .into_iter()
                .flatten()
                .cloned(),
        );
    }
    let folder = tree.trim_start_matches('/').to_owned();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for name in &wanted {
        let Some(path) = paths.get(name) else {
            return Ok(None);
        };
        let full = if path.starts_with('/') {
            (*path).to_owned()
        } else {
            format!("{tree}/{path}")
        };
        let Some(bytes) = editor.read(&full)? else {
            return Ok(None);
        };
        files.insert(full.trim_start_matches('/').to_owned(), bytes);
    }
    let named = |module: Option<String>| module.is_some_and(|module| wanted.contains(&module));
    let new_aliases = aliases
        .lines()
        .filter(|line| named(line.rsplit(' ').next().map(plain)));
    let new_dependencies = dependencies
        .lines()
        .filter(|line| named(line.split_once(':').and_then(|(path, _)| module_of(path))));
    let new: [(&str, String); 2] = [
        (
            "modules.alias",
            new_aliases.map(|line| format!("{line}\n")).collect(),
        ),
        (
            "modules.dep",
            new_dependencies.map(|line| format!("{line}\n")).collect(),
        ),
    ];
    for (name, lines) in new {
        let mut text = listed(old, name)?;
        text.extend(lines.into_bytes());
        files.insert(format!("{folder}/{name}"), text);
    }
    pack(&files).map(Some)
}

/// A list of the old archives.
fn listed(old: &[u8], name: &str) -> Result<Vec<u8>, ToolError> {
    let mut found = Vec::new();
    cpio_walk(old, &Limits::DEFAULT, &mut |entry| {
        if entry.name.ends_with(name) {
            found = entry.data.to_vec();
        }
    })?;
    Ok(found)
}

/// A newc archive, compressed by gzip; header fields other than mode, links, sizes and number are zero.
fn pack(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, ToolError> {
    let mut archive = Vec::new();
    let last = ("TRAILER!!!".to_owned(), Vec::new());
    let entries = files
        .iter()
        .map(|(name, data)| (name, data, 0o100_644))
        .chain([(&last.0, &last.1, 0)]);
    for (number, (name, data, mode)) in (1u32..).zip(entries) {
        let (size, name_size) = (data.len(), name.len().saturating_add(1));
        let header = format!(
            "070701{number:08X}{mode:08X}{:016X}{:08X}{:08X}{size:08X}{:032X}{name_size:08X}{:08X}",
            0, 1, 0, 0, 0
        );
        archive.extend(header.into_bytes());
        archive.extend(name.as_bytes());
        archive.push(0);
        align(&mut archive);
        archive.extend(data);
        align(&mut archive);
    }
    let mut packer = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    packer
        .write_all(&archive)
        .map_err(drylab_block::Error::io)?;
    Ok(packer.finish().map_err(drylab_block::Error::io)?)
}

fn align(archive: &mut Vec<u8>) {
    while !archive.len().is_multiple_of(4) {
        archive.push(0);
    }
}
