//! The bridges above a device. The kernel's path says it; where a capture has lost the path, the bridges' bus numbers do.

use super::numa_node;
use crate::facts::pci::{Class, PciDevice};
use crate::facts::pci_config::Acs;
use crate::facts::{Fact, Facts};
use std::collections::HashMap;

/// More bridges than any machine has (256 buses); a path that is longer is not followed.
const MOST_BRIDGES: usize = 64;

/// Where a device hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device's address.
    pub address: String,
    /// The host bridge, as in `pci0000:00`.
    pub root: String,
    /// The bridges' addresses, the one next to the host bridge first.
    pub bridges: Vec<String>,
    /// The device's NUMA node; -1 where the firmware names none, `None` where it cannot be seen.
    pub numa_node: Option<i32>,
}

impl Place {
    /// The bridges that both are below, the one next to the host bridge first.
    pub fn common<'a>(&'a self, other: &Self) -> &'a [String] {
        if self.root != other.root {
            return &[];
        }
        let common = self.bridges.iter().zip(&other.bridges).take_while(|(a, b)| a == b).count();
        &self.bridges[..common]
    }
}

/// All PCI functions of a machine by address.
#[derive(Debug)]
pub struct Places<'a> {
    by_address: HashMap<&'a str, &'a PciDevice>,
}

impl<'a> Places<'a> {
    /// Sorts a machine's functions by address.
    pub fn new(facts: &'a Facts) -> Self {
        let devices = facts.pci.value().into_iter().flatten();
        Self { by_address: devices.map(|device| (device.address.as_str(), device)).collect() }
    }

    /// The function at an address.
    pub fn device(&self, address: &str) -> Option<&'a PciDevice> {
        self.by_address.get(address).copied()
    }

    /// Where a device hangs; `None` where that cannot be seen.
    pub fn of(&self, device: &PciDevice) -> Option<Place> {
        let (root, bridges) = match &device.path {
            Fact::Known { value, .. } => (value.root.clone(), value.bridges.clone()),
            _ => self.by_bus_numbers(device)?,
        };
        (bridges.len() <= MOST_BRIDGES).then(|| Place {
            address: device.address.clone(),
            root,
            bridges,
            numa_node: numa_node(device),
        })
    }

    /// The bridge above a bus is the one whose secondary bus it is. That holds only while every bridge's number is known:
    /// one that is missing would make its devices seem to hang at a host bridge.
    fn by_bus_numbers(&self, device: &PciDevice) -> Option<(String, Vec<String>)> {
        let (domain, mut bus) = bus_of(&device.address)?;
        let mut above: HashMap<u8, &str> = HashMap::new();
        for bridge in self.by_address.values() {
            let is_bridge = bridge.class.value().copied().map(Class::is_bridge);
            if is_bridge == Some(false) || bus_of(&bridge.address).is_none_or(|(other, _)| other != domain) {
                continue;
            }
            above.insert(bridge.config.value()?.secondary_bus?, &bridge.address);
        }
        let mut bridges = Vec::new();
        while let Some(bridge) = above.get(&bus) {
            bridges.push((*bridge).to_owned());
            bus = bus_of(bridge)?.1;
            if bridges.len() > MOST_BRIDGES {
                return None;
            }
        }
        bridges.reverse();
        Some((format!("pci{domain}:{bus:02x}"), bridges))
    }

    /// A function's Access Control Services: `Some(None)` where it has none, `None` where that cannot be seen.
    pub fn acs(&self, address: &str) -> Option<Option<Acs>> {
        let config = self.device(address)?.config.value()?;
        // What is not PCI Express has no extended space to hold them.
        let is_conventional = config.sees_capabilities() && config.express.is_none();
        (config.sees_extended() || is_conventional).then_some(config.acs)
    }

    /// The function that stands for a host bridge: its bus's first, if that is device 0 or a root port
    /// (drivers/pci/p2pdma.c, `pci_host_bridge_dev`).
    pub fn host_bridge(&self, root: &str) -> Option<&'a PciDevice> {
        let bus = format!("{}:", root.strip_prefix("pci")?);
        let on_bus = self.by_address.values().filter(|device| device.address.starts_with(&bus));
        let first = on_bus.min_by_key(|device| &device.address)?;
        let is_root_port = first.class.value().copied().is_some_and(Class::is_bridge);
        (first.address.ends_with(":00.0") || is_root_port).then_some(first)
    }
}

/// `0000:01:00.0` has domain `0000` and bus 1.
fn bus_of(address: &str) -> Option<(&str, u8)> {
    let (domain, rest) = address.split_once(':')?;
    let (bus, _) = rest.split_once(':')?;
    Some((domain, u8::from_str_radix(bus, 16).ok()?))
}
