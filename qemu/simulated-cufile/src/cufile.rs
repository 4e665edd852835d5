//! cufile.h

use crate::{crash, each, enter, hang, number, setting, uuid};
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

/// Transfers so far.
static NUMBER: AtomicU64 = AtomicU64::new(0);
static COUNTING: AtomicBool = AtomicBool::new(false);
/// Reads and writes: bytes, all, p2p, nvfs, posix, errors.
static COUNTERS: Mutex<[[u64; 6]; 2]> = Mutex::new([[0; 6]; 2]);
/// What was asked of a stream and is made when it is waited for.
static PENDING: Mutex<Vec<Pending>> = Mutex::new(Vec::new());
/// Where these are in CUfilePerGpuStats_t.
const OFFSETS: [[usize; 6]; 2] = [[16, 48, 56, 64, 72, 112], [120, 152, 160, 168, 176, 200]];
static BUFFERS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// CUfileError_t as the ABI returns it.
fn error(status: c_int) -> u64 {
    status as u32 as u64
}

/// Does the settings' file hold this, spaces aside?
fn configured(text: &str) -> bool {
    static FILE: OnceLock<String> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let path = std::env::var("CUFILE_ENV_PATH_JSON").unwrap_or_default();
        std::fs::read_to_string(path).unwrap_or_default().split_whitespace().collect()
    });
    file.contains(text)
}

fn compat_allowed() -> bool {
    !configured("\"allow_compat_mode\":false")
}

