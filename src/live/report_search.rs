//! Where the report goes, among all partitions that are called `GDSREPORT`. Nothing is ever formatted, and nothing is written to
//! a disk that does not bear the name.
//!
//! 1. A separate report disk: the partition is alone on its disk, and the machine was not booted from that.
//! 2. The booted image's own, by the PARTUUID on the command line; of two copies the one on the booted disk.
//! 3. Another image's.
//! 4. Only where none of those can be written to: a FAT filesystem labelled so, on a disk without GPT, as Windows formats a
//!    stick.
//!
//! Of several the first by the kernel's name is taken.

use super::partition::{self, Partition};
use crate::boot_contract::REPORT_LABEL;
use crate::error::one_line;
use crate::facts::Root;
use crate::report::fat::{Fat, Window};
use anyhow::Result;
use std::fmt;
use std::time::{Duration, Instant};

/// How long the last look waits where there is no place at all.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(250);

/// What a place is; the first is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A disk for reports alone.
    Separate,
    /// The image's own, on the booted disk.
    Own,
    /// A copy of the image's own, on another disk.
    Copy,
    /// Another image's.
    Foreign,
    /// A filesystem with the label.
    Labelled,
}

impl Rank {
    /// For a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Separate => "a separate report disk",
            Self::Own => "the image's own partition",
            Self::Copy => "the same image on another disk",
            Self::Foreign => "the partition of another image",
            Self::Labelled => "a filesystem with that label",
        }
    }
}

/// Where reports can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition, or the whole disk where that has none.
    pub partition: Partition,
    /// What it is.
    pub rank: Rank,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.partition.name, self.rank.words())
    }
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The machine.
    pub root: &'a Root,
    /// PARTUUID of the image's own, where it has one.
    pub own: Option<&'a str>,
    /// Where the image's root is, where it was found.
    pub booted: Option<&'a Partition>,
}

/// What came of looking.
#[derive(Debug)]
pub struct Found<T> {
    /// The best place that could be written to, opened.
    pub opened: Option<(T, Place)>,
    /// That there is another one as good.
    pub same: Option<String>,
    /// Why what is better cannot be used; or, where there is none, what there is.
    pub refused: Vec<String>,
}

