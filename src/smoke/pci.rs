//! The PCI side of a machine file: buses, switches and ports, the simulated GPUs and the drives below them, as QEMU's
//! arguments.

use super::machine::{Chipset, DataDrive, DriveKind, Machine};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Something that devices hang below.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bridge {
    /// What `behind` calls it: letters, digits and dashes.
    pub name: String,
    /// What it is.
    pub kind: BridgeKind,
    /// What a switch hangs below: a host bridge, a root port or another switch. Absent: a root port of its own.
    #[serde(default)]
    pub behind: Option<String>,
    /// Its slot and function on the root bus, such as `1c.0`; for root ports there.
    #[serde(default)]
    pub address: Option<String>,
    /// The NUMA node of a host bridge.
    #[serde(default)]
    pub numa_node: Option<u8>,
}

/// What a bridge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeKind {
    /// A root port: room for one device.
    RootPort,
    /// A PCI Express switch: an upstream port, and a downstream port for each device.
    Switch,
    /// A root bus of its own (QEMU's PCI expander bridge); each device gets a root port.
    HostBridge,
    /// A bus of conventional PCI, on the bridges that Proxmox puts into a q35 machine (DMI-to-PCI, PCI-to-PCI).
    Conventional,
}

/// A simulated GPU, in the words of the crate `simulated_gpu`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gpu {
    /// The model's name.
    pub model: String,
    /// The bridge that it hangs below. Absent: a root port of its own; on i440fx its one bus.
    #[serde(default)]
    pub behind: Option<String>,
    /// The size of BAR1, such as `256M`, where it is not the model's.
    #[serde(default)]
    pub bar1: Option<String>,
    /// What the link has trained to, such as `2.5x4`.
    #[serde(default)]
    pub link: Option<String>,
    /// NVIDIA's P2P clique.
    #[serde(default)]
    pub clique: Option<u8>,
    /// Has it Access Control Services?
    #[serde(default)]
    pub acs: bool,
    /// Has it the Address Translation Service?
    #[serde(default)]
    pub ats: bool,
    /// What is broken.
    #[serde(default)]
    pub faults: Vec<String>,
}

impl Gpu {
    /// Its functions; `number` is which of several GPUs this is, from 0.
    ///
    /// # Errors
    /// There is no such model, size, link or fault, or they do not fit together: what is wrong.
    pub fn functions(&self, number: u16) -> Result<Vec<simulated_gpu::Function>, simulated_gpu::Error> {
        let model = simulated_gpu::Model::named(&self.model)?;
        let options = simulated_gpu::Options {
            bar1: self.bar1.as_deref().map(str::parse).transpose()?,
            link: self.link.as_deref().map(str::parse).transpose()?,
            serial: number + 1,
            clique: self.clique,
            acs: self.acs,
            ats: self.ats,
            faults: self.faults.iter().map(|fault| fault.parse()).collect::<Result<_, _>>()?,
            ..simulated_gpu::Options::default()
        };
        simulated_gpu::functions(&model, &options)
    }
}

/// Where a device is put: QEMU's name of the bus, and the slot where there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// QEMU's name of the bus.
    pub bus: String,
    /// The slot on it, 0 to 31.
    pub number: u8,
}

/// All bridges of a machine as QEMU's arguments, and the places of its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `-device` and so on, bridges only, in an order that QEMU takes.
    pub arguments: Vec<OsString>,
    /// The place of each GPU.
    pub gpus: Vec<Slot>,
    /// The place of each drive; `None` leaves it to QEMU.
    pub drives: Vec<Option<Slot>>,
}

