//! One model for a virtual machine's configuration, whoever wrote it. What a parser does not know is kept by name and is
//! never an error.

#[cfg(test)]
mod tests;

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file of `/etc/pve/qemu-server`.
    Proxmox,
    /// libvirt's domain XML.
    Libvirt,
    /// A command line of QEMU.
    Qemu,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proxmox => "Proxmox",
            Self::Libvirt => "libvirt",
            Self::Qemu => "QEMU",
        })
    }
}

/// A virtual machine as its configuration describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Whose configuration it is.
    pub kind: Kind,
    /// Where it was read.
    pub from: String,
    /// Proxmox' number of it.
    pub vmid: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Its UUID in SMBIOS, lower case.
    pub uuid: Option<String>,
    /// QEMU's machine type, such as `q35` or `pc-q35-9.0+pve1`.
    pub board: String,
    /// What starts it; `None` where the configuration leaves that open.
    pub firmware: Option<Firmware>,
    /// Are Secure Boot's keys enrolled?
    pub secure_boot: bool,
    /// Does the CPU itself execute the guest (KVM)?
    pub accelerated: bool,
    /// The CPU that the guest sees.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// The IOMMU that the guest sees.
    pub viommu: Option<String>,
    /// What encrypts the guest's memory.
    pub confidential: Option<String>,
    /// PCI buses besides the root's.
    pub ports: Vec<Port>,
    /// Devices of the host that the guest is given.
    pub passed: Vec<Passed>,
    /// Disks that the hypervisor makes up.
    pub disks: Vec<Disk>,
    /// What the firmware is told by fw_cfg: name and text.
    pub fw_cfg: Vec<(String, String)>,
    /// SMBIOS OEM strings (type 11).
    pub oem_strings: Vec<String>,
    /// Proxmox: what it hands on to QEMU as it is (`args`), as it was written.
    pub args: Option<String>,
    /// A resource mapping that is not known is none: they were read where the machine is.
    pub mappings_read: bool,
    /// For what the hypervisor refuses to define or start it.
    pub refused: Vec<Refused>,
    /// The first word for which a shell puts options that are not known here: what is missing may be among them.
    pub open: Option<String>,
    /// Proxmox: what changes at the next start, as key and value; an empty value deletes.
    pub pending: Vec<(String, String)>,
    /// Proxmox: the names of the snapshots, which are not looked at.
    pub snapshots: Vec<String>,
    /// What is in it and not known here.
    pub unknown: Vec<String>,
    /// What is in it and makes no sense, or cannot be followed.
    pub complaints: Vec<String>,
}

/// Something for which a hypervisor refuses a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// What it is, and where.
    pub why: String,
    /// What to do about it.
    pub mend: String,
}

/// What starts a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// The CPU that a guest sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// QEMU's model; empty for its default.
    pub model: String,
    /// Flags and properties besides those below, as they were written.
    pub flags: Vec<String>,
    /// The guest's width of addresses, where it is fixed; `None` with `host` is the host's own.
    pub phys_bits: Option<u32>,
    /// The host's width of addresses was asked for.
    pub host_phys_bits: bool,
    /// KVM's own CPUID leaf is hidden from the guest (`kvm=off`).
    pub hidden: bool,
    /// The guest is not told that there is a hypervisor (CPUID leaf 1, `-hypervisor`).
    pub no_hypervisor: bool,
    /// As Proxmox has it; empty elsewhere.
    pub written: String,
}

impl Cpu {
    /// Does the guest see the host's CPU?
    pub fn is_host(&self) -> bool {
        matches!(self.model.as_str(), "host" | "max" | "host-passthrough")
    }

    /// Is it a model whose family is that of the AMD Zen which it runs on: QEMU's EPYC models, or the one that libvirt finds
    /// nearest to the host?
    pub fn is_zen_on_zen(&self) -> bool {
        self.model.starts_with("EPYC") || self.model == "host-model"
    }

    /// Is it a model of this Proxmox' own, of which the configuration says the name alone?
    pub fn is_custom(&self) -> bool {
        self.model.starts_with("custom-")
    }

