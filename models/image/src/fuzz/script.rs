//! Changes to a sound file, as a fuzzer's bytes tell them.
//!
//! ```text
//! area (one byte), offset in it (u16), number of bytes (one byte), bytes
//! ```

use crate::math::len64;
use drylab_block::{ReadAt, Result, SparseBytes, WriteAt, le_u16};

/// Makes the changes of a script to a file whose areas begin at these bytes; those past its end are left out.
pub(crate) fn change(file: &SparseBytes, areas: &[u64], mut script: &[u8]) -> Result<()> {
    while let (Some([area, ..]), Some(offset), Some(length)) =
        (script.first_chunk::<1>(), le_u16(script, 1), script.get(3))
    {
        let area = areas.iter().cycle().nth(usize::from(*area)).copied();
        let at = area.unwrap_or(0).saturating_add(u64::from(offset));
        let rest = script.get(4..).unwrap_or_default();
        let (bytes, later) = rest
            .split_at_checked(usize::from(*length))
            .unwrap_or((rest, &[]));
        if at.saturating_add(len64(bytes)) <= file.len() {
            file.write_at(at, bytes)?;
        }
        script = later;
    }
    Ok(())
}
