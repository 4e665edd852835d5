//! NVIDIA's driver: the kernel modules are there, and the libraries fit them.

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, is_wanted};
use super::said::{at_least, find, judge_kernel_log, numbers, with_lines};
use crate::facts::modules::LoadOutcome;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "driver.loaded",
        title: "the NVIDIA driver is loaded",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "kernel.module-signature",
            "kernel.headers",
            "gpu.present",
            "driver.no-device",
            "driver.bar",
            "driver.nouveau",
            "driver.gpu-supported",
            "driver.rm-init",
            "driver.probe",
        ],
        severity: Severity::Blocker,
        rationale: "Nothing reaches GPU memory without NVIDIA's kernel modules.",
        references: &["nvidia-smi(1), return value 9"],
        covers: &["guide: driver loaded", "signature 2", "gds-diag: driver"],
        run: loaded,
    },
    Check {
        id: "driver.open",
        title: "the open kernel modules run",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded"],
        severity: Severity::Blocker,
        rationale: "nvidia-fs from 2.17.5 and P2PDMA work with the open kernel modules only.",
        references: &["GDS release notes 1.7.2", "gds-nvidia-fs ChangeLog 2.17.5"],
        covers: &["guide: open driver", "signature 18", "gds-diag: open driver"],
        run: open,
    },
    Check {
        id: "driver.branch",
        title: "the driver is new enough",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.open"],
        severity: Severity::Major,
        rationale: "Open modules with GPUDirect Storage begin at 535; the code for P2PDMA at 565.57.",
        references: &["CUDA release notes, table 3", "GDS troubleshooting guide, chapter 14"],
        covers: &["guide: driver branch", "gds-diag: driver version"],
        run: branch,
    },
    Check {
        id: "driver.userland",
        title: "the driver's libraries fit its kernel modules",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded"],
        severity: Severity::Blocker,
        rationale: "libcuda and NVML refuse to speak to kernel modules of another version, as after an update without a reboot.",
        references: &["nvidia-smi(1)", "open-gpu-kernel-modules: nv.c, API mismatch"],
        covers: &["guide: userland equal to module", "signature 12"],
        run: userland,
    },
    Check {
        id: "driver.uvm-memory",
        title: "nvidia-uvm finds room for its page structures",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded"],
        severity: Severity::Blocker,
        rationale: "With KASLR the kernel may leave no room in the physical address space for HMM's pages (error -34).",
        references: &["CUDA 13.1 release notes, known issues"],
        covers: &["signature 16"],
        run: uvm_memory,
    },
    Check {
        id: "driver.uvm",
        title: "nvidia-uvm is loaded",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.uvm-memory"],
        severity: Severity::Blocker,
        rationale: "CUDA needs nvidia-uvm, and nvidia-uvm registers GPU memory for P2PDMA.",
        references: &["GDS installation guide: load order nvidia, nvidia-uvm, nvidia-fs"],
        covers: &["guide: nvidia-uvm", "signature 15"],
        run: uvm,
    },
    Check {
        id: "driver.fabric-manager",
        title: "the NVSwitch fabric is ready",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded"],
        severity: Severity::Blocker,
        rationale: "On machines with NVSwitch, CUDA starts only after the Fabric Manager of the driver's own version has \
                    configured the switches.",
        references: &["NVIDIA Fabric Manager user guide", "CUDA_ERROR_SYSTEM_NOT_READY (802)"],
        covers: &["guide: fabric manager", "signature 14"],
        run: fabric_manager,
    },
    Check {
        id: "driver.cuda",
        title: "CUDA finds a device",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "gpu.present",
            "driver.loaded",
            "driver.userland",
            "driver.uvm",
            "driver.uvm-memory",
            "driver.fabric-manager",
        ],
        severity: Severity::Blocker,
        rationale: "cuFile starts with cuInit; without a CUDA device there is no transfer.",
        references: &["CUDA driver API: CUDA_ERROR_NO_DEVICE (100), CUDA_ERROR_UNKNOWN (999)"],
        covers: &["guide: CUDA", "signature 15"],
        run: cuda,
    },
    Check {
        id: "driver.product",
        title: "the GPU is of a class with GPUDirect",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.product", "driver.loaded"],
        severity: Severity::Blocker,
        rationale: "The driver maps GPU memory for other devices on data-centre and workstation products; on GeForce it refuses.",
        references: &["gds-nvidia-fs issue 14", "GDS troubleshooting guide, 14.2"],
        covers: &["guide: supported GPU", "signature 20"],
        run: product,
    },
    Check {
        id: "driver.code-43",
        title: "no code 43",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "Code 43 is Windows' word for a device that stopped; Linux guests never show it.",
        references: &["learn.microsoft.com: CM_PROB_FAILED_POST_START"],
        covers: &["signature 32"],
        run: code_43,
    },
];

