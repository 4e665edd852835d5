//! What the DMA worker's own bookkeeping costs for each transfer: `cargo bench --bench worker`.
//!
//! The same file is read past the page cache by two programs in turn, over the same library that imitates cuFile
//! (qemu/simulated-cufile) and makes each transfer by one pread: by the worker, with everything that it measures, and by a
//! bare loop in this process, which calls cuFileRead and adds up bytes as a minimal benchmark would. Both use one thread
//! and a buffer that are new for each turn, the same offsets in the same order, and have cuFile count; both must have made
//! the same transfers. They take many short turns within one run, and which of them is first changes each time. The medians
//! of all turns are compared, and the fastest tenths of them: what else the machine does is least in these. All of it is
//! kept on one CPU, because a thread's way to the one that hears of the drive's transfers makes more of a difference.
//!
//! A drive's moods are larger than what is looked for. So the library also counts the CPU's ticks between the end of a call
//! and the beginning of the next one, which is what a caller does by itself. The overhead is how much more of them the
//! worker has than the bare loop, in parts of the bare loop's whole time.
//!
//! `cargo bench --bench worker -- FILE [WORKER]` reads a file or device that is there, with another build of the worker.
//! The library behaves as the variable `GDSBOOT_BEHAVIOUR` says: with `route=nvfs,lost=1` no transfer is made at all, and
//! the bookkeeping alone is left. In memory there are fewer moods:
//!
//! ```text
//! truncate -s 512M /dev/shm/x && DEVICE=$(losetup --find --show --direct-io=on /dev/shm/x)
//! cargo bench --bench worker -- $DEVICE; losetup -d $DEVICE; rm /dev/shm/x
//! ```
//!
//! A loop device is served by the kernel's threads on any CPU, and a turn's figures depend on which one it was: have them
//! on a CPU that is not the last one, `echo 1 > /sys/devices/virtual/workqueue/cpumask`.

#[path = "../tests/simulated/mod.rs"]
mod simulated;

use gdsboot::bench::transfer::job::{Direction, Job, Order, Until};
use gdsboot::bench::worker::process::WorkerProcess;
use gdsboot::bench::worker::settings::{CufileSettings, Wanted};
use gdsboot::bench::worker::{Engine, Holds, Task};
use std::ffi::{c_int, c_uint, c_void};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// How often each of the two has its turn.
const ROUNDS: usize = 301;
/// How long a turn is to last.
const TURN: Duration = Duration::from_millis(40);
const BLOCKS: [u32; 2] = [4 << 10, 1 << 20];
/// The file that is made where none is named.
const BYTES: u64 = 512 << 20;
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    // Cargo adds an option of its own.
    let mut paths = std::env::args_os().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from);
    let named = paths.next();
    let program = paths.next().unwrap_or_else(|| env!("CARGO_BIN_EXE_gdsboot-dma").into());
    let own = named.is_none().then(|| own_file().expect("making a file"));
    let path = named.unwrap_or_else(|| own.as_ref().map(|file| file.path().to_owned()).unwrap_or_default());
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap_or_else(|error| panic!("opening {} past the page cache: {error}", path.display()));
    let length = file.seek(std::io::SeekFrom::End(0)).expect("the file's length");

    let libraries = simulated::release();
    stay_on_one_cpu().expect("choosing a CPU");
    let words = std::env::var("GDSBOOT_BEHAVIOUR").unwrap_or_else(|_| "route=nvfs".into());
    let folder = tempfile::tempdir().expect("a folder");
    let [bare_file, worker_file] = ["bare", "worker"].map(|name| folder.path().join(name));
    let settings = |file: &Path| format!("{words},between={}", file.display());
    // This process finds its settings beside the library.
    fs_err::write(libraries.join("gdsboot-simulated.conf"), settings(&bare_file))
        .expect("writing the settings");
    let bare = Bare::open(libraries, &file);
    let settings = settings(&worker_file);
    let environment = [
        ("LD_LIBRARY_PATH", libraries.to_str().expect("a folder in UTF-8")),
        ("GDSBOOT_SIMULATED", settings.as_str()),
    ];
    let settings = CufileSettings { wanted: Wanted::Any, compat: true };
    let mut worker = WorkerProcess::start(&program, settings, Some(&file), &environment).expect("a worker");
    worker.open_gpu(0, LIMIT).expect("a GPU");
    worker.open_cufile(LIMIT).expect("cuFile");

    println!("{}, 1 thread, {ROUNDS} turns of each, ns for each transfer\n", path.display());
    println!("                                        whole                      outside the library");
    println!(
        "   block  transfers  turns             bare     worker    ratio       bare     worker  overhead"
    );
    for block in BLOCKS {
        let most = length / u64::from(block);
        let some = most.min(64);
        let fastest = quantile((0..9).map(|_| bare.read(block, some).1 / some as f64), 0.0);
        let _ = fs_err::remove_file(&bare_file);
        let count = most.min((TURN.as_nanos() as f64 / fastest) as u64).max(2);
        let mut turns = Vec::new();
        for round in 0..=ROUNDS {
            let of_one = |(bytes, ns): (u64, f64), file: &Path| {
                assert_eq!(bytes, count * u64::from(block), "not the same transfers");
                let whole = ns / count as f64;
                Turn { whole, outside: whole * outside(file, count) }
            };
            let by_bare = || of_one(bare.read(block, count), &bare_file);
            let mut by_worker = || of_one(by(&mut worker, block, count), &worker_file);
            let (one, other) = match round % 2 {
                0 => (by_bare(), by_worker()),
                _ => {
                    let worker = by_worker();
                    (by_bare(), worker)
                }
            };
            // The first turn warms everything up.
            if round > 0 {
                turns.push((one, other));
            }
        }
        for (turns_of, part) in [("median", 0.5), ("fastest tenth", 0.1)] {
            let bare = |what: fn(&Turn) -> f64| quantile(turns.iter().map(|turn| what(&turn.0)), part);
            let worker = |what: fn(&Turn) -> f64| quantile(turns.iter().map(|turn| what(&turn.1)), part);
            let (whole, outside) = (|turn: &Turn| turn.whole, |turn: &Turn| turn.outside);
            println!(
                "{:>4} KiB  {count:>9}  {turns_of:13}  {:>7.0}    {:>7.0}  {:>7.4}    {:>7.0}    {:>7.0}  {:>7.2}%",
                block >> 10,
                bare(whole),
                worker(whole),
                worker(whole) / bare(whole),
                bare(outside),
                worker(outside),
                100.0 * (worker(outside) - bare(outside)) / bare(whole),
            );
        }
    }
    worker.close(LIMIT).expect("the worker's end");
}

