//! Which of the host's devices is which of the guest's: by the slot that the configuration gives it, else where only one can
//! be meant.

use super::{PairSeen, Together};
use crate::facts::Facts;
use crate::facts::pci::{Bar, PciDevice};
use crate::hypervisor::context::Context;
use crate::hypervisor::machine::Passed;
use crate::topology::Topology;
use crate::topology::labels::Label;
use crate::topology::place::Places;
use serde::Serialize;

/// A device on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matched {
    /// Its address in the guest.
    pub guest: String,
    /// Its address on the host.
    pub host: String,
    /// What the configuration calls it.
    pub name: String,
    /// Vendor and device.
    pub ids: String,
    /// How it is known: `slot`, or `only one`.
    pub by: &'static str,
}

/// `0000:00:1c.0` is `1c.0` on its bus.
fn devfn(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or(address)
}

/// A device's way in the guest, devices and functions from the root on.
fn way(places: &Places<'_>, device: &PciDevice) -> Option<String> {
    let place = places.of(device)?;
    let bridges = place.bridges.iter().map(|bridge| devfn(bridge));
    Some(bridges.chain([devfn(&device.address)]).collect::<Vec<_>>().join("/"))
}

/// The same as the configuration gives it; `None` where it leaves a port's place to QEMU.
fn configured_way(context: &Context<'_>, passed: &Passed) -> Option<String> {
    let ports = context.machine.ports_above(passed)?;
    let own = if passed.addr.is_empty() { "00.0" } else { passed.addr.as_str() };
    let parts: Vec<&str> = ports.iter().map(|port| port.addr.as_str()).chain([own]).collect();
    (!ports.is_empty() && parts.iter().all(|part| !part.is_empty())).then(|| parts.join("/"))
}

/// Is it a GPU or a controller of hardware? QEMU's own controllers are 1b36:0010, 8086:5845, or a subsystem of 1af4:1100.
fn is_real(device: &PciDevice) -> bool {
    let is_nvme = device.class.value().is_some_and(|class| class.is_nvme());
    let is_emulated = device.is(0x1b36, 0x0010)
        || device.is(0x8086, 0x5845)
        || device.subsystem_vendor.value().is_some_and(|vendor| vendor.0 == 0x1af4);
    device.is_nvidia_gpu() || (is_nvme && !is_emulated)
}

/// Finds for each GPU and controller of the guest the one on the host, and says why that cannot be where it cannot.
pub fn matched(guest: &Facts, context: &Context<'_>, together: &mut Together) -> Vec<String> {
    let mut reasons = Vec::new();
    let places = Places::new(guest);
    let real: Vec<&PciDevice> =
        guest.pci.value().into_iter().flatten().filter(|device| is_real(device)).collect();
    if real.is_empty() {
        reasons.push("the guest's report has no GPU and no NVMe controller of hardware".into());
    }
    if context.host_devices().is_empty() {
        reasons.push("the host's report has no PCI devices".into());
    }
    let mut left: Vec<(&Passed, &PciDevice)> = context
        .machine
        .passed
        .iter()
        .filter_map(|passed| Some((passed, context.function(passed)?)))
        .filter(|(_, device)| is_real(device))
        .collect();
    let mut unsure = Vec::new();
    for device in real {
        let own = way(&places, device);
        let at = left.iter().position(|(passed, _)| own.is_some() && configured_way(context, passed) == own);
        let Some(at) = at else {
            unsure.push(device);
            continue;
        };
        let (passed, host) = left.remove(at);
        match difference(device, host) {
            None => together.devices.push(pair(device, host, passed, "slot")),
            Some(why) => reasons.push(format!(
                "{} of the configuration is {} on the host and {} in the guest, and they differ: {why}",
                passed.name, host.address, device.address
            )),
        }
    }
    for device in unsure {
        let fits = |(_, host): &&(&Passed, &PciDevice)| difference(device, host).is_none();
        let fitting: Vec<&(&Passed, &PciDevice)> = left.iter().filter(fits).collect();
        match fitting.as_slice() {
            [] => reasons.push(format!(
                "the guest's {} ({}) is none of the devices that the configuration passes through",
                device.address,
                device.ids()
            )),
            [(passed, host)] => together.devices.push(pair(device, host, passed, "only one")),
            several => together.warnings.push(format!(
                "which of {} the guest's {} is, the configuration does not say",
                several.iter().map(|(_, host)| host.address.as_str()).collect::<Vec<_>>().join(" and "),
                device.address
            )),
        }
    }
    // Two devices of the guest cannot be the same one.
    let mut hosts: Vec<&str> = together.devices.iter().map(|matched| matched.host.as_str()).collect();
    hosts.sort_unstable();
    if let Some(twice) = hosts.windows(2).find(|pair| pair[0] == pair[1]) {
        reasons.push(format!("two of the guest's devices can only be the host's {}", twice[0]));
    }
    reasons
}

fn pair(guest: &PciDevice, host: &PciDevice, passed: &Passed, by: &'static str) -> Matched {
    Matched {
        guest: guest.address.clone(),
        host: host.address.clone(),
        name: passed.name.clone(),
        ids: guest.ids(),
        by,
    }
}

/// What tells two functions apart that should be one: what is not known on a side tells nothing.
fn difference(guest: &PciDevice, host: &PciDevice) -> Option<String> {
    let differs = |what: &str, a: Option<String>, b: Option<String>| match (a, b) {
        (Some(a), Some(b)) if a != b => Some(format!("{what} {b} on the host, {a} in the guest")),
        _ => None,
    };
    let id = |fact: &crate::facts::Fact<crate::facts::pci::Id>| fact.value().map(ToString::to_string);
    let serial = |device: &PciDevice| device.config.value().and_then(|config| config.serial.clone());
    // Sizes of windows, those that a host's or a guest's firmware may leave out or resize apart from the largest.
    let window = |device: &PciDevice| {
        let bars = device.bars.value()?.iter().filter(|bar: &&Bar| bar.index < 6);
        bars.map(|bar| bar.size).max().filter(|size| *size > 0).map(|size| format!("{size:#x}"))
    };
    differs("vendor", id(&guest.vendor), id(&host.vendor))
        .or_else(|| differs("device", id(&guest.device), id(&host.device)))
        .or_else(|| differs("subsystem", id(&guest.subsystem_device), id(&host.subsystem_device)))
        .or_else(|| differs("serial number", serial(guest), serial(host)))
        .or_else(|| differs("largest window", window(guest), window(host)))
}

/// How near the pairs are on both sides.
pub fn pairs(guest: &Facts, context: &Context<'_>, together: &mut Together) {
    let in_guest = Topology::of(guest);
    let on_host =
        |address: &str| together.devices.iter().find(|m| m.guest == address).map(|m| m.host.as_str());
    let word = |label: Option<Label>| label.map_or("?".to_owned(), |label| label.to_string());
    let mut seen = Vec::new();
    for pair in in_guest.storage() {
        let (Some(gpu), Some(nvme)) = (on_host(&pair.gpu), on_host(&pair.peer)) else { continue };
        let host = context.topology.storage().find(|other| other.gpu == gpu && other.peer == nvme);
        seen.push(PairSeen {
            gpu: pair.gpu.clone(),
            nvme: pair.peer.clone(),
            guest: word(pair.nvidia_smi),
            host: word(host.and_then(|pair| pair.nvidia_smi)),
        });
    }
    together.pairs = seen;
}