fn loaded(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let complaint = find(context, &["couldn't communicate with the NVIDIA driver"]);
    let module = context.has_module("nvidia");
    let refused = facts
        .module_loads
        .value()
        .into_iter()
        .flatten()
        .find(|load| load.name == "nvidia" && !load.outcome.is_in());
    let in_kernel = match module {
        Some(is_in) => Some(is_in),
        None if facts.nvidia.driver.value().is_some() => Some(true),
        None if facts.nvidia_smi.value().is_some_and(|smi| smi.driver.is_some()) => Some(true),
        None if refused.is_some() || !complaint.is_empty() => Some(false),
        None => None,
    };
    let load = || {
        Remedy::new(Who::Guest, "load the driver, and read what the kernel says if it refuses")
            .command("modprobe nvidia && modprobe nvidia-uvm")
            .command("dmesg | grep -i nvidia")
    };
    match in_kernel {
        Some(true) if complaint.is_empty() => Outcome::pass("the kernel module nvidia is loaded"),
        Some(true) => with_lines(
            Outcome::fail("the kernel module nvidia is loaded, but nvidia-smi could not speak to it").remedy(
                Remedy::new(Who::Guest, "make the driver's device nodes").command("nvidia-modprobe -c 0 -u"),
            ),
            &complaint,
        ),
        Some(false) => {
            let words = refused.map(|load| load.outcome.words());
            let format = find(
                context,
                &[
                    "nvidia: version magic",
                    "nvidia: disagrees about version",
                    "nvidia: Unknown symbol",
                    "insert 'nvidia'*Invalid module format",
                ],
            );
            let why = match &words {
                Some(words) => format!("the kernel module nvidia is not loaded: {words}"),
                None if format.is_empty() => "the kernel module nvidia is not loaded".to_owned(),
                None => "the kernel module nvidia was built for another kernel and is not loaded".to_owned(),
            };
            let missing = refused.is_some_and(|load| matches!(load.outcome, LoadOutcome::NotFound { .. }));
            let remedy = if missing || !format.is_empty() {
                Remedy::new(Who::Guest, "install the driver's open modules for the kernel that runs")
                    .command("apt install linux-modules-nvidia-580-open-$(uname -r)")
            } else {
                load()
            };
            let outcome = Outcome::fail(why).expected("nvidia in /proc/modules").remedy(remedy);
            with_lines(with_lines(outcome, &format), &complaint)
        }
        None => Outcome::unknown(format!(
            "the kernel's modules cannot be seen: {}",
            facts.modules.as_ref().map(|_| "")
        ))
        .remedy(Remedy::new(Who::Guest, "list them").command("lsmod | grep nvidia")),
    }
}

/// Is the module on disk, which modprobe takes, the open one? By what `modinfo nvidia` printed.
fn license(context: &Context<'_>) -> Option<bool> {
    let mut commands = context.facts.commands.value().into_iter().flatten();
    let printed = commands
        .find(|command| command.program() == "modinfo" && command.argv.iter().any(|word| word == "nvidia"))?;
    // `modinfo -F license nvidia` prints the word alone.
    let alone = printed.argv.iter().any(|word| word == "license");
    let word = |line: &String| {
        let word = if alone { line } else { line.strip_prefix("license:")? };
        Some(word.trim().to_owned())
    };
    match printed.stdout.iter().find_map(word)?.as_str() {
        "NVIDIA" => Some(false),
        word if word.contains("GPL") => Some(true),
        _ => None,
    }
}

