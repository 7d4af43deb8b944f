//! Tests of the hive reader and editor on whole hives, with hivex as the oracle.

mod common;
mod edit;
mod foreign;
mod laws;
