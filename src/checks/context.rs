//! What a check sees: the facts, from which side they are looked at, and short ways to what many checks ask for.

use super::check::Side;
use crate::bench::results::Results;
use crate::facts::pci::{Class, PciDevice};
use crate::facts::{Fact, Facts};

/// A machine as the checks see it.
#[derive(Debug)]
pub struct Context<'a> {
    /// What was read.
    pub facts: &'a Facts,
    /// From where.
    pub side: Side,
    /// What the benchmark found, where there was one.
    pub bench: Option<&'a Results>,
}

impl<'a> Context<'a> {
    /// A machine, looked at from a side.
    pub fn new(facts: &'a Facts, side: Side) -> Self {
        Self { facts, side, bench: None }
    }

    /// The same with what the benchmark found.
    #[must_use]
    pub fn with_bench(self, bench: Option<&'a Results>) -> Self {
        Self { bench, ..self }
    }

    /// All PCI functions; none where they cannot be seen.
    pub fn pci(&self) -> &'a [PciDevice] {
        self.facts.pci.value().map_or(&[], Vec::as_slice)
    }

    /// The NVIDIA GPUs among them that are meant for transfers: all but those that only show a screen.
    pub fn gpus(&self) -> Vec<&'a PciDevice> {
        let all = self.all_gpus();
        all.iter().copied().filter(|gpu| !self.shows_a_screen(gpu, &all)).collect()
    }

    /// All NVIDIA GPUs among them.
    pub fn all_gpus(&self) -> Vec<&'a PciDevice> {
        self.pci().iter().filter(|device| device.is_nvidia_gpu()).collect()
    }

    /// A GPU with video outputs (class 0300) beside one of another model that computes and is in the right hands, while
    /// itself it is in other hands or could not take part: it is there for its outputs.
    fn shows_a_screen(&self, gpu: &PciDevice, all: &[&PciDevice]) -> bool {
        let is_video = |gpu: &PciDevice| gpu.class.value().is_none_or(|class| class.0 >> 8 == 0x0300);
        let is_held = |gpu: &PciDevice| {
            let driver = gpu.driver.value().map_or("", String::as_str);
            if self.side == Side::Host { driver.contains("vfio") } else { driver == "nvidia" }
        };
        let window = |gpu: &PciDevice| Some(gpu.bars.value()?.iter().map(|bar| bar.size).max().unwrap_or(0));
        let is_small = |gpu: &PciDevice| window(gpu).is_some_and(|window| window < COMPUTES);
        let is_geforce = |gpu: &PciDevice| {
            let claimed = self.facts.nvidia.gpus.value().into_iter().flatten();
            claimed.filter(|claimed| claimed.address == gpu.address).any(|claimed| {
                claimed.model.value().is_some_and(|m| m.contains("GeForce") || m.contains("TITAN"))
            })
        };
        let computes = |other: &&PciDevice| {
            other.device.value() != gpu.device.value()
                && is_held(other)
                && !is_geforce(other)
                && (!is_video(other) || window(other).is_some_and(|window| window >= COMPUTES))
        };
        is_video(gpu) && (!is_held(gpu) || is_small(gpu) || is_geforce(gpu)) && all.iter().any(computes)
    }

    /// The NVMe controllers among them.
    pub fn nvmes(&self) -> Vec<&'a PciDevice> {
        self.pci().iter().filter(|d| d.class.value().copied().is_some_and(Class::is_nvme)).collect()
    }

    /// Is a module in the kernel? `None` where that cannot be seen. Dashes and underscores are the same.
    pub fn has_module(&self, name: &str) -> Option<bool> {
        let name = name.replace('-', "_");
        self.facts.modules.value().map(|modules| modules.iter().any(|m| m.name == name))
    }

    /// Can nvidia-fs reach the nvme driver? The one that runs counts; the module on disk speaks only while none is loaded.
    pub fn has_nvfs_hook(&self) -> bool {
        let loaded = self.facts.kernel.symbols.value().map(|symbols| symbols.nvfs_hooks.as_slice());
        let on_disk = self.facts.nvme_module_hooks.value().map_or(&[][..], Vec::as_slice);
        match loaded {
            Some(hooks) if !hooks.is_empty() || self.has_module("nvme") == Some(true) => !hooks.is_empty(),
            _ => !on_disk.is_empty(),
        }
    }

    /// A parameter on the kernel's command line: the words after `name=`, the last one counting; `Some("")` for a bare
    /// `name`.
    pub fn kernel_parameter(&self, name: &str) -> Option<&'a str> {
        let line = self.facts.kernel.command_line.value()?;
        line.split_ascii_whitespace().rev().find_map(|word| match word.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (word == name).then_some(""),
        })
    }
}

/// A GPU that is meant for computing shows at least this much of its memory.
const COMPUTES: u64 = 16 << 30;

/// Signs of a virtual machine in the names that its firmware gives (`/sys/class/dmi/id`): vendor, product.
const VIRTUAL: [(&str, &str); 9] = [
    ("QEMU", ""),
    ("VMware", ""),
    ("Microsoft Corporation", "Virtual Machine"),
    ("Xen", ""),
    ("innotek", ""),
    ("Parallels", ""),
    ("Amazon EC2", ""),
    ("Google", "Google Compute Engine"),
    ("", "KVM"),
];

/// From which side a machine is looked at, by what can be seen of it: a hypervisor below it makes a guest, devices that
/// are given away (vfio-pci) or Proxmox's own kernel make a host, and anything else is bare metal.
pub fn side_of(facts: &Facts) -> Side {
    if is_virtual(facts) {
        return Side::Guest;
    }
    let devices = || facts.pci.value().into_iter().flatten();
    let has_driver = |device: &PciDevice, names: &[&str]| {
        device.driver.value().is_some_and(|driver| names.contains(&driver.as_str()))
    };
    let uses_gpu = devices().any(|device| device.is_nvidia_gpu() && has_driver(device, &["nvidia"]));
    // DPDK takes network cards by vfio-pci too, on machines that use their GPUs themselves.
    let is_dpdk = |device: &PciDevice| uses_gpu && device.class.value().is_some_and(|c| c.0 >> 16 == 0x02);
    let gives_away =
        devices().any(|device| has_driver(device, &["vfio-pci", "nvgrace_gpu_vfio_pci"]) && !is_dpdk(device));
    let is_proxmox = facts.kernel.release.value().is_some_and(|release| release.contains("-pve"));
    if gives_away || is_proxmox { Side::Host } else { Side::BareMetal }
}

fn is_virtual(facts: &Facts) -> bool {
    let platform = &facts.platform;
    if let Fact::Known { .. } = platform.hypervisor {
        return true;
    }
    if facts.cpu.value().is_some_and(|cpu| cpu.hypervisor_flag) {
        return true;
    }
    let vendor = platform.vendor.value().map_or("", String::as_str);
    let product = platform.product.value().map_or("", String::as_str);
    // Amazon's bare-metal instances have the same vendor.
    let metal = product.contains(".metal");
    !metal
        && VIRTUAL.iter().any(|(v, p)| {
            vendor.starts_with(v) && product.contains(p) && !(vendor.is_empty() && product.is_empty())
        })
}
