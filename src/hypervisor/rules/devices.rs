//! The devices that are passed through.

use super::{Do, Rule, fix, of_process, set_line, some};
use crate::checks::check::{Outcome, Remedy, Severity, Who};
use crate::facts::Fact;
use crate::hypervisor::context::{Context, What};
use crate::hypervisor::machine::{HOST, Passed, PlaceInGuest};
use crate::pasteable::pasteable;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "vm.devices",
        title: "the host has the devices that are passed",
        requires: &[],
        severity: Severity::Blocker,
        rationale: "A device that is not there, or a mapping that names none on this node, keeps the guest from starting.",
        references: &["Proxmox VE: Resource Mapping", "Documentation/driver-api/vfio.rst"],
        run: exist,
    },
    Rule {
        id: "vm.gpu",
        title: "a GPU is passed through",
        requires: &["vm.devices"],
        severity: Severity::Blocker,
        rationale: "Without a GPU there is no GPU memory to transfer into.",
        references: &["Proxmox VE: PCI(e) Passthrough"],
        run: gpu,
    },
    Rule {
        id: "vm.nvme",
        title: "an NVMe controller is passed through",
        requires: &["vm.devices"],
        severity: Severity::Blocker,
        rationale: "GPUDirect Storage needs a controller that writes into the GPU's memory. A virtual disk is copied by QEMU, \
                    whatever lies below it; so is the NVMe controller that QEMU emulates.",
        references: &["NVM Express PCIe Transport Specification", "QEMU: docs/system/devices/nvme.rst"],
        run: nvme,
    },
    Rule {
        id: "vm.pcie",
        title: "every device has a PCI Express port above it",
        requires: &["vm.machine-type"],
        severity: Severity::Major,
        rationale: "On a conventional bus a device loses its extended configuration space, and p2pdma and NVIDIA's driver what \
                    they read there.",
        references: &["qemu-server: PCI.pm, get_pci_addr_map", "QEMU: docs/pcie.txt, 2.1 Root Bus"],
        run: pcie,
    },
    Rule {
        id: "vm.mediated",
        title: "the GPU is passed as a whole",
        requires: &[],
        severity: Severity::Major,
        rationale: "Of a mediated device (vGPU) the guest sees a share; NVIDIA supports GPUDirect Storage on it for some models \
                    and drivers only.",
        references: &["NVIDIA AI Enterprise: vGPU, GPUDirect"],
        run: mediated,
    },
    Rule {
        id: "vm.iommufd",
        title: "the devices' windows are mapped for each other",
        requires: &[],
        severity: Severity::Major,
        rationale: "Through iommufd the windows of devices are mapped from Linux 6.19 on, by a QEMU that asks for it. Before, \
                    transfers between devices end in faults of the IOMMU.",
        references: &[
            "linux: VFIO_DEVICE_FEATURE_DMA_BUF, IOMMU_IOAS_MAP_FILE",
            "cloud-hypervisor issue 8895",
            "QEMU: hw/vfio/listener.c",
        ],
        run: iommufd,
    },
    Rule {
        id: "vm.functions",
        title: "a card is passed with all its functions",
        requires: &["vm.devices"],
        severity: Severity::Info,
        rationale: "The functions of a card are reset together, and share an IOMMU group where the card does not isolate them.",
        references: &[
            "Proxmox VE: PCI(e) Passthrough, multi-function devices",
            "Documentation/driver-api/vfio.rst: groups",
        ],
        run: functions,
    },
    Rule {
        id: "vm.display",
        title: "the GPU is not the guest's display",
        requires: &[],
        severity: Severity::Info,
        rationale: "x-vga makes the GPU the guest's console and takes the virtual display away; a GPU for data centres has no \
                    output, and its ROM takes time to run.",
        references: &[
            "Proxmox VE: qm.conf, hostpci[n]",
            "QEMU: docs/system/device-emulation, vfio-pci x-vga",
        ],
        run: display,
    },
];

