//! What a stick holds that the image does not: a partition table for its own size, and a report partition that reaches to
//! its end. What can be read of the report partition that a stick has already.

use super::copy::Piece;
use crate::boot_contract::{REPORT_LABEL, REPORT_RUNS};
use crate::builder::fat::geometry::Kind;
use crate::builder::fat::{FatFile, Plan, Volume};
use crate::builder::region::Region;
use crate::error::{hinted, usage};
use crate::interrupt;
use crate::progress::{Progress, Unit};
use crate::report::fat::{Fat, ReadAt, Window};
use crate::report::gpt::{NoTable, Partition, SECTOR, Table};
use crate::report::source::Image;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;

pub const MIB: u64 = 1 << 20;
/// FAT32 counts sectors in 32 bits.
const REPORT_MOST: u64 = (2 << 40) - MIB;
/// More than any file on a report partition has.
const MAX_FILE: u32 = 256 << 20;
/// Folders in folders: runs have one level, workloads some more.
const MAX_DEPTH: u32 = 8;

/// All that is written.
#[derive(Debug)]
pub struct Frame<'a> {
    image: &'a File,
    /// As long as the stick, with both copies of its partition table, and holes between.
    table: File,
    /// The report partition.
    volume: File,
    /// Bytes from the volume's beginning that are written: behind them no file stands.
    volume_used: u64,
    zeros: File,
    report_start: u64,
    pub report_bytes: u64,
    /// The stick's size.
    bytes: u64,
}

impl<'a> Frame<'a> {
    /// For a stick of `bytes`; `kept` are files for its report partition. Where the image has a file of that name, the
    /// image's is taken.
    pub fn new(image: &'a Image, bytes: u64, kept: &[FatFile]) -> Result<Self> {
        let file = image.raw().context("the image is not a disk byte for byte")?;
        let report = image.report_partition()?;
        let last = image.table().partitions.iter().map(|partition| partition.start).max();
        if last != Some(report.start) || image.table().primary_damage.is_some() || report.start < MIB {
            return Err(usage(
                format!("{} is not laid out as gdsboot does it", image.path().display()),
                "build it anew, or write it with another tool",
            ));
        }
        let end = (bytes.saturating_sub(MIB) / MIB * MIB).min(report.start.saturating_add(REPORT_MOST));
        let report_bytes =
            end.checked_sub(report.start).context("the stick ends before the report partition")?;
        let table = table(file, report, bytes, end).context("making its partition table")?;
        let (volume, volume_used) = volume(file, report, report_bytes, kept).map_err(|error| {
            let error = error.context("making its report partition");
            match kept.is_empty() {
                true => error,
                false => hinted(
                    crate::error::one_line(&error),
                    "take a larger stick, or copy its reports yourself and leave --keep-reports out",
                ),
            }
        })?;
        let zeros = tempfile::tempfile().context("making a temporary file")?;
        zeros.set_len(MIB)?;
        Ok(Self {
            image: file,
            table,
            volume,
            volume_used,
            zeros,
            report_start: report.start,
            report_bytes,
            bytes,
        })
    }

    /// What is written first, and the first MiB, without which no firmware looks any further. The copy of the table at the
    /// end stands among the first: on a stick that has fewer bytes than it says, it may overwrite something.
    pub fn pieces(&self) -> (Vec<Piece<'_>>, Vec<Piece<'_>>) {
        let table = |from, end| Piece { file: &self.table, from, to: from, bytes: end - from };
        let image = Piece { file: self.image, from: MIB, to: MIB, bytes: self.report_start - MIB };
        let volume = Piece { file: &self.volume, from: 0, to: self.report_start, bytes: self.volume_used };
        (vec![image, volume, table(self.bytes - MIB, self.bytes)], vec![table(0, MIB)])
    }

    /// Zeros at both ends, where partition tables stand.
    pub fn blank(&self) -> Vec<Piece<'_>> {
        let zeros = |to| Piece { file: &self.zeros, from: 0, to, bytes: MIB };
        vec![zeros(0), zeros(self.bytes - MIB)]
    }
}

