//! An ISO: the disk without a report partition, and in the gap before its first partition the structures that make it a
//! CD-ROM too. Kernel, initramfs and root are on it once: the ISO's directory points into the partitions.
//!
//! UEFI boots it by El Torito from the ESP, BIOS by El Torito from GRUB's image for CD-ROMs. Where a firmware shows GRUB the whole
//! CD-ROM and not the ESP, GRUB finds the same menu, kernel and initramfs in the ISO's directory. Copied onto a stick, it boots
//! like the disk image.
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 17 KiB | MBR and GPT |
//! | from 32 KiB | the ISO's descriptors, boot catalogue, directories |
//! | from 64 KiB | GRUB for CD-ROMs |
//! | from 1 MiB | the partitions |

use super::iso9660::{Boot, Entry, File as IsoFile, Platform, Volume};
use super::parts::Parts;
use crate::boot_contract::ISO_ROOT;
use crate::builder::bios_boot::BiosStage;
use crate::builder::boot_menu::RootPlace;
use crate::builder::disk::{self, DiskInputs, Layout, Role, SECTOR};
use crate::builder::esp;
use crate::builder::region::Region;
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use std::fs::File;

/// Where GRUB for CD-ROMs begins.
const LOADER: u64 = 64 << 10;
/// Where the first partition begins.
const PARTITIONS: u64 = 1 << 20;
/// GRUB loads the rest of itself: `-boot-load-size 4` of grub-mkrescue.
const LOADER_SECTORS: u16 = 4;

/// An ISO that was laid out and is not written yet.
#[derive(Debug)]
pub struct Iso {
    inputs: DiskInputs,
    layout: Layout,
    loader: Vec<u8>,
    volume: Volume,
}

/// The identifier of an image's volume.
pub fn volume(image_id: &str) -> String {
    format!("GDSBOOT_{}", image_id.to_ascii_uppercase())
}

/// Lays an ISO out.
///
/// # Errors
/// A part does not fit, or is larger than ISO 9660 can say.
pub fn iso(parts: &Parts) -> Result<Iso> {
    let identifier = volume(&parts.image_id);
    let menu = parts.menu(RootPlace::Iso(identifier.clone()), None);
    let loaders = &parts.loaders;
    let inputs = DiskInputs {
        seed: format!("{} iso", parts.image_id),
        epoch: parts.epoch,
        esp_files: parts.esp_files(&menu)?,
        report_files: Vec::new(),
        root: parts.root.clone(),
        bios: Some(BiosStage {
            boot_image: loaders.boot_image.clone(),
            core_image: loaders.core_image.clone(),
        }),
        report_size: None,
    };
    let layout = disk::plan(&inputs)?;
    let loader = with_boot_info(&loaders.cdrom_image)?;
    ensure!(
        loader.len() as u64 <= PARTITIONS - LOADER,
        "GRUB's image for CD-ROMs has {} bytes; there is room for {}",
        loader.len(),
        PARTITIONS - LOADER
    );
    let partition = |role| layout.partition(role).with_context(|| format!("the disk has no {role:?}"));
    let (esp, root) = (partition(Role::Esp)?, partition(Role::Root)?);
    let mut files = Vec::new();
    let menu_path = format!("EFI/{}/grub.cfg", loaders.vendor);
    for path in [menu_path.as_str(), esp::KERNEL, esp::INITRAMFS] {
        let (start, bytes) = disk::esp_file(&inputs, &layout, path)?;
        files.push(IsoFile::new(path, start, bytes)?);
    }
    files.push(IsoFile::new(ISO_ROOT, root.first_lba * SECTOR, inputs.root.len())?);
    let volume = Volume {
        identifier,
        bytes: layout.bytes(),
        epoch: parts.epoch,
        files,
        boot: Boot {
            bios: Entry { platform: Platform::Bios, start: LOADER, sectors: LOADER_SECTORS },
            // 0 is "to the end of the volume" (UEFI specification, 13.3.2.1), for what 16 bits cannot say.
            uefi: Entry {
                platform: Platform::Uefi,
                start: esp.first_lba * SECTOR,
                sectors: u16::try_from(esp.sectors).unwrap_or(0),
            },
        },
    };
    Ok(Iso { inputs, layout, loader, volume })
}

impl Iso {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Writes it to a file, sparse.
    pub fn write(&self, file: &File, progress: &Progress) -> Result<()> {
        let stage = progress.stage("writing the image", self.layout.content_bytes, Unit::Bytes);
        disk::write(&self.inputs, &self.layout, file, &stage)?;
        let gap = Region::new(file, 0, PARTITIONS);
        let (start, structures) = self.volume.structures()?;
        ensure!(start + structures.len() as u64 <= LOADER, "the ISO's directories are too large");
        gap.write(start, &structures)?;
        gap.write(LOADER, &self.loader)
    }
}

