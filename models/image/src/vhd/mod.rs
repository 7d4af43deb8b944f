//! VHD: fixed, dynamic and differencing, read, written, checked and repaired; fixed and dynamic resized.
//!
//! Source: Microsoft "Virtual Hard Disk Image Format Specification" 1.0 (October 2006); where files in the field differ
//! from it, what qemu-img 10.0.2 was seen to do with them. All numbers are big-endian; block addresses count sectors of
//! 512 bytes.
//!
//! ```text
//! fixed         data │ footer
//! dynamic       footer copy │ dynamic header │ BAT │ (sector bitmap │ block)… │ footer
//! differencing  footer copy │ dynamic header │ BAT │ parent locators │ (sector bitmap │ block)… │ footer
//!
//! footer        0x00 "conectix"  0x08 features  0x0c version  0x10 data offset  0x18 timestamp  0x1c creator
//!               0x20 creator version  0x24 creator OS  0x28 original size  0x30 current size  0x38 geometry
//!               0x3c type  0x40 checksum  0x44 unique id  0x54 saved state
//! header        0x00 "cxsparse"  0x08 data offset  0x10 BAT offset  0x18 version  0x1c BAT entries  0x20 block size
//!               0x24 checksum  0x28 parent unique id  0x38 parent time stamp  0x40 parent name, UTF-16, big-endian
//!               0x240 eight locators: platform code, data space, data length, 0, data offset
//! ```
//!
//! **Two sizes.** The footer gives the size in bytes and again as cylinders × heads × sectors, which are seldom equal
//! and end at 127.5 GiB. Programs differ in which they believe, see [`VhdSize`] and [`size_rule`]. What
//! [`open`](crate::open) takes is [`VhdSize::ByCreator`]; [`open_vhd`](crate::open_vhd) is for a program that decides
//! otherwise. Two sizes are a finding only where readers of these days disagree, see [`sizes_are_told_apart`]: of a file
//! of Hyper-V they all take the current size.
//!
//! **Sector bitmaps.** A block that exists is read whole, whatever its bitmap says: on dynamic disks Microsoft's
//! programs and qemu ignore it and set all of it. XenServer takes a sector whose bit is clear for zeros; for the files
//! all of them write that is the same, since they write zeros there.
//!
//! **Damage.** Footers are verified by their checksum. Of a dynamic disk the last one counts and the copy in front
//! stands in for it, with a finding; without a valid footer a file is refused, as qemu-img does, but for a fixed disk whose
//! footer fits the file in everything but its checksum. The header's checksum
//! is verified, too, but has no copy and is ignored by qemu: a wrong one says that a byte of it is wrong, and the rest of the
//! file proves which, see `proof.rs`, or the header is in doubt and not repaired.
//!
//! **Parents.** A differencing disk asks its resolver for a `parent` by the last part of the paths in its locators
//! (`W2ru`, `W2ku`, `MacX`, in this order) and in its header, and takes the file with the UUID it wants before others. A
//! set bit of the sector bitmap says that the sector is the child's. A locator claims the bytes of its path, against blocks,
//! too; where it has none it claims nothing, and one that leads to where none can be is taken out by a repair. Of a
//! locator's data space it is not asked whether it counts bytes, as Microsoft's programs write it, or sectors, as the
//! specification has it. The parent's time stamp is compared with its footer's and a difference is a warning only: programs
//! keep the time of the parent's file there, which no reader of bytes knows, and Windows 10 was seen to write 0.
//!
//! **Limits.** 2040 GiB; sectors of 32 bits. Blocks of 512 KiB and 2 MiB are written, of any power of two read.
//!
//! **Not supported.** Resizing differencing disks, parents that are no VHD, locators of classic Mac OS (`Mac `).

mod blocks;
mod check;
mod child;
mod footer;
mod geometry;
mod header;
mod parent;
mod proof;
mod read;
mod repair;
mod resize;
pub(crate) mod rules;
mod write;

pub use child::{ParentLink, write_child};
pub use footer::{Footer, Kind, footer, is_child};
pub(crate) use footer::{claims, fixed_footer, is_cookie, mend, overlooked};
pub use geometry::Geometry;
pub(crate) use read::Vhd;
pub use resize::resize;
pub use write::stream_fixed;
pub(crate) use write::{write_dynamic, write_fixed};

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 512;

