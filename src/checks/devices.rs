//! GPUs and NVMe controllers: there, answering, placed, linked, in the right hands.

mod links;

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::each::{Each, absent, each, each_alone, size, to_vfio, unseen};
use crate::facts::Fact;
use crate::facts::pci::{Bar, PciDevice};
use crate::topology::place::Places;
use links::{aer_counters, link};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "gpu.present",
        title: "an NVIDIA GPU is visible",
        sides: ANYWHERE,
        requires: &["platform.wsl"],
        severity: Severity::Blocker,
        rationale: "Without a GPU on the PCI bus there is no GPU memory to transfer into.",
        references: &["Documentation/ABI/testing/sysfs-bus-pci"],
        covers: &["guide: GPU present", "signature 3", "gds-diag: GPU present"],
        run: gpu_present,
    },
    Check {
        id: "nvme.present",
        title: "an NVMe controller is visible",
        sides: ANYWHERE,
        requires: &["platform.wsl"],
        severity: Severity::Blocker,
        rationale: "GPUDirect Storage reads from NVMe controllers; other disks are copied by the CPU.",
        references: &["NVM Express PCIe Transport Specification: class code 01 08 02"],
        covers: &["guide: NVMe present", "gds-diag: NVMe present"],
        run: nvme_present,
    },
    Check {
        id: "gpu.responds",
        title: "the GPU answers on the bus",
        sides: ANYWHERE,
        requires: &["gpu.present"],
        severity: Severity::Blocker,
        rationale: "A device that has fallen off the bus reads as all ones; no driver can use it.",
        references: &["PCI Express Base Specification 2.3.2: a request without an answer reads as ones"],
        covers: &["signature 10"],
        run: |context| responds(context, "GPU", &context.gpus(), Severity::Major),
    },
    Check {
        id: "nvme.responds",
        title: "the NVMe controller answers on the bus",
        sides: ANYWHERE,
        requires: &["nvme.present"],
        severity: Severity::Major,
        rationale: "A device that has fallen off the bus reads as all ones; no driver can use it.",
        references: &["PCI Express Base Specification 2.3.2: a request without an answer reads as ones"],
        covers: &["signature 30"],
        run: |context| responds(context, "NVMe controller", &context.nvmes(), Severity::Minor),
    },
    Check {
        id: "gpu.generation",
        title: "the GPU is of a generation that the open driver knows",
        sides: ANYWHERE,
        requires: &["gpu.present"],
        severity: Severity::Major,
        rationale: "nvidia-fs from 2.17.5 on and PCI P2PDMA need NVIDIA's open kernel modules, which refuse GPUs without a \
                    GSP: those before Turing.",
        references: &["NVIDIA/open-gpu-kernel-modules: README.md, compatible GPUs", "gds-nvidia-fs 2.17.5"],
        covers: &["guide: supported GPU", "signature 13", "gds-diag: GPU generation"],
        run: gpu_generation,
    },
    Check {
        id: "gpu.product",
        title: "the GPU is a data-centre or workstation product",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "gpu.responds"],
        severity: Severity::Major,
        rationale: "The driver refuses to map a GeForce's memory for other devices (nvidia_p2p_get_pages: -22).",
        references: &["NVIDIA/gds-nvidia-fs issue 14", "GPUDirect Storage troubleshooting guide 14.2"],
        covers: &["guide: supported GPU", "signature 20"],
        run: gpu_product,
    },
    Check {
        id: "gpu.bars",
        title: "the GPU's memory windows are placed",
        sides: ANYWHERE,
        requires: &["gpu.present", "gpu.responds"],
        severity: Severity::Blocker,
        rationale: "The driver reaches the GPU through BAR0 and other devices reach its memory through BAR1. Where the \
                    firmware found no room for them, the driver gives up.",
        references: &[
            "open-gpu-kernel-modules: kernel-open/nvidia/nv-pci.c",
            "Documentation/ABI/testing/sysfs-bus-pci",
        ],
        covers: &["guide: Above 4G decoding", "signature 4"],
        run: gpu_bars,
    },
    Check {
        id: "gpu.bar1-size",
        title: "BAR1 shows much of the GPU's memory",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.bars"],
        severity: Severity::Minor,
        rationale: "nvidia-fs can register no more memory at a time than BAR1 shows; what is beyond goes through a bounce \
                    buffer on the GPU.",
        references: &[
            "GPUDirect Storage design guide 6.3",
            "PCI Express Base Specification 7.8.6: Resizable BAR",
        ],
        covers: &["guide: BAR1 size", "gds-diag: BAR1 size"],
        run: bar1_size,
    },
    Check {
        id: "gpu.bar1-p2pdma",
        title: "BAR1 can show all of the GPU's memory, as p2pdma needs it",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.bars"],
        severity: Severity::Major,
        rationale: "p2pdma needs a static BAR1, and the driver refuses one that is smaller than the GPU's memory.",
        references: &["open-gpu-kernel-modules: kern_bus_tu102.c, kbusIsStaticBar1Supported_TU102"],
        covers: &["guide: BAR1 size", "signature 22", "gds-diag: static BAR1"],
        run: bar1_p2pdma,
    },
    Check {
        id: "gpu.pcie",
        title: "the GPU is a PCI Express device to the guest",
        sides: &[Side::Guest],
        requires: &["vm.machine-type", "gpu.present", "gpu.responds"],
        severity: Severity::Major,
        rationale: "Without pcie=1 the hypervisor puts the GPU on a conventional PCI bus: no extended configuration space, \
                    no link, and no root port above it.",
        references: &["qemu-server: PCI.pm, get_pci_addr_map", "QEMU: docs/pcie.txt"],
        covers: &["guide: PCI Express in the VM"],
        run: |context| on_pcie(context, "GPU", &context.gpus()),
    },
    Check {
        id: "nvme.pcie",
        title: "the NVMe controller is a PCI Express device to the guest",
        sides: &[Side::Guest],
        requires: &["vm.machine-type", "nvme.present", "nvme.responds"],
        severity: Severity::Minor,
        rationale: "Without pcie=1 the hypervisor puts the controller on a conventional PCI bus, away from the GPU.",
        references: &["qemu-server: PCI.pm, get_pci_addr_map", "QEMU: docs/pcie.txt"],
        covers: &["guide: PCI Express in the VM"],
        run: |context| on_pcie(context, "NVMe controller", &context.nvmes()),
    },
    Check {
        id: "gpu.driver",
        title: "the GPU is in the right driver's hands",
        sides: ANYWHERE,
        requires: &["gpu.present", "gpu.responds"],
        severity: Severity::Blocker,
        rationale: "Where GPUDirect Storage runs, only NVIDIA's driver can map GPU memory. On a hypervisor the GPU belongs to \
                    vfio-pci, and another driver keeps it from the guest.",
        references: &["Documentation/driver-api/vfio.rst", "open-gpu-kernel-modules: nv-pci.c"],
        covers: &[
            "guide: bound to vfio-pci",
            "guide: driver bound",
            "signature 5",
            "signature 7",
            "gds-diag: nouveau",
        ],
        run: gpu_driver,
    },
    Check {
        id: "nvme.driver",
        title: "an NVMe controller is in the right driver's hands",
        sides: ANYWHERE,
        requires: &["nvme.present"],
        severity: Severity::Blocker,
        rationale: "Both direct routes go through the kernel's nvme driver. On a hypervisor the controller that is given \
                    away belongs to vfio-pci.",
        references: &["drivers/nvme/host/pci.c", "Documentation/driver-api/vfio.rst"],
        covers: &["guide: bound to vfio-pci", "guide: NVMe controller passed through", "signature 7"],
        run: nvme_driver,
    },
    Check {
        id: "nvme.real",
        title: "an NVMe controller is real hardware",
        sides: WHERE_GDS_RUNS,
        requires: &["nvme.present"],
        severity: Severity::Major,
        rationale: "An emulated controller is a program on the host that copies: it has no DMA engine that could reach the \
                    GPU.",
        references: &["QEMU: docs/specs/pci-ids.rst, docs/system/devices/nvme.rst"],
        covers: &["guide: real NVMe"],
        run: nvme_real,
    },
    Check {
        id: "gpu.link",
        title: "the GPU's link is as wide as it can be",
        sides: ANYWHERE,
        requires: &["gpu.present", "gpu.responds"],
        severity: Severity::Minor,
        rationale: "A link that came up with fewer lanes has that much less throughput. An idle GPU lowers its speed, \
                    never its width.",
        references: &["Documentation/ABI/testing/sysfs-bus-pci: current_link_width"],
        covers: &["guide: PCIe link", "gds-diag: PCIe link"],
        run: |context| link(context, "GPU", &context.gpus(), false),
    },
    Check {
        id: "nvme.link",
        title: "the NVMe controllers' links are as fast as they can be",
        sides: ANYWHERE,
        requires: &["nvme.present", "nvme.responds"],
        severity: Severity::Minor,
        rationale: "A link that came up with fewer lanes or a lower generation has that much less throughput.",
        references: &["Documentation/ABI/testing/sysfs-bus-pci: current_link_speed"],
        covers: &["guide: PCIe link", "gds-diag: PCIe link"],
        run: |context| link(context, "NVMe controller", &context.nvmes(), true),
    },
    Check {
        id: "aer.counters",
        title: "GPUs and NVMe controllers have seen no errors on their links",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Minor,
        rationale: "Errors that the link could not repair come from cables, risers and slots, and get worse under load.",
        references: &["Documentation/PCI/pcieaer-howto.rst", "drivers/pci/pcie/aer.c"],
        covers: &["guide: AER", "signature 30", "gds-diag: AER"],
        run: aer_counters,
    },
    Check {
        id: "gpu.virtual-function",
        title: "the GPU is a whole GPU",
        sides: ANYWHERE,
        requires: &["gpu.present"],
        severity: Severity::Major,
        rationale: "The driver refuses a static BAR1 on a virtual function and on a GPU that is shared out, so that p2pdma \
                    is impossible there; with vGPU, GPUDirect Storage begins with Ada and Hopper.",
        references: &["open-gpu-kernel-modules: kern_bus_tu102.c", "NVIDIA AI Enterprise: GPUDirect"],
        covers: &["guide: SR-IOV"],
        run: gpu_virtual_function,
    },
    Check {
        id: "gpu.audio",
        title: "all of the GPU's functions were passed through",
        sides: &[Side::Guest],
        requires: &["gpu.present"],
        severity: Severity::Info,
        rationale: "A GPU with video outputs has an audio function; a hypervisor that keeps it may reset one and not the \
                    other.",
        references: &["Documentation/driver-api/vfio.rst"],
        covers: &["guide: all functions of the GPU"],
        run: gpu_audio,
    },
];

