//! A virtual machine's file of Proxmox VE, `/etc/pve/qemu-server/VMID.conf` (qm.conf(5)), and the resource mappings of
//! `/etc/pve/mapping/pci.cfg`.
//!
//! Only what counts now is judged: the part before the first `[section]`. `[PENDING]` is what the next start changes; any
//! other section is a snapshot.

use super::machine::{
    Disk, Firmware, Kind, Machine, Memory, Passed, PlaceInGuest, Port, PortKind, ROOT_BUS, Refused, address,
    bytes,
};
use super::qemu;
use crate::facts::Facts;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// Where the files are.
pub const FOLDER: &str = "/etc/pve/qemu-server";
/// Where the resource mappings are.
pub const MAPPINGS: &str = "/etc/pve/mapping/pci.cfg";

/// Resource mappings: by name, for each of their devices its addresses on the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Were they read? Else a mapping may well be there.
    is_read: bool,
    /// This node's name, where it is known.
    node: Option<String>,
    offers: BTreeMap<String, Vec<Mapped>>,
}

/// One device that a mapping offers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    /// The cluster's node that has it.
    node: String,
    /// Its addresses there, several functions with `;` in the file.
    paths: Vec<String>,
}

impl Mappings {
    /// Reads `pci.cfg`: a line `NAME` for each mapping, and indented lines `map id=...,node=...,path=...`. `node` is the node
    /// that starts the machine: it takes its own devices (PVE::Mapping::PCI, `find_on_current_node`).
    pub fn parse(text: &str, node: Option<&str>) -> Self {
        let mut offers: BTreeMap<String, Vec<Mapped>> = BTreeMap::new();
        let mut current = None;
        let is_said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        for line in text.lines().filter(is_said) {
            if !line.starts_with([' ', '\t']) {
                current = Some(line.trim().to_owned());
                offers.entry(line.trim().to_owned()).or_default();
                continue;
            }
            let (Some(name), Some(rest)) = (&current, line.trim().strip_prefix("map ")) else { continue };
            let options = pairs(rest, "");
            let mapped = Mapped {
                node: value(&options, "node").unwrap_or("").to_owned(),
                paths: value(&options, "path").unwrap_or("").split(';').filter_map(address).collect(),
            };
            offers.entry(name.clone()).or_default().push(mapped);
        }
        Self { is_read: true, node: node.map(str::to_owned), offers }
    }

    /// The mappings that a host's report carries.
    pub fn of_host(host: &Facts) -> Self {
        let Some(vm) = host.hosted.value() else { return Self::default() };
        vm.mappings
            .value()
            .map_or_else(Self::default, |text| Self::parse(text, vm.node.value().map(String::as_str)))
    }

    /// The addresses that a mapping has on this node; on all nodes where this node is not known.
    fn addresses(&self, name: &str) -> Vec<String> {
        let is_here = |offer: &&Mapped| self.node.as_ref().is_none_or(|node| *node == offer.node);
        let offers = self.offers.get(name).into_iter().flatten().filter(is_here);
        offers.flat_map(|offer| offer.paths.iter().cloned()).collect()
    }
}

/// Keys that say nothing about transfers.
const PLAIN: [&str; 57] = [
    "acpi",
    "affinity",
    "agent",
    "allow-ksm",
    "arch",
    "audio0",
    "autostart",
    "boot",
    "bootdisk",
    "cicustom",
    "cipassword",
    "citype",
    "ciupgrade",
    "ciuser",
    "cores",
    "cpulimit",
    "cpuunits",
    "description",
    "digest",
    "freeze",
    "hookscript",
    "hotplug",
    "ivshmem",
    "keephugepages",
    "keyboard",
    "localtime",
    "lock",
    "meta",
    "migrate_downtime",
    "migrate_speed",
    "nameserver",
    "onboot",
    "ostype",
    "parent",
    "protection",
    "reboot",
    "rng0",
    "running-nets-host-mtu",
    "runningcpu",
    "runningmachine",
    "scsihw",
    "searchdomain",
    "shares",
    "smp",
    "snapstate",
    "snaptime",
    "sockets",
    "spice_enhancements",
    "sshkeys",
    "startdate",
    "startup",
    "tablet",
    "tags",
    "tdf",
    "template",
    "vcpus",
    "vga",
];
/// The same for keys with a number.
const NUMBERED: [&str; 7] = ["ipconfig", "net", "parallel", "serial", "unused", "usb", "virtiofs"];
/// The same, the rest of them.
const MORE: [&str; 5] = ["vmgenid", "vmstate", "vmstatestorage", "watchdog", "tpmstate0"];

