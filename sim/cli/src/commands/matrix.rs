//! `drylab matrix`

use super::chosen;
use super::run::read_text;
use crate::args::{Format, MatrixArgs, ToolsOf};
use crate::exit::{Exit, Stop};
use crate::terminal;
use drylab_campaign::{Digest, MatrixPlan, PlausiblePlan, Unknowns, matrix, plausible, scenarios};
use drylab_catalog::ProductId;
use drylab_kernel::Trace;
use drylab_pipeline::{LabFile, Library, Route, Tools};
use drylab_report::{matrix_json, matrix_markdown, matrix_text, plausible_json, plausible_text};
use drylab_scenario::Scenario;
use std::path::Path;

pub(super) fn run(args: &MatrixArgs) -> Result<Exit, Stop> {
    let mut library = Library::new();
    if let Some(path) = &args.lab {
        library.lab = lab_file(path)?;
    }
    let products: Vec<ProductId> = library.products.keys().cloned().collect();
    let plan = MatrixPlan {
        guests: chosen("guest", &args.guest, &Library::guests())?,
        products: chosen("product", &args.product, &products)?,
        routes: routes(&library, args.tools),
        seed: args.seed,
        repeat: args.repeat,
        jobs: args.jobs.unwrap_or_else(processors),
    };
    if let Some(labs) = args.plausible {
        return shares(&library, plan, labs, args.format);
    }
    let total = u64::try_from(scenarios(&plan).len()).unwrap_or(u64::MAX);
    let bar = terminal::progress(total);
    let digest = |scenario: &Scenario| {
        let report = drylab_pipeline::run(&library, scenario, Trace::hashing_only());
        // Guests, products and routes are our own tables; a scenario made of them that cannot be run is a bug.
        Digest::of(&report.expect("scenarios of the committed tables can be run"))
    };
    let cells = matrix(&plan, digest, |done| bar.set_position(done));
    bar.finish_and_clear();
    terminal::print(&match args.format {
        Format::Text if args.markdown => matrix_markdown(&cells),
        Format::Text => matrix_text(&cells, terminal::paint()),
        Format::Json => matrix_json(&cells),
    })?;
    Ok(Exit::Done)
}

/// Draws labs and prints in how many of them the findings of the report hold.
fn shares(library: &Library, plan: MatrixPlan, labs: u32, format: Format) -> Result<Exit, Stop> {
    let unknowns = Unknowns::of_the_report();
    let plan = PlausiblePlan {
        guests: plan.guests,
        products: plan.products,
        labs,
        seed: plan.seed,
        jobs: plan.jobs,
    };
    let bar = terminal::progress(u64::from(labs));
    let found = plausible(&plan, library, &unknowns, |done| bar.set_position(done));
    bar.finish_and_clear();
    // The unknowns are our own table: one that does not fit the products is a bug.
    let found = found.expect("the committed unknowns fit the committed products");
    terminal::print(&match format {
        Format::Text => plausible_text(&found, &unknowns),
        Format::Json => plausible_json(&found),
    })?;
    Ok(Exit::Done)
}

fn routes(library: &Library, tools: ToolsOf) -> Vec<Route> {
    let tools = match tools {
        ToolsOf::Of2013 => Tools::Of2013,
        ToolsOf::Today => Tools::Today,
        ToolsOf::All => Tools::All,
    };
    let all = library.routes.iter();
    all.filter(|route| tools.allow(route)).cloned().collect()
}

fn lab_file(path: &Path) -> Result<LabFile, Stop> {
    let text = read_text(path)?;
    let task = format!("read lab file {}", path.display());
    LabFile::from_toml(&text).map_err(|error| Stop::input(task, error))
}

pub(super) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| {
        u32::try_from(count.get()).unwrap_or(256).min(256)
    })
}
