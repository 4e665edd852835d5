//! libnvidia-ml (nvml.h): what the driver's version is and how large a GPU's window on the bus is.

use crate::library::{Library, functions};
use gdsboot::bench::worker::Failure;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

functions! {
    init ["nvmlInit_v2"] () -> c_int;
    driver_version ["nvmlSystemGetDriverVersion"] (text: *mut c_char, length: c_uint) -> c_int;
    by_pci ["nvmlDeviceGetHandleByPciBusId_v2"] (address: *const c_char, device: *mut *mut c_void) -> c_int;
    bar1 ["nvmlDeviceGetBAR1MemoryInfo"] (device: *mut c_void, memory: *mut [u64; 3]) -> c_int;
}

/// What NVML says of a GPU; each part that it does not say is a failure with its reason.
#[derive(Default)]
pub struct Said {
    pub driver_version: Option<String>,
    pub bar1: Option<u64>,
    pub failures: Vec<Failure>,
    pub simulated: bool,
}

/// Asks about the GPU at a PCI address.
pub fn ask(pci: &str) -> Said {
    let mut said = Said::default();
    let library = match Library::open("libnvidia-ml.so.1") {
        Ok(library) => library,
        Err(failure) => {
            said.failures.push(failure);
            return said;
        }
    };
    said.simulated = library.is_simulated();
    let functions = Functions::load(&library);
    if let Err(failure) = start(&functions) {
        said.failures.push(failure);
        return said;
    }
    match version(&functions) {
        Ok(version) => said.driver_version = Some(version),
        Err(failure) => said.failures.push(failure),
    }
    match bar1(&functions, pci) {
        Ok(bytes) => said.bar1 = Some(bytes),
        Err(failure) => said.failures.push(failure),
    }
    said
}

#[allow(unsafe_code, reason = "calls into NVML")]
fn start(functions: &Functions) -> Result<(), Failure> {
    // SAFETY: `nvmlReturn_t nvmlInit_v2(void)`.
    checked("nvmlInit_v2", unsafe { functions.init() }?)
}

#[allow(unsafe_code, reason = "calls into NVML")]
fn version(functions: &Functions) -> Result<String, Failure> {
    // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE is 80.
    let mut text = [0_u8; 96];
    // SAFETY: it writes at most as many bytes as it is told; one less than there are keeps the text terminated.
    let status = unsafe { functions.driver_version(text.as_mut_ptr().cast(), 95) }?;
    checked("nvmlSystemGetDriverVersion", status)?;
    Ok(CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy().into_owned())
}

#[allow(unsafe_code, reason = "calls into NVML")]
fn bar1(functions: &Functions, pci: &str) -> Result<u64, Failure> {
    let address = CString::new(pci).unwrap_or_default();
    let mut device = std::ptr::null_mut();
    // SAFETY: the address is terminated, and one handle is written.
    let status = unsafe { functions.by_pci(address.as_ptr(), &raw mut device) }?;
    checked("nvmlDeviceGetHandleByPciBusId_v2", status)?;
    // nvmlBAR1Memory_t: total, free, used.
    let mut memory = [0; 3];
    // SAFETY: the handle is NVML's own, and three 64-bit numbers are written.
    let status = unsafe { functions.bar1(device, &raw mut memory) }?;
    checked("nvmlDeviceGetBAR1MemoryInfo", status)?;
    Ok(memory[0])
}

fn checked(function: &str, status: c_int) -> Result<(), Failure> {
    if status == 0 {
        return Ok(());
    }
    Err(Failure { function: Some(function.into()), status: Some(status.into()), ..Failure::default() })
}
