//! Programs that rules call, with the originals' behaviour: `write_net_rules`, `rename_device`, `test`.
//!
//! Source: measured runs of udev 147's, Red Hat's and 175's rule writers and of initscripts' `rename_device`.
//!
//! The writer appends to `/etc/udev/rules.d/70-persistent-net.rules`:
//!
//! ```text
//! (blank line)
//! # PCI device 0x8086:0x100e (e1000)
//! SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="…", ATTR{type}=="1", KERNEL=="eth*", NAME="eth1"
//! ```
//!
//! # Which writer
//! Red Hat's writer also regards a name as taken when an ifcfg file with `HWADDR=` has it as `DEVICE=`. The image has
//! that writer when the text of its `/lib/udev/write_net_rules` speaks of `ifcfg`, or when some rule calls
//! `rename_device`: that program comes with Red Hat's initscripts, in the same releases as the patched writer.
//!
//! # Programs that are not there
//! A tree that shows any program in `/lib/udev` shows all of them, so one that is missing fails. A tree that shows
//! none was made from configuration files alone, and the programs are taken to be there.

use super::Rules;
use super::device::NetDevice;
use crate::Tree;
use crate::net::linux::ifcfg;
use std::collections::BTreeMap;

/// The file the writer appends to.
pub const PERSISTENT: &str = "/etc/udev/rules.d/70-persistent-net.rules";
const PROGRAMS: &str = "/lib/udev";
const WRITER: &str = "/lib/udev/write_net_rules";

/// What begins a new file of rules.
const HEADER: &str = "\
# Written at boot for each network adapter that had no name of its own.
# One rule per line; change nothing but the value of NAME=.
";

/// What a program did, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// `rename_device` found the adapter in an ifcfg file.
    Tied(ifcfg::Tie),
    /// The writer appended a rule.
    Wrote {
        /// Name in the rule.
        name: String,
        /// Line of the rule in [`PERSISTENT`], from 1.
        line: u32,
        /// Who has the kernel's name already, when the writer had to look for another.
        taken: Option<Taken>,
    },
}

/// Who has a name already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A rule, at this line of this file.
    Rule {
        /// File.
        path: String,
        /// Line, from 1.
        line: u32,
    },
    /// An ifcfg file with `HWADDR`.
    Ifcfg(ifcfg::Tie),
}

/// What a program printed and returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Exit code.
    pub exit: u8,
    /// Standard output.
    pub output: String,
    /// For the record.
    pub note: Option<Note>,
}

/// Base name of the program in a command.
#[must_use]
pub fn base_name(command: &str) -> &str {
    let program = command.split_ascii_whitespace().next().unwrap_or("");
    program.rsplit('/').next().unwrap_or(program)
}

/// Runs a command; None when the program is not one of these.
#[must_use]
pub fn run(
    command: &str,
    env: &BTreeMap<String, String>,
    device: &NetDevice,
    rules: &Rules,
    tree: &mut Tree,
) -> Option<Run> {
    let name = base_name(command);
    if matches!(name, "write_net_rules" | "rename_device") && missing(tree, name) {
        return None;
    }
    match name {
        "write_net_rules" => Some(write_net_rules(env, rules, tree)),
        "rename_device" => {
            let interface = env.get("INTERFACE").map_or("", String::as_str);
            let tie = ifcfg::rename_device(tree, interface, device.address());
            let output = tie
                .as_ref()
                .map_or(String::new(), |tie| format!("{}\n", tie.device.text));
            Some(Run {
                exit: 0,
                output,
                note: tie.map(Note::Tied),
            })
        }
        "test" => {
            let words: Vec<&str> = command.split_ascii_whitespace().skip(1).collect();
            let exit = match words.as_slice() {
                [left, "=", right] => u8::from(left != right),
                [left, "!=", right] => u8::from(left == right),
                _ => 2,
            };
            Some(Run {
                exit,
                output: String::new(),
                note: None,
            })
        }
        "true" => Some(Run {
            exit: 0,
            output: String::new(),
            note: None,
        }),
        _ => None,
    }
}