/// Functions of which it cannot be seen what they are.
fn nameless(context: &Context<'_>) -> Option<Outcome> {
    let nameless = context.pci().iter().find(|d| d.class.value().is_none() || d.vendor.value().is_none())?;
    let why =
        if nameless.class.value().is_none() { absent(&nameless.class) } else { absent(&nameless.vendor) };
    Some(Outcome::unknown(format!("what {} is cannot be seen: {why}", nameless.address)))
}

fn gpu_present(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let gpus = context.gpus();
    if let Some(gpu) = gpus.first() {
        return Outcome::pass(format!("{} NVIDIA GPU(s), the first at {}", gpus.len(), gpu.address));
    }
    if let Some(nameless) = nameless(context) {
        return nameless;
    }
    let outcome =
        Outcome::fail(format!("no NVIDIA GPU is visible among {} PCI functions", context.pci().len()))
            .expected("a PCI function of vendor 10de and class 0300 or 0302")
            .evidence("/sys/bus/pci/devices", format!("{} functions, none of them", context.pci().len()));
    match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(
                Who::VmConfiguration,
                "pass the GPU through to this virtual machine, all of its functions",
            )
            .command("qm set VMID -machine q35 -hostpci0 0000:BB:DD,pcie=1"),
        ),
        Side::Host | Side::BareMetal => outcome
            .remedy(Remedy::new(Who::Hardware, "check that the GPU is seated and has its power cables")),
    }
}

