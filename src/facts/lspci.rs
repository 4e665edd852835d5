//! PCI devices as `lspci` prints them, for captures without sysfs, or with less of it than a root's `lspci -vvv` or
//! `lspci -xxxx` shows. Its forms differ by options (`-n`, `-nn`, `-D`, `-k`) and by who asked; what a form does not say
//! stays unread.

use super::commands::CommandOutput;
use super::pci::{Bar, Class, Id, PciDevice};
use super::pci_config::{Acs, Express, PciConfig, ResizableBar};
use super::{Fact, Root};
use std::collections::BTreeMap;

/// How many bytes of one listing are read: a server's with `-xxxx` has some 5 MB.
const BYTES: u64 = 32 << 20;
/// The most devices of one listing.
const DEVICES: usize = 8192;

/// Reads every listing of a capture as one; devices by address.
pub fn read(root: &Root, commands: &[CommandOutput]) -> Vec<PciDevice> {
    let programs = commands.iter().filter(|command| command.program() == "lspci");
    let mut paths: Vec<String> = programs.map(|command| format!("{}/stdout", command.from)).collect();
    // A capture's owner may have put them anywhere.
    if !root.is_live() {
        for folder in ["/", "/root", "/tmp", "/var/log", "/run/gdsboot"] {
            let listed = root.list(folder);
            let names = listed.value().into_iter().flatten().filter(|name| {
                let name = name.to_ascii_lowercase();
                name.starts_with("lspci") && !name.ends_with(".gz") && !name.ends_with(".xz")
            });
            paths.extend(names.map(|name| format!("{}/{name}", folder.trim_end_matches('/'))));
        }
    }
    let mut devices: BTreeMap<String, PciDevice> = BTreeMap::new();
    for path in paths {
        let Fact::Known { value: bytes, .. } = root.bytes_up_to(&path, BYTES) else { continue };
        for device in parse(&path, &String::from_utf8_lossy(&bytes)) {
            match devices.get_mut(&device.address) {
                Some(known) => complete(known, &device, true),
                None => _ = devices.insert(device.address.clone(), device),
            }
        }
    }
    devices.into_values().collect()
}

/// Adds to a device what is not known of it. `links` are the driver and the IOMMU group, whose absence in sysfs says
/// something too.
pub fn complete(device: &mut PciDevice, more: &PciDevice, links: bool) {
    fn fill<T: Clone>(fact: &mut Fact<T>, more: &Fact<T>) {
        if fact.value().is_none() && more.value().is_some() {
            *fact = more.clone();
        }
    }
    fill(&mut device.vendor, &more.vendor);
    fill(&mut device.device, &more.device);
    fill(&mut device.subsystem_vendor, &more.subsystem_vendor);
    fill(&mut device.subsystem_device, &more.subsystem_device);
    fill(&mut device.class, &more.class);
    fill(&mut device.numa_node, &more.numa_node);
    fill(&mut device.link_speed, &more.link_speed);
    fill(&mut device.link_speed_max, &more.link_speed_max);
    fill(&mut device.link_width, &more.link_width);
    fill(&mut device.link_width_max, &more.link_width_max);
    fill(&mut device.bars, &more.bars);
    if links {
        fill(&mut device.driver, &more.driver);
        fill(&mut device.iommu_group, &more.iommu_group);
    }
    let length = |device: &PciDevice| device.config.value().map_or(0, |config| config.length);
    if length(more) > length(device) {
        device.config = more.config.clone();
    }
}

/// Reads one listing.
pub fn parse(from: &str, text: &str) -> Vec<PciDevice> {
    let mut devices: Vec<Listed> = Vec::new();
    for line in text.lines() {
        if line.starts_with(|c: char| c.is_ascii_hexdigit()) {
            match Listed::begin(from, line) {
                Some(_) if devices.len() >= DEVICES => break,
                Some(device) => devices.push(device),
                None => {
                    if let Some(device) = devices.last_mut() {
                        device.dump(line);
                    }
                }
            }
        } else if let Some(device) = devices.last_mut() {
            device.take(from, line.trim());
        }
    }
    let says = |has: fn(&Listed) -> bool| devices.iter().any(has);
    let says_drivers = says(|listed| listed.device.driver.value().is_some());
    let says_groups = says(|listed| listed.device.iommu_group.value().is_some());
    let says_windows = says(|listed| !listed.bars.is_empty());
    let finish = |listed: Listed| {
        let mut device = listed.device;
        if says_drivers && device.driver.value().is_none() {
            device.driver = Fact::Missing { from: from.to_owned() };
        }
        if says_groups && device.iommu_group.value().is_none() {
            device.iommu_group = Fact::Missing { from: from.to_owned() };
        }
        if says_windows {
            device.bars = Fact::known(from, listed.bars);
        }
        if let Ok(config) = PciConfig::parse(&listed.bytes) {
            device.config = Fact::known(from, config);
        } else if listed.config.length > 0 {
            let mut config = listed.config;
            if config.acs.is_some() && !listed.shows_acs {
                config.acs = None;
                config.length = config.length.min(256);
            }
            device.config = Fact::known(from, config);
        }
        device
    };
    devices.into_iter().map(finish).collect()
}

