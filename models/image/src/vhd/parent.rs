//! Finding the parent of a differencing disk, and comparing it with what the child says of it.

use super::footer::locate;
use super::header::{Header, Locator};
use super::read::Vhd;
use super::{SECTOR, VhdSize, rules};
use crate::container::{Container, Opener};
use crate::finding::{Findings, Rule};
use crate::layer::Parent;
use crate::math::round_up;
use drylab_block::{Error, ReadAt, Result};

/// Where locators may stand.
pub(super) struct Room {
    /// Footer copy, header and BAT.
    pub(super) taken: Vec<(u64, u64)>,
    /// Where the data end.
    pub(super) end: u64,
}

impl Room {
    fn has(&self, (start, end): (u64, u64)) -> bool {
        let inside = |(from, to): &(u64, u64)| start < *to && *from < end;
        end <= self.end && !self.taken.iter().any(inside)
    }
}

/// What the locators and the header say of the parent.
#[derive(Default)]
pub(super) struct Said {
    /// Names that it may have beside the child.
    pub(super) names: Vec<String>,
    /// Where paths stand: no block may.
    pub(super) places: Vec<(u64, u64)>,
    /// Where locators lead that have no path there: it claims nothing, and is nobody's to write to.
    pub(super) doubted: Vec<(u64, u64)>,
    /// Numbers of the locators that lead to where none can be.
    pub(super) stray: Vec<u64>,
}

impl Said {
    /// Looks where a locator leads; the result is its path, if there is one.
    ///
    /// Only a path claims its place: what is none, over a block, is the locator's mistake and not the block's.
    fn look(
        &mut self,
        (source, room): (&dyn ReadAt, &Room),
        locator: &Locator,
        findings: &mut Findings,
    ) -> Option<String> {
        let (start, end) = locator.range();
        let mut say = |rule: &'static Rule, found: &dyn std::fmt::Display| {
            let place = (start, end.saturating_sub(start));
            let path = format!("parent locator {}", locator.number);
            findings.add(rule, place, path, found, "a path");
        };
        if !room.has((start, end)) {
            let found = "in the header, in the BAT or past the end";
            say(&rules::LOCATOR_PLACE, &found);
            self.stray.push(locator.number);
            return None;
        }
        match locator.path(source) {
            Ok((path, used)) => {
                let end = round_up(start.saturating_add(used), SECTOR);
                self.places.push((start, end));
                Some(path)
            }
            Err(error) => {
                say(&rules::PARENT_LOCATOR, &error);
                let all = (start, round_up(end, SECTOR));
                if matches!(error, Error::Io(_)) {
                    // What it says is not known.
                    self.places.push(all);
                } else {
                    self.doubted.push(all);
                }
                None
            }
        }
    }
}

/// Opens the parent: the file beside the child with one of the `names`, the one with the right UUID before others.
///
/// Footers tell which it is: only that file is opened with its own parents, or a chain would cost as many files as there are
/// ways through its names.
pub(super) fn open(
    names: &[String],
    header: &Header,
    believes: VhdSize,
    opener: &Opener<'_>,
    findings: &mut Findings,
) -> Result<Parent> {
    let within = |error: Error, name: &str| {
        error.within(format_args!("VHD differencing disk, parent {name:?}"))
    };
    let (mut chosen, mut refused) = (None, None);
    for name in names {
        let found = opener.below("parent", name).and_then(|second| {
            let located = locate(&*second.bytes, &mut Findings::default())?;
            Ok((second, located.footer.unique_id))
        });
        match found {
            Ok((second, id)) if id == header.parent_id() => {
                chosen = Some((name, second));
                break;
            }
            Ok((second, _)) => drop(chosen.get_or_insert((name, second))),
            Err(error) => drop(refused.get_or_insert(within(error, name))),
        }
    }
    let nowhere =
        || Error::corrupt("VHD differencing disk names no parent that could be a file beside it");
    let (name, second) = chosen.ok_or_else(|| refused.unwrap_or_else(nowhere))?;
    let image = Vhd::open(second.bytes, believes, &second.opener);
    let image = image.map_err(|error| within(error, name))?;
    Ok(joined(header, image, second.key, findings))
}

/// The parent, after it was compared with what the header says.
fn joined(header: &Header, image: Vhd, key: String, findings: &mut Findings) -> Parent {
    let hex = |id: &[u8; 16]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let place = |at: u64, length| (header.at.saturating_add(at), length);
    let (said, found) = (header.parent_id(), image.footer().unique_id);
    if said != found {
        let expected = format!("that of the file {key:?}, {}", hex(&found));
        let path = "dynamic header, parent unique id";
        findings.add(
            &rules::PARENT_ID,
            place(0x28, 16),
            path,
            hex(&said),
            expected,
        );
    }
    let (said, found) = (header.parent_time(), image.footer().timestamp);
    if said != 0 && said != found {
        let path = "dynamic header, parent time stamp";
        let expected = format!("that of the parent's footer, {found}");
        findings.add(&rules::PARENT_TIME, place(0x38, 4), path, said, expected);
    }
    findings.extend(&key, image.noticed());
    Parent {
        image: Box::new(image),
        key,
    }
}

/// What locators and header say: names without the folders, and places.
///
/// Folders are left out on purpose: a path inside an image is nobody's leave to open it, and mostly that of another
/// machine. The UUID tells whether the file is the one.
pub(super) fn said(
    source: &dyn ReadAt,
    header: &Header,
    room: &Room,
    findings: &mut Findings,
) -> Said {
    let locators = header.locators();
    let mut said = Said::default();
    let mut paths = Vec::new();
    for code in [b"W2ru", b"W2ku", b"MacX"] {
        for locator in locators.iter().filter(|locator| locator.code == *code) {
            paths.extend(said.look((source, room), locator, findings));
        }
    }
    paths.push(header.parent_name());
    for path in &paths {
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
        let strange = name
            .chars()
            .any(|c| c.is_control() || c == ':' || c == '\u{fffd}');
        let usable = !name.is_empty() && name != "." && name != ".." && !strange;
        if usable && !said.names.iter().any(|known| known == name) {
            said.names.push(name.to_owned());
        }
    }
    said
}
