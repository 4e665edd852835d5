//! PCI devices, from `/sys/bus/pci/devices` (Documentation/ABI/testing/sysfs-bus-pci).

use super::pci_config::PciConfig;
use super::{Fact, Root};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A vendor or device number. Shown and serialised as four hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u16);

/// A class code: base class, subclass, programming interface. Shown and serialised as six hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub u32);

/// NVIDIA's vendor number.
pub const NVIDIA: Id = Id(0x10de);

impl Class {
    /// Base class 03: display controllers, which is what every GPU is, with or without a connector.
    pub fn is_display(self) -> bool {
        self.0 >> 16 == 0x03
    }

    /// 01.08.02: an NVMe controller.
    pub fn is_nvme(self) -> bool {
        self.0 == 0x01_0802
    }

    /// Base class 02: network controllers, Ethernet and InfiniBand.
    pub fn is_network(self) -> bool {
        self.0 >> 16 == 0x02
    }

    /// 06.04: a bridge between two PCI buses; every PCI Express port is one.
    pub fn is_bridge(self) -> bool {
        self.0 >> 8 == 0x0604
    }

    /// 06.00: a host bridge.
    pub fn is_host_bridge(self) -> bool {
        self.0 >> 8 == 0x0600
    }

    /// 04.03: an audio function; every GPU with a video output has one.
    pub fn is_audio(self) -> bool {
        self.0 >> 8 == 0x0403
    }
}

/// One function of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PciDevice {
    /// `domain:bus:device.function`, as in `0000:01:00.0`.
    pub address: String,
    /// Who made it.
    pub vendor: Fact<Id>,
    /// What it is, by the vendor's numbering.
    pub device: Fact<Id>,
    /// Who made the card.
    pub subsystem_vendor: Fact<Id>,
    /// What the card is, by that vendor's numbering.
    pub subsystem_device: Fact<Id>,
    /// What kind of thing it is.
    pub class: Fact<Class>,
    /// The driver that is bound to it; missing where none is.
    pub driver: Fact<String>,
    /// Its NUMA node; -1 where the firmware does not say.
    pub numa_node: Fact<i32>,
    /// Its IOMMU group; missing where no IOMMU is in use.
    pub iommu_group: Fact<u32>,
    /// The link's speed now, as the kernel words it (`32.0 GT/s PCIe`); missing for what is not PCI Express.
    pub link_speed: Fact<String>,
    /// The fastest that the device can do.
    pub link_speed_max: Fact<String>,
    /// The link's lanes now.
    pub link_width: Fact<u32>,
    /// The most lanes that the device has.
    pub link_width_max: Fact<u32>,
    /// Its memory and port windows, those of size 0 left out.
    pub bars: Fact<Vec<Bar>>,
    /// The revision, by the vendor's numbering.
    pub revision: Fact<u8>,
    /// Where it hangs in the machine.
    pub path: Fact<PciPath>,
    /// Its configuration space.
    pub config: Fact<PciConfig>,
    /// How the kernel can reset it alone, the first that works being used: `flr`, `pm`, `bus`, ...; missing where it
    /// cannot, and before 5.15.
    pub reset_methods: Fact<Vec<String>>,
    /// Errors on its link since the kernel started; missing where the kernel does not count them.
    pub aer: Fact<Aer>,
    /// Its memory that other devices may reach; missing where its driver offers none.
    pub p2pmem: Fact<P2pMemory>,
    /// Its virtual functions; missing where it cannot have any.
    pub sriov: Fact<Sriov>,
    /// For a virtual function: the function that it belongs to.
    pub physical_function: Fact<String>,
    /// The CPUs that are nearest, as in `0-31,64-95`.
    pub local_cpus: Fact<String>,
    /// `D0` where it is awake.
    pub power_state: Fact<String>,
    /// May it sleep while nobody uses it? `auto` where it may, `on` where not.
    pub power_control: Fact<String>,
}

