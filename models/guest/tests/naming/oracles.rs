//! The measured tables of the original udev and initscripts against the models: every row agrees or is listed in
//! `listed.tsv` with its reason.

use crate::support::{Row, RuleSet, adapter, compare, persistent_line, rules_shown, table};
use drylab_guest::Tree;
use drylab_guest::net::linux::initscripts::{self, Device};
use drylab_guest::net::linux::udev::programs::PERSISTENT;
use drylab_guest::net::linux::{
    Action, Bus, Events, LinuxBootNet, LinuxNetPlan, NicView, ifcfg, plan,
};
use std::collections::BTreeMap;

fn boot(addr_assign_type: &str, events: Events) -> LinuxBootNet {
    let kernel = "2.6.32-279.el6.x86_64".to_owned();
    LinuxBootNet {
        kernel,
        addr_assign_type: addr_assign_type.parse().ok(),
        events,
        early: BTreeMap::new(),
    }
}

fn naming_tree(row: &Row) -> Tree {
    let mut tree = RuleSet::named(row.get("rule_set")).tree();
    let mac = row.get("mac");
    let lines: Vec<String> = match row.get("rules_file_before") {
        "none" | "empty" => Vec::new(),
        "other-mac" => vec![persistent_line("00:0c:29:99:88:77", "eth0")],
        "same-mac" => vec![persistent_line(mac, "eth0")],
        "same-mac-eth1" => vec![persistent_line(mac, "eth1")],
        "other-eth0-eth1" => {
            vec![
                persistent_line("00:0c:29:99:88:77", "eth0"),
                persistent_line("00:0c:29:99:88:78", "eth1"),
            ]
        }
        "other-eth3" => vec![persistent_line("00:0c:29:99:88:77", "eth3")],
        other => panic!("unknown rules_file_before {other}"),
    };
    if row.get("rules_file_before") != "none" {
        tree.write(PERSISTENT, lines.concat().into_bytes());
    }
    let old = "00:0C:29:99:88:77";
    let upper = mac.to_uppercase();
    let (name, text) = match row.get("ifcfg") {
        "nofile" => return tree,
        "nohwaddr" => ("ifcfg-eth0", "DEVICE=eth0\n".to_owned()),
        "old" => ("ifcfg-eth0", format!("DEVICE=eth0\nHWADDR={old}\n")),
        "same" => ("ifcfg-eth0", format!("DEVICE=eth0\nHWADDR={upper}\n")),
        "samelower-quoted" => ("ifcfg-eth0", format!("DEVICE=\"eth0\"\nHWADDR=\"{mac}\"\n")),
        "old-comment" => ("ifcfg-eth0", format!("DEVICE=eth0\n#HWADDR={old}\n")),
        "bak" => ("ifcfg-eth0.bak", format!("DEVICE=eth0\nHWADDR={old}\n")),
        "old-eth1" => ("ifcfg-eth0", format!("DEVICE=eth1\nHWADDR={old}\n")),
        "same-eth5" => ("ifcfg-eth0", format!("DEVICE=eth5\nHWADDR={upper}\n")),
        other => panic!("unknown ifcfg {other}"),
    };
    tree.write(format!("{}/{name}", ifcfg::DIRECTORY), text.into_bytes());
    tree
}

#[test]
fn one_adapter_gets_the_name_and_the_rule_that_the_original_udev_gave() {
    compare("udev-naming", |row| {
        let mut tree = naming_tree(row);
        let before = tree.text(PERSISTENT).map(std::borrow::Cow::into_owned);
        let mut nic = adapter(row.get("bus"), row.get("mac"), 0);
        if nic.bus == Bus::Virtual {
            nic.driver = Some(String::new());
        }
        let plan = plan(
            &mut tree,
            &[nic],
            &boot(row.get("addr_assign_type"), Events::InTurn),
        );
        let after = tree.text(PERSISTENT).map(std::borrow::Cow::into_owned);
        let added = after.as_deref().unwrap_or("");
        let added = added
            .strip_prefix(before.as_deref().unwrap_or(""))
            .expect("the writer only appends");
        let rule = added
            .lines()
            .find(|line| line.starts_with("SUBSYSTEM"))
            .unwrap_or("-");
        let comment = added.lines().rev().find_map(|line| line.strip_prefix("# "));
        let header = before.is_none() && added.starts_with('#');
        let count = added
            .lines()
            .filter(|line| line.starts_with("SUBSYSTEM"))
            .count();
        vec![
            ("final_name", plan.interfaces[0].name.clone()),
            ("rules_appended", count.to_string()),
            ("header_written", u8::from(header).to_string()),
            ("appended_rule", rule.to_owned()),
            (
                "appended_comment",
                if rule == "-" {
                    "-"
                } else {
                    comment.unwrap_or("-")
                }
                .to_owned(),
            ),
        ]
    });
}

