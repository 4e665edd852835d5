//! A boot's writes, again: what would be on the disk, had the power failed after any of them, or had the disk lost any that
//! it was not yet told to keep.

use super::write_log::{Entry, SECTOR};
use crate::report::fat::ReadAt;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// A disk as it was, and what was written to it since, by sectors.
#[derive(Clone, Debug)]
pub struct Replayed<'a> {
    before: &'a File,
    written: BTreeMap<u64, &'a [u8]>,
}

impl<'a> Replayed<'a> {
    fn write(&mut self, start: u64, bytes: &'a [u8]) {
        let first = start / SECTOR as u64;
        self.written.extend((first..).zip(bytes.chunks_exact(SECTOR)));
    }
}

impl ReadAt for Replayed<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.before.read_exact_at(buf, offset)?;
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let size = SECTOR as u64;
        for (number, sector) in self.written.range(offset / size..end.div_ceil(size)) {
            let start = number * size;
            let (from, to) = (start.max(offset), (start + size).min(end));
            // Both lie within one sector and within the buffer.
            let [from_here, to_here] = [from - start, to - start].map(|n| n as usize);
            let [from_there, to_there] = [from - offset, to - offset].map(|n| n as usize);
            buf[from_there..to_there].copy_from_slice(&sector[from_here..to_here]);
        }
        Ok(())
    }
}

/// A moment at which the power could have failed.
#[derive(Debug)]
pub struct Cut<'a> {
    /// What is on the disk then.
    pub disk: Replayed<'a>,
    /// Which of the writes was the last, from 1.
    pub write: usize,
    /// What happened, for people.
    pub what: &'static str,
    /// Is this what all that follows builds on: every write until now, and the disk was told to keep them?
    pub is_kept: bool,
}

/// Shows every moment to `look`: after each write; and before each flush, without any one of the writes since the last, and
/// with any one of them alone, since a disk may keep them in whatever order.
///
/// # Errors
/// The first of `look`.
pub fn every_cut<'a>(
    before: &'a File,
    entries: &[Entry<'a>],
    look: &mut dyn FnMut(&Cut<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let mut disk = Replayed { before, written: BTreeMap::new() };
    let mut kept = disk.clone();
    let mut pending: Vec<(u64, &'a [u8])> = Vec::new();
    let (mut write, mut cuts) = (0, 0);
    let mut show = |disk: &Replayed<'a>, write, what, is_kept| -> anyhow::Result<()> {
        cuts += 1;
        look(&Cut { disk: disk.clone(), write, what, is_kept })
    };
    for entry in entries {
        match *entry {
            Entry::Write { start, bytes } => {
                write += 1;
                disk.write(start, bytes);
                pending.push((start, bytes));
                show(&disk, write, "after the write", false)?;
            }
            Entry::Discard => {}
            Entry::Flush => {
                for lost in 0..pending.len() {
                    let number = write - pending.len() + lost + 1;
                    let mut without = kept.clone();
                    let others = pending.iter().enumerate().filter(|(n, _)| *n != lost);
                    others.for_each(|(_, (start, bytes))| without.write(*start, bytes));
                    show(
                        &without,
                        number,
                        "without the write, and with all others before the next flush",
                        false,
                    )?;
                    let mut alone = kept.clone();
                    alone.write(pending[lost].0, pending[lost].1);
                    show(&alone, number, "with the write alone of those since the last flush", false)?;
                }
                pending.clear();
                kept = disk.clone();
                show(&kept, write, "after the flush that follows the write", true)?;
            }
        }
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn every_order_of_a_disk_is_shown() {
        let mut before = tempfile::tempfile().unwrap();
        before.write_all(&[0; 4 * SECTOR]).unwrap();
        let sectors = [1_u8, 2, 3].map(|byte| vec![byte; SECTOR]);
        let write = |number: usize, at: u64| Entry::Write { start: at * 512, bytes: &sectors[number] };
        let entries = [write(0, 0), write(1, 2), Entry::Discard, Entry::Flush, write(2, 0), Entry::Flush];
        let mut seen = Vec::new();
        let cuts = every_cut(&before, &entries, &mut |cut| {
            let mut bytes = vec![0; 4 * SECTOR];
            cut.disk.read_exact_at(&mut bytes, 0).unwrap();
            seen.push((cut.write, [bytes[0], bytes[2 * SECTOR]], cut.is_kept));
            Ok(())
        });
        let expected = [
            (1, [1, 0], false),
            (2, [1, 2], false),
            // Without the first, with the first alone; without the second, with the second alone.
            (1, [0, 2], false),
            (1, [1, 0], false),
            (2, [1, 0], false),
            (2, [0, 2], false),
            (2, [1, 2], true),
            (3, [3, 2], false),
            (3, [1, 2], false),
            (3, [3, 2], false),
            (3, [3, 2], true),
        ];
        assert_eq!(seen, expected);
        assert_eq!(cuts.unwrap(), expected.len());
        let error = every_cut(&before, &entries, &mut |_| anyhow::bail!("lost")).unwrap_err();
        assert_eq!(error.to_string(), "lost");
    }

    #[test]
    fn parts_of_sectors_are_read() {
        let mut before = tempfile::tempfile().unwrap();
        before.write_all(&[9; 3 * SECTOR]).unwrap();
        let sector = [4; SECTOR];
        let mut disk = Replayed { before: &before, written: BTreeMap::new() };
        disk.write(512, &sector);
        let read = |start: u64, len: usize| {
            let mut bytes = vec![0; len];
            disk.read_exact_at(&mut bytes, start).map(|()| bytes)
        };
        assert_eq!(read(510, 4).unwrap(), [9, 9, 4, 4]);
        assert_eq!(read(1022, 4).unwrap(), [4, 4, 9, 9]);
        assert_eq!(read(600, 2).unwrap(), [4, 4]);
        assert!(read(3 * 512 - 1, 2).is_err());
    }
}
