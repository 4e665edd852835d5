//! The command line: one file per command, no logic of its own.

pub mod build;
pub mod common;
pub mod fetch;
pub mod lock;
