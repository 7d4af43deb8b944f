//! Exit codes: stable, told by `drylab --help` and the README.

use drylab_block::Error;
use std::fmt;
use std::process::{ExitCode, Termination};

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked; a matrix with FAILURE cells and a prediction of FAILURE are results, not errors.
    Done = 0,
    /// The command line cannot be understood, or names something that is not there.
    Usage = 1,
    /// A scenario with an `expect` came to something else.
    NotExpected = 2,
    /// An input cannot be read (missing, damaged, unsupported), or the output cannot be written.
    Input = 3,
    /// Two runs of one scenario differed.
    Nondeterminism = 4,
    /// An image breaks rules of its format so that data is lost, aliased or unreadable, or as the user said.
    Damaged = 5,
    /// Two images hold different bytes.
    Different = 6,
    /// A bug of drylab.
    Internal = 70,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Usage => 1,
            Self::NotExpected => 2,
            Self::Input => 3,
            Self::Nondeterminism => 4,
            Self::Damaged => 5,
            Self::Different => 6,
            Self::Internal => 70,
        })
    }
}

/// Text for `drylab --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0   done; scores, also FAILURE, are results and not errors
  1   the command line cannot be understood, or names something unknown
  2   a scenario with an `expect` came to something else
  3   an input cannot be read: missing, damaged or unsupported; or output cannot be written
  4   two runs of one scenario differed
  5   an image is damaged: `image check` found an error (with --strict also a warning, with --for
      also what the product minds), `image repair` left one, or `image resize` met one
  6   `image compare` found a difference
  70  a bug of drylab";

/// Why a command ended early: what to say on standard error, and the exit code.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// The exit code.
    pub(crate) exit: Exit,
    /// A lowercase fragment.
    pub(crate) says: String,
}

impl Stop {
    /// The command line names something that is not there.
    pub(crate) fn usage(says: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            says: says.to_string(),
        }
    }

    /// An input or output failed: `failed to <task>: <why>`.
    pub(crate) fn input(task: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Input,
            says: format!("failed to {task}: {why}"),
        }
    }
}

/// Adds the task to an error of a reader.
pub(crate) trait While<T> {
    /// `failed to <task>: <why>`, exit code 3.
    fn on(self, task: impl fmt::Display) -> Result<T, Stop>;
}

impl<T> While<T> for Result<T, Error> {
    fn on(self, task: impl fmt::Display) -> Result<T, Stop> {
        self.map_err(|error| Stop::input(task, error))
    }
}
