//! libvirt's domain XML, as `virsh dumpxml` prints it (libvirt: formatdomain). Document types are refused, and with them
//! every entity that a document could define.

#[cfg(test)]
mod tests;

use super::machine::{
    Disk, Firmware, Kind, MOST_DEVICES, Machine, Passed, PlaceInGuest, Port, PortKind, ROOT_BUS, Refused,
    bytes,
};
use super::qemu;
use anyhow::{Context as _, Result, ensure};
use roxmltree::{Document, Node, ParsingOptions};
use std::collections::BTreeMap;

/// More elements than any domain has.
const MOST_NODES: u32 = 100_000;

/// Reads a domain.
///
/// # Errors
/// It is no XML, has a document type, or is no domain.
pub fn parse(from: &str, text: &[u8]) -> Result<Machine> {
    let text = std::str::from_utf8(text).context("it is not text")?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).context("reading XML")?;
    let domain = document.root_element();
    ensure!(
        domain.has_tag_name("domain"),
        "its root is <{}> and not <domain>",
        domain.tag_name().name().chars().take(40).collect::<String>()
    );
    let mut machine = Machine::new(Kind::Libvirt, from);
    machine.accelerated = domain.attribute("type") == Some("kvm");
    machine.name = text_of(domain, "name");
    machine.uuid = text_of(domain, "uuid").map(|uuid| uuid.to_ascii_lowercase());
    if let Some(os) = child(domain, "os") {
        firmware(&mut machine, os);
    }
    cpu(&mut machine, domain);
    memory(&mut machine, domain);
    if let Some(guard) = child(domain, "launchSecurity") {
        machine.confidential = Some(guard.attribute("type").unwrap_or("launchSecurity").to_owned());
    }
    let strings = domain.descendants().filter(|node| node.has_tag_name("oemStrings"));
    let entries = strings.flat_map(|strings| children(strings, "entry"));
    machine.oem_strings =
        entries.filter_map(|entry| entry.text()).map(|text| text.trim().to_owned()).collect();
    for sysinfo in children(domain, "sysinfo").filter(|node| node.attribute("type") == Some("fwcfg")) {
        for entry in children(sysinfo, "entry") {
            let name = entry.attribute("name").unwrap_or("").to_owned();
            if !name.starts_with("opt/") {
                machine.refused.push(Refused {
                    why: format!("<sysinfo type='fwcfg'>: {name:?} does not begin with opt/"),
                    mend:
                        "give the entry a name below opt/, or hand it on with -fw_cfg in <qemu:commandline>"
                            .into(),
                });
                continue;
            }
            if RESERVED.iter().any(|reserved| name.starts_with(reserved)) {
                machine.refused.push(Refused {
                    why: format!("<sysinfo type='fwcfg'>: libvirt keeps names such as {name} to itself"),
                    mend: format!(
                        "take the entry out, and hand {name} on with -fw_cfg in <qemu:commandline>"
                    ),
                });
                continue;
            }
            machine.fw_cfg.push((name, entry.text().unwrap_or("").trim().to_owned()));
        }
    }
    if let Some(found) = child(domain, "devices") {
        devices(&mut machine, found)?;
    }
    let cpus = text_of(domain, "vcpu").and_then(|cpus| cpus.parse::<u32>().ok()).unwrap_or(0);
    let is_extended = domain
        .descendants()
        .filter(|node| node.has_tag_name("iommu"))
        .any(|node| child(node, "driver").is_some_and(|driver| driver.attribute("eim") == Some("on")));
    if cpus > MOST_CPUS && !(is_extended && machine.is_q35()) {
        machine.refused.push(Refused {
            why: format!(
                "{cpus} CPUs: it takes more than {MOST_CPUS} only in a q35 with an IOMMU and eim='on'"
            ),
            mend: format!("give the guest {MOST_CPUS} CPUs or fewer"),
        });
    }
    let inside = domain.children().filter(Node::is_element);
    let unknown = inside.map(|node| node.tag_name().name()).filter(|name| !KNOWN.contains(name));
    machine.unknown.extend(unknown.map(|name| format!("<{name}>")));
    // Options that are handed on to QEMU as they are.
    let handed_on = domain.children().find(|node| node.tag_name().name() == "commandline");
    if let Some(line) = handed_on {
        let args = line.children().filter(|node| node.tag_name().name() == "arg");
        let words: Vec<&str> = args.filter_map(|arg| arg.attribute("value")).collect();
        let line = shlex::try_join(words).unwrap_or_default();
        if let Err(why) = qemu::add(&mut machine, &line) {
            machine.complaints.push(format!("qemu:commandline: {why}"));
        }
    }
    Ok(machine)
}

