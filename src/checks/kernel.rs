//! The kernel: does it take modules?

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::said::{find, lines, silence, with_lines};
use crate::facts::Fact;
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
    Check {
        id: "kernel.headers",
        title: "DKMS has built NVIDIA's driver for this kernel",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Major,
        rationale: "After a new kernel DKMS builds the modules again, which it cannot without that kernel's headers.",
        references: &["dkms(8): autoinstall"],
        covers: &["guide: kernel headers", "signature 2"],
        run: headers,
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

fn headers(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    // nvidia-fs is one of two routes, and its own check tells of it.
    let modules: Vec<_> = match &facts.dkms.modules {
        Fact::Known { value, .. } => value.iter().filter(|m| !m.name.starts_with("nvidia-fs")).collect(),
        Fact::Missing { .. } => return Outcome::not_applicable("no module is built on this machine"),
        other => {
            return Outcome::unknown(format!("DKMS cannot be seen: {}", other.as_ref().map(|_| "")));
        }
    };
    let Some(release) = facts.kernel.release.value() else {
        return Outcome::unknown("the kernel's release cannot be seen");
    };
    // Of several versions one is enough.
    let is_built = |name: &str| modules.iter().any(|m| m.name == name && m.kernels.contains(release));
    let Some(module) = modules.iter().find(|module| !is_built(&module.name)) else {
        return if modules.is_empty() {
            Outcome::not_applicable("none of NVIDIA's modules is built on this machine")
        } else {
            Outcome::pass(format!("all of them were built for {release}"))
        };
    };
    let name = &module.name;
    let no_headers = facts.dkms.headers.value() == Some(&false);
    let why = format!(
        "DKMS has not built {name} {} for {release}{}",
        module.version,
        if no_headers { ": that kernel's headers are not installed" } else { "" }
    );
    if context.has_module("nvidia") == Some(true) {
        return Outcome::note(format!("{why}; but nvidia is loaded from elsewhere"));
    }
    let built: Vec<&str> = module.kernels.iter().map(String::as_str).collect();
    let mut remedy = Remedy::new(Who::Guest, "install the headers, and let DKMS build");
    if facts.dkms.headers.value() != Some(&true) {
        remedy = remedy.command("apt install linux-headers-$(uname -r)");
    }
    Outcome::fail(why)
        .expected(format!("{name} built for {release}"))
        .actual(if built.is_empty() {
            "built for no kernel".into()
        } else {
            format!("built for {}", built.join(", "))
        })
        .evidence(format!("/lib/modules/{release}/build"), facts.dkms.headers.to_string())
        .remedy(
            remedy
                .command("dkms autoinstall && modprobe nvidia")
                .command(format!("less /var/lib/dkms/{name}/{}/build/make.log", module.version)),
        )
}
