//! A FAT filesystem that is known in full before it is written: FAT16 for the ESP, FAT32 for the report partition.
//!
//! Every file is one contiguous run, every byte follows from the inputs, and only what is not zero is written. (fatfs,
//! which reads these volumes in the tests, writes directories without a leading `.` entry; fsck.fat calls them broken.)
//! Follows Microsoft, "FAT: General Overview of On-Disk Format" 1.03. FAT12 is not made.

pub mod geometry;
pub mod name;
pub mod time;

use super::content::Content;
use super::region::Region;
use crate::progress::Stage;
use anyhow::{Context as _, Result, bail, ensure};
use geometry::{ENTRY, FAT16_ROOT_ENTRIES, Geometry, Kind, SECTOR};
use name::ShortName;
use std::collections::{BTreeMap, BTreeSet};
use time::DosTime;

/// A file on a volume.
#[derive(Clone, Debug)]
pub struct FatFile {
    /// Path from the volume's root, `/` between names. Folders are made as needed.
    pub path: String,
    /// What it holds.
    pub content: Content,
}

impl FatFile {
    /// A file at `path`.
    pub fn new(path: impl Into<String>, content: impl Into<Content>) -> Self {
        Self { path: path.into(), content: content.into() }
    }
}

/// What a volume is made of.
#[derive(Clone, Debug)]
pub struct Volume<'a> {
    /// FAT16 or FAT32.
    pub kind: Kind,
    /// Size in bytes.
    pub bytes: u64,
    /// Label, at most 11 upper-case characters.
    pub label: &'a str,
    /// Volume serial number.
    pub id: u32,
    /// First sector on the disk ("hidden sectors").
    pub first_lba: u64,
    /// All times, in seconds since 1970 UTC; moved into the years that FAT can say, 1980 to 2107.
    pub epoch: u64,
    /// The files.
    pub files: &'a [FatFile],
}

/// The longest path, as on Windows; it also bounds how deep folders can be.
const PATH_MAX: usize = 259;

/// A directory before it is laid out. Names are keyed by their upper case, as FAT compares them.
#[derive(Default)]
struct Folder<'a> {
    entries: BTreeMap<String, (&'a str, Node<'a>)>,
}

impl<'a> Folder<'a> {
    /// The root directory of a volume with `files`.
    fn of(files: &'a [FatFile]) -> Result<Self> {
        let mut root = Self::default();
        for file in files {
            root.insert(file)
                .with_context(|| format!("placing {} on a FAT volume", file.path.escape_default()))?;
        }
        Ok(root)
    }

    fn insert(&mut self, file: &'a FatFile) -> Result<()> {
        ensure!(file.path.len() <= PATH_MAX, "a path of {} characters", file.path.len());
        let mut folder = self;
        let mut names = file.path.split('/').peekable();
        while let Some(name) = names.next() {
            name::check(name)?;
            let key = name.to_ascii_uppercase();
            if names.peek().is_none() {
                let length = file.content.len();
                ensure!(
                    u32::try_from(length).is_ok(),
                    "FAT holds files of less than 4 GiB; this has {length} bytes"
                );
                let before = folder.entries.insert(key, (name, Node::File(&file.content, length)));
                ensure!(before.is_none(), "FAT ignores case, and something else has that name already");
                return Ok(());
            }
            let (there, node) =
                folder.entries.entry(key).or_insert_with(|| (name, Node::Folder(Self::default())));
            ensure!(*there == name, "FAT ignores case, and there is already a folder {there}");
            match node {
                Node::Folder(below) => folder = below,
                Node::File(..) => bail!("{name} is already a file"),
            }
        }
        Ok(())
    }

    /// Bytes of its directory entries; `root` has a label and no `.` and `..`.
    fn bytes(&self, root: bool) -> u64 {
        let fixed = if root { 1 } else { 2 };
        (fixed + self.entries.values().map(|(name, _)| name::slots(name)).sum::<u64>()) * ENTRY
    }
}

