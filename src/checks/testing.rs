//! Machines on which all is well, one for each side, for tests to break; and a way to ask one check.

use super::check::{Answer, Outcome, Side};
use super::context::Context;
use crate::bench::results::Results;
use crate::facts::acpi::AcpiTables;
use crate::facts::iommu::IommuGroup;
use crate::facts::memory::Memory;
use crate::facts::nvidia::NvidiaGpu;
use crate::facts::nvidia_fs::Peer;
use crate::facts::nvme::NvmeController;
use crate::facts::pci::{Aer, Bar, Class, Id, PciDevice};
use crate::facts::{Fact, Facts};
use crate::topology::testing::{GPU, HOST, NVME, PORT, device, machine, switched};

/// The GPU of every machine here.
pub(crate) const GPU_AT: &str = "0000:06:00.0";
/// The NVMe controller of every machine here.
pub(crate) const NVME_AT: &str = "0000:07:00.0";

/// A machine on which all is well. The guest is Proxmox' with an Intel CPU and an emulated switch, the host gives both
/// devices away, and bare metal has no IOMMU in use.
pub(crate) fn good(side: Side) -> Facts {
    let mut facts = machine("GenuineIntel", 6, switched());
    facts.memory = Fact::known("/proc/meminfo", Memory { total: 64 << 30, ..Memory::default() });
    facts.acpi = Fact::known("/sys/firmware/acpi/tables", acpi(&["APIC", "FACP", "MCFG"]));
    facts.kernel.command_line = Fact::known("/proc/cmdline", "BOOT_IMAGE=/vmlinuz ro".into());
    facts.iommu.units = Fact::known("/sys/class/iommu", vec![]);
    facts.iommu.groups = Fact::known("/sys/kernel/iommu_groups", vec![]);
    let gpu = NvidiaGpu {
        address: GPU_AT.into(),
        model: Fact::known("information", "NVIDIA H100 PCIe".into()),
        minor: Fact::known("information", 0),
        ..NvidiaGpu::default()
    };
    facts.nvidia.gpus = Fact::known("/proc/driver/nvidia/gpus", vec![gpu]);
    facts.nvme = Fact::known("/sys/class/nvme", vec![controller(NVME_AT, "SAMSUNG MZWLJ3T8HBLS-00007")]);
    let peer = Peer {
        gpu: GPU_AT.into(),
        peer: NVME_AT.into(),
        distance: Some(3),
        mappings: Some(0),
        class: "nvme".into(),
    };
    facts.nvidia_fs.peers = Fact::known("/proc/driver/nvidia-fs/peer_distance", vec![peer]);
    for address in [GPU_AT, NVME_AT] {
        edit(&mut facts, address, link);
    }
    edit(&mut facts, GPU_AT, |gpu| {
        let bar = |index, start, size| Bar { index, start, size, flags: 0x14_220c };
        gpu.bars = Fact::known("resource", vec![bar(0, 0x8000_0000, 16 << 20), bar(2, 64 << 30, 128 << 30)]);
        gpu.driver = Fact::known("driver", "nvidia".into());
    });
    edit(&mut facts, NVME_AT, |nvme| nvme.driver = Fact::known("driver", "nvme".into()));
    match side {
        Side::Guest => {
            facts.platform.hypervisor = Fact::known("cpuid", "KVMKVMKVM".into());
            facts.platform.vendor = Fact::known("sys_vendor", "QEMU".into());
            facts.platform.product = Fact::known("product_name", "Standard PC (Q35 + ICH9, 2009)".into());
        }
        Side::BareMetal => {}
        Side::Host => {
            facts.acpi = Fact::known("/sys/firmware/acpi/tables", acpi(&["DMAR", "FACP"]));
            facts.iommu.units = Fact::known("/sys/class/iommu", vec!["dmar0".into()]);
            facts.iommu.groups = Fact::known("/sys/kernel/iommu_groups", vec![]);
            for (group, address) in [(20, GPU_AT), (21, NVME_AT)] {
                put_in_group(&mut facts, address, group, "unmanaged");
                edit(&mut facts, address, |device| device.driver = Fact::known("driver", "vfio-pci".into()));
            }
        }
    }
    facts
}

