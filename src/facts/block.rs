//! Block devices and how they are stacked, from `/sys/block` (Documentation/ABI/stable/sysfs-block).

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// A whole disk or a device made of others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BlockDevice {
    /// The kernel's name: `nvme0n1`, `dm-0`, `md0`.
    pub name: String,
    /// `major:minor`.
    pub number: Fact<String>,
    /// Its size in bytes.
    pub bytes: Fact<u64>,
    /// Can it not be written?
    pub read_only: Fact<bool>,
    /// Can it be taken out?
    pub removable: Fact<bool>,
    /// Does it turn?
    pub rotational: Fact<bool>,
    /// The smallest unit that it takes, in bytes: offsets and sizes of O_DIRECT are multiples of it.
    pub logical_block_bytes: Fact<u32>,
    /// What it is made of.
    pub slaves: Vec<String>,
    /// What is made of it.
    pub holders: Vec<String>,
    /// For device-mapper: the name that people use.
    pub dm_name: Fact<String>,
    /// For device-mapper: what it is for, such as `LVM-...` or `CRYPT-LUKS2-...`.
    pub dm_uuid: Fact<String>,
    /// For md: `raid0`.
    pub md_level: Fact<String>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// A part of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Partition {
    /// The kernel's name: `nvme0n1p1`.
    pub name: String,
    /// `major:minor`.
    pub number: Fact<String>,
    /// Where it begins on its disk, in bytes.
    pub start: Fact<u64>,
    /// What is made of it.
    pub holders: Vec<String>,
}

const BLOCK: &str = "/sys/block";

impl BlockDevice {
    /// Reads all of them, ordered by name, without RAM disks and loops.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        root.list(BLOCK).map(|names| {
            let kept = |name: &&String| !["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
            names.iter().filter(kept).map(|name| Self::read(root, name)).collect()
        })
    }

    fn read(root: &Root, name: &str) -> Self {
        let path = |file: &str| format!("{BLOCK}/{name}/{file}");
        let flag = |file: &str| root.parse(&path(file), parse_flag);
        let inside = root.list(&path(""));
        let inside = inside.value().into_iter().flatten();
        let is_part =
            |entry: &&String| entry.starts_with(name) && root.exists(&path(&format!("{entry}/partition")));
        Self {
            name: name.to_owned(),
            number: root.text(&path("dev")),
            bytes: root.parse(&path("size"), parse_sectors),
            read_only: flag("ro"),
            removable: flag("removable"),
            rotational: flag("queue/rotational"),
            logical_block_bytes: root.parse(&path("queue/logical_block_size"), |text| {
                text.parse().map_err(|_| format!("{text:?} is no size"))
            }),
            slaves: names(root, &path("slaves")),
            holders: names(root, &path("holders")),
            dm_name: root.text(&path("dm/name")),
            dm_uuid: root.text(&path("dm/uuid")),
            md_level: root.text(&path("md/level")),
            partitions: inside.filter(is_part).map(|part| Partition::read(root, &path(part), part)).collect(),
        }
    }

    /// Is it, or a partition of it, what `device` (`major:minor`) or `name` (a kernel's name) means?
    pub fn is(&self, device: Option<&str>, name: &str) -> bool {
        let is_number =
            |number: &Fact<String>| device.is_some() && number.value().map(String::as_str) == device;
        is_number(&self.number)
            || self.name == name
            || self.dm_name.value().is_some_and(|dm| dm == name)
            || self.partitions.iter().any(|part| part.name == name || is_number(&part.number))
    }
}

impl Partition {
    fn read(root: &Root, folder: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            number: root.text(&format!("{folder}/dev")),
            start: root.parse(&format!("{folder}/start"), parse_sectors),
            holders: names(root, &format!("{folder}/holders")),
        }
    }
}

fn names(root: &Root, folder: &str) -> Vec<String> {
    root.list(folder).value().cloned().unwrap_or_default()
}

/// In sectors of 512 bytes, whatever the device's own are.
fn parse_sectors(text: &str) -> Result<u64, String> {
    let sectors: Option<u64> = text.parse().ok();
    sectors.and_then(|n| n.checked_mul(512)).ok_or_else(|| format!("{text:?} is no number of sectors"))
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{text:?} is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_on_a_partition() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("nvme0n1/dev", "259:0\n"),
            ("nvme0n1/size", "99999999999999999999\n"),
            ("nvme0n1/ro", "2\n"),
            ("nvme0n1/queue/rotational", "0\n"),
            ("nvme0n1/nvme0n1p1/partition", "1\n"),
            ("nvme0n1/nvme0n1p1/dev", "259:1\n"),
            ("nvme0n1/nvme0n1p1/start", "2048\n"),
            ("nvme0n1/queue/logical_block_size", "4096\n"),
            ("nvme0n1/nvme0n1p1/holders/dm-0/x", ""),
            ("dm-0/dm/name", "vg-data\n"),
            ("dm-0/dm/uuid", "LVM-abc\n"),
            ("dm-0/slaves/nvme0n1p1/x", ""),
            ("loop0/dev", "7:0\n"),
        ] {
            let path = dir.path().join("sys/block").join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let all = BlockDevice::read_all(&Root::at(dir.path()));
        let [dm, nvme] = all.value().unwrap().as_slice() else { panic!("{all:?}") };
        assert_eq!(
            (dm.slaves.as_slice(), dm.dm_uuid.value().unwrap().as_str()),
            (&["nvme0n1p1".to_owned()][..], "LVM-abc")
        );
        assert_eq!(nvme.partitions[0].holders, ["dm-0"]);
        assert_eq!(nvme.partitions[0].start.value(), Some(&(1 << 20)));
        assert_eq!(nvme.logical_block_bytes.value(), Some(&4096));
        assert!(
            matches!(nvme.bytes, Fact::Malformed { .. }) && matches!(nvme.read_only, Fact::Malformed { .. })
        );
        assert!(nvme.is(Some("259:1"), "") && nvme.is(None, "nvme0n1p1") && dm.is(None, "vg-data"));
        assert!(!nvme.is(None, "") && !dm.is(None, ""));
    }
}
