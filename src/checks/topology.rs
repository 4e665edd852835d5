//! How near GPUs and NVMe controllers are to each other, and whether the kernel's p2pdma lets them meet.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::devices::if_failed;
use super::each::unseen;
use super::routes::has_c2c;
use crate::facts::Fact;
use crate::facts::pci::NVIDIA;
use crate::topology::labels::Label;
use crate::topology::p2pdma::P2pdma;
use crate::topology::place::Places;
use crate::topology::{Pair, Topology};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "topology.socket",
        title: "every GPU has an NVMe controller on its own socket",
        sides: ANYWHERE,
        requires: &["gpu.present", "nvme.present"],
        severity: Severity::Minor,
        rationale: "Data that crosses the link between sockets arrives at about half the speed, and some platforms do not \
                    pass it on at all.",
        references: &[
            "GPUDirect Storage configuration guide: near and far GPUs",
            "nvidia-smi topo -m: legend",
        ],
        covers: &["guide: not across sockets", "gds-diag: PCIe topology"],
        run: socket,
    },
    Check {
        id: "topology.switch",
        title: "every GPU has an NVMe controller on its own PCIe switch",
        sides: ANYWHERE,
        requires: &["gpu.present", "nvme.present", "topology.socket"],
        severity: Severity::Minor,
        rationale: "Below one switch data goes the shortest way; over the root complex it shares the CPU's bandwidth.",
        references: &["GPUDirect Storage best practices: PCIe topology", "nvidia-smi topo -m: legend"],
        covers: &["guide: same root complex or switch", "gds-diag: PCIe topology"],
        run: switch,
    },
    Check {
        id: "topology.p2pdma",
        title: "the kernel's p2pdma lets GPU and NVMe controller meet",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "nvme.present", "gpu.pcie", "nvme.pcie", "acs.redirect"],
        severity: Severity::Major,
        rationale: "p2pdma refuses pairs that share no switch, unless the CPU is an AMD Zen or the host bridge is on its \
                    list; QEMU's is not.",
        references: &["drivers/pci/p2pdma.c: calc_map_type_and_dist"],
        covers: &["guide: P2PDMA topology", "signature 23", "gds-diag: P2PDMA"],
        run: p2pdma,
    },
    Check {
        id: "topology.peer-distance",
        title: "nvidia-fs measures the distances that the machine shows now",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.present", "nvme.present"],
        severity: Severity::Info,
        rationale: "cuFile chooses by the distances that nvidia-fs measured when it was loaded. Where they differ from what \
                    the bridges show, the machine was changed since, or this tool knows that nvidia-fs badly.",
        references: &["gds-nvidia-fs: nvfs-pci.c, __nvfs_get_gpu2peer_distance"],
        covers: &["gds-diag: PCIe topology"],
        run: peer_distance,
    },
    Check {
        id: "topology.clique",
        title: "GPUs of one guest may reach each other",
        sides: &[Side::Guest],
        requires: &["gpu.present"],
        severity: Severity::Info,
        rationale: "In a guest NVIDIA's driver lets GPUs reach each other only where the hypervisor put them into one clique \
                    (x-nv-gpudirect-clique). Between an NVMe controller and a GPU neither nvidia-fs nor p2pdma asks for one.",
        references: &[
            "QEMU: hw/vfio/pci-quirks.c, vfio_add_nv_gpudirect_cap",
            "open-gpu-kernel-modules: p2p_caps.c, chipset_pcie.c: objClLoadPcieVirtualP2PApproval",
            "NVIDIA/nccl issue 2335: an approved mapping that carries wrong data",
        ],
        covers: &["guide: flat or switched topology"],
        run: clique,
    },
];

/// What nvidia-fs shows.
const PEER_DISTANCE: &str = "/proc/driver/nvidia-fs/peer_distance";
/// More pairs than this are no evidence that a person reads.
const MOST_PAIRS: usize = 16;
/// The pairs of an NVMe controller and a GPU that is meant for transfers.
pub(super) fn storage<'t>(context: &Context<'_>, topology: &'t Topology) -> Vec<&'t Pair> {
    let gpus: Vec<&str> = context.gpus().iter().map(|gpu| gpu.address.as_str()).collect();
    topology.storage().filter(|pair| gpus.contains(&pair.gpu.as_str())).collect()
}

