//! libcufile (cufile.h): transfers between a file and memory of the GPU, and what it counts of them.

use crate::cuda::{GpuMemory, Stream};
use crate::library::{Library, functions};
use gdsboot::bench::transfer::job::Direction;
use gdsboot::bench::worker::errors::name;
use gdsboot::bench::worker::stats::{self, BUFFER, SENTINEL};
use gdsboot::bench::worker::{Counters, Failure};
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::RawFd;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

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
    stream_register ["cuFileStreamRegister"] (stream: *mut c_void, flags: c_uint) -> u64;
    stream_deregister ["cuFileStreamDeregister"] (stream: *mut c_void) -> u64;
    read_async ["cuFileReadAsync"] (handle: *mut c_void, memory: u64, bytes: *mut usize, offset: *mut i64, from: *mut i64, done: *mut isize, stream: *mut c_void) -> u64;
    write_async ["cuFileWriteAsync"] (handle: *mut c_void, memory: u64, bytes: *mut usize, offset: *mut i64, from: *mut i64, done: *mut isize, stream: *mut c_void) -> u64;
    batch_set_up ["cuFileBatchIOSetUp"] (batch: *mut *mut c_void, count: c_uint) -> u64;
    batch_submit ["cuFileBatchIOSubmit"] (batch: *mut c_void, count: c_uint, transfers: *mut BatchTransfer, flags: c_uint) -> u64;
    batch_status ["cuFileBatchIOGetStatus"] (batch: *mut c_void, least: c_uint, count: *mut c_uint, events: *mut BatchEvent, limit: *mut libc::timespec) -> u64;
    batch_destroy ["cuFileBatchIODestroy"] (batch: *mut c_void) -> ();
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

/// CUfileIOParams_t.
#[derive(Clone, Copy)]
#[repr(C)]
struct BatchTransfer {
    /// CUFILE_BATCH is 1.
    mode: c_int,
    memory: u64,
    offset: i64,
    from: i64,
    bytes: usize,
    handle: *mut c_void,
    /// CUFILE_READ is 0, CUFILE_WRITE 1.
    opcode: c_int,
    cookie: usize,
}

/// CUfileIOEvents_t.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct BatchEvent {
    cookie: usize,
    status: c_int,
    returned: usize,
}

/// CUFILE_COMPLETE and CUFILE_WAITING | CUFILE_PENDING of CUfileStatus_t.
const COMPLETE: c_int = 16;
const UNDER_WAY: c_int = 1 | 2;
/// CU_FILE_STREAM_FIXED_AND_ALIGNED: offsets and sizes are known when a transfer is asked for, and multiples of 4 KiB.
const FIXED_AND_ALIGNED: c_uint = 0xf;
/// What streams' transfers are multiples of, so that they may be told to be aligned.
const PAGE: usize = 4096;
/// A batch that takes longer is lost; the validator's own limit is shorter for small jobs.
const LOST: Duration = Duration::from_secs(120);

const _: () = assert!(size_of::<Descriptor>() == 24 && size_of::<BatchTransfer>() == 64);
const _: () = assert!(size_of::<BatchEvent>() == 24 && std::mem::offset_of!(Properties, more) == 56);

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
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Lib {
    /// A stream for transfers of `bytes`; a function since GDS 1.7 (CUDA 12.2).
    pub fn stream<'a>(&'a self, stream: Stream<'a>, bytes: usize) -> Result<FileStream<'a>, Failure> {
        if self.functions.read_async.is_none() {
            return Err(crate::library::missing("cuFileReadAsync"));
        }
        let arguments = Box::new(Arguments { bytes, offset: 0, from: 0, done: 0 });
        // It works without as well, and more slowly.
        let is_registered = bytes.is_multiple_of(PAGE) && {
            // SAFETY: the stream outlives its registration, see `Drop`.
            let status = unsafe { self.functions.stream_register(stream.handle(), FIXED_AND_ALIGNED) };
            status == Ok(0)
        };
        Ok(FileStream { lib: self, stream, arguments, is_registered })
    }
}

/// What cuFile reads and writes while a transfer is under way on a stream.
struct Arguments {
    bytes: usize,
    offset: i64,
    from: i64,
    done: isize,
}

