//! The disk image as it is. See [`crate::builder::disk`] for what stands where.

use super::parts::Parts;
use crate::builder::bios_boot::BiosStage;
use crate::builder::boot_menu::RootPlace;
use crate::builder::disk::{self, DiskInputs, Identity, Layout, Role};
use crate::progress::{Progress, Unit};
use anyhow::Result;
use std::fs::File;

/// A disk that was laid out and is not written yet.
#[derive(Debug)]
pub struct Disk {
    inputs: DiskInputs,
    layout: Layout,
}

/// Lays a disk out.
pub fn disk(parts: &Parts) -> Result<Disk> {
    let identity = Identity::new(&parts.image_id);
    let menu = parts
        .menu(RootPlace::Partition(identity.partition(Role::Root)), Some(identity.partition(Role::Report)));
    let inputs = DiskInputs {
        seed: parts.image_id.clone(),
        epoch: parts.epoch,
        esp_files: parts.esp_files(&menu)?,
        report_files: parts.report_files.clone(),
        root: parts.root.clone(),
        bios: Some(BiosStage {
            boot_image: parts.loaders.boot_image.clone(),
            core_image: parts.loaders.core_image.clone(),
        }),
        report_size: Some(disk::DEFAULT_REPORT_SIZE),
    };
    let layout = disk::plan(&inputs)?;
    Ok(Disk { inputs, layout })
}

impl Disk {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Writes it to a file, sparse.
    pub fn write(&self, file: &File, progress: &Progress) -> Result<()> {
        let stage = progress.stage("writing the image", self.layout.content_bytes, Unit::Bytes);
        disk::write(&self.inputs, &self.layout, file, &stage)
    }
}
