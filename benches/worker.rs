//! The worker's own part in each transfer: `gdsboot-dma run` beside a bare loop of cuFileRead, turn by turn in one run, with
//! the same library, file, block size and number of transfers, one thread each, both counting routes.
//!
//! `cargo bench --bench worker [-- FOLDER [ROUNDS]]`: FOLDER is where the file of 256 MiB is made, on XFS or ext4; the
//! default is cargo's target folder. The library is the imitation of qemu/simulated-cufile, whose cuFileRead is one pread
//! past the page cache: quicker than the real one, so that the worker's part looks larger than it is.

#![allow(unsafe_code, reason = "the bare loop calls a C library")]

#[path = "../tests/simulated/mod.rs"]
mod simulated;

use gdsboot::bench::transfer::job::{Direction, Job, Order, Until};
use gdsboot::bench::worker::process::WorkerProcess;
use gdsboot::bench::worker::settings::{CufileSettings, Wanted};
use gdsboot::bench::worker::{Engine, Holds, Task};
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BYTES: u64 = 256 << 20;
const SETTINGS: CufileSettings = CufileSettings { wanted: Wanted::Nvfs, compat: false };
const BEHAVIOUR: &str = "route=nvfs";

/// CUfileDescr_t.
#[repr(C)]
struct Descriptor {
    kind: c_uint,
    fd: u64,
    operations: *const c_void,
}

type Read = unsafe extern "C" fn(*mut c_void, u64, usize, i64, i64) -> isize;

/// cuFile, opened for one file, with memory for one transfer.
struct Bare {
    read: Read,
    handle: *mut c_void,
    memory: u64,
}

impl Bare {
    fn open(folder: &Path, file: &File) -> Self {
        let library = |name: &str| -> &'static libloading::Library {
            // SAFETY: the imitation has no constructors.
            Box::leak(Box::new(unsafe { libloading::Library::new(folder.join(name)) }.unwrap()))
        };
        let (cuda, cufile) = (library("libcuda.so.1"), library("libcufile.so.0"));
        // SAFETY: the types are those of cuda.h and cufile.h; a CUfileError_t comes back as one 64-bit integer. Everything is
        // alive until the process ends.
        unsafe {
            let call = |name: &str| cufile.get::<unsafe extern "C" fn() -> u64>(name.as_bytes()).unwrap();
            assert_eq!(cuda.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit").unwrap()(0), 0);
            let mut memory = 0;
            let allocate =
                cuda.get::<unsafe extern "C" fn(*mut u64, usize) -> c_int>(b"cuMemAlloc_v2").unwrap();
            assert_eq!(allocate(&raw mut memory, 1 << 20), 0);
            let level = cufile.get::<unsafe extern "C" fn(c_int) -> u64>(b"cuFileSetStatsLevel").unwrap();
            assert_eq!(level(3), 0);
            assert_eq!(call("cuFileDriverOpen")(), 0);
            assert_eq!(call("cuFileStatsStart")(), 0);
            let mut descriptor =
                Descriptor { kind: 1, fd: file.as_raw_fd() as u64, operations: std::ptr::null() };
            let mut handle = std::ptr::null_mut();
            let register = cufile
                .get::<unsafe extern "C" fn(*mut *mut c_void, *mut Descriptor) -> u64>(
                    b"cuFileHandleRegister",
                )
                .unwrap();
            assert_eq!(register(&raw mut handle, &raw mut descriptor), 0);
            let buffer =
                cufile.get::<unsafe extern "C" fn(u64, usize, c_int) -> u64>(b"cuFileBufRegister").unwrap();
            assert_eq!(buffer(memory, 1 << 20, 0), 0);
            Self { read: *cufile.get::<Read>(b"cuFileRead").unwrap(), handle, memory }
        }
    }

    /// Nanoseconds of a transfer.
    fn run(&self, block: u64) -> f64 {
        let count = BYTES / block;
        let (mut done, begun) = (0, Instant::now());
        for number in 0..count {
            // SAFETY: handle and memory are registered, and the memory is as long as the longest block.
            done +=
                unsafe { (self.read)(self.handle, self.memory, block as usize, (number * block) as i64, 0) };
        }
        let elapsed = begun.elapsed();
        assert_eq!(done as u64, BYTES);
        elapsed.as_nanos() as f64 / count as f64
    }
}

/// Nanoseconds of a transfer.
fn worker(process: &mut WorkerProcess, block: u64) -> f64 {
    let job = Job {
        direction: Direction::Read,
        order: Order::Sequential,
        block: block as u32,
        depth: 1,
        threads: 1,
        range: 0..BYTES,
        until: Until::Once,
        seed: 1,
        verify: false,
    };
    let task = Task { engine: Engine::Cufile, file: process.file(), holds: Holds::Anything, job };
    let ran = process.run(task, Duration::from_secs(600)).unwrap();
    assert_eq!((ran.samples.total_bytes(), ran.samples.transfers()), (BYTES, BYTES / block));
    ran.samples.seconds * 1e9 / (BYTES / block) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // cargo gives benchmarks words of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let folder = words.first().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let rounds: usize = words.get(1).map_or(9, |word| word.parse().expect("a number of rounds"));
    let dir = tempfile::tempdir_in(&folder).unwrap();
    let path = dir.path().join("data");
    let bytes: Vec<u8> = (0..BYTES).map(|n| (n >> 12) as u8).collect();
    fs_err::write(&path, bytes).unwrap();
    let direct = || std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let (file, other) = (direct(), direct());
    file.sync_all().unwrap();

    let libraries = simulated::release();
    let settings = dir.path().join("cufile.json");
    fs_err::write(&settings, SETTINGS.json(dir.path()).to_string()).unwrap();
    // SAFETY: there is no other thread yet.
    unsafe {
        std::env::set_var("GDSBOOT_SIMULATED", BEHAVIOUR);
        std::env::set_var("CUFILE_ENV_PATH_JSON", &settings);
    }
    let bare = Bare::open(libraries, &file);
    let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let environment = [("LD_LIBRARY_PATH", libraries.to_str().unwrap()), ("GDSBOOT_SIMULATED", BEHAVIOUR)];
    let mut process = WorkerProcess::start(program, SETTINGS, Some(&other), &environment).unwrap();
    let limit = Duration::from_secs(60);
    process.open_gpu(0, limit).unwrap();
    process.open_cufile(limit).unwrap();

    println!(
        "| cuFileRead, 1 thread | bare loop, ns | worker, ns | worker's own, ns | ratio |\n|---|---|---|---|---|"
    );
    for block in [4 << 10, 1 << 20] {
        let mut pairs = Vec::new();
        for round in 0..rounds {
            // Whoever is first may find the drive in another state.
            let (loop_ns, worker_ns) = if round % 2 == 0 {
                let loop_ns = bare.run(block);
                (loop_ns, worker(&mut process, block))
            } else {
                let worker_ns = worker(&mut process, block);
                (bare.run(block), worker_ns)
            };
            pairs.push((loop_ns, worker_ns));
        }
        println!(
            "| {} KiB | {:.0} | {:.0} | {:+.0} | {:.4} |",
            block >> 10,
            median(pairs.iter().map(|pair| pair.0).collect()),
            median(pairs.iter().map(|pair| pair.1).collect()),
            median(pairs.iter().map(|pair| pair.1 - pair.0).collect()),
            median(pairs.iter().map(|pair| pair.1 / pair.0).collect()),
        );
    }
}
