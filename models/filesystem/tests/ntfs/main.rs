//! Tests of the NTFS reader on whole volumes: made by mkntfs and ntfscp, and foreign ones; read by ntfscat, ntfsfix and
//! the crate `ntfs` as well.

mod common;
mod edit;
mod laws;
mod read;
