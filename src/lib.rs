//! gdsboot builds a small bootable image that proves whether a machine moves data between NVMe and GPU memory by DMA.
//!
//! Where to look:
//!
//! | module | what it is about |
//! |---|---|
//! | [`builder`] | profile -> lock -> pool -> tree -> modules, initramfs, root -> disk |
//! | [`flash`] | writes an image to a stick |
//! | [`hypervisor`] | Proxmox, libvirt and QEMU configurations: parse, check, plan |
//! | [`smoke`] | boots an image in QEMU and reads back what it reported |
//! | [`facts`] | reads a machine, without judging it |
//! | [`topology`] | where devices hang in a machine, and what that means for transfers |
//! | [`checks`] | judges facts |
//! | [`live`] | what makes the validator an init |
//! | [`report`] | the report's model, its renderers, reading it back from a disk image |
//! | [`fleet`] | many reports as one table, and which machines deviate from the others |
//! | [`manual`] | man pages and shell completions, made from the command lines |
//! | [`inspect`] | what an image is and what is on it |
//! | [`http`] | fetches one file by HTTP |
//! | [`redact`] | hides what must not be published |
//! | [`output_stream`] | standard output, which may be closed |
//! | [`boot_contract`] | the names that the builder writes and the live side reads |

pub mod bench;
pub mod boot_contract;
#[cfg(feature = "builder")]
pub mod builder;
pub mod checks;
pub mod error;
pub mod extents;
pub mod facts;
#[cfg(feature = "builder")]
pub mod flash;
#[cfg(feature = "builder")]
pub mod fleet;
pub mod http;
#[cfg(feature = "builder")]
pub mod hypervisor;
#[cfg(feature = "builder")]
pub mod inspect;
#[cfg(feature = "builder")]
pub mod interrupt;
pub mod live;
pub mod manifest;
#[cfg(feature = "builder")]
pub mod manual;
pub mod output_stream;
#[cfg(feature = "builder")]
pub mod parallel;
pub mod pasteable;
pub mod program;
#[cfg(feature = "builder")]
pub mod progress;
pub mod redact;
pub mod report;
#[cfg(feature = "builder")]
pub mod smoke;
pub mod topology;