/// Intel's Volume Management Devices, which keep the drives below them from the bus (drivers/pci/controller/vmd.c).
const VMD: [u16; 10] = [0x201d, 0x28c0, 0x467f, 0x4c3d, 0x7d0b, 0x9a0b, 0xa77f, 0xad0b, 0xb06f, 0xb60b];

fn nvme_present(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let nvmes = context.nvmes();
    if let Some(nvme) = nvmes.first() {
        return Outcome::pass(format!("{} NVMe controller(s), the first at {}", nvmes.len(), nvme.address));
    }
    if let Some(nameless) = nameless(context) {
        return nameless;
    }
    let outcome =
        Outcome::fail(format!("no NVMe controller is visible among {} PCI functions", context.pci().len()))
            .expected("a PCI function of class 010802");
    let vmd = context.pci().iter().find(|device| VMD.iter().any(|id| device.is(0x8086, *id)));
    if let Some(vmd) = vmd {
        let why = format!("no NVMe controller is visible, and Intel's VMD at {} may keep them", vmd.address);
        return Outcome { why, ..outcome }
            .evidence(format!("/sys/bus/pci/devices/{}", vmd.address), vmd.ids())
            .remedy(Remedy::new(
                Who::Bios,
                "switch Intel VMD (\"VROC\", \"RAID mode\") off for the slots of the drives",
            ));
    }
    match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(
                Who::VmConfiguration,
                "pass a whole NVMe controller through; a virtual disk is copied by the CPU",
            )
            .command("qm set VMID -hostpci1 0000:BB:DD,pcie=1"),
        ),
        Side::Host | Side::BareMetal => outcome
            .remedy(Remedy::new(Who::Hardware, "check that the NVMe drive is seated and its slot enabled")),
    }
}

