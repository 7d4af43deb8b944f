//! What must hold in a QED.

crate::finding::rules! {
    NEED_CHECK = "QED-NEED-CHECK", Warning, No, "QED Image File Format Specification, Feature bits: QED_F_NEED_CHECK",
        "an unfinished change may have left the tables in disorder: QEMU checks them before use";
    AUTOCLEAR = "QED-AUTOCLEAR", Note, No, "QED Image File Format Specification, Header: autoclear_features",
        "what the feature describes is lost with the first write";
    BACKING_FORMAT = "QED-BACKING-FORMAT", Warning, No,
        "QED Image File Format Specification, Feature bits: QED_F_BACKING_FORMAT_NO_PROBE",
        "a guest that writes an image's header into a raw backing file makes programs open files of its choice";
    TABLE = "QED-TABLE", Error, No, "QED Image File Format Specification, Consistency checking",
        "reading everything that the L2 table describes fails";
    CLUSTER = "QED-CLUSTER", Error, No, "QED Image File Format Specification, Consistency checking",
        "reading the cluster fails";
    CUT = "QED-CUT", Error, No, "QED Image File Format Specification, Consistency checking",
        "the file ends inside the cluster: reading its rest fails";
    OVERLAP = "QED-OVERLAP", Error, No, "QED Image File Format Specification, Consistency checking",
        "a write to one of both changes the other";
    LEAK = "QED-LEAK", Warning, No, "QED Image File Format Specification, Consistency checking",
        "the space is never used again";
}
