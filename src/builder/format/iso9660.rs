//! The structures of an ISO 9660 volume with El Torito (ECMA-119, 2nd edition, section numbers below; El Torito 1.0): descriptors,
//! boot catalogue, path tables, directories. The files' bytes are elsewhere in the image already.
//!
//! Names are of interchange level 1 (8.3, capitals), which every reader knows: Linux and GRUB show them in small letters and
//! without the version. There are no extensions to them (Rock Ridge, Joliet): nothing on the ISO needs one. Of the well-kept writers xorriso
//! would have to be among the pinned tools of every profile, and neither it nor a crate lets a directory point into a partition.

use crate::report::utc::Utc;
use anyhow::{Context as _, Result, ensure};

/// Bytes in a logical block.
const BLOCK: u64 = 2048;
/// Where the descriptors begin, 6.2.1.
const FIRST: u64 = 16;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Volume identifier: at most 32 capitals, digits and underscores.
    pub identifier: String,
    /// Size of the whole image.
    pub bytes: u64,
    /// All times, in seconds since 1970 UTC.
    pub epoch: u64,
    /// The files.
    pub files: Vec<File>,
    /// What firmware boots.
    pub boot: Boot,
}

/// A file whose bytes are in one piece somewhere in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Folders, and the name.
    path: Vec<String>,
    /// First block.
    block: u32,
    /// Bytes.
    size: u32,
}

/// What firmware boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// A program, and its first sectors, which the BIOS loads.
    pub bios: Entry,
    /// A FAT filesystem.
    pub uefi: Entry,
}

/// An entry of the boot catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who boots it.
    pub platform: Platform,
    /// First byte in the image.
    pub start: u64,
    /// Sectors of 512 bytes.
    pub sectors: u16,
}

/// El Torito's platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// x86.
    Bios = 0,
    /// UEFI specification, 13.3.2.1.
    Uefi = 0xef,
}

impl File {
    /// A file at `path`, with `/`, whose bytes begin at byte `start`.
    ///
    /// # Errors
    /// A name has no short form of its own, or ISO 9660 cannot say where or how large it is.
    pub fn new(path: &str, start: u64, bytes: u64) -> Result<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let (name, folders) = parts.split_last().context("a file on the ISO has no name")?;
        let mut names: Vec<String> = Vec::new();
        for folder in folders {
            ensure!(is_identifier(folder, 8), "the folder {folder} of {path} is no name on an ISO");
            names.push(folder.to_ascii_uppercase());
        }
        // Without an extension the dot stays (7.5.1).
        let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
        let is_name = is_identifier(stem, 8) && (extension.is_empty() || is_identifier(extension, 3));
        ensure!(is_name, "{path} is no name on an ISO");
        names.push(format!("{stem}.{extension};1").to_ascii_uppercase());
        ensure!(start.is_multiple_of(BLOCK), "{path} begins at byte {start}, which is no block of an ISO");
        let size = u32::try_from(bytes).with_context(|| format!("{path} is too large for an ISO"))?;
        Ok(Self { path: names, block: u32::try_from(start / BLOCK)?, size })
    }
}

