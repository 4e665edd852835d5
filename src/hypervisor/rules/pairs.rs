//! GPUs and NVMe controllers as the guest will see them, beside what the host has.

use super::{Rule, some};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::hypervisor::context::{Context, What, is_near};
use crate::hypervisor::machine::{Kind, Passed};
use crate::pasteable::pasteable;
use crate::topology::Pair;
use crate::topology::labels::Label;
use crate::topology::p2pdma::P2pdma;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "vm.topology",
        title: "the guest's PCI tree is like the host's",
        requires: &["vm.gpu", "vm.nvme", "vm.pcie"],
        severity: Severity::Major,
        rationale: "cuFile, NCCL and p2pdma choose by the tree that they see. A hypervisor puts every device on its own root \
                    port, whatever the hardware looks like.",
        references: &[
            "qemu-server: PCI.pm, get_pci_addr_map",
            "NVIDIA AI Enterprise: configuring virtual machines, PCIe switches in the guest",
        ],
        run: topology,
    },
    Rule {
        id: "topology.p2pdma",
        title: "the guest's p2pdma lets GPU and NVMe controller meet",
        requires: &["vm.gpu", "vm.nvme", "vm.pcie", "vm.topology"],
        severity: Severity::Major,
        rationale: "p2pdma refuses pairs that share no switch, unless the CPU is an AMD Zen or the host bridge is on its list; \
                    QEMU's is not. nvidia-fs does not ask it.",
        references: &[
            "drivers/pci/p2pdma.c: calc_map_type_and_dist",
            "QEMU: hw/pci-bridge/xio3130_downstream.c, without ACS",
        ],
        run: p2pdma,
    },
    Rule {
        id: "topology.clique",
        title: "GPUs of one guest may reach each other",
        requires: &["vm.gpu"],
        severity: Severity::Info,
        rationale: "In a guest NVIDIA's driver lets GPUs reach each other only where the hypervisor put them into one clique. \
                    Transfers from NVMe do not ask for one.",
        references: &[
            "QEMU: hw/vfio/pci-quirks.c, vfio_add_nv_gpudirect_cap",
            "open-gpu-kernel-modules: p2p_caps.c",
        ],
        run: clique,
    },
];

/// A pair of passed devices.
struct Both<'a> {
    gpu: &'a Passed,
    nvme: &'a Passed,
    guest: Option<Label>,
    host: Option<&'a Pair>,
}

impl Both<'_> {
    fn name(&self) -> String {
        format!("{} and {}", self.gpu.name, self.nvme.name)
    }

    /// The host's word.
    fn label(&self) -> Option<Label> {
        self.host.and_then(|pair| pair.nvidia_smi)
    }

    /// Does the host's hardware pass requests on between them, as far as its kernel knows?
    fn is_passed_on(&self) -> Option<bool> {
        let pair = self.host?;
        if is_near(pair.nvidia_smi) {
            return Some(true);
        }
        match pair.p2pdma {
            P2pdma::Direct | P2pdma::ThroughHostBridge { .. } => Some(true),
            P2pdma::Refused { .. } => Some(false),
            P2pdma::Unknown { .. } => None,
        }
    }
}

fn pairs<'a>(context: &'a Context<'_>) -> Vec<Both<'a>> {
    let nvmes = context.passed(What::Nvme);
    let mut pairs = Vec::new();
    for gpu in context.passed(What::Gpu) {
        for nvme in &nvmes {
            let (guest, host) = (context.guest_label(gpu, nvme), context.host_pair(gpu, nvme));
            pairs.push(Both { gpu, nvme, guest, host });
        }
    }
    pairs
}

/// Hangs two devices below one switch of the guest.
fn switch(context: &Context<'_>, pair: &Both<'_>) -> Remedy {
    let host = |passed: &Passed| {
        let function = context.function(passed).map(|device| &device.address);
        function.or(passed.hosts.first()).cloned().unwrap_or_else(|| "0000:BB:DD.0".into())
    };
    let (gpu, nvme) = (host(pair.gpu), host(pair.nvme));
    let plan = pasteable(["gdsboot", "vm", "plan", "--topology", "switch", "--gpu", &gpu, "--nvme", &nvme]);
    if context.machine.kind != Kind::Proxmox {
        let kind = if context.machine.kind == Kind::Libvirt { "libvirt" } else { "qemu" };
        return Remedy::new(Who::VmConfiguration, "hang both below one emulated switch")
            .command(format!("{plan} --for {kind}"));
    }
    // The plan's script makes a machine of its own, and this number is taken.
    let remedy = Remedy::new(
        Who::VmConfiguration,
        "hang both below one emulated switch: make the machine anew by a plan with another number, or put the devices of the plan's \
         args behind the machine's own, take their lines out, and bind both to vfio-pci as the plan's script does",
    )
    .command(format!("{plan} --for proxmox --vmid NEW -o plan"));
    let mut lines: Vec<&str> = [pair.gpu, pair.nvme]
        .into_iter()
        .filter(|passed| !passed.written.is_empty())
        .map(|passed| passed.name.as_str())
        .collect();
    lines.dedup();
    match lines.as_slice() {
        [] => remedy,
        lines => remedy.command(format!("qm set {} -delete {}", context.vmid(), lines.join(","))),
    }
}

fn words(label: Option<Label>) -> String {
    label.map_or("?".to_owned(), |label| label.to_string())
}

