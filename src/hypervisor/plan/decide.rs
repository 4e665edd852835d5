//! The decisions.

use super::{Device, Group, HostPair, Plan, Request, Tree};
use crate::checks::each::size;
use crate::checks::virtual_machine::bookkeeping;
use crate::error::usage;
use crate::facts::pci::PciDevice;
use crate::facts::{Fact, Facts};
use crate::hypervisor::context::{is_near, is_zen};
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
    let count = gpus.len() + nvmes.len();
    if count > MOST_DEVICES {
        return Err(usage(format!("{count} devices are more than {MOST_DEVICES}"), "plan several machines"));
    }
    let topology = request.host.map(Topology::of).unwrap_or_default();
    let mut reasons = Vec::new();
    if let Some(facts) = request.host {
        let own = nvmes.iter().filter_map(|nvme| partitions(facts, &nvme.functions[0]));
        reasons.extend(own.map(|what| format!("Take care: {what}")));
    }
    let window = window_mib(request, &gpus, &mut reasons)?;
    let nodes = nodes(request, gpus.iter().chain(&nvmes), &mut reasons);
    let page = best_page(request.memory);
    // Without a node the kernel deals them out to all nodes (admin-guide/kernel-parameters.txt; from Linux 5.16 on).
    let on_node = if let [node] = nodes.as_slice() { format!("{node}:") } else { String::new() };
    reasons.push(format!(
        "Memory on huge pages of {}: the host has to reserve them at its start ({}).",
        size(page),
        format_args!(
            "hugepagesz={} hugepages={on_node}{}",
            if page == 1 << 30 { "1G" } else { "2M" },
            request.memory / page
        )
    ));
    enough_memory(request, &gpus)?;
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
    };
    let mut functions = vec![device.address.clone()];
    // Several functions can only go together where the first is function 0.
    if device.address.ends_with(".0") {
        functions.extend(all.iter().filter(is_sibling).map(|device| device.address.clone()));
    }
    // They go together, whichever is in use.
    if let Some((function, use_)) = functions.iter().find_map(|at| Some((at, used(facts, at)?))) {
        return Err(usage(
            format!("the host itself uses {function}: {use_}"),
            "take it out of use on the host, or name another controller: what is passed through is the guest's alone",
        ));
    }
    let way = match &device.path {
        Fact::Known { value, .. } => [std::slice::from_ref(&value.root), &value.bridges].concat().join("/"),
        _ => String::new(),
    };
    Ok(Device { kind, functions, way, node: device.numa_node.value().copied(), ids: device.ids() })
}

/// The names of a controller's namespaces.
fn namespaces<'a>(facts: &'a Facts, address: &str) -> Vec<&'a str> {
    let controllers = facts.nvme.value().into_iter().flatten();
    let own = controllers.filter(|nvme| nvme.address.value().is_some_and(|at| at == address));
    own.flat_map(|nvme| nvme.namespaces.iter().map(|space| space.name.as_str())).collect()
}

