//! An `iptables-save` text, table `filter`. Specification: iptables(8), iptables-extensions(8), iptables-restore(8).
//!
//! ```text
//! *filter
//! :INPUT ACCEPT [0:0]
//! -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
//! -A INPUT -i eth0 -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
//! -A INPUT -j REJECT --reject-with icmp-host-prohibited
//! COMMIT
//! ```
//!
//! A text iptables-restore would refuse (unknown chain, missing COMMIT) changes nothing in the kernel: reading it is
//! an error, and a host that starts with it accepts everything.

use super::{Probe, Protocol};
use crate::{ParseError, Subnet};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// Longest text read, in bytes.
const LONGEST: usize = 1 << 20;
/// Deepest chain of jumps followed.
const DEEPEST: u32 = 64;
/// Most rules tried for one probe: chains may be entered again and again.
const MOST: u32 = 100_000;

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Let in.
    Accept,
    /// Thrown away.
    Drop,
    /// Refused with an answer.
    Reject,
    /// A rule whose conditions are not known here comes first: nobody can say.
    Unknown,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Accept => "accepted",
            Self::Drop => "dropped",
            Self::Reject => "rejected",
            Self::Unknown => "not assessed",
        })
    }
}

/// The outcome and what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Outcome.
    pub target: Target,
    /// Line of the rule or, for the default, of the policy; `None` when the text has neither.
    pub line: Option<u32>,
    /// Chain (or Windows profile) that decided.
    pub chain: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    In(String),
    Protocol(String),
    Source(Subnet),
    Destination(Subnet),
    DestinationPorts(Vec<(u16, u16)>),
    SourcePorts,
    States(Vec<String>),
    IcmpType(String),
    /// `-o`, a fragment, TCP flags of a first segment: settled for a probe at once.
    Fixed(bool),
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    line: u32,
    conditions: Vec<(bool, Condition)>,
    jump: Option<String>,
    goto: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Chain {
    policy: Option<Target>,
    line: u32,
    rules: Vec<Rule>,
}

/// The filter table of a text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ruleset {
    chains: BTreeMap<String, Chain>,
}