fn topology(context: &Context<'_>) -> Outcome {
    let pairs = pairs(context);
    if pairs.is_empty() {
        return Outcome::unknown("which devices are GPUs and NVMe controllers is not known here");
    }
    let with_evidence = |mut outcome: Outcome| {
        for pair in &pairs {
            let text = format!("guest {}, host {}", words(pair.guest), words(pair.label()));
            outcome = outcome.evidence(pair.name(), text);
        }
        outcome
    };
    if context.host.is_none() {
        return with_evidence(
            Outcome::unknown("the host's PCI tree is not known here").remedy(
                Remedy::new(Who::Hypervisor, "hand in the host's facts with --host")
                    .command("gdsboot-validator facts --json > host.json"),
            ),
        );
    }
    if let Some(pair) =
        pairs.iter().find(|pair| is_near(pair.label()) && pair.guest.is_some() && !is_near(pair.guest))
    {
        let outcome = Outcome::fail(format!(
            "the guest sees {} for {}; the host has them below one switch ({})",
            words(pair.guest),
            pair.name(),
            words(pair.label())
        ))
        .expected("one switch in the guest as well")
        .actual(words(pair.guest))
        .remedy(switch(context, pair));
        // Zen's p2pdma asks for no switch, so that nothing fails by it.
        let outcome = if context.is_zen() == Some(true) { outcome.partial(Severity::Minor) } else { outcome };
        return with_evidence(outcome);
    }
    if let Some(pair) =
        pairs.iter().find(|pair| is_near(pair.guest) && pair.label().is_some() && !is_near(pair.label()))
    {
        return with_evidence(Outcome::note(format!(
            "the guest sees {} for {}, and the host has {}: p2pdma lets them meet, and data goes over the root complex",
            words(pair.guest),
            pair.name(),
            words(pair.label())
        )));
    }
    if pairs.iter().any(|pair| pair.guest.is_none() || pair.label().is_none()) {
        return with_evidence(Outcome::unknown("where some of the devices hang cannot be seen"));
    }
    with_evidence(Outcome::pass(format!(
        "{} of {} pairs are as near in the guest as on the host",
        pairs.len(),
        pairs.len()
    )))
}

fn p2pdma(context: &Context<'_>) -> Outcome {
    let pairs = pairs(context);
    if pairs.is_empty() {
        return Outcome::unknown("which devices are GPUs and NVMe controllers is not known here");
    }
    let unseen = || Outcome::unknown("where some of the devices hang in the guest cannot be seen");
    let apart: Vec<&Both<'_>> =
        pairs.iter().filter(|pair| pair.guest.is_some() && !is_near(pair.guest)).collect();
    let is_seen = pairs.iter().all(|pair| pair.guest.is_some());
    let Some(first) = apart.first() else {
        return if is_seen { Outcome::pass("the pairs share a switch in the guest") } else { unseen() };
    };
    let cpu = &context.machine.cpu;
    match context.is_zen() {
        Some(true) if cpu.is_host() || cpu.is_zen_on_zen() => {
            return Outcome::pass("the CPU is an AMD Zen, which the guest sees: p2pdma asks for no switch");
        }
        Some(true) if cpu.is_custom() => {
            return Outcome::unknown(format!(
                "p2pdma asks for a switch unless the guest sees an AMD Zen; what CPU {} is, stands in Proxmox' list of models",
                cpu.model
            ));
        }
        Some(_) => {}
        None => {
            return Outcome::unknown(
                "p2pdma asks for a switch unless the host's CPU is an AMD Zen, which is not known here",
            )
            .remedy(switch(context, first));
        }
    }
    let names = |pairs: &[&Both<'_>]| {
        let names: Vec<String> = pairs.iter().map(|pair| pair.name()).collect();
        some(names.iter().map(String::as_str))
    };
    // What the hardware could do and the guest's tree forbids is what must be mended.
    let of = |passed_on: Option<bool>| -> Vec<&Both<'_>> {
        apart.iter().copied().filter(|pair| pair.is_passed_on() == passed_on).collect()
    };
    let (lost, unknown) = (of(Some(true)), of(None));
    if let Some(first) = lost.first() {
        return Outcome::fail(format!(
            "the guest's p2pdma refuses pairs that share no switch: {}",
            names(&lost)
        ))
        .expected("one emulated switch")
        .actual("a root port each")
        .remedy(switch(context, first));
    }
    if !is_seen {
        return unseen();
    }
    if apart.len() < pairs.len() {
        return Outcome::note(format!(
            "the guest's p2pdma refuses some of the pairs, which share no switch: {}",
            names(&apart)
        ));
    }
    if let Some(first) = unknown.first() {
        return Outcome::unknown(format!(
            "whether this host's hardware passes requests on between {} is not known",
            names(&unknown)
        ))
        .remedy(switch(context, first));
    }
    Outcome::note(format!(
        "the guest's p2pdma refuses {}, and by the kernel's list this host's hardware does not pass such requests on either: \
         nvidia-fs is the route to try",
        names(&apart)
    ))
}

fn clique(context: &Context<'_>) -> Outcome {
    let gpus = context.passed(What::Gpu);
    if gpus.len() < 2 {
        return Outcome::not_applicable("there is no second GPU");
    }
    let without: Vec<&str> = gpus
        .iter()
        .filter(|gpu| !gpu.properties.contains_key("x-nv-gpudirect-clique"))
        .map(|gpu| gpu.name.as_str())
        .collect();
    if without.is_empty() {
        return Outcome::pass("the GPUs are in cliques");
    }
    Outcome::note(format!(
        "in no clique: {}; they do not reach each other, which transfers from NVMe do not need",
        some(without)
    ))
}
