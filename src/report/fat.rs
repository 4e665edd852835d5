//! Reads files from a FAT filesystem in a disk image. It follows Microsoft's "FAT: General Overview of On-Disk Format"
//! 1.03 (FAT12, FAT16, FAT32, long names) and the short names' case bits that Linux and Windows NT write.
//!
//! This filesystem may have lost its power in the middle of a write, or come from a stranger: nothing in it is
//! believed, nothing loops, nothing grows past a limit, and damage is an error that names the file. That is why it is
//! not read through the `fatfs` crate, which computes with unchecked numbers, follows rings of clusters for ever, and
//! wants a writable disk.

use anyhow::{Context as _, Result, bail, ensure};
use std::io;
use std::os::unix::fs::FileExt;

/// Something that can be read at any place.
pub trait ReadAt {
    /// Fills `buf` from the byte `offset`; an end before that is an error.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
}

impl<D: ReadAt> ReadAt for &D {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }
}

/// A part of a file or disk: nothing outside of it can be read.
#[derive(Debug)]
pub struct Window<'a, D = std::fs::File> {
    /// The file or disk.
    pub file: &'a D,
    /// First byte of the part.
    pub start: u64,
    /// Length of the part in bytes.
    pub len: u64,
}

impl<D: ReadAt> ReadAt for Window<'_, D> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let start = self.start.checked_add(offset);
        match (start, end) {
            (Some(start), Some(_)) => self.file.read_exact_at(buf, start),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// How many bits an entry of the table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// Where the root directory stands.
#[derive(Clone, Copy, Debug)]
enum Root {
    Fixed { start: u64, len: u64 },
    Chain(u32),
}

/// A FAT filesystem that was recognised.
#[derive(Debug)]
pub struct Fat<D> {
    bits: Bits,
    /// Bytes.
    cluster_size: u64,
    /// Number of clusters; the first is number 2.
    clusters: u32,
    table_start: u64,
    data_start: u64,
    root: Root,
    dirty: bool,
    disk: D,
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Long name where there is one, else the short one.
    pub name: String,
    /// Is it a directory?
    pub is_dir: bool,
    /// Bytes, as the directory claims; 0 for a directory.
    pub size: u32,
    first_cluster: u32,
}

/// A directory has at most 65,536 entries of 32 bytes.
const MAX_DIRECTORY: u64 = 65_536 * 32;

impl<D: ReadAt> Fat<D> {
    /// Recognises the filesystem on `disk`, which has `len` bytes.
    pub fn open(disk: D, len: u64) -> Result<Self> {
        let mut boot = [0; 512];
        disk.read_exact_at(&mut boot, 0).context("reading its boot sector")?;
        let u16_at = |at: usize| u32::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
        ensure!(boot[510..] == [0x55, 0xaa], "it has no FAT filesystem");

        let sector_size = u16_at(11);
        ensure!(matches!(sector_size, 512 | 1024 | 2048 | 4096), "its sectors claim {sector_size} bytes");
        let per_cluster = u32::from(boot[13]);
        ensure!(per_cluster.is_power_of_two(), "its clusters claim {per_cluster} sectors");
        let reserved = u16_at(14);
        let tables = u32::from(boot[16]);
        ensure!(
            reserved > 0 && (1..=2).contains(&tables),
            "it claims {tables} tables after {reserved} sectors"
        );
        let root_entries = u16_at(17);
        let total = if u16_at(19) != 0 { u16_at(19) } else { u32_at(32) };
        let table_sectors = if u16_at(22) != 0 { u16_at(22) } else { u32_at(36) };

        let sector = u64::from(sector_size);
        let claimed = u64::from(total) * sector;
        ensure!(claimed <= len, "it claims {claimed} bytes, its partition has {len}");
        let root_len = (u64::from(root_entries) * 32).next_multiple_of(sector);
        let root_start = (u64::from(reserved) + u64::from(tables) * u64::from(table_sectors)) * sector;
        let data_start = root_start + root_len;
        let cluster_size = u64::from(per_cluster) * sector;
        let clusters = claimed.checked_sub(data_start).map(|data| data / cluster_size);
        let clusters = clusters.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..0x0fff_fff5).contains(n));
        let clusters = clusters.context("its tables leave no room for data")?;
        let bits = match clusters {
            ..4085 => Bits::Twelve,
            4085..65525 => Bits::Sixteen,
            _ => Bits::ThirtyTwo,
        };
        let entries = u64::from(clusters) + 2;
        let needed = match bits {
            Bits::Twelve => (entries * 3).div_ceil(2),
            Bits::Sixteen => entries * 2,
            Bits::ThirtyTwo => entries * 4,
        };
        ensure!(
            u64::from(table_sectors) * sector >= needed,
            "its table is too small for {clusters} clusters"
        );

        let mut table_start = u64::from(reserved) * sector;
        let (root, mount_flags) = if bits == Bits::ThirtyTwo {
            // Bit 7: mirroring is off, and the low bits name the table in use.
            let active = if boot[40] & 0x80 != 0 { u32::from(boot[40] & 0x0f) } else { 0 };
            ensure!(active < tables, "it claims to use table {active} of {tables}");
            table_start += u64::from(active) * u64::from(table_sectors) * sector;
            (Root::Chain(u32_at(44)), boot[65])
        } else {
            (Root::Fixed { start: root_start, len: root_len }, boot[37])
        };
        // Linux keeps "mounted, not cleanly unmounted" in bit 0 of this byte (FAT_STATE_DIRTY in msdos_fs.h).
        let dirty = mount_flags & 1 != 0;
        Ok(Self { bits, cluster_size, clusters, table_start, data_start, root, dirty, disk })
    }

    /// Was it mounted for writing and not unmounted?
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The label: that of the root directory, which is the one that Windows shows and changes.
    pub fn label(&self) -> Result<Option<String>> {
        let bytes = self.root_bytes().context("reading the root directory")?;
        let entries = bytes.chunks_exact(32).take_while(|raw| raw[0] != 0);
        let mut labels = entries.filter(|raw| raw[0] != 0xe5 && raw[11] & 0x3f != ATTR_LONG_NAME);
        let label = labels.find(|raw| raw[11] & (ATTR_VOLUME | ATTR_DIRECTORY) == ATTR_VOLUME);
        Ok(label.map(|raw| String::from_utf8_lossy(&raw[..11]).trim_end_matches(' ').to_owned()))
    }

    /// The file or directory at `path` (parts separated by `/`; ASCII case does not count), if there is one.
    pub fn find(&self, path: &str) -> Result<Option<Entry>> {
        let mut found: Option<Entry> = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let directory = match &found {
                None => self.root_bytes(),
                Some(entry) if entry.is_dir => self.directory_bytes(entry.first_cluster),
                Some(_) => return Ok(None),
            };
            let entries = parse_directory(&directory.with_context(|| format!("looking for {path}"))?);
            match entries.into_iter().find(|e| e.name.eq_ignore_ascii_case(part)) {
                Some(entry) => found = Some(entry),
                None => return Ok(None),
            }
        }
        Ok(found)
    }

    /// What stands in the directory at `path` (`""` is the root); nothing where it does not exist.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>> {
        let bytes = if path.is_empty() {
            self.root_bytes()
        } else {
            match self.find(path)? {
                Some(entry) if entry.is_dir => self.directory_bytes(entry.first_cluster),
                _ => return Ok(Vec::new()),
            }
        };
        Ok(parse_directory(&bytes.with_context(|| format!("listing {path}"))?))
    }

    /// The bytes of the file at `path`, if there is one; more than `limit` bytes are an error.
    pub fn read(&self, path: &str, limit: u32) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.find(path)? else { return Ok(None) };
        ensure!(!entry.is_dir, "{path} is a directory");
        ensure!(entry.size <= limit, "{path} has {} bytes; {limit} are expected at most", entry.size);
        self.read_entry(&entry).with_context(|| format!("reading {path}")).map(Some)
    }

    fn read_entry(&self, entry: &Entry) -> Result<Vec<u8>> {
        let size = u64::from(entry.size);
        ensure!(
            size <= u64::from(self.clusters) * self.cluster_size,
            "it claims {size} bytes, more than the filesystem has"
        );
        let mut bytes = vec![0; usize::try_from(size)?];
        let mut cluster = entry.first_cluster;
        let chunks = bytes.len().div_ceil(usize::try_from(self.cluster_size)?);
        for (n, chunk) in bytes.chunks_mut(usize::try_from(self.cluster_size)?).enumerate() {
            self.disk.read_exact_at(chunk, self.place(cluster)?)?;
            if n + 1 < chunks {
                cluster = self
                    .next(cluster)?
                    .with_context(|| format!("it ends after {} of {chunks} clusters", n + 1))?;
            }
        }
        Ok(bytes)
    }

    fn root_bytes(&self) -> Result<Vec<u8>> {
        match self.root {
            Root::Fixed { start, len } => {
                let mut bytes = vec![0; usize::try_from(len)?];
                self.disk.read_exact_at(&mut bytes, start)?;
                Ok(bytes)
            }
            Root::Chain(first) => self.directory_bytes(first),
        }
    }

    fn directory_bytes(&self, first: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut cluster = Some(first);
        while let Some(number) = cluster {
            if bytes.len() as u64 >= MAX_DIRECTORY {
                bail!("a directory has no end");
            }
            let mut chunk = vec![0; usize::try_from(self.cluster_size)?];
            self.disk.read_exact_at(&mut chunk, self.place(number)?)?;
            bytes.extend_from_slice(&chunk);
            cluster = self.next(number)?;
        }
        Ok(bytes)
    }

    /// Where a cluster's bytes begin.
    fn place(&self, cluster: u32) -> Result<u64> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.clusters);
        let index = index.with_context(|| format!("it refers to cluster {cluster}, which does not exist"))?;
        Ok(self.data_start + u64::from(index) * self.cluster_size)
    }

    /// The cluster after `cluster`, or none at the end of the chain. `cluster` must exist.
    fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let n = u64::from(cluster);
        let read = |offset: u64, buf: &mut [u8]| self.disk.read_exact_at(buf, self.table_start + offset);
        let (value, end) = match self.bits {
            Bits::Twelve => {
                let mut raw = [0; 2];
                read(n + n / 2, &mut raw)?;
                let pair = u32::from(u16::from_le_bytes(raw));
                (if n % 2 == 1 { pair >> 4 } else { pair & 0xfff }, 0xff8)
            }
            Bits::Sixteen => {
                let mut raw = [0; 2];
                read(n * 2, &mut raw)?;
                (u32::from(u16::from_le_bytes(raw)), 0xfff8)
            }
            Bits::ThirtyTwo => {
                let mut raw = [0; 4];
                read(n * 4, &mut raw)?;
                (u32::from_le_bytes(raw) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((value < end).then_some(value))
    }
}

const ATTR_VOLUME: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0f;

/// The entries of a directory, without labels, deleted ones, `.` and `..`.
fn parse_directory(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for raw in bytes.chunks_exact(32) {
        match (raw[0], raw[11]) {
            (0, _) => break,
            (0xe5, _) => long = LongName::default(),
            (_, attributes) if attributes & 0x3f == ATTR_LONG_NAME => long.add(raw),
            (_, attributes) if attributes & ATTR_VOLUME != 0 => long = LongName::default(),
            (_, attributes) => {
                let name = std::mem::take(&mut long).finish(raw).unwrap_or_else(|| short_name(raw));
                let is_dir = attributes & ATTR_DIRECTORY != 0;
                if name != "." && name != ".." {
                    entries.push(Entry {
                        name,
                        is_dir,
                        size: if is_dir {
                            0
                        } else {
                            u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]])
                        },
                        first_cluster: u32::from_le_bytes([raw[26], raw[27], raw[20], raw[21]]),
                    });
                }
            }
        }
    }
    entries
}

