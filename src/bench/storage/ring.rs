//! Several transfers at a time between one file and this process's memory, by io_uring (io_uring(7)). The only place in
//! the benchmark where memory is handed to the kernel.

use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::time::Duration;

use crate::bench::transfer::job::Direction;

/// What O_DIRECT asks of memory on any drive: a page.
const ALIGNMENT: usize = 4096;
/// Larger buffers take memory in pages of this size: the kernel and the drive are given few long pieces of it.
const HUGE_PAGE: usize = 2 << 20;

/// Equal buffers in one piece of memory, each aligned to a page where its size is a multiple of one.
#[derive(Debug)]
pub struct Buffers {
    memory: NonNull<u8>,
    layout: Layout,
    size: usize,
}

// SAFETY: the memory belongs to this value alone, and access to it goes through its references.
#[allow(unsafe_code, reason = "a pointer is not Send by itself")]
unsafe impl Send for Buffers {}

impl Buffers {
    /// `count` buffers of `size` bytes, zeroed. Neither is 0.
    #[allow(unsafe_code, reason = "memory of a given alignment")]
    pub fn new(count: usize, size: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(size).filter(|bytes| *bytes > 0);
        let is_huge = bytes.is_some_and(|bytes| bytes >= HUGE_PAGE);
        let alignment = if is_huge { HUGE_PAGE } else { ALIGNMENT };
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, alignment).ok());
        let layout = layout.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: the layout's size is not 0.
        let Some(memory) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: the memory is as long as that, and nobody else has it; without huge pages it serves as well.
        unsafe {
            if is_huge {
                libc::madvise(memory.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            }
            memory.as_ptr().write_bytes(0, layout.size());
        }
        Ok(Self { memory, layout, size })
    }

    fn pointer(&self, slot: usize) -> *mut u8 {
        assert!((slot + 1) * self.size <= self.layout.size(), "there is no buffer {slot}");
        self.memory.as_ptr().wrapping_add(slot * self.size)
    }

    /// A buffer.
    #[allow(unsafe_code, reason = "a slice of memory that was allocated by hand")]
    pub fn get_mut(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the pointer is within the allocation for `size` bytes, all of which are initialised, and the borrow of
        // `self` keeps anybody else out.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(slot), self.size) }
    }
}

impl Drop for Buffers {
    #[allow(unsafe_code, reason = "memory that was allocated by hand")]
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody uses it any more.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

/// A transfer that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The buffer it was made with.
    pub slot: usize,
    /// The bytes, or the error's number.
    pub result: Result<u32, i32>,
}

/// A ring for one file, used by the thread that made it.
pub struct Ring {
    ring: IoUring,
    file: File,
    buffers: Option<Buffers>,
    /// Buffers that the kernel has.
    busy: Vec<bool>,
    has_fixed_file: bool,
    has_fixed_buffers: bool,
}

impl Ring {
    /// A ring with a buffer of `block` bytes for each of `depth` transfers.
    ///
    /// # Errors
    /// The kernel has no io_uring or does not let this user have one, or memory is short.
    #[allow(unsafe_code, reason = "buffers are registered with the kernel")]
    pub fn new(file: &File, depth: u32, block: u32) -> io::Result<Self> {
        let file = file.try_clone()?;
        // The newest flags save interrupts of the thread; older kernels refuse them.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(depth)
            .or_else(|_| IoUring::new(depth))?;
        let (count, size) = (depth as usize, block as usize);
        let buffers = Buffers::new(count, size)?;
        let vectors: Vec<libc::iovec> = (0..count)
            .map(|slot| libc::iovec { iov_base: buffers.pointer(slot).cast(), iov_len: size })
            .collect();
        // Without either the same transfers are made, only somewhat slower: the limit on locked memory may forbid it.
        let has_fixed_file = ring.submitter().register_files(&[file.as_raw_fd()]).is_ok();
        // SAFETY: the buffers live as long as the ring, see `Drop`.
        let has_fixed_buffers = unsafe { ring.submitter().register_buffers(&vectors) }.is_ok();
        Ok(Self {
            ring,
            file,
            buffers: Some(buffers),
            busy: vec![false; count],
            has_fixed_file,
            has_fixed_buffers,
        })
    }

