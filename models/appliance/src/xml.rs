//! What all XML readers here share: encodings, bounds, lines; and a printer.
//!
//! Source: XML 1.0 fifth edition (encoding declaration §4.3.3, appendix F), Namespaces in XML 1.0.
//!
//! The XML crate reads text; importers differ in what they do about its label. So the label and the bytes are reported
//! side by side ([`Encoding`]) and nothing is refused for a wrong label alone (quirk HQ01: XenCenter writes `utf-16` over
//! UTF-8 bytes). Before the document is built one pass counts depth, elements, attributes and namespace declarations and
//! refuses a document type declaration, so that no input costs more memory than a small multiple of its length.

use crate::findings::{At, Findings, quote};
use drylab_block::{Error, Limits, Result, Severity};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use roxmltree::{Document, Node, ParsingOptions};

/// Deepest nesting of elements. OVF needs about 8, libvirt about 10.
pub const DEPTH_MAX: u32 = 128;
/// Most attributes of one element.
pub const ATTRIBUTES_MAX: u32 = 256;
/// Most namespace declarations of one document.
pub const NAMESPACES_MAX: u32 = 4096;
/// Most nodes (elements, texts, comments) of one document.
pub const NODES_MAX: u32 = 1 << 18;
/// Most equals signs of one document: the XML crate reserves room for an attribute at each.
const EQUALS_MAX: usize = 1 << 20;

/// How the bytes are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Charset {
    /// UTF-8, with or without byte order mark.
    Utf8,
    /// UTF-16, little-endian.
    Utf16Le,
    /// UTF-16, big-endian.
    Utf16Be,
    /// ISO 8859-1 or Windows-1252: taken only when declared and the bytes are not UTF-8.
    Latin1,
}

/// The label of a document and the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The `encoding` pseudo-attribute of the XML declaration, as written.
    pub declared: Option<String>,
    /// What the bytes are.
    pub actual: Charset,
    /// Whether a byte order mark stands in front.
    pub byte_order_mark: bool,
}

impl Encoding {
    /// UTF-8 with its usual label and no mark.
    #[must_use]
    pub fn utf8() -> Self {
        Self {
            declared: Some("UTF-8".to_owned()),
            actual: Charset::Utf8,
            byte_order_mark: false,
        }
    }

    /// Whether a parser that obeys the label (expat, libxml2, MSXML) reads the bytes.
    #[must_use]
    pub fn label_is_true(&self) -> bool {
        let Some(label) = &self.declared else {
            return matches!(self.actual, Charset::Utf8) || self.byte_order_mark;
        };
        match label.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "us-ascii" | "ascii" => self.actual == Charset::Utf8,
            "utf-16" => {
                matches!(self.actual, Charset::Utf16Le | Charset::Utf16Be) && self.byte_order_mark
            }
            "utf-16le" => self.actual == Charset::Utf16Le,
            "utf-16be" => self.actual == Charset::Utf16Be,
            // A single-byte label makes any bytes legible, if not right; ASCII content is the same in all of them.
            _ => matches!(self.actual, Charset::Utf8 | Charset::Latin1),
        }
    }
}

/// Decoded text of an XML file.
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) encoding: Encoding,
}

/// Bytes to text, by byte order mark, then by trying UTF-8, then by label.
///
/// # Errors
/// [`Error::Unsupported`] when larger than `limits.text_bytes_max`; [`Error::Corrupt`] when no reading fits.
pub(crate) fn decode(bytes: &[u8], limits: &Limits, findings: &mut Findings) -> Result<Text> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > limits.text_bytes_max {
        let bound = limits.text_bytes_max;
        return Err(Error::unsupported(format_args!(
            "text of {length} bytes is larger than the {bound} allowed"
        )));
    }
    let (text, actual, byte_order_mark) = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => (utf8(rest)?, Charset::Utf8, true),
        [0xff, 0xfe, rest @ ..] => (utf16(rest, u16::from_le_bytes)?, Charset::Utf16Le, true),
        [0xfe, 0xff, rest @ ..] => (utf16(rest, u16::from_be_bytes)?, Charset::Utf16Be, true),
        [b'<', 0, ..] => (utf16(bytes, u16::from_le_bytes)?, Charset::Utf16Le, false),
        [0, b'<', ..] => (utf16(bytes, u16::from_be_bytes)?, Charset::Utf16Be, false),
        _ => match utf8(bytes) {
            Ok(text) => (text, Charset::Utf8, false),
            Err(wrong) => (latin1(bytes).ok_or(wrong)?, Charset::Latin1, false),
        },
    };
    let encoding = Encoding {
        declared: declared(&text),
        actual,
        byte_order_mark,
    };
    if byte_order_mark {
        findings.note(
            "XML-BYTE-ORDER-MARK",
            At::default(),
            format_args!("a byte order mark is in front of {actual:?} text"),
        );
    }
    if !encoding.label_is_true() {
        let label = encoding.declared.as_deref().unwrap_or("none");
        findings.add(
            "XML-ENCODING-LABEL",
            Severity::Warning,
            At { offset: 0, line: 1 },
            format_args!("the prolog says encoding {} and the bytes are {actual:?}: parsers that obey it refuse", quote(label)),
        );
    }
    Ok(Text { text, encoding })
}

