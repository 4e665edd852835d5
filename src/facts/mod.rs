//! Reads a machine, without judging it. Every reader takes a [`Root`]: the live machine, a captured tree of one, or a
//! test's fixture; every [`Fact`] remembers where it was read.

pub mod acpi;
pub mod capture;
pub mod cpu;
pub mod dkms;
pub mod dma;
mod fact;
pub mod hosted;
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
pub mod smbios;
pub mod unpack;

pub mod block;
pub mod commands;
pub mod cufile;
pub mod cufile_env;
pub mod gdscheck;
pub mod gdsio;
pub mod kernel_log;
pub mod libraries;
pub mod log_lines;
pub mod logs;
pub mod lspci;
pub mod mounts;
pub mod nvidia_fs;
pub mod nvidia_smi;
pub mod packed;

pub use fact::Fact;
pub use root::Root;

use crate::boot_contract::{RUN_LIBRARIES, RUN_MANIFEST, RUN_MODULE_LOADS};
use crate::manifest::Manifest;
use acpi::AcpiTables;
use block::BlockDevice;
use commands::CommandOutput;
use cpu::Cpu;
use cufile::CufileConfig;
use cufile_env::CufileVariable;
use dkms::Dkms;
use dma::DmaProbe;
use gdscheck::Gdscheck;
use gdsio::GdsioRun;
use hosted::HostedVm;
use iommu::Iommu;
use kernel::Kernel;
use kernel_log::KernelLog;
use libraries::InstalledLibrary;
use log_lines::LogLines;
use memory::Memory;
use module_tree::ModuleTree;
use modules::{LoadedModule, ModuleLoad};
use mounts::Mount;
use nvidia::Nvidia;
use nvidia_fs::NvidiaFs;
use nvidia_smi::NvidiaSmi;
use nvme::NvmeController;
use pci::PciDevice;
use platform::Platform;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Everything that was read from one machine. A field that an older gdsboot did not write is [`Fact::NotRead`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// NVIDIA's modules that are built on the machine.
    pub dkms: Dkms,
    /// What NVIDIA's kernel modules say.
    pub nvidia: Nvidia,
    /// NVIDIA's user-space libraries.
    pub dma: Fact<DmaProbe>,

    /// The kernel log, as far as it concerns the routes.
    pub kernel_log: Fact<KernelLog>,
    /// Other logs, likewise.
    pub logs: Fact<Vec<LogLines>>,
    /// What programs printed when the machine was captured.
    pub commands: Fact<Vec<CommandOutput>>,
    /// What gdscheck printed among them.
    pub gdscheck: Fact<Gdscheck>,
    /// What gdsio printed among them, or in a log.
    pub gdsio: Fact<Vec<GdsioRun>>,
    /// What nvidia-smi printed among them.
    pub nvidia_smi: Fact<NvidiaSmi>,
    /// nvidia-fs.
    pub nvidia_fs: NvidiaFs,
    /// The functions that nvidia-fs's module on disk looks for in storage drivers.
    pub nvidia_fs_wants: Fact<Vec<String>>,
    /// nvme's `multipath` parameter: `Y` or `N`.
    pub nvme_multipath: Fact<String>,
    /// cuFile's settings.
    pub cufile: Fact<CufileConfig>,
    /// cuFile's environment variables, where logins and services have them.
    pub cufile_environment: Fact<Vec<CufileVariable>>,
    /// Block devices.
    pub block: Fact<Vec<BlockDevice>>,
    /// What is mounted.
    pub mounts: Fact<Vec<Mount>>,
    /// The devices and files that are swap space.
    pub swaps: Fact<Vec<String>>,
    /// The devices that mounted Btrfs filesystems consist of, by the kernel's names.
    pub btrfs: Fact<Vec<String>>,
    /// NVIDIA's libraries on disk.
    pub libraries: Fact<Vec<InstalledLibrary>>,
    /// A virtual machine that this machine hosts, where one was named.
    pub hosted: Fact<HostedVm>,
}

