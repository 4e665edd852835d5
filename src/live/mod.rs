//! What makes the validator an init. It is the only part of gdsboot that changes the machine it runs on, and [`init`]
//! is its only way in.

mod benchmark;
mod blank;
mod console;
mod init;
mod journal;
mod kernel_log;
mod luggage;
mod module_loader;
mod mounts;
mod nvidia_nodes;
mod params;
mod partition;
mod power;
mod report_partition;
mod scratch;
mod scratch_disk;
mod scratch_filesystem;
mod settings;
mod shell;
mod switch_root;
mod udev;
mod verify;

pub use init::init;
