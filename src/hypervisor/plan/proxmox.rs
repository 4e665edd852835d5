//! A plan for Proxmox VE (8 and newer): the commands that make the machine, and the file that they make.
//!
//! `hostpciN` lines hang every device on a root port of its own. What belongs below a switch has to stand in `args`, where
//! Proxmox neither binds a device to vfio-pci nor keeps others from it.

use super::{Device, Plan, PlanFile, qemu};
use crate::hypervisor::proxmox::MOST_NODES;
use crate::hypervisor::window::FW_CFG;
use crate::pasteable::pasteable;

/// The device number of the first root port in `args`: Proxmox uses 0x10 and 0x11 of the root bus for `hostpci4` and up.
const FIRST_SLOT: usize = 0x12;

/// Where Proxmox puts `hostpciN` (qemu-server: PCI.pm).
fn hostpci_place(number: usize) -> String {
    let port = match number {
        0..4 => format!("1c.{number}"),
        4..12 => format!("10.{}", number - 4),
        _ => format!("11.{}", number - 12),
    };
    format!("{port}/00.0")
}

/// Proxmox has no more `hostpci` lines.
const MOST_HOSTPCI: usize = 16;

struct Parts {
    hostpci: Vec<(String, String)>,
    args: String,
    by_hand: Vec<String>,
}

fn parts(plan: &Plan) -> Parts {
    let alone: Vec<&Device> =
        plan.groups.iter().filter(|group| !group.switch).flat_map(|group| &group.devices).collect();
    // Those that find no hostpci line stand in args as well.
    let is_line = |group: &&super::Group| {
        !group.switch
            && alone
                .iter()
                .position(|device| **device == group.devices[0])
                .is_some_and(|at| at < MOST_HOSTPCI)
    };
    let tree = qemu::tree(plan.groups.iter().filter(|group| !is_line(group)), FIRST_SLOT);
    let mut in_args = tree.places.into_iter();
    let mut hostpci = Vec::new();
    let mut places = Vec::new();
    let mut by_hand = Vec::new();
    for group in &plan.groups {
        for device in &group.devices {
            if is_line(&group) {
                let number = hostpci.len();
                let host = if device.is_whole() { device.slot() } else { &device.functions[0] };
                hostpci.push((format!("hostpci{number}"), format!("{host},pcie=1")));
                places.push(hostpci_place(number));
            } else {
                by_hand.extend(device.functions.iter().cloned());
                places.push(in_args.next().unwrap_or_default());
            }
        }
    }
    let mut words = vec!["-fw_cfg".to_owned(), format!("name={FW_CFG},string={}", plan.window_mib)];
    words.extend(tree.devices.into_iter().flat_map(|device| ["-device".to_owned(), device]));
    let told = plan.oem_strings(&places);
    words.extend(told.into_iter().flat_map(|text| ["-smbios".to_owned(), format!("type=11,value={text}")]));
    Parts { hostpci, args: pasteable(words), by_hand }
}

/// A node of the guest for each node of the host, with its part of memory and CPUs: with huge pages Proxmox lets none have two
/// (qemu-server: Memory.pm, `hugepages_topology`). None where it has no form for them.
fn numa(plan: &Plan) -> Vec<(String, String)> {
    let count = u32::try_from(plan.nodes.len()).unwrap_or(u32::MAX);
    let shares = super::shares(&plan.nodes, plan.memory_mib, plan.page_mib);
    let is_possible =
        plan.nodes.len() <= MOST_NODES && count <= plan.cpus && plan.nodes.iter().all(|node| *node <= 9);
    if !is_possible || shares.iter().any(|(_, mib)| *mib == 0) {
        return Vec::new();
    }
    let lines = (0..).zip(shares).map(|(at, (node, mib))| {
        let (first, end) = (at * plan.cpus / count, (at + 1) * plan.cpus / count);
        let cpus = if end - first == 1 { first.to_string() } else { format!("{first}-{}", end - 1) };
        (format!("numa{at}"), format!("cpus={cpus},hostnodes={node},memory={mib},policy=bind"))
    });
    lines.collect()
}

pub(super) fn write(plan: &Plan) -> Vec<PlanFile> {
    let Parts { hostpci, args, by_hand } = parts(plan);
    let Plan { vmid, name, uuid, memory_mib, page_mib, cpus, storage, .. } = plan;
    let mut options: Vec<(String, String)> = [
        ("name", name.clone()),
        ("ostype", "l26".into()),
        ("machine", "q35".into()),
        ("bios", "ovmf".into()),
        ("cpu", "host".into()),
        ("cores", cpus.to_string()),
        ("memory", memory_mib.to_string()),
        ("balloon", "0".into()),
        ("numa", "1".into()),
        ("hugepages", page_mib.to_string()),
        ("scsihw", "virtio-scsi-single".into()),
        ("serial0", "socket".into()),
        ("smbios1", format!("uuid={uuid}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
    let nodes = numa(plan);
    let mut comments = plan.comments();
    if nodes.is_empty() && !plan.nodes.is_empty() {
        let reserved = super::decide::reserved(&[0], memory_mib << 20, page_mib << 20);
        comments.push_str(&format!(
            "# Proxmox binds it to no node all the same: with huge pages it takes the nodes 0 to 9, eight at most, each with a CPU and a page \
             of the guest. It takes the pages of node 0 ({reserved}).\n"
        ));
    }
    options.extend(nodes);
    options.extend(hostpci);
    options.push(("args".into(), args));
    let mut command = vec!["qm".to_owned(), "create".into(), vmid.to_string()];
    for (key, value) in &options {
        command.extend([format!("--{key}"), value.clone()]);
    }
    command.extend([
        "--efidisk0".into(),
        format!("{storage}:1,efitype=4m,pre-enrolled-keys=0"),
        "--scsi0".into(),
        format!("{storage}:0,import-from={}", plan.image),
        "--boot".into(),
        "order=scsi0".into(),
    ]);
    let lines: Vec<String> = command[3..].chunks(2).map(pasteable).collect();
    let bind = match by_hand.as_slice() {
        [] => String::new(),
        some => {
            let functions: Vec<&str> = some.iter().map(String::as_str).collect();
            format!(
                "# Proxmox binds no device that stands in args: this does, until the host starts again.\nmodprobe vfio-pci\n{}",
                qemu::bind(&functions)
            )
        }
    };
    let commands = format!(
        "#!/bin/sh\n# {name}: written by gdsboot vm plan. As root@pam: only root may set args and devices by address.\n{}set -eu\n{bind}\
         {} \\\n  {}\n# A configuration proves nothing: its verdict is INCOMPLETE (2) where nothing is wrong with it.\ngdsboot vm check {vmid} || [ $? = 2 ]\nqm start {vmid}\n",
        comments,
        pasteable(&command[..3]),
        lines.join(" \\\n  ")
    );
    options.push((
        "efidisk0".into(),
        format!("{storage}:vm-{vmid}-disk-0,efitype=4m,pre-enrolled-keys=0,size=4M"),
    ));
    options.push(("scsi0".into(), format!("{storage}:vm-{vmid}-disk-1")));
    options.push(("boot".into(), "order=scsi0".into()));
    options.sort();
    let conf = options.iter().map(|(key, value)| format!("{key}: {value}\n")).collect::<String>();
    let conf = format!("{comments}{conf}");
    vec![
        PlanFile { name: format!("{vmid}.sh"), text: commands },
        PlanFile { name: format!("{vmid}.conf"), text: conf },
    ]
}
