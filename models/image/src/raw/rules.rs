//! What must hold in a raw image.

crate::finding::rules! {
    PARTIAL_SECTOR = "RAW-PARTIAL-SECTOR", Warning, Lossless, "none: disks have whole sectors of 512 bytes",
        "some programs cut off the last part of a sector";
}
