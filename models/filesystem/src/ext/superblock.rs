//! The superblock: 1024 bytes at byte 1024.

use drylab_block::{Error, ReadAt, Result, array_at, le_u16, le_u32};

/// Where the superblock stands.
const PLACE: u64 = 1024;
const MAGIC: u16 = 0xef53;

/// `incompat`: the journal must be replayed first.
pub(super) const NEEDS_RECOVERY: u32 = 0x4;
const META_BG: u32 = 0x10;
const WIDE: u32 = 0x80;
const CHECKSUM_SEED: u32 = 0x2000;
const LARGE_DIRECTORY: u32 = 0x4000;
/// filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold
const KNOWN: u32 = 0x2
    | 0x4
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
/// `compat`: there is a journal.
const HAS_JOURNAL: u32 = 0x4;
/// `ro_compat`: superblock copies only in groups 0, 1 and powers of 3, 5, 7.
const SPARSE_SUPER: u32 = 0x1;
/// `ro_compat`: metadata carries CRC-32C.
const METADATA_CHECKSUM: u32 = 0x400;

/// Fields of the superblock, checked.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) blocks: u64,
    pub(super) first_data_block: u64,
    pub(super) block_size: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) descriptor_size: u16,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
    pub(super) uuid: [u8; 16],
    pub(super) label: String,
    pub(super) journal_inode: u32,
    first_meta_group: u32,
    seed: u32,
}

/// Whether bytes 1080 and 1081 are those of an ext superblock.
pub(super) fn is_there(source: &dyn ReadAt) -> Result<bool> {
    if source.len() < PLACE.saturating_add(1024) {
        return Ok(false);
    }
    let mut magic = [0u8; 2];
    source.read_at(PLACE.saturating_add(0x38), &mut magic)?;
    Ok(u16::from_le_bytes(magic) == MAGIC)
}

fn bad(field: &str, value: impl std::fmt::Display, bound: impl std::fmt::Display) -> Error {
    Error::corrupt(format_args!(
        "superblock at 1024: {field} is {value} ({bound})"
    ))
}

