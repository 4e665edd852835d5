//! Finding partitions and disks, without udev. A PARTUUID is the kernel's own word where it gives one (`PARTUUID=` in uevent,
//! since Linux 6.6), and the disk's GPT where it does not.

use crate::facts::Root;
use gptman::GPT;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A partition of a disk, or a whole disk, which then has its own name as that of its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The kernel's name: `vda4`.
    pub name: String,
    /// The disk's name: `vda`.
    pub disk: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Partition {
    /// The device node.
    pub fn device(&self) -> PathBuf {
        PathBuf::from("/dev").join(&self.name)
    }
}

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// All partitions with this PARTUUID, ordered by name, as soon as there is one; none after `patience`. A stick that was
/// copied to another one makes two.
pub fn wait_for(root: &Root, partuuid: &str, patience: Duration) -> Vec<Partition> {
    wait(patience, || find(root, partuuid))
}

/// What `look` finds, as soon as it finds something; nothing after `patience`.
pub fn wait<T>(patience: Duration, mut look: impl FnMut() -> Vec<T>) -> Vec<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = look();
        if !found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// All partitions with this PARTUUID that are there now.
pub fn find(root: &Root, partuuid: &str) -> Vec<Partition> {
    let mut found = all(root);
    found.retain(|partition| uuid(root, partition).as_deref() == Some(partuuid));
    found
}

/// All partitions that are there now, ordered by name.
pub fn all(root: &Root) -> Vec<Partition> {
    let blocks = root.list("/sys/class/block");
    let names = blocks.value().into_iter().flatten();
    names.filter_map(|name| number(root, name).and_then(|_| read(root, name, disk_of(root, name)?))).collect()
}

/// All disks and drives that are there now, ordered by name; nothing that is made of memory or of another disk.
pub fn disks(root: &Root) -> Vec<Partition> {
    let blocks = root.list("/sys/class/block");
    let is_made = |name: &str| ["loop", "ram", "zram", "dm-", "md"].iter().any(|kind| name.starts_with(kind));
    let names = blocks.value().into_iter().flatten();
    let names = names.filter(|name| !is_made(name) && number(root, name).is_none());
    names.filter_map(|name| read(root, name, name.clone())).collect()
}

/// A partition's name in the GPT.
pub fn name(root: &Root, partition: &Partition) -> Option<String> {
    said(root, &partition.name, "PARTNAME=")
}

/// Has the disk a GPT? The kernel takes one only where the MBR says so (block/partitions/efi.c, `is_pmbr_valid`).
pub fn has_gpt(root: &Root, disk: &str) -> bool {
    let mut sector = [0; 512];
    let read = root.open(&format!("/dev/{disk}")).is_ok_and(|mut disk| disk.read_exact(&mut sector).is_ok());
    // Four entries of 16 bytes; the fifth byte is the partition's kind.
    read && sector[510..] == [0x55, 0xaa] && [450, 466, 482, 498].iter().any(|at| sector[*at] == 0xee)
}

fn read(root: &Root, name: &str, disk: String) -> Option<Partition> {
    let sectors: u64 = root.text(&format!("/sys/class/block/{name}/size")).value()?.parse().ok()?;
    Some(Partition { name: name.to_owned(), disk, bytes: sectors.checked_mul(512)? })
}

fn number(root: &Root, name: &str) -> Option<u32> {
    root.text(&format!("/sys/class/block/{name}/partition")).value()?.parse().ok()
}

/// What the kernel says of a partition under this key, which ends in `=`.
fn said(root: &Root, name: &str, key: &str) -> Option<String> {
    let uevent = root.text(&format!("/sys/class/block/{name}/uevent"));
    uevent.value()?.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned)
}

fn uuid(root: &Root, partition: &Partition) -> Option<String> {
    match said(root, &partition.name, "PARTUUID=") {
        Some(uuid) => Some(uuid.to_ascii_lowercase()),
        None => {
            let mut disk = root.open(&format!("/dev/{}", partition.disk)).ok()?;
            gpt_partuuid(&mut disk, number(root, &partition.name)?)
        }
    }
}

/// A partition's folder stands in its disk's: the one before the last component of where the link leads.
fn disk_of(root: &Root, name: &str) -> Option<String> {
    let target = std::fs::read_link(root.locate("/sys/class/block").ok()?.join(name)).ok()?;
    Some(target.parent()?.file_name()?.to_str()?.to_owned())
}

