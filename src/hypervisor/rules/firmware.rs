//! What starts the guest, and the room that it keeps for the devices' windows.

use super::{Rule, fix, fw_cfg};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::checks::each::size;
use crate::hypervisor::context::Context;
use crate::hypervisor::machine::Firmware;
use crate::hypervisor::window::{self, CLASSIC, FW_CFG};

/// The rules of this file.
pub const RULES: &[Rule] = &[
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
];

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
