//! Rule files as text: lines, keys, operators.
//!
//! Source: udev(7) of releases 147 to 182, RULES FILES.
//!
//! ```text
//! SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="00:0c:29:…", KERNEL=="eth*", NAME="eth0"
//! └─key──┘└┘└value┘                └key┘└attribute┘
//! ```
//!
//! A line that ends in a backslash goes on in the next one; a line that begins with `#` is a comment. A line that
//! cannot be read is left out as a whole, as udev does (it logs it and goes on).

use std::sync::Arc;

/// Longest logical line; udev's own buffer has 16 KiB.
const LONGEST_LINE: usize = 16 * 1024;
/// Most rules read from one file.
const MOST_RULES: usize = 20_000;

/// What a key speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `ACTION`.
    Action,
    /// `DEVPATH`.
    Devpath,
    /// `KERNEL`.
    Kernel,
    /// `NAME`.
    Name,
    /// `SUBSYSTEM`.
    Subsystem,
    /// `DRIVER`.
    Driver,
    /// `ENV{…}`.
    Env,
    /// `ATTR{…}`.
    Attr,
    /// `KERNELS` (formerly `ID`): the device or a parent.
    Kernels,
    /// `SUBSYSTEMS` (formerly `BUS`).
    Subsystems,
    /// `DRIVERS`.
    Drivers,
    /// `ATTRS{…}` (formerly `SYSFS{…}`).
    Attrs,
    /// `TEST`.
    Test,
    /// `PROGRAM`.
    Program,
    /// `IMPORT{…}`.
    Import,
    /// `RESULT`.
    Result,
    /// `GOTO`.
    Goto,
    /// `LABEL`.
    Label,
    /// Keys without influence on an interface's name: `RUN`, `SYMLINK`, `OWNER`, `GROUP`, `MODE`, `OPTIONS`, `TAG`,
    /// `WAIT_FOR`.
    Other,
}

/// `==`, `!=`, `=`, `+=`, `:=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `==`
    Match,
    /// `!=`
    Nomatch,
    /// `=`
    Assign,
    /// `+=`
    Add,
    /// `:=`
    AssignFinal,
}

impl Op {
    /// Whether it compares.
    #[must_use]
    pub fn compares(self) -> bool {
        matches!(self, Self::Match | Self::Nomatch)
    }
}

/// One key of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What it speaks of.
    pub key: Key,
    /// Text between braces.
    pub attribute: String,
    /// Operator.
    pub op: Op,
    /// Text between the quotes.
    pub value: String,
}

/// One rule: its terms in the order udev evaluates them (comparisons by kind, then assignments).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// File.
    pub path: Arc<str>,
    /// Its first line, from 1.
    pub line: u32,
    /// Terms.
    pub terms: Vec<Term>,
}

impl Rule {
    /// Value of the label the rule carries.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.key == Key::Label)
            .map(|term| term.value.as_str())
    }
}

/// Reads the rules of a file.
#[must_use]
pub fn rules(path: &str, text: &str) -> Vec<Rule> {
    let path: Arc<str> = Arc::from(path);
    let mut rules = Vec::new();
    let mut pending = String::new();
    let mut first = 0_u32;
    for (content, line) in text.lines().zip(1_u32..) {
        if pending.is_empty() {
            first = line;
            if content.trim_start().starts_with('#') {
                continue;
            }
        }
        if pending.len().saturating_add(content.len()) > LONGEST_LINE {
            pending.clear();
            continue;
        }
        if let Some(part) = content.strip_suffix('\\') {
            pending.push_str(part);
            continue;
        }
        pending.push_str(content);
        if let Some(terms) = terms(&pending).filter(|terms| !terms.is_empty()) {
            rules.push(Rule {
                path: Arc::clone(&path),
                line: first,
                terms,
            });
        }
        pending.clear();
        if rules.len() >= MOST_RULES {
            break;
        }
    }
    rules
}

