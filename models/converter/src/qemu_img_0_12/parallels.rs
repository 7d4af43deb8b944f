//! The reader of Parallels disks of the first kind ("WithoutFreeSpace"); the extended kind is not known.
//!
//! ```text
//! "WithoutFreeSpace", 0x10 version 2, 0x1c sectors of a track, 0x20 entries, 0x24 sectors of the disk, table at 0x40
//! ```

use super::disk::{Disk, Map, Padded, Place, Run};
use crate::math::{bytes, div, index, rem};
use drylab_block::{Error, Result, le_u32};

struct Tracks {
    table: Vec<u8>,
    track: u64,
}

impl Map for Tracks {
    fn run(&self, _file: &Padded, offset: u64) -> Result<Run> {
        let track = bytes(self.track);
        let within = rem(offset, track);
        let at = index(div(offset, track).saturating_mul(4));
        let place = match le_u32(&self.table, at) {
            None => return Ok(Run::REST),
            Some(0) => Place::Zeros,
            Some(sector) => Place::At(bytes(u64::from(sector)).saturating_add(within)),
        };
        Ok(Run {
            length: track.saturating_sub(within),
            place,
        })
    }
}

/// Opens a disk.
pub(crate) fn open(file: Padded) -> Result<Disk> {
    let head: [u8; 64] = file.head()?;
    let word = |at| u64::from(le_u32(&head, at).unwrap_or(0));
    if !head.starts_with(b"WithoutFreeSpace") || word(0x10) != 2 || word(0x1c) == 0 {
        return Err(Error::unsupported("no Parallels disk of version 2"));
    }
    let table = file.table("Parallels table", 0x40, word(0x20).saturating_mul(4))?;
    let map = Tracks {
        table,
        track: word(0x1c),
    };
    Ok(Disk {
        file,
        sectors: word(0x24),
        map: Box::new(map),
        backing: None,
    })
}