/// Names of fw_cfg that libvirt refuses in `<sysinfo>` (qemu_validate.c, `qemuValidateDomainDefSysinfo`).
const RESERVED: [&str; 2] = ["opt/ovmf/", "opt/org.qemu/"];
/// More CPUs take an IOMMU with extended interrupt mode (qemu_validate.c).
pub const MOST_CPUS: u32 = 255;

/// Elements of a domain; all but those that are read say nothing about transfers.
const KNOWN: [&str; 39] = [
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "hwuuid",
    "bootloader",
    "bootloader_args",
    "os",
    "vcpu",
    "vcpus",
    "iothreads",
    "iothreadids",
    "cputune",
    "numatune",
    "resource",
    "memory",
    "currentMemory",
    "maxMemory",
    "memoryBacking",
    "memtune",
    "blkiotune",
    "sysinfo",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
    "pm",
    "devices",
    "seclabel",
    "launchSecurity",
    "commandline",
    "override",
    "keywrap",
    "perf",
];

fn firmware(machine: &mut Machine, os: Node<'_, '_>) {
    machine.board = child(os, "type").and_then(|kind| kind.attribute("machine")).unwrap_or("").to_owned();
    let loader = child(os, "loader");
    let is_pflash = loader.is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    machine.firmware = match os.attribute("firmware") {
        Some("efi") => Some(Firmware::Uefi),
        Some("bios") => Some(Firmware::Bios),
        _ if is_pflash => Some(Firmware::Uefi),
        _ => Some(Firmware::Bios),
    };
    let feature = |name: &str| {
        let features = children(os, "firmware").flat_map(|node| children(node, "feature"));
        features
            .filter(|node| node.attribute("name") == Some(name))
            .any(|node| node.attribute("enabled") == Some("yes"))
    };
    let vars = child(os, "nvram").and_then(|nvram| nvram.attribute("template")).unwrap_or("");
    machine.secure_boot = feature("enrolled-keys") || vars.contains(".ms.") || vars.contains("secboot");
}

fn cpu(machine: &mut Machine, domain: Node<'_, '_>) {
    if let Some(cpu) = child(domain, "cpu") {
        let mode = cpu.attribute("mode").unwrap_or("custom");
        machine.cpu.model = match mode {
            "host-passthrough" => "host".into(),
            "maximum" => "max".into(),
            "host-model" => mode.into(),
            _ => text_of(cpu, "model").unwrap_or_default(),
        };
        if let Some(width) = child(cpu, "maxphysaddr") {
            machine.cpu.host_phys_bits = width.attribute("mode") == Some("passthrough");
            machine.cpu.phys_bits = width.attribute("bits").and_then(|bits| bits.parse().ok());
        }
        let flags = children(cpu, "feature").filter_map(|node| {
            Some(format!("{}={}", node.attribute("name")?, node.attribute("policy").unwrap_or("require")))
        });
        machine.cpu.flags = flags.collect();
        machine.cpu.no_hypervisor = machine.cpu.flags.iter().any(|flag| flag == "hypervisor=disable");
    }
    let hidden = domain.descendants().find(|node| node.has_tag_name("hidden"));
    machine.cpu.hidden = hidden.is_some_and(|node| node.attribute("state") == Some("on"));
}

/// An element's number in bytes; libvirt counts in KiB where no unit is given.
fn size(node: Node<'_, '_>) -> Option<u64> {
    let number = node.text()?.trim();
    let unit = node.attribute("unit").unwrap_or("KiB");
    let unit = if matches!(unit, "b" | "bytes") { "B" } else { unit };
    bytes(&format!("{number}{unit}"), 1 << 10)
}

fn memory(machine: &mut Machine, domain: Node<'_, '_>) {
    machine.memory.bytes = child(domain, "memory").and_then(size);
    if let Some(pages) = child(domain, "memoryBacking").and_then(|backing| child(backing, "hugepages")) {
        let page = child(pages, "page").and_then(|page| {
            bytes(&format!("{}{}", page.attribute("size")?, page.attribute("unit").unwrap_or("KiB")), 1)
        });
        machine.memory.hugepages = Some(page.unwrap_or(0));
    }
    machine.memory.hard_limit =
        child(domain, "memtune").and_then(|tune| child(tune, "hard_limit")).and_then(size);
    if let Some(tune) = child(domain, "numatune") {
        let bound = tune.children().filter(|node| matches!(node.tag_name().name(), "memory" | "memnode"));
        for node in bound.filter(|node| node.attribute("mode").is_none_or(|mode| mode == "strict")) {
            machine.memory.bind(node.attribute("nodeset").unwrap_or(""));
        }
    }
}