    /// Has the guest more bits of address than QEMU's 40?
    pub fn is_wide(&self) -> bool {
        self.phys_bits.map_or(self.host_phys_bits, |bits| bits > 40)
    }
}

/// A guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Bytes; `None` where the configuration does not say.
    pub bytes: Option<u64>,
    /// Has the guest a balloon?
    pub balloon: bool,
    /// The size of its pages on the host, in bytes; 0 where any huge page will do.
    pub hugepages: Option<u64>,
    /// libvirt's hard limit for all that QEMU may lock, in bytes.
    pub hard_limit: Option<u64>,
    /// The host's NUMA nodes to which memory is bound, in their order; empty where it is not.
    pub host_nodes: Vec<u32>,
    /// Proxmox: the keys of the lines that give the guest NUMA nodes, `numa0` and so on, whether they count or not.
    pub numa_lines: Vec<String>,
}

/// Linux knows no more NUMA nodes (`NODES_SHIFT` of 10).
const MOST_NODES: usize = 1024;

impl Memory {
    /// Binds it to more of the host's nodes: `0,2-3`, or with `;` between them.
    pub fn bind(&mut self, nodes: &str) {
        let mut is_bound = vec![false; MOST_NODES];
        let mut note = |first: u32, last: u32| {
            let end = (last as usize).saturating_add(1).min(MOST_NODES);
            is_bound.get_mut(first as usize..end).into_iter().flatten().for_each(|is| *is = true);
        };
        self.host_nodes.iter().for_each(|node| note(*node, *node));
        for part in nodes.split([',', ';']) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse()) {
                note(first, last);
            }
        }
        self.host_nodes = (0..).zip(is_bound).filter_map(|(node, is)| is.then_some(node)).collect();
    }
}

/// A bus of the guest and the port that makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The bus' name, as devices use it.
    pub id: String,
    /// What kind of port.
    pub kind: PortKind,
    /// The bus it stands on itself.
    pub bus: String,
    /// Its device and function there, as QEMU writes it (`1c.0`); empty where that is left to QEMU.
    pub addr: String,
}

/// What makes a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A PCI Express root port.
    RootPort,
    /// The upper side of a switch.
    Upstream,
    /// A lower port of a switch.
    Downstream,
    /// A further host bridge (`pxb-pcie`).
    Expander,
    /// A bus of conventional PCI.
    Conventional,
}

/// A device of the host that the guest is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// What the configuration calls it: `hostpci0`, `hostdev1`, an id.
    pub name: String,
    /// Its address on the host, `0000:01:00.0`, or `0000:01:00` for all functions; several where a mapping has alternatives.
    pub hosts: Vec<String>,
    /// The resource mapping that names it.
    pub mapping: Option<String>,
    /// The kind of mediated device, where it is no device of its own.
    pub mediated: Option<String>,
    /// Where it hangs.
    pub place: PlaceInGuest,
    /// Its device and function on that bus, where given.
    pub addr: String,
    /// Is it the guest's display?
    pub display: bool,
    /// QEMU reaches it by iommufd and not by vfio's own containers.
    pub iommufd: bool,
    /// Other properties. [`HOST`] is among them where a script's shell puts in which device it is.
    pub properties: BTreeMap<String, String>,
    /// Proxmox' line as it was written; empty for what stands elsewhere.
    pub written: String,
}

