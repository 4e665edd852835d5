//! The p2pdma route: the kernel, the driver's registry keys, a static BAR1, nvme without multipath, cuFile's keys.

use super::check::{Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{
    Direct, cufile_p2pdma, has_key, kernel_p2pdma, moot, multipath_off, other_is_complete, registry_keys,
};
use super::said::{find, silence, with_lines};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "p2pdma.kernel",
        title: "the kernel has PCI P2PDMA",
        sides: WHERE_GDS_RUNS,
        requires: &["kernel.routes", "driver.loaded"],
        severity: Severity::Major,
        rationale: "The p2pdma route needs Linux 6.2 with CONFIG_PCI_P2PDMA and CONFIG_ZONE_DEVICE.",
        references: &["drivers/pci/p2pdma.c", "docs.nvidia.com/gpudirect-storage: NVMe P2PDMA"],
        covers: &["guide: P2PDMA kernel", "signature 21", "gds-diag: p2pdma kernel"],
        run: kernel,
    },
    Check {
        id: "p2pdma.registry-keys",
        title: "the driver was told to make BAR1 static",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.open", "p2pdma.kernel"],
        severity: Severity::Major,
        rationale: "The driver hands GPU memory to P2PDMA only from a static BAR1 that is not write-combined.",
        references: &[
            "open-gpu-kernel-modules: nvrm_registry.h, uvm_pmm_gpu.c",
            "GDS troubleshooting guide, 14",
        ],
        covers: &["guide: P2PDMA registry keys", "signature 22", "signature 24", "gds-diag: registry keys"],
        run: registry,
    },
    Check {
        id: "p2pdma.static-bar1",
        title: "the driver made BAR1 static",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel", "p2pdma.registry-keys", "gpu.bars"],
        severity: Severity::Major,
        rationale: "BAR1 must be as large as the GPU's memory; the driver says so where it is not.",
        references: &["open-gpu-kernel-modules: kern_bus_tu102.c"],
        covers: &["guide: static BAR1", "signature 22"],
        run: static_bar1,
    },
    Check {
        id: "p2pdma.memory-type",
        title: "BAR1 is mapped in one way",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.registry-keys"],
        severity: Severity::Major,
        rationale: "P2PDMA maps BAR1 uncached; a driver that also maps it write-combined is refused by the kernel.",
        references: &["arch/x86/mm/pat/memtype.c"],
        covers: &["signature 24"],
        run: memory_type,
    },
    Check {
        id: "p2pdma.pages",
        title: "there is memory for P2PDMA's pages",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel", "p2pdma.registry-keys"],
        severity: Severity::Major,
        rationale: "The kernel describes every 4 KiB of BAR1 by 64 bytes of RAM: 1/64 of BAR1, per GPU.",
        references: &["mm/memremap.c", "open-gpu-kernel-modules: uvm_pmm_gpu.c"],
        covers: &["guide: P2PDMA memory", "signature 36"],
        run: pages,
    },
    Check {
        id: "p2pdma.multipath",
        title: "nvme's multipath is off",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel"],
        severity: Severity::Major,
        rationale: "With multipath the drive's block device is a virtual one that takes no P2PDMA pages.",
        references: &["drivers/nvme/host/multipath.c", "GDS troubleshooting guide, 14.3"],
        covers: &["guide: nvme multipath", "gds-diag: multipath"],
        run: multipath,
    },
    Check {
        id: "p2pdma.path",
        title: "the kernel allows the path between drive and GPU",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel", "topology.p2pdma"],
        severity: Severity::Major,
        rationale: "The kernel lets peers talk below one switch, or through a host bridge that it knows to forward.",
        references: &["drivers/pci/p2pdma.c: calc_map_type_and_dist"],
        covers: &["signature 23"],
        run: path,
    },
    Check {
        id: "p2pdma.cufile-keys",
        title: "cuFile is told to use P2PDMA",
        sides: WHERE_GDS_RUNS,
        requires: &["p2pdma.kernel", "cufile.readable"],
        severity: Severity::Major,
        rationale: "P2PDMA is off in cuFile unless its settings ask for it; from 1.16 on also per kind of device.",
        references: &["GDS troubleshooting guide, 14", "MagnumIO gds-diag: config-audit"],
        covers: &["guide: cufile.json P2PDMA keys", "signature 27", "gds-diag: cufile.json"],
        run: cufile_keys,
    },
];

fn unless_other(context: &Context<'_>, outcome: Outcome) -> Outcome {
    if other_is_complete(context, Direct::P2pdma) {
        return Outcome::note(format!("{}; the nvfs route does without", outcome.why));
    }
    outcome
}

