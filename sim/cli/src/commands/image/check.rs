//! `drylab image check`

use super::document::{FORMAT, FindingsDocument, ImageDocument, json, tally};
use super::{Opened, open, target};
use crate::args::Format;
use crate::exit::{Exit, Stop, While};
use crate::image_args::ImageCheckArgs;
use crate::terminal;
use drylab_block::{Limits, Severity};
use drylab_image::profile::Profile;
use drylab_image::{Findings, Format as Kind, open_vhd};
use serde::Serialize;
use std::fmt::Write;

#[derive(Serialize)]
struct Document {
    format: u32,
    image: ImageDocument,
    damaged: bool,
    findings: FindingsDocument,
    /// What a product does with it.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    product: Option<ProductDocument>,
}

#[derive(Serialize)]
struct ProductDocument {
    name: &'static str,
    title: &'static str,
    reactions: Vec<ReactionDocument>,
    /// Codes that it does not mind, or of which nobody knows.
    others: Vec<&'static str>,
}

#[derive(Serialize)]
struct ReactionDocument {
    /// Code of a rule; or `FORMAT`, `SUBFORMAT` or `SIZE` of the file as a whole.
    code: &'static str,
    /// `refuses` or `misreads`.
    does: &'static str,
    how: String,
    /// `measured`, `source`, `document`, `issue` or `belief`.
    evidence: &'static str,
    source: &'static str,
}

impl ProductDocument {
    fn of(profile: &'static Profile, opened: &Opened, limits: &Limits, found: &Findings) -> Self {
        let image = &opened.image;
        let rows = profile.reactions(image.subformat(), found);
        let rows = rows.into_iter().map(|(_, reaction)| ReactionDocument {
            code: reaction.code,
            does: reaction.does.name(),
            how: reaction.how.to_owned(),
            evidence: reaction.evidence.mark(),
            source: reaction.evidence.source(),
        });
        let (kind, bytes) = (image.subformat(), believed(profile, opened, limits));
        let misfits = profile.misfits(image.format(), kind, bytes).into_iter();
        let misfits = misfits.map(|misfit| ReactionDocument {
            code: misfit.code,
            does: misfit.does.name(),
            how: misfit.how,
            evidence: misfit.evidence.mark(),
            source: misfit.evidence.source(),
        });
        let reactions: Vec<ReactionDocument> = misfits.chain(rows).collect();
        let is_other = |code: &&str| reactions.iter().all(|one| one.code != *code);
        let others = found.counts().keys().copied().filter(is_other).collect();
        Self {
            name: profile.name,
            title: profile.title,
            reactions,
            others,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("for {}:\n", self.title);
        for one in &self.reactions {
            let _ = writeln!(
                text,
                "  {} {}: {} ({}: {})",
                one.does, one.code, one.how, one.evidence, one.source
            );
        }
        if self.reactions.is_empty() {
            text.push_str("  nothing was found that it is known to refuse or misread\n");
        }
        if !self.others.is_empty() {
            let others = self.others.join(", ");
            let _ = writeln!(text, "  does not mind, or nobody knows: {others}");
        }
        text
    }
}

/// Bytes of the disk as the product sees it, which may believe the other one of a VHD's two sizes.
fn believed(profile: &Profile, opened: &Opened, limits: &Limits) -> u64 {
    let image = &opened.image;
    let theirs = (image.format() == Kind::Vhd)
        .then(|| open_vhd(opened.source.clone(), profile.vhd_size, limits).ok())
        .flatten();
    theirs.map_or(image.virtual_size(), |theirs| theirs.virtual_size())
}

pub(super) fn run(args: &ImageCheckArgs) -> Result<Exit, Stop> {
    let opened = open(&args.file, &args.reading)?;
    let task = format!("check {}", args.file.display());
    let turning = terminal::turning("checking");
    let found = opened.image.check().on(task);
    turning.finish_and_clear();
    let found = found?;
    let profile = args.product.and_then(target::profile);
    let product = profile
        .map(|profile| ProductDocument::of(profile, &opened, &args.reading.limits(), &found));
    let is_minded = product
        .as_ref()
        .is_some_and(|one| !one.reactions.is_empty());
    let exit = match verdict(&found, args.strict) {
        Exit::Done if is_minded => Exit::Damaged,
        exit => exit,
    };
    let image = ImageDocument::of(&args.file, &opened)?;
    let findings = FindingsDocument::of(&found, &image.file);
    terminal::print(&match args.format {
        Format::Json => json(&Document {
            format: FORMAT,
            damaged: exit == Exit::Damaged,
            findings,
            image,
            product,
        })?,
        Format::Text => {
            let (list, format, kind) = (findings.text(), image.format, &image.subformat);
            let said = format!("{}: {format} {kind}", image.file);
            let product = product.map_or_else(String::new, |one| one.text());
            format!("{list}{}: {}\n{product}", said.trim_end(), tally(&found))
        }
    })?;
    Ok(exit)
}

/// Whether findings are damage.
pub(super) fn verdict(found: &Findings, strict: bool) -> Exit {
    match found.worst() {
        Some(Severity::Error) => Exit::Damaged,
        Some(Severity::Warning) if strict => Exit::Damaged,
        _ => Exit::Done,
    }
}
