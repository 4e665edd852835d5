//! `-device`: ports, what is passed through, and what QEMU emulates.

use super::arguments::Parser;
use super::options::{get, is_on, slot};
use crate::hypervisor::machine::{Disk, HOST, Passed, PlaceInGuest, Port, PortKind, ROOT_BUS, address};
use std::collections::BTreeMap;

impl Parser<'_> {
    pub(super) fn device(&mut self, options: &[(String, String)]) {
        let driver = get(options, "driver").unwrap_or("").to_owned();
        let id = get(options, "id").unwrap_or("").to_owned();
        let bus = get(options, "bus").unwrap_or("").to_owned();
        let addr = slot(get(options, "addr").unwrap_or(""));
        let kind = match driver.as_str() {
            "pcie-root-port" | "ioh3420" => Some(PortKind::RootPort),
            "x3130-upstream" => Some(PortKind::Upstream),
            "xio3130-downstream" => Some(PortKind::Downstream),
            "pxb-pcie" => Some(PortKind::Expander),
            "i82801b11-bridge" | "pci-bridge" | "pcie-pci-bridge" | "pxb" => Some(PortKind::Conventional),
            _ => None,
        };
        if let Some(kind) = kind {
            let bus = if bus.is_empty() { ROOT_BUS.to_owned() } else { bus };
            return self.machine.ports.push(Port { id, kind, bus, addr });
        }
        if driver.starts_with("vfio-pci") || driver == "vfio-user-pci" {
            return self.passed(options, id, bus, addr);
        }
        let machine = &mut *self.machine;
        match driver.as_str() {
            driver if driver.starts_with("virtio-balloon") => machine.memory.balloon = true,
            "intel-iommu" | "amd-iommu" => machine.viommu = Some(driver),
            driver if driver.starts_with("virtio-iommu") => machine.viommu = Some(driver.to_owned()),
            driver => {
                let interface = match driver {
                    "nvme" | "nvme-ns" => "nvme",
                    driver if driver.starts_with("virtio-blk") => "virtio",
                    "scsi-hd" | "scsi-block" | "scsi-cd" => "scsi",
                    "ide-hd" | "ide-cd" => "sata",
                    "usb-storage" | "usb-uas" => "usb",
                    _ => return,
                };
                let drive = get(options, "drive").unwrap_or("");
                let name = if id.is_empty() { drive.to_owned() } else { id };
                machine.disks.push(Disk {
                    name,
                    interface: interface.into(),
                    cdrom: driver.ends_with("-cd"),
                });
            }
        }
    }

    fn passed(&mut self, options: &[(String, String)], id: String, bus: String, addr: String) {
        let told = get(options, "host").map(str::to_owned).or_else(|| {
            get(options, "sysfsdev").map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
        });
        let host = told.as_deref().and_then(address);
        let machine = &mut *self.machine;
        let mut mediated = None;
        let mut by_shell = None;
        if let (None, Some(told)) = (&host, &told) {
            if told.len() == 36 && told.matches('-').count() == 4 {
                mediated = Some(told.clone());
            } else if self.by_shell && told.contains(['$', '`']) {
                by_shell = Some((HOST.to_owned(), told.clone()));
            } else {
                machine.complaints.push(format!("{told:?} is no PCI address"));
            }
        }
        let own = ["driver", "id", "bus", "addr", HOST, "sysfsdev", "rombar", "x-vga", "iommufd"];
        let rest = options.iter().filter(|(key, _)| !own.contains(&key.as_str()));
        let name = if id.is_empty() { format!("vfio-pci {}", told.as_deref().unwrap_or("?")) } else { id };
        machine.passed.push(Passed {
            name,
            hosts: host.into_iter().collect(),
            mapping: None,
            mediated,
            // Settled when all ports are known.
            place: PlaceInGuest::Unknown(bus),
            addr,
            display: get(options, "x-vga").is_some_and(is_on),
            iommufd: get(options, "iommufd").is_some(),
            properties: rest.cloned().chain(by_shell).collect::<BTreeMap<_, _>>(),
            written: String::new(),
        });
    }

    /// `-set device.ID.KEY=VALUE`.
    pub(super) fn set(&mut self, value: &str) {
        let parts = value.split_once('=').and_then(|(name, value)| {
            let (id, key) = name.strip_prefix("device.")?.rsplit_once('.')?;
            Some((id.to_owned(), key.to_owned(), value.to_owned()))
        });
        let Some((id, key, value)) = parts else { return };
        // Proxmox' functions are called hostpci0.0.
        let is_meant = |passed: &&mut Passed| {
            passed.name == id || id.strip_prefix(&passed.name).is_some_and(|r| r.starts_with('.'))
        };
        for passed in self.machine.passed.iter_mut().filter(is_meant) {
            passed.properties.insert(key.clone(), value.clone());
        }
    }

    /// What a device's bus is, now that all ports are known.
    pub(super) fn settle(&mut self) {
        let is_q35 = self.machine.is_q35();
        let kind = |id: &str| self.machine.ports.iter().find(|port| port.id == id).map(|port| port.kind);
        let places: Vec<PlaceInGuest> = self
            .machine
            .passed
            .iter()
            .map(|passed| match &passed.place {
                PlaceInGuest::Unknown(bus) => match (bus.as_str(), kind(bus)) {
                    (_, Some(PortKind::Conventional)) => PlaceInGuest::Conventional,
                    (_, Some(_)) => PlaceInGuest::Port(bus.clone()),
                    ("" | ROOT_BUS, None) if is_q35 => PlaceInGuest::RootBus,
                    ("", None) => PlaceInGuest::Conventional,
                    (bus, None) if bus.starts_with("pci.") => PlaceInGuest::Conventional,
                    (bus, None) => PlaceInGuest::Unknown(bus.to_owned()),
                },
                known => known.clone(),
            })
            .collect();
        for (passed, place) in self.machine.passed.iter_mut().zip(places) {
            passed.place = place;
        }
    }
}
