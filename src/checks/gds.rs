//! cuFile as a whole: its settings, gdscheck's answer, whether a direct route exists at all.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, complete};
use super::said::{find, heard_cufile, with_lines};
use crate::facts::Fact;

/// cuFile's settings, which other checks require.
pub const SETTINGS: &[Check] = &[Check {
    id: "cufile.readable",
    title: "cuFile's settings can be read",
    sides: WHERE_GDS_RUNS,
    requires: &[],
    severity: Severity::Major,
    rationale: "A cufile.json that cannot be parsed is ignored, with everything that it was to turn on.",
    references: &["docs.nvidia.com/gpudirect-storage: configuration, cufile.json"],
    covers: &["guide: cufile.json", "gds-diag: cufile.json"],
    run: readable,
}];

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "cufile.compat",
        title: "cuFile may use a direct route",
        sides: WHERE_GDS_RUNS,
        requires: &["cufile.readable"],
        severity: Severity::Blocker,
        rationale: "force_compat_mode makes cuFile copy everything by the CPU; allow_compat_mode lets it do so in silence.",
        references: &["docs.nvidia.com/gpudirect-storage: configuration, properties"],
        covers: &["guide: compat mode", "gds-diag: compat mode"],
        run: compat,
    },
    Check {
        id: "route.possible",
        title: "a direct route exists",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "kernel.routes",
            "kernel.module-signature",
            "gpu.present",
            "nvme.present",
            "driver.loaded",
            "nvidia-fs.loaded",
            "nvidia-fs.symbols",
            "nvme.hook",
            "nvme.hook-version",
            "p2pdma.kernel",
            "p2pdma.registry-keys",
            "p2pdma.multipath",
            "p2pdma.static-bar1",
            "p2pdma.path",
            "topology.p2pdma",
            "cufile.compat",
        ],
        severity: Severity::Blocker,
        rationale: "Either nvidia-fs with a patched nvme driver, or PCI P2PDMA with all of its settings, must be complete.",
        references: &["docs.nvidia.com/gpudirect-storage: getting started"],
        covers: &["guide: which routes are possible", "signature 17"],
        run: route,
    },
    Check {
        id: "gds.nvme",
        title: "gdscheck finds a direct route to NVMe",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "kernel.routes",
            "kernel.module-signature",
            "driver.loaded",
            "driver.cuda",
            "driver.product",
            "nvidia-fs.loaded",
            "nvidia-fs.symbols",
            "nvme.hook",
            "nvme.hook-version",
            "p2pdma.kernel",
            "p2pdma.registry-keys",
            "p2pdma.multipath",
            "p2pdma.static-bar1",
            "p2pdma.cufile-keys",
            "route.possible",
        ],
        severity: Severity::Blocker,
        rationale: "gdscheck asks cuFile itself which routes it would take; `compat` and `Unsupported` mean copies by the CPU.",
        references: &["docs.nvidia.com/gpudirect-storage: gdscheck"],
        covers: &["guide: gdscheck", "gds-diag: gdscheck"],
        run: nvme,
    },
    Check {
        id: "gds.platform",
        title: "gdscheck accepts the platform",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.cuda", "driver.product"],
        severity: Severity::Major,
        rationale: "gdscheck verifies GPU, driver and CPU architecture.",
        references: &["docs.nvidia.com/gpudirect-storage: gdscheck"],
        covers: &["guide: gdscheck", "gds-diag: platform"],
        run: platform,
    },
    Check {
        id: "gds.tool-output",
        title: "what gdsio printed makes sense",
        sides: WHERE_GDS_RUNS,
        requires: &["driver.loaded", "driver.cuda"],
        severity: Severity::Minor,
        rationale: "gdsio hangs without a GPU, prints results that are none when it fails, and calls a copy by the CPU GPUD.",
        references: &["gds-tools: gdsio"],
        covers: &["guide: gdsio", "signature 35"],
        run: tool_output,
    },
    Check {
        id: "gds.logging",
        title: "cuFile can write its log",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "Without its log cuFile's silence says nothing.",
        references: &["docs.nvidia.com/gpudirect-storage: configuration, logging.dir"],
        covers: &["signature 37"],
        run: logging,
    },
];

