//! nvml.h. A device's handle is its place in libcuda's order, from 1 on.

use crate::behaviour::{Gpu, behaviour};
use crate::enter;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// NVML_ERROR_INVALID_ARGUMENT
const INVALID_ARGUMENT: c_int = 2;
/// NVML_ERROR_NOT_FOUND
const NOT_FOUND: c_int = 6;

fn gpu(device: *mut c_void) -> Option<&'static Gpu> {
    behaviour().gpus.get((device as usize).checked_sub(1)?)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    enter("nvmlInit_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> c_int {
    unsafe { crate::cuda::put(text, length as usize, "590.44.01") };
    enter("nvmlSystemGetDriverVersion")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    address: *const c_char,
    device: *mut *mut c_void,
) -> c_int {
    let address = unsafe { CStr::from_ptr(address) }.to_string_lossy();
    let Some(index) = behaviour().gpus.iter().position(|gpu| gpu.pci.eq_ignore_ascii_case(&address)) else {
        return NOT_FOUND;
    };
    unsafe { *device = (index + 1) as *mut c_void };
    enter("nvmlDeviceGetHandleByPciBusId_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetBAR1MemoryInfo(device: *mut c_void, memory: *mut [u64; 3]) -> c_int {
    if gpu(device).is_none() {
        return INVALID_ARGUMENT;
    }
    unsafe { *memory = [64 << 30, 63 << 30, 1 << 30] };
    enter("nvmlDeviceGetBAR1MemoryInfo")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: *mut c_void,
    sensor: c_int,
    celsius: *mut c_uint,
) -> c_int {
    // NVML_TEMPERATURE_GPU is the only sensor.
    if gpu(device).is_none() || sensor != 0 {
        return INVALID_ARGUMENT;
    }
    unsafe { *celsius = behaviour().celsius };
    enter("nvmlDeviceGetTemperature")
}

unsafe fn reasons(function: &str, device: *mut c_void, reasons: *mut u64) -> c_int {
    if gpu(device).is_none() {
        return INVALID_ARGUMENT;
    }
    unsafe { *reasons = behaviour().slowed };
    enter(function)
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksEventReasons(
    device: *mut c_void,
    bits: *mut u64,
) -> c_int {
    unsafe { reasons("nvmlDeviceGetCurrentClocksEventReasons", device, bits) }
}

/// As it was called before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: *mut c_void,
    bits: *mut u64,
) -> c_int {
    unsafe { reasons("nvmlDeviceGetCurrentClocksThrottleReasons", device, bits) }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    enter("nvmlShutdown")
}
