//! Configuration file of a VMware virtual machine.
//!
//! Source: no specification; libvirt's `src/vmx` header comments and real files (which this reader is tested against).
//!
//! ```text
//! .encoding = "UTF-8"
//! displayName = "a |22quoted|22 name"        |XX is a byte in hexadecimal
//! scsi0:0.fileName = "disk.vmdk"             keys are compared without letter case, the last of equal keys counts
//! ```

mod machine;

use crate::findings::{At, Findings, quote};
use drylab_block::{Error, Finding, Limits, Result};
pub use machine::{Adapter, Destination, Machine};
use std::collections::BTreeMap;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key as written.
    pub key: String,
    /// Value without quotes and escapes.
    pub value: String,
    /// Line, from 1; 0 for an entry that was not read from a file.
    pub line: u32,
}

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmx {
    /// Entries in order, repeated keys included.
    pub entries: Vec<Entry>,
    /// Lines that could not be read, and repeated keys.
    pub findings: Vec<Finding>,
    /// Place of the entry that counts, by lower-case key.
    last: BTreeMap<String, usize>,
}

impl Vmx {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when larger than `limits.text_bytes_max`, with more entries than `limits.entries_max`, or in
    /// an encoding other than UTF-8, ASCII and the Western single-byte ones; [`Error::Corrupt`] when the bytes contradict
    /// their encoding or no line is an entry.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > limits.text_bytes_max {
            let bound = limits.text_bytes_max;
            return Err(Error::unsupported(format_args!(
                "configuration of {length} bytes is larger than the {bound} allowed"
            )));
        }
        let text = decode(bytes)?;
        let mut findings = Findings::default();
        let mut vmx = Self::default();
        for (line, content) in (1u32..).zip(text.lines()) {
            let content = content.trim();
            // "#!/usr/bin/vmware" and comments.
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let at = At { offset: 0, line };
            let Some((key, value)) = split(content) else {
                findings.error(
                    "VMX-LINE",
                    at,
                    format_args!("{} is not key = \"value\"", quote(content)),
                );
                continue;
            };
            if u32::try_from(vmx.entries.len()).unwrap_or(u32::MAX) >= limits.entries_max {
                return Err(Error::unsupported(format_args!(
                    "configuration has more than {} entries",
                    limits.entries_max
                )));
            }
            if let Some(first) = vmx.entry(key) {
                let message = format!(
                    "{} is set again (first in line {}); the last counts",
                    quote(key),
                    first.line
                );
                findings.warning("VMX-KEY-TWICE", at, message);
            }
            vmx.push(key, &unescape(value), line);
        }
        if vmx.entries.is_empty() {
            return Err(Error::corrupt(
                "no line is key = \"value\": not a VMware configuration",
            ));
        }
        vmx.findings = findings.into_list();
        Ok(vmx)
    }

    fn push(&mut self, key: &str, value: &str, line: u32) {
        self.last
            .insert(key.to_ascii_lowercase(), self.entries.len());
        self.entries.push(Entry {
            key: key.to_owned(),
            value: value.to_owned(),
            line,
        });
    }

    /// Adds an entry behind the others.
    pub fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        self.push(key, &value.to_string(), 0);
    }

    /// Sets the entry that counts, where it stands; behind the others when there is none.
    pub fn replace(&mut self, key: &str, value: impl std::fmt::Display) {
        let place = self.last.get(&key.to_ascii_lowercase()).copied();
        match place.and_then(|place| self.entries.get_mut(place)) {
            Some(entry) => entry.value = value.to_string(),
            None => self.set(key, value),
        }
    }

    /// Takes out all entries of a key.
    pub fn remove(&mut self, key: &str) {
        let entries = std::mem::take(&mut self.entries);
        self.last.clear();
        for entry in entries
            .into_iter()
            .filter(|entry| !entry.key.eq_ignore_ascii_case(key))
        {
            self.last
                .insert(entry.key.to_ascii_lowercase(), self.entries.len());
            self.entries.push(entry);
        }
    }

    /// The entry of a key: without letter case, the last one.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(*self.last.get(&key.to_ascii_lowercase())?)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str())
    }

    /// Whether a key says yes: `true`, `yes`, `on` or `1` without letter case.
    #[must_use]
    pub fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| {
            ["true", "yes", "on", "1"].contains(&value.to_ascii_lowercase().as_str())
        })
    }

    /// The text, in UTF-8 with LF. Reading it back gives the same keys and values.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a key that is empty or has a blank, an equals sign, a quote or a `#` in front.
    pub fn print(&self) -> Result<String> {
        let mut text = String::new();
        for entry in &self.entries {
            let key = &entry.key;
            let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '=' | '"');
            if key.is_empty() || key.starts_with(['#', '\u{feff}']) || key.contains(bad) {
                return Err(Error::unsupported(format_args!(
                    "key {} cannot stand in a configuration",
                    quote(key)
                )));
            }
            text.push_str(&format!("{key} = \"{}\"\n", escape(&entry.value)));
        }
        Ok(text)
    }
}

