//! The commands, one file each: what is typed, handed on to the library. No logic of its own.

pub mod inspect;
pub mod smoke;
