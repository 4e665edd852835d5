//! The disk image: what stands where, under which name, and the writing of it.
//!
//! | entry | partition | place on the disk |
//! |---|---|---|
//! | 1 | report: FAT32, `GDSREPORT`, basic data | last |
//! | 2 | ESP: FAT16 | second |
//! | 3 | BIOS boot: GRUB's core image | first |
//! | 4 | root: squashfs, read-only | third |
//!
//! The report partition is entry 1 because some versions of Windows show only a stick's first partition. It stands last
//! so that it can later be made larger, up to the end of a stick, without moving anything else. The ESP is FAT16, as on
//! the distributions' installation media: the UEFI specification (13.3) has firmware read FAT12, 16 and 32. FAT32 begins
//! at 33 MiB, and there with clusters of 512 bytes, with which GRUB took 3.6 s instead of 2.6 s of processor time to read
//! a kernel and an initramfs of 21 MB under emulated UEFI.
//!
//! GPT by the UEFI specification, chapter 5; sectors of 512 bytes, partitions on 1 MiB, types and attributes by the
//! Discoverable Partitions Specification. Every identifier is a UUIDv5 of the seed, so the bytes follow from the inputs.

use super::bios_boot::{self, BiosStage};
use super::content::Content;
use super::fat::{self, FatFile, geometry::Kind};
use super::region::Region;
use crate::boot_contract::REPORT_LABEL;
use crate::error::hinted;
use crate::progress::Stage;
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use uuid::{Uuid, uuid};

/// Bytes in a sector of the image.
pub const SECTOR: u64 = 512;
pub(super) const MIB: u64 = 1 << 20;
/// The partition table's copy and slack for alignment at the end of the image.
pub(super) const TAIL: u64 = MIB;
/// FAT32 begins at about 33 MiB. Up to 64 MiB Windows would choose the same clusters, and a run's report is about 1 MB.
pub const DEFAULT_REPORT_SIZE: u64 = 48 * MIB;
/// FAT32 counts 512-byte sectors in 32 bits.
const REPORT_MOST: u64 = 2 << 40;
/// Free on the ESP, so that files of a rebuilt image may differ a little in size without moving the partitions.
const ESP_SPARE: u64 = MIB;
/// The smallest ESP: below it FAT16 would have clusters of less than 4 KiB.
const ESP_LEAST: u64 = 17 * MIB;

/// Sets the root partition's "read-only" and "do not mount by itself" (Discoverable Partitions Specification).
const ROOT_ATTRIBUTES: u64 = 1 << 60 | 1 << 63;

/// The partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where reports go, and the settings come from.
    Report,
    /// Loader, kernel, initramfs.
    Esp,
    /// GRUB's core image.
    BiosBoot,
    /// The squashfs.
    Root,
}

impl Role {
    /// Number of the partition table's entry, from 1.
    pub fn number(self) -> u32 {
        match self {
            Self::Report => 1,
            Self::Esp => 2,
            Self::BiosBoot => 3,
            Self::Root => 4,
        }
    }

    /// Name in the partition table; FAT label of the report partition and the ESP.
    pub fn label(self) -> &'static str {
        match self {
            Self::Report => REPORT_LABEL,
            Self::Esp => "GDSBOOT-ESP",
            Self::BiosBoot => "GDSBOOT-BIOS",
            Self::Root => "GDSBOOT-ROOT",
        }
    }

    /// Type in the partition table: basic data, EFI system, GRUB's BIOS boot, Linux root (x86-64).
    pub fn type_guid(self) -> Uuid {
        match self {
            Self::Report => uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),
            Self::Esp => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            Self::BiosBoot => uuid!("21686148-6449-6e6f-744e-656564454649"),
            Self::Root => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
        }
    }
}

/// Every identifier on a disk. They follow from the seed alone, so that grub.cfg, which goes onto the disk, can name
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    space: Uuid,
}