/// Is the GPUs' memory the CPU's as well (Grace: NVLink-C2C)? Then transfers go through the CPU's fabric and neither the
/// PCI tree nor p2pdma decides over them.
pub(super) fn is_coherent(context: &Context<'_>) -> bool {
    const MODELS: [&str; 3] = ["GH200", "GB200", "GB300"];
    let claimed = context.facts.nvidia.gpus.value().into_iter().flatten();
    let by_name = claimed
        .filter_map(|gpu| gpu.model.value())
        .any(|model| MODELS.iter().any(|name| model.contains(name)));
    // Grace's root ports are NVIDIA's own.
    let places = Places::new(context.facts);
    let by_port = context.gpus().iter().any(|gpu| {
        let above = places.of(gpu).and_then(|place| places.device(place.bridges.first()?));
        above.is_some_and(|port| port.vendor.value() == Some(&NVIDIA))
    });
    by_name || by_port || has_c2c(context)
}

/// For every GPU its nearest NVMe controller; `None` for a GPU none of whose distances can be seen.
fn nearest<'t>(pairs: &[&'t Pair]) -> Vec<(&'t str, Option<&'t Pair>)> {
    let mut gpus: Vec<(&str, Option<&Pair>)> = Vec::new();
    for pair in pairs.iter().copied() {
        let seen = pair.nvidia_smi.map(|_| pair);
        match gpus.iter_mut().find(|(gpu, _)| *gpu == pair.gpu) {
            Some((_, best)) => {
                let is_nearer =
                    seen.is_some_and(|pair| best.is_none_or(|best| pair.nvidia_smi < best.nvidia_smi));
                if is_nearer {
                    *best = seen;
                }
            }
            None => gpus.push((&pair.gpu, seen)),
        }
    }
    gpus
}

/// All answers on a pair.
fn words(pair: &Pair) -> String {
    let label = |label: Option<Label>| label.map_or("?".to_owned(), |label| label.to_string());
    let mut nvfs = pair.nvfs.map_or("?".to_owned(), |nvfs| {
        format!("{}{}", nvfs.distance, if nvfs.cross { ", cross" } else { "" })
    });
    if let Some(says) = pair.nvfs_says {
        nvfs += &format!(" (it says {says})");
    }
    let p2pdma = match &pair.p2pdma {
        P2pdma::Direct => "direct",
        P2pdma::ThroughHostBridge { .. } => "through the host bridge",
        P2pdma::Refused { .. } => "refused",
        P2pdma::Unknown { .. } => "?",
    };
    format!(
        "nvidia-smi {}, NCCL {}, nvidia-fs distance {nvfs}, p2pdma {p2pdma}",
        label(pair.nvidia_smi),
        label(pair.nccl)
    )
}

/// Judges every GPU's nearest controller by its label.
fn by_label(context: &Context<'_>, good: &str, is_good: fn(Label) -> bool) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let topology = Topology::of(context.facts);
    let gpus = nearest(&storage(context, &topology));
    if gpus.is_empty() {
        return Outcome::not_applicable("there is no pair of a GPU and an NVMe controller");
    }
    let far = gpus.iter().filter_map(|(_, pair)| *pair).filter(|pair| !pair.nvidia_smi.is_some_and(is_good));
    let far: Vec<&Pair> = far.collect();
    let with_evidence = |mut outcome: Outcome| {
        for pair in gpus.iter().filter_map(|(_, pair)| *pair) {
            outcome = outcome.evidence(format!("{} to {}", pair.gpu, pair.peer), words(pair));
        }
        outcome
    };
    if let Some(pair) = far.first() {
        let label = pair.nvidia_smi.unwrap_or(Label::Sys);
        let more = if far.len() > 1 { format!(" (and {} more)", far.len() - 1) } else { String::new() };
        return with_evidence(Outcome::fail(format!(
            "GPU {} reaches its nearest NVMe controller {} only {} ({label}){more}",
            pair.gpu,
            pair.peer,
            label.meaning()
        )));
    }
    if gpus.iter().any(|(_, pair)| pair.is_none()) {
        return with_evidence(Outcome::unknown("where GPUs and NVMe controllers hang cannot be seen"));
    }
    with_evidence(Outcome::pass(format!("{} of {} GPUs {good}", gpus.len(), gpus.len())))
}

