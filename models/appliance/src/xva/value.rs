//! XML-RPC values, the grammar of `ova.xml`.
//!
//! Source: the XML-RPC specification (Winer, 1999, 2003). A value is text unless an element inside says otherwise; xapi
//! writes its 64-bit integers as text.
//!
//! ```text
//! value  = "<value>" ( text | typed | struct | array ) "</value>"
//! typed  = "<int>" | "<i4>" | "<boolean>" | "<double>" | "<dateTime.iso8601>" | "<base64>" …
//! struct = "<struct>" { "<member><name>" text "</name>" value "</member>" } "</struct>"
//! array  = "<array><data>" { value } "</data></array>"
//! ```

use crate::findings::{Findings, quote};
use crate::xml::{Xml, check_characters, elements, text_of};
use drylab_block::{Error, Result};
use roxmltree::Node;

/// A value; order and spelling are kept, so that what is read can be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text without a type, or `string`.
    Text(String),
    /// A scalar with a type.
    Typed(Type, String),
    /// Members in order; of several with one name the first counts.
    Struct(Vec<(String, Value)>),
    /// Elements in order.
    Array(Vec<Value>),
}

/// Types of scalars other than text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// `int`.
    Int,
    /// `i4`, the other name of it.
    I4,
    /// `boolean`: `0` or `1`.
    Boolean,
    /// `double`.
    Double,
    /// `dateTime.iso8601`.
    DateTime,
    /// `base64`.
    Base64,
}

const TYPES: [(&str, Type); 6] = [
    ("int", Type::Int),
    ("i4", Type::I4),
    ("boolean", Type::Boolean),
    ("double", Type::Double),
    ("dateTime.iso8601", Type::DateTime),
    ("base64", Type::Base64),
];

impl Value {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// `boolean`.
    #[must_use]
    pub fn flag(value: bool) -> Self {
        Self::Typed(Type::Boolean, if value { "1" } else { "0" }.to_owned())
    }

    /// A struct of texts.
    #[must_use]
    pub fn pairs(pairs: &[(String, String)]) -> Self {
        let members = pairs
            .iter()
            .map(|(key, value)| (key.clone(), Self::text(value)));
        Self::Struct(members.collect())
    }

    /// A struct from names and values.
    #[must_use]
    pub fn record(members: Vec<(&str, Self)>) -> Self {
        let members = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Self::Struct(members.collect())
    }

    /// The member of that name, when this is a struct and has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Struct(members) = self else {
            return None;
        };
        let found = members.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    }

    /// The characters of a scalar.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Typed(_, text) => Some(text),
            _ => None,
        }
    }

    /// Reads a `value` element.
    pub(super) fn read(xml: &Xml<'_>, node: Node<'_, '_>, findings: &mut Findings) -> Result<Self> {
        let Some(inner) = elements(node).next() else {
            // The text as it is: blanks count.
            let texts = node.children().filter(Node::is_text);
            return Ok(Self::Text(texts.filter_map(|text| text.text()).collect()));
        };
        let name = inner.tag_name().name();
        let known = TYPES.iter().find(|(known, _)| *known == name);
        Ok(match (name, known) {
            (_, Some((_, kind))) => Self::Typed(*kind, text_of(inner)),
            ("string", _) => {
                let texts = inner.children().filter(Node::is_text);
                Self::Text(texts.filter_map(|text| text.text()).collect())
            }
            ("struct", _) => Self::members(xml, inner, findings)?,
            ("array", _) => {
                let data = elements(inner).find(|node| node.tag_name().name() == "data");
                let values = data.into_iter().flat_map(elements);
                let values = values.map(|value| Self::read(xml, value, findings));
                Self::Array(values.collect::<Result<_>>()?)
            }
            _ => {
                let line = xml.at(inner).line;
                return Err(Error::corrupt(format_args!(
                    "line {line}: {} is no type of XML-RPC",
                    quote(name)
                )));
            }
        })
    }

    fn members(xml: &Xml<'_>, node: Node<'_, '_>, findings: &mut Findings) -> Result<Self> {
        let mut members = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for member in elements(node) {
            let child = |name: &str| elements(member).find(|node| node.tag_name().name() == name);
            let (Some(name), Some(value)) = (child("name"), child("value")) else {
                let line = xml.at(member).line;
                return Err(Error::corrupt(format_args!(
                    "line {line}: a member of a struct has no name or no value"
                )));
            };
            let name = text_of(name);
            if !seen.insert(name.clone()) {
                let at = xml.at(member);
                let message = format!("member {} is there twice; the first counts", quote(&name));
                findings.warning("XVA-MEMBER-TWICE", at, message);
            }
            members.push((name, Self::read(xml, value, findings)?));
        }
        Ok(Self::Struct(members))
    }

    /// Appends the `value` element, without any blank that is not content.
    pub(super) fn print(&self, text: &mut String) -> Result<()> {
        match self {
            Self::Text(content) if content.is_empty() => {
                text.push_str("<value/>");
                return Ok(());
            }
            _ => text.push_str("<value>"),
        }
        match self {
            Self::Text(content) => escape(content, text)?,
            Self::Typed(kind, content) => {
                let name = TYPES.iter().find(|(_, known)| known == kind);
                let name = name.map_or("int", |(name, _)| *name);
                text.push_str(&format!("<{name}>"));
                escape(content, text)?;
                text.push_str(&format!("</{name}>"));
            }
            Self::Struct(members) => {
                text.push_str("<struct>");
                for (name, value) in members {
                    text.push_str("<member><name>");
                    escape(name, text)?;
                    text.push_str("</name>");
                    value.print(text)?;
                    text.push_str("</member>");
                }
                text.push_str("</struct>");
            }
            Self::Array(values) => {
                text.push_str("<array><data>");
                for value in values {
                    value.print(text)?;
                }
                text.push_str("</data></array>");
            }
        }
        text.push_str("</value>");
        Ok(())
    }
}

/// Text as XML; a carriage return would be read as a line feed, so it becomes a reference.
fn escape(content: &str, text: &mut String) -> Result<()> {
    check_characters(content)?;
    for c in content.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\r' => text.push_str("&#13;"),
            _ => text.push(c),
        }
    }
    Ok(())
}
