//! nvidia-fs's distance between a GPU and another device (NVIDIA/gds-nvidia-fs, src/nvfs-pci.c). cuFile routes by it, and
//! `/proc/driver/nvidia-fs/peer_distance` shows it as `p2pdist`.

use super::place::{Place, Places};
use crate::facts::Facts;
use serde::Serialize;

/// What a way over the root complex costs.
const CROSS: u32 = 127;

/// A distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Distance {
    /// 1 for two functions below one port, 3 for one switch, 127 and more over the root complex, 254 and more to another
    /// NUMA node.
    pub distance: u32,
    /// The way leads over the root complex.
    pub cross: bool,
}

/// What nvidia-fs shows for a pair; `None` where it is not loaded or does not list the pair.
pub fn said(facts: &Facts, gpu: &str, peer: &str) -> Option<u64> {
    let mut pairs = facts.nvidia_fs.peers.value()?.iter();
    pairs.find(|pair| pair.gpu == gpu && pair.peer == peer)?.distance
}

/// The distance; `None` where it hangs on something that cannot be seen.
pub fn distance(places: &Places<'_>, gpu: &Place, peer: &Place) -> Option<Distance> {
    let depth = |place: &Place| u32::try_from(place.bridges.len()).ok();
    let (gpu_depth, peer_depth) = (depth(gpu)?, depth(peer)?);
    let common = gpu.common(peer);
    let Some((lowest, above)) = common.split_last() else {
        let is_local = match (gpu.numa_node?, peer.numa_node?) {
            (a, b) if a < 0 && b < 0 => true,
            (a, b) => a == b,
        };
        let base = if is_local { CROSS } else { 2 * CROSS };
        return Some(Distance { distance: base + gpu_depth + peer_depth + 1, cross: true });
    };
    let shared = u32::try_from(common.len()).ok()?;
    let mut distance = (gpu_depth - shared) + (peer_depth - shared) + 1;
    // nvidia-fs looks at the bridge only where it is not the GPU's own port.
    if gpu_depth > shared && places.acs(lowest)?.is_some_and(|acs| acs.is_enabled()) {
        distance += u32::try_from(above.len()).ok()?;
    }
    Some(Distance { distance, cross: distance >= CROSS })
}
