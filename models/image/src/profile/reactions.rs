//! What products do with files that break rules, as data: one row for a product and a code, with its evidence.
//!
//! A product that opens a file and gives the guest its bytes all the same has no row; nor has one of which nothing is
//! known. Which of a VHD's two sizes a product believes is no row either: [`Profile::vhd_size`](super::Profile) says it.

use super::Profile;
use crate::finding::{Finding, Findings};

/// What a product does with a file that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Does {
    /// It does not take the file, or cannot read all of it.
    Refuses,
    /// It takes the file without a word, and something of it is not what it was.
    Misreads,
}

impl Does {
    /// `refuses` or `misreads`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuses => "refuses",
            Self::Misreads => "misreads",
        }
    }
}

/// Why a [`Reaction`] is so, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Seen of the program itself, by name and version.
    Measured(&'static str),
    /// Read in a program's source, by repository and file.
    Source(&'static str),
    /// Said by a document.
    Document(&'static str),
    /// Told by a user.
    Issue(&'static str),
    /// Nobody was seen saying it; what speaks for it.
    Belief(&'static str),
}

impl Evidence {
    /// `measured`, `source`, `document`, `issue` or `belief`.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Source(_) => "source",
            Self::Document(_) => "document",
            Self::Issue(_) => "issue",
            Self::Belief(_) => "belief",
        }
    }

    /// Where it is from; of a belief, what speaks for it.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Measured(source)
            | Self::Source(source)
            | Self::Document(source)
            | Self::Issue(source)
            | Self::Belief(source) => source,
        }
    }
}

/// What one product does with files that break one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// Code of the [`Rule`](crate::Rule).
    pub code: &'static str,
    /// What comes of it.
    pub does: Does,
    /// The same in words.
    pub how: &'static str,
    /// Why that is so.
    pub evidence: Evidence,
    /// Which places it is of.
    pub only: Only,
}