fn is_identifier(name: &str, most: usize) -> bool {
    (1..=most).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A directory while it is laid out; each has one block.
#[derive(Debug)]
struct Folder {
    path: Vec<String>,
    /// Its parent's place in the list.
    parent: usize,
}

impl Volume {
    /// The structures, and the byte of the image at which they go.
    ///
    /// # Errors
    /// The identifier is none, or a directory does not fit into a block.
    pub fn structures(&self) -> Result<(u64, Vec<u8>)> {
        ensure!(is_volume(&self.identifier), "{:?} cannot name a volume", self.identifier);
        let folders = self.folders();
        // Descriptors, catalogue, the path table twice, the directories.
        let catalogue = FIRST + 3;
        let (little, big, first) = (catalogue + 1, catalogue + 2, catalogue + 3);
        let block_of = |folder: usize| -> Result<u32> { Ok(u32::try_from(first + folder as u64)?) };
        let mut blocks = vec![Vec::new(); 3];
        let table = self.path_table(&folders, &block_of, u32::to_le_bytes, u16::to_le_bytes)?;
        let root = self.record(&[0], block_of(0)?, BLOCK as u32, true)?;
        blocks[0] =
            self.primary(&root, u32::try_from(table.len())?, u32::try_from(little)?, u32::try_from(big)?)?;
        blocks[1] = boot_record(u32::try_from(catalogue)?);
        blocks[2] = [&b"\xffCD001\x01"[..]].concat();
        blocks.push(self.boot.catalogue()?);
        blocks.push(table);
        blocks.push(self.path_table(&folders, &block_of, u32::to_be_bytes, u16::to_be_bytes)?);
        for folder in 0..folders.len() {
            blocks.push(self.directory(&folders, folder, &block_of)?);
        }
        let mut bytes = Vec::new();
        for mut block in blocks {
            ensure!(block.len() as u64 <= BLOCK, "a directory of the ISO has more than one block");
            block.resize(BLOCK as usize, 0);
            bytes.extend(block);
        }
        Ok((FIRST * BLOCK, bytes))
    }

    /// All directories in the order of the path table: by depth, then by parent, then by name (6.9.1).
    fn folders(&self) -> Vec<Folder> {
        let mut paths: Vec<&[String]> = vec![&[]];
        for file in &self.files {
            for depth in 1..file.path.len() {
                paths.push(&file.path[..depth]);
            }
        }
        paths.sort_by_key(|path| (path.len(), path.to_vec()));
        paths.dedup();
        let place = |path: &[String]| paths.iter().position(|other| *other == path).unwrap_or(0);
        let parent = |path: &[String]| path.split_last().map_or(0, |(_, above)| place(above));
        paths.iter().map(|path| Folder { path: path.to_vec(), parent: parent(path) }).collect()
    }

    /// 6.9 and 9.4.
    fn path_table(
        &self,
        folders: &[Folder],
        block_of: &dyn Fn(usize) -> Result<u32>,
        long: fn(u32) -> [u8; 4],
        short: fn(u16) -> [u8; 2],
    ) -> Result<Vec<u8>> {
        let mut table = Vec::new();
        for (number, folder) in folders.iter().enumerate() {
            let name = folder.path.last().map_or(&b"\0"[..], |name| name.as_bytes());
            table.extend([u8::try_from(name.len())?, 0]);
            table.extend(long(block_of(number)?));
            table.extend(short(u16::try_from(folder.parent + 1)?));
            table.extend(name);
            table.resize(table.len().next_multiple_of(2), 0);
        }
        Ok(table)
    }

    /// 6.8: itself, its parent, then everything in it by name.
    fn directory(
        &self,
        folders: &[Folder],
        number: usize,
        block_of: &dyn Fn(usize) -> Result<u32>,
    ) -> Result<Vec<u8>> {
        let folder = &folders[number];
        let size = BLOCK as u32;
        let mut bytes = self.record(&[0], block_of(number)?, size, true)?;
        bytes.extend(self.record(&[1], block_of(folder.parent)?, size, true)?);
        let mut entries = Vec::new();
        for (below, other) in
            folders.iter().enumerate().filter(|(_, other)| other.path.len() == folder.path.len() + 1)
        {
            if let Some((name, above)) = other.path.split_last()
                && *above == folder.path
            {
                entries.push((name, self.record(name.as_bytes(), block_of(below)?, size, true)?));
            }
        }
        for file in &self.files {
            if let Some((name, above)) = file.path.split_last()
                && *above == folder.path
            {
                entries.push((name, self.record(name.as_bytes(), file.block, file.size, false)?));
            }
        }
        entries.sort();
        bytes.extend(entries.into_iter().flat_map(|(_, record)| record));
        Ok(bytes)
    }

    /// A directory record, 9.1.
    fn record(&self, name: &[u8], block: u32, size: u32, is_folder: bool) -> Result<Vec<u8>> {
        let length = (33 + name.len()).next_multiple_of(2);
        let mut record = vec![u8::try_from(length)?, 0];
        record.extend(both_long(block));
        record.extend(both_long(size));
        record.extend(short_time(self.epoch));
        record.extend([if is_folder { 2 } else { 0 }, 0, 0]);
        record.extend(both_short(1));
        record.push(u8::try_from(name.len())?);
        record.extend(name);
        record.resize(length, 0);
        Ok(record)
    }

    /// The primary volume descriptor, 8.4.
    fn primary(&self, root: &[u8], table: u32, little: u32, big: u32) -> Result<Vec<u8>> {
        let text = |text: &str, length: usize| format!("{text:<length$}").into_bytes();
        let mut bytes = b"\x01CD001\x01\0".to_vec();
        bytes.extend(text("", 32));
        bytes.extend(text(&self.identifier, 32));
        bytes.extend([0; 8]);
        bytes.extend(both_long(
            u32::try_from(self.bytes / BLOCK).context("the image is too large for an ISO")?,
        ));
        bytes.extend([0; 32]);
        // One volume, the first, with blocks of this size.
        bytes.extend([both_short(1), both_short(1), both_short(BLOCK as u16)].concat());
        bytes.extend(both_long(table));
        bytes.extend([little.to_le_bytes(), [0; 4], big.to_be_bytes(), [0; 4]].concat());
        bytes.extend(root);
        // Set, publisher, preparer, application; files with the copyright, an abstract, a bibliography.
        bytes.extend(
            [text("", 128), text("", 128), text("", 128), text("GDSBOOT", 128), text("", 3 * 37)].concat(),
        );
        // Made, changed; it never expires, and was always valid.
        let time = long_time(self.epoch);
        let never = [&[b'0'; 16][..], &[0]].concat();
        bytes.extend([time.clone(), time, never.clone(), never].concat());
        bytes.push(1);
        ensure!(bytes.len() == 882, "the volume descriptor has {} bytes", bytes.len());
        Ok(bytes)
    }
}

fn is_volume(identifier: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=32).contains(&identifier.len()) && identifier.bytes().all(is_plain)
}

