//! Disks, and the firmware, which comes as one.

use super::arguments::Parser;
use super::options::get;
use crate::hypervisor::machine::{Disk, Firmware, Machine};

impl Parser<'_> {
    pub(super) fn disk(&mut self, name: &str, interface: &str, cdrom: bool) {
        self.machine.disks.push(Disk { name: name.to_owned(), interface: interface.to_owned(), cdrom });
    }

    pub(super) fn drive(&mut self, options: &[(String, String)]) {
        let interface = get(options, "if").unwrap_or("ide").to_owned();
        let id = get(options, "id").unwrap_or("").to_owned();
        if interface == "pflash" {
            return firmware(self.machine, get(options, "file").unwrap_or(""));
        }
        if interface == "none" {
            return;
        }
        let cdrom = get(options, "media") == Some("cdrom");
        let name = if id.is_empty() { interface.clone() } else { id };
        self.machine.disks.push(Disk { name, interface, cdrom });
    }
}

/// What a firmware's file name says of it.
pub(super) fn firmware(machine: &mut Machine, file: &str) {
    let name = file.rsplit('/').next().unwrap_or(file);
    if name.contains("OVMF") || name.contains("edk2") || file.contains("OVMF") || file.contains("edk2") {
        machine.firmware = Some(Firmware::Uefi);
        machine.secure_boot |= name.contains(".ms.") || name.contains("secboot") && name.contains("VARS");
    } else if machine.firmware != Some(Firmware::Uefi) && !name.to_ascii_lowercase().contains("vars") {
        machine.firmware = if name.contains("bios") { Some(Firmware::Bios) } else { Some(Firmware::Uefi) };
    }
}