impl Layout {
    /// Lays a machine's devices out.
    ///
    /// # Errors
    /// What is wrong with the machine file.
    pub fn of(machine: &Machine) -> Result<Self, String> {
        let mut laying = Laying { machine, made: BTreeMap::new(), arguments: Vec::new(), chassis: 0 };
        for bridge in &machine.bridges {
            laying.bridge(bridge)?;
        }
        let gpus = machine.gpus.iter().enumerate();
        let gpus: Vec<Slot> = gpus.map(|(n, gpu)| laying.gpu(n, gpu)).collect::<Result<_, String>>()?;
        let drives = machine.drives.iter().enumerate();
        let drives: Vec<Option<Slot>> =
            drives.map(|(n, drive)| laying.drive(n, drive)).collect::<Result<_, String>>()?;
        Ok(Self { arguments: laying.arguments, gpus, drives })
    }
}

/// Bus numbers end at 255, and each host bridge gets 32 of those from 64 on.
const MOST_HOST_BRIDGES: usize = 6;

/// `1c.0`: a slot up to 1f and a function up to 7, hexadecimal.
fn is_address(text: &str) -> bool {
    let is_below = |part: &str, end: u8| {
        (1..=2).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && u8::from_str_radix(part, 16).is_ok_and(|number| number < end)
    };
    text.split_once('.').is_some_and(|(slot, function)| is_below(slot, 32) && is_below(function, 8))
}

/// QEMU's name of a bridge. As it is in the machine file it could be that of one of the bridge's properties, at which QEMU
/// aborts.
fn id(name: &str) -> String {
    format!("bridge-{name}")
}

/// A bridge that was made.
#[derive(Debug)]
struct Made {
    kind: BridgeKind,
    devices: u8,
}

struct Laying<'a> {
    machine: &'a Machine,
    made: BTreeMap<&'a str, Made>,
    arguments: Vec<OsString>,
    chassis: u8,
}

impl<'a> Laying<'a> {
    fn device(&mut self, value: String) {
        self.arguments.extend(["-device".into(), value.into()]);
    }

    /// Numbers of slots and chassis that nobody else has.
    fn chassis(&mut self) -> String {
        self.chassis += 1;
        format!("chassis={0},slot={0}", self.chassis)
    }

    fn root_port(&mut self, id: &str, bus: &str, address: Option<&str>) {
        let chassis = self.chassis();
        let address = address.map(|a| format!(",addr={a},multifunction=on")).unwrap_or_default();
        // QEMU's ports are 16 GT/s unless told otherwise, and Linux remarks on GPUs that could do more.
        self.device(format!("pcie-root-port,id={id},bus={bus}{address},{chassis},x-speed=32,x-width=16"));
    }

    fn bridge(&mut self, bridge: &'a Bridge) -> Result<(), String> {
        let name = bridge.name.as_str();
        let is_word = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !is_word {
            return Err(format!("a bridge's name has letters, digits and dashes: {name:?}"));
        }
        if self.machine.chipset != Chipset::Q35 {
            return Err(format!("the bridge {name} needs the chipset q35"));
        }
        if bridge.address.is_some() && bridge.kind != BridgeKind::RootPort {
            return Err(format!("the bridge {name}: only a root port has an address of its own"));
        }
        if bridge.address.as_deref().is_some_and(|address| !is_address(address)) {
            return Err(format!("the bridge {name}: an address is a slot and a function, such as 1c.0"));
        }
        if bridge.numa_node.is_some() && bridge.kind != BridgeKind::HostBridge {
            return Err(format!("the bridge {name}: only a host bridge has a NUMA node"));
        }
        if bridge.numa_node.is_some_and(|node| node >= self.machine.numa_nodes) {
            return Err(format!("the bridge {name}: there are {} NUMA nodes", self.machine.numa_nodes));
        }
        let bus = match &bridge.behind {
            None => "pcie.0".to_owned(),
            Some(_) if bridge.kind != BridgeKind::Switch => {
                return Err(format!(
                    "the bridge {name} stands on the root bus; only a switch is behind another"
                ));
            }
            Some(behind) => self.slot_behind(behind, name)?.bus,
        };
        match bridge.kind {
            BridgeKind::RootPort => self.root_port(&id(name), &bus, bridge.address.as_deref()),
            BridgeKind::Switch => {
                let bus = match bridge.behind {
                    None => {
                        let port = format!("{name}-port");
                        self.root_port(&port, &bus, None);
                        port
                    }
                    Some(_) => bus,
                };
                self.device(format!("x3130-upstream,id={},bus={bus}", id(name)));
            }
            BridgeKind::HostBridge => {
                let others = self.made.values().filter(|made| made.kind == BridgeKind::HostBridge).count();
                if others == MOST_HOST_BRIDGES {
                    return Err(format!(
                        "the bridge {name} is one host bridge more than {MOST_HOST_BRIDGES}"
                    ));
                }
                // Bus numbers below which firmware has room for what hangs there.
                let number = 64 + 32 * others;
                let node = bridge.numa_node.map(|node| format!(",numa_node={node}")).unwrap_or_default();
                self.device(format!("pxb-pcie,id={},bus=pcie.0,bus_nr={number}{node}", id(name)));
            }
            BridgeKind::Conventional => {
                let id = id(name);
                self.device(format!("i82801b11-bridge,id={id}-dmi,bus=pcie.0"));
                self.chassis += 1;
                let chassis = self.chassis;
                self.device(format!("pci-bridge,id={id},bus={id}-dmi,addr=1.0,chassis_nr={chassis}"));
            }
        }
        if self.made.insert(name, Made { kind: bridge.kind, devices: 0 }).is_some() {
            return Err(format!("two bridges are called {name}"));
        }
        Ok(())
    }

