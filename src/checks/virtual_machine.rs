//! How the virtual machine around a guest is made, as far as the guest can see, and what to ask the host where it cannot.

use super::check::{Check, Outcome, Remedy, Severity, Side, Who};
use super::context::Context;
use super::devices::bar1;
use super::each::{absent, size, unseen};
use super::said::{find, kernel_log_unseen, with_lines};
use crate::facts::Fact;
use crate::facts::pci::PciDevice;
use crate::topology::place::Places;

const GUEST: &[Side] = &[Side::Guest];

/// The machine itself, before its devices.
pub const MACHINE: &[Check] = &[
    Check {
        id: "vm.machine-type",
        title: "the virtual machine is a q35",
        sides: GUEST,
        requires: &[],
        severity: Severity::Major,
        rationale: "QEMU's older machine, i440fx, has no PCI Express: devices that were passed through hang on a \
                    conventional bus.",
        references: &["QEMU: docs/pcie.txt", "Proxmox VE: PCI(e) Passthrough"],
        covers: &["guide: machine q35"],
        run: machine_type,
    },
    Check {
        id: "vm.emulator",
        title: "the CPU is real",
        sides: GUEST,
        requires: &[],
        severity: Severity::Major,
        rationale: "Without hardware virtualisation QEMU translates every instruction (TCG): no measurement means anything.",
        references: &["QEMU: accel/tcg; CPUID leaf 0x40000000"],
        covers: &["guide: hardware virtualisation"],
        run: emulator,
    },
    Check {
        id: "vm.cpu-type",
        title: "the guest sees the host's CPU",
        sides: GUEST,
        requires: &["vm.emulator"],
        severity: Severity::Major,
        rationale: "A CPU model of the hypervisor hides the family by which p2pdma allows AMD Zen, and the address width that \
                    a large BAR needs.",
        references: &["drivers/pci/p2pdma.c: cpu_supports_p2pdma", "Proxmox VE: CPU type"],
        covers: &["guide: CPU type host"],
        run: cpu_type,
    },
];

/// The other checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "vm.confidential",
        title: "the guest is not a confidential machine",
        sides: GUEST,
        requires: &[],
        severity: Severity::Major,
        rationale: "In a confidential machine (SEV, TDX, the GPU's CC mode) devices reach neither each other's memory nor the \
                    guest's own: everything goes through bounce buffers.",
        references: &[
            "open-gpu-kernel-modules: kern_bus_tu102.c, kbusIsStaticBar1Supported_TU102",
            "arch/x86/coco/core.c",
        ],
        covers: &["signature 22"],
        run: confidential,
    },
    Check {
        id: "vm.balloon",
        title: "the guest has no memory balloon",
        sides: GUEST,
        requires: &[],
        severity: Severity::Minor,
        rationale: "Devices that were passed through need all of the guest's memory in its place; QEMU blocks the balloon \
                    then, and older ones let it tear holes.",
        references: &["QEMU: hw/vfio, \"Inhibit ballooning\"", "Proxmox VE: qm.conf, balloon"],
        covers: &["guide: balloon off", "signature 34"],
        run: balloon,
    },
    Check {
        id: "vm.memory",
        title: "the guest has memory enough for p2pdma's bookkeeping",
        sides: GUEST,
        requires: &["gpu.present", "gpu.bars"],
        severity: Severity::Major,
        rationale: "p2pdma needs 64 bytes of memory for every 4 KiB of BAR1, 1/64 of it, before anything runs.",
        references: &[
            "drivers/pci/p2pdma.c: pci_p2pdma_add_resource",
            "open-gpu-kernel-modules: uvm_pmm_gpu.c",
        ],
        covers: &["guide: memory for P2PDMA", "signature 36"],
        run: memory,
    },
    Check {
        id: "vm.topology",
        title: "the guest's PCI tree",
        sides: GUEST,
        requires: &["gpu.present", "nvme.present"],
        severity: Severity::Info,
        rationale: "A hypervisor puts every device on its own root port, whatever the hardware looks like: PHB in a guest \
                    says nothing about the machine.",
        references: &["qemu-server: PCI.pm, get_pci_addr_map"],
        covers: &["guide: flat or switched topology"],
        run: topology,
    },
    Check {
        id: "vm.hugepages",
        title: "the guest's memory lies on huge pages of the host",
        sides: GUEST,
        requires: &[],
        severity: Severity::Info,
        rationale: "Huge pages keep the IOMMU's tables small. Only the host can see them.",
        references: &["Proxmox VE: qm.conf, hugepages"],
        covers: &["guide: hugepages", "signature 34"],
        run: hugepages,
    },
    Check {
        id: "vm.host-messages",
        title: "the host has nothing to say against transfers between the devices",
        sides: GUEST,
        requires: &[],
        severity: Severity::Info,
        rationale: "A host that could not map the devices' windows for each other starts the guest all the same; transfers \
                    then fail with faults that only the host sees.",
        references: &["QEMU: hw/vfio/listener.c", "Documentation/arch/x86/iommu.rst: fault reporting"],
        covers: &[
            "guide: messages of the hypervisor",
            "signature 7",
            "signature 9",
            "signature 29",
            "signature 33",
            "signature 34",
        ],
        run: host_messages,
    },
];

