//! Assignments of a file that bash sources: ifcfg files, `/etc/sysconfig/network`, `/etc/default/*`.
//!
//! Source: bash(1), QUOTING and "simple commands". The subset: assignments alone on a command (`A=1 B=2`,
//! `export A=1`), single and double quotes, backslash, `$NAME` and `${NAME}`, comments, `;`, line continuation. Other
//! commands are skipped, and assignments in front of one are not kept, as in bash. An unclosed quote ends the reading,
//! with the assignments of earlier lines kept. A carriage return is an ordinary character, as in bash.

use std::collections::BTreeMap;

/// Longest file that is read; ifcfg files have some hundred bytes.
const LONGEST: usize = 1 << 20;
/// Longest value after expansion: `A=$A$A` doubles with each line.
const LONGEST_VALUE: usize = 4096;

/// A variable's value and the line that set it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Value.
    pub value: String,
    /// Line in the file, from 1.
    pub line: u32,
}

/// Variables after sourcing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    by_name: BTreeMap<String, Variable>,
}

impl Variables {
    /// Sources `text` over what is set already.
    pub fn source(&mut self, text: &str) {
        if text.len() > LONGEST {
            return;
        }
        let mut words = Words {
            rest: text,
            line: 1,
        };
        while let Some(command) = words.command(&self.by_name) {
            let exported = command
                .first()
                .is_some_and(|word| !word.quoted && word.text == "export");
            let (skipped, all) = if exported { (1, false) } else { (0, true) };
            let is_assignment = |word: &Word| word.name_length.is_some();
            if all && !command.iter().all(is_assignment) {
                continue;
            }
            for word in command.iter().skip(skipped) {
                let Some(length) = word.name_length else {
                    continue;
                };
                let (Some(name), Some(value)) = (
                    word.text.get(..length),
                    word.text.get(length.saturating_add(1)..),
                ) else {
                    continue;
                };
                self.by_name.insert(
                    name.to_owned(),
                    Variable {
                        value: value.to_owned(),
                        line: word.line,
                    },
                );
            }
        }
    }

    /// Variables of one file.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut variables = Self::default();
        variables.source(text);
        variables
    }

    /// Value, empty when unset (as `$NAME`).
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.by_name
            .get(name)
            .map_or("", |variable| variable.value.as_str())
    }

    /// Value, None when unset or empty.
    #[must_use]
    pub fn nonempty(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// Line that set it, 0 when unset.
    #[must_use]
    pub fn line(&self, name: &str) -> u32 {
        self.by_name.get(name).map_or(0, |variable| variable.line)
    }

    /// Sets a variable, as the scripts do with defaults.
    pub fn set(&mut self, name: &str, value: &str) {
        let line = self.line(name);
        self.by_name.insert(
            name.to_owned(),
            Variable {
                value: value.to_owned(),
                line,
            },
        );
    }
}

struct Word {
    text: String,
    line: u32,
    quoted: bool,
    /// Length of the name when the word is an assignment.
    name_length: Option<usize>,
}

struct Words<'a> {
    rest: &'a str,
    line: u32,
}