impl Identity {
    /// The identifiers for `seed`, any text that stands for all of the image's inputs.
    pub fn new(seed: &str) -> Self {
        // A namespace of gdsboot's own, so that a seed means nothing to others' UUIDv5.
        const NAMESPACE: Uuid = uuid!("b1e3a9c4-6d0f-4f5c-9a57-6f1d1f0c8e21");
        Self { space: Uuid::new_v5(&NAMESPACE, seed.as_bytes()) }
    }

    /// The disk's GUID.
    pub fn disk(&self) -> Uuid {
        Uuid::new_v5(&self.space, b"disk")
    }

    /// The partition's GUID; its lower-case text is Linux' `PARTUUID`.
    pub fn partition(&self, role: Role) -> Uuid {
        Uuid::new_v5(&self.space, role.label().as_bytes())
    }

    /// The serial number of a FAT volume.
    pub fn volume(&self, role: Role) -> u32 {
        let uuid = Uuid::new_v5(&self.space, format!("{} volume", role.label()).as_bytes());
        uuid.as_fields().0
    }
}

/// Everything that a disk image is made of.
#[derive(Clone, Debug)]
pub struct DiskInputs {
    /// See [`Identity::new`].
    pub seed: String,
    /// All times on the FAT volumes, seconds since 1970 UTC.
    pub epoch: u64,
    /// Files of the ESP.
    pub esp_files: Vec<FatFile>,
    /// Files of the report partition.
    pub report_files: Vec<FatFile>,
    /// The squashfs.
    pub root: Content,
    /// GRUB for BIOS; without it the image boots by UEFI only.
    pub bios: Option<BiosStage>,
    /// Bytes of the report partition, whole MiB; [`DEFAULT_REPORT_SIZE`] where nobody asks for another. None makes none.
    pub report_size: Option<u64>,
}

impl DiskInputs {
    fn files(&self, role: Role) -> &[FatFile] {
        if role == Role::Esp { &self.esp_files } else { &self.report_files }
    }

    /// The FAT volume of `partition`; none for the other two.
    fn volume(&self, partition: &Partition) -> Option<fat::Volume<'_>> {
        let kind = match partition.role {
            Role::Report => Kind::Fat32,
            Role::Esp => Kind::Fat16,
            Role::BiosBoot | Role::Root => return None,
        };
        Some(fat::Volume {
            kind,
            bytes: partition.sectors * SECTOR,
            label: partition.role.label(),
            id: Identity::new(&self.seed).volume(partition.role),
            first_lba: partition.first_lba,
            epoch: self.epoch,
            files: self.files(partition.role),
        })
    }
}

/// One partition, placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Which.
    pub role: Role,
    /// First sector.
    pub first_lba: u64,
    /// Sectors; a multiple of 1 MiB.
    pub sectors: u64,
    /// GUID; the `PARTUUID`.
    pub guid: Uuid,
}

/// Where everything stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The disk's GUID.
    pub disk_guid: Uuid,
    /// Size of the image in sectors.
    pub sectors: u64,
    /// In the order of their places on the disk.
    pub partitions: Vec<Partition>,
    /// Bytes that [`write()`] reports as progress.
    pub content_bytes: u64,
}

impl Layout {
    /// The partition with this role.
    pub fn partition(&self, role: Role) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.role == role)
    }

    /// Size of the image in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors * SECTOR
    }
}