/// What only a hypervisor's own logs show. They apply anywhere: such a log may be all that was sent.
pub const HOST_LOGS: &[Check] = &[
    Check {
        id: "host.group-viable",
        title: "the GPU's whole group can be given away",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "VFIO gives a device away only if nothing else of its IOMMU group is held by a driver of the host.",
        references: &["Documentation/driver-api/vfio.rst"],
        covers: &["signature 7"],
        run: group_viable,
    },
    Check {
        id: "host.flr",
        title: "the GPU comes back after a reset",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "A GPU that does not come back after a function-level reset is hung until the host is switched off.",
        references: &["drivers/pci/pci.c: pci_dev_wait"],
        covers: &["signature 33"],
        run: flr,
    },
    Check {
        id: "host.memory-locked",
        title: "the guest's memory can be mapped for its devices",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "VFIO maps and locks all of a guest's memory; a limit or a balloon in the way ends that.",
        references: &["drivers/vfio/vfio_iommu_type1.c"],
        covers: &["signature 34"],
        run: memory_locked,
    },
    Check {
        id: "host.peer-mapping",
        title: "the hypervisor maps the GPU's memory for the drive",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "QEMU maps each device's windows for its peers; where it cannot, transfers between them fault.",
        references: &["QEMU hw/vfio/container.c"],
        covers: &["guide: hypervisor messages"],
        run: peer_mapping,
    },
    Check {
        id: "host.iommu-faults",
        title: "the IOMMU blocked no transfer",
        sides: ANYWHERE,
        requires: &["host.peer-mapping"],
        severity: Severity::Major,
        rationale: "A transfer to an address that the IOMMU does not know is blocked; between peers that means a missing mapping.",
        references: &["drivers/iommu/intel/dmar.c", "drivers/iommu/amd/iommu.c"],
        covers: &["signature 29"],
        run: iommu_faults,
    },
];

fn readable(context: &Context<'_>) -> Outcome {
    match &context.facts.cufile {
        Fact::Known { from, .. } => Outcome::pass(format!("{from} can be read")),
        Fact::Missing { .. } => Outcome::not_applicable("there is no cufile.json: cuFile takes its defaults"),
        Fact::Malformed { from, why } => {
            Outcome::fail(format!("{from} is no JSON: cuFile ignores all of it"))
                .actual(why.clone())
                .evidence(from, why)
                .remedy(Remedy::new(Who::Guest, "mend it").command("python3 -m json.tool < /etc/cufile.json"))
        }
        other => Outcome::unknown(format!("cufile.json cannot be read: {}", other.as_ref().map(|_| ""))),
    }
}

/// A setting from cufile.json, else as gdscheck printed it.
fn setting(context: &Context<'_>, name: &str) -> Option<bool> {
    let config = context.facts.cufile.value();
    let own = match name {
        "allow_compat_mode" => config.and_then(|c| c.allow_compat_mode),
        _ => config.and_then(|c| c.force_compat_mode),
    };
    let label = if name == "allow_compat_mode" {
        "properties.use_compat_mode"
    } else {
        "properties.force_compat_mode"
    };
    own.or_else(|| context.facts.gdscheck.value()?.switch(label))
}

fn compat(context: &Context<'_>) -> Outcome {
    if setting(context, "force_compat_mode") == Some(true) {
        return Outcome::fail("cuFile is told to copy everything by the CPU (force_compat_mode)")
            .expected("\"force_compat_mode\": false")
            .actual("true")
            .evidence("/etc/cufile.json", "properties.force_compat_mode: true")
            .remedy(Remedy::new(
                Who::Guest,
                "set properties.force_compat_mode to false in /etc/cufile.json",
            ));
    }
    match setting(context, "allow_compat_mode") {
        Some(false) => Outcome::pass("cuFile may not fall back to copies by the CPU"),
        Some(true) => {
            Outcome::note("cuFile may fall back to copies by the CPU in silence (allow_compat_mode)")
        }
        None => Outcome::unknown(
            "cuFile's settings cannot be seen; by default it may fall back to copies by the CPU",
        ),
    }
}

