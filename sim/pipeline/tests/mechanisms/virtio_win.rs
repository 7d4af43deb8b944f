//! Windows on virtio: which driver its adapter gets, by what virt-v2v leaves in the guest.

use crate::{WINDOWS, chain, check, library, scenario};
use drylab_catalog::Score;
use drylab_hypervisor::Fact;
use drylab_kernel::Trace;
use drylab_pipeline::{Library, RunReport};
use drylab_scenario::{Edit, Scenario};

const ROUTES: [&str; 2] = ["esx-v2v", "esx-v2v-2"];

/// The lab with virtio-win on KVM's host, or without.
fn lab(virtio_win: bool) -> Library {
    let name = "kvm-centos-6.3/virtio-win";
    let fact = Fact {
        value: virtio_win.into(),
        ..library().fact(name).expect("a fact").clone()
    };
    let changed = library().with_facts(&[(name.to_owned(), fact)]);
    changed.expect("the fact is there")
}

fn run(library: &Library, scenario: &Scenario) -> RunReport {
    drylab_pipeline::run(library, scenario, Trace::new()).expect("it runs")
}

fn address(report: &RunReport) -> Option<Score> {
    check(report, "guest.ip-address").and_then(|found| found.score)
}

#[test]
fn with_virtio_win_windows_installs_its_adapter_from_device_path_and_asks_for_an_address() {
    let lab = lab(true);
    for route in ROUTES {
        let made = run(&lab, &scenario(WINDOWS, route));
        let why = chain(&made, "guest.ip-address");
        assert!(
            address(&made).is_some_and(|score| score != Score::Failure),
            "{route}: {why}"
        );
        let name = chain(&made, "guest.interface-name");
        for part in ["netkvm.inf", "DevicePath", "DQ312", "DQ313"] {
            assert!(name.contains(part), "{route} {part}: {name}");
        }
        assert!(why.contains("dhcp"), "{route}: {why}");
    }
}

#[test]
fn without_the_value_device_path_the_adapter_stays_without_a_driver() {
    let lab = lab(true);
    for route in ROUTES {
        let mut bare = scenario(WINDOWS, route);
        bare.edits = vec![Edit::DeleteKey {
            hive: "SOFTWARE".to_owned(),
            key: "Microsoft\\Windows\\CurrentVersion".to_owned(),
        }];
        let made = run(&lab, &bare);
        let why = chain(&made, "guest.ip-address");
        assert_eq!(address(&made), Some(Score::Failure), "{route}: {why}");
        assert!(
            why.contains("no INF names PCI\\VEN_1AF4&DEV_1000"),
            "{route}: {why}"
        );
    }
}
