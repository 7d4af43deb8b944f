//! How Linux guests name their adapters and bring them up: against the measured tables of the original programs,
//! against a real `udevadm`, one mechanism at a time, and with broken files.

mod moves;
mod noise;
mod oracles;
mod support;
mod udevadm;
