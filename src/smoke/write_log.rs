//! A log of the writes to a disk, as QEMU's driver `blklogwrites` leaves it: the form of Linux' dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst; block/blklogwrites.c of QEMU).

use anyhow::{Context as _, Result, bail, ensure};

/// Bytes in a sector of the log, and of the disk.
pub const SECTOR: usize = 512;
/// "jsfwshr", the first eight bytes.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// What the disk was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Bytes, from this one on; whole sectors.
    Write {
        /// The first byte.
        start: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// What was written until now is to be kept.
    Flush,
    /// What is there is of no use any more.
    Discard,
}

/// Reads all entries. What QEMU had not finished when it ended is left out.
///
/// # Errors
/// It is no such log, or an entry of it is impossible.
pub fn entries(log: &[u8]) -> Result<Vec<Entry<'_>>> {
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(log.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    ensure!(word(0) == Some(MAGIC) && word(8) == Some(1), "it is no log of writes, version 1");
    let sector = log.get(24..28).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    ensure!(sector == Some(SECTOR as u32), "its sectors have not {SECTOR} bytes: {sector:?}");
    let mut entries = Vec::new();
    let mut at = SECTOR;
    // The count at the top is renewed now and then only.
    while let (Some(first), Some(count), Some(flags)) = (word(at), word(at + 8), word(at + 16)) {
        if (first, count, flags) == (0, 0, 0) {
            break;
        }
        at += SECTOR;
        if flags & FLUSH != 0 {
            entries.push(Entry::Flush);
        }
        if flags & DISCARD != 0 {
            entries.push(Entry::Discard);
        } else if count > 0 {
            let start = first.checked_mul(SECTOR as u64).context("an entry lies behind every disk's end")?;
            let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(SECTOR));
            let len = len.context("an entry is longer than memory")?;
            let Some(bytes) = at.checked_add(len).and_then(|end| log.get(at..end)) else { break };
            entries.push(Entry::Write { start, bytes });
            at += len;
        } else if flags & FLUSH == 0 {
            bail!("the entry before byte {at} says nothing");
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(u64, u64, u64, &[u8])]) -> Vec<u8> {
        let mut log = Vec::new();
        let sector = |words: &[u64]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.resize(SECTOR, 0);
            bytes
        };
        log.extend(sector(&[MAGIC, 1, 0, 512]));
        for (first, count, flags, bytes) in entries {
            log.extend(sector(&[*first, *count, *flags, 0]));
            log.extend_from_slice(bytes);
        }
        log
    }

    #[test]
    fn writes_flushes_and_discards_are_read_in_their_order() {
        let bytes = [7; 2 * SECTOR];
        let log = log(&[
            (3, 2, 0, &bytes),
            (0, 0, FLUSH, &[]),
            (9, 4, DISCARD, &[]),
            (5, 1, FLUSH, &bytes[..SECTOR]),
        ]);
        let expected = [
            Entry::Write { start: 3 * 512, bytes: &bytes },
            Entry::Flush,
            Entry::Discard,
            // What a flush and a write in one means: the flush comes first.
            Entry::Flush,
            Entry::Write { start: 5 * 512, bytes: &bytes[..SECTOR] },
        ];
        assert_eq!(entries(&log).unwrap(), expected);
        // One that was cut off, and room that was never written.
        assert_eq!(entries(&log[..log.len() - 1]).unwrap(), expected[..4]);
        let padded = [log, vec![0; 4 * SECTOR]].concat();
        assert_eq!(entries(&padded).unwrap(), expected);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        for (log, words) in [
            (Vec::new(), "it is no log of writes"),
            (log(&[(1, u64::MAX, 0, &[])]), "longer than memory"),
            (log(&[(u64::MAX, 1, 0, &[0; 512])]), "behind every disk's end"),
            (log(&[(1, 0, 2, &[])]), "says nothing"),
        ] {
            let error = entries(&log).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
