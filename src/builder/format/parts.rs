//! What every format is made of: the kernel, the initramfs, the root and the loaders, before they are laid out.

use crate::builder::boot_menu::{BootMenu, RootPlace};
use crate::builder::content::Content;
use crate::builder::esp::{self, EspInputs};
use crate::builder::fat::FatFile;
use anyhow::Result;

/// The parts of one build.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What this image is, such as `gdsboot debian-13`.
    pub title: String,
    /// Stands for all inputs; every identifier follows from it.
    pub image_id: String,
    /// All times, in seconds since 1970 UTC.
    pub epoch: u64,
    /// Seconds that the boot menu waits.
    pub timeout: u32,
    /// The profile's kernel parameters.
    pub parameters: Vec<String>,
    /// The kernel.
    pub kernel: Content,
    /// The initramfs.
    pub initramfs: Content,
    /// The squashfs.
    pub root: Content,
    /// Its SHA-256, lower-case hex.
    pub root_sha256: String,
    /// The manifest as JSON.
    pub manifest: Vec<u8>,
    /// Files of a new report partition.
    pub report_files: Vec<FatFile>,
    /// What starts the kernel.
    pub loaders: Loaders,
}

/// The boot loaders.
#[derive(Clone, Debug)]
pub struct Loaders {
    /// Folder in `/EFI` where the signed GRUB looks: `debian` or `ubuntu`.
    pub vendor: String,
    /// The least SBAT generation of `grub`.
    pub least_grub: u32,
    /// The signed shim.
    pub shim: Vec<u8>,
    /// The signed GRUB.
    pub grub: Vec<u8>,
    /// The signed MokManager.
    pub mok_manager: Vec<u8>,
    /// GRUB's `boot.img`, for BIOS.
    pub boot_image: Vec<u8>,
    /// GRUB's core image for a disk, for BIOS.
    pub core_image: Vec<u8>,
}

impl Parts {
    /// The boot menu for a root at `root` and a report partition that is `report`, if the image has one of its own.
    pub fn menu(&self, root: RootPlace, report: Option<uuid::Uuid>) -> BootMenu {
        BootMenu {
            title: self.title.clone(),
            timeout: self.timeout,
            root,
            root_size: self.root.len(),
            root_sha256: self.root_sha256.clone(),
            report,
            parameters: self.parameters.clone(),
        }
    }

    /// The files of the ESP, with this menu.
    pub fn esp_files(&self, menu: &BootMenu) -> Result<Vec<FatFile>> {
        let Loaders { vendor, least_grub, shim, grub, mok_manager, .. } = &self.loaders;
        esp::files(EspInputs {
            vendor: vendor.clone(),
            shim: shim.clone(),
            grub: grub.clone(),
            mok_manager: mok_manager.clone(),
            least_grub: *least_grub,
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            grub_cfg: menu.grub_cfg()?,
            manifest: self.manifest.clone(),
        })
    }
}
