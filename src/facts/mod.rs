//! Reads a machine, without judging it. Every reader takes a [`Root`]: the live machine, a captured tree of one, or a
//! test's fixture; every [`Fact`] remembers where it was read.

pub mod capture;
pub mod acpi;
pub mod cpu;
pub mod dma;
mod fact;
pub mod iommu;
pub mod kernel;
pub mod kmsg;
pub mod memory;
pub mod module_tree;
pub mod modules;
pub mod nvidia;
pub mod nvme;
pub mod pci;
pub mod pci_config;
pub mod platform;
pub mod root;
mod search;

pub use fact::Fact;
pub use root::Root;

use crate::boot_contract;
use crate::manifest::Manifest;
use acpi::AcpiTables;
use cpu::Cpu;
use dma::DmaProbe;
use iommu::Iommu;
use kernel::Kernel;
use memory::Memory;
use module_tree::ModuleTree;
use modules::{LoadedModule, ModuleLoad};
use nvidia::Nvidia;
use nvme::NvmeController;
use pci::PciDevice;
use platform::Platform;
use serde::{Deserialize, Serialize};

/// Everything that was read from one machine. A field that an older gdsboot did not write is [`Fact::NotRead`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Which image this is; missing on a machine that did not boot one.
    pub image: Fact<Manifest>,
    /// The kernel.
    pub kernel: Kernel,
    /// Firmware and hypervisor.
    pub platform: Platform,
    /// The CPUs.
    pub cpu: Fact<Cpu>,
    /// Memory.
    pub memory: Fact<Memory>,
    /// PCI devices.
    pub pci: Fact<Vec<PciDevice>>,
    /// IOMMUs and their groups.
    pub iommu: Iommu,
    /// The firmware's tables.
    pub acpi: Fact<AcpiTables>,
    /// The numbers of the NUMA nodes.
    pub numa_nodes: Fact<Vec<u32>>,
    /// NVMe controllers that a driver is bound to.
    pub nvme: Fact<Vec<NvmeController>>,
    /// The hook for nvidia-fs in the nvme module on disk.
    pub nvme_module_hooks: Fact<Vec<String>>,
    /// Modules in the kernel.
    pub modules: Fact<Vec<LoadedModule>>,
    /// What came of loading modules; not read where this gdsboot loaded none.
    pub module_loads: Fact<Vec<ModuleLoad>>,
    /// What NVIDIA's kernel modules say.
    pub nvidia: Nvidia,
    /// NVIDIA's user-space libraries.
    pub dma: Fact<DmaProbe>,
}

impl Facts {
    /// Reads all that stands in files. What must be done to be known (loading modules, asking libraries) is not read.
    pub fn read(root: &Root) -> Self {
        let kernel = Kernel::read(root);
        let nvme_module_hooks = match &kernel.release {
            Fact::Known { value: release, .. } => match ModuleTree::read(root, release) {
                Fact::Known { value: tree, .. } => tree.nvfs_hooks(root, "nvme"),
                other => other.map(|_| Vec::new()),
            },
            other => other.clone().map(|_| Vec::new()),
        };
        let manifest = root.bytes(&format!("/{}", boot_contract::RUN_MANIFEST));
        Self {
            image: manifest.parse(|bytes| serde_json::from_slice(&bytes)),
            kernel,
            platform: Platform::read(root),
            cpu: Cpu::read(root),
            memory: Memory::read(root),
            pci: PciDevice::read_all(root),
            iommu: Iommu::read(root),
            acpi: AcpiTables::read(root),
            numa_nodes: memory::read_nodes(root),
            nvme: NvmeController::read_all(root),
            nvme_module_hooks,
            modules: LoadedModule::read_all(root),
            module_loads: Fact::not_read("this run loaded no modules"),
            nvidia: Nvidia::read(root),
            dma: Fact::not_read("the libraries were not asked"),
        }
    }
}
