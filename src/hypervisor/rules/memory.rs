//! The guest's memory: nothing may move it, and it should be near its devices.

use super::{Do, Rule, fix, some};
use crate::checks::check::{Outcome, Severity};
use crate::checks::each::size;
use crate::checks::virtual_machine::bookkeeping;
use crate::hypervisor::context::{Context, What};
use crate::hypervisor::machine::{Kind, Memory};
use crate::hypervisor::proxmox;
use std::collections::BTreeSet;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "vm.balloon",
        title: "the guest has no memory balloon",
        requires: &[],
        severity: Severity::Minor,
        rationale: "Devices that are passed through need all of the guest's memory in its place; QEMU blocks the balloon \
                    then, and older ones let it tear holes.",
        references: &["QEMU: hw/vfio, \"Inhibit ballooning\"", "Proxmox VE: qm.conf, balloon"],
        run: balloon,
    },
    Rule {
        id: "vm.hugepages",
        title: "the guest's memory lies on huge pages of the host",
        requires: &[],
        severity: Severity::Info,
        rationale: "Huge pages keep the IOMMU's tables small and the start of a large guest short.",
        references: &["Proxmox VE: qm.conf, hugepages", "libvirt: formatdomain, memoryBacking"],
        run: hugepages,
    },
    Rule {
        id: "vm.memory-lock",
        title: "QEMU may lock all of the guest's memory",
        requires: &[],
        severity: Severity::Major,
        rationale: "vfio pins the guest's memory as a whole; where the limit is lower the guest does not start (VFIO_MAP_DMA \
                    -12).",
        references: &["Documentation/driver-api/vfio.rst", "libvirt: formatdomain, hard_limit"],
        run: memory_lock,
    },
    Rule {
        id: "vm.memory",
        title: "the guest has memory enough for p2pdma's bookkeeping",
        requires: &["vm.gpu"],
        severity: Severity::Major,
        rationale: "p2pdma needs 64 bytes of memory for every 4 KiB of BAR1, 1/64 of it, before anything runs.",
        references: &[
            "drivers/pci/p2pdma.c: pci_p2pdma_add_resource",
            "open-gpu-kernel-modules: uvm_pmm_gpu.c",
        ],
        run: memory,
    },
    Rule {
        id: "vm.numa",
        title: "the guest's memory is near its devices",
        requires: &["vm.devices"],
        severity: Severity::Minor,
        rationale: "Memory of another NUMA node is reached over the link between the sockets, at about half the speed.",
        references: &[
            "Proxmox VE: qm.conf, numa[n]",
            "libvirt: formatdomain, numatune",
            "QEMU: -object memory-backend-*, host-nodes",
        ],
        run: numa,
    },
];

fn balloon(context: &Context<'_>) -> Outcome {
    if !context.machine.memory.balloon {
        return Outcome::pass("there is no balloon");
    }
    Outcome::fail("the guest has a memory balloon").expected("none").actual("a balloon").remedy(fix(
        context,
        "take the balloon out",
        "qm set VMID -balloon 0",
        "<memballoon model='none'/>",
        Do::Words("remove -device virtio-balloon"),
    ))
}

/// The largest huge page that the memory is a multiple of, in bytes.
pub fn best_page(memory: u64) -> u64 {
    if memory > 0 && memory.is_multiple_of(1 << 30) { 1 << 30 } else { 2 << 20 }
}

fn hugepages(context: &Context<'_>) -> Outcome {
    let memory = &context.machine.memory;
    match memory.hugepages {
        Some(0) => Outcome::pass("the memory lies on huge pages"),
        Some(page) => Outcome::pass(format!("the memory lies on pages of {}", size(page))),
        None => {
            let total = memory.bytes.unwrap_or(0);
            let page = best_page(total);
            let (mib, path) = if page == 1 << 30 { (1024, "1G") } else { (2, "2M") };
            Outcome::fail("the memory lies on ordinary pages").expected("huge pages").remedy(fix(
                context,
                "lay the memory on huge pages, which the host has to reserve when it starts; optional",
                &format!("qm set VMID -numa 1 -hugepages {mib}"),
                &format!("<memoryBacking><hugepages><page size='{mib}' unit='MiB'/></hugepages></memoryBacking>"),
                &format!("-object memory-backend-memfd,id=memory,size={}M,hugetlb=on,hugetlbsize={path} -machine memory-backend=memory", total >> 20),
            ))
        }
    }
}

/// What QEMU locks besides the guest's memory: libvirt allows 1 GiB for devices' windows.
const BESIDES: u64 = 1 << 30;

fn memory_lock(context: &Context<'_>) -> Outcome {
    let memory = &context.machine.memory;
    match (context.machine.kind, memory.hard_limit, memory.bytes) {
        (Kind::Libvirt, Some(limit), Some(bytes)) if limit < bytes.saturating_add(BESIDES) => {
            let needed = bytes.saturating_add(BESIDES);
            Outcome::fail(format!(
                "hard_limit lets QEMU lock {}, and the guest's memory is {}",
                size(limit),
                size(bytes)
            ))
            .expected(format!("{} or more, or no limit", size(needed)))
            .actual(size(limit))
            .remedy(fix(
                context,
                "take the limit away, or raise it",
                "",
                Do::Words("remove <hard_limit> from <memtune>"),
                "",
            ))
        }
        (Kind::Libvirt, _, _) => Outcome::pass("libvirt lets QEMU lock the guest's memory"),
        (Kind::Proxmox, _, _) => Outcome::pass("Proxmox starts QEMU as root, which may lock all memory"),
        (Kind::Qemu, _, bytes) => {
            Outcome::unknown("whether QEMU may lock all memory is a matter of who starts it").remedy(fix(
                context,
                "start it as root, or raise the limit in the shell that starts it",
                "",
                "",
                &match bytes {
                    Some(bytes) => format!("ulimit -l {}", bytes.saturating_add(BESIDES) >> 10),
                    None => "ulimit -l unlimited".into(),
                },
            ))
        }
    }
}

