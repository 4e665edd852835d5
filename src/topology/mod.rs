//! Where GPUs, NVMe controllers and network adapters hang in a machine, and what that means for transfers between them.
//!
//! Four parties answer that question, each in its own way, and a machine's owner meets all four answers:
//!
//! | file | whose answer |
//! |---|---|
//! | [`labels`] | `nvidia-smi topo -m` and NCCL, in words: PIX, PXB, PHB, NODE, SYS |
//! | [`nvfs`] | nvidia-fs, as a distance |
//! | [`p2pdma`] | the kernel's p2pdma: allowed or refused |
//! | [`place`] | what they all look at: the bridges above a device |
//! | [`draw`] | the tree as text |
//!
//! All of it is computed from facts; nothing is asked.

pub mod draw;
pub mod labels;
pub mod nvfs;
pub mod p2pdma;
pub mod place;

use crate::facts::pci::{Class, PciDevice};
use crate::facts::{Fact, Facts};
use labels::Label;
use nvfs::Distance;
use p2pdma::P2pdma;
use place::{Place, Places};
use serde::Serialize;

/// All pairs of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Every GPU with every NVMe controller, then with every network adapter.
    pub pairs: Vec<Pair>,
}

/// What a GPU is paired with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerKind {
    /// An NVMe controller.
    Nvme,
    /// A network adapter.
    Network,
}

/// A GPU and a device that may write into its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The GPU's PCI address.
    pub gpu: String,
    /// The other device's PCI address.
    pub peer: String,
    /// What the other device is.
    pub kind: PeerKind,
    /// What `nvidia-smi topo -m` calls it; `None` where the devices' places cannot be seen.
    pub nvidia_smi: Option<Label>,
    /// What NCCL calls it.
    pub nccl: Option<Label>,
    /// nvidia-fs's distance, computed from what can be seen now.
    pub nvfs: Option<Distance>,
    /// The distance that nvidia-fs itself shows; it measures once, when it is loaded.
    pub nvfs_says: Option<u64>,
    /// What the kernel's p2pdma makes of it.
    pub p2pdma: P2pdma,
}

/// No machine has more pairs of one kind. A report that claims them is no machine's, and would take all memory.
const MOST_PAIRS: usize = 65_536;

impl Topology {
    /// Computes it. A machine whose PCI devices cannot be seen has no pairs; nor has what claims more than [`MOST_PAIRS`].
    pub fn of(facts: &Facts) -> Self {
        let places = Places::new(facts);
        let devices = facts.pci.value().map_or(&[][..], Vec::as_slice);
        let placed = |is: &dyn Fn(&PciDevice) -> bool| -> Vec<Placed<'_>> {
            let wanted = devices.iter().filter(|device| is(device));
            wanted.map(|device| (device, places.of(device))).collect()
        };
        let gpus = placed(&PciDevice::is_nvidia_gpu);
        let mut pairs = Vec::new();
        for (kind, is) in
            [(PeerKind::Nvme, Class::is_nvme as fn(Class) -> bool), (PeerKind::Network, Class::is_network)]
        {
            let peers = placed(&|device| device.class.value().copied().is_some_and(is));
            if gpus.len().saturating_mul(peers.len()) > MOST_PAIRS {
                continue;
            }
            for (gpu, peer) in gpus.iter().flat_map(|gpu| peers.iter().map(move |peer| (gpu, peer))) {
                pairs.push(pair(facts, &places, gpu, peer, kind));
            }
        }
        Self { pairs }
    }

    /// The pairs of a GPU and an NVMe controller.
    pub fn storage(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| pair.kind == PeerKind::Nvme)
    }
}

/// A device, and where it hangs.
type Placed<'a> = (&'a PciDevice, Option<Place>);

fn pair(
    facts: &Facts,
    places: &Places<'_>,
    (gpu, a): &Placed<'_>,
    (peer, b): &Placed<'_>,
    kind: PeerKind,
) -> Pair {
    let both = a.as_ref().zip(b.as_ref());
    Pair {
        gpu: gpu.address.clone(),
        peer: peer.address.clone(),
        kind,
        nvidia_smi: both.and_then(|(a, b)| labels::nvidia_smi(a, b, nodes(facts))),
        nccl: both.and_then(|(a, b)| labels::nccl(a, b)),
        nvfs: both.and_then(|(a, b)| nvfs::distance(places, a, b)),
        nvfs_says: nvfs::said(facts, &gpu.address, &peer.address),
        p2pdma: p2pdma::verdict(facts, places, a.as_ref(), b.as_ref()),
    }
}

/// How many NUMA nodes there are.
fn nodes(facts: &Facts) -> Option<usize> {
    facts.numa_nodes.value().map(Vec::len).filter(|nodes| *nodes > 0)
}

/// The pairs of a GPU and an NVMe controller that the kernel's p2pdma refuses: the two addresses, and why.
pub fn p2pdma_refusals(facts: &Facts) -> Vec<(String, String, String)> {
    let topology = Topology::of(facts);
    let refused = topology.storage().filter_map(|pair| match &pair.p2pdma {
        P2pdma::Refused { why, .. } => Some((pair.gpu.clone(), pair.peer.clone(), why.clone())),
        _ => None,
    });
    refused.collect()
}

/// A NUMA node; -1 where the firmware names none, `None` where it cannot be seen.
fn numa_node(device: &PciDevice) -> Option<i32> {
    match &device.numa_node {
        Fact::Known { value, .. } => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
