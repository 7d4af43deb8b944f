//! What must hold in a qcow2.

crate::finding::rules! {
    DIRTY = "QCOW2-DIRTY", Warning, Lossless, "Qcow2 Image File Format, Header: incompatible feature bit 0",
        "refcounts are not to be trusted";
    CORRUPT = "QCOW2-CORRUPT", Error, Lossless, "Qcow2 Image File Format, Header: incompatible feature bit 1",
        "a program found the metadata broken; QEMU opens the image only for reading";
    SNAPSHOTS = "QCOW2-SNAPSHOTS", Note, No, "Qcow2 Image File Format, Snapshots",
        "only the active state is read and converted";
    SNAPSHOT = "QCOW2-SNAPSHOT", Error, No, "Qcow2 Image File Format, Snapshots",
        "the snapshot cannot be read, and what it holds would be taken for free space";
    REFCOUNT_TABLE = "QCOW2-REFCOUNT-TABLE", Warning, Lossless, "Qcow2 Image File Format, Host cluster management",
        "nothing can be allocated, and QEMU refuses to write";
    REFCOUNT_ALIGNMENT = "QCOW2-REFCOUNT-ALIGNMENT", Error, Lossless,
        "Qcow2 Image File Format, Header: refcount_table_offset",
        "QEMU does not open the image; the guest's bytes do not hang on refcounts";
    REFCOUNT_ORDER = "QCOW2-REFCOUNT-ORDER", Error, Lossless, "Qcow2 Image File Format, Header: refcount_order",
        "QEMU does not open the image; the guest's bytes do not hang on refcounts";
    REFCOUNT_BLOCK = "QCOW2-REFCOUNT-BLOCK", Error, Lossless, "Qcow2 Image File Format, Host cluster management",
        "what the block describes is taken for free space";
    REFCOUNT = "QCOW2-REFCOUNT", Error, Lossless, "Qcow2 Image File Format, Host cluster management",
        "a writer takes the cluster for free or for its own, and overwrites it";
    LEAK = "QCOW2-LEAK", Warning, Lossless, "Qcow2 Image File Format, Host cluster management",
        "the space is never used again";
    COPIED_L1 = "QCOW2-COPIED-L1", Error, Lossless, "Qcow2 Image File Format, Cluster mapping: L1 table entry, bit 63",
        "a write to the disk changes a snapshot, or the L2 table is copied for nothing";
    COPIED_L2 = "QCOW2-COPIED-L2", Error, Lossless, "Qcow2 Image File Format, Cluster mapping: L2 table entry, bit 63",
        "a write to the disk changes a snapshot, or the cluster is copied for nothing";
    L1_RESERVED = "QCOW2-L1-RESERVED", Warning, Lossless, "Qcow2 Image File Format, Cluster mapping: L1 table entry",
        "programs that look at the bits refuse the image";
    L1_ALIGNMENT = "QCOW2-L1-ALIGNMENT", Error, Lossy, "Qcow2 Image File Format, Cluster mapping: L1 table entry",
        "reading everything that the L2 table describes fails";
    L1_BEYOND_END = "QCOW2-L1-BEYOND-END", Error, Lossy, "Qcow2 Image File Format, Cluster mapping: L1 table entry",
        "reading everything that the L2 table describes fails";
    L2_RESERVED = "QCOW2-L2-RESERVED", Warning, Lossless, "Qcow2 Image File Format, Cluster mapping: Standard Cluster Descriptor",
        "qemu-img check counts an error, and programs that look at the bits refuse the image";
    ZERO_PLACE = "QCOW2-ZERO-PLACE", Warning, Lossless,
        "Qcow2 Image File Format, Cluster mapping: Standard Cluster Descriptor, bit 0",
        "the cluster reads as zeros, and what is set aside for it stands nowhere: qemu-img check counts an error";
    ZERO_IN_V2 = "QCOW2-ZERO-IN-V2", Error, Lossy, "Qcow2 Image File Format, Cluster mapping: Standard Cluster Descriptor, bit 0",
        "reading the cluster fails";
    ALIGNMENT = "QCOW2-ALIGNMENT", Error, Lossy, "Qcow2 Image File Format, Cluster mapping: Standard Cluster Descriptor",
        "reading the cluster fails";
    BEYOND_END = "QCOW2-BEYOND-END", Error, Lossy, "Qcow2 Image File Format, Cluster mapping: Standard Cluster Descriptor",
        "reading the cluster fails; qemu-img convert takes it for zeros";
    CUT = "QCOW2-CUT", Error, No, "Qcow2 Image File Format, Cluster mapping: Standard Cluster Descriptor",
        "the file ends inside the cluster: reading its rest fails";
    PACKED = "QCOW2-PACKED", Error, No, "Qcow2 Image File Format, Cluster mapping: Compressed Clusters Descriptor",
        "the cluster cannot be unpacked: reading it fails";
    PACKED_LEFT = "QCOW2-PACKED-LEFT", Note, No, "Qcow2 Image File Format, Cluster mapping: Compressed Clusters Descriptor",
        "not every compressed cluster was unpacked: whether the others can be is not known";
    PACKED_BEYOND_END = "QCOW2-PACKED-BEYOND-END", Error, Lossy,
        "Qcow2 Image File Format, Cluster mapping: Compressed Clusters Descriptor", "reading the cluster fails";
    PACKED_COPIED = "QCOW2-PACKED-COPIED", Error, Lossless, "Qcow2 Image File Format, Cluster mapping: L2 table entry, bit 63",
        "a writer may write into the compressed bytes";
    PACKED_OUTSIDE = "QCOW2-PACKED-OUTSIDE", Error, No, "Qcow2 Image File Format, Header: incompatible feature bit 2",
        "an image with an external data file has no place for a compressed cluster: reading it fails";
    SUBCLUSTERS = "QCOW2-SUBCLUSTERS", Error, Lossy, "Qcow2 Image File Format, Extended L2 Entries",
        "reading the subcluster fails";
    DATA_OFFSET = "QCOW2-DATA-OFFSET", Error, Lossy, "Qcow2 Image File Format, Header: incompatible feature bit 2",
        "reading the cluster fails";
    TABLES_LEFT = "QCOW2-TABLES-LEFT", Warning, No, "Qcow2 Image File Format, Header: incompatible feature bit 2",
        "not every place of the disk was looked at: reading clusters of the others may fail, and nothing can be repaired";
    OVERLAP_DATA = "QCOW2-OVERLAP-DATA", Error, Lossy, "Qcow2 Image File Format, General",
        "the guest reads metadata, and a write of the guest destroys it";
    OVERLAP_REFCOUNTS = "QCOW2-OVERLAP-REFCOUNTS", Error, Lossless, "Qcow2 Image File Format, General",
        "an update of refcounts destroys another table";
    OVERLAP_L2 = "QCOW2-OVERLAP-L2", Error, Lossy, "Qcow2 Image File Format, General",
        "allocating a cluster destroys another table";
    OVERLAP_TABLES = "QCOW2-OVERLAP-TABLES", Error, No, "Qcow2 Image File Format, General",
        "a change of one table destroys the other";
    TABLE_BEYOND_END = "QCOW2-TABLE-BEYOND-END", Error, No, "Qcow2 Image File Format, General",
        "the table cannot be read";
    BITMAPS = "QCOW2-BITMAPS", Note, No, "Qcow2 Image File Format, Bitmaps extension",
        "dirty bitmaps are lost when the image is converted";
    BITMAPS_STALE = "QCOW2-BITMAPS-STALE", Note, No, "Qcow2 Image File Format, Bitmaps extension",
        "a program that does not know bitmaps wrote to the image: they are not to be used";
    BITMAP = "QCOW2-BITMAP", Warning, Lossy, "Qcow2 Image File Format, Bitmaps",
        "the bitmap cannot be read, and QEMU refuses to write to the image";
    DATA_FILE_NAME = "QCOW2-DATA-FILE-NAME", Note, No, "Qcow2 Image File Format, Header extensions",
        "the name of a data file is given and none is used";
    RAW_EXTERNAL = "QCOW2-RAW-EXTERNAL", Warning, No, "Qcow2 Image File Format, Header: autoclear feature bit 1",
        "the data file is not the disk that it is said to be";
    AUTOCLEAR = "QCOW2-AUTOCLEAR", Note, No, "Qcow2 Image File Format, Header: autoclear_features",
        "what the feature describes is lost with the first write";
    BACKING_FORMAT = "QCOW2-BACKING-FORMAT", Warning, No, "Qcow2 Image File Format, Header extensions: 0xe2792aca",
        "a guest that writes an image's header into a raw backing file makes programs open files of its choice";
    BACKING_OFFSET = "QCOW2-BACKING-OFFSET", Warning, Lossless, "Qcow2 Image File Format, Header: backing_file_offset",
        "QEMU does not open the image, though it names no backing file";
    EXTENSION = "QCOW2-EXTENSION", Error, No, "Qcow2 Image File Format, Header extensions",
        "what stands there and behind it is not known";
    UNKNOWN_EXTENSION = "QCOW2-UNKNOWN-EXTENSION", Note, No, "Qcow2 Image File Format, Header extensions",
        "what it is for is not known here";
}
