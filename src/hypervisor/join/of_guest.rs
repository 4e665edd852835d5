//! What of a host concerns one of its guests. A host gives devices to several: what is wrong with another guest's GPU is no
//! word on this one.

use super::Together;
use crate::facts::log_lines::LogLines;
use crate::facts::pci::PciDevice;
use crate::facts::{Fact, Facts};
use crate::hypervisor::machine::{Machine, address};
use std::collections::BTreeSet;

/// The host without the GPUs, the drives and the lines of its logs that are of other machines. What shares an IOMMU group with one
/// of the guest's devices stays: it may keep the guest from starting.
pub fn reduced(host: &Facts, machine: &Machine, together: &Together) -> Facts {
    let mut own = host.clone();
    let Fact::Known { value: devices, .. } = &mut own.pci else { return own };
    let is_matched = |address: &str| together.devices.iter().any(|matched| matched.host == address);
    let is_ours =
        |address: &str| is_matched(address) || machine.passed.iter().any(|passed| passed.covers(address));
    let groups: BTreeSet<u32> = devices
        .iter()
        .filter(|device| is_ours(&device.address))
        .filter_map(|device| device.iommu_group.value().copied())
        .collect();
    let is_other = |device: &PciDevice| {
        let is_kind = device.is_nvidia_gpu() || device.class.value().is_some_and(|class| class.is_nvme());
        let shares = device.iommu_group.value().is_some_and(|group| groups.contains(group));
        is_kind && !shares && !is_ours(&device.address)
    };
    let others: BTreeSet<String> =
        devices.iter().filter(|device| is_other(device)).map(|device| device.address.clone()).collect();
    devices.retain(|device| !others.contains(&device.address));
    let known: BTreeSet<String> = devices.iter().map(|device| device.address.clone()).collect();
    if let Fact::Known { value: drives, .. } = &mut own.nvme {
        // What the host itself works with is no matter of this guest.
        drives.retain(|drive| drive.address.value().is_some_and(|at| is_ours(at)));
    }
    if let Fact::Known { value: gpus, .. } = &mut own.nvidia.gpus {
        gpus.retain(|gpu| !others.contains(&gpu.address));
    }
    let keep = |log: &mut LogLines| {
        log.lines.retain(|line| !names_only(line, &others, &known));
        log.repeated.retain(|(line, _)| !names_only(line, &others, &known));
    };
    if let Fact::Known { value: logs, .. } = &mut own.logs {
        logs.iter_mut().for_each(keep);
    }
    if let Fact::Known { value: log, .. } = &mut own.kernel_log {
        log.sources.iter_mut().for_each(keep);
    }
    own
}

/// Is a line about other devices, and about none that stays?
fn names_only(line: &str, others: &BTreeSet<String>, known: &BTreeSet<String>) -> bool {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let words = line.split(|c: char| !is_part(c)).map(|word| word.trim_matches([':', '.']));
    let named: Vec<String> = words.filter(|word| word.contains('.')).filter_map(address).collect();
    named.iter().any(|address| others.contains(address))
        && !named.iter().any(|address| known.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_other_devices_are_none_of_the_guest_s() {
        let others = BTreeSet::from(["0000:0a:00.0".to_owned()]);
        let known = BTreeSet::from(["0000:41:00.0".to_owned(), "0000:40:01.0".to_owned()]);
        for line in [
            "qemu-system-x86_64: 0000:0a:00.0: PCI peer-to-peer transactions on BARs are not supported.",
            "DMAR: [DMA Read] Request device [0a:00.0] fault addr 0",
            "nvidia 0000:0A:00.0: x",
        ] {
            assert!(names_only(line, &others, &known), "{line}");
        }
        for line in [
            "vfio-pci 0000:41:00.0: BAR 1: can't reserve",
            "pcieport 0000:40:01.0: AER: Corrected error from 0000:0a:00.0",
            "kvm: SMP vm created on host with unstable TSC",
            "0000:0a:00.1: not among them, nor 10a:00.0 or é0a:00",
        ] {
            assert!(!names_only(line, &others, &known), "{line}");
        }
    }
}