fn route(context: &Context<'_>) -> Outcome {
    let states = [Direct::Nvfs, Direct::P2pdma].map(|route| complete(context, route));
    match states {
        [Some(true), _] => Outcome::pass("nvidia-fs and an nvme driver with its hook are there"),
        [_, Some(true)] => Outcome::pass("the p2pdma route is complete"),
        [Some(false), Some(false)] => {
            let release = context.facts.kernel.release.value().map_or("(unknown)", String::as_str);
            Outcome::fail(format!("no direct route exists on kernel {release}: neither nvidia-fs with a patched nvme driver nor PCI P2PDMA is complete"))
                .expected("nvidia-fs with nvme_v*_register_nvfs_dma_ops, or PCI P2PDMA with its settings")
                .remedy(
                    Remedy::new(Who::Guest, "run a kernel that has one of them: Ubuntu's linux-nvidia flavour has both")
                        .command("apt install linux-nvidia"),
                )
        }
        _ => Outcome::unknown("whether one of the two direct routes is complete cannot be seen"),
    }
}

fn nvme(context: &Context<'_>) -> Outcome {
    let Some(answer) = context.facts.gdscheck.value() else {
        return Outcome::unknown("gdscheck was not run")
            .remedy(Remedy::new(Who::Guest, "run it").command("/usr/local/cuda/gds/tools/gdscheck -p"));
    };
    let row = answer.drivers.get("NVMe").map_or("(no row)".to_owned(), |words| words.join(", "));
    match answer.nvme_routes() {
        None => Outcome::unknown("gdscheck's answer has no row for NVMe"),
        Some(routes) if !routes.is_empty() => Outcome::pass(format!("gdscheck: {}", routes.join(", "))),
        Some(_) => {
            let outcome = Outcome::fail(format!(
                "gdscheck finds no direct route to NVMe ({row}): everything is copied by the CPU"
            ))
            .expected("NVMe: nvfs, p2pdma or Supported")
            .actual(format!("NVMe: {row}"))
            .evidence(&answer.from, format!("NVMe: {row}"));
            if answer.nvidia_fs.is_some() {
                outcome
                    .remedy(
                        Remedy::new(
                            Who::Guest,
                            "nvidia-fs is loaded, so the nvme driver lacks its hook: run a kernel whose nvme is patched",
                        )
                        .command("grep nvfs_dma_ops /proc/kallsyms")
                        .command("apt install linux-nvidia"),
                    )
                    .remedy(Remedy::new(Who::Guest, "or set up P2PDMA (see p2pdma.*)"))
            } else {
                outcome.remedy(Remedy::new(
                    Who::Guest,
                    "load nvidia-fs next to a patched nvme driver, or set up P2PDMA",
                ))
            }
        }
    }
}

fn platform(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &["Platform has been denied", "CPU Architecture not Supported", "Platform verification failed"],
    );
    let Some(answer) = context.facts.gdscheck.value() else {
        return match said.is_empty() {
            true => Outcome::unknown("gdscheck was not run"),
            false => with_lines(Outcome::fail("cuFile refuses this platform"), &said),
        };
    };
    if let Some(gpu) = answer.gpus.iter().find(|gpu| !gpu.supports) {
        return Outcome::fail(format!(
            "gdscheck says that the GPU {} does not support GPUDirect Storage",
            gpu.name
        ))
        .evidence(&answer.from, gpu.line.clone())
        .remedy(Remedy::new(
            Who::Hardware,
            "use a data-centre or workstation GPU of the Turing generation or later",
        ));
    }
    let driver = answer.driver.as_deref().unwrap_or_default();
    if driver.starts_with("Unsupported") || driver.starts_with("Supported only") {
        return Outcome::fail(format!("cuFile does not take this driver: {driver}"))
            .evidence(&answer.from, driver)
            .remedy(
                Remedy::new(Who::Guest, "install the open kernel modules").command("apt install nvidia-open"),
            );
    }
    match answer.verified {
        Some(true) => Outcome::pass("gdscheck verified the platform"),
        Some(false) => with_lines(
            Outcome::fail("gdscheck does not accept this platform")
                .evidence(&answer.from, answer.errors.join("; "))
                .remedy(
                    Remedy::new(Who::Guest, "mend what stands above it first, then run it again")
                        .command("gdscheck -p"),
                ),
            &said,
        ),
        None if answer.errors.is_empty() => Outcome::unknown("gdscheck's answer ends before its verdict"),
        None => {
            Outcome::fail(format!("gdscheck could not verify the platform: {}", answer.errors.join("; ")))
                .evidence(&answer.from, answer.errors.join("; "))
                .remedy(Remedy::new(Who::Guest, "see whether CUDA starts at all").command("nvidia-smi"))
        }
    }
}

