//! A descriptor as another tool would have written it: the scenario's edits of what the source's export wrote.

use super::crossing::Moving;
use crate::crossing::Stopped;
use drylab_appliance::Package;
use drylab_appliance::manifest::Manifest;
use drylab_block::{Error, Limits, ReadAt};
use drylab_catalog::Witness;
use drylab_hypervisor::Missing;
use drylab_scenario::DescriptorEdit;
use std::sync::Arc;

/// Applies the edits and, where the package has a manifest, writes it anew.
///
/// # Errors
/// [`Stopped::Unknown`] when an edit finds nothing to change: what such a package would come to is not known.
pub(super) fn rewrite(edits: &[DescriptorEdit], moving: &mut Moving) -> Result<(), Stopped> {
    if edits.is_empty() {
        return Ok(());
    }
    let name = moving.package.descriptor.clone();
    let nothing = |what: String| Stopped::Unknown(Missing { fact: what });
    let unread = |error: Error| nothing(format!("how to edit {name:?} ({error})"));
    let bytes = moving.package.text(&name, &Limits::DEFAULT);
    let mut text = String::from_utf8(bytes.map_err(unread)?)
        .map_err(|_| nothing(format!("text of {name:?}, which is not UTF-8,")))?;
    for edit in edits {
        if !text.contains(&edit.from) {
            return Err(nothing(format!("{:?} in {name:?}", edit.from)));
        }
        text = text.replace(&edit.from, &edit.to);
        moving.notes.push(Witness::descriptor(
            name.clone(),
            format!("written with {:?} for {:?}", edit.to, edit.from),
        ));
    }
    let bytes = Arc::new(text.into_bytes());
    moving.package.put(name.clone(), bytes);
    signed(&mut moving.package).map_err(unread)
}

/// The manifest of the files as they are now.
fn signed(package: &mut Package) -> drylab_block::Result<()> {
    let is_manifest = |name: &&String| name.ends_with(".mf");
    let Some(name) = package.files.keys().find(is_manifest).cloned() else {
        return Ok(());
    };
    let old = Manifest::parse(&package.text(&name, &Limits::DEFAULT)?, &Limits::DEFAULT)?;
    let Some(algorithm) = old.entries.first().map(|entry| entry.algorithm) else {
        return Ok(());
    };
    let mut files: Vec<(&str, &dyn ReadAt)> = Vec::new();
    for entry in &old.entries {
        files.push((&entry.name, package.file(&entry.name)?));
    }
    let text = Manifest::of(algorithm, &files)?.print();
    package.put(name, Arc::new(text.into_bytes()));
    Ok(())
}