impl Superblock {
    pub(super) fn read(source: &dyn ReadAt) -> Result<Self> {
        let mut bytes = [0u8; 1024];
        source.read_at(PLACE, &mut bytes)?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8; 1024]) -> Result<Self> {
        let word = |offset| le_u32(bytes, offset).unwrap_or(0);
        let half = |offset| le_u16(bytes, offset).unwrap_or(0);
        if half(0x38) != MAGIC {
            return Err(bad("magic", half(0x38), MAGIC));
        }
        let dynamic = word(0x4c) >= 1;
        let feature = |offset| if dynamic { word(offset) } else { 0 };
        let (compat, incompat, ro_compat) = (feature(0x5c), feature(0x60), feature(0x64));
        if incompat & !KNOWN != 0 {
            return Err(Error::unsupported(format_args!(
                "ext features {:#x} (known: {KNOWN:#x})",
                incompat & !KNOWN
            )));
        }
        let log = word(0x18);
        if log > 6 {
            return Err(bad("log of block size", log, "at most 6"));
        }
        let block_size = 1024u32.checked_shl(log).unwrap_or(1024);
        let wide = incompat & WIDE != 0;
        let high = if wide { u64::from(word(0x150)) } else { 0 };
        let uuid = array_at::<16>(bytes, 0x68).unwrap_or_default();
        let found = Self {
            inodes: word(0x00),
            blocks: u64::from(word(0x04)) | high.checked_shl(32).unwrap_or(0),
            first_data_block: u64::from(word(0x14)),
            block_size,
            blocks_per_group: word(0x20),
            inodes_per_group: word(0x28),
            inode_size: if dynamic { half(0x58) } else { 128 },
            descriptor_size: if wide { half(0xfe) } else { 32 },
            incompat,
            ro_compat,
            uuid,
            label: text(&array_at::<16>(bytes, 0x78).unwrap_or_default()),
            journal_inode: if compat & HAS_JOURNAL != 0 {
                word(0xe0)
            } else {
                0
            },
            first_meta_group: word(0x104),
            seed: if incompat & CHECKSUM_SEED != 0 {
                word(0x270)
            } else {
                super::checksum::crc32c(u32::MAX, &uuid)
            },
        };
        found.check()?;
        // As Linux and blkid: a superblock that fails its own checksum is none.
        if found.checksum_seed().is_some() && word(0x3fc) != checksum(bytes) {
            return Err(bad(
                "checksum",
                word(0x3fc),
                format_args!("its bytes give {}", checksum(bytes)),
            ));
        }
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        let inode_size = u32::from(self.inode_size);
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > self.block_size {
            return Err(bad(
                "inode size",
                inode_size,
                format_args!("power of two from 128 to {}", self.block_size),
            ));
        }
        let descriptor = self.descriptor_size;
        if !descriptor.is_power_of_two() || !(32..=1024).contains(&descriptor) {
            return Err(bad(
                "group descriptor size",
                descriptor,
                "power of two from 32 to 1024",
            ));
        }
        if self.blocks <= self.first_data_block || self.first_data_block > 1 {
            let bound = format_args!("first data block {}", self.first_data_block).to_string();
            return Err(bad("number of blocks", self.blocks, bound));
        }
        let bits = self.block_size.saturating_mul(8);
        if self.inodes_per_group == 0 || self.inodes_per_group > bits {
            return Err(bad(
                "inodes per group",
                self.inodes_per_group,
                format_args!("1 to {bits}"),
            ));
        }
        if self.blocks_per_group == 0 {
            return Err(bad("blocks per group", 0, "at least 1"));
        }
        if self.inodes == 0
            || u64::from(self.inodes)
                > self
                    .groups()
                    .saturating_mul(u64::from(self.inodes_per_group))
        {
            let bound = format!("{} groups of {}", self.groups(), self.inodes_per_group);
            return Err(bad("number of inodes", self.inodes, bound));
        }
        Ok(())
    }

    pub(super) fn groups(&self) -> u64 {
        self.blocks
            .saturating_sub(self.first_data_block)
            .div_ceil(u64::from(self.blocks_per_group))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_size))
    }

    pub(super) fn needs_recovery(&self) -> bool {
        self.incompat & NEEDS_RECOVERY != 0
    }

    pub(super) fn has_large_directories(&self) -> bool {
        self.incompat & LARGE_DIRECTORY != 0
    }

    /// Seed of metadata checksums, when there are any.
    pub(super) fn checksum_seed(&self) -> Option<u32> {
        (self.ro_compat & METADATA_CHECKSUM != 0).then_some(self.seed)
    }

    /// Byte on the volume where the descriptor of `group` stands.
    pub(super) fn descriptor_at(&self, group: u64) -> Option<u64> {
        let block_size = u64::from(self.block_size);
        let size = u64::from(self.descriptor_size);
        let per_block = block_size.checked_div(size)?;
        let table_block = group.checked_div(per_block)?;
        let within = group.checked_rem(per_block)?.checked_mul(size)?;
        let block =
            if self.incompat & META_BG != 0 && table_block >= u64::from(self.first_meta_group) {
                // The first group of each meta group holds the one block of its descriptors, behind its superblock copy.
                let first = table_block.checked_mul(per_block)?;
                let start = first
                    .checked_mul(u64::from(self.blocks_per_group))?
                    .checked_add(self.first_data_block)?;
                let copy = u64::from(self.has_superblock(first));
                // Blocks of 1 KiB counted from 0, as bigalloc does: block 0 is the boot block, the superblock block 1.
                let boot =
                    u64::from(first == 0 && self.first_data_block == 0 && self.block_size == 1024);
                start.checked_add(copy)?.checked_add(boot)?
            } else {
                let superblock = PLACE.checked_div(block_size)?;
                superblock.checked_add(1)?.checked_add(table_block)?
            };
        block.checked_mul(block_size)?.checked_add(within)
    }

    fn has_superblock(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        group <= 1
            || self.ro_compat & SPARSE_SUPER == 0
            || power_of(3)
            || power_of(5)
            || power_of(7)
    }

    /// UUID in lower case with dashes.
    pub(super) fn uuid_text(&self) -> String {
        super::dashed(&self.uuid)
    }
}

fn checksum(bytes: &[u8; 1024]) -> u32 {
    super::checksum::crc32c(u32::MAX, bytes.get(..0x3fc).unwrap_or_default())
}

/// Sets magic and checksum of the superblock in an image, so that damage behind them is reached.
pub(super) fn mend(image: &mut [u8]) {
    let Some(bytes) = image.get_mut(1024..2048) else {
        return;
    };
    if let Some(magic) = bytes.get_mut(0x38..0x3a) {
        magic.copy_from_slice(&MAGIC.to_le_bytes());
    }
    let crc = array_at::<1024>(bytes, 0).map(|bytes| checksum(&bytes));
    if let (Some(crc), Some(field)) = (crc, bytes.get_mut(0x3fc..0x400)) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Text up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
