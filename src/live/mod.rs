//! What makes the validator an init. It is the only part of gdsboot that changes the machine it runs on, and [`init`]
//! is its only way in. [`complaints`] is for those who write its settings.

mod benchmark;
mod blank;
mod console;
mod curl;
mod delivery;
mod init;
mod iso_root;
mod journal;
mod kernel_log;
mod luggage;
mod memory_disk;
mod module_loader;
mod mounts;
mod network;
mod network_root;
mod nvidia_nodes;
mod params;
mod partition;
mod power;
mod report_partition;
mod report_search;
mod scratch;
mod scratch_disk;
mod scratch_filesystem;
mod settings;
mod shell;
mod switch_root;
mod udev;
mod verify;
mod whereabouts;

pub use init::init;
pub use settings::complaints;
