//! Does NVIDIA's driver find, claim and start the GPUs, and do they still answer?

use super::check::{Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::said::{Line, find, judge_kernel_log, lines, numbers, silence, with_lines};
use crate::facts::nvidia::NvidiaGpu;
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
        "GSP firmware image version mismatch",
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

/// Was it never started? Its identity is in its firmware, and the driver keeps what it once read (nv-procfs.c).
fn is_idle(gpu: &NvidiaGpu) -> bool {
    gpu.uuid.value().is_some_and(|uuid| uuid.contains('?'))
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
        if let Some(idle) = context.facts.nvidia.gpus.value().into_iter().flatten().find(|gpu| is_idle(gpu)) {
            return Outcome::unknown(format!(
                "the driver starts a GPU when a program opens it, and none opened {}",
                idle.address
            ))
            .remedy(Remedy::new(Who::Guest, "have a program open it, and look again").command("nvidia-smi"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::check::Answer;
    use crate::checks::testing::{ask, good};
    use crate::facts::kernel_log::KernelLog;
    use crate::facts::log_lines::LogLines;
    use crate::facts::{Fact, Facts};

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
    fn a_gpu_that_nobody_opened_is_neither_started_nor_broken() {
        let mut facts = good(Side::Guest);
        let log = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (*line).to_owned()).collect();
            let kernel = LogLines { from: "/dev/kmsg".into(), lines, ..LogLines::default() };
            Fact::known("/dev/kmsg", KernelLog { sources: vec![kernel] })
        };
        facts.kernel_log = log(&["Linux version 6.12"]);
        let start = |facts: &Facts| ask("driver.rm-init", facts, Side::Guest);
        assert_eq!(start(&facts).answer, Answer::Pass);
        let Fact::Known { value: gpus, .. } = &mut facts.nvidia.gpus else { panic!() };
        gpus[0].firmware = Fact::known("information", "N/A".into());
        gpus[0].uuid = Fact::known("information", "GPU-????????-????-????-????-????????????".into());
        let idle = start(&facts);
        assert_eq!(idle.answer, Answer::Unknown);
        assert!(idle.why.contains("none opened 0000:"), "{idle:?}");
        facts.kernel_log = log(&["NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x25:2028)"]);
        assert_eq!(start(&facts).answer, Answer::Fail);
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
