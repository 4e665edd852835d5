//! NVIDIA's driver: the GPUs answer, the kernel modules run, and the libraries fit them.

use super::check::{Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, is_wanted};
use super::said::{Line, at_least, find, judge_kernel_log, lines, numbers, silence, with_lines};
use crate::facts::modules::LoadOutcome;
use crate::facts::pci::PciDevice;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "gpu.fell-off",
        title: "the GPU stays on the bus",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.responds"],
        severity: Severity::Blocker,
        rationale: "A GPU that no longer answers on PCI Express is gone until the machine is switched off.",
        references: &["docs.nvidia.com/deploy/xid-errors: 79"],
        covers: &["signature 10", "signature 11"],
        run: fell_off,
    },
    Check {
        id: "gpu.wedged",
        title: "the GPU was reset since it was last used",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.fell-off"],
        severity: Severity::Blocker,
        rationale: "A GPU whose GSP still runs from an earlier guest cannot be started again without a reset, which only the \
                    host can do.",
        references: &["open-gpu-kernel-modules: kernel_gsp.c, _kgspBootGspRm"],
        covers: &["signature 9"],
        run: wedged,
    },
    Check {
        id: "gpu.xid",
        title: "no fatal GPU errors",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.fell-off"],
        severity: Severity::Major,
        rationale: "Some Xid errors mean that memory, links or the GSP are broken; transfers then fail or carry wrong data.",
        references: &["docs.nvidia.com/deploy/xid-errors"],
        covers: &["guide: Xid", "signature 11", "gds-diag: xid"],
        run: xid,
    },
    Check {
        id: "driver.no-device",
        title: "the driver finds a GPU",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present"],
        severity: Severity::Blocker,
        rationale: "The driver refuses to load where it finds no NVIDIA device on the PCI bus.",
        references: &["open-gpu-kernel-modules: nv.c, nv-pci.c"],
        covers: &["signature 3"],
        run: no_device,
    },
    Check {
        id: "driver.bar",
        title: "the GPU's windows have addresses",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "gpu.bars", "driver.no-device"],
        severity: Severity::Blocker,
        rationale: "Without a PCI window for its memory (BAR1) the GPU cannot be reached; firmware or hypervisor must leave \
                    enough 64-bit address space.",
        references: &["open-gpu-kernel-modules: nv-pci.c", "drivers/pci/setup-res.c"],
        covers: &["guide: Above 4G decoding", "signature 4"],
        run: bar,
    },
    Check {
        id: "driver.nouveau",
        title: "no other driver holds the GPU",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "gpu.driver", "driver.no-device"],
        severity: Severity::Blocker,
        rationale: "A device has one driver; nouveau, nova, nvidiafb or vfio-pci keep NVIDIA's from it.",
        references: &["open-gpu-kernel-modules: nv.c"],
        covers: &["guide: nouveau", "signature 5"],
        run: nouveau,
    },
    Check {
        id: "driver.gpu-supported",
        title: "the driver knows the GPU",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "gpu.generation", "driver.no-device"],
        severity: Severity::Blocker,
        rationale: "The open kernel modules, which GPUDirect Storage needs, run on Turing and later: GPUs with a GSP.",
        references: &["open-gpu-kernel-modules: osapi.c"],
        covers: &["guide: supported GPU", "signature 13"],
        run: gpu_supported,
    },
    Check {
        id: "driver.gsp-firmware",
        title: "the GPU's firmware is there",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.wedged", "driver.bar", "driver.gpu-supported"],
        severity: Severity::Blocker,
        rationale: "The open kernel modules need the GSP firmware of exactly their own version, also in the initramfs if they \
                    are loaded there.",
        references: &["open-gpu-kernel-modules: README, firmware"],
        covers: &["guide: GSP firmware", "signature 8"],
        run: gsp_firmware,
    },
    Check {
        id: "driver.rm-init",
        title: "the driver starts the GPU",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "gpu.fell-off",
            "gpu.wedged",
            "driver.bar",
            "driver.gpu-supported",
            "driver.gsp-firmware",
        ],
        severity: Severity::Blocker,
        rationale: "A GPU that the driver cannot initialise is not there for CUDA.",
        references: &["open-gpu-kernel-modules: nv.c, osinit.c"],
        covers: &["signature 8", "signature 9"],
        run: rm_init,
    },
    Check {
        id: "driver.probe",
        title: "the driver takes the GPU",
        sides: WHERE_GDS_RUNS,
        requires: &[
            "gpu.fell-off",
            "gpu.wedged",
            "driver.no-device",
            "driver.bar",
            "driver.nouveau",
            "driver.gpu-supported",
            "driver.gsp-firmware",
            "driver.rm-init",
        ],
        severity: Severity::Blocker,
        rationale: "A GPU that the driver's probe routine gave up is not there for CUDA.",
        references: &["open-gpu-kernel-modules: nv.c"],
        covers: &["guide: driver bound", "signature 6"],
        run: probe,
    },
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

