//! Transfers between a drive and the CPU's memory: what the drive can do by itself, the ceiling of every other route.
//! io_uring where the kernel has it, else one thread for each transfer.

mod ring;

use crate::bench::transfer::job::{Direction, Job};
use crate::bench::transfer::measurement::{Recorder, Samples};
use crate::bench::transfer::offsets::Offsets;
use crate::bench::transfer::pattern::Pattern;
use crate::bench::transfer::threads::{GIVE_UP, MOST_THREADS, Thread, measure, nanoseconds, words};
use anyhow::Context as _;
pub use ring::Buffers;
use ring::{Ended, Ring};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A transfer that takes longer is lost. The kernel gives an NVMe command 30 s, and two more tries (nvme_core.io_timeout).
const LOST: Duration = Duration::from_secs(120);
/// How long one look for ended transfers may take.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the job's transfers with `file`, which was opened with O_DIRECT where the drive is meant and not the page cache.
/// `stop` ends it early; what came of it until then is the result.
///
/// # Errors
/// The job cannot be run, or the kernel refused the threads or their memory. Transfers that fail are in the samples.
pub fn run(file: &File, job: &Job, stop: &AtomicBool) -> anyhow::Result<Samples> {
    job.check().map_err(anyhow::Error::msg)?;
    match Ring::new(file, 1, 512) {
        Ok(_) => measure("io_uring", job, stop, |context| by_ring(file, &context)),
        Err(_) => {
            // As many at a time as the ring would have, each in a thread of its own.
            let blocks = u32::try_from(job.blocks()).unwrap_or(u32::MAX);
            let threads = job.threads.saturating_mul(job.depth).min(MOST_THREADS).min(blocks);
            let job = Job { threads, depth: 1, ..job.clone() };
            measure("pread", &job, stop, |context| by_thread(file, &context))
        }
    }
}

/// How many transfers the kernel is given at a time. Of more than two (io_submit_state_start of io_uring/io_uring.c) it gives
/// the drive none before it has made all of them ready, and the drive waits.
const AT_ONCE: usize = 2;

/// Where a buffer's transfer goes, and when it began.
#[derive(Clone, Copy)]
struct UnderWay {
    offset: u64,
    begun: Instant,
}

fn by_ring(file: &File, thread: &Thread<'_>) -> anyhow::Result<Recorder> {
    let job = thread.job;
    let mut recorder = Recorder::new();
    let mut offsets = Offsets::new(job, thread.number);
    let mut ring = Ring::new(file, job.depth, job.block).context("making a ring of transfers")?;
    let mut under_way = vec![UnderWay { offset: 0, begun: Instant::now() }; job.depth as usize];
    // What is written is not what was found there; filled once where nobody compares it.
    if job.direction == Direction::Write && !job.verify {
        (0..under_way.len())
            .for_each(|slot| Pattern { seed: job.seed }.fill(ring.buffer(slot), slot as u64 * 8));
    }
    let mut free: Vec<usize> = (0..under_way.len()).rev().collect();
    let mut ended = Vec::with_capacity(under_way.len());
    let running = thread.start();
    let mut now = Instant::now();
    let mut last_end = now;
    loop {
        let mut held_back = 0;
        // The drive gets the next transfer before what is left of the ended ones is looked at.
        let mut left = ended.drain(..);
        loop {
            while !running.is_over(now) && recorder.error_count() < GIVE_UP {
                let Some(slot) = free.pop() else { break };
                let Some(offset) = offsets.next() else {
                    free.push(slot);
                    break;
                };
                if job.direction == Direction::Write && job.verify {
                    Pattern { seed: job.seed }.fill(ring.buffer(slot), offset);
                }
                under_way[slot] = UnderWay { offset, begun: Instant::now() };
                ring.begin(job.direction, slot, offset);
                held_back += 1;
                if held_back == AT_ONCE {
                    held_back = 0;
                    ring.submit().context("beginning a transfer")?;
                }
            }
            let Some(Ended { slot, result }) = left.next() else { break };
            free.push(slot);
            let UnderWay { offset, begun: started } = under_way[slot];
            match result {
                Ok(bytes) if bytes == job.block => {
                    let latency = nanoseconds(now.duration_since(started));
                    let at = nanoseconds(now.duration_since(running.begun));
                    recorder.transfer(bytes.into(), latency, at);
                    check(job, ring.buffer(slot), offset, &mut recorder);
                }
                Ok(bytes) => recorder.error(offset, format!("{bytes} of {} bytes", job.block), false),
                Err(errno) => recorder.error(offset, words(&std::io::Error::from_raw_os_error(errno)), false),
            }
        }
        drop(left);
        if free.len() == under_way.len() {
            return Ok(recorder);
        }
        ring.wait(LOOK, &mut ended).context("waiting for a transfer")?;
        now = Instant::now();
        if !ended.is_empty() {
            last_end = now;
        } else if now.duration_since(last_end) > LOST {
            let slot = (0..under_way.len()).find(|slot| !free.contains(slot)).unwrap_or_default();
            let what =
                format!("no answer after {} s; {} transfers are lost", LOST.as_secs(), ring.under_way());
            recorder.error(under_way[slot].offset, what, false);
            return Ok(recorder);
        }
    }
}

