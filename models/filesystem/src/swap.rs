//! Linux swap areas: version 1 header in the first page, `SWAPSPACE2` in its last ten bytes.
//!
//! ```text
//! 0x400  version u32 = 1    0x404  last page u32    0x40c  UUID    0x41c  label, 16 bytes    page-10  SWAPSPACE2
//! ```

use crate::{Entry, Filesystem, Kind};
use drylab_block::{Limits, ReadAt, Result, array_at, le_u32};

/// A swap area: a name, no files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    uuid: [u8; 16],
    label: String,
}

impl Swap {
    /// The swap area in `source`, when it is one. The page size is that of the machine that made it.
    ///
    /// # Errors
    /// Whatever reading finds.
    pub fn open(source: &dyn ReadAt) -> Result<Option<Self>> {
        for page in [4096u64, 8192, 16384, 65536] {
            if source.len() < page {
                return Ok(None);
            }
            let mut magic = [0u8; 10];
            source.read_at(page.saturating_sub(10), &mut magic)?;
            if &magic != b"SWAPSPACE2" {
                continue;
            }
            let mut head = [0u8; 64];
            source.read_at(0x400, &mut head)?;
            if le_u32(&head, 0) != Some(1) {
                continue;
            }
            let label = array_at::<16>(&head, 0x1c).unwrap_or_default();
            let end = label.iter().position(|byte| *byte == 0).unwrap_or(16);
            return Ok(Some(Self {
                uuid: array_at(&head, 0xc).unwrap_or_default(),
                label: String::from_utf8_lossy(label.get(..end).unwrap_or_default()).into_owned(),
            }));
        }
        Ok(None)
    }
}

impl Filesystem for Swap {
    fn kind(&self) -> Kind {
        Kind::Swap
    }

    fn uuid(&self) -> String {
        crate::ext::dashed(&self.uuid)
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn list(&self, _path: &str, _limits: &Limits) -> Result<Option<Vec<Entry>>> {
        Ok(None)
    }

    fn read(&self, _path: &str, _limits: &Limits) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}
