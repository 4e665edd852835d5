//! The routes that the kernel offers, and the pieces of the one through nvidia-fs.

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, hook, kernel_p2pdma, moot, other_is_complete};
use super::said::{at_least, find, heard_cufile, silence, with_lines};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "route.possible",
        title: "this kernel offers a direct route",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.open"],
        severity: Severity::Blocker,
        rationale: "A transfer is direct through nvidia-fs with its hook in nvme, or through the kernel's PCI P2PDMA; a kernel \
                    with neither copies by the CPU whatever else is set up.",
        references: &["GDS overview guide", "Documentation/driver-api/pci/p2pdma.rst"],
        covers: &["guide: possible routes", "signature 17", "signature 21"],
        run: possible,
    },
    Check {
        id: "nvidia-fs.symbols",
        title: "nvidia-fs fits the driver's symbols",
        sides: WHERE_GDS_RUNS,
        requires: &["kernel.module-signature", "driver.open"],
        severity: Severity::Blocker,
        rationale: "nvidia-fs that was built without the open driver's symbol versions cannot be loaded beside it.",
        references: &["gds-nvidia-fs issue 72"],
        covers: &["guide: nvidia-fs version", "signature 18"],
        run: symbols,
    },
    Check {
        id: "nvidia-fs.loaded",
        title: "nvidia-fs is loaded",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "kernel.module-signature",
            "kernel.headers",
            "driver.loaded",
            "driver.open",
            "route.possible",
            "nvidia-fs.symbols",
        ],
        severity: Severity::Blocker,
        rationale: "The hook in nvme does nothing without nvidia-fs.",
        references: &["GDS installation guide"],
        covers: &["guide: nvidia-fs loaded", "gds-diag: nvidia-fs"],
        run: loaded,
    },
    Check {
        id: "nvidia-fs.version",
        title: "nvidia-fs fits the kernel",
        sides: WHERE_GDS_RUNS,
        requires: &["nvidia-fs.loaded"],
        severity: Severity::Major,
        rationale: "Each kernel needs a nvidia-fs that knows it; an older one loads and then fails to pin memory.",
        references: &["gds-nvidia-fs ChangeLog", "GDS release notes 1.18"],
        covers: &["guide: nvidia-fs version", "signature 19", "gds-diag: nvidia-fs version"],
        run: version,
    },
    Check {
        id: "nvidia-fs.device-nodes",
        title: "cuFile reaches nvidia-fs",
        sides: WHERE_GDS_RUNS,
        requires: &["nvidia-fs.loaded"],
        severity: Severity::Blocker,
        rationale: "cuFile speaks to nvidia-fs through /dev/nvidia-fs*; a container that was not given them, or a user who may \
                    not open them, gets copies by the CPU.",
        references: &["NVIDIA Container Toolkit: NVIDIA_GDS", "kvikio issue 283"],
        covers: &["guide: nvidia-fs loaded"],
        run: device_nodes,
    },
    Check {
        id: "nvme.hook-version",
        title: "nvme's hook is the one that nvidia-fs looks for",
        sides: WHERE_GDS_RUNS,
        requires: &["route.possible", "nvidia-fs.loaded"],
        severity: Severity::Blocker,
        rationale: "nvidia-fs looks for nvme_v1_... or nvme_v2_register_nvfs_dma_ops; where nvme exports the other one, cuFile \
                    falls back in silence.",
        references: &["gds-nvidia-fs issue 87"],
        covers: &["guide: nvme patched", "signature 38"],
        run: hook_version,
    },
    Check {
        id: "nvme.patched",
        title: "nvme carries nvidia-fs's hook",
        sides: WHERE_GDS_RUNS,
        requires: &["route.possible", "nvidia-fs.symbols", "nvme.hook-version"],
        severity: Severity::Blocker,
        rationale: "nvidia-fs reaches NVMe drives only through a hook in the nvme driver that the stock kernel lacks.",
        references: &["gds-nvidia-fs: nvfs-core.c", "GDS troubleshooting guide"],
        covers: &["guide: nvme patched", "signature 17", "gds-diag: nvme patched"],
        run: patched,
    },
];

