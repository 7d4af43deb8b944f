//! The archive around an appliance: an index over a tar file.
//!
//! Source: DSP0243 1.1 §5.3 (OVA package); POSIX.1-1988 ustar and POSIX.1-2001 pax; GNU tar's manual for `L`, base-256.
//!
//! ```text
//! 0    name, 100          124 size, octal 12 (or base-256)     257 "ustar"
//! 100  mode, 8            136 mtime, octal 12                  263 version
//! 108  uid, 8             148 checksum, octal 8                345 prefix, 155
//! 116  gid, 8             156 type flag                        then the bytes, padded to 512
//! ```
//!
//! Nothing is extracted: a member is a [`Window`] of the archive. Two blocks of zeros end the archive; so does its end.

pub(crate) mod read;
pub(crate) mod write;

pub use write::write_ova;

use crate::findings::{At, Findings, quote};
use crate::manifest::Manifest;
use crate::ovf::Envelope;
use drylab_block::{Error, Finding, Limits, ReadAt, Result, Window, read_vec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Size of a header and unit of padding.
pub(crate) const BLOCK: u64 = 512;

/// A regular file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Full name.
    pub name: String,
    /// Offset of its first byte in the archive.
    pub offset: u64,
    /// Bytes the header claims.
    pub size: u64,
    /// Whether the archive ends before that.
    pub truncated: bool,
}

/// An indexed archive.
#[derive(Clone)]
pub struct Ova {
    source: Arc<dyn ReadAt>,
    /// Regular files in order.
    pub members: Vec<Member>,
    /// What is against the specification, truncated, repeated or out of order.
    pub findings: Vec<Finding>,
}

impl std::fmt::Debug for Ova {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ova")
            .field("members", &self.members)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

impl Ova {
    /// Indexes an archive.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the first block is no tar header, [`Error::Unsupported`] for a compressed archive, for
    /// sparse members and for more than `limits.entries_max` headers. Damage further on ends the index with a finding.
    pub fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let mut findings = Findings::default();
        let members = read::index(&*source, limits, &mut findings)?;
        check_members(&members, &mut findings);
        Ok(Self {
            source,
            members,
            findings: findings.into_list(),
        })
    }

    /// The bytes of a member. Of several with one name the first counts, as for a reader that streams.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none of that name, or it ends past the archive.
    pub fn member(&self, name: &str) -> Result<Window> {
        let member = self.members.iter().find(|member| member.name == name);
        let member = member.ok_or_else(|| {
            Error::corrupt(format_args!("the archive has no member {}", quote(name)))
        })?;
        if member.truncated {
            return Err(Error::corrupt(format_args!(
                "member {} of {} bytes at offset {} ends past the archive ({})",
                quote(name),
                member.size,
                member.offset,
                self.source.len()
            )));
        }
        Window::new(Arc::clone(&self.source), member.offset, member.size)
    }

    /// Whether a member of that name is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }

    /// All of a small member, such as the descriptor or the manifest.
    ///
    /// # Errors
    /// As [`Ova::member`]; [`Error::Unsupported`] when larger than `limits.text_bytes_max`.
    pub fn text(&self, name: &str, limits: &Limits) -> Result<Vec<u8>> {
        let window = self.member(name)?;
        if window.len() > limits.text_bytes_max {
            let (length, bound) = (window.len(), limits.text_bytes_max);
            return Err(Error::unsupported(format_args!(
                "member {} of {length} bytes is larger than the {bound} allowed",
                quote(name)
            )));
        }
        read_vec(&window, name, 0, window.len(), limits)
    }

    /// The descriptor: the first `.ovf` whose name does not start with `._` (quirk HQ119: a Mac's shadow of it).
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none.
    pub fn descriptor(&self) -> Result<&Member> {
        let found = self
            .members
            .iter()
            .find(|member| is_descriptor(&member.name));
        found.ok_or_else(|| Error::corrupt("the archive has no .ovf member"))
    }

    /// The manifest, when there is one: named as the descriptor with `.mf`, or the only one.
    #[must_use]
    pub fn manifest(&self) -> Option<&Member> {
        let stem = self
            .descriptor()
            .ok()
            .and_then(|member| member.name.strip_suffix(".ovf"));
        let named = |member: &&Member| {
            stem.is_some_and(|stem| member.name.strip_suffix(".mf") == Some(stem))
        };
        let first = || {
            self.members
                .iter()
                .find(|member| has_extension(&member.name, "mf"))
        };
        self.members.iter().find(named).or_else(first)
    }

