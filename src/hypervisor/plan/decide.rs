//! The decisions.

use super::{Device, Group, HostPair, Plan, Request, Tree};
use crate::checks::each::size;
use crate::checks::virtual_machine::bookkeeping;
use crate::error::usage;
use crate::facts::pci::PciDevice;
use crate::facts::{Fact, Facts};
use crate::hypervisor::context::{is_near, is_zen};
use crate::hypervisor::machine;
use crate::hypervisor::rules::best_page;
use crate::hypervisor::window;
use crate::topology::p2pdma::P2pdma;
use crate::topology::{Pair, Topology};
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;

/// A switch of QEMU has at most as many ports as a bus has devices.
const MOST_PER_SWITCH: usize = 32;
/// Root ports are eight functions of a few slots.
const MOST_DEVICES: usize = 40;

/// Decides on a machine.
///
/// # Errors
/// The host has no such device, or uses it itself; too little is known; [`crate::error::Status::Usage`].
pub fn plan(request: &Request<'_>) -> Result<Plan> {
    let mut gpus = devices(request, &request.gpus, "gpu")?;
    let nvmes = devices(request, &request.nvmes, "nvme")?;
    let is_gpu = |nvme: &&Device| gpus.iter().any(|gpu| gpu.slot() == nvme.slot());
    if let Some(both) = nvmes.iter().find(is_gpu) {
        return Err(usage(
            format!("{} is named as --gpu and as --nvme", both.functions[0]),
            "name each device once, as what it is; `lspci -D` shows both",
        ));
    }
    let count = gpus.len() + nvmes.len();
    if count > MOST_DEVICES {
        return Err(usage(format!("{count} devices are more than {MOST_DEVICES}"), "plan several machines"));
    }
    let topology = request.host.map(Topology::of).unwrap_or_default();
    let mut reasons = Vec::new();
    if let Some(facts) = request.host {
        let own = nvmes.iter().filter_map(|nvme| partitions(facts, &nvme.functions));
        reasons.extend(own.map(|what| format!("Take care: {what}")));
    }
    let window = window_mib(request, &gpus, &nvmes, &mut reasons)?;
    let nodes = nodes(request, gpus.iter().chain(&nvmes), &mut reasons);
    let page = best_page(request.memory);
    reasons.push(format!(
        "Memory on huge pages of {}: the host has to reserve them at its start ({}).",
        size(page),
        reserved(&nodes, request.memory, page)
    ));
    let pair = |gpu: &Device, nvme: &Device| {
        topology.storage().find(|pair| pair.gpu == gpu.functions[0] && pair.peer == nvme.functions[0])
    };
    let mut pairs = Vec::new();
    for gpu in &gpus {
        for nvme in &nvmes {
            let Some(distance) = pair(gpu, nvme).and_then(|pair| pair.nvidia_smi) else { continue };
            pairs.push(HostPair {
                gpu: gpu.functions[0].clone(),
                nvme: nvme.functions[0].clone(),
                distance: distance.to_string(),
            });
        }
    }
    gpus.extend(nvmes);
    let groups = groups(request, gpus, &topology, &mut reasons)?;
    Ok(Plan {
        vmid: request.vmid,
        name: request.name.clone(),
        uuid: request.uuid.clone(),
        memory_mib: request.memory >> 20,
        page_mib: page >> 20,
        cpus: request.cpus,
        nodes,
        window_mib: window,
        groups,
        image: request.image.display().to_string(),
        storage: request.storage.clone(),
        reasons,
        pairs,
    })
}

/// The parameters of the host's kernel that reserve the pages. Without a node they are divided among all of them; with one
/// it takes Linux 5.16.
pub(super) fn reserved(nodes: &[u32], memory: u64, page: u64) -> String {
    let shares = super::shares(nodes, memory, page).into_iter();
    let pages = match nodes {
        [] => (memory / page).to_string(),
        _ => shares.map(|(node, bytes)| format!("{node}:{}", bytes / page)).collect::<Vec<_>>().join(","),
    };
    format!("hugepagesz={} hugepages={pages}", if page == 1 << 30 { "1G" } else { "2M" })
}

fn host_devices(facts: &Facts) -> &[PciDevice] {
    facts.pci.value().map_or(&[], Vec::as_slice)
}