/// What one turn came to, in nanoseconds for each transfer.
struct Turn {
    whole: f64,
    /// Between the end of one cuFileRead and the beginning of the next one.
    outside: f64,
}

/// The part of a turn's time that was outside the library, as the library says.
fn outside(file: &Path, calls: u64) -> f64 {
    let said = fs_err::read_to_string(file).expect("what the library said");
    fs_err::remove_file(file).expect("deleting what the library said");
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [outside, all, made] = numbers[..] else { panic!("not one turn: {said}") };
    assert_eq!(made, calls, "not the same transfers");
    outside as f64 / all as f64
}

/// This thread, and every one and every program that it starts from now on.
fn stay_on_one_cpu() -> nix::Result<()> {
    let this = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(this)?;
    let last = (0..nix::sched::CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu) == Ok(true));
    let mut one = nix::sched::CpuSet::new();
    one.set(last.unwrap_or_default())?;
    nix::sched::sched_setaffinity(this, &one)
}

fn own_file() -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let piece: Vec<u8> = (0..1_u32 << 20).map(|n| (n >> 9) as u8).collect();
    (0..BYTES >> 20).try_for_each(|_| file.write_all(&piece))?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// The worker's turn: bytes and nanoseconds.
fn by(worker: &mut WorkerProcess, block: u32, count: u64) -> (u64, f64) {
    let job = Job {
        direction: Direction::Read,
        order: Order::Sequential,
        block,
        depth: 1,
        threads: 1,
        range: 0..count * u64::from(block),
        until: Until::Once,
        seed: 1,
        verify: false,
    };
    let task = Task { engine: Engine::Cufile, file: worker.file(), holds: Holds::Anything, job };
    let ran = worker.run(task, LIMIT).expect("a job");
    assert!(ran.samples.transfers() == count && ran.samples.error_count == 0, "{:?}", ran.samples.errors);
    (ran.samples.total_bytes(), ran.samples.seconds * 1e9)
}

