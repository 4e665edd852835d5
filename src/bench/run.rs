//! Carries a plan out. Nothing that goes wrong ends it: what could not be done is in the results with its reason, and the
//! rest goes on.

use super::plan::{Part, Plan, Thoroughness};
use super::results::{Cause, Kind, Measurement, NotDone, Purpose, RawLine, Results, StepTime};
use super::route::Proof;
use super::state::{self, Watched, watch};
use super::storage;
use super::survey::{Survey, Worker, cause};
use super::transfer::job::{Job, Until};
use super::worker::process::{WorkerError, WorkerProcess};
use super::worker::settings::{CufileSettings, Wanted};
use super::worker::{Cufile, Engine, Failure, Gpu, Holds, Ran, Task};
use super::workload::Workload;
use crate::facts::Root;
use crate::facts::nvidia_fs::{NvidiaFs, Stats};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long a GPU or cuFile may take to open; a driver that cannot start its GPU takes some 6 s for each try.
const OPEN_LIMIT: Duration = Duration::from_secs(90);
/// How long cuFile may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// What a job may take beyond its own time, unless a test has less patience: memory is taken and filled before it, blocks
/// are compared after it, and a drive may need its own 30 s for a command that it lost.
pub const JOB_GRACE: Duration = Duration::from_secs(60);
/// No drive that is worth measuring moves less, in bytes per second.
const SLOWEST: u64 = 20_000_000;
/// After so many workers that hung on a GPU no other is started for it: each costs its whole time.
const MOST_HANGS: u32 = 2;
/// A clock that is this far off was set, in seconds.
const CLOCK_SET: f64 = 1.0;

/// Told of what happens.
pub trait Listener {
    /// A step begins.
    fn begins(&mut self, what: &str, seconds: f64);
    /// Something was measured.
    fn measured(&mut self, measurement: &Measurement, raw: &RawLine);
    /// Another program was run: which, and what came of it.
    fn ran(&mut self, program: &str, outcome: &str);
    /// Something was not done.
    fn not_done(&mut self, what: &NotDone);
    /// A step is over; what is known so far.
    fn step_is_over(&mut self, results: &Results);
}

/// With what a plan is carried out.
#[derive(Debug)]
pub struct Means<'a> {
    /// The machine.
    pub root: &'a Root,
    /// The DMA worker, where there is one.
    pub worker: Option<Worker<'a>>,
    /// The workloads that the plan was made for.
    pub workloads: &'a [Workload],
    /// The folder of the operator's programs.
    pub programs: Option<&'a Path>,
    /// Set when it is to end early.
    pub stop: &'a AtomicBool,
    /// What a job may take beyond its own time: [`JOB_GRACE`].
    pub grace: Duration,
}

/// Carries the plan out.
pub fn run(
    thoroughness: Thoroughness,
    plan: &Plan,
    survey: &Survey,
    means: &Means<'_>,
    listener: &mut dyn Listener,
) -> Results {
    let results = Results {
        thoroughness,
        planned_seconds: plan.seconds(),
        simulated: survey.gpus.iter().any(|seen| seen.gpu.simulated),
        gpus: survey.gpus.clone(),
        drives: survey.drives.iter().map(|opened| opened.drive.clone()).collect(),
        ..Results::default()
    };
    let mut run = Run {
        survey,
        means,
        listener,
        results,
        gone: HashMap::new(),
        hangs: HashMap::new(),
        filled: HashSet::new(),
    };
    for not_done in survey.not_done.iter().chain(&plan.left_out) {
        run.not_done(not_done.clone());
    }
    let (begun, clock) = (Instant::now(), SystemTime::now());
    for step in &plan.steps {
        if means.stop.load(Ordering::Relaxed) {
            run.interrupted(&step.part);
            continue;
        }
        let what = run.name(&step.part);
        run.listener.begins(&what, step.seconds);
        let started = Instant::now();
        run.part(&step.part);
        let seconds = started.elapsed().as_secs_f64();
        run.results.steps.push(StepTime { what, planned_seconds: step.seconds, seconds });
        run.results.seconds = begun.elapsed().as_secs_f64();
        run.listener.step_is_over(&run.results);
    }
    let elapsed = begun.elapsed();
    run.results.clock_set_seconds = clock_set(clock, SystemTime::now(), elapsed);
    run.results.seconds = elapsed.as_secs_f64();
    run.results
}

