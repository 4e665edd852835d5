//! A machine file, `qemu/machines/*.toml`: the guest that an image is booted in. It describes a machine, never an
//! accelerator or a path: those belong to the host.

use super::expectation::{self, Expectation};
use super::fault::{Moment, ReportPartition};
use super::pci::{Bridge, Gpu, Layout};
use crate::error::usage;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The machine files that gdsboot brings: name and text.
const BUILT_IN: [(&str, &str); 15] = [
    ("no-gpu", include_str!("../../qemu/machines/no-gpu.toml")),
    ("balloon", include_str!("../../qemu/machines/balloon.toml")),
    ("bare-metal-like", include_str!("../../qemu/machines/bare-metal-like.toml")),
    ("drives", include_str!("../../qemu/machines/drives.toml")),
    ("i440fx", include_str!("../../qemu/machines/i440fx.toml")),
    ("many", include_str!("../../qemu/machines/many.toml")),
    ("proxmox-flat", include_str!("../../qemu/machines/proxmox-flat.toml")),
    ("proxmox-nopcie", include_str!("../../qemu/machines/proxmox-nopcie.toml")),
    ("secure-boot", include_str!("../../qemu/machines/secure-boot.toml")),
    ("small-bar", include_str!("../../qemu/machines/small-bar.toml")),
    ("switch", include_str!("../../qemu/machines/switch.toml")),
    ("two-sockets", include_str!("../../qemu/machines/two-sockets.toml")),
    ("two-switches", include_str!("../../qemu/machines/two-switches.toml")),
    ("vfio-viommu", include_str!("../../qemu/machines/vfio-viommu.toml")),
    ("virtual-disk", include_str!("../../qemu/machines/virtual-disk.toml")),
];

/// The machine files in which something goes wrong while they are booted: name and text.
const WITH_FAULTS: [(&str, &str); 11] = [
    ("small-guest", include_str!("../../qemu/faults/small-guest.toml")),
    ("no-serial-port", include_str!("../../qemu/faults/no-serial-port.toml")),
    ("report-missing", include_str!("../../qemu/faults/report-missing.toml")),
    ("report-full", include_str!("../../qemu/faults/report-full.toml")),
    ("report-nearly-full", include_str!("../../qemu/faults/report-nearly-full.toml")),
    ("report-read-only", include_str!("../../qemu/faults/report-read-only.toml")),
    ("two-report-disks", include_str!("../../qemu/faults/two-report-disks.toml")),
    ("image-twice", include_str!("../../qemu/faults/image-twice.toml")),
    ("bad-drives", include_str!("../../qemu/faults/bad-drives.toml")),
    ("drive-unplugged", include_str!("../../qemu/faults/drive-unplugged.toml")),
    ("power-cuts", include_str!("../../qemu/faults/power-cuts.toml")),
];