fn utf8(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes)
        .map(ToOwned::to_owned)
        .map_err(|wrong| {
            Error::corrupt(format_args!(
                "text is not UTF-8 at byte {} and declares nothing else we know",
                wrong.valid_up_to()
            ))
        })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
    let pairs = bytes.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Error::corrupt(format_args!(
            "UTF-16 text has an odd number of bytes ({})",
            bytes.len()
        )));
    }
    let units = pairs.filter_map(|pair| pair.try_into().ok()).map(unit);
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.map_err(|wrong| Error::corrupt(format_args!("UTF-16 text has a lone surrogate ({wrong})")))
}

/// Single-byte text, when its own declaration (which is ASCII) says so.
fn latin1(bytes: &[u8]) -> Option<String> {
    let text: String = bytes.iter().copied().map(char::from).collect();
    let label = declared(&text)?.to_ascii_lowercase();
    ["iso-8859-1", "latin1", "windows-1252", "iso-8859-15"]
        .contains(&label.as_str())
        .then_some(text)
}

/// The encoding pseudo-attribute of the XML declaration.
fn declared(text: &str) -> Option<String> {
    let declaration = text.strip_prefix("<?xml")?.split_once("?>")?.0;
    let after = declaration
        .split_once("encoding")?
        .1
        .trim_start()
        .strip_prefix('=')?
        .trim_start();
    let mark = after
        .chars()
        .next()
        .filter(|mark| matches!(mark, '"' | '\''))?;
    Some(after.get(1..)?.split_once(mark)?.0.to_owned())
}

/// Whether a text is XML within the bounds of this crate, for readers that build their own document afterwards.
///
/// # Errors
/// [`Error::Corrupt`] when malformed, [`Error::Unsupported`] when a bound is passed; both with the line.
pub fn check_bounds(text: &str) -> Result<()> {
    Xml::parse(text).map(|_| ())
}

/// A document with the lines of its nodes.
pub(crate) struct Xml<'a> {
    pub(crate) document: Document<'a>,
    newlines: Vec<u32>,
}

impl<'a> Xml<'a> {
    /// Builds the document after checking what it will cost.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when malformed, [`Error::Unsupported`] when a bound is passed; both with the line.
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let newlines: Vec<u32> = newlines
            .filter_map(|(at, _)| u32::try_from(at).ok())
            .collect();
        check_cost(text).map_err(|refused| {
            let line = line_of(&newlines, refused.offset);
            Error::unsupported(format_args!("xml line {line}: {}", refused.why))
        })?;
        let options = ParsingOptions {
            allow_dtd: false,
            nodes_limit: NODES_MAX,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(text, options).map_err(|wrong| {
            // The crate's message quotes names of the input, however long they are.
            let message: String = wrong.to_string().chars().take(200).collect();
            match wrong {
                roxmltree::Error::NodesLimitReached => {
                    Error::unsupported(format_args!("xml has more than {NODES_MAX} nodes"))
                }
                _ => Error::corrupt(format_args!("xml line {}: {message}", wrong.pos().row)),
            }
        })?;
        Ok(Self { document, newlines })
    }

    /// Where a node begins.
    pub(crate) fn at(&self, node: Node<'_, '_>) -> At {
        let offset = node.range().start;
        At {
            offset: u64::try_from(offset).unwrap_or(u64::MAX),
            line: line_of(&self.newlines, offset),
        }
    }
}

