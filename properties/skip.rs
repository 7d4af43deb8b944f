//! How a test says that it compares with nothing, for want of a program or of a file. Tests of other crates include this
//! file by its path: a crate of its own would be one that tests nothing.

use std::io::Write;

/// Whether nothing may be left out.
#[expect(
    clippy::disallowed_methods,
    reason = "whether something may be left out is the runner's choice"
)]
pub(crate) fn required() -> bool {
    std::env::var("DRYLAB_REQUIRE_ORACLES").is_ok_and(|value| value == "1")
}

/// Says what is left out on standard error itself: the runner shows nothing that a passing test prints.
pub(crate) fn say(why: &str) {
    // Nobody is left to tell when standard error cannot be written.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Leaves a comparison out, and says so.
///
/// # Panics
/// When `DRYLAB_REQUIRE_ORACLES=1`: then nothing may be left out.
pub(crate) fn skip(why: &str) {
    assert!(!required(), "DRYLAB_REQUIRE_ORACLES=1, and {why}");
    say(why);
}
