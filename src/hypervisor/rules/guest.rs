//! What the guest's kernel meets besides its devices: the hypervisor, an IOMMU, encryption, Secure Boot.

use super::{Do, Rule, fix};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::checks::iommu::OF_GUEST;
use crate::hypervisor::context::Context;
use crate::hypervisor::machine::Firmware;
use crate::pasteable::pasteable;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "vm.hidden",
        title: "the guest may know that it is a guest",
        requires: &[],
        severity: Severity::Minor,
        rationale: "NVIDIA's drivers work in guests since 2021. Where KVM's CPUID leaf is hidden (kvm=off) they take no notice of \
                    cliques; where the bit is hidden by which a guest knows that it is one (-hypervisor), nvidia-fs cannot \
                    tell that addresses are a guest's.",
        references: &[
            "open-gpu-kernel-modules: p2p_caps.c, pHypervisor->bDetected",
            "gds-nvidia-fs: nvfs-core.c, X86_FEATURE_HYPERVISOR",
        ],
        run: hidden,
    },
    Rule {
        id: "iommu.guest",
        title: OF_GUEST.title,
        requires: &[],
        severity: Severity::Major,
        rationale: OF_GUEST.rationale,
        references: OF_GUEST.references,
        run: viommu,
    },
    Rule {
        id: "vm.confidential",
        title: "the guest is not a confidential machine",
        requires: &[],
        severity: Severity::Major,
        rationale: "In a confidential machine devices reach neither each other's memory nor the guest's own: everything goes \
                    through bounce buffers.",
        references: &[
            "open-gpu-kernel-modules: kern_bus_tu102.c, kbusIsStaticBar1Supported_TU102",
            "arch/x86/coco/core.c",
        ],
        run: confidential,
    },
    Rule {
        id: "vm.secure-boot",
        title: "modules without a known signature may be loaded",
        requires: &[],
        severity: Severity::Info,
        rationale: "With Microsoft's keys enrolled the guest's kernel takes signed modules only: those that are built on the \
                    machine (DKMS), and those of an image with unsigned modules, are refused.",
        references: &[
            "qemu-server: OVMF.pm, pre-enrolled-keys",
            "kernel: Documentation/admin-guide/module-signing.rst",
        ],
        run: secure_boot,
    },
];

fn hidden(context: &Context<'_>) -> Outcome {
    let cpu = &context.machine.cpu;
    let why = match (cpu.hidden, cpu.no_hypervisor) {
        (false, false) if cpu.is_custom() => {
            return Outcome::unknown(format!(
                "whether {} hides KVM stands in Proxmox' list of models",
                cpu.model
            ));
        }
        (false, false) => return Outcome::pass("the guest sees its hypervisor"),
        (true, false) => {
            "KVM is hidden from the guest: NVIDIA's driver takes no notice of cliques, and needs no hiding any more"
        }
        (_, true) => {
            "the guest is not told that it is one: nvidia-fs takes its addresses for a machine's, and NVIDIA's driver needs no hiding any more"
        }
    };
    let line = shown(context);
    let proxmox = match line.as_str() {
        "" => Do::Words("remove kvm=off and -hypervisor from -cpu in args"),
        line => Do::Line(line),
    };
    Outcome::fail(why).expected("visible").actual("hidden").remedy(fix(
        context,
        "show the guest its hypervisor",
        proxmox,
        Do::Words(
            "<hidden state='off'/> in <kvm>, and no <feature policy='disable' name='hypervisor'/> in <cpu>",
        ),
        Do::Words("-cpu without kvm=off and -hypervisor"),
    ))
}

/// Proxmox' command that hides KVM no more: `hidden=1` goes, and so do all that hide it by themselves. Empty where it is hidden
/// by `args`.
fn shown(context: &Context<'_>) -> String {
    let cpu = &context.machine.cpu;
    let kept = cpu.written.split(',').map(str::trim).filter(|part| !part.starts_with("hidden="));
    let kept = kept.collect::<Vec<_>>().join(",");
    let by_cpu = (kept != cpu.written).then(|| format!(" -cpu {}", pasteable([kept])));
    let displays =
        context.machine.passed.iter().filter(|passed| passed.display && !passed.written.is_empty());
    let by_displays =
        displays.filter_map(|passed| Some((&passed.name, passed.rewritten(&[("x-vga", None)])?)));
    let by_displays = by_displays.map(|(name, line)| format!(" -{name} {}", pasteable([line])));
    let changes: String = by_displays.chain(by_cpu).collect();
    // What -cpu in args says takes the place of all that Proxmox says.
    match cpu.no_hypervisor || !cpu.hidden || changes.is_empty() {
        true => String::new(),
        false => format!("qm set VMID{changes}"),
    }
}

fn viommu(context: &Context<'_>) -> Outcome {
    let Some(model) = &context.machine.viommu else { return Outcome::pass("the guest has no IOMMU") };
    let line = format!("qm set VMID -machine {}", pasteable([&context.machine.board]));
    // Proxmox' own are called intel and virtio.
    let proxmox = match model.contains("-iommu") {
        true => Do::Words("remove -device intel-iommu, amd-iommu or virtio-iommu from args"),
        false => Do::Line(&line),
    };
    Outcome::fail(format!("the guest has an IOMMU of its own ({model})"))
        .expected("none")
        .actual(model)
        .remedy(fix(
            context,
            "take the virtual IOMMU away",
            proxmox,
            Do::Words("remove <iommu> from <devices>"),
            Do::Words("remove -device intel-iommu, amd-iommu or virtio-iommu"),
        ))
}

fn confidential(context: &Context<'_>) -> Outcome {
    let Some(what) = &context.machine.confidential else {
        return Outcome::pass("the guest's memory is not encrypted");
    };
    Outcome::fail(format!("the guest's memory is encrypted ({what}): devices copy through bounce buffers"))
        .expected("none")
        .actual(what)
        .remedy(fix(
            context,
            "run GPUDirect Storage in a machine without confidential computing",
            if what.starts_with("Intel TDX") {
                "qm set VMID -delete intel-tdx"
            } else {
                "qm set VMID -delete amd-sev"
            },
            Do::Words("remove <launchSecurity>"),
            Do::Words("remove confidential-guest-support from -machine"),
        ))
}

fn secure_boot(context: &Context<'_>) -> Outcome {
    if context.machine.firmware == Some(Firmware::Bios) {
        return Outcome::not_applicable("SeaBIOS knows no Secure Boot");
    }
    if !context.machine.secure_boot {
        return Outcome::pass("no keys are enrolled: Secure Boot is off");
    }
    Outcome::fail("Secure Boot's keys are enrolled: the guest's kernel loads signed modules only")
        .expected("no keys, or an image whose modules are signed")
        .remedy(Remedy::new(
            Who::Guest,
            "use an image with signed modules: the profiles ubuntu-24.04 and ubuntu-22.04 have them",
        ))
        .remedy(fix(
            context,
            "or start the guest without keys",
            "qm set VMID -delete efidisk0 && qm set VMID -efidisk0 STORAGE:1,efitype=4m,pre-enrolled-keys=0",
            "<os firmware='efi'><firmware><feature enabled='no' name='enrolled-keys'/></firmware></os>",
            Do::Words("file=OVMF_VARS_4M.fd instead of OVMF_VARS_4M.ms.fd"),
        ))
}