/// Reads a file.
///
/// # Errors
/// It is no text, or has none of Proxmox' keys.
pub fn parse(from: &str, text: &[u8], mappings: &Mappings) -> Result<Machine> {
    let Ok(text) = std::str::from_utf8(text) else { anyhow::bail!("it is not text") };
    ensure!(!text.contains('\0'), "it is not text: it has NUL bytes");
    let mut machine = Machine::new(Kind::Proxmox, from);
    let stem = from.rsplit('/').next().and_then(|name| name.strip_suffix(".conf"));
    machine.vmid = stem.and_then(|stem| stem.parse().ok());
    // What Proxmox does where nothing is said.
    machine.board = "pc".into();
    machine.firmware = Some(Firmware::Bios);
    machine.memory.balloon = true;
    machine.memory.bytes = Some(512 << 20);
    let mut args = None;
    let mut section = String::new();
    let mut known = 0;
    let mut nodes = Nodes::default();
    machine.mappings_read = mappings.is_read;
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if name != "PENDING" && !name.starts_with("special:") {
                machine.snapshots.push(name.to_owned());
            }
            section = name.to_owned();
            continue;
        }
        let Some((key, text)) = line.split_once(':').map(|(key, text)| (key.trim(), text.trim())) else {
            if section.is_empty() {
                machine.complaints.push(format!("{line:?} is no line of the form key: value"));
            }
            continue;
        };
        match section.as_str() {
            "" => {}
            "PENDING" => {
                let deleted = |key: &str| (key.to_owned(), String::new());
                match key {
                    "delete" => machine
                        .pending
                        .extend(text.split(',').map(|key| deleted(key.trim_start_matches('!')))),
                    key => machine.pending.push((key.to_owned(), text.to_owned())),
                }
                continue;
            }
            _ => continue,
        }
        nodes.note(key, text);
        if key == "args" {
            args = Some(text.to_owned());
            known += 1;
        } else if set(&mut machine, key, text, mappings) {
            known += 1;
        } else {
            machine.unknown.push(format!("{key}: {text}"));
        }
    }
    ensure!(known > 0, "it has no line that Proxmox' configurations have");
    place(&mut machine);
    nodes.apply(&mut machine);
    // With x-vga Proxmox hides KVM, unless the CPU's own line says otherwise (PCI.pm, CPUConfig.pm).
    let is_said = value(&pairs(&machine.cpu.written, "cputype"), "hidden").is_some();
    machine.cpu.hidden |= !is_said && machine.passed.iter().any(|passed| passed.display);
    if let Some(args) = &args
        && let Err(why) = qemu::add(&mut machine, args)
    {
        machine.complaints.push(format!("args: {why}: they are not looked at"));
    }
    machine.args = args;
    Ok(machine)
}

/// A guest has no more NUMA nodes (`$MAX_NUMA`).
pub const MOST_NODES: usize = 8;

/// The NUMA nodes that a guest is given, and what keeps Proxmox from starting it with them (qemu-server: Memory.pm, `config`,
/// `hugepages_size` and `hugepages_topology`).
#[derive(Default)]
struct Nodes {
    /// Do the lines count?
    are_on: bool,
    /// Is memory added while the machine runs?
    hotplug: bool,
    /// The lines' keys and options, the last one of each.
    lines: BTreeMap<String, Vec<(String, String)>>,
}

