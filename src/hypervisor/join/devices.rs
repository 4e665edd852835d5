//! Which of the host's devices is which of the guest's: by the slot that the configuration gives it, else where only one can
//! be meant.

use super::{PairSeen, Together};
use crate::facts::Facts;
use crate::facts::pci::{Bar, PciDevice};
use crate::hypervisor::context::Context;
use crate::hypervisor::machine::{Passed, PortKind};
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

/// A q35's own root, in the guest's kernel.
const MAIN_ROOT: &str = "pci0000:00";

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

/// The same as the configuration gives it, and the expander that it begins at; `None` where it leaves a port's place to QEMU.
/// An expander is a host bridge of the guest: its own slot is in no device's way.
fn configured_way(context: &Context<'_>, passed: &Passed) -> Option<(Option<String>, String)> {
    let ports = context.machine.ports_above(passed)?;
    let own = if passed.addr.is_empty() { "00.0" } else { passed.addr.as_str() };
    let is_expander = |port: &&&crate::hypervisor::machine::Port| port.kind == PortKind::Expander;
    let expander = ports.iter().rfind(is_expander).map(|port| port.id.clone());
    let on_way = ports.iter().filter(|port| !is_expander(port)).map(|port| port.addr.as_str());
    let parts: Vec<&str> = on_way.chain([own]).collect();
    let is_known = parts.len() > 1 && parts.iter().all(|part| !part.is_empty());
    is_known.then(|| (expander, parts.join("/")))
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
        let is_main = places.of(device).is_some_and(|place| place.root == MAIN_ROOT);
        let fits = |(passed, _): &&(&Passed, &PciDevice)| {
            let configured = configured_way(context, passed);
            configured.is_some_and(|(expander, way)| Some(way) == own && expander.is_none() == is_main)
        };
        // Below two expanders there may be the same way.
        let mut fitting = left.iter().enumerate().filter(|(_, candidate)| fits(candidate)).map(|(at, _)| at);
        let at = fitting.next().filter(|_| fitting.next().is_none());
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
    let fitting: Vec<Vec<usize>> = unsure
        .iter()
        .map(|device| (0..left.len()).filter(|at| difference(device, left[*at].1).is_none()).collect())
        .collect();
    for (device, candidates) in unsure.iter().zip(&fitting) {
        // Devices that can be nothing but these.
        let is_rival =
            |other: &&Vec<usize>| !other.is_empty() && other.iter().all(|at| candidates.contains(at));
        let rivals = fitting.iter().filter(is_rival).count();
        match candidates.as_slice() {
            [] => reasons.push(format!(
                "the guest's {} ({}) is none of the devices that the configuration passes through",
                device.address,
                device.ids()
            )),
            [at] => together.devices.push(pair(device, left[*at].1, left[*at].0, "only one")),
            several if rivals > several.len() => reasons.push(format!(
                "the guest has {rivals} devices {}, and the configuration passes {} through",
                device.ids(),
                several.len()
            )),
            several => together.warnings.push(format!(
                "which of {} the guest's {} is, the configuration does not say",
                several.iter().map(|at| left[*at].1.address.as_str()).collect::<Vec<_>>().join(" and "),
                device.address
            )),
        }
    }
    reasons.dedup();
    // What is passed and not there: a card that did not answer, or a configuration that was changed since.
    let mut absent: Vec<&str> = left
        .iter()
        .filter(|(_, host)| !together.devices.iter().any(|matched| matched.host == host.address))
        .map(|(_, host)| host.address.as_str())
        .collect();
    let ambiguous = unsure.len() - together.devices.iter().filter(|m| m.by == "only one").count();
    if reasons.is_empty() && absent.len() > ambiguous {
        absent.sort_unstable();
        let (count, all) = (absent.len() - ambiguous, absent.join(", "));
        together.warnings.push(match ambiguous {
            0 => format!("the configuration passes {all} through, and the guest does not have it"),
            _ => {
                format!("the configuration passes {all} through, and the guest does not have {count} of them")
            }
        });
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
