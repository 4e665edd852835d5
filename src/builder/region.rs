//! A stretch of a file that was just extended with zeros: what is zero anyway is not written, so the file stays sparse.
//!
//! Every byte is written at most once; writing zeros over something else would silently keep the old bytes.

use super::content::Content;
use crate::{interrupt, progress::Stage};
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

/// Zeros are left out in units of this many bytes, the block size of most filesystems.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Read at once when copying.
const CHUNK: usize = 1 << 20;

/// Part of a file, addressed from its own start.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    file: &'a File,
    start: u64,
    len: u64,
}

impl<'a> Region<'a> {
    /// The `len` bytes of `file` from byte `start`.
    pub fn new(file: &'a File, start: u64, len: u64) -> Self {
        Self { file, start, len }
    }

    /// Writes `bytes` at `offset` in the region; refuses to leave it.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        ensure!(
            end.is_some_and(|end| end <= self.len),
            "{} bytes at {offset} do not fit into a region of {} bytes",
            bytes.len(),
            self.len
        );
        let mut at = self.start + offset;
        // Neighbouring blocks that hold something go out in one call.
        for run in bytes.chunks(BLOCK).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let length: usize = run.iter().map(|block| block.len()).sum();
            if !is_zero(run[0]) {
                let from = (at - self.start - offset) as usize;
                self.file
                    .write_all_at(&bytes[from..from + length], at)
                    .with_context(|| format!("writing {length} bytes at {at} of the disk image"))?;
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Copies `content`, which must be `length` bytes long, to `offset` in the region.
    pub fn copy(&self, offset: u64, content: &Content, length: u64, stage: &Stage) -> Result<()> {
        let mut reader = content.reader();
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        loop {
            interrupt::check()?;
            let mut filled = 0;
            while filled < buffer.len() {
                match reader.read(&mut buffer[filled..]).context("reading what goes onto the disk")? {
                    0 => break,
                    n => filled += n,
                }
            }
            if filled == 0 {
                break;
            }
            ensure!(done + filled as u64 <= length, "a file grew while it was copied onto the disk");
            self.write(offset + done, &buffer[..filled])?;
            done += filled as u64;
            stage.advance(filled as u64);
        }
        ensure!(done == length, "a file has {done} bytes where {length} were planned for");
        Ok(())
    }
}

fn is_zero(block: &[u8]) -> bool {
    block == &ZEROS[..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Progress, Unit};
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn zeros_take_no_space_and_read_back() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 << 20).unwrap();
        let region = Region::new(&file, 1 << 20, 8 << 20);
        let mut bytes = vec![0; 6 << 20];
        bytes[0] = 1;
        bytes[5_000_000] = 2;
        *bytes.last_mut().unwrap() = 3;
        let stage = Progress::none().stage("test", 0, Unit::Bytes);
        region.copy(512, &Content::from(bytes.clone()), bytes.len() as u64, &stage).unwrap();

        let mut back = vec![0; bytes.len()];
        file.read_exact_at(&mut back, (1 << 20) + 512).unwrap();
        assert!(back == bytes, "what was written differs from what reads back");
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "{}", file.metadata().unwrap().blocks());
    }

    #[test]
    fn writing_past_the_end_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let region = Region::new(&file, 0, 1000);
        assert!(region.write(999, &[1, 1]).is_err());
        assert!(region.write(u64::MAX, &[1, 1]).is_err());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn content_of_another_length_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let region = Region::new(&file, 0, 1000);
        let stage = Progress::none().stage("test", 0, Unit::Bytes);
        let content = Content::from(vec![1; 10]);
        let shrank = region.copy(0, &content, 11, &stage).unwrap_err().to_string();
        assert!(shrank.contains("has 10 bytes where 11 were planned"), "{shrank}");
        let grew = region.copy(0, &content, 9, &stage).unwrap_err().to_string();
        assert!(grew.contains("grew"), "{grew}");
    }
}