impl Facts {
    /// Reads all that stands in files. What must be done to be known (loading modules, asking libraries) is read where a
    /// run of the image did it and left it in `/run`.
    pub fn read(root: &Root) -> Self {
        let mut commands = CommandOutput::read_all(root);
        if root.may_ask() && root.exists("/proc/driver/nvidia/version") {
            commands = Fact::known("programs of this machine", CommandOutput::ask());
        }
        let printed = commands.value().map_or(&[][..], Vec::as_slice);
        let kernel = Kernel::read(root).or_by_uname(printed);
        let modules = match LoadedModule::read_all(root) {
            Fact::Missing { from } => LoadedModule::of_lsmod(printed).unwrap_or(Fact::Missing { from }),
            other => other,
        };
        let tree = match &kernel.release {
            Fact::Known { value: release, .. } => ModuleTree::read(root, release),
            other => other.clone().map(|_| ModuleTree::default()),
        };
        let release = kernel.release.value().map_or("", String::as_str);
        let dkms = Dkms::read(root, release);
        let hooks = |module: &str| match &tree {
            Fact::Known { value: tree, .. } => tree.nvfs_hooks(root, module),
            other => other.clone().map(|_| Vec::new()),
        };
        let kernel_log = KernelLog::read(root, printed);
        let kernel_sources = kernel_log.value().map_or(&[][..], |log| log.sources.as_slice());
        let logs = logs::read(root, kernel_sources);
        let gdscheck = Gdscheck::find(printed)
            .or_else(|| Gdscheck::find_in_logs(logs.value().map_or(&[][..], Vec::as_slice)));
        let cufile_environment = CufileVariable::read_all(root, printed);
        let cufile_json = cufile_environment.value().and_then(|set| CufileVariable::config_path(set));
        let cufile = CufileConfig::read(root, cufile_json.unwrap_or(cufile::USUAL));
        let gdsio = GdsioRun::find(printed, logs.value().map_or(&[][..], Vec::as_slice));
        let manifest = root.bytes(&format!("/{RUN_MANIFEST}"));
        let cpu = match Cpu::read(root) {
            Fact::Missing { from } => Cpu::of_lscpu(printed).unwrap_or(Fact::Missing { from }),
            known => known,
        };
        Self {
            image: manifest.parse(|bytes| Manifest::parse(&bytes)),
            kernel,
            platform: Platform::read(root).or_told(printed, kernel_sources, cpu.value()),
            cpu,
            memory: Memory::read(root),
            pci: pci_devices(root, printed),
            iommu: Iommu::read(root),
            acpi: AcpiTables::read(root),
            numa_nodes: memory::read_nodes(root),
            nvme: NvmeController::read_all(root),
            nvme_module_hooks: hooks("nvme"),
            modules,
            dkms,
            module_loads: left_by_run(root, RUN_MODULE_LOADS, "this run loaded no modules"),
            nvidia: Nvidia::read(root),
            dma: left_by_run(root, RUN_LIBRARIES, "the libraries were not asked"),

            gdsio: printed_by((!gdsio.is_empty()).then_some(gdsio), "gdsio", |runs| &runs[0].from),
            gdscheck: printed_by(gdscheck, "gdscheck", |answer| &answer.from),
            logs,
            nvidia_smi: printed_by(NvidiaSmi::find(printed), "nvidia-smi", |answer| &answer.from),
            nvidia_fs: NvidiaFs::read(root),
            nvidia_fs_wants: hooks("nvidia_fs"),
            nvme_multipath: root.text("/sys/module/nvme_core/parameters/multipath"),
            cufile,
            cufile_environment,
            block: BlockDevice::read_all(root),
            mounts: Mount::read_all(root),
            swaps: mounts::swaps(root),
            btrfs: mounts::btrfs(root),
            libraries: InstalledLibrary::read_all(root),
            hosted: Fact::not_read("no virtual machine was named"),
            kernel_log,
            commands,
        }
    }
}

impl Facts {
    /// Reads again what transfers may have changed: errors on links, the kernel's log, nvidia-fs's counters, the drives.
    pub fn read_again(&mut self, root: &Root) {
        let printed = self.commands.value().map_or(&[][..], Vec::as_slice);
        self.pci = pci_devices(root, printed);
        self.kernel_log = KernelLog::read(root, printed);
        self.nvidia_fs = NvidiaFs::read(root);
        self.nvme = NvmeController::read_all(root);
        self.block = BlockDevice::read_all(root);
    }
}

/// What a run of the image did to know it, and left as a fact for whoever looks later.
fn left_by_run<T: DeserializeOwned>(root: &Root, path: &str, otherwise: &str) -> Fact<T> {
    match root
        .bytes(&format!("/{path}"))
        .parse(|bytes| serde_json::from_slice(&bytes).and_then(serde_json::from_value::<Fact<T>>))
    {
        Fact::Missing { .. } => Fact::not_read(otherwise),
        fact => fact.flatten(),
    }
}

/// PCI devices from sysfs, and what lspci showed beyond.
fn pci_devices(root: &Root, printed: &[CommandOutput]) -> Fact<Vec<PciDevice>> {
    let mut devices = PciDevice::read_all(root);
    let listed = lspci::read(root, printed);
    match &mut devices {
        Fact::Known { value, .. } if !value.is_empty() => {
            // Without any link the capture has lost them all, and their absence says nothing.
            let is_linked = value.iter().any(|device| device.driver.value().is_some());
            for device in value {
                if let Some(more) = listed.iter().find(|more| more.address == device.address) {
                    lspci::complete(device, more, !is_linked);
                }
            }
            devices
        }
        _ if listed.is_empty() => devices,
        _ => Fact::known("lspci", listed),
    }
}

/// What a program printed, where it was run.
fn printed_by<T>(answer: Option<T>, program: &str, from: impl Fn(&T) -> &String) -> Fact<T> {
    match answer {
        Some(answer) => Fact::known(from(&answer).clone(), answer),
        None => Fact::not_read(format!("{program} was not run")),
    }
}