enum Node<'a> {
    Folder(Folder<'a>),
    File(&'a Content, u64),
}

/// A run of clusters and what is written there.
#[derive(Debug)]
enum Run<'a> {
    Folder(Vec<u8>),
    File(&'a Content, u64),
}

/// A volume that was laid out and is known to fit.
#[derive(Debug)]
pub struct Plan<'a> {
    volume: &'a Volume<'a>,
    geometry: Geometry,
    /// FAT16's root directory.
    root: Vec<u8>,
    /// First cluster, number of clusters, content.
    runs: Vec<(u32, u32, Run<'a>)>,
    next: u32,
}

impl<'a> Plan<'a> {
    /// Lays `volume` out. Fails on names that FAT cannot hold, on two files of one name, and when it does not fit.
    pub fn new(volume: &'a Volume<'a>) -> Result<Self> {
        let geometry = Geometry::new(volume.kind, volume.bytes)?;
        let label = volume.label.as_bytes();
        ensure!(
            !label.is_empty()
                && label.len() <= 11
                && name::check(volume.label).is_ok()
                && !label.iter().any(|b| b.is_ascii_lowercase() || *b == b'.'),
            "{:?} cannot be a FAT label",
            volume.label
        );
        let tree = Folder::of(volume.files)?;
        let mut plan = Self { volume, geometry, root: Vec::new(), runs: Vec::new(), next: 2 };
        let root = plan.folder(&tree, None)?;
        if volume.kind == Kind::Fat16 {
            ensure!(
                root.len() as u64 <= FAT16_ROOT_ENTRIES * ENTRY,
                "too many files in the root of a FAT16 volume"
            );
            plan.root = root;
        }
        Ok(plan)
    }

    /// Reserves clusters for `bytes` bytes.
    fn allocate(&mut self, bytes: u64) -> Result<(u32, u32)> {
        let count = bytes.div_ceil(self.geometry.cluster_bytes());
        let end = u64::from(self.next) + count;
        ensure!(
            end <= u64::from(self.geometry.clusters) + 2,
            "the files need more than the {} MiB of the volume {}",
            self.volume.bytes >> 20,
            self.volume.label
        );
        let first = self.next;
        self.next = u32::try_from(end)?;
        Ok((first, u32::try_from(count)?))
    }

    /// Lays out `folder` and everything below; gives its bytes. `parent` is none for the root, else the folder's own
    /// first cluster and its parent's (0 where that is the root).
    fn folder(&mut self, folder: &Folder<'a>, parent: Option<(u32, u32)>) -> Result<Vec<u8>> {
        let geometry = self.geometry;
        let time = DosTime::at(self.volume.epoch);
        // FAT32's root is a run of clusters like any other folder, and it is the first.
        let own = match parent {
            Some((own, _)) => own,
            None if geometry.kind == Kind::Fat32 => self.allocate(folder.bytes(true))?.0,
            None => 0,
        };
        let mut bytes = Vec::new();
        match parent {
            Some((own, above)) => {
                bytes.extend(entry(b".          ", DIRECTORY, own, 0, time));
                bytes.extend(entry(b"..         ", DIRECTORY, above, 0, time));
            }
            None => {
                let mut label = [b' '; 11];
                label[..self.volume.label.len()].copy_from_slice(self.volume.label.as_bytes());
                bytes.extend(entry(&label, VOLUME_LABEL, 0, 0, time));
            }
        }
        let mut shorts: BTreeSet<ShortName> =
            folder.entries.values().filter_map(|(name, _)| name::exact_short(name)).collect();
        for (name, node) in folder.entries.values() {
            let short = match name::exact_short(name) {
                Some(short) => short,
                None => {
                    let short = name::alias(name, &shorts)?;
                    shorts.insert(short);
                    bytes.extend(name::long_entries(name, &short).concat());
                    short
                }
            };
            bytes.extend(match node {
                Node::Folder(below) => {
                    let (first, count) = self.allocate(below.bytes(false))?;
                    let content =
                        self.folder(below, Some((first, if parent.is_none() { 0 } else { own })))?;
                    self.runs.push((first, count, Run::Folder(content)));
                    entry(&short, DIRECTORY, first, 0, time)
                }
                Node::File(content, length) => {
                    let size = u32::try_from(*length)?;
                    let (first, count) = self.allocate(*length)?;
                    if count > 0 {
                        self.runs.push((first, count, Run::File(content, *length)));
                    }
                    entry(&short, ARCHIVE, if count > 0 { first } else { 0 }, size, time)
                }
            });
        }
        if parent.is_none() && geometry.kind == Kind::Fat32 {
            let count = folder.bytes(true).div_ceil(geometry.cluster_bytes());
            self.runs.push((own, u32::try_from(count)?, Run::Folder(std::mem::take(&mut bytes))));
        }
        Ok(bytes)
    }

    /// Writes the volume to `region`, which is all zeros and as long as the volume.
    pub fn write(&self, region: Region<'_>, stage: &Stage) -> Result<()> {
        let geometry = &self.geometry;
        let boot = self.boot_sector();
        region.write(0, &boot)?;
        if geometry.kind == Kind::Fat32 {
            let info = self.info_sector();
            region.write(SECTOR, &info)?;
            region.write(6 * SECTOR, &boot)?;
            region.write(7 * SECTOR, &info)?;
        }
        let fat = self.table();
        for copy in 0..2 {
            region.write((u64::from(geometry.reserved) + copy * u64::from(geometry.fat)) * SECTOR, &fat)?;
        }
        region.write(geometry.root_start(), &self.root)?;
        for (first, _, run) in &self.runs {
            let start = geometry.cluster_start(*first);
            match run {
                Run::Folder(bytes) => region.write(start, bytes)?,
                Run::File(content, length) => region.copy(start, content, *length, stage)?,
            }
        }
        Ok(())
    }

    /// Where the file at `path` begins, in bytes from the volume's beginning; none for an empty file, or where there is none.
    pub fn start_of(&self, path: &str) -> Option<u64> {
        let file = self.volume.files.iter().find(|file| file.path == path)?;
        let begins = |(first, _, run): &(u32, u32, Run<'_>)| {
            let is_it = matches!(run, Run::File(content, _) if std::ptr::eq(*content, &file.content));
            is_it.then(|| self.geometry.cluster_start(*first))
        };
        self.runs.iter().find_map(begins)
    }

    /// Bytes from the volume's beginning on to the last cluster that holds something.
    pub fn used(&self) -> u64 {
        self.geometry.cluster_start(self.next)
    }

    /// Bytes in clusters that hold nothing.
    pub fn free(&self) -> u64 {
        u64::from(self.geometry.clusters + 2 - self.next) * self.geometry.cluster_bytes()
    }

    fn boot_sector(&self) -> [u8; SECTOR as usize] {
        let g = &self.geometry;
        let mut sector = [0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        let (fat16, extended) = match g.kind {
            Kind::Fat16 => (true, 36),
            Kind::Fat32 => (false, 64),
        };
        // A jump over the parameters to code that halts: this sector is never booted.
        put(0, &[0xeb, extended as u8 + 24, 0x90]);
        put(3, b"MSWIN4.1");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[g.cluster]);
        put(14, &g.reserved.to_le_bytes());
        put(16, &[2]);
        put(17, &(if fat16 { FAT16_ROOT_ENTRIES as u16 } else { 0 }).to_le_bytes());
        let small = u16::try_from(g.sectors).ok().filter(|_| fat16);
        put(19, &small.unwrap_or(0).to_le_bytes());
        put(21, &[0xf8]);
        put(22, &(if fat16 { g.fat as u16 } else { 0 }).to_le_bytes());
        put(24, &63u16.to_le_bytes());
        put(26, &255u16.to_le_bytes());
        put(28, &u32::try_from(self.volume.first_lba).unwrap_or(0).to_le_bytes());
        put(32, &(if small.is_some() { 0 } else { g.sectors }).to_le_bytes());
        if !fat16 {
            put(36, &g.fat.to_le_bytes());
            put(44, &2u32.to_le_bytes());
            put(48, &1u16.to_le_bytes());
            put(50, &6u16.to_le_bytes());
        }
        put(extended, &[0x80, 0, 0x29]);
        put(extended + 3, &self.volume.id.to_le_bytes());
        put(extended + 7, format!("{:<11}", self.volume.label).as_bytes());
        put(extended + 18, if fat16 { b"FAT16   " } else { b"FAT32   " });
        put(extended + 26, &[0xf4, 0xeb, 0xfd]);
        put(510, &[0x55, 0xaa]);
        sector
    }

    /// FSInfo: how many clusters are free, and the first of them.
    fn info_sector(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        sector[0..4].copy_from_slice(b"RRaA");
        sector[484..488].copy_from_slice(b"rrAa");
        let free = self.geometry.clusters + 2 - self.next;
        sector[488..492].copy_from_slice(&free.to_le_bytes());
        let next = if free > 0 { self.next } else { u32::MAX };
        sector[492..496].copy_from_slice(&next.to_le_bytes());
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    /// The used part of the FAT.
    fn table(&self) -> Vec<u8> {
        let mut links = vec![0u32; self.next as usize];
        links[0] = 0x0fff_fff8;
        links[1] = 0x0fff_ffff;
        for (first, count, _) in &self.runs {
            for cluster in *first..first + count {
                let last = cluster + 1 == first + count;
                links[cluster as usize] = if last { 0x0fff_ffff } else { cluster + 1 };
            }
        }
        match self.geometry.kind {
            Kind::Fat16 => links.iter().flat_map(|link| (*link as u16).to_le_bytes()).collect(),
            Kind::Fat32 => links.iter().flat_map(|link| link.to_le_bytes()).collect(),
        }
    }
}

/// Bytes of the smallest volume, in whole MiB and at least `least`, that holds `files` and `spare` bytes more.
pub fn smallest(kind: Kind, files: &[FatFile], least: u64, spare: u64) -> Result<u64> {
    Folder::of(files)?;
    let mut sum = spare;
    for file in files {
        sum += file.content.len();
    }
    let first = sum.max(least).max(1).next_multiple_of(1 << 20);
    // FATs, folders and cut-off clusters never take more than this beside files that are larger than a cluster.
    let last = first + first / 8 + (64 << 20);
    for bytes in (first..last).step_by(1 << 20) {
        let volume = Volume { kind, bytes, label: "MEASURE", id: 0, first_lba: 0, epoch: 0, files };
        if let Ok(plan) = Plan::new(&volume)
            && plan.free() >= spare
        {
            return Ok(bytes);
        }
    }
    bail!("no {kind:?} volume of up to {} MiB holds these files", last >> 20)
}

const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;

fn entry(short: &ShortName, attributes: u8, cluster: u32, size: u32, at: DosTime) -> [u8; ENTRY as usize] {
    let mut entry = [0; ENTRY as usize];
    entry[..11].copy_from_slice(short);
    entry[11] = attributes;
    // Created, accessed and modified at the same instant; the tenths of the creation time hold the odd second.
    entry[13] = at.odd_second * 100;
    for place in [14, 22] {
        entry[place..place + 2].copy_from_slice(&at.time.to_le_bytes());
    }
    for place in [16, 18, 24] {
        entry[place..place + 2].copy_from_slice(&at.date.to_le_bytes());
    }
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry[28..32].copy_from_slice(&size.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Progress, Unit};
    use std::fs::File;
    use std::io::{Read as _, Seek as _};
    use std::os::unix::fs::FileExt as _;

    fn written(volume: &Volume<'_>) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(volume.bytes).unwrap();
        let stage = Progress::none().stage("test", 0, Unit::Bytes);
        Plan::new(volume).unwrap().write(Region::new(&file, 0, volume.bytes), &stage).unwrap();
        file
    }

    fn volume(kind: Kind, mib: u64, files: &[FatFile]) -> Volume<'_> {
        Volume {
            kind,
            bytes: mib << 20,
            label: "GDSREPORT",
            id: 0x1234_abcd,
            first_lba: 4096,
            epoch: 1_762_000_001,
            files,
        }
    }

    /// Every file below `dir`, with what it holds.
    fn walk(dir: &fatfs::Dir<'_, &File>, at: &str, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in dir.iter().map(Result::unwrap) {
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{at}{name}");
            if entry.is_dir() {
                walk(&entry.to_dir(), &format!("{path}/"), found);
            } else {
                let mut bytes = Vec::new();
                entry.to_file().read_to_end(&mut bytes).unwrap();
                found.push((path, bytes));
            }
        }
    }

    #[test]
    fn an_independent_reader_finds_the_files() {
        let mut files = vec![
            FatFile::new("README.txt", b"read me".to_vec()),
            FatFile::new("EFI/BOOT/BOOTX64.EFI", vec![7; 100_000]),
            FatFile::new("EFI/BOOT/grubx64.efi", vec![8; 4096]),
            FatFile::new("EFI/debian/grub.cfg", b"menu".to_vec()),
            FatFile::new("empty", Vec::new()),
            FatFile::new("a name with spaces, long.text", vec![9; 513]),
        ];
        // More entries than one cluster of a folder holds.
        files
            .extend((0..200).map(|n| FatFile::new(format!("many/file number {n}.json"), vec![n as u8; 600])));
        for (kind, mib) in [(Kind::Fat16, 20), (Kind::Fat16, 300), (Kind::Fat32, 40), (Kind::Fat32, 300)] {
            let volume = volume(kind, mib, &files);
            let mut file = written(&volume);
            file.rewind().unwrap();
            let fs = fatfs::FileSystem::new(&file, fatfs::FsOptions::new()).unwrap();
            assert_eq!(
                fs.fat_type(),
                if kind == Kind::Fat16 { fatfs::FatType::Fat16 } else { fatfs::FatType::Fat32 }
            );
            assert_eq!(fs.volume_id(), 0x1234_abcd);
            assert_eq!(fs.volume_label(), "GDSREPORT");
            assert_eq!(fs.read_volume_label_from_root_dir().unwrap().as_deref(), Some("GDSREPORT"));
            let mut found = Vec::new();
            walk(&fs.root_dir(), "", &mut found);
            found.sort();
            let mut expected: Vec<_> =
                files.iter().map(|f| (f.path.clone(), f.content.read().unwrap())).collect();
            expected.sort();
            assert!(found == expected, "{kind:?} {mib} MiB");
            // Counted from the FAT by the reader, against the FSInfo that we wrote.
            let free = u64::from(fs.stats().unwrap().free_clusters()) * u64::from(fs.cluster_size());
            assert_eq!(free, Plan::new(&volume).unwrap().free());
            let modified = fs.root_dir().iter().next().unwrap().unwrap().modified();
            assert_eq!((modified.date.year, modified.date.month, modified.date.day), (2025, 11, 1));
            assert_eq!((modified.time.hour, modified.time.min, modified.time.sec), (12, 26, 40));
        }
    }

    #[test]
    fn folders_begin_with_themselves_and_their_parent() {
        let files = [FatFile::new("EFI/BOOT/X", vec![1])];
        for kind in [Kind::Fat16, Kind::Fat32] {
            let volume = volume(kind, 40, &files);
            let file = written(&volume);
            let geometry = Geometry::new(kind, volume.bytes).unwrap();
            let first = if kind == Kind::Fat32 { 3 } else { 2 };
            for (cluster, parent) in [(first, 0), (first + 1, first)] {
                let mut entries = [0; 64];
                file.read_exact_at(&mut entries, geometry.cluster_start(cluster)).unwrap();
                assert_eq!(&entries[..12], b".          \x10");
                assert_eq!(&entries[32..44], b"..         \x10");
                assert_eq!(entries[26..28], (cluster as u16).to_le_bytes());
                assert_eq!(entries[58..60], (parent as u16).to_le_bytes());
            }
        }
    }

    #[test]
    fn both_tables_and_both_boot_sectors_agree() {
        let files = [FatFile::new("a", vec![1; 70_000])];
        let volume = volume(Kind::Fat32, 48, &files);
        let file = written(&volume);
        let g = Geometry::new(Kind::Fat32, volume.bytes).unwrap();
        assert!(g.clusters >= 65_525, "{g:?}");
        let mut bytes = vec![0; 2 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes[..1024], bytes[6 * 512..8 * 512]);
        assert_eq!(bytes[28..32], 4096u32.to_le_bytes());
        let fat = usize::from(g.reserved) * 512;
        let length = g.fat as usize * 512;
        assert!(bytes[fat..fat + length] == bytes[fat + length..fat + 2 * length]);
        // Room for every cluster in the FAT, and the data on 4 KiB.
        assert!(length / 4 >= g.clusters as usize + 2);
        assert_eq!(g.root_start() % 4096, 0);
    }

    #[test]
    fn hostile_names_are_refused_with_the_path() {
        for (path, why) in [
            ("../x", "leads elsewhere"),
            ("EFI/../../x", "leads elsewhere"),
            ("/etc/passwd", "an empty name"),
            ("EFI//x", "an empty name"),
            ("a:b", "character ':'"),
            ("aux.txt", "device"),
            ("x\n", "character '\\n'"),
        ] {
            let files = [FatFile::new(path, vec![1])];
            let error = crate::error::one_line(&Plan::new(&volume(Kind::Fat16, 20, &files)).unwrap_err());
            assert!(
                error.contains(why) && error.contains(&path.escape_default().to_string()),
                "{path}: {error}"
            );
        }
        let deep = [FatFile::new("a/".repeat(200) + "b", vec![1])];
        assert!(Plan::new(&volume(Kind::Fat16, 20, &deep)).is_err());
    }

    #[test]
    fn names_that_differ_in_case_alone_are_refused() {
        for (a, b) in [
            ("grub.cfg", "GRUB.CFG"),
            ("EFI/debian/x", "efi/debian/y"),
            ("EFI", "EFI/x"),
            ("EFI/x", "EFI"),
            ("a", "a"),
        ] {
            let files = [FatFile::new(a, vec![1]), FatFile::new(b, vec![1])];
            assert!(Plan::new(&volume(Kind::Fat16, 20, &files)).is_err(), "{a} and {b}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let files = [FatFile::new("a", vec![1; 21 << 20])];
        let error = Plan::new(&volume(Kind::Fat16, 20, &files)).unwrap_err().to_string();
        assert!(error.contains("more than the 20 MiB of the volume GDSREPORT"), "{error}");
        let many: Vec<_> = (0..300).map(|n| FatFile::new(format!("lower{n}.txt"), vec![])).collect();
        let error = Plan::new(&volume(Kind::Fat16, 20, &many)).unwrap_err().to_string();
        assert!(error.contains("too many files in the root"), "{error}");
        assert!(Plan::new(&volume(Kind::Fat32, 20, &[])).is_err(), "FAT32 cannot be that small");
    }

    #[test]
    fn the_smallest_volume_holds_the_files_and_no_more_than_asked() {
        let files = [FatFile::new("a", vec![1; 25 << 20]), FatFile::new("b", vec![1; 3 << 20])];
        let bytes = smallest(Kind::Fat16, &files, 0, 1 << 20).unwrap();
        let free = Plan::new(&volume(Kind::Fat16, bytes >> 20, &files)).unwrap().free();
        assert!((1 << 20..3 << 20).contains(&free), "{bytes} {free}");
        assert!(smallest(Kind::Fat32, &files, 0, 0).unwrap() > 32 << 20);
        let refused = smallest(Kind::Fat16, &[FatFile::new("../a", vec![])], 0, 0).unwrap_err();
        assert!(crate::error::one_line(&refused).contains("leads elsewhere"));
    }
}
