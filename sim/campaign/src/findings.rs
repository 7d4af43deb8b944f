//! What the report found, as questions to a matrix of the 36 cells between different products.
//!
//! Source: lab-report, "Findings"; a finding that cannot be said of a matrix (no failure in it, say) has no answer.

use drylab_catalog::{GuestId, ProductId};
use drylab_pipeline::{Hop, Overall};
use std::collections::{BTreeMap, BTreeSet};

/// What is kept of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) guest: GuestId,
    pub(crate) arrow: (ProductId, ProductId),
    pub(crate) route: String,
    pub(crate) tools: Vec<Hop>,
    pub(crate) overall: Overall,
    /// Checks that are FAILURE.
    pub(crate) failed: Vec<&'static str>,
    /// Checks that are WARNING.
    pub(crate) warned: Vec<&'static str>,
}

impl Outcome {
    /// A cell that no tool at hand reaches: the conversion could not be completed.
    pub(crate) fn no_route(guest: &GuestId, source: &ProductId, target: &ProductId) -> Self {
        Self {
            guest: guest.clone(),
            arrow: (source.clone(), target.clone()),
            route: String::new(),
            tools: Vec::new(),
            overall: Overall::Failure,
            failed: vec!["no-route"],
            warned: Vec::new(),
        }
    }
}

/// One finding.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Id.
    pub id: &'static str,
    /// What the report says, in our words, and how it is counted.
    pub states: &'static str,
    pub(crate) holds: fn(&[Outcome]) -> Option<bool>,
}

impl PartialEq for Finding {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Finding {}

/// All findings.
#[must_use]
pub fn findings() -> &'static [Finding] {
    &[
        Finding {
            id: "windows-most-forgiving",
            states: "Windows Server 2008 R2 fails in fewer cells than either other guest",
            holds: |cells| {
                let [windows, ubuntu, centos] = failures(cells)?;
                Some(windows < ubuntu && windows < centos)
            },
        },
        Finding {
            id: "centos-least-forgiving",
            states: "CentOS 6.3 fails in more cells than either other guest",
            holds: |cells| {
                let [windows, ubuntu, centos] = failures(cells)?;
                Some(centos > ubuntu && centos > windows)
            },
        },
        Finding {
            id: "ubuntu-between",
            states: "Ubuntu 12.04 fails in no fewer cells than Windows and in no more than CentOS",
            holds: |cells| {
                let [windows, ubuntu, centos] = failures(cells)?;
                Some(windows <= ubuntu && ubuntu <= centos)
            },
        },
        Finding {
            id: "guest-matters",
            states: "on some arrow one and the same route ends differently for different guests",
            holds: guest_matters,
        },
        Finding {
            id: "most-failures-no-address",
            states: "in more than half of the failed cells the guest is up and has no address",
            holds: |cells| {
                let failed = cells.iter().filter(|cell| cell.overall == Overall::Failure);
                most(failed.map(|cell| cell.failed.contains(&"guest.ip-address")))
            },
        },
        Finding {
            id: "warnings-of-the-named-kinds",
            states: "more than half of the warnings in WARNING cells are a changed address, memory or CPU speed, or a machine made by hand",
            holds: |cells| {
                let warned = cells.iter().filter(|cell| cell.overall == Overall::Warning);
                most(warned.flat_map(|cell| cell.warned.iter().map(|check| NAMED.contains(check))))
            },
        },
        Finding {
            id: "warning-cells-of-the-named-kinds",
            states: "more than half of the WARNING cells have a warning of these kinds among theirs",
            holds: |cells| {
                let warned = cells.iter().filter(|cell| cell.overall == Overall::Warning);
                most(warned.map(|cell| cell.warned.iter().any(|check| NAMED.contains(check))))
            },
        },
        Finding {
            id: "no-single-tool",
            states: "no export, conversion or import brings every arrow past FAILURE for any guest",
            holds: no_single_tool,
        },
    ]
}

