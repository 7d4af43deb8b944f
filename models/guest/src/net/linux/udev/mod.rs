//! udev's rules evaluated for one network device: the image's own files, in udev's order.
//!
//! Source: udev(7) of releases 147 to 182; measured on the original engines 147, 147 with Red Hat's patches, and 175.
//!
//! Files of `/lib/udev/rules.d` and `/etc/udev/rules.d` are read in the order of their names; a file in `/etc` takes
//! the place of one with the same name in `/lib`. Within a rule the comparisons come first: of the device itself, then
//! those on a parent (all must hold for one node of the chain), then `TEST`, `PROGRAM`, `IMPORT`, `RESULT`; then the
//! assignments. Programs that rules call are functions of [`programs`], found by the program's base name; a program
//! that is not there fails, as a missing file would.

pub mod device;
pub mod parse;
pub mod programs;

use crate::Tree;
use crate::modalias::fnmatch;
use device::{NetDevice, Node};
use parse::{Key, Op, Rule, Term};
use std::collections::BTreeMap;

/// The attribute that says how an adapter's address came about; 0 is burnt in.
pub const PROVENANCE: &str = "addr_assign_type";

/// Longest text a substitution may grow to.
const LONGEST: usize = 4096;

/// A rule that did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// File of the rule.
    pub path: String,
    /// Its line, from 1.
    pub line: u32,
    /// What it did.
    pub effect: Effect,
}

/// What a rule did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Set the interface's name.
    Named(String),
    /// Jumped to a label; `keys` are the comparisons that led there, as text.
    Jumped {
        /// The label.
        label: String,
        /// Its comparisons.
        keys: String,
    },
    /// Read how the kernel says the address came about ([`PROVENANCE`]); None when there is no such file. Recorded
    /// once per event, at the first rule that reads it.
    Judged(Option<String>),
    /// Imported what a program printed.
    Ran(programs::Note),
}

/// Outcome of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Name set by the rules; None when none does, and the kernel's name stays.
    pub name: Option<String>,
    /// Properties after the event.
    pub env: BTreeMap<String, String>,
    /// Rules that mattered, in order.
    pub steps: Vec<Step>,
}

/// The rules of a guest, in the order of evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// Directories, the later ones overriding the earlier by file name.
const DIRECTORIES: [&str; 2] = ["/lib/udev/rules.d", "/etc/udev/rules.d"];

impl Rules {
    /// Reads the rule files of a guest.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let mut paths = BTreeMap::new();
        for directory in DIRECTORIES {
            for name in tree
                .names_in(directory)
                .filter(|name| name.ends_with(".rules"))
            {
                paths.insert(name.to_owned(), format!("{directory}/{name}"));
            }
        }
        let mut rules = Vec::new();
        for path in paths.values() {
            if let Some(text) = tree.text(path) {
                rules.extend(parse::rules(path, &text));
            }
        }
        Self { rules }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether some rule calls a program with this base name.
    #[must_use]
    pub fn call(&self, program: &str) -> bool {
        self.rules.iter().flat_map(|rule| &rule.terms).any(|term| {
            matches!(term.key, Key::Program | Key::Import)
                && programs::base_name(&term.value) == program
        })
    }

    /// Evaluates an "add" event of `device`; programs may write into `tree`.
    #[must_use]
    pub fn add(&self, tree: &mut Tree, device: &NetDevice) -> Outcome {
        let mut event = Event::new(self, device);
        let mut index = 0_usize;
        while let Some(rule) = self.rules.get(index) {
            index = index.saturating_add(1);
            if let Some(label) = event.apply(rule, tree) {
                let found = self
                    .rules
                    .iter()
                    .enumerate()
                    .skip(index)
                    .find(|(_, later)| later.path == rule.path && later.label() == Some(label));
                if let Some((target, _)) = found {
                    index = target;
                }
            }
        }
        event.outcome
    }
}

struct Event<'a> {
    rules: &'a Rules,
    device: &'a NetDevice,
    /// Node that the rule's parent comparisons matched.
    parent: Option<&'a Node>,
    name_is_final: bool,
    result: String,
    outcome: Outcome,
}