/// El Torito, figure 7.
fn boot_record(catalogue: u32) -> Vec<u8> {
    let mut bytes = b"\0CD001\x01EL TORITO SPECIFICATION".to_vec();
    bytes.resize(0x47, 0);
    bytes.extend(catalogue.to_le_bytes());
    bytes
}

impl Boot {
    /// El Torito, figures 2 to 5: who made it, what a BIOS boots, then a section for UEFI.
    fn catalogue(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![1, Platform::Bios as u8, 0, 0];
        bytes.extend(format!("{:\0<24}", "gdsboot").bytes());
        bytes.extend([0, 0, 0x55, 0xaa]);
        let words =
            bytes.chunks(2).fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
        bytes[28..30].copy_from_slice(&words.wrapping_neg().to_le_bytes());
        bytes.extend(self.bios.bytes()?);
        // The last section, of one entry.
        bytes.extend([0x91, self.uefi.platform as u8, 1, 0]);
        bytes.extend([0; 28]);
        bytes.extend(self.uefi.bytes()?);
        Ok(bytes)
    }
}

impl Entry {
    /// Bootable, without emulation of a disk.
    fn bytes(&self) -> Result<[u8; 32]> {
        ensure!(
            self.start.is_multiple_of(BLOCK),
            "what boots begins at byte {}, which is no block",
            self.start
        );
        let mut bytes = [0; 32];
        bytes[0] = 0x88;
        bytes[6..8].copy_from_slice(&self.sectors.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::try_from(self.start / BLOCK)?.to_le_bytes());
        Ok(bytes)
    }
}