fn open(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let module = facts.modules.value().into_iter().flatten().find(|module| module.name == "nvidia");
    let told = facts.gdscheck.value().and_then(|answer| answer.driver.as_deref());
    let is_open = facts.nvidia.is_open().or_else(|| match module {
        // A proprietary module taints the kernel with P; every module that is not the kernel's own with O.
        Some(module) if module.taint.contains('P') => Some(false),
        Some(module) if module.taint.contains('O') => Some(true),
        _ => None,
    });
    let is_open = is_open.or_else(|| license(context)).or_else(|| {
        told.map(|words| words.contains("Nvidia Open Driver"))
            .filter(|_| told.is_some_and(|words| words.starts_with("Supported")))
    });
    match is_open {
        Some(true) => Outcome::pass("the open kernel modules run"),
        Some(false) => {
            Outcome::fail("the proprietary kernel modules run, with which neither nvidia-fs nor P2PDMA works")
                .expected("NVIDIA UNIX Open Kernel Module")
                .actual(facts.nvidia.driver.to_string())
                .evidence("/proc/driver/nvidia/version", facts.nvidia.driver.to_string())
                .remedy(
                    Remedy::new(
                        Who::Guest,
                        "install the open kernel modules of the same version instead, and restart",
                    )
                    .command("apt install linux-modules-nvidia-580-open-$(uname -r)")
                    .command("reboot"),
                )
        }
        None => Outcome::unknown(format!("the driver's own line cannot be seen: {}", facts.nvidia.driver))
            .remedy(Remedy::new(Who::Guest, "read it").command("cat /proc/driver/nvidia/version")),
    }
}

/// The module's version, from the module or from nvidia-smi.
fn module_version(context: &Context<'_>) -> Option<String> {
    let facts = context.facts;
    let smi = facts.nvidia_smi.value().and_then(|smi| smi.driver.clone());
    facts.nvidia.version.value().cloned().or(smi)
}

fn branch(context: &Context<'_>) -> Outcome {
    let Some(version) = module_version(context) else {
        return Outcome::unknown(format!(
            "the driver's version cannot be seen: {}",
            context.facts.nvidia.version
        ));
    };
    let upgrade = |to: &str| {
        Remedy::new(Who::Guest, format!("install a driver of branch {to}, and restart"))
            .command(format!("apt install linux-modules-nvidia-{to}-open-$(uname -r) nvidia-utils-{to}"))
            .command("reboot")
    };
    let actual =
        |outcome: Outcome| outcome.actual(version.clone()).evidence("driver version", version.clone());
    match at_least(&version, &[535]) {
        None => Outcome::unknown(format!("{version:?} is no version")),
        Some(false) => actual(
            Outcome::fail(format!("driver {version} is too old for GPUDirect Storage"))
                .expected("535 or later")
                .remedy(upgrade("580")),
        ),
        Some(true) if is_wanted(context, Direct::P2pdma) && at_least(&version, &[565, 57]) == Some(false) => {
            let other = super::routes::complete(context, Direct::Nvfs) == Some(true);
            if other {
                return Outcome::pass(format!("driver {version} has what nvidia-fs needs"));
            }
            actual(
                Outcome::fail(format!("driver {version} has no P2PDMA, which this machine is set up for"))
                    .expected("565.57 or later")
                    .remedy(upgrade("580")),
            )
        }
        Some(true) if is_wanted(context, Direct::P2pdma) && at_least(&version, &[595, 44]) == Some(false) => {
            Outcome::note(format!(
                "driver {version} works, but registers GPU memory anew for each first process, which costs some MiB each \
                 time until 595.44.02; keep nvidia-persistenced running"
            ))
        }
        Some(true) => Outcome::pass(format!("driver {version}")),
    }
}

