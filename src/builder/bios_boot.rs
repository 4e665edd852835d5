//! GRUB for BIOS: its boot sector in the MBR and its core image in the BIOS boot partition, put together as
//! grub-bios-setup does, but without a device to look at.
//!
//! Offsets: GRUB's `include/grub/i386/pc/boot.h` and `include/grub/offsets.h`; what is patched: `util/setup.c`
//! (`SETUP`, `write_rootdev`, `save_blocklists`), with `--no-rs-codes`. The core image is made by grub-mkimage with all
//! modules that the menu needs inside, so nothing is loaded from the disk but grub.cfg, the kernel and the initramfs.

use super::disk::Role;
use anyhow::{Result, ensure};

const SECTOR: usize = 512;
/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR`: u64, first sector of the core image.
const KERNEL_SECTOR: usize = 0x5c;
/// `GRUB_BOOT_MACHINE_BOOT_DRIVE`: 0xff takes the drive that the BIOS names.
const BOOT_DRIVE: usize = 0x64;
/// `GRUB_BOOT_MACHINE_DRIVE_CHECK`: a jump over the workaround for a BIOS that names a floppy; no jump on hard disks.
const DRIVE_CHECK: usize = 0x66;
/// `GRUB_BOOT_MACHINE_WINDOWS_NT_MAGIC`: what follows belongs to the partition table.
const CODE_END: usize = 0x1b8;
/// The last of the blocklists at the end of the core image's first sector: start u64, sectors u16, segment u16.
const BLOCKLIST: usize = SECTOR - 12;
/// Where the rest of the core image is loaded: `GRUB_BOOT_I386_PC_KERNEL_SEG` and one sector.
const CORE_SEGMENT: u16 = 0x800 + (SECTOR as u16 >> 4);
const NOP: u8 = 0x90;

/// Size of the BIOS boot partition in bytes.
pub const PARTITION_BYTES: u64 = 1 << 20;

/// GRUB's two pieces, as packaged and as made by grub-mkimage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiosStage {
    /// `boot.img` of `/usr/lib/grub/i386-pc`.
    pub boot_image: Vec<u8>,
    /// What grub-mkimage made.
    pub core_image: Vec<u8>,
}

impl BiosStage {
    /// The code for the MBR, which loads the sector `core_lba`.
    pub fn boot_code(&self, core_lba: u64) -> Result<[u8; CODE_END]> {
        let boot = &self.boot_image;
        ensure!(
            boot.len() == SECTOR && boot[510..] == [0x55, 0xaa],
            "GRUB's boot.img has {} bytes or no boot signature; it should be one boot sector",
            boot.len()
        );
        // A short jump: the only thing that grub-bios-setup replaces here.
        ensure!(
            boot[DRIVE_CHECK] == 0xeb,
            "GRUB's boot.img has no boot drive check at {DRIVE_CHECK:#x}: its layout is not the known one"
        );
        let mut code = [0; CODE_END];
        code.copy_from_slice(&boot[..CODE_END]);
        code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_lba.to_le_bytes());
        code[BOOT_DRIVE] = 0xff;
        code[DRIVE_CHECK..DRIVE_CHECK + 2].fill(NOP);
        Ok(code)
    }

    /// The core image for the partition that begins at `core_lba`; its first sector says where the rest is.
    pub fn core(&self, core_lba: u64) -> Result<Vec<u8>> {
        let mut core = self.core_image.clone();
        ensure!(
            core.len() as u64 <= PARTITION_BYTES,
            "GRUB's core image has {} bytes; the BIOS boot partition holds {PARTITION_BYTES}",
            core.len()
        );
        ensure!(core.len() > SECTOR, "GRUB's core image has only {} bytes", core.len());
        let rest = u16::try_from(core.len().div_ceil(SECTOR) - 1)?;
        // grub-mkimage fills in the same segment: a cheap proof that this is such an image.
        ensure!(
            core[BLOCKLIST + 10..SECTOR] == CORE_SEGMENT.to_le_bytes(),
            "GRUB's core image has no blocklist at the end of its first sector: it is not for i386-pc"
        );
        core[BLOCKLIST..BLOCKLIST + 8].copy_from_slice(&(core_lba + 1).to_le_bytes());
        core[BLOCKLIST + 8..BLOCKLIST + 10].copy_from_slice(&rest.to_le_bytes());
        Ok(core)
    }
}

/// Modules inside the core image: what reads the disk, and what the menu and a person at GRUB's prompt use.
pub const MODULES: [&str; 17] = [
    "biosdisk",
    "boot",
    "cat",
    "configfile",
    "echo",
    "fat",
    "halt",
    "linux",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "reboot",
    "serial",
    "sleep",
    "terminal",
    "test",
];

/// grub-mkimage's arguments for an image that the BIOS boots from a CD-ROM; see [`mkimage_arguments`]. The menu stands at the
/// same place on the ISO as on the ESP.
pub fn mkimage_cdrom_arguments(modules: &str, vendor: &str, output: &str) -> Vec<String> {
    // A CD-ROM has neither partitions nor FAT.
    let prefix = format!("/EFI/{vendor}");
    let kept = MODULES.into_iter().filter(|module| !["fat", "part_gpt"].contains(module));
    ["-O", "i386-pc-eltorito", "-d", modules, "-p", &prefix, "-o", output]
        .into_iter()
        .chain(kept)
        .chain(["iso9660"])
        .map(str::to_owned)
        .collect()
}

/// grub-mkimage's arguments, without the program. `modules` is the folder with `*.mod`; `vendor` the folder in `/EFI`
/// of the ESP in which grub.cfg stands. The prefix names no drive: GRUB takes the one that it was booted from. No
/// configuration is embedded, because only grub.cfg's parser knows `if`, and the one thing to do early, the serial port,
/// must stay silent where there is none.
pub fn mkimage_arguments(modules: &str, vendor: &str, output: &str) -> Vec<String> {
    let prefix = format!("(,gpt{})/EFI/{vendor}", Role::Esp.number());
    ["-O", "i386-pc", "-d", modules, "-p", &prefix, "-o", output]
        .into_iter()
        .chain(MODULES)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Images of the right shape, filled with a pattern.
    pub fn stage(core_bytes: usize) -> BiosStage {
        let mut boot_image = vec![0xb0; SECTOR];
        boot_image[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0xeb, 0x05]);
        boot_image[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut core_image = vec![0xc0; core_bytes];
        if core_bytes >= SECTOR {
            core_image[BLOCKLIST..BLOCKLIST + 10].fill(0);
            core_image[BLOCKLIST + 10..SECTOR].copy_from_slice(&CORE_SEGMENT.to_le_bytes());
        }
        BiosStage { boot_image, core_image }
    }

    #[test]
    fn the_boot_sector_points_at_the_core_and_the_core_at_its_rest() {
        let stage = stage(70_001);
        let code = stage.boot_code(0x1_0000_0800).unwrap();
        assert_eq!(code[0x5c..0x64], 0x1_0000_0800_u64.to_le_bytes());
        assert_eq!(code[0x64], 0xff);
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
        assert_eq!(code[..0x5c], stage.boot_image[..0x5c]);
        assert_eq!(code[0x68..], stage.boot_image[0x68..0x1b8]);

        let core = stage.core(0x800).unwrap();
        assert_eq!(core.len(), 70_001);
        assert_eq!(core[0x1f4..0x1fc], 0x801_u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x1fe], 136_u16.to_le_bytes());
        assert_eq!(core[0x1fe..0x200], 0x820_u16.to_le_bytes());
        assert_eq!(core[0x200..], stage.core_image[0x200..]);
    }

    #[test]
    fn what_is_not_grub_is_refused() {
        let refused = |change: fn(&mut BiosStage), why: &str| {
            let mut stage = stage(2000);
            change(&mut stage);
            let error = stage.boot_code(2048).and_then(|_| stage.core(2048)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(|s| s.boot_image.truncate(511), "one boot sector");
        refused(|s| s.boot_image.clear(), "one boot sector");
        refused(|s| s.boot_image[0x66] = 0, "boot drive check");
        refused(|s| s.core_image.clear(), "only 0 bytes");
        refused(|s| s.core_image.truncate(512), "only 512 bytes");
        refused(|s| s.core_image.resize((1 << 20) + 1, 0), "1048577 bytes");
        refused(|s| s.core_image[0x1ff] = 0, "not for i386-pc");
    }

    #[test]
    fn the_core_image_finds_its_menu_on_the_esp() {
        let arguments = mkimage_arguments("/usr/lib/grub/i386-pc", "debian", "/out/core.img");
        assert_eq!(
            arguments[..8].join(" "),
            "-O i386-pc -d /usr/lib/grub/i386-pc -p (,gpt2)/EFI/debian -o /out/core.img"
        );
        assert_eq!(arguments[8..], MODULES);
        let arguments = mkimage_cdrom_arguments("/m", "debian", "/out").join(" ");
        assert!(arguments.starts_with("-O i386-pc-eltorito -d /m -p /EFI/debian -o /out biosdisk boot "));
        assert!(arguments.ends_with(" test iso9660") && !arguments.contains("part_gpt"), "{arguments}");
    }
}
