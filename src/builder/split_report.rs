//! A disk for reports alone: one GPT partition `GDSREPORT` with a FAT32 filesystem, and on it what an image's own report
//! partition has. A virtual machine's image can then be attached read-only, and an ISO has a place for its reports.

use super::disk::{self, Identity, Layout, MIB, Partition, Role, SECTOR, TAIL};
use super::fat::geometry::Kind;
use super::fat::{self, FatFile};
use super::region::Region;
use super::report_partition;
use crate::boot_contract::REPORT_SETTINGS;
use crate::error::{hinted, usage};
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::fs::File;

/// Room for dozens of runs.
pub const DEFAULT_SIZE: u64 = 64 * MIB;
/// 34 MiB is the least that FAT32 takes, beside the partition table and its copy.
const LEAST: u64 = 36 * MIB;
const MOST: u64 = 1 << 40;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Size of the disk in bytes, whole MiB.
    pub size: u64,
    /// `gdsboot.toml`, where it is not the one with everything commented out.
    pub settings: Option<Vec<u8>>,
}

impl Default for Request {
    fn default() -> Self {
        Self { size: DEFAULT_SIZE, settings: None }
    }
}

/// Writes the disk to the empty file `out`, sparse. The same request gives the same bytes.
///
/// # Errors
/// The size is none that FAT32 takes, or there is no room.
pub fn write(request: &Request, out: &File, progress: &Progress) -> Result<()> {
    let Request { size, settings } = request;
    if !size.is_multiple_of(MIB) || !(LEAST..=MOST).contains(size) {
        return Err(usage(
            format!("a report disk cannot have {size} bytes"),
            "it has whole MiB, between 36M (FAT32 has no smaller filesystem) and 1T: --size 64M",
        ));
    }
    let mut files = report_partition::files_without_image()?;
    if let Some(settings) = settings {
        files.retain(|file| file.path != REPORT_SETTINGS);
        files.push(FatFile::new(REPORT_SETTINGS, settings.clone()));
    }
    let mut hash = Sha256::new();
    hash.update(format!("report disk {size}\n"));
    for file in &files {
        hash.update(file.content.read().with_context(|| format!("reading {}", file.path))?);
    }
    let identity = Identity::new(&hex::encode(hash.finalize()));
    let partition = Partition {
        role: Role::Report,
        first_lba: MIB / SECTOR,
        sectors: (size - MIB - TAIL) / SECTOR,
        guid: identity.partition(Role::Report),
    };
    let layout = Layout {
        disk_guid: identity.disk(),
        sectors: size / SECTOR,
        content_bytes: files.iter().map(|file| file.content.len()).sum(),
        partitions: vec![partition.clone()],
    };
    let volume = fat::Volume {
        kind: Kind::Fat32,
        bytes: partition.sectors * SECTOR,
        label: Role::Report.label(),
        id: identity.volume(Role::Report),
        first_lba: partition.first_lba,
        // No time of its own: the same request gives the same bytes. FAT begins in 1980.
        epoch: 0,
        files: &files,
    };
    let plan = fat::Plan::new(&volume).map_err(|error| {
        hinted(format!("laying out the report disk: {error:#}"), "ask for a larger one: --size 64M")
    })?;
    out.set_len(0).and_then(|()| out.set_len(*size)).context("sizing the report disk")?;
    disk::write_table(&layout, None, out)?;
    let stage = progress.stage("writing the report disk", layout.content_bytes, Unit::Bytes);
    plan.write(Region::new(out, partition.first_lba * SECTOR, volume.bytes), &stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Status, hint_of, status_of};
    use crate::report::source::Image;

    fn written(request: &Request) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(request, file.as_file(), &Progress::none()).unwrap();
        file
    }

    #[test]
    fn it_is_one_partition_that_reports_are_read_from() {
        let file = written(&Request { size: 100 * MIB, settings: Some(b"after = 'hold'\n".to_vec()) });
        let image = Image::open(file.path()).unwrap();
        assert_eq!(image.size(), 100 * MIB);
        assert_eq!(image.table().partitions.len(), 1);
        let partition = image.report_partition().unwrap();
        assert_eq!((partition.start, partition.size), (MIB, 98 * MIB));
        let fat = image.filesystem(partition).unwrap();
        assert_eq!(fat.read("gdsboot.toml", 100).unwrap().unwrap(), b"after = 'hold'\n");
        let readme = fat.read("README.txt", 1 << 16).unwrap().unwrap();
        assert!(String::from_utf8(readme).unwrap().contains("It does not boot"));
        assert_eq!(image.runs().unwrap(), Vec::<String>::new());
        assert!(image.allocated() < MIB, "it is sparse");
    }

    #[test]
    fn the_same_request_gives_the_same_bytes_and_another_another_disk() {
        let guid = |request: &Request| Image::open(written(request).path()).unwrap().table().disk_guid;
        let usual = Request::default();
        let bytes = |request: &Request| fs_err::read(written(request).path()).unwrap();
        assert!(bytes(&usual) == bytes(&usual));
        let other = Request { settings: Some(b"after = 'hold'".to_vec()), ..usual.clone() };
        assert_ne!(guid(&usual), guid(&other));
        assert_ne!(guid(&usual), guid(&Request { size: 65 * MIB, ..usual.clone() }));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for size in [0, 35 * MIB, 64 * MIB + 512, u64::MAX, 2 << 40] {
            let file = tempfile::tempfile().unwrap();
            let error = write(&Request { size, settings: None }, &file, &Progress::none()).unwrap_err();
            assert_eq!(status_of(&error), Status::Usage, "{error:#}");
            assert!(hint_of(&error).unwrap().contains("--size"));
            assert_eq!(file.metadata().unwrap().len(), 0);
        }
        written(&Request { size: LEAST, settings: None });
        let large = Request { size: 38 * MIB, settings: Some(vec![b'#'; 40 << 20]) };
        let error = write(&large, &tempfile::tempfile().unwrap(), &Progress::none()).unwrap_err();
        assert!(hint_of(&error).unwrap().contains("a larger one"), "{error:#}");
    }
}