fn dhcp_ifcfg(device: &str, hwaddr: Option<&str>) -> Vec<u8> {
    let mut text =
        format!("DEVICE={device}\nTYPE=Ethernet\nONBOOT=yes\nNM_CONTROLLED=no\nBOOTPROTO=dhcp\n");
    if let Some(mac) = hwaddr {
        text.push_str(&format!("HWADDR={}\n", mac.to_uppercase()));
    }
    text.into_bytes()
}

fn ifup_eth0(plan: &LinuxNetPlan) -> (String, String, String) {
    match plan.ifups.first() {
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        Some(ifup) => (
            ifup.exit.to_string(),
            ifup.message.clone(),
            called(&ifup.action),
        ),
    }
}

fn called(action: &Action) -> String {
    match action {
        Action::Dhcp(client) => client.arguments.join(" "),
        _ => "-".to_owned(),
    }
}

#[test]
fn two_boots_with_a_move_between_them_end_as_measured() {
    let path = format!("{}/ifcfg-eth0", ifcfg::DIRECTORY);
    compare("udev-migration", |row| {
        let mut tree = RuleSet::named(row.get("rule_set")).tree();
        match row.get("ifcfg_eth0") {
            "not used" => {}
            "no HWADDR" => tree.write(&path, dhcp_ifcfg("eth0", None)),
            _ => tree.write(&path, dhcp_ifcfg("eth0", Some(row.get("source_mac")))),
        }
        let boot = boot(row.get("addr_assign_type"), Events::InTurn);
        let source_nic = adapter(row.get("source_bus"), row.get("source_mac"), 0);
        let source = plan(&mut tree, &[source_nic], &boot);
        let rules_after_source = rules_shown(&tree);
        let cure = row.get("cure_between_boots");
        if matches!(cure, "rm-rules" | "rm-both") {
            tree.remove(PERSISTENT);
        }
        if matches!(cure, "rm-hwaddr" | "rm-both") && tree.read(&path).is_some() {
            tree.write(&path, dhcp_ifcfg("eth0", None));
        }
        let target = plan(
            &mut tree,
            &[adapter(row.get("target_bus"), row.get("target_mac"), 0)],
            &boot,
        );
        let (exit, message, dhclient) = ifup_eth0(&target);
        vec![
            ("source_name", source.interfaces[0].name.clone()),
            ("rules_after_source", rules_after_source),
            ("source_ifup_exit", ifup_eth0(&source).0),
            ("target_name", target.interfaces[0].name.clone()),
            ("rules_after_target", rules_shown(&tree)),
            ("target_ifup_eth0_exit", exit),
            ("target_ifup_stdout", message),
            ("dhclient_called", dhclient),
        ]
    });
}

fn several(macs: &str) -> Vec<NicView> {
    macs.split(',')
        .enumerate()
        .map(|(index, mac)| adapter("pci-e1000", mac, index))
        .collect()
}

fn names(plan: &LinuxNetPlan) -> String {
    plan.interfaces
        .iter()
        .map(|interface| interface.name.clone())
        .collect::<Vec<_>>()
        .join(",")
}

/// `rename35` carries the interface index of the measuring machine.
fn without_index(names: &str) -> String {
    let shown = |name: &str| {
        if name.starts_with("rename") {
            "renameN".to_owned()
        } else {
            name.to_owned()
        }
    };
    names.split(',').map(shown).collect::<Vec<_>>().join(",")
}

#[test]
fn several_adapters_are_named_parked_and_brought_up_as_measured() {
    compare("udev-two-nics", |row| {
        let mut tree = RuleSet::named(row.get("rule_set")).tree();
        for (index, mac) in row.get("source_macs").split(',').enumerate() {
            let path = format!("{}/ifcfg-eth{index}", ifcfg::DIRECTORY);
            match row.get("ifcfg") {
                "no ifcfg" => {}
                "dhcp ifcfg without HWADDR" => {
                    tree.write(path, dhcp_ifcfg(&format!("eth{index}"), None))
                }
                _ => tree.write(path, dhcp_ifcfg(&format!("eth{index}"), Some(mac))),
            }
        }
        let source = plan(
            &mut tree,
            &several(row.get("source_macs")),
            &boot("0", Events::InTurn),
        );
        let rules_after_source = rules_shown(&tree);
        let events = if row.get("event_order") == "parallel events" {
            Events::Together
        } else {
            Events::InTurn
        };
        let target = plan(
            &mut tree,
            &several(row.get("target_macs")),
            &boot("0", events),
        );
        let ifups: Vec<String> = target
            .ifups
            .iter()
            .map(|ifup| format!("{}:{}:{}", ifup.device, ifup.exit, ifup.message))
            .collect();
        let ifups = if ifups.is_empty() {
            "-".to_owned()
        } else {
            ifups.join(" ; ")
        };
        let waited = match row.get("time") {
            "90s" | "91s" => 90_000_000,
            "<5s" => 0,
            other => panic!("unknown time {other}"),
        };
        // Compared as the table spells it, when it is the same.
        let time = if target.delay_us == waited {
            row.get("time").to_owned()
        } else {
            target.delay_us.to_string()
        };
        let target_names = names(&target);
        let same_but_index = without_index(&target_names) == without_index(row.get("target_names"));
        vec![
            ("source_names", names(&source)),
            ("rules_after_source", rules_after_source),
            (
                "target_names",
                if same_but_index {
                    row.get("target_names").to_owned()
                } else {
                    target_names
                },
            ),
            ("rules_after_target", rules_shown(&tree)),
            ("time", time),
            ("target_ifup", ifups),
        ]
    });
}

