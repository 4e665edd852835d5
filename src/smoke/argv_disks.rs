//! QEMU's arguments for the disks of a boot: the image, the disks for reports, the machine's own drives.

use super::argv::{FirmwareFiles, arguments};
use super::machine::{Chipset, DataDrive, Disk, DriveKind};
use super::media::{Media, Medium};
use super::pci::Slot;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The copy dies with the boot, so the host need not flush it (`cache=unsafe`); the host's own view of the file is
/// right however QEMU ends.
pub(super) fn drive(media: &Media, write_log: Option<&Path>) -> Vec<OsString> {
    if let Some(log) = write_log {
        // The guest's flushes are in the log, which cache=unsafe would leave out.
        let image = with_path(
            "if=none,id=image,driver=blklogwrites,cache=writeback,log.driver=file,log-sector-size=512,file.driver=file,\
             file.filename=",
            &media.image.path,
        );
        let mut option = image;
        option.push(with_path(",log.filename=", log));
        return vec!["-drive".into(), option];
    }
    let format = media.image.format();
    let cdrom = if media.disk.is_cdrom() { "media=cdrom," } else { "" };
    let read_only = if media.read_only { "readonly=on," } else { "" };
    let option = format!("if=none,id=image,format={format},{cdrom}{read_only}cache=unsafe,file=");
    vec!["-drive".into(), with_path(&option, &media.image.path)]
}

/// A second copy of the image, so that the guest finds it first.
pub(super) fn second(media: &Media) -> Vec<OsString> {
    let Some(second) = &media.second else { return Vec::new() };
    let device = arguments(["-device", "virtio-blk-pci,drive=second"]);
    [plain(second, "second"), device].concat()
}

/// A drive without anything special.
fn plain(medium: &Medium, id: &str) -> Vec<OsString> {
    let option = format!("if=none,id={id},format={},cache=unsafe,file=", medium.format());
    vec!["-drive".into(), with_path(&option, &medium.path)]
}

/// Beside a CD-ROM drive sticks, as on a real machine; else disks of a virtual machine.
pub(super) fn report_disks(media: &Media) -> Vec<OsString> {
    let is_stick = matches!(media.disk, Disk::UsbCdrom | Disk::UsbStorage | Disk::SataCdrom);
    let controller = if media.disk == Disk::SataCdrom && !media.reports.is_empty() {
        arguments(["-device", "qemu-xhci,id=usb"])
    } else {
        Vec::new()
    };
    let one = |(number, report): (usize, &Medium)| {
        let id = if number == 0 { "report".to_owned() } else { format!("report{number}") };
        let device = if is_stick {
            format!("usb-storage,bus=usb.0,removable=on,drive={id}")
        } else {
            format!("virtio-blk-pci,drive={id}")
        };
        [plain(report, &id), arguments(["-device", &device])].concat()
    };
    [controller, media.reports.iter().enumerate().flat_map(one).collect()].concat()
}

pub(super) fn attachment(disk: Disk, chipset: Chipset, firmware: &FirmwareFiles) -> Vec<OsString> {
    // A kernel that QEMU loads itself is the first to be booted.
    let is_first = !matches!(firmware, FirmwareFiles::Direct { .. });
    let words = first_attachment(disk, chipset).into_iter();
    words
        .map(|word| match word.to_str() {
            Some(text) if !is_first => text.replace(",bootindex=0", "").into(),
            _ => word,
        })
        .collect()
}

fn first_attachment(disk: Disk, chipset: Chipset) -> Vec<OsString> {
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
pub(super) fn data_drives(
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
        let id = drive.unplug.as_ref().map(|_| format!(",id={}", device_id(n))).unwrap_or_default();
        let place = slot.as_ref().map(|slot| format!(",bus={},addr={:x}", slot.bus, slot.number));
        let device = format!(
            "{name}{id},serial={serial},drive=data{n},logical_block_size={block},physical_block_size={block}{}",
            place.unwrap_or_default()
        );
        vec!["-drive".into(), data_drive(n, drive, file), "-device".into(), device.into()]
    };
    let all = drives.iter().zip(files).zip(slots).enumerate();
    all.filter(|(_, (_, slot))| wanted(slot)).flat_map(one).collect()
}

/// What the monitor calls a drive of the machine, by its number.
pub(super) fn device_id(number: usize) -> String {
    format!("drive{number}")
}

/// QEMU: docs/devel/blkdebug.txt, docs/throttle.txt.
fn data_drive(number: usize, drive: &DataDrive, file: &Path) -> OsString {
    let throttle = drive.bytes_per_second.map(|bytes| format!(",throttling.bps-total={bytes}"));
    let throttle = throttle.unwrap_or_default();
    let common = format!("if=none,id=data{number},cache=unsafe{throttle}");
    match drive.bad_sector {
        None => with_path(&format!("if=none,id=data{number},format=raw,cache=unsafe{throttle},file="), file),
        // EIO, whenever the sector is touched.
        Some(sector) => with_path(
            &format!(
                "{common},driver=blkdebug,inject-error.0.event=none,inject-error.0.errno=5,\
                 inject-error.0.sector={sector},image.driver=raw,image.file.driver=file,image.file.filename="
            ),
            file,
        ),
    }
}

/// An option that ends with a path. QEMU's option parser wants commas doubled.
pub(super) fn with_path(option: &str, path: &Path) -> OsString {
    let mut bytes = option.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}
