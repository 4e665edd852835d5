//! libcuda's driver API (cuda.h): a GPU, its memory, and copies between it and the CPU's.

use crate::library::{Library, functions};
use gdsboot::bench::worker::Failure;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

functions! {
    init ["cuInit"] (flags: c_uint) -> c_int;
    driver_version ["cuDriverGetVersion"] (version: *mut c_int) -> c_int;
    error_name ["cuGetErrorName"] (status: c_int, name: *mut *const c_char) -> c_int;
    count ["cuDeviceGetCount"] (count: *mut c_int) -> c_int;
    device ["cuDeviceGet"] (device: *mut c_int, index: c_int) -> c_int;
    name ["cuDeviceGetName"] (text: *mut c_char, length: c_int, device: c_int) -> c_int;
    uuid ["cuDeviceGetUuid"] (uuid: *mut [u8; 16], device: c_int) -> c_int;
    memory ["cuDeviceTotalMem_v2"] (bytes: *mut usize, device: c_int) -> c_int;
    pci ["cuDeviceGetPCIBusId"] (text: *mut c_char, length: c_int, device: c_int) -> c_int;
    retain ["cuDevicePrimaryCtxRetain"] (context: *mut *mut c_void, device: c_int) -> c_int;
    set_current ["cuCtxSetCurrent"] (context: *mut c_void) -> c_int;
    synchronize ["cuCtxSynchronize"] () -> c_int;
    alloc ["cuMemAlloc_v2"] (memory: *mut u64, bytes: usize) -> c_int;
    free ["cuMemFree_v2"] (memory: u64) -> c_int;
    set_attribute ["cuPointerSetAttribute"] (value: *const c_void, attribute: c_int, memory: u64) -> c_int;
    fill ["cuMemsetD8_v2"] (memory: u64, value: u8, bytes: usize) -> c_int;
    copy_in ["cuMemcpyHtoD_v2"] (to: u64, from: *const c_void, bytes: usize) -> c_int;
    copy_out ["cuMemcpyDtoH_v2"] (to: *mut c_void, from: u64, bytes: usize) -> c_int;
    copy_in_async ["cuMemcpyHtoDAsync_v2"] (to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) -> c_int;
    copy_out_async ["cuMemcpyDtoHAsync_v2"] (to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void) -> c_int;
    alloc_host ["cuMemAllocHost_v2"] (memory: *mut *mut c_void, bytes: usize) -> c_int;
    free_host ["cuMemFreeHost"] (memory: *mut c_void) -> c_int;
    stream ["cuStreamCreate"] (stream: *mut *mut c_void, flags: c_uint) -> c_int;
    stream_wait ["cuStreamSynchronize"] (stream: *mut c_void) -> c_int;
    stream_destroy ["cuStreamDestroy_v2"] (stream: *mut c_void) -> c_int;
}

/// CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
const SYNC_MEMOPS: c_int = 6;
/// CU_STREAM_NON_BLOCKING
const NON_BLOCKING: c_uint = 1;
/// GPUs map their memory for others in pieces of this size.
const GRANULE: usize = 64 << 10;

/// libcuda, with a GPU's primary context once one is open. Its functions may be called by any thread.
pub struct Cuda {
    functions: Functions,
    context: *mut c_void,
    pub simulated: bool,
}

// SAFETY: the driver API is thread-safe, and the context is a handle that is only passed back to it.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Sync for Cuda {}

/// A device, and what libcuda says of it.
pub struct Device {
    number: c_int,
    pub name: String,
    pub uuid: [u8; 16],
    pub pci: String,
    pub memory: u64,
}

#[allow(unsafe_code, reason = "calls into libcuda")]
impl Cuda {
    /// Loads the library; nothing is opened yet.
    pub fn load() -> Result<Self, Failure> {
        let library = Library::open("libcuda.so.1")?;
        let functions = Functions::load(&library);
        Ok(Self { functions, context: null_mut(), simulated: library.is_simulated() })
    }