/// `NVRM: Xid (PCI:0000:9b:00): 119, ...` -> 119.
fn xid_of(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("NVRM: Xid (")?;
    let (_, rest) = rest.split_once(')')?;
    let rest = rest.trim_start_matches(':').trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn fell_off(context: &Context<'_>) -> Outcome {
    let said: Vec<Line<'_>> = lines(context)
        .filter(|line| xid_of(line.text) == Some(79) || line.text.contains("fallen off the bus"))
        .collect();
    if said.is_empty() {
        return silence(context, "no GPU was lost since the kernel started");
    }
    let outcome = Outcome::fail("a GPU stopped answering on the PCI bus")
        .remedy(Remedy::new(
            Who::Hardware,
            "switch the machine off and on; if it comes back, check power cables, riser, slot and cooling",
        ))
        .remedy(Remedy::new(Who::Bios, "if it comes back, turn PCIe power management (ASPM) off"));
    with_lines(outcome, &said)
}

fn wedged(context: &Context<'_>) -> Outcome {
    judge_kernel_log(
        context,
        &["unexpected wpr2 already up"],
        "no GPU was left running by an earlier user",
        || {
            let outcome = Outcome::fail(
                "the GPU still runs the firmware of its last user and cannot be started; a guest cannot reset it",
            );
            match context.side {
                Side::BareMetal => outcome
                    .remedy(Remedy::new(Who::Guest, "reset the GPU").command("nvidia-smi --gpu-reset -i 0"))
                    .remedy(Remedy::new(Who::Hardware, "switch the machine off and on")),
                _ => outcome
                    .remedy(
                        Remedy::new(
                            Who::Hypervisor,
                            "stop the virtual machine, reset the GPU, and start it again",
                        )
                        .command("echo 1 > /sys/bus/pci/devices/0000:BB:DD.F/reset"),
                    )
                    .remedy(Remedy::new(Who::Hardware, "if that does not help, switch the host off and on")),
            }
        },
    )
}

/// Xids after which the GPU or its memory cannot be trusted. 79 has its own check.
fn is_fatal(xid: u32) -> bool {
    matches!(
        xid,
        48 | 56..=58 | 62..=65 | 68 | 69 | 73 | 74 | 80 | 81 | 92 | 95 | 119 | 120 | 140 | 143..=150 | 154
    )
}

fn xid(context: &Context<'_>) -> Outcome {
    let (fatal, mild): (Vec<_>, Vec<_>) = lines(context)
        .filter_map(|line| Some((xid_of(line.text)?, line)))
        .filter(|(xid, _)| *xid != 79)
        .partition(|(xid, _)| is_fatal(*xid));
    let only_lines =
        |of: &[(u32, Line<'_>)]| -> Vec<String> { of.iter().map(|(xid, _)| xid.to_string()).collect() };
    let (numbers, said) = match (fatal.as_slice(), mild.as_slice()) {
        ([], []) => return silence(context, "no Xid was logged"),
        ([], mild) => {
            let said: Vec<_> = mild.iter().map(|(_, line)| *line).collect();
            let why = format!("Xid {} was logged, which programs cause too", unique(&only_lines(mild)));
            return with_lines(Outcome::note(why), &said);
        }
        (fatal, _) => (unique(&only_lines(fatal)), fatal.iter().map(|(_, line)| *line).collect::<Vec<_>>()),
    };
    let outcome =
        Outcome::fail(format!("the driver logged Xid {numbers}, after which this GPU cannot be trusted"))
            .expected("no fatal Xid")
            .actual(format!("Xid {numbers}"))
            .remedy(
                Remedy::new(
                    Who::Guest,
                    "reset the GPU or restart the machine, and look the numbers up in NVIDIA's catalogue",
                )
                .command("nvidia-smi -q -d ECC,ROW_REMAPPER")
                .command("nvidia-smi --gpu-reset"),
            )
            .remedy(Remedy::new(Who::Hardware, "if it comes back, have the GPU exchanged"));
    with_lines(outcome, &said)
}

fn unique(words: &[String]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for word in words {
        if !all.contains(&word.as_str()) {
            all.push(word);
        }
    }
    all.join(", ")
}

/// Does the driver list every GPU that the bus shows? Then what it complained about earlier is over.
fn owns_every_gpu(context: &Context<'_>) -> bool {
    let listed = context.facts.nvidia.gpus.value().map_or(&[][..], Vec::as_slice);
    let is_listed = |address: &str| listed.iter().any(|gpu| gpu.address.eq_ignore_ascii_case(address));
    !listed.is_empty() && context.gpus().iter().all(|gpu| is_listed(&gpu.address))
}

/// What is right now, and was said to be wrong earlier, where it was.
fn right_now(context: &Context<'_>, patterns: &[&str], why: &str) -> Outcome {
    let said = find(context, patterns);
    if said.is_empty() {
        return Outcome::pass(why);
    }
    with_lines(Outcome::note(format!("{why}; what was logged earlier is over")), &said)
}

fn no_device(context: &Context<'_>) -> Outcome {
    const WORDS: &[&str] = &["NVRM: No NVIDIA PCI devices found", "NVRM: No NVIDIA GPU found"];
    if owns_every_gpu(context) {
        return right_now(context, WORDS, "the driver lists every GPU");
    }
    judge_kernel_log(context, WORDS, "the driver did not complain about a missing GPU", || {
        let outcome = Outcome::fail("the driver found no NVIDIA device on the PCI bus");
        match context.side {
            Side::Guest => outcome.remedy(
                Remedy::new(Who::VmConfiguration, "pass the GPU through to this virtual machine")
                    .command("qm set VMID -machine q35 -hostpci0 0000:BB:DD,pcie=1"),
            ),
            _ => outcome
                .remedy(
                    Remedy::new(Who::Guest, "see whether the PCI bus shows a GPU")
                        .command("lspci -nn -d 10de:"),
                )
                .remedy(Remedy::new(
                    Who::VmConfiguration,
                    "if this is a virtual machine, pass the GPU through to it",
                ))
                .remedy(Remedy::new(Who::Hardware, "else check that the GPU is seated and powered")),
        }
    })
}

/// The number of the memory window that a line of the kernel is about: `BAR 1: can't assign mem pref (size 0x...)`, or
/// `BAR 1 [mem size ... 64bit pref]: can't assign; no space`. Port windows, those of virtual functions (7 to 12), of
/// bridges (13 and up) and of expansion ROMs (6) fail on healthy machines.
fn own_bar(text: &str) -> Option<u32> {
    const OTHERS: [&str; 5] = ["VF BAR", "bridge window", "[io ", "[??? ", "assign io "];
    let rest = text.split_once("BAR ")?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..digits].parse().ok()?;
    (number < 6 && !OTHERS.iter().any(|other| text.contains(other))).then_some(number)
}

fn bar(context: &Context<'_>) -> Outcome {
    let mut said = find(
        context,
        &[
            "PCI I/O region assigned to your NVIDIA device is invalid",
            "NVRM: BAR* is 0M @ 0x0",
            "nvidia*can't enable device: BAR*not ",
        ],
    );
    let gpus = context.gpus();
    let placed = !gpus.is_empty()
        && gpus.iter().all(|gpu| {
            gpu.bars.value().is_some_and(|bars| {
                let mut memory = bars.iter().filter(|bar| bar.index < 6 && bar.size > 0).peekable();
                memory.peek().is_some() && memory.all(|bar| bar.start != 0)
            })
        });
    if said.is_empty() && !placed {
        let kernel = ["BAR*can't assign", "BAR*failed to assign", "BAR*no space for", "BAR*no room for"];
        said = find(context, &kernel)
            .into_iter()
            .filter(|line| match own_bar(line.text) {
                // Other devices' windows fail on healthy machines; without a list of devices they are told by their kind.
                Some(bar) if gpus.is_empty() => bar == 1 || line.text.contains("pref"),
                Some(_) => gpus.iter().any(|gpu| line.text.contains(&gpu.address)),
                None => false,
            })
            .collect();
    }
    if said.is_empty() {
        return if placed {
            Outcome::pass("every window of every GPU has an address")
        } else {
            silence(context, "no window of a GPU was left without an address")
        };
    }
    let is_placed = |gpu: &&PciDevice| super::devices::bar1(gpu).is_some();
    if gpus.iter().any(is_placed) && !gpus.iter().all(is_placed) {
        let outcome = Outcome::note("some GPUs have no memory window, others have; gpu.bars names them");
        return with_lines(outcome, &said);
    }
    let outcome = Outcome::fail(
        "a GPU's memory window (BAR) has no address: the space for 64-bit windows is too small",
    )
    .expected("BAR1 with an address above 4 GiB");
    let outcome = match context.side {
        Side::Guest => outcome
            .remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    "let the firmware of the virtual machine have the host's address width and a larger window",
                )
                .command("qm set VMID -cpu host")
                .command("qm set VMID -args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144'"),
            )
            .remedy(Remedy::new(Who::Bios, "turn on \"Above 4G decoding\" on the host")),
        _ => outcome
            .remedy(Remedy::new(Who::Bios, "turn on \"Above 4G decoding\" and \"Resizable BAR\""))
            .remedy(
                Remedy::new(Who::Guest, "or let the kernel place the windows anew: add this to its command line")
                    .command("pci=realloc"),
            ),
    };
    with_lines(outcome, &said)
}