/// Cuts `key = "value"`; a value without quotes is taken as it is.
fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() || key.contains('"') || key.contains(char::is_whitespace) {
        return None;
    }
    match value.strip_prefix('"') {
        // What follows the closing quote is a comment or nothing.
        Some(rest) => Some((key, rest.split_once('"')?.0)),
        None => Some((key, value)),
    }
}

/// UTF-8, else the single-byte encoding that `.encoding` names.
fn decode(bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()),
        Err(wrong) => {
            let text: String = bytes.iter().copied().map(char::from).collect();
            let label = text
                .lines()
                .filter_map(|line| split(line.trim()))
                .find(|(key, _)| key.eq_ignore_ascii_case(".encoding"));
            let label = label
                .map(|(_, value)| value.to_ascii_lowercase())
                .unwrap_or_default();
            match label.as_str() {
                "windows-1252" | "iso-8859-1" | "iso-8859-15" => Ok(text),
                "" | "utf-8" => Err(Error::corrupt(format_args!(
                    "configuration is not UTF-8 at byte {}",
                    wrong.valid_up_to()
                ))),
                other => Err(Error::unsupported(format_args!(
                    "configuration in encoding {}",
                    quote(other)
                ))),
            }
        }
    }
}

/// `|XX` are bytes; sequences that make no UTF-8 are kept as characters of their own.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| {
            after
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        if *first == b'|'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
            && let Ok(byte) = u8::try_from(high.saturating_mul(16).saturating_add(low))
        {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or(&[]);
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned())
}

/// Quotes, bars, `#` and control characters cannot stand as they are. Line ends of Unicode need no escape: lines end at LF.
fn escape(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '"' | '|' | '#' | '\0'..='\u{1f}' | '\u{7f}' => {
                text.push_str(&format!("|{:02X}", u32::from(c)))
            }
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Adapter, Machine, Vmx};
    use drylab_block::Limits;
    use proptest::prelude::*;

    fn parse(text: &str) -> Vmx {
        Vmx::parse(text.as_bytes(), &Limits::DEFAULT).unwrap()
    }

    #[test]
    fn escapes_letter_case_and_repeated_keys_are_read_as_the_product_does() {
        let vmx = parse(
            "#!/usr/bin/vmware\r\ndisplayName = \"a |22b|22 |7C |C3|A9\"\r\nMemSize=\"512\" # MB\nmemsize = 1024\n",
        );
        assert_eq!(vmx.get("DISPLAYNAME"), Some("a \"b\" | é"));
        assert_eq!(vmx.get("memSize"), Some("1024"));
        assert_eq!(vmx.findings.len(), 1);
        assert!(vmx.findings[0].message.contains("line 3"));
    }

    #[test]
    fn single_byte_text_is_read_when_declared_and_refused_otherwise() {
        let bytes = b".encoding = \"windows-1252\"\ndisplayName = \"\xfc\"\n";
        assert_eq!(
            Vmx::parse(bytes, &Limits::DEFAULT)
                .unwrap()
                .get("displayname"),
            Some("ü")
        );
        assert!(Vmx::parse(b"displayName = \"\xfc\"\n", &Limits::DEFAULT).is_err());
        assert!(
            Vmx::parse(
                b".encoding = \"Shift_JIS\"\na = \"\xfc\"\n",
                &Limits::DEFAULT
            )
            .is_err()
        );
        assert!(Vmx::parse(b"<xml/>", &Limits::DEFAULT).is_err());
    }

    #[test]
    fn a_machine_of_esxi_5_reads_back_with_its_devices() {
        let machine = Machine {
            name: "web \"1\"".to_owned(),
            guest_os: "centos-64".to_owned(),
            memory_mib: 1024,
            cpus: 2,
            uuid: [0x42; 16],
            scsi: Some("lsilogic".to_owned()),
            disks: vec![("scsi0:0".to_owned(), "web.vmdk".to_owned())],
            cd_rom: Some("ide1:0".to_owned()),
            nics: vec![Adapter {
                model: "e1000".to_owned(),
                network: "VM Network".to_owned(),
                mac: [0, 0x0c, 0x29, 1, 2, 3],
                is_static: false,
                pci_slot: 32,
            }],
        };
        let vmx = parse(&machine.configuration().print().unwrap());
        assert_eq!(vmx.findings, []);
        assert_eq!(vmx.get("displayName"), Some("web \"1\""));
        assert_eq!(vmx.get("virtualHW.version"), Some("8"));
        assert_eq!(
            vmx.get("ethernet0.generatedAddress"),
            Some("00:0c:29:01:02:03")
        );
        assert_eq!(vmx.get("uuid.bios").unwrap().len(), 47);
        assert!(vmx.is_true("scsi0.present") && vmx.is_true("scsi0:0.present"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn printing_and_reading_gives_the_same_keys_and_values(
            entries in proptest::collection::vec(("[a-zA-Z0-9.:_]{1,12}", "\\PC{0,20}|[ \"|#=\\t\\r\\n\u{7f}é]{0,8}"), 1..20)
        ) {
            let mut vmx = Vmx::default();
            for (key, value) in &entries {
                vmx.set(key, value);
            }
            let back = parse(&vmx.print().unwrap());
            let pairs = |vmx: &Vmx| vmx.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect::<Vec<_>>();
            prop_assert_eq!(pairs(&back), pairs(&vmx));
        }
    }
}