fn userland(context: &Context<'_>) -> Outcome {
    let said = find(context, &["Driver/library version mismatch", "API mismatch:"]);
    let module = module_version(context);
    let libraries: Vec<_> = context
        .facts
        .libraries
        .value()
        .into_iter()
        .flatten()
        .filter(|library| {
            library.name != "libcufile" && numbers(&library.version).first().is_some_and(|n| *n > 100)
        })
        .collect();
    let fits = module.as_ref().map(|module| libraries.iter().any(|library| library.version == *module));
    let remedy = || {
        let version = module.as_deref().unwrap_or("NNN");
        let branch = version.split('.').next().unwrap_or("NNN");
        Remedy::new(Who::Guest, "install kernel modules and libraries from the same source, and restart so that the new modules run")
            .command(format!("apt install libnvidia-compute-{branch} linux-modules-nvidia-{branch}-open-$(uname -r)"))
            .command("reboot")
    };
    if !said.is_empty() {
        let outcome =
            Outcome::fail("the driver's libraries and its kernel modules are of different versions");
        return with_lines(outcome.remedy(remedy()), &said);
    }
    match (fits, module.as_deref(), libraries.first()) {
        (Some(false), Some(module), Some(library)) => Outcome::fail(format!(
            "{} is {}, but the kernel module is {module}",
            library.name, library.version
        ))
        .expected(module)
        .actual(library.version.clone())
        .evidence(library.path.clone(), library.version.clone())
        .remedy(remedy()),
        (Some(true), Some(module), _) => {
            Outcome::pass(format!("libraries and kernel modules are both {module}"))
        }
        _ if context
            .facts
            .nvidia_smi
            .value()
            .is_some_and(|smi| smi.driver.is_some() && smi.errors.is_empty()) =>
        {
            Outcome::pass("nvidia-smi speaks to the kernel modules")
        }
        _ => Outcome::unknown("the versions of the driver's libraries cannot be seen")
            .remedy(Remedy::new(Who::Guest, "ask NVML").command("nvidia-smi")),
    }
}

fn uvm_memory(context: &Context<'_>) -> Outcome {
    judge_kernel_log(
        context,
        &["request_free_mem_region() err", "devmem_alloc_pagemap*err -34"],
        "nvidia-uvm found room",
        || {
            Outcome::fail("nvidia-uvm found no room for its page structures in the physical address space")
                .remedy(
                    Remedy::new(Who::Guest, "turn HMM off in nvidia-uvm")
                        .command(
                            "echo 'options nvidia_uvm uvm_disable_hmm=1' > /etc/modprobe.d/nvidia-uvm.conf",
                        )
                        .command("update-initramfs -u && reboot"),
                )
                .remedy(
                    Remedy::new(Who::Guest, "or add this to the kernel's command line").command("nokaslr"),
                )
        },
    )
}

fn uvm(context: &Context<'_>) -> Outcome {
    match context.has_module("nvidia_uvm") {
        Some(true) => Outcome::pass("the kernel module nvidia_uvm is loaded"),
        Some(false) => Outcome::fail("the kernel module nvidia_uvm is not loaded")
            .expected("nvidia_uvm in /proc/modules")
            .remedy(Remedy::new(Who::Guest, "load it").command("modprobe nvidia-uvm")),
        None => Outcome::unknown(format!(
            "the kernel's modules cannot be seen: {}",
            context.facts.modules.as_ref().map(|_| "")
        )),
    }
}

fn fabric_manager(context: &Context<'_>) -> Outcome {
    let states = context.facts.nvidia_smi.value().map_or(&[][..], |smi| smi.fabric.as_slice());
    let waiting =
        states.iter().find(|state| matches!(state.as_str(), "In Progress" | "Not Started" | "Failure"));
    let said = find(context, &["CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized", "cuInit*802"]);
    if waiting.is_some() || !said.is_empty() {
        let version = module_version(context).unwrap_or_else(|| "NNN".into());
        let branch = version.split('.').next().unwrap_or("NNN").to_owned();
        let mut outcome = Outcome::fail("the NVSwitch fabric is not configured, so CUDA answers 802 (system not ready)")
            .expected("Fabric State: Completed")
            .remedy(
                Remedy::new(Who::Guest, "run the Fabric Manager of exactly the driver's version")
                    .command(format!("apt install nvidia-fabricmanager-{branch}"))
                    .command("systemctl enable --now nvidia-fabricmanager"),
            )
            .remedy(Remedy::new(
                Who::Hypervisor,
                "for a virtual machine with some of the GPUs of an HGX board: run the Fabric Manager on the host in \
                 shared-NVSwitch mode, or pass the NVSwitches through too",
            ));
        if let (Some(state), Some(smi)) = (waiting, context.facts.nvidia_smi.value()) {
            outcome = outcome
                .actual(format!("Fabric State: {state}"))
                .evidence(smi.from.clone(), format!("Fabric State: {state}"));
        }
        return with_lines(outcome, &said);
    }
    if !states.is_empty() {
        return Outcome::pass("every GPU says that its fabric is ready, or that it has none");
    }
    let switches = context.pci().iter().any(|device| {
        device.vendor.value() == Some(&crate::facts::pci::NVIDIA)
            && device.class.value().is_some_and(|class| class.0 >> 8 == 0x0680)
    });
    match context.facts.pci.value() {
        Some(_) if !switches => Outcome::not_applicable("no NVSwitch is visible"),
        _ => Outcome::unknown("whether the NVSwitch fabric is ready cannot be seen")
            .remedy(Remedy::new(Who::Guest, "ask the GPUs").command("nvidia-smi -q | grep -A2 Fabric")),
    }
}

