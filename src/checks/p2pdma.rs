//! The pieces of the route through the kernel's PCI P2PDMA (GDS troubleshooting guide, chapter 14).

use super::check::{Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{
    Direct, complete, cufile_environment, cufile_p2pdma, kernel_p2pdma, moot, multipath_off,
    other_is_complete, registry_keys, static_bar1,
};
use super::said::{find, judge_kernel_log, silence, with_lines};

/// Sets the keys that the driver needs.
pub const REGISTRY_KEYS_COMMAND: &str = "echo 'options nvidia NVreg_RegistryDwords=\"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"' > \
     /etc/modprobe.d/nvidia-p2pdma.conf";

const GUIDE: &[&str] = &["GDS troubleshooting guide, chapter 14"];

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "p2pdma.kernel",
        title: "the kernel has PCI P2PDMA",
        sides: WHERE_GDS_RUNS,
        requires: &["route.possible"],
        severity: Severity::Blocker,
        rationale: "The route needs 6.2 or later with CONFIG_PCI_P2PDMA and CONFIG_ZONE_DEVICE.",
        references: GUIDE,
        covers: &[
            "guide: P2PDMA in the kernel",
            "guide: kernel version",
            "signature 21",
            "gds-diag: kernel p2pdma",
        ],
        run: kernel,
    },
    Check {
        id: "p2pdma.memory",
        title: "there was memory for P2PDMA's page structures",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded"],
        severity: Severity::Blocker,
        rationale: "The kernel keeps 64 bytes for each 4 KiB of BAR1: 1/64 of it in main memory, for each GPU.",
        references: &["open-gpu-kernel-modules: nvidia-uvm", "mm/memremap.c"],
        covers: &["guide: memory for P2PDMA", "signature 36"],
        run: memory,
    },
    Check {
        id: "p2pdma.static-bar1",
        title: "BAR1 shows all of the GPU's memory",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "p2pdma.kernel", "p2pdma.memory"],
        severity: Severity::Blocker,
        rationale: "P2PDMA maps all of the GPU's memory through BAR1 at once, so BAR1 must be as large as the memory.",
        references: &["open-gpu-kernel-modules: kern_bus_tu102.c"],
        covers: &["guide: static BAR1", "signature 22"],
        run: bar1_size,
    },
    Check {
        id: "p2pdma.registry-keys",
        title: "the driver maps GPU memory for P2PDMA",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.open", "driver.branch", "p2pdma.kernel", "p2pdma.static-bar1"],
        severity: Severity::Blocker,
        rationale: "The driver registers GPU memory for P2PDMA only with RMForceStaticBar1=1, and uncached only with \
                    RmForceDisableIomapWC=1.",
        references: GUIDE,
        covers: &["guide: P2PDMA registry keys", "signature 22", "signature 27"],
        run: keys,
    },
    Check {
        id: "p2pdma.write-combining",
        title: "no conflict over how GPU memory is cached",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.registry-keys"],
        severity: Severity::Blocker,
        rationale: "The kernel maps a window either write-combining or uncached; the driver's mapping must not clash with P2PDMA's.",
        references: &["arch/x86/mm/pat/memtype.c", "gds-nvidia-fs issue 77"],
        covers: &["guide: P2PDMA registry keys", "signature 24"],
        run: write_combining,
    },
    Check {
        id: "p2pdma.multipath",
        title: "nvme's multipath is off",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel"],
        severity: Severity::Blocker,
        rationale: "A multipath device does not tell that its paths can do P2PDMA, so the kernel refuses GPU memory there.",
        references: GUIDE,
        covers: &["guide: nvme multipath", "signature 27", "gds-diag: nvme multipath"],
        run: multipath,
    },
    Check {
        id: "p2pdma.topology",
        title: "the kernel lets the NVMe drive reach the GPU",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel"],
        severity: Severity::Blocker,
        rationale: "P2PDMA goes through a common switch without ACS redirection, or through a host bridge that the kernel knows.",
        references: &["drivers/pci/p2pdma.c: calc_map_type_and_dist"],
        covers: &["guide: P2PDMA topology", "signature 23", "gds-diag: topology"],
        run: topology,
    },
    Check {
        id: "p2pdma.cufile-keys",
        title: "cuFile is told to use P2PDMA",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "route.possible", "p2pdma.kernel"],
        severity: Severity::Blocker,
        rationale: "cuFile uses P2PDMA only with properties.use_pci_p2pdma, and from 1.16 on with block.nvme.use_pci_p2pdma too.",
        references: GUIDE,
        covers: &["guide: cufile.json", "signature 27", "gds-diag: config audit"],
        run: cufile_keys,
    },
    Check {
        id: "p2pdma.fabrics",
        title: "P2PDMA is not asked of network drives",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.cufile-keys"],
        severity: Severity::Major,
        rationale: "With the general key alone, cuFile tries P2PDMA on NVMe over fabrics too, where transfers then fail.",
        references: &["nixl issue 1063"],
        covers: &["signature 28"],
        run: fabrics,
    },
];

