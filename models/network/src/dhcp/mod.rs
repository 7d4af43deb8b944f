//! DHCP: messages, servers, clients.

mod client;
mod packet;
mod server;

pub use client::{
    Client, ClientConfig, ClientState, Input, LeaseFact, Output, SECOND_US, Schedule,
};
pub use packet::{MAGIC_COOKIE, Message, Op, Options, Packet};
pub use server::{Census, ClientKey, Pick, Server, ServerConfig, Unknown};
