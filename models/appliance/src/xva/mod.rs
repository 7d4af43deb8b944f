//! XVA: the export of XenServer, a tar with the records of a machine and its disks in blocks.
//!
//! Source: no specification. xapi's public data model (names of classes and fields), its documentation of import and
//! export, the XML-RPC specification; behaviour of its exporter and importer as the lab's fact tables tell it.
//!
//! ```text
//! ova.xml                     first: XML-RPC struct { version, objects: [ { class, id, snapshot } ] }
//! Ref:4/00000000              first block of the VDI with id Ref:4, 1 MiB unless the disk is smaller
//! Ref:4/00000000.checksum     SHA-1 of it, 40 hexadecimal digits
//! Ref:4/00000007              blocks of zeros are left out, except the first and the last
//! Ref:4/00000007.checksum
//! ```
//!
//! The number of a block is not its place (quirk HQ133): a block of no bytes, sent to keep a connection alive, uses up a
//! number. Place = sum of the lengths before + numbers left out × length of the first block (quirk HQ134). The size of a
//! disk is that of its record. Nothing is extracted: [`Disk`] reads where the blocks stand, over an index of 32 bytes a
//! block. Archives compressed as a whole, XVA version 1 and `.xxhash` checksums are not read.

mod appliance;
mod blocks;
mod machine;
mod value;
mod write;

use crate::findings::{At, Findings, quote};
use crate::ova::Member;
use crate::ova::read::{Words, walk};
pub use appliance::{Appliance, Object};
pub use blocks::Disk;
use blocks::{Block, Indexer};
use drylab_block::{Error, Finding, Limits, ReadAt, Result, Window, read_vec};
pub use machine::{Drive, Machine, Nic, Pairs, VirtualDisk};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::sync::Arc;
pub use value::{Type, Value};
pub use write::write;

/// Size of a block that XenServer writes, in bytes.
pub const BLOCK: u64 = 1 << 20;
/// Name of the descriptor.
pub const DESCRIPTOR: &str = "ova.xml";
/// A reference to nothing.
pub const NULL: &str = "OpaqueRef:NULL";

const CHECKSUM: &str = ".checksum";
/// The checksums of later versions.
const XXHASH: &str = ".xxhash";

const WORDS: Words = Words {
    what: "only the plain tar inside is read",
    header: "XVA-HEADER",
    zero_block: "XVA-LONE-ZERO-BLOCK",
    end: "XVA-END",
    pax: "XVA-PAX",
    truncated: "XVA-TRUNCATED",
    kind: "XVA-MEMBER-KIND",
};

/// An indexed archive.
#[derive(Clone, Debug)]
pub struct Xva {
    /// The records.
    pub appliance: Appliance,
    /// Disks that have blocks, in the order of their VDI ids.
    pub disks: Vec<Disk>,
    /// What is against the form, truncated or missing; those of the records are in [`Appliance::findings`].
    pub findings: Vec<Finding>,
}

impl Xva {
    /// Indexes an archive.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where XenServer's importer says "Invalid XVA file": the first member is not `ova.xml`, blocks
    /// are out of order, belong to no VDI or pass its size; [`Error::Unsupported`] for compressed archives, version 1,
    /// disks over `limits.disk_bytes_max` and an index over `limits.table_bytes_max`.
    pub fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let appliance = descriptor(&source, limits)?;
        let sizes = sizes(&appliance, limits)?;
        let mut findings = Findings::default();
        let mut indexer = Indexer::new(&sizes, limits);
        let mut is_first = true;
        let mut take = |member: Member, findings: &mut Findings| {
            if std::mem::take(&mut is_first) {
                return Ok(());
            }
            indexer.take(&member, findings)
        };
        walk(&*source, &WORDS, u32::MAX, &mut findings, &mut take)?;
        let end = At {
            offset: source.len(),
            line: 0,
        };
        indexer.without_checksum(end, &mut findings);
        let mut disks = Vec::new();
        for (id, blocks) in indexer.disks {
            let size = sizes.get(&id).copied().unwrap_or(0);
            if blocks.end < size {
                let (id, end) = (quote(&id), blocks.end);
                let message = format!("blocks of {id} end at {end}, the disk has {size} bytes");
                findings.error("XVA-SHORT", At::default(), message);
            }
            disks.push(Disk {
                source: Arc::clone(&source),
                id: id.into(),
                size,
                blocks: blocks.list.into(),
            });
        }
        missing(&appliance, &disks, &mut findings);
        Ok(Self {
            appliance,
            disks,
            findings: findings.into_list(),
        })
    }

    /// The disk with this VDI id, ready to be read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the archive has no block of it.
    pub fn disk(&self, id: &str) -> Result<&Disk> {
        let found = self.disks.iter().find(|disk| disk.id() == id);
        found.ok_or_else(|| {
            Error::corrupt(format_args!("the archive has no blocks of {}", quote(id)))
        })
    }

    /// Compares the blocks of all disks with their checksums. XenServer destroys the machine on a mismatch.
    ///
    /// # Errors
    /// Whatever reading finds.
    pub fn verify(&self) -> Result<Vec<Finding>> {
        let mut findings = Findings::default();
        for disk in &self.disks {
            for block in disk.blocks.iter().filter(|block| block.checksum > 0) {
                disk.check(block)?;
                let found = sha1_of(&disk.source, block)?;
                let mut claimed = [0u8; 40];
                disk.source.read_at(block.checksum, &mut claimed)?;
                if !claimed.eq_ignore_ascii_case(found.as_bytes()) {
                    let at = At {
                        offset: block.at,
                        line: 0,
                    };
                    let claimed = quote(&String::from_utf8_lossy(&claimed));
                    let (id, place) = (quote(disk.id()), block.disk);
                    let message = format!(
                        "block of {id} at {place} has SHA-1 {found}, its checksum is {claimed}"
                    );
                    findings.error("XVA-CHECKSUM-WRONG", at, message);
                }
            }
        }
        Ok(findings.into_list())
    }
}

