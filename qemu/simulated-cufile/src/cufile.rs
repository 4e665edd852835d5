//! cufile.h: the driver, files, memory, and single transfers.

use crate::behaviour::{Route, behaviour};
use crate::between;
use crate::counters::{Way, count, count_error};
use crate::{crash, enter, hang};
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{OnceLock, RwLock};

/// Transfers so far.
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// Memory that was registered.
static BUFFERS: RwLock<Vec<Buffer>> = RwLock::new(Vec::new());

#[derive(Clone, Copy)]
struct Buffer {
    address: u64,
    bytes: usize,
    gpu: usize,
}

/// CUfileError_t as the ABI returns it.
pub fn error(status: c_int) -> u64 {
    status as u32 as u64
}

/// What the file of settings says.
struct Settings {
    compat_allowed: bool,
    compat_forced: bool,
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let file =
            std::env::var_os("CUFILE_ENV_PATH_JSON").and_then(|path| std::fs::read_to_string(path).ok());
        let text: String = file.unwrap_or_default().split_whitespace().collect();
        Settings {
            compat_allowed: !text.contains("\"allow_compat_mode\":false"),
            compat_forced: text.contains("\"force_compat_mode\":true"),
        }
    })
}

/// By which way transfers go; `None` where there is none.
fn way() -> Option<Way> {
    match behaviour().route {
        _ if settings().compat_forced && !behaviour().unforced => settings().compat_allowed.then_some(Way::Posix),
        Route::Nvfs => Some(Way::Nvfs),
        Route::P2pdma => Some(Way::P2p),
        Route::Compat => settings().compat_allowed.then_some(Way::Posix),
    }
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
        properties.add(7).write(u32::from(settings().compat_allowed) << 1);
    }
    error(enter("cuFileDriverGetProperties"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileDriverGetP2PFlags(_filesystem: c_int, flags: *mut c_uint) -> u64 {
    let bits = match way() {
        Some(Way::P2p) => 1,
        Some(Way::Nvfs) => 2,
        Some(Way::Posix) | None => 0,
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
    if way().is_none() {
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
    let Some((_, gpu)) = crate::cuda::found(memory).filter(|(size, _)| bytes <= *size) else {
        return error(5012);
    };
    let mut buffers = BUFFERS.write().unwrap();
    if buffers.iter().any(|buffer| buffer.address == memory) {
        return error(5023);
    }
    buffers.push(Buffer { address: memory, bytes, gpu });
    error(enter("cuFileBufRegister"))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFileBufDeregister(memory: u64) -> u64 {
    let mut buffers = BUFFERS.write().unwrap();
    let Some(at) = buffers.iter().position(|buffer| buffer.address == memory) else { return error(5024) };
    buffers.remove(at);
    between::say();
    error(enter("cuFileBufDeregister"))
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// A transfer, as it is wanted: the bytes that were made, -1 with an errno, or an error's number below 0.
pub unsafe fn transfer(
    write: bool,
    handle: *mut c_void,
    memory: u64,
    bytes: usize,
    offset: i64,
    from: i64,
) -> isize {
    let wanted = behaviour();
    let number = NUMBER.fetch_add(1, Relaxed);
    if wanted.hang_after.is_some_and(|made| number >= made) {
        hang();
    }
    if wanted.crash_after.is_some_and(|made| number >= made) {
        crash();
    }
    let found = BUFFERS.read().unwrap().iter().find(|buffer| buffer.address == memory).copied();
    let Some(Buffer { bytes: size, gpu, .. }) = found else { return -5024 };
    if usize::try_from(from).is_ok_and(|from| from.saturating_add(bytes) > size) || from < 0 {
        return -5014;
    }
    let status = enter(if write { "cuFileWrite" } else { "cuFileRead" });
    if status != 0 {
        count_error(gpu, write);
        if status < 0 {
            unsafe { *__errno_location() = -status };
            return -1;
        }
        return -(status as isize);
    }
    let bytes = if wanted.short.is_now(number) { bytes / 2 } else { bytes };
    // SAFETY: the worker keeps both open and alive.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(handle as usize as c_int) });
    let slice = unsafe { std::slice::from_raw_parts_mut((memory as i64 + from) as *mut u8, bytes) };
    if write && wanted.corrupt.is_now(number) {
        slice[bytes / 2] ^= 1;
    }
    let done = match write {
        _ if wanted.lost.is_now(number) => Ok(bytes),
        true => file.write_at(slice, offset as u64),
        false => file.read_at(slice, offset as u64),
    };
    let Ok(done) = done else {
        count_error(gpu, write);
        return -1;
    };
    if !write && wanted.corrupt.is_now(number) {
        slice[bytes / 2] ^= 1;
    }
    if !wanted.uncounted.is_now(number) {
        let way = if wanted.bounce.is_now(number) { None } else { way() };
        count(gpu, write, way.unwrap_or(Way::Posix), done);
    }
    done as isize
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileRead(
    handle: *mut c_void,
    memory: u64,
    bytes: usize,
    offset: i64,
    from: i64,
) -> isize {
    between::around(|| unsafe { transfer(false, handle, memory, bytes, offset, from) })
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
