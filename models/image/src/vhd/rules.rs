//! What must hold in a VHD.

crate::finding::rules! {
    FIXED_LENGTH = "VHD-FIXED-LENGTH", Warning, Lossless, "VHD specification 1.0, Hard Disk Footer Format: Current Size",
        "programs that go by the file's length and those that go by the footer see disks of different sizes";
    TWO_SIZES = "VHD-TWO-SIZES", Warning, No, "VHD specification 1.0, Hard Disk Footer Format: Disk Geometry",
        "programs differ in which of the two sizes they believe";
    SAVED_STATE = "VHD-SAVED-STATE", Warning, No, "VHD specification 1.0, Hard Disk Footer Format: Saved State",
        "the machine was suspended with this disk in use";
    HEADER_CHECKSUM = "VHD-HEADER-CHECKSUM", Warning, Lossless, "VHD specification 1.0, Dynamic Disk Header Format: Checksum",
        "Microsoft's programs refuse the file";
    HEADER_DATA_OFFSET = "VHD-HEADER-DATA-OFFSET", Warning, Lossless,
        "VHD specification 1.0, Dynamic Disk Header Format: Data Offset", "Microsoft's programs may refuse the file";
    BLOCK_LOST = "VHD-BLOCK-LOST", Error, Lossy, "VHD specification 1.0, Block Allocation Table",
        "reading the block fails, and qemu-img refuses the file";
    BLOCKS_OVERLAP = "VHD-BLOCKS-OVERLAP", Error, Lossy, "VHD specification 1.0, Block Allocation Table",
        "a write to one block changes another";
    FOOTER_COPY = "VHD-FOOTER-COPY", Warning, Lossless, "VHD specification 1.0, Dynamic Hard Disk Image",
        "nothing stands in for the footer, and qemu-img refuses the file";
    FOOTERS_DIFFER = "VHD-FOOTERS-DIFFER", Warning, Lossless, "VHD specification 1.0, Dynamic Hard Disk Image",
        "programs that read the one see another disk than those that read the other";
    FOOTER = "VHD-FOOTER", Warning, Lossless, "VHD specification 1.0, Hard Disk Footer Format",
        "programs that read only the footer refuse the file";
}