impl Nodes {
    /// Takes notice of a line.
    fn note(&mut self, key: &str, text: &str) {
        match key {
            "numa" => self.are_on = is_on(Some(text)),
            "hotplug" => self.hotplug = text.split(',').any(|what| what.trim() == "memory"),
            _ if (0..MOST_NODES).any(|number| key == format!("numa{number}")) => {
                self.lines.insert(key.to_owned(), pairs(text, ""));
            }
            _ => {}
        }
    }

    fn apply(self, machine: &mut Machine) {
        machine.memory.numa_lines = self.lines.keys().cloned().collect();
        if self.are_on {
            self.bind(&mut machine.memory);
        }
        let pages = machine.memory.hugepages;
        let total = machine.memory.bytes.map(|bytes| bytes >> 20);
        let mut refuse =
            |why: String, mend: &str| machine.refused.push(Refused { why, mend: mend.to_owned() });
        if !self.are_on {
            let on = "switch NUMA on: qm set VMID -numa 1";
            if pages.is_some() {
                refuse("hugepages: they need numa: 1".into(), on);
            }
            if self.hotplug {
                refuse("hotplug: of memory it needs numa: 1".into(), on);
            }
            return;
        }
        if let (true, Some(key)) = (self.hotplug, self.lines.keys().next()) {
            refuse(
                format!("{key}: where memory is hotplugged it takes no such line"),
                "leave memory out of hotplug: qm set VMID -hotplug network,disk,usb",
            );
            return;
        }
        let mib = |options: &[(String, String)]| value(options, "memory").and_then(|size| size.parse().ok());
        for (key, options) in &self.lines {
            for word in ["cpus", "memory"].into_iter().filter(|word| value(options, word).is_none()) {
                refuse(
                    format!("{key}: it has no {word}"),
                    "give each numaN line its part of memory and CPUs",
                );
            }
            let hosts = value(options, "hostnodes");
            if hosts.is_some() && value(options, "policy").is_none() {
                refuse(format!("{key}: it has hostnodes and no policy"), "add policy=bind to the line");
            }
            let Some(page) = pages else { continue };
            let hosts = hosts.unwrap_or("");
            if hosts.len() != 1 || !hosts.bytes().all(|byte| byte.is_ascii_digit()) {
                refuse(
                    format!(
                        "{key}: with huge pages it takes one node of the host, 0 to 9, and here it has {hosts:?}"
                    ),
                    "give each node of the host a numaN of its own with its part of memory and CPUs, or leave the huge pages away",
                );
            }
            // Where any page will do, these are the smallest.
            let page = (page >> 20).max(2);
            if let Some(part) = mib(options).filter(|part: &u64| !part.is_multiple_of(page)) {
                refuse(
                    format!("{key}: its {part} MiB are no multiple of a page of {page} MiB"),
                    "let each numaN line have whole pages, or choose smaller ones: qm set VMID -hugepages 2",
                );
            }
        }
        let sum: Option<u64> =
            self.lines.values().map(|options| mib(options)).try_fold(0u64, |sum, mib| sum.checked_add(mib?));
        if let (false, Some(sum), Some(total)) = (self.lines.is_empty(), sum, total)
            && sum != total
        {
            refuse(
                format!("the numaN lines have {sum} MiB, and memory has {total}"),
                "let the sum of the numaN lines' memory be that of the machine",
            );
        }
    }

    /// The host's nodes to which the lines bind memory.
    fn bind(&self, memory: &mut Memory) {
        let bound = self.lines.values().filter(|options| value(options, "policy") == Some("bind"));
        bound.for_each(|options| memory.bind(value(options, "hostnodes").unwrap_or("")));
    }
}