/// How far a clock was set, in seconds, that showed `before` and `after` so much time later.
fn clock_set(before: SystemTime, after: SystemTime, elapsed: Duration) -> f64 {
    let by_clock = match after.duration_since(before) {
        Ok(forward) => forward.as_secs_f64(),
        Err(backward) => -backward.duration().as_secs_f64(),
    };
    let set = by_clock - elapsed.as_secs_f64();
    if set.abs() >= CLOCK_SET { set } else { 0.0 }
}

struct Run<'a> {
    survey: &'a Survey,
    means: &'a Means<'a>,
    listener: &'a mut dyn Listener,
    results: Results,
    /// Drives that are gone, with the reason.
    gone: HashMap<usize, String>,
    /// How often a worker hung on a GPU.
    hangs: HashMap<usize, u32>,
    /// Files that hold the pattern.
    filled: HashSet<usize>,
}

/// A worker with its GPU, and with cuFile where it was asked for.
struct Session {
    worker: WorkerProcess,
    gpu: Gpu,
    settings: CufileSettings,
    cufile: Option<Cufile>,
}

/// What is measured, and of what.
#[derive(Clone, Copy)]
struct What {
    kind: Kind,
    purpose: Purpose,
    gpu: Option<usize>,
    drive: Option<usize>,
}

/// A measurement that was kept.
struct Kept {
    number: u32,
    ran: Ran,
    proof: Option<Proof>,
}

/// A route of its own, and what cuFile does when it may choose.
const NVFS: CufileSettings = CufileSettings { wanted: Wanted::Nvfs, compat: false };
const P2PDMA: CufileSettings = CufileSettings { wanted: Wanted::P2pdma, compat: false };
const ANY: CufileSettings = CufileSettings { wanted: Wanted::Any, compat: true };
/// Copies by the CPU, to see that they are counted as such.
const CONTROL: CufileSettings = CufileSettings { wanted: Wanted::Compat, compat: true };

