//! Hand-made machines.

use crate::facts::pci::{Class, Id, PciDevice, PciPath};
use crate::facts::pci_config::{Acs, Express, PciConfig};
use crate::facts::{Fact, Facts};

/// What a device is.
pub(crate) const GPU: (u32, &str) = (0x03_0200, "10de:2331");
pub(crate) const NVME: (u32, &str) = (0x01_0802, "144d:a80a");
pub(crate) const NIC: (u32, &str) = (0x02_0000, "15b3:1021");
pub(crate) const HOST: (u32, &str) = (0x06_0000, "8086:29c0");
pub(crate) const PORT: (u32, &str) = (0x06_0400, "1b36:000c");
pub(crate) const TI_UPSTREAM: (u32, &str) = (0x06_0400, "104c:8232");
pub(crate) const TI_DOWNSTREAM: (u32, &str) = (0x06_0400, "104c:8233");

/// A device at `way`, the addresses from the host bridge's bus down to it, as in `0000:00:1c.0/0000:01:00.0`.
pub(crate) fn device((class, ids): (u32, &str), way: &str) -> PciDevice {
    let (vendor, device) = ids.split_once(':').unwrap();
    let id = |text: &str| Fact::known("id", Id(u16::from_str_radix(text, 16).unwrap()));
    let mut bridges: Vec<String> = way.split('/').map(str::to_owned).collect();
    let address = bridges.pop().unwrap();
    // Below a root port, switches come as an upstream and a downstream port.
    let kind = match (class >> 8 == 0x0604, bridges.len()) {
        (true, 0) => 4,
        (true, depth) => 6 - (depth % 2) as u8,
        (false, _) => 0,
    };
    let first = bridges.first().unwrap_or(&address);
    let root = format!("pci{}", &first[..7]);
    let file = |file: &str| format!("/sys/bus/pci/devices/{address}/{file}");
    PciDevice {
        vendor: id(vendor),
        device: id(device),
        subsystem_vendor: id(vendor),
        subsystem_device: id("0001"),
        class: Fact::known("class", Class(class)),
        driver: Fact::Missing { from: file("driver") },
        numa_node: Fact::known("numa_node", -1),
        path: Fact::known("/sys/bus/pci/devices", PciPath { root, bridges }),
        config: Fact::known("config", config(kind)),
        bars: Fact::known("resource", vec![]),
        iommu_group: Fact::Missing { from: file("iommu_group") },
        ..PciDevice::default()
    }
    .at(address.clone())
}

/// A configuration space that root has read.
pub(crate) fn config(kind: u8) -> PciConfig {
    let express = Express {
        kind,
        speed: 5,
        speed_max: 5,
        width: 16,
        width_max: 16,
        max_payload: 256,
        max_read_request: 512,
    };
    PciConfig {
        length: 4096,
        express: Some(express),
        memory_enabled: true,
        bus_master: true,
        ..PciConfig::default()
    }
}

impl PciDevice {
    fn at(mut self, address: String) -> Self {
        self.address = address;
        self
    }

    /// On a NUMA node.
    pub(crate) fn on_node(mut self, node: i32) -> Self {
        self.numa_node = Fact::known("numa_node", node);
        self
    }

    /// With Access Control Services switched on like this.
    pub(crate) fn with_acs(mut self, control: u16) -> Self {
        let mut config = self.config.value().unwrap().clone();
        config.acs = Some(Acs { offset: 0x148, capabilities: 0x5f, control });
        self.config = Fact::known("config", config);
        self
    }

    /// As a user who is not root sees it.
    pub(crate) fn seen_by_a_user(mut self) -> Self {
        self.config = Fact::known("config", PciConfig { length: 64, ..PciConfig::default() });
        self
    }
}

/// A machine of these devices, with a CPU of this vendor and family.
pub(crate) fn machine(vendor: &str, family: u32, devices: Vec<PciDevice>) -> Facts {
    let cpu = crate::facts::cpu::Cpu {
        vendor: vendor.into(),
        family: Some(family),
        online: 8,
        model_name: format!("{vendor} CPU"),
        ..Default::default()
    };
    Facts {
        cpu: Fact::known("/proc/cpuinfo", cpu),
        numa_nodes: Fact::known("/sys/devices/system/node", vec![0]),
        pci: Fact::known("/sys/bus/pci/devices", devices),
        ..Facts::default()
    }
}

/// Proxmox' q35 with `pcie=1`: every device on its own root port.
pub(crate) fn flat() -> Vec<PciDevice> {
    vec![
        device(HOST, "0000:00:00.0"),
        device(PORT, "0000:00:1c.0").with_acs(0x1d),
        device(PORT, "0000:00:1c.1").with_acs(0x1d),
        device(GPU, "0000:00:1c.0/0000:01:00.0"),
        device(NVME, "0000:00:1c.1/0000:02:00.0"),
    ]
}

/// QEMU's emulated switch: GPU and NVMe on two downstream ports.
pub(crate) fn switched() -> Vec<PciDevice> {
    let up = "0000:00:1c.3/0000:04:00.0";
    vec![
        device(HOST, "0000:00:00.0"),
        device(PORT, "0000:00:1c.3").with_acs(0x1d),
        device(TI_UPSTREAM, up),
        device(TI_DOWNSTREAM, &format!("{up}/0000:05:00.0")),
        device(TI_DOWNSTREAM, &format!("{up}/0000:05:01.0")),
        device(GPU, &format!("{up}/0000:05:00.0/0000:06:00.0")),
        device(NVME, &format!("{up}/0000:05:01.0/0000:07:00.0")),
    ]
}
