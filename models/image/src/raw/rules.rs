//! What must hold in a raw image.

crate::finding::rules! {
    PARTIAL_SECTOR = "RAW-PARTIAL-SECTOR", Warning, Lossless, "none: disks have whole sectors of 512 bytes",
        "some programs cut off the last part of a sector";
    VHD_FOOTER = "RAW-VHD-FOOTER", Warning, No, "VHD specification 1.0, Hard Disk Footer Format",
        "the file was a fixed VHD: read as raw, the footer and what is behind it are bytes of the disk";
    VDI_HEADER = "RAW-VDI-HEADER", Warning, No, "VDICore.h, VDIPREHEADER: u32Signature",
        "the file was a VDI: read as raw, its header and map are bytes of the disk";
}