/// A device on its way out of a listing.
struct Listed {
    device: PciDevice,
    bars: Vec<Bar>,
    config: PciConfig,
    /// The configuration space, where it was dumped.
    bytes: Vec<u8>,
    /// Was the state of its ACS shown? A short listing has the capability's name alone.
    shows_acs: bool,
}

/// What lspci calls a class where it prints no numbers.
const CLASSES: [(&str, u32); 7] = [
    ("3D controller", 0x03_0200),
    ("VGA compatible controller", 0x03_0000),
    ("Display controller", 0x03_8000),
    ("Non-Volatile memory controller", 0x01_0802),
    ("PCI bridge", 0x06_0400),
    ("Host bridge", 0x06_0000),
    ("Audio device", 0x04_0300),
];

impl Listed {
    /// A device's first line: `0000:01:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H100 PCIe] [10de:2331] (rev a1)`,
    /// with `-n` `01:00.0 0302: 10de:2331 (rev a1)`.
    fn begin(from: &str, line: &str) -> Option<Self> {
        let (address, rest) = line.split_once(' ')?;
        let address = full_address(address)?;
        let (class_words, name) = rest.split_once(": ").unwrap_or((rest, ""));
        let mut device = PciDevice { address, ..PciDevice::default() };
        let interface = between(name, "(prog-if ", ")").and_then(|words| words.split_whitespace().next());
        let interface = interface.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let number = last_in_brackets(class_words).unwrap_or(class_words.trim());
        let class = match (number.len(), u32::from_str_radix(number, 16)) {
            // Of a class without its interface NVMe's and a bridge's usual ones are meant.
            (4, Ok(class)) => Some(class << 8 | interface.unwrap_or(if class == 0x0108 { 2 } else { 0 })),
            _ => CLASSES.iter().find(|(words, _)| class_words.trim() == *words).map(|(_, class)| *class),
        };
        if let Some(class) = class {
            device.class = Fact::known(from, Class(class));
        }
        let ids =
            last_in_brackets(name.split(" (rev ").next().unwrap_or(name)).or(name.split_whitespace().next());
        match ids.and_then(ids_of) {
            Some((vendor, id)) => {
                device.vendor = Fact::known(from, vendor);
                device.device = Fact::known(from, id);
            }
            None if name.starts_with("NVIDIA Corporation") => {
                device.vendor = Fact::known(from, super::pci::NVIDIA);
            }
            None => {}
        }
        // What has fallen off the bus answers with ones, also as its revision.
        let all_ones = name.contains("(rev ff)");
        let config = PciConfig { all_ones, length: if all_ones { 64 } else { 0 }, ..PciConfig::default() };
        Some(Self { device, bars: Vec::new(), config, bytes: Vec::new(), shows_acs: false })
    }

    /// A line of `-x`: `10: 0c 00 00 ...`; they come in their order.
    fn dump(&mut self, line: &str) {
        let Some((offset, bytes)) = line.split_once(": ") else { return };
        if usize::from_str_radix(offset, 16) != Ok(self.bytes.len()) || self.bytes.len() >= 4096 {
            return;
        }
        let bytes: Result<Vec<u8>, _> =
            bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect();
        self.bytes.extend(bytes.ok().filter(|bytes| bytes.len() == 16).unwrap_or_default());
    }

