//! What must hold in a qcow2.

crate::finding::rules! {
    DIRTY = "QCOW2-DIRTY", Warning, Lossless, "Qcow2 Image File Format, Header: incompatible feature bit 0",
        "refcounts are not to be trusted";
    CORRUPT = "QCOW2-CORRUPT", Error, Lossless, "Qcow2 Image File Format, Header: incompatible feature bit 1",
        "a program found the metadata broken; QEMU opens the image only for reading";
    SNAPSHOTS = "QCOW2-SNAPSHOTS", Note, No, "Qcow2 Image File Format, Snapshots",
        "only the active state is read and converted";
    REFCOUNT_TABLE = "QCOW2-REFCOUNT-TABLE", Warning, Lossless, "Qcow2 Image File Format, Host cluster management",
        "nothing can be allocated, and QEMU refuses to write";
    BITMAPS = "QCOW2-BITMAPS", Note, No, "Qcow2 Image File Format, Bitmaps extension",
        "dirty bitmaps are lost when the image is converted";
    DATA_FILE_NAME = "QCOW2-DATA-FILE-NAME", Note, No, "Qcow2 Image File Format, Header extensions",
        "the guest's bytes are in another file";
    UNKNOWN_EXTENSION = "QCOW2-UNKNOWN-EXTENSION", Note, No, "Qcow2 Image File Format, Header extensions",
        "what it is for is not known here";
}
