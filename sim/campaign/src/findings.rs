//! What the report found, as questions to a matrix of the 36 cells between different products.
//!
//! Source: lab-report, "Findings"; a finding that cannot be said of a matrix (no failure in it, say) has no answer.

use drylab_catalog::{GuestId, ProductId};
use drylab_pipeline::{Hop, Overall};
use drylab_scenario::Step;
use std::collections::{BTreeMap, BTreeSet};

/// What is kept of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) guest: GuestId,
    pub(crate) arrow: (ProductId, ProductId),
    pub(crate) route: String,
    pub(crate) tools: Vec<Hop>,
    pub(crate) overall: Overall,
    /// The last step that was tried.
    pub(crate) reached: Option<Step>,
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
            reached: None,
            failed: vec!["no-route"],
            warned: Vec::new(),
        }
    }
}

/// What a lab showed.
pub(crate) struct Seen<'a> {
    /// By cell, with the route that stands for it.
    pub(crate) cells: &'a [Outcome],
    /// Of every route whose tools are at hand.
    pub(crate) routes: &'a [&'a Outcome],
}

/// One finding.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Id.
    pub id: &'static str,
    /// What the report says, in our words, and how it is counted.
    pub states: &'static str,
    pub(crate) holds: fn(&Seen<'_>) -> Option<bool>,
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
            holds: |seen| {
                let [windows, ubuntu, centos] = failures(seen)?;
                Some(windows < ubuntu && windows < centos)
            },
        },
        Finding {
            id: "centos-least-forgiving",
            states: "CentOS 6.3 fails in more cells than either other guest",
            holds: |seen| {
                let [windows, ubuntu, centos] = failures(seen)?;
                Some(centos > ubuntu && centos > windows)
            },
        },
        Finding {
            id: "ubuntu-between",
            states: "Ubuntu 12.04 fails in no fewer cells than Windows and in no more than CentOS",
            holds: |seen| {
                let [windows, ubuntu, centos] = failures(seen)?;
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
            holds: |seen| {
                let failed = seen
                    .cells
                    .iter()
                    .filter(|cell| cell.overall == Overall::Failure);
                most(failed.map(|cell| cell.failed.contains(&"guest.ip-address")))
            },
        },
        Finding {
            id: "warnings-of-the-named-kinds",
            states: "more than half of the warnings in WARNING cells are a changed address, memory or CPU speed, or a machine made by hand",
            holds: |seen| {
                let warned = seen
                    .cells
                    .iter()
                    .filter(|cell| cell.overall == Overall::Warning);
                most(warned.flat_map(|cell| cell.warned.iter().map(|check| NAMED.contains(check))))
            },
        },
        Finding {
            id: "warning-cells-of-the-named-kinds",
            states: "more than half of the WARNING cells have a warning of these kinds among theirs",
            holds: |seen| {
                let warned = seen
                    .cells
                    .iter()
                    .filter(|cell| cell.overall == Overall::Warning);
                most(warned.map(|cell| cell.warned.iter().any(|check| NAMED.contains(check))))
            },
        },
        Finding {
            id: "no-single-tool",
            states: "no converter is enough by itself: none brings, without another, some guest past FAILURE on every arrow",
            holds: no_single_tool,
        },
        Finding {
            id: "ovf-between-vendors-is-early",
            states: "of all machines that one vendor's console exports as OVF and another's imports, fewer than half come past FAILURE",
            holds: ovf_is_early,
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
fn failures(seen: &Seen<'_>) -> Option<[usize; 3]> {
    let cells = seen.cells;
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

fn guest_matters(seen: &Seen<'_>) -> Option<bool> {
    let mut ends: BTreeMap<&str, BTreeSet<Overall>> = BTreeMap::new();
    let gone = seen.cells.iter().filter(|cell| !cell.route.is_empty());
    for cell in gone {
        ends.entry(&cell.route).or_default().insert(cell.overall);
    }
    Some(ends.values().any(|scores| scores.len() > 1))
}

/// Asked of all routes at hand, whichever stands for a cell: what a tool can do does not depend on what was chosen.
fn no_single_tool(seen: &Seen<'_>) -> Option<bool> {
    let arrows: BTreeSet<_> = seen.cells.iter().map(|cell| &cell.arrow).collect();
    let mut reached: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    for route in seen.routes {
        let programs: BTreeSet<&str> = route.tools.iter().filter_map(|hop| hop.program()).collect();
        let mut programs = programs.into_iter();
        if let (Some(program), None) = (programs.next(), programs.next())
            && route.overall != Overall::Failure
        {
            reached.entry(program).or_default().insert(&route.arrow);
        }
    }
    let all = |reached: &BTreeSet<_>| reached.len() == arrows.len();
    Some(!reached.values().any(all))
}

fn ovf_is_early(seen: &Seen<'_>) -> Option<bool> {
    let handed_over = |route: &&&Outcome| {
        let neighbours = route.tools.iter().zip(route.tools.iter().skip(1));
        let mut straight = neighbours.filter(|(one, next)| one.exports_ovf() && next.imports_ovf());
        straight.next().is_some()
    };
    let routes = seen.routes.iter().filter(handed_over);
    most(routes.map(|route| route.overall == Overall::Failure))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Seen, findings};
    use drylab_pipeline::Hop;
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

    fn answers(cells: &[Outcome], routes: &[&Outcome]) -> Vec<Option<bool>> {
        let seen = Seen { cells, routes };
        findings()
            .iter()
            .map(|finding| (finding.holds)(&seen))
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
        let refused = Outcome {
            tools: vec![Hop::XencenterExportOvf, Hop::VsphereDeployOvf],
            ..cell("centos-6.3", Failure)
        };
        assert_eq!(answers(&cells, &[&refused]), vec![Some(true); 9]);
    }

    #[test]
    fn a_program_that_reaches_every_arrow_by_any_of_its_commands_is_a_single_tool() {
        let arrow = |number: usize, overall, tools: &[Hop]| Outcome {
            arrow: ("a".into(), format!("b{number}").as_str().into()),
            tools: tools.to_vec(),
            ..cell("centos-6.3", overall)
        };
        let cells = [arrow(1, Warning, &[]), arrow(2, Warning, &[])];
        let said = |routes: &[Outcome]| {
            let routes: Vec<&Outcome> = routes.iter().collect();
            answers(&cells, &routes)[7]
        };
        let (raw, vpc) = ([Hop::DatastoreCopy, Hop::QemuImgRaw], [Hop::QemuImgVpc]);
        let both = [arrow(1, Warning, &raw), arrow(2, Success, &vpc)];
        assert_eq!(said(&both), Some(false));
        assert_eq!(said(&both[..1]), Some(true), "an arrow is left");
        let failed = [arrow(1, Warning, &raw), arrow(2, Failure, &vpc)];
        assert_eq!(
            said(&failed),
            Some(true),
            "an arrow that fails is not reached"
        );
        let two = [Hop::QemuImgVpc, Hop::XenconvertVhd];
        let helped = [arrow(1, Warning, &raw), arrow(2, Warning, &two)];
        assert_eq!(said(&helped), Some(true), "two programs are not one");
        let consoles = [
            arrow(1, Warning, &[Hop::DatastoreCopy]),
            arrow(2, Warning, &[]),
        ];
        assert_eq!(said(&consoles), Some(true), "consoles are no one program");
    }

    #[test]
    fn an_ovf_that_goes_through_a_converter_is_not_handed_over_straight() {
        let by = |tools: &[Hop], overall| Outcome {
            tools: tools.to_vec(),
            ..cell("centos-6.3", overall)
        };
        let straight = [Hop::VsphereExportOvf, Hop::XencenterImportOvf];
        let helped = [
            Hop::VsphereExportOvf,
            Hop::XenconvertVmwareOvf,
            Hop::XencenterImportOvf,
        ];
        let said = |routes: &[&Outcome]| answers(&[], routes)[8];
        assert_eq!(said(&[&by(&helped, Failure)]), None);
        assert_eq!(said(&[&by(&straight, Failure)]), Some(true));
        let half = [&by(&straight, Failure), &by(&straight, Warning)];
        assert_eq!(said(&half), Some(false), "half is not fewer than half");
    }

    #[test]
    fn a_matrix_without_failures_has_no_answer_about_them() {
        let cells = [
            cell("windows-2008r2", Success),
            cell("ubuntu-12.04", Success),
            cell("centos-6.3", Success),
        ];
        let found = answers(&cells, &[]);
        assert_eq!(found[0], Some(false), "nobody fails less");
        assert_eq!((found[4], found[5], found[6]), (None, None, None));
    }
}
