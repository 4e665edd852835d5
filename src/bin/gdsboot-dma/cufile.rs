//! libcufile (cufile.h): transfers between a file and memory of the GPU, and what it counts of them.

use crate::cuda::{Cuda, GpuMemory};
use crate::library::{Library, functions};
use gdsboot::bench::transfer::job::Direction;
use gdsboot::bench::transfer::threads::words;
use gdsboot::bench::worker::errors::name;
use gdsboot::bench::worker::stats::{self, BUFFER, SENTINEL};
use gdsboot::bench::worker::{Counters, Failure};
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::RawFd;
use std::ptr::{null, null_mut};

mod batch;
mod streams;

pub use batch::Batch;
use batch::{BatchEvent, BatchTransfer};
pub use streams::{MOST_STREAMS, Streams};

// CUfileError_t is two ints by value, which the x86-64 ABI returns like one 64-bit integer.
functions! {
    version ["cuFileGetVersion"] (version: *mut c_int) -> u64;
    open ["cuFileDriverOpen"] () -> u64;
    close ["cuFileDriverClose_v2", "cuFileDriverClose"] () -> u64;
    properties ["cuFileDriverGetProperties"] (properties: *mut Properties) -> u64;
    p2p_flags ["cuFileDriverGetP2PFlags"] (filesystem: c_int, flags: *mut c_uint) -> u64;
    handle_register ["cuFileHandleRegister"] (handle: *mut *mut c_void, descriptor: *mut Descriptor) -> u64;
    handle_deregister ["cuFileHandleDeregister"] (handle: *mut c_void) -> ();
    buffer_register ["cuFileBufRegister"] (memory: u64, bytes: usize, flags: c_int) -> u64;
    buffer_deregister ["cuFileBufDeregister"] (memory: u64) -> u64;
    read ["cuFileRead"] (handle: *mut c_void, memory: u64, bytes: usize, offset: i64, from: i64) -> isize;
    write ["cuFileWrite"] (handle: *mut c_void, memory: u64, bytes: usize, offset: i64, from: i64) -> isize;
    batch_set_up ["cuFileBatchIOSetUp"] (batch: *mut *mut c_void, count: c_uint) -> u64;
    batch_submit ["cuFileBatchIOSubmit"] (batch: *mut c_void, count: c_uint, transfers: *mut BatchTransfer, flags: c_uint) -> u64;
    batch_status ["cuFileBatchIOGetStatus"] (batch: *mut c_void, least: c_uint, count: *mut c_uint, events: *mut BatchEvent, limit: *mut libc::timespec) -> u64;
    batch_destroy ["cuFileBatchIODestroy"] (batch: *mut c_void) -> ();
    stream_register ["cuFileStreamRegister"] (stream: *mut c_void, flags: c_uint) -> u64;
    stream_deregister ["cuFileStreamDeregister"] (stream: *mut c_void) -> u64;
    read_async ["cuFileReadAsync"] (handle: *mut c_void, memory: u64, bytes: *mut usize, offset: *mut i64, from: *mut i64, done: *mut isize, stream: *mut c_void) -> u64;
    write_async ["cuFileWriteAsync"] (handle: *mut c_void, memory: u64, bytes: *mut usize, offset: *mut i64, from: *mut i64, done: *mut isize, stream: *mut c_void) -> u64;
    set_stats_level ["cuFileSetStatsLevel"] (level: c_int) -> u64;
    stats_start ["cuFileStatsStart"] () -> u64;
    stats ["cuFileGetStatsL3"] (stats: *mut u8) -> u64;
}

/// CUfileDrvProps_t.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Properties {
    nvfs_major: c_uint,
    nvfs_minor: c_uint,
    poll_threshold: usize,
    max_direct_io: usize,
    status_flags: c_uint,
    control_flags: c_uint,
    feature_flags: c_uint,
    max_device_cache: c_uint,
    per_buffer_cache: c_uint,
    max_pinned: c_uint,
    max_batch: c_uint,
    batch_timeout_ms: c_uint,
    /// Room for releases whose structure is longer.
    more: [u64; 32],
}

/// CU_FILE_ALLOW_COMPAT_MODE, the number of a bit.
const ALLOW_COMPAT: u32 = 1;
/// CU_FILE_NVME_SUPPORTED
const NVME: c_int = 4;
/// The bits of CUfileP2PFlags_t.
const P2P_FLAGS: [&str; 4] = ["PCI_P2PDMA", "NVFS", "DMABUF", "C2C"];
/// The level at which routes are counted for each GPU.
const PER_GPU: c_int = 3;