fn kernel(context: &Context<'_>) -> Outcome {
    let said = find(context, &["Kernel does not support PCIP2PDMA", "Kernel does not support PCI P2PDMA"]);
    if other_is_complete(context, Direct::P2pdma) && kernel_p2pdma(context) != Some(true) {
        return with_lines(
            Outcome::note("the kernel has no PCI P2PDMA, but the nvidia-fs route is complete"),
            &said,
        );
    }
    if said.is_empty()
        && let Some(moot) = moot(context, Direct::P2pdma)
    {
        return moot;
    }
    let facts = context.facts;
    match kernel_p2pdma(context) {
        Some(true) if !said.is_empty() => {
            let why = "the kernel has PCI P2PDMA, but cuFile did not see it: it may have run on another kernel, or been denied \
                       /proc/kallsyms";
            with_lines(Outcome::note(why), &said)
        }
        Some(true) => Outcome::pass("the kernel has PCI P2PDMA"),
        None if said.is_empty() => Outcome::unknown(format!(
            "whether the kernel has PCI P2PDMA cannot be seen: {}",
            facts.kernel.symbols.as_ref().map(|_| "")
        ))
        .remedy(
            Remedy::new(Who::Guest, "look as root").command("grep pci_p2pdma_add_resource /proc/kallsyms"),
        ),
        _ => with_lines(
            Outcome::fail("the kernel has no PCI P2PDMA")
                .expected("6.2 or later with CONFIG_PCI_P2PDMA=y")
                .actual(facts.kernel.release.to_string())
                .remedy(
                    Remedy::new(
                        Who::Guest,
                        "boot a kernel of 6.2 or later that has it, such as Ubuntu 24.04's",
                    )
                    .command("apt install linux-image-generic-hwe-22.04")
                    .command("reboot"),
                ),
            &said,
        ),
    }
}

fn memory(context: &Context<'_>) -> Outcome {
    if other_is_complete(context, Direct::P2pdma) && static_bar1(context) != Some(true) {
        return Outcome::not_applicable("this machine is set up for the nvidia-fs route");
    }
    let failed = || {
        let outcome = Outcome::fail("there was not enough memory to register the GPU's memory for P2PDMA");
        let how_much = "1/64 of all GPUs' BAR1 is needed beside what runs, such as 4 GiB for 256 GiB";
        match context.side {
            Side::Guest => outcome.remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    format!("give the virtual machine more memory: {how_much}"),
                )
                .command("qm set VMID -memory 65536"),
            ),
            _ => outcome.remedy(Remedy::new(Who::Hardware, format!("add memory: {how_much}"))),
        }
    };
    judge_kernel_log(
        context,
        &[
            "Unable to initialse PCI P2PDMA pages",
            "Unable to initialise PCI P2PDMA pages",
            "out of memory*pci_p2pdma_add_resource",
        ],
        "GPU memory was registered, or nobody tried",
        failed,
    )
}

fn bar1_size(context: &Context<'_>) -> Outcome {
    if other_is_complete(context, Direct::P2pdma) {
        return Outcome::not_applicable("the nvidia-fs route is complete and works with a small BAR1");
    }
    judge_kernel_log(
        context,
        &["BAR1 size*is not large enough to map FB", "not large enough*force static BAR1"],
        "the driver did not complain about BAR1's size",
        || {
            let outcome = Outcome::fail(
                "BAR1 is smaller than the GPU's memory, so the driver cannot map it statically",
            )
            .expected("BAR1 at least as large as the GPU's memory")
            .remedy(Remedy::new(Who::Bios, "turn on \"Above 4G decoding\" and \"Resizable BAR\""));
            match context.side {
                Side::Guest => outcome.remedy(
                    Remedy::new(
                        Who::VmConfiguration,
                        "give the virtual machine's firmware a window for the large BAR",
                    )
                    .command("qm set VMID -cpu host")
                    .command("qm set VMID -args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144'"),
                ),
                _ => outcome,
            }
        },
    )
}