fn tool_output(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &["exiting gdsio", "Throughput: -", "ops: 0 *Avg_Latency", "cuda runtime api call failed"],
    );
    let killed = context.facts.commands.value().into_iter().flatten().find(|command| {
        command.program() == "gdsio" && command.status.value().is_some_and(|s| *s == 124 || *s == 137)
    });
    if let Some(command) = killed {
        return Outcome::fail("gdsio hung and had to be killed, as it does where CUDA finds no GPU")
            .evidence(&command.from, command.argv.join(" "))
            .remedy(
                Remedy::new(Who::Guest, "mend what keeps CUDA from starting; run gdsio with a time limit")
                    .command("timeout 60 gdsio ..."),
            );
    }
    if !said.is_empty() {
        let outcome =
            Outcome::fail("gdsio failed; the numbers that it printed are none").remedy(Remedy::new(
                Who::Guest,
                "mend what keeps CUDA or cuFile from starting; run gdsio with a time limit",
            ));
        return with_lines(outcome, &said);
    }
    let proof = find(context, &["XferType: GPUD"]);
    if !proof.is_empty() {
        let outcome =
            Outcome::note("gdsio prints GPUD also where cuFile copied by the CPU: it proves no route");
        return with_lines(outcome, &proof);
    }
    Outcome::not_applicable("gdsio was not run")
}

fn logging(context: &Context<'_>) -> Outcome {
    let said = find(context, &["error opening log file", "logging will be disabled"]);
    if said.is_empty() {
        return if heard_cufile(context) {
            Outcome::pass("cuFile wrote its log")
        } else {
            Outcome::unknown("nothing of cuFile was seen")
        };
    }
    let outcome = Outcome::fail("cuFile could not write its log, so what it says of a fall-back is lost")
        .remedy(
            Remedy::new(Who::Guest, "name a folder that can be written to: logging.dir in /etc/cufile.json")
                .command("CUFILE_LOGFILE_PATH=/tmp/cufile.log PROGRAM"),
        );
    with_lines(outcome, &said)
}

/// Fails where the hypervisor's log has the words; a guest cannot see it.
fn host_said(
    context: &Context<'_>,
    patterns: &[&str],
    fail: impl FnOnce() -> Outcome,
    unseen: &str,
    ask: &str,
) -> Outcome {
    let said = find(context, patterns);
    if !said.is_empty() {
        return with_lines(fail(), &said);
    }
    match context.side {
        Side::Host => {}
        Side::Guest => {
            return Outcome::not_applicable(format!("{unseen}; vm.host-messages says how to ask the host"));
        }
        Side::BareMetal => return Outcome::not_applicable("nothing is given away here"),
    }
    if context.facts.kernel_log.value().is_some() {
        return Outcome::pass("nothing of it was logged");
    }
    Outcome::unknown(unseen.to_owned()).remedy(Remedy::new(Who::Hypervisor, "look for it").command(ask))
}

fn group_viable(context: &Context<'_>) -> Outcome {
    host_said(
        context,
        &["group*is not viable", "vfio*Please ensure all devices within the iommu_group are bound"],
        || {
            Outcome::fail("the GPU cannot be given away: a device of its IOMMU group is still held by a driver of the host")
                .remedy(
                    Remedy::new(Who::Hypervisor, "bind every device of the group to vfio-pci, or unplug it")
                        .command("for d in /sys/kernel/iommu_groups/N/devices/*; do lspci -nnks ${d##*/}; done")
                        .command("driverctl set-override 0000:BB:DD.F vfio-pci"),
                )
                .remedy(Remedy::new(Who::Hardware, "or put the GPU into a slot with a group of its own"))
        },
        "whether the group can be given away stands in the hypervisor's log",
        "journalctl -b | grep -i 'not viable'",
    )
}