/// Largest disk: 2040 GiB, the limit of Microsoft's programs, at which sector numbers still fit 32 bits with room for
/// bitmaps and tables.
pub const DISK_BYTES_MAX: u64 = 2040 << 30;

/// The program that made a VHD, four bytes of its footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Creator(pub [u8; 4]);

impl Creator {
    /// Virtual PC: the disk has as many sectors as its geometry.
    pub const VIRTUAL_PC: Self = Self(*b"vpc ");
    /// Virtual Server.
    pub const VIRTUAL_SERVER: Self = Self(*b"vs  ");
    /// Hyper-V and Windows.
    pub const WINDOWS: Self = Self(*b"win ");
    /// qemu-img, by default: the disk has as many sectors as its geometry.
    pub const QEMU: Self = Self(*b"qemu");
    /// qemu-img with `force_size=on`.
    pub const QEMU_FORCE_SIZE: Self = Self(*b"qem2");
    /// Disk2vhd.
    pub const DISK2VHD: Self = Self(*b"d2v ");
    /// XenServer (blktap).
    pub const XEN_SERVER: Self = Self(*b"tap\0");
    /// XenConvert.
    pub const XEN_CONVERT: Self = Self(*b"CTXS");
    /// Azure.
    pub const AZURE: Self = Self(*b"wa\0\0");
    /// VirtualBox.
    pub const VIRTUAL_BOX: Self = Self(*b"vbox");
}

impl std::fmt::Display for Creator {
    /// The four characters, others than printable ones escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Which of the two sizes in a footer a program believes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum VhdSize {
    /// What [`size_rule`] says of the program that wrote the file, as qemu-img 10 does. The default here, because the
    /// creators it takes the geometry from gave their guests that many sectors and no more.
    #[default]
    ByCreator,
    /// The current size: Hyper-V, XenServer, Azure.
    Current,
    /// Cylinders × heads × sectors: qemu-img 0.12.
    Geometry,
}

impl VhdSize {
    /// Bytes of the disk for a program that believes this, a multiple of 512: no program has a part of a sector.
    #[must_use]
    pub fn bytes(self, footer: &Footer) -> u64 {
        let rule = match self {
            Self::ByCreator => size_rule(footer.creator, footer.geometry),
            other => other,
        };
        match rule {
            Self::Geometry => footer.geometry.bytes(),
            Self::ByCreator | Self::Current => {
                crate::math::div(footer.current_size, SECTOR).saturating_mul(SECTOR)
            }
        }
    }
}

/// Whether a file of `creator` has its size in the geometry or in the current size: [`VhdSize::Geometry`] for `vpc ` and
/// `qemu` unless the geometry stands at its maximum, where it says only "at least", else [`VhdSize::Current`].
///
/// Measured with qemu-img 10.0.2. Older ones turned it round: the current size only for `win `, `qem2`, `d2v `, `tap\0`
/// and `CTXS`, the geometry for all others, among them `vs  ` and `vbox`.
#[must_use]
pub fn size_rule(creator: Creator, geometry: Geometry) -> VhdSize {
    let by_geometry = matches!(creator, Creator::VIRTUAL_PC | Creator::QEMU);
    if by_geometry && geometry.sectors() != Geometry::MAX.sectors() {
        VhdSize::Geometry
    } else {
        VhdSize::Current
    }
}

/// Whether readers agree on the current size of a file of `creator` though the geometry says another: the creators whose
/// files QEMU reads so by either of its rules, as Hyper-V, XenServer and Azure do all files, and any creator whose
/// geometry stands at its maximum. Only what goes by the geometry of every file, such as qemu-img 0.12, takes the other.
///
/// Source: the table "Known creator apps" of QEMU's block/vpc.c, from which all other creators were taken to mean their
/// geometry until it was turned round; qemu-img 10.0.2 as measured, see [`size_rule`].
#[must_use]
pub fn sizes_are_told_apart(creator: Creator, geometry: Geometry) -> bool {
    let by_size = [
        Creator::WINDOWS,
        Creator::QEMU_FORCE_SIZE,
        Creator::DISK2VHD,
        Creator::XEN_SERVER,
        Creator::XEN_CONVERT,
    ];
    by_size.contains(&creator) || geometry.sectors() == Geometry::MAX.sectors()
}

