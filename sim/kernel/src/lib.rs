//! Virtual time, randomness and the trace: the only place in the house that makes any of them.
//!
//! ```
//! use drylab_kernel::{Streams, Trace};
//!
//! let streams = Streams::new(42);
//! let mut console = streams.stream("console.mac", 0);
//! assert_eq!(console.bounded(256), streams.stream("console.mac", 0).bounded(256));
//!
//! let mut trace = Trace::new();
//! trace.record(1_500, "pipeline", drylab_kernel::Kind::StepStarted, &[("step", "export")]);
//! assert_eq!(trace.events().len(), 1);
//! ```
//!
//! * [`Streams`]: one ChaCha8 stream per *named* component, so that a draw more in one changes nothing in another.
//! * [`Queue`]: events in the total order (time, insertion number).
//! * [`Trace`]: the canonical event log with its 128-bit hash.
//!
//! What it does not do: decide anything about migrations.

mod queue;
mod random;
mod trace;

pub use queue::{Budget, Queue};
pub use random::{Stream, Streams, fnv1a};
pub use trace::{Event, Hash128, Hasher, Kind, Trace};