fn responds(context: &Context<'_>, name: &str, devices: &[&PciDevice], lighter: Severity) -> Outcome {
    let outcome = each_alone(context, name, devices, "it answers", lighter, |device| match &device.config {
        Fact::Known { value, .. } if value.all_ones => {
            Each::Bad("its configuration space reads as all ones: it has fallen off the bus".into())
        }
        Fact::Known { .. } => Each::Good,
        other => Each::Unseen(format!("its configuration space: {}", absent(other))),
    });
    if outcome.answer != super::check::Answer::Fail {
        return outcome;
    }
    let outcome = outcome.expected("its own vendor and device number").actual("ff in every byte").remedy(
        Remedy::new(Who::Hardware, "power the machine off completely; check power cables, riser and seating"),
    );
    match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(
                Who::Hypervisor,
                "stop the virtual machine, look for the device on the host, and power-cycle the host if it is gone",
            )
            .command("dmesg | grep -iE 'fallen off|not ready .* after (FLR|bus reset)|Xid'"),
        ),
        _ => outcome,
    }
}

/// Turing is the first generation with a GSP; its first device number is 1e02. Numbers below belong to older ones.
const FIRST_TURING: u16 = 0x1e00;

fn gpu_generation(context: &Context<'_>) -> Outcome {
    let outcome = each_alone(context, "GPU", &context.gpus(), "Turing or newer", Severity::Minor, |gpu| {
        match &gpu.device {
            Fact::Known { value, .. } if value.0 < FIRST_TURING => {
                Each::Bad(format!("{} is older than Turing", gpu.ids()))
            }
            Fact::Known { .. } => Each::Good,
            other => Each::Unseen(format!("its device number: {}", absent(other))),
        }
    });
    if_failed(outcome, |outcome| {
        outcome
            .expected("a device number from 1e02 on")
            .remedy(Remedy::new(Who::Hardware, "use a data-centre GPU of the Ampere generation or newer"))
    })
}

fn gpu_product(context: &Context<'_>) -> Outcome {
    let outcome = each_alone(context, "GPU", &context.gpus(), "no GeForce", Severity::Minor, |gpu| {
        let claimed = match &context.facts.nvidia.gpus {
            Fact::Known { value, .. } => value.iter().find(|claimed| claimed.address == gpu.address),
            other => return Each::Unseen(format!("its name: {}", absent(other))),
        };
        match claimed.map(|claimed| &claimed.model) {
            Some(Fact::Known { value, .. }) if value.contains("GeForce") || value.contains("TITAN") => {
                Each::Bad(format!("it is a {value}"))
            }
            Some(Fact::Known { .. }) => Each::Good,
            Some(other) => Each::Unseen(format!("its name: {}", absent(other))),
            None => Each::Unseen("the driver has not claimed it".into()),
        }
    });
    if_failed(outcome, |outcome| {
        outcome.remedy(Remedy::new(Who::Hardware, "use a data-centre or workstation GPU"))
    })
}

/// `IORESOURCE_MEM`.
const MEMORY: u64 = 0x200;
/// `IORESOURCE_UNSET`: the kernel found no room.
const UNSET: u64 = 0x2000_0000;

fn is_placed(bar: Bar) -> bool {
    bar.flags & MEMORY != 0 && bar.flags & UNSET == 0 && bar.start != 0
}

/// The window on the GPU's memory, which NVIDIA calls BAR1. The first one is 64 bits wide from Hopper on and takes two
/// numbers, so that this one is number 2 there.
pub(super) fn bar1(gpu: &PciDevice) -> Option<Bar> {
    gpu.bar(1).or_else(|| gpu.bar(2)).filter(|bar| is_placed(*bar))
}