/// GRUB's image with what it must know of its place: the boot information table of mkisofs at byte 8, and where the part after
/// `cdboot.img` goes on, at byte 2548 (xorrisofs(1), `-boot-info-table` and `--grub2-boot-info`).
fn with_boot_info(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(image.len() > 4096, "GRUB's image for CD-ROMs has only {} bytes", image.len());
    let mut image = image.to_vec();
    let sum = image[64..].chunks(4).fold(0u32, |sum, word| {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_le_bytes(bytes))
    });
    let first = u32::try_from(LOADER / 2048)?;
    let length = u32::try_from(image.len())?;
    let mut table: Vec<u8> =
        [16, first, length, sum].iter().flat_map(|number| number.to_le_bytes()).collect();
    table.resize(56, 0);
    image[8..64].copy_from_slice(&table);
    image[2548..2556].copy_from_slice(&(u64::from(first) * 4 + 5).to_le_bytes());
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::content::Content;
    use crate::builder::format::parts::tests::parts;
    use crate::report::kind::Kind;
    use crate::report::source::Image;
    use std::os::unix::fs::FileExt as _;

    fn written(parts: &Parts) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        iso(parts).unwrap().write(file.as_file(), &Progress::none()).unwrap();
        file
    }

    #[test]
    fn it_is_a_disk_without_a_report_partition_and_an_iso() {
        let file = written(&parts());
        let image = Image::open(file.path()).unwrap();
        assert_eq!(image.kind(), Kind::Iso);
        let names: Vec<&str> = image.table().partitions.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["GDSBOOT-ESP", "GDSBOOT-BIOS", "GDSBOOT-ROOT"]);
        assert_eq!(image.table().primary_damage, None);
        assert!(image.kernel().unwrap() == parts().kernel.read().unwrap());
        let menu = image.menu().unwrap().remove(0).arguments;
        assert!(menu.contains("gdsboot.root=ISO9660=GDSBOOT_0123456789ABCDEF "), "{menu}");
        assert!(!menu.contains("gdsboot.report"), "{menu}");
    }

    /// The ISO's directory and the partitions show the same bytes.
    #[test]
    fn the_directory_points_into_the_partitions() {
        let parts = parts();
        let file = written(&parts);
        let read = |at: u64, length: usize| {
            let mut bytes = vec![0; length];
            file.as_file().read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        let structures = read(32 << 10, 32 << 10);
        for (name, content) in
            [("VMLINUZ.;1", &parts.kernel), ("INITRD.ZST;1", &parts.initramfs), ("ROOT.SQS;1", &parts.root)]
        {
            let at =
                structures.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 33;
            let number = |at: usize| u32::from_le_bytes(structures[at..at + 4].try_into().unwrap());
            let (block, size) = (number(at + 2), number(at + 10));
            let bytes = content.read().unwrap();
            assert_eq!(size as usize, bytes.len(), "{name}");
            assert!(read(u64::from(block) * 2048, bytes.len()) == bytes, "{name}");
        }
    }

    #[test]
    fn grub_for_cdroms_knows_where_it_is() {
        let image: Vec<u8> = (0..100_001_u32).flat_map(|n| n.to_le_bytes()).take(100_001).collect();
        let loader = with_boot_info(&image).unwrap();
        let number = |at: usize| u32::from_le_bytes(loader[at..at + 4].try_into().unwrap());
        assert_eq!((number(8), number(12), number(16)), (16, 32, 100_001));
        // xorriso computes it over the image as it was.
        let sum = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let words = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            words.fold(0, u32::wrapping_add)
        };
        assert_eq!(number(20), sum(&image[64..]));
        assert_eq!(loader[24..64], [0; 40]);
        assert_eq!(u64::from_le_bytes(loader[2548..2556].try_into().unwrap()), 133);
        assert!(with_boot_info(&[0; 2048]).is_err());
        let mut large = parts();
        large.loaders.cdrom_image = vec![1; 1 << 20];
        assert!(iso(&large).unwrap_err().to_string().contains("there is room for 983040"));
    }

    #[test]
    fn the_same_parts_give_the_same_bytes_and_a_root_that_is_too_large_is_refused() {
        let read = |file: tempfile::NamedTempFile| fs_err::read(file.path()).unwrap();
        assert!(read(written(&parts())) == read(written(&parts())));
        let root = tempfile::NamedTempFile::new().unwrap();
        root.as_file().set_len(5 << 30).unwrap();
        let parts = Parts { root: Content::of_file(root.path()).unwrap(), ..parts() };
        assert!(iso(&parts).unwrap_err().to_string().contains("too large for an ISO"));
    }
}