fn note(outcome: Outcome, why: &str) -> Outcome {
    let why = format!("{}; {why}", outcome.why);
    Outcome { evidence: outcome.evidence, ..Outcome::note(why) }
}

fn socket(context: &Context<'_>) -> Outcome {
    let outcome = by_label(context, "have an NVMe controller on their socket", |label| label < Label::Sys);
    if_failed(outcome, |far| match context.side {
        // A guest's nodes are what its configuration says.
        Side::Guest => note(far, "whether that is so in hardware, only the host can see"),
        _ => far.expected("PIX, PXB, PHB or NODE").remedy(Remedy::new(
            Who::Hardware,
            "move an NVMe drive to a slot of the GPU's socket, or use a GPU on the drive's socket",
        )),
    })
}

fn switch(context: &Context<'_>) -> Outcome {
    let outcome = by_label(context, "have an NVMe controller on their switch", |label| label <= Label::Pxb);
    if_failed(outcome, |far| match context.side {
        _ if is_coherent(context) => note(
            far,
            "the GPU's memory is the CPU's as well (C2C), and data goes through the CPU in any case",
        ),
        Side::Guest => note(
            far,
            "a guest's tree is what its configuration says, not the hardware's; ask the host with lspci -tv",
        ),
        // Guests' data goes up to the host's IOMMU in any case.
        Side::Host => note(far, "under passthrough the data goes over the root complex in any case"),
        Side::BareMetal if !is_below_switch(context) => note(
            far,
            "no GPU of this machine hangs below a PCIe switch, and the root complex carries the data",
        ),
        Side::BareMetal => far.expected("PIX or PXB").remedy(Remedy::new(
            Who::Hardware,
            "use an NVMe slot on the GPU's PCIe switch, where the machine has one",
        )),
    })
}

/// Is a GPU below a switch: a root port, the switch's upstream port, and one of its downstream ports?
fn is_below_switch(context: &Context<'_>) -> bool {
    let places = Places::new(context.facts);
    context.gpus().iter().filter_map(|gpu| places.of(gpu)).any(|place| place.bridges.len() >= 3)
}

fn p2pdma(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let topology = Topology::of(context.facts);
    if is_coherent(context) {
        return Outcome::not_applicable("the GPU's memory is the CPU's as well (C2C): p2pdma is not asked");
    }
    let pairs = storage(context, &topology);
    if pairs.is_empty() {
        return Outcome::not_applicable("there is no pair of a GPU and an NVMe controller");
    }
    let refused: Vec<(&Pair, &str, bool)> = pairs
        .iter()
        .filter_map(|pair| match &pair.p2pdma {
            P2pdma::Refused { why, redirects } => Some((*pair, why.as_str(), !redirects.is_empty())),
            _ => None,
        })
        .collect();
    let unknown = pairs.iter().find_map(|pair| match &pair.p2pdma {
        P2pdma::Unknown { why } => Some((*pair, why)),
        _ => None,
    });
    let Some((first, why, redirected)) = refused.first() else {
        return match unknown {
            Some((pair, why)) => {
                Outcome::unknown(format!("whether {} and {} may meet: {why}", pair.gpu, pair.peer)).remedy(
                    Remedy::new(Who::Guest, "ask as root, and look for what the kernel says of the pair")
                        .command("dmesg | grep -i 'peer-to-peer DMA\\|P2PDMA whitelist\\|ACS redirect'"),
                )
            }
            None => Outcome::pass(format!("{} of {} pairs may meet", pairs.len(), pairs.len())),
        };
    };
    let words = format!(
        "{} of {} pairs are refused: {} and {}: {why}",
        refused.len(),
        pairs.len(),
        first.gpu,
        first.peer
    );
    let mut outcome = if refused.len() < pairs.len() {
        Outcome::note(words)
    } else if context.has_nvfs_hook() {
        Outcome::note(format!("{words}; the nvidia-fs route does not ask this"))
    } else {
        Outcome::fail(words)
    };
    outcome = outcome
        .expected("a common PCIe switch without ACS redirect, an AMD Zen CPU, or a listed host bridge");
    for (pair, why, _) in &refused {
        outcome = outcome.evidence(format!("{} to {}", pair.gpu, pair.peer), *why);
    }
    remedies(context, outcome, *redirected)
}

