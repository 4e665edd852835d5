//! libnvidia-ml (nvml.h): what the driver's version is, how large a GPU's window on the bus is, and how warm it becomes.

use crate::library::{Library, functions};
use gdsboot::bench::worker::{Failure, GpuState};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

functions! {
    init ["nvmlInit_v2"] () -> c_int;
    driver_version ["nvmlSystemGetDriverVersion"] (text: *mut c_char, length: c_uint) -> c_int;
    by_pci ["nvmlDeviceGetHandleByPciBusId_v2"] (address: *const c_char, device: *mut *mut c_void) -> c_int;
    temperature ["nvmlDeviceGetTemperature"] (device: *mut c_void, sensor: c_int, celsius: *mut c_uint) -> c_int;
    slowed ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"] (device: *mut c_void, reasons: *mut u64) -> c_int;
    bar1 ["nvmlDeviceGetBAR1MemoryInfo"] (device: *mut c_void, memory: *mut [u64; 3]) -> c_int;
}

/// A GPU that NVML knows.
#[derive(Clone, Copy)]
pub struct Device {
    functions: Functions,
    device: *mut c_void,
}

// SAFETY: NVML is thread-safe, and the handle is only passed back to it.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Send for Device {}

/// What NVML says of a GPU; each part that it does not say is a failure with its reason.
#[derive(Default)]
pub struct Said {
    pub driver_version: Option<String>,
    pub bar1: Option<u64>,
    pub device: Option<Device>,
    pub failures: Vec<Failure>,
    pub simulated: bool,
}

/// Asks about the GPU at a PCI address.
pub fn ask(pci: &str) -> Said {
    let mut said = Said::default();
    if let Err(failure) = said.ask(pci) {
        said.failures.push(failure);
    }
    said
}

impl Said {
    fn ask(&mut self, pci: &str) -> Result<(), Failure> {
        let library = Library::open("libnvidia-ml.so.1")?;
        self.simulated = library.is_simulated();
        let functions = Functions::load(&library);
        start(&functions)?;
        match version(&functions) {
            Ok(version) => self.driver_version = Some(version),
            Err(failure) => self.failures.push(failure),
        }
        let device = Device { functions, device: by_pci(&functions, pci)? };
        self.device = Some(device);
        self.bar1 = Some(device.bar1()?);
        Ok(())
    }
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
fn by_pci(functions: &Functions, pci: &str) -> Result<*mut c_void, Failure> {
    let address = CString::new(pci).unwrap_or_default();
    let mut device = std::ptr::null_mut();
    // SAFETY: the address is terminated, and one handle is written.
    let status = unsafe { functions.by_pci(address.as_ptr(), &raw mut device) }?;
    checked("nvmlDeviceGetHandleByPciBusId_v2", status)?;
    Ok(device)
}

#[allow(unsafe_code, reason = "calls into NVML")]
impl Device {
    fn bar1(&self) -> Result<u64, Failure> {
        // nvmlBAR1Memory_t: total, free, used.
        let mut memory = [0; 3];
        // SAFETY: the handle is NVML's own, and three 64-bit numbers are written.
        let status = unsafe { self.functions.bar1(self.device, &raw mut memory) }?;
        checked("nvmlDeviceGetBAR1MemoryInfo", status)?;
        Ok(memory[0])
    }

    /// Temperature and reasons for slow clocks; what NVML does not say is left out.
    fn state(&self, begun: Instant) -> GpuState {
        let (mut celsius, mut reasons) = (0, 0);
        // SAFETY: the handle is NVML's own, and one unsigned int is written; 0 is the sensor in the GPU itself.
        let warmth = unsafe { self.functions.temperature(self.device, 0, &raw mut celsius) };
        // SAFETY: the handle is NVML's own, and one 64-bit number is written.
        let slowed = unsafe { self.functions.slowed(self.device, &raw mut reasons) };
        GpuState {
            at_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            celsius: (warmth == Ok(0)).then_some(celsius),
            slowed: if slowed == Ok(0) { names(reasons) } else { Vec::new() },
        }
    }
}

/// The bits of nvmlClocksEventReasons, by the names of nvidia-smi's fields. An idle GPU is not slowed down.
const REASONS: [&str; 9] = [
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
];

fn names(reasons: u64) -> Vec<String> {
    let set = REASONS.into_iter().enumerate().skip(1).filter(|(bit, _)| reasons >> bit & 1 != 0);
    set.map(|(_, name)| name.to_owned()).collect()
}

/// Looks at a GPU while it works, in a thread that nobody waits for: NVML may hang where the driver is sick.
pub struct Watch {
    states: Arc<Mutex<Vec<GpuState>>>,
    /// Dropped to end it.
    _end: Sender<()>,
}

/// When the first look is taken: soon, so that short jobs have one.
const FIRST: Duration = Duration::from_millis(100);
const EVERY: Duration = Duration::from_secs(1);

impl Watch {
    /// Begins.
    pub fn start(device: Device) -> Self {
        let states = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = channel::<()>();
        let seen = Arc::clone(&states);
        // Without a thread there are no states.
        let _ = std::thread::Builder::new().name("nvml".into()).spawn(move || {
            // All of the device, not its fields, moves here.
            let device = device;
            let begun = Instant::now();
            let mut pause = FIRST;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let state = device.state(begun);
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(state);
                pause = EVERY;
            }
        });
        Self { states, _end: end }
    }

    /// What was seen.
    pub fn end(self) -> Vec<GpuState> {
        std::mem::take(&mut *self.states.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn checked(function: &str, status: c_int) -> Result<(), Failure> {
    if status == 0 {
        return Ok(());
    }
    Err(Failure { function: Some(function.into()), status: Some(status.into()), ..Failure::default() })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn reasons_have_nvidia_smi_s_names() {
        assert_eq!(names(1), [""; 0]);
        assert_eq!(names(0x4 | 0x40 | 1), ["sw_power_cap", "hw_thermal_slowdown"]);
        assert_eq!(names(u64::MAX).len(), 8);
    }
}