/// The PARTUUID of a partition in a disk's GPT.
fn gpt_partuuid<R: Read + Seek>(disk: &mut R, number: u32) -> Option<String> {
    let gpt = GPT::find_from(disk).ok()?;
    // Indexing by a number that the table has no room for would panic.
    let (_, entry) = gpt.iter().find(|(n, entry)| *n == number && entry.is_used())?;
    Some(guid(entry.unique_partition_guid))
}

/// A GUID as text: its first three groups are little-endian on disk (UEFI specification, appendix A).
fn guid(bytes: [u8; 16]) -> String {
    let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, e @ ..] = bytes;
    let hex = [a3, a2, a1, a0, b1, b0, c1, c0, d0, d1].map(|byte| format!("{byte:02x}")).concat();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], hex::encode(e))
}

/// Opens a partition's device for reading, waiting a moment for devtmpfs to show it.
pub fn open(partition: &Partition) -> std::io::Result<File> {
    open_node(&partition.device())
}

/// Opens a device for reading, waiting a moment for devtmpfs to show it.
pub fn open_node(path: &Path) -> std::io::Result<File> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::os::unix::fs::symlink;

    const UUID: [u8; 16] =
        [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01];
    const TEXT: &str = "44332211-6655-8877-99aa-bbccddeeff01";

    /// A disk whose third partition has [`UUID`].
    fn disk() -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; 1 << 20]);
        let mut gpt = GPT::new_from(&mut disk, 512, [7; 16]).unwrap();
        gpt[3] = gptman::GPTPartitionEntry {
            partition_type_guid: [1; 16],
            unique_partition_guid: UUID,
            starting_lba: gpt.header.first_usable_lba,
            ending_lba: gpt.header.last_usable_lba,
            attribute_bits: 0,
            partition_name: "root".into(),
        };
        gpt.write_into(&mut disk).unwrap();
        disk.into_inner()
    }

    #[test]
    fn the_gpt_says_it_and_damage_says_nothing() {
        let disk = disk();
        assert_eq!(gpt_partuuid(&mut Cursor::new(&disk), 3).as_deref(), Some(TEXT));
        for number in [0, 1, 2, 4, 128, 129, u32::MAX] {
            assert_eq!(gpt_partuuid(&mut Cursor::new(&disk), number), None, "{number}");
        }
        assert_eq!(gpt_partuuid(&mut Cursor::new(&disk[..100]), 3), None);
        assert_eq!(gpt_partuuid(&mut Cursor::new(vec![0xff; 4096]), 3), None);
    }

    #[test]
    fn both_ways_to_find_a_partition() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        };
        fs_err::create_dir_all(dir.path().join("sys/class/block")).unwrap();
        for (disk, partition) in [("vda", "vda3"), ("vdb", "vdb1")] {
            for name in [disk.to_owned(), format!("{disk}/{partition}")] {
                let folder = format!("sys/devices/block/{name}");
                file(&format!("{folder}/size"), b"8\n");
                let last = name.rsplit('/').next().unwrap();
                symlink(format!("../../devices/block/{name}"), dir.path().join("sys/class/block").join(last))
                    .unwrap();
            }
        }
        file("sys/devices/block/vda/vda3/partition", b"3\n");
        file("sys/devices/block/vda/vda3/uevent", b"MAJOR=254\nDEVTYPE=partition\nPARTN=3\n");
        file("dev/vda", &disk());
        file("sys/devices/block/vdb/vdb1/partition", b"1\n");
        file(
            "sys/devices/block/vdb/vdb1/uevent",
            format!("PARTN=1\nPARTUUID={}\n", TEXT.to_uppercase()).as_bytes(),
        );
        let root = Root::at(dir.path());
        let found = wait_for(&root, TEXT, Duration::ZERO);
        let expected = [("vda3", "vda"), ("vdb1", "vdb")].map(|(name, disk)| Partition {
            name: name.into(),
            disk: disk.into(),
            bytes: 4096,
        });
        assert_eq!(found, expected);
        assert_eq!(find(&root, "00000000-0000-0000-0000-000000000000"), []);
    }
}
