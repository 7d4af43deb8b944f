//! Manifest of digests.
//!
//! Source: DSP0243 1.1 §7.3 (1.x wants SHA-1, 2.x SHA-256); spelling as VMware's tools write it:
//!
//! ```text
//! SHA1(name.ovf)= 869560d342a5105beed671e747da4115bfde420c
//! SHA256 (name.vmdk) = …            blanks and CRLF are accepted on reading
//! ```
//!
//! The manifest lists neither itself nor the certificate. Some writers put a signature or NUL bytes behind the last
//! line; NULs at the end are padding, everything else that is no digest line is a finding.

use crate::findings::{At, Findings, quote};
use drylab_block::{Error, Extents, Finding, Limits, ReadAt, Result};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Digest algorithms of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// 160 bits: OVF 1.x, and the only one vSphere clients up to 6.0 know (quirk HQ22).
    Sha1,
    /// 256 bits: OVF 2.x and newer tools.
    Sha256,
    /// 512 bits: known to VirtualBox.
    Sha512,
}

impl Algorithm {
    /// The name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    /// Number of hexadecimal digits.
    #[must_use]
    pub fn digits(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn of(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "SHA1" | "SHA-1" => Some(Self::Sha1),
            "SHA256" | "SHA-256" => Some(Self::Sha256),
            "SHA512" | "SHA-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Digest of all bytes of a source, in lower-case hexadecimal.
    ///
    /// # Errors
    /// Whatever reading finds.
    pub fn digest(self, source: &(impl ReadAt + ?Sized)) -> Result<String> {
        match self {
            Self::Sha1 => digest_all::<Sha1>(source),
            Self::Sha256 => digest_all::<Sha256>(source),
            Self::Sha512 => digest_all::<Sha512>(source),
        }
    }
}

fn digest_all<D: Digest>(source: &(impl ReadAt + ?Sized)) -> Result<String> {
    let mut hasher = D::new();
    let mut buffer = vec![0u8; 1 << 18];
    for extent in Extents::new(source) {
        let (mut at, end) = (extent.offset, extent.offset.saturating_add(extent.length));
        while at < end {
            let take = usize::try_from(end.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let Some(chunk) = buffer.get_mut(..take) else {
                break;
            };
            source.read_at(at, chunk)?;
            hasher.update(&*chunk);
            at = at.saturating_add(u64::try_from(take).unwrap_or(u64::MAX));
        }
    }
    let mut hex = String::new();
    for byte in hasher.finalize().iter() {
        write!(hex, "{byte:02x}").map_err(Error::io)?;
    }
    Ok(hex)
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Digest algorithm.
    pub algorithm: Algorithm,
    /// Name of the file, as in `ovf:href`.
    pub name: String,
    /// Digest in lower-case hexadecimal, of the algorithm's length.
    pub digest: String,
    /// Line, from 1.
    pub line: u32,
}

/// A manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Digest lines in order.
    pub entries: Vec<Entry>,
    /// Lines that are no digest, names listed twice.
    pub findings: Vec<Finding>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when larger than `limits.text_bytes_max` or with more lines than `limits.entries_max`;
    /// [`Error::Corrupt`] when the bytes are not UTF-8. A line that is no digest is a finding.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > limits.text_bytes_max {
            let bound = limits.text_bytes_max;
            return Err(Error::unsupported(format_args!(
                "manifest of {length} bytes is larger than the {bound} allowed"
            )));
        }
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|wrong| {
            Error::corrupt(format_args!(
                "manifest is not UTF-8 at byte {}",
                wrong.valid_up_to()
            ))
        })?;
        let text = text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .trim_end_matches('\0');
        let mut findings = Findings::default();
        let mut entries: Vec<Entry> = Vec::new();
        let mut names = BTreeSet::new();
        for (line, content) in (1u32..).zip(text.lines()) {
            if line > limits.entries_max {
                return Err(Error::unsupported(format_args!(
                    "manifest has more than {} lines",
                    limits.entries_max
                )));
            }
            let at = At { offset: 0, line };
            if content.trim().is_empty() {
                continue;
            }
            match parse_line(content, line) {
                Ok(entry) => {
                    if !names.insert(entry.name.clone()) {
                        findings.warning(
                            "MANIFEST-TWICE",
                            at,
                            format_args!("{} is listed twice", quote(&entry.name)),
                        );
                    }
                    entries.push(entry);
                }
                Err(why) => findings.error(
                    "MANIFEST-LINE",
                    at,
                    format_args!("{} is no digest: {why}", quote(content)),
                ),
            }
        }
        Ok(Self {
            entries,
            findings: findings.into_list(),
        })
    }

    /// Compares the digests with the members of a package: one finding per name that is missing, damaged or differs, and
    /// per member that is not listed. `open` gives the bytes of a name.
    ///
    /// # Errors
    /// Whatever reading a member finds.
    pub fn verify<S: ReadAt>(
        &self,
        members: &[&str],
        open: impl Fn(&str) -> Result<Option<S>>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Findings::default();
        for entry in &self.entries {
            let at = At {
                offset: 0,
                line: entry.line,
            };
            let name = quote(&entry.name);
            let source = match open(&entry.name) {
                Ok(Some(source)) => source,
                Ok(None) => {
                    findings.error(
                        "MANIFEST-MISSING",
                        at,
                        format_args!("{name} is listed and not there"),
                    );
                    continue;
                }
                Err(wrong @ Error::Corrupt(_)) => {
                    findings.error("MANIFEST-UNREADABLE", at, wrong);
                    continue;
                }
                Err(wrong) => return Err(wrong),
            };
            let found = entry
                .algorithm
                .digest(&source)
                .map_err(|wrong| wrong.within(&name))?;
            if found != entry.digest {
                let (algorithm, says) = (entry.algorithm.name(), &entry.digest);
                findings.error(
                    "MANIFEST-DIGEST",
                    at,
                    format_args!("{algorithm} of {name} is {found}, the manifest says {says}"),
                );
            }
        }
        let listed: BTreeSet<&str> = self
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        for name in members
            .iter()
            .filter(|name| !listed.contains(*name) && !is_unlisted(name))
        {
            findings.note(
                "MANIFEST-UNLISTED",
                At::default(),
                format_args!("{} is not listed in the manifest", quote(name)),
            );
        }
        Ok(findings.into_list())
    }

    /// The text in VMware's spelling: LF, no blank before the equals sign, one behind.
    #[must_use]
    pub fn print(&self) -> String {
        self.entries
            .iter()
            .map(|entry| {
                format!(
                    "{}({})= {}\n",
                    entry.algorithm.name(),
                    entry.name,
                    entry.digest
                )
            })
            .collect()
    }

    /// Digests of `files` in order, as an exporter makes them.
    ///
    /// # Errors
    /// Whatever reading finds; [`Error::Unsupported`] for a name with a line end.
    pub fn of(algorithm: Algorithm, files: &[(&str, &dyn ReadAt)]) -> Result<Self> {
        let mut entries = Vec::new();
        for (line, (name, source)) in (1u32..).zip(files) {
            if name.contains(['\n', '\r']) || name.trim() != *name || name.is_empty() {
                return Err(Error::unsupported(format_args!(
                    "name {} cannot stand in a manifest",
                    quote(name)
                )));
            }
            entries.push(Entry {
                algorithm,
                name: (*name).to_owned(),
                digest: algorithm.digest(*source)?,
                line,
            });
        }
        Ok(Self {
            entries,
            findings: Vec::new(),
        })
    }
}