/// The place of the route's counter; `None` where there is no route.
fn route() -> Option<usize> {
    let found = match setting("route") {
        _ if configured("\"force_compat_mode\":true") => 4,
        Some("nvfs") => 3,
        Some("p2pdma") => 2,
        _ => 4,
    };
    (found != 4 || compat_allowed()).then_some(found)
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileGetVersion(version: *mut c_int) -> u64 {
    unsafe { *version = 1161 };
    error(enter("cuFileGetVersion"))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFileDriverOpen() -> u64 {
    error(enter("cuFileDriverOpen"))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFileDriverClose_v2() -> u64 {
    error(enter("cuFileDriverClose"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileDriverGetProperties(properties: *mut c_uint) -> u64 {
    unsafe {
        properties.write(2);
        properties.add(1).write(27);
        // dcontrolflags
        properties.add(7).write(u32::from(compat_allowed()) << 1);
    }
    error(enter("cuFileDriverGetProperties"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileDriverGetP2PFlags(_filesystem: c_int, flags: *mut c_uint) -> u64 {
    let bits = match route() {
        Some(2) => 1,
        Some(3) => 2,
        _ => 0,
    };
    unsafe { *flags = bits };
    error(enter("cuFileDriverGetP2PFlags"))
}

/// CUfileDescr_t.
#[repr(C)]
pub struct Descriptor {
    kind: c_uint,
    /// A union with a pointer.
    fd: u64,
    _operations: *const c_void,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileHandleRegister(
    handle: *mut *mut c_void,
    descriptor: *const Descriptor,
) -> u64 {
    let Descriptor { kind, fd, .. } = unsafe { descriptor.read() };
    if kind != 1 {
        return error(5022);
    }
    if route().is_none() {
        return error(5008);
    }
    // Never null: descriptors are more than 2.
    unsafe { *handle = (fd as u32) as usize as *mut c_void };
    error(enter("cuFileHandleRegister"))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFileHandleDeregister(_handle: *mut c_void) {
    enter("cuFileHandleDeregister");
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFileBufRegister(memory: u64, bytes: usize, _flags: c_int) -> u64 {
    if crate::cuda::size(memory).is_none_or(|size| bytes > size) {
        return error(5012);
    }
    let mut buffers = BUFFERS.lock().unwrap();
    if buffers.contains(&memory) {
        return error(5023);
    }
    buffers.push(memory);
    error(enter("cuFileBufRegister"))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFileBufDeregister(memory: u64) -> u64 {
    let mut buffers = BUFFERS.lock().unwrap();
    let Some(at) = buffers.iter().position(|buffer| *buffer == memory) else { return error(5024) };
    buffers.remove(at);
    error(enter("cuFileBufDeregister"))
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// A transfer, as the settings want it.
unsafe fn transfer(
    write: bool,
    handle: *mut c_void,
    memory: u64,
    bytes: usize,
    offset: i64,
    from: i64,
) -> isize {
    let function = if write { "cuFileWrite" } else { "cuFileRead" };
    let count = NUMBER.fetch_add(1, Relaxed);
    if number("hang_after").is_some_and(|after| count >= after) {
        hang();
    }
    if number("crash_after").is_some_and(|after| count >= after) {
        crash();
    }
    let status = enter(function);
    let direction = usize::from(write);
    if status != 0 {
        COUNTERS.lock().unwrap()[direction][5] += 1;
        if status < 0 {
            unsafe { *__errno_location() = -status };
            return -1;
        }
        return -(status as isize);
    }
    if !BUFFERS.lock().unwrap().contains(&memory) {
        return -5024;
    }
    let bytes = if each("short", count) { bytes / 2 } else { bytes };
    // SAFETY: the worker keeps both open and alive.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(handle as usize as c_int) });
    let slice = unsafe { std::slice::from_raw_parts_mut((memory as i64 + from) as *mut u8, bytes) };
    if write && each("corrupt", count) {
        slice[bytes / 2] ^= 1;
    }
    let done = match write {
        _ if each("lost", count) => Ok(bytes),
        true => file.write_at(slice, offset as u64),
        false => file.read_at(slice, offset as u64),
    };
    let Ok(done) = done else { return -1 };
    if !write && each("corrupt", count) {
        slice[bytes / 2] ^= 1;
    }
    if COUNTING.load(Relaxed) && !each("uncounted", count) {
        let route = if each("bounce", count) { 4 } else { route().unwrap_or(4) };
        let counters = &mut COUNTERS.lock().unwrap()[direction];
        counters[0] += done as u64;
        counters[1] += 1;
        counters[route] += 1;
    }
    done as isize
}

/// A transfer on a stream: what it is about is read when it is made, through the caller's pointers.
struct Pending {
    stream: usize,
    write: bool,
    handle: usize,
    memory: u64,
    /// `size_t *`, `off_t *`, `off_t *`, `ssize_t *`.
    pointers: [usize; 4],
}

/// Asks a stream for a transfer.
#[cfg(not(feature = "old"))]
fn later(pending: Pending, function: &str) -> u64 {
    let status = enter(function);
    if status == 0 {
        PENDING.lock().unwrap().push(pending);
    }
    error(status)
}

/// Makes what was asked of a stream.
pub fn make_pending(stream: usize) {
    let mut pending = PENDING.lock().unwrap();
    let (ours, others): (Vec<_>, Vec<_>) = pending.drain(..).partition(|pending| pending.stream == stream);
    *pending = others;
    drop(pending);
    for Pending { write, handle, memory, pointers: [bytes, offset, from, done], .. } in ours {
        // SAFETY: the vendor asks the caller to keep all four until the stream has been waited for.
        unsafe {
            let (bytes, offset, from) =
                (*(bytes as *const usize), *(offset as *const i64), *(from as *const i64));
            *(done as *mut isize) = transfer(write, handle as *mut c_void, memory, bytes, offset, from);
        }
    }
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileStreamRegister(_stream: *mut c_void, _flags: c_uint) -> u64 {
    error(enter("cuFileStreamRegister"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileStreamDeregister(_stream: *mut c_void) -> u64 {
    error(enter("cuFileStreamDeregister"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileReadAsync(
    handle: *mut c_void,
    memory: u64,
    bytes: *mut usize,
    offset: *mut i64,
    from: *mut i64,
    done: *mut isize,
    stream: *mut c_void,
) -> u64 {
    let pointers = [bytes as usize, offset as usize, from as usize, done as usize];
    let pending = Pending { stream: stream as usize, write: false, handle: handle as usize, memory, pointers };
    later(pending, "cuFileReadAsync")
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileWriteAsync(
    handle: *mut c_void,
    memory: u64,
    bytes: *mut usize,
    offset: *mut i64,
    from: *mut i64,
    done: *mut isize,
    stream: *mut c_void,
) -> u64 {
    let pointers = [bytes as usize, offset as usize, from as usize, done as usize];
    let pending = Pending { stream: stream as usize, write: true, handle: handle as usize, memory, pointers };
    later(pending, "cuFileWriteAsync")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileRead(
    handle: *mut c_void,
    memory: u64,
    bytes: usize,
    offset: i64,
    from: i64,
) -> isize {
    unsafe { transfer(false, handle, memory, bytes, offset, from) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileWrite(
    handle: *mut c_void,
    memory: u64,
    bytes: usize,
    offset: i64,
    from: i64,
) -> isize {
    unsafe { transfer(true, handle, memory, bytes, offset, from) }
}

/// CUfileIOParams_t.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Transfer {
    _mode: c_int,
    memory: u64,
    offset: i64,
    from: i64,
    bytes: usize,
    handle: *mut c_void,
    opcode: c_int,
    cookie: usize,
}

/// CUfileIOEvents_t.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Event {
    cookie: usize,
    status: c_int,
    returned: usize,
}

type Batch = Vec<Event>;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIOSetUp(batch: *mut *mut Batch, count: c_uint) -> u64 {
    if count > 128 {
        return error(5022);
    }
    unsafe { *batch = Box::into_raw(Box::default()) };
    error(enter("cuFileBatchIOSetUp"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIOSubmit(
    batch: *mut Batch,
    count: c_uint,
    transfers: *const Transfer,
    _flags: c_uint,
) -> u64 {
    let status = enter("cuFileBatchIOSubmit");
    if status != 0 {
        return error(status);
    }
    for entry in unsafe { std::slice::from_raw_parts(transfers, count as usize) } {
        let Transfer { memory, offset, from, bytes, handle, opcode, cookie, .. } = *entry;
        let done = unsafe { transfer(opcode == 1, handle, memory, bytes, offset, from) };
        // CUFILE_COMPLETE and CUFILE_FAILED
        let (status, returned) = if done < 0 { (64, 0) } else { (16, done as usize) };
        unsafe { (*batch).push(Event { cookie, status, returned }) };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIOGetStatus(
    batch: *mut Batch,
    _least: c_uint,
    count: *mut c_uint,
    events: *mut Event,
    _limit: *mut c_void,
) -> u64 {
    // Never all at a time, so that the caller has to ask again.
    let batch = unsafe { &mut *batch };
    let some = batch.len().div_ceil(2).min(unsafe { *count } as usize);
    for (index, event) in batch.drain(..some).enumerate() {
        unsafe { events.add(index).write(event) };
    }
    unsafe { *count = some as c_uint };
    error(enter("cuFileBatchIOGetStatus"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIODestroy(batch: *mut Batch) {
    drop(unsafe { Box::from_raw(batch) });
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileSetStatsLevel(_level: c_int) -> u64 {
    error(enter("cuFileSetStatsLevel"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileStatsStart() -> u64 {
    COUNTING.store(true, Relaxed);
    error(enter("cuFileStatsStart"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileGetStatsL3(stats: *mut u8) -> u64 {
    let (length, count) = match setting("stats") {
        Some("new") => (5112, 1136),
        Some("partial") => (1136 + 8 + 248, 1136),
        Some("strange") => (5200, 1200),
        _ => (5000, 1024),
    };
    let mut bytes = vec![0; length];
    bytes[count] = 1;
    let gpu = &mut bytes[count + 8..][..248];
    if setting("anonymous").is_none() {
        gpu[..16].copy_from_slice(&uuid(crate::cuda::device()));
    }
    let counters = COUNTERS.lock().unwrap();
    for (offset, counter) in OFFSETS.as_flattened().iter().zip(counters.as_flattened()) {
        gpu[*offset..][..8].copy_from_slice(&counter.to_le_bytes());
    }
    unsafe { stats.copy_from(bytes.as_ptr(), length) };
    error(enter("cuFileGetStatsL3"))
}