const Q35: (u16, u16) = (0x8086, 0x29c0);
const I440FX: (u16, u16) = (0x8086, 0x1237);

fn machine_type(context: &Context<'_>) -> Outcome {
    let has = |(vendor, device)| {
        context.pci().iter().any(|d| d.address.ends_with(":00:00.0") && d.is(vendor, device))
    };
    let product = context.facts.platform.product.value().map_or("", String::as_str);
    if has(Q35) || product.contains("Q35") {
        return Outcome::pass("the machine is a q35");
    }
    // Amazon's and Google's hypervisors show the same host bridge, and are none of QEMU's machines.
    let vendor = context.facts.platform.vendor.value().map_or("", String::as_str);
    let is_cloud = ["Amazon", "Google"].iter().any(|name| vendor.starts_with(name));
    if (has(I440FX) && !is_cloud) || product.contains("i440FX") {
        return Outcome::fail("the machine is an i440fx, which has no PCI Express")
            .expected("q35")
            .actual("i440fx")
            .evidence("/sys/class/dmi/id/product_name", product)
            .remedy(
                Remedy::new(Who::VmConfiguration, "change the machine, and pass the devices with pcie=1")
                    .command("qm set VMID -machine q35 -hostpci0 0000:BB:DD,pcie=1"),
            );
    }
    let is_other = context.facts.platform.vendor.value().is_some_and(|vendor| vendor != "QEMU");
    if is_other {
        return Outcome::not_applicable("the hypervisor is not QEMU");
    }
    Outcome::unknown("neither the host bridge nor the firmware's name for the machine can be seen")
}

/// Does QEMU translate every instruction (TCG)? Then no speed means anything.
pub fn is_emulated(context: &Context<'_>) -> bool {
    let model = context.facts.cpu.value().map(|cpu| cpu.model_name.as_str());
    let hypervisor = context.facts.platform.hypervisor.value().map(String::as_str);
    hypervisor == Some("TCGTCGTCGTCG") || model.is_some_and(|model| model.starts_with("QEMU TCG"))
}

fn emulator(context: &Context<'_>) -> Outcome {
    let hypervisor = context.facts.platform.hypervisor.value().map(String::as_str);
    if is_emulated(context) {
        return Outcome::fail("QEMU emulates the CPU (TCG): no measurement on this machine means anything")
            .expected("KVM")
            .actual("TCG")
            .remedy(
                Remedy::new(Who::VmConfiguration, "run the virtual machine with KVM")
                    .command("qm set VMID -kvm 1"),
            )
            .remedy(Remedy::new(Who::Bios, "switch on VT-x or AMD-V, where the host has no /dev/kvm"));
    }
    match hypervisor {
        Some(name) => Outcome::pass(format!("the hypervisor is {name}")),
        None => Outcome::unknown(format!(
            "which hypervisor it is: {}",
            absent(&context.facts.platform.hypervisor)
        )),
    }
}

/// How the CPU models that show no real CPU call themselves.
const MADE_UP: [&str; 4] =
    ["QEMU Virtual CPU", "Common KVM processor", "Common 32-bit KVM processor", "QEMU TCG CPU"];

fn cpu_type(context: &Context<'_>) -> Outcome {
    let cpu = match &context.facts.cpu {
        Fact::Known { value, .. } if !value.model_name.is_empty() => value,
        other => return Outcome::unknown(format!("the CPU's name: {}", absent(other))),
    };
    let is_made_up = MADE_UP.iter().any(|name| cpu.model_name.starts_with(name));
    let is_old_amd = cpu.vendor == "AuthenticAMD" && cpu.family.is_some_and(|family| family < 0x17);
    if !is_made_up && !is_old_amd {
        return Outcome::pass(format!("the guest sees {}", cpu.model_name));
    }
    let consequence = if is_old_amd {
        "p2pdma takes it for one that cannot pass data between devices"
    } else {
        "it hides the host's family and address width"
    };
    Outcome::fail(format!("the guest sees \"{}\", and {consequence}", cpu.model_name))
        .expected("the host's CPU")
        .actual(format!("{}, family {}", cpu.model_name, cpu.family.map_or("?".into(), |f| f.to_string())))
        .evidence("/proc/cpuinfo", cpu.model_name.clone())
        .remedy(
            Remedy::new(Who::VmConfiguration, "show the guest the host's CPU")
                .command("qm set VMID -cpu host"),
        )
}