fn kernel(context: &Context<'_>) -> Outcome {
    let release = context.facts.kernel.release.value().map_or("(release unknown)", String::as_str);
    let said = find(context, &["Kernel does not support PCIP2PDMA"]);
    let has = kernel_p2pdma(context);
    if said.is_empty() && has == Some(true) {
        return Outcome::pass(format!("kernel {release} has PCI P2PDMA"));
    }
    if let Some(moot) = moot(context, Direct::P2pdma) {
        return moot;
    }
    if said.is_empty() && has.is_none() {
        return Outcome::unknown("whether the kernel has PCI P2PDMA cannot be seen").remedy(
            Remedy::new(Who::Guest, "look for it")
                .command("grep -E 'PCI_P2PDMA|ZONE_DEVICE' /boot/config-$(uname -r)"),
        );
    }
    let outcome = Outcome::fail(format!("kernel {release} has no PCI P2PDMA"))
        .expected("Linux 6.2 or newer with CONFIG_PCI_P2PDMA=y")
        .actual(release)
        .remedy(
            Remedy::new(Who::Guest, "run a kernel that has it: Ubuntu 24.04's, or its linux-nvidia flavour")
                .command("apt install linux-nvidia"),
        );
    unless_other(context, with_lines(outcome, &said))
}

const MODPROBE: &str = "echo 'options nvidia NVreg_RegistryDwords=\"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"' > \
                        /etc/modprobe.d/nvidia-p2pdma.conf";

fn registry(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::P2pdma) {
        return moot;
    }
    let Some(keys) = registry_keys(context) else {
        return Outcome::unknown("the driver's registry keys cannot be seen").remedy(
            Remedy::new(Who::Guest, "look at them").command("grep RegistryDwords /proc/driver/nvidia/params"),
        );
    };
    let missing: Vec<&str> = ["RMForceStaticBar1", "RmForceDisableIomapWC"]
        .into_iter()
        .filter(|key| !has_key(&keys, key, "1"))
        .collect();
    if missing.is_empty() {
        return Outcome::pass("both registry keys are set");
    }
    Outcome::fail(format!(
        "the driver was not told {}=1, so GPU memory is not offered to P2PDMA",
        missing.join("=1 and ")
    ))
    .expected(
        "RegistryDwords: \"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\" (before Hopper with ForceP2P=0;)",
    )
    .actual(if keys.is_empty() { "none".to_owned() } else { keys.clone() })
    .evidence("/proc/driver/nvidia/params", keys)
    .remedy(
        Remedy::new(Who::Guest, "set them, renew the initramfs and restart")
            .command(MODPROBE)
            .command("update-initramfs -u -k all"),
    )
}

fn static_bar1(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "BAR1 size*is not large enough to map FB",
            "Failed to get cuda p2p device address",
            "gpu attribute pci_p2pdma not supported",
        ],
    );
    if said.is_empty() {
        return match moot(context, Direct::P2pdma) {
            Some(moot) => moot,
            None => silence(context, "the driver did not complain about BAR1"),
        };
    }
    let large = said.iter().any(|line| line.text.contains("not large enough"));
    let why = if large {
        "BAR1 is smaller than the GPU's memory, so the driver cannot make it static"
    } else {
        "the driver offers no GPU memory to P2PDMA (CUDA error 801): BAR1 is not static"
    };
    let outcome = Outcome::fail(why)
        .expected("a BAR1 at least as large as the GPU's memory, and the registry keys")
        .remedy(Remedy::new(Who::Bios, "enable Resizable BAR and Above 4G Decoding"));
    let outcome = match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(Who::VmConfiguration, "give the firmware a larger 64-bit window")
                .command("qm set VMID -cpu host -args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144'"),
        ),
        _ => outcome,
    };
    let outcome = outcome.remedy(
        Remedy::new(Who::Guest, "set the registry keys, renew the initramfs and restart")
            .command(MODPROBE)
            .command("update-initramfs -u -k all"),
    );
    unless_other(context, with_lines(outcome, &said))
}

fn memory_type(context: &Context<'_>) -> Outcome {
    let said = find(context, &["x86/PAT*conflicting memory types*write-combining"]);
    if said.is_empty() {
        return silence(context, "nothing maps BAR1 in two ways");
    }
    let outcome = Outcome::fail(
        "the driver maps BAR1 write-combined, which the kernel's P2PDMA mapping conflicts with",
    )
    .expected("RmForceDisableIomapWC=1")
    .remedy(
        Remedy::new(Who::Guest, "set the registry key, renew the initramfs and restart")
            .command(MODPROBE)
            .command("update-initramfs -u -k all"),
    );
    unless_other(context, with_lines(outcome, &said))
}

