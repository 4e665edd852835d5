//! A virtual machine's file of Proxmox VE, `/etc/pve/qemu-server/VMID.conf` (qm.conf(5)), and the resource mappings of
//! `/etc/pve/mapping/pci.cfg`.
//!
//! Only what counts now is judged: the part before the first `[section]`. `[PENDING]` is what the next start changes; any
//! other section is a snapshot.

use super::machine::{
    Disk, Firmware, Kind, Machine, Passed, PlaceInGuest, Port, PortKind, ROOT_BUS, address, bytes,
};
use super::qemu;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// Where the files are.
pub const FOLDER: &str = "/etc/pve/qemu-server";
/// Where the resource mappings are.
pub const MAPPINGS: &str = "/etc/pve/mapping/pci.cfg";

/// Resource mappings: name, and for each of its devices its addresses on the nodes.
pub type Mappings = BTreeMap<String, Vec<Mapped>>;

/// One device that a mapping offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The cluster's node that has it.
    pub node: String,
    /// Its addresses there, several functions with `;` in the file.
    pub paths: Vec<String>,
}

/// Reads `pci.cfg`: a line `NAME` for each mapping, and indented lines `map id=...,node=...,path=...`.
pub fn mappings(text: &str) -> Mappings {
    let mut mappings = Mappings::new();
    let mut current = None;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        if !line.starts_with([' ', '\t']) {
            current = Some(line.trim().to_owned());
            mappings.entry(line.trim().to_owned()).or_default();
            continue;
        }
        let (Some(name), Some(rest)) = (&current, line.trim().strip_prefix("map ")) else { continue };
        let options = pairs(rest, "");
        let mapped = Mapped {
            node: value(&options, "node").unwrap_or("").to_owned(),
            paths: value(&options, "path").unwrap_or("").split(';').filter_map(address).collect(),
        };
        mappings.entry(name.clone()).or_default().push(mapped);
    }
    mappings
}

/// What a node of the cluster has of them.
pub fn of_node(mut mappings: Mappings, node: &str) -> Mappings {
    mappings.values_mut().for_each(|offers| offers.retain(|offer| offer.node == node));
    mappings
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
        if key == "args" {
            args = Some(text.to_owned());
            machine.args = Some(text.to_owned());
            known += 1;
        } else if set(&mut machine, key, text, mappings) {
            known += 1;
        } else {
            machine.unknown.push(format!("{key}: {text}"));
        }
    }
    ensure!(known > 0, "it has no line that Proxmox' configurations have");
    machine.has_mappings = !mappings.is_empty();
    place(&mut machine);
    if let Some(args) = args
        && let Err(why) = qemu::add(&mut machine, &args)
    {
        machine.complaints.push(format!("args: {why}: they are not looked at"));
    }
    Ok(machine)
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
        (_, "numa") if !number.is_empty() => {
            let options = pairs(text, "");
            let nodes = qemu::list(value(&options, "hostnodes").unwrap_or(""));
            if nodes.len() > 1 || nodes.iter().any(|node| *node > 9) {
                machine.memory.wide_binding = Some(format!("{key}: {text}"));
            }
            if value(&options, "policy").is_some_and(|policy| policy == "bind") {
                machine.memory.host_nodes.extend(nodes);
            }
        }
        (_, "hostpci") if !number.is_empty() => {
            let passed = hostpci(machine, key, text, mappings);
            machine.passed.push(passed);
        }
        (_, "virtio" | "scsi" | "sata" | "ide") if !number.is_empty() => {
            let options = pairs(text, "file");
            machine.disks.push(Disk {
                name: key.to_owned(),
                interface: stem.to_owned(),
                source: value(&options, "file").unwrap_or("").to_owned(),
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
    cpu.model = value(&options, "cputype").unwrap_or("").to_owned();
    cpu.hidden |= is_on(value(&options, "hidden"));
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
    if let Some(offers) = mapping.as_ref().and_then(|name| mappings.get(name)) {
        hosts.extend(offers.iter().flat_map(|offer| offer.paths.iter().cloned()));
    }
    // qemu-server adds kvm=off where a device is the guest's display.
    machine.cpu.hidden |= is_on(value(&options, "x-vga"));
    let own = ["host", "mapping", "mdev", "rombar", "x-vga", "pcie"];
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
        rom: value(&options, "rombar") != Some("0"),
        display: is_on(value(&options, "x-vga")),
        iommufd: false,
        properties: options.iter().filter(|(key, _)| !own.contains(&key.as_str())).cloned().collect(),
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
    fn a_node_has_its_own_devices() {
        let text = "gpu\n\tmap id=1,node=pve1,path=0000:41:00\n\tmap id=1,node=pve2,path=0000:81:00\n";
        let of = |node: &str| {
            of_node(mappings(text), node)["gpu"].iter().flat_map(|m| m.paths.clone()).collect::<Vec<_>>()
        };
        assert_eq!((of("pve1"), of("pve3").len()), (vec!["0000:41:00".to_owned()], 0));
    }

    #[test]
    fn a_whole_file() {
        let mappings = mappings(
            "fast\n\tmap id=144d:a80a,node=pve,path=0000:44:00.0\n\tmap node=other,path=0000:45:00\n",
        );
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
    fn what_proxmox_does_where_nothing_is_said() {
        let machine =
            parse("x.conf", b"memory: current=2048\nhostpci0: 01:00,pcie=1\n", &Mappings::new()).unwrap();
        assert!(!machine.is_q35() && machine.memory.balloon && machine.accelerated);
        assert_eq!(machine.firmware, Some(Firmware::Bios));
        assert_eq!(machine.passed[0].place, PlaceInGuest::Conventional);
        assert_eq!(machine.memory.bytes, Some(2 << 30));
    }

    #[test]
    fn files_that_are_none() {
        let why = |text: &[u8]| parse("x", text, &Mappings::new()).unwrap_err().to_string();
        assert!(why(b"").contains("no line"));
        assert!(why(b"hello: world\n").contains("no line"));
        assert!(why(b"\xff\x00").contains("not text"));
        assert!(why(b"name: a\0").contains("NUL"));
        let cut = parse("x", b"name: a\nargs: -device 'x\n", &Mappings::new()).unwrap();
        assert!(cut.complaints[0].contains("quotes"));
        let many =
            parse("x", b"machine: q35\nhostpci99: 01:00,pcie=1\nhostpci: 1\n", &Mappings::new()).unwrap();
        assert_eq!((many.complaints.len(), many.unknown.len()), (1, 1));
    }
}