fn confidential(context: &Context<'_>) -> Outcome {
    let smi = context.facts.nvidia_smi.value();
    let gpu = smi.filter(|smi| smi.confidential == Some(true));
    let said = find(
        context,
        &[
            "Memory Encryption Features active:*SEV",
            "Memory Encryption Features active:*TDX",
            "tdx: Guest detected",
        ],
    );
    let why = match (gpu, said.is_empty()) {
        (Some(_), _) => "the GPU is in confidential computing mode and shows its memory to no other device",
        (None, false) => "the guest's memory is encrypted: devices copy through bounce buffers",
        (None, true) if kernel_log_unseen(context).is_none() => {
            return Outcome::pass("the guest's memory is not encrypted");
        }
        (None, true) if context.facts.cpu.value().is_none() => {
            return Outcome::unknown("nothing of the machine can be seen");
        }
        (None, true) => {
            return Outcome::note("nothing that can be seen says that the machine is confidential");
        }
    };
    let mut outcome = Outcome::fail(why).remedy(Remedy::new(
        Who::VmConfiguration,
        "run GPUDirect Storage in a machine without confidential computing (SEV, TDX)",
    ));
    if let Some(smi) = gpu {
        outcome = outcome.evidence(&smi.from, "CC status: ON").remedy(
            Remedy::new(Who::Hypervisor, "switch the GPU's mode off on the host")
                .command("nvidia_gpu_tools.py --gpu=0 --set-cc-mode=off --reset-after-cc-mode-switch"),
        );
    }
    with_lines(outcome, &said)
}

fn balloon(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let found = context.pci().iter().find(|device| device.is(0x1af4, 0x1002) || device.is(0x1af4, 0x1045));
    match found {
        None if context.pci().iter().any(|device| device.device.value().is_none()) => {
            Outcome::unknown("what some PCI devices are cannot be seen")
        }
        None => Outcome::pass("there is no balloon"),
        Some(device) => Outcome::fail(format!("there is a balloon, {}", device.address))
            .expected("none")
            .actual(device.ids())
            .evidence(format!("/sys/bus/pci/devices/{}", device.address), device.ids())
            .remedy(
                Remedy::new(Who::VmConfiguration, "take the balloon out").command("qm set VMID -balloon 0"),
            ),
    }
}

/// What a guest needs besides.
const REST: u64 = 2 << 30;

fn memory(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let total = match &context.facts.memory {
        Fact::Known { value, .. } => value.total,
        other => return Outcome::unknown(format!("memory cannot be seen: {}", absent(other))),
    };
    let windows: Option<Vec<u64>> = context.gpus().iter().map(|gpu| Some(bar1(gpu)?.size)).collect();
    let Some(windows) = windows else { return Outcome::unknown("the size of BAR1 cannot be seen") };
    let (outcome, mib) = bookkeeping(total, &windows);
    let Some(mib) = mib else { return outcome };
    outcome.evidence("/proc/meminfo", format!("{total} bytes")).remedy(
        Remedy::new(Who::VmConfiguration, "give the guest more memory")
            .command(format!("qm set VMID -memory {mib}")),
    )
}

/// Whether `total` bytes of memory hold what p2pdma notes of each page of the GPUs' `windows` (p2pdma.c
/// `pci_p2pdma_add_resource`); where not, MiB that do.
pub(crate) fn bookkeeping(total: u64, windows: &[u64]) -> (Outcome, Option<u64>) {
    let pages = windows.iter().fold(0u64, |sum, size| sum.saturating_add(size / 64));
    let needed = pages.saturating_add(REST);
    if total >= needed {
        let said = format!("{} of memory, {} of it for p2pdma's bookkeeping", size(total), size(pages));
        return (Outcome::pass(said), None);
    }
    let outcome = Outcome::fail(format!(
        "p2pdma's bookkeeping takes {} of the guest's {}, and less than {} is left",
        size(pages),
        size(total),
        size(REST)
    ))
    .expected(format!("{} or more", size(needed)))
    .actual(size(total));
    (outcome, Some(needed.saturating_add(REST) >> 20))
}

