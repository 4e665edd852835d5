//! From named inputs to one disk image.

pub mod content;
pub mod fat;
pub mod region;