/// The way from the host bridge to a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PciPath {
    /// The host bridge, as in `pci0000:00`.
    pub root: String,
    /// The addresses of the bridges in between, the one next to the host bridge first.
    pub bridges: Vec<String>,
}

/// Errors that the PCI Express link reported, by the counters of `aer_dev_*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Aer {
    /// Repaired by sending again.
    pub correctable: u64,
    /// Data was lost, the link works.
    pub nonfatal: u64,
    /// The link did not work any more.
    pub fatal: u64,
    /// The counters that are not 0, by the kernel's names.
    pub named: Vec<(String, u64)>,
}

/// Memory of a device that the kernel's p2pdma knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct P2pMemory {
    /// Bytes to hand out; 0 where the driver hands them out itself.
    pub size: Option<u64>,
    /// Bytes that nobody has.
    pub available: Option<u64>,
    /// Offered to every driver.
    pub published: Option<bool>,
}

/// SR-IOV as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Sriov {
    /// The most virtual functions.
    pub total: u32,
    /// Those that exist.
    pub in_use: u32,
}

/// One window of a device, a line of `resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bar {
    /// 0 to 5 are the BARs, 6 the expansion ROM, 7 and more SR-IOV BARs or a bridge's windows.
    pub index: u32,
    /// Where it begins, a bus address. 0 where it was not placed.
    pub start: u64,
    /// How long it is, in bytes.
    pub size: u64,
    /// `IORESOURCE_*` bits (include/linux/ioport.h).
    pub flags: u64,
}

impl Bar {
    /// `IORESOURCE_PREFETCH`.
    pub fn is_prefetchable(self) -> bool {
        self.flags & 0x2000 != 0
    }

    /// `IORESOURCE_MEM_64`.
    pub fn is_64_bit(self) -> bool {
        self.flags & 0x10_0000 != 0
    }
}

impl PciDevice {
    /// Is it an NVIDIA GPU (or its virtual function)?
    pub fn is_nvidia_gpu(&self) -> bool {
        self.vendor.value() == Some(&NVIDIA) && self.class.value().is_some_and(|class| class.is_display())
    }

    /// Reads every device, ordered by address.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        const DEVICES: &str = "/sys/bus/pci/devices";
        root.list(DEVICES).map(|names| names.iter().map(|name| Self::read(root, DEVICES, name)).collect())
    }

    fn read(root: &Root, devices: &str, address: &str) -> Self {
        let path = |file: &str| format!("{devices}/{address}/{file}");
        let id = |file: &str| root.parse(&path(file), |text| parse_hex(text, 4).map(|id| Id(id as u16)));
        let number = |file: &str| root.parse(&path(file), parse_number::<u32>);
        Self {
            address: address.to_owned(),
            vendor: id("vendor"),
            device: id("device"),
            subsystem_vendor: id("subsystem_vendor"),
            subsystem_device: id("subsystem_device"),
            class: root.parse(&path("class"), |text| parse_hex(text, 6).map(Class)),
            driver: root.link_name(&path("driver")),
            numa_node: root.parse(&path("numa_node"), parse_number),
            iommu_group: root.link_name(&path("iommu_group")).parse(|name| parse_number(&name)),
            link_speed: root.text(&path("current_link_speed")),
            link_speed_max: root.text(&path("max_link_speed")),
            link_width: number("current_link_width"),
            link_width_max: number("max_link_width"),
            bars: root.parse(&path("resource"), parse_resource),
            revision: root.parse(&path("revision"), |text| parse_hex(text, 2).map(|revision| revision as u8)),
            path: root.link_target(&format!("{devices}/{address}")).parse(|target| PciPath::parse(&target)),
            config: root.bytes_up_to(&path("config"), 4096).parse(|bytes| PciConfig::parse(&bytes)),
            reset_methods: root
                .text(&path("reset_method"))
                .map(|text| text.split_ascii_whitespace().map(str::to_owned).collect()),
            aer: Aer::read(root, &path("aer_dev")),
            p2pmem: root.list(&path("p2pmem")).map(|_| P2pMemory {
                size: number64(root, &path("p2pmem/size")),
                available: number64(root, &path("p2pmem/available")),
                published: number64(root, &path("p2pmem/published")).map(|published| published != 0),
            }),
            sriov: number("sriov_totalvfs")
                .map(|total| Sriov { total, in_use: number("sriov_numvfs").value().copied().unwrap_or(0) }),
            physical_function: root.link_name(&path("physfn")),
            local_cpus: root.text(&path("local_cpulist")),
            power_state: root.text(&path("power_state")),
            power_control: root.text(&path("power/control")),
        }
    }

    /// Domain, bus and device without the function: functions that share it are one card.
    pub fn slot(&self) -> &str {
        self.address.rsplit_once('.').map_or(&self.address, |(slot, _)| slot)
    }

    /// Its window with this number.
    pub fn bar(&self, index: u32) -> Option<Bar> {
        self.bars.value()?.iter().copied().find(|bar| bar.index == index)
    }

    /// Vendor and device as `lspci -n` prints them; question marks where they cannot be seen.
    pub fn ids(&self) -> String {
        let word = |id: &Fact<Id>| id.value().map_or("????".to_owned(), Id::to_string);
        format!("{}:{}", word(&self.vendor), word(&self.device))
    }

    /// Is it this device of this vendor?
    pub fn is(&self, vendor: u16, device: u16) -> bool {
        self.vendor.value() == Some(&Id(vendor)) && self.device.value() == Some(&Id(device))
    }
}

