//! Seed to scenario, first generation. A change that gives another scenario for a seed makes a second generation:
//! regressions are kept as scenarios, so none depends on this.

use crate::{Edit, Fault, FaultKind, FaultPlace, Scenario, Step, TargetNetwork};
use drylab_catalog::{GuestId, ProductId};
use drylab_kernel::{Stream, Streams};

/// A route the generator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteName {
    /// Its id.
    pub id: String,
    /// Where it starts.
    pub source: ProductId,
    /// Where it ends.
    pub target: ProductId,
}

/// What the generator may choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Guests.
    pub guests: Vec<GuestId>,
    /// Routes; at least one.
    pub routes: Vec<RouteName>,
}

/// The scenario of a seed: total, every seed gives a valid one.
///
/// # Panics
/// When the vocabulary is empty.
#[must_use]
pub fn generate(seed: u64, words: &Vocabulary) -> Scenario {
    let streams = Streams::new(seed);
    let mut choose = streams.stream("generate.choice", 1);
    let guest = pick(&mut choose, &words.guests);
    let route = pick(&mut choose, &words.routes);
    let mut scenario = Scenario::new(
        guest.as_str(),
        route.source.as_str(),
        route.target.as_str(),
        &route.id,
    );
    scenario.run_seed = choose.bounded(1 << 32);
    scenario.found_by = Some(seed & (u64::MAX >> 1));
    // Swarm: first how many kinds of change, then which, then how much.
    let mut features = [0u8, 1, 2, 3, 4, 5];
    let mut swarm = streams.stream("generate.swarm", 1);
    swarm.shuffle(&mut features);
    let enabled = swarm.bounded(4);
    for feature in features
        .iter()
        .take(usize::try_from(enabled).expect("at most 3"))
    {
        apply(
            *feature,
            &mut scenario,
            &mut streams.stream("generate.feature", u32::from(*feature)),
        );
    }
    scenario
}

fn pick<'a, T>(stream: &mut Stream, items: &'a [T]) -> &'a T {
    let count = u64::try_from(items.len()).expect("a list in memory");
    &items[usize::try_from(stream.bounded(count)).expect("below a usize")]
}

fn apply(feature: u8, scenario: &mut Scenario, draw: &mut Stream) {
    match feature {
        0 => {
            scenario.source_vm.vcpus = *pick(draw, &[1, 2, 4, 8, 16]);
            scenario.source_vm.memory_mib = draw.between(256, 16_384);
        }
        1 => {
            scenario.lab.dhcp_pool = u32::try_from(draw.between(1, 200)).expect("small");
            scenario.lab.dhcp_clients = Some(
                u32::try_from(draw.bounded(u64::from(scenario.lab.dhcp_pool) + 1)).expect("small"),
            );
            scenario.lab.forward_delay_s = *pick(draw, &[0, 4, 15, 30]);
        }
        2 => {
            scenario.lab.dhcp = draw.ratio(3, 4);
            scenario.lab.target_network = *pick(
                draw,
                &[TargetNetwork::SameSegment, TargetNetwork::OtherSubnet],
            );
        }
        3 => scenario.faults.push(Fault {
            kind: *pick(
                draw,
                &[
                    FaultKind::SpaceTaken,
                    FaultKind::ToolCrash,
                    FaultKind::LinkDown,
                ],
            ),
            place: *pick(draw, &[FaultPlace::Source, FaultPlace::Target]),
            step: *pick(draw, &Step::ALL),
            bytes: draw.bounded(1 << 40),
        }),
        4 => {
            scenario.lab.name_taken = draw.ratio(1, 3);
            scenario.lab.datastore_free = Some(draw.bounded(64 << 30));
        }
        _ => scenario.edits.push(edit_for(scenario.guest.as_str(), draw)),
    }
}

/// A change that makes sense in this guest; one that does not apply there would only be an error.
fn edit_for(guest: &str, draw: &mut Stream) -> Edit {
    let rules = "/etc/udev/rules.d/70-persistent-net.rules".to_owned();
    let services = "ControlSet001\\Services\\".to_owned();
    match (guest, draw.bounded(3)) {
        ("windows-2008r2", which) => Edit::SetDword {
            hive: "SYSTEM".to_owned(),
            key: services
                + ["intelide", "atapi", "LSI_SAS"][usize::try_from(which).expect("below 3")],
            value: "Start".to_owned(),
            data: u32::try_from(draw.bounded(5)).expect("small"),
        },
        ("centos-6.3", 0) => Edit::Write {
            path: rules,
            text: String::new(),
        },
        ("centos-6.3", 1) => Edit::RemoveLines {
            path: "/etc/sysconfig/network-scripts/ifcfg-eth0".to_owned(),
            containing: "HWADDR".to_owned(),
        },
        _ => {
            let modules: &[&str] = &["virtio_blk", "ata_piix", "mptspi", "virtio_pci"];
            Edit::RemoveModule {
                module: (*pick(draw, modules)).to_owned(),
            }
        }
    }
}