/// Places the partitions. Measures the files but reads none. Fails when something cannot be held.
pub fn plan(inputs: &DiskInputs) -> Result<Layout> {
    let identity = Identity::new(&inputs.seed);
    let root_bytes = inputs.root.len();
    ensure!(root_bytes > 0, "the root squashfs is empty");
    if let Some(size) = inputs.report_size {
        ensure!(
            size.is_multiple_of(MIB) && size < REPORT_MOST,
            "the report partition's size is {size} bytes; it must be whole MiB, and less than 2 TiB"
        );
    }
    let esp_bytes = fat::smallest(Kind::Fat16, &inputs.esp_files, ESP_LEAST, ESP_SPARE)
        .context("placing the files of the ESP")?;

    let mut layout =
        Layout { disk_guid: identity.disk(), sectors: 0, partitions: Vec::new(), content_bytes: root_bytes };
    let mut next = MIB;
    let bios_bytes = inputs.bios.as_ref().map(|_| bios_boot::PARTITION_BYTES);
    for (role, bytes) in [
        (Role::BiosBoot, bios_bytes),
        (Role::Esp, Some(esp_bytes)),
        (Role::Root, Some(root_bytes)),
        (Role::Report, inputs.report_size),
    ] {
        let Some(bytes) = bytes else { continue };
        let bytes = bytes.next_multiple_of(MIB);
        layout.partitions.push(Partition {
            role,
            first_lba: next / SECTOR,
            sectors: bytes / SECTOR,
            guid: identity.partition(role),
        });
        next += bytes;
    }
    layout.sectors = (next + TAIL) / SECTOR;

    for partition in &layout.partitions {
        if let Some(volume) = inputs.volume(partition) {
            fat::Plan::new(&volume).map_err(|error| misfit(error, partition.role))?;
            for file in volume.files {
                layout.content_bytes += file.content.len();
            }
        }
    }
    Ok(layout)
}

/// Where a file of the ESP stands on the disk: its first byte, and how many there are. They are in one piece, and begin on
/// 2 KiB as the clusters do.
///
/// # Errors
/// The ESP has no such file, or it is empty.
pub fn esp_file(inputs: &DiskInputs, layout: &Layout, path: &str) -> Result<(u64, u64)> {
    let partition = layout.partition(Role::Esp).context("the disk has no ESP")?;
    let volume = inputs.volume(partition).context("the ESP has no filesystem")?;
    let start = fat::Plan::new(&volume)?.start_of(path);
    let start = start.with_context(|| format!("the ESP has no {path}"))?;
    let file = volume.files.iter().find(|file| file.path == path);
    Ok((partition.first_lba * SECTOR + start, file.map_or(0, |file| file.content.len())))
}

fn misfit(error: anyhow::Error, role: Role) -> anyhow::Error {
    let message = format!("laying out {}: {error:#}", role.label());
    match role {
        Role::Report => hinted(
            message,
            "a FAT32 report partition needs 34 MiB or more, and room for its files; ask for a larger one",
        ),
        _ => anyhow::anyhow!(message),
    }
}

/// Writes the image to `out`, which is emptied first and stays sparse where the image is zero. The caller gives a
/// temporary file and renames it.
pub fn write(inputs: &DiskInputs, layout: &Layout, out: &File, stage: &Stage) -> Result<()> {
    ensure!(plan(inputs)? == *layout, "the files of the disk image changed while it was made");
    out.set_len(0).and_then(|()| out.set_len(layout.bytes())).context("sizing the disk image")?;
    write_table(layout, inputs.bios.as_ref(), out)?;
    for partition in &layout.partitions {
        let bytes = partition.sectors * SECTOR;
        let region = Region::new(out, partition.first_lba * SECTOR, bytes);
        let role = partition.role;
        match (role, inputs.volume(partition), &inputs.bios) {
            (Role::BiosBoot, _, Some(bios)) => {
                region.write(0, &bios.core(partition.first_lba)?)?;
            }
            (Role::Root, ..) => {
                let length = inputs.root.len();
                region.copy(0, &inputs.root, length, stage).context("writing the root partition")?;
            }
            (_, Some(volume), _) => {
                fat::Plan::new(&volume)?
                    .write(region, stage)
                    .with_context(|| format!("writing {}", role.label()))?;
            }
            (_, None, _) => {}
        }
    }
    Ok(())
}

