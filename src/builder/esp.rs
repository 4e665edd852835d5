//! The ESP: the archive's signed loaders, the kernel and the initramfs.
//!
//! Firmware starts `EFI/BOOT/BOOTX64.EFI` (shim), shim starts `grubx64.efi` beside it, and a signed GRUB reads
//! `/EFI/<vendor>/grub.cfg` on the device it was loaded from, wherever its own file stands. MokManager lies beside them
//! for a user who wants to enrol a key. `fbx64.efi` is left out: on removable media shim would start it instead of GRUB,
//! and it writes boot entries into the machine (shim's README.fallback).

use super::content::Content;
use super::fat::FatFile;
use super::sbat;
use crate::boot_contract::ESP_MANIFEST;
use crate::error::hinted;
use anyhow::{Context as _, Result, ensure};

/// The kernel on the ESP.
pub const KERNEL: &str = "gdsboot/vmlinuz";
/// The initramfs on the ESP.
pub const INITRAMFS: &str = "gdsboot/initrd.zst";

/// A loader that the archive signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// Signed by Microsoft; trusts what the distribution signed.
    Shim,
    /// Signed by the distribution.
    Grub,
    /// Enrols keys.
    MokManager,
}

impl Loader {
    /// Where packages put it, best first. Debian's shim-signed has `shimx64.efi.signed`; Ubuntu's has three names and
    /// makes that one a link in its postinst, which we do not run. The previous one is never taken: it may be revoked.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Shim => &[
                "usr/lib/shim/shimx64.efi.signed",
                "usr/lib/shim/shimx64.efi.signed.latest",
                "usr/lib/shim/shimx64.efi.dualsigned",
            ],
            Self::Grub => &["usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"],
            Self::MokManager => &["usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi"],
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Shim => "shim-signed",
            Self::Grub => "grub-efi-amd64-signed",
            Self::MokManager => "shim-helpers-amd64-signed (Debian) or shim-signed (Ubuntu)",
        }
    }

    /// The path of this loader among `available` ones, given as they are in packages: `usr/lib/...`, with or without a
    /// leading `/` or `./`. Returned without it.
    pub fn find<'a>(self, available: impl IntoIterator<Item = &'a str>) -> Result<&'static str> {
        let mut best = None;
        for path in available {
            let path = path.strip_prefix("./").or(path.strip_prefix('/')).unwrap_or(path);
            let rank = self.names().iter().position(|name| *name == path);
            best = match (best, rank) {
                (Some(a), Some(b)) => Some(usize::min(a, b)),
                (a, b) => a.or(b),
            };
        }
        best.map(|rank| self.names()[rank]).ok_or_else(|| {
            hinted(
                format!("no signed {self:?} among the packages; looked for {}", self.names().join(", ")),
                format!("the profile must name the package {}", self.package()),
            )
        })
    }
}

/// What goes onto the ESP.
#[derive(Clone, Debug)]
pub struct EspInputs {
    /// Folder in `/EFI` where the signed GRUB looks: `debian` or `ubuntu`.
    pub vendor: String,
    /// shim's bytes.
    pub shim: Vec<u8>,
    /// GRUB's bytes.
    pub grub: Vec<u8>,
    /// MokManager's bytes.
    pub mok_manager: Vec<u8>,
    /// The least SBAT generation of `grub`, from the profile.
    pub least_grub: u32,
    /// The kernel, signed by the archive.
    pub kernel: Content,
    /// The initramfs.
    pub initramfs: Content,
    /// See [`super::boot_menu`].
    pub grub_cfg: String,
    /// The manifest as JSON.
    pub manifest: Vec<u8>,
}

