//! What is told of an open file in the words of the specification.

use super::header::{self, Header};
use super::metadata::Metadata;
use super::patched::Patched;
use drylab_block::Result;

/// Creator, header fields, metadata items and the parent's names.
pub(super) fn details(
    file: &Patched,
    header: &Header,
    metadata: &Metadata,
) -> Result<Vec<(String, String)>> {
    let mut details = vec![
        ("Creator".to_owned(), header::creator(file)?),
        (
            "SequenceNumber".to_owned(),
            header.sequence_number.to_string(),
        ),
        (
            "FileWriteGuid".to_owned(),
            header.file_write_guid.to_string(),
        ),
        (
            "DataWriteGuid".to_owned(),
            header.data_write_guid.to_string(),
        ),
        ("LogGuid".to_owned(), header.log_guid.to_string()),
        ("LogOffset".to_owned(), header.log_offset.to_string()),
        ("LogLength".to_owned(), header.log_length.to_string()),
        ("BlockSize".to_owned(), metadata.block_bytes.to_string()),
        (
            "LeaveBlockAllocated".to_owned(),
            metadata.leave_blocks_allocated.to_string(),
        ),
        ("HasParent".to_owned(), metadata.has_parent.to_string()),
        (
            "LogicalSectorSize".to_owned(),
            metadata.logical_sector.to_string(),
        ),
    ];
    if let Some(size) = metadata.physical_sector {
        details.push(("PhysicalSectorSize".to_owned(), size.to_string()));
    }
    if let Some(id) = metadata.disk_id {
        details.push(("VirtualDiskId".to_owned(), id.to_string()));
    }
    if let Some(locator) = &metadata.locator {
        details.extend(locator.pairs.iter().cloned());
    }
    for (id, length) in &metadata.others {
        details.push((format!("metadata item {id}"), format!("{length} bytes")));
    }
    Ok(details)
}
