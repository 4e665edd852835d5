//! cuda.h: GPUs whose memory is the CPU's.

use crate::{enter, number, setting, uuid};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What was allocated, by its address.
static MEMORY: Mutex<Option<HashMap<u64, Layout>>> = Mutex::new(None);
/// The device whose context was made last; a worker has one.
static DEVICE: AtomicUsize = AtomicUsize::new(0);
/// The next stream's handle, which is no address.
static STREAM: AtomicUsize = AtomicUsize::new(1);
/// CUDA_ERROR_INVALID_VALUE
const INVALID_VALUE: c_int = 1;

/// Copies text with its end into a buffer.
pub unsafe fn put(to: *mut c_char, length: usize, text: &str) {
    let count = text.len().min(length.saturating_sub(1));
    unsafe {
        to.cast::<u8>().copy_from(text.as_ptr(), count);
        to.add(count).write(0);
    }
}

fn allocate(bytes: usize) -> Option<u64> {
    let layout = Layout::from_size_align(bytes, 4096).ok().filter(|layout| layout.size() > 0)?;
    let address = unsafe { alloc(layout) } as u64;
    if address == 0 {
        return None;
    }
    MEMORY.lock().ok()?.get_or_insert_default().insert(address, layout);
    Some(address)
}

fn release(address: u64) -> bool {
    let layout = MEMORY.lock().ok().and_then(|mut memory| memory.as_mut()?.remove(&address));
    if let Some(layout) = layout {
        unsafe { dealloc(address as *mut u8, layout) };
    }
    layout.is_some()
}

/// The device that is worked with.
pub fn device() -> usize {
    DEVICE.load(Relaxed)
}

/// The bytes that were allocated at an address.
pub fn size(address: u64) -> Option<usize> {
    Some(MEMORY.lock().ok()?.as_ref()?.get(&address)?.size())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> c_int {
    enter("cuInit")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    unsafe { *version = 13010 };
    enter("cuDriverGetVersion")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(status: c_int, name: *mut *const c_char) -> c_int {
    let text = match status {
        1 => c"CUDA_ERROR_INVALID_VALUE",
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        100 => c"CUDA_ERROR_NO_DEVICE",
        802 => c"CUDA_ERROR_SYSTEM_NOT_READY",
        _ => return INVALID_VALUE,
    };
    unsafe { *name = text.as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    unsafe { *count = number("gpus").unwrap_or(1) as c_int };
    enter("cuDeviceGetCount")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, index: c_int) -> c_int {
    unsafe { *device = index };
    enter("cuDeviceGet")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(text: *mut c_char, length: c_int, _device: c_int) -> c_int {
    unsafe { put(text, length as usize, "Simulated GPU") };
    enter("cuDeviceGetName")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(bytes: *mut [u8; 16], device: c_int) -> c_int {
    unsafe { *bytes = uuid(device as usize) };
    enter("cuDeviceGetUuid")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    unsafe { *bytes = 48 << 30 };
    enter("cuDeviceTotalMem_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, length: c_int, device: c_int) -> c_int {
    let told = setting("pci").and_then(|all| all.split('/').nth(device as usize));
    let address = told.map_or_else(|| format!("0000:{:02X}:00.0", 0xc1 + device), str::to_owned);
    unsafe { put(text, length as usize, &address) };
    enter("cuDeviceGetPCIBusId")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    DEVICE.store(device as usize, Relaxed);
    unsafe { *context = std::ptr::dangling_mut() };
    enter("cuDevicePrimaryCtxRetain")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> c_int {
    enter("cuCtxSetCurrent")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    enter("cuCtxSynchronize")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(memory: *mut u64, bytes: usize) -> c_int {
    match allocate(bytes) {
        Some(address) => unsafe { *memory = address },
        None => return 2,
    }
    enter("cuMemAlloc_v2")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(memory: u64) -> c_int {
    if release(memory) { enter("cuMemFree_v2") } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuPointerSetAttribute(_value: *const c_void, _attribute: c_int, memory: u64) -> c_int {
    if size(memory).is_some() { enter("cuPointerSetAttribute") } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(memory: u64, value: u8, bytes: usize) -> c_int {
    unsafe { (memory as *mut u8).write_bytes(value, bytes) };
    enter("cuMemsetD8_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> c_int {
    unsafe { (to as *mut u8).copy_from(from.cast(), bytes) };
    enter("cuMemcpyHtoD_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> c_int {
    unsafe { to.cast::<u8>().copy_from(from as *const u8, bytes) };
    enter("cuMemcpyDtoH_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    unsafe { (to as *mut u8).copy_from(from.cast(), bytes) };
    enter("cuMemcpyHtoDAsync_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    unsafe { to.cast::<u8>().copy_from(from as *const u8, bytes) };
    enter("cuMemcpyDtoHAsync_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(memory: *mut *mut c_void, bytes: usize) -> c_int {
    match allocate(bytes) {
        Some(address) => unsafe { *memory = address as *mut c_void },
        None => return 2,
    }
    enter("cuMemAllocHost_v2")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(memory: *mut c_void) -> c_int {
    if release(memory as u64) { enter("cuMemFreeHost") } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) -> c_int {
    unsafe { *stream = STREAM.fetch_add(1, Relaxed) as *mut c_void };
    enter("cuStreamCreate")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> c_int {
    crate::cufile::make_pending(stream as usize);
    enter("cuStreamSynchronize")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: *mut c_void) -> c_int {
    enter("cuStreamDestroy_v2")
}
