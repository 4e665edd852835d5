//! A plan for Proxmox VE (8 and newer): the commands that make the machine, and the file that they make.
//!
//! `hostpciN` lines hang every device on a root port of its own. What belongs below a switch has to stand in `args`, where
//! Proxmox neither binds a device to vfio-pci nor keeps others from it.

use super::{Device, Plan, PlanFile, qemu};
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
    // Beside huge pages Proxmox takes one node of one digit (qemu-server: PVE::QemuServer::Memory, hugepages_topology).
    if let [node @ 0..10] = plan.nodes.as_slice() {
        let last = cpus.saturating_sub(1);
        let cpus = if last == 0 { "0".to_owned() } else { format!("0-{last}") };
        options
            .push(("numa0".into(), format!("cpus={cpus},hostnodes={node},memory={memory_mib},policy=bind")));
    }
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
        plan.comments(),
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
    let conf = format!("{}{conf}", plan.comments());
    vec![
        PlanFile { name: format!("{vmid}.sh"), text: commands },
        PlanFile { name: format!("{vmid}.conf"), text: conf },
    ]
}