/// The machine that is booted when none is named.
pub const DEFAULT: &str = "no-gpu";

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// The file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// What is special about it, in one line.
    pub description: String,
    /// The board.
    pub chipset: Chipset,
    /// The firmwares that it is booted with, one boot each.
    pub firmware: Vec<Firmware>,
    /// The UEFI firmware has Microsoft's keys, and Secure Boot is on.
    #[serde(default)]
    pub secure_boot: bool,
    /// How the image is attached.
    pub disk: Disk,
    /// Virtual CPUs, 1 to 255.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// A network card behind QEMU's own network, in which this host's loopback is 10.0.2.2.
    #[serde(default)]
    pub network: bool,
    /// Does the CPU tell that a hypervisor runs it?
    #[serde(default = "yes")]
    pub hypervisor_bit: bool,
    /// A memory balloon.
    #[serde(default)]
    pub balloon: bool,
    /// An Intel IOMMU of the guest's own.
    #[serde(default)]
    pub viommu: bool,
    /// NUMA nodes, 1 to 8; CPUs and memory are dealt out evenly.
    #[serde(default = "one")]
    pub numa_nodes: u8,
    /// What the machine says that it is (SMBIOS type 1): manufacturer and product. Absent: what QEMU says.
    #[serde(default)]
    pub product: Option<[String; 2]>,
    /// SMBIOS type 11, strings that an operator gives a guest.
    #[serde(default)]
    pub oem_strings: Vec<String>,
    /// Buses, switches and ports, each after what it is behind.
    #[serde(default, rename = "bridge")]
    pub bridges: Vec<Bridge>,
    /// Simulated GPUs.
    #[serde(default, rename = "gpu")]
    pub gpus: Vec<Gpu>,
    /// Has it a serial port? Without one nothing is seen of the boot; the report on the disk is all there is.
    #[serde(default = "yes")]
    pub serial_port: bool,
    /// The image is attached twice, the second time as another virtio disk in front of the first.
    #[serde(default)]
    pub image_twice: bool,
    /// Disks for reports alone, beside the image, 0 to 4.
    #[serde(default)]
    pub report_disks: u8,
    /// What is wrong with the image's report partition.
    #[serde(default)]
    pub report_partition: Option<ReportPartition>,
    /// When the power fails. The guest is booted once undisturbed, once for each of these, and once more, all on the same disk.
    #[serde(default)]
    pub power_cuts: Vec<Moment>,
    /// Drives besides the image.
    #[serde(default, rename = "drive")]
    pub drives: Vec<DataDrive>,
    /// Texts for the guest by their names in QEMU's fw_cfg: `opt/gdsboot/bench` is the setting `bench`.
    #[serde(default)]
    pub fw_cfg: BTreeMap<String, String>,
    /// What the report must say. The last table of the file.
    #[serde(default)]
    pub expect: Option<Expectation>,
}

fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}

/// A drive that is not the image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataDrive {
    /// Its serial number, at most 20 characters.
    pub serial: String,
    /// Its size in MiB.
    pub size_mib: u32,
    /// Its logical block size in bytes, 512 or 4096.
    #[serde(default = "DataDrive::usual_block")]
    pub block: u32,
    /// What is on it.
    #[serde(default)]
    pub holds: Holds,
    /// What the guest sees.
    #[serde(default)]
    pub kind: DriveKind,
    /// The bridge that it hangs below. Absent: the root bus.
    #[serde(default)]
    pub behind: Option<String>,
    /// A sector of 512 bytes that can be neither read nor written.
    #[serde(default)]
    pub bad_sector: Option<u64>,
    /// It moves no more bytes than this per second.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
    /// When it is pulled out. It must hang below a port.
    #[serde(default)]
    pub unplug: Option<Moment>,
}

/// What a drive looks like to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriveKind {
    /// An NVMe controller with one namespace.
    #[default]
    Nvme,
    /// A virtio block device.
    VirtioBlk,
}

/// What is on a drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// Nothing: all of it reads as 0.
    Nothing,
    /// Data, every block another.
    #[default]
    Data,
}

impl DataDrive {
    fn usual_block() -> u32 {
        512
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.size_mib) << 20
    }

    fn complaint(&self) -> Option<&'static str> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.serial.is_empty() || self.serial.len() > 20 || !self.serial.chars().all(is_plain) {
            return Some("a serial number has 1 to 20 letters, digits, dashes, dots or underscores");
        }
        if !matches!(self.block, 512 | 4096) {
            return Some("a logical block has 512 or 4096 bytes");
        }
        if !(1..=1 << 20).contains(&self.size_mib) {
            return Some("a drive has between 1 MiB and 1 TiB");
        }
        if self.bad_sector.is_some_and(|sector| sector >= self.bytes() / 512) {
            return Some("the bad sector lies behind the drive's end");
        }
        if self.bytes_per_second.is_some_and(|bytes| bytes < 4096) {
            return Some("a drive moves at least 4096 bytes per second");
        }
        (self.unplug.is_some() && self.behind.is_none()).then_some(
            "a drive that is pulled out hangs below a port: behind = NAME of a root-port or switch",
        )
    }
}

/// The board: its buses and its ACPI tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chipset {
    /// PCI Express.
    Q35,
    /// Conventional PCI.
    I440fx,
}