/// CUfileDescr_t.
#[repr(C)]
struct Descriptor {
    /// CU_FILE_HANDLE_TYPE_OPAQUE_FD is 1.
    kind: c_uint,
    fd: u64,
    operations: *const c_void,
}

const _: () = assert!(size_of::<Descriptor>() == 24);
const _: () = assert!(std::mem::offset_of!(Properties, more) == 56);

/// libcufile. Its functions may be called by any thread.
pub struct Lib {
    functions: Functions,
    pub simulated: bool,
}

/// What the driver says of itself once it is open.
pub struct Driver {
    pub nvidia_fs: String,
    pub compat_allowed: bool,
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Lib {
    /// Loads the library; nothing is opened yet.
    pub fn load() -> Result<Self, Failure> {
        let library = Library::open("libcufile.so.0")?;
        Ok(Self { functions: Functions::load(&library), simulated: library.is_simulated() })
    }

    /// Its version, such as `1.16.1`; a function since 1.8.
    pub fn version(&self) -> Result<String, Failure> {
        let mut version = 0;
        // SAFETY: one int is written; no driver need be open.
        checked("cuFileGetVersion", unsafe { self.functions.version(&raw mut version) }?)?;
        Ok(format!("{}.{}.{}", version / 1000, version % 1000 / 10, version % 10))
    }

    /// Opens the driver.
    pub fn open(&self) -> Result<(), Failure> {
        // SAFETY: it takes nothing.
        checked("cuFileDriverOpen", unsafe { self.functions.open() }?)
    }

    /// Closes the driver.
    pub fn close(&self) -> Result<(), Failure> {
        // SAFETY: it takes nothing; files and buffers have been given back.
        checked("cuFileDriverClose", unsafe { self.functions.close() }?)
    }

    /// What the open driver says of itself.
    pub fn driver(&self) -> Result<Driver, Failure> {
        let mut properties = Properties::default();
        // SAFETY: the structure is at least as long as any release's.
        let status = unsafe { self.functions.properties(&raw mut properties) }?;
        checked("cuFileDriverGetProperties", status)?;
        let Properties { nvfs_major, nvfs_minor, control_flags, .. } = properties;
        Ok(Driver {
            nvidia_fs: format!("{nvfs_major}.{nvfs_minor}"),
            compat_allowed: control_flags >> ALLOW_COMPAT & 1 != 0,
        })
    }

    /// The routes between NVMe and GPU that it says are possible; a function since 1.16.
    pub fn p2p_flags(&self) -> Result<Vec<String>, Failure> {
        // Room for a release whose flags are a longer number.
        let mut flags = [0, 0];
        // SAFETY: one unsigned int is written.
        let status = unsafe { self.functions.p2p_flags(NVME, flags.as_mut_ptr()) }?;
        checked("cuFileDriverGetP2PFlags", status)?;
        let set = P2P_FLAGS.into_iter().enumerate().filter(|(bit, _)| flags[0] >> bit & 1 != 0);
        Ok(set.map(|(_, name)| name.to_owned()).collect())
    }

    /// Chooses what is counted; a function since 1.15. Releases differ in whether the driver may be open by then.
    pub fn choose_counters(&self) -> Result<(), Failure> {
        // SAFETY: levels are 0 to 3.
        checked("cuFileSetStatsLevel", unsafe { self.functions.set_stats_level(PER_GPU) }?)
    }

    /// Begins to count; a function since 1.15. The driver is open.
    pub fn start_counters(&self) -> Result<(), Failure> {
        // SAFETY: it takes nothing.
        checked("cuFileStatsStart", unsafe { self.functions.stats_start() }?)
    }

    /// What was counted.
    pub fn counters(&self) -> Result<Counters, Failure> {
        // The structure holds 64-bit numbers.
        let mut words = vec![u64::from_ne_bytes([SENTINEL; 8]); BUFFER / 8];
        // SAFETY: the buffer is three times as long as the longest structure that is known, and aligned as it has to be.
        let status = unsafe { self.functions.stats(words.as_mut_ptr().cast()) }?;
        checked("cuFileGetStatsL3", status)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        stats::parse(&bytes).map_err(|text| Failure {
            function: Some("cuFileGetStatsL3".into()),
            text,
            ..Failure::default()
        })
    }

    /// Makes a file known; it stays open until the handle is dropped.
    pub fn handle(&self, fd: RawFd) -> Result<Handle<'_>, Failure> {
        let mut descriptor = Descriptor { kind: 1, fd: fd as u64, operations: null() };
        let mut handle = null_mut();
        // SAFETY: one handle is written; the descriptor is of the first kind, an open file.
        let status = unsafe { self.functions.handle_register(&raw mut handle, &raw mut descriptor) }?;
        checked("cuFileHandleRegister", status)?;
        Ok(Handle { lib: self, handle })
    }

