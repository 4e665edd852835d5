//! Where a sparse file has data (lseek(2), SEEK_DATA).

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;

/// The first stretch of data at or after `at`: its first byte and the byte after its last.
///
/// # Errors
/// The file cannot be asked.
pub fn next_data(file: &File, at: u64, size: u64) -> anyhow::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let seek = |from: u64, whence| lseek(file, i64::try_from(from).unwrap_or(i64::MAX), whence);
    let start = match seek(at, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        // A filesystem that knows nothing of holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some((at, size))),
        Err(e) => return Err(e.into()),
    };
    let start = u64::try_from(start)?;
    let end = u64::try_from(seek(start, Whence::SeekHole)?)?;
    Ok((start < size).then_some((start, end.min(size))))
}