impl Run<'_> {
    fn part(&mut self, part: &Part) {
        match part {
            Part::Fill { drive, job } => self.storage(*drive, job, Purpose::Fill),
            Part::Storage { drive, jobs } => {
                for job in jobs {
                    self.storage(*drive, job, Purpose::Figures);
                }
            }
            Part::Link { gpu, jobs } => self.link(*gpu, jobs),
            Part::Route { gpu, drive, jobs, thorough } => self.route(*gpu, *drive, jobs, *thorough),
            Part::Figures { gpu, drive, jobs, load } => self.figures(*gpu, *drive, jobs, load.as_ref()),
            Part::Together { pairs, jobs } => self.together(pairs, jobs),
            Part::Gdsio { gpu, drive, job } => self.gdsio(*gpu, *drive, job),
            Part::Workload { number, .. } => self.workload(*number),
        }
    }

    /// What a part is, for people.
    fn name(&self, part: &Part) -> String {
        part.words(&self.survey.spaces(), &self.survey.addresses())
    }

    fn interrupted(&mut self, part: &Part) {
        let what = self.name(part);
        self.not_done(NotDone {
            what,
            gpu: None,
            drive: None,
            cause: Cause::Time,
            why: "it was interrupted".into(),
        });
    }

    fn not_done(&mut self, not_done: NotDone) {
        // A worker that fails in the same way for each job says it once.
        if !self.results.not_done.contains(&not_done) {
            self.listener.not_done(&not_done);
            self.results.not_done.push(not_done);
        }
    }

    fn could_not(&mut self, what: &str, gpu: Option<usize>, drive: Option<usize>, cause: Cause, why: String) {
        let gpu = gpu.map(|gpu| self.survey.gpus[gpu].gpu.pci.clone());
        let drive = drive.map(|drive| self.survey.drives[drive].drive.name.clone());
        self.not_done(NotDone { what: what.to_owned(), gpu, drive, cause, why });
    }

    fn watched(&self, gpu: Option<usize>, drive: Option<usize>) -> Watched {
        let opened = drive.map(|drive| &self.survey.drives[drive]);
        Watched {
            gpu: gpu.map(|gpu| self.survey.gpus[gpu].gpu.pci.clone()),
            drive: opened.and_then(|opened| opened.drive.pci.clone()),
            controller: opened.and_then(|opened| opened.controller.clone()),
        }
    }

    /// Is the drive still there? Says so once where it is not.
    fn has(&mut self, drive: usize) -> bool {
        !self.gone.contains_key(&drive)
    }

    /// After failures: is the drive gone?
    fn look_after(&mut self, drive: Option<usize>, errors: u64) {
        let Some(drive) = drive.filter(|_| errors > 0) else { return };
        if let Err(error) = self.survey.drives[drive].is_alive() {
            let why = format!("it can no longer be read: {}", super::transfer::threads::words(&error));
            self.gone.insert(drive, why.clone());
            self.could_not("all that was left of it", None, Some(drive), Cause::Drive, why);
        }
    }

    fn storage(&mut self, drive: usize, job: &Job, purpose: Purpose) {
        if !self.has(drive) {
            return;
        }
        let file = &self.survey.drives[drive].target.file;
        let watched = self.watched(None, Some(drive));
        let (done, states) = watch(self.means.root, &watched, || storage::run(file, job, self.means.stop));
        match done {
            Ok(samples) => {
                let transfers = samples.transfers();
                let moved = transfers * u64::from(job.block);
                let ran = Ran { samples, transfers, moved, ..Ran::default() };
                let what = What { kind: Kind::Storage, purpose, gpu: None, drive: Some(drive) };
                let raw = RawLine { number: 0, ran, cufile: None, nvidia_fs: None, mappings: None, states };
                let kept = self.keep(what, job, raw, None);
                if purpose == Purpose::Fill && kept.ran.transfers == job.blocks() {
                    self.filled.insert(drive);
                }
            }
            Err(error) => {
                let why = crate::error::one_line(&error);
                self.could_not(&job.to_string(), None, Some(drive), Cause::Drive, why);
            }
        }
    }

    /// Opens a worker for a GPU and a drive; `settings` where cuFile is wanted. The failure is cuFile's or CUDA's own
    /// where it is one.
    fn open(
        &mut self,
        gpu: usize,
        drive: Option<usize>,
        settings: Option<CufileSettings>,
    ) -> Result<Session, WorkerError> {
        if self.hangs.get(&gpu).is_some_and(|hangs| *hangs >= MOST_HANGS) {
            return Err(WorkerError::Gone);
        }
        let file = drive.map(|drive| &self.survey.drives[drive].target.file);
        let session = open(self.means.worker, self.survey.gpus[gpu].index, file, settings);
        self.noted(gpu, session)
    }

    /// Counts the workers that hung.
    fn noted<T>(&mut self, gpu: usize, result: Result<T, WorkerError>) -> Result<T, WorkerError> {
        if let Err(WorkerError::Hung { .. }) = &result {
            *self.hangs.entry(gpu).or_default() += 1;
        }
        result
    }

    fn link(&mut self, gpu: usize, jobs: &[Job]) {
        let mut session = match self.open(gpu, None, None) {
            Ok(session) => session,
            Err(error) => {
                return self.could_not("its link", Some(gpu), None, cause(&error), error.to_string());
            }
        };
        for (number, job) in jobs.iter().enumerate() {
            let purpose = if number == 0 { Purpose::WarmUp } else { Purpose::Figures };
            let what = What { kind: Kind::HostCopy, purpose, gpu: Some(gpu), drive: None };
            if let Err(error) = self.task(&mut session, what, job) {
                self.could_not(&job.to_string(), Some(gpu), None, cause(&error), error.to_string());
                break;
            }
        }
        let _ = session.worker.close(CLOSE_LIMIT);
    }

    /// Makes a job's transfers and keeps what came of them.
    fn task(&mut self, session: &mut Session, what: What, job: &Job) -> Result<Kept, WorkerError> {
        let engine = what.kind.engine().unwrap_or(Engine::HostCopy);
        let task =
            Task { engine, file: session.worker.file(), holds: self.holds(what.drive), job: job.clone() };
        let pair = Pair {
            gpu: what.gpu.map(|gpu| self.survey.gpus[gpu].gpu.pci.as_str()),
            drive: what.drive.and_then(|drive| self.survey.drives[drive].drive.pci.as_deref()),
        };
        let count = || if engine.is_cufile() { pair.counts(self.means.root) } else { (None, None) };
        let (stats, mappings) = count();
        let limit = limit(job) + self.means.grace;
        let watched = self.watched(what.gpu, what.drive);
        let (ran, states) = watch(self.means.root, &watched, || session.worker.run(task, limit));
        let ran = match what.gpu {
            Some(gpu) => self.noted(gpu, ran),
            None => ran,
        };
        let ran = ran?;
        let after = count();
        let (nvidia_fs, mappings) = (stats.zip(after.0), mappings.zip(after.1));
        let raw = RawLine { number: 0, ran, cufile: session.cufile.clone(), nvidia_fs, mappings, states };
        Ok(self.keep(what, job, raw, Some(session.settings)))
    }

    /// Numbers a measurement, computes its figures from its raw samples, and keeps both.
    fn keep(&mut self, what: What, job: &Job, mut raw: RawLine, settings: Option<CufileSettings>) -> Kept {
        let number = u32::try_from(self.results.measurements.len() + 1).unwrap_or(u32::MAX);
        raw.number = number;
        raw.states.extend(raw.ran.gpu_states.iter().map(state::of_gpu));
        let is_cufile = what.kind.engine().is_some_and(Engine::is_cufile);
        let seen = what.gpu.map(|gpu| &self.survey.gpus[gpu].gpu);
        let measurement = Measurement {
            gpu: seen.map(|gpu| gpu.pci.clone()),
            drive: what.drive.map(|drive| self.survey.drives[drive].drive.name.clone()),
            settings: settings.filter(|_| is_cufile),
            ..Measurement::new(number, what.kind, what.purpose, job.clone())
        };
        let measurement = measurement.computed(&raw, seen.map(|gpu| gpu.uuid.as_str()));
        self.look_after(what.drive, measurement.errors);
        self.listener.measured(&measurement, &raw);
        let proof = measurement.proof.clone();
        self.results.measurements.push(measurement);
        Kept { number, ran: raw.ran, proof }
    }

    /// A file that was filled holds the pattern; nobody knows what a drive holds.
    fn holds(&self, drive: Option<usize>) -> Holds {
        match drive {
            Some(drive) if self.filled.contains(&drive) => Holds::Pattern,
            _ => Holds::Anything,
        }
    }
}

