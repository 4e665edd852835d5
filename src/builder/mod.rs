//! From named inputs to one disk image.

pub mod bios_boot;
pub mod boot_menu;
pub mod content;
pub mod disk;
pub mod esp;
pub mod fat;
pub mod region;
pub mod report_partition;
pub mod sbat;
pub mod template;
