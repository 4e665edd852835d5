//! Makes a task's transfers, with what is counted and compared around them.

use crate::cuda::{Cuda, GpuMemory};
use crate::cufile::{Lib, MOST_STREAMS};
use crate::mover::{Mover, Way};
use crate::watch::Watcher;
use gdsboot::bench::transfer::job::{Direction, Job};
use gdsboot::bench::transfer::measurement::Recorder;
use gdsboot::bench::transfer::offsets::Offsets;
use gdsboot::bench::transfer::threads::{GIVE_UP, MOST_THREADS, Thread, measure, nanoseconds};
use gdsboot::bench::worker::{
    Counters, Engine, Failure, LEAST_SAMPLED, Ran, SAMPLED, SAMPLED_BYTES, Task, Verified,
};
use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// `properties.io_batchsize` as it is by default; larger batches were seen to hang.
const LARGEST_BATCH: u32 = 128;
/// What cuFile takes for aligned.
const PAGE: u64 = 4096;

/// What a task is made with.
pub struct Tools<'a> {
    pub cuda: &'a Cuda,
    pub cufile: Option<&'a Lib>,
    pub watcher: Option<&'a Watcher>,
    pub file: &'a File,
    /// Says which call comes next.
    pub calling: &'a dyn Fn(&str),
}

/// Makes the transfers.
pub fn run(tools: &Tools<'_>, task: &Task) -> Result<Ran, Failure> {
    let Tools { cuda, file, calling, .. } = *tools;
    let lib = match task.engine.is_cufile() {
        true => Some(tools.cufile.ok_or_else(|| because("libcufile was not opened"))?),
        false => None,
    };
    task.job.check().map_err(|text| because(&text))?;
    let (job, width) = shape(task);
    let job = &job;

    calling("cuMemAlloc_v2");
    let bytes = job.block as usize;
    let memory =
        |_| -> Result<Vec<GpuMemory<'_>>, Failure> { (0..width).map(|_| cuda.alloc(bytes)).collect() };
    let memory: Vec<Vec<GpuMemory<'_>>> = (0..job.threads).map(memory).collect::<Result<_, _>>()?;
    let (mut handle, mut registered) = (None, Vec::new());
    if let Some(lib) = lib {
        calling("cuFileHandleRegister");
        handle = Some(lib.handle(std::os::fd::AsRawFd::as_raw_fd(file))?);
        calling("cuFileBufRegister");
        for memory in memory.iter().flatten() {
            registered.push(lib.register(memory)?);
        }
    }
    let pages = [u64::from(job.block), job.range.start].iter().all(|number| number % PAGE == 0);
    let way = || -> Result<Way<'_>, Failure> {
        Ok(match (task.engine, lib, &handle) {
            (Engine::Cufile, _, Some(handle)) => Way::Cufile(handle),
            (Engine::CufileBatch, Some(lib), Some(handle)) => Way::Batch(handle, lib.batch(width)?),
            (Engine::CufileStream, Some(lib), Some(handle)) => {
                Way::Streams(handle, lib.streams(cuda, width, job.direction, pages)?)
            }
            (Engine::HostCopy, ..) => Way::HostCopy(cuda.pinned(bytes)?),
            _ => Way::Bounce(cuda.pinned(bytes)?),
        })
    };
    calling(match task.engine {
        Engine::Cufile => "cuMemsetD8_v2",
        Engine::CufileBatch => "cuFileBatchIOSetUp",
        Engine::CufileStream => "cuStreamCreate",
        Engine::Bounce | Engine::HostCopy => "cuMemAllocHost_v2",
    });
    let mut movers = Vec::new();
    for memory in &memory {
        let mut mover = Mover { cuda, file, way: way()?, memory, job, holds: task.holds };
        mover.fill()?;
        movers.push(Mutex::new(mover));
    }

    let mut ran = Ran { before: counters(lib, tools, &mut Vec::new()), ..Ran::default() };
    calling(name(task));
    let verified = Mutex::new(Verified::default());
    let watch = tools.watcher.and_then(Watcher::start);
    let samples = measure(engine(task), job, &AtomicBool::new(false), |thread| {
        let mut mover = locked(&movers[thread.number as usize]);
        Ok(transfers(&mut mover, &thread, width as usize, &verified))
    });
    ran.samples = samples.map_err(|error| because(&format!("{error:#}")))?;
    if let Some(watch) = watch {
        ran.samples.cpu_seconds = (ran.samples.cpu_seconds - watch.cpu_seconds()).max(0.0);
        ran.gpu_states = watch.end();
    }
    ran.verified = verified.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran.transfers = ran.samples.transfers();
    if ran.verified == Verified::default() && ran.transfers > 0 {
        ran.transfers += compare_some(job, &movers, &mut ran.verified);
    }
    ran.moved = ran.transfers * u64::from(job.block);
    ran.after = counters(lib, tools, &mut ran.failures);
    calling("cuFileBufDeregister");
    Ok(ran)
}

/// The job as its threads make it, and how many transfers each has under way.
fn shape(task: &Task) -> (Job, u32) {
    let job = task.job.clone();
    let most = match task.engine {
        Engine::CufileBatch => Some(LARGEST_BATCH),
        Engine::CufileStream => Some(MOST_STREAMS),
        Engine::Cufile | Engine::Bounce | Engine::HostCopy => None,
    };
    if let Some(most) = most {
        let width = job.depth.min(most);
        return (Job { depth: width, ..job }, width);
    }
    // The other calls make one transfer each.
    let blocks = u32::try_from(job.blocks()).unwrap_or(u32::MAX);
    let threads = job.threads.saturating_mul(job.depth).min(MOST_THREADS).min(blocks);
    (Job { threads, depth: 1, ..job }, 1)
}

