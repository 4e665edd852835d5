//! A command line of QEMU: text as in a shell script, or `/proc/PID/cmdline` (qemu-system-x86_64(1)).
//!
//! `-readconfig` files are not read. Proxmox' own (`pve-q35*.cfg`) is known: it makes four root ports.

mod arguments;
mod devices;
mod drives;
mod options;
mod script;
#[cfg(test)]
mod tests;

use super::machine::{Firmware, Kind, Machine};
use anyhow::{Context as _, Result};
use arguments::Parser;
use script::{of_process, of_script};

/// Reads a command line.
///
/// # Errors
/// It has no QEMU in it, or ends within quotes.
pub fn parse(from: &str, text: &[u8]) -> Result<Machine> {
    let by_shell = !text.contains(&0);
    let (program, words) = if by_shell { of_script(text)? } else { of_process(text)? };
    let mut machine = Machine::new(Kind::Qemu, from);
    // Where nothing is said, the program's name decides (QEMU: system/vl.c, configure_accelerators).
    machine.accelerated = program.ends_with("kvm");
    machine.firmware = Some(Firmware::Bios);
    Parser { machine: &mut machine, is_accelerator_said: false, by_shell }.arguments(&words)?;
    Ok(machine)
}

/// Adds what Proxmox' `args` say to a machine, or libvirt's `<qemu:commandline>`. No shell reads these.
///
/// # Errors
/// They end within quotes.
pub fn add(machine: &mut Machine, args: &str) -> Result<()> {
    let words = shlex::split(args).context("the quotes are not closed")?;
    Parser { machine, is_accelerator_said: false, by_shell: false }.arguments(&words)
}
