//! profile -> lock -> pool -> tree -> {modules, initramfs, root} -> disk, one file per noun, in that order.

pub mod apt;
pub mod cache;
pub mod deb;
pub mod lock;
pub mod mirror;
pub mod pool;
pub mod profile;
pub mod resolve;
pub mod sandbox;
pub mod space;
pub mod tree;
pub mod unpack;
