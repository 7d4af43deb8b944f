//! Standard output and standard error.

use crate::exit::Stop;
use drylab_report::Paint;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

/// Writes data to standard output. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Stop> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::input("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Says on standard error what went wrong. Messages quote inputs, so nothing in them may steer a terminal.
pub(crate) fn diagnose(says: &str) {
    complain(&format!("drylab: {}\n", drylab_report::harmless(says)));
}

/// Writes a text to standard error.
pub(crate) fn complain(text: &str) {
    // Nobody is left to tell when standard error cannot be written.
    let _ = stderr().lock().write_all(text.as_bytes());
}

/// Colours on a terminal only, and none when `NO_COLOR` is set and not empty (no-color.org).
pub(crate) fn paint() -> Paint {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stdout().is_terminal() && !forbidden {
        Paint::Ansi
    } else {
        Paint::Plain
    }
}

/// A progress bar on standard error; invisible when that is no terminal.
pub(crate) fn progress(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:32} {pos}/{len} runs")
}

/// [`progress`] of bytes, whose number comes later.
pub(crate) fn byte_progress() -> ProgressBar {
    bar(None, "{bar:32} {bytes}/{total_bytes} {bytes_per_sec}")
}

/// Says that something is being done whose end is not known; invisible when standard error is no terminal.
pub(crate) fn turning(doing: &'static str) -> ProgressBar {
    let bar = bar(None, "{spinner} {msg} {elapsed}").with_message(doing);
    if !bar.is_hidden() {
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
    }
    bar
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let target = if stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, target).with_style(style)
}
