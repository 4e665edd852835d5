//! From a machine and a host to QEMU's arguments: pure, one small function per part. Options are those of QEMU 7.2 and
//! newer (`qemu-system-x86_64(1)`).

use super::argv_disks::{attachment, data_drives, drive, report_disks, second, with_path};
use super::machine::{Chipset, Machine};
use super::media::Media;
use super::pci::Layout;
use serde::Serialize;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The CPU itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        })
    }
}

/// The firmware's files, as QEMU sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareFiles {
    /// QEMU's own SeaBIOS.
    Bios,
    /// OVMF's code, which is only read, and a copy of its variables, which is written.
    Uefi {
        /// The code.
        code: PathBuf,
        /// The variables.
        vars: PathBuf,
        /// The code was built to keep the variables, keys among them, from the guest: it writes them in system
        /// management mode alone.
        secure: bool,
    },
    /// A kernel that QEMU loads itself.
    Direct {
        /// The kernel.
        kernel: PathBuf,
        /// Its initial RAM disk.
        initrd: PathBuf,
        /// Its command line.
        arguments: String,
    },
}

/// What a boot's arguments are made of, besides the machine.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The image and the report disk.
    pub media: &'a Media,
    /// Where the writes to the image are logged; none: nowhere.
    pub write_log: Option<&'a Path>,
    /// The firmware's files.
    pub firmware: &'a FirmwareFiles,
    /// Where the machine's devices hang.
    pub layout: &'a Layout,
    /// The files of the machine's drives, in their order.
    pub data: &'a [PathBuf],
    /// What attaches the simulated GPUs.
    pub gpus: &'a [OsString],
    /// What attaches the monitor.
    pub monitor: &'a [OsString],
    /// What executes the guest.
    pub accel: Accel,
}

/// The arguments that boot a machine. The guest's first serial port is QEMU's standard output.
pub fn boot(machine: &Machine, parts: Parts<'_>) -> Vec<OsString> {
    let Parts { media, write_log, firmware, layout, data, gpus, monitor, accel } = parts;
    [
        common(),
        network(machine.network),
        board(machine.chipset, firmware, machine),
        accelerator(accel, machine.hypervisor_bit),
        size(machine.cpus, machine.memory_mib),
        memory(machine),
        identity(machine),
        flash(firmware),
        // The devices that it translates for come after it.
        if machine.viommu {
            arguments(["-device", "intel-iommu,caching-mode=on,intremap=off"])
        } else {
            Vec::new()
        },
        direct(firmware),
        second(media),
        drive(media, write_log),
        attachment(media.disk, machine.chipset, firmware),
        report_disks(media),
        data_drives(&machine.drives, data, &layout.drives, Option::is_none),
        if machine.balloon { arguments(["-device", "virtio-balloon-pci"]) } else { Vec::new() },
        arguments(["-device", "VGA"]),
        // A device without a bus of its own would land on the last host bridge.
        layout.arguments.clone(),
        gpus.to_vec(),
        data_drives(&machine.drives, data, &layout.drives, Option::is_some),
        firmware_texts(machine),
        window(machine, firmware),
        if machine.serial_port { serial() } else { Vec::new() },
        monitor.to_vec(),
    ]
    .concat()
}

/// The arguments that boot nothing but a kernel, to see whether it starts. SeaBIOS tells what it does on its debug port;
/// that goes where the serial port goes.
pub fn kernel_only(kernel: &Path, accel: Accel) -> Vec<OsString> {
    let mut kernel_args = arguments(["-kernel"]);
    kernel_args.push(kernel.into());
    // No root can be found, so the kernel panics, and with panic=-1 restarts at once, which ends QEMU.
    let command_line = "earlycon=uart8250,io,0x3f8,115200 console=ttyS0,115200 panic=-1";
    kernel_args.extend(arguments(["-append", command_line]));
    let console = arguments([
        "-chardev",
        "stdio,id=serial,signal=off,mux=on",
        "-serial",
        "chardev:serial",
        "-device",
        "isa-debugcon,iobase=0x402,chardev=serial",
    ]);
    [
        common(),
        network(false),
        arguments(["-machine", "q35"]),
        accelerator(accel, true),
        size(1, 512),
        kernel_args,
        console,
    ]
    .concat()
}

pub(super) fn arguments<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