/// A stream on which one transfer is made at a time.
pub struct FileStream<'a> {
    lib: &'a Lib,
    stream: Stream<'a>,
    arguments: Box<Arguments>,
    is_registered: bool,
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl FileStream<'_> {
    /// Asks for a transfer. It has to be waited for before another one is asked for.
    pub fn begin(
        &mut self,
        handle: &Handle<'_>,
        direction: Direction,
        memory: &GpuMemory<'_>,
        offset: u64,
    ) -> Result<(), Failure> {
        assert!(self.arguments.bytes <= memory.bytes, "more than the memory holds");
        self.arguments.offset = offset as i64;
        self.arguments.done = 0;
        let Arguments { bytes, offset, from, done } = &mut *self.arguments;
        let (bytes, offset, from, done) = (&raw mut *bytes, &raw mut *offset, &raw mut *from, &raw mut *done);
        let (functions, stream, handle) = (&self.lib.functions, self.stream.handle(), handle.handle);
        let (function, status) = match direction {
            // SAFETY: cuFile reads and writes the arguments until the stream has been waited for; they are in a box that is
            // freed after that, see `Drop`. Handle and memory are known to cuFile, and outlive this stream's transfers.
            Direction::Read => ("cuFileReadAsync", unsafe {
                functions.read_async(handle, memory.address, bytes, offset, from, done, stream)
            }?),
            // SAFETY: as above.
            Direction::Write => ("cuFileWriteAsync", unsafe {
                functions.write_async(handle, memory.address, bytes, offset, from, done, stream)
            }?),
        };
        checked(function, status)
    }

    /// Waits for the transfer; the bytes that were made.
    pub fn end(&mut self, direction: Direction) -> Result<usize, Failure> {
        self.stream.wait()?;
        let function = if direction == Direction::Read { "cuFileReadAsync" } else { "cuFileWriteAsync" };
        // SAFETY: the stream has been waited for, so that cuFile does not write it any more; it did behind Rust's back.
        let done = unsafe { (&raw const self.arguments.done).read_volatile() };
        usize::try_from(done).map_err(|_| match done {
            -1 => Failure {
                function: Some(function.into()),
                text: "the transfer failed".into(),
                ..Failure::default()
            },
            _ => failed(function, -(done as i64), None),
        })
    }
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Drop for FileStream<'_> {
    fn drop(&mut self) {
        if self.stream.wait().is_err() {
            // cuFile may still write there: memory is lost rather than given away.
            let lost = std::mem::replace(
                &mut self.arguments,
                Box::new(Arguments { bytes: 0, offset: 0, from: 0, done: 0 }),
            );
            std::mem::forget(lost);
        }
        if self.is_registered {
            // SAFETY: it was registered, and nothing is under way on it.
            let _ = unsafe { self.lib.functions.stream_deregister(self.stream.handle()) };
        }
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
        usize::try_from(returned).map_err(|_| match returned {
            -1 => Failure {
                function: Some(function.into()),
                text: gdsboot::bench::transfer::threads::words(&std::io::Error::last_os_error()),
                ..Failure::default()
            },
            _ => failed(function, -(returned as i64), None),
        })
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

/// Transfers that are begun together.
pub struct Batch<'a> {
    lib: &'a Lib,
    batch: *mut c_void,
    count: usize,
}

// SAFETY: cuFile is thread-safe, and the handle is only passed back to it.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Send for Batch<'_> {}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Batch<'_> {
    /// Makes one transfer of `bytes` for each pair of memory and offset, and waits for all; what each made.
    pub fn transfer(
        &mut self,
        handle: &Handle<'_>,
        direction: Direction,
        bytes: usize,
        transfers: &[(&GpuMemory<'_>, u64)],
    ) -> Result<Vec<Result<usize, Failure>>, Failure> {
        assert!(transfers.len() <= self.count, "more than the batch holds");
        let entry = |(cookie, (memory, offset)): (usize, &(&GpuMemory<'_>, u64))| {
            assert!(bytes <= memory.bytes, "more than the memory holds");
            BatchTransfer {
                mode: 1,
                memory: memory.address,
                offset: *offset as i64,
                from: 0,
                bytes,
                handle: handle.handle,
                opcode: c_int::from(direction == Direction::Write),
                cookie,
            }
        };
        let mut entries: Vec<_> = transfers.iter().enumerate().map(entry).collect();
        let functions = &self.lib.functions;
        let count = entries.len() as c_uint;
        // SAFETY: handles and memory are known to cuFile and outlive the batch, which is waited for.
        let status = unsafe { functions.batch_submit(self.batch, count, entries.as_mut_ptr(), 0) }?;
        checked("cuFileBatchIOSubmit", status)?;
        let mut results: Vec<Option<Result<usize, Failure>>> = vec![None; entries.len()];
        let begun = Instant::now();
        while results.contains(&None) {
            let mut events = vec![BatchEvent::default(); entries.len()];
            let mut ready = count;
            let mut second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            // SAFETY: there is room for as many events as `ready` says.
            let status = unsafe {
                functions.batch_status(self.batch, 1, &raw mut ready, events.as_mut_ptr(), &raw mut second)
            }?;
            checked("cuFileBatchIOGetStatus", status)?;
            for event in events.iter().take(ready as usize).filter(|event| event.status & UNDER_WAY == 0) {
                let Some(result) = results.get_mut(event.cookie) else { continue };
                *result = Some(match event.status {
                    COMPLETE => Ok(event.returned),
                    other => Err(Failure {
                        function: Some("cuFileBatchIOGetStatus".into()),
                        text: format!("the transfer ended with CUfileStatus_t {other:#x}"),
                        ..Failure::default()
                    }),
                });
            }
            if begun.elapsed() > LOST {
                // The library may still write to the memory of those that are lost: nothing is given back.
                eprintln!("gdsboot-dma: error: a batch did not end in {} s", LOST.as_secs());
                std::process::abort();
            }
        }
        Ok(results.into_iter().flatten().collect())
    }
}

#[allow(unsafe_code, reason = "calls into libcufile")]
impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // SAFETY: its transfers have ended, or cuFile said that it does not know: memory is freed after this.
        let _ = unsafe { self.lib.functions.batch_destroy(self.batch) };
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
