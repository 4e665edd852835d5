//! cuda.h: one GPU whose memory is the CPU's.

use crate::{UUID, enter};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Mutex;

/// What was allocated, by its address.
static MEMORY: Mutex<Option<HashMap<u64, Layout>>> = Mutex::new(None);
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
    unsafe { *count = 1 };
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
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], _device: c_int) -> c_int {
    unsafe { *uuid = UUID };
    enter("cuDeviceGetUuid")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    unsafe { *bytes = 48 << 30 };
    enter("cuDeviceTotalMem_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, length: c_int, _device: c_int) -> c_int {
    unsafe { put(text, length as usize, "0000:C1:00.0") };
    enter("cuDeviceGetPCIBusId")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) -> c_int {
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
    unsafe { *stream = std::ptr::dangling_mut() };
    enter("cuStreamCreate")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> c_int {
    enter("cuStreamSynchronize")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: *mut c_void) -> c_int {
    enter("cuStreamDestroy_v2")
}