/// What starts the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// OVMF.
    Uefi,
    /// SeaBIOS.
    Bios,
    /// None: QEMU loads the kernel that the image's boot menu names, and the disk is the root alone.
    Direct,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// A virtio block device.
    VirtioBlk,
    /// A disk on a virtio SCSI controller.
    VirtioScsi,
    /// An NVMe namespace.
    Nvme,
    /// A stick on an xHCI controller.
    UsbStorage,
    /// A disk on an AHCI controller.
    Sata,
    /// A CD-ROM drive on an xHCI controller, as the virtual media of a BMC are; for ISOs.
    UsbCdrom,
    /// A CD-ROM drive on an AHCI controller; for ISOs.
    SataCdrom,
}

impl Disk {
    /// Is it a CD-ROM drive?
    pub fn is_cdrom(self) -> bool {
        matches!(self, Self::UsbCdrom | Self::SataCdrom)
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
            Self::Direct => "direct",
        })
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::Nvme => "nvme",
            Self::UsbStorage => "usb-storage",
            Self::Sata => "sata",
            Self::UsbCdrom => "usb-cdrom",
            Self::SataCdrom => "sata-cdrom",
        })
    }
}

impl Machine {
    /// A machine that gdsboot brings, or the file at `name` where that looks like a path.
    pub fn load(name: &str) -> Result<Self> {
        for (folder, built_in) in [("machines", &BUILT_IN[..]), ("faults", &WITH_FAULTS[..])] {
            if let Some((name, text)) = built_in.iter().find(|(built_in, _)| *built_in == name) {
                return Self::parse(name, &format!("qemu/{folder}/{name}.toml"), text);
            }
        }
        if !name.contains('/') && !name.ends_with(".toml") {
            let known: Vec<_> = Self::built_in().chain(Self::with_faults()).collect();
            return Err(usage(
                format!("there is no machine called {name}"),
                format!("it is one of {}, or the path of a machine file", known.join(", ")),
            ));
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).with_context(|| format!("reading the machine file {name}"));
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Self::parse(&stem, name, &text.map_err(|e| usage(format!("{e:#}"), "check the path"))?)
    }