fn devices(request: &Request<'_>, addresses: &[String], kind: &'static str) -> Result<Vec<Device>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for told in addresses {
        let address = if told.contains('.') { told.clone() } else { format!("{told}.0") };
        if !seen.insert(address.clone()) {
            return Err(usage(format!("--{kind} {told} is named twice"), "name each device once"));
        }
        let Some(facts) = request.host else {
            let device =
                Device { kind, functions: vec![address], way: String::new(), node: None, ids: String::new() };
            found.push(device);
            continue;
        };
        found.push(on_host(facts, &address, kind)?);
    }
    Ok(found)
}

fn on_host(facts: &Facts, address: &str, kind: &'static str) -> Result<Device> {
    let all = host_devices(facts);
    let is_kind = |device: &&PciDevice| match kind {
        "gpu" => device.is_nvidia_gpu(),
        _ => device.class.value().is_some_and(|class| class.is_nvme()),
    };
    let there: Vec<&str> = all.iter().filter(is_kind).map(|device| device.address.as_str()).collect();
    let hint = match there.as_slice() {
        [] => format!(
            "the host has no device of that kind: lspci -D, and --host for another host than this ({kind})"
        ),
        some => format!("the host has {}", some.join(", ")),
    };
    let Some(device) = all.iter().find(|device| device.address == address) else {
        return Err(usage(format!("the host has no device {address}"), hint));
    };
    if !is_kind(&device) {
        let what = if kind == "gpu" { "NVIDIA GPU" } else { "NVMe controller" };
        return Err(usage(format!("{address} ({}) is no {what}", device.ids()), hint));
    }
    let is_sibling = |other: &&PciDevice| {
        other.slot() == device.slot()
            && other.address != device.address
            && other.physical_function.value().is_none()
            // It comes into a script that root runs, from a report that anybody may have written.
            && machine::address(&other.address).as_ref() == Some(&other.address)
    };
    let mut functions = vec![device.address.clone()];
    // Several functions can only go together where the first is function 0.
    if device.address.ends_with(".0") {
        functions.extend(all.iter().filter(is_sibling).map(|device| device.address.clone()));
    }
    if let Some(use_) = used(facts, &functions) {
        return Err(usage(
            format!("the host itself uses {address}: {use_}"),
            "take it out of use on the host, or name another controller: what is passed through is the guest's alone",
        ));
    }
    let way = match &device.path {
        Fact::Known { value, .. } => [std::slice::from_ref(&value.root), &value.bridges].concat().join("/"),
        _ => String::new(),
    };
    Ok(Device { kind, functions, way, node: device.numa_node.value().copied(), ids: device.ids() })
}

/// The names of the namespaces of a card's controllers.
fn namespaces<'a>(facts: &'a Facts, functions: &[String]) -> Vec<&'a str> {
    let controllers = facts.nvme.value().into_iter().flatten();
    let own = controllers.filter(|nvme| nvme.address.value().is_some_and(|at| functions.contains(at)));
    own.flat_map(|nvme| nvme.namespaces.iter().map(|space| space.name.as_str())).collect()
}

/// How the host uses a card: something on one of its controllers is mounted, swap space, or a part of Btrfs, LVM, RAID or
/// encryption.
fn used<'a>(facts: &'a Facts, functions: &[String]) -> Option<String> {
    let names = namespaces(facts, functions);
    let is_own = |source: &str| {
        let name = source.strip_prefix("/dev/").unwrap_or(source);
        names.iter().any(|space| {
            let rest = name.strip_prefix(space);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
        })
    };
    let mut mounts = facts.mounts.value().into_iter().flatten();
    if let Some(mount) = mounts.find(|mount| is_own(&mount.source)) {
        return Some(format!("{} is mounted at {}", mount.source, mount.at));
    }
    let first = |names: &'a Fact<Vec<String>>| names.value().into_iter().flatten().find(|name| is_own(name));
    if let Some(name) = first(&facts.swaps) {
        return Some(format!("{name} is swap space"));
    }
    if let Some(name) = first(&facts.btrfs) {
        return Some(format!("{name} is part of a Btrfs that is mounted"));
    }
    let disks = facts.block.value().into_iter().flatten().filter(|disk| names.contains(&disk.name.as_str()));
    let parts = disks.flat_map(|disk| {
        let parts = disk.partitions.iter().map(|part| (&part.name, &part.holders));
        parts.chain([(&disk.name, &disk.holders)])
    });
    let held = parts.into_iter().find_map(|(name, holders)| Some((name, holders.first()?)));
    held.map(|(name, holder)| format!("{holder} is made of {name}"))
}

