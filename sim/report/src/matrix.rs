//! The matrix as text.

use crate::{Paint, percent};
use drylab_campaign::{Cell, RouteResult};
use drylab_catalog::{GuestId, ProductId};
use drylab_pipeline::Overall;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One table for each guest (source in rows, target in columns), then each cell with its route, causes, evidence and
/// why the other routes lost.
#[must_use]
pub fn matrix_text(cells: &[Cell], paint: Paint) -> String {
    let mut text = String::new();
    for guest in distinct(cells.iter().map(|cell| &cell.guest)) {
        let own: Vec<&Cell> = cells.iter().filter(|cell| cell.guest == *guest).collect();
        table(&mut text, guest, &own, paint);
        for cell in own {
            detail(&mut text, cell, paint);
        }
        text.push('\n');
    }
    text.push_str(&summary(cells, paint));
    text
}

pub(crate) fn distinct<'a, T: PartialEq + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    items.fold(Vec::new(), |mut seen, item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
        seen
    })
}

fn table(text: &mut String, guest: &GuestId, cells: &[&Cell], paint: Paint) {
    let sources: Vec<&ProductId> = distinct(cells.iter().map(|cell| &cell.source));
    let targets: Vec<&ProductId> = distinct(cells.iter().map(|cell| &cell.target));
    let _ = write!(text, "{guest}\n  {:<18}", "from \\ to");
    for target in &targets {
        let _ = write!(text, "{target:<18}");
    }
    text.push('\n');
    for source in sources {
        let _ = write!(text, "  {source:<18}");
        for target in &targets {
            let cell = cells
                .iter()
                .find(|cell| cell.source == *source && cell.target == **target);
            match cell.and_then(|cell| cell.best()) {
                Some(best) => text.push_str(&paint.score(best.overall, 18)),
                None => {
                    let _ = write!(text, "{:<18}", "no route");
                }
            }
        }
        text.push('\n');
    }
}

fn detail(text: &mut String, cell: &Cell, paint: Paint) {
    let Some(best) = cell.best() else { return };
    let _ = writeln!(
        text,
        "  {} -> {}  {}  by {}  {} runs  belief {}",
        cell.source,
        cell.target,
        paint.score(best.overall, 7),
        best.route,
        best.runs(),
        percent(best.belief_ppm())
    );
    if best.causes.is_empty() {
        let _ = writeln!(text, "      witness: {}", best.typical.because);
    }
    for cause in &best.causes {
        let _ = writeln!(
            text,
            "      {}  {}  {} of runs  [{}]  {}",
            paint.score(cause.score, 7),
            cause.id,
            percent(cause.share_ppm),
            cause.evidence,
            cause.checks.join(", ")
        );
    }
    for lost in &cell.routes[1..] {
        let _ = writeln!(
            text,
            "      lost: {} {} ({})",
            lost.route,
            lost.overall,
            worst(lost)
        );
    }
    let _ = writeln!(text, "      replay: drylab replay {}", best.typical.token);
}

/// Why a route came to no more: its worst causes.
fn worst(route: &RouteResult) -> String {
    let causes: Vec<String> = route
        .causes
        .iter()
        .filter(|cause| cause.score == route.overall)
        .map(|cause| format!("{}: {}", cause.id, cause.checks.join(", ")))
        .collect();
    if causes.is_empty() {
        "equal, later in the route table".to_owned()
    } else {
        causes.join("; ")
    }
}

fn summary(cells: &[Cell], paint: Paint) -> String {
    let mut counts: BTreeMap<Overall, usize> = BTreeMap::new();
    for best in cells.iter().filter_map(Cell::best) {
        *counts.entry(best.overall).or_default() += 1;
    }
    let parts: Vec<String> = counts
        .iter()
        .rev()
        .map(|(overall, count)| format!("{count} {}", paint.score(*overall, 0)))
        .collect();
    format!("{} cells: {}\n", cells.len(), parts.join(", "))
}
