//! The partition table of a disk image: a GUID partition table (UEFI specification 2.10, chapter 5) of 512-byte
//! sectors. The primary table is used; the backup where the primary is damaged, and then that is said.
//!
//! The checksums say nothing about sense: whoever wrote the file could write them too. So every number that would be
//! multiplied or allocated is checked here before `gptman` uses it.

use anyhow::{Context as _, Result, bail, ensure};
use gptman::{GPTHeader, GPTPartitionEntry};
use serde::Serialize;
use std::io::{Read, Seek, SeekFrom};
use uuid::{Uuid, uuid};

/// Bytes in a sector of every image that gdsboot writes.
pub const SECTOR: u64 = 512;

/// Partition type: EFI system partition.
pub const TYPE_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// Partition type: BIOS boot, where GRUB keeps what does not fit into the boot sector.
pub const TYPE_BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
/// Partition type: Microsoft basic data, which Windows and macOS mount by themselves.
pub const TYPE_BASIC_DATA: Uuid = uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");
/// Partition type: Linux filesystem data.
pub const TYPE_LINUX: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
/// Partition type: Linux root for x86-64 (Discoverable Partitions Specification).
pub const TYPE_ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");

/// More entries than any tool writes (128); a table that asks for more is not believed.
const MAX_ENTRIES: u32 = 1024;

/// A partition. Offsets and sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Number in the table, from 1.
    pub number: u32,
    /// GPT name.
    pub name: String,
    /// What kind of partition it is.
    pub type_guid: Uuid,
    /// Which one it is: the PARTUUID.
    pub guid: Uuid,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Partition {
    /// The type in words, or its GUID.
    pub fn type_name(&self) -> String {
        match self.type_guid {
            TYPE_ESP => "EFI system".into(),
            TYPE_BIOS_BOOT => "BIOS boot".into(),
            TYPE_BASIC_DATA => "basic data".into(),
            TYPE_LINUX => "Linux data".into(),
            TYPE_ROOT_X86_64 => "Linux root x86-64".into(),
            other => other.to_string(),
        }
    }
}

/// A partition table that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// GUID of the disk.
    pub disk_guid: Uuid,
    /// The used entries, in the table's order.
    pub partitions: Vec<Partition>,
    /// Why the backup table had to be used, if it had to.
    pub primary_damage: Option<String>,
}

impl Table {
    /// Reads the table of `disk`. Fails where there is none, where the disk is shorter than its table says, and where
    /// an entry lies outside of the disk.
    pub fn read<R: Read + Seek>(disk: &mut R) -> Result<Self> {
        let size = disk.seek(SeekFrom::End(0)).context("finding its size")?;
        if size < 3 * SECTOR {
            bail!("it has {size} bytes: too few for a partition table");
        }
        let primary = match read_at(disk, SECTOR, size) {
            Ok(table) => return Ok(table),
            Err(e) if e.is::<Truncated>() => return Err(e),
            Err(e) => e,
        };
        match read_at(disk, (size / SECTOR - 1) * SECTOR, size) {
            Ok(table) => Ok(Self { primary_damage: Some(format!("{primary:#}")), ..table }),
            Err(backup) if is_signature(&primary) && is_signature(&backup) => {
                bail!(NoTable)
            }
            Err(backup) => bail!("its partition table is damaged: primary: {primary:#}; backup: {backup:#}"),
        }
    }

    /// The partitions called `name`.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Partition> {
        self.partitions.iter().filter(move |p| p.name == name)
    }

    /// The partitions of a type.
    pub fn of_type(&self, type_guid: Uuid) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(move |p| p.type_guid == type_guid)
    }
}

/// There is none: nothing that was meant to be one.
#[derive(Debug)]
pub struct NoTable;

impl std::fmt::Display for NoTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it has no GUID partition table")
    }
}

impl std::error::Error for NoTable {}

/// The table is whole and says that the disk is longer than it is.
#[derive(Debug)]
struct Truncated {
    expected: u64,
    actual: u64,
}