/// Lines of a terminal as the table joins them.
fn joined(text: &str) -> String {
    let lines: Vec<&str> = text
        .split(['\r', '\n'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        "-".to_owned()
    } else {
        lines.join(" | ")
    }
}

fn initscripts_tree(row: &Row) -> Tree {
    let mut tree = Tree::new();
    for file in row
        .raw("ifcfg_files")
        .split(" ;; ")
        .filter(|file| *file != "-")
    {
        let (name, text) = file.split_once(": ").expect("name and text");
        let text = text
            .trim_end_matches(' ')
            .replace("\\n", "\n")
            .replace("\\r", "\r")
            .replace("\\t", "\t");
        tree.write(format!("{}/{name}", ifcfg::DIRECTORY), text.into_bytes());
    }
    tree
}

fn run_rename(row: &Row) -> Vec<(&'static str, String)> {
    let interface = if row.get("argument") == "(unset)" {
        ""
    } else {
        row.get("argument")
    };
    let mac = Some(row.get("nics")).filter(|mac| !mac.starts_with('('));
    let found = ifcfg::rename_device(&initscripts_tree(row), interface, mac);
    let printed = found.map_or("(nothing)".to_owned(), |tie| tie.device.text);
    vec![("exit", "0".to_owned()), ("stdout", printed)]
}

fn run_ifup(row: &Row) -> Vec<(&'static str, String)> {
    let tree = initscripts_tree(row);
    let link = row.get("conditions").contains("link=yes");
    let leased = row.get("conditions").contains("dhclient-exit=0");
    let mut devices: Vec<Device> = row
        .get("nics")
        .split([',', ' '])
        .filter_map(|nic| nic.split_once('='))
        .map(|(name, mac)| Device {
            name: name.to_owned(),
            mac: mac.parse().expect("a MAC"),
            link,
        })
        .collect();
    let mut words = row.get("argument").split(' ');
    let config = words.next().expect("a configuration");
    let run = match row.get("program") {
        "ifup" => initscripts::ifup(&tree, config, words.next() == Some("boot"), &devices),
        _ => initscripts::ifup_eth(&tree, config, &devices),
    };
    let (mut exit, mut stdout) = (run.exit, run.stdout.clone());
    if matches!(run.action, Action::Dhcp(_)) && !leased {
        (exit, stdout) = initscripts::no_lease(&run.device);
    }
    if let (Some(mac), Some(device)) = (
        run.macaddr,
        devices.iter_mut().find(|device| device.name == run.device),
    ) {
        device.mac = mac;
    }
    let address = match &run.action {
        Action::Static(address) => format!("{}={}/{}", run.device, address.address, address.prefix),
        _ => "-".to_owned(),
    };
    let macs: Vec<String> = devices
        .iter()
        .map(|device| format!("{}={}", device.name, device.mac))
        .collect();
    let macs = if macs.is_empty() {
        "-".to_owned()
    } else {
        macs.join(" ")
    };
    vec![
        ("exit", exit.to_string()),
        ("stdout", joined(&stdout)),
        ("stderr", "-".to_owned()),
        ("dhclient_called", called(&run.action)),
        ("addresses_and_macs_after", format!("{address} {macs}")),
    ]
}

#[test]
fn rename_device_and_ifup_do_what_the_original_scripts_did() {
    compare("initscripts", |row| match row.get("program") {
        "rename_device" => run_rename(row),
        _ => run_ifup(row),
    });
}

#[test]
fn every_listed_row_is_a_row_of_its_table() {
    for (name, row_id, _) in crate::support::listed() {
        if let Some(rows) = table(name) {
            assert!(
                rows.iter().any(|row| row.get("row_id") == row_id),
                "{name} has no row {row_id}"
            );
        }
    }
}
