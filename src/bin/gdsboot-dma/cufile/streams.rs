//! cuFile's transfers on CUDA's streams: a call only puts the transfer into its stream's order, and what it was handed by
//! pointer is read when its turn comes.

use super::{Handle, Lib, checked, lost, made};
use crate::cuda::{Cuda, GpuMemory, Stream};
use crate::library::missing;
use gdsboot::bench::transfer::job::Direction;
use gdsboot::bench::worker::Failure;
use std::cell::UnsafeCell;
use std::ffi::c_uint;

/// No more streams than this for one thread: the GPU has few queues, and streams beyond these share them.
pub const MOST_STREAMS: u32 = 64;

/// CU_FILE_STREAM_FIXED_BUF_OFFSET, …_FILE_OFFSET and …_FILE_SIZE: what is handed over stands when the call is made.
const FIXED: c_uint = 1 | 2 | 4;
/// CU_FILE_STREAM_PAGE_ALIGNED_INPUTS: all of it in multiples of 4 KiB.
const PAGES: c_uint = 8;
/// What `done` holds until the library writes to it: no answer of its own.
const NOTHING: isize = isize::MIN;

/// What a call is handed by pointer.
struct Arguments {
    bytes: usize,
    offset: i64,
    from: i64,
    done: isize,
}

/// A stream that cuFile knows, where it has a function for that.
struct Known<'a> {
    lib: &'a Lib,
    stream: Stream<'a>,
    registered: bool,
}

/// Streams for as many transfers at a time, and what these are handed by pointer: it stays where it is until this is
/// dropped, and is touched by nobody but the library while a transfer is under way.
pub struct Streams<'a> {
    lib: &'a Lib,
    streams: Vec<Known<'a>>,
    arguments: Box<[UnsafeCell<Arguments>]>,
    direction: Direction,
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl<'a> Known<'a> {
    fn new(lib: &'a Lib, stream: Stream<'a>, flags: c_uint) -> Result<Self, Failure> {
        // SAFETY: the stream is alive until this is dropped.
        let registered = match unsafe { lib.functions.stream_register(stream.handle, flags) } {
            Ok(status) => checked("cuFileStreamRegister", status).map(|()| true)?,
            // Without it cuFile makes the same transfers, with less known of them beforehand.
            Err(_) => false,
        };
        Ok(Self { lib, stream, registered })
    }
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Drop for Known<'_> {
    fn drop(&mut self) {
        if self.registered {
            // SAFETY: it was registered, and nothing is under way on it.
            let _ = unsafe { self.lib.functions.stream_deregister(self.stream.handle) };
        }
    }
}

#[allow(unsafe_code, reason = "calls into libcufile, and memory that it writes to later")]
impl<'a> Streams<'a> {
    pub(super) fn new(
        lib: &'a Lib,
        cuda: &'a Cuda,
        count: u32,
        direction: Direction,
        pages: bool,
    ) -> Result<Self, Failure> {
        match direction {
            Direction::Read => lib.functions.read_async.ok_or_else(|| missing("cuFileReadAsync"))?,
            Direction::Write => lib.functions.write_async.ok_or_else(|| missing("cuFileWriteAsync"))?,
        };
        let flags = if pages { FIXED | PAGES } else { FIXED };
        let known = |_| Known::new(lib, cuda.stream()?, flags);
        let streams: Vec<_> = (0..count).map(known).collect::<Result<_, _>>()?;
        let none = || UnsafeCell::new(Arguments { bytes: 0, offset: 0, from: 0, done: NOTHING });
        Ok(Self { lib, streams, arguments: (0..count).map(|_| none()).collect(), direction })
    }

    /// Makes a transfer of `bytes` for each pair of memory and offset, each on a stream of its own, and waits for all;
    /// `results` becomes what each made.
    pub fn transfer<'m>(
        &mut self,
        handle: &Handle<'_>,
        bytes: usize,
        transfers: impl ExactSizeIterator<Item = (&'m GpuMemory<'m>, u64)>,
        results: &mut Vec<Result<usize, Failure>>,
    ) {
        assert!(transfers.len() <= self.streams.len(), "more than there are streams");
        let functions = &self.lib.functions;
        let function = match self.direction {
            Direction::Read => "cuFileReadAsync",
            Direction::Write => "cuFileWriteAsync",
        };
        results.clear();
        for ((memory, offset), (known, arguments)) in transfers.zip(self.streams.iter().zip(&self.arguments))
        {
            assert!(bytes <= memory.bytes, "more than the memory holds");
            let at = arguments.get();
            let stream = known.stream.handle;
            // SAFETY: no transfer of this stream is under way, so that nobody else touches its arguments. They, the handle
            // and the memory outlive the transfer, which is waited for; the memory is long enough.
            let status = unsafe {
                *at = Arguments { bytes, offset: offset as i64, from: 0, done: NOTHING };
                let (bytes, offset, from, done) =
                    (&raw mut (*at).bytes, &raw mut (*at).offset, &raw mut (*at).from, &raw mut (*at).done);
                match self.direction {
                    Direction::Read => {
                        functions.read_async(handle.handle, memory.address, bytes, offset, from, done, stream)
                    }
                    Direction::Write => functions.write_async(
                        handle.handle,
                        memory.address,
                        bytes,
                        offset,
                        from,
                        done,
                        stream,
                    ),
                }
            };
            results.push(status.and_then(|status| checked(function, status)).map(|()| 0));
        }
        for (result, (known, arguments)) in results.iter_mut().zip(self.streams.iter().zip(&self.arguments)) {
            // Where the call failed, the library may still have taken its arguments: every stream is waited for.
            if let Err(failure) = known.stream.wait() {
                lost(&format!("{failure}: nobody knows whether the transfers on the stream have ended"));
            }
            if result.is_ok() {
                // SAFETY: the stream has done all that it was asked for.
                let done = unsafe { (*arguments.get()).done };
                *result = match done {
                    NOTHING => made(function, -1, || "its stream ended, and it said nothing".into()),
                    done => made(function, done, || "-1, an error outside of cuFile".into()),
                };
            }
        }
    }
}