/// Takes one line; false where its key is unknown.
fn set(machine: &mut Machine, key: &str, text: &str, mappings: &Mappings) -> bool {
    let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &key[stem.len()..];
    match (key, stem) {
        ("name", _) => machine.name = Some(text.to_owned()),
        ("machine", _) => {
            let options = pairs(text, "type");
            machine.board = value(&options, "type").unwrap_or("pc").to_owned();
            machine.viommu = value(&options, "viommu").map(str::to_owned);
        }
        ("bios", _) => {
            machine.firmware = match text {
                "ovmf" => Some(Firmware::Uefi),
                "seabios" => Some(Firmware::Bios),
                _ => None,
            }
        }
        ("efidisk0", _) => machine.secure_boot = is_on(value(&pairs(text, "file"), "pre-enrolled-keys")),
        ("kvm", _) => machine.accelerated = text != "0",
        ("cpu", _) => cpu(machine, text),
        ("memory", _) => {
            let options = pairs(text, "current");
            let size = value(&options, "current").and_then(|size| bytes(size, 1 << 20));
            match size {
                Some(size) => machine.memory.bytes = Some(size),
                None => machine.complaints.push(format!("memory: {text:?} is no number of MiB")),
            }
        }
        ("balloon", _) => machine.memory.balloon = text != "0",
        ("hugepages", _) => {
            machine.memory.hugepages = match text {
                "any" => Some(0),
                size => bytes(size, 1 << 20),
            }
        }
        ("numa", _) => {}
        ("smbios1", _) => {
            let uuid = pairs(text, "")
                .iter()
                .find(|(key, _)| key == "uuid")
                .map(|(_, uuid)| uuid.to_ascii_lowercase());
            machine.uuid = uuid;
        }
        ("amd_sev" | "amd-sev", _) => machine.confidential = Some(format!("AMD SEV ({text})")),
        ("intel-tdx", _) => machine.confidential = Some("Intel TDX".into()),
        // Whoever notes the nodes reads them.
        (_, "numa") if number.parse().is_ok_and(|number: usize| number < MOST_NODES) => {}
        (_, "hostpci") if !number.is_empty() => {
            let passed = hostpci(machine, key, text, mappings);
            machine.passed.push(passed);
        }
        (_, "virtio" | "scsi" | "sata" | "ide") if !number.is_empty() => {
            let options = pairs(text, "file");
            machine.disks.push(Disk {
                name: key.to_owned(),
                interface: stem.to_owned(),
                cdrom: value(&options, "media") == Some("cdrom"),
            });
        }
        (_, stem) if NUMBERED.contains(&stem) && !number.is_empty() => {}
        _ => return PLAIN.contains(&key) || MORE.contains(&key),
    }
    true
}

/// `host,hidden=1,flags=+aes;-pcid,phys-bits=host`.
fn cpu(machine: &mut Machine, text: &str) {
    let options = pairs(text, "cputype");
    let cpu = &mut machine.cpu;
    text.clone_into(&mut cpu.written);
    cpu.model = value(&options, "cputype").unwrap_or("").to_owned();
    cpu.hidden = is_on(value(&options, "hidden"));
    match value(&options, "phys-bits") {
        Some("host") => cpu.host_phys_bits = true,
        Some(bits) => cpu.phys_bits = bits.parse().ok(),
        None => {}
    }
    let flags = value(&options, "flags").unwrap_or("");
    cpu.flags = flags.split(';').filter(|flag| !flag.is_empty()).map(str::to_owned).collect();
}

