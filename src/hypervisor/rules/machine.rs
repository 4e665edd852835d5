//! The machine itself: board, accelerator, CPU.

use super::{Rule, fix};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::hypervisor::context::Context;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "vm.accepted",
        title: "the hypervisor accepts the configuration",
        requires: &[],
        severity: Severity::Blocker,
        rationale: "What a hypervisor refuses to define or to start is no virtual machine, whatever else is right with it.",
        references: &[
            "qemu-server: Memory.pm, config, hugepages_topology",
            "libvirt: qemu_validate.c, qemuValidateDomainDefSysinfo",
        ],
        run: accepted,
    },
    Rule {
        id: "vm.machine-type",
        title: "the virtual machine is a q35",
        requires: &[],
        severity: Severity::Major,
        rationale: "QEMU's older machine, i440fx, has no PCI Express: devices that are passed through hang on a \
                    conventional bus.",
        references: &["QEMU: docs/pcie.txt", "Proxmox VE: PCI(e) Passthrough"],
        run: machine_type,
    },
    Rule {
        id: "vm.emulator",
        title: "the CPU is real",
        requires: &[],
        severity: Severity::Major,
        rationale: "Without hardware virtualisation QEMU translates every instruction, and vfio-pci cannot be used well.",
        references: &["QEMU: accel/tcg", "Proxmox VE: qm.conf, kvm"],
        run: emulator,
    },
    Rule {
        id: "vm.cpu-type",
        title: "the guest sees the host's CPU",
        requires: &["vm.emulator"],
        severity: Severity::Major,
        rationale: "A CPU model of the hypervisor hides the family by which p2pdma allows AMD Zen, and the address width that \
                    a large BAR needs.",
        references: &[
            "drivers/pci/p2pdma.c: cpu_supports_p2pdma",
            "QEMU: target/i386/host-cpu.c, host_cpu_max_instance_init",
            "Proxmox VE: CPU type",
        ],
        run: cpu_type,
    },
];

fn accepted(context: &Context<'_>) -> Outcome {
    let refused = &context.machine.refused;
    let Some(first) = refused.first() else {
        return Outcome::pass("nothing in it is known to be refused");
    };
    let mut outcome = Outcome::fail(format!("{} refuses {}", context.machine.kind, first.why));
    for refused in refused {
        outcome = outcome
            .evidence(&context.machine.from, &refused.why)
            .remedy(Remedy::new(Who::VmConfiguration, refused.mend.replace("VMID", &context.vmid())));
    }
    outcome
}

fn machine_type(context: &Context<'_>) -> Outcome {
    let machine = context.machine;
    if machine.is_q35() {
        return Outcome::pass(format!("the machine is a {}", machine.board));
    }
    let board = match machine.board.as_str() {
        "" => "QEMU's default (i440fx)",
        "pc" => "pc (i440fx)",
        board => board,
    };
    Outcome::fail(format!("the machine is {board}, which has no PCI Express"))
        .expected("q35")
        .actual(board)
        .evidence(&machine.from, format!("machine type {board}"))
        .remedy(fix(
            context,
            "change the machine's type; the guest's devices get other addresses by it",
            "qm set VMID -machine q35",
            "<os><type arch='x86_64' machine='q35'>hvm</type></os>",
            "-machine q35,accel=kvm",
        ))
}

fn emulator(context: &Context<'_>) -> Outcome {
    if context.machine.accelerated {
        return Outcome::pass("KVM executes the guest");
    }
    Outcome::fail("QEMU emulates the CPU (TCG): no measurement on this machine means anything")
        .expected("KVM")
        .actual("TCG")
        .remedy(fix(
            context,
            "run the virtual machine with KVM",
            "qm set VMID -kvm 1",
            "<domain type='kvm'>",
            "-accel kvm",
        ))
}

fn cpu_type(context: &Context<'_>) -> Outcome {
    let cpu = &context.machine.cpu;
    let proper = || {
        fix(
            context,
            "show the guest the host's CPU with the host's width of addresses",
            "qm set VMID -cpu host",
            "<cpu mode='host-passthrough' check='none'><maxphysaddr mode='passthrough'/></cpu>",
            "-cpu host,host-phys-bits=on",
        )
    };
    let hand_in = || {
        Remedy::new(Who::Hypervisor, "check on the hypervisor itself, or hand in what is known of it: --host")
            .command("gdsboot-validator facts --json > host.json")
    };
    if cpu.is_custom() {
        return Outcome::unknown(format!("what CPU {} is, stands in Proxmox' list of models", cpu.model))
            .remedy(
                Remedy::new(
                    Who::Hypervisor,
                    "look what model it reports, and how many bits of address it has",
                )
                .command("cat /etc/pve/virtual-guest/cpu-models.conf"),
            );
    }
    if cpu.is_zen_on_zen() && cpu.is_wide() {
        match context.is_zen() {
            Some(true) => {
                return Outcome::pass(format!(
                    "the guest's CPU is {}, with the family of a Zen and wide addresses",
                    cpu.model
                ));
            }
            None => {
                return Outcome::unknown(format!(
                    "the guest's CPU is {}: enough on an AMD Zen, and what the host's is, is not known here",
                    cpu.model
                ))
                .remedy(hand_in());
            }
            Some(false) => {}
        }
    }
    if !cpu.is_host() {
        let model = if cpu.model.is_empty() { "the hypervisor's default" } else { cpu.model.as_str() };
        return Outcome::fail(format!(
            "the guest's CPU is {model}, which hides the host's family and address width"
        ))
        .expected("host")
        .actual(model)
        .remedy(proper());
    }
    match cpu.phys_bits {
        Some(bits) if bits <= 40 => Outcome::fail(format!(
            "the guest sees the host's CPU with {bits} bits of address, too few for large BARs"
        ))
        .expected("the host's width of addresses")
        .actual(format!("{bits} bits"))
        .remedy(proper()),
        Some(bits) => Outcome::pass(format!("the guest sees the host's CPU with {bits} bits of address")),
        None => Outcome::pass("the guest sees the host's CPU"),
    }
}