fn by_thread(file: &File, thread: &Thread<'_>) -> anyhow::Result<Recorder> {
    let job = thread.job;
    let mut recorder = Recorder::new();
    let mut buffers = Buffers::new(1, job.block as usize).context("taking memory")?;
    let buffer = buffers.get_mut(0);
    let running = thread.start();
    for offset in Offsets::new(job, thread.number) {
        let started = Instant::now();
        if running.is_over(started) || recorder.error_count() >= GIVE_UP {
            break;
        }
        let done = match job.direction {
            Direction::Read => file.read_at(buffer, offset),
            Direction::Write => {
                Pattern { seed: job.seed }.fill(buffer, offset);
                file.write_at(buffer, offset)
            }
        };
        match done {
            Ok(bytes) if bytes == buffer.len() => {
                let now = Instant::now();
                let latency = nanoseconds(now.duration_since(started));
                recorder.transfer(bytes as u64, latency, nanoseconds(now.duration_since(running.begun)));
                check(job, buffer, offset, &mut recorder);
            }
            Ok(bytes) => recorder.error(offset, format!("{bytes} of {} bytes", job.block), false),
            Err(error) => recorder.error(offset, words(&error), false),
        }
    }
    Ok(recorder)
}

fn check(job: &Job, buffer: &[u8], offset: u64, recorder: &mut Recorder) {
    if job.verify
        && job.direction == Direction::Read
        && let Err(mismatch) = (Pattern { seed: job.seed }).check(buffer, offset)
    {
        recorder.error(offset, mismatch.to_string(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::transfer::job::{Order, Until};
    use std::os::unix::fs::OpenOptionsExt as _;

    static GO: AtomicBool = AtomicBool::new(false);

    /// A file of 8 MiB that holds the pattern of seed 3, opened without the page cache where the filesystem can.
    fn file(folder: &std::path::Path) -> File {
        let path = folder.join("data");
        let mut bytes = vec![0; 8 << 20];
        Pattern { seed: 3 }.fill(&mut bytes, 0);
        fs_err::write(&path, bytes).unwrap();
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true);
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(&path);
        direct.or_else(|_| options.open(&path)).unwrap()
    }

    fn job() -> Job {
        Job {
            direction: Direction::Read,
            order: Order::Sequential,
            block: 64 << 10,
            depth: 4,
            threads: 3,
            range: 0..8 << 20,
            until: Until::Once,
            seed: 3,
            verify: true,
        }
    }

    type Engine = fn(&File, &Thread<'_>) -> anyhow::Result<Recorder>;

    fn with(engine: Engine, file: &File, job: &Job) -> Samples {
        measure("x", job, &GO, |thread| engine(file, &thread)).unwrap()
    }

    #[test]
    fn every_block_is_read_once_and_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        for engine in [by_ring as Engine, by_thread] {
            let samples = with(engine, &file, &job());
            assert_eq!((samples.total_bytes(), samples.transfers()), (8 << 20, 128));
            assert_eq!(samples.errors, []);
            let wrong = with(engine, &file, &Job { seed: 4, ..job() });
            assert!(
                wrong.errors.iter().all(|error| error.wrong_data) && wrong.error_count >= 64,
                "{wrong:?}"
            );
            let random = with(engine, &file, &Job { order: Order::Random, block: 4096, ..job() });
            assert_eq!((random.transfers(), random.error_count), (2048, 0));
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        for (seed, engine) in [(10, by_ring as Engine), (11, by_thread)] {
            let write = Job { direction: Direction::Write, seed, ..job() };
            assert_eq!(with(engine, &file, &write).error_count, 0);
            assert_eq!(with(engine, &file, &Job { seed, ..job() }).errors, []);
            assert!(with(engine, &file, &job()).error_count > 0);
        }
    }

    #[test]
    fn the_clock_and_the_caller_end_a_job() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        let timed = Job { until: Until::Seconds(0.3), verify: false, ..job() };
        let samples = run(&file, &timed, &GO).unwrap();
        assert!((0.3..5.0).contains(&samples.seconds), "{}", samples.seconds);
        assert!(samples.transfers() > 0 && samples.figures().gib_per_second > 0.0);
        let stopped =
            run(&file, &Job { until: Until::Seconds(60.0), ..timed }, &AtomicBool::new(true)).unwrap();
        assert!(stopped.seconds < 10.0 && stopped.transfers() == 0);
    }

    #[test]
    fn a_range_beyond_the_end_is_errors_and_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        for engine in [by_ring as Engine, by_thread] {
            let beyond = Job { range: 1 << 40..2 << 40, threads: 1, until: Until::Seconds(30.0), ..job() };
            let samples = with(engine, &file, &beyond);
            assert_eq!(samples.errors[0].what, "0 of 65536 bytes");
            assert!(samples.error_count >= GIVE_UP && samples.seconds < 10.0);
        }
        let read_only = File::open(dir.path().join("data")).unwrap();
        let write = Job { direction: Direction::Write, threads: 1, ..job() };
        assert_eq!(with(by_ring, &read_only, &write).errors[0].what, "Bad file descriptor");
    }
}
