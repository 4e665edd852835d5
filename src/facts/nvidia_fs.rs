//! NVIDIA's nvidia-fs module: what it shows under `/proc/driver/nvidia-fs` (nvfs-proc.c, nvfs-stat.c), and its parameters.

use super::{Fact, Root};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What nvidia-fs shows; all of it missing where it is not loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NvidiaFs {
    /// Its version, from the statistics or `/sys/module`: `2.27.3`. `version` in proc has two numbers only.
    pub version: Fact<String>,
    /// Its counters.
    pub stats: Fact<Stats>,
    /// Pairs of GPU and peer, and how far they are apart.
    pub peers: Fact<Vec<Peer>>,
    /// Bridges with ACS on the way.
    pub bridges: Fact<Vec<String>>,
    /// How many GPUs and peers it found.
    pub device_count: Fact<String>,
    /// Its parameters.
    pub parameters: Fact<BTreeMap<String, String>>,
}

/// `stats`: the header's words, and the counters of each row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stats {
    /// The module's version.
    pub version: Option<String>,
    /// Are transfers counted? They are not by default; then rows lack `n` and `ok`.
    pub counting: Option<bool>,
    /// Is it counted which peer they were for? It is not by default.
    pub counting_peers: Option<bool>,
    /// Row and counter, such as `Reads` and `n`. `Ops` counts what is in flight now, not what was done.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A line of `peer_distance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Peer {
    /// The GPU's PCI address.
    pub gpu: String,
    /// The peer's PCI address.
    pub peer: String,
    /// The distance: 127 and more lies across root ports, 254 and more across NUMA nodes.
    pub distance: Option<u64>,
    /// `np2p`: how often the GPU's memory was mapped for this peer, where that is counted (`nvfs_get_dma` in nvfs-core.c).
    #[serde(default)]
    pub mappings: Option<u64>,
    /// `nvme` or `network`.
    pub class: String,
}

const PROC: &str = "/proc/driver/nvidia-fs";

impl NvidiaFs {
    /// Reads all of it.
    pub fn read(root: &Root) -> Self {
        let path = |file: &str| format!("{PROC}/{file}");
        let stats = root.parse(&path("stats"), |text| Stats::parse(text).ok_or("no counters".to_owned()));
        let told = stats.value().and_then(|stats| stats.version.clone());
        let version = match told {
            Some(version) => Fact::known(path("stats"), version),
            None => match root.text("/sys/module/nvidia_fs/version") {
                known @ Fact::Known { .. } => known,
                _ => root.parse(&path("version"), |text| {
                    let word = text.split_ascii_whitespace().last();
                    word.map(str::to_owned).ok_or_else(|| "no version".into())
                }),
            },
        };
        Self {
            version,
            stats,
            peers: root
                .text(&path("peer_distance"))
                .map(|text| text.lines().filter_map(Peer::parse).take(4096).collect()),
            bridges: root
                .text(&path("bridges"))
                .map(|text| text.split_ascii_whitespace().map(str::to_owned).collect()),
            device_count: root.text(&path("devcount")),
            parameters: parameters(root, "nvidia_fs"),
        }
    }
}

/// The parameters of a module that can be read, by name.
pub fn parameters(root: &Root, module: &str) -> Fact<BTreeMap<String, String>> {
    let folder = format!("/sys/module/{module}/parameters");
    root.list(&folder).map(|names| {
        let value = |name: &String| root.text(&format!("{folder}/{name}")).value().cloned();
        names.iter().filter_map(|name| Some((name.clone(), value(name)?))).collect()
    })
}