fn memory(context: &Context<'_>) -> Outcome {
    if context.passed(What::Gpu).is_empty() {
        return Outcome::unknown("which devices are GPUs is not known here");
    }
    let Some(total) = context.machine.memory.bytes else {
        return Outcome::unknown("the configuration does not say how much memory the guest has");
    };
    let largest = |passed: &crate::hypervisor::machine::Passed| {
        let bars = context.functions(passed).into_iter().flat_map(|d| d.bars.value().into_iter().flatten());
        bars.filter(|bar| bar.index < 6).map(|bar| bar.size).max().or(context.hints.bar)
    };
    let windows: Option<Vec<u64>> = context.passed(What::Gpu).into_iter().map(largest).collect();
    let Some(windows) = windows else { return Outcome::unknown("the size of BAR1 is not known here") };
    let (outcome, mib) = bookkeeping(total, &windows);
    let Some(mib) = mib else { return outcome };
    outcome.remedy(fix(
        context,
        "give the guest more memory",
        &format!("qm set VMID -memory {mib}"),
        &format!("<memory unit='MiB'>{mib}</memory>"),
        &format!("-m {mib}M"),
    ))
}

/// Proxmox' command: a node of the guest for each of the host's, since with huge pages it takes no other form, and no line beside
/// these. Empty where it takes none with these pages (qemu-server: Memory.pm, `hugepages_topology`).
fn bind_in_proxmox(memory: &Memory, nodes: &BTreeSet<u32>) -> String {
    if nodes.len() > proxmox::MOST_NODES || (memory.hugepages.is_some() && nodes.iter().any(|node| *node > 9))
    {
        return String::new();
    }
    let page = (memory.hugepages.unwrap_or(0) >> 20).max(2);
    let mut rest = memory.bytes.unwrap_or(0) >> 20;
    let lines = nodes.iter().enumerate().map(|(at, node)| {
        let left = (nodes.len() - at) as u64;
        // In whole pages.
        let part = if left == 1 { rest } else { rest / left / page * page };
        rest -= part;
        let cpus = if nodes.len() == 1 { "0-N".to_owned() } else { format!("CPUS{at}") };
        format!(" -numa{at} cpus={cpus},hostnodes={node},memory={part},policy=bind")
    });
    let lines: String = lines.collect();
    let is_new = |key: &str| (0..nodes.len()).any(|at| key == format!("numa{at}"));
    let others: Vec<&str> = memory.numa_lines.iter().map(String::as_str).filter(|key| !is_new(key)).collect();
    let delete = if others.is_empty() { String::new() } else { format!(" -delete {}", others.join(",")) };
    format!("qm set VMID -numa 1{lines}{delete}")
}

fn numa(context: &Context<'_>) -> Outcome {
    let Some(host) = context.host else {
        return Outcome::unknown("the host's NUMA nodes are not known here");
    };
    if host.numa_nodes.value().is_some_and(|nodes| nodes.len() < 2) {
        return Outcome::not_applicable("the host has one NUMA node");
    }
    let devices =
        context.machine.passed.iter().filter_map(|passed| Some((passed, context.function(passed)?)));
    let nodes: BTreeSet<u32> = devices
        .filter_map(|(_, device)| device.numa_node.value().copied())
        .filter_map(|node| u32::try_from(node).ok())
        .collect();
    if nodes.is_empty() {
        return Outcome::unknown("on which NUMA node the devices are is not known");
    }
    let words = |nodes: &BTreeSet<u32>| {
        let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
        some(nodes.iter().map(String::as_str))
    };
    let bound: BTreeSet<u32> = context.machine.memory.host_nodes.iter().copied().collect();
    if !bound.is_empty() && !bound.is_disjoint(&nodes) {
        return Outcome::pass(format!(
            "memory is bound to node {}, devices are on {}",
            words(&bound),
            words(&nodes)
        ));
    }
    let list = nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let backend: String = nodes.iter().map(|node| format!(",host-nodes={node}")).collect();
    let line = bind_in_proxmox(&context.machine.memory, &nodes);
    let remedy = fix(
        context,
        "bind the memory to the devices' node",
        match line.as_str() {
            "" => Do::Words("leave huge pages away, by which Proxmox takes the nodes 0 to 9, eight at most"),
            line => Do::Line(line),
        },
        &format!("<numatune><memory mode='strict' nodeset='{list}'/></numatune>"),
        &format!("-object memory-backend-memfd,...{backend},policy=bind"),
    );
    let outcome = if bound.is_empty() {
        Outcome::fail(format!(
            "the devices are on node {} of the host, and memory may lie on any",
            words(&nodes)
        ))
        .partial(Severity::Info)
    } else {
        Outcome::fail(format!(
            "memory is bound to node {} of the host, and the devices are on {}",
            words(&bound),
            words(&nodes)
        ))
    };
    outcome.expected(format!("node {}", words(&nodes))).remedy(remedy)
}