fn keys(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "Failed to get cuda p2p device address*801",
            "errornum: 801",
            "gpu attribute pci_p2pdma not supported",
        ],
    );
    let remedy = || {
        Remedy::new(
            Who::Guest,
            "set both keys (before Hopper also ForceP2P=0), put them into the initramfs, and restart",
        )
        .command(REGISTRY_KEYS_COMMAND)
        .command("update-initramfs -u -k all")
        .command("reboot")
    };
    let expected = "RMForceStaticBar1=1;RmForceDisableIomapWC=1";
    if let Some(moot) = moot(context, Direct::P2pdma)
        && (said.is_empty() || other_is_complete(context, Direct::P2pdma))
    {
        return moot;
    }
    let told = registry_keys(context);
    if static_bar1(context) == Some(false) {
        let told = told.unwrap_or_default();
        let outcome = Outcome::fail("the driver was not told to map GPU memory for P2PDMA")
            .expected(expected)
            .actual(if told.is_empty() { "no RegistryDwords".to_owned() } else { told.clone() })
            .evidence("/proc/driver/nvidia/params", format!("RegistryDwords: \"{told}\""))
            .remedy(remedy());
        return with_lines(outcome, &said);
    }
    if !said.is_empty() {
        let outcome = Outcome::fail(
            "CUDA hands out no P2P address for GPU memory (801): BAR1 is not mapped statically",
        )
        .expected(expected)
        .actual(told.unwrap_or_else(|| "(the driver's settings were not seen)".into()))
        .remedy(remedy());
        return with_lines(outcome, &said);
    }
    match static_bar1(context) {
        Some(_) => Outcome::pass("the driver took both keys"),
        None => Outcome::unknown(format!(
            "the driver's settings cannot be seen: {}",
            context.facts.nvidia.params.as_ref().map(|_| "")
        ))
        .remedy(
            Remedy::new(Who::Guest, "read them").command("grep RegistryDwords /proc/driver/nvidia/params"),
        ),
    }
}

fn write_combining(context: &Context<'_>) -> Outcome {
    judge_kernel_log(
        context,
        &["x86/PAT*conflicting memory types*write-combining", "x86/PAT*conflicting memory types*uncached"],
        "the kernel saw no conflict",
        || {
            Outcome::fail("GPU memory is mapped write-combining by one user and uncached by another")
                .expected("RmForceDisableIomapWC=1")
                .remedy(
                    Remedy::new(Who::Guest, "let the driver map GPU memory uncached, and restart")
                        .command(REGISTRY_KEYS_COMMAND)
                        .command("update-initramfs -u -k all; reboot"),
                )
        },
    )
}

fn multipath(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::P2pdma) {
        return moot;
    }
    match multipath_off(context) {
        Some(true) => Outcome::pass("nvme's multipath is off"),
        Some(false) => Outcome::fail("nvme's multipath is on, and P2PDMA does not work through it")
            .expected("N")
            .actual(context.facts.nvme_multipath.to_string())
            .evidence("/sys/module/nvme_core/parameters/multipath", context.facts.nvme_multipath.to_string())
            .remedy(
                Remedy::new(Who::Guest, "turn it off in the initramfs too, and restart")
                    .command("echo 'options nvme_core multipath=N' > /etc/modprobe.d/nvme.conf")
                    .command("update-initramfs -u -k all")
                    .command("reboot"),
            ),
        None => Outcome::unknown(format!(
            "whether nvme's multipath is off cannot be seen: {}",
            context.facts.nvme_multipath
        ))
        .remedy(Remedy::new(Who::Guest, "read it").command("cat /sys/module/nvme_core/parameters/multipath")),
    }
}

fn topology(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "do not share an upstream bridge or whitelisted host bridge",
            "Host bridge not in P2PDMA whitelist",
            "ACS redirect is set between the client and provider",
        ],
    );
    if said.is_empty() {
        if let Some(moot) = moot(context, Direct::P2pdma) {
            return moot;
        }
        // The kernel says it only when a transfer is tried.
        return silence(context, "the kernel refused no pair so far");
    }
    if other_is_complete(context, Direct::P2pdma) {
        let why = "the kernel refuses P2PDMA between these devices, but the nvidia-fs route is complete and needs no leave";
        return with_lines(Outcome::note(why), &said);
    }
    let outcome = Outcome::fail(
        "the kernel does not let the NVMe drive reach the GPU: no common switch, and a host bridge that \
                                 it does not know, or ACS in between",
    );
    let outcome = match context.side {
        Side::Guest => outcome
            .remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    "on an AMD host: show the guest the real CPU, whose bridges the kernel trusts",
                )
                .command("qm set VMID -cpu host"),
            )
            .remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    "else put GPU and NVMe under one emulated switch, by the VM's args",
                )
                .command("-device x3130-upstream,id=up0,bus=pcie.0")
                .command("-device xio3130-downstream,id=down0,bus=up0,chassis=100")
                .command("-device xio3130-downstream,id=down1,bus=up0,chassis=101"),
            ),
        _ => outcome
            .remedy(
                Remedy::new(Who::Guest, "turn ACS redirection off on the bridges that the kernel names")
                    .command("pci=disable_acs_redir=<list from the kernel log>"),
            )
            .remedy(Remedy::new(
                Who::Hardware,
                "put GPU and NVMe under one PCIe switch, or the same root complex",
            )),
    };
    with_lines(
        outcome.remedy(
            Remedy::new(Who::Guest, "or use nvidia-fs instead, which asks no leave of the kernel")
                .command("apt install linux-nvidia linux-modules-nvidia-fs-nvidia"),
        ),
        &said,
    )
}

