//! The drylab command line: the only crate that opens files, prints and reads the environment.

fn main() {}