/// The same as a flat guest: every device on its own root port.
pub(crate) fn flat_guest() -> Facts {
    let mut facts = good(Side::Guest);
    let ports = ["0000:00:1c.0", "0000:00:1c.1"];
    let keep = |address: &str| {
        let device = facts.pci.value().unwrap().iter().find(|device| device.address == address);
        device.unwrap().clone()
    };
    let mut devices = vec![device(HOST, "0000:00:00.0"), device(PORT, ports[0]), device(PORT, ports[1])];
    for (port, (address, what)) in ports.iter().zip([(GPU_AT, GPU), (NVME_AT, NVME)]) {
        let path = device(what, &format!("{port}/{address}")).path;
        devices.push(PciDevice { path, ..keep(address) });
    }
    facts.pci = Fact::known("/sys/bus/pci/devices", devices);
    facts
}

fn link(device: &mut PciDevice) {
    let width = if device.address == GPU_AT { 16 } else { 4 };
    device.link_width = Fact::known("current_link_width", width);
    device.link_width_max = Fact::known("max_link_width", width);
    device.link_speed = Fact::known("current_link_speed", "32.0 GT/s PCIe".into());
    device.link_speed_max = Fact::known("max_link_speed", "32.0 GT/s PCIe".into());
    device.power_state = Fact::known("power_state", "D0".into());
    device.reset_methods = Fact::known("reset_method", vec!["flr".into(), "bus".into()]);
    device.aer = Fact::known("aer_dev", Aer::default());
    device.physical_function = Fact::Missing { from: "physfn".into() };
}

/// A controller as the nvme driver sees it.
pub(crate) fn controller(address: &str, model: &str) -> NvmeController {
    NvmeController {
        name: "nvme0".into(),
        model: Fact::known("model", model.into()),
        serial: Fact::known("serial", "S1".into()),
        firmware: Fact::known("firmware_rev", "1".into()),
        transport: Fact::known("transport", "pcie".into()),
        address: Fact::known("address", address.into()),
        controller_state: Fact::known("state", "live".into()),
        numa_node: Fact::known("numa_node", -1),
        namespaces: vec![],
    }
}

