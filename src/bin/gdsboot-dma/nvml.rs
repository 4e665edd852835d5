//! libnvidia-ml (nvml.h): what the driver's version is, and what it says of a GPU.

use crate::library::{Library, functions};
use gdsboot::bench::worker::Failure;
use gdsboot::bench::worker::gpu_state::reasons;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

functions! {
    init ["nvmlInit_v2"] () -> c_int;
    driver_version ["nvmlSystemGetDriverVersion"] (text: *mut c_char, length: c_uint) -> c_int;
    by_pci ["nvmlDeviceGetHandleByPciBusId_v2"] (address: *const c_char, device: *mut *mut c_void) -> c_int;
    bar1 ["nvmlDeviceGetBAR1MemoryInfo"] (device: *mut c_void, memory: *mut [u64; 3]) -> c_int;
    temperature ["nvmlDeviceGetTemperature"] (device: *mut c_void, sensor: c_int, celsius: *mut c_uint) -> c_int;
    reasons ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"] (device: *mut c_void, bits: *mut u64) -> c_int;
}

/// NVML_TEMPERATURE_GPU
const OF_GPU: c_int = 0;

/// NVML, ready to be asked. Its functions may be called by any thread.
#[derive(Clone, Copy)]
pub struct Nvml {
    functions: Functions,
    pub simulated: bool,
}

/// A GPU as NVML knows it.
pub struct Device {
    nvml: Nvml,
    handle: *mut c_void,
}

#[allow(unsafe_code, reason = "calls into NVML")]
impl Nvml {
    /// Loads it, and has it look for the driver.
    pub fn open() -> Result<Self, Failure> {
        let library = Library::open("libnvidia-ml.so.1")?;
        let nvml = Self { functions: Functions::load(&library), simulated: library.is_simulated() };
        // SAFETY: `nvmlReturn_t nvmlInit_v2(void)`.
        checked("nvmlInit_v2", unsafe { nvml.functions.init() }?)?;
        Ok(nvml)
    }

    /// The driver's version.
    pub fn driver_version(&self) -> Result<String, Failure> {
        // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE is 80.
        let mut text = [0_u8; 96];
        // SAFETY: it writes at most as many bytes as it is told; one less than there are keeps the text terminated.
        let status = unsafe { self.functions.driver_version(text.as_mut_ptr().cast(), 95) }?;
        checked("nvmlSystemGetDriverVersion", status)?;
        Ok(CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy().into_owned())
    }

    /// The GPU at a PCI address.
    pub fn device(&self, pci: &str) -> Result<Device, Failure> {
        let address = CString::new(pci).unwrap_or_default();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the address is terminated, and one handle is written.
        let status = unsafe { self.functions.by_pci(address.as_ptr(), &raw mut handle) }?;
        checked("nvmlDeviceGetHandleByPciBusId_v2", status)?;
        Ok(Device { nvml: *self, handle })
    }
}

#[allow(unsafe_code, reason = "calls into NVML")]
impl Device {
    /// How large its window on the bus is, in bytes.
    pub fn bar1(&self) -> Result<u64, Failure> {
        // nvmlBAR1Memory_t: total, free, used.
        let mut memory = [0; 3];
        // SAFETY: the handle is NVML's own, and three 64-bit numbers are written.
        let status = unsafe { self.nvml.functions.bar1(self.handle, &raw mut memory) }?;
        checked("nvmlDeviceGetBAR1MemoryInfo", status)?;
        Ok(memory[0])
    }

    /// Its temperature.
    pub fn celsius(&self) -> Result<u32, Failure> {
        let mut celsius = 0;
        // SAFETY: as above; one unsigned int is written.
        let status = unsafe { self.nvml.functions.temperature(self.handle, OF_GPU, &raw mut celsius) }?;
        checked("nvmlDeviceGetTemperature", status)?;
        Ok(celsius)
    }

    /// Why its clocks are held down.
    pub fn slowed(&self) -> Result<Vec<String>, Failure> {
        let mut bits = 0;
        // SAFETY: as above; one 64-bit number is written.
        let status = unsafe { self.nvml.functions.reasons(self.handle, &raw mut bits) }?;
        checked("nvmlDeviceGetCurrentClocksEventReasons", status)?;
        Ok(reasons(bits))
    }
}

fn checked(function: &str, status: c_int) -> Result<(), Failure> {
    if status == 0 {
        return Ok(());
    }
    Err(Failure { function: Some(function.into()), status: Some(status.into()), ..Failure::default() })
}