/// Drivers of GPUs that are not NVIDIA's own.
const OTHERS: [&str; 6] = ["nouveau", "nova_core", "nova-core", "novacore", "nvidiafb", "vfio-pci"];

fn nouveau(context: &Context<'_>) -> Outcome {
    let gpus = context.gpus();
    let held = gpus.iter().find_map(|gpu| {
        let driver = gpu.driver.value()?;
        OTHERS.contains(&driver.to_ascii_lowercase().as_str()).then_some((gpu, driver))
    });
    let ours = gpus.iter().any(|gpu| gpu.driver.value().is_some_and(|driver| driver == "nvidia"));
    let said = find(
        context,
        &[
            "NVIDIA probe routine was not called for",
            "another driver was loaded and",
            "obtained ownership of the NVIDIA",
            "NVRM: GPU*is already bound to",
        ],
    );
    let blacklist = || {
        Remedy::new(Who::Guest, "keep the other driver from loading, and restart")
            .command("printf 'blacklist nouveau\\nblacklist nova_core\\nblacklist nvidiafb\\n' > /etc/modprobe.d/no-nouveau.conf")
            .command("update-initramfs -u")
            .command("reboot")
    };
    if let Some((gpu, driver)) = held.filter(|_| !ours) {
        let outcome = Outcome::fail(format!("{driver} holds the GPU at {}", gpu.address))
            .expected("driver nvidia")
            .actual(format!("driver {driver}"))
            .evidence(format!("/sys/bus/pci/devices/{}/driver", gpu.address), driver.clone());
        let remedy = if driver == "vfio-pci" {
            Remedy::new(Who::Guest, "give the GPU back to NVIDIA's driver").command(format!(
                "echo {0} > /sys/bus/pci/drivers/vfio-pci/unbind; echo > /sys/bus/pci/devices/{0}/driver_override; echo \
                 {0} > /sys/bus/pci/drivers_probe",
                gpu.address
            ))
        } else {
            blacklist()
        };
        return with_lines(outcome.remedy(remedy), &said);
    }
    if ours {
        return Outcome::pass("NVIDIA's driver holds the GPU");
    }
    let loaded = OTHERS[..5].iter().find(|name| context.has_module(name) == Some(true));
    if !said.is_empty() {
        let which = loaded.map_or("another driver", |name| name);
        let outcome = Outcome::fail(format!("{which} was there before NVIDIA's driver and holds the GPU"));
        return with_lines(outcome.remedy(blacklist()), &said);
    }
    match (gpus.is_empty(), loaded) {
        (_, Some(name)) => Outcome::note(format!("{name} is loaded, but holds no GPU")),
        (false, None) => Outcome::pass("no other driver holds the GPU"),
        (true, None) => silence(context, "the driver did not complain about another one"),
    }
}

