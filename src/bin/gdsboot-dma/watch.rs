//! Watches a GPU while a job runs, in a thread of its own: NVML may take its time, or never answer, and the job goes on.

use crate::nvml::Nvml;
use gdsboot::bench::worker::gpu_state::GpuState;
use std::cell::RefCell;
use std::os::unix::thread::JoinHandleExt as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the GPU is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long the last answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What watches one GPU, job after job.
pub struct Watcher {
    nvml: Nvml,
    /// The GPU's address.
    pci: String,
    /// A thread that NVML has not let go: as long as it is stuck, no other one is sent after it.
    stuck: RefCell<Option<JoinHandle<()>>>,
}

/// A job that is being watched.
pub struct Watch<'a> {
    watcher: &'a Watcher,
    thread: JoinHandle<()>,
    /// Dropped when the job is over.
    goes_on: Sender<()>,
    states: Receiver<GpuState>,
}

impl Watcher {
    pub fn new(nvml: Nvml, pci: String) -> Self {
        Self { nvml, pci, stuck: RefCell::new(None) }
    }

    /// Begins to watch; `None` where that cannot be done.
    pub fn start(&self) -> Option<Watch<'_>> {
        if self.stuck.borrow().as_ref().is_some_and(|thread| !thread.is_finished()) {
            return None;
        }
        let (goes_on, is_over) = channel();
        let (sender, states) = channel();
        let (nvml, pci, begun) = (self.nvml, self.pci.clone(), Instant::now());
        let builder = std::thread::Builder::new().name("nvml".into());
        let thread = builder.spawn(move || watch(nvml, &pci, begun, &is_over, &sender)).ok()?;
        Some(Watch { watcher: self, thread, goes_on, states })
    }
}

/// Asks until the job is over, and once more then.
fn watch(nvml: Nvml, pci: &str, begun: Instant, is_over: &Receiver<()>, states: &Sender<GpuState>) {
    let Ok(device) = nvml.device(pci) else { return };
    loop {
        let last = is_over.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
        let at_ms = begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        let (celsius, slowed) = (device.celsius().ok(), device.slowed());
        // A GPU that says neither says nothing.
        if celsius.is_some() || slowed.is_ok() {
            let state = GpuState { at_ms, celsius, slowed: slowed.unwrap_or_default() };
            // The job may have lost its patience.
            let _ = states.send(state);
        }
        if last {
            return;
        }
    }
}

impl Watch<'_> {
    /// The CPU time that watching has taken so far, in seconds: it is none of the transfers'.
    #[allow(unsafe_code, reason = "the clock of another thread")]
    pub fn cpu_seconds(&self) -> f64 {
        let mut clock = 0;
        // SAFETY: the thread was not joined and its handle is still held, so that its number is its own; one number is
        // written.
        if unsafe { libc::pthread_getcpuclockid(self.thread.as_pthread_t(), &raw mut clock) } != 0 {
            return 0.0;
        }
        let time = nix::time::clock_gettime(clock.into());
        time.map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
    }

    /// What the GPU said while the job ran, and once more now that it is over.
    pub fn end(self) -> Vec<GpuState> {
        drop(self.goes_on);
        let deadline = Instant::now() + PATIENCE;
        let mut states = Vec::new();
        loop {
            match self.states.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(state) => states.push(state),
                Err(RecvTimeoutError::Disconnected) => return states,
                Err(RecvTimeoutError::Timeout) => {
                    self.watcher.stuck.replace(Some(self.thread));
                    return states;
                }
            }
        }
    }
}
