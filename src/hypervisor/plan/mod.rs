//! From a host's devices to a configuration that is ready: what is decided, and why. Each form in which it is written has a file
//! of its own.

mod decide;
mod libvirt;
mod proxmox;
mod qemu;
#[cfg(test)]
mod tests;

use super::machine::Kind;
use crate::facts::Facts;
use crate::report::layout::clean;
use std::path::PathBuf;

pub use decide::{new_uuid, plan, there_is};

/// How the guest's PCI tree is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Tree {
    /// As the host's: a switch where the host has one, or where the guest's p2pdma needs one and the hardware does without
    #[default]
    Auto,
    /// A root port for each device
    Ports,
    /// One emulated switch for all devices
    Switch,
}

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// The GPUs' addresses on the host, in full.
    pub gpus: Vec<String>,
    /// The NVMe controllers' addresses on the host, in full.
    pub nvmes: Vec<String>,
    /// The host's facts, where they are known.
    pub host: Option<&'a Facts>,
    /// The size of each GPU's largest window, where the host does not say.
    pub bar: Option<u64>,
    /// How the tree is made.
    pub tree: Tree,
    /// Proxmox' number for the machine.
    pub vmid: u32,
    /// The machine's name.
    pub name: String,
    /// The machine's UUID.
    pub uuid: String,
    /// Memory in bytes.
    pub memory: u64,
    /// CPUs.
    pub cpus: u32,
    /// gdsboot's image on the host.
    pub image: PathBuf,
    /// Proxmox' storage for disks.
    pub storage: String,
}

/// A machine that is decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Proxmox' number for it.
    pub vmid: u32,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The size of the host's pages below it, in MiB.
    pub page_mib: u64,
    /// CPUs.
    pub cpus: u32,
    /// The host's NUMA nodes to which memory is bound; empty where the host has one, or none is known.
    pub nodes: Vec<u32>,
    /// What OVMF is told of its window, in MiB.
    pub window_mib: u64,
    /// The groups of devices below one switch each, then the devices with a root port of their own.
    pub groups: Vec<Group>,
    /// gdsboot's image on the host.
    pub image: String,
    /// Proxmox' storage.
    pub storage: String,
    /// What was decided and why, a sentence each.
    pub reasons: Vec<String>,
    /// The pairs of devices whose distance on the host is known.
    pub pairs: Vec<HostPair>,
}

/// Devices below one root port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Is there a switch between?
    pub switch: bool,
    /// The devices; one where there is no switch.
    pub devices: Vec<Device>,
}

/// A card that is passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `gpu` or `nvme`.
    pub kind: &'static str,
    /// Its functions' addresses on the host, the GPU or controller itself first.
    pub functions: Vec<String>,
    /// The way from the host bridge to it; empty where it is not known.
    pub way: String,
    /// Its NUMA node on the host.
    pub node: Option<i32>,
    /// Vendor and device.
    pub ids: String,
}

/// A GPU and a controller on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPair {
    /// The GPU's address.
    pub gpu: String,
    /// The controller's address.
    pub nvme: String,
    /// nvidia-smi's word.
    pub distance: String,
}

impl Device {
    /// The card's address without its function.
    fn slot(&self) -> &str {
        let first = self.functions.first().map_or("", String::as_str);
        first.rsplit_once('.').map_or(first, |(slot, _)| slot)
    }

    /// Has it the function 0 of its slot first? Then a guest can have its functions in one slot.
    fn is_whole(&self) -> bool {
        self.functions.len() > 1
    }
}

/// Memory in bytes divided among NUMA nodes in whole pages: as equal as that goes, the last one taking the rest.
fn shares(nodes: &[u32], memory: u64, page: u64) -> Vec<(u32, u64)> {
    let count = nodes.len().max(1) as u64;
    let each = memory / page / count * page;
    let share = |at: usize| if at + 1 == nodes.len() { memory - each * (count - 1) } else { each };
    nodes.iter().enumerate().map(|(at, node)| (*node, share(at))).collect()
}

/// A file of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Plan {
    /// Writes it in one form: the file that a person reads first comes first.
    pub fn write(&self, kind: Kind) -> Vec<PlanFile> {
        match kind {
            Kind::Proxmox => proxmox::write(self),
            Kind::Libvirt => libvirt::write(self),
            Kind::Qemu => qemu::write(self),
        }
    }

    /// The reasons as comments of a shell. What a report has in them ends none.
    fn comments(&self) -> String {
        self.reasons.iter().map(|reason| format!("# {}\n", clean(reason))).collect()
    }

    /// What the host tells its guest: `places` are the devices' ways in the guest, devices and functions from the root on,
    /// in the order of the groups.
    fn oem_strings(&self, places: &[String]) -> Vec<String> {
        use super::told::Told;
        let devices = self.groups.iter().flat_map(|group| &group.devices).zip(places);
        let devices = devices.map(|(device, place)| {
            let node = device.node.map_or(String::new(), |node| node.to_string());
            let words = [
                ("kind", device.kind),
                ("at", &device.functions[0]),
                ("slot", place),
                ("id", &device.ids),
                ("way", &device.way),
                ("node", &node),
            ];
            let known = words.into_iter().filter(|(_, word)| !word.is_empty());
            known.fold(Told::new("device"), |told, (name, word)| told.with(name, word)).to_string()
        });
        let pairs = self.pairs.iter().map(|pair| {
            let told = Told::new("pair").with("gpu", &pair.gpu).with("nvme", &pair.nvme);
            told.with("distance", &pair.distance).to_string()
        });
        devices.chain(pairs).collect()
    }
}
