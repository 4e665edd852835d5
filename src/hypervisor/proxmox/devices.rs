//! What is passed through, `hostpciN`, and where Proxmox hangs it.

use super::Mappings;
use super::options::{is_on, pairs, value};
use crate::hypervisor::machine::{Machine, Passed, PlaceInGuest, Port, PortKind, ROOT_BUS, address};

pub(super) fn hostpci(machine: &mut Machine, key: &str, text: &str, mappings: &Mappings) -> Passed {
    let options = pairs(text, "host");
    let mapping = value(&options, "mapping").map(str::to_owned);
    let mut hosts: Vec<String> = Vec::new();
    for told in value(&options, "host").unwrap_or("").split(';').filter(|told| !told.is_empty()) {
        match address(told) {
            Some(host) => hosts.push(host),
            None => machine.complaints.push(format!("{key}: {told:?} is no PCI address")),
        }
    }
    hosts.extend(mapping.iter().flat_map(|name| mappings.addresses(name)));
    let own = ["host", "mapping", "mdev", "x-vga", "pcie"];
    Passed {
        name: key.to_owned(),
        hosts,
        mapping,
        mediated: value(&options, "mdev").map(str::to_owned),
        place: match is_on(value(&options, "pcie")) {
            true => PlaceInGuest::RootBus,
            false => PlaceInGuest::Conventional,
        },
        addr: String::new(),
        display: is_on(value(&options, "x-vga")),
        iommufd: false,
        properties: options.iter().filter(|(key, _)| !own.contains(&key.as_str())).cloned().collect(),
        written: text.to_owned(),
    }
}

/// The ports that Proxmox gives to devices with `pcie=1` (qemu-server: PCI.pm, `get_pci_addr_map`).
pub(super) fn place(machine: &mut Machine) {
    if !machine.is_q35() {
        machine.passed.iter_mut().for_each(|passed| passed.place = PlaceInGuest::Conventional);
        return;
    }
    let port = |number: u32| {
        let addr = match number {
            0..4 => format!("1c.{number}"),
            4..12 => format!("10.{}", number - 4),
            _ => format!("11.{}", number - 12),
        };
        Port {
            id: format!("ich9-pcie-port-{}", number + 1),
            kind: PortKind::RootPort,
            bus: ROOT_BUS.into(),
            addr,
        }
    };
    // Four are there in any case.
    let mut numbers: Vec<u32> = (0..4).collect();
    for passed in machine.passed.iter_mut().filter(|passed| passed.place == PlaceInGuest::RootBus) {
        let number =
            passed.name.strip_prefix("hostpci").and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
        if number > 15 {
            machine.complaints.push(format!("{}: Proxmox has no more than 16", passed.name));
        } else if !numbers.contains(&number) {
            numbers.push(number);
        }
        passed.place = PlaceInGuest::Port(format!("ich9-pcie-port-{}", number.saturating_add(1)));
    }
    machine.ports.extend(numbers.into_iter().map(port));
    machine.ports.extend(conventional_buses());
}

/// The buses of conventional PCI that are there in any case.
pub fn conventional_buses() -> [Port; 4] {
    ["pci.0", "pci.1", "pci.2", "pci.3"].map(|id| Port {
        id: id.into(),
        kind: PortKind::Conventional,
        bus: ROOT_BUS.into(),
        addr: String::new(),
    })
}