mod pairs;
mod programs;

fn open(
    worker: Option<Worker<'_>>,
    index: u32,
    file: Option<&File>,
    settings: Option<CufileSettings>,
) -> Result<Session, WorkerError> {
    let missing = |text: String| WorkerError::Failed(Failure { text, missing: true, ..Failure::default() });
    let worker = worker.ok_or_else(|| missing("gdsboot-dma is not there".into()))?;
    let asked = settings.unwrap_or(ANY);
    let mut process = WorkerProcess::start(worker.program, asked, file, worker.environment)
        .map_err(|error| missing(crate::error::one_line(&error)))?;
    let gpu = process.open_gpu(index, OPEN_LIMIT)?;
    let cufile = settings.map(|_| process.open_cufile(OPEN_LIMIT)).transpose()?;
    Ok(Session { worker: process, gpu, settings: asked, cufile })
}

/// How long a job's transfers may take.
fn limit(job: &Job) -> Duration {
    match job.until {
        Until::Seconds(_) => job.limit().unwrap_or_default() * 2,
        Until::Once => Duration::from_secs((job.range.end - job.range.start) / SLOWEST),
    }
}

/// The PCI addresses of a GPU and a drive, where they have any.
#[derive(Clone, Copy)]
struct Pair<'a> {
    gpu: Option<&'a str>,
    drive: Option<&'a str>,
}

impl Pair<'_> {
    /// nvidia-fs's counters, where it is loaded, and its count of mappings of this GPU for this drive.
    fn counts(self, root: &Root) -> (Option<Stats>, Option<u64>) {
        let read = NvidiaFs::read(root);
        let peers = read.peers.value().map_or(&[][..], Vec::as_slice);
        let mut this = peers
            .iter()
            .filter(|peer| self.gpu == Some(peer.gpu.as_str()) && self.drive == Some(peer.peer.as_str()));
        let mappings = this.next().and_then(|peer| peer.mappings);
        (read.stats.value().cloned(), mappings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_seen() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let minute = Duration::from_secs(60);
        let set = |after: SystemTime| clock_set(noon, after, minute);
        assert_eq!(set(noon + minute), 0.0);
        assert_eq!(set(noon + minute + Duration::from_millis(400)), 0.0);
        assert_eq!(set(noon + minute * 2), 60.0);
        assert_eq!(set(noon - minute), -120.0);
    }
}
