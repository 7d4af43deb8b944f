//! What must hold in a VMDK.

/// Where the header of a hosted sparse extent is described.
const HEADER: &str = "Virtual Disk Format 5.0, Hosted Sparse Extent Header";
/// Where grain directories and grain tables are described.
const TABLES: &str = "Virtual Disk Format 5.0, Hosted Sparse Extent Metadata";
/// Where streams are described.
const STREAM: &str = "Virtual Disk Format 5.0, Stream-Optimized Compressed Sparse Extents";
/// Where descriptors are described.
const DESCRIPTOR: &str = "Virtual Disk Format 5.0, The Descriptor File";
/// What is known of seSparse; VMware describes it nowhere.
const SE_SPARSE: &str = "QEMU, vmdk: Add read-only support for seSparse snapshots (2019)";

crate::finding::rules! {
    UNCLEAN = "VMDK-UNCLEAN", Warning, Lossless, "Virtual Disk Format 5.0, Hosted Sparse Extent Header: uncleanShutdown",
        "the last writer did not close the disk; its tables may be behind its data";
    EXTENT_SIZE = "VMDK-EXTENT-SIZE", Warning, Lossless, "Virtual Disk Format 5.0, Extent Descriptions",
        "programs that believe the one and those that believe the other see disks of different sizes";
    EXTENT_LONG = "VMDK-EXTENT-LONG", Warning, No, "Virtual Disk Format 5.0, Extent Descriptions",
        "programs that go by the length of the file see a larger disk, the others not what stands behind its end";
    EXTENT_SHORT = "VMDK-EXTENT-SHORT", Error, Lossy, "Virtual Disk Format 5.0, Extent Descriptions",
        "the rest of the extent is missing; some programs give zeros for it without a word, others refuse the disk";
    NOT_A_STREAM = "VMDK-NOT-A-STREAM", Warning, No, STREAM,
        "a reader that goes front to back by markers may not find the end";
    FOOTER_DIFFERS = "VMDK-FOOTER-DIFFERS", Warning, Lossless, STREAM,
        "programs that believe the header read another disk than those that believe the footer";
    NEWLINES = "VMDK-NEWLINES", Error, No, "Virtual Disk Format 5.0, Hosted Sparse Extent Header: newline detection",
        "the file went through a transfer in text mode, which changes bytes anywhere in it";
    VERSION = "VMDK-VERSION", Warning, Lossless, HEADER,
        "programs that go by the version do not know entries that mean zeros";
    TABLE_ENTRIES = "VMDK-TABLE-ENTRIES", Warning, No, "Virtual Disk Format 5.0, Hosted Sparse Extent Header: numGTEsPerGT",
        "VMware's own programs take 512 entries for granted";
    OVERHEAD = "VMDK-OVERHEAD", Warning, Lossless, "Virtual Disk Format 5.0, Hosted Sparse Extent Header: overHead",
        "a program that starts at overHead misses grains, or meets what is none";
    OVERHEAD_CUT = "VMDK-OVERHEAD-CUT", Warning, Lossless, "Virtual Disk Format 5.0, Hosted Sparse Extent Header: overHead",
        "QEMU refuses a file that ends in front of overHead, whatever is left in it; most often it was cut there";
    DESCRIPTOR_AREA = "VMDK-DESCRIPTOR-AREA", Warning, No, DESCRIPTOR,
        "a program that lengthens the text overwrites what stands behind it";
    DESCRIPTOR_LINE = "VMDK-DESCRIPTOR-LINE", Warning, No, "Virtual Disk Format 5.0, Extent Descriptions",
        "programs that insist on the line refuse the disk";
    CREATE_TYPE = "VMDK-CREATE-TYPE", Warning, Lossless, "Virtual Disk Format 5.0, The Descriptor File: createType",
        "programs that go by the text refuse the disk; the header, by which it is read, tells its kind";
    EXTENT_TYPE = "VMDK-EXTENT-TYPE", Warning, Lossless, "Virtual Disk Format 5.0, Extent Descriptions",
        "programs that go by the line refuse the disk; the header, by which it is read, tells that the extent is sparse";
    EXTENT_OFFSET = "VMDK-EXTENT-OFFSET", Warning, Lossless, "Virtual Disk Format 5.0, Extent Descriptions: offset",
        "QEMU refuses the disk; others take the extent to start where its file does";
    EXTENT_OVERLAP = "VMDK-EXTENT-OVERLAP", Error, No, "Virtual Disk Format 5.0, Extent Descriptions",
        "two places of the disk share their bytes: one of them lost its own, and a write to one changes the other";
    NO_PARENT_CID = "VMDK-NO-PARENT-CID", Warning, Lossless, "Virtual Disk Format 5.0, The Descriptor File: parentCID",
        "QEMU refuses the disk; others take it to have no parent";
    ENCODING = "VMDK-ENCODING", Note, No, DESCRIPTOR, "names outside ASCII may be read wrongly";
    CID = "VMDK-CID", Warning, No, DESCRIPTOR, "whether a snapshot fits this disk cannot be told";
    LONG_CONTENT_ID = "VMDK-LONG-CONTENT-ID", Note, No, "VMware descriptors: ddb.longContentID ends in the digits of CID",
        "programs that compare the long id see another content than those that compare the short one";
    GD_RANGE = "VMDK-GD-RANGE", Error, Lossless, TABLES,
        "programs that do not use the redundant grain directory cannot open the disk";
    RGD_RANGE = "VMDK-RGD-RANGE", Warning, Lossless, TABLES,
        "nothing stands in when the grain directory is damaged, and some programs refuse the disk";
    RGD_OVERLAP = "VMDK-RGD-OVERLAP", Error, Lossless, TABLES,
        "a program that keeps the redundant tables destroys what the guest has there";
    GD_OVERLAP = "VMDK-GD-OVERLAP", Error, No, "Virtual Disk Format 5.0, Hosted Sparse Extent Metadata: the grain directory has one entry for each table",
        "the capacity, the size of grains or the place of a directory is wrong, and tables are taken for entries; a repair is refused, as it would write over them";
    GT_RANGE = "VMDK-GT-RANGE", Error, Lossless, TABLES,
        "programs that use this directory cannot read the grains of the table, or read zeros for them";
    GT_LOST = "VMDK-GT-LOST", Error, Lossy, TABLES,
        "none of the grains of the table can be found; where more than half of all tables are lost, and not one alone, a repair is refused";
    GT_OVERLAP = "VMDK-GT-OVERLAP", Error, No, TABLES,
        "what is written through the one changes the other, and whose the entries are cannot be told";
    GT_SHARED = "VMDK-GT-SHARED", Warning, Lossless, "Virtual Disk Format 5.0, Hosted Sparse Extent Metadata: redundant grain tables",
        "the table is its own redundant copy: nothing stands in when it is damaged";
    GT_DIFFERS = "VMDK-GT-DIFFERS", Error, Lossless, TABLES,
        "programs that use the redundant grain directory read another disk";
    GRAIN_RANGE = "VMDK-GRAIN-RANGE", Error, Lossy, TABLES,
        "the grain cannot be read; some programs give zeros for it without a word";
    GRAIN_IN_METADATA = "VMDK-GRAIN-IN-METADATA", Error, Lossy, TABLES,
        "the guest reads tables instead of its bytes, and destroys them when it writes";
    GRAIN_ALIAS = "VMDK-GRAIN-ALIAS", Error, Lossless, TABLES,
        "two places of the disk share their bytes: one of them lost its own, and a write to one changes the other";
    GRAIN_OVERLAP = "VMDK-GRAIN-OVERLAP", Error, Lossless, TABLES,
        "two places of the disk share some of their bytes: a write to one changes the other";
    GRAIN_SHARED = "VMDK-GRAIN-SHARED", Error, No, "Virtual Disk Format 5.0, Hosted Sparse Extent Metadata: each grain table has sectors of its own",
        "two places of the disk share their bytes through tables that lie on each other or on grains, and whose they are cannot be told";
    GRAIN_MARKER = "VMDK-GRAIN-MARKER", Error, Lossy, STREAM, "the grain found is another's or none, so its own is lost";
    GRAIN_PACKED = "VMDK-GRAIN-PACKED", Error, No, STREAM, "the grain cannot be unpacked";
    STREAM_MARKER = "VMDK-STREAM-MARKER", Warning, No, STREAM,
        "a reader that goes front to back by markers sees another disk than one that uses the tables, or loses its way";
    STREAM_ORDER = "VMDK-STREAM-ORDER", Warning, No, STREAM,
        "importers that write the disk while they read the stream want ascending grains";
    NO_FOOTER = "VMDK-NO-FOOTER", Error, Lossless, STREAM,
        "programs that read through the grain directory cannot open the disk";
    STREAM_CUT = "VMDK-STREAM-CUT", Error, Lossy, STREAM, "the rest of the disk is missing";
    NO_END = "VMDK-NO-END-OF-STREAM", Warning, Lossless, "Virtual Disk Format 5.0, Stream-Optimized Compressed Sparse Extents: footer and end-of-stream marker",
        "a reader that goes by markers runs off the end, and one that looks for a footer in the last sectors of the file, as QEMU does, cannot open the disk";
    TRAILING = "VMDK-TRAILING-BYTES", Warning, Lossless, "Virtual Disk Format 5.0, Stream-Optimized Compressed Sparse Extents: footer and end-of-stream marker",
        "where a footer leads to the tables, programs that look for it in the last sectors of the file, as QEMU does, cannot open the disk; importers that hash while they read stop before these bytes, so that no digest of the file matches";
    PARENT_CID = "VMDK-PARENT-CID", Error, No, "Virtual Disk Format 5.0, The Descriptor File: parentCID",
        "the parent was changed after the snapshot was made, or is another disk: what is read is a mixture of the two";
    PARENT_SIZE = "VMDK-PARENT-SIZE", Warning, No, "Virtual Disk Format 5.0, Delta Links",
        "what lies behind the end of the smaller one is cut off or zeros";
    PARENT_PLACE = "VMDK-PARENT-PLACE", Note, No, "Virtual Disk Format 5.0, The Descriptor File: parentFileNameHint",
        "the parent was looked for beside the snapshot and not in the folder named";
    NO_DESCRIPTOR = "VMDK-NO-DESCRIPTOR", Error, No, "Virtual Disk Format 5.0, ESX Server Sparse Extents",
        "whether the file is a whole disk, a part of one or a snapshot cannot be told; holes read as zeros";
    SE_JOURNAL = "VMDK-SESPARSE-JOURNAL", Error, No, SE_SPARSE,
        "changes in the journal are not yet in the tables, and the journal is not read";
    SE_VOLATILE = "VMDK-SESPARSE-VOLATILE-HEADER", Warning, No, SE_SPARSE,
        "whether a journal must be replayed cannot be told";
    SE_GEOMETRY = "VMDK-SESPARSE-GEOMETRY", Warning, No, SE_SPARSE, "programs that insist on it refuse the disk";
}