fn devices(machine: &mut Machine, devices: Node<'_, '_>) -> Result<()> {
    // Where nothing is said, libvirt adds one.
    machine.memory.balloon =
        child(devices, "memballoon").is_none_or(|node| node.attribute("model") != Some("none"));
    machine.viommu =
        child(devices, "iommu").map(|node| node.attribute("model").unwrap_or("iommu").to_owned());
    for controller in children(devices, "controller").filter(|node| node.attribute("type") == Some("pci")) {
        let kind = match controller.attribute("model").unwrap_or("") {
            "pcie-root-port" => PortKind::RootPort,
            "pcie-switch-upstream-port" => PortKind::Upstream,
            "pcie-switch-downstream-port" => PortKind::Downstream,
            "pcie-expander-bus" => PortKind::Expander,
            "pci-bridge" | "pcie-to-pci-bridge" | "dmi-to-pci-bridge" | "pci-expander-bus" => {
                PortKind::Conventional
            }
            _ => continue,
        };
        let (bus, addr) = child(controller, "address").map_or((ROOT_BUS.into(), String::new()), place);
        let id = bus_name(number(controller.attribute("index").unwrap_or("")));
        machine.ports.push(Port { id, kind, bus, addr });
    }
    let hosted =
        children(devices, "hostdev").filter(|node| matches!(node.attribute("type"), Some("pci" | "mdev")));
    for (count, node) in hosted.enumerate() {
        // Each is looked up among the controllers.
        ensure!(count < MOST_DEVICES, "it passes more devices than any machine has");
        let passed = passed(machine, node, count);
        machine.passed.push(passed);
    }
    for node in children(devices, "disk") {
        let target = child(node, "target");
        let bus = target.and_then(|target| target.attribute("bus")).unwrap_or("");
        machine.disks.push(Disk {
            name: target.and_then(|target| target.attribute("dev")).unwrap_or("disk").to_owned(),
            interface: bus.to_owned(),
            cdrom: node.attribute("device") == Some("cdrom"),
        });
    }
    Ok(())
}

fn passed(machine: &mut Machine, node: Node<'_, '_>, count: usize) -> Passed {
    let alias = child(node, "alias").and_then(|alias| alias.attribute("name"));
    let name = alias.map_or_else(|| format!("hostdev{count}"), str::to_owned);
    let source = child(node, "source").and_then(|source| child(source, "address"));
    let host = source.filter(|address| address.attribute("bus").is_some()).map(|address| {
        let part = |key: &str| number(address.attribute(key).unwrap_or("0"));
        format!("{:04x}:{:02x}:{:02x}.{:x}", part("domain"), part("bus"), part("slot"), part("function"))
    });
    let mediated = source.and_then(|address| address.attribute("uuid")).map(str::to_owned);
    let guest = node.children().find(|child| child.has_tag_name("address")).map(place);
    let place = match &guest {
        // libvirt gives a device of a q35 a root port of its own when the domain is defined.
        None if machine.is_q35() => {
            let id = format!("auto.{count}");
            let port =
                Port { id: id.clone(), kind: PortKind::RootPort, bus: ROOT_BUS.into(), addr: String::new() };
            machine.ports.push(port);
            PlaceInGuest::Port(id)
        }
        None => PlaceInGuest::Conventional,
        Some((bus, _)) if bus == ROOT_BUS && machine.is_q35() => PlaceInGuest::RootBus,
        Some((bus, _)) => match machine.port(bus).map(|port| port.kind) {
            Some(PortKind::Conventional) => PlaceInGuest::Conventional,
            Some(_) => PlaceInGuest::Port(bus.clone()),
            None if !machine.is_q35() => PlaceInGuest::Conventional,
            None => PlaceInGuest::Unknown(bus.clone()),
        },
    };
    Passed {
        name,
        hosts: host.into_iter().collect(),
        mapping: None,
        mediated,
        place,
        addr: guest.map_or(String::new(), |(_, addr)| addr),
        display: node.attribute("display") == Some("on"),
        iommufd: child(node, "driver").is_some_and(|driver| driver.attribute("iommufd") == Some("yes")),
        properties: BTreeMap::new(),
        written: String::new(),
    }
}

/// An `<address>`: the bus' name, and the slot there.
fn place(address: Node<'_, '_>) -> (String, String) {
    let part = |key: &str| number(address.attribute(key).unwrap_or("0"));
    (bus_name(part("bus")), format!("{:02x}.{:x}", part("slot"), part("function")))
}

fn bus_name(index: u32) -> String {
    if index == 0 { ROOT_BUS.to_owned() } else { format!("pci.{index}") }
}

/// `0x1c` or `28`.
fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn children<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    child(node, name)?.text().map(|text| text.trim().to_owned())
}