/// Manifest and certificate do not list themselves.
fn is_unlisted(name: &str) -> bool {
    let extension = name
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension)
        .to_ascii_lowercase();
    matches!(extension.as_str(), "mf" | "cert")
}

/// `ALG(name)= hex`. The name may hold brackets: it ends at the last one before the equals sign of the digest.
fn parse_line(line: &str, number: u32) -> Result<Entry, &'static str> {
    let (algorithm, rest) = line.split_once('(').ok_or("no opening bracket")?;
    let algorithm = Algorithm::of(algorithm.trim()).ok_or("unknown algorithm")?;
    let (name, digest) = rest.rsplit_once('=').ok_or("no equals sign")?;
    let name = name
        .trim_end()
        .strip_suffix(')')
        .ok_or("no closing bracket before the equals sign")?
        .trim();
    if name.is_empty() {
        return Err("the name is empty");
    }
    let digest = digest.trim().to_ascii_lowercase();
    if digest.len() != algorithm.digits() || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("the digest has the wrong length or is not hexadecimal");
    }
    Ok(Entry {
        algorithm,
        name: name.to_owned(),
        digest,
        line: number,
    })
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Manifest};
    use drylab_block::{Limits, ReadAt};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn parse(text: &str) -> Manifest {
        Manifest::parse(text.as_bytes(), &Limits::DEFAULT).unwrap()
    }

    const EMPTY: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    #[test]
    fn blanks_line_ends_letter_case_and_brackets_in_names_are_accepted() {
        let text = format!(
            "\u{feff}SHA1(a b(1).ovf)= {EMPTY}\r\n\r\nsha1 ( x=y.vmdk ) = {}\r\n\0\0\0",
            EMPTY.to_uppercase()
        );
        let manifest = parse(&text);
        assert_eq!(manifest.findings, []);
        let names: Vec<_> = manifest
            .entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.line))
            .collect();
        assert_eq!(names, [("a b(1).ovf", 1), ("x=y.vmdk", 3)]);
        assert_eq!(
            manifest.print(),
            format!("SHA1(a b(1).ovf)= {EMPTY}\nSHA1(x=y.vmdk)= {EMPTY}\n")
        );
    }

    #[test]
    fn lines_that_are_no_digest_are_findings_with_their_line() {
        for bad in [
            "SHA1(a)= 00",
            "MD5(a)= d41d8cd98f00b204e9800998ecf8427e",
            "SHA1 a = x",
            "SHA1(a",
            "SHA256(a)= da39",
            "SHA1()= ",
        ] {
            let manifest = parse(&format!("\n{bad}\n"));
            assert_eq!(
                (manifest.entries.len(), manifest.findings.len()),
                (0, 1),
                "{bad}"
            );
            assert!(manifest.findings[0].message.starts_with("line 2:"), "{bad}");
        }
        assert_eq!(
            parse(&format!("SHA1(a)= {EMPTY}\nSHA1(a)= {EMPTY}")).findings[0].code,
            "MANIFEST-TWICE"
        );
    }

    fn verify(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>) -> Vec<&'static str> {
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let found = manifest
            .verify(&names, |name| Ok(files.get(name).cloned()))
            .unwrap();
        found.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn missing_and_unlisted_names_are_told_apart() {
        let manifest = parse(&format!("SHA1(a.ovf)= {EMPTY}\nSHA1(gone.vmdk)= {EMPTY}\n"));
        let files =
            ["a.ovf", "a.mf", "a.cert", "extra.vmdk"].map(|name| (name.to_owned(), Vec::new()));
        assert_eq!(
            verify(&manifest, &files.into()),
            ["MANIFEST-MISSING", "MANIFEST-UNLISTED"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn flipping_any_bit_of_a_listed_file_is_noticed(
            mut bytes in proptest::collection::vec(any::<u8>(), 1..300_000), flip: prop::sample::Index, bit in 0u32..8, wide: bool
        ) {
            let algorithm = if wide { Algorithm::Sha256 } else { Algorithm::Sha1 };
            let manifest = Manifest::of(algorithm, &[("disk.vmdk", &bytes as &dyn ReadAt)]).unwrap();
            let manifest = parse(&manifest.print());
            let mut files = BTreeMap::from([("disk.vmdk".to_owned(), bytes.clone())]);
            prop_assert_eq!(verify(&manifest, &files), Vec::<&str>::new());
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            files.insert("disk.vmdk".to_owned(), bytes);
            prop_assert_eq!(verify(&manifest, &files), ["MANIFEST-DIGEST"]);
        }

        #[test]
        fn flipping_a_digit_of_the_manifest_is_noticed(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..40) {
            let manifest = Manifest::of(Algorithm::Sha1, &[("d", &bytes as &dyn ReadAt)]).unwrap();
            let mut text = manifest.print().into_bytes();
            let at = text.len() - 41 + at;
            text[at] = if text[at] == b'0' { b'1' } else { b'0' };
            let manifest = Manifest::parse(&text, &Limits::DEFAULT).unwrap();
            prop_assert_eq!(verify(&manifest, &BTreeMap::from([("d".to_owned(), bytes)])), ["MANIFEST-DIGEST"]);
        }

        #[test]
        fn a_printed_manifest_reads_back_the_same(names in proptest::collection::vec("[a-zA-Z0-9._()= -]{0,20}[a-z]", 0..6)) {
            let content = b"content".to_vec();
            let files: Vec<_> = names.iter().map(|name| (name.trim(), &content as &dyn ReadAt)).collect();
            let manifest = Manifest::of(Algorithm::Sha256, &files).unwrap();
            prop_assert_eq!(parse(&manifest.print()).entries, manifest.entries);
        }
    }
}