impl<'a> Event<'a> {
    fn new(rules: &'a Rules, device: &'a NetDevice) -> Self {
        let mut outcome = Outcome::default();
        for (key, value) in [
            ("ACTION", "add".to_owned()),
            ("DEVPATH", device.devpath()),
            ("SUBSYSTEM", "net".to_owned()),
            ("INTERFACE", device.kernel_name().to_owned()),
            ("IFINDEX", device.ifindex.to_string()),
        ] {
            outcome.env.insert(key.to_owned(), value);
        }
        Self {
            rules,
            device,
            parent: None,
            name_is_final: false,
            result: String::new(),
            outcome,
        }
    }

    /// Evaluates one rule; the label to go to, if any.
    fn apply<'r>(&mut self, rule: &'r Rule, tree: &mut Tree) -> Option<&'r str> {
        self.parent = None;
        if !self.parents_match(rule) {
            return None;
        }
        for term in &rule.terms {
            if !self.matches(rule, term, tree) {
                return None;
            }
        }
        let mut goto = None;
        for term in rule.terms.iter().filter(|term| !term.op.compares()) {
            self.judged(rule, term);
            match term.key {
                Key::Env => self.assign_env(term),
                Key::Name => self.assign_name(rule, term),
                Key::Goto => goto = goto.or(Some(term.value.as_str())),
                _ => {}
            }
        }
        if let Some(label) = goto {
            self.step(
                rule,
                Effect::Jumped {
                    label: label.to_owned(),
                    keys: spelled(rule),
                },
            );
        }
        goto
    }

    fn step(&mut self, rule: &Rule, effect: Effect) {
        self.outcome.steps.push(Step {
            path: rule.path.to_string(),
            line: rule.line,
            effect,
        });
    }

    /// Notes that the outcome from here on depends on the address's provenance.
    fn judged(&mut self, rule: &Rule, term: &Term) {
        let reads = match term.key {
            Key::Attr | Key::Attrs => term.attribute == PROVENANCE,
            Key::Test => term.value == PROVENANCE,
            _ => term.value.contains("{addr_assign_type}"),
        };
        let known = |step: &Step| matches!(step.effect, Effect::Judged(_));
        if !reads || self.outcome.steps.iter().any(known) {
            return;
        }
        let interface = self.device.interface();
        let value = interface.and_then(|node| node.attribute(PROVENANCE));
        self.step(rule, Effect::Judged(value.map(str::to_owned)));
    }

    /// Finds the nearest node for which all parent comparisons hold. Comparisons of the device itself are cheaper, so
    /// they are looked at first.
    fn parents_match(&mut self, rule: &Rule) -> bool {
        let on_parent = |term: &&Term| {
            matches!(
                term.key,
                Key::Kernels | Key::Subsystems | Key::Drivers | Key::Attrs
            ) && term.op.compares()
        };
        if !rule.terms.iter().any(|term| on_parent(&term)) {
            return true;
        }
        let device = self.device;
        let found = device.chain.iter().find(|node| {
            rule.terms.iter().filter(on_parent).all(|term| {
                let value = match term.key {
                    Key::Kernels => Some(node.name.as_str()),
                    Key::Subsystems => Some(node.subsystem.as_str()),
                    Key::Drivers => Some(node.driver.as_str()).filter(|driver| !driver.is_empty()),
                    _ => node.attribute(&term.attribute),
                };
                value.is_some_and(|value| compare(term, value))
            })
        });
        self.parent = found;
        found.is_some()
    }

    fn matches(&mut self, rule: &Rule, term: &Term, tree: &mut Tree) -> bool {
        if term.op.compares() {
            self.judged(rule, term);
        }
        match term.key {
            Key::Program => return self.program(rule, term, tree),
            Key::Import => return self.import(rule, term, tree),
            _ if !term.op.compares() => return true,
            _ => {}
        }
        let interface = self.device.interface();
        match term.key {
            Key::Action => compare(term, "add"),
            Key::Devpath => compare(term, &self.device.devpath()),
            Key::Kernel => compare(term, self.device.kernel_name()),
            Key::Name => compare(term, self.outcome.name.as_deref().unwrap_or("")),
            Key::Subsystem => compare(term, "net"),
            Key::Driver => interface.is_some_and(|node| compare(term, &node.driver)),
            Key::Env => compare(
                term,
                self.outcome
                    .env
                    .get(&term.attribute)
                    .map_or("", String::as_str),
            ),
            Key::Attr => interface
                .and_then(|node| node.attribute(&term.attribute))
                .is_some_and(|value| compare(term, value)),
            Key::Result => compare(term, &self.result),
            Key::Test => {
                let path = self.substitute(&term.value);
                let there = if path.starts_with('/') {
                    tree.read(&path).is_some()
                } else {
                    interface.is_some_and(|node| node.attribute(&path).is_some())
                };
                there == (term.op == Op::Match)
            }
            // Parents were matched together; the rest has no influence on a name.
            _ => true,
        }
    }

    fn program(&mut self, rule: &Rule, term: &Term, tree: &mut Tree) -> bool {
        let command = self.substitute(&term.value);
        let ran = programs::run(&command, &self.outcome.env, self.device, self.rules, tree);
        let (success, output) = match ran {
            Some(run) => {
                if let Some(note) = run.note {
                    self.step(rule, Effect::Ran(note));
                }
                (run.exit == 0, run.output)
            }
            None => (false, String::new()),
        };
        if success {
            self.result = output.trim_end_matches(['\n', '\r', ' ']).to_owned();
        } else {
            self.result.clear();
        }
        success != (term.op == Op::Nomatch)
    }

    fn import(&mut self, rule: &Rule, term: &Term, tree: &mut Tree) -> bool {
        let command = self.substitute(&term.value);
        let text = match term.attribute.as_str() {
            "" | "program" => {
                match programs::run(&command, &self.outcome.env, self.device, self.rules, tree) {
                    Some(run) if run.exit == 0 => {
                        if let Some(note) = run.note {
                            self.step(rule, Effect::Ran(note));
                        }
                        Some(run.output)
                    }
                    _ => None,
                }
            }
            "file" => tree.text(&command).map(std::borrow::Cow::into_owned),
            _ => None,
        };
        let Some(text) = &text else {
            return term.op == Op::Nomatch;
        };
        for line in text.lines() {
            if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches(['"', '\'']);
                self.outcome
                    .env
                    .insert(key.trim().to_owned(), value.to_owned());
            }
        }
        term.op != Op::Nomatch
    }

    fn assign_env(&mut self, term: &Term) {
        let mut value = self.substitute(&term.value);
        if value.is_empty() {
            self.outcome.env.remove(&term.attribute);
            return;
        }
        if let (Op::Add, Some(old)) = (term.op, self.outcome.env.get(&term.attribute)) {
            value = format!("{old} {value}");
        }
        if value.len() <= LONGEST {
            self.outcome.env.insert(term.attribute.clone(), value);
        }
    }

    fn assign_name(&mut self, rule: &Rule, term: &Term) {
        if self.name_is_final {
            return;
        }
        self.name_is_final = term.op == Op::AssignFinal;
        let name: String = self.substitute(&term.value).chars().map(allowed).collect();
        self.step(rule, Effect::Named(name.clone()));
        self.outcome.name = Some(name).filter(|name| !name.is_empty());
    }

    /// Replaces `$name{…}` and `%x{…}`.
    fn substitute(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '%']) {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            out.push_str(before);
            let (value, after) = self.variable(from);
            out.push_str(&value);
            rest = after;
            if out.len() > LONGEST {
                return out;
            }
        }
        out.push_str(rest);
        out
    }

    /// The value of the variable that `text` begins with, and what follows it.
    fn variable<'t>(&self, text: &'t str) -> (String, &'t str) {
        let mut chars = text.chars();
        let sigil = chars.next().unwrap_or('$');
        let body = chars.as_str();
        if let Some(after) = body.strip_prefix(sigil) {
            return (sigil.to_string(), after);
        }
        let found = VARIABLES.iter().find_map(|(long, short)| {
            let after = if sigil == '$' {
                body.strip_prefix(long)
            } else {
                body.strip_prefix(*short)
            };
            Some((*short, after?))
        });
        let Some((kind, mut after)) = found else {
            return (sigil.to_string(), body);
        };
        let mut attribute = "";
        if let Some((inside, rest)) = after
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
        {
            attribute = inside;
            after = rest;
        }
        (self.value(kind, attribute), after)
    }

    fn value(&self, kind: char, attribute: &str) -> String {
        let kernel_name = self.device.kernel_name();
        match kind {
            'k' => kernel_name.to_owned(),
            'n' => {
                let stem = kernel_name.trim_end_matches(|c: char| c.is_ascii_digit());
                kernel_name.strip_prefix(stem).unwrap_or("").to_owned()
            }
            'p' => self.device.devpath(),
            'b' => self.parent.map_or(String::new(), |node| node.name.clone()),
            'd' => self
                .parent
                .map_or(String::new(), |node| node.driver.clone()),
            's' => {
                let own = self
                    .device
                    .interface()
                    .and_then(|node| node.attribute(attribute));
                let value = own.or_else(|| self.parent.and_then(|node| node.attribute(attribute)));
                value.unwrap_or("").trim_end().to_owned()
            }
            'E' => self.outcome.env.get(attribute).cloned().unwrap_or_default(),
            'c' => part(&self.result, attribute),
            'D' => self
                .outcome
                .name
                .clone()
                .unwrap_or_else(|| kernel_name.to_owned()),
            'S' => "/sys".to_owned(),
            'r' => "/dev".to_owned(),
            // Device nodes and their parents: a network device has none.
            _ => String::new(),
        }
    }
}

