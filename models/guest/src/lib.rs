//! Guests: what a disk holds, how it boots and how it gets its addresses

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod boot;
pub mod edit;
pub mod fuzz;
pub mod inspect;
pub mod modalias;
pub mod net;
pub mod os;
mod tree;

pub use tree::Tree;