/// Line from 1.
fn line_of(newlines: &[u32], offset: usize) -> u32 {
    let before = newlines
        .partition_point(|newline| usize::try_from(*newline).is_ok_and(|newline| newline < offset));
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

struct Refused {
    offset: usize,
    why: String,
}

/// One pass over the markup, without building anything.
fn check_cost(text: &str) -> Result<(), Refused> {
    let bound = |offset, what: &str, most: u64| Refused {
        offset,
        why: format!("more than {most} {what}"),
    };
    let angles = text.bytes().filter(|byte| *byte == b'<').count();
    if angles > usize::try_from(NODES_MAX).unwrap_or(usize::MAX) {
        return Err(bound(0, "tags and comments", u64::from(NODES_MAX)));
    }
    if text.bytes().filter(|byte| *byte == b'=').count() > EQUALS_MAX {
        return Err(bound(0, "equals signs", 1 << 20));
    }
    let (mut at, mut depth, mut namespaces) = (0usize, 0u32, 0u32);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('<')) {
        let start = at.saturating_add(found);
        let rest = text.get(start..).unwrap_or("");
        let skip_to = |end: &str| {
            rest.find(end)
                .map_or(rest.len(), |found| found.saturating_add(end.len()))
        };
        let length = if rest.starts_with("<!--") {
            skip_to("-->")
        } else if rest.starts_with("<![CDATA[") {
            skip_to("]]>")
        } else if rest.starts_with("<?") {
            skip_to("?>")
        } else if rest.starts_with("<!") {
            return Err(Refused {
                offset: start,
                why: "a document type declaration is refused".to_owned(),
            });
        } else if rest.starts_with("</") {
            depth = depth.saturating_sub(1);
            skip_to(">")
        } else {
            let tag = Tag::scan(rest);
            if tag.attributes > ATTRIBUTES_MAX {
                return Err(bound(
                    start,
                    "attributes in one element",
                    u64::from(ATTRIBUTES_MAX),
                ));
            }
            namespaces = namespaces.saturating_add(tag.namespaces);
            if namespaces > NAMESPACES_MAX {
                return Err(bound(
                    start,
                    "namespace declarations",
                    u64::from(NAMESPACES_MAX),
                ));
            }
            if !tag.empty {
                depth = depth.saturating_add(1);
            }
            if depth > DEPTH_MAX {
                return Err(bound(start, "levels of elements", u64::from(DEPTH_MAX)));
            }
            tag.length
        };
        at = start.saturating_add(length.max(1));
    }
    Ok(())
}

/// What one start tag costs.
struct Tag {
    length: usize,
    attributes: u32,
    namespaces: u32,
    empty: bool,
}

impl Tag {
    /// Reads from `<` to the `>` outside quotes.
    fn scan(text: &str) -> Self {
        let mut tag = Self {
            length: text.len(),
            attributes: 0,
            namespaces: 0,
            empty: false,
        };
        let mut quoted: Option<u8> = None;
        let mut previous = 0u8;
        let mut name_start = true;
        for (at, byte) in text.bytes().enumerate() {
            match quoted {
                Some(mark) if byte == mark => quoted = None,
                Some(_) => {}
                None => match byte {
                    b'"' | b'\'' => {
                        quoted = Some(byte);
                        tag.attributes = tag.attributes.saturating_add(1);
                    }
                    b'>' => {
                        tag.length = at.saturating_add(1);
                        tag.empty = previous == b'/';
                        break;
                    }
                    b'x' if name_start
                        && text.get(at..).is_some_and(|rest| rest.starts_with("xmlns")) =>
                    {
                        tag.namespaces = tag.namespaces.saturating_add(1);
                    }
                    _ => {}
                },
            }
            name_start =
                quoted.is_none() && (byte.is_ascii_whitespace() || byte == b'"' || byte == b'\'');
            previous = byte;
        }
        tag
    }
}

/// All text directly inside a node, trimmed.
pub(crate) fn text_of(node: Node<'_, '_>) -> String {
    let mut text = String::new();
    for part in node.children().filter(Node::is_text) {
        text.push_str(part.text().unwrap_or(""));
    }
    text.trim().to_owned()
}

/// Element children.
pub(crate) fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

/// XML 1.0 §2.2: control characters other than tab and line ends cannot be written at all.
pub(crate) fn check_characters(text: &str) -> Result<()> {
    let bad = |c: &char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    text.chars().find(bad).map_or(Ok(()), |bad| {
        let code = u32::from(bad);
        Err(Error::unsupported(format_args!(
            "character U+{code:04X} cannot be written as XML"
        )))
    })
}