fn exist(context: &Context<'_>) -> Outcome {
    let unresolved =
        context.machine.passed.iter().filter(|passed| passed.hosts.is_empty() && passed.mediated.is_none());
    let unresolved: Vec<&Passed> = unresolved.collect();
    let by_shell = |passed: &&&Passed| passed.properties.contains_key(HOST);
    let surely = unresolved.iter().find(|passed| !by_shell(passed));
    if let (None, Some(passed)) = (surely, unresolved.first()) {
        return Outcome::unknown(format!("which device {} is, the shell puts in", passed.name))
            .remedy(of_process());
    }
    if let Some(passed) = surely {
        let name = passed.mapping.as_deref().unwrap_or("");
        let why = match passed.mapping {
            Some(_) => {
                let lack = match context.machine.mappings_read {
                    true => "has no device on this node",
                    false => "is not known here",
                };
                format!("{} names the resource mapping {name:?}, which {lack}", passed.name)
            }
            None => format!("{} names no device", passed.name),
        };
        if passed.mapping.is_none() {
            let text = "name a device that is there; lspci shows their addresses";
            return Outcome::fail(why).remedy(Remedy::new(Who::VmConfiguration, text).command("lspci -D"));
        }
        // Elsewhere than on the hypervisor the mappings are not at hand.
        let outcome = if context.machine.mappings_read { Outcome::fail(why) } else { Outcome::unknown(why) };
        return outcome.remedy(
            Remedy::new(Who::VmConfiguration, "look what the mapping has on this node")
                .command("pvesh get /cluster/mapping/pci")
                .command("cat /etc/pve/mapping/pci.cfg"),
        );
    }
    let Some(Fact::Known { value: devices, .. }) = context.host.map(|facts| &facts.pci) else {
        return Outcome::unknown("the host's devices are not known here").remedy(
            Remedy::new(Who::Hypervisor, "check on the hypervisor itself, or hand in its facts with --host")
                .command("gdsboot-validator facts --json > host.json"),
        );
    };
    let is_gone = |passed: &&Passed| {
        !passed.hosts.is_empty() && !devices.iter().any(|device| passed.covers(&device.address))
    };
    let gone: Vec<&Passed> = context.machine.passed.iter().filter(is_gone).collect();
    if gone.is_empty() {
        return Outcome::pass(format!(
            "{} devices are passed, and the host has them",
            context.machine.passed.len()
        ));
    }
    let mut outcome = Outcome::fail(format!(
        "the host has no device {}",
        some(gone.iter().flat_map(|p| p.hosts.first()).map(String::as_str))
    ))
    .remedy(
        Remedy::new(
            Who::VmConfiguration,
            "name the devices that are there; addresses change when cards are moved",
        )
        .command("lspci -D"),
    );
    for passed in gone {
        outcome =
            outcome.evidence(format!("{}, {}", context.machine.from, passed.name), passed.hosts.join(" "));
    }
    outcome
}

/// How one more device is passed through.
fn pass_one(context: &Context<'_>, text: &str) -> Remedy {
    fix(
        context,
        text,
        "qm set VMID -hostpciN 0000:BB:DD,pcie=1",
        "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0xBB' slot='0xDD' function='0x0'/></source></hostdev>",
        "-device pcie-root-port,id=port,bus=pcie.0,chassis=1 -device vfio-pci,host=0000:BB:DD.0,bus=port",
    )
}

/// Is a device of a kind passed?
enum Presence {
    /// It is, under these names.
    There(String),
    /// Nobody knows what the devices are.
    Unknown,
    /// It is not.
    Missing,
}

/// Where nobody knows what the devices are, only their absence can be told: fewer than `least` are unknown.
fn presence(context: &Context<'_>, what: What, least: usize) -> Presence {
    let found = context.passed(what);
    if !found.is_empty() {
        return Presence::There(some(found.iter().map(|passed| passed.name.as_str())));
    }
    if context.passed(What::Unknown).len() >= least { Presence::Unknown } else { Presence::Missing }
}

fn unknown_devices() -> Outcome {
    Outcome::unknown("what the passed devices are is not known here").remedy(
        Remedy::new(
            Who::Hypervisor,
            "hand in the host's facts with --host, or name the devices with --gpu and --nvme",
        )
        .command("gdsboot-validator facts --json > host.json"),
    )
}

fn gpu(context: &Context<'_>) -> Outcome {
    match presence(context, What::Gpu, 1) {
        Presence::There(names) => Outcome::pass(format!("passed through: {names}")),
        Presence::Unknown => unknown_devices(),
        Presence::Missing => Outcome::fail("no NVIDIA GPU is passed through")
            .expected("a GPU")
            .actual(match context.machine.passed.as_slice() {
                [] => "nothing is passed through".to_owned(),
                passed => some(passed.iter().map(|passed| passed.name.as_str())),
            })
            .remedy(pass_one(context, "pass the GPU through")),
    }
}