fn terms(line: &str) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    let mut rest = line.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (term, after) = term(rest)?;
        terms.push(term);
        rest = after.trim_start_matches([' ', '\t', ',', '\r']);
    }
    // A stable sort, as udev sorts its tokens: comparisons by kind, then properties, then the name.
    terms.sort_by_key(|term| {
        let assigned = match term.key {
            Key::Env => 0,
            Key::Name => 1,
            _ => 2,
        };
        if evaluated_first(term) {
            (0, Some(term.key), 0)
        } else {
            (1, None, assigned)
        }
    });
    Some(terms)
}

/// Comparisons, and the two keys that act while matching whatever their operator.
fn evaluated_first(term: &Term) -> bool {
    term.op.compares() || matches!(term.key, Key::Program | Key::Import)
}

fn term(text: &str) -> Option<(Term, &str)> {
    let end =
        text.find(|c: char| matches!(c, '=' | '+' | '!' | ':' | '{') || c.is_ascii_whitespace())?;
    let (name, mut rest) = text.split_at_checked(end)?;
    let mut attribute = "";
    if let Some(inside) = rest.strip_prefix('{') {
        let close = inside.find('}')?;
        attribute = inside.get(..close)?;
        rest = inside.get(close.saturating_add(1)..)?;
    }
    rest = rest.trim_start();
    let (op, rest) = [
        ("==", Op::Match),
        ("!=", Op::Nomatch),
        ("+=", Op::Add),
        (":=", Op::AssignFinal),
        ("=", Op::Assign),
    ]
    .iter()
    .find_map(|(sign, op)| Some((*op, rest.strip_prefix(sign)?)))?;
    let value = rest.trim_start().strip_prefix('"')?;
    let close = value.find('"')?;
    let term = Term {
        key: key(name)?,
        attribute: attribute.to_owned(),
        op,
        value: value.get(..close)?.to_owned(),
    };
    Some((term, value.get(close.saturating_add(1)..)?))
}

fn key(name: &str) -> Option<Key> {
    Some(match name {
        "ACTION" => Key::Action,
        "DEVPATH" => Key::Devpath,
        "KERNEL" => Key::Kernel,
        "NAME" => Key::Name,
        "SUBSYSTEM" => Key::Subsystem,
        "DRIVER" => Key::Driver,
        "ENV" => Key::Env,
        "ATTR" => Key::Attr,
        "KERNELS" | "ID" => Key::Kernels,
        "SUBSYSTEMS" | "BUS" => Key::Subsystems,
        "DRIVERS" => Key::Drivers,
        "ATTRS" | "SYSFS" => Key::Attrs,
        "TEST" => Key::Test,
        "PROGRAM" => Key::Program,
        "IMPORT" => Key::Import,
        "RESULT" => Key::Result,
        "GOTO" => Key::Goto,
        "LABEL" => Key::Label,
        "RUN" | "SYMLINK" | "OWNER" | "GROUP" | "MODE" | "OPTIONS" | "TAG" | "WAIT_FOR"
        | "WAIT_FOR_SYSFS" => Key::Other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Key, Op, rules};

    #[test]
    fn a_rule_is_read_with_its_line_and_its_terms_in_the_order_of_evaluation() {
        let text = "# comment\n\nNAME=\"eth0\", ATTR{address} == \"00:0c\", \\\n  KERNEL!=\"wlan*\"\nbroken\nLABEL=\"end\"\n";
        let rules = rules("/etc/udev/rules.d/70.rules", text);
        assert_eq!(
            rules.iter().map(|rule| rule.line).collect::<Vec<_>>(),
            [3, 6]
        );
        let terms: Vec<_> = rules[0]
            .terms
            .iter()
            .map(|term| (term.key, term.op, term.value.as_str()))
            .collect();
        assert_eq!(
            terms,
            [
                (Key::Kernel, Op::Nomatch, "wlan*"),
                (Key::Attr, Op::Match, "00:0c"),
                (Key::Name, Op::Assign, "eth0"),
            ]
        );
        assert_eq!(rules[0].terms[1].attribute, "address");
        assert_eq!(rules[1].label(), Some("end"));
    }
}