fn gpu_supported(context: &Context<'_>) -> Outcome {
    if context.facts.nvidia.gpus.value().is_some_and(|gpus| !gpus.is_empty())
        && find(context, &["does not include the required GPU"]).is_empty()
    {
        return Outcome::pass("the driver claims the GPU");
    }
    judge_kernel_log(
        context,
        &[
            // The driver breaks this sentence into lines.
            "does not include the required GPU",
            "not supported by open",
            "not supported by the NVIDIA*driver release",
            "installed in this system is not supported by",
            "supported through the NVIDIA*Legacy drivers",
            "NVRM: ignoring the legacy GPU",
        ],
        "the driver did not refuse the GPU",
        || {
            Outcome::fail("the driver that runs does not support this GPU; the open kernel modules need a GSP, which Turing was the first to have")
                .expected("a GPU of the Turing generation or later, and a driver of its time")
                .remedy(Remedy::new(Who::Guest, "for a GPU that is newer than the driver: install a newer driver"))
                .remedy(Remedy::new(Who::Hardware, "for an older one: use a data-centre or workstation GPU of the Turing generation or later"))
        },
    )
}

fn gsp_firmware(context: &Context<'_>) -> Outcome {
    const WORDS: &[&str] = &[
        "Direct firmware load for nvidia/*failed",
        "No firmware image found",
        "failed to load firmware*gsp_",
    ];
    if owns_every_gpu(context) && runs_gsp(context) {
        return right_now(context, WORDS, "every GPU runs its firmware");
    }
    judge_kernel_log(context, WORDS, "no firmware was missing", || {
        let version = context.facts.nvidia.version.value().map_or("VERSION", String::as_str);
        let branch = version.split('.').next().unwrap_or("NNN");
        Outcome::fail("the GSP firmware of this driver's version is not there")
            .expected(format!("/lib/firmware/nvidia/{version}/gsp_ga10x.bin"))
            .remedy(
                Remedy::new(
                    Who::Guest,
                    "install the firmware of exactly the driver's version, and put it into the initramfs",
                )
                .command(format!("apt install nvidia-firmware-{branch}-{version}"))
                .command("update-initramfs -u"),
            )
    })
}