/// Nothing from the host's configuration, no default devices, no window; a restart ends QEMU.
fn common() -> Vec<OsString> {
    arguments(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"])
}

/// A card without a boot ROM: the image is what is to be booted.
fn network(wanted: bool) -> Vec<OsString> {
    if wanted {
        arguments(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="])
    } else {
        arguments(["-nic", "none"])
    }
}

fn board(chipset: Chipset, firmware: &FirmwareFiles, machine: &Machine) -> Vec<OsString> {
    let name = match chipset {
        Chipset::Q35 => "q35",
        Chipset::I440fx => "pc",
    };
    // OvmfPkg/README of edk2, "SMM support".
    let is_secure = chipset == Chipset::Q35 && matches!(firmware, FirmwareFiles::Uefi { secure: true, .. });
    let smm = if is_secure { ",smm=on" } else { "" };
    // NUMA nodes bring memory of their own.
    let shared = if shares_memory(machine) && machine.numa_nodes == 1 { ",memory-backend=mem0" } else { "" };
    // Remapped interrupts panic Linux under TCG ("timer doesn't work through Interrupt-remapped IO-APIC"), and this IOMMU
    // without them wants the interrupt controllers in QEMU.
    let irqchip = if machine.viommu { ",kernel-irqchip=off" } else { "" };
    let mut board = arguments(["-machine", &format!("{name}{smm}{shared}{irqchip}")]);
    if is_secure {
        board.extend(arguments([
            "-global",
            "driver=cfi.pflash01,property=secure,value=on",
            "-global",
            "ICH9-LPC.disable_s3=1",
        ]));
    }
    board
}

/// What serves a simulated GPU has the guest's memory mapped too, as vfio-user demands.
fn shares_memory(machine: &Machine) -> bool {
    !machine.gpus.is_empty()
}

fn memory(machine: &Machine) -> Vec<OsString> {
    let nodes = u32::from(machine.numa_nodes);
    if nodes == 1 && !shares_memory(machine) {
        return Vec::new();
    }
    let share = if shares_memory(machine) { "on" } else { "off" };
    let node = |node: u32| {
        // The first ones get what does not divide.
        let part = |all: u32| all / nodes + u32::from(node < all % nodes);
        let before =
            |all: u32| (0..node).map(|node| all / nodes + u32::from(node < all % nodes)).sum::<u32>();
        let cpus = u32::from(machine.cpus);
        let mib = part(machine.memory_mib);
        let mut words =
            arguments(["-object", &format!("memory-backend-memfd,id=mem{node},size={mib}M,share={share}")]);
        if nodes > 1 {
            let (first, last) = (before(cpus), before(cpus) + part(cpus) - 1);
            words.extend(arguments([
                "-numa",
                &format!("node,nodeid={node},cpus={first}-{last},memdev=mem{node}"),
            ]));
        }
        words
    };
    (0..nodes).flat_map(node).collect()
}

/// SMBIOS.
fn identity(machine: &Machine) -> Vec<OsString> {
    let mut words = Vec::new();
    if let Some([manufacturer, product]) = &machine.product {
        words
            .extend(arguments(["-smbios", &format!("type=1,manufacturer={manufacturer},product={product}")]));
    }
    if !machine.oem_strings.is_empty() {
        let values: Vec<String> = machine.oem_strings.iter().map(|text| format!(",value={text}")).collect();
        words.extend(arguments(["-smbios", &format!("type=11{}", values.concat())]));
    }
    words
}

/// The windows of large GPUs do not fit into the space that OVMF gives by itself.
fn window(machine: &Machine, firmware: &FirmwareFiles) -> Vec<OsString> {
    match firmware {
        FirmwareFiles::Uefi { .. } if !machine.gpus.is_empty() => {
            arguments(["-fw_cfg", simulated_gpu::qemu::OVMF_WINDOW])
        }
        _ => Vec::new(),
    }
}

fn accelerator(accel: Accel, hypervisor_bit: bool) -> Vec<OsString> {
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg,thread=multi", "max"),
    };
    let hidden = if hypervisor_bit { "" } else { ",-hypervisor" };
    arguments(["-accel", accel, "-cpu", &format!("{cpu}{hidden}")])
}

fn size(cpus: u8, memory_mib: u32) -> Vec<OsString> {
    arguments(["-smp", &cpus.to_string(), "-m", &format!("{memory_mib}M")])
}

fn flash(firmware: &FirmwareFiles) -> Vec<OsString> {
    match firmware {
        FirmwareFiles::Bios | FirmwareFiles::Direct { .. } => Vec::new(),
        FirmwareFiles::Uefi { code, vars, .. } => vec![
            "-drive".into(),
            with_path("if=pflash,unit=0,format=raw,readonly=on,file=", code),
            "-drive".into(),
            with_path("if=pflash,unit=1,format=raw,file=", vars),
        ],
    }
}

/// SeaBIOS jumps to the kernel; the disk's boot loader is left out.
fn direct(firmware: &FirmwareFiles) -> Vec<OsString> {
    let FirmwareFiles::Direct { kernel, initrd, arguments } = firmware else { return Vec::new() };
    ["-kernel".into(), kernel.into(), "-initrd".into(), initrd.into(), "-append".into(), arguments.into()]
        .to_vec()
}

/// What the machine file has for the guest to read.
fn firmware_texts(machine: &Machine) -> Vec<OsString> {
    let one =
        |(name, text): (&String, &String)| arguments(["-fw_cfg", &format!("name={name},string={text}")]);
    machine.fw_cfg.iter().flat_map(one).collect()
}

/// A setting for the run, where the guest looks for it.
pub fn setting(key: &str, value: &str) -> Vec<OsString> {
    arguments(["-fw_cfg", &format!("name=opt/gdsboot/{key},string={value}")])
}

fn serial() -> Vec<OsString> {
    arguments(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"])
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