fn cuda(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "CUDA_ERROR_NO_DEVICE",
            "cuInit*failed",
            "cudaErrorNoDevice",
            "no CUDA-capable device is detected",
            "NVML: Insufficient Permissions",
            "access blocked by the operating system",
        ],
    );
    let probe = context.facts.dma.value().and_then(|probe| {
        let calls = probe.library("libcuda.so.1")?;
        Some(calls.calls.iter().find(|call| call.function == "cuInit")?.status)
    });
    if said.is_empty() && probe.flatten().is_none_or(|status| status == 0) {
        let seen = probe.flatten() == Some(0)
            || context
                .facts
                .gdscheck
                .value()
                .is_some_and(|answer| answer.gpus.iter().any(|gpu| gpu.supports));
        return if seen {
            Outcome::pass("CUDA finds a device")
        } else {
            Outcome::unknown("whether CUDA finds a device cannot be seen without its library")
                .remedy(Remedy::new(Who::Guest, "ask it").command("/usr/local/cuda/gds/tools/gdscheck -p"))
        };
    }
    let mut outcome = Outcome::fail("CUDA finds no device").expected("cuInit returns 0").remedy(
        Remedy::new(Who::Guest, "make the driver's device nodes, see that this user may open them (group video or render) and that no variable hides the GPU")
            .command("nvidia-modprobe -c 0 -u; ls -l /dev/nvidia*; id")
            .command("unset CUDA_VISIBLE_DEVICES"),
    );
    if let Some(status) = probe.flatten() {
        outcome = outcome.actual(format!("cuInit returns {status}"));
    }
    with_lines(outcome, &said)
}

fn product(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let said = find(
        context,
        &[
            "nvfs_pin_gpu_pages*ret -22",
            "Error ret -22 invoking nvidia_p2p_get_pages",
            ": Model Not Supported",
        ],
    );
    let driver = facts.nvidia.gpus.value().into_iter().flatten();
    let driver = driver.filter_map(|gpu| {
        Some((format!("/proc/driver/nvidia/gpus/{}", gpu.address), gpu.model.value()?.clone()))
    });
    let told = facts
        .gdscheck
        .value()
        .into_iter()
        .flat_map(|answer| answer.gpus.iter().map(|gpu| (answer.from.clone(), gpu.name.clone())));
    let models: Vec<(String, String)> = driver.chain(told).filter(|(_, name)| !name.is_empty()).collect();
    let geforce = models.iter().find(|(_, name)| name.contains("GeForce"));
    let others = models.iter().any(|(_, name)| !name.contains("GeForce"));
    if !said.is_empty() || (geforce.is_some() && !others) {
        let name = geforce.map_or("this GPU", |(_, name)| name.as_str());
        let mut outcome =
            Outcome::fail(format!("the driver does not map the memory of {name} for other devices"))
                .expected("a data-centre or workstation GPU")
                .remedy(Remedy::new(
                    Who::Hardware,
                    "use a data-centre or workstation GPU; GeForce has no GPUDirect",
                ));
        if let Some((from, name)) = geforce {
            outcome = outcome.actual(name.clone()).evidence(from.clone(), name.clone());
        }
        return with_lines(outcome, &said);
    }
    match (geforce, models.first()) {
        (Some((_, name)), _) => Outcome::note(format!("{name} has no GPUDirect; another GPU here has")),
        (None, Some((_, name))) => Outcome::pass(name.clone()),
        (None, None) => Outcome::unknown("the GPU's model cannot be seen"),
    }
}

fn code_43(context: &Context<'_>) -> Outcome {
    let said = find(context, &["(Code 43)", "code 43"]);
    if said.is_empty() {
        return Outcome::not_applicable("only Windows has code 43");
    }
    let why = "code 43 is Windows' word and does not concern this guest; drivers from 465 on accept virtual machines";
    with_lines(Outcome::note(why), &said)
}