/// Does the driver name a version of firmware for every GPU?
fn runs_gsp(context: &Context<'_>) -> bool {
    let gpus = context.facts.nvidia.gpus.value();
    gpus.is_some_and(|gpus| {
        gpus.iter().all(|gpu| gpu.firmware.value().is_some_and(|version| !numbers(version).is_empty()))
    })
}

fn rm_init(context: &Context<'_>) -> Outcome {
    const WORDS: &[&str] =
        &["RmInitAdapter failed", "Cannot initialize GSP firmware RM", "rm_init_adapter failed"];
    if owns_every_gpu(context) && runs_gsp(context) {
        return right_now(context, WORDS, "every GPU is started");
    }
    let said = find(context, WORDS);
    let smi = find(context, &["No devices were found"]);
    if said.is_empty() && smi.is_empty() {
        return silence(context, "the driver did not fail to start a GPU");
    }
    let outcome = Outcome::fail("the driver could not start the GPU")
        .remedy(
            Remedy::new(Who::Guest, "read what the driver logged before that, and look the numbers up")
                .command("dmesg | grep -i -e NVRM -e nvidia"),
        )
        .remedy(
            Remedy::new(
                Who::Hypervisor,
                "stop the virtual machine, reset the GPU on the host, and start it again",
            )
            .command("echo 1 > /sys/bus/pci/devices/0000:BB:DD.F/reset"),
        );
    with_lines(with_lines(outcome, &said), &smi)
}

