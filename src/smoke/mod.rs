//! Boots an image in QEMU and reads back what it reported.

pub mod argv;
pub mod console;
pub mod copy;
pub mod emulator;
pub mod guest;
pub mod log;
pub mod machine;
pub mod phases;
pub mod serial;
pub mod wait;
