//! The rule evaluator against a real `udevadm test`, on a real interface in a network namespace of its own.
//!
//! The interface is one end of a veth pair; `/etc/udev`, `/usr/lib/udev` and `/run` are covered by empty file systems
//! within a mount namespace of its own, so nothing of the machine is read or changed. Rules here call no program but
//! test(1): the helpers of the guests are not on the machine.

use crate::support::skipping;
use crate::support::{RuleSet, persistent_line};
use drylab_guest::Tree;
use drylab_guest::net::linux::Bus;
use drylab_guest::net::linux::udev::Rules;
use drylab_guest::net::linux::udev::device::{Facts, NetDevice};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const MAC: &str = "00:0c:29:12:34:56";
const GENERATED: usize = 200;

/// Waits at nothing: each case is one `udevadm test`, its name read back from the kernel.
const SCRIPT: &str = r#"
set -e
mount -t sysfs sysfs /sys
mount -t tmpfs none /etc/udev
mount -t tmpfs none /usr/lib/udev
mount -t tmpfs none /run
mkdir /etc/udev/rules.d /usr/lib/udev/rules.d
ip link add eth7 type veth peer name other0
ip link set eth7 address 00:0c:29:12:34:56
cat /sys/class/net/eth7/addr_assign_type /sys/class/net/eth7/ifindex > "$1/facts"
for case in "$1"/case-*; do
    rm -rf /run/udev /etc/udev/rules.d/* /usr/lib/udev/rules.d/*
    cp "$case"/etc/* /etc/udev/rules.d/ 2>/dev/null || true
    cp "$case"/lib/* /usr/lib/udev/rules.d/ 2>/dev/null || true
    udevadm test --action=add /sys/class/net/eth7 > "$case/log" 2>&1 || true
    name=$(ls /sys/class/net | grep -v -x -e lo -e other0)
    echo "$name" > "$case/name"
    [ "$name" = eth7 ] || ip link set "$name" name eth7
done
echo done > "$1/done"
"#;

/// Files of one case, by path in the guest.
type Case = Vec<(String, String)>;

fn committed_sets() -> Vec<Case> {
    let sets = [
        "el6", "udev-141", "udev-142", "udev-147", "udev-151", "udev-161", "udev-162",
    ];
    let later = [
        "udev-164", "udev-167", "udev-168", "udev-175", "udev-176", "udev-182",
    ];
    let mut cases = Vec::new();
    for set in sets.iter().chain(&later) {
        let tree = RuleSet::named(set).tree();
        let files: Case = tree
            .iter()
            .map(|(path, bytes)| (path.to_owned(), String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        for lines in [
            "",
            &persistent_line(MAC, "eth4"),
            &persistent_line("00:0c:29:99:88:77", "eth4"),
        ] {
            let mut case = files.clone();
            // A veth has no driver, which a real line asks for.
            let lines = lines.replace("DRIVERS==\"?*\", ", "");
            case.push((
                "/etc/udev/rules.d/70-persistent-net.rules".to_owned(),
                lines,
            ));
            cases.push(case);
        }
    }
    cases
}

/// Rules over the keys that decide a name, as lines of a file.
fn generated() -> impl Strategy<Value = Case> {
    let condition = prop::sample::select(vec![
        r#"ACTION=="add|change""#,
        r#"ACTION!="add""#,
        r#"SUBSYSTEM=="net""#,
        r#"KERNEL=="eth*""#,
        r#"KERNEL=="eth[0-6]""#,
        r#"KERNEL=="eth[!0-6]|wlan*""#,
        r#"KERNEL!="eth?""#,
        r#"DEVPATH=="*/virtual/net/*""#,
        r#"ATTR{address}=="00:0c:29:*""#,
        r#"ATTR{address}=="00:0C:29:12:34:56""#,
        r#"ATTR{address}!="00:0c:29:12:34:56""#,
        r#"ATTR{address}=="?[2367abef]:*""#,
        r#"ATTR{type}=="1""#,
        r#"ATTR{type}!="1|32""#,
        r#"ATTR{dev_id}=="0x0""#,
        r#"ATTR{addr_assign_type}=="?*""#,
        r#"ATTR{addr_assign_type}=="0""#,
        r#"ATTR{no_such_file}=="x""#,
        r#"ATTR{no_such_file}!="x""#,
        r#"ENV{A}=="""#,
        r#"ENV{A}=="?*""#,
        r#"ENV{A}!="1""#,
        r#"ENV{B}=="eth7*|1""#,
        r#"ENV{INTERFACE}=="eth7""#,
        r#"NAME=="""#,
        r#"NAME=="?*""#,
        r#"NAME!="lan*""#,
        r#"SUBSYSTEMS=="net""#,
        r#"SUBSYSTEMS=="pci""#,
        r#"SUBSYSTEMS!="xen""#,
        r#"KERNELS=="eth7""#,
        r#"DRIVERS=="?*""#,
        r#"ATTRS{address}=="00:0c:*""#,
        r#"SUBSYSTEMS=="net", ATTRS{type}=="32""#,
        r#"TEST=="address""#,
        r#"TEST!="no_such_file""#,
        r#"PROGRAM=="/usr/bin/test x$env{A} = x1""#,
        r#"PROGRAM!="/usr/bin/test $name = lan7""#,
    ]);
    let effect = prop::sample::select(vec![
        r#"NAME="eth3""#,
        r#"NAME="lan%n""#,
        r#"NAME="lan$number""#,
        r#"NAME="t$attr{type}x%s{dev_id}""#,
        r#"NAME="$env{A}-%k""#,
        r#"NAME:="final%n""#,
        r#"ENV{A}="1""#,
        r#"ENV{A}="""#,
        r#"ENV{A}="$kernel""#,
        r#"ENV{B}="%k$env{A}""#,
        r#"ENV{A}+="b""#,
        r#"GOTO="middle""#,
        r#"GOTO="end""#,
        r#"RUN+="/bin/true""#,
    ]);
    let line = (
        prop::collection::vec(condition, 0..4),
        prop::collection::vec(effect, 1..3),
        any::<bool>(),
    );
    let file = prop::collection::vec(line, 1..8).prop_map(|lines| {
        let mut text = String::from("# generated\n");
        let middle = lines.len() / 2;
        for (index, (conditions, effects, folded)) in lines.into_iter().enumerate() {
            if index == middle {
                text.push_str("LABEL=\"middle\"\n");
            }
            let glue = if folded { ", \\\n  " } else { ", " };
            let mut effects = effects;
            effects.dedup();
            let _ = writeln!(text, "{}", [conditions, effects].concat().join(glue));
        }
        text.push_str("LABEL=\"end\"\n");
        text
    });
    let place = prop::sample::select(vec![
        "/etc/udev/rules.d/70-a.rules",
        "/lib/udev/rules.d/70-a.rules",
        "/lib/udev/rules.d/60-b.rules",
        "/etc/udev/rules.d/80-c.rules",
        "/etc/udev/rules.d/70-a.ignored",
    ]);
    prop::collection::vec((place.prop_map(str::to_owned), file), 1..4)
}

fn lay(root: &Path, index: usize, case: &Case) {
    let folder = root.join(format!("case-{index:04}"));
    for side in ["etc", "lib"] {
        std::fs::create_dir_all(folder.join(side)).expect("a folder of the test's own");
    }
    for (path, text) in case {
        let side = if path.starts_with("/etc/") {
            "etc"
        } else {
            "lib"
        };
        let name = path.rsplit('/').next().expect("a name");
        std::fs::write(folder.join(side).join(name), text).expect("a file of the test's own");
    }
}

fn ours(case: &Case, addr_assign_type: u8, ifindex: u32) -> String {
    let mut tree = Tree::new();
    for (path, text) in case {
        tree.write(path.as_str(), text.clone().into_bytes());
    }
    let device = NetDevice::new(&Facts {
        kernel_name: "eth7",
        address: MAC,
        addr_assign_type: Some(addr_assign_type),
        dev_id: Some(0),
        kind: 1,
        bus: Bus::Virtual,
        driver: "",
        pci: None,
        ifindex,
    });
    let outcome = Rules::of(&tree).add(&mut tree, &device);
    outcome.name.unwrap_or_else(|| "eth7".to_owned())
}

/// Whether the machine gives us namespaces and a veth; says why not.
fn possible() -> Result<(), String> {
    let try_out = "mount -t tmpfs none /run && ip link add eth7 type veth peer name other0 && udevadm --version";
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            try_out,
        ])
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Root whose unshare works is what the comparison needs; only then is it an error that it does not run.
fn must_work() -> bool {
    let works = Command::new("unshare")
        .args(["--net", "--mount", "true"])
        .output();
    skipping::required() && works.is_ok_and(|output| output.status.success())
}

#[test]
fn rules_name_an_interface_as_the_real_udevadm_names_it() {
    if let Err(reason) = possible() {
        assert!(
            !must_work(),
            "the comparison with udevadm is required but impossible: {reason}"
        );
        return skipping::say(&format!("no comparison with udevadm test: {reason}"));
    }
    let mut runner = TestRunner::deterministic();
    let mut cases = committed_sets();
    let committed = cases.len();
    cases.extend((0..GENERATED).map(|_| {
        generated()
            .new_tree(&mut runner)
            .expect("generates")
            .current()
    }));
    let root = tempfile();
    for (index, case) in cases.iter().enumerate() {
        lay(&root, index, case);
    }
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(&root)
        .output()
        .expect("unshare ran before");
    assert!(
        root.join("done").exists(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |path: &Path| std::fs::read_to_string(path).expect("written by the script");
    let facts = read(&root.join("facts"));
    let mut facts = facts.split_ascii_whitespace();
    let addr_assign_type = facts
        .next()
        .and_then(|word| word.parse().ok())
        .expect("addr_assign_type");
    let ifindex = facts
        .next()
        .and_then(|word| word.parse().ok())
        .expect("ifindex");
    let mut wrong = Vec::new();
    let mut renamed = 0;
    for (index, case) in cases.iter().enumerate() {
        let folder = root.join(format!("case-{index:04}"));
        let name = read(&folder.join("name")).trim().to_owned();
        renamed += usize::from(name != "eth7");
        let mine = ours(case, addr_assign_type, ifindex);
        let log = read(&folder.join("log"));
        if mine != name {
            wrong.push(format!("udevadm {name}, model {mine}: {case:#?}\n{log}"));
        }
        let complaints: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("rules.d/") && line.contains("gnoring"))
            .collect();
        if index < committed && !complaints.is_empty() {
            wrong.push(format!(
                "udevadm does not read a committed rule file: {complaints:?}"
            ));
        }
    }
    eprintln!(
        "udevadm test: {} cases, {renamed} with another name",
        cases.len()
    );
    assert!(renamed * 4 > cases.len(), "too few cases rename: {renamed}");
    assert!(
        wrong.is_empty(),
        "{} of {} disagree:\n{}",
        wrong.len(),
        cases.len(),
        wrong[0]
    );
    std::fs::remove_dir_all(&root).expect("the test's own folder");
}

/// A fresh folder of the test's own in the build's scratch space.
fn tempfile() -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("naming-udevadm");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root).expect("scratch space");
    root
}
