//! The nvfs route: nvidia-fs, and an nvme driver with its hook.

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, hook, moot, other_is_complete};
use super::said::{at_least, find, heard_cufile, silence, with_lines};
use crate::facts::Fact;
use crate::facts::modules::LoadOutcome;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "nvidia-fs.symbols",
        title: "nvidia-fs fits the NVIDIA driver",
        sides: WHERE_GDS_RUNS,
        requires: &["kernel.module-signature", "driver.loaded", "driver.open"],
        severity: Severity::Major,
        rationale: "nvidia-fs links nvidia_p2p_* of the driver that it was built with; built without its symbols it loads \
                    nowhere.",
        references: &["gds-nvidia-fs: README", "gds-nvidia-fs issue 72"],
        covers: &["signature 18"],
        run: symbols,
    },
    Check {
        id: "nvidia-fs.loaded",
        title: "nvidia-fs is loaded",
        sides: WHERE_GDS_RUNS,
        requires: &["kernel.module-signature", "driver.loaded", "nvidia-fs.symbols"],
        severity: Severity::Major,
        rationale: "The nvfs route is a kernel module between cuFile, the nvme driver and the NVIDIA driver.",
        references: &["docs.nvidia.com/gpudirect-storage: installing"],
        covers: &["guide: nvidia-fs present", "gds-diag: nvidia-fs"],
        run: loaded,
    },
    Check {
        id: "nvidia-fs.version",
        title: "nvidia-fs is new enough for this kernel",
        sides: WHERE_GDS_RUNS,
        requires: &["nvidia-fs.loaded"],
        severity: Severity::Major,
        rationale: "Each nvidia-fs knows kernels up to some version; on newer ones it fails to pin pages, or does worse.",
        references: &["gds-nvidia-fs: ChangeLog"],
        covers: &["guide: nvidia-fs version", "signature 19", "gds-diag: nvidia-fs version"],
        run: version,
    },
    Check {
        id: "nvidia-fs.pinning",
        title: "nvidia-fs can pin GPU memory",
        sides: WHERE_GDS_RUNS,
        requires: &["nvidia-fs.loaded", "nvidia-fs.version"],
        severity: Severity::Major,
        rationale: "Every transfer begins with pinning GPU memory; where that fails cuFile copies by the CPU.",
        references: &["gds-nvidia-fs: nvfs-core.c"],
        covers: &["signature 19"],
        run: pinning,
    },
    Check {
        id: "nvme.hook-version",
        title: "nvme's hook is the one that nvidia-fs looks for",
        sides: WHERE_GDS_RUNS,
        requires: &["nvidia-fs.loaded"],
        severity: Severity::Major,
        rationale: "DOCA-OFED 26.01 exports nvme_v2_register_nvfs_dma_ops to an nvidia-fs that looks for v1; everything is \
                    then copied by the CPU, in silence.",
        references: &["gds-nvidia-fs issue 87"],
        covers: &["signature 38"],
        run: hook_version,
    },
    Check {
        id: "nvme.hook",
        title: "the nvme driver has nvidia-fs's hook",
        sides: WHERE_GDS_RUNS,
        requires: &["kernel.routes", "nvidia-fs.loaded", "nvme.hook-version"],
        severity: Severity::Major,
        rationale: "nvidia-fs reaches NVMe only through a patched nvme driver; next to a stock one it loads happily, and every \
                    byte is copied by the CPU.",
        references: &["gds-nvidia-fs: nvfs-dma.c", "docs.nvidia.com/gpudirect-storage: NVMe and NVMe-oF"],
        covers: &["guide: nvme patched", "signature 17", "gds-diag: nvme direct path"],
        run: nvme_hook,
    },
];

/// A route's missing piece is no failure where the other route is complete.
fn unless_other(context: &Context<'_>, outcome: Outcome) -> Outcome {
    if other_is_complete(context, Direct::Nvfs) {
        return Outcome::note(format!("{}; the P2PDMA route does without", outcome.why));
    }
    outcome
}

fn reinstall() -> Remedy {
    Remedy::new(
        Who::Guest,
        "install an nvidia-fs that was built for this kernel and against this driver's symbols",
    )
    .command("apt install linux-modules-nvidia-fs-$(uname -r)")
}

