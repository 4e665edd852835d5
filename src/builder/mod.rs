//! From named inputs to one disk image.

pub mod bios_boot;
pub mod content;
pub mod disk;
pub mod fat;
pub mod region;