impl std::fmt::Display for Truncated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { expected, actual } = self;
        write!(f, "it is truncated: its partition table describes {expected} bytes, it has {actual}")
    }
}

impl std::error::Error for Truncated {}

fn is_signature(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<gptman::Error>(), Some(gptman::Error::InvalidSignature))
}

/// Reads the table whose header stands at byte `offset` of a disk of `size` bytes.
fn read_at<R: Read + Seek>(disk: &mut R, offset: u64, size: u64) -> Result<Table> {
    disk.seek(SeekFrom::Start(offset))?;
    let header = GPTHeader::read_from(disk)?;
    ensure!(
        header.size_of_partition_entry == 128,
        "entries of {} bytes are not supported",
        header.size_of_partition_entry
    );
    let entries = header.number_of_partition_entries;
    ensure!(entries <= MAX_ENTRIES, "it claims {entries} partition entries");
    ensure!(
        header.primary_lba == offset / SECTOR,
        "the header at sector {} says that it stands at {}",
        offset / SECTOR,
        header.primary_lba
    );
    // Of two headers, each names the other as "backup"; the last sector is the greater of the two.
    let last = header.primary_lba.max(header.backup_lba);
    if let Some(expected) = last.checked_add(1).and_then(|sectors| sectors.checked_mul(SECTOR))
        && expected > size
    {
        bail!(Truncated { expected, actual: size });
    }
    let array_end = header
        .partition_entry_lba
        .checked_mul(SECTOR)
        .and_then(|start| start.checked_add(u64::from(entries) * 128))
        .filter(|end| *end <= size);
    ensure!(array_end.is_some(), "the partition entries lie outside of the disk");
    let entries = header.read_partitions(disk, SECTOR)?;
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        if entry.is_used() {
            partitions.push(partition(number, &entry, size)?);
        }
    }
    Ok(Table { disk_guid: Uuid::from_bytes_le(header.disk_guid), partitions, primary_damage: None })
}

