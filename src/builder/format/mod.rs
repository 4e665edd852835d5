//! What a build's parts become: one file per format.
//!
//! | file | what it is about |
//! |---|---|
//! | [`parts`] | what every format is made of |
//! | [`raw`] | the disk image: sticks, virtual machines |
//! | [`qcow2`] | the same disk for hypervisors, smaller |
//! | [`iso`], [`iso9660`] | the same disk without a report partition, and an ISO at once; the ISO's structures |
//! | [`netboot`] | kernel, initramfs, root and an iPXE script, in a folder |
//!
//! A new format is a file here, a value of [`Format`], and a line in each of its functions.

pub mod iso;
pub mod iso9660;
pub mod netboot;
pub mod parts;
pub mod qcow2;
pub mod raw;

use super::output::Output;
use super::space;
use crate::error::usage;
use crate::progress::Progress;
use anyhow::Result;
use parts::Parts;
use std::fs::File;

/// What a build writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// A disk image: for sticks and for virtual machines
    #[default]
    Raw,
    /// The same disk for QEMU, Proxmox and libvirt, in a smaller file
    Qcow2,
    /// A CD-ROM, for the virtual media of a BMC; reports go to another disk
    Iso,
    /// A folder for a web server, from which machines boot by iPXE
    Netboot,
}

impl Format {
    /// Its word on the command line; part of what identifies an output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Netboot => "netboot",
            Self::Iso => "iso",
        }
    }

    /// The name of the file where the user gives none, for `gdsboot-PROFILE.`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Raw => "img",
            Self::Qcow2 => "qcow2",
            Self::Netboot => "netboot",
            Self::Iso => "iso",
        }
    }

    /// Lays `parts` out in `file`, which is a temporary one beside `output`.
    ///
    /// # Errors
    /// There is no room, or a part does not fit.
    pub fn write(self, parts: &Parts, file: &File, output: &Output, progress: &Progress) -> Result<()> {
        match self {
            // Its own way in is `image::build_netboot`.
            Self::Netboot => Err(usage("netboot is a folder, and this takes one file", "--format raw")),
            Self::Raw => {
                let disk = raw::disk(parts)?;
                space::require(output.folder(), disk.bytes(), "writing the image")?;
                disk.write(file, progress)
            }
            Self::Iso => {
                let iso = iso::iso(parts)?;
                space::require(output.folder(), iso.bytes(), "writing the image")?;
                iso.write(file, progress)
            }
            Self::Qcow2 => {
                let disk = raw::disk(parts)?;
                // The raw disk on the way, and at worst as much again.
                space::require(output.folder(), 2 * disk.bytes(), "writing the image")?;
                let raw = output.scratch()?;
                disk.write(&raw, progress)?;
                qcow2::write(&raw, file, progress)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn words_are_those_of_the_command_line() {
        for format in Format::value_variants() {
            assert_eq!(format.to_possible_value().unwrap().get_name(), format.word());
        }
    }
}