fn probe(context: &Context<'_>) -> Outcome {
    const WORDS: &[&str] = &[
        "NVIDIA probe routine failed for",
        "None of the NVIDIA devices were initialized",
        "nvidia*probe*failed with error",
    ];
    if owns_every_gpu(context) {
        return right_now(context, WORDS, "the driver lists every GPU");
    }
    let listed = context.facts.nvidia.gpus.value().map_or(&[][..], Vec::as_slice);
    let gpus = context.gpus();
    let mut given_up =
        gpus.iter().filter(|gpu| listed.iter().all(|own| own.address != gpu.address)).peekable();
    let is_some = !listed.is_empty() && given_up.peek().is_some();
    let answers = |gpu: &&PciDevice| {
        super::devices::bar1(gpu).is_some() && gpu.config.value().is_none_or(|config| !config.all_ones)
    };
    if is_some && !given_up.any(answers) && !find(context, WORDS).is_empty() {
        return with_lines(
            Outcome::note(
                "the driver gave up the GPUs that have no window or do not answer, and took the others",
            ),
            &find(context, WORDS),
        );
    }
    judge_kernel_log(context, WORDS, "the driver gave no GPU up", || {
        let outcome = Outcome::fail("the driver gave a GPU up while taking it");
        let outcome = if is_some { outcome.partial(Severity::Major) } else { outcome };
        outcome.remedy(
            Remedy::new(Who::Guest, "read what the driver logged before that: windows, interrupts, firmware")
                .command("dmesg | grep -i -B20 'probe routine failed'"),
        )
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_a_healthy_machine_needs_too() {
        for (text, number) in [
            ("pci 0000:01:00.0: BAR 1: no space for [mem size 0x800000000 64bit pref]", Some(1)),
            ("pci 0000:01:00.0: BAR 1 [mem size 0x800000000 64bit pref]: can't assign; no space", Some(1)),
            ("pci 0000:01:00.0: BAR 3: can't assign mem pref (size 0x2000000)", Some(3)),
            ("pci 0000:00:1f.4: BAR 13: can't assign io (size 0x0020)", None),
            ("pci 0000:00:1f.4: BAR 5: can't assign io (size 0x0020)", None),
            ("pci 0000:01:00.0: BAR 5: no space for [io size 0x0080]", None),
            ("pci 0000:3b:00.0: BAR 9: no space for [mem size 0x00800000 64bit pref]", None),
            ("pci 0000:3b:00.0: VF BAR 2 [mem size 0x00800000 64bit pref]: can't assign; no space", None),
            (
                "pci 0000:00:1c.0: bridge window [mem size 0x00200000 64bit pref]: can't assign; no space",
                None,
            ),
            ("pci 0000:01:00.0: BAR 6: no space for [mem size 0x00080000 pref]", None),
            ("", None),
            ("BAR 99999999999", None),
        ] {
            assert_eq!(own_bar(text), number, "{text}");
        }
    }

    #[test]
    fn numbers_of_xids() {
        assert_eq!(xid_of("x NVRM: Xid (PCI:0000:9b:00): 119, pid=1"), Some(119));
        assert_eq!(xid_of("NVRM: Xid (PCI:0000:9b:00 GPU-I:05): 94, x"), Some(94));
        for text in ["", "NVRM: Xid (", "NVRM: Xid (PCI)", "NVRM: Xid (x): y", "NVRM: Xid (x): 99999999999"] {
            assert_eq!(xid_of(text), None, "{text}");
        }
    }
}
