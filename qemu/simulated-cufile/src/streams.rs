//! CUDA's streams, and the transfers of cufile.h on them. These are made as late as they may be, when the stream is waited
//! for: what a caller gave away too early is seen. Copies are made at once.

use crate::cufile::transfer;
use crate::{cuda, enter};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Mutex;

/// A transfer that is still to be made.
struct Queued {
    write: bool,
    handle: *mut c_void,
    memory: u64,
    at: Pointers,
    /// What stood at these places when it was submitted.
    then: [i64; 3],
    done: *mut isize,
}

/// Bytes, offset in the file, offset in memory.
type Pointers = [*const i64; 3];

#[derive(Default)]
pub struct Queue {
    transfers: Vec<Queued>,
    /// What cuFile was promised of them.
    flags: c_uint,
}

pub type Stream = Mutex<Queue>;

/// The bits of cuFileStreamRegister: what is fixed when a transfer is submitted, bytes last, and that all are pages.
const FIXED: [c_uint; 3] = [4, 2, 1];
const PAGES: c_uint = 8;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut Stream, _flags: c_uint) -> c_int {
    if cuda::current().is_none() {
        return cuda::NO_CONTEXT;
    }
    unsafe { *stream = Box::into_raw(Box::default()) };
    enter("cuStreamCreate")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: *mut Stream) -> c_int {
    let status = enter("cuStreamSynchronize");
    if status == 0 {
        unsafe { finish(&*stream) };
    }
    status
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: *mut Stream) -> c_int {
    let stream = unsafe { Box::from_raw(stream) };
    unsafe { finish(&stream) };
    enter("cuStreamDestroy_v2")
}

unsafe fn finish(stream: &Stream) {
    let mut queue = stream.lock().unwrap();
    let Queue { transfers, flags } = &mut *queue;
    for Queued { write, handle, memory, at, then, done } in transfers.drain(..) {
        let now = unsafe { read(at) };
        let fixed = FIXED
            .iter()
            .zip(now.iter().zip(then))
            .all(|(bit, (now, then))| *flags & bit == 0 || *now == then);
        let pages = *flags & PAGES == 0 || now.iter().all(|number| number % 4096 == 0);
        let [bytes, offset, from] = now;
        let made = match fixed && pages {
            true => unsafe { transfer(write, handle, memory, bytes as usize, offset, from) },
            false => -5022,
        };
        unsafe { done.write(made) };
    }
}

unsafe fn read(at: Pointers) -> [i64; 3] {
    at.map(|place| unsafe { place.read() })
}

#[cfg(not(feature = "old"))]
mod cufile {
    use super::{Pointers, Queued, Stream, read};
    use crate::cufile::error;
    use crate::enter;
    use std::ffi::{c_uint, c_void};

    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn cuFileStreamRegister(stream: *mut Stream, flags: c_uint) -> u64 {
        if flags > 15 {
            return error(5022);
        }
        unsafe { &*stream }.lock().unwrap().flags = flags;
        error(enter("cuFileStreamRegister"))
    }

    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn cuFileStreamDeregister(stream: *mut Stream) -> u64 {
        unsafe { &*stream }.lock().unwrap().flags = 0;
        error(enter("cuFileStreamDeregister"))
    }

    unsafe fn submit(function: &str, stream: *mut Stream, mut queued: Queued) -> u64 {
        let status = enter(function);
        if status == 0 {
            queued.then = unsafe { read(queued.at) };
            unsafe { &*stream }.lock().unwrap().transfers.push(queued);
        }
        error(status)
    }

    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn cuFileReadAsync(
        handle: *mut c_void,
        memory: u64,
        bytes: *const i64,
        offset: *const i64,
        from: *const i64,
        done: *mut isize,
        stream: *mut Stream,
    ) -> u64 {
        let at: Pointers = [bytes, offset, from];
        let queued = Queued { write: false, handle, memory, at, then: [0; 3], done };
        unsafe { submit("cuFileReadAsync", stream, queued) }
    }

    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn cuFileWriteAsync(
        handle: *mut c_void,
        memory: u64,
        bytes: *const i64,
        offset: *const i64,
        from: *const i64,
        done: *mut isize,
        stream: *mut Stream,
    ) -> u64 {
        let at: Pointers = [bytes, offset, from];
        let queued = Queued { write: true, handle, memory, at, then: [0; 3], done };
        unsafe { submit("cuFileWriteAsync", stream, queued) }
    }
}
