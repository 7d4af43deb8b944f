//! What a file is, told from its bytes and never from its name.

use crate::qcow2;
use crate::qed;
use crate::vdi;
use crate::vhd;
use crate::vhdx;
use crate::vmdk::{self, Descriptor, Header};
use drylab_block::{Error, Limits, ReadAt, Result, be_u32, le_u32, read_vec};

/// A container of disks that this crate reads.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// VMware's virtual disk: a sparse extent, or the descriptor of extents beside it.
    Vmdk,
    /// QEMU's copy-on-write image, version 2 or 3.
    Qcow2,
    /// QEMU's enhanced disk, a legacy format.
    Qed,
    /// Microsoft's virtual hard disk of before Windows Server 2012.
    Vhd,
    /// Microsoft's virtual hard disk since Windows Server 2012.
    Vhdx,
    /// VirtualBox' disk image.
    Vdi,
}

impl Format {
    /// The name users type and read: `raw`, `vmdk`, `qcow2`, `qed`, `vhd`, `vhdx`, `vdi`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What [`detect`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The format.
    pub format: Format,
    /// `createType` of a VMDK, `v2` or `v3` of a qcow2, `fixed`, `dynamic` or `differencing` of a VHD, VHDX or VDI, empty
    /// for raw.
    pub subformat: String,
}

/// Refused with what to do.
const PARALLELS: &str = "Parallels (convert it with prl_convert or qemu-img -f parallels)";
const LUKS: &str =
    "LUKS (encrypted; convert it with qemu-img and the key, or open it with cryptsetup)";

const UDIF: &str = "Apple UDIF (.dmg; convert it with hdiutil or qemu-img -f dmg)";

/// Magics at fixed places of the head, of formats that are known but not read.
const KNOWN_HEADS: &[(usize, &[u8], &str)] = &[
    (0, b"WithoutFreeSpace", PARALLELS),
    (0, b"WithouFreSpacExt", PARALLELS),
    (0, b"LUKS\xba\xbe", LUKS),
    (0, b"EVF\x09\x0d\x0a\xff\0", "EWF (EnCase)"),
    (0, b"EVF2\x0d\x0a\x81\0", "EWF (EnCase, version 2)"),
    (0, b"MSWIM\0\0\0", "WIM"),
    (0, b"\x1f\x8b\x08", "gzip, to be unpacked first"),
    (4, b"1AY&SY", "bzip2, to be unpacked first"),
    (0, b"\xfd7zXZ\0", "xz, to be unpacked first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd, to be unpacked first"),
];

/// Bytes looked at in front; the embedded descriptor of a VMDK is read apart.
const HEAD: u64 = 4096;
/// Most bytes of a text that starts as a descriptor searched for its `createType`.
const TEXT: u64 = 1 << 16;

/// Names the format of `source` by its magics; raw only when none of them matched.
///
/// # Errors
/// [`Error::Unsupported`] with the format's name when it is known and not read; what reading finds.
pub fn detect(source: &dyn ReadAt) -> Result<Detected> {
    let length = source.len();
    let head = read_vec(
        source,
        "head of the file",
        0,
        length.min(HEAD),
        &Limits::DEFAULT,
    )?;
    let found = |format, subformat: &str| {
        Ok(Detected {
            format,
            subformat: subformat.to_owned(),
        })
    };
    let refused = |name: &str| Err(Error::unsupported(format_args!("format {name}")));
    if head.starts_with(vmdk::MAGIC) {
        return found(Format::Vmdk, &sparse_subformat(source, &head));
    }
    if let Some(kind) = vmdk::EsxKind::of(&head) {
        return found(Format::Vmdk, kind.create_type());
    }
    if head.starts_with(qcow2::MAGIC) {
        return match be_u32(&head, 4) {
            Some(1) => refused("qcow (version 1; convert it with qemu-img -f qcow)"),
            Some(version @ (2 | 3)) => found(Format::Qcow2, &format!("v{version}")),
            Some(version) => refused(&format!("qcow2 version {version}")),
            None => Err(Error::corrupt(format_args!("qcow2 of {length} bytes"))),
        };
    }
    if head.starts_with(qed::MAGIC) {
        return found(Format::Qed, "");
    }
    if head.starts_with(vhdx::MAGIC) {
        return found(Format::Vhdx, vhdx::kind(source).unwrap_or(""));
    }
    if drylab_block::slice_at(&head, 0x40, vdi::MAGIC.len()) == Some(vdi::MAGIC) {
        return found(Format::Vdi, vdi::kind(&head));
    }
    let hit = |(offset, magic, _): &&(usize, &[u8], &str)| {
        drylab_block::slice_at(&head, *offset, (*magic).len()) == Some(*magic)
    };
    if let Some((_, _, name)) = KNOWN_HEADS.iter().find(hit) {
        return refused(name);
    }
    if is_descriptor(&head) {
        let text = read_vec(
            source,
            "VMDK descriptor",
            0,
            length.min(TEXT),
            &Limits::DEFAULT,
        )?;
        let descriptor = Descriptor::parse(&text, &Limits::DEFAULT)?;
        let kind = descriptor
            .value("createType")
            .unwrap_or("unknown type")
            .to_owned();
        let read = vmdk::TYPES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&kind));
        return if read {
            found(Format::Vmdk, &kind)
        } else {
            Err(vmdk::refused_descriptor(&kind))
        };
    }
    // A fixed VHD has only a footer: 512 bytes, 511 by old Virtual PC.
    if vhd::is_cookie(&head) || vhd::claims(source)? {
        let kind = vhd::footer(source).map_or("", |(footer, _)| footer.kind.name());
        return found(Format::Vhd, kind);
    }
    if is_udif(source, length)? {
        return refused(UDIF);
    }
    found(Format::Raw, "")
}

