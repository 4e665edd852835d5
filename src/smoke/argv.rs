//! From a machine and a host to QEMU's arguments: pure, one small function per part. Options are those of QEMU 7.2 and
//! newer (`qemu-system-x86_64(1)`).

use super::machine::{Chipset, DataDrive, Disk, DriveKind, Machine};
use super::media::Media;
use super::pci::{Layout, Slot};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
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
}

/// What a boot's arguments are made of, besides the machine.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The image and the report disk.
    pub media: &'a Media,
    /// The firmware's files.
    pub firmware: &'a FirmwareFiles,
    /// Where the machine's devices hang.
    pub layout: &'a Layout,
    /// The files of the machine's drives, in their order.
    pub data: &'a [PathBuf],
    /// What attaches the simulated GPUs.
    pub gpus: &'a [OsString],
    /// What executes the guest.
    pub accel: Accel,
}

/// The arguments that boot a machine. The guest's first serial port is QEMU's standard output.
pub fn boot(machine: &Machine, parts: Parts<'_>) -> Vec<OsString> {
    let Parts { media, firmware, layout, data, gpus, accel } = parts;
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
        drive(media),
        attachment(media.disk, machine.chipset),
        report_disk(media),
        data_drives(&machine.drives, data, &layout.drives, Option::is_none),
        if machine.balloon { arguments(["-device", "virtio-balloon-pci"]) } else { Vec::new() },
        arguments(["-device", "VGA"]),
        // A device without a bus of its own would land on the last host bridge.
        layout.arguments.clone(),
        gpus.to_vec(),
        data_drives(&machine.drives, data, &layout.drives, Option::is_some),
        firmware_texts(machine),
        window(machine, firmware),
        serial(),
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

fn arguments<const N: usize>(words: [&str; N]) -> Vec<OsString> {
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
        FirmwareFiles::Bios => Vec::new(),
        FirmwareFiles::Uefi { code, vars, .. } => vec![
            "-drive".into(),
            with_path("if=pflash,unit=0,format=raw,readonly=on,file=", code),
            "-drive".into(),
            with_path("if=pflash,unit=1,format=raw,file=", vars),
        ],
    }
}

/// The copy dies with the boot, so the host need not flush it (`cache=unsafe`); the host's own view of the file is
/// right however QEMU ends.
fn drive(media: &Media) -> Vec<OsString> {
    let format = media.image.format();
    let cdrom = if media.disk.is_cdrom() { "media=cdrom," } else { "" };
    let read_only = if media.read_only { "readonly=on," } else { "" };
    let option = format!("if=none,id=image,format={format},{cdrom}{read_only}cache=unsafe,file=");
    vec!["-drive".into(), with_path(&option, &media.image.path)]
}

/// Beside a CD-ROM drive a stick, as on a real machine; else a disk of a virtual machine.
fn report_disk(media: &Media) -> Vec<OsString> {
    let Some(report) = &media.report else { return Vec::new() };
    let option = format!("if=none,id=report,format={},cache=unsafe,file=", report.format());
    let drive = vec!["-drive".into(), with_path(&option, &report.path)];
    let device = match media.disk {
        Disk::UsbCdrom | Disk::UsbStorage => {
            arguments(["-device", "usb-storage,bus=usb.0,removable=on,drive=report"])
        }
        Disk::SataCdrom => arguments([
            "-device",
            "qemu-xhci,id=usb",
            "-device",
            "usb-storage,bus=usb.0,removable=on,drive=report",
        ]),
        _ => arguments(["-device", "virtio-blk-pci,drive=report"]),
    };
    [drive, device].concat()
}

fn attachment(disk: Disk, chipset: Chipset) -> Vec<OsString> {
    match (disk, chipset) {
        (Disk::VirtioBlk, _) => arguments(["-device", "virtio-blk-pci,drive=image,bootindex=0"]),
        (Disk::VirtioScsi, _) => arguments([
            "-device",
            "virtio-scsi-pci,id=scsi",
            "-device",
            "scsi-hd,bus=scsi.0,drive=image,bootindex=0",
        ]),
        (Disk::Nvme, _) => arguments(["-device", "nvme,serial=gdsboot-image,drive=image,bootindex=0"]),
        (Disk::UsbStorage, _) => arguments([
            "-device",
            "qemu-xhci,id=usb",
            "-device",
            "usb-storage,bus=usb.0,removable=on,drive=image,bootindex=0",
        ]),
        // q35 has an AHCI controller of its own.
        (Disk::Sata, Chipset::Q35) => arguments(["-device", "ide-hd,bus=ide.0,drive=image,bootindex=0"]),
        (Disk::Sata, Chipset::I440fx) => arguments([
            "-device",
            "ich9-ahci,id=ahci",
            "-device",
            "ide-hd,bus=ahci.0,drive=image,bootindex=0",
        ]),
        // The drive is a CD-ROM's, and so becomes the device.
        (Disk::UsbCdrom, _) => arguments([
            "-device",
            "qemu-xhci,id=usb",
            "-device",
            "usb-storage,bus=usb.0,drive=image,bootindex=0",
        ]),
        (Disk::SataCdrom, Chipset::Q35) => arguments(["-device", "ide-cd,bus=ide.0,drive=image,bootindex=0"]),
        (Disk::SataCdrom, Chipset::I440fx) => arguments([
            "-device",
            "ich9-ahci,id=ahci",
            "-device",
            "ide-cd,bus=ahci.0,drive=image,bootindex=0",
        ]),
    }
}