    /// A line below a device's first one, without its indentation.
    fn take(&mut self, from: &str, line: &str) {
        let Some((label, rest)) = line.split_once(':') else {
            self.config.all_ones |= line.starts_with("!!! Unknown header type 7f");
            return;
        };
        let rest = rest.trim();
        let number = || rest.split_whitespace().next()?.parse().ok();
        match label {
            "Kernel driver in use" => self.device.driver = Fact::known(from, rest.to_owned()),
            "NUMA node" => {
                if let Ok(node) = rest.parse() {
                    self.device.numa_node = Fact::known(from, node);
                }
            }
            "IOMMU group" => {
                if let Some(group) = number() {
                    self.device.iommu_group = Fact::known(from, group);
                }
            }
            "Subsystem" => {
                if let Some((vendor, id)) = last_in_brackets(rest).or(Some(rest)).and_then(ids_of) {
                    self.device.subsystem_vendor = Fact::known(from, vendor);
                    self.device.subsystem_device = Fact::known(from, id);
                }
            }
            "Control" => {
                self.see(64);
                self.config.memory_enabled = rest.contains("Mem+");
                self.config.bus_master = rest.contains("BusMaster+");
            }
            "Bus" => {
                let bus = between(rest, "secondary=", ",").and_then(|bus| u8::from_str_radix(bus, 16).ok());
                self.config.secondary_bus = bus;
            }
            "Capabilities" => self.capability(rest),
            "LnkCap" | "LnkSta" => self.link(from, label == "LnkCap", rest),
            "ACSCap" => self.acs().capabilities = acs_bits(rest),
            "ACSCtl" => {
                self.shows_acs = true;
                self.acs().control = acs_bits(rest);
            }
            _ => {
                let index = |name: &str| label.strip_prefix(name)?.trim().parse().ok();
                if let Some(bar) = index("Region ").and_then(|index| window(index, rest)) {
                    self.bars.push(bar);
                } else if let Some(resizable) = index("BAR ").and_then(|index| resizable(index, rest)) {
                    self.config.resizable_bars.push(resizable);
                }
            }
        }
    }

    fn see(&mut self, bytes: u32) {
        self.config.length = self.config.length.max(bytes);
    }

    fn acs(&mut self) -> &mut Acs {
        self.config.acs.get_or_insert_with(Acs::default)
    }

    /// `[60] Express (v2) Endpoint, IntMsgNum 0`; those from 100 on are extended ones.
    fn capability(&mut self, rest: &str) {
        let Some((offset, words)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return;
        };
        let Some(offset) = offset.split(' ').next().and_then(|hex| u16::from_str_radix(hex, 16).ok()) else {
            return;
        };
        self.see(if offset >= 0x100 { 4096 } else { 256 });
        let words = words.trim();
        if let Some(kind) = words.strip_prefix("Express") {
            const KINDS: [(&str, u8); 7] = [
                ("Legacy Endpoint", 1),
                ("Integrated Endpoint", 9),
                ("Endpoint", 0),
                ("Root Port", 4),
                ("Upstream Port", 5),
                ("Downstream Port", 6),
                ("Bridge", 7),
            ];
            let kind = KINDS.iter().find(|(name, _)| kind.contains(name)).map_or(0, |(_, kind)| *kind);
            self.config.express = Some(Express { kind, ..Express::default() });
        } else if words.starts_with("Access Control Services") {
            self.acs().offset = offset;
        }
        self.config.aer |= words.starts_with("Advanced Error Reporting");
    }

