//! The binary as its users meet it: what it prints, where, and with which exit code.

mod appliance;
mod bad_input;
mod cases;
mod check;
mod corpus;
mod image;
mod image_commands;
mod image_create;
mod image_edit;
mod image_files;
mod image_in_use;
mod image_words;
mod matrix;
mod output;
mod reactions;
mod readme;
mod run;
mod support;
mod words;
