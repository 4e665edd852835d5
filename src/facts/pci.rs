//! PCI devices, from `/sys/bus/pci/devices` (Documentation/ABI/testing/sysfs-bus-pci).

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
}

/// One function of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// One window of a device, a line of `resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        }
    }
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
        let json = serde_json::to_string(gpu).unwrap();
        assert!(json.contains(r#""value":"10de""#), "{json}");
        assert_eq!(&serde_json::from_str::<PciDevice>(&json).unwrap(), gpu);
    }
}
