//! The way from the host bridges to GPUs, NVMe controllers and network adapters, as text of at most 80 columns in ASCII: it
//! must be readable on a serial console.

use super::place::{Place, Places};
use crate::facts::pci::{Class, PciDevice};
use crate::facts::pci_config::{DOWNSTREAM_PORT, PCI_BRIDGE, ROOT_PORT, UPSTREAM_PORT};
use crate::facts::{Fact, Facts};
use std::fmt::Write as _;

/// No line is longer.
const COLUMNS: usize = 80;

/// Draws the tree; empty where no such device can be seen.
pub fn draw(facts: &Facts) -> String {
    let places = Places::new(facts);
    let mut leaves: Vec<(Place, &PciDevice)> = Vec::new();
    let mut unplaced = Vec::new();
    for device in facts.pci.value().into_iter().flatten().filter(|device| is_drawn(device)) {
        match places.of(device) {
            Some(place) => leaves.push((place, device)),
            None => unplaced.push(device),
        }
    }
    leaves
        .sort_by(|(a, x), (b, y)| (&a.root, &a.bridges, &x.address).cmp(&(&b.root, &b.bridges, &y.address)));
    let mut out = String::new();
    for of_root in leaves.chunk_by(|(a, _), (b, _)| a.root == b.root) {
        let root = &of_root[0].0.root;
        let mut words = root.clone();
        if let Some(bridge) = places.host_bridge(root) {
            let _ = write!(words, "  host bridge {}", bridge.ids());
        }
        if let Some(node) = of_root[0].0.numa_node.filter(|node| *node >= 0) {
            let _ = write!(words, "  NUMA node {node}");
        }
        line(&mut out, &words);
        let drawing = Drawing { facts, places: &places };
        drawing.below(&mut out, "", 0, of_root);
    }
    for device in unplaced {
        line(&mut out, &format!("(place unknown) {}  {}", device.address, device_words(facts, device)));
    }
    out
}

fn is_drawn(device: &PciDevice) -> bool {
    let class = device.class.value().copied();
    device.is_nvidia_gpu() || class.is_some_and(|class| class.is_nvme() || class.is_network())
}

struct Drawing<'a> {
    facts: &'a Facts,
    places: &'a Places<'a>,
}

impl Drawing<'_> {
    /// What hangs below the first `depth` bridges, which all leaves share. It ends: a place has few bridges.
    fn below(&self, out: &mut String, indent: &str, depth: usize, leaves: &[(Place, &PciDevice)]) {
        let at = |leaf: &(Place, &PciDevice)| leaf.0.bridges.get(depth).cloned();
        let groups: Vec<_> = leaves.chunk_by(|a, b| at(a).is_some() && at(a) == at(b)).collect();
        for (index, group) in groups.iter().enumerate() {
            let is_last = index + 1 == groups.len();
            let (fork, next) = if is_last { ("`- ", "   ") } else { ("+- ", "|  ") };
            match at(&group[0]) {
                Some(bridge) => {
                    line(out, &format!("{indent}{fork}{bridge}  {}", self.bridge_words(&bridge)));
                    self.below(out, &format!("{indent}{next}"), depth + 1, group);
                }
                None => {
                    let device = group[0].1;
                    line(
                        out,
                        &format!("{indent}{fork}{}  {}", device.address, device_words(self.facts, device)),
                    );
                }
            }
        }
    }

    fn bridge_words(&self, address: &str) -> String {
        let Some(device) = self.places.device(address) else { return "(not seen)".into() };
        let kind = device.config.value().and_then(|config| config.express).map(|express| express.kind);
        let kind = match kind {
            Some(ROOT_PORT) => "root port",
            Some(UPSTREAM_PORT) => "switch, upstream",
            Some(DOWNSTREAM_PORT) => "switch, downstream",
            Some(PCI_BRIDGE) => "bridge to conventional PCI",
            _ => "bridge",
        };
        let acs = match self.places.acs(address) {
            Some(Some(acs)) if acs.redirects() => "  ACS redirect",
            _ => "",
        };
        format!("{kind} {}{acs}", device.ids())
    }
}

fn device_words(facts: &Facts, device: &PciDevice) -> String {
    let class = device.class.value().copied();
    let kind = match class {
        Some(class) if class.is_nvme() => "NVMe",
        Some(class) if class.is_network() => "network",
        _ => "GPU",
    };
    let mut words = format!("{kind} {}", name(facts, device, class).unwrap_or_else(|| device.ids()));
    if let (Fact::Known { value: width, .. }, Fact::Known { value: speed, .. }) =
        (&device.link_width, &device.link_speed)
    {
        let _ = write!(words, ", x{width} {}", speed.trim_end_matches(" PCIe"));
    }
    words
}

/// What the device calls itself.
fn name(facts: &Facts, device: &PciDevice, class: Option<Class>) -> Option<String> {
    if class.is_some_and(Class::is_nvme) {
        let controllers = facts.nvme.value()?;
        let own = controllers.iter().find(|nvme| nvme.address.value() == Some(&device.address))?;
        return own.model.value().cloned();
    }
    let gpus = facts.nvidia.gpus.value()?;
    gpus.iter().find(|gpu| gpu.address == device.address)?.model.value().cloned()
}

/// One line, cut where it would be too long; what a device says of itself may hold anything.
fn line(out: &mut String, words: &str) {
    let clean = words.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    out.extend(clean.take(COLUMNS));
    out.push('\n');
}
