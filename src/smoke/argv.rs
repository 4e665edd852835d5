//! From a machine and a host to QEMU's arguments: pure, one small function per part. Options are those of QEMU 7.2 and
//! newer (`qemu-system-x86_64(1)`).

use super::machine::{Chipset, DataDrive, Disk, Machine};
use super::media::Media;
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

/// The arguments that boot `media` in `machine`. The guest's first serial port is QEMU's standard output.
pub fn boot(
    machine: &Machine,
    media: &Media,
    firmware: &FirmwareFiles,
    data: &[PathBuf],
    accel: Accel,
) -> Vec<OsString> {
    [
        common(),
        network(machine.network),
        board(machine.chipset, firmware),
        accelerator(accel),
        size(machine.cpus, machine.memory_mib),
        flash(firmware),
        drive(media),
        attachment(media.disk, machine.chipset),
        report_disk(media),
        data_drives(&machine.drives, data),
        firmware_texts(machine),
        arguments(["-device", "VGA"]),
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
        board(Chipset::Q35, &FirmwareFiles::Bios),
        accelerator(accel),
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

fn board(chipset: Chipset, firmware: &FirmwareFiles) -> Vec<OsString> {
    match (chipset, firmware) {
        // OvmfPkg/README of edk2, "SMM support".
        (Chipset::Q35, FirmwareFiles::Uefi { secure: true, .. }) => arguments([
            "-machine",
            "q35,smm=on",
            "-global",
            "driver=cfi.pflash01,property=secure,value=on",
            "-global",
            "ICH9-LPC.disable_s3=1",
        ]),
        (Chipset::Q35, _) => arguments(["-machine", "q35"]),
        (Chipset::I440fx, _) => arguments(["-machine", "pc"]),
    }
}

fn accelerator(accel: Accel) -> Vec<OsString> {
    arguments(match accel {
        Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
        Accel::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
    })
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

/// NVMe drives besides the image, each with its file.
fn data_drives(drives: &[DataDrive], files: &[PathBuf]) -> Vec<OsString> {
    let one = |(n, (drive, file)): (usize, (&DataDrive, &PathBuf))| {
        let DataDrive { serial, block, .. } = drive;
        let device = format!(
            "nvme,serial={serial},drive=data{n},logical_block_size={block},physical_block_size={block}"
        );
        vec![
            "-drive".into(),
            with_path(&format!("if=none,id=data{n},format=raw,cache=unsafe,file="), file),
            "-device".into(),
            device.into(),
        ]
    };
    drives.iter().zip(files).enumerate().flat_map(one).collect()
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
    use crate::smoke::media::Medium;

    fn media(disk: Disk, path: &str) -> Media {
        let image = Medium { path: path.into(), kind: Kind::Raw };
        Media { image, disk, read_only: false, report: None }
    }

    fn line(argv: &[OsString]) -> String {
        // One option with its value per line, for people who read the snapshot.
        pasteable(argv).replace(" -", "\n-")
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
        let argv = boot(&machine, &media(machine.disk, "/scratch/image.img"), &uefi(), &[], Accel::Tcg);
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
        let argv = [data_drives(&machine.drives, &files), firmware_texts(&machine)].concat();
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
        let argv = boot(&machine, &media(machine.disk, "/image.img"), &firmware, &[], Accel::Tcg);
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
        let argv =
            boot(&machine, &media(machine.disk, "/scratch/image.img"), &FirmwareFiles::Bios, &[], Accel::Kvm);
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
        let argv =
            boot(&machine, &media(machine.disk, "/scratch/image.img"), &FirmwareFiles::Bios, &[], Accel::Tcg);
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