    /// Makes memory of the GPU known; it is not freed before this is dropped.
    pub fn register<'a>(&'a self, memory: &'a GpuMemory<'a>) -> Result<Registered<'a>, Failure> {
        // SAFETY: the memory is as long as that, and outlives the registration.
        let status = unsafe { self.functions.buffer_register(memory.address, memory.bytes, 0) }?;
        checked("cuFileBufRegister", status)?;
        Ok(Registered { lib: self, memory })
    }

    /// A batch of at most `count` transfers.
    pub fn batch(&self, count: u32) -> Result<Batch<'_>, Failure> {
        let mut batch = null_mut();
        // SAFETY: one handle is written.
        checked("cuFileBatchIOSetUp", unsafe { self.functions.batch_set_up(&raw mut batch, count) }?)?;
        Ok(Batch { lib: self, batch, count: count as usize })
    }

    /// Streams for `count` transfers at a time in one direction. `pages`: sizes and offsets will be multiples of 4 KiB.
    pub fn streams<'a>(
        &'a self,
        cuda: &'a Cuda,
        count: u32,
        direction: Direction,
        pages: bool,
    ) -> Result<Streams<'a>, Failure> {
        Streams::new(self, cuda, count, direction, pages)
    }
}

/// A file that cuFile knows.
pub struct Handle<'a> {
    lib: &'a Lib,
    handle: *mut c_void,
}

// SAFETY: cuFile is thread-safe, and the handle is only passed back to it.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Sync for Handle<'_> {}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Handle<'_> {
    /// One transfer; the bytes that were made.
    pub fn transfer(
        &self,
        direction: Direction,
        memory: &GpuMemory<'_>,
        bytes: usize,
        offset: u64,
    ) -> Result<usize, Failure> {
        assert!(bytes <= memory.bytes, "more than the memory holds");
        let functions = &self.lib.functions;
        let (function, returned) = match direction {
            // SAFETY: the handle and the memory are known to cuFile, and the memory is long enough.
            Direction::Read => ("cuFileRead", unsafe {
                functions.read(self.handle, memory.address, bytes, offset as i64, 0)
            }?),
            // SAFETY: as above.
            Direction::Write => ("cuFileWrite", unsafe {
                functions.write(self.handle, memory.address, bytes, offset as i64, 0)
            }?),
        };
        made(function, returned, || words(&std::io::Error::last_os_error()))
    }
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        let _ = unsafe { self.lib.functions.handle_deregister(self.handle) };
    }
}

/// Memory of the GPU that cuFile knows.
pub struct Registered<'a> {
    lib: &'a Lib,
    memory: &'a GpuMemory<'a>,
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // SAFETY: it was registered, and no transfer with it is under way.
        let _ = unsafe { self.lib.functions.buffer_deregister(self.memory.address) };
    }
}

/// The first member of the structure, in the lower half, is the cuFile error, the second CUDA's.
fn checked(function: &str, status: u64) -> Result<(), Failure> {
    match (status as u32 as i32, (status >> 32) as u32 as i32) {
        (0, _) => Ok(()),
        (error, cuda) => Err(failed(function, error.into(), (cuda != 0).then_some(cuda.into()))),
    }
}

fn failed(function: &str, status: i64, cuda_status: Option<i64>) -> Failure {
    Failure {
        function: Some(function.into()),
        status: Some(status),
        name: name(status).map(str::to_owned),
        cuda_status,
        ..Failure::default()
    }
}

/// What a transfer returned: bytes, -1 for an error outside of cuFile, or the number of one of its own below 0.
fn made(function: &str, returned: isize, why: impl FnOnce() -> String) -> Result<usize, Failure> {
    usize::try_from(returned).map_err(|_| match returned {
        -1 => Failure { function: Some(function.into()), text: why(), ..Failure::default() },
        _ => failed(function, -(returned as i64), None),
    })
}

/// Ends the process where nobody knows whether a transfer has ended: the library may still write to its memory, and
/// nothing may be given back.
fn lost(why: &str) -> ! {
    eprintln!("gdsboot-dma: error: {why}");
    std::process::abort()
}