/// ACPI tables.
pub(crate) fn acpi(names: &[&str]) -> AcpiTables {
    AcpiTables(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Puts a device into an IOMMU group of a kind.
pub(crate) fn put_in_group(facts: &mut Facts, address: &str, number: u32, kind: &str) {
    edit(facts, address, |device| device.iommu_group = Fact::known("iommu_group", number));
    let Fact::Known { value: groups, .. } = &mut facts.iommu.groups else { panic!("groups") };
    groups.push(IommuGroup {
        number,
        kind: Fact::known("type", kind.into()),
        devices: Fact::known("devices", vec![address.into()]),
    });
}

/// Changes the device at an address.
pub(crate) fn edit(facts: &mut Facts, address: &str, change: impl FnOnce(&mut PciDevice)) {
    let Fact::Known { value, .. } = &mut facts.pci else { panic!("devices") };
    change(value.iter_mut().find(|device| device.address == address).expect(address));
}

/// One more device, of an id and a class.
pub(crate) fn add(facts: &mut Facts, class: u32, ids: &str, way: &str) {
    let Fact::Known { value, .. } = &mut facts.pci else { panic!("devices") };
    value.push(device((class, ids), way));
}

/// What one check answers.
pub(crate) fn ask(id: &str, facts: &Facts, side: Side) -> Outcome {
    let outcome = (super::find(id).expect(id).run)(&Context::new(facts, side));
    super::coverage::record(id, &outcome.answer);
    outcome
}

/// What one check answers of a good guest and what its benchmark found.
pub(crate) fn ask_bench(id: &str, bench: &Results) -> Outcome {
    ask_bench_on(id, bench, &good(Side::Guest), Side::Guest)
}

/// The same of any machine.
pub(crate) fn ask_bench_on(id: &str, bench: &Results, facts: &Facts, side: Side) -> Outcome {
    let outcome = (super::find(id).expect(id).run)(&Context::new(facts, side).with_bench(Some(bench)));
    super::coverage::record(id, &outcome.answer);
    outcome
}

/// Its answer alone.
pub(crate) fn answer(id: &str, facts: &Facts, side: Side) -> Answer {
    ask(id, facts, side).answer
}

/// The checks of hardware and virtualisation.
fn own() -> impl Iterator<Item = &'static super::check::Check> {
    [
        super::virtual_machine::MACHINE,
        super::devices::CHECKS,
        super::power::CHECKS,
        super::virtual_machine::CHECKS,
        super::iommu::CHECKS,
        super::topology::CHECKS,
    ]
    .into_iter()
    .flatten()
}

const SIDES: [Side; 3] = [Side::Guest, Side::Host, Side::BareMetal];

#[test]
fn nothing_fails_on_a_good_machine() {
    for side in SIDES {
        let facts = good(side);
        for check in own().filter(|check| check.sides.contains(&side)) {
            let outcome = (check.run)(&Context::new(&facts, side));
            // Only the host can answer these.
            let asks = ["vm.hugepages", "vm.host-messages"].contains(&check.id);
            let fine = match outcome.answer {
                Answer::Pass | Answer::Note => !asks,
                Answer::Unknown => asks,
                _ => false,
            };
            assert!(fine, "{} on {side:?}: {outcome:?}", check.id);
        }
    }
}

#[test]
fn of_a_machine_that_was_not_read_nothing_is_known() {
    for side in SIDES {
        let mut halves = vec![Facts::default()];
        // A capture of which only the devices' names are left.
        let bare = |address: &str| PciDevice { address: address.into(), ..PciDevice::default() };
        halves.push(Facts { pci: Fact::known("pci", vec![bare(GPU_AT), bare("x")]), ..Facts::default() });
        // And one that has what the devices are.
        let named = |what| PciDevice { class: Fact::known("class", Class(what)), ..bare(GPU_AT) };
        let mut devices = vec![named(GPU.0), PciDevice { address: NVME_AT.into(), ..named(NVME.0) }];
        devices[0].vendor = Fact::known("vendor", Id(0x10de));
        devices[1].vendor = Fact::known("vendor", Id(0x144d));
        let only_ids = Facts { pci: Fact::known("pci", devices), ..Facts::default() };
        for facts in &halves {
            for check in own().filter(|check| check.sides.contains(&side)) {
                let answer = (check.run)(&Context::new(facts, side)).answer;
                let known = matches!(answer, Answer::Unknown | Answer::NotApplicable);
                assert!(known, "{} on {side:?}: {answer:?}", check.id);
            }
        }
        for check in own().filter(|check| check.sides.contains(&side)) {
            let outcome = (check.run)(&Context::new(&only_ids, side));
            assert_ne!(outcome.answer, Answer::Fail, "{} on {side:?}: {outcome:?}", check.id);
        }
    }
}

#[test]
fn every_failure_says_what_to_do() {
    // All devices gone, bound wrongly and badly linked at once; whatever fails has a remedy with words.
    for side in SIDES {
        let mut facts = good(side);
        for address in [GPU_AT, NVME_AT] {
            edit(&mut facts, address, |device| {
                device.driver = Fact::known("driver", "uio_pci_generic".into());
                device.link_width = Fact::known("width", 1);
                device.aer = Fact::known("aer", Aer { fatal: u64::MAX, nonfatal: 2, ..Aer::default() });
                device.device = Fact::known("device", Id(0x1db4));
                device.bars = Fact::known("resource", vec![]);
                device.config = Fact::known(
                    "config",
                    crate::facts::pci_config::PciConfig { all_ones: true, length: 256, ..Default::default() },
                );
            });
        }
        facts.kernel.command_line = Fact::known("cmdline", "pcie_acs_override=downstream pci=noacs".into());
        let mut failed = 0;
        for check in own().filter(|check| check.sides.contains(&side)) {
            let outcome = (check.run)(&Context::new(&facts, side));
            if outcome.answer == Answer::Fail {
                failed += 1;
                assert!(!outcome.remedies.is_empty(), "{}", check.id);
            }
        }
        assert!(failed >= 6, "{side:?}: {failed}");
    }
}
