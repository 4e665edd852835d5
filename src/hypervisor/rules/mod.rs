//! The rules for a virtual machine's configuration. Where a guest can see the same, the id is that of the guest's check, so
//! that one answers the other's question.

mod devices;
mod disks;
mod machine;
mod memory;
mod pairs;

pub use memory::best_page;

use super::context::Context;
use super::machine::Kind;
use crate::checks::check::{Outcome, Remedy, Severity, Who};

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
    machine::GUEST,
    memory::RULES,
    pairs::RULES,
    disks::RULES,
    machine::NOTES,
];

/// All rules in the register's order.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    REGISTER.iter().copied().flatten()
}

/// A remedy in the words of whoever wrote the configuration; `VMID` stands for the machine's number.
fn fix(context: &Context<'_>, text: &str, proxmox: &str, libvirt: &str, qemu: &str) -> Remedy {
    let remedy = Remedy::new(Who::VmConfiguration, text);
    let command = match context.machine.kind {
        Kind::Proxmox => proxmox.replace("VMID", &context.vmid()),
        Kind::Libvirt => libvirt.to_owned(),
        Kind::Qemu => qemu.to_owned(),
    };
    if command.is_empty() { remedy } else { remedy.command(command) }
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