fn hostpci(machine: &mut Machine, key: &str, text: &str, mappings: &Mappings) -> Passed {
    let options = pairs(text, "host");
    let mapping = value(&options, "mapping").map(str::to_owned);
    let mut hosts: Vec<String> = Vec::new();
    for told in value(&options, "host").unwrap_or("").split(';').filter(|told| !told.is_empty()) {
        match address(told) {
            Some(host) => hosts.push(host),
            None => machine.complaints.push(format!("{key}: {told:?} is no PCI address")),
        }
    }
    hosts.extend(mapping.iter().flat_map(|name| mappings.addresses(name)));
    let own = ["host", "mapping", "mdev", "x-vga", "pcie"];
    Passed {
        name: key.to_owned(),
        hosts,
        mapping,
        mediated: value(&options, "mdev").map(str::to_owned),
        place: match is_on(value(&options, "pcie")) {
            true => PlaceInGuest::RootBus,
            false => PlaceInGuest::Conventional,
        },
        addr: String::new(),
        display: is_on(value(&options, "x-vga")),
        iommufd: false,
        properties: options.iter().filter(|(key, _)| !own.contains(&key.as_str())).cloned().collect(),
        written: text.to_owned(),
    }
}

/// The ports that Proxmox gives to devices with `pcie=1` (qemu-server: PCI.pm, `get_pci_addr_map`).
fn place(machine: &mut Machine) {
    if !machine.is_q35() {
        machine.passed.iter_mut().for_each(|passed| passed.place = PlaceInGuest::Conventional);
        return;
    }
    let port = |number: u32| {
        let addr = match number {
            0..4 => format!("1c.{number}"),
            4..12 => format!("10.{}", number - 4),
            _ => format!("11.{}", number - 12),
        };
        Port {
            id: format!("ich9-pcie-port-{}", number + 1),
            kind: PortKind::RootPort,
            bus: ROOT_BUS.into(),
            addr,
        }
    };
    // Four are there in any case.
    let mut numbers: Vec<u32> = (0..4).collect();
    for passed in machine.passed.iter_mut().filter(|passed| passed.place == PlaceInGuest::RootBus) {
        let number =
            passed.name.strip_prefix("hostpci").and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
        if number > 15 {
            machine.complaints.push(format!("{}: Proxmox has no more than 16", passed.name));
        } else if !numbers.contains(&number) {
            numbers.push(number);
        }
        passed.place = PlaceInGuest::Port(format!("ich9-pcie-port-{}", number.saturating_add(1)));
    }
    machine.ports.extend(numbers.into_iter().map(port));
    machine.ports.extend(conventional_buses());
}

/// The buses of conventional PCI that are there in any case.
pub fn conventional_buses() -> [Port; 4] {
    ["pci.0", "pci.1", "pci.2", "pci.3"].map(|id| Port {
        id: id.into(),
        kind: PortKind::Conventional,
        bus: ROOT_BUS.into(),
        addr: String::new(),
    })
}

/// `a,b=c`: the implied key's value `a`, and `b` = `c`.
fn pairs(text: &str, implied: &str) -> Vec<(String, String)> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts
        .map(|part| match part.trim().split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (implied.to_owned(), part.trim().to_owned()),
        })
        .collect()
}