fn peer_distance(context: &Context<'_>) -> Outcome {
    let peers = match &context.facts.nvidia_fs.peers {
        Fact::Known { value, .. } => value,
        Fact::Missing { .. } if context.has_module("nvidia_fs") != Some(true) => {
            return Outcome::not_applicable("nvidia-fs is not loaded");
        }
        other => {
            return Outcome::unknown(format!(
                "nvidia-fs's distances cannot be seen: {}",
                other.as_ref().map(|_| "")
            ))
            .remedy(Remedy::new(Who::Guest, "read them as root").command(format!("cat {PEER_DISTANCE}")));
        }
    };
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let topology = Topology::of(context.facts);
    let compared: Vec<(&Pair, u64, u64)> = topology
        .pairs
        .iter()
        .filter_map(|pair| Some((pair, u64::from(pair.nvfs?.distance), pair.nvfs_says?)))
        .collect();
    let name = |pair: &Pair| format!("GPU {} and {}", pair.gpu, pair.peer);
    let mut odd: Vec<String> = compared
        .iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(pair, ours, theirs)| {
            format!("{} are {theirs} apart for nvidia-fs, and {ours} by the bridges of now", name(pair))
        })
        .collect();
    // It looks for devices once, and for no more than 64 of a kind.
    let unlisted = topology
        .storage()
        .filter(|pair| !peers.iter().any(|listed| listed.gpu == pair.gpu && listed.peer == pair.peer));
    odd.extend(unlisted.map(|pair| format!("nvidia-fs does not know the pair of {}", name(pair))));
    let gone = peers.iter().filter(|listed| {
        !context.pci().iter().any(|d| d.address == listed.gpu)
            || !context.pci().iter().any(|d| d.address == listed.peer)
    });
    odd.extend(gone.map(|listed| {
        format!("nvidia-fs lists the pair of GPU {} and {}, of which one is gone", listed.gpu, listed.peer)
    }));
    let Some(first) = odd.first() else {
        return if compared.is_empty() {
            Outcome::unknown("no distance that nvidia-fs shows can be computed from what is seen here")
        } else {
            Outcome::pass(format!("{} of {} pairs", compared.len(), compared.len()))
        };
    };
    let more = if odd.len() > 1 { format!(" (and {} more)", odd.len() - 1) } else { String::new() };
    let mut outcome = Outcome::note(format!(
        "{first}{more}: it measures when it is loaded, so that devices, bridges or ACS were changed since, or this \
         nvidia-fs counts in a way that gdsboot does not know; cuFile goes by nvidia-fs"
    ))
    .remedy(
        Remedy::new(Who::Guest, "load nvidia-fs anew, so that it measures what is there now")
            .command("modprobe -r nvidia-fs && modprobe nvidia-fs")
            .command(format!("cat {PEER_DISTANCE}")),
    );
    for words in odd.into_iter().take(MOST_PAIRS) {
        outcome = outcome.evidence(PEER_DISTANCE, words);
    }
    outcome
}