    fn checked(&self, function: &str, status: c_int) -> Result<(), Failure> {
        if status == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: it hands out a constant text, or none where it does not know the number.
        let known = unsafe { self.functions.error_name(status, &raw mut name) };
        let name = (known == Ok(0) && !name.is_null()).then(|| {
            // SAFETY: a terminated constant of the library, which is never unloaded.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        });
        Err(Failure {
            function: Some(function.into()),
            status: Some(status.into()),
            name,
            ..Failure::default()
        })
    }

    /// Its version, such as `13.1`.
    pub fn version(&self) -> Result<String, Failure> {
        let mut version = 0;
        // SAFETY: one int is written; it may be called before cuInit.
        self.checked("cuDriverGetVersion", unsafe { self.functions.driver_version(&raw mut version) }?)?;
        Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
    }

    /// Opens the driver, which opens every GPU.
    pub fn init(&self) -> Result<(), Failure> {
        // SAFETY: 0 is the only value that is allowed.
        self.checked("cuInit", unsafe { self.functions.init(0) }?)
    }

    /// How many devices there are.
    pub fn count(&self) -> Result<u32, Failure> {
        let mut count = 0;
        // SAFETY: one int is written.
        self.checked("cuDeviceGetCount", unsafe { self.functions.count(&raw mut count) }?)?;
        Ok(count.try_into().unwrap_or_default())
    }

    /// What a device is; nothing is opened.
    pub fn device(&self, index: u32) -> Result<Device, Failure> {
        let count = self.count()?;
        let index = c_int::try_from(index).ok().filter(|_| index < count).ok_or_else(|| Failure {
            text: format!("there is no GPU {index}: {count} in all"),
            ..Failure::default()
        })?;
        let mut number = 0;
        // SAFETY: one int is written.
        self.checked("cuDeviceGet", unsafe { self.functions.device(&raw mut number, index) }?)?;
        let mut text = [0_u8; 256];
        // SAFETY: it writes at most as many bytes as it is told; one less than there are keeps the text terminated.
        let status = unsafe { self.functions.name(text.as_mut_ptr().cast(), 255, number) }?;
        self.checked("cuDeviceGetName", status)?;
        let name = terminated(&text);
        text.fill(0);
        // SAFETY: as above.
        let status = unsafe { self.functions.pci(text.as_mut_ptr().cast(), 255, number) }?;
        self.checked("cuDeviceGetPCIBusId", status)?;
        let pci = terminated(&text).to_ascii_lowercase();
        let (mut uuid, mut memory) = ([0; 16], 0);
        // SAFETY: CUuuid is 16 bytes.
        self.checked("cuDeviceGetUuid", unsafe { self.functions.uuid(&raw mut uuid, number) }?)?;
        // SAFETY: one size is written.
        let status = unsafe { self.functions.memory(&raw mut memory, number) }?;
        self.checked("cuDeviceTotalMem_v2", status)?;
        Ok(Device { number, name, uuid, pci, memory: memory as u64 })
    }

    /// Makes a device's primary context and enters it.
    pub fn open(&mut self, device: &Device) -> Result<(), Failure> {
        let mut context = null_mut();
        // SAFETY: the device is one that cuDeviceGet handed out; one handle is written.
        let status = unsafe { self.functions.retain(&raw mut context, device.number) }?;
        self.checked("cuDevicePrimaryCtxRetain", status)?;
        self.set_current(context)?;
        self.context = context;
        Ok(())
    }

    /// Is there a context?
    pub fn is_open(&self) -> bool {
        !self.context.is_null()
    }

    /// Makes the context this thread's.
    pub fn enter(&self) -> Result<(), Failure> {
        self.set_current(self.context)
    }

    fn set_current(&self, context: *mut c_void) -> Result<(), Failure> {
        // SAFETY: the context is retained until the process ends.
        self.checked("cuCtxSetCurrent", unsafe { self.functions.set_current(context) }?)
    }

    /// Waits for everything that was asked of the GPU.
    fn synchronize(&self) -> Result<(), Failure> {
        // SAFETY: it takes nothing.
        self.checked("cuCtxSynchronize", unsafe { self.functions.synchronize() }?)
    }

    /// Memory of the GPU, of `bytes` and some more.
    pub fn alloc(&self, bytes: usize) -> Result<GpuMemory<'_>, Failure> {
        let size = bytes.next_multiple_of(GRANULE);
        let mut address = 0;
        // SAFETY: one address is written.
        self.checked("cuMemAlloc_v2", unsafe { self.functions.alloc(&raw mut address, size) }?)?;
        let memory = GpuMemory { cuda: self, address, bytes: size };
        let yes: c_uint = 1;
        // SAFETY: the attribute is one unsigned int; the memory was just allocated.
        let status = unsafe { self.functions.set_attribute((&raw const yes).cast(), SYNC_MEMOPS, address) }?;
        self.checked("cuPointerSetAttribute", status)?;
        Ok(memory)
    }

    /// A stream of its own: what is asked of the GPU there waits for nothing else.
    pub fn stream(&self) -> Result<Stream<'_>, Failure> {
        let mut handle = null_mut();
        // SAFETY: one handle is written.
        let status = unsafe { self.functions.stream(&raw mut handle, NON_BLOCKING) }?;
        self.checked("cuStreamCreate", status)?;
        Ok(Stream { cuda: self, handle })
    }

    /// Memory of the CPU that the GPU reaches by DMA, with a stream for its copies.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned<'_>, Failure> {
        let stream = self.stream()?;
        let mut memory = null_mut();
        // SAFETY: one address is written.
        self.checked("cuMemAllocHost_v2", unsafe { self.functions.alloc_host(&raw mut memory, bytes) }?)?;
        // A slice of it is handed out, and Rust's are initialised.
        // SAFETY: it is as long as was asked for.
        unsafe { memory.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { cuda: self, memory, bytes, stream })
    }
}

