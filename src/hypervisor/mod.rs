//! Proxmox, libvirt and QEMU configurations: parse, check, plan.
//!
//! | file | what it is about |
//! |---|---|
//! | [`machine`] | one model for a configuration, whoever wrote it |
//! | [`proxmox`], [`libvirt`], [`qemu`] | the three forms that are read |
//! | [`source`] | from a file or a number to a machine |
//! | [`context`] | what a rule sees |
//! | [`known`] | facts of another machine, from a report or a capture |
//! | [`window`] | the room that devices' windows take |
//! | [`rules`] | the rules, each with its source |
//! | [`judge`](mod@judge) | from rules to findings and a verdict |
//! | [`plan`] | from a host's devices to a configuration |
//! | [`join`](mod@join) | a guest's report and its host's as one |
//! | [`told`] | what a host tells its guest |
//!
//! A configuration alone proves nothing: its verdict is FAIL where something blocks, and INCOMPLETE otherwise.

pub mod context;
pub mod join;
pub mod judge;
pub mod known;
pub mod libvirt;
pub mod machine;
pub mod plan;
pub mod proxmox;
pub mod qemu;
pub mod rules;
pub mod source;
pub mod told;
pub mod window;
