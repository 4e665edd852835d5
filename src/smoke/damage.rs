//! Damage to the copy of an image before it is booted: its report partition full, or gone.

use super::fault::{NEARLY_FULL, ReportPartition};
use super::media::Medium;
use crate::builder::disk::SECTOR;
use crate::report::gpt::Partition;
use crate::report::kind::Kind;
use crate::report::source::Image;
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Does to a copy what the machine file says.
///
/// # Errors
/// It is no raw disk image, has no such partition, or that has no FAT32 filesystem.
pub fn make(fault: ReportPartition, copy: &Medium) -> Result<()> {
    if fault == ReportPartition::ReadOnly {
        return Ok(());
    }
    ensure!(copy.kind == Kind::Raw, "{} is no raw disk image", copy.path.display());
    let image = Image::open(&copy.path)?;
    let partition = image.report_partition()?;
    let file = File::options().read(true).write(true).open(&copy.path);
    let file = file.with_context(|| format!("opening {}", copy.path.display()))?;
    let done = match fault {
        ReportPartition::Missing => remove(&file, partition),
        ReportPartition::Full => fill(&file, partition, 0),
        ReportPartition::NearlyFull => fill(&file, partition, NEARLY_FULL),
        ReportPartition::ReadOnly => Ok(()),
    };
    done.with_context(|| format!("damaging the report partition of {}", copy.path.display()))
}

fn remove(file: &File, partition: &Partition) -> Result<()> {
    let mut table = gptman::GPT::read_from(&mut { file }, SECTOR)?;
    table.remove(partition.number)?;
    table.write_into(&mut { file })?;
    Ok(())
}

/// Leaves `left` bytes of a FAT32 filesystem: all other free clusters become bad ones ("FAT: General Overview of On-Disk
/// Format" 1.03).
fn fill(file: &File, partition: &Partition, left: u64) -> Result<()> {
    const BAD: u32 = 0x0fff_fff7;
    const NUMBER: u32 = 0x0fff_ffff;
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, partition.start)?;
    let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let u32_at =
        |at: usize| u64::from(u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]));
    let (sector, cluster, reserved, tables) =
        (u16_at(11), u16_at(11) * u64::from(boot[13]), u16_at(14), u64::from(boot[16]));
    // BPB_FATSz16 is 0 in FAT32 alone.
    ensure!(u16_at(22) == 0 && cluster > 0 && u32_at(36) > 0, "it has no FAT32 filesystem");
    let table_bytes = u32_at(36) * sector;
    let data = (reserved * sector) + tables * table_bytes;
    let clusters =
        (u32_at(32) * sector).checked_sub(data).context("its tables are larger than it")? / cluster;
    let mut table = vec![0; usize::try_from(table_bytes)?];
    file.read_exact_at(&mut table, partition.start + reserved * sector)?;
    let mut spared = 0;
    for entry in table.chunks_exact_mut(4).skip(2).take(usize::try_from(clusters)?) {
        let word = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        if word & NUMBER != 0 {
            continue;
        }
        if (spared + 1) * cluster <= left {
            spared += 1;
            continue;
        }
        entry.copy_from_slice(&(word & !NUMBER | BAD).to_le_bytes());
    }
    for number in 0..tables {
        file.write_all_at(&table, partition.start + reserved * sector + number * table_bytes)?;
    }
    // FSI_Free_Count, which need not be right: unknown.
    let info = partition.start + u16_at(48) * sector;
    Ok(file.write_all_at(&u32::MAX.to_le_bytes(), info + 488)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::split_report;
    use crate::progress::Progress;
    use std::io::Cursor;
    use std::path::Path;

    fn report_disk(folder: &Path) -> Medium {
        let path = folder.join("report.img");
        let file = File::create(&path).unwrap();
        split_report::write(&split_report::Request::default(), &file, &Progress::none()).unwrap();
        Medium { path, kind: Kind::Raw }
    }

    /// How many bytes another implementation of FAT finds free.
    fn free(medium: &Medium) -> u64 {
        let image = Image::open(&medium.path).unwrap();
        let partition = image.report_partition().unwrap();
        let mut bytes = vec![0; usize::try_from(partition.size).unwrap()];
        image.raw().unwrap().read_exact_at(&mut bytes, partition.start).unwrap();
        let fs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
        let stats = fs.stats().unwrap();
        u64::from(stats.free_clusters()) * u64::from(stats.cluster_size())
    }

    #[test]
    fn the_report_partition_is_full_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = report_disk(folder.path());
        assert!(free(&disk) > 30 << 20);
        make(ReportPartition::ReadOnly, &disk).unwrap();
        assert!(free(&disk) > 30 << 20);
        make(ReportPartition::NearlyFull, &disk).unwrap();
        assert_eq!(free(&disk), NEARLY_FULL);
        make(ReportPartition::Full, &disk).unwrap();
        assert_eq!(free(&disk), 0);
        make(ReportPartition::Missing, &disk).unwrap();
        let error = Image::open(&disk.path).unwrap().report_partition().unwrap_err();
        assert!(error.to_string().contains("GDSREPORT"), "{error:#}");
        assert!(make(ReportPartition::Full, &disk).is_err());
        let qcow2 = Medium { kind: Kind::Qcow2, ..disk };
        assert!(
            make(ReportPartition::Full, &qcow2).unwrap_err().to_string().contains("is no raw disk image")
        );
    }
}