/// Long and short names of what can be substituted; a longer name stands before its prefix.
const VARIABLES: &[(&str, char)] = &[
    ("devpath", 'p'),
    ("tempnode", 'N'),
    ("driver", 'd'),
    ("kernel", 'k'),
    ("number", 'n'),
    ("parent", 'P'),
    ("result", 'c'),
    ("links", 'L'),
    ("major", 'M'),
    ("minor", 'm'),
    ("attr", 's'),
    ("sysfs", 's'),
    ("name", 'D'),
    ("root", 'r'),
    ("env", 'E'),
    ("sys", 'S'),
    ("id", 'b'),
];

/// Characters that udev leaves in a name; others become an underscore.
fn allowed(c: char) -> char {
    let keeps = c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii();
    if keeps { c } else { '_' }
}

/// `%c`, `%c{2}`, `%c{2+}`.
fn part(result: &str, which: &str) -> String {
    let (number, onwards) = match which.strip_suffix('+') {
        Some(number) => (number, true),
        None => (which, false),
    };
    let Ok(number) = number.parse::<usize>() else {
        return result.to_owned();
    };
    let words = result.split(' ').skip(number.saturating_sub(1));
    if onwards {
        words.collect::<Vec<_>>().join(" ")
    } else {
        words.take(1).collect()
    }
}

/// Compares a value with the alternatives of a term. Trailing white space of an attribute is no part of it.
fn compare(term: &Term, value: &str) -> bool {
    let value = if term.value.ends_with(' ') {
        value
    } else {
        value.trim_end()
    };
    let any = term.value.split('|').any(|pattern| fnmatch(pattern, value));
    any == (term.op == Op::Match)
}

/// The comparisons of a rule, as text for a witness.
fn spelled(rule: &Rule) -> String {
    let mut out = Vec::new();
    for term in rule.terms.iter().filter(|term| term.op.compares()) {
        let op = if term.op == Op::Match { "==" } else { "!=" };
        let key = match term.key {
            Key::Env => format!("ENV{{{}}}", term.attribute),
            Key::Attr => format!("ATTR{{{}}}", term.attribute),
            Key::Attrs => format!("ATTRS{{{}}}", term.attribute),
            other => format!("{other:?}").to_uppercase(),
        };
        out.push(format!("{key}{op}\"{}\"", term.value));
    }
    out.join(", ")
}