impl PciPath {
    /// A link's words, such as `../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0`. Some host bridges hang below
    /// other devices (Intel VMD, Hyper-V): the last one counts.
    fn parse(target: &str) -> Result<Self, String> {
        let parts: Vec<&str> = target.split('/').collect();
        let root = parts.iter().rposition(|part| is_root(part));
        let root = root.ok_or_else(|| format!("no host bridge in {target:?}"))?;
        let (_, bridges) =
            parts[root + 1..].split_last().ok_or_else(|| format!("no device in {target:?}"))?;
        match bridges.iter().find(|bridge| !is_address(bridge)) {
            Some(stranger) => Err(format!("{stranger:?} is no PCI address")),
            None => Ok(Self {
                root: parts[root].to_owned(),
                bridges: bridges.iter().map(|bridge| (*bridge).to_owned()).collect(),
            }),
        }
    }
}

/// `pci0000:00`.
fn is_root(text: &str) -> bool {
    let rest = text.strip_prefix("pci").and_then(|rest| rest.split_once(':'));
    rest.is_some_and(|(domain, bus)| is_hex(domain, 4, 8) && is_hex(bus, 2, 2))
}

/// `0000:01:00.0`.
fn is_address(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let (Some(domain), Some(bus), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Some((device, function)) = rest.split_once('.') else { return false };
    is_hex(domain, 4, 8) && is_hex(bus, 2, 2) && is_hex(device, 2, 2) && is_hex(function, 1, 1)
}

fn is_hex(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Aer {
    /// Reads the three files that begin with `prefix`.
    fn read(root: &Root, prefix: &str) -> Fact<Self> {
        let read = |kind: &str| root.parse(&format!("{prefix}_{kind}"), parse_aer);
        let (nonfatal, fatal) = (read("nonfatal"), read("fatal"));
        read("correctable").parse(|(correctable, mut named)| {
            let mut total = |fact: Fact<(u64, Vec<(String, u64)>)>| match fact {
                Fact::Known { value: (total, more), .. } => {
                    named.extend(more);
                    Ok(total)
                }
                other => Err(other.map(|_| "").to_string()),
            };
            Ok::<_, String>(Self { correctable, nonfatal: total(nonfatal)?, fatal: total(fatal)?, named })
        })
    }
}

/// Lines of `name count`, the last one a total (drivers/pci/pcie/aer.c, `aer_stats_dev_attr`).
fn parse_aer(text: &str) -> Result<(u64, Vec<(String, u64)>), String> {
    let mut total = None;
    let mut named = Vec::new();
    for line in text.lines() {
        let (name, count) = line.split_once(' ').ok_or_else(|| format!("{line:?} has no count"))?;
        let count = parse_number(count.trim())?;
        if name.starts_with("TOTAL_ERR_") {
            total = Some(count);
        } else if count != 0 {
            named.push((name.to_owned(), count));
        }
    }
    Ok((total.ok_or("no total")?, named))
}

fn number64(root: &Root, path: &str) -> Option<u64> {
    root.parse(path, parse_number).value().copied()
}

/// `0x10de`, of at most `digits` digits.
fn parse_hex(text: &str, digits: usize) -> Result<u32, String> {
    let hex = text.strip_prefix("0x").filter(|hex| (1..=digits).contains(&hex.len()));
    let hex = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.and_then(|hex| u32::from_str_radix(hex, 16).ok())
        .ok_or_else(|| format!("{text:?} is not 0x and up to {digits} hex digits"))
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// Lines of `start end flags`, each in hex; a window that does not exist is all zeros.
fn parse_resource(text: &str) -> Result<Vec<Bar>, String> {
    let mut bars = Vec::new();
    for (index, line) in (0..).zip(text.lines()) {
        let mut words = line.split_ascii_whitespace().map(|word| {
            let hex =
                word.strip_prefix("0x").ok_or_else(|| format!("{word:?} in line {index} is not hex"))?;
            u64::from_str_radix(hex, 16).map_err(|e| format!("{word:?} in line {index}: {e}"))
        });
        let mut next = || words.next().unwrap_or_else(|| Err(format!("line {index} is short")));
        let (start, end, flags) = (next()?, next()?, next()?);
        if flags == 0 && end == 0 {
            continue;
        }
        // The end is the last byte, so that an empty window ends just before it begins.
        if end.checked_add(1) == Some(start) {
            continue;
        }
        let size = end.checked_sub(start).and_then(|last| last.checked_add(1));
        let size = size.ok_or_else(|| format!("line {index} ends before it begins"))?;
        bars.push(Bar { index, start, size, flags });
    }
    Ok(bars)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u16::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn windows_of_an_h100() {
        let text = "0x0000000081000000 0x0000000081ffffff 0x0000000000040200\n\
                    0x0000002000000000 0x0000002fffffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let bars = parse_resource(text).unwrap();
        assert_eq!(bars.len(), 2);
        assert_eq!((bars[0].index, bars[0].size), (0, 16 << 20));
        assert_eq!((bars[1].index, bars[1].size), (1, 64 << 30));
        assert!(bars[1].is_64_bit() && bars[1].is_prefetchable() && !bars[0].is_prefetchable());
    }

    #[test]
    fn hostile_windows_are_malformed() {
        for text in [
            "0x1",
            "1 2 3",
            "0x10 0x0e 0x200",
            "0x0 0xffffffffffffffff 0x1",
            "0xzz 0x0 0x1",
            "0x0 0x11111111111111111 0x0",
        ] {
            assert!(parse_resource(text).is_err(), "{text}");
        }
        assert_eq!(parse_resource(""), Ok(vec![]));
    }

    #[test]
    fn numbers_of_the_wrong_form_are_malformed() {
        assert_eq!(parse_hex("0x030200", 6), Ok(0x03_0200));
        for text in ["10de", "0x", "0x10de0", "0x+1de", "0xé"] {
            assert!(parse_hex(text, 4).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_from_the_host_bridge() {
        let parse = |target: &str| {
            PciPath::parse(target).map(|path| format!("{} {}", path.root, path.bridges.join(" ")))
        };
        assert_eq!(
            parse("../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0").unwrap(),
            "pci0000:00 0000:00:1c.0"
        );
        assert_eq!(parse("../../../devices/pci0000:00/0000:00:02.0").unwrap(), "pci0000:00 ");
        let vmd = "../../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0";
        assert_eq!(parse(vmd).unwrap(), "pci10000:e0 10000:e0:06.0");
        for text in
            ["", "/", "../../../devices/0000:01:00.0", "pci0000:00", "pci0000:00/x/0000:01:00.0", "pcié:00/a"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn error_counters_have_a_total() {
        let text = "RxErr 0\nBadTLP 3\nRollover 0\nTOTAL_ERR_COR 3";
        assert_eq!(parse_aer(text), Ok((3, vec![("BadTLP".into(), 3)])));
        for text in [
            "",
            "RxErr 0",
            "RxErr\nTOTAL_ERR_COR 0",
            "TOTAL_ERR_COR many",
            "TOTAL_ERR_COR 99999999999999999999",
        ] {
            assert!(parse_aer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_of_a_captured_tree_with_links() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0");
        fs_err::create_dir_all(real.join("p2pmem")).unwrap();
        fs_err::create_dir_all(dir.path().join("sys/bus/pci/devices")).unwrap();
        let target = "../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0";
        symlink(target, dir.path().join("sys/bus/pci/devices/0000:01:00.0")).unwrap();
        fs_err::write(real.join("config"), vec![0xff; 64]).unwrap();
        fs_err::write(real.join("p2pmem/size"), "0\n").unwrap();
        fs_err::write(real.join("sriov_totalvfs"), "16\n").unwrap();
        fs_err::write(real.join("reset_method"), "flr bus\n").unwrap();
        let devices = PciDevice::read_all(&Root::at(dir.path()));
        let [device] = devices.value().unwrap().as_slice() else { panic!("one device") };
        assert_eq!(device.path.value().unwrap().bridges, ["0000:00:1c.0"]);
        assert!(device.config.value().unwrap().all_ones);
        assert_eq!(device.p2pmem.value().unwrap().size, Some(0));
        assert_eq!(device.sriov.value(), Some(&Sriov { total: 16, in_use: 0 }));
        assert_eq!(device.reset_methods.value().unwrap(), &["flr", "bus"]);
        assert!(matches!(device.aer, Fact::Missing { .. }));
        assert_eq!(device.slot(), "0000:01:00");
    }

    #[test]
    fn a_device_of_an_older_report_is_read() {
        let device: PciDevice = serde_json::from_str(r#"{"address": "0000:01:00.0"}"#).unwrap();
        assert!(matches!(device.path, Fact::NotRead { .. }));
    }

    #[test]
    fn a_gpu_without_a_driver() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("sys/bus/pci/devices/0000:01:00.0");
        fs_err::create_dir_all(&device).unwrap();
        for (file, text) in
            [("vendor", "0x10de\n"), ("device", "0x2331\n"), ("class", "0x030200\n"), ("numa_node", "-1\n")]
        {
            fs_err::write(device.join(file), text).unwrap();
        }
        fs_err::write(device.join("current_link_width"), "wide\n").unwrap();
        symlink("../../../../kernel/iommu_groups/7", device.join("iommu_group")).unwrap();
        let devices = PciDevice::read_all(&Root::at(dir.path()));
        let [gpu] = devices.value().unwrap().as_slice() else { panic!("one device") };
        assert!(gpu.is_nvidia_gpu());
        assert_eq!(gpu.iommu_group.value(), Some(&7));
        assert_eq!(gpu.numa_node.value(), Some(&-1));
        assert!(matches!(gpu.driver, Fact::Missing { .. }));
        assert!(matches!(gpu.link_width, Fact::Malformed { .. }));
        assert!(matches!(gpu.path, Fact::Missing { .. }), "a capture that followed links");
        let json = serde_json::to_string(gpu).unwrap();
        assert!(json.contains(r#""value":"10de""#), "{json}");
        assert_eq!(&serde_json::from_str::<PciDevice>(&json).unwrap(), gpu);
    }
}
