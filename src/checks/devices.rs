//! GPUs and NVMe controllers: there, placed, linked, healthy.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, Who};
use super::context::Context;
use crate::facts::Fact;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "gpu.present",
        title: "an NVIDIA GPU is visible",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "Without a GPU on the PCI bus there is no GPU memory to transfer into.",
        references: &["Documentation/ABI/testing/sysfs-bus-pci"],
        covers: &["guide: GPU present", "signature 3"],
        run: gpu_present,
    },
    Check {
        id: "nvme.present",
        title: "an NVMe controller is visible",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "GPUDirect Storage reads from NVMe controllers; other disks are copied by the CPU.",
        references: &["NVM Express PCIe Transport Specification: class code 01 08 02"],
        covers: &["guide: NVMe present"],
        run: nvme_present,
    },
];

fn unseen(context: &Context<'_>) -> Option<Outcome> {
    match &context.facts.pci {
        Fact::Known { .. } => None,
        other => {
            Some(Outcome::unknown(format!("PCI devices cannot be seen: {}", other.as_ref().map(|_| ""))))
        }
    }
}

fn gpu_present(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let gpus = context.gpus();
    if let Some(gpu) = gpus.first() {
        return Outcome::pass(format!("{} NVIDIA GPU(s), the first at {}", gpus.len(), gpu.address));
    }
    let outcome =
        Outcome::fail(format!("no NVIDIA GPU is visible among {} PCI functions", context.pci().len()))
            .expected("a PCI function of vendor 10de and class 0300 or 0302")
            .evidence("/sys/bus/pci/devices", format!("{} functions, none of them", context.pci().len()));
    match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(
                Who::VmConfiguration,
                "pass the GPU through to this virtual machine, all of its functions",
            )
            .command("qm set VMID -machine q35 -hostpci0 0000:BB:DD,pcie=1"),
        ),
        Side::Host | Side::BareMetal => outcome
            .remedy(Remedy::new(Who::Hardware, "check that the GPU is seated and has its power cables")),
    }
}

fn nvme_present(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let nvmes = context.nvmes();
    if let Some(nvme) = nvmes.first() {
        return Outcome::pass(format!("{} NVMe controller(s), the first at {}", nvmes.len(), nvme.address));
    }
    let outcome =
        Outcome::fail(format!("no NVMe controller is visible among {} PCI functions", context.pci().len()))
            .expected("a PCI function of class 010802");
    match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(
                Who::VmConfiguration,
                "pass a whole NVMe controller through; a virtual disk is copied by the CPU",
            )
            .command("qm set VMID -hostpci1 0000:BB:DD,pcie=1"),
        ),
        Side::Host | Side::BareMetal => outcome
            .remedy(Remedy::new(Who::Hardware, "check that the NVMe drive is seated and its slot enabled")),
    }
}