fn short_name(raw: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| -> String {
        let text =
            bytes.iter().map(|b| if b.is_ascii() { char::from(*b) } else { char::REPLACEMENT_CHARACTER });
        let text: String =
            if lower { text.map(|c| c.to_ascii_lowercase()).collect() } else { text.collect() };
        text.trim_end_matches(' ').to_owned()
    };
    let base = part(&raw[..8], raw[12] & 0x08 != 0);
    let extension = part(&raw[8..11], raw[12] & 0x10 != 0);
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// A long name, whose parts come last first, before the short entry that they belong to.
#[derive(Default)]
struct LongName {
    parts: Vec<[u16; 13]>,
    next: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8]) {
        let order = raw[0] & 0x1f;
        if raw[0] & 0x40 != 0 {
            *self = Self { parts: Vec::new(), next: order, checksum: raw[13] };
        }
        if order == 0 || order != self.next || raw[13] != self.checksum {
            *self = Self::default();
            return;
        }
        let mut part = [0; 13];
        let units =
            raw[1..11].chunks_exact(2).chain(raw[14..26].chunks_exact(2)).chain(raw[28..32].chunks_exact(2));
        for (unit, bytes) in part.iter_mut().zip(units) {
            *unit = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        self.parts.push(part);
        self.next = order - 1;
    }

    /// The name, if all parts were there and belong to the short entry `raw`.
    fn finish(self, raw: &[u8]) -> Option<String> {
        let checksum = raw[..11].iter().fold(0_u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
        if self.parts.is_empty() || self.next != 0 || checksum != self.checksum {
            return None;
        }
        let units = self.parts.iter().rev().flatten().copied().take_while(|unit| *unit != 0);
        Some(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
    use proptest::prelude::*;
    use std::io::{Cursor, Write as _};

    /// A filesystem of `len` bytes with these files, made by another implementation. Missing folders are made.
    pub(crate) fn filesystem(len: usize, kind: fatfs::FatType, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let options =
            FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(512).volume_label(*b"GDSREPORT  ");
        fatfs::format_volume(Cursor::new(&mut bytes), options).unwrap();
        {
            let fs = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
            for (path, content) in files {
                let mut folder = fs.root_dir();
                let mut parts = path.split('/').peekable();
                while let Some(part) = parts.next() {
                    if parts.peek().is_some() {
                        folder = folder.create_dir(part).unwrap();
                    } else {
                        folder.create_file(part).unwrap().write_all(content).unwrap();
                    }
                }
            }
        }
        bytes
    }

    #[derive(Debug)]
    struct Disk(Vec<u8>);

    impl ReadAt for Disk {
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            let bytes = start.checked_add(buf.len()).and_then(|end| self.0.get(start..end));
            buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn open(bytes: Vec<u8>) -> Result<Fat<Disk>> {
        let len = bytes.len() as u64;
        Fat::open(Disk(bytes), len)
    }

    const FILES: [(&str, &[u8]); 4] = [
        ("README.txt", b"hello"),
        ("reports/20261122T105600Z-1a2b3c4d/STARTED", b"now\n"),
        ("reports/20261122T105600Z-1a2b3c4d/report.json", &[b'x'; 5000]),
        ("empty", b""),
    ];

    #[test]
    fn reads_what_another_implementation_wrote() {
        for (kind, len) in [
            (fatfs::FatType::Fat12, 1 << 20),
            (fatfs::FatType::Fat16, 8 << 20),
            (fatfs::FatType::Fat32, 40 << 20),
        ] {
            let fat = open(filesystem(len, kind, &FILES)).unwrap();
            for (path, content) in FILES {
                assert_eq!(fat.read(path, 10_000).unwrap().as_deref(), Some(content), "{path} on {kind:?}");
            }
            let names: Vec<_> = fat.list("").unwrap().into_iter().map(|e| e.name).collect();
            assert_eq!(names, ["README.txt", "reports", "empty"]);
            assert!(!fat.is_dirty());
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_absence_is_not_an_error() {
        let fat = open(filesystem(1 << 20, fatfs::FatType::Fat12, &FILES)).unwrap();
        assert!(fat.find("REPORTS/20261122t105600z-1A2B3C4D/started").unwrap().is_some());
        assert_eq!(fat.find("reports/none").unwrap(), None);
        assert_eq!(fat.find("README.txt/x").unwrap(), None);
        assert_eq!(fat.list("none").unwrap(), []);
        assert!(fat.read("reports", 10).unwrap_err().to_string().contains("is a directory"));
        assert!(fat.read("README.txt", 4).unwrap_err().to_string().contains("has 5 bytes; 4 are expected"));
    }

    #[test]
    fn case_bits_of_short_names_are_read() {
        let mut raw = [b' '; 32];
        raw[..11].copy_from_slice(b"STARTED TXT");
        raw[11..].fill(0);
        raw[12] = 0x18;
        assert_eq!(parse_directory(&raw)[0].name, "started.txt");
    }

    #[test]
    fn rings_of_clusters_end_with_an_error() {
        let mut bytes = filesystem(8 << 20, fatfs::FatType::Fat16, &FILES);
        let (reports, table) = {
            let fat = open(bytes.clone()).unwrap();
            (fat.find("reports").unwrap().unwrap().first_cluster, fat.table_start)
        };
        let at = usize::try_from(table).unwrap() + reports as usize * 2;
        bytes[at..at + 2].copy_from_slice(&u16::try_from(reports).unwrap().to_le_bytes());
        let fat = open(bytes).unwrap();
        assert_eq!(
            format!("{:#}", fat.list("reports").unwrap_err()),
            "listing reports: a directory has no end"
        );
    }

    #[test]
    fn a_cut_chain_names_the_file() {
        let mut bytes = filesystem(8 << 20, fatfs::FatType::Fat16, &[("big", &[1; 2000])]);
        let fat = open(bytes.clone()).unwrap();
        let first = fat.find("big").unwrap().unwrap().first_cluster;
        let at = usize::try_from(fat.table_start).unwrap() + first as usize * 2;
        bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        let error = open(bytes.clone()).unwrap().read("big", 9999).unwrap_err();
        assert_eq!(format!("{error:#}"), "reading big: it ends after 1 of 4 clusters");
        bytes[at..at + 2].copy_from_slice(&[0, 0]);
        let error = open(bytes).unwrap().read("big", 9999).unwrap_err();
        assert_eq!(format!("{error:#}"), "reading big: it refers to cluster 0, which does not exist");
    }

    #[test]
    fn other_content_is_refused_with_the_reason() {
        assert_eq!(open(vec![0; 4096]).unwrap_err().to_string(), "it has no FAT filesystem");
        let mut ntfs = vec![0; 4096];
        ntfs[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(open(ntfs).unwrap_err().to_string(), "its sectors claim 0 bytes");
        let mut cut = filesystem(1 << 20, fatfs::FatType::Fat12, &FILES);
        cut.truncate(1 << 19);
        assert_eq!(open(cut).unwrap_err().to_string(), "it claims 1048576 bytes, its partition has 524288");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_bytes_panic_or_hang(flips in prop::collection::vec((0_usize..24_000, any::<u8>()), 1..12)) {
            let mut bytes = filesystem(1 << 18, fatfs::FatType::Fat12, &FILES);
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok(fat) = open(bytes) {
                let _ = fat.list("reports");
                for (path, _) in FILES {
                    if let Ok(Some(content)) = fat.read(path, 10_000) {
                        prop_assert!(content.len() <= 10_000);
                    }
                }
            }
        }
    }
}