    /// The buffer of a transfer that is not under way.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        assert!(!self.busy[slot], "the kernel has buffer {slot}");
        self.buffers.as_mut().expect("taken in drop alone").get_mut(slot)
    }

    /// Begins a transfer with the whole buffer `slot` at the next [`Ring::wait`].
    #[allow(unsafe_code, reason = "the kernel reads or writes a buffer")]
    pub fn begin(&mut self, direction: Direction, slot: usize, offset: u64) {
        assert!(!self.busy[slot], "the kernel has buffer {slot}");
        let buffers = self.buffers.as_ref().expect("taken in drop alone");
        let (pointer, length) = (buffers.pointer(slot), buffers.size as u32);
        let index = slot as u16;
        let fd = Fd(self.file.as_raw_fd());
        macro_rules! entry {
            ($fixed:ident, $plain:ident, $file:expr) => {
                if self.has_fixed_buffers {
                    opcode::$fixed::new($file, pointer, length, index).offset(offset).build()
                } else {
                    opcode::$plain::new($file, pointer, length).offset(offset).build()
                }
            };
        }
        let entry: squeue::Entry = match (direction, self.has_fixed_file) {
            (Direction::Read, true) => entry!(ReadFixed, Read, Fixed(0)),
            (Direction::Read, false) => entry!(ReadFixed, Read, fd),
            (Direction::Write, true) => entry!(WriteFixed, Write, Fixed(0)),
            (Direction::Write, false) => entry!(WriteFixed, Write, fd),
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the buffer is not touched and not freed before the kernel says that the transfer ended; there are as many
        // entries as buffers, and this buffer had none.
        unsafe { self.ring.submission().push(&entry) }.expect("one entry for each buffer");
        self.busy[slot] = true;
    }

    /// How many transfers are under way.
    pub fn under_way(&self) -> usize {
        self.busy.iter().filter(|busy| **busy).count()
    }

    /// Gives the kernel the transfers that were begun.
    ///
    /// # Errors
    /// The kernel refuses to go on.
    pub fn submit(&mut self) -> io::Result<()> {
        match self.ring.submit() {
            // What is not taken now is taken by the next call.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until a transfer ends, at most for `limit`, and adds those that ended; none where time was up.
    ///
    /// # Errors
    /// The kernel refuses to go on.
    pub fn wait(&mut self, limit: Duration, ended: &mut Vec<Ended>) -> io::Result<()> {
        let limit = Timespec::new().sec(limit.as_secs()).nsec(limit.subsec_nanos());
        match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit)) {
            Ok(_) => {}
            // Time was up, a signal came, or there is more to be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        for entry in self.ring.completion() {
            let slot = entry.user_data() as usize;
            self.busy[slot] = false;
            let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
            ended.push(Ended { slot, result });
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.busy.contains(&true) {
            // The kernel may still write there: memory is lost rather than given away.
            std::mem::forget(self.buffers.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_stands_in_the_file_arrives() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let mut ring = match Ring::new(&file, 2, 4096) {
            Ok(ring) => ring,
            // Containers may forbid it.
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}");
                return;
            }
        };
        ring.begin(Direction::Read, 0, 4096);
        ring.begin(Direction::Read, 1, 6144);
        let mut ended = Vec::new();
        while ended.len() < 2 {
            ring.wait(Duration::from_secs(10), &mut ended).unwrap();
        }
        ended.sort_by_key(|ended| ended.slot);
        assert_eq!(ended, [Ended { slot: 0, result: Ok(4096) }, Ended { slot: 1, result: Ok(2048) }]);
        assert_eq!(ring.buffer(0), [7; 4096]);
        assert_eq!(ring.under_way(), 0);
        // Nothing is under way: time is up.
        ended.clear();
        ring.wait(Duration::from_millis(1), &mut ended).unwrap();
        assert_eq!(ended, []);
    }

    #[test]
    fn buffers_are_aligned_and_apart() {
        let mut buffers = Buffers::new(3, 4096).unwrap();
        for slot in 0..3 {
            assert_eq!(buffers.pointer(slot) as usize % ALIGNMENT, 0);
            buffers.get_mut(slot).fill(slot as u8);
        }
        for slot in 0..3 {
            assert!(buffers.get_mut(slot).iter().all(|byte| *byte == slot as u8));
        }
        let mut huge = Buffers::new(5, 1 << 20).unwrap();
        assert_eq!(huge.pointer(0) as usize % HUGE_PAGE, 0);
        assert!((0..5).all(|slot| huge.get_mut(slot).iter().all(|byte| *byte == 0)));
        assert!(Buffers::new(usize::MAX, 2).is_err() && Buffers::new(0, 1).is_err());
    }
}
