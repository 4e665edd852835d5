//! cuFile's batches.

use super::{Handle, Lib, checked, lost};
use crate::cuda::GpuMemory;
use gdsboot::bench::transfer::job::Direction;
use gdsboot::bench::worker::Failure;
use std::ffi::{c_int, c_uint, c_void};
use std::time::{Duration, Instant};

/// CUfileIOParams_t.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BatchTransfer {
    /// CUFILE_BATCH is 1.
    mode: c_int,
    memory: u64,
    offset: i64,
    from: i64,
    bytes: usize,
    handle: *mut c_void,
    /// CUFILE_READ is 0, CUFILE_WRITE 1.
    opcode: c_int,
    cookie: usize,
}

/// CUfileIOEvents_t.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct BatchEvent {
    cookie: usize,
    status: c_int,
    returned: usize,
}

const _: () = assert!(size_of::<BatchTransfer>() == 64 && size_of::<BatchEvent>() == 24);

/// CUFILE_COMPLETE and CUFILE_WAITING | CUFILE_PENDING of CUfileStatus_t.
const COMPLETE: c_int = 16;
const UNDER_WAY: c_int = 1 | 2;
/// A batch that takes longer is lost; the validator's own limit is shorter for small jobs.
const LOST: Duration = Duration::from_secs(120);

/// Transfers that are begun together.
pub struct Batch<'a> {
    pub(super) lib: &'a Lib,
    pub(super) batch: *mut c_void,
    /// How many it holds.
    pub(super) count: usize,
}

// SAFETY: cuFile is thread-safe, and the handle is only passed back to it.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Send for Batch<'_> {}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Batch<'_> {
    /// Makes one transfer of `bytes` for each pair of memory and offset, and waits for all; what each made.
    pub fn transfer(
        &mut self,
        handle: &Handle<'_>,
        direction: Direction,
        bytes: usize,
        transfers: &[(&GpuMemory<'_>, u64)],
    ) -> Result<Vec<Result<usize, Failure>>, Failure> {
        assert!(transfers.len() <= self.count, "more than the batch holds");
        let entry = |(cookie, (memory, offset)): (usize, &(&GpuMemory<'_>, u64))| {
            assert!(bytes <= memory.bytes, "more than the memory holds");
            BatchTransfer {
                mode: 1,
                memory: memory.address,
                offset: *offset as i64,
                from: 0,
                bytes,
                handle: handle.handle,
                opcode: c_int::from(direction == Direction::Write),
                cookie,
            }
        };
        let mut entries: Vec<_> = transfers.iter().enumerate().map(entry).collect();
        let functions = &self.lib.functions;
        let count = entries.len() as c_uint;
        // SAFETY: handles and memory are known to cuFile and outlive the batch, which is waited for.
        let status = unsafe { functions.batch_submit(self.batch, count, entries.as_mut_ptr(), 0) }?;
        checked("cuFileBatchIOSubmit", status)?;
        let mut results: Vec<Option<Result<usize, Failure>>> = vec![None; entries.len()];
        let begun = Instant::now();
        while results.contains(&None) {
            let mut events = vec![BatchEvent::default(); entries.len()];
            let mut ready = count;
            let mut second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            // SAFETY: there is room for as many events as `ready` says.
            let status = unsafe {
                functions.batch_status(self.batch, 1, &raw mut ready, events.as_mut_ptr(), &raw mut second)
            }?;
            checked("cuFileBatchIOGetStatus", status)?;
            for event in events.iter().take(ready as usize).filter(|event| event.status & UNDER_WAY == 0) {
                let Some(result) = results.get_mut(event.cookie) else { continue };
                *result = Some(match event.status {
                    COMPLETE => Ok(event.returned),
                    other => Err(Failure {
                        function: Some("cuFileBatchIOGetStatus".into()),
                        text: format!("the transfer ended with CUfileStatus_t {other:#x}"),
                        ..Failure::default()
                    }),
                });
            }
            if begun.elapsed() > LOST {
                lost(&format!("a batch did not end in {} s", LOST.as_secs()));
            }
        }
        Ok(results.into_iter().flatten().collect())
    }
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // SAFETY: its transfers have ended, or cuFile said that it does not know: memory is freed after this.
        let _ = unsafe { self.lib.functions.batch_destroy(self.batch) };
    }
}
