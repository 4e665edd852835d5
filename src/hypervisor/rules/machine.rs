//! The machine itself: board, firmware, CPU; and what the configuration says beyond.

use super::{Do, Rule, fix, fw_cfg, some};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::checks::each::size;
use crate::checks::iommu::OF_GUEST;
use crate::hypervisor::context::{Context, What};
use crate::hypervisor::machine::{Firmware, Kind};
use crate::hypervisor::window::{self, CLASSIC, FW_CFG};
use crate::pasteable::pasteable;

/// The machine before its devices.
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

/// What the guest meets besides its devices.
pub const GUEST: &[Rule] = &[
    Rule {
        id: "vm.firmware",
        title: "OVMF starts the guest",
        requires: &["vm.gpu"],
        severity: Severity::Major,
        rationale: "SeaBIOS has no dependable room for BARs of many GiB, and GPUs for data centres have such.",
        references: &[
            "Proxmox VE: PCI(e) Passthrough, BIOS configuration",
            "edk2: OvmfPkg/RUNTIME_CONFIG.md",
        ],
        run: firmware,
    },
    Rule {
        id: "vm.mmio-window",
        title: "the firmware has room for the GPUs' windows",
        requires: &["vm.gpu", "vm.firmware"],
        severity: Severity::Blocker,
        rationale: "A BAR that finds no place in the guest's 64-bit window is switched off, and NVIDIA's driver refuses the \
                    GPU.",
        references: &[
            "edk2: OvmfPkg/Library/PlatformInitLib/MemDetect.c, PlatformDynamicMmioWindow",
            "edk2 issue 12997",
            "docs/vm.md: the window",
        ],
        run: mmio_window,
    },
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

/// What should be known of the configuration itself.
pub const NOTES: &[Rule] = &[
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

fn firmware(context: &Context<'_>) -> Outcome {
    match context.machine.firmware {
        Some(Firmware::Uefi) => Outcome::pass("OVMF starts the guest"),
        None => Outcome::unknown("the configuration does not say what starts the guest"),
        Some(Firmware::Bios) => {
            let remedy = fix(
                context,
                "start the guest with OVMF; a system that was installed for BIOS does not start by it, gdsboot's image does",
                "qm set VMID -bios ovmf -efidisk0 STORAGE:1,efitype=4m,pre-enrolled-keys=0",
                "<os firmware='efi'>",
                "-drive if=pflash,unit=0,format=raw,readonly=on,file=OVMF_CODE_4M.fd -drive if=pflash,unit=1,format=raw,file=OVMF_VARS_4M.fd",
            );
            match window::needed(context) {
                Some(needed) if needed >= 4 << 30 => Outcome::fail(format!(
                    "SeaBIOS starts the guest, and the devices' windows take {}",
                    size(needed)
                ))
                .expected("OVMF")
                .actual("SeaBIOS")
                .remedy(remedy),
                Some(needed) => Outcome::note(format!(
                    "SeaBIOS starts the guest; the devices' windows take {}",
                    size(needed)
                )),
                None => Outcome::unknown(
                    "SeaBIOS starts the guest, and how large the GPU's windows are is not known here",
                )
                .remedy(remedy)
                .remedy(tell_sizes()),
            }
        }
    }
}

/// How to learn the size of the GPUs' windows.
fn tell_sizes() -> Remedy {
    Remedy::new(
        Who::Hypervisor,
        "check on the hypervisor itself, or hand in what is known of it: --host, or --bar-size",
    )
    .command("gdsboot-validator facts --json > host.json")
    .command("gdsboot vm check FILE --host host.json")
}

fn mmio_window(context: &Context<'_>) -> Outcome {
    let machine = context.machine;
    if machine.firmware != Some(Firmware::Uefi) {
        return Outcome::not_applicable("OVMF does not start the guest");
    }
    let Some(needed) = window::needed(context) else {
        return Outcome::unknown("how large the GPUs' windows are is not known here").remedy(tell_sizes());
    };
    let told = machine
        .told(FW_CFG)
        .map(|text| text.trim().parse::<u64>().ok().and_then(|mib| mib.checked_mul(1 << 20)));
    let asked = told.flatten().unwrap_or(0);
    let dynamic = match (machine.cpu.phys_bits, machine.cpu.is_host() || machine.cpu.host_phys_bits) {
        (Some(bits), _) => Some(window::of_width(bits)),
        // QEMU's default of 40 bits is not believed.
        (None, false) => Some(CLASSIC),
        (None, true) => None,
    };
    let window = dynamic.unwrap_or(CLASSIC).max(asked);
    let mib = window::rounded(needed) >> 20;
    let remedy = fix(
        context,
        "tell OVMF to keep more room, beside what the configuration hands on already, and show the guest the host's CPU",
        &fw_cfg::for_proxmox(machine.args.as_deref(), mib),
        &fw_cfg::for_libvirt(mib),
        &format!("-fw_cfg name={FW_CFG},string={mib}"),
    );
    if told == Some(None) {
        return Outcome::fail(format!(
            "what OVMF is told of its window is no number: {:?}",
            machine.told(FW_CFG).unwrap_or("")
        ))
        .expected(mib.to_string())
        .remedy(remedy);
    }
    if window >= needed {
        return Outcome::pass(format!(
            "the devices' windows take {}, and OVMF has {}",
            size(needed),
            size(window)
        ));
    }
    if dynamic.is_none() && needed <= window::MOST {
        // Eight times the window, in bits.
        let bits = 64 - needed.saturating_sub(1).leading_zeros() + 3;
        return Outcome::note(format!(
            "the devices' windows take {}; OVMF takes 1/8 of what the host's CPU can address, which is enough from {bits} bits on (OVMF of 2023 and later)",
            size(needed)
        ))
        .remedy(remedy)
        .remedy(Remedy::new(Who::Hypervisor, "look how wide the CPU's addresses are").command("grep -m1 'address sizes' /proc/cpuinfo"));
    }
    let window = if dynamic.is_none() { window::MOST } else { window };
    Outcome::fail(format!("the devices' windows take {}, and OVMF has {}", size(needed), size(window)))
        .expected(format!("{} or more", size(needed)))
        .actual(size(window))
        .remedy(remedy)
}

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

/// Are there GPUs?
pub(super) fn has_gpus(context: &Context<'_>) -> bool {
    !context.passed(What::Gpu).is_empty()
}
