//! Distances as words. NVIDIA's library is closed: [`nvidia_smi`] follows the legend that `nvidia-smi topo -m` prints, and
//! [`nccl`] follows NCCL's source (src/graph/{xml,topo,paths}.cc).

use super::place::Place;
use serde::{Serialize, Serializer};
use std::fmt;

/// A distance, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// At most one switch in between.
    Pix,
    /// Several switches, no host bridge.
    Pxb,
    /// A host bridge.
    Phb,
    /// Several host bridges of one NUMA node.
    Node,
    /// The link between sockets.
    Sys,
}

impl Label {
    /// The way that data takes.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Pix => "through one PCIe switch",
            Self::Pxb => "through several PCIe switches",
            Self::Phb => "through a host bridge of the CPU",
            Self::Node => "through two host bridges of one NUMA node",
            Self::Sys => "over the link between CPU sockets",
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pix => "PIX",
            Self::Pxb => "PXB",
            Self::Phb => "PHB",
            Self::Node => "NODE",
            Self::Sys => "SYS",
        })
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// nvidia-smi's word. `nodes` is the number of NUMA nodes, which counts where the firmware gives the devices none.
pub fn nvidia_smi(a: &Place, b: &Place, nodes: Option<usize>) -> Option<Label> {
    if a.root == b.root {
        let common = a.common(b).len();
        if common == 0 {
            return Some(Label::Phb);
        }
        // Below the last common bridge, a switch's upstream port, each has at most that switch's downstream port.
        let near = |place: &Place| place.bridges.len() - common <= 1;
        return Some(if near(a) && near(b) { Label::Pix } else { Label::Pxb });
    }
    match (a.numa_node?, b.numa_node?) {
        (a, b) if a < 0 && b < 0 => match nodes? {
            1 => Some(Label::Node),
            _ => Some(Label::Sys),
        },
        (a, b) => Some(if a == b { Label::Node } else { Label::Sys }),
    }
}

/// NCCL's word. It takes a switch's two ports for one node and a NUMA node for a host bridge, so that it never says NODE.
/// Two-level switches of Broadcom, which it flattens into one, are PXB here.
pub fn nccl(a: &Place, b: &Place) -> Option<Label> {
    let (switches_a, switches_b) = (switches(a), switches(b));
    let shared = a.root == b.root && switches_a.last().is_some() && switches_a.first() == switches_b.first();
    if shared {
        // Both hang directly at the same switch, or something lies in between.
        return Some(if switches_a == switches_b { Label::Pix } else { Label::Pxb });
    }
    // A device without a node counts for node 0.
    let node = |place: &Place| place.numa_node.map(|node| node.max(0));
    Some(if a.root == b.root || node(a)? == node(b)? { Label::Phb } else { Label::Sys })
}

/// NCCL goes up two components of a path at a time, until one is no PCI address. The outermost switch comes first.
fn switches(place: &Place) -> Vec<&str> {
    let mut switches: Vec<&str> = Vec::new();
    let mut left = place.bridges.len();
    while left >= 2 {
        left -= 2;
        switches.push(&place.bridges[left]);
        // The switch's own path ends here: two more components are above it.
    }
    // A place such as root port, upstream port, downstream port leaves the upstream port; a lone root port leaves none.
    switches.reverse();
    switches
}