fn pages(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "Unable to initialse PCI P2PDMA pages",
            "Unable to initialise PCI P2PDMA pages",
            "pci_p2pdma_add_resource*out of memory",
        ],
    );
    if said.is_empty() {
        return silence(context, "the driver's pages were added");
    }
    let outcome = Outcome::fail(
        "the kernel could not describe BAR1 by pages: there is too little memory, or too little room",
    )
    .expected("1/64 of BAR1 free in RAM for each GPU: 2 GiB for 128 GiB");
    let outcome = match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(Who::VmConfiguration, "give the virtual machine more memory")
                .command("qm set VMID -memory MIB"),
        ),
        _ => outcome.remedy(Remedy::new(Who::Hardware, "add memory")),
    };
    unless_other(context, with_lines(outcome, &said))
}

fn multipath(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::P2pdma) {
        return moot;
    }
    match multipath_off(context) {
        Some(true) => Outcome::pass("nvme_core.multipath is N"),
        None => Outcome::unknown("whether nvme's multipath is on cannot be seen").remedy(
            Remedy::new(Who::Guest, "look").command("cat /sys/module/nvme_core/parameters/multipath"),
        ),
        Some(false) => {
            Outcome::fail("nvme's multipath is on, and its virtual block devices take no P2PDMA pages")
                .expected("N")
                .actual("Y")
                .evidence("/sys/module/nvme_core/parameters/multipath", "Y")
                .remedy(
                    Remedy::new(Who::Guest, "turn it off where the module is loaded: in the initramfs")
                        .command("echo 'options nvme_core multipath=N' > /etc/modprobe.d/nvme.conf")
                        .command("update-initramfs -u -k all"),
                )
        }
    }
}

fn path(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "do not share an upstream bridge",
            "ACS redirect is set between the client and provider",
            "Host bridge not in P2PDMA whitelist",
            "cannot be used for peer-to-peer DMA",
        ],
    );
    if said.is_empty() {
        return silence(context, "the kernel refused no path");
    }
    let acs = said.iter().any(|line| line.text.contains("ACS redirect"));
    let outcome = if acs {
        let list =
            said.iter().find_map(|line| line.text.split_once("disable_acs_redir=").map(|(_, list)| list));
        Outcome::fail(
            "the kernel refuses the path between drive and GPU: ACS redirects it to the root complex",
        )
        .remedy(
            Remedy::new(Who::Guest, "on bare metal: let peers talk directly on this path")
                .command(format!("pci=disable_acs_redir={}", list.unwrap_or("BB:DD.F"))),
        )
    } else {
        Outcome::fail(
            "the kernel refuses the path between drive and GPU: they share no switch, and the host bridge is not known to forward",
        )
    };
    let outcome = match context.side {
        Side::Guest => outcome
            .remedy(Remedy::new(
                Who::VmConfiguration,
                "put GPU and NVMe below one emulated PCIe switch (x3130-upstream, xio3130-downstream)",
            ))
            .remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    "on an AMD host, or pass the CPU's own type on: Zen forwards between root ports",
                )
                .command("qm set VMID -cpu host"),
            ),
        _ => outcome.remedy(Remedy::new(
            Who::Hardware,
            "put drive and GPU below one PCIe switch, or on a CPU that forwards",
        )),
    };
    let outcome =
        outcome.remedy(Remedy::new(Who::Guest, "or use the nvfs route, which this rule does not concern"));
    unless_other(context, with_lines(outcome, &said))
}

fn cufile_keys(context: &Context<'_>) -> Outcome {
    if let Some(moot) = moot(context, Direct::P2pdma) {
        return moot;
    }
    let said = find(context, &["cuFileHandleRegister*5008", "cuFileHandleRegister*err=5008"]);
    let keys =
        "\"properties\": {\"use_pci_p2pdma\": true}, \"block\": {\"nvme\": {\"use_pci_p2pdma\": true}}";
    let remedy = || Remedy::new(Who::Guest, format!("write into /etc/cufile.json: {keys}"));
    match cufile_p2pdma(context) {
        Some(true) if said.is_empty() => Outcome::pass("cuFile's settings ask for P2PDMA"),
        Some(false) => with_lines(
            Outcome::fail("cuFile is not told to use P2PDMA: it is off unless its settings ask for it").expected(keys).remedy(remedy()),
            &said,
        ),
        _ if !said.is_empty() => with_lines(
            Outcome::fail(
                "cuFile refuses the file (5008) although P2PDMA is asked for: a key, the registry keys or the filesystem is missing",
            )
            .expected(keys)
            .remedy(remedy())
            .remedy(
                Remedy::new(Who::Guest, "check the rest of the route")
                    .command("cat /sys/module/nvme_core/parameters/multipath")
                    .command("grep RegistryDwords /proc/driver/nvidia/params"),
            ),
            &said,
        ),
        _ => Outcome::unknown("whether cuFile's settings ask for P2PDMA cannot be seen"),
    }
}