    /// The names of the machines that gdsboot brings.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The names of those in which something goes wrong.
    pub fn with_faults() -> impl Iterator<Item = &'static str> {
        WITH_FAULTS.iter().map(|(name, _)| *name)
    }

    /// Reads a machine file's text. `path` is for the error, which has the line.
    pub fn parse(name: &str, path: &str, text: &str) -> Result<Self> {
        let refuse = |at: String, what: &str| {
            usage(format!("{path}{at}: {what}"), "qemu/machines/no-gpu.toml shows every key")
        };
        let machine: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            refuse(line.map(|line| format!(":{line}")).unwrap_or_default(), e.message())
        })?;
        let key = |key: &str| {
            let line = text.lines().position(|line| line.trim_start().starts_with(key)).map_or(1, |n| n + 1);
            format!(":{line}")
        };
        if machine.firmware.is_empty() {
            return Err(refuse(key("firmware"), "name at least one firmware"));
        }
        if (1..machine.firmware.len()).any(|n| machine.firmware[..n].contains(&machine.firmware[n])) {
            return Err(refuse(key("firmware"), "the same firmware is named twice"));
        }
        if machine.secure_boot && (machine.chipset != Chipset::Q35 || machine.firmware != [Firmware::Uefi]) {
            return Err(refuse(
                key("secure-boot"),
                "Secure Boot needs the chipset q35 and the firmware uefi alone",
            ));
        }
        if machine.cpus == 0 {
            return Err(refuse(key("cpus"), "a machine has at least one CPU"));
        }
        if !(128..=1 << 20).contains(&machine.memory_mib) {
            return Err(refuse(key("memory-mib"), "memory is between 128 MiB and 1 TiB"));
        }
        if let Some(complaint) = machine.drives.iter().find_map(DataDrive::complaint) {
            return Err(refuse(key("[[drive]]"), complaint));
        }
        if !(1..=8).contains(&machine.numa_nodes) || machine.numa_nodes > machine.cpus {
            return Err(refuse(key("numa-nodes"), "a machine has 1 to 8 NUMA nodes, each with a CPU"));
        }
        if machine.viommu && machine.chipset != Chipset::Q35 {
            return Err(refuse(key("viommu"), "an IOMMU needs the chipset q35"));
        }
        let texts = machine.oem_strings.iter().chain(machine.product.iter().flatten());
        if texts.into_iter().any(|text| text.is_empty() || text.contains(',')) {
            return Err(refuse(key("oem-strings"), "SMBIOS strings are not empty and have no commas"));
        }
        if machine.report_disks > 4 {
            return Err(refuse(key("report-disks"), "a machine has at most 4 report disks"));
        }
        if !machine.power_cuts.is_empty() && (!machine.serial_port || !machine.gpus.is_empty()) {
            return Err(refuse(
                key("power-cuts"),
                "the power fails by what the serial port says, and where no GPU is simulated",
            ));
        }
        if machine.drives.iter().any(|drive| drive.unplug.is_some()) && !machine.serial_port {
            return Err(refuse(key("serial-port"), "a drive is pulled out by what the serial port says"));
        }
        for (number, gpu) in (0..).zip(&machine.gpus) {
            gpu.functions(number).map_err(|e| refuse(key("[[gpu]]"), &format!("{e}; {}", e.hint())))?;
        }
        if let Some(what) = machine.expect.as_ref().and_then(expectation::complaint) {
            return Err(refuse(key("[expect"), &what));
        }
        Layout::of(&machine).map_err(|what| refuse(key("[[bridge]]"), &what))?;
        // QEMU: docs/specs/fw_cfg.rst; names of 55 characters at most, and `opt/` is what is left to users.
        let is_name = |name: &String| name.starts_with("opt/") && name.len() <= 55 && !name.contains(',');
        if !machine.fw_cfg.iter().all(|(name, text)| is_name(name) && !text.contains(',')) {
            return Err(refuse(
                key("[fw-cfg]"),
                "a name begins with opt/ and has at most 55 characters; no commas",
            ));
        }
        Ok(Self { name: name.to_owned(), ..machine })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Status, one_line, status_of};

    fn error(text: &str) -> String {
        let error = Machine::parse("m", "m.toml", text).unwrap_err();
        assert_eq!(status_of(&error), Status::Usage);
        one_line(&error)
    }

    /// A machine without expectations.
    fn plain() -> &'static str {
        BUILT_IN[0].1.split("[expect]").next().unwrap().trim_end()
    }

    fn changed(from: &str, to: &str) -> String {
        let text = plain();
        assert!(text.contains(from));
        text.replace(from, to)
    }

    #[test]
    fn every_built_in_machine_is_readable() {
        for name in Machine::built_in().chain(Machine::with_faults()) {
            assert_eq!(Machine::load(name).unwrap().name, name);
        }
        assert!(Machine::built_in().any(|name| name == DEFAULT));
    }

    #[test]
    fn every_file_in_the_folders_is_built_in() {
        let names = |folder: &str| -> Vec<String> {
            let files =
                fs_err::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("qemu").join(folder)).unwrap();
            let name = |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut names: Vec<_> = files.map(|entry| name(entry.unwrap().path())).collect();
            names.sort();
            names
        };
        let sorted = |names: &mut dyn Iterator<Item = &'static str>| {
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names("machines"), sorted(&mut Machine::built_in()));
        assert_eq!(names("faults"), sorted(&mut Machine::with_faults()));
    }

    #[test]
    fn errors_name_file_and_line() {
        assert_eq!(
            error(&changed("cpus", "cpu")),
            "m.toml:5: unknown field `cpu`, expected one of `description`, `chipset`, `firmware`, `secure-boot`, \
             `disk`, `cpus`, `memory-mib`, `network`, `hypervisor-bit`, `balloon`, `viommu`, `numa-nodes`, `product`, \
             `oem-strings`, `bridge`, `gpu`, `serial-port`, `image-twice`, `report-disks`, `report-partition`, \
             `power-cuts`, `drive`, `fw-cfg`, `expect`"
        );
        assert_eq!(
            error(&changed("\"virtio-blk\"", "\"floppy\"")),
            "m.toml:4: unknown variant `floppy`, expected one of `virtio-blk`, `virtio-scsi`, `nvme`, \
             `usb-storage`, `sata`, `usb-cdrom`, `sata-cdrom`"
        );
        assert_eq!(
            error(&changed("cpus = 2", "cpus = 2\nsecure-boot = true")),
            "m.toml:6: Secure Boot needs the chipset q35 and the firmware uefi alone"
        );
        assert_eq!(error(&changed("cpus = 2", "cpus = 0")), "m.toml:5: a machine has at least one CPU");
        assert_eq!(error(&changed("2048", "64")), "m.toml:6: memory is between 128 MiB and 1 TiB");
        assert_eq!(error(&changed("\"uefi\", ", "\"bios\", ")), "m.toml:3: the same firmware is named twice");
        assert_eq!(error(&changed("\"uefi\", \"bios\"", "")), "m.toml:3: name at least one firmware");
        assert_eq!(error(&changed("cpus = 2\n", "")), "m.toml:1: missing field `cpus`");
        assert!(error("é = [").starts_with("m.toml:1: "));
        let with = |text: &str| error(&format!("{}\n\n{text}\n", plain()));
        assert_eq!(
            with("[[drive]]\nserial = 'a b'\nsize-mib = 64"),
            "m.toml:8: a serial number has 1 to 20 letters, digits, dashes, dots or underscores"
        );
        assert!(with("[[drive]]\nserial = 'a'\nsize-mib = 64\nblock = 520").ends_with("512 or 4096 bytes"));
        assert!(with("[[drive]]\nserial = 'a'\nsize-mib = 0").ends_with("between 1 MiB and 1 TiB"));
        assert!(
            with("[[gpu]]\nmodel = 'h101'").starts_with("m.toml:8: "),
            "{}",
            with("[[gpu]]\nmodel = 'h101'")
        );
        assert!(
            with("[[gpu]]\nmodel = 'l40s'\nbehind = 'x'")
                .ends_with("gpu0 is behind x, and no bridge before it is called so")
        );
        assert!(
            with("[[bridge]]\nname = 'a'\nkind = 'host-bridge'\nnuma-node = 1")
                .ends_with("the bridge a: there are 1 NUMA nodes")
        );
        let port = "[[bridge]]\nname = 'a'\nkind = 'root-port'\n";
        for address in ["1c", "20.0", "1c.8", "1c.0,id=x", "+c.0"] {
            let said = with(&format!("{port}address = '{address}'"));
            assert!(said.ends_with("such as 1c.0"), "{address}: {said}");
        }
        let bridges: String =
            (0..7).map(|n| format!("[[bridge]]\nname = 'h{n}'\nkind = 'host-bridge'\n")).collect();
        assert!(with(&bridges).ends_with("the bridge h6 is one host bridge more than 6"));
        let two = "[[gpu]]\nmodel = 'l40s'\nbehind = 'a'\n[[gpu]]\nmodel = 'l40s'\nbehind = 'a'";
        assert!(with(&format!("{port}{two}")).ends_with("has room for one device; put a switch behind it"));
        assert!(with(&format!("{port}{port}")).ends_with("two bridges are called a"));
        assert_eq!(
            error(&changed("cpus = 2", "cpus = 2\nnuma-nodes = 3")),
            "m.toml:6: a machine has 1 to 8 NUMA nodes, each with a CPU"
        );
        assert!(error(&changed("cpus = 2", "cpus = 2\noem-strings = ['a,b']")).ends_with("have no commas"));
        assert!(with("[fw-cfg]\n'org/x' = 'y'").contains("m.toml:8: a name begins with opt/"));
        assert!(with("[fw-cfg]\n'opt/x' = 'y,z'").ends_with("no commas"));
    }

    #[test]
    fn unknown_machines_are_named() {
        let error = Machine::load("nope").unwrap_err();
        assert_eq!(one_line(&error), "there is no machine called nope");
        let error = Machine::load("/nonexistent/m.toml").unwrap_err();
        assert!(one_line(&error).starts_with("reading the machine file /nonexistent/m.toml: No such file"));
    }
}
