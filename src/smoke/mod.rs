//! Boots an image in QEMU and reads back what it reported.

pub mod argv;
pub mod machine;
