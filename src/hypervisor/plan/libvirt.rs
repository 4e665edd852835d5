//! A plan as libvirt's domain XML (9 and newer).

use super::{Plan, PlanFile};
use crate::hypervisor::window::FW_CFG;
use crate::report::layout::clean;
use std::fmt::Write as _;

/// The first root port's device on the root bus.
const FIRST_SLOT: usize = 0x10;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

fn address(bus: usize, slot: usize, function: usize, multi: bool) -> String {
    let multi = if multi { " multifunction='on'" } else { "" };
    format!(
        "<address type='pci' domain='0x0000' bus='{bus:#04x}' slot='{slot:#04x}' function='{function:#x}'{multi}/>"
    )
}

/// `0000:41:00.0` as libvirt writes it.
fn source(host: &str) -> String {
    let parts: Vec<&str> = host.split([':', '.']).collect();
    let [domain, bus, slot, function] = parts[..] else { return String::new() };
    format!("<address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>")
}

/// Controllers and devices, and the devices' ways in the guest.
fn tree(plan: &Plan) -> (String, Vec<String>) {
    let (mut controllers, mut devices) = (String::new(), String::new());
    let mut places = Vec::new();
    let mut index = 0;
    let mut controller = |model: &str, place: String| {
        index += 1;
        let _ = writeln!(
            controllers,
            "    <controller type='pci' index='{index}' model='{model}'>\n      {place}\n    </controller>"
        );
        index
    };
    for (at, group) in plan.groups.iter().enumerate() {
        let (slot, function) = (FIRST_SLOT + at / 8, at % 8);
        let root = controller("pcie-root-port", address(0, slot, function, function == 0));
        let root_place = format!("{slot:02x}.{function}");
        let up = group.switch.then(|| controller("pcie-switch-upstream-port", address(root, 0, 0, false)));
        for (n, device) in group.devices.iter().enumerate() {
            let (bus, place) = match up {
                Some(up) => {
                    let down = controller("pcie-switch-downstream-port", address(up, n, 0, false));
                    (down, format!("{root_place}/00.0/{n:02x}.0/00.0"))
                }
                None => (root, format!("{root_place}/00.0")),
            };
            places.push(place);
            for (function, host) in device.functions.iter().enumerate() {
                let place = address(bus, 0, function, device.is_whole() && function == 0);
                let _ = writeln!(
                    devices,
                    "    <hostdev mode='subsystem' type='pci' managed='yes'>\n      <source>{}</source>\n      {place}\n    </hostdev>",
                    source(host)
                );
            }
        }
    }
    (controllers + &devices, places)
}

pub(super) fn write(plan: &Plan) -> Vec<PlanFile> {
    let (tree, places) = tree(plan);
    let told = plan.oem_strings(&places);
    let told: String = told.iter().map(|text| format!("      <entry>{}</entry>\n", escape(text))).collect();
    let comment: String = plan
        .reasons
        .iter()
        .map(|reason| format!("  {}\n", clean(reason).replace("--", "- -").replace("--", "- -")))
        .collect();
    let nodes = plan.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let bound = if nodes.is_empty() {
        String::new()
    } else {
        format!("  <numatune>\n    <memory mode='strict' nodeset='{nodes}'/>\n  </numatune>\n")
    };
    let text = format!(
        "<!-- Written by gdsboot vm plan, for virsh define.\n  OVMF's window stands in qemu:commandline: libvirt refuses its name in sysinfo.\n{comment}-->\n\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <memoryBacking>
    <hugepages>
      <page size='{page}' unit='MiB'/>
    </hugepages>
  </memoryBacking>
  <vcpu>{cpus}</vcpu>
{bound}  <sysinfo type='smbios'>
    <oemStrings>
{told}    </oemStrings>
  </sysinfo>
  <os firmware='efi'>
    <type arch='x86_64' machine='q35'>hvm</type>
    <firmware>
      <feature enabled='no' name='enrolled-keys'/>
    </firmware>
    <smbios mode='sysinfo'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-passthrough' check='none'>
    <maxphysaddr mode='passthrough'/>
  </cpu>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{image}'/>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <controller type='pci' index='0' model='pcie-root'/>
{tree}    <serial type='pty'/>
    <console type='pty'/>
    <video>
      <model type='vga'/>
    </video>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-fw_cfg'/>
    <qemu:arg value='name={FW_CFG},string={window}'/>
  </qemu:commandline>
</domain>
",
        name = escape(&plan.name),
        uuid = plan.uuid,
        memory = plan.memory_mib,
        page = plan.page_mib,
        cpus = plan.cpus,
        window = plan.window_mib,
        image = escape(&plan.image),
    );
    vec![PlanFile { name: format!("{}.xml", plan.name), text }]
}