/// What may be on a controller although nothing shows its use: ZFS leaves no trace in sysfs.
fn partitions(facts: &Facts, functions: &[String]) -> Option<String> {
    let names = namespaces(facts, functions);
    let disks = facts.block.value().into_iter().flatten();
    let mut found = disks.filter(|disk| names.contains(&disk.name.as_str()) && !disk.partitions.is_empty());
    found.next().map(|disk| {
        format!("{} has partitions: look before that the host needs nothing on it, such as a ZFS pool (zpool status).", disk.name)
    })
}

fn window_mib(
    request: &Request<'_>,
    gpus: &[Device],
    nvmes: &[Device],
    reasons: &mut Vec<String>,
) -> Result<u64> {
    let functions = |device: &Device| {
        let own = device.functions.clone();
        let all = request.host.map_or(&[][..], host_devices).iter();
        all.filter(move |other| own.contains(&other.address))
    };
    let mut devices = Vec::new();
    let mut largest = Vec::new();
    for gpu in gpus {
        let Some(sizes) = window::of_gpu(functions(gpu), request.bar) else {
            return Err(usage(
                format!("how large the windows of {} are is not known", gpu.functions[0]),
                "say how large its BAR1 is: --bar-size 128G; `lspci -vs ADDR` has it as [size=128G]",
            ));
        };
        largest.push(sizes.iter().copied().max().unwrap_or(0));
        devices.push(sizes);
    }
    devices.extend(nvmes.iter().map(|nvme| functions(nvme).flat_map(window::of_function).collect()));
    if let (_, Some(mib)) = bookkeeping(request.memory, &largest) {
        let sum = largest.iter().fold(0u64, |sum, size| sum.saturating_add(*size));
        return Err(usage(
            format!(
                "--memory {}: p2pdma's bookkeeping takes 1/64 of the GPUs' windows ({}), and too little is left",
                size(request.memory),
                size(sum)
            ),
            format!("--memory {}G", mib.div_ceil(1024)),
        ));
    }
    let needed = window::of_devices(&devices);
    let window = window::rounded(needed);
    reasons.push(format!(
        "OVMF keeps {} for windows above 4 GiB: the devices' take {}, rounded up to a power of two.",
        size(window),
        size(needed)
    ));
    Ok(window >> 20)
}

/// The NUMA nodes of the devices, where the host has more than one.
fn nodes<'a>(
    request: &Request<'_>,
    devices: impl Iterator<Item = &'a Device>,
    reasons: &mut Vec<String>,
) -> Vec<u32> {
    let count = request.host.and_then(|host| host.numa_nodes.value()).map_or(0, Vec::len);
    let nodes: BTreeSet<u32> = devices.filter_map(|device| u32::try_from(device.node?).ok()).collect();
    if count < 2 || nodes.is_empty() {
        return Vec::new();
    }
    let nodes: Vec<u32> = nodes.into_iter().collect();
    let words = nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
    reasons.push(format!("Memory is bound to the host's NUMA node {words}, where the devices are."));
    nodes
}

