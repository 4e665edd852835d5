//! What a rule sees: a machine's configuration, and what is known of the host's devices.

use super::machine::{Machine, Passed, PlaceInGuest, PortKind};
use crate::facts::Facts;
use crate::facts::pci::PciDevice;
use crate::topology::labels::{self, Label};
use crate::topology::place::Place;
use crate::topology::{Pair, Topology};

/// What a user says of the host where its facts are not at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The addresses of GPUs.
    pub gpus: Vec<String>,
    /// The addresses of NVMe controllers.
    pub nvmes: Vec<String>,
    /// The size of each GPU's largest window in bytes.
    pub bar: Option<u64>,
}

/// A configuration as the rules see it.
#[derive(Debug)]
pub struct Context<'a> {
    /// The configuration.
    pub machine: &'a Machine,
    /// The host's facts, where there are any.
    pub host: Option<&'a Facts>,
    /// What the user said.
    pub hints: &'a Hints,
    /// The host's pairs.
    pub topology: Topology,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An NVIDIA GPU.
    Gpu,
    /// An NVMe controller.
    Nvme,
    /// Something else.
    Other,
    /// That cannot be seen.
    Unknown,
}

impl<'a> Context<'a> {
    /// A configuration with what is known of its host.
    pub fn new(machine: &'a Machine, host: Option<&'a Facts>, hints: &'a Hints) -> Self {
        let topology = host.map(Topology::of).unwrap_or_default();
        Self { machine, host, hints, topology }
    }

    /// The host's functions; none where they are not known.
    pub fn host_devices(&self) -> &'a [PciDevice] {
        self.host.and_then(|facts| facts.pci.value()).map_or(&[], Vec::as_slice)
    }

    /// The host's functions that a passed device hands on.
    pub fn functions(&self, passed: &Passed) -> Vec<&'a PciDevice> {
        self.host_devices().iter().filter(|device| passed.covers(&device.address)).collect()
    }

    /// What a passed device is.
    pub fn what(&self, passed: &Passed) -> What {
        let functions = self.functions(passed);
        let is_nvme = |d: &&PciDevice| d.class.value().is_some_and(|class| class.is_nvme());
        // A user may name a card where the configuration names its function, and the other way round.
        let slot = |address: &str| address.split('.').next().unwrap_or("").to_owned();
        let is_meant = |told: &String| {
            passed.hosts.iter().any(|host| told == host || slot(told) == *host || slot(host) == *told)
        };
        if functions.iter().any(|device| device.is_nvidia_gpu()) || self.hints.gpus.iter().any(is_meant) {
            What::Gpu
        } else if functions.iter().any(is_nvme) || self.hints.nvmes.iter().any(is_meant) {
            What::Nvme
        } else if functions.iter().any(|device| device.class.value().is_some()) {
            What::Other
        } else {
            What::Unknown
        }
    }

    /// The passed devices that are this.
    pub fn passed(&self, what: What) -> Vec<&'a Passed> {
        self.machine.passed.iter().filter(|passed| self.what(passed) == what).collect()
    }

    /// The host's function that a passed device is about: its GPU, its controller.
    pub fn function(&self, passed: &Passed) -> Option<&'a PciDevice> {
        let functions = self.functions(passed);
        let is_subject = |device: &&&PciDevice| {
            device.is_nvidia_gpu() || device.class.value().is_some_and(|class| class.is_nvme())
        };
        functions.iter().find(is_subject).or(functions.first()).copied()
    }

    /// The host's pair of a GPU and a controller that are passed.
    pub fn host_pair(&self, gpu: &Passed, nvme: &Passed) -> Option<&Pair> {
        let (gpu, nvme) = (self.function(gpu)?, self.function(nvme)?);
        self.topology.storage().find(|pair| pair.gpu == gpu.address && pair.peer == nvme.address)
    }

    /// The word that the guest will have for two devices.
    pub fn guest_label(&self, a: &Passed, b: &Passed) -> Option<Label> {
        labels::nvidia_smi(&self.guest_place(a)?, &self.guest_place(b)?, Some(1))
    }

    /// Where a device hangs in the guest.
    fn guest_place(&self, passed: &Passed) -> Option<Place> {
        let mut root = super::machine::ROOT_BUS.to_owned();
        let mut bridges = Vec::new();
        for port in self.machine.ports_above(passed)? {
            match port.kind {
                PortKind::Expander => root.clone_from(&port.id),
                _ => bridges.push(port.id.clone()),
            }
        }
        Some(Place { address: passed.name.clone(), root, bridges, numa_node: Some(-1) })
    }

    /// Is the host's CPU an AMD Zen, for which p2pdma asks for no switch? `None` where it is not known.
    pub fn is_zen(&self) -> Option<bool> {
        is_zen(self.host?)
    }

    /// The machine's number for commands.
    pub fn vmid(&self) -> String {
        self.machine.vmid.map_or("VMID".into(), |vmid| vmid.to_string())
    }

    /// Devices that hang on conventional PCI.
    pub fn conventional(&self) -> Vec<&'a Passed> {
        self.machine.passed.iter().filter(|passed| passed.place == PlaceInGuest::Conventional).collect()
    }
}

/// Is a machine's CPU an AMD Zen? `None` where it is not known.
pub fn is_zen(host: &Facts) -> Option<bool> {
    let cpu = host.cpu.value().filter(|cpu| !cpu.vendor.is_empty())?;
    Some(cpu.vendor == "AuthenticAMD" && cpu.family.is_some_and(|family| family >= 0x17))
}

/// Below one switch?
pub fn is_near(label: Option<Label>) -> bool {
    label.is_some_and(|label| label <= Label::Pxb)
}