/// Which of the places that break a rule a product minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Only {
    /// All.
    All,
    /// The one at this offset of its file.
    At(u64),
    /// Those of images of this kind, in the format's own words.
    Kind(&'static str),
    /// Those of images that do not break the rule with this code: otherwise the product may look at a sound copy.
    Unless(&'static str),
}

impl Only {
    fn holds(self, subformat: &str, found: &Findings, finding: &Finding) -> bool {
        match self {
            Self::All => true,
            Self::At(offset) => offset == finding.offset,
            Self::Kind(kind) => kind == subformat,
            Self::Unless(code) => !found.counts().contains_key(code),
        }
    }
}

impl Reaction {
    const fn refuses(code: &'static str, how: &'static str, evidence: Evidence) -> Self {
        let (does, only) = (Does::Refuses, Only::All);
        Self {
            code,
            does,
            how,
            evidence,
            only,
        }
    }

    const fn misreads(code: &'static str, how: &'static str, evidence: Evidence) -> Self {
        let (does, only) = (Does::Misreads, Only::All);
        Self {
            code,
            does,
            how,
            evidence,
            only,
        }
    }

    const fn unless(self, code: &'static str) -> Self {
        let only = Only::Unless(code);
        Self { only, ..self }
    }

    const fn of(self, kind: &'static str) -> Self {
        let only = Only::Kind(kind);
        Self { only, ..self }
    }
}

impl Profile {
    /// What the product does with an image of this kind: one row for each rule that it minds, with the first place that
    /// breaks it, in the order they were found. How many there are say [`Findings::counts`].
    #[must_use]
    pub fn reactions<'f>(
        &self,
        subformat: &str,
        found: &'f Findings,
    ) -> Vec<(&'f Finding, &'static Reaction)> {
        let mut rows: Vec<(&Finding, &'static Reaction)> = Vec::new();
        for finding in found.list() {
            let is_there = rows.iter().any(|(known, _)| known.rule == finding.rule);
            let mut known = self.reactions.iter();
            let row = known.find(|row| {
                row.code == finding.rule.code && row.only.holds(subformat, found, finding)
            });
            if let Some(row) = row.filter(|_| !is_there) {
                rows.push((finding, row));
            }
        }
        rows
    }

    /// Whether anything is known of files of this format that break rules.
    #[must_use]
    pub fn minds(&self, format: crate::Format) -> bool {
        let of = |code: &str| {
            code.split_once('-')
                .is_some_and(|(name, _)| name.eq_ignore_ascii_case(format.name()))
        };
        self.reactions.iter().any(|reaction| of(reaction.code))
    }
}

const DISC_UTILS_VHD: Evidence = Evidence::Source(
    "DiscUtils, with which XenCenter reads images: DiscUtils.Vhd/DynamicStream.cs",
);
const DISC_UTILS_FILE: Evidence = Evidence::Source(
    "DiscUtils, with which XenCenter reads images: DiscUtils.Vhd/DiskImageFile.cs",
);
const FOOTER_DECIDES: Evidence =
    Evidence::Belief("the length of an uploaded blob and the size in its footer are compared");

/// Microsoft Azure.
pub(super) const AZURE: &[Reaction] = &[
    Reaction::refuses(
        "VHD-FIXED-CUT",
        "the blob is shorter than its footer says",
        FOOTER_DECIDES,
    ),
    Reaction::refuses(
        "VHD-FIXED-LENGTH",
        "the blob is not as long as its footer says",
        FOOTER_DECIDES,
    ),
];

const QEMU_STREAM: Evidence = Evidence::Issue(
    "flatcar/scripts PR 540: an ESX host refuses the upload of qemu-img's stream, which has no end, and takes open-vmdk's",
);
const GOES_BY_MARKERS: Evidence =
    Evidence::Belief("the importer reads front to back: hostd's log calls it a stream reader");

/// VMware ESXi, which reads a disk of an OVF package as a stream.
pub(super) const ESXI: &[Reaction] = &[
    Reaction::refuses(
        "VMDK-NO-END-OF-STREAM",
        "the upload fails where the stream should end",
        QEMU_STREAM,
    ),
    Reaction::refuses(
        "VMDK-STREAM-CUT",
        "the upload fails where the file ends",
        GOES_BY_MARKERS,
    ),
    Reaction::refuses(
        "VMDK-GRAIN-PACKED",
        "the upload fails at the grain that cannot be unpacked",
        GOES_BY_MARKERS,
    ),
    Reaction::refuses(
        "VMDK-STREAM-MARKER",
        "the upload fails where a marker should stand",
        GOES_BY_MARKERS,
    ),
    Reaction::misreads(
        "VMDK-TRAILING-BYTES",
        "the stream is read front to back and its end is met; the digest is taken up to there, and is not the manifest's",
        Evidence::Belief(
            "coreos-assembler PR 1156, home-assistant/operating-system 2121 and others: digests of streams with such \
             bytes do not match, and nobody found why",
        ),
    ),
];

/// Hyper-V on Windows Server 2008 R2.
pub(super) const HYPER_V_2008_R2: &[Reaction] = &[
    Reaction::refuses(
        "VHD-HEADER-CHECKSUM",
        "the file is taken to be corrupt",
        Evidence::Document(
            "VHD specification 1.0, Dynamic Disk Header Format: \"If the checksum verification fails the file should be \
             assumed to be corrupt\"",
        ),
    ),
    Reaction::refuses(
        "VHD-HEADER-DATA-OFFSET",
        "all 64 bits are expected to be set",
        Evidence::Belief("a comment of block/vpc.c of QEMU; DQ430"),
    ),
];

/// Citrix XenServer, into which XenCenter reads images by DiscUtils, and which keeps them as VHD.
pub(super) const XEN_SERVER: &[Reaction] = &[
    Reaction::misreads(
        "VHD-BITMAP-CLEAR",
        "sectors whose bit is clear become zeros",
        DISC_UTILS_VHD,
    ),
    Reaction::refuses(
        "VHD-HEADER-CHECKSUM",
        "the import ends with an invalid dynamic disk header",
        DISC_UTILS_FILE,
    ),
    Reaction::refuses(
        "VHD-BAT-SHORT",
        "the import ends behind the last entry of the table",
        DISC_UTILS_VHD,
    ),
    Reaction::refuses(
        "VHD-BLOCK-LOST",
        "the import ends at the block that cannot be read",
        DISC_UTILS_VHD,
    ),
    Reaction::refuses(
        "VHD-BLOCK-CUT",
        "the import ends at the block that cannot be read",
        DISC_UTILS_VHD,
    ),
];

const QEMU: Evidence = Evidence::Measured("qemu-img 10.0.2, compare with the disk as it was made");
const QEMU_TABLE: Evidence =
    Evidence::Measured("qemu-img 10.0.2, check and convert: the table under Damage");
const SPARSE: &str = "monolithicSparse";
const STREAM: &str = "streamOptimized";
const NO_FOOTER: &str = "the file is not opened: the footer is not where it is looked for";
/// Of streams that need no footer, as their directory is in front.
const NOT_A_STREAM: &str = "VMDK-NOT-A-STREAM";

/// libvirt with QEMU: measured with qemu-img, which reads images with QEMU's own code.
pub(super) const LIBVIRT: &[Reaction] = &[
    Reaction::misreads("VMDK-GRAIN-RANGE", "the grain reads as zeros", QEMU).of(SPARSE),
    Reaction::refuses("VMDK-GRAIN-RANGE", "reading the grain fails", QEMU).of(STREAM),
    Reaction::misreads(
        "VMDK-GRAIN-IN-METADATA",
        "tables are read for the grain",
        QEMU,
    )
    .of(SPARSE),
    Reaction::refuses("VMDK-GRAIN-IN-METADATA", "reading the grain fails", QEMU).of(STREAM),
    Reaction::misreads("VMDK-GRAIN-ALIAS", "both places read the same bytes", QEMU),
    Reaction::misreads(
        "VMDK-GRAIN-OVERLAP",
        "both places read some of the same bytes",
        QEMU,
    ),
    Reaction::refuses("VMDK-GRAIN-PACKED", "reading the grain fails", QEMU),
    Reaction::misreads(
        "VMDK-GD-RANGE",
        "the redundant directory is not used, and grains read as zeros",
        QEMU,
    ),
    Reaction::misreads("VMDK-GT-LOST", "grains of the table read as zeros", QEMU),
    Reaction::misreads("VMDK-GT-OVERLAP", "other grains are read", QEMU),
    Reaction::refuses("VMDK-OVERHEAD-CUT", "the file is not opened", QEMU),
    Reaction::refuses("VMDK-TRAILING-BYTES", NO_FOOTER, QEMU).unless(NOT_A_STREAM),
    Reaction::refuses("VMDK-NO-END-OF-STREAM", NO_FOOTER, QEMU).unless(NOT_A_STREAM),
    Reaction::refuses("VHD-BAT-SHORT", "the file is not opened", QEMU),
    Reaction::refuses("VHD-BLOCK-LOST", "the file is not opened", QEMU),
    Reaction::misreads(
        "VHD-BLOCK-IN-METADATA",
        "headers or tables are read for the block",
        QEMU,
    ),
    Reaction::misreads(
        "VHD-BLOCKS-OVERLAP",
        "both places read the same bytes",
        QEMU,
    ),
    Reaction::refuses("VHD-FOOTER-COPY", "the file is not opened", QEMU),
    Reaction::refuses("VHDX-NO-HEADER", "the file is not opened", QEMU_TABLE),
    Reaction {
        only: Only::At(0x30000),
        ..Reaction::refuses(
            "VHDX-REGION-TABLE",
            "the copy of the region table is not looked at",
            QEMU,
        )
    },
    Reaction::refuses("VHDX-BLOCK-LOST", "the file is not opened", QEMU),
    Reaction::refuses("VHDX-BLOCK-IN-STRUCTURE", "the file is not opened", QEMU),
    Reaction::misreads("VHDX-BLOCK-SHARED", "both places read the same bytes", QEMU),
    Reaction::misreads("VDI-BLOCK-LOST", "the block reads as zeros", QEMU),
    Reaction::misreads(
        "VDI-BLOCKS-OVERLAP",
        "both places read the same bytes",
        QEMU,
    ),
    Reaction::refuses("VDI-LINKAGE", "the file is not opened", QEMU),
    Reaction::refuses("VDI-PARENT-MODIFY", "the file is not opened", QEMU),
    Reaction::refuses("VDI-VERSION", "the file is not opened", QEMU),
    Reaction::refuses(
        "QCOW2-CORRUPT",
        "the image is not opened for writing",
        Evidence::Measured("qemu-io 10.0.2: \"Image is corrupt; cannot be opened read/write\""),
    ),
    Reaction::refuses("QCOW2-EXTENSION", "the image is not opened", QEMU),
    Reaction::refuses("QCOW2-REFCOUNT-ALIGNMENT", "the image is not opened", QEMU),
    Reaction::refuses("QCOW2-REFCOUNT-ORDER", "the image is not opened", QEMU),
    Reaction::refuses("QCOW2-ALIGNMENT", "reading the cluster fails", QEMU),
    Reaction::misreads("QCOW2-BEYOND-END", "the cluster reads as zeros", QEMU),
    Reaction::refuses("QCOW2-ZERO-IN-V2", "reading the cluster fails", QEMU),
    Reaction::refuses("QCOW2-SUBCLUSTERS", "reading the cluster fails", QEMU),
    Reaction::refuses("QCOW2-PACKED", "reading the cluster fails", QEMU),
    Reaction::misreads("QED-CUT", "what the file lost reads as zeros", QEMU),
];

const QEMU_0_12: Evidence = Evidence::Measured(
    "qemu-img 0.12.1 of CentOS 6.3, by the model of it that is held against tables of what it did",
);
const TWIN: &str = "VMDK-GT-DIFFERS";

/// libvirt with the QEMU 0.12 of CentOS 6. It checks less than later ones, what stands behind the end of a file is zeros to
/// it, and of a VMDK it looks at the redundant tables.
pub(super) const LIBVIRT_CENTOS_6: &[Reaction] = &[
    Reaction::misreads("VMDK-GRAIN-RANGE", "the grain reads as zeros", QEMU_0_12).unless(TWIN),
    Reaction::misreads(
        "VMDK-GRAIN-IN-METADATA",
        "tables are read for the grain",
        QEMU_0_12,
    )
    .unless(TWIN),
    Reaction::misreads(
        "VMDK-GRAIN-ALIAS",
        "both places read the same bytes",
        QEMU_0_12,
    )
    .unless(TWIN),
    Reaction::misreads(
        "VHD-BAT-SHORT",
        "what lies behind the table reads as zeros",
        QEMU_0_12,
    ),
    Reaction::misreads("VHD-BLOCK-LOST", "the block reads as zeros", QEMU_0_12),
    Reaction::misreads(
        "VHD-BLOCK-IN-METADATA",
        "headers or tables are read for the block",
        QEMU_0_12,
    ),
    Reaction::misreads(
        "VHD-BLOCKS-OVERLAP",
        "both places read the same bytes",
        QEMU_0_12,
    ),
    Reaction::misreads("QCOW2-ALIGNMENT", "other bytes are read", QEMU_0_12),
    Reaction::misreads("QCOW2-BEYOND-END", "the cluster reads as zeros", QEMU_0_12),
    Reaction::misreads("QCOW2-ZERO-IN-V2", "other bytes are read", QEMU_0_12),
];
