//! Help, usage and explanations.

use crate::support::{data, run};
use drylab_catalog::quirks;

const COMMANDS: [&str; 6] = ["matrix", "run", "replay", "check", "inspect", "explain"];

#[test]
fn help_is_data_with_examples_and_the_exit_codes() {
    let help = data(&["--help"]);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(
            data(&[command, "--help"]).contains("\nExamples:\n  drylab "),
            "{command}"
        );
    }
    for code in [
        "  0 ", "  1 ", "  2 ", "  3 ", "  4 ", "  5 ", "  6 ", "  70 ",
    ] {
        assert!(help.contains(code), "{help}");
    }
    // The token of an example is a real one.
    let help = data(&["replay", "--help"]);
    let token = help
        .split_whitespace()
        .find(|word| word.starts_with("drylab1-0"));
    assert!(data(&["replay", token.expect("there is one")]).contains("\noutcome "));
    assert!(data(&["--version"]).starts_with("drylab "));
}

#[test]
fn what_cannot_be_understood_is_a_usage_error_on_standard_error() {
    let cases: [&[&str]; 14] = [
        &[],
        &["migrate"],
        &["matrix", "--frobnicate"],
        &["matrix", "--seed", "x"],
        &["matrix", "--repeat", "0"],
        &["matrix", "--jobs", "0"],
        &["matrix", "--format", "yaml"],
        &["matrix", "--guest", "centos-6.4"],
        &["matrix", "--product", "esxi"],
        &["run"],
        &["run", "a.toml", "--seed", "1"],
        &["replay"],
        &["check", "a.raw", "--target", "xen"],
        &["explain"],
    ];
    for args in cases {
        let ran = run(args);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (1, ""),
            "{args:?}: {}",
            ran.err
        );
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    let ran = run(&["matrix", "--guest", "centos-6.4"]);
    assert_eq!(
        ran.err,
        "drylab: there is no guest \"centos-6.4\"; nearest: centos-6.3 (known: centos-6.3, ubuntu-12.04, windows-2008r2)\n"
    );
}

#[test]
fn every_quirk_is_explained_by_its_id() {
    for (id, quirk) in quirks() {
        let text = data(&["explain", id]);
        assert!(
            text.starts_with(&format!("{id}  quirk of {}\n", quirk.who)),
            "{text}"
        );
        assert!(
            text.contains(&quirk.states) && text.contains(&quirk.mark.to_string()),
            "{text}"
        );
    }
}

#[test]
fn checks_facts_routes_relaxations_and_products_are_explained_and_unknown_ids_get_suggestions() {
    for (id, says) in [
        ("guest.ip-address", "check, looks inside the guest"),
        ("esxi-5.0.0/cpu.vcpus-max", "fact of VMware ESXi 5.0.0"),
        ("esx-v2v", "virsh define"),
        ("address-by-name", "relaxation"),
        ("kvm-centos-6.3", "product"),
        ("gq01", "quirk of CentOS 6.3"),
        ("centos-hwaddr", "unknown of the report's lab"),
        ("centos-hwaddr", "of 10 labs"),
        (
            "esxi-5.0.0/memory.reserved-kib",
            "or:          4096, 2 of 10 labs",
        ),
    ] {
        let text = data(&["explain", id]);
        assert!(text.contains(says), "{text}");
    }
    let ran = run(&["explain", "guest.ip-adress"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("nearest: guest.ip-address"), "{}", ran.err);
}