fn gpu_bars(context: &Context<'_>) -> Outcome {
    let outcome =
        each_alone(context, "GPU", &context.gpus(), "BAR0 and BAR1 are placed", Severity::Major, |gpu| {
            if !matches!(gpu.bars, Fact::Known { .. }) {
                return Each::Unseen(format!("its windows: {}", absent(&gpu.bars)));
            }
            match (gpu.bar(0).is_some_and(is_placed), bar1(gpu)) {
                (true, Some(_)) => Each::Good,
                (false, None) => Each::Bad("neither BAR0 nor BAR1 has an address".into()),
                (false, _) => Each::Bad("BAR0 has no address".into()),
                (_, None) => Each::Bad("BAR1 has no address".into()),
            }
        });
    if_failed(outcome, |outcome| {
        let outcome = outcome.expected("an address for BAR0 and for BAR1").actual("0");
        match context.side {
            Side::Guest => outcome
                .remedy(
                    Remedy::new(
                        Who::VmConfiguration,
                        "give the guest the host's address width and its firmware a larger window (in MiB; twice the \
                         sum of all BARs)",
                    )
                    .command("qm set VMID -bios ovmf -cpu host,phys-bits=host")
                    .command("qm set VMID -args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=524288'"),
                )
                .remedy(Remedy::new(Who::Bios, "switch on \"Above 4G Decoding\" on the host")),
            Side::Host | Side::BareMetal => outcome
                .remedy(Remedy::new(
                    Who::Bios,
                    "switch on \"Above 4G Decoding\" and raise the MMIO high size and base",
                ))
                .remedy(
                    Remedy::new(
                        if context.side == Side::Host { Who::Hypervisor } else { Who::Guest },
                        "let the kernel place the windows anew: add this to its command line",
                    )
                    .command("pci=realloc"),
                ),
        }
    })
}

/// Every GPU that p2pdma is supported on has more memory than this.
const LEAST_MEMORY: u64 = 16 << 30;

/// How BAR1 could be larger: the largest size that the Resizable BAR capability offers, if it is above the one now.
fn could_be(gpu: &PciDevice, bar: Bar) -> Option<u64> {
    let config = gpu.config.value()?;
    let resizable = config.resizable_bars.iter().find(|resizable| u32::from(resizable.index) == bar.index)?;
    resizable.sizes.iter().copied().max().filter(|largest| *largest > bar.size)
}

fn resize_remedies(context: &Context<'_>, outcome: Outcome) -> Outcome {
    let outcome =
        outcome.remedy(Remedy::new(Who::Bios, "switch on \"Above 4G Decoding\" and \"Resizable BAR\""));
    match context.side {
        Side::Guest => outcome.remedy(
            Remedy::new(
                Who::Hypervisor,
                "resize BAR1 on the host before the guest starts (the number is log2 of the size in MiB: 16 is 64 GiB)",
            )
            .command("cat /sys/bus/pci/devices/0000:BB:DD.0/resource1_resize")
            .command("echo 16 > /sys/bus/pci/devices/0000:BB:DD.0/resource1_resize"),
        ),
        _ => outcome,
    }
}

fn bar1_size(context: &Context<'_>) -> Outcome {
    let outcome = each(context, "GPU", &context.gpus(), "BAR1 is large", |gpu| {
        let Some(bar) = bar1(gpu) else { return Each::Unseen("BAR1".into()) };
        match could_be(gpu, bar) {
            Some(largest) => Each::Bad(format!("BAR1 is {}, and could be {}", size(bar.size), size(largest))),
            None if bar.size <= 256 << 20 => {
                Each::Bad(format!("BAR1 is {}: nvidia-fs can register no more at a time", size(bar.size)))
            }
            None => Each::Good,
        }
    });
    if_failed(outcome, |outcome| resize_remedies(context, outcome))
}

fn bar1_p2pdma(context: &Context<'_>) -> Outcome {
    let outcome =
        each_alone(context, "GPU", &context.gpus(), "BAR1 is not too small", Severity::Minor, |gpu| {
            let Some(bar) = bar1(gpu) else { return Each::Unseen("BAR1".into()) };
            if bar.size >= LEAST_MEMORY {
                return Each::Good;
            }
            Each::Bad(format!(
                "BAR1 is {}, less than the memory of any GPU that p2pdma supports",
                size(bar.size)
            ))
        });
    if_failed(outcome, |outcome| {
        if context.has_nvfs_hook() {
            // That route does not need a static BAR1.
            return Outcome { answer: super::check::Answer::Note, ..outcome };
        }
        resize_remedies(context, outcome)
            .remedy(Remedy::new(Who::Guest, "use the nvidia-fs route, which works with a small BAR1"))
    })
}

