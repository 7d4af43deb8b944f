//! What an importer makes of a damaged disk: it refuses what its product refuses, and remarks what the product takes and
//! misreads. Both are rows of the product's [`Profile`]; a sound disk, and damage that the product does not mind, change
//! nothing.

use super::{ReadError, Remark, refused};
use drylab_catalog::{Mark, Place, Witness};
use drylab_image::profile::{Does, Evidence, Profile, Reaction};
use drylab_image::{Finding, Findings, Image};

/// Looks at the whole structure of the disk in `file`, if the product minds anything of its format.
///
/// # Errors
/// [`ReadError::Refused`] with every rule that the product refuses the disk for, or when it cannot be looked at.
pub(super) fn react(
    profile: &Profile,
    file: &str,
    image: &Image,
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    react_but(profile, file, image, &[], remarks)
}

/// [`react`], with codes left out that the importer looks at by itself.
pub(super) fn react_but(
    profile: &Profile,
    file: &str,
    image: &Image,
    left_out: &[&str],
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    if !profile.minds(image.format()) {
        return Ok(());
    }
    let found = image.check().map_err(|error| refused(file, error))?;
    let mut refusals = Vec::new();
    let reactions = profile.reactions(image.subformat(), &found);
    let own = |(finding, _): &(&Finding, _)| !left_out.contains(&finding.rule.code);
    for (finding, reaction) in reactions.into_iter().filter(own) {
        let why = witness(profile, file, &found, finding, reaction);
        match reaction.does {
            Does::Refuses => refusals.extend(why),
            Does::Misreads => remarks.push(Remark::warned(why)),
        }
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(ReadError::Refused(refusals))
    }
}

/// The place in the file with what stands there, then what the product does with it.
fn witness(
    profile: &Profile,
    file: &str,
    found: &Findings,
    finding: &Finding,
    reaction: &Reaction,
) -> Vec<Witness> {
    let file = match finding.file.as_str() {
        "" => file,
        second => second,
    };
    let count = found.counts().get(reaction.code).copied().unwrap_or(1);
    let more = match count.saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and at {more} more places)"),
    };
    let place = format!("{file}, byte {}", finding.offset);
    let says = format!("{}: {}{more}", reaction.code, finding.message());
    let does = Witness {
        place: Place::Fact(format!("{}/{}", profile.name, reaction.code)),
        says: format!(
            "{} {}: {} ({})",
            profile.title,
            reaction.does.name(),
            reaction.how,
            reaction.evidence.source()
        ),
        mark: mark(reaction.evidence),
    };
    vec![Witness::disk(place, says), does]
}

fn mark(evidence: Evidence) -> Mark {
    match evidence {
        Evidence::Measured(_) => Mark::Measured,
        Evidence::Source(_) => Mark::Source,
        Evidence::Document(_) => Mark::Document,
        Evidence::Issue(_) => Mark::Issue,
        Evidence::Belief(_) => Mark::Belief,
    }
}
