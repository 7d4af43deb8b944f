//! The matrix as Markdown: one table for each guest, each cell with score, cause, route and share of belief.

use crate::matrix::distinct;
use crate::percent;
use drylab_campaign::{Cell, RouteResult};
use std::fmt::Write;

/// One table for each guest, sources in rows, targets in columns.
#[must_use]
pub fn matrix_markdown(cells: &[Cell]) -> String {
    let mut text = String::new();
    for guest in distinct(cells.iter().map(|cell| &cell.guest)) {
        let own: Vec<&Cell> = cells.iter().filter(|cell| cell.guest == *guest).collect();
        let targets = distinct(own.iter().map(|cell| &cell.target));
        let _ = write!(text, "## {guest}\n\n| from \\ to |");
        for target in &targets {
            let _ = write!(text, " {target} |");
        }
        let _ = write!(text, "\n|---|{}\n", "---|".repeat(targets.len()));
        for source in distinct(own.iter().map(|cell| &cell.source)) {
            let _ = write!(text, "| {source} |");
            for target in &targets {
                let cell = own
                    .iter()
                    .find(|cell| cell.source == *source && cell.target == **target);
                let best = cell.and_then(|cell| cell.best());
                let _ = write!(
                    text,
                    " {} |",
                    best.map_or_else(|| "no route".to_owned(), entry)
                );
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Score, worst cause, route, belief.
fn entry(best: &RouteResult) -> String {
    let cause = best
        .causes
        .first()
        .map(|cause| format!(" ({})", cause.id))
        .unwrap_or_default();
    format!(
        "**{}**{cause} by {}, belief {}",
        best.overall,
        best.route,
        percent(best.belief_ppm())
    )
}
