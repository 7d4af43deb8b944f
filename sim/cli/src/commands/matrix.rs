//! `drylab matrix`

use super::chosen;
use crate::args::{Format, MatrixArgs};
use crate::exit::{Exit, Stop};
use crate::terminal;
use drylab_campaign::{Digest, MatrixPlan, matrix, scenarios};
use drylab_catalog::ProductId;
use drylab_kernel::Trace;
use drylab_pipeline::Library;
use drylab_report::{matrix_json, matrix_text};
use drylab_scenario::Scenario;

pub(super) fn run(args: &MatrixArgs) -> Result<Exit, Stop> {
    let library = Library::new();
    let products: Vec<ProductId> = library.products.keys().cloned().collect();
    let plan = MatrixPlan {
        guests: chosen("guest", &args.guest, &Library::guests())?,
        products: chosen("product", &args.product, &products)?,
        routes: library.routes.clone(),
        seed: args.seed,
        repeat: args.repeat,
        jobs: args.jobs.unwrap_or_else(processors),
    };
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
        Format::Text => matrix_text(&cells, terminal::paint()),
        Format::Json => matrix_json(&cells),
    })?;
    Ok(Exit::Done)
}

fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| {
        u32::try_from(count.get()).unwrap_or(256).min(256)
    })
}
