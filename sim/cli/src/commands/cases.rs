//! `drylab cases`

use super::chosen;
use super::run::read_text;
use crate::args::{CasesArgs, Format};
use crate::exit::{Exit, Stop};
use crate::terminal;
use drylab_campaign::{Case, cases, committed_cases};
use drylab_kernel::Trace;
use drylab_pipeline::Library;
use drylab_report::{cases_json, cases_text};
use drylab_scenario::Scenario;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &CasesArgs) -> Result<Exit, Stop> {
    let all = match &args.folder {
        Some(folder) => read_folder(folder)?,
        None => committed_cases(),
    };
    let ids: Vec<String> = all.iter().map(|case| case.id.clone()).collect();
    let wanted = chosen("case", &args.case, &ids)?;
    let kept: Vec<Case> = all
        .into_iter()
        .filter(|case| wanted.contains(&case.id))
        .collect();
    let library = Library::new();
    let once = |scenario: &Scenario| {
        drylab_pipeline::run(&library, scenario, Trace::hashing_only())
            .map_err(|why| why.to_string())
    };
    let jobs = super::matrix::processors();
    let results = cases(&kept, jobs, once).map_err(|why| Stop::input("run the cases", why))?;
    terminal::print(&match args.format {
        Format::Text => cases_text(&results, terminal::paint()),
        Format::Json => cases_json(&results),
    })?;
    Ok(Exit::Done)
}

/// The `.toml` files of a folder, by name.
fn read_folder(folder: &Path) -> Result<Vec<Case>, Stop> {
    let task = || format!("read {}", folder.display());
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|why| Stop::input(task(), why))? {
        let path = entry.map_err(|why| Stop::input(task(), why))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Stop::input(task(), "there is no .toml file in it"));
    }
    paths.sort();
    let read = |path: &PathBuf| {
        Case::from_toml(&read_text(path)?)
            .map_err(|why| Stop::input(format_args!("read {}", path.display()), why))
    };
    paths.iter().map(read).collect()
}