fn release(context: &Context<'_>) -> &'static str {
    // Only whether it is known matters for the sentence; the release itself is evidence.
    if context.facts.kernel.release.value().is_some() { "this kernel" } else { "the kernel" }
}

/// The two ways out of a kernel without a hook.
fn with_ways_out(outcome: Outcome) -> Outcome {
    outcome
        .remedy(
            Remedy::new(
                Who::Guest,
                "boot NVIDIA's kernel flavour, whose nvme carries the hook, with its nvidia-fs",
            )
            .command("apt install linux-nvidia linux-modules-nvidia-fs-nvidia")
            .command("reboot"),
        )
        .remedy(
            Remedy::new(
                Who::Guest,
                "or use P2PDMA instead, which needs no hook: kernel 6.2 or later, and three settings",
            )
            .command("echo 'options nvme_core multipath=N' > /etc/modprobe.d/nvme.conf")
            .command(super::p2pdma::REGISTRY_KEYS_COMMAND)
            .command("update-initramfs -u -k all; reboot"),
        )
}

fn possible(context: &Context<'_>) -> Outcome {
    let kernel = &context.facts.kernel;
    match (hook(context), kernel_p2pdma(context)) {
        (Some(true), _) => Outcome::pass("its nvme carries nvidia-fs's hook"),
        (_, Some(true)) => Outcome::pass("it has PCI P2PDMA"),
        (Some(false), Some(false)) => with_ways_out(
            Outcome::fail(format!(
                "no direct route exists: {} has no PCI P2PDMA (6.2 or later with CONFIG_PCI_P2PDMA) and its nvme carries no \
                 nvidia-fs hook",
                release(context)
            ))
            .expected("CONFIG_PCI_P2PDMA=y, or nvme_v1_register_nvfs_dma_ops or nvme_v2_register_nvfs_dma_ops")
            .actual(kernel.release.to_string())
            .evidence("/proc/kallsyms", "neither pci_p2pdma_add_resource nor *_register_nvfs_dma_ops")
            .evidence("/proc/sys/kernel/osrelease", kernel.release.to_string()),
        ),
        _ => Outcome::unknown(format!(
            "which direct routes {} has cannot be seen: {}",
            release(context),
            kernel.symbols.as_ref().map(|_| "its nvme module")
        ))
        .remedy(Remedy::new(Who::Guest, "look as root").command(
            "grep -e pci_p2pdma_add_resource -e register_nvfs_dma_ops /proc/kallsyms",
        )),
    }
}

fn symbols(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "nvidia_fs: Unknown symbol",
            "nvidia_fs: no symbol version for",
            "nvidia_fs: disagrees about version of symbol",
            "modpost:*nvidia_p2p*undefined",
        ],
    );
    match context.has_module("nvidia_fs") {
        Some(true) => return Outcome::pass("nvidia-fs is loaded"),
        _ if said.is_empty() => return silence(context, "the kernel missed no symbol for nvidia-fs"),
        _ => {}
    }
    if other_is_complete(context, Direct::Nvfs) {
        return with_lines(
            Outcome::note("nvidia-fs cannot be loaded, but the P2PDMA route is complete"),
            &said,
        );
    }
    let outcome = Outcome::fail(
        "nvidia-fs was built without the symbols of the driver that runs, and cannot be loaded",
    )
    .remedy(
        Remedy::new(Who::Guest, "install the prebuilt nvidia-fs of this kernel")
            .command("apt install linux-modules-nvidia-fs-$(uname -r)"),
    )
    .remedy(
        Remedy::new(Who::Guest, "or build it against the open driver's sources and their Module.symvers")
            .command("NVIDIA_SRC_DIR=/usr/src/nvidia-VERSION/nvidia make -C gds-nvidia-fs/src module"),
    );
    with_lines(outcome, &said)
}

/// Has DKMS nvidia-fs, and not for the kernel that runs?
fn unbuilt(context: &Context<'_>) -> Option<String> {
    let release = context.facts.kernel.release.value()?;
    let modules = context.facts.dkms.modules.value()?.iter();
    let ours: Vec<_> = modules.filter(|module| module.name.starts_with("nvidia-fs")).collect();
    let version = &ours.last()?.version;
    let is_built = ours.iter().any(|module| module.kernels.contains(release));
    (!is_built).then(|| format!("DKMS has not built nvidia-fs {version} for {release}"))
}

