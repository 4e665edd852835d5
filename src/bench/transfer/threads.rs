//! The threads of a job, and the clock and the CPU time around them: the same for every way to transfer.

use super::job::Job;
use super::measurement::{Recorder, Samples};
use anyhow::{Context as _, bail};
use nix::sys::resource::{UsageWho, getrusage};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
    stop: &'a AtomicBool,
    gate: &'a Gate,
    is_counted: Cell<bool>,
}

/// A thread whose clock runs.
#[derive(Debug)]
pub struct Running<'a> {
    /// When all of them began.
    pub begun: Instant,
    until: Option<Instant>,
    stop: &'a AtomicBool,
    is_first: Cell<bool>,
}

impl<'a> Thread<'a> {
    /// To be called when all is ready, memory included: waits until every thread is, and starts the clock.
    pub fn start(&self) -> Running<'a> {
        self.is_counted.set(true);
        let begun = self.gate.wait();
        let until = self.job.limit().and_then(|limit| begun.checked_add(limit));
        Running { begun, until, stop: self.stop, is_first: Cell::new(true) }
    }
}

impl Drop for Thread<'_> {
    /// The others do not wait for one that failed or panicked.
    fn drop(&mut self) {
        if !self.is_counted.get() {
            drop(self.gate.arrive(1));
        }
    }
}

impl Running<'_> {
    /// Is no transfer to be begun any more? The first always is, unless the job was stopped: a time that is too short for the
    /// drive, or for this machine's load, must not look like a drive that gives nothing.
    pub fn is_over(&self, now: Instant) -> bool {
        let is_first = self.is_first.replace(false);
        self.stop.load(Ordering::Relaxed) || (!is_first && self.until.is_some_and(|until| now >= until))
    }
}

/// Holds threads until all that are to come have come.
#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug)]
struct State {
    awaited: u32,
    begun: Option<(Instant, anyhow::Result<f64>)>,
}

impl Gate {
    fn new(awaited: u32) -> Self {
        Self { state: Mutex::new(State { awaited, begun: None }), opened: Condvar::new() }
    }

    fn arrive(&self, count: u32) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.awaited = state.awaited.saturating_sub(count);
        if state.awaited == 0 && state.begun.is_none() {
            state.begun = Some((Instant::now(), cpu_seconds()));
            self.opened.notify_all();
        }
        state
    }

    fn wait(&self) -> Instant {
        let mut state = self.arrive(1);
        loop {
            if let Some((begun, _)) = state.begun {
                return begun;
            }
            state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Runs `transfer` in as many threads as the job has, and puts together what they measured. Each calls [`Thread::start`] when
/// it is ready.
///
/// # Errors
/// The first error of a thread, or the kernel starts none.
pub fn measure(
    engine: &str,
    job: &Job,
    stop: &AtomicBool,
    transfer: impl Fn(Thread<'_>) -> anyhow::Result<Recorder> + Sync,
) -> anyhow::Result<Samples> {
    // The clock runs from when all threads are ready to the last one's last transfer.
    let gate = Gate::new(job.threads);
    let (gate, transfer) = (&gate, &transfer);
    let (mut recorders, mut first_error, mut ended) = (Vec::new(), None, None);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let mut threads = Vec::new();
        for number in 0..job.threads {
            let run = move || {
                let thread = Thread { number, job, stop, gate, is_counted: Cell::new(false) };
                (transfer(thread), Instant::now())
            };
            let spawned =
                std::thread::Builder::new().name(format!("transfer-{number}")).spawn_scoped(scope, run);
            // Those that run already end by `stop`, and do not wait for those that never will.
            let spawned = spawned.inspect_err(|_| {
                stop.store(true, Ordering::Relaxed);
                drop(gate.arrive(job.threads - number));
            });
            threads.push(spawned.context("starting a thread")?);
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
    let begun = gate.state.lock().unwrap_or_else(PoisonError::into_inner).begun.take();
    let (begun, cpu) = begun.context("the job has no threads")?;
    let cpu_seconds = cpu_seconds()? - cpu?;
    let time = ended.map_or(Duration::ZERO, |ended| ended.duration_since(begun));
    let mut all = Recorder::new();
    recorders.into_iter().for_each(|recorder| all.merge(recorder));
    Ok(all.finish(engine, time.as_secs_f64(), cpu_seconds))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::transfer::job::{Direction, Order, Until};

    fn job(threads: u32) -> Job {
        Job {
            direction: Direction::Read,
            order: Order::Sequential,
            block: 4096,
            depth: 1,
            threads,
            range: 0..1 << 20,
            until: Until::Seconds(0.05),
            seed: 1,
            verify: false,
        }
    }

    #[test]
    fn getting_ready_is_not_measured_and_the_first_transfer_is_always_made() {
        let samples = measure("x", &job(2), &AtomicBool::new(false), |thread| {
            std::thread::sleep(Duration::from_millis(if thread.number == 0 { 10 } else { 400 }));
            let running = thread.start();
            // As a thread that the machine does not let run for longer than the job takes.
            std::thread::sleep(Duration::from_millis(100));
            let mut recorder = Recorder::new();
            while !running.is_over(Instant::now()) {
                recorder.transfer(4096, 1, nanoseconds(running.begun.elapsed()));
            }
            Ok(recorder)
        })
        .unwrap();
        assert_eq!(samples.transfers(), 2);
        assert!((0.1..0.4).contains(&samples.seconds), "{}", samples.seconds);
    }

    #[test]
    fn nobody_waits_for_a_thread_that_failed_or_panicked() {
        let failed = measure("x", &job(3), &AtomicBool::new(false), |thread| match thread.number {
            1 => bail!("no memory"),
            _ => {
                thread.start();
                Ok(Recorder::new())
            }
        });
        assert_eq!(failed.unwrap_err().to_string(), "no memory");
        let panicked = measure("x", &job(3), &AtomicBool::new(false), |thread| {
            assert_ne!(thread.number, 2, "as a bug would");
            thread.start();
            Ok(Recorder::new())
        });
        assert_eq!(panicked.unwrap_err().to_string(), "a thread of the benchmark panicked");
    }

    #[test]
    fn a_stopped_job_makes_nothing() {
        let samples = measure("x", &job(1), &AtomicBool::new(true), |thread| {
            assert!(thread.start().is_over(Instant::now()));
            Ok(Recorder::new())
        });
        assert_eq!(samples.unwrap().transfers(), 0);
    }
}
