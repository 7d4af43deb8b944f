//! The drylab command line: the only crate that opens files, prints and reads the environment.
//!
//! * `args`: what can be typed, with examples. * `commands`: one file each. * `exit`: what the exit codes mean.
//! * `input`: real disks and appliances, opened read-only. * `beneath`: second files. * `sink`, `naming`, `rewrite`: files written.
//! * `lock`: whether other programs have them. * `terminal`: standard output, colours, progress. * `habits`: qemu-img's.

mod args;
mod beneath;
mod commands;
mod corpus_args;
mod exit;
mod habits;
mod image_args;
mod input;
mod lock;
#[cfg(test)]
mod man;
mod naming;
mod nearest;
mod quantity;
mod rewrite;
mod sink;
mod source;
mod terminal;

use exit::Exit;

fn main() -> Exit {
    std::panic::set_hook(Box::new(|bug| {
        terminal::diagnose(&format!(
            "internal error, please report it with the command you typed: {bug}"
        ));
    }));
    // A panic is a bug of ours wherever it happens; workers hand theirs on to this thread.
    std::panic::catch_unwind(commands::main).unwrap_or(Exit::Internal)
}