/// How the host uses a controller: something on it is mounted, or a part of LVM, RAID or encryption.
fn used(facts: &Facts, address: &str) -> Option<String> {
    let names = namespaces(facts, address);
    let is_own = |source: &str| {
        let name = source.strip_prefix("/dev/").unwrap_or("");
        names.iter().any(|space| {
            let rest = name.strip_prefix(space);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
        })
    };
    let mut mounts = facts.mounts.value().into_iter().flatten();
    if let Some(mount) = mounts.find(|mount| is_own(&mount.source)) {
        return Some(format!("{} is mounted at {}", mount.source, mount.at));
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
fn partitions(facts: &Facts, address: &str) -> Option<String> {
    let names = namespaces(facts, address);
    let disks = facts.block.value().into_iter().flatten();
    let mut found = disks.filter(|disk| names.contains(&disk.name.as_str()) && !disk.partitions.is_empty());
    found.next().map(|disk| {
        format!("{} has partitions: look before that the host needs nothing on it, such as a ZFS pool (zpool status).", disk.name)
    })
}

fn window_mib(request: &Request<'_>, gpus: &[Device], reasons: &mut Vec<String>) -> Result<u64> {
    let mut needed = 0u64;
    for gpu in gpus {
        let functions = request.host.map_or(&[][..], host_devices).iter();
        let functions = functions.filter(|device| gpu.functions.contains(&device.address));
        let known = functions.fold(0u64, |sum, device| sum.saturating_add(window::of_function(device)));
        // Beside its memory a GPU shows 32 MiB of registers.
        let told = request.bar.map_or(0, |bar| window::of_sizes(&[bar, 32 << 20]));
        if known.max(told) == 0 {
            return Err(usage(
                format!("how large the windows of {} are is not known", gpu.functions[0]),
                "say how large its BAR1 is: --bar-size 128G; `lspci -vs ADDR` has it as [size=128G]",
            ));
        }
        needed = needed.saturating_add(known.max(told));
    }
    let window = window::rounded(needed);
    reasons.push(format!(
        "OVMF keeps {} for windows above 4 GiB: the GPUs' take {}, rounded up to a power of two.",
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
    reasons.push(match nodes.as_slice() {
        [_] => format!("Memory is bound to the host's NUMA node {words}, where the devices are."),
        _ => format!(
            "The devices are on the host's NUMA nodes {words}: memory is bound to these, on Proxmox to none, since it binds huge pages to \
             one node alone. A machine for each node gives the best figures."
        ),
    });
    nodes
}

/// The rest of a guest needs memory beside what p2pdma notes of each page of the GPUs' windows.
fn enough_memory(request: &Request<'_>, gpus: &[Device]) -> Result<()> {
    let windows: Vec<u64> = gpus
        .iter()
        .map(|gpu| {
            let functions = request.host.map_or(&[][..], host_devices).iter();
            let bars = functions
                .filter(|device| gpu.functions.contains(&device.address))
                .flat_map(|device| device.bars.value().into_iter().flatten());
            bars.map(|bar| bar.size).max().or(request.bar).unwrap_or(0)
        })
        .collect();
    match bookkeeping(request.memory, &windows) {
        (_, None) => Ok(()),
        (outcome, Some(mib)) => Err(usage(
            format!("{} of memory is too little: {}", size(request.memory), outcome.why),
            format!("--memory {}G", mib.div_ceil(1 << 10)),
        )),
    }
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
    let passes = |pair: &&Pair| matches!(pair.p2pdma, P2pdma::Direct | P2pdma::ThroughHostBridge { .. });
    let groups = match request.tree {
        Tree::Ports => {
            reasons.push("A root port for each device, as was asked.".into());
            alone(devices).collect()
        }
        Tree::Switch => {
            reasons.push("One emulated switch for all devices, as was asked.".into());
            all(devices)
        }
        Tree::Auto if storage.iter().any(|pair| is_near(pair.nvidia_smi)) => {
            let groups = by_host_switch(devices, &storage);
            reasons.push(
                "An emulated switch for what the host has below one switch: so the guest sees what there is, and its p2pdma lets the devices meet."
                    .into(),
            );
            groups
        }
        Tree::Auto if is_zen == Some(false) && !storage.is_empty() && storage.iter().all(passes) => {
            reasons.push(
                "One emulated switch: the guest's p2pdma refuses pairs on separate root ports of an Intel CPU; by the kernel's list this host's \
                 hardware passes such requests on, over the root complex."
                    .into(),
            );
            all(devices)
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

/// Puts together what is near on the host; what is near nothing gets a root port of its own.
fn by_host_switch(devices: Vec<Device>, storage: &[&Pair]) -> Vec<Group> {
    let near = |a: &Device, b: &Device| {
        storage.iter().any(|pair| {
            let ends = [pair.gpu.as_str(), pair.peer.as_str()];
            is_near(pair.nvidia_smi)
                && ends.contains(&a.functions[0].as_str())
                && ends.contains(&b.functions[0].as_str())
        })
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
