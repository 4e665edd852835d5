//! profile -> lock -> pool -> tree -> {modules, initramfs, root} -> disk, one file per noun, in that order.
//!
//! [`image`] is the recipe; everything else is one step of it.

pub mod apt;
pub mod bios_boot;
pub mod boot_menu;
pub mod cache;
pub mod content;
pub mod deb;
pub mod disk;
pub mod doctor;
pub mod elf;
pub mod esp;
pub mod fat;
pub mod format;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod lock;
pub mod mirror;
pub mod module_info;
pub mod modules;
pub mod output;
pub mod output_folder;
pub mod overlay;
pub mod patches;
pub mod pool;
pub mod profile;
pub mod programs;
pub mod region;
pub mod report_partition;
pub mod reproducible;
pub mod resolve;
pub mod root;
pub mod sandbox;
pub mod sbat;
pub mod space;
pub mod split_report;
pub mod squashfs;
pub mod template;
pub mod tree;
pub mod unpack;
