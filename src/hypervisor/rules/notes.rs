//! What should be known of the configuration itself.

use super::{Rule, some};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::hypervisor::context::Context;
use crate::hypervisor::machine::Kind;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "vm.pending",
        title: "no change waits for the next start",
        requires: &[],
        severity: Severity::Info,
        rationale: "Proxmox keeps changes to a running machine aside until it starts again: what is judged here is what runs.",
        references: &["Proxmox VE: qm pending"],
        run: pending,
    },
    Rule {
        id: "vm.understood",
        title: "all of the configuration is understood",
        requires: &[],
        severity: Severity::Info,
        rationale: "What is not known here may matter all the same.",
        references: &["qm.conf(5)", "libvirt: formatdomain", "qemu-system-x86_64(1)"],
        run: understood,
    },
];

fn pending(context: &Context<'_>) -> Outcome {
    let pending = &context.machine.pending;
    if context.machine.kind != Kind::Proxmox {
        return Outcome::not_applicable("only Proxmox keeps changes aside");
    }
    if pending.is_empty() {
        return Outcome::pass("no change waits");
    }
    let mut outcome = Outcome::note(format!(
        "changes wait for the next start and are not judged: {}",
        some(pending.iter().map(|(key, _)| key.as_str()))
    ))
    .remedy(
        Remedy::new(Who::VmConfiguration, "stop the machine and start it again, then check once more")
            .command(format!("qm shutdown {0} && qm start {0}", context.vmid())),
    );
    for (key, value) in pending {
        let text = if value.is_empty() { "deleted".to_owned() } else { value.clone() };
        outcome = outcome.evidence(format!("{}, [PENDING] {key}", context.machine.from), text);
    }
    outcome
}

fn understood(context: &Context<'_>) -> Outcome {
    let machine = context.machine;
    let strange: Vec<&str> = machine.complaints.iter().chain(&machine.unknown).map(String::as_str).collect();
    if strange.is_empty() {
        let snapshots = match machine.snapshots.len() {
            0 => String::new(),
            count => format!("; {count} snapshots are not looked at"),
        };
        return Outcome::pass(format!("all of it is known{snapshots}"));
    }
    let mut outcome =
        Outcome::note(format!("not understood, and not judged: {}", some(strange.iter().copied())));
    for text in strange {
        outcome = outcome.evidence(&machine.from, text);
    }
    outcome
}
