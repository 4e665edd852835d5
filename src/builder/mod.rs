//! profile -> lock -> pool -> tree -> {modules, initramfs, root} -> disk, one file per noun, in that order.

pub mod module_info;
pub mod modules;
pub mod sandbox;
