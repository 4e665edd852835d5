//! Writes pieces to a medium, and compares them with what it gives back.

use super::medium::Medium;
use crate::bench::storage::Buffers;
use crate::interrupt;
use crate::progress::{Progress, Stage, Unit};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How much is read, written and compared at a time.
const CHUNK: u64 = 4 << 20;
/// How many chunks may be on their way: the medium is never idle, and progress is never far ahead of it.
const ON_THEIR_WAY: usize = 8;

/// Bytes of a file that belong somewhere on the medium.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Where they come from.
    pub file: &'a File,
    /// Their place there.
    pub from: u64,
    /// Their place on the medium.
    pub to: u64,
    /// How many.
    pub bytes: u64,
}

impl Piece<'_> {
    /// Its chunks, and for each the bytes.
    fn each(&self, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; CHUNK.min(self.bytes) as usize];
        let mut done = 0;
        while done < self.bytes {
            let length = CHUNK.min(self.bytes - done) as usize;
            self.file
                .read_exact_at(&mut buffer[..length], self.from + done)
                .context("reading the image, which has changed meanwhile")?;
            take(self.to + done, &buffer[..length])?;
            done += length as u64;
        }
        Ok(())
    }
}

/// A stage for these pieces.
pub fn stage(progress: &Progress, name: &str, pieces: &[Piece<'_>]) -> Stage {
    progress.stage(name, pieces.iter().map(|piece| piece.bytes).sum(), Unit::Bytes)
}

/// Writes the pieces in their order, and waits until the medium has them.
///
/// # Errors
/// The medium cannot be written to, or the user interrupts it where that is `interruptible`.
pub fn write(
    medium: &mut dyn Medium,
    pieces: &[Piece<'_>],
    stage: &Stage,
    interruptible: bool,
) -> Result<()> {
    let mut on_their_way = VecDeque::new();
    for piece in pieces {
        piece.each(|at, bytes| {
            if interruptible {
                interrupt::check()?;
            }
            write_all(medium, bytes, at).with_context(|| format!("writing at byte {at}"))?;
            let range = at..at + bytes.len() as u64;
            medium.begin(range.clone()).with_context(|| format!("writing at byte {at}"))?;
            on_their_way.push_back(range);
            if on_their_way.len() > ON_THEIR_WAY
                && let Some(range) = on_their_way.pop_front()
            {
                medium.finish(range.clone()).with_context(|| format!("writing at byte {}", range.start))?;
            }
            stage.advance(bytes.len() as u64);
            Ok(())
        })?;
    }
    medium.settle().context("writing what was on its way")
}

fn write_all(medium: &mut dyn Medium, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match medium.write_at(bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Compares the pieces with what the medium gives back.
///
/// # Errors
/// It gives back something else or nothing, or the user interrupts it.
pub fn compare(medium: &mut dyn Medium, pieces: &[Piece<'_>], stage: &Stage) -> Result<()> {
    let mut buffers = Buffers::new(1, CHUNK as usize).context("taking memory")?;
    for piece in pieces {
        piece.each(|at, bytes| {
            interrupt::check()?;
            let found = &mut buffers.get_mut(0)[..bytes.len()];
            read_all(medium, found, at).with_context(|| format!("reading back at byte {at}"))?;
            if *found != *bytes
                && let Some(wrong) = found.iter().zip(bytes).position(|(found, wanted)| found != wanted)
            {
                let place = at + wrong as u64;
                bail!(
                    "byte {place} was written as {:#04x} and is read back as {:#04x}: the medium is faulty, or smaller than \
                     it says",
                    bytes[wrong],
                    found[wrong]
                );
            }
            stage.advance(bytes.len() as u64);
            Ok(())
        })?;
    }
    Ok(())
}

fn read_all(medium: &mut dyn Medium, mut into: &mut [u8], mut at: u64) -> Result<()> {
    while !into.is_empty() {
        match medium.read_at(into, at) {
            Ok(read) => {
                ensure!(read > 0, "it ends there");
                into = &mut into[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
