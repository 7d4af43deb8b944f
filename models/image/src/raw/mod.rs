//! Raw: the disk's bytes and nothing else.
//!
//! Source: none; there is no specification and no magic. A file is raw when nothing else claims it. Reading is the source
//! itself.
//!
//! ```text
//! first sector of the disk │ second │ …
//! ```
//!
//! **Limits.** [`Limits::disk_bytes_max`](drylab_block::Limits). A part of a sector at the end is read as it is, and a finding.
//!
//! **Not supported.** Anything that would have to be guessed from the bytes: a file that begins as another container does
//! is never raw. What is left of a VHD's footer or a VDI's header that would have told the file is a finding.

pub(crate) mod rules;

use crate::container::{Container, Stored};
use crate::edit::{Edit, Plan};
use crate::engine::{self, Work};
use crate::finding::Findings;
use crate::{vdi, vhd};
use drylab_block::{Below, Extent, Limits, ReadAt, Result, WriteAt, read_vec};
use std::sync::Arc;

/// An open raw image.
pub(crate) struct Raw {
    source: Arc<dyn ReadAt>,
    findings: Findings,
}

impl Raw {
    pub(crate) fn open(source: Arc<dyn ReadAt>) -> Self {
        let mut findings = Findings::default();
        let (length, left) = (source.len(), source.len() % SECTOR);
        if left != 0 {
            let place = (length.saturating_sub(left), left);
            let expected = "a multiple of 512 bytes";
            findings.add(
                &rules::PARTIAL_SECTOR,
                place,
                "length of the file",
                length,
                expected,
            );
        }
        look_for_others(&*source, &mut findings);
        Self { source, findings }
    }
}

/// Looks for what is left of other formats that a file may have been, and would be told by were it whole.
fn look_for_others(source: &dyn ReadAt, findings: &mut Findings) {
    if let Some((place, found)) = vhd::overlooked(source) {
        let expected = "a footer that ends the file, or none";
        let range = (place, 512);
        findings.add(
            &rules::VHD_FOOTER,
            range,
            "end of the file",
            found,
            expected,
        );
    }
    let length = source.len().min(SECTOR);
    let head = read_vec(source, "head of the file", 0, length, &Limits::DEFAULT);
    if head.is_ok_and(|head| vdi::is_overlooked(&head)) {
        let found = "a VDI's but for the signature";
        let expected = "0xbeda107f at 64, or no such header";
        findings.add(
            &rules::VDI_HEADER,
            (0x40, 4),
            "first sector",
            found,
            expected,
        );
    }
}

/// Bytes of a sector.
const SECTOR: u64 = 512;

impl Container for Raw {
    fn subformat(&self) -> String {
        String::new()
    }

    fn details(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn repair(&self) -> Result<Plan> {
        self.resize(crate::math::round_up(self.len(), SECTOR))
    }

    fn resize(&self, size: u64) -> Result<Plan> {
        let mut plan = Plan::default();
        let old = self.len();
        if size < old {
            plan.note(format!(
                "the last {} bytes of the disk are given up",
                old.saturating_sub(size)
            ));
        }
        if size != old {
            plan.push(Edit::Length { old, new: size });
        }
        Ok(plan)
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        let file = String::new();
        (self.extent_at(offset), Some(Stored { file, offset }))
    }
}

impl ReadAt for Raw {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.source.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.source.extent_at(offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        let length = self.len().checked_sub(offset).filter(|left| *left > 0)?;
        let source = &*self.source;
        Some(Below {
            source,
            offset,
            length,
        })
    }
}

/// Writes what of `disk` is not zeros and sets the length, which is the result.
pub(crate) fn write_raw(disk: &dyn ReadAt, sink: &dyn WriteAt, work: &Work<'_>) -> Result<u64> {
    let size = disk.len();
    sink.set_len(size)?;
    // The disk is one unit, and it stands at 0.
    engine::copy(disk, sink, (u64::MAX, false), work, |_| Ok(0))?;
    Ok(size)
}
