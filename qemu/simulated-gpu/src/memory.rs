//! A window's memory: as large as the window, and only what is written to takes room.

use crate::error::{Error, Result};
use crate::size::Size;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;

/// A sparse file in memory, which a client may map.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    size: u64,
}

impl Memory {
    pub(crate) fn new(size: Size) -> Result<Memory> {
        let failed =
            |what: &str| Error::new(format!("{what} a window of {size}"), "see the limits of this process");
        let file = memfd_create("simulated-gpu", MFdFlags::MFD_CLOEXEC)
            .map_err(|error| failed("making").caused_by(std::io::Error::from(error)))?;
        let file = File::from(file);
        file.set_len(size.bytes()).map_err(|error| failed("sizing").caused_by(error))?;
        Ok(Memory { file, size: size.bytes() })
    }

    /// Ones beyond its end.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        let inside = self.inside(offset, data.len());
        data[inside..].fill(0xff);
        self.file.read_exact_at(&mut data[..inside], offset)
    }

    /// Nothing beyond its end.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(&data[..self.inside(offset, data.len())], offset)
    }

    fn inside(&self, offset: u64, length: usize) -> usize {
        usize::try_from(self.size.saturating_sub(offset)).map_or(length, |room| room.min(length))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn only_what_is_written_to_takes_room() {
        let memory = Memory::new(Size::mib(256 << 10)).unwrap();
        let near_the_end = (256 << 30) - 2;
        memory.write(near_the_end, &[1, 2, 3, 4]).unwrap();
        let mut back = [0; 4];
        memory.read(near_the_end, &mut back).unwrap();
        assert_eq!(back, [1, 2, 0xff, 0xff]);
        memory.read(u64::MAX, &mut back).unwrap();
        assert_eq!(back, [0xff; 4]);
        memory.write(u64::MAX, &[0]).unwrap();
        // In units of 512 bytes; a page may be a huge one.
        assert!(memory.file.metadata().unwrap().blocks() <= 2 << 11);
    }
}