fn clique(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let gpus = context.gpus();
    if gpus.is_empty() {
        return Outcome::not_applicable("there is no GPU");
    }
    let mut cliques = Vec::new();
    for gpu in &gpus {
        match gpu.config.value().filter(|config| config.sees_capabilities()) {
            Some(config) => cliques.push((gpu.address.as_str(), config.p2p_clique)),
            None => {
                return Outcome::unknown(format!("GPU {}: its capabilities cannot be seen", gpu.address))
                    .remedy(
                        Remedy::new(Who::Guest, "look as root")
                            .command(format!("lspci -vvs {}", gpu.address)),
                    );
            }
        }
    }
    let not_storage = "between NVMe and GPU nobody asks for it";
    if cliques.iter().all(|(_, clique)| clique.is_none()) {
        if cliques.len() < 2 {
            return Outcome::pass("one GPU needs no clique");
        }
        return Outcome::note(format!(
            "the {} GPUs are in no clique, so that NVIDIA's driver lets none reach another; {not_storage}",
            cliques.len()
        ))
        .remedy(
            Remedy::new(Who::VmConfiguration, "for transfers between GPUs, put them into one clique")
                .command(
                    "qm set VMID -args '-set device.hostpci0.x-nv-gpudirect-clique=0 \
                 -set device.hostpci1.x-nv-gpudirect-clique=0'",
                ),
        );
    }
    // The driver believes a clique only below a hypervisor that it knows, and kvm=off hides it.
    let hidden = context.facts.platform.hypervisor.value().is_some_and(String::is_empty);
    let ignored = if hidden { ", which the driver ignores because the hypervisor hides itself" } else { "" };
    let outcome = Outcome::note(format!(
        "the hypervisor put GPUs into cliques{ignored}: those of one clique may reach each other whatever the bridges say, \
         and only a checksum tells whether data arrives; {not_storage}"
    ));
    cliques.iter().take(MOST_PAIRS).fold(outcome, |outcome, (address, clique)| {
        let words = clique.map_or("in no clique".to_owned(), |clique| format!("clique {clique}"));
        outcome.evidence(format!("/sys/bus/pci/devices/{address}/config"), words)
    })
}

