//! The boot sector: sizes, and where the master file table is.

use drylab_block::{Error, ReadAt, Result, array_at, le_u16, le_u64};

/// What the boot sector says, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot {
    /// Bytes per cluster: a power of two, 256 bytes to 2 MiB.
    pub(crate) cluster: u64,
    /// Clusters of the volume.
    pub(crate) clusters: u64,
    /// First cluster of $MFT.
    pub(crate) mft_lcn: u64,
    /// Bytes per file record: a power of two, 512 to 4096 (Windows makes 1024, or 4096 on 4K sectors).
    pub(crate) record: usize,
    /// Volume serial number.
    pub(crate) serial: u64,
}

impl Boot {
    /// Reads the first sector.
    pub(crate) fn read(source: &dyn ReadAt) -> Result<Self> {
        let mut sector = [0u8; 512];
        if source.len() < 512 {
            return Err(Error::corrupt(format_args!(
                "boot sector needs 512 bytes, the volume has {}",
                source.len()
            )));
        }
        source.read_at(0, &mut sector)?;
        Self::parse(&sector)
            .ok_or_else(|| Error::corrupt("boot sector is shorter than 512 bytes"))?
    }

    fn parse(sector: &[u8]) -> Option<Result<Self>> {
        let oem = array_at::<8>(sector, 0x03)?;
        let sector_bytes = u64::from(le_u16(sector, 0x0B)?);
        let per_cluster = *sector.get(0x0D)?;
        let sectors = le_u64(sector, 0x28)?;
        let mft_lcn = le_u64(sector, 0x30)?;
        let per_record = *sector.get(0x40)?;
        let serial = le_u64(sector, 0x48)?;
        let bad = |what: &str, value: u64| {
            Some(Err(Error::corrupt(format_args!(
                "boot sector: {what} is {value}"
            ))))
        };
        if &oem != b"NTFS    " {
            return Some(Err(Error::corrupt(
                "boot sector does not say \"NTFS\" at offset 3",
            )));
        }
        if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
            return bad(
                "bytes per sector (power of two from 256 to 4096)",
                sector_bytes,
            );
        }
        let Some(cluster) =
            cluster_bytes(per_cluster, sector_bytes).filter(|size| (256..=2 << 20).contains(size))
        else {
            return bad(
                "sectors per cluster (cluster of 256 bytes to 2 MiB)",
                u64::from(per_cluster),
            );
        };
        let Some(record) =
            record_bytes(per_record, cluster).filter(|size| (512..=4096).contains(size))
        else {
            return bad(
                "clusters per file record (record of 512 to 4096 bytes)",
                u64::from(per_record),
            );
        };
        let clusters = sectors.checked_mul(sector_bytes)?.checked_div(cluster)?;
        if mft_lcn >= clusters {
            return bad("first cluster of $MFT (inside the volume)", mft_lcn);
        }
        let record = usize::try_from(record).ok()?;
        Some(Ok(Self {
            cluster,
            clusters,
            mft_lcn,
            record,
            serial,
        }))
    }
}

/// Bytes of a cluster: a count of sectors, or from 0x80 on 2^-count sectors (clusters over 64 KiB, Windows 10).
fn cluster_bytes(count: u8, sector: u64) -> Option<u64> {
    let sectors = match count {
        0..=0x80 => u64::from(count),
        _ => 1u64.checked_shl(u32::from(count.wrapping_neg()))?,
    };
    sectors
        .checked_mul(sector)
        .filter(|bytes| bytes.is_power_of_two())
}

/// Bytes of a file record or index block: a count of clusters, or from 0x80 on 2^-count bytes.
fn record_bytes(count: u8, cluster: u64) -> Option<u64> {
    let bytes = match count {
        0..=0x7F => u64::from(count).checked_mul(cluster)?,
        _ => 1u64.checked_shl(u32::from(count.wrapping_neg()))?,
    };
    bytes.is_power_of_two().then_some(bytes)
}
