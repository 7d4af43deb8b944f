//! Virtual time, named random streams, the event queue, the trace and its hashes.
