//! A plan as a shell script that starts QEMU (8.0 and newer).

use super::{Plan, PlanFile};
use crate::hypervisor::window::FW_CFG;
use crate::pasteable::pasteable;

/// Ports and devices as arguments, and the devices' ways in the guest.
pub(super) struct Tree {
    /// Values of `-device`, ports before what hangs on them.
    pub devices: Vec<String>,
    /// For each device of the plan, devices and functions from the root bus on.
    pub places: Vec<String>,
}

/// The tree, its root ports from device `first` of the root bus on; `groups` are those that are meant.
pub(super) fn tree<'a>(groups: impl Iterator<Item = &'a super::Group>, first: usize) -> Tree {
    let mut tree = Tree { devices: Vec::new(), places: Vec::new() };
    let mut chassis = 0x40;
    let mut next_chassis = || {
        chassis += 1;
        chassis
    };
    for (at, group) in groups.enumerate() {
        let (slot, function) = (first + at / 8, at % 8);
        let root = format!("gdsboot-root{at}");
        // Others join the slot's function 0.
        let multi = if function == 0 { ",multifunction=on" } else { "" };
        tree.devices.push(format!(
            "pcie-root-port,id={root},bus=pcie.0,addr={slot:#x}.{function},chassis={}{multi}",
            next_chassis()
        ));
        let root_place = format!("{slot:02x}.{function}");
        if group.switch {
            tree.devices.push(format!("x3130-upstream,id=gdsboot-up{at},bus={root},addr=0x0"));
        }
        for (n, device) in group.devices.iter().enumerate() {
            let (bus, place) = if group.switch {
                let bus = format!("gdsboot-down{at}-{n}");
                tree.devices.push(format!(
                    "xio3130-downstream,id={bus},bus=gdsboot-up{at},addr={n:#x},chassis={}",
                    next_chassis()
                ));
                (bus, format!("{root_place}/00.0/{n:02x}.0/00.0"))
            } else {
                (root.clone(), format!("{root_place}/00.0"))
            };
            for (function, host) in device.functions.iter().enumerate() {
                let multi = if device.is_whole() && function == 0 { ",multifunction=on" } else { "" };
                tree.devices.push(format!("vfio-pci,host={host},bus={bus},addr=0x0.{function}{multi}"));
            }
            tree.places.push(place);
        }
    }
    tree
}

/// The first root port's device on the root bus; QEMU's own have lower and higher ones.
const FIRST_SLOT: usize = 0x10;

/// The arguments, each option with its value.
pub(super) fn arguments(plan: &Plan) -> Vec<[String; 2]> {
    let tree = tree(plan.groups.iter(), FIRST_SLOT);
    let pair = |option: &str, value: String| [format!("-{option}"), value];
    let nodes: String = plan.nodes.iter().map(|node| format!(",host-nodes={node}")).collect();
    let policy = if plan.nodes.is_empty() { "" } else { ",policy=bind" };
    let comma = |path: &str| path.replace(',', ",,");
    let mut arguments = vec![
        pair("name", comma(&plan.name)),
        pair("uuid", plan.uuid.clone()),
        pair("machine", "q35,accel=kvm,memory-backend=memory".into()),
        pair("cpu", "host,host-phys-bits=on".into()),
        pair("smp", plan.cpus.to_string()),
        pair("m", format!("{}M", plan.memory_mib)),
        pair(
            "object",
            format!(
                "memory-backend-memfd,id=memory,size={}M,hugetlb=on,hugetlbsize={}M,prealloc=on{nodes}{policy}",
                plan.memory_mib, plan.page_mib
            ),
        ),
        pair("drive", "if=pflash,unit=0,format=raw,readonly=on,file=OVMF_CODE_4M.fd".into()),
        pair("drive", "if=pflash,unit=1,format=raw,file=OVMF_VARS_4M.fd".into()),
        pair("drive", format!("if=none,id=image,format=raw,file={}", comma(&plan.image))),
        pair("device", "virtio-blk-pci,drive=image,bootindex=0".into()),
        pair("device", "VGA".into()),
        pair("chardev", "stdio,id=serial,signal=off".into()),
        pair("serial", "chardev:serial".into()),
        pair("fw_cfg", format!("name={FW_CFG},string={}", plan.window_mib)),
    ];
    arguments.extend(tree.devices.into_iter().map(|device| pair("device", device)));
    let told = plan.oem_strings(&tree.places);
    arguments.extend(told.into_iter().map(|text| pair("smbios", format!("type=11,value={text}"))));
    arguments
}

/// Gives devices to vfio-pci until the host starts again.
pub(super) fn bind(functions: &[&str]) -> String {
    let addresses = functions.join(" ");
    format!(
        "for address in {addresses}; do\n  device=/sys/bus/pci/devices/$address\n  \
         [ \"$(basename \"$(readlink \"$device/driver\")\")\" = vfio-pci ] && continue\n  \
         echo vfio-pci > \"$device/driver_override\"\n  \
         [ ! -e \"$device/driver\" ] || echo \"$address\" > \"$device/driver/unbind\"\n  \
         echo \"$address\" > /sys/bus/pci/drivers_probe\ndone\n"
    )
}

pub(super) fn write(plan: &Plan) -> Vec<PlanFile> {
    let functions: Vec<&str> =
        plan.groups.iter().flat_map(|g| &g.devices).flat_map(|d| &d.functions).map(String::as_str).collect();
    let lines: Vec<String> = arguments(plan).iter().map(pasteable).collect();
    let text = format!(
        "#!/bin/sh\n# {}: written by gdsboot vm plan.\n{}# As root, in a folder that has OVMF_CODE_4M.fd and a copy of OVMF_VARS_4M.fd of its own.\n\
         set -eu\nmodprobe vfio-pci\n{}ulimit -l unlimited\n\
         exec qemu-system-x86_64 -no-user-config -nodefaults -nic none -display none \\\n  {}\n",
        plan.name,
        plan.comments(),
        bind(&functions),
        lines.join(" \\\n  ")
    );
    vec![PlanFile { name: format!("{}.sh", plan.name), text }]
}
