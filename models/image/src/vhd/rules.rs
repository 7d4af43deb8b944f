//! What must hold in a VHD.

crate::finding::rules! {
    FIXED_LENGTH = "VHD-FIXED-LENGTH", Warning, Lossy, "VHD specification 1.0, Hard Disk Footer Format: Current Size",
        "programs that go by the file's length and those that go by the footer see disks of different sizes";
    FIXED_CUT = "VHD-FIXED-CUT", Error, Lossy, "VHD specification 1.0, Hard Disk Footer Format: Current Size",
        "the disk ends before its size does: what is behind cannot be read";
    TWO_SIZES = "VHD-TWO-SIZES", Warning, No, "VHD specification 1.0, Hard Disk Footer Format: Disk Geometry",
        "programs differ in which of the two sizes they believe of a file of this creator";
    SAVED_STATE = "VHD-SAVED-STATE", Warning, No, "VHD specification 1.0, Hard Disk Footer Format: Saved State",
        "the machine was suspended with this disk in use";
    HEADER_CHECKSUM = "VHD-HEADER-CHECKSUM", Warning, Lossless, "VHD specification 1.0, Dynamic Disk Header Format: Checksum",
        "Microsoft's programs refuse the file";
    HEADER_FIELD = "VHD-HEADER-FIELD", Error, Lossless, "VHD specification 1.0, Dynamic Disk Header Format: Checksum",
        "the checksum and the blocks fit another value: qemu-img, which does not look at the checksum, reads other bytes or refuses the file";
    HEADER_DOUBT = "VHD-HEADER-DOUBT", Error, No, "VHD specification 1.0, Dynamic Disk Header Format: Checksum",
        "a byte of the header is wrong, and nothing proves which: all blocks may be others, and the file is not repaired";
    HEADER_DATA_OFFSET = "VHD-HEADER-DATA-OFFSET", Warning, Lossless,
        "VHD specification 1.0, Dynamic Disk Header Format: Data Offset", "Microsoft's programs may refuse the file";
    BAT_SHORT = "VHD-BAT-SHORT", Error, No, "VHD specification 1.0, Dynamic Disk Header Format: Max Table Entries",
        "the table ends before the disk does: what lies behind it cannot be read";
    BLOCK_LOST = "VHD-BLOCK-LOST", Error, Lossy, "VHD specification 1.0, Block Allocation Table",
        "reading the block fails, and qemu-img refuses the file";
    BLOCK_CUT = "VHD-BLOCK-CUT", Error, Lossy, "VHD specification 1.0, Block Allocation Table",
        "the file ends inside the block, and qemu-img refuses the file unless the footer's bytes are enough for the rest";
    BLOCK_SHORT = "VHD-BLOCK-SHORT", Warning, Lossless, "VHD specification 1.0, Data Blocks",
        "the last block is stored as far as the disk goes only, and qemu-img refuses the file unless little is missing";
    BLOCK_IN_METADATA = "VHD-BLOCK-IN-METADATA", Error, Lossy, "VHD specification 1.0, Block Allocation Table",
        "the block stands over headers or tables, and a write to it destroys them";
    BLOCKS_OVERLAP = "VHD-BLOCKS-OVERLAP", Error, Lossless, "VHD specification 1.0, Block Allocation Table",
        "a write to one block changes another";
    FOOTER_COPY = "VHD-FOOTER-COPY", Warning, Lossless, "VHD specification 1.0, Dynamic Hard Disk Image",
        "nothing stands in for the footer, and qemu-img refuses the file";
    FOOTERS_DIFFER = "VHD-FOOTERS-DIFFER", Warning, Lossless, "VHD specification 1.0, Dynamic Hard Disk Image",
        "programs that read the one see another disk than those that read the other";
    BITMAP_CLEAR = "VHD-BITMAP-CLEAR", Warning, Lossless, "VHD specification 1.0, Block Bitmap",
        "XenServer reads zeros in sectors whose bit is clear, Microsoft's programs and qemu read what stands there";
    PARENT_ID = "VHD-PARENT-ID", Error, No, "VHD specification 1.0, Dynamic Disk Header Format: Parent Unique ID",
        "this is not the disk that the child was made on";
    PARENT_TIME = "VHD-PARENT-TIME", Warning, No, "VHD specification 1.0, Dynamic Disk Header Format: Parent Time Stamp",
        "the parent may have been written to after the child was made";
    PARENT_SIZE = "VHD-PARENT-SIZE", Warning, No, "VHD specification 1.0, Hard Disk Footer Format: Current Size",
        "the parent has another size: what it lacks reads as zeros, what it has more is not seen";
    PARENT_LOCATOR = "VHD-PARENT-LOCATOR", Warning, No, "VHD specification 1.0, Parent Locator Entry",
        "programs that look for the parent there do not find it";
    LOCATOR_PLACE = "VHD-LOCATOR-PLACE", Warning, Lossless, "VHD specification 1.0, Parent Locator Entry: Platform Data Offset",
        "programs that look for the parent there do not find it, and take what comes to stand there for its path";
    TWO_READINGS = "VHD-TWO-READINGS", Warning, No, "VHD specification 1.0, Hard Disk Footer Format",
        "the file begins as one format and ends as a fixed VHD whose disk is all of it: programs differ in which of the two they see";
    // qemu-img 10.0.2 takes a fixed disk with such a footer for raw, and the footer for bytes of the disk.
    FOOTER_SHORT = "VHD-FOOTER-SHORT", Warning, Lossless, "VHD specification 1.0, Hard Disk Footer Format",
        "Virtual PC before 2004 wrote 511 bytes; programs that look for 512 do not find it, and take a fixed disk for raw";
    FOOTER_CHECKSUM = "VHD-FOOTER-CHECKSUM", Error, Lossless, "VHD specification 1.0, Hard Disk Footer Format: Checksum",
        "programs refuse a fixed disk with such a footer, or take it for raw; what the footer says of the disk fits the file";
    FOOTER = "VHD-FOOTER", Warning, Lossless, "VHD specification 1.0, Hard Disk Footer Format",
        "programs that read only the footer refuse the file";
}
