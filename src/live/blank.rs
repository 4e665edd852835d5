//! Writing to a disk that is claimed: the bytes of a filesystem, or what a blank disk holds. Offsets and lengths are
//! multiples of a disk's block, as O_DIRECT asks.

use crate::bench::storage::Buffers;
use crate::extents::next_data;
use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

/// Bytes that are written or compared at a time.
const CHUNK: usize = 1 << 20;
/// Bytes that the kernel is asked to make zero at a time: such a call cannot be interrupted.
const PIECE: u64 = 1 << 30;

// include/uapi/linux/fs.h: both take the first byte and the number of bytes.
nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);

/// Tells the drive that nothing of it is needed any more. What is read afterwards is the drive's choice.
///
/// # Errors
/// The drive failed; one that knows no such command is no error.
#[allow(unsafe_code, reason = "nix makes an unsafe function of every ioctl")]
pub fn discard(disk: &File, bytes: u64) -> anyhow::Result<()> {
    // SAFETY: BLKDISCARD reads two u64, which outlive the call; the descriptor is open as long as `disk` is borrowed.
    match unsafe { blkdiscard(disk.as_raw_fd(), &[0, bytes]) } {
        Ok(_) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error).context("discarding what it holds (BLKDISCARD)"),
    }
}

/// Makes all of a range hold `byte`. Zeros are left to the kernel, which knows the drive's command for them, or writes
/// them where there is none.
///
/// # Errors
/// The drive failed.
pub fn fill(disk: &File, range: Range<u64>, byte: u8) -> anyhow::Result<()> {
    if byte == 0 {
        return (range.start..range.end)
            .step_by(PIECE as usize)
            .try_for_each(|at| zero(disk, at, PIECE.min(range.end - at)));
    }
    let mut buffers = Buffers::new(1, CHUNK)?;
    buffers.get_mut(0).fill(byte);
    for (at, length) in chunks(range) {
        disk.write_all_at(&buffers.get_mut(0)[..length], at)
            .with_context(|| format!("writing at byte {at}"))?;
    }
    Ok(())
}

#[allow(unsafe_code, reason = "nix makes an unsafe function of every ioctl")]
fn zero(disk: &File, at: u64, bytes: u64) -> anyhow::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64, which outlive the call; the descriptor is open as long as `disk` is borrowed.
    unsafe { blkzeroout(disk.as_raw_fd(), &[at, bytes]) }
        .with_context(|| format!("overwriting {bytes} bytes at byte {at} with zeros (BLKZEROOUT)"))?;
    Ok(())
}

/// Copies what is no hole in `image`, which has `bytes`, to the same places of a disk, and reads it back.
///
/// # Errors
/// The disk failed, or holds something else than was written.
pub fn copy(image: &File, bytes: u64, disk: &File) -> anyhow::Result<()> {
    each(image, bytes, |data, at, _| {
        disk.write_all_at(data, at).with_context(|| format!("writing at byte {at}"))
    })?;
    disk.sync_all().context("having the drive keep what was written")?;
    each(image, bytes, |data, at, buffer| {
        disk.read_exact_at(buffer, at).with_context(|| format!("reading back at byte {at}"))?;
        ensure!(data == buffer, "what was written at byte {at} reads back as something else");
        Ok(())
    })
}

/// Calls `work` with all that is no hole, with the place of it and a buffer of the same length; both are aligned.
fn each(
    image: &File,
    bytes: u64,
    mut work: impl FnMut(&[u8], u64, &mut [u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut buffers, mut seconds) = (Buffers::new(1, CHUNK)?, Buffers::new(1, CHUNK)?);
    let mut from = 0;
    while let Some((start, end)) = next_data(image, from, bytes)? {
        // Whole chunks: a hole reads as zeros, which is what the disk holds there.
        let start = start / CHUNK as u64 * CHUNK as u64;
        for (at, length) in chunks(start..end.next_multiple_of(CHUNK as u64).min(bytes)) {
            let buffer = &mut buffers.get_mut(0)[..length];
            image.read_exact_at(buffer, at)?;
            work(buffer, at, &mut seconds.get_mut(0)[..length])?;
            from = at + length as u64;
        }
    }
    Ok(())
}

fn chunks(range: Range<u64>) -> impl Iterator<Item = (u64, usize)> {
    let end = range.end;
    range.step_by(CHUNK).map(move |at| (at, CHUNK.min((end - at) as usize)))
}