fn symbols(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "nvidia_fs: Unknown symbol",
            "nvidia_fs: no symbol version",
            "nvidia_fs: disagrees about version",
            "modpost*nvidia_p2p*undefined",
        ],
    );
    let is_in = context.has_module("nvidia_fs") == Some(true);
    if said.is_empty() || is_in {
        return match is_in {
            true => Outcome::pass("nvidia-fs found the driver's symbols"),
            false => silence(context, "nvidia-fs did not miss a symbol"),
        };
    }
    let outcome = Outcome::fail(
        "nvidia-fs does not fit the NVIDIA driver: it was built without its symbols, or for another one",
    )
    .remedy(reinstall())
    .remedy(
        Remedy::new(Who::Guest, "or build it again with the open driver's source and Module.symvers at hand")
            .command("dkms build nvidia-fs/VERSION -k $(uname -r) --force"),
    );
    unless_other(context, with_lines(outcome, &said))
}

fn loaded(context: &Context<'_>) -> Outcome {
    if context.has_module("nvidia_fs") == Some(true) || context.facts.nvidia_fs.version.value().is_some() {
        let version = context.facts.nvidia_fs.version.value().map_or("", String::as_str);
        return Outcome::pass(format!("nvidia-fs {version} is loaded"));
    }
    if context.facts.gdscheck.value().is_some_and(|answer| answer.nvidia_fs.is_some()) {
        return Outcome::pass("gdscheck talked to nvidia-fs");
    }
    if let Some(moot) = moot(context, Direct::Nvfs) {
        return moot;
    }
    let refused = context.facts.module_loads.value().into_iter().flatten().find_map(|load| {
        let ours = load.name.replace('-', "_") == "nvidia_fs" && !load.outcome.is_in();
        let own = !matches!(load.outcome, LoadOutcome::Dependency { .. });
        (ours && own).then(|| load.outcome.words())
    });
    match (context.has_module("nvidia_fs"), refused) {
        (_, Some(words)) => {
            Outcome::fail(format!("nvidia-fs could not be loaded: {words}")).remedy(reinstall())
        }
        (Some(false), None) => Outcome::fail("nvidia-fs is not loaded, and the nvfs route needs it")
            .remedy(Remedy::new(Who::Guest, "load it").command("modprobe nvidia-fs"))
            .remedy(reinstall())
            .remedy(Remedy::new(Who::Guest, "or use the kernel's P2PDMA, which does without (see p2pdma.*)")),
        (_, None) => Outcome::unknown(format!(
            "whether nvidia-fs is loaded cannot be seen: {}",
            context.facts.modules.as_ref().map(|_| "")
        )),
    }
}

/// The first nvidia-fs that knows a kernel (its ChangeLog).
const KERNELS: [(&[u32], &[u32]); 7] = [
    (&[6, 2], &[2, 18, 3]),
    (&[6, 5], &[2, 19, 6]),
    (&[6, 6], &[2, 19, 7]),
    (&[6, 11], &[2, 26, 6]),
    (&[6, 14], &[2, 26, 6]),
    (&[6, 17], &[2, 28, 2]),
    (&[7, 0], &[2, 29]),
];

fn version(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let Fact::Known { value: version, from } = &facts.nvidia_fs.version else {
        return Outcome::unknown(format!("nvidia-fs's version cannot be seen: {}", facts.nvidia_fs.version));
    };
    let Fact::Known { value: release, .. } = &facts.kernel.release else {
        return Outcome::unknown(format!("the kernel's version cannot be seen: {}", facts.kernel.release));
    };
    // Enterprise kernels carry newer code under old numbers, and distributions carry fixes in old modules.
    let needed =
        KERNELS.iter().rev().find(|(kernel, _)| at_least(release, kernel) == Some(true)).map(|(_, fs)| *fs);
    match needed {
        Some(needed) if at_least(version, needed) == Some(false) => {
            let needed = needed.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
            let why = format!(
                "nvidia-fs {version} does not know kernel {release}; the first that does is {needed}"
            );
            let outcome = if context.has_module("nvidia_fs") == Some(true) {
                // It was built and it loads: somebody carried the fix back, or it fails when it is used.
                Outcome::note(why)
            } else {
                Outcome::fail(why).remedy(reinstall())
            };
            outcome.expected(format!("nvidia-fs {needed} or newer")).actual(version).evidence(from, version)
        }
        _ => Outcome::pass(format!("nvidia-fs {version} knows kernel {release}")),
    }
}