fn flr(context: &Context<'_>) -> Outcome {
    host_said(
        context,
        &[
            "not ready*after FLR; giving up",
            "not ready*after bus reset; giving up",
            "vfio*Unable to change power state*device inaccessible",
        ],
        || {
            Outcome::fail("the GPU did not come back after its reset (FLR): it is hung").remedy(Remedy::new(
                Who::Hardware,
                "switch the host off (no restart: the slot's power must go) and on again",
            ))
        },
        "whether the GPU came back after its last reset stands in the host's log",
        "journalctl -k | grep -i flr",
    )
}

fn memory_locked(context: &Context<'_>) -> Outcome {
    host_said(
        context,
        &[
            "VFIO_MAP_DMA*-12",
            "VFIO_MAP_DMA*Cannot allocate memory",
            "vfio_dma_map*Cannot allocate memory",
            "vfio_pin_pages_remote: RLIMIT_MEMLOCK",
        ],
        || {
            Outcome::fail(
                "the hypervisor could not lock the guest's memory for its devices (VFIO_MAP_DMA: -12)",
            )
            .remedy(
                Remedy::new(Who::VmConfiguration, "turn the balloon off, so that all of the memory is there")
                    .command("qm set VMID -balloon 0"),
            )
            .remedy(
                Remedy::new(Who::Hypervisor, "raise the limit on locked memory")
                    .command("ulimit -l unlimited"),
            )
        },
        "whether the guest's memory could be locked stands in the hypervisor's log",
        "journalctl -b | grep VFIO_MAP_DMA",
    )
}

fn peer_mapping(context: &Context<'_>) -> Outcome {
    host_said(
        context,
        &[
            "PCI peer-to-peer transactions on BARs are not supported",
            "vfio_container_dma_map*Invalid argument",
            "IOMMU_IOAS_MAP failed*PCI BAR",
        ],
        || {
            Outcome::fail("the hypervisor could not map the GPU's memory for its peers: transfers from the drive will fault")
                .remedy(Remedy::new(
                    Who::Hypervisor,
                    "use QEMU's VFIO type 1 container and not iommufd, or Linux 6.19 and a QEMU that maps windows through it",
                ))
                .remedy(
                    Remedy::new(Who::VmConfiguration, "limit the guest's addresses to what the host's IOMMU has")
                        .command("qm set VMID -cpu host,phys-bits=host"),
                )
        },
        "whether the GPU's memory is mapped for the drive stands in QEMU's log",
        "journalctl -b | grep -i 'peer-to-peer transactions'",
    )
}

fn iommu_faults(context: &Context<'_>) -> Outcome {
    let said =
        find(context, &["DMAR:*fault addr", "AMD-Vi: Event logged [IO_PAGE_FAULT", "AMD-Vi:*IO_PAGE_FAULT"]);
    if said.is_empty() {
        return match (context.side, context.facts.kernel_log.value()) {
            (Side::Guest, _) => Outcome::not_applicable("a guest does not see the host's IOMMU"),
            (_, Some(_)) => Outcome::pass("the IOMMU blocked nothing"),
            (_, None) => Outcome::unknown("the kernel log cannot be seen"),
        };
    }
    let outcome = Outcome::fail("the IOMMU blocks transfers: the drive writes to an address that is not mapped for it")
        .expected("no DMAR or AMD-Vi faults")
        .remedy(Remedy::new(
            Who::Hypervisor,
            "see that QEMU maps the GPU's windows (VFIO type 1, enough address bits), and restart the virtual machine",
        ));
    let outcome = match context.side {
        Side::BareMetal => outcome.remedy(
            Remedy::new(Who::Guest, "switch the IOMMU off, or to pass-through")
                .command("iommu=pt   # on the kernel's command line"),
        ),
        _ => outcome,
    };
    with_lines(outcome, &said)
}
