//! Where things go: colours, pipes, full disks.

use crate::support::{data, drylab, have, ran};
use std::fs::OpenOptions;
use std::process::{Command, Stdio};

const MATRIX: [&str; 3] = ["matrix", "--repeat", "1"];

#[test]
fn nothing_but_data_goes_to_a_pipe() {
    let text = data(&MATRIX);
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_terminal_gets_colours_and_progress_unless_no_color_is_set() {
    if !have("script") {
        return;
    }
    let on_terminal = |no_color: &str| {
        let mut command = Command::new("script");
        let typed = format!("{} matrix --repeat 1", env!("CARGO_BIN_EXE_drylab"));
        command
            .args(["-qec", &typed, "/dev/null"])
            .stdin(Stdio::null());
        command.env("TERM", "xterm").env("NO_COLOR", no_color);
        ran(command.output().expect("script starts")).out
    };
    let red = "\u{1b}[31mFAILURE";
    assert!(
        on_terminal("").contains(red),
        "an empty NO_COLOR forbids nothing"
    );
    let plain = on_terminal("1");
    assert!(!plain.contains(red) && plain.contains("FAILURE"), "{plain}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = drylab(&MATRIX)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let full = OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let mut command = drylab(&MATRIX);
    let ran = ran(command.stdout(full).output().expect("it starts"));
    assert_eq!(ran.code, 3);
    assert!(
        ran.err
            .starts_with("drylab: failed to write to standard output: "),
        "{}",
        ran.err
    );
}