    /// Compares the members with the manifest; `None` when the archive has none.
    ///
    /// # Errors
    /// As [`Ova::text`] and [`Manifest::parse`] for the manifest itself, and whatever reading a member finds.
    pub fn check_manifest(&self, limits: &Limits) -> Result<Option<Vec<Finding>>> {
        let Some(member) = self.manifest() else {
            return Ok(None);
        };
        let manifest = Manifest::parse(&self.text(&member.name, limits)?, limits)?;
        let names: Vec<&str> = self
            .members
            .iter()
            .map(|member| member.name.as_str())
            .collect();
        let mut findings = manifest.findings.clone();
        findings.extend(manifest.verify(&names, |name| {
            if self.has(name) {
                self.member(name).map(Some)
            } else {
                Ok(None)
            }
        })?);
        Ok(Some(findings))
    }

    /// Compares the archive with its envelope: files of `References` that are missing, of another size, or out of order,
    /// and members that nothing names.
    #[must_use]
    pub fn check_references(&self, envelope: &Envelope) -> Vec<Finding> {
        let mut findings = Findings::default();
        let mut places: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for (place, member) in self.members.iter().enumerate() {
            places.entry(&member.name).or_insert((place, member.size));
        }
        let mut last = 0usize;
        for file in &envelope.references {
            let at = At {
                offset: 0,
                line: file.line,
            };
            let name = crate::safe_href(&file.href).unwrap_or_else(|_| file.href.clone());
            let chunked = file.chunk_size.is_some_and(|size| size > 0);
            let first = if chunked {
                format!("{name}.000000000")
            } else {
                name.clone()
            };
            let Some((place, size)) = places.get(first.as_str()).copied() else {
                findings.error(
                    "OVA-REFERENCE",
                    at,
                    format_args!("{} is referred to and not in the archive", quote(&first)),
                );
                continue;
            };
            if place < last {
                findings.warning(
                    "OVA-ORDER",
                    at,
                    format_args!(
                        "{} stands before a file that is referred to earlier",
                        quote(&first)
                    ),
                );
            }
            last = last.max(place);
            // Chunks are numbered without gaps; their sizes add up to the file's.
            let size = if chunked {
                chunks(&name, &places)
            } else {
                size
            };
            if let Some(says) = file.size.filter(|says| *says != size) {
                findings.warning(
                    "OVA-SIZE",
                    at,
                    format_args!(
                        "ovf:size of {} is {says}, the archive has {size} bytes",
                        quote(&first)
                    ),
                );
            }
        }
        findings.into_list()
    }
}

/// Bytes of all chunks of a file, up to the first that is missing.
fn chunks(name: &str, places: &BTreeMap<&str, (usize, u64)>) -> u64 {
    let sizes = (0u32..).map_while(|number| places.get(format!("{name}.{number:09}").as_str()));
    sizes.fold(0, |sum, (_, size)| sum.saturating_add(*size))
}

fn has_extension(name: &str, wanted: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extension.eq_ignore_ascii_case(wanted))
}

fn is_descriptor(name: &str) -> bool {
    let file = name.rsplit_once('/').map_or(name, |(_, file)| file);
    has_extension(file, "ovf") && !file.starts_with("._")
}

/// The order of DSP0243 1.1 §5.3: descriptor, manifest, certificate, then the files.
fn check_members(members: &[Member], findings: &mut Findings) {
    let mut names = BTreeMap::new();
    for member in members {
        let at = At {
            offset: member.offset,
            line: 0,
        };
        if let Some(first) = names.insert(member.name.as_str(), member.offset) {
            findings.error(
                "OVA-NAME-TWICE",
                at,
                format_args!(
                    "{} is there twice, first at offset {first}",
                    quote(&member.name)
                ),
            );
        }
        if let Err(refused) = crate::safe_href(&member.name) {
            findings.warning("OVA-NAME", at, refused);
        } else if member.name.contains('/') {
            findings.note(
                "OVA-NAME",
                at,
                format_args!(
                    "{} is in a folder; names of an OVA are flat",
                    quote(&member.name)
                ),
            );
        }
    }
    let descriptors = members
        .iter()
        .filter(|member| is_descriptor(&member.name))
        .count();
    let at = At::default();
    match (members.first(), descriptors) {
        (_, 0) => findings.error("OVA-NO-DESCRIPTOR", at, "the archive has no .ovf member"),
        (Some(first), _) if !is_descriptor(&first.name) => {
            findings.warning(
                "OVA-ORDER",
                at,
                format_args!(
                    "the first member is {}, not the descriptor",
                    quote(&first.name)
                ),
            );
        }
        _ => {}
    }
    if descriptors > 1 {
        findings.error(
            "OVA-DESCRIPTORS",
            at,
            format_args!("the archive has {descriptors} .ovf members"),
        );
    }
    for (wanted, before) in [("mf", 1usize), ("cert", 2)] {
        if let Some(place) = members
            .iter()
            .position(|member| has_extension(&member.name, wanted))
            && place > before
        {
            findings.warning("OVA-ORDER", at, format_args!("the .{wanted} is member {place} counted from 0; it belongs behind the descriptor"));
        }
    }
}
