//! cuda.h: GPUs whose memory is the CPU's. A context's handle is its device's number, from 1 on.

use crate::behaviour::{Gpu, behaviour};
use crate::enter;
use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Mutex;

/// What was allocated, by its address, and on which device.
static MEMORY: Mutex<Option<HashMap<u64, (Layout, usize)>>> = Mutex::new(None);
thread_local! {
    /// The thread's context.
    static CONTEXT: Cell<usize> = const { Cell::new(0) };
}
/// CUDA_ERROR_INVALID_VALUE
const INVALID_VALUE: c_int = 1;
/// CUDA_ERROR_OUT_OF_MEMORY
const OUT_OF_MEMORY: c_int = 2;
/// CUDA_ERROR_INVALID_DEVICE
const INVALID_DEVICE: c_int = 101;
/// CUDA_ERROR_INVALID_CONTEXT
pub const NO_CONTEXT: c_int = 201;

/// The device of the thread's context.
pub fn current() -> Option<usize> {
    CONTEXT.get().checked_sub(1)
}

fn gpu(device: c_int) -> Option<&'static Gpu> {
    behaviour().gpus.get(usize::try_from(device).ok()?)
}

/// Copies text with its end into a buffer.
pub unsafe fn put(to: *mut c_char, length: usize, text: &str) {
    let count = text.len().min(length.saturating_sub(1));
    unsafe {
        to.cast::<u8>().copy_from(text.as_ptr(), count);
        to.add(count).write(0);
    }
}

unsafe extern "C" {
    fn madvise(address: *mut u8, bytes: usize, advice: c_int) -> c_int;
}

/// MADV_HUGEPAGE
const HUGE: c_int = 14;
/// A GPU's memory is of one piece. Here that goes for what is at least half as large as one of the CPU's huge pages: how
/// many small pieces there are would decide how fast a transfer is.
const PIECE: usize = 2 << 20;

/// Memory of the thread's device, or the status that says why there is none.
fn allocate(bytes: usize) -> Result<u64, c_int> {
    let device = current().ok_or(NO_CONTEXT)?;
    let (bytes, align) =
        if bytes < PIECE / 2 { (bytes, 4096) } else { (bytes.next_multiple_of(PIECE), PIECE) };
    let layout = Layout::from_size_align(bytes, align).ok().filter(|layout| layout.size() > 0);
    let layout = layout.ok_or(INVALID_VALUE)?;
    let memory = unsafe { alloc(layout) };
    if memory.is_null() {
        return Err(OUT_OF_MEMORY);
    }
    if align == PIECE {
        // Where the kernel does not do it, it is slower and nothing else.
        unsafe { madvise(memory, bytes, HUGE) };
    }
    let address = memory as u64;
    MEMORY.lock().unwrap().get_or_insert_default().insert(address, (layout, device));
    Ok(address)
}

fn release(address: u64) -> bool {
    let found = MEMORY.lock().unwrap().as_mut().and_then(|memory| memory.remove(&address));
    if let Some((layout, _)) = found {
        unsafe { dealloc(address as *mut u8, layout) };
    }
    found.is_some()
}

/// The bytes that were allocated at an address, and the device that they are on.
pub fn found(address: u64) -> Option<(usize, usize)> {
    let memory = MEMORY.lock().unwrap();
    let (layout, device) = memory.as_ref()?.get(&address)?;
    Some((layout.size(), *device))
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
        101 => c"CUDA_ERROR_INVALID_DEVICE",
        201 => c"CUDA_ERROR_INVALID_CONTEXT",
        700 => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        802 => c"CUDA_ERROR_SYSTEM_NOT_READY",
        _ => return INVALID_VALUE,
    };
    unsafe { *name = text.as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    unsafe { *count = behaviour().gpus.len() as c_int };
    enter("cuDeviceGetCount")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, index: c_int) -> c_int {
    if gpu(index).is_none() {
        return INVALID_DEVICE;
    }
    unsafe { *device = index };
    enter("cuDeviceGet")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(text: *mut c_char, length: c_int, device: c_int) -> c_int {
    if gpu(device).is_none() {
        return INVALID_DEVICE;
    }
    unsafe { put(text, length as usize, "Simulated GPU") };
    enter("cuDeviceGetName")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> c_int {
    let Some(gpu) = gpu(device) else { return INVALID_DEVICE };
    unsafe { *uuid = gpu.uuid };
    enter("cuDeviceGetUuid")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> c_int {
    if gpu(device).is_none() {
        return INVALID_DEVICE;
    }
    unsafe { *bytes = 48 << 30 };
    enter("cuDeviceTotalMem_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, length: c_int, device: c_int) -> c_int {
    let Some(gpu) = gpu(device) else { return INVALID_DEVICE };
    unsafe { put(text, length as usize, &gpu.pci) };
    enter("cuDeviceGetPCIBusId")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    if gpu(device).is_none() {
        return INVALID_DEVICE;
    }
    unsafe { *context = (device as usize + 1) as *mut c_void };
    enter("cuDevicePrimaryCtxRetain")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    if context as usize > behaviour().gpus.len() {
        return NO_CONTEXT;
    }
    CONTEXT.set(context as usize);
    enter("cuCtxSetCurrent")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    if current().is_some() { enter("cuCtxSynchronize") } else { NO_CONTEXT }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(memory: *mut u64, bytes: usize) -> c_int {
    match allocate(bytes) {
        Ok(address) => unsafe { *memory = address },
        Err(status) => return status,
    }
    enter("cuMemAlloc_v2")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(memory: u64) -> c_int {
    if release(memory) { enter("cuMemFree_v2") } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuPointerSetAttribute(_value: *const c_void, _attribute: c_int, memory: u64) -> c_int {
    if found(memory).is_some() { enter("cuPointerSetAttribute") } else { INVALID_VALUE }
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
        Ok(address) => unsafe { *memory = address as *mut c_void },
        Err(status) => return status,
    }
    enter("cuMemAllocHost_v2")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(memory: *mut c_void) -> c_int {
    if release(memory as u64) { enter("cuMemFreeHost") } else { INVALID_VALUE }
}