/// The image's first MiB with the partition table of a disk of `bytes`, whose report partition ends at `end`.
fn table(image: &File, report: &Partition, bytes: u64, end: u64) -> Result<File> {
    let mut head = vec![0; MIB as usize];
    FileExt::read_exact_at(image, &mut head, 0)?;
    let mut table = tempfile::tempfile()?;
    table.set_len(bytes)?;
    table.write_all_at(&head, 0)?;
    let mut gpt = gptman::GPT::read_from(&mut { image }, SECTOR)?;
    gpt.header.update_from(&mut table, SECTOR)?;
    gpt[report.number].ending_lba = end / SECTOR - 1;
    gpt.write_into(&mut table)?;
    // The protective entry covers the disk (UEFI specification 2.10, 5.2.3).
    let rest = u32::try_from(bytes / SECTOR - 1).unwrap_or(u32::MAX);
    table.write_all_at(&rest.to_le_bytes(), 458)?;
    Ok(table)
}

/// A volume of `bytes` with the files of the image's report partition, and how much of it is in use.
fn volume(image: &File, report: &Partition, bytes: u64, kept: &[FatFile]) -> Result<(File, u64)> {
    let mut files = Vec::new();
    each_file(image, report, &mut |path, bytes| {
        // What was kept is the operator's own.
        if !kept.iter().any(|kept| kept.path.eq_ignore_ascii_case(path)) {
            files.push(FatFile::new(path, bytes));
        }
        Ok(())
    })?;
    files.extend(kept.iter().cloned());
    let mut id = [0; 4];
    // BS_VolID of FAT32.
    FileExt::read_exact_at(image, &mut id, report.start + 67)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let volume = Volume {
        kind: Kind::Fat32,
        bytes,
        label: REPORT_LABEL,
        id: u32::from_le_bytes(id),
        first_lba: report.start / SECTOR,
        epoch: now.map_or(0, |now| now.as_secs()),
        files: &files,
    };
    let plan = Plan::new(&volume)?;
    let out = tempfile::tempfile()?;
    out.set_len(bytes)?;
    plan.write(Region::new(&out, 0, bytes), &Progress::none().stage("", 0, Unit::Bytes))?;
    Ok((out, plan.used()))
}

/// gdsboot's report partition on a disk or file; `None` where it has none.
///
/// # Errors
/// It has a partition table that cannot be read, or several such partitions.
pub fn report_of(mut file: &File) -> Result<Option<Partition>> {
    let table = match Table::read(&mut file) {
        Err(error) if error.is::<NoTable>() => return Ok(None),
        table => table?,
    };
    let mut named = table.named(REPORT_LABEL);
    match (named.next(), named.next()) {
        (_, Some(_)) => bail!("it has several partitions {REPORT_LABEL}"),
        (report, None) => Ok(report.cloned()),
    }
}

/// The runs on a disk or file; none where it is not gdsboot's.
///
/// # Errors
/// It cannot be read.
pub fn runs_on(file: &File) -> Result<Vec<String>> {
    let Some(report) = report_of(file)? else { return Ok(Vec::new()) };
    let entries = open(file, &report)?.list(REPORT_RUNS)?;
    Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect())
}

/// Takes a file: its path, its bytes.
type Take<'a> = dyn FnMut(&str, Vec<u8>) -> Result<()> + 'a;

/// Hands over every file on the report partition `report` of a disk or file: its path and bytes.
///
/// # Errors
/// One of them cannot be read, or they claim more than the partition has.
pub fn each_file(file: &File, report: &Partition, take: &mut Take<'_>) -> Result<()> {
    let mut left = report.size;
    walk(&open(file, report)?, "", MAX_DEPTH, &mut left, take)
}

fn open<'a>(file: &'a File, report: &Partition) -> Result<Fat<Window<'a>>> {
    Fat::open(Window { file, start: report.start, len: report.size }, report.size)
}

/// `left` is what entries and files may take together, in bytes: folders that name each other end there.
fn walk<D: ReadAt>(
    fat: &Fat<D>,
    folder: &str,
    depth: u32,
    left: &mut u64,
    take: &mut Take<'_>,
) -> Result<()> {
    ensure!(depth > 0, "{folder:?}: folders are in folders too deeply");
    for entry in fat.list(folder)? {
        interrupt::check()?;
        let name = &entry.name;
        ensure!(!name.contains(['/', '\0']) && name != ".." && name != ".", "{name:?} is no name of a file");
        *left = left
            .checked_sub(u64::from(entry.size) + 32)
            .with_context(|| format!("{folder:?}: the files claim more than the partition has"))?;
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.is_dir {
            walk(fat, &path, depth - 1, left, take)?;
        } else if let Some(bytes) = fat.read(&path, MAX_FILE)? {
            take(&path, bytes)?;
        }
    }
    Ok(())
}
