//! What must hold in a VMDK.

crate::finding::rules! {
    UNCLEAN = "VMDK-UNCLEAN", Warning, Lossless, "Virtual Disk Format 5.0, Hosted Sparse Extent Header: uncleanShutdown",
        "the last writer did not close the disk; its tables may be behind its data";
    EXTENT_SIZE = "VMDK-EXTENT-SIZE", Warning, Lossless, "Virtual Disk Format 5.0, Extent Descriptions",
        "programs that believe the one and those that believe the other see disks of different sizes";
    NOT_A_STREAM = "VMDK-NOT-A-STREAM", Warning, No, "Virtual Disk Format 5.0, Stream-Optimized Compressed Sparse Extents",
        "a reader that goes front to back by markers may not find the end";
    FOOTER_DIFFERS = "VMDK-FOOTER-DIFFERS", Warning, Lossless,
        "Virtual Disk Format 5.0, Stream-Optimized Compressed Sparse Extents",
        "programs that believe the header read another disk than those that believe the footer";
}