fn remedies(context: &Context<'_>, outcome: Outcome, redirected: bool) -> Outcome {
    let nvfs = Remedy::new(
        Who::Guest,
        "or use the nvidia-fs route, which does not ask this: a kernel whose nvme module carries its hook",
    )
    .command("apt install linux-nvidia");
    match context.side {
        Side::Guest => {
            let is_amd = context.facts.cpu.value().is_some_and(|cpu| cpu.vendor == "AuthenticAMD");
            let cpu = Remedy::new(
                Who::VmConfiguration,
                "show the guest the host's CPU: on AMD Zen p2pdma then allows it",
            )
            .command("qm set VMID -cpu host");
            // The first option is hostpci's own port; the devices themselves must then stand in args as well.
            let switch = Remedy::new(
                Who::VmConfiguration,
                "put GPU and NVMe controller below one emulated PCIe switch, instead of their hostpci lines",
            )
            .command(
                "qm set VMID -args '-device x3130-upstream,id=up,bus=ich9-pcie-port-4 \
                 -device xio3130-downstream,id=down0,bus=up,chassis=50,slot=0 \
                 -device xio3130-downstream,id=down1,bus=up,chassis=51,slot=1 \
                 -device vfio-pci,host=GPU,bus=down0 -device vfio-pci,host=NVME,bus=down1'",
            );
            let outcome = if is_amd { outcome.remedy(cpu) } else { outcome };
            outcome.remedy(switch).remedy(nvfs)
        }
        _ if redirected => outcome.remedy(nvfs),
        _ => outcome
            .remedy(Remedy::new(Who::Hardware, "use an NVMe slot on the GPU's PCIe switch"))
            .remedy(nvfs),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer::{Fail, Note, Pass, Unknown};
    use super::super::testing::*;
    use super::*;
    use crate::facts::Facts;
    use crate::topology::p2pdma_refusals;
    use crate::topology::testing::GPU;

    /// The flat machine with these CPUs and NUMA nodes.
    fn flat(nodes: [i32; 2]) -> Facts {
        let mut facts = flat_guest();
        edit(&mut facts, GPU_AT, |gpu| gpu.numa_node = Fact::known("numa_node", nodes[0]));
        edit(&mut facts, NVME_AT, |nvme| {
            nvme.numa_node = Fact::known("numa_node", nodes[1]);
            if nodes[0] != nodes[1] {
                let Fact::Known { value, .. } = &mut nvme.path else { panic!("path") };
                value.root = "pci0000:80".into();
            }
        });
        facts.numa_nodes = Fact::known("node", vec![0, 1]);
        facts
    }

    #[test]
    fn far_apart_is_a_matter_of_the_side() {
        let far = flat([0, 1]);
        assert_eq!(answer("topology.socket", &far, Side::BareMetal), Fail);
        assert_eq!(answer("topology.socket", &far, Side::Host), Fail);
        assert_eq!(answer("topology.socket", &far, Side::Guest), Note);
        let flat = flat([0, 0]);
        assert_eq!(answer("topology.socket", &flat, Side::BareMetal), Pass);
        // Nothing better can be had where there is no switch.
        assert_eq!(answer("topology.switch", &flat, Side::BareMetal), Note);
        assert_eq!(answer("topology.switch", &flat, Side::Host), Note);
        let mut beside = good(Side::BareMetal);
        edit(&mut beside, NVME_AT, |nvme| {
            let Fact::Known { value, .. } = &mut nvme.path else { panic!("path") };
            value.bridges = vec!["0000:00:1c.7".into()];
        });
        assert_eq!(answer("topology.switch", &beside, Side::BareMetal), Fail);
        let outcome = ask("topology.switch", &flat, Side::Guest);
        assert_eq!(outcome.answer, Note);
        assert!(outcome.evidence[0].text.contains("nvidia-smi PHB, NCCL PHB, nvidia-fs distance 130, cross"));
    }

    #[test]
    fn the_nearest_controller_counts() {
        let mut facts = flat([0, 0]);
        add(&mut facts, 0x01_0802, "144d:a80a", "0000:00:1c.0/0000:06:00.1");
        assert_eq!(answer("topology.switch", &facts, Side::BareMetal), Pass);
        edit(&mut facts, GPU_AT, |gpu| gpu.path = Fact::default());
        assert_eq!(answer("topology.switch", &facts, Side::BareMetal), Unknown);
    }

    /// What nvidia-fs shows, as it prints it.
    fn shown(facts: &mut Facts, lines: &str) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("proc/driver/nvidia-fs");
        fs_err::create_dir_all(&folder).unwrap();
        let header = "gpu\t\tpeer\t\tpeerrank\tp2pdist\tlink\tgen\tnuma\tnp2p\tclass";
        fs_err::write(folder.join("peer_distance"), format!("{header}\n{lines}")).unwrap();
        facts.nvidia_fs = crate::facts::nvidia_fs::NvidiaFs::read(&crate::facts::Root::at(dir.path()));
    }

    #[test]
    fn nvidia_fs_is_asked_whether_it_sees_the_same_distances() {
        let line = |peer: &str, distance: u32| {
            let rank = distance << 16 | 0x9f;
            format!("{GPU_AT} \t{peer} \t{rank:#010x}\t{distance:#06x}\t0x01\t0x01\t0xffffffff\t0\tnvme\n")
        };
        let check = |facts: &Facts| ask("topology.peer-distance", facts, Side::Guest);
        let mut facts = flat_guest();
        facts.nvidia_fs.peers = Fact::Missing { from: PEER_DISTANCE.into() };
        assert_eq!(check(&facts).answer, super::super::check::Answer::NotApplicable);
        facts.nvidia_fs.peers = Fact::Denied { from: PEER_DISTANCE.into() };
        assert_eq!(check(&facts).answer, Unknown);
        // Each on its own root port: 127 + 1 + 1 + 1.
        shown(&mut facts, &line(NVME_AT, 130));
        assert_eq!(check(&facts).answer, Pass, "{:?}", check(&facts));
        assert!(crate::report::topology::lines(&facts)[1].contains(" 130 cross  130 "));
        // nvidia-fs was loaded when both hung at one switch.
        shown(&mut facts, &line(NVME_AT, 3));
        let outcome = check(&facts);
        assert_eq!(outcome.answer, Note);
        assert!(outcome.why.contains("are 3 apart for nvidia-fs, and 130 by the bridges"), "{}", outcome.why);
        assert!(crate::report::topology::lines(&facts)[1].contains(" 130 cross  3 "));
        let socket = ask("topology.switch", &facts, Side::Guest);
        assert!(socket.evidence[0].text.contains("distance 130, cross (it says 3)"), "{socket:?}");
        // A drive that came later, and one that is gone.
        shown(&mut facts, &line("0000:77:00.0", 130));
        let words: Vec<_> = check(&facts).evidence.into_iter().map(|e| e.text).collect();
        assert!(
            words[0].contains("does not know the pair") && words[1].contains("of which one is gone"),
            "{words:?}"
        );
        shown(&mut facts, "");
        assert_eq!(check(&facts).answer, Note);
        // Nothing to compare with.
        shown(&mut facts, &line(NVME_AT, 3));
        edit(&mut facts, GPU_AT, |gpu| gpu.path = Fact::default());
        assert_eq!(check(&facts).answer, Unknown);
    }

    #[test]
    fn cliques_are_for_gpus_alone() {
        let mut facts = good(Side::Guest);
        let check = |facts: &Facts| ask("topology.clique", facts, Side::Guest);
        assert_eq!(check(&facts).answer, Pass);
        add(&mut facts, GPU.0, GPU.1, "0000:00:1c.3/0000:04:00.0/0000:05:01.0/0000:08:00.0");
        assert!(check(&facts).why.starts_with("the 2 GPUs are in no clique"), "{:?}", check(&facts));
        edit(&mut facts, GPU_AT, |gpu| {
            let Fact::Known { value, .. } = &mut gpu.config else { panic!("config") };
            value.p2p_clique = Some(3);
        });
        let outcome = check(&facts);
        assert_eq!((outcome.answer, outcome.evidence[0].text.as_str()), (Note, "clique 3"));
        assert_eq!(outcome.evidence[1].text, "in no clique");
        assert!(!outcome.why.contains("ignores"));
        facts.platform.hypervisor = Fact::known("cpuid", String::new());
        assert!(check(&facts).why.contains("the driver ignores"));
        edit(&mut facts, GPU_AT, |gpu| gpu.config = Fact::Denied { from: "config".into() });
        assert_eq!(check(&facts).answer, Unknown);
    }

    #[test]
    fn p2pdma_in_a_flat_guest() {
        let mut facts = flat_guest();
        let outcome = ask("topology.p2pdma", &facts, Side::Guest);
        assert_eq!(outcome.answer, Fail);
        assert!(outcome.why.contains("8086:29c0 is not on the kernel's list"), "{}", outcome.why);
        assert!(outcome.remedies[0].commands[0].contains("x3130-upstream"));
        assert_eq!(p2pdma_refusals(&facts).len(), 1);
        // The other route does not ask.
        facts.nvme_module_hooks = Fact::known("nvme.ko", vec!["nvme_v1_register_nvfs_dma_ops".into()]);
        assert_eq!(answer("topology.p2pdma", &facts, Side::Guest), Note);
        facts.nvme_module_hooks = Fact::default();
        let cpu = |facts: &mut Facts, family| {
            let Fact::Known { value, .. } = &mut facts.cpu else { panic!("cpu") };
            value.vendor = "AuthenticAMD".into();
            value.family = Some(family);
        };
        cpu(&mut facts, 0x0f);
        let outcome = ask("topology.p2pdma", &facts, Side::Guest);
        assert_eq!(
            (outcome.answer, outcome.remedies[0].commands[0].as_str()),
            (Fail, "qm set VMID -cpu host")
        );
        cpu(&mut facts, 0x19);
        assert_eq!(answer("topology.p2pdma", &facts, Side::Guest), Pass);
        facts.cpu = Fact::default();
        assert_eq!(answer("topology.p2pdma", &facts, Side::Guest), Unknown);
    }
}