fn topology(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let places = Places::new(context.facts);
    let devices: Vec<&PciDevice> = context.gpus().into_iter().chain(context.nvmes()).collect();
    let known: Option<Vec<_>> = devices.iter().map(|device| places.of(device)).collect();
    let Some(known) = known.filter(|known| !known.is_empty()) else {
        return Outcome::unknown("where the devices hang cannot be seen");
    };
    let switched = known.iter().any(|place| place.bridges.len() >= 3);
    let told = &context.facts.platform.told;
    let with_told = |outcome: Outcome| {
        let strings = told.value().into_iter().flatten();
        strings.fold(outcome, |outcome, string| outcome.evidence("SMBIOS OEM string", string.as_str()))
    };
    if switched {
        return with_told(Outcome::note(
            "the guest has a PCIe switch, as its configuration says; the hardware may differ",
        ));
    }
    let is_near = |string: &String| string.contains(";distance=PIX") || string.contains(";distance=PXB");
    if told.value().into_iter().flatten().any(is_near) {
        return with_told(
            Outcome::note(
                "the guest's PCI tree is flat, and the hypervisor tells that the host has a GPU and an NVMe controller \
                 below one switch",
            )
            .remedy(
                Remedy::new(Who::VmConfiguration, "hang both below one emulated switch")
                    .command("gdsboot vm plan --topology switch --gpu ADDR --nvme ADDR --for proxmox"),
            ),
        );
    }
    with_told(Outcome::note(
        "the guest's PCI tree is flat: every device has its own root port, so that nvidia-smi says PHB for every pair \
         whatever the hardware is",
    ))
    .remedy(
        Remedy::new(Who::Hypervisor, "look at the real tree on the host").command("lspci -tv").command("nvidia-smi topo -m"),
    )
}

fn hugepages(_context: &Context<'_>) -> Outcome {
    Outcome::unknown("only the host can see on what pages the guest's memory lies").remedy(
        Remedy::new(Who::Hypervisor, "ask the host; optional, \"hugepages: 1024\" needs \"numa: 1\"")
            .command("grep -E '^(hugepages|numa|balloon):' /etc/pve/qemu-server/VMID.conf")
            .command(
                "grep -h KernelPageSize /proc/$(cat /var/run/qemu-server/VMID.pid)/smaps | sort | uniq -c",
            ),
    )
}