/// The files of the ESP. Refuses an empty loader, kernel or initramfs, and a GRUB that shim would refuse.
pub fn files(inputs: EspInputs) -> Result<Vec<FatFile>> {
    ensure!(
        !inputs.vendor.is_empty() && inputs.vendor.bytes().all(|b| b.is_ascii_lowercase()),
        "{:?} cannot be GRUB's folder on the ESP",
        inputs.vendor
    );
    let components = sbat::read(&inputs.grub).context("reading the SBAT of the signed GRUB")?;
    sbat::require(&components, "grub", inputs.least_grub, "the signed GRUB")?;
    let files = vec![
        FatFile::new("EFI/BOOT/BOOTX64.EFI", inputs.shim),
        FatFile::new("EFI/BOOT/grubx64.efi", inputs.grub),
        FatFile::new("EFI/BOOT/mmx64.efi", inputs.mok_manager),
        FatFile::new(format!("EFI/{}/grub.cfg", inputs.vendor), inputs.grub_cfg),
        FatFile::new(KERNEL, inputs.kernel),
        FatFile::new(INITRAMFS, inputs.initramfs),
        FatFile::new(ESP_MANIFEST, inputs.manifest),
    ];
    for file in &files {
        ensure!(!file.content.is_empty(), "{} on the ESP would be empty", file.path);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::sbat::tests::pe;
    use crate::error::{hint_of, one_line};

    #[test]
    fn loaders_are_found_under_each_distributions_names() {
        let debian = ["./usr/lib/shim/shimx64.efi.signed", "./usr/lib/shim/mmx64.efi.signed"];
        assert_eq!(Loader::Shim.find(debian).unwrap(), "usr/lib/shim/shimx64.efi.signed");
        assert_eq!(Loader::MokManager.find(debian).unwrap(), "usr/lib/shim/mmx64.efi.signed");
        let ubuntu = [
            "/usr/lib/shim/mmx64.efi",
            "/usr/lib/shim/shimx64.efi.dualsigned",
            "/usr/lib/shim/shimx64.efi.signed.previous",
            "/usr/lib/shim/shimx64.efi.signed.latest",
        ];
        assert_eq!(Loader::Shim.find(ubuntu).unwrap(), "usr/lib/shim/shimx64.efi.signed.latest");
        assert_eq!(Loader::MokManager.find(ubuntu).unwrap(), "usr/lib/shim/mmx64.efi");
        let grub = ["usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"];
        let error = Loader::Grub.find(grub).unwrap_err();
        assert!(error.to_string().contains("looked for usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"));
        assert_eq!(hint_of(&error), Some("the profile must name the package grub-efi-amd64-signed"));
        assert!(Loader::Shim.find(["usr/lib/shim/shimx64.efi.signed.previous"]).is_err());
    }

    fn inputs() -> EspInputs {
        EspInputs {
            vendor: "debian".to_owned(),
            shim: vec![1],
            grub: pe(b"sbat,1,\ngrub,5,\n"),
            mok_manager: vec![2],
            least_grub: 5,
            kernel: Content::from(vec![3]),
            initramfs: Content::from(vec![4]),
            grub_cfg: "menu".to_owned(),
            manifest: b"{}".to_vec(),
        }
    }

    #[test]
    fn the_esp_has_everything_that_boots_and_no_fallback_loader() {
        let paths: Vec<_> = files(inputs()).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(
            paths,
            [
                "EFI/BOOT/BOOTX64.EFI",
                "EFI/BOOT/grubx64.efi",
                "EFI/BOOT/mmx64.efi",
                "EFI/debian/grub.cfg",
                "gdsboot/vmlinuz",
                "gdsboot/initrd.zst",
                "gdsboot/manifest.json"
            ]
        );
    }

    #[test]
    fn what_cannot_boot_is_refused() {
        let refused = |change: fn(&mut EspInputs)| {
            let mut inputs = inputs();
            change(&mut inputs);
            one_line(&files(inputs).unwrap_err())
        };
        assert_eq!(
            refused(|i| i.kernel = Content::from(vec![])),
            "gdsboot/vmlinuz on the ESP would be empty"
        );
        assert!(refused(|i| i.initramfs = Content::from(vec![])).contains("initrd.zst"));
        assert!(refused(|i| i.shim.clear()).contains("BOOTX64.EFI"));
        assert!(refused(|i| i.least_grub = 6).contains("SBAT generation 5 of grub; 6 is needed"));
        assert!(refused(|i| i.grub = b"MZ".to_vec()).contains("SBAT of the signed GRUB"));
        assert!(refused(|i| i.vendor = "../x".to_owned()).contains("cannot be GRUB's folder"));
    }
}