fn pinning(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "Unable to pin shadow buffer pages",
            "nvfs_map*Error nvfs_setup_shadow_buffer",
            "nvfs_mgroup_pin_shadow_pages*ret",
        ],
    );
    if said.is_empty() {
        return silence(context, "nvidia-fs did not fail to pin memory");
    }
    let outcome = Outcome::fail("nvidia-fs cannot pin GPU memory on this kernel: it is older than 2.26.6")
        .expected("nvidia-fs 2.26.6 or newer")
        .remedy(reinstall());
    unless_other(context, with_lines(outcome, &said))
}

/// `nvme_v1_register_nvfs_dma_ops` -> `v1`.
fn generation(symbol: &str) -> Option<&str> {
    let rest = symbol.strip_prefix("nvme_")?;
    let (version, _) = rest.split_once("_register_nvfs_dma_ops")?;
    Some(version)
}

fn hook_version(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let has: Vec<&str> = facts
        .kernel
        .symbols
        .value()
        .map(|symbols| symbols.nvfs_hooks.iter().filter_map(|hook| generation(hook)).collect())
        .unwrap_or_default();
    let wants: Vec<&str> =
        facts.nvidia_fs_wants.value().into_iter().flatten().filter_map(|hook| generation(hook)).collect();
    if has.is_empty() || wants.is_empty() {
        return Outcome::not_applicable("there is no hook to be compared with what nvidia-fs looks for");
    }
    if has.iter().any(|version| wants.contains(version)) {
        return Outcome::pass(format!("both speak {}", has.join(", ")));
    }
    let outcome = Outcome::fail(format!(
        "nvme exports nvidia-fs's hook in version {}, but nvidia-fs looks for {}: the CPU copies everything, in silence",
        has.join(", "),
        wants.join(", ")
    ))
    .expected(format!("nvme_{}_register_nvfs_dma_ops", wants[0]))
    .actual(format!("nvme_{}_register_nvfs_dma_ops", has[0]))
    .evidence("/proc/kallsyms", format!("nvme_{}_register_nvfs_dma_ops", has[0]))
    .remedy(Remedy::new(Who::Guest, "install DOCA-OFED 26.04 or newer, or an nvidia-fs that looks for this version"));
    unless_other(context, outcome)
}

fn nvme_hook(context: &Context<'_>) -> Outcome {
    let said = find(context, &["NVMe Driver not registered with nvidia-fs"]);
    if said.is_empty() && hook(context) == Some(true) {
        return Outcome::pass("the nvme driver carries nvidia-fs's hook");
    }
    // Who was told this by cuFile meant to use nvidia-fs.
    if let Some(moot) = moot(context, Direct::Nvfs).filter(|_| said.is_empty()) {
        return moot;
    }
    if said.is_empty() && hook(context).is_none() {
        let why = "whether the nvme driver has nvidia-fs's hook cannot be seen";
        let ask = Remedy::new(Who::Guest, "look for it").command("sudo grep nvfs_dma_ops /proc/kallsyms");
        return if heard_cufile(context) && context.facts.gdscheck.value().is_some() {
            Outcome::unknown(format!("{why}; gdscheck's answer is judged by gds.nvme"))
        } else {
            Outcome::unknown(why).remedy(ask)
        };
    }
    let outcome = Outcome::fail(
        "the nvme driver is a stock one without nvidia-fs's hook, so nvidia-fs cannot reach the drive: the CPU copies everything",
    )
    .expected("nvme_v1_register_nvfs_dma_ops or nvme_v2_register_nvfs_dma_ops among the kernel's symbols")
    .remedy(
        Remedy::new(Who::Guest, "run a kernel whose nvme driver is patched: Ubuntu's linux-nvidia flavour")
            .command("apt install linux-nvidia"),
    )
    .remedy(Remedy::new(Who::Guest, "or install DOCA's patched driver").command("apt install mlnx-nvme-dkms"))
    .remedy(Remedy::new(
        Who::Guest,
        "or use the kernel's P2PDMA instead, which works with a stock nvme driver (see p2pdma.*)",
    ));
    unless_other(context, with_lines(outcome, &said))
}