/// Drives besides the image whose place is `wanted`, each with its file.
fn data_drives(
    drives: &[DataDrive],
    files: &[PathBuf],
    slots: &[Option<Slot>],
    wanted: fn(&Option<Slot>) -> bool,
) -> Vec<OsString> {
    let one = |(n, ((drive, file), slot)): (usize, ((&DataDrive, &PathBuf), &Option<Slot>))| {
        let DataDrive { serial, block, .. } = drive;
        let name = match drive.kind {
            DriveKind::Nvme => "nvme",
            DriveKind::VirtioBlk => "virtio-blk-pci",
        };
        let place = slot.as_ref().map(|slot| format!(",bus={},addr={:x}", slot.bus, slot.number));
        let device = format!(
            "{name},serial={serial},drive=data{n},logical_block_size={block},physical_block_size={block}{}",
            place.unwrap_or_default()
        );
        vec![
            "-drive".into(),
            with_path(&format!("if=none,id=data{n},format=raw,cache=unsafe,file="), file),
            "-device".into(),
            device.into(),
        ]
    };
    let all = drives.iter().zip(files).zip(slots).enumerate();
    all.filter(|(_, (_, slot))| wanted(slot)).flat_map(one).collect()
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

/// An option that ends with a path. QEMU's option parser wants commas doubled.
fn with_path(option: &str, path: &Path) -> OsString {
    let mut bytes = option.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pasteable::pasteable;
    use crate::report::kind::Kind;
    use crate::smoke::machine::Firmware;
    use crate::smoke::media::Medium;

    fn media(disk: Disk, path: &str) -> Media {
        let image = Medium { path: path.into(), kind: Kind::Raw };
        Media { image, disk, read_only: false, report: None }
    }

    fn line(argv: &[OsString]) -> String {
        // One option with its value per line, for people who read the snapshot.
        pasteable(argv).replace(" -", "\n-")
    }

    /// The arguments of a machine, its GPUs not served but named.
    fn booted(machine: &Machine, image: &str, firmware: &FirmwareFiles, accel: Accel) -> Vec<OsString> {
        let layout = Layout::of(machine).unwrap();
        let data: Vec<PathBuf> =
            (0..machine.drives.len()).map(|n| format!("/scratch/data{n}.img").into()).collect();
        let mut gpus = Vec::new();
        for (n, (gpu, slot)) in (0..).zip(machine.gpus.iter().zip(&layout.gpus)) {
            let functions = gpu.functions(n).unwrap();
            for function in &functions {
                let socket = format!("/scratch/gpu{n}.{}", function.number);
                let multi = functions.len() > 1 && function.number == 0;
                let device =
                    simulated_gpu::qemu::device(function, multi, &slot.bus, slot.number, Path::new(&socket));
                gpus.extend(["-device".into(), device.into()]);
            }
        }
        let media = media(machine.disk, image);
        let parts = Parts { media: &media, firmware, layout: &layout, data: &data, gpus: &gpus, accel };
        boot(machine, parts)
    }

    /// Every machine that gdsboot brings, by its first firmware.
    #[test]
    fn every_machine() {
        for name in Machine::built_in() {
            let machine = Machine::load(name).unwrap();
            let firmware = match machine.firmware[0] {
                Firmware::Bios => FirmwareFiles::Bios,
                Firmware::Uefi if machine.secure_boot => FirmwareFiles::Uefi {
                    code: "/scratch/code.fd".into(),
                    vars: "/scratch/vars.fd".into(),
                    secure: true,
                },
                Firmware::Uefi => uefi(),
            };
            let argv = booted(&machine, "/scratch/image.img", &firmware, Accel::Tcg);
            insta::assert_snapshot!(name, line(&argv));
        }
    }

    fn uefi() -> FirmwareFiles {
        FirmwareFiles::Uefi {
            code: "/scratch/code.fd".into(),
            vars: "/scratch/vars.fd".into(),
            secure: false,
        }
    }

    #[test]
    fn no_gpu_by_uefi() {
        let machine = Machine::load("no-gpu").unwrap();
        let argv = booted(&machine, "/scratch/image.img", &uefi(), Accel::Tcg);
        insta::assert_snapshot!(line(&argv), @r"
        -no-user-config
        -nodefaults
        -no-reboot
        -display none
        -nic none
        -machine q35
        -accel tcg,thread=multi
        -cpu max
        -smp 2
        -m 2048M
        -drive if=pflash,unit=0,format=raw,readonly=on,file=/scratch/code.fd
        -drive if=pflash,unit=1,format=raw,file=/scratch/vars.fd
        -drive if=none,id=image,format=raw,cache=unsafe,file=/scratch/image.img
        -device virtio-blk-pci,drive=image,bootindex=0
        -device VGA
        -chardev stdio,id=serial,signal=off
        -serial chardev:serial
        ");
    }

    #[test]
    fn data_drives_and_texts_for_the_guest() {
        let machine = Machine::load("drives").unwrap();
        let files = ["/scratch/data0.img".into(), "/scratch/data,1.img".into()];
        let layout = Layout::of(&machine).unwrap();
        let argv =
            [data_drives(&machine.drives, &files, &layout.drives, Option::is_none), firmware_texts(&machine)]
                .concat();
        insta::assert_snapshot!(line(&argv), @r"
        -drive if=none,id=data0,format=raw,cache=unsafe,file=/scratch/data0.img
        -device nvme,serial=gdsboot-512,drive=data0,logical_block_size=512,physical_block_size=512
        -drive if=none,id=data1,format=raw,cache=unsafe,file=/scratch/data,,1.img
        -device nvme,serial=gdsboot-4096,drive=data1,logical_block_size=4096,physical_block_size=4096
        -fw_cfg name=opt/gdsboot/bench_seconds,string=0.5
        ");
    }

    #[test]
    fn a_network_card_where_the_machine_has_one() {
        assert_eq!(line(&network(true)), "-netdev user,id=net\n-device virtio-net-pci,netdev=net,romfile=");
    }

    #[test]
    fn secure_boot() {
        let machine = Machine::load("secure-boot").unwrap();
        let firmware = FirmwareFiles::Uefi { code: "/code.fd".into(), vars: "/vars.fd".into(), secure: true };
        let argv = booted(&machine, "/image.img", &firmware, Accel::Tcg);
        insta::assert_snapshot!(line(&argv), @r"
        -no-user-config
        -nodefaults
        -no-reboot
        -display none
        -nic none
        -machine q35,smm=on
        -global driver=cfi.pflash01,property=secure,value=on
        -global ICH9-LPC.disable_s3=1
        -accel tcg,thread=multi
        -cpu max
        -smp 2
        -m 2048M
        -drive if=pflash,unit=0,format=raw,readonly=on,file=/code.fd
        -drive if=pflash,unit=1,format=raw,file=/vars.fd
        -drive if=none,id=image,format=raw,cache=unsafe,file=/image.img
        -device virtio-blk-pci,drive=image,bootindex=0
        -device VGA
        -chardev stdio,id=serial,signal=off
        -serial chardev:serial
        ");
    }

    #[test]
    fn no_gpu_by_bios() {
        let machine = Machine::load("no-gpu").unwrap();
        let argv = booted(&machine, "/scratch/image.img", &FirmwareFiles::Bios, Accel::Kvm);
        insta::assert_snapshot!(line(&argv), @r"
        -no-user-config
        -nodefaults
        -no-reboot
        -display none
        -nic none
        -machine q35
        -accel kvm
        -cpu host
        -smp 2
        -m 2048M
        -drive if=none,id=image,format=raw,cache=unsafe,file=/scratch/image.img
        -device virtio-blk-pci,drive=image,bootindex=0
        -device VGA
        -chardev stdio,id=serial,signal=off
        -serial chardev:serial
        ");
    }

    #[test]
    fn i440fx() {
        let machine = Machine::load("i440fx").unwrap();
        let argv = booted(&machine, "/scratch/image.img", &FirmwareFiles::Bios, Accel::Tcg);
        insta::assert_snapshot!(line(&argv), @r"
        -no-user-config
        -nodefaults
        -no-reboot
        -display none
        -nic none
        -machine pc
        -accel tcg,thread=multi
        -cpu max
        -smp 2
        -m 2048M
        -drive if=none,id=image,format=raw,cache=unsafe,file=/scratch/image.img
        -device virtio-scsi-pci,id=scsi
        -device scsi-hd,bus=scsi.0,drive=image,bootindex=0
        -device VGA
        -chardev stdio,id=serial,signal=off
        -serial chardev:serial
        ");
    }

    #[test]
    fn every_attachment() {
        let all = [
            Disk::VirtioBlk,
            Disk::VirtioScsi,
            Disk::Nvme,
            Disk::UsbStorage,
            Disk::Sata,
            Disk::UsbCdrom,
            Disk::SataCdrom,
        ];
        let text: Vec<_> = [Chipset::Q35, Chipset::I440fx]
            .into_iter()
            .flat_map(|chipset| {
                all.map(|disk| format!("{disk} on {chipset:?}:\n{}\n", line(&attachment(disk, chipset))))
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        virtio-blk on Q35:
        -device virtio-blk-pci,drive=image,bootindex=0

        virtio-scsi on Q35:
        -device virtio-scsi-pci,id=scsi
        -device scsi-hd,bus=scsi.0,drive=image,bootindex=0

        nvme on Q35:
        -device nvme,serial=gdsboot-image,drive=image,bootindex=0

        usb-storage on Q35:
        -device qemu-xhci,id=usb
        -device usb-storage,bus=usb.0,removable=on,drive=image,bootindex=0

        sata on Q35:
        -device ide-hd,bus=ide.0,drive=image,bootindex=0

        usb-cdrom on Q35:
        -device qemu-xhci,id=usb
        -device usb-storage,bus=usb.0,drive=image,bootindex=0

        sata-cdrom on Q35:
        -device ide-cd,bus=ide.0,drive=image,bootindex=0

        virtio-blk on I440fx:
        -device virtio-blk-pci,drive=image,bootindex=0

        virtio-scsi on I440fx:
        -device virtio-scsi-pci,id=scsi
        -device scsi-hd,bus=scsi.0,drive=image,bootindex=0

        nvme on I440fx:
        -device nvme,serial=gdsboot-image,drive=image,bootindex=0

        usb-storage on I440fx:
        -device qemu-xhci,id=usb
        -device usb-storage,bus=usb.0,removable=on,drive=image,bootindex=0

        sata on I440fx:
        -device ich9-ahci,id=ahci
        -device ide-hd,bus=ahci.0,drive=image,bootindex=0

        usb-cdrom on I440fx:
        -device qemu-xhci,id=usb
        -device usb-storage,bus=usb.0,drive=image,bootindex=0

        sata-cdrom on I440fx:
        -device ich9-ahci,id=ahci
        -device ide-cd,bus=ahci.0,drive=image,bootindex=0
        ");
    }

    #[test]
    fn other_formats_and_a_report_disk() {
        let report = Some(Medium { path: "/scratch/report.img".into(), kind: Kind::Raw });
        let text = [
            (Kind::Qcow2, Disk::VirtioBlk, true),
            (Kind::Iso, Disk::UsbCdrom, true),
            (Kind::Iso, Disk::SataCdrom, true),
        ]
        .map(|(kind, disk, read_only)| {
            let image = Medium { path: "/scratch/image".into(), kind };
            let media = Media { image, disk, read_only, report: report.clone() };
            line(&[drive(&media), attachment(disk, Chipset::Q35), report_disk(&media)].concat())
        });
        insta::assert_snapshot!(text.join("\n\n"), @r"
        -drive if=none,id=image,format=qcow2,readonly=on,cache=unsafe,file=/scratch/image
        -device virtio-blk-pci,drive=image,bootindex=0
        -drive if=none,id=report,format=raw,cache=unsafe,file=/scratch/report.img
        -device virtio-blk-pci,drive=report

        -drive if=none,id=image,format=raw,media=cdrom,readonly=on,cache=unsafe,file=/scratch/image
        -device qemu-xhci,id=usb
        -device usb-storage,bus=usb.0,drive=image,bootindex=0
        -drive if=none,id=report,format=raw,cache=unsafe,file=/scratch/report.img
        -device usb-storage,bus=usb.0,removable=on,drive=report

        -drive if=none,id=image,format=raw,media=cdrom,readonly=on,cache=unsafe,file=/scratch/image
        -device ide-cd,bus=ide.0,drive=image,bootindex=0
        -drive if=none,id=report,format=raw,cache=unsafe,file=/scratch/report.img
        -device qemu-xhci,id=usb
        -device usb-storage,bus=usb.0,removable=on,drive=report
        ");
    }

    #[test]
    fn a_kernel_alone() {
        insta::assert_snapshot!(line(&kernel_only(Path::new("/scratch/kernel"), Accel::Kvm)), @r"
        -no-user-config
        -nodefaults
        -no-reboot
        -display none
        -nic none
        -machine q35
        -accel kvm
        -cpu host
        -smp 1
        -m 512M
        -kernel /scratch/kernel
        -append 'earlycon=uart8250,io,0x3f8,115200 console=ttyS0,115200 panic=-1'
        -chardev stdio,id=serial,signal=off,mux=on
        -serial chardev:serial
        -device isa-debugcon,iobase=0x402,chardev=serial
        ");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(
            drive(&media(Disk::Sata, "/a,b/c,,d"))[1],
            "if=none,id=image,format=raw,cache=unsafe,file=/a,,b/c,,,,d"
        );
    }
}
