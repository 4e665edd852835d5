//! The commands, one file each: what is typed, handed on to the library. No logic of its own.

pub mod build;
pub mod common;
pub mod doctor;
pub mod fetch;
pub mod flash;
pub mod inspect;
pub mod lock;
pub mod recompute;
pub mod report;
pub mod report_collect;
pub mod smoke;
pub mod split_report;
pub mod try_;
pub mod vm;