/// What is asked of the GPU in one order.
pub struct Stream<'a> {
    cuda: &'a Cuda,
    pub handle: *mut c_void,
}

// SAFETY: streams may be used by any thread, and the handle is only passed back to libraries.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Send for Stream<'_> {}

#[allow(unsafe_code, reason = "calls into libcuda")]
impl Stream<'_> {
    /// Waits until all of it is done.
    pub fn wait(&self) -> Result<(), Failure> {
        // SAFETY: the stream is this value's own.
        self.cuda.checked("cuStreamSynchronize", unsafe { self.cuda.functions.stream_wait(self.handle) }?)
    }
}

#[allow(unsafe_code, reason = "calls into libcuda")]
impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        let _ = unsafe { self.cuda.functions.stream_destroy(self.handle) };
    }
}

/// Memory of the GPU.
pub struct GpuMemory<'a> {
    cuda: &'a Cuda,
    pub address: u64,
    /// As it was allocated: at least what was asked for.
    pub bytes: usize,
}

#[allow(unsafe_code, reason = "calls into libcuda")]
impl GpuMemory<'_> {
    /// Fills it with one byte.
    pub fn fill(&self, value: u8) -> Result<(), Failure> {
        // SAFETY: the memory is as long as that.
        let status = unsafe { self.cuda.functions.fill(self.address, value, self.bytes) }?;
        self.cuda.checked("cuMemsetD8_v2", status)?;
        self.cuda.synchronize()
    }

    /// Copies bytes to its beginning.
    pub fn set(&self, from: &[u8]) -> Result<(), Failure> {
        assert!(from.len() <= self.bytes, "more than the memory holds");
        // SAFETY: both are at least as long as that.
        let status = unsafe { self.cuda.functions.copy_in(self.address, from.as_ptr().cast(), from.len()) }?;
        self.cuda.checked("cuMemcpyHtoD_v2", status)?;
        // Copies from pageable memory may return before the GPU has them.
        self.cuda.synchronize()
    }

    /// Copies its beginning.
    pub fn get(&self, to: &mut [u8]) -> Result<(), Failure> {
        assert!(to.len() <= self.bytes, "more than the memory holds");
        // SAFETY: both are at least as long as that.
        let status = unsafe { self.cuda.functions.copy_out(to.as_mut_ptr().cast(), self.address, to.len()) }?;
        self.cuda.checked("cuMemcpyDtoH_v2", status)
    }
}

#[allow(unsafe_code, reason = "calls into libcuda")]
impl Drop for GpuMemory<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more. Where freeing fails there is nothing left to do.
        let _ = unsafe { self.cuda.functions.free(self.address) };
    }
}

/// Memory of the CPU that the GPU reaches by DMA.
pub struct Pinned<'a> {
    cuda: &'a Cuda,
    memory: *mut c_void,
    bytes: usize,
    stream: Stream<'a>,
}

// SAFETY: the memory belongs to this value alone.
#[allow(unsafe_code, reason = "a pointer is not Send by itself")]
unsafe impl Send for Pinned<'_> {}

#[allow(unsafe_code, reason = "calls into libcuda, and memory that it allocated")]
impl Pinned<'_> {
    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: it is as long as that and initialised, and the borrow of `self` keeps anybody else out; copies have ended
        // when the methods that make them return.
        unsafe { std::slice::from_raw_parts_mut(self.memory.cast(), self.bytes) }
    }

    /// Copies all of it to the GPU.
    pub fn copy_to_gpu(&mut self, to: &GpuMemory<'_>) -> Result<(), Failure> {
        assert!(self.bytes <= to.bytes, "more than the memory holds");
        let functions = &self.cuda.functions;
        // SAFETY: both are at least as long as that, and outlive the copy, which is waited for.
        let status =
            unsafe { functions.copy_in_async(to.address, self.memory, self.bytes, self.stream.handle) }?;
        self.cuda.checked("cuMemcpyHtoDAsync_v2", status)?;
        self.stream.wait()
    }

    /// Copies from the GPU until it is full.
    pub fn copy_from_gpu(&mut self, from: &GpuMemory<'_>) -> Result<(), Failure> {
        assert!(self.bytes <= from.bytes, "more than the memory holds");
        let functions = &self.cuda.functions;
        // SAFETY: as above.
        let status =
            unsafe { functions.copy_out_async(self.memory, from.address, self.bytes, self.stream.handle) }?;
        self.cuda.checked("cuMemcpyDtoHAsync_v2", status)?;
        self.stream.wait()
    }
}

#[allow(unsafe_code, reason = "calls into libcuda")]
impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        let _ = unsafe { self.cuda.functions.free_host(self.memory) };
    }
}

fn terminated(text: &[u8]) -> String {
    CStr::from_bytes_until_nul(text).unwrap_or_default().to_string_lossy().into_owned()
}
