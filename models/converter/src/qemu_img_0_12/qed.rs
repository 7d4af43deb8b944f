//! The reader of QED.
//!
//! ```text
//! "QED\0", 0x04 cluster size, 0x08 table size (clusters), 0x10 features, 0x28 L1 table, 0x30 image size,
//! 0x38 offset and 0x3c length of the backing file's name
//! ```

use super::disk::{Disk, Map, Padded, Place, Run};
use crate::math::{SECTOR, div, index, rem};
use drylab_block::{Error, Result, le_u32, le_u64};

/// Feature bits: a backing file, a check wanted, no probing of the backing file.
const KNOWN: u64 = 7;
const HAS_BACKING: u64 = 1;

struct Clusters {
    l1: Vec<u8>,
    cluster: u64,
    entries: u64,
    absent: Place,
}

impl Map for Clusters {
    fn run(&self, file: &Padded, offset: u64) -> Result<Run> {
        let span = self.cluster.saturating_mul(self.entries);
        let at = index(div(offset, span).saturating_mul(8));
        let Some(table) = le_u64(&self.l1, at) else {
            return Ok(Run::rest(self.absent));
        };
        if table == 0 {
            return Ok(Run {
                length: span.saturating_sub(rem(offset, span)),
                place: self.absent,
            });
        }
        let entry = rem(div(offset, self.cluster), self.entries);
        let Some(bytes8) = file.entry(table, entry, self.entries)? else {
            return Ok(Run {
                length: span.saturating_sub(rem(offset, span)),
                place: self.absent,
            });
        };
        let within = rem(offset, self.cluster);
        let place = match u64::from_le_bytes(bytes8) {
            0 => self.absent,
            1 => Place::Zeros,
            cluster => Place::At(cluster.saturating_add(within)),
        };
        Ok(Run {
            length: self.cluster.saturating_sub(within),
            place,
        })
    }
}

/// Opens a disk; with it the cluster size, and the name of the backing file when there is one.
pub(crate) fn open(file: Padded) -> Result<(Disk, u64, Option<String>)> {
    let head: [u8; 64] = file.head()?;
    let word = |at| u64::from(le_u32(&head, at).unwrap_or(0));
    let long = |at| le_u64(&head, at).unwrap_or(0);
    let (cluster, table, features) = (word(4), word(8), long(0x10));
    let good = head.starts_with(b"QED\0")
        && cluster.is_power_of_two()
        && (4096..=64 << 20).contains(&cluster)
        && table.is_power_of_two()
        && table <= 16
        && features <= KNOWN;
    if !good {
        return Err(Error::unsupported(format_args!(
            "QED with clusters of {cluster} bytes, tables of {table} clusters, features {features:#x}"
        )));
    }
    let length = cluster.saturating_mul(table);
    let l1 = file.table("QED L1 table", long(0x28), length)?;
    let backing = features & HAS_BACKING != 0;
    let name = if backing {
        let name = file.table("QED backing name", word(0x38), word(0x3c).min(1023))?;
        Some(String::from_utf8_lossy(&name).into_owned())
    } else {
        None
    };
    let map = Clusters {
        l1,
        cluster,
        entries: div(length, 8),
        absent: if backing {
            Place::Backing
        } else {
            Place::Zeros
        },
    };
    let disk = Disk {
        file,
        sectors: div(long(0x30), SECTOR),
        map: Box::new(map),
        backing: None,
    };
    Ok((disk, cluster, name))
}