impl Stats {
    /// Rows are `Reads<tabs or spaces>: n=1 ok=1`; words that are not `name=number` are left out.
    fn parse(text: &str) -> Option<Self> {
        let mut stats = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.trim().strip_prefix("NVFS Driver(version:") {
                stats.version = Some(rest.trim_end_matches(')').trim().replace(':', "."));
            }
            if let Some(rest) = line.trim().strip_prefix("IO stats:") {
                stats.counting = Some(rest.trim_start().starts_with("Enabled"));
                let peers = rest.split_once("peer IO stats:");
                stats.counting_peers = peers.map(|(_, rest)| rest.trim_start().starts_with("Enabled"));
            }
            let Some((row, values)) = line.split_once(':') else { continue };
            let pairs = values.split_ascii_whitespace().filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name.to_owned(), value.parse().ok()?))
            });
            let pairs: BTreeMap<String, u64> = pairs.collect();
            if !pairs.is_empty() && stats.counters.len() < 256 {
                // Two rows of one name, as with bandwidths, are one.
                stats.counters.entry(row.trim().to_owned()).or_default().extend(pairs);
            }
        }
        (stats != Self::default()).then_some(stats)
    }

    /// A counter.
    pub fn counter(&self, row: &str, name: &str) -> Option<u64> {
        self.counters.get(row)?.get(name).copied()
    }
}

impl Peer {
    /// `gpu peer peerrank p2pdist link gen numa np2p class`, the distance as `0x0003`; the header is no address.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [gpu, peer, _rank, distance, .., mappings, class] = words.as_slice() else { return None };
        gpu.contains(':').then(|| Self {
            gpu: (*gpu).to_owned(),
            peer: (*peer).to_owned(),
            distance: match distance.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => distance.parse().ok(),
            },
            mappings: mappings.parse().ok(),
            class: (*class).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_with_counting_off_and_on() {
        let off = "GDS Version: 1.14.0.31 \nNVFS statistics(ver: 4.0)\nNVFS Driver(version: 2.25.7)\nIO stats: Disabled, \
                   peer IO stats: Disabled\nReads                : err=0 io_state_err=0\nBar1-map : n=1 ok=1 err=0\n";
        let stats = Stats::parse(off).unwrap();
        assert_eq!((stats.version.as_deref(), stats.counting), (Some("2.25.7"), Some(false)));
        assert_eq!(stats.counting_peers, Some(false));
        assert_eq!((stats.counter("Reads", "err"), stats.counter("Reads", "n")), (Some(0), None));
        let on = "IO stats: Enabled, peer IO stats: Enabled\nReads\t\t\t\t: n=132768 ok=132768 readMiB=132768\nReads\t: \
                  Bandwidth(MiB/s)=x\n";
        let stats = Stats::parse(on).unwrap();
        assert_eq!(stats.counter("Reads", "readMiB"), Some(132_768));
        assert_eq!((stats.counting, stats.counting_peers), (Some(true), Some(true)));
        assert_eq!(Stats::parse("NVFS Driver(version: 2:3:1)").unwrap().version.as_deref(), Some("2.3.1"));
        assert_eq!(Stats::parse(""), None);
        assert_eq!(Stats::parse("a: b=99999999999999999999999"), None);
    }

    #[test]
    fn pairs_of_gpu_and_peer() {
        let header = "gpu\t\tpeer\t\tpeerrank\tp2pdist\tlink\tgen\tnuma\tnp2p\tclass";
        assert_eq!(Peer::parse(header), None);
        let line = "0000:17:00.0\t0000:18:00.0\t0x1\t2\t4\t4\t0\t99\tnvme";
        let peer = Peer::parse(line).unwrap();
        assert_eq!((peer.distance, peer.class.as_str(), peer.mappings), (Some(2), "nvme", Some(99)));
        // As the module prints it (`%04x:%02x:%02x.%u \t...0x%04x`).
        let line = "0000:03:00.0 \t0000:04:00.0 \t0x0082009f\t0x0082\t0x01\t0x01\t0xffffffff\t0\tnvme";
        assert_eq!(Peer::parse(line).unwrap().distance, Some(130));
        assert_eq!(Peer::parse(&line.replace("0x0082\t", "0x\t")).unwrap().distance, None);
        assert_eq!(Peer::parse("0000:17:00.0 x"), None);
    }
}