fn nvme(context: &Context<'_>) -> Outcome {
    // Of two unknown devices one may be the GPU.
    let least = if context.passed(What::Gpu).is_empty() { 2 } else { 1 };
    match presence(context, What::Nvme, least) {
        Presence::There(names) => return Outcome::pass(format!("passed through: {names}")),
        Presence::Unknown => return unknown_devices(),
        Presence::Missing => {}
    }
    let disks = context.machine.disks.iter().filter(|disk| !disk.cdrom);
    let disks: Vec<String> = disks.map(|disk| format!("{} ({})", disk.name, disk.interface)).collect();
    let emulated = context.machine.disks.iter().any(|disk| disk.interface == "nvme");
    let why = match (emulated, disks.is_empty()) {
        (true, _) => "no NVMe controller is passed through: the one that there is QEMU emulates",
        (false, true) => "no NVMe controller is passed through",
        (false, false) => {
            "no NVMe controller is passed through: the disks are virtual, and QEMU copies their data"
        }
    };
    let outcome = Outcome::fail(why)
        .expected("an NVMe controller that is passed through")
        .remedy(pass_one(context, "pass the NVMe controller through as a whole; the host must not use it"));
    if disks.is_empty() { outcome } else { outcome.actual(some(disks.iter().map(String::as_str))) }
}

fn pcie(context: &Context<'_>) -> Outcome {
    let conventional = context.conventional();
    if let Some(first) = conventional.first() {
        let line = set_line(first, &[("pcie", Some("1"))]);
        // On another machine than q35 nothing is said of ports; there the machine is mended first.
        let proxmox = match line.as_str() {
            "" => {
                Do::Words("in args, give the device's -device vfio-pci the bus of a -device pcie-root-port")
            }
            line => Do::Line(line),
        };
        return Outcome::fail(format!(
            "on a bus of conventional PCI: {}",
            some(conventional.iter().map(|passed| passed.name.as_str()))
        ))
        .expected("a PCI Express root port above each")
        .actual("conventional PCI")
        .remedy(fix(
            context,
            "hang the devices below PCI Express ports",
            proxmox,
            Do::Words("give the hostdev an <address> on a controller of model pcie-root-port"),
            "-device pcie-root-port,id=port,bus=pcie.0,chassis=1 -device vfio-pci,...,bus=port",
        ));
    }
    let on = |wanted: fn(&PlaceInGuest) -> bool| {
        context
            .machine
            .passed
            .iter()
            .filter(move |passed| wanted(&passed.place))
            .map(|passed| passed.name.as_str())
    };
    let lost = on(|place| matches!(place, PlaceInGuest::Unknown(_)));
    let lost: Vec<&str> = lost.collect();
    if !lost.is_empty() {
        return Outcome::unknown(format!(
            "the bus that these hang on is not in the configuration: {}",
            some(lost)
        ));
    }
    let at_root: Vec<&str> = on(|place| *place == PlaceInGuest::RootBus).collect();
    if !at_root.is_empty() {
        return Outcome::fail(format!("without a port above them, on the root bus: {}", some(at_root)))
            .partial(Severity::Minor)
            .expected("a root port above each")
            .remedy(fix(
                context,
                "put a root port above each",
                "",
                Do::Words("give the hostdev an <address> on a controller of model pcie-root-port"),
                "-device pcie-root-port,id=port,bus=pcie.0,chassis=1 -device vfio-pci,...,bus=port",
            ));
    }
    Outcome::pass("every device hangs below a PCI Express port")
}

fn mediated(context: &Context<'_>) -> Outcome {
    let found: Vec<&Passed> =
        context.machine.passed.iter().filter(|passed| passed.mediated.is_some()).collect();
    if found.is_empty() {
        return Outcome::pass("no device is a share of another");
    }
    Outcome::fail(format!(
        "a share of a device (vGPU) and no device: {}",
        some(found.iter().map(|p| p.name.as_str()))
    ))
    .expected("a device as a whole")
    .remedy(pass_one(context, "pass the GPU as a whole"))
}