/// 7.3.3.
fn both_long(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// 7.2.3.
fn both_short(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

/// 8.4.26.1: `2026112210560100` and the zone, which is UTC.
fn long_time(epoch: u64) -> Vec<u8> {
    let digits: String = Utc(epoch).compact().chars().filter(char::is_ascii_digit).collect();
    format!("{digits}00\0").into_bytes()
}

/// 9.1.5: years since 1900, month, day, hour, minute, second, zone.
fn short_time(epoch: u64) -> [u8; 7] {
    let digits = long_time(epoch);
    let pair = |at: usize| (digits[at] - b'0') * 10 + (digits[at + 1] - b'0');
    let year = u16::from(pair(0)) * 100 + u16::from(pair(2));
    let year = u8::try_from(year.saturating_sub(1900)).unwrap_or(u8::MAX);
    [year, pair(4), pair(6), pair(8), pair(10), pair(12), 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Volume {
        let file = |path, block: u64, bytes| File::new(path, block * BLOCK, bytes).unwrap();
        Volume {
            identifier: "GDSBOOT_0123456789ABCDEF".to_owned(),
            bytes: 200 << 20,
            epoch: 1_764_209_432,
            files: vec![
                file("gdsboot/vmlinuz", 5400, 12_179_392),
                file("EFI/debian/grub.cfg", 3296, 1547),
                file("gdsboot/root.sqs", 12_288, 157_429_760),
                file("gdsboot/initrd.zst", 3300, 4_291_080),
            ],
            boot: Boot {
                bios: Entry { platform: Platform::Bios, start: 65_536, sectors: 4 },
                uefi: Entry { platform: Platform::Uefi, start: 2 << 20, sectors: 45_056 },
            },
        }
    }

    /// The image's first bytes, up to the structures' end.
    fn image(volume: &Volume) -> Vec<u8> {
        let (start, structures) = volume.structures().unwrap();
        let mut image = vec![0; usize::try_from(start).unwrap()];
        image.extend(structures);
        image
    }

    fn little(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(bytes[..4].try_into().unwrap())
    }

    fn big(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(bytes[..4].try_into().unwrap())
    }

    /// The records of a directory: name, block, size, is it a folder?
    fn list(image: &[u8], block: u32) -> Vec<(Vec<u8>, u32, u32, bool)> {
        let mut at = block as usize * 2048;
        let mut found = Vec::new();
        while image[at] != 0 {
            let record = &image[at..at + image[at] as usize];
            assert_eq!(
                (little(&record[2..]), little(&record[10..])),
                (big(&record[6..]), big(&record[14..]))
            );
            // 2025-11-27T02:10:32Z.
            assert_eq!(record[18..25], [125, 11, 27, 2, 10, 32, 0]);
            let name = record[33..33 + record[32] as usize].to_vec();
            found.push((name, little(&record[2..]), little(&record[10..]), record[25] == 2));
            at += record.len();
        }
        found
    }

    #[test]
    fn a_reader_that_follows_the_standard_finds_every_file() {
        let image = image(&volume());
        let primary = &image[16 * 2048..17 * 2048];
        assert_eq!(primary[..8], *b"\x01CD001\x01\0");
        assert_eq!(primary[40..72], *b"GDSBOOT_0123456789ABCDEF        ");
        assert_eq!((little(&primary[80..]), big(&primary[84..])), (102_400, 102_400));
        assert_eq!(primary[813..830], *b"2025112702103200\0");
        assert_eq!(image[18 * 2048..18 * 2048 + 7], *b"\xffCD001\x01");
        let root = little(&primary[158..]);
        let step = |block, name: &[u8]| {
            let entries = list(&image, block);
            assert!(entries[2..].is_sorted(), "6.8.1: {entries:?}");
            assert_eq!((&entries[0].0[..], &entries[1].0[..]), (&[0][..], &[1][..]));
            assert_eq!(entries[0].1, block);
            entries
                .into_iter()
                .find(|entry| entry.0 == name)
                .map(|(_, block, size, _)| (block, size))
                .unwrap()
        };
        let efi = step(root, b"EFI").0;
        let debian = step(efi, b"DEBIAN").0;
        assert_eq!(step(debian, b"GRUB.CFG;1"), (3296, 1547));
        assert_eq!(step(debian, &[1]).0, efi);
        let gdsboot = step(root, b"GDSBOOT").0;
        assert_eq!(step(gdsboot, b"VMLINUZ.;1"), (5400, 12_179_392));
        assert_eq!(step(gdsboot, b"INITRD.ZST;1"), (3300, 4_291_080));
        assert_eq!(step(gdsboot, b"ROOT.SQS;1"), (12_288, 157_429_760));

        let size = little(&primary[132..]) as usize;
        let tables = [little(&primary[140..]), big(&primary[148..])].map(|block| {
            let at = block as usize * 2048;
            image[at..at + size].to_vec()
        });
        let mut at = 0;
        let mut folders = Vec::new();
        while at < size {
            let length = tables[0][at] as usize;
            let block = little(&tables[0][at + 2..]);
            assert_eq!(block, big(&tables[1][at + 2..]));
            let name = String::from_utf8_lossy(&tables[0][at + 8..at + 8 + length]).into_owned();
            folders.push((name, block, tables[0][at + 6]));
            at += 8 + length.next_multiple_of(2);
        }
        let expected = [("\0", root, 1), ("EFI", efi, 1), ("GDSBOOT", gdsboot, 1), ("DEBIAN", debian, 2)];
        assert_eq!(folders, expected.map(|(name, block, parent)| (name.to_owned(), block, parent)));
    }

    #[test]
    fn the_boot_catalogue_has_a_bios_and_a_uefi() {
        let image = image(&volume());
        let record = &image[17 * 2048..18 * 2048];
        assert_eq!(record[..30], *b"\0CD001\x01EL TORITO SPECIFICATION");
        let catalogue = &image[little(&record[0x47..]) as usize * 2048..][..128];
        let words = catalogue[..32].chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
        assert_eq!(words.fold(0, u16::wrapping_add), 0);
        assert_eq!((catalogue[0], catalogue[1], &catalogue[30..32]), (1, 0, &[0x55, 0xaa][..]));
        assert_eq!(catalogue[32..44], [0x88, 0, 0, 0, 0, 0, 4, 0, 32, 0, 0, 0]);
        assert_eq!(catalogue[64..68], [0x91, 0xef, 1, 0]);
        assert_eq!(catalogue[96..108], [0x88, 0, 0, 0, 0, 0, 0, 0xb0, 0, 4, 0, 0]);
    }

    #[test]
    fn what_the_standard_cannot_say_is_refused() {
        for path in ["", "a/", "longer-than/x", "a/name.toml2", "a/two.dots.x", "a b/c", "ninechars.x"] {
            assert!(File::new(path, 0, 1).is_err(), "{path}");
        }
        assert!(File::new("a", 512, 1).is_err());
        assert!(File::new("a", 0, 4 << 30).is_err());
        assert!(File::new("a", 16 << 40, 1).is_err());
        for identifier in ["", "lower", "A-B", &"A".repeat(33)] {
            assert!(
                Volume { identifier: identifier.to_owned(), ..volume() }.structures().is_err(),
                "{identifier}"
            );
        }
        let many = |n: usize| File::new(&format!("gdsboot/f{n}"), 0, 1).unwrap();
        assert!(Volume { files: (0..100).map(many).collect(), ..volume() }.structures().is_err());
    }
}
