//! The parent of a differencing disk: which file it is, and whether it is the right one.

use super::bat::Geometry;
use super::locator::Locator;
use super::read::{Vhdx, data_write_guid};
use super::rules;
use crate::container::Opener;
use crate::finding::{Finding, Findings};
use drylab_block::{Error, Result};

/// An open parent.
pub(super) struct Parent {
    /// The name by which the resolver knows it.
    pub(super) key: String,
    pub(super) disk: Vhdx,
}

impl Parent {
    /// Opens the parent by the first of its names under which the right file is found, or any.
    ///
    /// Headers tell which it is: only that file is opened with its own parents, or a chain would cost as many files as there
    /// are ways through its names.
    pub(super) fn open(
        locator: &Locator,
        geometry: &Geometry,
        opener: &Opener<'_>,
        findings: &mut Findings,
    ) -> Result<Self> {
        let names = locator.names();
        let within = |error: Error, name: &str| error.within(format_args!("parent {name:?}"));
        let (mut chosen, mut refused) = (None, None);
        for name in &names {
            let found = opener.below("parent", name).and_then(|second| {
                let id = data_write_guid(&*second.bytes).map_err(|error| within(error, name))?;
                Ok((second, id))
            });
            match found {
                Ok((second, id)) if locator.links(id) => {
                    chosen = Some((name, second));
                    break;
                }
                Ok((second, _)) => drop(chosen.get_or_insert((name, second))),
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        let nowhere = || Error::corrupt("VHDX parent locator with no path to the parent");
        let (name, second) = chosen.ok_or_else(|| refused.unwrap_or_else(nowhere))?;
        let disk = Vhdx::open(second.bytes, &second.opener);
        let parent = Self {
            key: second.key,
            disk: disk.map_err(|error| within(error, name))?,
        };
        let linked = locator.links(parent.disk.headers.current.data_write_guid);
        let mut wrong = |rule, path: &str, found: String, expected: String| {
            findings.push(Finding {
                rule,
                file: String::new(),
                offset: locator.at,
                length: 20,
                path: path.to_owned(),
                expected,
                found,
            });
        };
        if !linked {
            let id = parent.disk.headers.current.data_write_guid;
            let said = locator.get("parent_linkage").unwrap_or("nothing");
            let expected = format!("{id}, the DataWriteGuid of {:?}", parent.key);
            wrong(
                &rules::PARENT_LINKAGE,
                "parent_linkage",
                said.to_owned(),
                expected,
            );
        }
        let theirs = parent.disk.geometry.sector;
        if theirs != geometry.sector {
            let expected = format!("{theirs}, as in {:?}", parent.key);
            wrong(
                &rules::PARENT_SECTOR,
                "logical sector size",
                geometry.sector.to_string(),
                expected,
            );
        }
        findings.extend(&parent.key, &parent.disk.findings);
        Ok(parent)
    }
}
