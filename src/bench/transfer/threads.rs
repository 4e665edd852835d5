//! The threads of a job, and the clock and the CPU time around them: the same for every way to transfer.

use super::job::Job;
use super::measurement::{Recorder, Samples};
use anyhow::{Context as _, bail};
use nix::sys::resource::{UsageWho, getrusage};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After so many failures a thread gives up: the drive is gone or broken.
pub const GIVE_UP: u64 = 64;
/// Where each transfer needs a thread of its own: no more threads than this.
pub const MOST_THREADS: u32 = 256;

/// What a thread has to know.
#[derive(Debug)]
pub struct Thread<'a> {
    /// Its number, from 0.
    pub number: u32,
    /// What all of them do.
    pub job: &'a Job,
    /// Set when they are to end early.
    pub stop: &'a AtomicBool,
    /// When the first of them began.
    pub begun: Instant,
    /// When no transfer is to be begun any more, where the clock says that.
    until: Option<Instant>,
}

impl Thread<'_> {
    /// Is no transfer to be begun any more?
    pub fn is_over(&self, now: Instant) -> bool {
        self.stop.load(Ordering::Relaxed) || self.until.is_some_and(|until| now >= until)
    }
}

/// Runs `transfer` in as many threads as the job has, and puts together what they measured.
///
/// # Errors
/// The first error of a thread, or the kernel starts none.
pub fn measure(
    engine: &str,
    job: &Job,
    stop: &AtomicBool,
    transfer: impl Fn(Thread<'_>) -> anyhow::Result<Recorder> + Sync,
) -> anyhow::Result<Samples> {
    let cpu = cpu_seconds()?;
    // The clock runs from the first thread that is there to the last one's last transfer.
    let (begun, mut ended) = (OnceLock::new(), None);
    let (begun, transfer) = (&begun, &transfer);
    let (mut recorders, mut first_error) = (Vec::new(), None);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let mut threads = Vec::new();
        for number in 0..job.threads {
            let run = move || {
                let begun = *begun.get_or_init(Instant::now);
                let until = job.limit().and_then(|limit| begun.checked_add(limit));
                (transfer(Thread { number, job, stop, begun, until }), Instant::now())
            };
            let spawned =
                std::thread::Builder::new().name(format!("transfer-{number}")).spawn_scoped(scope, run);
            // Those that run already end by themselves or by `stop`.
            threads.push(
                spawned.inspect_err(|_| stop.store(true, Ordering::Relaxed)).context("starting a thread")?,
            );
        }
        for thread in threads {
            match thread.join() {
                Ok((Ok(recorder), end)) => {
                    recorders.push(recorder);
                    ended = ended.max(Some(end));
                }
                Ok((Err(error), _)) => first_error = first_error.take().or(Some(error)),
                Err(_) => bail!("a thread of the benchmark panicked"),
            }
        }
        Ok(())
    })?;
    if let Some(error) = first_error {
        return Err(error);
    }
    let cpu_seconds = cpu_seconds()? - cpu;
    let time = ended.zip(begun.get()).map(|(ended, begun)| ended.duration_since(*begun));
    let mut all = Recorder::new();
    recorders.into_iter().for_each(|recorder| all.merge(recorder));
    Ok(all.finish(engine, time.unwrap_or_default().as_secs_f64(), cpu_seconds))
}

/// User and system time of this process, its kernel threads for io_uring among it.
fn cpu_seconds() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("reading the CPU time")?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// As a number.
pub fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// An error without its number, which differs between systems.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