fn loaded(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::Nvfs) {
        return moot;
    }
    match context.has_module("nvidia_fs") {
        Some(true) => Outcome::pass("the kernel module nvidia_fs is loaded"),
        Some(false) => {
            let load = context.facts.module_loads.value().into_iter().flatten();
            let load = load.into_iter().find(|load| matches!(load.name.as_str(), "nvidia-fs" | "nvidia_fs"));
            let words = load.map(|load| format!(": {}", load.outcome.words()));
            let unbuilt = unbuilt(context);
            let words = words.or_else(|| unbuilt.as_ref().map(|why| format!(": {why}"))).unwrap_or_default();
            let outcome = Outcome::fail(format!("the kernel module nvidia_fs is not loaded{words}"))
                .expected("nvidia_fs in /proc/modules")
                .remedy(
                    Remedy::new(Who::Guest, "install nvidia-fs for this kernel, and load it")
                        .command("apt install linux-modules-nvidia-fs-$(uname -r)")
                        .command("modprobe nvidia-fs"),
                );
            match unbuilt {
                None => outcome,
                Some(_) => outcome.remedy(
                    Remedy::new(Who::Guest, "or let DKMS build one that knows this kernel")
                        .command("apt install linux-headers-$(uname -r) && dkms autoinstall")
                        .command("less /var/lib/dkms/nvidia-fs/*/build/make.log"),
                ),
            }
        }
        None => Outcome::unknown(format!(
            "the kernel's modules cannot be seen: {}",
            context.facts.modules.as_ref().map(|_| "")
        ))
        .remedy(Remedy::new(Who::Guest, "list them").command("lsmod | grep nvidia_fs")),
    }
}

fn device_nodes(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::Nvfs) {
        return moot;
    }
    if context.has_module("nvidia_fs") == Some(false) {
        return Outcome::not_applicable("nvidia-fs is not loaded");
    }
    let Some(answer) = context.facts.gdscheck.value().filter(|answer| answer.release.is_some()) else {
        return Outcome::unknown("whether cuFile reaches nvidia-fs cannot be seen")
            .remedy(Remedy::new(Who::Guest, "look for its device nodes").command("ls -l /dev/nvidia-fs*"));
    };
    let routes = answer.nvme_routes();
    if answer.nvidia_fs.is_some() || routes.is_none_or(|routes| routes.contains(&"nvfs")) {
        return Outcome::pass("gdscheck speaks to nvidia-fs");
    }
    if context.has_module("nvidia_fs").is_none() {
        return Outcome::unknown("gdscheck sees no nvidia-fs, and whether it is loaded cannot be seen");
    }
    Outcome::fail("nvidia-fs is loaded, but gdscheck does not reach it: its device nodes are not here, or not for this user")
        .expected("a version of nvidia-fs in gdscheck's answer")
        .evidence("/proc/modules", "nvidia_fs")
        .evidence(answer.from.clone(), "no line \"nvidia_fs version\"")
        .remedy(
            Remedy::new(Who::Guest, "in a container: give it the nodes, on its host")
                .command("docker run --gpus all -e NVIDIA_GDS=enabled IMAGE")
                .command("docker run --gpus all $(ls /dev/nvidia-fs* | sed 's/^/--device /') IMAGE"),
        )
        .remedy(
            Remedy::new(Who::Guest, "else see that the nodes are there and that this user may open them")
                .command("ls -l /dev/nvidia-fs*")
                .command("modprobe -r nvidia-fs && modprobe nvidia-fs"),
        )
}

/// Kernels, and the first nvidia-fs that knows them; newest kernel first.
const FIRST_FOR: &[([u32; 2], &[u32])] = &[
    ([7, 0], &[2, 29]),
    ([6, 17], &[2, 28, 2]),
    ([6, 11], &[2, 26, 6]),
    ([6, 6], &[2, 19, 7]),
    ([6, 5], &[2, 19, 6]),
    ([6, 2], &[2, 18, 3]),
];