    /// `Port #0, Speed 16GT/s, Width x16, ...`, `Speed 2.5GT/s (downgraded), Width x4 (downgraded)`.
    fn link(&mut self, from: &str, most: bool, rest: &str) {
        let speed = between(rest, "Speed ", "GT/s").and_then(|speed| {
            let speed: f64 = speed.trim().parse().ok()?;
            (0.0..1000.0).contains(&speed).then(|| format!("{speed:.1} GT/s PCIe"))
        });
        let width = rest.split_once("Width x").map(|(_, width)| width);
        let width = width.and_then(|width| width.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        let device = &mut self.device;
        let (to_speed, to_width) = if most {
            (&mut device.link_speed_max, &mut device.link_width_max)
        } else {
            (&mut device.link_speed, &mut device.link_width)
        };
        if let Some(speed) = speed {
            *to_speed = Fact::known(from, speed);
        }
        if let Some(width) = width {
            *to_width = Fact::known(from, width);
        }
    }
}

/// `01:00.0` is in domain 0000.
fn full_address(text: &str) -> Option<String> {
    let (head, function) = text.rsplit_once('.')?;
    let mut parts: Vec<&str> = head.split(':').collect();
    if parts.len() == 2 {
        parts.insert(0, "0000");
    }
    let [domain, bus, device] = parts.as_slice() else { return None };
    let is_hex = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let is_one = is_hex(domain, 4, 8) && is_hex(bus, 2, 2) && is_hex(device, 2, 2) && is_hex(function, 1, 1);
    is_one.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

/// `10de:2331`.
fn ids_of(text: &str) -> Option<(Id, Id)> {
    let (vendor, device) = text.split_once(':')?;
    let id = |text: &str| (text.len() == 4).then(|| u16::from_str_radix(text, 16).ok().map(Id)).flatten();
    Some((id(vendor)?, id(device)?))
}

fn last_in_brackets(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once('[')?;
    rest.split_once(']').map(|(inside, _)| inside)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}

/// `128G`, `256MB`.
fn bytes_of(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[end..].chars().next() {
        None => 0,
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some(_) => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `Memory at 10000000000 (64-bit, prefetchable) [size=128G]`; `<unassigned>` where there was no room
/// (include/linux/ioport.h for the flags).
fn window(index: u32, rest: &str) -> Option<Bar> {
    let rest = rest.trim_start_matches("[virtual] ");
    let (kind, place) = rest.split_once(" at ")?;
    let start = place.split_whitespace().next()?;
    let is_placed = !start.starts_with('<');
    let mut flags = if kind.contains("I/O") { 0x100 } else { 0x200 };
    for (word, flag) in
        [("64-bit", 0x10_0000), ("(64-bit, prefetchable", 0x2000), ("(32-bit, prefetchable", 0x2000)]
    {
        if place.contains(word) {
            flags |= flag;
        }
    }
    let start = if is_placed { u64::from_str_radix(start, 16).ok()? } else { 0 };
    if !is_placed {
        flags |= 0x2000_0000;
    }
    let size = between(place, "[size=", "]").and_then(bytes_of).unwrap_or(0);
    Some(Bar { index, start, size, flags })
}

/// `current size: 256MB, supported: 64MB 128MB 256MB`.
fn resizable(index: u32, rest: &str) -> Option<ResizableBar> {
    let current = between(rest, "current size: ", ",").and_then(bytes_of)?;
    let (_, supported) = rest.split_once("supported: ")?;
    let index = u8::try_from(index).ok()?;
    Some(ResizableBar { index, current, sizes: supported.split_whitespace().filter_map(bytes_of).collect() })
}

/// `SrcValid+ TransBlk- ReqRedir+ ...`: the bits of the control register in their order.
fn acs_bits(rest: &str) -> u16 {
    const BITS: [&str; 7] =
        ["SrcValid+", "TransBlk+", "ReqRedir+", "CmpltRedir+", "UpstreamFwd+", "EgressCtrl+", "DirectTrans+"];
    (0..).zip(BITS).filter(|(_, word)| rest.contains(word)).fold(0, |bits, (n, _)| bits | 1 << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "\
0000:00:01.0 PCI bridge [0604]: Advanced Micro Devices, Inc. [AMD] Device [1022:14ab] (rev 01) (prog-if 00 [Normal decode])
\tControl: I/O+ Mem+ BusMaster+ SpecCycle-
\tNUMA node: 1
\tIOMMU group: 7
\tBus: primary=00, secondary=12, subordinate=12, sec-latency=0
\tCapabilities: [58] Express (v2) Root Port (Slot+), MSI 00
\tCapabilities: [2a0 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
\tKernel driver in use: pcieport

0000:12:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H100 PCIe] [10de:2331] (rev a1)
\tSubsystem: NVIDIA Corporation Device [10de:1626]
\tRegion 0: Memory at 81000000 (32-bit, non-prefetchable) [disabled] [size=16M]
\tRegion 1: Memory at <unassigned> (64-bit, prefetchable) [disabled] [size=128G]
\tRegion 5: I/O ports at e000 [size=128]
\tCapabilities: [60] Express (v2) Endpoint, IntMsgNum 0
\t\tLnkCap:\tPort #0, Speed 32GT/s, Width x16, ASPM not supported
\t\tLnkSta:\tSpeed 2.5GT/s (downgraded), Width x4 (downgraded)
\tCapabilities: [bb0 v1] Physical Resizable BAR
\t\tBAR 1: current size: 256MB, supported: 64MB 256MB 128GB
\tKernel modules: nvidiafb, nouveau
";

    #[test]
    fn a_roots_verbose_listing() {
        let devices = parse("x", VERBOSE);
        let [port, gpu] = devices.as_slice() else { panic!("{devices:?}") };
        assert_eq!((port.address.as_str(), port.ids().as_str()), ("0000:00:01.0", "1022:14ab"));
        let config = port.config.value().unwrap();
        assert_eq!(
            (config.length, config.secondary_bus, config.express.unwrap().kind),
            (4096, Some(0x12), 4)
        );
        let acs = config.acs.unwrap();
        assert_eq!((acs.offset, acs.capabilities, acs.control, acs.redirects()), (0x2a0, 0x5f, 0x1d, true));
        assert_eq!((port.numa_node.value(), port.iommu_group.value()), (Some(&1), Some(&7)));
        assert_eq!(port.driver.value().unwrap(), "pcieport");
        assert!(gpu.is_nvidia_gpu());
        assert!(
            matches!(gpu.driver, Fact::Missing { .. }) && matches!(gpu.iommu_group, Fact::Missing { .. })
        );
        assert_eq!((gpu.link_width.value(), gpu.link_width_max.value()), (Some(&4), Some(&16)));
        assert_eq!(gpu.link_speed.value().unwrap(), "2.5 GT/s PCIe");
        assert_eq!(gpu.link_speed_max.value().unwrap(), "32.0 GT/s PCIe");
        let lost = gpu.bar(1).unwrap();
        assert_eq!((lost.start, lost.size, lost.flags), (0, 128 << 30, 0x2010_2200));
        assert_eq!(gpu.bar(5).unwrap().flags, 0x100);
        assert_eq!(gpu.config.value().unwrap().resizable_bars[0].sizes, [64 << 20, 256 << 20, 128 << 30]);
    }

    #[test]
    fn other_forms() {
        let devices = parse("x", "01:00.0 0302: 10de:2331 (rev a1)\n02:00.0 0108: 144d:a80a (prog-if 02)\n");
        assert_eq!(devices[0].class.value(), Some(&Class(0x03_0200)));
        assert_eq!(
            (devices[1].class.value(), devices[1].ids().as_str()),
            (Some(&Class(0x01_0802)), "144d:a80a")
        );
        assert!(matches!(devices[0].driver, Fact::NotRead { .. }));
        let devices = parse(
            "x",
            "10000:01:00.0 Non-Volatile memory controller: Intel Corporation NVMe\n01:00.0 3D controller: NVIDIA Corporation GH100 (rev ff)\n\t!!! Unknown header type 7f\n",
        );
        assert_eq!(
            (devices[0].address.as_str(), devices[0].class.value()),
            ("10000:01:00.0", Some(&Class(0x01_0802)))
        );
        assert!(devices[1].is_nvidia_gpu() && devices[1].config.value().unwrap().all_ones);
    }

    #[test]
    fn a_capabilitys_name_is_not_its_state() {
        let short = VERBOSE.lines().filter(|line| !line.contains("ACSC")).collect::<Vec<_>>().join("\n");
        let config = parse("x", &short)[0].config.clone();
        let config = config.value().unwrap();
        assert!(config.acs.is_none() && config.sees_capabilities() && !config.sees_extended());
    }

    #[test]
    fn a_dump_of_the_configuration_space() {
        let line = |n: usize| format!("{:02x}: {}\n", n * 16, ["de 10"; 8].join(" "));
        let text: String = (0..16).map(line).collect();
        let devices = parse("x", &format!("01:00.0 0302: 10de:2331\n{text}"));
        assert_eq!(devices[0].config.value().unwrap().length, 256);
    }

    #[test]
    fn what_is_no_listing() {
        for text in [
            "",
            "x",
            "deadbeef",
            "01:00.0",
            "\tRegion 0: x\n",
            "0: x y\n01:00.0 a\nff: zz\n",
            "[: ] (\n01:00.0 [[]]: [\n\tRegion 99999999999: Memory at  (\n\tLnkSta: Speed 1e999GT/s, Width x99999999999\n\tCapabilities: [é\n",
        ] {
            parse("x", text);
        }
        assert!(parse("x", "not found").is_empty());
    }

    #[test]
    fn sysfs_is_completed_and_not_contradicted() {
        let mut device = PciDevice {
            driver: Fact::Missing { from: "driver".into() },
            link_width: Fact::known("sysfs", 8),
            ..PciDevice::default()
        };
        let listed = parse("x", VERBOSE);
        complete(
            &mut device,
            &PciDevice { driver: Fact::known("x", "nouveau".into()), ..listed[1].clone() },
            false,
        );
        assert_eq!((device.link_width.value(), device.link_width_max.value()), (Some(&8), Some(&16)));
        assert_eq!((device.driver.value(), device.config.value().unwrap().length), (None, 4096));
    }
}
