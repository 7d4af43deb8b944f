//! The parent of a differencing disk: which file it is, and whether it is the right one.

use super::bat::Geometry;
use super::locator::Locator;
use super::read::Vhdx;
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
    pub(super) fn open(
        locator: &Locator,
        geometry: &Geometry,
        opener: &Opener<'_>,
        findings: &mut Findings,
    ) -> Result<Self> {
        let (mut other, mut refused) = (None, None);
        let mut right = None;
        for name in locator.names() {
            let found = opener.second("parent", &name).and_then(|second| {
                let disk = Vhdx::open(second.bytes, &second.opener);
                let disk = disk.map_err(|error| error.within(format_args!("parent {name:?}")))?;
                Ok(Self {
                    key: second.key,
                    disk,
                })
            });
            match found {
                Ok(parent) if locator.links(parent.disk.headers.current.data_write_guid) => {
                    right = Some(parent);
                    break;
                }
                Ok(parent) => other = other.or(Some(parent)),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let nowhere = || Error::corrupt("VHDX parent locator with no path to the parent");
        let linked = right.is_some();
        let parent = right
            .or(other)
            .ok_or_else(|| refused.unwrap_or_else(nowhere))?;
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