impl Words<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(c)
    }

    /// Words up to the end of the command; None at the end of the file or at an unclosed quote.
    fn command(&mut self, variables: &BTreeMap<String, Variable>) -> Option<Vec<Word>> {
        let mut command = Vec::new();
        loop {
            match self.rest.chars().next() {
                None => return (!command.is_empty()).then_some(command),
                Some('\n' | ';' | '&' | '|') => {
                    self.next();
                    return Some(command);
                }
                Some(' ' | '\t') => {
                    self.next();
                }
                Some('#') => {
                    while self.rest.chars().next().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                }
                Some('\\') if self.rest.starts_with("\\\n") => {
                    self.next();
                    self.next();
                }
                Some(_) => command.push(self.word(variables)?),
            }
        }
    }

    fn word(&mut self, variables: &BTreeMap<String, Variable>) -> Option<Word> {
        let mut word = Word {
            text: String::new(),
            line: self.line,
            quoted: false,
            name_length: None,
        };
        while let Some(c) = self.rest.chars().next() {
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' => break,
                '\'' => {
                    self.next();
                    word.quoted = true;
                    loop {
                        match self.next()? {
                            '\'' => break,
                            c => word.text.push(c),
                        }
                    }
                }
                '"' => {
                    self.next();
                    word.quoted = true;
                    self.double_quoted(&mut word.text, variables)?;
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(escaped) => {
                            word.quoted = true;
                            word.text.push(escaped);
                        }
                    }
                }
                '$' => self.expand(&mut word.text, variables),
                '=' if word.name_length.is_none() && !word.quoted && is_name(&word.text) => {
                    word.name_length = Some(word.text.len());
                    word.text.extend(self.next());
                }
                _ => word.text.extend(self.next()),
            }
        }
        Some(word)
    }

    fn double_quoted(
        &mut self,
        text: &mut String,
        variables: &BTreeMap<String, Variable>,
    ) -> Option<()> {
        loop {
            match self.rest.chars().next()? {
                '"' => {
                    self.next();
                    return Some(());
                }
                '\\' => {
                    self.next();
                    match self.next()? {
                        '\n' => {}
                        c @ ('"' | '\\' | '$' | '`') => text.push(c),
                        c => text.extend(['\\', c]),
                    }
                }
                '$' => self.expand(text, variables),
                _ => text.extend(self.next()),
            }
        }
    }

    /// `$NAME` or `${NAME}`; anything else after the dollar sign (a command, arithmetic) expands to nothing here.
    fn expand(&mut self, text: &mut String, variables: &BTreeMap<String, Variable>) {
        self.next();
        let braced = self.rest.starts_with('{');
        if braced {
            self.next();
        }
        let mut name = String::new();
        while let Some(c) = self
            .rest
            .chars()
            .next()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
            self.next();
        }
        if braced && self.rest.starts_with('}') {
            self.next();
        }
        match variables.get(&name) {
            Some(variable) if text.len().saturating_add(variable.value.len()) <= LONGEST_VALUE => {
                text.push_str(&variable.value);
            }
            Some(_) => {}
            None if name.is_empty() && !braced => text.push('$'),
            None => {}
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What the init functions take for a yes: `y`, `yes`, `true`, `t`, `1` in any case.
#[must_use]
pub fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "y" | "yes" | "true" | "t" | "1"
    )
}

/// What the init functions take for a no: `n`, `no`, `false`, `f`, `0` in any case.
#[must_use]
pub fn is_false(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "n" | "no" | "false" | "f" | "0"
    )
}

#[cfg(test)]
mod tests {
    use super::Variables;

    #[test]
    fn a_file_is_read_as_bash_sources_it() {
        let text = "# comment\nDEVICE=\"eth0\" HWADDR='00:0C'\nexport ONBOOT=yes\nA=x # tail\nB=a\\ b\nC=${A}$A.\n\
                    D=1 echo D is not kept\n IPADDR=1.2.3.4;NETMASK=x\nA=y\nE=a#b\nF=\nCR=x\r\n";
        let v = Variables::of(text);
        for (name, value, line) in [
            ("DEVICE", "eth0", 2),
            ("HWADDR", "00:0C", 2),
            ("ONBOOT", "yes", 3),
            ("A", "y", 9),
            ("B", "a b", 5),
            ("C", "xx.", 6),
            ("D", "", 0),
            ("IPADDR", "1.2.3.4", 8),
            ("NETMASK", "x", 8),
            ("E", "a#b", 10),
            ("F", "", 11),
            ("CR", "x\r", 12),
        ] {
            assert_eq!((v.get(name), v.line(name)), (value, line), "{name}");
        }
    }

    #[test]
    fn an_unclosed_quote_ends_the_reading_and_earlier_lines_stay() {
        let v = Variables::of("DEVICE=eth0\nHWADDR=\"00:0C\nONBOOT=yes\n");
        assert_eq!(
            (v.get("DEVICE"), v.get("HWADDR"), v.get("ONBOOT")),
            ("eth0", "", "")
        );
    }

    #[test]
    fn values_that_double_with_each_line_stay_bounded() {
        let v = Variables::of(&format!("A=xxxxxxxx\n{}", "A=$A$A\n".repeat(64)));
        assert!(v.get("A").len() <= 4096);
    }
}