fn version(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let said = find(
        context,
        &[
            "nvfs_mgroup_pin_shadow_pages*Unable to pin shadow buffer pages",
            "nvfs_map*Error nvfs_setup_shadow_buffer",
        ],
    );
    let told = facts.gdscheck.value().and_then(|answer| answer.nvidia_fs.clone());
    let version = facts.nvidia_fs.version.value().cloned().or(told);
    let remedy = || {
        Remedy::new(Who::Guest, "install the nvidia-fs that belongs to this kernel, and load it anew")
            .command("apt install linux-modules-nvidia-fs-$(uname -r)")
            .command("modprobe -r nvidia-fs && modprobe nvidia-fs")
    };
    if !said.is_empty() {
        let outcome = Outcome::fail(
            "nvidia-fs could not pin its buffers: it is older than 2.26.6, or than this kernel",
        )
        .expected("2.26.6 or later")
        .actual(version.unwrap_or_else(|| "(version not seen)".into()));
        return with_lines(outcome.remedy(remedy()), &said);
    }
    let Some(version) = version else {
        return match context.has_module("nvidia_fs") {
            Some(false) => Outcome::not_applicable("nvidia-fs is not loaded"),
            _ => Outcome::unknown(format!("nvidia-fs's version cannot be seen: {}", facts.nvidia_fs.version)),
        };
    };
    let Some(kernel) = facts.kernel.release.value() else {
        return Outcome::unknown(format!("the kernel's release cannot be seen: {}", facts.kernel.release));
    };
    let first = FIRST_FOR.iter().find(|(from, _)| at_least(kernel, from) == Some(true));
    let Some((from, least)) = first else {
        return Outcome::pass(format!("nvidia-fs {version} on kernel {kernel}"));
    };
    let least_words = least.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    match at_least(&version, least) {
        Some(true) => Outcome::pass(format!("nvidia-fs {version} on kernel {kernel}")),
        Some(false) => Outcome::fail(format!(
            "nvidia-fs {version} does not know kernel {}.{} and later",
            from[0], from[1]
        ))
        .expected(format!("{least_words} or later"))
        .actual(version.clone())
        .evidence("nvidia-fs version", version)
        .evidence("/proc/sys/kernel/osrelease", kernel.clone())
        .remedy(remedy()),
        None => Outcome::unknown(format!("{version:?} is no version")),
    }
}

/// `nvme_v2_register_nvfs_dma_ops` -> 2.
fn hook_number(name: &str) -> Option<u32> {
    name.strip_prefix("nvme_v")?.split_once("_register")?.0.parse().ok()
}