impl Passed {
    /// Does it hand on this function of the host?
    pub fn covers(&self, address: &str) -> bool {
        self.hosts.iter().any(|host| {
            address == host || address.strip_prefix(host.as_str()).is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// Proxmox' line with other properties: `key`, and its value or that it goes away. `None` where it has no line.
    pub fn rewritten(&self, changes: &[(&str, Option<&str>)]) -> Option<String> {
        let is_changed = |part: &str| {
            let key = part.split_once('=').map_or("host", |(key, _)| key);
            changes.iter().any(|(changed, _)| *changed == key)
        };
        let kept = self.written.split(',').map(str::trim).filter(|part| !is_changed(part)).map(str::to_owned);
        let set = |key: &str, value: &str| match key {
            "host" => value.to_owned(),
            key => format!("{key}={value}"),
        };
        let (first, rest): (Vec<_>, Vec<_>) = changes
            .iter()
            .filter_map(|(key, value)| Some((*key, (*value)?)))
            .partition(|(key, _)| *key == "host");
        let first = first.into_iter().map(|(key, value)| set(key, value));
        let parts: Vec<String> =
            first.chain(kept).chain(rest.into_iter().map(|(key, value)| set(key, value))).collect();
        (!self.written.is_empty()).then(|| parts.join(","))
    }
}

/// Where a device hangs in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "on", content = "bus")]
pub enum PlaceInGuest {
    /// On the root bus of a PCI Express machine.
    RootBus,
    /// On conventional PCI.
    Conventional,
    /// On the bus of a [`Port`].
    Port(String),
    /// On a bus that the configuration does not define.
    Unknown(String),
}

/// A disk that the hypervisor makes up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// What the configuration calls it.
    pub name: String,
    /// How the guest sees it: `virtio`, `scsi`, `sata`, `ide`, `usb`, `nvme`.
    pub interface: String,
    /// Is it a CD-ROM?
    pub cdrom: bool,
}

impl Machine {
    /// An empty machine.
    pub fn new(kind: Kind, from: &str) -> Self {
        Self {
            kind,
            from: from.to_owned(),
            vmid: None,
            name: None,
            uuid: None,
            board: String::new(),
            firmware: None,
            secure_boot: false,
            accelerated: true,
            cpu: Cpu::default(),
            memory: Memory::default(),
            viommu: None,
            confidential: None,
            ports: Vec::new(),
            passed: Vec::new(),
            disks: Vec::new(),
            fw_cfg: Vec::new(),
            oem_strings: Vec::new(),
            args: None,
            mappings_read: false,
            refused: Vec::new(),
            open: None,
            pending: Vec::new(),
            snapshots: Vec::new(),
            unknown: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// Is it a q35, the machine with PCI Express?
    pub fn is_q35(&self) -> bool {
        self.board == "q35" || self.board.starts_with("pc-q35")
    }

    /// The port of a bus.
    pub fn port(&self, id: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.id == id)
    }

    /// The ports above a device, the one next to the root first; `None` where the bus is not defined, or in a ring.
    pub fn ports_above(&self, passed: &Passed) -> Option<Vec<&Port>> {
        let mut bus = match &passed.place {
            PlaceInGuest::RootBus => return Some(Vec::new()),
            PlaceInGuest::Port(bus) => bus.as_str(),
            PlaceInGuest::Conventional | PlaceInGuest::Unknown(_) => return None,
        };
        let mut ports = Vec::new();
        while bus != ROOT_BUS {
            let port = self.port(bus)?;
            // No guest has more buses than 256.
            if ports.len() > 256 {
                return None;
            }
            ports.push(port);
            bus = &port.bus;
        }
        ports.reverse();
        Some(ports)
    }

    /// What the firmware is told under a name, the last one counting.
    pub fn told(&self, name: &str) -> Option<&str> {
        self.fw_cfg.iter().rev().find(|(key, _)| key == name).map(|(_, text)| text.as_str())
    }
}

/// The property of vfio-pci that names the host's device.
pub const HOST: &str = "host";
/// No machine passes more devices: four times as many as there are buses.
pub const MOST_DEVICES: usize = 1024;
/// A q35's own bus.
pub const ROOT_BUS: &str = "pcie.0";

/// A PCI address in full and in lower case: `01:00.0` is `0000:01:00.0`; the function may be missing. `None` for what is no
/// address.
pub fn address(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => ("0000", bus, rest),
        [domain, bus, rest] => (domain, bus, rest),
        _ => return None,
    };
    let hex = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let (device, function) =
        rest.split_once('.').map_or((rest, None), |(device, function)| (device, Some(function)));
    let is_good = hex(domain, 8) && hex(bus, 2) && hex(device, 2) && function.is_none_or(|f| hex(f, 1));
    let function = function.map_or(String::new(), |function| format!(".{function}"));
    is_good.then(|| format!("{domain:0>4}:{bus:0>2}:{device:0>2}{function}"))
}

/// `4G`, `512M`, `1048576`: bytes. A number without a letter counts in `unit`.
pub fn bytes(text: &str, unit: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" if digits.len() == text.len() => unit,
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}