/// The protective MBR with GRUB's boot sector, and both copies of the partition table.
pub(super) fn write_table(layout: &Layout, bios: Option<&BiosStage>, out: &File) -> Result<()> {
    let mut table = gptman::GPT::new_from(&mut &*out, SECTOR, layout.disk_guid.to_bytes_le())
        .context("making the partition table")?;
    for partition in &layout.partitions {
        let role = partition.role;
        table[role.number()] = gptman::GPTPartitionEntry {
            partition_type_guid: role.type_guid().to_bytes_le(),
            unique_partition_guid: partition.guid.to_bytes_le(),
            starting_lba: partition.first_lba,
            ending_lba: partition.first_lba + partition.sectors - 1,
            attribute_bits: if role == Role::Root { ROOT_ATTRIBUTES } else { 0 },
            partition_name: role.label().into(),
        };
    }
    table.write_into(&mut &*out).context("writing the partition table")?;

    let mut mbr = [0; SECTOR as usize];
    let core = layout.partition(Role::BiosBoot);
    if let (Some(bios), Some(core)) = (bios, core) {
        let code = bios.boot_code(core.first_lba)?;
        mbr[..code.len()].copy_from_slice(&code);
        // Some BIOSes boot no disk without an active entry, and some UEFI firmware ignores a disk whose 0xee entry is
        // active: so a second entry, of type 0 ("unused"), is. xorriso's --mbr-force-bootable does the same.
        mbr[462] = 0x80;
        mbr[474..478].copy_from_slice(&1u32.to_le_bytes());
    }
    // One entry of type 0xee from sector 1 to the end; cylinders, heads and sectors cannot say where that is.
    mbr[447..454].copy_from_slice(&[0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    let rest = u32::try_from(layout.sectors - 1).unwrap_or(u32::MAX);
    mbr[458..462].copy_from_slice(&rest.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    Region::new(out, 0, layout.bytes()).write(0, &mbr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::bios_boot;
    use crate::error::{hint_of, one_line};
    use crate::progress::{Progress, Unit};
    use std::io::Read as _;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    fn inputs() -> DiskInputs {
        DiskInputs {
            seed: "0123456789abcdef".to_owned(),
            epoch: 1_762_000_000,
            esp_files: vec![
                FatFile::new("EFI/BOOT/BOOTX64.EFI", vec![1; 900_000]),
                FatFile::new("EFI/debian/grub.cfg", b"menu".to_vec()),
                FatFile::new("gdsboot/vmlinuz", vec![2; 12_000_000]),
                FatFile::new("gdsboot/initrd.zst", vec![3; 9_000_000]),
            ],
            report_files: vec![FatFile::new("README.txt", b"read me\r\n".to_vec())],
            root: Content::from(vec![4; 3_000_001]),
            bios: Some(bios_boot::tests::stage(150_000)),
            report_size: Some(DEFAULT_REPORT_SIZE),
        }
    }

    fn written(inputs: &DiskInputs) -> File {
        let layout = plan(inputs).unwrap();
        let out = tempfile::tempfile().unwrap();
        let stage = Progress::none().stage("test", layout.content_bytes, Unit::Bytes);
        write(inputs, &layout, &out, &stage).unwrap();
        out
    }

    fn bytes(file: &File, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn le(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b))
    }

    fn crc(bytes: &[u8]) -> u64 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        u64::from(crc.sum())
    }

    #[test]
    fn layout() {
        insta::assert_debug_snapshot!(plan(&inputs()).unwrap());
    }

    #[test]
    fn the_partition_tables_are_what_uefi_asks_for() {
        let inputs = inputs();
        let layout = plan(&inputs).unwrap();
        let disk = written(&inputs);
        assert_eq!(disk.metadata().unwrap().len(), layout.bytes());

        let mbr = bytes(&disk, 0, 512);
        assert_eq!(mbr[510..], [0x55, 0xaa]);
        assert_eq!((mbr[446], mbr[450]), (0, 0xee));
        assert_eq!(le(&mbr[454..458]), 1);
        assert_eq!(le(&mbr[458..462]), layout.sectors - 1);
        assert_eq!((mbr[462], mbr[466], le(&mbr[470..474]), le(&mbr[474..478])), (0x80, 0, 0, 1));
        assert!(mbr[478..510].iter().all(|b| *b == 0), "no other entry");

        let last = layout.sectors - 1;
        let mut arrays = Vec::new();
        for (own, other) in [(1, last), (last, 1)] {
            let mut header = bytes(&disk, own * 512, 512);
            assert_eq!(&header[..8], b"EFI PART");
            assert_eq!((le(&header[24..32]), le(&header[32..40])), (own, other));
            let sum = le(&header[16..20]);
            header[16..20].fill(0);
            assert_eq!(crc(&header[..92]), sum, "header at {own}");
            assert_eq!((le(&header[80..84]), le(&header[84..88])), (128, 128));
            assert_eq!((le(&header[40..48]), le(&header[48..56])), (34, last - 33));
            let array = bytes(&disk, le(&header[72..80]) * 512, 128 * 128);
            assert_eq!(crc(&array), le(&header[88..92]), "entries of {own}");
            arrays.push(array);
        }
        assert!(arrays[0] == arrays[1]);

        let mut ranges = Vec::new();
        for partition in &layout.partitions {
            let entry = &arrays[0][(partition.role.number() as usize - 1) * 128..][..128];
            assert_eq!(entry[..16], partition.role.type_guid().to_bytes_le());
            assert_eq!(entry[16..32], partition.guid.to_bytes_le());
            let (first, last) = (le(&entry[32..40]), le(&entry[40..48]));
            assert_eq!((first, last - first + 1), (partition.first_lba, partition.sectors));
            assert_eq!(first % 2048, 0);
            let units: Vec<u16> =
                entry[56..128].chunks(2).map(|b| le(b) as u16).take_while(|u| *u != 0).collect();
            assert_eq!(String::from_utf16(&units).unwrap(), partition.role.label());
            let read_only_and_not_mounted = le(&entry[48..56]) == 1 << 60 | 1 << 63;
            assert_eq!(read_only_and_not_mounted, partition.role == Role::Root);
            ranges.push((first, last));
        }
        assert!(ranges.is_sorted_by(|a, b| a.1 < b.0), "{ranges:?}");
        assert!(ranges.last().unwrap().1 < last - 32);
        // What Windows shows, what grub-mkimage's prefix names.
        assert_eq!((Role::Report.number(), Role::Esp.number()), (1, 2));
        assert_eq!(layout.partitions.last().unwrap().role, Role::Report);
    }

    #[test]
    fn every_partition_holds_what_it_was_given() {
        let inputs = inputs();
        let layout = plan(&inputs).unwrap();
        let disk = written(&inputs);
        let start = |role| layout.partition(role).unwrap().first_lba * 512;
        assert!(bytes(&disk, start(Role::Root), 3_000_001).iter().all(|b| *b == 4));
        assert!(bytes(&disk, start(Role::Root) + 3_000_001, 140_000).iter().all(|b| *b == 0));

        let core = bytes(&disk, start(Role::BiosBoot), 512);
        assert_eq!(le(&bytes(&disk, 0x5c, 8)) * 512, start(Role::BiosBoot));
        assert_eq!(le(&core[0x1f4..0x1fc]), start(Role::BiosBoot) / 512 + 1);

        for (role, files) in [(Role::Esp, &inputs.esp_files), (Role::Report, &inputs.report_files)] {
            let partition = layout.partition(role).unwrap();
            let volume = tempfile::tempfile().unwrap();
            let content = bytes(&disk, start(role), partition.sectors as usize * 512);
            volume.write_all_at(&content, 0).unwrap();
            assert_eq!(le(&content[28..32]), partition.first_lba, "hidden sectors");
            let fs = fatfs::FileSystem::new(&volume, fatfs::FsOptions::new()).unwrap();
            assert_eq!(fs.volume_label(), role.label());
            for file in files {
                let mut read = Vec::new();
                fs.root_dir().open_file(&file.path).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == file.content.read().unwrap(), "{}", file.path);
            }
            let free = fs.stats().unwrap();
            assert!(free.free_clusters() as u64 * free.cluster_size() as u64 >= ESP_SPARE);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes_and_other_seeds_other_identifiers() {
        let inputs = inputs();
        let layout = plan(&inputs).unwrap();
        let all = |inputs: &DiskInputs| bytes(&written(inputs), 0, layout.bytes() as usize);
        let first = all(&inputs);
        assert!(first == all(&inputs.clone()));
        let other = DiskInputs { seed: "another".to_owned(), ..inputs };
        assert!(first != all(&other));
        let (a, b) = (Identity::new("0123456789abcdef"), Identity::new("another"));
        assert_ne!(a.disk(), b.disk());
        assert_ne!(a.volume(Role::Esp), b.volume(Role::Esp));
        let mut guids: Vec<_> =
            [Role::Report, Role::Esp, Role::BiosBoot, Role::Root].map(|role| a.partition(role)).to_vec();
        guids.push(a.disk());
        guids.sort();
        guids.dedup();
        assert_eq!(guids.len(), 5);
    }

    #[test]
    fn what_is_zero_takes_no_space_and_what_was_there_before_is_gone() {
        let inputs = DiskInputs { root: Content::from(vec![0; 100 << 20]), ..inputs() };
        let layout = plan(&inputs).unwrap();
        let out = tempfile::tempfile().unwrap();
        out.write_all_at(&[0xff; 4096], 400 << 20).unwrap();
        out.write_all_at(&[0xff; 4096], 512 * 40).unwrap();
        let stage = Progress::none().stage("test", layout.content_bytes, Unit::Bytes);
        write(&inputs, &layout, &out, &stage).unwrap();
        assert_eq!(out.metadata().unwrap().len(), layout.bytes());
        assert!(bytes(&out, 512 * 40, 4096).iter().all(|b| *b == 0));
        assert!(out.metadata().unwrap().blocks() * 512 < 30 << 20);
    }

    #[test]
    fn without_grub_for_bios_there_is_no_partition_and_no_code_for_it() {
        let inputs = DiskInputs { bios: None, ..inputs() };
        let layout = plan(&inputs).unwrap();
        assert_eq!(layout.partition(Role::BiosBoot), None);
        let mbr = bytes(&written(&inputs), 0, 512);
        assert!(mbr[..447].iter().chain(&mbr[462..510]).all(|b| *b == 0));
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        let refused = |change: fn(&mut DiskInputs)| {
            let mut inputs = inputs();
            change(&mut inputs);
            plan(&inputs).unwrap_err()
        };
        let error = refused(|i| i.report_files.push(FatFile::new("big.bin", vec![0; 49 << 20])));
        assert!(one_line(&error).contains("laying out GDSREPORT"), "{error:#}");
        assert!(hint_of(&error).is_some_and(|hint| hint.contains("a larger one")));
        let error = refused(|i| i.report_size = Some(32 << 20));
        assert!(one_line(&error).contains("a volume of 32 MiB cannot be Fat32"), "{error:#}");
        for size in [0, 48_000_000, u64::MAX, 4 << 40] {
            let inputs = DiskInputs { report_size: Some(size), ..inputs() };
            assert!(plan(&inputs).is_err(), "{size}");
        }
        let error = refused(|i| i.root = Content::from(vec![]));
        assert!(one_line(&error).contains("root squashfs is empty"));
        let error = refused(|i| i.esp_files.push(FatFile::new("EFI/../../x", vec![1])));
        assert!(one_line(&error).contains("leads elsewhere"), "{error:#}");
        let error = refused(|i| i.esp_files.push(FatFile::new("GDSBOOT/other", vec![1])));
        assert!(one_line(&error).contains("FAT ignores case"), "{error:#}");
    }

    #[test]
    fn a_file_that_changes_between_planning_and_writing_stops_it() {
        let root = tempfile::NamedTempFile::new().unwrap();
        root.as_file().set_len(5 << 20).unwrap();
        let inputs = DiskInputs { root: Content::of_file(root.path()).unwrap(), ..inputs() };
        let layout = plan(&inputs).unwrap();
        root.as_file().set_len(4 << 20).unwrap();
        let stage = Progress::none().stage("test", 0, Unit::Bytes);
        let out = tempfile::tempfile().unwrap();
        let error = one_line(&write(&inputs, &layout, &out, &stage).unwrap_err());
        assert!(error.contains("changed while"), "{error}");
    }
}
