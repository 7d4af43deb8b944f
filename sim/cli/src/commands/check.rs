//! `drylab check`

use super::chosen;
use crate::args::{CheckArgs, Format};
use crate::exit::{Exit, Stop, While};
use crate::input::Input;
use crate::terminal;
use drylab_block::Severity;
use drylab_catalog::{Mark, ProductId, Witness};
use drylab_pipeline::{CannotRun, Library, Overall, PredictedFinding, Prediction, predict_package};
use drylab_report::{Noticed, check_json, check_text, containers_text};

pub(super) fn run(args: &CheckArgs) -> Result<Exit, Stop> {
    let library = Library::new();
    let products: Vec<ProductId> = library.products.keys().cloned().collect();
    let targets = chosen("product", &args.target, &products)?;
    let input = Input::open(&args.input)?;
    let predictions = predictions(&library, &input, &targets, args)?;
    terminal::print(&match args.format {
        Format::Text => {
            let mut text = containers_text(&[], &input.noticed);
            text.push_str(&check_text(&predictions, terminal::paint()));
            text
        }
        Format::Json => check_json(&predictions),
    })?;
    Ok(Exit::Done)
}

fn predictions(
    library: &Library,
    input: &Input,
    targets: &[ProductId],
    args: &CheckArgs,
) -> Result<Vec<Prediction>, Stop> {
    let task = format!("check {}", args.input.display());
    let Some(boot_disk) = input.disks.first() else {
        return Err(Stop::input(task, "it has no disk"));
    };
    library.inspect(boot_disk).on(&task)?;
    let cannot = |why: CannotRun| Stop::input(&task, why);
    let around = around(input);
    let predict_one = |target: &ProductId| {
        let prediction = predict_package(library, boot_disk, &input.package, target)?;
        Ok(joined(prediction, &around))
    };
    let all = targets.iter().map(predict_one);
    all.collect::<Result<_, _>>().map_err(cannot)
}

/// What is predicted, and what is wrong around it: the aggregation rule holds over all of it.
fn joined(mut prediction: Prediction, around: &[PredictedFinding]) -> Prediction {
    prediction.findings.extend(around.iter().cloned());
    let scores = prediction.findings.iter().map(|finding| finding.score);
    prediction.overall = scores.fold(prediction.overall, Ord::min);
    prediction
}

/// What is lost in container, archive or descriptor, and what is not looked at.
fn around(input: &Input) -> Vec<PredictedFinding> {
    let mut findings: Vec<PredictedFinding> = input.noticed.iter().filter_map(loss).collect();
    let disks = input.containers.iter().skip(1);
    let disks = disks.map(|disk| unseen("input.further-disk", &disk.name));
    findings.extend(disks);
    let systems = input.further_systems.iter();
    findings.extend(systems.map(|system| unseen("input.further-system", system)));
    findings
}

/// An error that a reader could go on from. Whether less than that matters is for the target's importer to say.
fn loss(noticed: &Noticed) -> Option<PredictedFinding> {
    if noticed.finding.severity != Severity::Error {
        return None;
    }
    let place = format!("{} at byte {}", noticed.place, noticed.finding.offset);
    let says = noticed.finding.message.clone();
    Some(PredictedFinding {
        id: noticed.finding.code.to_owned(),
        score: Overall::Failure,
        witness: vec![Witness::descriptor(place.clone(), says)],
        place,
        evidence: Mark::Source,
        remedy: "make the file again from its origin".to_owned(),
    })
}

fn unseen(id: &str, place: &str) -> PredictedFinding {
    let says = "only the first disk of the first virtual system is looked at";
    PredictedFinding {
        id: id.to_owned(),
        score: Overall::Unknown,
        place: place.to_owned(),
        evidence: Mark::Source,
        remedy: "check it by itself".to_owned(),
        witness: vec![Witness::descriptor(place, says)],
    }
}
