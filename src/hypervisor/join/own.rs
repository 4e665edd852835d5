//! The host as far as one guest is concerned: a host has other guests, and devices of its own.

use super::Matched;
use crate::facts::Facts;
use crate::facts::log_lines::LogLines;
use crate::facts::pci::PciDevice;
use std::collections::BTreeSet;

/// The host's facts without the GPUs and NVMe controllers that the guest does not have, and without what its logs say of other
/// devices than the guest's and the bridges above them.
pub fn own(facts: &Facts, matched: &[Matched]) -> Facts {
    let mut own = facts.clone();
    let slots: BTreeSet<&str> = matched.iter().map(|matched| slot(&matched.host)).collect();
    let devices = facts.pci.value().map_or(&[][..], Vec::as_slice);
    let is_own = |device: &&PciDevice| slots.contains(device.slot());
    let bridges = devices.iter().filter(is_own).filter_map(|device| Some(&device.path.value()?.bridges));
    let concerned: BTreeSet<&str> =
        slots.iter().copied().chain(bridges.flatten().map(|at| slot(at))).collect();
    own.pci = own.pci.map(|mut devices| {
        let is_storage = |device: &PciDevice| device.class.value().is_some_and(|class| class.is_nvme());
        devices.retain(|device| is_own(&device) || !(device.is_nvidia_gpu() || is_storage(device)));
        devices
    });
    own.nvme = own.nvme.map(|mut controllers| {
        controllers.retain(|one| one.address.value().is_none_or(|at| slots.contains(slot(at))));
        controllers
    });
    let of_concern = |log: &mut LogLines| {
        log.lines.retain(|line| concerns(line, &concerned));
        log.repeated.retain(|(text, _)| concerns(text, &concerned));
    };
    own.kernel_log = own.kernel_log.map(|mut log| {
        log.sources.iter_mut().for_each(of_concern);
        log
    });
    own.logs = own.logs.map(|mut logs| {
        logs.iter_mut().for_each(of_concern);
        logs
    });
    own
}

/// `0000:41:00` of `0000:41:00.0`.
fn slot(address: &str) -> &str {
    address.rsplit_once('.').map_or(address, |(slot, _)| slot)
}

/// Does a line name no PCI device, or one of these slots? Addresses may be written without their domain.
fn concerns(line: &str, slots: &BTreeSet<&str>) -> bool {
    let named: Vec<&str> = line
        .split(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.'))
        .filter(|word| is_address(word))
        .collect();
    named.is_empty()
        || named
            .iter()
            .any(|at| slots.iter().any(|slot_| slot_.ends_with(slot(at.trim_end_matches(['.', ':'])))))
}

/// `0000:41:00.0` or `41:00.0`.
fn is_address(word: &str) -> bool {
    let word = word.trim_end_matches(['.', ':']);
    let Some((slot, function)) = word.rsplit_once('.') else { return false };
    let is_hex =
        |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = slot.split(':').collect();
    let is_slot = match parts.as_slice() {
        [bus, device] => is_hex(bus, 2) && is_hex(device, 2),
        [domain, bus, device] => {
            (4..=8).contains(&domain.len())
                && is_hex(domain, domain.len())
                && is_hex(bus, 2)
                && is_hex(device, 2)
        }
        _ => false,
    };
    is_slot && matches!(function.as_bytes(), [b'0'..=b'7'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_other_devices_are_none_of_the_guest_s() {
        let slots = BTreeSet::from(["0000:41:00", "0000:40:01"]);
        for line in [
            "vfio-pci 0000:41:00.0: BAR 1: can't reserve",
            "DMAR: [DMA Read] Request device [41:00.1] fault addr 0",
            "pcieport 0000:40:01.0: AER: Corrected error from 0000:7f:00.0",
            "kvm: SMP vm created on host with unstable TSC",
            "vfio 0000:41:00.0: reset recovery - restoring BARs.",
            "0000:41:00.0: PCI peer-to-peer transactions on BARs are not supported.",
        ] {
            assert!(concerns(line, &slots), "{line}");
        }
        for line in [
            "qemu-system-x86_64: 0000:0a:00.0: PCI peer-to-peer transactions on BARs are not supported.",
            "DMAR: [DMA Read] Request device [0a:00.0] fault addr 0",
            "vfio-pci 0000:41:01.0: x",
        ] {
            assert!(!concerns(line, &slots), "{line}");
        }
    }
}