/// How the disk's size and the geometry are brought together by a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum VhdFit {
    /// The size is kept, the geometry is the specification's for it, mostly smaller: Hyper-V, XenServer, XenConvert.
    #[default]
    Kept,
    /// The size grows to that of the next geometry, unless that is the largest; then it is kept: Virtual PC, and qemu-img by
    /// default.
    RoundedUp,
    /// The size is kept, the geometry stands at its maximum: qemu-img with `force_size=on`.
    Pinned,
    /// The size grows to whole MiB, the geometry is the specification's for it: Azure takes no other.
    WholeMebibytes,
}

impl VhdFit {
    /// The size that a disk of `bytes` gets, and its geometry.
    #[must_use]
    pub fn fitted(self, bytes: u64) -> (u64, Geometry) {
        let sectors = crate::math::div_up(bytes, SECTOR);
        let size = |sectors: u64| sectors.saturating_mul(SECTOR);
        match self {
            Self::Kept => (size(sectors), Geometry::of(sectors)),
            Self::Pinned => (size(sectors), Geometry::MAX),
            Self::WholeMebibytes => {
                let sectors = crate::math::round_up(sectors, 2048);
                (size(sectors), Geometry::of(sectors))
            }
            Self::RoundedUp => {
                // The largest geometry says "at least": a disk that needs it keeps its size.
                let geometry = Geometry::holding(sectors);
                let held = if geometry == Geometry::MAX {
                    sectors
                } else {
                    geometry.sectors()
                };
                (size(held), geometry)
            }
        }
    }

    /// How the size and the geometry of a footer were brought together, as far as can be told.
    #[must_use]
    pub fn of(footer: &Footer) -> Self {
        let sectors = crate::math::div(footer.current_size, SECTOR);
        let geometry = footer.geometry;
        if size_rule(footer.creator, geometry) == VhdSize::Geometry {
            Self::RoundedUp
        } else if geometry == Geometry::MAX && sectors < Geometry::MAX.sectors() {
            Self::Pinned
        } else {
            Self::Kept
        }
    }
}

/// What the writer of a VHD decides beside the bytes. The default is Hyper-V's on Windows Server 2008 R2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhdOptions {
    /// Creator application.
    pub creator: Creator,
    /// Creator version, major number in the upper half.
    pub creator_version: u32,
    /// Creator host OS: `Wi2k` or `Mac `.
    pub creator_os: [u8; 4],
    /// Seconds since 2000-01-01 00:00 UTC.
    pub timestamp: u32,
    /// UUID, big-endian; by default made of the content, so that equal disks give equal files.
    pub unique_id: Option<[u8; 16]>,
    /// Bytes of a block of a dynamic disk: 2 MiB or 512 KiB.
    pub block_bytes: u32,
    /// Size against geometry.
    pub fit: VhdFit,
}

impl Default for VhdOptions {
    fn default() -> Self {
        Self {
            creator: Creator::WINDOWS,
            creator_version: 0x0006_0001,
            creator_os: *b"Wi2k",
            timestamp: 0,
            unique_id: None,
            block_bytes: 2 << 20,
            fit: VhdFit::Kept,
        }
    }
}

impl VhdOptions {
    /// For import into Azure, as a fixed disk: whole MiB, no other is taken.
    #[must_use]
    pub fn azure() -> Self {
        Self {
            fit: VhdFit::WholeMebibytes,
            ..Self::default()
        }
    }

    /// For Hyper-V on Windows Server 2008 R2: the default.
    #[must_use]
    pub fn hyper_v_2008_r2() -> Self {
        Self::default()
    }

    /// For XenServer, as its blktap writes it: by `tap` 1.3, which does not say the system.
    #[must_use]
    pub fn xen_server() -> Self {
        Self {
            creator: Creator::XEN_SERVER,
            creator_version: 0x0001_0003,
            creator_os: [0; 4],
            ..Self::default()
        }
    }

    /// As qemu-img 10 writes it: rounded up to a geometry, or with `force_size=on` the size kept.
    #[must_use]
    pub fn qemu(force_size: bool) -> Self {
        let (creator, fit) = if force_size {
            (Creator::QEMU_FORCE_SIZE, VhdFit::Pinned)
        } else {
            (Creator::QEMU, VhdFit::RoundedUp)
        };
        Self {
            creator,
            creator_version: 0x0005_0003,
            fit,
            ..Self::default()
        }
    }
}