fn host_messages(_context: &Context<'_>) -> Outcome {
    Outcome::unknown("QEMU's messages and the host's kernel log cannot be seen from a guest").remedy(
        Remedy::new(
            Who::Hypervisor,
            "look for these on the host: a window that could not be mapped makes every transfer between devices fail",
        )
        .command("journalctl -b | grep -e 'peer-to-peer transactions' -e VFIO_MAP_DMA -e vfio_container_dma_map -e IOMMU_IOAS_MAP")
        .command("dmesg | grep -E 'DMAR:.*fault|AMD-Vi:.*IO_PAGE_FAULT|not ready .* after FLR|vfio-pci'")
        .command("lspci -vvs 0000:BB:DD.0 | grep -E 'ACSCtl|LnkSta:|ATSCtl'"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer::{self, Fail, NotApplicable, Note, Pass, Unknown};
    use super::super::testing::*;
    use super::*;
    use crate::facts::Facts;
    use crate::facts::kernel_log::KernelLog;
    use crate::facts::log_lines::LogLines;
    use crate::facts::memory::Memory;
    use crate::facts::nvidia_smi::NvidiaSmi;
    use crate::facts::pci::{Bar, Id};

    fn after(id: &str, change: impl FnOnce(&mut Facts)) -> Answer {
        let mut facts = good(Side::Guest);
        change(&mut facts);
        answer(id, &facts, Side::Guest)
    }

    #[test]
    fn encrypted_memory() {
        let smi = |confidential| {
            after("vm.confidential", |facts| {
                facts.kernel_log = Fact::known("/dev/kmsg", KernelLog::default());
                facts.nvidia_smi = Fact::known("x", NvidiaSmi { confidential, ..NvidiaSmi::default() });
            })
        };
        assert_eq!((smi(Some(true)), smi(Some(false))), (Fail, Pass));
        let said = |line: &str| {
            after("vm.confidential", |facts| {
                let log = LogLines { lines: vec![line.to_owned()], ..LogLines::default() };
                facts.kernel_log = Fact::known("/dev/kmsg", KernelLog { sources: vec![log] });
            })
        };
        assert_eq!(said("Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP"), Fail);
        assert_eq!(said("tdx: Guest detected"), Fail);
        // The host's own encryption of memory is none of the guest's business, and does no harm.
        assert_eq!(said("Memory Encryption Features active: AMD SME"), Pass);
        assert_eq!(after("vm.confidential", |facts| facts.kernel_log = Fact::default()), Note);
    }

    #[test]
    fn machine_types() {
        let with = |bridge: u16, vendor: &str, product: &str| {
            after("vm.machine-type", |facts| {
                edit(facts, "0000:00:00.0", |d| d.device = Fact::known("device", Id(bridge)));
                facts.platform.vendor = Fact::known("sys_vendor", vendor.into());
                facts.platform.product = Fact::known("product_name", product.into());
            })
        };
        assert_eq!(with(0x29c0, "QEMU", "?"), Pass);
        assert_eq!(with(0x1237, "QEMU", "Standard PC (i440FX + PIIX, 1996)"), Fail);
        assert_eq!(with(0, "QEMU", "Standard PC (i440FX + PIIX, 1996)"), Fail);
        assert_eq!(with(0, "Amazon EC2", "p5.48xlarge"), NotApplicable);
        assert_eq!(with(0, "QEMU", "?"), Unknown);
    }

    #[test]
    fn emulated_cpus() {
        let hypervisor =
            |name: &str| after("vm.emulator", |f| f.platform.hypervisor = Fact::known("cpuid", name.into()));
        assert_eq!(hypervisor("TCGTCGTCGTCG"), Fail);
        assert_eq!(hypervisor("KVMKVMKVM"), Pass);
        assert_eq!(after("vm.emulator", |f| f.platform.hypervisor = Fact::not_read("a capture")), Unknown);
    }

    #[test]
    fn cpus_that_hide_the_hosts() {
        let with = |vendor: &str, family: u32, name: &str| {
            after("vm.cpu-type", |facts| {
                let Fact::Known { value, .. } = &mut facts.cpu else { panic!("cpu") };
                value.vendor = vendor.into();
                value.family = Some(family);
                value.model_name = name.into();
            })
        };
        assert_eq!(with("GenuineIntel", 15, "QEMU Virtual CPU version 2.5+"), Fail);
        assert_eq!(with("GenuineIntel", 15, "Common KVM processor"), Fail);
        assert_eq!(with("AuthenticAMD", 15, "AMD Opteron"), Fail);
        assert_eq!(with("AuthenticAMD", 25, "AMD EPYC 9554 64-Core Processor"), Pass);
        assert_eq!(with("GenuineIntel", 6, "Intel(R) Xeon(R) Platinum 8480+"), Pass);
        assert_eq!(with("GenuineIntel", 6, ""), Unknown);
    }

    #[test]
    fn balloons() {
        assert_eq!(after("vm.balloon", |f| add(f, 0x00_ff00, "1af4:1002", "0000:00:03.0")), Fail);
        assert_eq!(after("vm.balloon", |f| add(f, 0x00_ff00, "1af4:1045", "0000:00:03.0")), Fail);
        assert_eq!(after("vm.balloon", |_| {}), Pass);
    }

    #[test]
    fn memory_for_a_page_structure_per_page_of_bar1() {
        let with = |total: u64, bar1: u64| {
            after("vm.memory", |facts| {
                facts.memory = Fact::known("meminfo", Memory { total, ..Memory::default() });
                edit(facts, GPU_AT, |gpu| {
                    let bar = |index, size| Bar { index, start: 1 << 40, size, flags: 0x14_220c };
                    gpu.bars = Fact::known("resource", vec![bar(0, 16 << 20), bar(1, bar1)]);
                });
            })
        };
        // 256 GiB need 4, and something is needed besides.
        assert_eq!(with(5 << 30, 256 << 30), Fail);
        assert_eq!(with(8 << 30, 256 << 30), Pass);
        assert_eq!(with(0, u64::MAX), Fail);
        assert_eq!(after("vm.memory", |f| f.memory = Fact::default()), Unknown);
    }

    #[test]
    fn flat_or_switched() {
        let flat = ask("vm.topology", &flat_guest(), Side::Guest);
        assert!(flat.answer == Note && flat.why.contains("flat"), "{flat:?}");
        let switched = ask("vm.topology", &good(Side::Guest), Side::Guest);
        assert!(switched.answer == Note && switched.why.contains("switch"), "{switched:?}");
    }

    #[test]
    fn what_only_the_host_sees_comes_with_the_commands() {
        for id in ["vm.hugepages", "vm.host-messages"] {
            let outcome = ask(id, &good(Side::Guest), Side::Guest);
            assert_eq!(outcome.answer, Unknown);
            let remedy = &outcome.remedies[0];
            assert!(remedy.who == Who::Hypervisor && !remedy.commands.is_empty());
        }
    }
}
