//! How a guest gets onto the network: which driver takes an adapter, what it is called, which configuration matches,
//! and what the lab answers.

pub mod linux;
pub mod windows;
