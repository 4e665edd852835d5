//! The rules for a virtual machine's configuration. Where a guest can see the same, the id is that of the guest's check, so
//! that one answers the other's question.

mod devices;
mod disks;
mod firmware;
mod fw_cfg;
mod guest;
mod machine;
mod memory;
mod notes;
mod pairs;

pub use memory::best_page;

use super::context::Context;
use super::machine::{Kind, Passed};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::pasteable::pasteable;

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name for programs.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Rules whose failure makes this one moot.
    pub requires: &'static [&'static str],
    /// How much a failure matters.
    pub severity: Severity,
    /// Why it exists.
    pub rationale: &'static str,
    /// Where it comes from.
    pub references: &'static [&'static str],
    /// The rule.
    pub run: fn(&Context<'_>) -> Outcome,
}

/// The register: causes before what follows from them.
const REGISTER: &[&[Rule]] = &[
    machine::RULES,
    devices::RULES,
    firmware::RULES,
    guest::RULES,
    memory::RULES,
    pairs::RULES,
    disks::RULES,
    notes::RULES,
];

/// All rules in the register's order.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    REGISTER.iter().copied().flatten()
}

/// What somebody does in one of the three forms.
#[derive(Clone, Copy)]
enum Do<'a> {
    /// A command, or a line of the configuration; empty where there is none. `VMID` stands for the machine's number.
    Line(&'a str),
    /// What no line can say, in words.
    Words(&'a str),
}

impl<'a> From<&'a str> for Do<'a> {
    fn from(line: &'a str) -> Self {
        Self::Line(line)
    }
}

impl<'a> From<&'a String> for Do<'a> {
    fn from(line: &'a String) -> Self {
        Self::Line(line)
    }
}

/// A remedy in the form that the configuration has.
fn fix<'a>(
    context: &Context<'_>,
    text: &str,
    proxmox: impl Into<Do<'a>>,
    libvirt: impl Into<Do<'a>>,
    qemu: impl Into<Do<'a>>,
) -> Remedy {
    let what = match context.machine.kind {
        Kind::Proxmox => proxmox.into(),
        Kind::Libvirt => libvirt.into(),
        Kind::Qemu => qemu.into(),
    };
    match what {
        Do::Line("") => Remedy::new(Who::VmConfiguration, text),
        Do::Line(line) => {
            Remedy::new(Who::VmConfiguration, text).command(line.replace("VMID", &context.vmid()))
        }
        Do::Words(words) => Remedy::new(Who::VmConfiguration, format!("{text}: {words}")),
    }
}

/// How to learn what a script's shell puts in.
pub(super) fn of_process() -> Remedy {
    let text = "hand in the words of the process that runs: the shell has put in what it puts there";
    Remedy::new(Who::VmConfiguration, text).command("gdsboot vm check /proc/PID/cmdline")
}

/// Proxmox' command that writes a device's line with other properties, and keeps the rest of it; empty for a device of `args`.
fn set_line(passed: &Passed, changes: &[(&str, Option<&str>)]) -> String {
    passed
        .rewritten(changes)
        .map_or_else(String::new, |line| format!("qm set VMID -{} {}", passed.name, pasteable([line])))
}

/// Names, the first few of them.
fn some<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests;