fn groups(
    request: &Request<'_>,
    devices: Vec<Device>,
    topology: &Topology,
    reasons: &mut Vec<String>,
) -> Result<Vec<Group>> {
    let alone = |devices: Vec<Device>| {
        devices.into_iter().map(|device| Group { switch: false, devices: vec![device] })
    };
    let all = |devices: Vec<Device>| vec![Group { switch: true, devices }];
    let storage: Vec<&Pair> = topology
        .storage()
        .filter(|pair| {
            let is_ours = |address: &str| devices.iter().any(|device| device.functions[0] == address);
            is_ours(&pair.gpu) && is_ours(&pair.peer)
        })
        .collect();
    let is_zen = request.host.and_then(is_zen);
    let passes = |pair: &Pair| matches!(pair.p2pdma, P2pdma::Direct | P2pdma::ThroughHostBridge { .. });
    // Where the guest's p2pdma asks for a switch, it must be one for what the hardware lets meet in any way.
    let belongs = |pair: &Pair| is_near(pair.nvidia_smi) || (is_zen == Some(false) && passes(pair));
    let groups = match request.tree {
        Tree::Ports => {
            reasons.push("A root port for each device, as was asked.".into());
            alone(devices).collect()
        }
        Tree::Switch => {
            reasons.push("One emulated switch for all devices, as was asked.".into());
            all(devices)
        }
        Tree::Auto if storage.iter().any(|pair| belongs(pair)) => {
            if storage.iter().any(|pair| is_near(pair.nvidia_smi)) {
                reasons.push(
                    "An emulated switch for what the host has below one switch: so the guest sees what there is, and its p2pdma lets the devices meet."
                        .into(),
                );
            }
            if storage.iter().any(|pair| belongs(pair) && !is_near(pair.nvidia_smi)) {
                reasons.push(
                    "One emulated switch for pairs that are apart on the host: the guest's p2pdma refuses pairs on separate root ports of an \
                     Intel CPU; by the kernel's list this host's hardware passes such requests on, over the root complex."
                        .into(),
                );
            }
            let together: Vec<(&str, &str)> = storage
                .iter()
                .filter(|pair| belongs(pair))
                .map(|pair| (pair.gpu.as_str(), pair.peer.as_str()))
                .collect();
            by_pairs(devices, &together)
        }
        Tree::Auto => {
            let why = match (request.host.is_some(), is_zen) {
                (false, _) => {
                    "the host's tree is not known; --topology switch puts all below one emulated switch"
                }
                (true, Some(true)) => {
                    "the host has no switch in common for them, and the guest's p2pdma asks for none on an AMD Zen"
                }
                (true, _) => {
                    "the host has no switch in common for them, and whether its hardware passes requests on between root ports is not known"
                }
            };
            reasons.push(format!("A root port for each device: {why}."));
            alone(devices).collect()
        }
    };
    if let Some(group) = groups.iter().find(|group| group.devices.len() > MOST_PER_SWITCH) {
        return Err(usage(
            format!("{} devices are more than the {MOST_PER_SWITCH} ports of a switch", group.devices.len()),
            "plan several machines, or --topology ports",
        ));
    }
    Ok(groups)
}

/// Puts pairs below one switch; what is in no pair gets a root port of its own.
fn by_pairs(devices: Vec<Device>, together: &[(&str, &str)]) -> Vec<Group> {
    let near = |a: &Device, b: &Device| {
        let (a, b) = (a.functions[0].as_str(), b.functions[0].as_str());
        together.contains(&(a, b)) || together.contains(&(b, a))
    };
    let mut groups: Vec<Group> = Vec::new();
    for device in devices {
        // A device may join groups that were apart so far.
        let (joined, mut others): (Vec<Group>, Vec<Group>) =
            groups.into_iter().partition(|group| group.devices.iter().any(|other| near(other, &device)));
        let mut devices: Vec<Device> = joined.into_iter().flat_map(|group| group.devices).collect();
        devices.push(device);
        others.push(Group { switch: devices.len() > 1, devices });
        groups = others;
    }
    groups.sort_by_key(|group| !group.switch);
    groups
}

/// What a host has to name, as a hint.
pub fn there_is(host: Option<&Facts>) -> String {
    let list = |is: fn(&PciDevice) -> bool| {
        let found = host.map_or(&[][..], host_devices).iter().filter(|device| is(device));
        let found: Vec<&str> = found.map(|device| device.address.as_str()).collect();
        if found.is_empty() { "none that is seen".to_owned() } else { found.join(", ") }
    };
    let nvme = |device: &PciDevice| device.class.value().is_some_and(|class| class.is_nvme());
    format!(
        "name them: --gpu ADDR --nvme ADDR; GPUs here: {}; NVMe controllers: {}",
        list(PciDevice::is_nvidia_gpu),
        list(nvme)
    )
}

/// A new UUID, the kernel's.
///
/// # Errors
/// The kernel has none to give.
pub fn new_uuid() -> Result<uuid::Uuid> {
    const FROM: &str = "/proc/sys/kernel/random/uuid";
    let text = fs_err::read_to_string(FROM)?;
    uuid::Uuid::parse_str(text.trim()).with_context(|| format!("reading {FROM}"))
}