    /// A place for one more device behind a bridge; `id` is for the port that it may need.
    fn slot_behind(&mut self, bridge: &str, id: &str) -> Result<Slot, String> {
        let Some(made) = self.made.get_mut(bridge) else {
            return Err(format!("{id} is behind {bridge}, and no bridge before it is called so"));
        };
        let (kind, before) = (made.kind, made.devices);
        made.devices += 1;
        match kind {
            BridgeKind::RootPort if before > 0 => {
                Err(format!("the root port {bridge} has room for one device; put a switch behind it"))
            }
            BridgeKind::RootPort => Ok(Slot { bus: self::id(bridge), number: 0 }),
            BridgeKind::Switch => {
                let (port, chassis) = (format!("{id}-port"), self.chassis());
                self.device(format!("xio3130-downstream,id={port},bus={},{chassis}", self::id(bridge)));
                Ok(Slot { bus: port, number: 0 })
            }
            BridgeKind::HostBridge => {
                let port = format!("{id}-port");
                self.root_port(&port, &self::id(bridge), None);
                Ok(Slot { bus: port, number: 0 })
            }
            // Slot 0 is the bridge's own hot-plug controller's.
            BridgeKind::Conventional if before >= 31 => Err(format!("the bus {bridge} has 31 slots")),
            BridgeKind::Conventional => Ok(Slot { bus: self::id(bridge), number: before + 1 }),
        }
    }

    fn gpu(&mut self, number: usize, gpu: &Gpu) -> Result<Slot, String> {
        let id = format!("gpu{number}");
        match (&gpu.behind, self.machine.chipset) {
            (Some(behind), _) => self.slot_behind(behind, &id),
            (None, Chipset::I440fx) => {
                // Far from the slots that QEMU deals out.
                let slot = u8::try_from(number).ok().filter(|n| *n < 16);
                let slot = slot.ok_or("the bus of i440fx has room for 16 GPUs")?;
                Ok(Slot { bus: "pci.0".to_owned(), number: 16 + slot })
            }
            (None, Chipset::Q35) => {
                let port = format!("{id}-port");
                self.root_port(&port, "pcie.0", None);
                Ok(Slot { bus: port, number: 0 })
            }
        }
    }

    fn drive(&mut self, number: usize, drive: &DataDrive) -> Result<Option<Slot>, String> {
        match &drive.behind {
            None => Ok(None),
            Some(_) if drive.kind == DriveKind::VirtioBlk => {
                Err(format!("the drive {} is no NVMe drive, and hangs on the root bus", drive.serial))
            }
            Some(behind) => self.slot_behind(behind, &format!("drive{number}")).map(Some),
        }
    }
}
