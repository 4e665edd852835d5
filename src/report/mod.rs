//! The report: reading it back from a disk image, without mounting anything and without being root.

pub mod fat;
pub mod gpt;
pub mod source;