fn value<'a>(options: &'a [(String, String)], key: &str) -> Option<&'a str> {
    options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn is_on(word: Option<&str>) -> bool {
    matches!(word, Some("1" | "on" | "yes" | "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "\
# a machine
agent: 1
args: -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144 -device pcie-root-port,id=extra,bus=pcie.0,addr=0x12 \
-device vfio-pci,host=0000:43:00.0,bus=extra
balloon: 0
bios: ovmf
boot: order=scsi0
colour: green
cpu: host,hidden=1,flags=+aes;-pcid,phys-bits=host
efidisk0: local-lvm:vm-100-disk-0,efitype=4m,pre-enrolled-keys=1,size=4M
hostpci0: 0000:41:00,pcie=1,rombar=0
hostpci1: mapping=fast,pcie=1
hostpci5: 42:00.0
hugepages: 1024
machine: pc-q35-9.0+pve1,viommu=intel
memory: 65536
name: gds
numa: 1
numa0: cpus=0-7,hostnodes=1,memory=65536,policy=bind
scsi0: local-lvm:vm-100-disk-1,size=8G
ide2: none,media=cdrom
smbios1: uuid=AAAAAAAA-2222-3333-4444-555555555555,base64=1,manufacturer=QQ==
garbage

[PENDING]
delete: balloon,!hugepages
machine: pc

[before]
machine: pc
bios: seabios
";

    #[test]
    fn a_whole_file() {
        let text = "fast\n\tmap id=144d:a80a,node=pve,path=0000:44:00.0\n\tmap node=other,path=0000:45:00\n";
        let mappings = Mappings::parse(text, None);
        let machine = parse("/etc/pve/qemu-server/100.conf", CONF.as_bytes(), &mappings).unwrap();
        assert!(machine.is_q35() && machine.secure_boot && machine.cpu.hidden && machine.cpu.host_phys_bits);
        assert_eq!((machine.vmid, machine.viommu.as_deref()), (Some(100), Some("intel")));
        assert_eq!((machine.firmware, machine.memory.balloon), (Some(Firmware::Uefi), false));
        assert_eq!(
            (machine.memory.hugepages, machine.memory.host_nodes.as_slice()),
            (Some(1 << 30), &[1][..])
        );
        assert_eq!(machine.uuid.as_deref(), Some("aaaaaaaa-2222-3333-4444-555555555555"));
        let told: Vec<_> =
            machine.passed.iter().map(|p| (p.name.as_str(), p.hosts.join(" "), p.place.clone())).collect();
        let port = |n: u32| PlaceInGuest::Port(format!("ich9-pcie-port-{n}"));
        assert_eq!(
            told,
            [
                ("hostpci0", "0000:41:00".to_owned(), port(1)),
                ("hostpci1", "0000:44:00.0 0000:45:00".to_owned(), port(2)),
                ("hostpci5", "0000:42:00.0".to_owned(), PlaceInGuest::Conventional),
                ("vfio-pci 0000:43:00.0", "0000:43:00.0".to_owned(), PlaceInGuest::Port("extra".into())),
            ]
        );
        assert_eq!(machine.told("opt/ovmf/X-PciMmio64Mb"), Some("262144"));
        assert_eq!(machine.unknown, ["colour: green"]);
        assert_eq!(machine.complaints.len(), 1);
        assert_eq!(machine.snapshots, ["before"]);
        assert_eq!(machine.pending.len(), 3);
        assert_eq!(machine.disks.len(), 2);
    }

    #[test]
    fn a_node_takes_its_own_devices() {
        let text = "gpu\n\tmap node=a,path=0000:41:00.0\n\tmap node=b,path=0000:42:00.0;0000:42:00.1\n";
        let hosts = |node: Option<&str>| {
            let machine = parse("1.conf", b"hostpci0: mapping=gpu\n", &Mappings::parse(text, node)).unwrap();
            machine.passed[0].hosts.join(" ")
        };
        assert_eq!(hosts(Some("a")), "0000:41:00.0");
        assert_eq!(hosts(Some("b")), "0000:42:00.0 0000:42:00.1");
        assert_eq!(hosts(Some("c")), "");
        assert_eq!(hosts(None), "0000:41:00.0 0000:42:00.0 0000:42:00.1");
    }

    #[test]
    fn what_proxmox_refuses_to_start() {
        let refused = |lines: &str| {
            let text = format!("machine: q35\nmemory: 4096\n{lines}");
            let machine = parse("1.conf", text.as_bytes(), &Mappings::default()).unwrap();
            machine.refused.iter().map(|refused| refused.why.clone()).collect::<Vec<_>>().join("; ")
        };
        let node = |number: u8, hosts: &str, mib: u32| {
            format!("numa{number}: cpus={number},hostnodes={hosts},memory={mib},policy=bind\n")
        };
        assert_eq!(
            refused(&format!("numa: 1\nhugepages: 2\n{}{}", node(0, "0", 2048), node(1, "1", 2048))),
            ""
        );
        assert_eq!(refused(&format!("numa: 1\n{}", node(0, "0;1", 4096))), "");
        assert!(refused(&format!("numa: 1\nhugepages: 2\n{}", node(0, "0;1", 4096))).contains("\"0;1\""));
        assert!(refused(&format!("numa: 1\nhugepages: 2\n{}", node(0, "10", 4096))).contains("0 to 9"));
        assert!(refused("numa: 1\nhugepages: 2\nnuma0: cpus=0,memory=4096\n").contains("numa0"));
        assert!(refused("hugepages: 2\n").contains("numa: 1"));
        assert!(refused(&format!("numa: 1\n{}", node(0, "0", 1024))).contains("1024 MiB"));
        for (lines, why) in [
            ("numa: 1\nnuma0: cpus=0,hostnodes=0,memory=4096\n", "no policy"),
            ("numa: 1\nnuma0: cpus=0,policy=bind,hostnodes=0\n", "numa0: it has no memory"),
            ("numa: 1\nnuma0: memory=4096\n", "numa0: it has no cpus"),
            (
                "numa: 1\nhugepages: 1024\nnuma0: cpus=0,hostnodes=0,memory=1025,policy=bind\n",
                "page of 1024 MiB",
            ),
            ("numa: 1\nhotplug: disk,memory\nnuma0: cpus=0,memory=1024\n", "hotplugged"),
            ("hotplug: network,memory\n", "needs numa: 1"),
        ] {
            assert!(refused(lines).contains(why), "{lines}: {}", refused(lines));
        }
        // Memory that is hotplugged has its own sum, of two lines of one key the last one counts, and others are none.
        for fine in [
            "numa: 1\nhotplug: disk,memory\n",
            "numa: 1\nhotplug: 1\nnuma0: cpus=0,memory=1024\nnuma0: cpus=0,memory=4096\n",
            "numa: 1\nhugepages: 2\nnuma_x: 1\nnuma8: cpus=0,memory=1\n",
        ] {
            assert_eq!(refused(fine), "", "{fine}");
        }
        let off = format!("machine: q35\nmemory: 4096\n{}", node(0, "1", 4096));
        let off = parse("1.conf", off.as_bytes(), &Mappings::default()).unwrap();
        assert_eq!(off.memory.host_nodes, [0u32; 0]);
    }

    #[test]
    fn a_display_hides_kvm_unless_the_cpu_says_otherwise() {
        let hidden = |cpu: &str| {
            let text = format!("{cpu}\nhostpci0: 41:00.0,x-vga=1\n");
            parse("1.conf", text.as_bytes(), &Mappings::default()).unwrap().cpu.hidden
        };
        assert!(hidden("cpu: host") && !hidden("cpu: host,hidden=0") && hidden("name: a"));
    }

    #[test]
    fn what_proxmox_does_where_nothing_is_said() {
        let machine =
            parse("x.conf", b"memory: current=2048\nhostpci0: 01:00,pcie=1\n", &Mappings::default()).unwrap();
        assert!(!machine.is_q35() && machine.memory.balloon && machine.accelerated);
        assert_eq!(machine.firmware, Some(Firmware::Bios));
        assert_eq!(machine.passed[0].place, PlaceInGuest::Conventional);
        assert_eq!(machine.memory.bytes, Some(2 << 30));
    }

    #[test]
    fn files_that_are_none() {
        let why = |text: &[u8]| parse("x", text, &Mappings::default()).unwrap_err().to_string();
        assert!(why(b"").contains("no line"));
        assert!(why(b"hello: world\n").contains("no line"));
        assert!(why(b"\xff\x00").contains("not text"));
        assert!(why(b"name: a\0").contains("NUL"));
        let cut = parse("x", b"name: a\nargs: -device 'x\n", &Mappings::default()).unwrap();
        assert!(cut.complaints[0].contains("quotes"));
        let many =
            parse("x", b"machine: q35\nhostpci99: 01:00,pcie=1\nhostpci: 1\n", &Mappings::default()).unwrap();
        assert_eq!((many.complaints.len(), many.unknown.len()), (1, 1));
    }
}