/// The value that this part of them does not exceed.
fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// Functions of the library, by the types that the vendors' headers declare.
struct Functions {
    set_current: unsafe extern "C" fn(*mut c_void) -> c_int,
    alloc: unsafe extern "C" fn(*mut u64, usize) -> c_int,
    free: unsafe extern "C" fn(u64) -> c_int,
    fill: unsafe extern "C" fn(u64, u8, usize) -> c_int,
    register: unsafe extern "C" fn(u64, usize, c_int) -> u64,
    deregister: unsafe extern "C" fn(u64) -> u64,
    read: unsafe extern "C" fn(*mut c_void, u64, usize, i64, i64) -> isize,
}

/// cuFile, opened as briefly as it can be.
struct Bare {
    functions: Functions,
    context: *mut c_void,
    handle: *mut c_void,
}

// SAFETY: both libraries are thread-safe, and the handles are only passed back to them.
#[allow(unsafe_code, reason = "a handle is a pointer to Rust")]
unsafe impl Sync for Bare {}

/// CUfileDescr_t.
#[repr(C)]
struct Descriptor {
    kind: c_uint,
    fd: u64,
    operations: *const c_void,
}

#[allow(unsafe_code, reason = "calls into a C library")]
impl Bare {
    fn open(folder: &Path, file: &File) -> Self {
        // SAFETY: it is the imitation that was just built.
        let library =
            unsafe { libloading::Library::new(folder.join(simulated::NAMES[1])) }.expect("the library");
        let library = Box::leak(Box::new(library));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is the one that the vendor's header declares, and the library is never unloaded.
                *unsafe { library.get($name) }.expect("a function of the library")
            };
        }
        let init: unsafe extern "C" fn(c_uint) -> c_int = function!(b"cuInit");
        let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int =
            function!(b"cuDevicePrimaryCtxRetain");
        let level: unsafe extern "C" fn(c_int) -> u64 = function!(b"cuFileSetStatsLevel");
        let open: unsafe extern "C" fn() -> u64 = function!(b"cuFileDriverOpen");
        let count: unsafe extern "C" fn() -> u64 = function!(b"cuFileStatsStart");
        let register: unsafe extern "C" fn(*mut *mut c_void, *mut Descriptor) -> u64 =
            function!(b"cuFileHandleRegister");
        let (mut context, mut handle) = (null_mut(), null_mut());
        let mut descriptor =
            Descriptor { kind: 1, fd: file.as_raw_fd() as u64, operations: std::ptr::null() };
        // SAFETY: in the order that the vendors ask for, and all that is handed over is alive.
        unsafe {
            assert_eq!((init(0), retain(&raw mut context, 0)), (0, 0));
            assert_eq!((level(3), open(), count()), (0, 0, 0));
            assert_eq!(register(&raw mut handle, &raw mut descriptor), 0);
        }
        let functions = Functions {
            set_current: function!(b"cuCtxSetCurrent"),
            alloc: function!(b"cuMemAlloc_v2"),
            free: function!(b"cuMemFree_v2"),
            fill: function!(b"cuMemsetD8_v2"),
            register: function!(b"cuFileBufRegister"),
            deregister: function!(b"cuFileBufDeregister"),
            read: function!(b"cuFileRead"),
        };
        Self { functions, context, handle }
    }

    /// What is compared with, in a thread of its own: bytes and nanoseconds.
    fn read(&self, block: u32, count: u64) -> (u64, f64) {
        std::thread::scope(|scope| scope.spawn(|| self.loop_of(block, count)).join()).expect("a thread")
    }

    fn loop_of(&self, block: u32, count: u64) -> (u64, f64) {
        let Functions { set_current, alloc, free, fill, register, deregister, read } = self.functions;
        let (mut memory, mut bytes) = (0, 0);
        // As the worker allocates it, whole pages of the GPU.
        let (block, size) = (block as usize, block.next_multiple_of(64 << 10) as usize);
        // SAFETY: memory of that size is allocated and known to cuFile before it is used.
        unsafe {
            assert_eq!(set_current(self.context), 0);
            assert_eq!((alloc(&raw mut memory, size), fill(memory, 0, size)), (0, 0));
            assert_eq!(register(memory, size, 0), 0);
        }
        let begun = Instant::now();
        for number in 0..count {
            // SAFETY: the handle and the memory are known to cuFile, and the memory is long enough.
            bytes += unsafe { read(self.handle, memory, block, number as i64 * block as i64, 0) };
        }
        let time = begun.elapsed();
        // SAFETY: nothing is under way any more.
        unsafe { assert_eq!((deregister(memory), free(memory)), (0, 0)) };
        (bytes as u64, time.as_secs_f64() * 1e9)
    }
}
