//! What NVIDIA's libraries say about themselves, before anything is transferred.

use crate::library::{is_simulated, words};
use gdsboot::facts::dma::{Call, DmaProbe, Library, VERSION};
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::io::Write as _;
use std::process::ExitCode;

/// Prints a [`DmaProbe`]; with `init`, cuInit is tried too.
pub fn main(init: bool) -> ExitCode {
    let probe = DmaProbe { v: VERSION, libraries: vec![cuda(init), cufile(), nvml()] };
    let line = match serde_json::to_string(&probe) {
        Ok(line) => line,
        Err(error) => {
            eprintln!("gdsboot-dma: error: writing the answer: {error}");
            return ExitCode::from(70);
        }
    };
    // Libraries may have left half a line behind.
    match writeln!(std::io::stdout(), "\n{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(69),
    }
}

/// A loaded library with what is said about it.
struct Loaded {
    library: libloading::Library,
    said: Library,
}

impl Loaded {
    /// Loads `name`; the error is a finished answer.
    #[allow(unsafe_code, reason = "loading a library runs its constructors")]
    fn open(name: &str) -> Result<Self, Library> {
        let mut said = Library { name: name.to_owned(), ..Library::default() };
        // SAFETY: NVIDIA's libraries are made to be loaded at run time, and this program is single-threaded and holds
        // nothing that their constructors could break; should one crash, the validator reports that.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => {
                said.path = loaded_path(name);
                said.simulated = is_simulated(&library);
                Ok(Self { library, said })
            }
            Err(error) => {
                said.error = Some(words(&error));
                Err(said)
            }
        }
    }

    /// The function `name`, as a pointer of type `F`; where the library has none, that is noted.
    #[allow(unsafe_code, reason = "a symbol has no type")]
    fn function<F: Copy>(&mut self, name: &str) -> Option<F> {
        // SAFETY: the callers name the type that the vendor's header declares for the function, and call it only while
        // `self.library` is loaded.
        match unsafe { self.library.get::<F>(name.as_bytes()) } {
            Ok(symbol) => Some(*symbol),
            Err(_) => {
                self.say(name, None, None);
                None
            }
        }
    }

    fn say(&mut self, function: &str, status: Option<i64>, value: Option<String>) {
        self.said.calls.push(Call { function: function.to_owned(), status, value });
    }
}

/// libcuda: the version that it was made for, before anything is initialised (cuda.h).
#[allow(unsafe_code, reason = "calls into libcuda")]
fn cuda(init: bool) -> Library {
    let mut cuda = match Loaded::open("libcuda.so.1") {
        Ok(loaded) => loaded,
        Err(said) => return said,
    };
    if let Some(get_version) =
        cuda.function::<unsafe extern "C" fn(*mut c_int) -> c_int>("cuDriverGetVersion")
    {
        let mut version = 0;
        // SAFETY: `CUresult cuDriverGetVersion(int *)` writes one int, and may be called before cuInit.
        let status = unsafe { get_version(&raw mut version) };
        let value = (status == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10));
        cuda.say("cuDriverGetVersion", Some(status.into()), value);
    }
    if init && let Some(cu_init) = cuda.function::<unsafe extern "C" fn(c_uint) -> c_int>("cuInit") {
        // SAFETY: `CUresult cuInit(unsigned int)` takes 0, the only value that is allowed.
        let status = unsafe { cu_init(0) };
        cuda.say("cuInit", Some(status.into()), None);
    }
    cuda.said
}

/// libcufile: its version, a function since 1.8 (cufile.h).
#[allow(unsafe_code, reason = "calls into libcufile")]
fn cufile() -> Library {
    let mut cufile = match Loaded::open("libcufile.so.0") {
        Ok(loaded) => loaded,
        Err(said) => return said,
    };
    // CUfileError_t is two ints by value, which the x86-64 ABI returns like one 64-bit integer.
    if let Some(get_version) = cufile.function::<unsafe extern "C" fn(*mut c_int) -> u64>("cuFileGetVersion")
    {
        let mut version = 0;
        // SAFETY: `CUfileError_t cuFileGetVersion(int *)` writes one int, and needs no open driver.
        let status = unsafe { get_version(&raw mut version) };
        // The first member, in the lower half, is the cuFile error.
        let status = (status & 0xffff_ffff) as u32;
        let value = (status == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10));
        cufile.say("cuFileGetVersion", Some(status.into()), value);
    }
    cufile.said
}

/// NVML: whether it finds a driver, and which (nvml.h).
#[allow(unsafe_code, reason = "calls into libnvidia-ml")]
fn nvml() -> Library {
    type Init = unsafe extern "C" fn() -> c_int;
    type Version = unsafe extern "C" fn(*mut c_char, c_uint) -> c_int;
    let mut nvml = match Loaded::open("libnvidia-ml.so.1") {
        Ok(loaded) => loaded,
        Err(said) => return said,
    };
    let Some(init) = nvml.function::<Init>("nvmlInit_v2") else { return nvml.said };
    // SAFETY: `nvmlReturn_t nvmlInit_v2(void)`.
    let status = unsafe { init() };
    nvml.say("nvmlInit_v2", Some(status.into()), None);
    if status != 0 {
        return nvml.said;
    }
    if let Some(get_version) = nvml.function::<Version>("nvmlSystemGetDriverVersion") {
        // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE is 80.
        let mut text = [0_u8; 96];
        // SAFETY: `nvmlReturn_t nvmlSystemGetDriverVersion(char *, unsigned int)` writes at most as many bytes as it is
        // told; one byte less than there is keeps the text terminated whatever it does.
        let status = unsafe { get_version(text.as_mut_ptr().cast(), 95) };
        let version = CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned());
        nvml.say("nvmlSystemGetDriverVersion", Some(status.into()), version.ok().filter(|_| status == 0));
    }
    if let Some(shutdown) = nvml.function::<Init>("nvmlShutdown") {
        // SAFETY: `nvmlReturn_t nvmlShutdown(void)`, after an nvmlInit_v2 that succeeded.
        let status = unsafe { shutdown() };
        nvml.say("nvmlShutdown", Some(status.into()), None);
    }
    nvml.said
}

/// The file that the loader chose for `name`, from this process's own mappings.
fn loaded_path(name: &str) -> Option<String> {
    // `libcuda.so.1` is a link to `libcuda.so.<driver>`, and mappings show the file that it leads to.
    let stem = name.split_once(".so").map_or(name, |(stem, _)| stem);
    let maps = fs_err::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let path = paths.find(|path| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so"))
    })?;
    Some(path.to_owned())
}