fn hook_version(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::Nvfs) {
        return moot;
    }
    let facts = context.facts;
    let numbers =
        |names: &[String]| -> Vec<u32> { names.iter().filter_map(|name| hook_number(name)).collect() };
    let offered =
        facts.kernel.symbols.value().map(|symbols| numbers(&symbols.nvfs_hooks)).unwrap_or_default();
    if offered.is_empty() {
        return Outcome::not_applicable("nvme carries no hook that could be seen");
    }
    let version = facts.nvidia_fs.version.value();
    let wanted = facts.nvidia_fs_wants.value().map(|names| numbers(names)).filter(|names| !names.is_empty());
    let unregistered = find(context, &["NVMe Driver not registered with nvidia-fs"]);
    let fits = match (&wanted, version) {
        (Some(wanted), _) => Some(wanted.iter().any(|number| offered.contains(number))),
        _ if !unregistered.is_empty() => Some(false),
        // The second hook is known from 2.28 on.
        (None, Some(version)) if !offered.contains(&1) => at_least(version, &[2, 28]),
        (None, _) => None,
    };
    let listed = facts.nvidia.nvidia_fs_modules.value().is_some_and(|text| text.contains("nvme"));
    match fits {
        _ if listed => Outcome::pass("nvme is registered with nvidia-fs"),
        Some(true) => Outcome::pass("nvme exports the hook that nvidia-fs looks for"),
        None => Outcome::unknown("which hook nvidia-fs looks for cannot be seen").remedy(
            Remedy::new(Who::Guest, "look while a program uses cuFile")
                .command("cat /proc/driver/nvidia-fs/modules"),
        ),
        Some(false) => {
            let words = |numbers: &[u32]| {
                numbers
                    .iter()
                    .map(|n| format!("nvme_v{n}_register_nvfs_dma_ops"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let outcome = Outcome::fail("nvme exports another hook than nvidia-fs looks for, so cuFile falls back in silence")
                .expected(wanted.as_deref().map_or("the hook that nvidia-fs looks for".to_owned(), words))
                .actual(words(&offered))
                .evidence("/proc/kallsyms", words(&offered))
                .evidence("nvidia-fs version", facts.nvidia_fs.version.to_string())
                .remedy(
                    Remedy::new(Who::Guest, "install nvme and nvidia-fs from one source: DOCA-OFED 26.04 or later, or the kernel's own")
                        .command("apt install linux-modules-nvidia-fs-$(uname -r)"),
                );
            with_lines(outcome, &unregistered)
        }
    }
}

/// Does gdscheck speak to nvidia-fs, like the GPUs, and yet find no way to NVMe drives, and nothing that forbids one?
fn gdscheck_misses_nvme(context: &Context<'_>) -> bool {
    let facts = context.facts;
    let config = facts.cufile.value();
    let excluded = config.is_some_and(|config| !config.denylist.drivers.is_empty());
    facts.gdscheck.value().is_some_and(|answer| {
        let forced = ["properties.force_compat_mode", "CUFILE_FORCE_COMPAT_MODE"];
        answer.nvidia_fs.is_some()
            && answer.nvme_routes().is_some_and(|routes| routes.is_empty())
            && !answer.gpus.is_empty()
            && answer.gpus.iter().all(|gpu| gpu.supports)
            && !excluded
            && forced.iter().all(|name| answer.switch(name) != Some(true))
    })
}

fn patched(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &["NVMe Driver not registered with nvidia-fs", "nvme module is not patched or not loaded"],
    );
    let has = hook(context);
    if !said.is_empty() {
        if other_is_complete(context, Direct::Nvfs) {
            return with_lines(
                Outcome::note("nvme is not registered with nvidia-fs, but the P2PDMA route is complete"),
                &said,
            );
        }
        let outcome = Outcome::fail("nvme is not registered with nvidia-fs: it lacks nvidia-fs's hook, so every transfer is copied by the CPU")
            .expected("nvme_v1_register_nvfs_dma_ops or nvme_v2_register_nvfs_dma_ops in /proc/kallsyms");
        return with_lines(with_ways_out(outcome), &said);
    }
    if let Some(moot) = moot(context, Direct::Nvfs) {
        return moot;
    }
    match has {
        None if gdscheck_misses_nvme(context) => with_ways_out(
            Outcome::fail("nvme is not registered with nvidia-fs: gdscheck speaks to nvidia-fs, and finds no direct route to NVMe drives")
                .expected("nvme_v1_register_nvfs_dma_ops or nvme_v2_register_nvfs_dma_ops in /proc/kallsyms")
                .actual("NVMe : no direct route, by gdscheck's word"),
        ),
        Some(true) => Outcome::pass("nvme carries nvidia-fs's hook"),
        Some(false) => with_ways_out(
            Outcome::fail("the nvme driver of this kernel carries no nvidia-fs hook, so nvidia-fs reaches no NVMe drive")
                .expected("nvme_v1_register_nvfs_dma_ops or nvme_v2_register_nvfs_dma_ops in /proc/kallsyms")
                .actual("no such symbol")
                .evidence("/proc/kallsyms", "no *_register_nvfs_dma_ops"),
        ),
        None => {
            let heard = if heard_cufile(context) { ", and cuFile did not complain" } else { "" };
            Outcome::unknown(format!(
                "whether nvme carries nvidia-fs's hook cannot be seen: {}{heard}",
                context.facts.kernel.symbols.as_ref().map(|_| "its module")
            ))
            .remedy(Remedy::new(Who::Guest, "look as root").command("grep nvfs_dma_ops /proc/kallsyms"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_have_numbers() {
        assert_eq!(hook_number("nvme_v2_register_nvfs_dma_ops"), Some(2));
        for name in ["", "nvme_rdma_v1_register_nvfs_dma_ops", "nvme_vx_register_nvfs_dma_ops"] {
            assert_eq!(hook_number(name), None, "{name}");
        }
    }
}
