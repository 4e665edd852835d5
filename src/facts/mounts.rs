//! What is mounted: `/proc/self/mountinfo` (Documentation/filesystems/proc.rst, 3.5), or `/proc/mounts`.

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// A mounted filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Mount {
    /// Where.
    pub at: String,
    /// The filesystem's type: `ext4`.
    pub kind: String,
    /// What is mounted: usually a device node.
    pub source: String,
    /// The device as `major:minor`; `None` where only `/proc/mounts` was there.
    pub device: Option<String>,
    /// The options of the mount and of the filesystem.
    pub options: Vec<String>,
}

impl Mount {
    /// Reads all of them, in the order in which they were mounted.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        let places = ["/proc/self/mountinfo", "/proc/1/mountinfo", "/proc/mountinfo"];
        let found = places.into_iter().find(|path| root.exists(path));
        if let Some(path) = found {
            return root.parse(path, |text| parse_all(text, Self::parse_mountinfo));
        }
        let tables = ["/proc/mounts", "/proc/self/mounts", "/etc/mtab"];
        let found = tables.into_iter().find(|path| root.exists(path)).unwrap_or("/proc/self/mountinfo");
        root.parse(found, |text| parse_all(text, Self::parse_table))
    }

    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    pub(crate) fn parse_mountinfo(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let device = mount.next()?.to_owned();
        let at = unescape(mount.nth(1)?);
        let of_mount = mount.next()?;
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?.to_owned();
        let source = unescape(filesystem.next()?);
        let of_filesystem = filesystem.next().unwrap_or_default();
        Some(Self { at, kind, source, device: Some(device), options: options(&[of_mount, of_filesystem]) })
    }

    /// `/dev/root /mnt2 ext3 rw,noatime 0 0`
    fn parse_table(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let source = unescape(words.next()?);
        let at = unescape(words.next()?);
        let kind = words.next()?.to_owned();
        Some(Self { at, kind, source, device: None, options: options(&[words.next()?]) })
    }

    /// Is an option set?
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|set| set == option)
    }
}

/// The devices and files of `/proc/swaps`, which begins with a heading.
pub fn swaps(root: &Root) -> Fact<Vec<String>> {
    root.text("/proc/swaps").map(|text| {
        let words = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        words.map(unescape).collect()
    })
}

/// The members of the Btrfs filesystems that are mounted: of several the table of mounts names one
/// (`/sys/fs/btrfs/UUID/devices`).
pub fn btrfs(root: &Root) -> Fact<Vec<String>> {
    const BTRFS: &str = "/sys/fs/btrfs";
    root.list(BTRFS).map(|names| {
        let devices = names.iter().map(|name| root.list(&format!("{BTRFS}/{name}/devices")));
        devices.flat_map(|devices| devices.value().cloned().unwrap_or_default()).collect()
    })
}

fn parse_all(text: &str, parser: impl Fn(&str) -> Option<Mount>) -> Result<Vec<Mount>, String> {
    text.lines().map(|line| parser(line).ok_or_else(|| format!("{line:?} is no mount"))).collect()
}

fn options(lists: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for option in lists.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
        if !all.iter().any(|known| known == option) {
            all.push(option.to_owned());
        }
    }
    all
}

/// Spaces, tabs, newlines and backslashes stand as `\040` and the like (fs/proc_namespace.c, `mangle`).
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let line = "36 35 259:1 / /mnt/my\\040data rw,noatime master:1 - ext4 /dev/nvme0n1p1 rw,data=ordered";
        let mount = Mount::parse_mountinfo(line).unwrap();
        assert_eq!((mount.at.as_str(), mount.device.as_deref()), ("/mnt/my data", Some("259:1")));
        assert!(mount.has("data=ordered") && mount.has("noatime"));
        let mount = Mount::parse_table("/dev/nvme0n1 /data xfs rw 0 0").unwrap();
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("xfs", "/dev/nvme0n1"));
    }

    #[test]
    fn swap_space_and_members_of_btrfs() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/swaps", "Filename\tType\n/dev/nvme0n1p3 partition 1 0 -2\n/swap\\040file file 1 0 -3\n"),
            ("sys/fs/btrfs/features/raid1c34", "0"),
            ("sys/fs/btrfs/aaaa/devices/nvme1n1/size", "1"),
            ("sys/fs/btrfs/aaaa/devices/nvme2n1/size", "1"),
        ] {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        assert_eq!(swaps(&root).value().unwrap(), &["/dev/nvme0n1p3", "/swap file"]);
        assert_eq!(btrfs(&root).value().unwrap(), &["nvme1n1", "nvme2n1"]);
    }

    #[test]
    fn damaged_tables_are_malformed() {
        for line in ["", "36 35 259:1", "36 35 259:1 / /mnt rw -", " - ", "36 35 - ext4 x"] {
            assert!(Mount::parse_mountinfo(line).is_none(), "{line}");
        }
        assert!(Mount::parse_table("a b").is_none());
    }
}