/// Whether the first member of a tar has the name of an XVA's descriptor.
///
/// # Errors
/// What reading finds; another first member, or none, is no error.
pub fn is_xva(source: &Arc<dyn ReadAt>) -> Result<bool> {
    Ok(first_member(source)?.is_some_and(|member| is_descriptor(&member)))
}

/// Whether an archive holds records of XVA version 1 (quirk GQ141).
#[must_use]
pub fn is_version_1(source: &Arc<dyn ReadAt>, limits: &Limits) -> bool {
    records(source, limits).is_ok_and(|bytes| Appliance::is_version_1(&bytes, limits))
}

fn is_descriptor(member: &Member) -> bool {
    member.name.strip_prefix("./").unwrap_or(&member.name) == DESCRIPTOR
}

/// The first member, where there is one.
fn first_member(source: &Arc<dyn ReadAt>) -> Result<Option<Member>> {
    let mut first = None;
    // The walk ends at the first file: the rest is looked at when the sizes of the disks are known.
    let stop = "the first member is found";
    let mut take = |member: Member, _: &mut Findings| {
        first = Some(member);
        Err(Error::io(stop))
    };
    let walked = walk(
        &**source,
        &WORDS,
        u32::MAX,
        &mut Findings::default(),
        &mut take,
    );
    if first.is_none() {
        walked?;
    }
    Ok(first)
}

/// The records, out of the first member.
fn descriptor(source: &Arc<dyn ReadAt>, limits: &Limits) -> Result<Appliance> {
    let text = records(source, limits)?;
    Appliance::parse(&text, limits).map_err(|wrong| wrong.within(DESCRIPTOR))
}

/// The bytes of the first member.
fn records(source: &Arc<dyn ReadAt>, limits: &Limits) -> Result<Vec<u8>> {
    let member =
        first_member(source)?.ok_or_else(|| Error::corrupt("the archive has no ova.xml"))?;
    if !is_descriptor(&member) {
        let name = member.name.strip_prefix("./").unwrap_or(&member.name);
        return Err(Error::corrupt(format_args!(
            "the first member is {}, not ova.xml",
            quote(name)
        )));
    }
    let window = Window::new(Arc::clone(source), member.offset, member.size)
        .map_err(|wrong| wrong.within(DESCRIPTOR))?;
    let mut texts = *limits;
    texts.table_bytes_max = limits.text_bytes_max;
    read_vec(&window, DESCRIPTOR, 0, member.size, &texts)
}

/// Sizes of all VDIs by id.
fn sizes(appliance: &Appliance, limits: &Limits) -> Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for vdi in appliance.of_class("VDI") {
        let size: u64 = vdi.number("virtual_size")?;
        if size > limits.disk_bytes_max {
            let (id, bound) = (quote(&vdi.id), limits.disk_bytes_max);
            return Err(Error::unsupported(format_args!(
                "disk {id} of {size} bytes is larger than the {bound} allowed"
            )));
        }
        sizes.entry(vdi.id.clone()).or_insert(size);
    }
    Ok(sizes)
}

/// Notes the disks of drives that have no blocks.
fn missing(appliance: &Appliance, disks: &[Disk], findings: &mut Findings) {
    for drive in appliance
        .of_class("VBD")
        .filter(|drive| drive.text("type") == "Disk")
    {
        let id = drive.text("VDI");
        let is_there = disks.binary_search_by(|disk| disk.id().cmp(id)).is_ok();
        if id != NULL && !id.is_empty() && !is_there {
            let message = format!(
                "drive {} has disk {}, of which there is no block",
                quote(&drive.id),
                quote(id)
            );
            findings.error("XVA-NO-BLOCKS", At::default(), message);
        }
    }
}

fn sha1_of(source: &Arc<dyn ReadAt>, block: &Block) -> Result<String> {
    let mut digest = Sha1::new();
    let mut buffer = vec![0u8; 1 << 16];
    let (mut at, mut left) = (block.at, block.length);
    while left > 0 {
        let take = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..take).unwrap_or(&mut []);
        source.read_at(at, part)?;
        digest.update(&*part);
        let done = u64::try_from(take).unwrap_or(u64::MAX);
        (at, left) = (at.saturating_add(done), left.saturating_sub(done));
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
