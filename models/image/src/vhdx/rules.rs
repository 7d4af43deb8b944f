//! What must hold in a VHDX.

crate::finding::rules! {
    HEADER = "VHDX-HEADER", Warning, Lossless, "[MS-VHDX] 2.2.2 Headers",
        "nothing stands in for the other header";
    NO_HEADER = "VHDX-NO-HEADER", Error, Lossless, "[MS-VHDX] 2.2.2 Headers",
        "other programs refuse the file; that no log is to be replayed rests on a header that is damaged";
    LOG_PENDING = "VHDX-LOG-PENDING", Warning, Lossless, "[MS-VHDX] 2.3.3 Log Replay",
        "the file was not closed, and programs that cannot write it refuse it";
    LOG_NO_SEQUENCE = "VHDX-LOG-NO-SEQUENCE", Error, Lossy, "[MS-VHDX] 2.3.3 Log Replay",
        "the last changes to the structure are lost, and other programs refuse the file";
    LOG_TRUNCATED = "VHDX-LOG-TRUNCATED", Error, Lossy, "[MS-VHDX] 2.3.3 Log Replay: FlushedFileOffset",
        "the file was cut, and blocks behind its end are lost";
    LOG_PLACE = "VHDX-LOG-PLACE", Warning, Lossless, "[MS-VHDX] 2.2.2 Headers: LogLength, LogOffset",
        "a program that writes the file refuses it or writes its log over something else";
    REGION_TABLE = "VHDX-REGION-TABLE", Warning, Lossless, "[MS-VHDX] 2.2.3 Region Table",
        "nothing stands in for the other table, and qemu-img refuses the file when it is the first";
    REGION_TABLES_DIFFER = "VHDX-REGION-TABLES-DIFFER", Warning, Lossless, "[MS-VHDX] 2.2.3 Region Table",
        "programs that read the one see another file than those that read the other";
    REGION_PLACE = "VHDX-REGION-PLACE", Error, No, "[MS-VHDX] 2.2.3.2 Region Table Entry",
        "other programs refuse the file";
    REGION_OVERLAP = "VHDX-REGION-OVERLAP", Error, No, "[MS-VHDX] 2.2.3.2 Region Table Entry",
        "a write to one region changes the other";
    METADATA_ITEM = "VHDX-METADATA-ITEM", Warning, No, "[MS-VHDX] 2.6.1.2 Metadata Table Entry",
        "other programs refuse the file or read another item";
    METADATA_MISSING = "VHDX-METADATA-MISSING", Warning, No, "[MS-VHDX] 2.6.2 Known Metadata Items",
        "other programs refuse the file";
    DISK_SIZE = "VHDX-DISK-SIZE", Error, No, "[MS-VHDX] 2.6.2.2 Virtual Disk Size",
        "other programs refuse the file or cut off the last sector";
    BAT_STATE = "VHDX-BAT-STATE", Error, Lossy, "[MS-VHDX] 2.5.1.1 Payload BAT Entry States",
        "programs differ in what they read from the block";
    BAT_RESERVED = "VHDX-BAT-RESERVED", Warning, Lossless, "[MS-VHDX] 2.5.1 BAT Entry: Reserved",
        "other programs may refuse the file";
    BLOCK_LOST = "VHDX-BLOCK-LOST", Error, Lossy, "[MS-VHDX] 2.5.1 BAT Entry: FileOffsetMB",
        "reading the block fails, and qemu-img refuses the file";
    BLOCK_IN_STRUCTURE = "VHDX-BLOCK-IN-STRUCTURE", Error, Lossy, "[MS-VHDX] 2.5.1 BAT Entry: FileOffsetMB",
        "a write to the block destroys the file";
    BLOCK_SHARED = "VHDX-BLOCK-SHARED", Error, Lossless, "[MS-VHDX] 2.5.1 BAT Entry: FileOffsetMB",
        "a write to one block changes another";
    BITMAP_MISSING = "VHDX-BITMAP-MISSING", Error, No, "[MS-VHDX] 2.5.1.2 Sector Bitmap BAT Entry States",
        "which sectors of the block are the parent's cannot be told";
    BITMAP_STATE = "VHDX-BITMAP-STATE", Warning, Lossless, "[MS-VHDX] 2.5.1.2 Sector Bitmap BAT Entry States",
        "other programs may refuse the file";
    PARENT_LOCATOR = "VHDX-PARENT-LOCATOR", Warning, No, "[MS-VHDX] 2.6.2.6 Parent Locator",
        "other programs may refuse the file";
    PARENT_LINKAGE = "VHDX-PARENT-LINKAGE", Error, No, "[MS-VHDX] 2.6.2.6.3 VHDX Parent Locator: parent_linkage",
        "the parent was changed since, or is another disk: what is read of it may be wrong";
    PARENT_SECTOR = "VHDX-PARENT-SECTOR", Error, No, "[MS-VHDX] 2.6.2.4 Logical Sector Size",
        "other programs refuse the chain";
}