/// Conventional bridges that Proxmox and libvirt put devices behind.
const CONVENTIONAL: [(u16, u16); 3] = [(0x1b36, 0x0001), (0x1b36, 0x000e), (0x8086, 0x244e)];

fn on_pcie(context: &Context<'_>, name: &str, devices: &[&PciDevice]) -> Outcome {
    let places = Places::new(context.facts);
    let has_conventional = CONVENTIONAL.iter().any(|(v, id)| context.pci().iter().any(|d| d.is(*v, *id)));
    let is_qemu = context.facts.platform.vendor.value().is_some_and(|vendor| vendor == "QEMU");
    let outcome = each(context, name, devices, "PCI Express", |device| {
        let place = places.of(device);
        let above = place.iter().flat_map(|place| &place.bridges).filter_map(|bridge| places.device(bridge));
        for bridge in above {
            if CONVENTIONAL.iter().any(|(vendor, id)| bridge.is(*vendor, *id)) {
                return Each::Bad(format!("it is behind {}, a conventional PCI bridge", bridge.ids()));
            }
        }
        match device.config.value() {
            Some(config) if config.sees_extended() && config.express.is_some() => Each::Good,
            Some(config) if config.sees_capabilities() && config.express.is_none() => {
                Each::Bad("it has no PCI Express capability".into())
            }
            Some(config) if config.length == 256 && is_qemu => {
                Each::Bad("its configuration space has 256 bytes, those of conventional PCI".into())
            }
            _ => match place {
                Some(place) if !place.bridges.is_empty() => Each::Good,
                Some(_) => Each::Unseen("its capabilities are shown to root only".into()),
                None if has_conventional && is_numbered_behind(device) => {
                    Each::Bad("its device number can only be on a conventional PCI bus".into())
                }
                None => Each::Unseen("neither its capabilities nor the bridges above it".into()),
            },
        }
    });
    if_failed(outcome, |outcome| {
        outcome.expected("a PCI Express device below a root port").remedy(
            Remedy::new(Who::VmConfiguration, "use machine q35 and pass the device with pcie=1")
                .command("qm set VMID -machine q35 -hostpci0 0000:BB:DD,pcie=1"),
        )
    })
}

/// Below a PCI Express port there is device 0 alone.
fn is_numbered_behind(device: &PciDevice) -> bool {
    let mut parts = device.address.split([':', '.']).skip(1);
    let (bus, number) = (parts.next(), parts.next());
    bus.is_some_and(|bus| bus != "00") && number.is_some_and(|number| number != "00")
}

/// Does a driver only hold a device for somebody else?
pub(super) fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("vfio_pci")
}

fn gpu_driver(context: &Context<'_>) -> Outcome {
    let is_host = context.side == Side::Host;
    let good = if is_host { "bound to vfio-pci" } else { "bound to NVIDIA's driver" };
    let is_any_given =
        context.gpus().iter().any(|gpu| gpu.driver.value().is_some_and(|driver| is_vfio(driver)));
    let meant: Vec<&str> = context.gpus().iter().map(|gpu| gpu.address.as_str()).collect();
    let outcome =
        each_alone(context, "GPU", &context.all_gpus(), good, Severity::Minor, |gpu| match &gpu.driver {
            Fact::Known { value, .. } if !meant.contains(&gpu.address.as_str()) => {
                Each::Odd(format!("{value} holds it, and it only shows a screen"))
            }
            Fact::Known { value, .. } if is_host && is_vfio(value) => Each::Good,
            Fact::Known { value, .. } if !is_host && value == "nvidia" => Each::Good,
            // A host may keep one GPU and give another away.
            Fact::Known { value, .. } if is_host && is_any_given && value == "nvidia" => {
                Each::Odd("the host keeps it for itself".into())
            }
            Fact::Known { value, .. } if is_host => Each::Bad(format!("{value} holds it on the host")),
            Fact::Known { value, .. } => Each::Bad(format!("{value} holds it, not NVIDIA's driver")),
            // Whether the driver is there at all is another check's matter.
            Fact::Missing { .. } => Each::Odd("no driver holds it".into()),
            other => Each::Unseen(format!("its driver: {}", absent(other))),
        });
    if_failed(outcome, |outcome| {
        if is_host {
            outcome.expected("vfio-pci").remedy(to_vfio(
                context,
                "give the GPU to vfio-pci before any other driver takes it, and reboot",
            ))
        } else {
            outcome.expected("nvidia").remedy(
                Remedy::new(Who::Guest, "keep other drivers from the GPU, and reboot")
                    .command("printf 'blacklist nouveau\\nblacklist nova_core\\n' > /etc/modprobe.d/gpu.conf")
                    .command("rm -f /etc/modprobe.d/vfio.conf")
                    .command("update-initramfs -u -k all"),
            )
        }
    })
}