impl Ruleset {
    /// Reads a text.
    ///
    /// # Errors
    /// `Corrupt` with the line iptables-restore would stop at.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > LONGEST {
            return Err(ParseError::Unsupported(format!(
                "rules of {} bytes, at most {LONGEST} expected",
                text.len()
            )));
        }
        let mut rules = Self::default();
        let mut table: Option<String> = None;
        for (number, line) in (1u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('*') {
                if table.is_some() {
                    return Err(refused(number, "a table begins before COMMIT"));
                }
                table = Some(name.trim().to_owned());
            } else if line == "COMMIT" {
                if table.take().is_none() {
                    return Err(refused(number, "COMMIT without a table"));
                }
            } else {
                match table.as_deref() {
                    None => return Err(refused(number, "a rule outside any table")),
                    Some("filter") => rules.read(number, line)?,
                    Some(_) => {}
                }
            }
        }
        if table.is_some() {
            return Err(refused(
                u32::try_from(text.lines().count()).unwrap_or(u32::MAX),
                "no COMMIT",
            ));
        }
        rules.check_jumps()?;
        Ok(rules)
    }

    fn read(&mut self, number: u32, line: &str) -> Result<(), ParseError> {
        if let Some(declaration) = line.strip_prefix(':') {
            let mut words = declaration.split_whitespace();
            let name = words
                .next()
                .ok_or_else(|| refused(number, "chain without a name"))?;
            let policy = match words.next() {
                Some("ACCEPT") => Some(Target::Accept),
                Some("DROP") => Some(Target::Drop),
                Some("-") => None,
                other => {
                    return Err(refused(
                        number,
                        format!("policy {other:?}, ACCEPT, DROP or - expected"),
                    ));
                }
            };
            self.chains.insert(
                name.to_owned(),
                Chain {
                    policy,
                    line: number,
                    rules: Vec::new(),
                },
            );
            return Ok(());
        }
        let words = words(number, line)?;
        // Counters such as [12:3456] may stand before the command.
        let words = match words.first() {
            Some(first) if first.starts_with('[') => words.get(1..).unwrap_or_default(),
            _ => words.as_slice(),
        };
        let (command, rest) = words
            .split_first()
            .ok_or_else(|| refused(number, "empty rule"))?;
        let (name, rest) = rest
            .split_first()
            .ok_or_else(|| refused(number, format!("{command} without a chain")))?;
        let builtin = matches!(name.as_str(), "INPUT" | "FORWARD" | "OUTPUT");
        match command.as_str() {
            "-N" | "--new-chain" => {
                self.chains.entry(name.clone()).or_default();
            }
            "-P" | "--policy" => {
                let policy = match rest.first().map(String::as_str) {
                    Some("ACCEPT") => Target::Accept,
                    Some("DROP") => Target::Drop,
                    other => return Err(refused(number, format!("policy {other:?}"))),
                };
                let chain = self.chains.entry(name.clone()).or_default();
                (chain.policy, chain.line) = (Some(policy), number);
            }
            "-A" | "--append" | "-I" | "--insert" => {
                if !builtin && !self.chains.contains_key(name) {
                    return Err(refused(number, format!("no chain {name:?}")));
                }
                let chain = self.chains.entry(name.clone()).or_default();
                if command.starts_with("-A") || command == "--append" {
                    chain.rules.push(rule(number, rest)?);
                } else {
                    let position = rest.first().and_then(|word| word.parse::<usize>().ok());
                    let rest = if position.is_some() {
                        rest.get(1..).unwrap_or_default()
                    } else {
                        rest
                    };
                    let at = position
                        .unwrap_or(1)
                        .saturating_sub(1)
                        .min(chain.rules.len());
                    chain.rules.insert(at, rule(number, rest)?);
                }
            }
            other => return Err(refused(number, format!("command {other:?} not known"))),
        }
        Ok(())
    }

    fn check_jumps(&self) -> Result<(), ParseError> {
        for rule in self.chains.values().flat_map(|chain| &chain.rules) {
            if let Some(jump) = &rule.jump
                && !self.chains.contains_key(jump)
                && !jump
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            {
                return Err(refused(rule.line, format!("no chain or target {jump:?}")));
            }
        }
        Ok(())
    }

    /// What happens to a probe that comes in.
    #[must_use]
    pub fn judge(&self, probe: &Probe) -> Verdict {
        let mut budget = MOST;
        if let Some(verdict) = self.walk("INPUT", probe, DEEPEST, &mut budget) {
            return verdict;
        }
        let chain = self.chains.get("INPUT");
        Verdict {
            target: chain
                .and_then(|chain| chain.policy)
                .unwrap_or(Target::Accept),
            line: chain.map(|chain| chain.line).filter(|line| *line > 0),
            chain: "INPUT".into(),
        }
    }

    fn walk(&self, name: &str, probe: &Probe, depth: u32, budget: &mut u32) -> Option<Verdict> {
        for rule in self
            .chains
            .get(name)
            .map(|chain| chain.rules.as_slice())
            .unwrap_or_default()
        {
            *budget = budget.saturating_sub(1);
            let verdict = |target| {
                Some(Verdict {
                    target,
                    line: Some(rule.line),
                    chain: name.to_owned(),
                })
            };
            if *budget == 0 || depth == 0 {
                return verdict(Target::Unknown);
            }
            match (matches(rule, probe), rule.jump.as_deref()) {
                (Some(false), _)
                | (
                    _,
                    None | Some("LOG" | "ULOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "AUDIT"),
                ) => {}
                (None, _) => return verdict(Target::Unknown),
                (Some(true), Some("ACCEPT")) => return verdict(Target::Accept),
                (Some(true), Some("DROP")) => return verdict(Target::Drop),
                (Some(true), Some("REJECT" | "TARPIT")) => return verdict(Target::Reject),
                (Some(true), Some("RETURN")) => return None,
                (Some(true), Some(chain)) if self.chains.contains_key(chain) => {
                    let inner = self.walk(chain, probe, depth.saturating_sub(1), budget);
                    if inner.is_some() || rule.goto {
                        return inner;
                    }
                }
                (Some(true), Some(_)) => return verdict(Target::Unknown),
            }
        }
        None
    }

    /// Rules of inbound chains whose `-i` names an interface that is none of `present`, with line and name.
    #[must_use]
    pub fn rules_bound_to_absent(&self, present: &[&str]) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        for rule in self.chains.values().flat_map(|chain| &chain.rules) {
            for (negated, condition) in &rule.conditions {
                if let (false, Condition::In(name)) = (negated, condition)
                    && name != "lo"
                    && !present
                        .iter()
                        .any(|interface| interface_matches(name, interface))
                {
                    found.push((rule.line, name.clone()));
                }
            }
        }
        found.sort();
        found
    }

    /// Whether any rule of the INPUT chain or one it may enter was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.values().all(|chain| {
            chain.rules.is_empty() && chain.policy.is_none_or(|policy| policy == Target::Accept)
        })
    }
}

fn refused(line: u32, what: impl fmt::Display) -> ParseError {
    ParseError::Corrupt(format!("iptables line {line}: {what}"))
}

/// Splits a line at blanks; double quotes hold words together.
fn words(number: u32, line: &str) -> Result<Vec<String>, ParseError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut escaped = false;
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(refused(number, "quote not closed"));
    }
    words.extend(word);
    Ok(words)
}