fn iommufd(context: &Context<'_>) -> Outcome {
    let found: Vec<&str> =
        context.machine.passed.iter().filter(|p| p.iommufd).map(|p| p.name.as_str()).collect();
    if found.is_empty() {
        return Outcome::pass("the devices are reached by vfio's own containers, which map their windows");
    }
    let release = context.host.and_then(|facts| facts.kernel.release.value());
    let is_new = release.and_then(|release| crate::checks::said::at_least(release, &[6, 19]));
    if is_new.is_none() {
        return Outcome::unknown(format!(
            "reached by iommufd: {}; before Linux 6.19 it maps no window, and the host's kernel is not known here",
            some(found)
        ))
        .remedy(
            Remedy::new(Who::Hypervisor, "check on the hypervisor itself, or hand in its facts with --host")
                .command("gdsboot-validator facts --json > host.json"),
        );
    }
    if is_new == Some(true) {
        return Outcome::note(format!(
            "reached by iommufd: {}; whether this QEMU maps their windows is not known",
            some(found)
        ));
    }
    Outcome::fail(format!("reached by iommufd, which maps no window before Linux 6.19: {}", some(found)))
        .expected("vfio's own containers")
        .actual("iommufd")
        .remedy(fix(
            context,
            "use vfio's own containers",
            "",
            Do::Words("remove iommufd='yes' from the hostdev's <driver>"),
            Do::Words("remove iommufd=... from -device vfio-pci"),
        ))
}

fn functions(context: &Context<'_>) -> Outcome {
    if context.host_devices().is_empty() {
        return Outcome::unknown("the functions of the host's cards are not known here");
    }
    let mut missing = Vec::new();
    for passed in context.passed(What::Gpu) {
        let Some(gpu) = context.function(passed) else { continue };
        let is_passed = |address: &str| context.machine.passed.iter().any(|passed| passed.covers(address));
        let others = context
            .host_devices()
            .iter()
            .filter(|device| device.slot() == gpu.slot() && !is_passed(&device.address));
        missing.extend(others.map(|device| (passed, device.address.as_str())));
    }
    let Some((passed, address)) = missing.first() else {
        return Outcome::pass("the cards are passed with all their functions");
    };
    let slot = address.rsplit_once('.').map_or(*address, |(slot, _)| slot);
    let line = match passed.mapping {
        Some(_) => String::new(),
        None => set_line(passed, &[("host", Some(slot))]),
    };
    let proxmox = match (line.as_str(), &passed.mapping) {
        ("", Some(_)) => Do::Words("let the resource mapping name the whole card"),
        ("", None) => {
            Do::Words("in args, one -device vfio-pci for each function, the first with multifunction=on")
        }
        (line, _) => Do::Line(line),
    };
    Outcome::fail(format!("{} is passed without the card's function {address}", passed.name))
        .expected("all functions of the card")
        .remedy(fix(
            context,
            "pass the whole card",
            proxmox,
            Do::Words("one <hostdev> for each function, on one slot of the guest, the first with multifunction='on'"),
            &pasteable([
                "-device",
                &format!("vfio-pci,host={slot}.0,bus=port,addr=0x0.0,multifunction=on"),
                "-device",
                &format!("vfio-pci,host={address},bus=port,addr=0x0.1"),
            ]),
        ))
}

fn display(context: &Context<'_>) -> Outcome {
    let shown: Vec<&Passed> = context.machine.passed.iter().filter(|p| p.display).collect();
    let Some(first) = shown.first() else {
        return Outcome::pass("no passed device is the guest's display");
    };
    let line = set_line(first, &[("x-vga", None)]);
    let line = if line.is_empty() { line } else { format!("{line} -vga std -serial0 socket") };
    let proxmox = match line.as_str() {
        "" => Do::Words("remove x-vga=on from -device vfio-pci in args"),
        line => Do::Line(line),
    };
    let names = shown.iter().map(|passed| passed.name.as_str());
    Outcome::fail(format!("the guest's display is a passed device: {}", some(names)))
        .expected("a virtual display, or a serial console")
        .remedy(fix(
            context,
            "leave x-vga away: gdsboot's report is on the virtual display and on the serial console",
            proxmox,
            Do::Words("remove display='on' from the hostdev"),
            Do::Words("remove x-vga=on from -device vfio-pci"),
        ))
}