impl Search<'_> {
    /// The best place that is there now, by its name.
    pub fn best(&self) -> Option<Place> {
        self.named().into_iter().next()
    }

    /// Opens the best place that is there now. `open` mounts it and begins the run's folder, so that what takes no file is
    /// passed over like what cannot be mounted.
    pub fn open<T>(&self, open: &mut dyn FnMut(&Place) -> Result<T>) -> Found<T> {
        open_one_of(&self.named(), &mut Vec::new(), open)
    }

    /// Opens the best place, labelled filesystems too, and waits for one: sticks appear late.
    pub fn open_at_last<T>(&self, open: &mut dyn FnMut(&Place) -> Result<T>) -> Found<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut tried = Vec::new();
        let mut refused = Vec::new();
        loop {
            let places: Vec<Place> = self.named().into_iter().chain(labelled(self.root)).collect();
            let found = open_one_of(&places, &mut tried, open);
            refused.extend(found.refused);
            if found.opened.is_some() || Instant::now() >= deadline {
                if found.opened.is_none() && refused.is_empty() {
                    refused.push(format!(
                        "no disk has a partition {REPORT_LABEL}, and none without GPT a FAT filesystem with that label"
                    ));
                }
                return Found { refused, ..found };
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// All partitions with the name, the best first.
    fn named(&self) -> Vec<Place> {
        let own: Vec<Partition> = self.own.map(|uuid| partition::find(self.root, uuid)).unwrap_or_default();
        let on_booted = |found: &Partition| self.booted.is_some_and(|booted| booted.disk == found.disk);
        let all = partition::all(self.root);
        let mut places = Vec::new();
        for found in &all {
            let neighbours = all.iter().filter(|other| other.disk == found.disk).count();
            let rank = if own.contains(found) {
                if on_booted(found) { Rank::Own } else { Rank::Copy }
            } else if partition::name(self.root, found).as_deref() != Some(REPORT_LABEL) {
                continue;
            } else if neighbours == 1 && !on_booted(found) {
                Rank::Separate
            } else {
                Rank::Foreign
            };
            places.push(Place { partition: found.clone(), rank });
        }
        // Stable: what is equally good stays in the order of the names.
        places.sort_by_key(|place| place.rank);
        places
    }
}

/// Opens the first that can be. `tried` are the names of those that are known to fail.
fn open_one_of<T>(
    places: &[Place],
    tried: &mut Vec<String>,
    open: &mut dyn FnMut(&Place) -> Result<T>,
) -> Found<T> {
    let mut found = Found { opened: None, same: None, refused: Vec::new() };
    for place in places {
        if tried.contains(&place.partition.name) {
            continue;
        }
        match open(place) {
            Ok(opened) => {
                // What was refused is not as good.
                let same = |other: &&Place| {
                    other.rank == place.rank && *other != place && !tried.contains(&other.partition.name)
                };
                found.same = places.iter().find(same).map(|other| {
                    format!("{place} and {other} are equally good for the report; taking the first")
                });
                found.opened = Some((opened, place.clone()));
                return found;
            }
            Err(error) => {
                found.refused.push(format!("{place}: {}", one_line(&error)));
                tried.push(place.partition.name.clone());
            }
        }
    }
    found
}

/// All FAT filesystems with the label on disks without GPT.
fn labelled(root: &Root) -> Vec<Place> {
    let partitions = partition::all(root);
    let has_partitions = |disk: &Partition| partitions.iter().any(|partition| partition.disk == disk.name);
    let has_gpt = |disk: &str| {
        let is_named = |found: &&Partition| found.disk == disk && partition::name(root, found).is_some();
        partitions.iter().any(|found| is_named(&found)) || partition::has_gpt(root, disk)
    };
    let whole = partition::disks(root).into_iter().filter(|disk| !has_partitions(disk));
    let mut found: Vec<Partition> = partitions.iter().cloned().chain(whole).collect();
    found.retain(|found| !has_gpt(&found.disk));
    found.retain(|found| label(root, found).as_deref() == Some(REPORT_LABEL));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.into_iter().map(|partition| Place { partition, rank: Rank::Labelled }).collect()
}

fn label(root: &Root, partition: &Partition) -> Option<String> {
    let file = root.open(&format!("/dev/{}", partition.name)).ok()?;
    let window = Window { file: &file, start: 0, len: partition.bytes };
    Fat::open(window, partition.bytes).ok()?.label().ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const OWN: &str = "44332211-6655-8877-99aa-bbccddeeff01";

    /// A block device of a machine: a disk, or a partition of one by its uevent.
    fn block(machine: &Path, disk: &str, partition: Option<(u32, &str)>) {
        let name = partition.map_or(disk.to_owned(), |(number, _)| format!("{disk}{number}"));
        let below = partition.map_or(disk.to_owned(), |_| format!("{disk}/{name}"));
        let folder = machine.join("sys/devices/block").join(&below);
        fs_err::create_dir_all(&folder).unwrap();
        fs_err::create_dir_all(machine.join("sys/class/block")).unwrap();
        fs_err::write(folder.join("size"), "8192\n").unwrap();
        if let Some((number, uevent)) = partition {
            fs_err::write(folder.join("partition"), format!("{number}\n")).unwrap();
            fs_err::write(folder.join("uevent"), uevent).unwrap();
        }
        symlink(format!("../../devices/block/{below}"), machine.join("sys/class/block").join(name)).unwrap();
    }

    /// A machine with these disks and their partitions: GPT name, PARTUUID.
    fn machine(disks: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (disk, partitions) in disks {
            block(dir.path(), disk, None);
            for (number, (name, uuid)) in (1..).zip(*partitions) {
                let uevent = format!("DEVTYPE=partition\nPARTN={number}\nPARTUUID={uuid}\nPARTNAME={name}\n");
                block(dir.path(), disk, Some((number, &uevent)));
            }
        }
        dir
    }

    fn ranked(machine: &tempfile::TempDir, booted: &str) -> Vec<(String, Rank)> {
        let root = Root::at(machine.path());
        let booted = Partition { name: format!("{booted}2"), disk: booted.into(), bytes: 1 };
        let search = Search { root: &root, own: Some(OWN), booted: Some(&booted) };
        search.named().into_iter().map(|place| (place.partition.name, place.rank)).collect()
    }

    #[test]
    fn a_separate_disk_wins_over_the_images_own_and_that_over_others() {
        let image: &[(&str, &str)] = &[("GDSREPORT", OWN), ("GDSBOOT-ROOT", "a")];
        let other: &[(&str, &str)] = &[("GDSREPORT", "b"), ("GDSBOOT-ROOT", "c")];
        let separate: &[(&str, &str)] = &[("GDSREPORT", "d")];
        let data: &[(&str, &str)] = &[("data", "e")];
        let machine =
            machine(&[("sda", other), ("sdb", image), ("sdc", image), ("sdd", data), ("sde", separate)]);
        let expected =
            [("sde1", Rank::Separate), ("sdc1", Rank::Own), ("sdb1", Rank::Copy), ("sda1", Rank::Foreign)];
        assert_eq!(ranked(&machine, "sdc"), expected.map(|(name, rank)| (name.to_owned(), rank)));
    }

    #[test]
    fn of_two_separate_disks_the_first_is_taken_and_a_lone_partition_of_the_booted_disk_is_none() {
        let separate: &[(&str, &str)] = &[("GDSREPORT", "d")];
        let machine = machine(&[("vdc", separate), ("vdb", separate), ("vda", separate)]);
        let expected = [("vdb1", Rank::Separate), ("vdc1", Rank::Separate), ("vda1", Rank::Foreign)];
        assert_eq!(ranked(&machine, "vda"), expected.map(|(name, rank)| (name.to_owned(), rank)));
    }

    #[test]
    fn a_name_that_is_almost_right_is_none() {
        let near: &[(&str, &str)] = &[("GDSREPORT2", "a"), ("gdsreport", "b"), ("", "c")];
        assert_eq!(ranked(&machine(&[("sda", near)]), "sdb"), []);
        assert_eq!(ranked(&machine(&[]), "sdb"), []);
    }

    #[test]
    fn a_stick_that_windows_formatted_is_found_by_its_label() {
        let dir = tempfile::tempdir().unwrap();
        let volume = |device: &str, label: &[u8; 11], bytes: usize| {
            let options = fatfs::FormatVolumeOptions::new().volume_label(*label);
            let mut disk = vec![0; bytes];
            fatfs::format_volume(std::io::Cursor::new(&mut disk), options).unwrap();
            fs_err::create_dir_all(dir.path().join("dev")).unwrap();
            fs_err::write(dir.path().join("dev").join(device), disk).unwrap();
        };
        // Without a partition table, with an MBR, and five that are none: another label, a GPT name of its own, no FAT, a
        // neighbour with a GPT name, a GPT without any names.
        for disk in ["sda", "sdb", "sdc", "sdd", "sde", "sdf", "sdg"] {
            block(dir.path(), disk, None);
        }
        volume("sda", b"GDSREPORT  ", 4 << 20);
        block(dir.path(), "sdb", Some((1, "PARTN=1\n")));
        volume("sdb1", b"GDSREPORT  ", 4 << 20);
        volume("sdc", b"GDSREPORTS ", 4 << 20);
        block(dir.path(), "sdd", Some((1, "PARTN=1\nPARTNAME=data\n")));
        volume("sdd1", b"GDSREPORT  ", 4 << 20);
        fs_err::write(dir.path().join("dev/sde"), vec![0xff; 4 << 20]).unwrap();
        block(dir.path(), "sdf", Some((1, "PARTN=1\n")));
        block(dir.path(), "sdf", Some((2, "PARTN=2\nPARTNAME=data\n")));
        volume("sdf1", b"GDSREPORT  ", 4 << 20);
        block(dir.path(), "sdg", Some((1, "PARTN=1\n")));
        volume("sdg1", b"GDSREPORT  ", 4 << 20);
        for (disk, kind) in [("sdb", 0x0c), ("sdg", 0xee)] {
            let mut mbr = vec![0; 512];
            mbr[446 + 4] = kind;
            mbr[510..].copy_from_slice(b"\x55\xaa");
            fs_err::write(dir.path().join("dev").join(disk), mbr).unwrap();
        }
        let found = labelled(&Root::at(dir.path()));
        let names: Vec<&str> = found.iter().map(|place| place.partition.name.as_str()).collect();
        assert_eq!(names, ["sda", "sdb1"]);
    }

    #[test]
    fn what_cannot_be_written_to_is_passed_over_and_named() {
        let image: &[(&str, &str)] = &[("GDSREPORT", OWN), ("GDSBOOT-ROOT", "a")];
        let separate: &[(&str, &str)] = &[("GDSREPORT", "d")];
        let machine = machine(&[("sda", image), ("sdb", separate), ("sdc", separate)]);
        let root = Root::at(machine.path());
        let booted = Partition { name: "sda2".into(), disk: "sda".into(), bytes: 1 };
        let search = Search { root: &root, own: Some(OWN), booted: Some(&booted) };
        // Which fail, which is taken, how many are named, whether another is as good.
        for (bad, taken, refused, same) in [
            (&[][..], Some("sdb1"), 0, true),
            (&["sdb1"], Some("sdc1"), 1, false),
            (&["sdb1", "sdc1"], Some("sda1"), 2, false),
            (&["sdb1", "sdc1", "sda1"], None, 3, false),
        ] {
            let mut asked = Vec::new();
            let found = search.open(&mut |place| {
                asked.push(place.partition.name.clone());
                anyhow::ensure!(!bad.contains(&place.partition.name.as_str()), "it is full");
                Ok(place.partition.name.clone())
            });
            let opened = found.opened.map(|(opened, place)| (opened, place.partition.name));
            assert_eq!(opened, taken.map(|name| (name.to_owned(), name.to_owned())));
            assert_eq!((found.refused.len(), found.same.is_some()), (refused, same), "{bad:?}");
            assert!(found.refused.iter().all(|why| why.ends_with("): it is full")), "{:?}", found.refused);
            assert_eq!(asked.len(), refused + usize::from(taken.is_some()), "each is asked once");
        }
        // What is known to fail is not asked again.
        let mut tried = vec!["sdb1".to_owned()];
        let found = open_one_of(&search.named(), &mut tried, &mut |place| Ok(place.partition.name.clone()));
        assert_eq!(found.opened.unwrap().0, "sdc1");
        assert_eq!(found.refused, [""; 0]);
    }
}
