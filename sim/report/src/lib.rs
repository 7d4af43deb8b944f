//! Text and JSON from one report value.