fn cufile_keys(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    if facts.image.value().is_some() {
        return Outcome::not_applicable("the image's benchmark brings its own settings");
    }
    let said = find(context, &["Config doesn't support PCIP2PDMA"]);
    if complete(context, Direct::Nvfs) == Some(true) {
        return Outcome::note("the nvidia-fs route is complete, so cuFile need not use P2PDMA");
    }
    // cuFile says so in every log, also on machines that are set up for nvidia-fs.
    if let Some(moot) = moot(context, Direct::P2pdma) {
        return moot;
    }
    let fact = facts.cufile.as_ref().map(|_| "");
    let told = cufile_p2pdma(context);
    if let Some((variable, on)) = cufile_environment(context, "CUFILE_USE_PCIP2PDMA", false)
        && (told == Some(true)) != on
        && said.is_empty()
    {
        let shown = format!("{}={}", variable.name, variable.value);
        let outcome = if on {
            Outcome::note(format!(
                "only the environment tells cuFile to use P2PDMA ({}): programs without it let the CPU copy, and from 1.16 \
                 on the key for NVMe is asked for as well",
                variable.from
            ))
        } else {
            Outcome::fail(format!("the environment tells cuFile not to use P2PDMA ({})", variable.from))
        };
        return outcome.evidence(variable.from.clone(), shown).remedy(
            Remedy::new(Who::Guest, "set both keys in /etc/cufile.json, and nothing in the environment")
                .command("\"properties\": { \"use_pci_p2pdma\": true }")
                .command("\"block\": { \"nvme\": { \"use_pci_p2pdma\": true } }")
                .command(format!("grep {} {}", variable.name, variable.from)),
        );
    }
    match told {
        Some(true) => Outcome::pass("cuFile is told to use P2PDMA"),
        None if said.is_empty() => {
            Outcome::unknown(format!("whether cuFile is told to use P2PDMA cannot be seen: {fact}")).remedy(
                Remedy::new(Who::Guest, "ask cuFile")
                    .command("/usr/local/cuda/gds/tools/gdscheck -p | grep p2pdma"),
            )
        }
        _ => {
            let shown = |set: Option<bool>| set.map_or("not set".to_owned(), |set| set.to_string());
            let actual = facts.cufile.value().map(|config| {
                format!(
                    "properties.use_pci_p2pdma {}, block.nvme.use_pci_p2pdma {}",
                    shown(config.use_pci_p2pdma),
                    shown(config.nvme_use_pci_p2pdma)
                )
            });
            let outcome = Outcome::fail("cuFile is not told to use P2PDMA")
                .expected("properties.use_pci_p2pdma true, block.nvme.use_pci_p2pdma true")
                .actual(actual.clone().unwrap_or_else(|| facts.cufile.as_ref().map(|_| "").to_string()))
                .evidence("/etc/cufile.json", actual.unwrap_or_else(|| "(not there)".into()))
                .remedy(
                    Remedy::new(Who::Guest, "set both keys in /etc/cufile.json")
                        .command("\"properties\": { \"use_pci_p2pdma\": true }")
                        .command("\"block\": { \"nvme\": { \"use_pci_p2pdma\": true } }"),
                );
            with_lines(outcome, &said)
        }
    }
}

fn fabrics(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let config = facts.cufile.value();
    let general = config.and_then(|config| config.use_pci_p2pdma);
    let mut remote = facts.nvme.value().into_iter().flatten();
    let remote = remote.find(|nvme| {
        nvme.transport.value().is_some_and(|word| matches!(word.as_str(), "rdma" | "tcp" | "fc"))
    });
    let said = find(context, &["write failed : Input/output error", "read failed : Input/output error"]);
    if general == Some(false) || (said.is_empty() && remote.is_none()) {
        return Outcome::not_applicable("no network drive is asked for P2PDMA");
    }
    if !said.is_empty() && (remote.is_some() || facts.nvme.value().is_none()) {
        let outcome =
            Outcome::fail("transfers fail: P2PDMA is asked of NVMe over fabrics, which cannot do it").remedy(
                Remedy::new(Who::Guest, "set the key for local drives alone in /etc/cufile.json")
                    .command("\"properties\": { \"use_pci_p2pdma\": false }")
                    .command("\"block\": { \"nvme\": { \"use_pci_p2pdma\": true } }"),
            );
        return with_lines(outcome, &said);
    }
    let why = "an NVMe drive over fabrics is here; with properties.use_pci_p2pdma its transfers may fail";
    with_lines(Outcome::note(why), &said)
}