/// What the transfers are made by, for the samples.
fn engine(task: &Task) -> &'static str {
    match task.engine {
        Engine::Cufile => "cuFile",
        Engine::CufileBatch => "cuFile batches",
        Engine::CufileStream => "cuFile streams",
        Engine::Bounce => "bounce",
        Engine::HostCopy => "host copy",
    }
}

/// The function that makes the transfers.
fn name(task: &Task) -> &'static str {
    match (task.engine, task.job.direction) {
        (Engine::Cufile, Direction::Read) => "cuFileRead",
        (Engine::Cufile, Direction::Write) => "cuFileWrite",
        (Engine::CufileBatch, _) => "cuFileBatchIOSubmit",
        (Engine::CufileStream, Direction::Read) => "cuFileReadAsync",
        (Engine::CufileStream, Direction::Write) => "cuFileWriteAsync",
        (Engine::Bounce, Direction::Read) => "pread",
        (Engine::Bounce, Direction::Write) => "pwrite",
        (Engine::HostCopy, Direction::Read) => "cuMemcpyHtoDAsync_v2",
        (Engine::HostCopy, Direction::Write) => "cuMemcpyDtoHAsync_v2",
    }
}

fn counters(lib: Option<&Lib>, tools: &Tools<'_>, failures: &mut Vec<Failure>) -> Option<Counters> {
    let lib = lib?;
    (tools.calling)("cuFileGetStatsL3");
    lib.counters().map_err(|failure| failures.push(failure)).ok()
}

/// One thread's part of the job. All that goes wrong is in the recorder.
fn transfers(
    mover: &mut Mover<'_>,
    thread: &Thread<'_>,
    width: usize,
    verified: &Mutex<Verified>,
) -> Recorder {
    let (mut recorder, job) = (Recorder::new(), mover.job);
    if let Err(failure) = mover.cuda.enter() {
        recorder.error(0, failure.to_string(), false);
        return recorder;
    }
    let mut offsets = Offsets::new(job, thread.number);
    // Filled anew each time: between transfers nothing is allocated.
    let (mut together, mut results) = (Vec::with_capacity(width), Vec::with_capacity(width));
    let running = thread.start();
    let mut now = Instant::now();
    while !running.is_over(now) && recorder.error_count() < GIVE_UP {
        together.clear();
        together.extend(offsets.by_ref().take(width));
        if together.is_empty() {
            break;
        }
        for (slot, offset) in together.iter().enumerate().filter(|_| job.verify) {
            if let Err(failure) = mover.prepare(slot, *offset) {
                recorder.error(*offset, failure.to_string(), false);
                return recorder;
            }
        }
        // A look at the clock is most of what a small transfer costs here: one transfer begins when the last one has ended.
        let started = if width > 1 || job.verify { Instant::now() } else { now };
        mover.transfer(&together, &mut results);
        now = Instant::now();
        for (slot, (&offset, result)) in together.iter().zip(results.drain(..)).enumerate() {
            match whole(result, job) {
                Ok(bytes) => {
                    let latency = nanoseconds(now.duration_since(started));
                    recorder.transfer(bytes, latency, nanoseconds(now.duration_since(running.begun)));
                }
                Err(what) => {
                    recorder.error(offset, what, false);
                    continue;
                }
            }
            if job.verify
                && let Some((what, wrong)) = compare(mover, slot, offset, &mut locked(verified))
            {
                recorder.error(offset, what, wrong);
            }
        }
    }
    recorder
}

/// A transfer that made less than all of its block is none.
fn whole(result: Result<usize, Failure>, job: &Job) -> Result<u64, String> {
    match result {
        Ok(bytes) if bytes as u64 == u64::from(job.block) => Ok(bytes as u64),
        Ok(bytes) => Err(format!("{bytes} of {} bytes", job.block)),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Compares a block and notes what came of it; what is wrong, and whether the data is.
fn compare(
    mover: &mut Mover<'_>,
    slot: usize,
    offset: u64,
    verified: &mut Verified,
) -> Option<(String, bool)> {
    let (what, wrong) = match mover.compare(slot, offset) {
        Ok(compared) => {
            verified.blocks += 1;
            verified.uniform += u64::from(compared.uniform);
            (compared.wrong?, true)
        }
        Err(failure) => (failure.to_string(), false),
    };
    verified.wrong += u64::from(wrong);
    verified.first.get_or_insert_with(|| what.clone());
    Some((what, wrong))
}

/// Transfers and compares blocks all over the range, with every thread's memory in turn; how many transfers were made.
fn compare_some(job: &Job, movers: &[Mutex<Mover<'_>>], verified: &mut Verified) -> u64 {
    let (mut made, mut results) = (0, Vec::new());
    let blocks = job.blocks();
    let some = blocks.min(SAMPLED).min((SAMPLED_BYTES / u64::from(job.block)).max(LEAST_SAMPLED));
    for (number, mover) in (0..some).zip(movers.iter().cycle()) {
        let mover = &mut locked(mover);
        let block = u128::from(blocks) * u128::from(number) / u128::from(some);
        let offset = job.range.start + block as u64 * u64::from(job.block);
        let transferred = match mover.prepare(0, offset) {
            Ok(()) => {
                mover.transfer(&[offset], &mut results);
                results.pop().unwrap_or_else(|| Err(because("no answer")))
            }
            Err(failure) => Err(failure),
        };
        match whole(transferred, job) {
            Ok(_) => made += 1,
            Err(what) => {
                verified.first.get_or_insert(what);
                break;
            }
        }
        compare(mover, 0, offset, verified);
    }
    made
}

/// A thread that panicked ends the task by itself; what it held is whole.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn because(text: &str) -> Failure {
    Failure { text: text.to_owned(), ..Failure::default() }
}
