#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod commands;
mod line;
mod printer;
mod shell;
mod start;
mod text;

pub use start::run;
