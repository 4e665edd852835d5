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
    /// GRUB's image for a CD-ROM, for BIOS.
    pub cdrom_image: Vec<u8>,
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::builder::bios_boot;
    use crate::builder::sbat::tests::pe;

    /// Small parts of the right shape.
    pub fn parts() -> Parts {
        let stage = bios_boot::tests::stage(100_000);
        Parts {
            title: "gdsboot debian-13".to_owned(),
            image_id: "0123456789abcdef".to_owned(),
            epoch: 1_764_209_432,
            timeout: 2,
            parameters: vec!["panic=30".to_owned()],
            kernel: Content::from(vec![3; 5_000_000]),
            initramfs: Content::from(vec![4; 3_000_000]),
            root: Content::from(vec![5; 7_000_001]),
            root_sha256: "ab".repeat(32),
            manifest: b"{}".to_vec(),
            report_files: vec![FatFile::new("README.txt", b"read me\r\n".to_vec())],
            loaders: Loaders {
                vendor: "debian".to_owned(),
                least_grub: 5,
                shim: vec![1; 900_000],
                grub: pe(b"sbat,1,\ngrub,5,\n"),
                mok_manager: vec![2],
                boot_image: stage.boot_image,
                core_image: stage.core_image,
                cdrom_image: vec![6; 100_000],
            },
        }
    }

    #[test]
    fn the_menu_is_on_the_esp() {
        let parts = parts();
        let menu = parts.menu(RootPlace::Iso("X".to_owned()), None);
        let files = parts.esp_files(&menu).unwrap();
        let found = files.iter().find(|file| file.path == "EFI/debian/grub.cfg").unwrap();
        let text = String::from_utf8(found.content.read().unwrap()).unwrap();
        assert!(
            text.contains("gdsboot.root=ISO9660=X gdsboot.root-size=7000001 gdsboot.root-sha256=abab"),
            "{text}"
        );
    }
}
