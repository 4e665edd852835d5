//! nvml.h

use crate::{enter, number};
use std::ffi::{c_char, c_int, c_uint, c_void};

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
    _address: *const c_char,
    device: *mut *mut c_void,
) -> c_int {
    unsafe { *device = std::ptr::dangling_mut() };
    enter("nvmlDeviceGetHandleByPciBusId_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetBAR1MemoryInfo(_device: *mut c_void, memory: *mut [u64; 3]) -> c_int {
    unsafe { *memory = [64 << 30, 63 << 30, 1 << 30] };
    enter("nvmlDeviceGetBAR1MemoryInfo")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    _device: *mut c_void,
    _sensor: c_int,
    celsius: *mut c_uint,
) -> c_int {
    unsafe { *celsius = number("celsius").unwrap_or(40) as c_uint };
    enter("nvmlDeviceGetTemperature")
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksEventReasons(
    _device: *mut c_void,
    reasons: *mut u64,
) -> c_int {
    unsafe { *reasons = number("slowed").unwrap_or(1) };
    enter("nvmlDeviceGetCurrentClocksEventReasons")
}

#[cfg(feature = "old")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    _device: *mut c_void,
    reasons: *mut u64,
) -> c_int {
    unsafe { *reasons = number("slowed").unwrap_or(1) };
    enter("nvmlDeviceGetCurrentClocksThrottleReasons")
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    enter("nvmlShutdown")
}