fn rule(line: u32, words: &[String]) -> Result<Rule, ParseError> {
    let mut rule = Rule {
        line,
        conditions: Vec::new(),
        jump: None,
        goto: false,
    };
    let mut negated = false;
    let mut rest = words.iter().map(String::as_str).peekable();
    while let Some(option) = rest.next() {
        if option == "!" {
            negated = true;
            continue;
        }
        let mut value = || {
            rest.next()
                .ok_or_else(|| refused(line, format!("{option} without a value")))
        };
        let condition = match option {
            "-j" | "--jump" | "-g" | "--goto" => {
                rule.jump = Some(value()?.to_owned());
                rule.goto = option.starts_with("-g") || option == "--goto";
                // What follows belongs to the target (--reject-with, --log-prefix).
                break;
            }
            "-m" | "--match" => {
                let module = value()?;
                match module {
                    "tcp" | "udp" | "icmp" | "state" | "conntrack" | "comment" | "multiport" => {
                        continue;
                    }
                    other => Condition::Unknown(other.to_owned()),
                }
            }
            "--comment" => {
                value()?;
                continue;
            }
            "-i" | "--in-interface" => Condition::In(value()?.to_owned()),
            "-o" | "--out-interface" => {
                value()?;
                Condition::Fixed(false)
            }
            "-p" | "--protocol" => Condition::Protocol(value()?.to_ascii_lowercase()),
            "-s" | "--source" | "--src" => Condition::Source(subnet(line, value()?)?),
            "-d" | "--destination" | "--dst" => Condition::Destination(subnet(line, value()?)?),
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" | "--ports" => {
                Condition::DestinationPorts(ports(line, value()?)?)
            }
            "--sport" | "--source-port" | "--sports" | "--source-ports" => {
                ports(line, value()?)?;
                Condition::SourcePorts
            }
            "--state" | "--ctstate" => {
                Condition::States(value()?.split(',').map(str::to_ascii_uppercase).collect())
            }
            "--icmp-type" => Condition::IcmpType(value()?.to_ascii_lowercase()),
            "--syn" => Condition::Fixed(true),
            "-f" | "--fragment" => Condition::Fixed(false),
            other if other.starts_with('-') => {
                // Options of modules not known here, with their values.
                while rest
                    .next_if(|word| !word.starts_with('-') && *word != "!")
                    .is_some()
                {}
                Condition::Unknown(other.to_owned())
            }
            other => return Err(refused(line, format!("bad argument {other:?}"))),
        };
        // The older spelling `-i ! eth0`.
        let (negated_inside, condition) = match condition {
            Condition::In(name) if name == "!" => {
                let name = rest
                    .next()
                    .ok_or_else(|| refused(line, "! without a value"))?;
                (true, Condition::In(name.to_owned()))
            }
            other => (false, other),
        };
        rule.conditions.push((negated != negated_inside, condition));
        negated = false;
    }
    Ok(rule)
}

fn subnet(line: u32, text: &str) -> Result<Subnet, ParseError> {
    text.parse().map_err(|error| refused(line, error))
}

fn ports(line: u32, text: &str) -> Result<Vec<(u16, u16)>, ParseError> {
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            match (port(first, 0), port(last, u16::MAX)) {
                (Some(first), Some(last)) => Ok((first, last)),
                _ => Err(refused(line, format!("port {part:?}"))),
            }
        })
        .collect()
}

/// A port by number or by the few names found in such files.
fn port(text: &str, empty: u16) -> Option<u16> {
    match text {
        "" => Some(empty),
        "ssh" => Some(22),
        "http" | "www" => Some(80),
        "https" => Some(443),
        "domain" => Some(53),
        number => number.parse().ok(),
    }
}

/// `None` when a condition is not known and no other one rules the packet out.
fn matches(rule: &Rule, probe: &Probe) -> Option<bool> {
    let mut known = true;
    for (negated, condition) in &rule.conditions {
        match holds(condition, probe) {
            Some(holds) if holds == *negated => return Some(false),
            Some(_) => {}
            None => known = false,
        }
    }
    known.then_some(true)
}

fn holds(condition: &Condition, probe: &Probe) -> Option<bool> {
    let inside = |subnet: &Subnet, address: Option<Ipv4Addr>| match address {
        _ if subnet.prefix() == 0 => Some(true),
        address => address.map(|address| subnet.contains(address)),
    };
    match condition {
        Condition::In(name) => Some(interface_matches(name, &probe.interface)),
        Condition::Protocol(name) => Some(match (name.as_str(), probe.protocol) {
            ("all" | "0", _) | ("icmp" | "1", Protocol::Echo) | ("tcp" | "6", Protocol::Tcp(_)) => {
                true
            }
            (name, Protocol::Udp(_)) => matches!(name, "udp" | "17"),
            _ => false,
        }),
        Condition::Source(subnet) => inside(subnet, probe.source),
        Condition::Destination(subnet) => inside(subnet, probe.destination),
        Condition::DestinationPorts(ranges) => Some(match probe.protocol {
            Protocol::Tcp(port) | Protocol::Udp(port) => ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&port)),
            Protocol::Echo => false,
        }),
        // The port a prober sends from is anyone's guess.
        Condition::SourcePorts | Condition::Unknown(_) => None,
        Condition::States(states) => Some(states.iter().any(|state| state == "NEW")),
        Condition::IcmpType(kind) => Some(
            probe.protocol == Protocol::Echo
                && matches!(kind.as_str(), "8" | "any" | "255" | "echo-request" | "ping"),
        ),
        Condition::Fixed(holds) => Some(*holds),
    }
}

/// `eth+` stands for every name that begins so.
fn interface_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}