fn nvme_driver(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let nvmes = context.nvmes();
    let is_host = context.side == Side::Host;
    let fits = |driver: &str| if is_host { is_vfio(driver) } else { driver == "nvme" };
    // One is enough: others may be for other purposes, such as the disk that a host boots from.
    let held: Vec<&&PciDevice> =
        nvmes.iter().filter(|nvme| nvme.driver.value().is_some_and(|d| fits(d))).collect();
    if let Some(nvme) = held.first() {
        let driver = nvme.driver.value().map_or("", String::as_str);
        return Outcome::pass(format!(
            "{} of {} NVMe controllers bound to {driver}, the first at {}",
            held.len(),
            nvmes.len(),
            nvme.address
        ));
    }
    let outcome = each(context, "NVMe controller", &nvmes, "", |nvme| match &nvme.driver {
        // A hypervisor may hand it over only when the guest starts.
        Fact::Known { value, .. } if is_host => Each::Odd(format!("{value} holds it on the host")),
        Fact::Known { value, .. } => Each::Bad(format!("{value} holds it, not the nvme driver")),
        Fact::Missing { .. } if is_host => Each::Odd("no driver holds it".into()),
        // A capture may have lost all links: then they say nothing.
        Fact::Missing { .. } if context.pci().iter().all(|device| device.driver.value().is_none()) => {
            Each::Unseen("its driver: no device's driver was captured".into())
        }
        Fact::Missing { .. } => match context.has_module("nvme") {
            // Without the module it cannot be otherwise; whoever loads modules says why there is none.
            Some(true) => Each::Bad("no driver holds it although nvme is loaded".into()),
            _ => Each::Odd("no driver holds it yet".into()),
        },
        other => Each::Unseen(format!("its driver: {}", absent(other))),
    });
    if_failed(outcome, |outcome| {
        outcome.expected("nvme").remedy(
            Remedy::new(Who::Guest, "give the controller back to the nvme driver")
                .command("echo > /sys/bus/pci/devices/ADDRESS/driver_override")
                .command("echo ADDRESS > /sys/bus/pci/devices/ADDRESS/driver/unbind")
                .command("echo ADDRESS > /sys/bus/pci/drivers/nvme/bind"),
        )
    })
}

/// Who emulates this controller, if somebody does.
fn emulated_by(context: &Context<'_>, nvme: &PciDevice) -> Option<&'static str> {
    const EMULATED: [(u16, u16, &str); 5] = [
        (0x1b36, 0x0010, "QEMU"),
        (0x8086, 0x5845, "QEMU"),
        (0x15ad, 0x07f0, "VMware"),
        (0x80ee, 0x4e56, "VirtualBox"),
        (0x4e58, 0x0001, "SPDK"),
    ];
    let by_id = EMULATED.iter().find(|(vendor, device, _)| nvme.is(*vendor, *device)).map(|(_, _, who)| *who);
    let by_card = (nvme.subsystem_vendor.value().map(|id| id.0) == Some(0x1af4)
        && nvme.subsystem_device.value().map(|id| id.0) == Some(0x1100))
    .then_some("QEMU");
    let controllers = context.facts.nvme.value().map_or(&[][..], Vec::as_slice);
    let own = controllers.iter().find(|own| own.address.value() == Some(&nvme.address));
    let by_model = own.and_then(|own| own.model.value()).filter(|model| model.starts_with("QEMU NVMe"));
    by_id.or(by_card).or(by_model.map(|_| "QEMU"))
}

fn nvme_real(context: &Context<'_>) -> Outcome {
    let nvmes = context.nvmes();
    let judge = |nvme: &PciDevice| {
        let vendor = match &nvme.vendor {
            Fact::Known { value, .. } => value.0,
            other => return Each::Unseen(format!("its vendor: {}", absent(other))),
        };
        if let Some(who) = emulated_by(context, nvme) {
            return Each::Bad(format!("{} is emulated by {who}", nvme.ids()));
        }
        match vendor {
            0x1d0f | 0x1ae0 | 0x1414 => Each::Odd(format!(
                "{} is a cloud's disk; whether its DMA reaches other devices is not documented",
                nvme.ids()
            )),
            _ => Each::Good,
        }
    };
    let real = nvmes.iter().filter(|nvme| judge(nvme) == Each::Good).count();
    if real > 0 {
        return Outcome::pass(format!("{real} of {} NVMe controllers are real hardware", nvmes.len()));
    }
    let outcome = each(context, "NVMe controller", &nvmes, "real hardware", judge);
    if_failed(outcome, |outcome| {
        outcome.expected("a controller that was passed through").remedy(
            Remedy::new(
                Who::VmConfiguration,
                "pass a whole NVMe controller through instead of a virtual disk",
            )
            .command("qm set VMID -hostpci1 0000:BB:DD,pcie=1"),
        )
    })
}

/// A share of a GPU, as vGPU's driver names it: `GRID A100D-20C`, `NVIDIA H100-1-10C`.
fn is_share(model: &str) -> bool {
    let last = model.rsplit('-').next().filter(|last| *last != model).unwrap_or("");
    let size = last.strip_suffix(['A', 'B', 'C', 'Q']).unwrap_or("");
    !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit())
}