/// UTF-16 in little-endian with its mark, as Windows writes text.
pub(crate) fn to_utf16(text: &str) -> Vec<u8> {
    let mark = std::iter::once(0xfeff);
    mark.chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// Writes elements with two-space indentation; every name is ours, every value is escaped.
pub(crate) struct Printer {
    writer: Writer<Vec<u8>>,
    wrong: Option<Error>,
}

impl Printer {
    pub(crate) fn new() -> Self {
        Self {
            writer: Writer::new_with_indent(Vec::new(), b' ', 2),
            wrong: None,
        }
    }

    /// Without any blank between elements, as the products of Citrix write.
    pub(crate) fn dense() -> Self {
        Self {
            writer: Writer::new(Vec::new()),
            wrong: None,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        if let Err(wrong) = self.writer.write_event(event) {
            self.wrong.get_or_insert(Error::io(wrong));
        }
    }

    /// `<?xml version="1.0" encoding="UTF-8"?>`
    pub(crate) fn declaration(&mut self) {
        self.declaration_of("UTF-8", None);
    }

    /// The same with another label; what it says is up to the dialect, the bytes are UTF-8.
    pub(crate) fn declaration_of(&mut self, encoding: &str, standalone: Option<&str>) {
        let declaration = BytesDecl::new("1.0", Some(encoding), standalone);
        self.event(Event::Decl(declaration));
    }

    /// A comment; two hyphens in a row cannot be written in one.
    pub(crate) fn comment(&mut self, text: &str) {
        self.check(text);
        if text.contains("--") || text.ends_with('-') {
            self.wrong.get_or_insert(Error::unsupported(
                "a comment with two hyphens in a row cannot be written as XML",
            ));
            return;
        }
        self.event(Event::Comment(BytesText::from_escaped(text)));
    }

    fn start<'n>(&mut self, name: &'n str, attributes: &[(&str, &str)]) -> BytesStart<'n> {
        let mut start = BytesStart::new(name);
        for (key, value) in attributes {
            self.check(value);
            start.push_attribute((*key, *value));
        }
        start
    }

    pub(crate) fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let start = self.start(name, attributes);
        self.event(Event::Start(start));
    }

    pub(crate) fn close(&mut self, name: &str) {
        self.event(Event::End(BytesEnd::new(name)));
    }

    pub(crate) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let start = self.start(name, attributes);
        self.event(Event::Empty(start));
    }

    pub(crate) fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        self.check(text);
        self.event(Event::Text(BytesText::new(text)));
        self.close(name);
    }

    /// Text beside the elements.
    pub(crate) fn text(&mut self, text: &str) {
        self.check(text);
        self.event(Event::Text(BytesText::new(text)));
    }

    /// A leaf, when there is something to say.
    pub(crate) fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.leaf(name, &[], text);
        }
    }

    fn check(&mut self, text: &str) {
        if let Err(wrong) = check_characters(text) {
            self.wrong.get_or_insert(wrong);
        }
    }

    /// The bytes, ending in a line end.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut bytes = self.writer.into_inner();
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Charset, Findings, Limits, Printer, Xml, decode, text_of};

    fn encoding(bytes: &[u8]) -> (Charset, bool) {
        let text = decode(bytes, &Limits::DEFAULT, &mut Findings::default()).unwrap();
        Xml::parse(&text.text).unwrap();
        (text.encoding.actual, text.encoding.label_is_true())
    }

    #[test]
    fn the_label_and_the_bytes_are_judged_apart() {
        assert_eq!(encoding(b"<a/>"), (Charset::Utf8, true));
        assert_eq!(
            encoding(b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?><a/>"),
            (Charset::Utf8, true)
        );
        assert_eq!(
            encoding(b"<?xml version=\"1.0\" encoding=\"utf-16\"?><a/>"),
            (Charset::Utf8, false)
        );
        assert_eq!(
            encoding(b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xe9</a>"),
            (Charset::Latin1, true)
        );
        let wide: Vec<u8> = "\u{feff}<?xml version='1.0' encoding='utf-16'?><a>é</a>"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(encoding(&wide), (Charset::Utf16Le, true));
        let wide: Vec<u8> = "<?xml version='1.0' encoding='utf-8'?><a/>"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        assert_eq!(encoding(&wide), (Charset::Utf16Be, false));
        for bad in [&b"<a>\xff</a>"[..], b"\xff\xfe<", b"\xff\xfe\x00\xd8<\0"] {
            assert!(decode(bad, &Limits::DEFAULT, &mut Findings::default()).is_err());
        }
    }

    #[test]
    fn lines_are_those_of_an_editor() {
        let text = "<?xml version='1.0'?>\r\n<!-- > <x> \n -->\n<a\n b='1'><c/>\n</a>";
        let xml = Xml::parse(text).unwrap();
        let root = xml.document.root_element();
        assert_eq!(xml.at(root).line, 4);
        assert_eq!(xml.at(root.first_element_child().unwrap()).line, 5);
    }

    #[test]
    fn markup_inside_comments_and_cdata_costs_nothing_and_is_not_counted_as_depth() {
        let hidden = "<x>".repeat(500);
        let text = format!(
            "<a><!--{hidden}--><![CDATA[{hidden}]]><b c='{}'/></a>",
            "&gt;".repeat(300)
        );
        let xml = Xml::parse(&text).unwrap();
        assert_eq!(text_of(xml.document.root_element()), hidden);
    }

    #[test]
    fn characters_xml_has_no_spelling_for_are_refused_by_the_printer() {
        let mut printer = Printer::new();
        printer.leaf("a", &[], "bell \u{7}");
        assert!(printer.finish().unwrap_err().to_string().contains("U+0007"));
        let mut printer = Printer::new();
        printer.comment("a -- b");
        assert!(printer.finish().is_err());
    }
}