fn partition(number: u32, entry: &GPTPartitionEntry, disk_size: u64) -> Result<Partition> {
    let (first, last) = (entry.starting_lba, entry.ending_lba);
    let sectors = disk_size / SECTOR;
    ensure!(
        first <= last && last < sectors,
        "partition {number} covers sectors {first} to {last} of a disk of {sectors}"
    );
    Ok(Partition {
        number,
        name: entry.partition_name.as_str().to_owned(),
        type_guid: Uuid::from_bytes_le(entry.partition_type_guid),
        guid: Uuid::from_bytes_le(entry.unique_partition_guid),
        start: first * SECTOR,
        size: (last - first + 1) * SECTOR,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// A disk of `sectors` with the given partitions (name, type, first sector, sectors), both tables written.
    pub(crate) fn disk(sectors: u64, partitions: &[(&str, Uuid, u64, u64)]) -> Vec<u8> {
        let mut disk = Cursor::new(vec![0_u8; usize::try_from(sectors * SECTOR).unwrap()]);
        let mut gpt = gptman::GPT::new_from(&mut disk, SECTOR, [7; 16]).unwrap();
        for (n, (name, kind, first, count)) in (1_u8..).zip(partitions) {
            gpt[u32::from(n)] = GPTPartitionEntry {
                partition_type_guid: kind.to_bytes_le(),
                unique_partition_guid: [n; 16],
                starting_lba: *first,
                ending_lba: first + count - 1,
                attribute_bits: 0,
                partition_name: (*name).into(),
            };
        }
        gpt.write_into(&mut disk).unwrap();
        disk.into_inner()
    }

    fn small() -> Vec<u8> {
        disk(256, &[("GDSREPORT", TYPE_BASIC_DATA, 40, 100), ("esp", TYPE_ESP, 140, 40)])
    }

    fn read(bytes: &[u8]) -> Result<Table> {
        Table::read(&mut Cursor::new(bytes))
    }

    fn error(bytes: &[u8]) -> String {
        format!("{:#}", read(bytes).unwrap_err())
    }

    #[test]
    fn reads_names_types_and_places() {
        let table = read(&small()).unwrap();
        assert_eq!(table.primary_damage, None);
        assert_eq!(table.partitions.len(), 2);
        let report = table.named("GDSREPORT").next().unwrap();
        assert_eq!((report.number, report.start, report.size), (1, 40 * 512, 100 * 512));
        assert_eq!(report.guid.to_string(), "01010101-0101-0101-0101-010101010101");
        assert_eq!(table.of_type(TYPE_ESP).next().unwrap().name, "esp");
        assert_eq!(report.type_name(), "basic data");
    }

    #[test]
    fn falls_back_to_the_backup_and_says_why() {
        let mut bytes = small();
        bytes[520] ^= 0xff;
        let table = read(&bytes).unwrap();
        assert_eq!(table.partitions, read(&small()).unwrap().partitions);
        assert_eq!(table.primary_damage.as_deref(), Some("invalid revision"));
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(error(b""), "it has 0 bytes: too few for a partition table");
        assert_eq!(error(&[0; 4096]), "it has no GUID partition table");
        assert_eq!(
            error(&small()[..200 * 512]),
            "it is truncated: its partition table describes 131072 bytes, it has 102400"
        );
        let mut both = small();
        both[520] ^= 1;
        let backup = both.len() - 512 + 8;
        both[backup] ^= 1;
        assert_eq!(
            error(&both),
            "its partition table is damaged: primary: invalid revision; backup: invalid revision"
        );
    }

    /// Rewrites the primary header with a right checksum after `change`.
    fn forged(change: impl FnOnce(&mut GPTHeader)) -> Vec<u8> {
        let mut bytes = small();
        let mut header = GPTHeader::read_from(&mut Cursor::new(&bytes[512..])).unwrap();
        change(&mut header);
        header.update_crc32_checksum();
        bytes[512 + 16..512 + 20].copy_from_slice(&header.crc32_checksum.to_le_bytes());
        bytes[512 + 32..512 + 40].copy_from_slice(&header.backup_lba.to_le_bytes());
        bytes[512 + 72..512 + 80].copy_from_slice(&header.partition_entry_lba.to_le_bytes());
        bytes[512 + 80..512 + 84].copy_from_slice(&header.number_of_partition_entries.to_le_bytes());
        bytes[512 + 84..512 + 88].copy_from_slice(&header.size_of_partition_entry.to_le_bytes());
        let backup = bytes.len() - 512;
        bytes[backup..].fill(0);
        bytes
    }

    #[test]
    fn right_checksums_do_not_make_numbers_believed() {
        assert!(
            error(&forged(|h| h.number_of_partition_entries = u32::MAX)).contains("4294967295 partition")
        );
        assert!(error(&forged(|h| h.size_of_partition_entry = 0)).contains("entries of 0 bytes"));
        assert!(error(&forged(|h| h.partition_entry_lba = u64::MAX)).contains("outside of the disk"));
        assert!(error(&forged(|h| h.backup_lba = 1 << 40)).contains("truncated"));
        let entry = GPTPartitionEntry { starting_lba: 40, ending_lba: 1039, ..GPTPartitionEntry::empty() };
        assert_eq!(
            partition(1, &entry, 256 * 512).unwrap_err().to_string(),
            "partition 1 covers sectors 40 to 1039 of a disk of 256"
        );
    }

    proptest! {
        #[test]
        fn no_numbers_panic(entries: u32, size: u32, lba: u64, backup: u64) {
            let bytes = forged(|h| {
                h.number_of_partition_entries = entries % 2048;
                h.size_of_partition_entry = if size % 2 == 0 { 128 } else { size };
                h.partition_entry_lba = lba;
                h.backup_lba = backup;
            });
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn no_bytes_panic(flips in prop::collection::vec((0_usize..40 * 512, any::<u8>()), 1..8)) {
            let mut bytes = small();
            let backup = bytes.len() - 512;
            bytes[backup..].fill(0);
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok(table) = read(&bytes) {
                for p in table.partitions {
                    prop_assert!(p.start + p.size <= bytes.len() as u64);
                }
            }
        }
    }
}