/// Device numbers of Hopper's GPUs stand between those of Ampere's; Ada's and all later ones above them.
fn is_before_ada(device: u16) -> bool {
    device < 0x2600 && !(0x2300..0x2400).contains(&device)
}

fn gpu_virtual_function(context: &Context<'_>) -> Outcome {
    let smi = context.facts.nvidia_smi.value();
    // nvidia-smi's answers come in the order of the GPUs, of which a guest with vGPU has no others.
    let is_vgpu = smi.is_some_and(|smi| smi.virtualization.iter().any(|mode| mode == "VGPU"));
    let claimed = context.facts.nvidia.gpus.value().map_or(&[][..], Vec::as_slice);
    let outcome = each(context, "GPU", &context.gpus(), "whole", |gpu| {
        let model = claimed.iter().find(|claimed| claimed.address == gpu.address);
        let model = model.and_then(|claimed| claimed.model.value());
        let share = model.filter(|model| is_share(model)).or(model.filter(|_| is_vgpu));
        match (&gpu.physical_function, &gpu.sriov) {
            _ if share.is_some() || is_vgpu => {
                let name = share.map_or("a share of a GPU (vGPU)", String::as_str);
                match gpu.device.value() {
                    Some(id) if is_before_ada(id.0) => Each::Bad(format!(
                        "it is {name}, and vGPU has GPUDirect Storage only from Ada and Hopper on"
                    )),
                    _ => Each::Odd(format!("it is {name}")),
                }
            }
            (Fact::Known { value, .. }, _) => Each::Odd(format!("it is a virtual function of {value}")),
            (_, Fact::Known { value, .. }) if value.in_use > 0 => {
                Each::Odd(format!("{} of its {} virtual functions are in use", value.in_use, value.total))
            }
            (Fact::Missing { .. }, _) => Each::Good,
            (other, _) => Each::Unseen(format!("whether it is a virtual function: {}", absent(other))),
        }
    });
    if_failed(outcome, |outcome| {
        outcome.expected("a whole GPU").remedy(
            Remedy::new(Who::VmConfiguration, "pass the whole GPU through instead of a share of it")
                .command("qm set VMID -hostpci0 0000:BB:DD,pcie=1"),
        )
    })
}

fn gpu_audio(context: &Context<'_>) -> Outcome {
    let audio = |gpu: &PciDevice| {
        context.pci().iter().any(|other| {
            other.slot() == gpu.slot() && other.class.value().copied().is_some_and(|class| class.is_audio())
        })
    };
    each(context, "GPU", &context.gpus(), "complete", |gpu| match gpu.class.value() {
        // Only a GPU with video outputs has one (class 0300).
        Some(class) if class.0 >> 8 == 0x0300 && !audio(gpu) => Each::Odd(
            "it has video outputs, and its audio function is not here; pass it as 0000:BB:DD without .0"
                .into(),
        ),
        _ => Each::Good,
    })
}

/// Adds what is to be done to an outcome that needs it.
pub(super) fn if_failed(outcome: Outcome, more: impl FnOnce(Outcome) -> Outcome) -> Outcome {
    if outcome.answer == super::check::Answer::Fail { more(outcome) } else { outcome }
}

#[cfg(test)]
mod tests;
