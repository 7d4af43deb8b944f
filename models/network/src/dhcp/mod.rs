//! DHCP: messages, servers, clients.

mod client;
mod config;
mod packet;
mod server;

pub use client::{Client, ClientState, Input, Output};
pub use config::{ClientConfig, LeaseFact, SECOND_US, Schedule};
pub use packet::{MAGIC_COOKIE, Message, Op, Options, Packet};
pub use server::{Census, ClientKey, Pick, Server, ServerConfig, Unknown};
