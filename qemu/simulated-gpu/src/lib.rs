//! A PCI function that NVIDIA's real driver takes for a GPU, and the audio function beside it, presented to QEMU over
//! vfio-user: for tests of everything that looks at a GPU from outside, on a machine that has none.
//!
//! A [`Model`] is data: ids, windows, link and the two registers by which the driver knows the chip. [`Options`] say what
//! is to be different this time, faults included. Together they make one [`Function`] or two, and each of them is served
//! to one QEMU on a socket of its own by [`serve`], on a thread of its own. [`qemu`] has the arguments that attach it.
//!
//! ```no_run
//! use simulated_gpu::{Model, Options, functions, qemu, serve};
//! use std::{path::Path, process::Command, time::Duration};
//!
//! let options = Options { bar1: "256M".parse().ok(), ..Options::default() };
//! let gpu = functions(&Model::named("h100-pcie")?, &options)?.remove(0);
//! let socket = Path::new("gpu.sock");
//! let device = qemu::device(&gpu, false, "pcie.0", 5, socket);
//! let server = serve(socket, gpu)?;
//! let (memory, property) = qemu::shared_memory(2048);
//! let machine = format!("q35,{property}");
//! let mut qemu = Command::new("qemu-system-x86_64");
//! let status = qemu.args(memory).args(["-m", "2G", "-machine", &machine, "-device", &device]).status()?;
//! assert!(status.success() && server.seen().register_reads > 0);
//! server.stop(Duration::from_secs(5))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here computes, moves data or proves anything. Every function carries two marks by which a guest can tell:
//! [`capabilities::MARK`] and a serial number that begins with [`capabilities::SERIAL`].

pub mod capabilities;
pub mod config_space;
mod device;
mod error;
mod function;
mod link;
mod memory;
mod model;
pub mod qemu;
mod server;
mod size;

pub use error::{Error, Result};
pub use function::{Bar, Fault, Function, Options, SMALL_BAR1, functions};
pub use link::Link;
pub use model::{Audio, Model, SizeRange};
pub use server::{Seen, Server, serve};
pub use size::Size;