/// The kinds of warnings the report names.
const NAMED: [&str; 4] = [
    "guest.ip-address",
    "guest.ram",
    "guest.cpu-speed",
    "import.automated",
];

/// Failed cells of Windows, Ubuntu and CentOS; none where one of them has no cells.
fn failures(cells: &[Outcome]) -> Option<[usize; 3]> {
    let block = cells.len() / 3;
    let of = |wanted: &str| {
        let own = |part: &&[Outcome]| {
            part.iter()
                .any(|cell| cell.guest.as_str().starts_with(wanted))
        };
        let part = cells.chunks(block.max(1)).find(own)?;
        let failed = |cell: &&Outcome| cell.overall == Overall::Failure;
        Some(part.iter().filter(failed).count())
    };
    Some([of("windows")?, of("ubuntu")?, of("centos")?])
}

/// Whether more than half are true; none of nothing.
fn most(items: impl Iterator<Item = bool>) -> Option<bool> {
    let (mut hits, mut all) = (0usize, 0usize);
    for item in items {
        hits += usize::from(item);
        all += 1;
    }
    (all > 0).then_some(2 * hits > all)
}

fn guest_matters(cells: &[Outcome]) -> Option<bool> {
    let mut ends: BTreeMap<&str, BTreeSet<Overall>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| !cell.route.is_empty()) {
        ends.entry(&cell.route).or_default().insert(cell.overall);
    }
    Some(ends.values().any(|scores| scores.len() > 1))
}

fn no_single_tool(cells: &[Outcome]) -> Option<bool> {
    let arrows: BTreeSet<_> = cells.iter().map(|cell| &cell.arrow).collect();
    let tools: BTreeSet<Hop> = cells.iter().flat_map(|cell| cell.tools.clone()).collect();
    let covers = |tool: &Hop| {
        let reached: BTreeSet<_> = cells
            .iter()
            .filter(|cell| cell.tools.contains(tool) && cell.overall != Overall::Failure)
            .map(|cell| &cell.arrow)
            .collect();
        reached.len() == arrows.len()
    };
    Some(!tools.iter().any(covers))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, findings};
    use drylab_pipeline::Overall::{self, Failure, Success, Warning};

    fn cell(guest: &str, overall: Overall) -> Outcome {
        Outcome {
            overall,
            failed: match overall {
                Failure => vec!["guest.ip-address"],
                _ => Vec::new(),
            },
            ..Outcome::no_route(&guest.into(), &"".into(), &"".into())
        }
    }

    fn answers(cells: &[Outcome]) -> Vec<Option<bool>> {
        findings()
            .iter()
            .map(|finding| (finding.holds)(cells))
            .collect()
    }

    #[test]
    fn the_reports_own_shape_has_its_findings() {
        let mut cells = vec![
            cell("windows-2008r2", Success),
            cell("windows-2008r2", Warning),
            cell("windows-2008r2", Warning),
            cell("ubuntu-12.04", Success),
            cell("ubuntu-12.04", Warning),
            cell("ubuntu-12.04", Failure),
            cell("centos-6.3", Failure),
            cell("centos-6.3", Failure),
            cell("centos-6.3", Warning),
        ];
        for (index, cell) in cells.iter_mut().enumerate() {
            cell.route = format!("r{}", index % 3);
            if cell.overall == Warning {
                cell.warned = vec!["guest.ip-address", "import.automated", "guest.mac"];
            }
        }
        assert_eq!(answers(&cells), vec![Some(true); 8]);
    }

    #[test]
    fn a_matrix_without_failures_has_no_answer_about_them() {
        let cells = [
            cell("windows-2008r2", Success),
            cell("ubuntu-12.04", Success),
            cell("centos-6.3", Success),
        ];
        let found = answers(&cells);
        assert_eq!(found[0], Some(false), "nobody fails less");
        assert_eq!((found[4], found[5], found[6]), (None, None, None));
    }
}
