//! The kernel: does it take modules?

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::said::{find, lines, silence, with_lines};
use crate::facts::modules::LoadOutcome;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "kernel.module-signature",
        title: "the kernel takes the driver's modules",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "Under Secure Boot or lockdown the kernel refuses modules that no key it trusts has signed; DKMS's own \
                    builds are such modules until their key is enrolled.",
        references: &["kernel/module/signing.c: module_sig_check", "security/lockdown/lockdown.c"],
        covers: &["guide: Secure Boot", "signature 1", "gds-diag: secure boot"],
        run: module_signature,
    },
    Check {
        id: "kernel.secure-boot",
        title: "Secure Boot",
        sides: WHERE_GDS_RUNS,
        requires: &["kernel.module-signature"],
        severity: Severity::Info,
        rationale: "Secure Boot is no obstacle by itself, but it decides which modules may be built by hand.",
        references: &["UEFI specification, 3.3: SecureBoot", "mokutil(1)"],
        covers: &["guide: Secure Boot", "signature 1"],
        run: secure_boot,
    },
];

/// Modules that the routes need.
const OURS: [&str; 3] = ["nvidia", "nvfs", "nvme"];

fn module_signature(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let secure_boot = is_secure_boot(context);
    let refused: Vec<&str> = facts
        .module_loads
        .value()
        .into_iter()
        .flatten()
        .filter(|load| match &load.outcome {
            LoadOutcome::Refused { name, .. } => {
                matches!(name.as_str(), "EKEYREJECTED" | "ENOKEY")
                    || (name == "EPERM" && (secure_boot == Some(true) || is_locked_down(context)))
            }
            _ => false,
        })
        .map(|load| load.name.as_str())
        .collect();
    let said: Vec<_> = find(
        context,
        &[
            "key was rejected by service",
            "required key not available",
            "loading of unsigned module is rejected",
            "loading of module with unavailable key is rejected",
            "unsigned module loading is restricted",
        ],
    )
    .into_iter()
    // modprobe names the module; another module's refusal is another matter.
    .filter(|line| !line.text.contains("insert '") || OURS.iter().any(|name| line.text.contains(name)))
    .collect();
    if refused.is_empty() && said.is_empty() {
        // The kernel says so while it takes the module; where it refuses one, the words are others.
        let tainting = find(context, &["module verification failed"]);
        if !tainting.is_empty() {
            let why = "a module that no trusted key has signed was taken nevertheless; under Secure Boot it would not be";
            return with_lines(Outcome::note(why), &tainting);
        }
        if context.has_module("nvidia") == Some(true) {
            return Outcome::pass("the driver's modules were taken");
        }
        return silence(context, "no module was refused for its signature");
    }
    let ours = |name: &str| context.has_module(name) == Some(true);
    if refused.is_empty() && ours("nvidia") && ours("nvidia_fs") {
        let why = "a module was refused for its signature, but the driver and nvidia-fs are loaded now";
        return with_lines(Outcome::note(why), &said);
    }
    let which = if refused.is_empty() { "a module".to_owned() } else { refused.join(", ") };
    let because = match secure_boot {
        Some(true) => "Secure Boot is on, and ",
        _ => "",
    };
    let outcome =
        Outcome::fail(format!("the kernel refused {which}: {because}no key that it trusts has signed it"))
            .expected("modules signed by a key that this kernel trusts")
            .actual(format!(
                "Secure Boot: {}, lockdown: {}",
                match secure_boot {
                    Some(true) => "on",
                    Some(false) => "off",
                    None => "cannot be seen",
                },
                facts.kernel.lockdown
            ))
            .remedy(
                Remedy::new(
                    Who::Guest,
                    "install the prebuilt modules that the distribution has signed for this kernel",
                )
                .command("apt install linux-modules-nvidia-580-open-$(uname -r)"),
            )
            .remedy(
                Remedy::new(
                    Who::Guest,
                    "or enrol the key that signs DKMS's modules, and confirm it at the next boot",
                )
                .command("mokutil --import /var/lib/shim-signed/mok/MOK.der"),
            )
            .remedy(match context.side {
                super::check::Side::BareMetal => {
                    Remedy::new(Who::Bios, "or turn Secure Boot off in the firmware's settings")
                }
                _ => Remedy::new(
                    Who::VmConfiguration,
                    "or give the virtual machine firmware without enrolled keys",
                )
                .command("qm set VMID -efidisk0 STORAGE:1,efitype=4m,pre-enrolled-keys=0"),
            });
    with_lines(outcome, &said)
}

fn is_locked_down(context: &Context<'_>) -> bool {
    context.facts.kernel.lockdown.value().is_some_and(|mode| mode != "none")
}

/// From the firmware's variable, or from what `mokutil --sb-state` printed.
fn is_secure_boot(context: &Context<'_>) -> Option<bool> {
    let kernel = &context.facts.kernel;
    let variable = kernel.secure_boot.value().copied();
    variable
        .or_else(|| {
            lines(context).find_map(|line| match line.text.trim() {
                "SecureBoot enabled" => Some(true),
                "SecureBoot disabled" => Some(false),
                text if text.contains("secureboot: Secure boot enabled") => Some(true),
                text if text.contains("secureboot: Secure boot disabled") => Some(false),
                _ => None,
            })
        })
        // A machine that BIOS started has none.
        .or_else(|| (kernel.uefi.value() == Some(&false)).then_some(false))
}

fn secure_boot(context: &Context<'_>) -> Outcome {
    match is_secure_boot(context) {
        Some(true) => Outcome::note(
            "Secure Boot is on: only signed modules are taken, and none that DKMS builds without an \
                                     enrolled key",
        ),
        Some(false) => Outcome::pass("Secure Boot is off"),
        None => Outcome::unknown(format!(
            "whether Secure Boot is on cannot be seen: {}",
            context.facts.kernel.secure_boot.as_ref().map(|_| "")
        ))
        .remedy(Remedy::new(Who::Guest, "ask the firmware").command("mokutil --sb-state")),
    }
}