fn write_net_rules(env: &BTreeMap<String, String>, rules: &Rules, tree: &mut Tree) -> Run {
    let get = |key: &str| env.get(key).map_or("", String::as_str);
    let interface = get("INTERFACE");
    if interface.is_empty() {
        return Run {
            exit: 1,
            output: String::new(),
            note: None,
        };
    }
    let requested = get("INTERFACE_NAME");
    let mut comment = get("COMMENT").to_owned();
    let mut name = interface.to_owned();
    let mut taken = None;
    if requested.is_empty() {
        let owners = owners(rules, tree);
        let base = interface.trim_end_matches(|c: char| c.is_ascii_digit());
        taken = owners
            .iter()
            .find(|(owned, _)| owned == interface)
            .map(|(_, who)| who.clone());
        if taken.is_some() {
            let used = owners
                .iter()
                .filter_map(|(owned, _)| owned.strip_prefix(base)?.parse::<u32>().ok());
            name = format!(
                "{base}{}",
                used.max().map_or(0, |highest| highest.saturating_add(1))
            );
        }
    } else {
        comment.push_str(" (custom name provided by external tool)");
        requested.clone_into(&mut name);
    }
    let rule = rule(env, &name);
    let line = append(tree, &comment, &rule);
    let output = if name == interface {
        String::new()
    } else {
        format!("INTERFACE_NEW={name}\n")
    };
    Run {
        exit: 0,
        output,
        note: Some(Note::Wrote { name, line, taken }),
    }
}

/// Names that are given away, with who has them: rules first, then (Red Hat) ifcfg files with HWADDR.
fn owners(rules: &Rules, tree: &Tree) -> Vec<(String, Taken)> {
    let mut owners = Vec::new();
    let text = tree.text(PERSISTENT).unwrap_or_default();
    for (content, line) in text.lines().zip(1_u32..) {
        if let Some(name) = name_assigned(content) {
            owners.push((
                name.to_owned(),
                Taken::Rule {
                    path: PERSISTENT.to_owned(),
                    line,
                },
            ));
        }
    }
    if reads_ifcfg(rules, tree) {
        owners.extend(
            ifcfg::ties(tree)
                .into_iter()
                .map(|tie| (tie.device.text.clone(), Taken::Ifcfg(tie))),
        );
    }
    owners
}

/// Value of `NAME=` in a line of rules that is no comment.
fn name_assigned(line: &str) -> Option<&str> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let (before, after) = line.split_once("NAME=\"")?;
    let starts_a_key = before.is_empty() || before.ends_with([' ', '\t', ',']);
    let (name, _) = after.split_once('"')?;
    starts_a_key.then_some(name)
}

/// Whether the image has Red Hat's writer.
fn reads_ifcfg(rules: &Rules, tree: &Tree) -> bool {
    let says_so = tree
        .text(WRITER)
        .is_some_and(|script| script.contains("ifcfg"));
    says_so || rules.call("rename_device")
}

/// Whether a program of `/lib/udev` is known not to be there.
fn missing(tree: &Tree, name: &str) -> bool {
    tree.names_in(PROGRAMS).next().is_some() && tree.read(&format!("{PROGRAMS}/{name}")).is_none()
}

fn rule(env: &BTreeMap<String, String>, name: &str) -> String {
    let mut rule = String::from("SUBSYSTEM==\"net\", ACTION==\"add\"");
    let mut add = |key: &str, value: &str| {
        rule.push_str(&format!(", {key}==\"{value}\""));
    };
    let get = |key: &str| {
        env.get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    if let Some(address) = get("MATCHADDR") {
        add("DRIVERS", "?*");
        add("ATTR{address}", address);
    } else if let Some(requested) = get("INTERFACE_NAME") {
        add("DRIVERS", "?*");
        add("ENV{INTERFACE_NAME}", requested);
    }
    for (variable, key) in [
        ("MATCHDRV", "DRIVERS"),
        ("MATCHDEVID", "ATTR{dev_id}"),
        ("MATCHID", "KERNELS"),
        ("MATCHIFTYPE", "ATTR{type}"),
    ] {
        if let Some(value) = get(variable) {
            add(key, value);
        }
    }
    let interface = get("INTERFACE").unwrap_or("");
    let base = interface.trim_end_matches(|c: char| c.is_ascii_digit());
    if base != interface {
        add("KERNEL", &format!("{base}*"));
    }
    format!("{rule}, NAME=\"{name}\"")
}

/// Appends comment and rule, with the header in a new file; the rule's line.
fn append(tree: &mut Tree, comment: &str, rule: &str) -> u32 {
    let mut text = match tree.text(PERSISTENT) {
        Some(text) => text.into_owned(),
        None => HEADER.to_owned(),
    };
    text.push('\n');
    if !comment.is_empty() {
        text.push_str(&format!("# {comment}\n"));
    }
    text.push_str(rule);
    text.push('\n');
    let line = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
    tree.write(PERSISTENT, text.into_bytes());
    line
}