/// Whether a file ends as an Apple disk image does: its block of 512 bytes begins with `koly` and says so many bytes.
fn is_udif(source: &dyn ReadAt, length: u64) -> Result<bool> {
    let Some(place) = length.checked_sub(512) else {
        return Ok(false);
    };
    let block = read_vec(source, "last block", place, 512, &Limits::DEFAULT)?;
    Ok(block.starts_with(b"koly") && be_u32(&block, 8) == Some(512))
}

/// Whether a text file starts as a VMDK descriptor does.
fn is_descriptor(head: &[u8]) -> bool {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let start = text.get(..vmdk::FIRST_LINE.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(vmdk::FIRST_LINE.as_bytes())
}

/// `createType` of the embedded descriptor, or what the flags say when it cannot be had. Never fails: that the file
/// claims to be a VMDK is sure.
fn sparse_subformat(source: &dyn ReadAt, head: &[u8]) -> String {
    let embedded = || {
        let header = Header::parse(head, 0, &Limits::DEFAULT).ok()?;
        let (place, length) = (
            header.descriptor_offset.checked_mul(512)?,
            header.descriptor_size.checked_mul(512)?,
        );
        let text = read_vec(
            source,
            "VMDK descriptor",
            place,
            length.min(TEXT),
            &Limits::DEFAULT,
        )
        .ok()?;
        Descriptor::parse(&text, &Limits::DEFAULT)
            .ok()?
            .value("createType")
            .map(str::to_owned)
    };
    let flags = || match le_u32(head, 8) {
        Some(flags) if flags & (1 << 16) != 0 => "streamOptimized",
        _ => "sparse extent",
    };
    embedded().unwrap_or_else(|| flags().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_known_by_magic_are_refused_by_name_and_never_taken_for_raw() {
        for &(offset, magic, name) in KNOWN_HEADS {
            let mut file = vec![0u8; 8192];
            file[offset..offset + magic.len()].copy_from_slice(magic);
            let error = detect(&file).unwrap_err();
            assert!(
                matches!(&error, Error::Unsupported(text) if text.contains(name)),
                "{error}"
            );
        }
        for place in [0, 4096 - 512, 4096 - 511] {
            let mut file = vec![0u8; 4096];
            file[place..place + 8].copy_from_slice(b"conectix");
            assert_eq!(detect(&file).unwrap().format, Format::Vhd);
        }
        let mut file = vec![0u8; 4096];
        file[3584..3596].copy_from_slice(b"koly\0\0\0\x04\0\0\x02\0");
        let error = detect(&file).unwrap_err().to_string();
        assert!(error.contains("Apple UDIF"), "{error}");
        assert!(
            detect(&b"QFI\xfb\0\0\0\x01".to_vec())
                .unwrap_err()
                .to_string()
                .contains("qcow (version 1")
        );
        let text = |kind| {
            format!("# Disk DescriptorFile\nversion=1\ncreateType=\"{kind}\"\n").into_bytes()
        };
        let refused = detect(&text("fullDevice")).unwrap_err().to_string();
        assert!(refused.contains("fullDevice"), "{refused}");
        assert_eq!(detect(&text("vmfsSparse")).unwrap().subformat, "vmfsSparse");
        assert_eq!(detect(&text("vmfs")).unwrap().subformat, "vmfs");
    }

    #[test]
    fn a_file_without_a_magic_is_raw_whatever_its_length() {
        for length in [0usize, 1, 511, 512, 513, 5000] {
            assert_eq!(detect(&vec![7u8; length]).unwrap().format, Format::Raw);
        }
    }
}
