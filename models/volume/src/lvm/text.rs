//! The metadata text: `name { … }`, `name = value`, values being numbers, strings and lists; `#` begins a comment.

use drylab_block::{Error, Limits, Result};
use std::collections::BTreeMap;

/// A value or a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Whole number.
    Number(i64),
    /// Quoted text.
    Text(String),
    /// `[a, b]`.
    List(Vec<Node>),
    /// `{ … }`.
    Section(Section),
}

/// Names with what they stand for. A name given twice keeps the first, as lvm2 does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section(pub BTreeMap<String, Node>);

const DEPTH_MAX: u32 = 16;

impl Section {
    /// The section of this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Self> {
        match self.0.get(name) {
            Some(Node::Section(section)) => Some(section),
            _ => None,
        }
    }

    /// The text of this name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Node::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of this name, when it is not negative.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name) {
            Some(Node::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The list of this name; empty when there is none.
    #[must_use]
    pub fn list(&self, name: &str) -> &[Node] {
        match self.0.get(name) {
            Some(Node::List(list)) => list,
            _ => &[],
        }
    }

    /// The sections inside, by name.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }
}

/// Parses a whole text.
///
/// # Errors
/// [`Error::Corrupt`] with the byte where it stops making sense, or when it nests deeper than 16 sections or has
/// more entries than `limits.entries_max`.
pub fn parse(text: &[u8], limits: &Limits) -> Result<Section> {
    let mut parser = Parser {
        text,
        at: 0,
        left: limits.entries_max,
    };
    let section = parser.section(0)?;
    if parser.peek().is_some() {
        return Err(parser.wrong("a closing brace without an opening one"));
    }
    Ok(section)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    left: u32,
}

impl Parser<'_> {
    fn wrong(&self, what: &str) -> Error {
        Error::corrupt(format_args!("metadata text, byte {}: {what}", self.at))
    }

    /// The next byte that is neither space nor comment, not consumed. A NUL ends the text.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                0 => return None,
                b'#' => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let line = rest
                        .iter()
                        .position(|byte| *byte == b'\n')
                        .unwrap_or(rest.len());
                    self.at = self.at.saturating_add(line);
                }
                byte if byte.is_ascii_whitespace() => self.at = self.at.saturating_add(1),
                byte => return Some(byte),
            }
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at = self.at.saturating_add(1);
        }
        found
    }

    fn count(&mut self) -> Result<()> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| self.wrong("more entries than allowed"))?;
        Ok(())
    }

    fn section(&mut self, depth: u32) -> Result<Section> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("sections nest deeper than 16"));
        }
        let mut section = Section::default();
        while let Some(byte) = self.peek() {
            if byte == b'}' {
                break;
            }
            self.count()?;
            let name = if byte == b'"' {
                self.quoted()?
            } else {
                self.word()?.to_owned()
            };
            let node = if self.take(b'{') {
                let inner = self.section(depth.saturating_add(1))?;
                if !self.take(b'}') {
                    return Err(self.wrong("a section does not end"));
                }
                Node::Section(inner)
            } else if self.take(b'=') {
                self.value(depth)?
            } else {
                return Err(self.wrong("a name is followed by neither { nor ="));
            };
            section.0.entry(name).or_insert(node);
        }
        Ok(section)
    }

    fn value(&mut self, depth: u32) -> Result<Node> {
        self.count()?;
        match self.peek() {
            Some(b'"') => self.quoted().map(Node::Text),
            Some(b'[') => {
                if depth > DEPTH_MAX {
                    return Err(self.wrong("lists nest deeper than 16"));
                }
                self.at = self.at.saturating_add(1);
                let mut list = Vec::new();
                while !self.take(b']') {
                    list.push(self.value(depth.saturating_add(1))?);
                    let _ = self.take(b',');
                }
                Ok(Node::List(list))
            }
            Some(_) => {
                let word = self.word()?;
                Ok(word
                    .parse()
                    .map_or_else(|_| Node::Text(word.to_owned()), Node::Number))
            }
            None => Err(self.wrong("the text ends where a value is wanted")),
        }
    }

    fn word(&mut self) -> Result<&str> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+./@:".contains(byte);
        let length = rest
            .iter()
            .position(|byte| !is_word(byte))
            .unwrap_or(rest.len());
        let word = rest
            .get(..length)
            .and_then(|word| std::str::from_utf8(word).ok())
            .filter(|word| !word.is_empty());
        let Some(word) = word else {
            return Err(self.wrong("a name or number is wanted"));
        };
        self.at = self.at.saturating_add(length);
        Ok(word)
    }

    /// Text in quotes; a backslash keeps the next byte.
    fn quoted(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut at = self.at.saturating_add(1);
        loop {
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    at = at.saturating_add(1);
                    bytes.extend(self.text.get(at));
                }
                Some(byte) => bytes.push(*byte),
                None => return Err(self.wrong("a quoted text does not end")),
            }
            at = at.saturating_add(1);
        }
        self.at = at.saturating_add(1);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
