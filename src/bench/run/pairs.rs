//! The parts of a plan that concern pairs of a GPU and a drive.

use super::{ANY, CLOSE_LIMIT, CONTROL, Kept, NVFS, P2PDMA, Run, Session, What, limit};
use crate::bench::plan::{Load, has_other_ways};
use crate::bench::results::{Attempt, Cause, Kind, Pair, Purpose, RawLine};
use crate::bench::route::{Outcome, Proof, refused};
use crate::bench::state::watch;
use crate::bench::survey::cause;
use crate::bench::transfer::job::{Direction, Job};
use crate::bench::worker::process::WorkerError;
use crate::bench::worker::settings::CufileSettings;
use crate::bench::worker::{Engine, Failure, Ran, Task};

/// What one way of asking cuFile came to.
struct Tried {
    attempt: Attempt,
    /// cuFile's refusal, where it is one.
    failure: Option<Failure>,
    /// What the first job came to.
    first: Option<Ran>,
    simulated: bool,
}

impl Run<'_> {
    /// Finds out which route a pair's transfers take.
    pub(super) fn route(&mut self, gpu: usize, drive: usize, jobs: &[Job], thorough: bool) {
        if !self.has(drive) {
            return;
        }
        let all = [NVFS, P2PDMA, ANY];
        let likely = self.likely(gpu);
        let mut order: Vec<CufileSettings> = likely.into_iter().collect();
        order.extend(all.into_iter().filter(|settings| likely != Some(*settings)));
        let mut tried: Vec<Tried> = Vec::new();
        for settings in order {
            let done = tried.iter().any(|tried| tried.attempt.proof.outcome == Outcome::Direct);
            if done && !thorough || !self.has(drive) {
                break;
            }
            tried.push(self.attempt(gpu, drive, settings, jobs));
        }
        // What a refusal proves depends on what became of the same where copies by the CPU were allowed.
        let allowed =
            tried.iter().find(|tried| tried.attempt.settings == ANY).and_then(|tried| tried.first.clone());
        for tried in &mut tried {
            if let Some(failure) = tried.failure.take() {
                tried.attempt.proof = refused(&failure, allowed.as_ref(), tried.simulated);
            }
        }
        let mut attempts: Vec<Attempt> = tried.into_iter().map(|tried| tried.attempt).collect();
        attempts.sort_by_key(|attempt| all.iter().position(|settings| *settings == attempt.settings));
        if thorough && self.has(drive) {
            // One kind of transfer says enough.
            let first = jobs.get(..1).unwrap_or_default();
            attempts.push(self.attempt(gpu, drive, CONTROL, first).attempt);
            Pair::doubt(&mut attempts);
        }
        let label = |gpu: usize, drive: usize| self.survey.labels.get(gpu)?.get(drive).copied().flatten();
        let ranks = self.survey.ranks();
        let near = ranks.get(gpu).is_none_or(|ranks| ranks.iter().all(|rank| ranks[drive] <= *rank));
        self.results.pairs.push(Pair {
            gpu: self.survey.gpus[gpu].gpu.pci.clone(),
            drive: self.survey.drives[drive].drive.name.clone(),
            distance: label(gpu, drive).map(|label| label.to_string()),
            near,
            attempts,
        });
    }

    /// The settings that proved a direct route for another pair of this GPU, else of any.
    fn likely(&self, gpu: usize) -> Option<CufileSettings> {
        let address = &self.survey.gpus[gpu].gpu.pci;
        let direct = |pair: &&Pair| pair.outcome() == Outcome::Direct;
        let pairs = || self.results.pairs.iter().filter(direct);
        let pair = pairs().find(|pair| pair.gpu == *address).or_else(|| pairs().next());
        pair?.best().map(|attempt| attempt.settings)
    }

    fn attempt(&mut self, gpu: usize, drive: usize, settings: CufileSettings, jobs: &[Job]) -> Tried {
        let attempt = Attempt { settings, measurements: Vec::new(), proof: Proof::default(), error: None };
        let simulated = self.results.simulated;
        let mut tried = Tried { attempt, failure: None, first: None, simulated };
        let mut session = match self.open(gpu, Some(drive), Some(settings)) {
            Ok(session) => session,
            Err(error) => {
                self.refuse(&mut tried, gpu, drive, error);
                return tried;
            }
        };
        self.remember(gpu, &session);
        let mut proofs = Vec::new();
        for job in jobs {
            let what =
                What { kind: Kind::Cufile, purpose: Purpose::Proof, gpu: Some(gpu), drive: Some(drive) };
            match self.task(&mut session, what, job) {
                Ok(Kept { number, ran, proof }) => {
                    tried.attempt.measurements.push(number);
                    proofs.extend(proof.map(|proof| (job.to_string(), proof)));
                    tried.first.get_or_insert(ran);
                }
                Err(error) => {
                    self.refuse(&mut tried, gpu, drive, error);
                    break;
                }
            }
        }
        if tried.attempt.error.is_none() {
            tried.attempt.proof = Proof::together(&proofs);
            if let Err(error) = session.worker.close(CLOSE_LIMIT) {
                self.could_not("closing cuFile", Some(gpu), Some(drive), cause(&error), error.to_string());
            }
        }
        tried
    }

    /// Notes why there were no transfers. cuFile's refusals are its answer; all else is a fault.
    fn refuse(&mut self, tried: &mut Tried, gpu: usize, drive: usize, error: WorkerError) {
        let why = error.to_string();
        match error {
            WorkerError::Failed(failure) => tried.failure = Some(failure),
            error => {
                tried.attempt.proof.lacks.push(why.clone());
                self.could_not("the route", Some(gpu), Some(drive), cause(&error), why.clone());
            }
        }
        tried.attempt.error = Some(why);
    }

    /// Keeps what cuFile says of itself on this GPU.
    fn remember(&mut self, gpu: usize, session: &Session) {
        let seen = &mut self.results.gpus[gpu];
        if seen.cufile.is_none() {
            seen.cufile.clone_from(&session.cufile);
        }
        self.results.simulated |=
            session.gpu.simulated || session.cufile.as_ref().is_some_and(|c| c.simulated);
    }

    /// The settings with which a pair is measured: those that prove most, else what cuFile does by itself.
    fn best(&self, gpu: usize, drive: usize) -> CufileSettings {
        let (gpu, drive) = (&self.survey.gpus[gpu].gpu.pci, &self.survey.drives[drive].drive.name);
        let pair = self.results.pairs.iter().find(|pair| pair.gpu == *gpu && pair.drive == *drive);
        let best = pair.and_then(Pair::best).filter(|attempt| attempt.error.is_none());
        best.map_or(ANY, |attempt| attempt.settings)
    }

    /// Measures a pair by the bounce and by cuFile.
    pub(super) fn figures(&mut self, gpu: usize, drive: usize, jobs: &[Job], load: Option<&Load>) {
        if !self.has(drive) {
            return;
        }
        let mut session = match self.open(gpu, Some(drive), Some(self.best(gpu, drive))) {
            Ok(session) => session,
            // Without cuFile there is the bounce at least.
            Err(WorkerError::Failed(failure)) => {
                self.could_not(
                    "figures by cuFile",
                    Some(gpu),
                    Some(drive),
                    Cause::Library,
                    failure.to_string(),
                );
                match self.open(gpu, Some(drive), None) {
                    Ok(session) => session,
                    Err(error) => {
                        return self.could_not(
                            "figures",
                            Some(gpu),
                            Some(drive),
                            cause(&error),
                            error.to_string(),
                        );
                    }
                }
            }
            Err(error) => {
                return self.could_not("figures", Some(gpu), Some(drive), cause(&error), error.to_string());
            }
        };
        let mut rate = 0.0;
        for job in jobs {
            let mut kinds = vec![Kind::Bounce];
            if session.cufile.is_some() {
                kinds.push(Kind::Cufile);
                if has_other_ways(job) {
                    kinds.push(if job.block < 1 << 20 { Kind::CufileBatch } else { Kind::CufileStream });
                }
            }
            for kind in kinds {
                if !self.has(drive) {
                    return;
                }
                let what = What { kind, purpose: Purpose::Figures, gpu: Some(gpu), drive: Some(drive) };
                match self.task(&mut session, what, job) {
                    Ok(kept) if kind == Kind::Cufile && job.direction == Direction::Read => {
                        rate = kept.ran.samples.figures().gib_per_second.max(rate);
                    }
                    Ok(_) => {}
                    Err(WorkerError::Failed(failure)) => {
                        let what = format!("{job} by {}", kind.words());
                        let because = if failure.missing { Cause::Library } else { Cause::Refused };
                        self.could_not(&what, Some(gpu), Some(drive), because, failure.to_string());
                    }
                    Err(error) => {
                        let what = format!("{job} by {}", kind.words());
                        self.could_not(&what, Some(gpu), Some(drive), cause(&error), error.to_string());
                        return;
                    }
                }
            }
        }
        if let Some(load) = load.filter(|_| session.cufile.is_some()) {
            self.load(&mut session, gpu, drive, load, rate);
        }
        if let Err(error) = session.worker.close(CLOSE_LIMIT) {
            self.could_not("closing cuFile", Some(gpu), Some(drive), cause(&error), error.to_string());
        }
    }

    /// Reads as much as a model has, or as much as the pair can in that time. `rate` is in GiB per second.
    fn load(&mut self, session: &mut Session, gpu: usize, drive: usize, load: &Load, rate: f64) {
        let block = u64::from(load.job.block);
        let possible = (rate * f64::from(1 << 30) * load.seconds) as u64 / block * block;
        let job = Job { range: 0..load.job.range.end.min(possible), ..load.job.clone() };
        if job.check().is_err() {
            let why =
                format!("at {rate:.3} GiB/s nothing that deserves the name is read in {:.0} s", load.seconds);
            return self.could_not("loading a model", Some(gpu), Some(drive), Cause::Size, why);
        }
        let what = What { kind: Kind::Cufile, purpose: Purpose::Load, gpu: Some(gpu), drive: Some(drive) };
        if let Err(error) = self.task(session, what, &job) {
            self.could_not("loading a model", Some(gpu), Some(drive), cause(&error), error.to_string());
        }
    }

    /// Pairs at the same time, each by a worker of its own.
    pub(super) fn together(&mut self, pairs: &[(usize, usize)], jobs: &[Job]) {
        let mut sessions = Vec::new();
        for (&(gpu, drive), job) in pairs.iter().zip(jobs) {
            if !self.has(drive) {
                continue;
            }
            match self.open(gpu, Some(drive), Some(self.best(gpu, drive))) {
                Ok(session) => sessions.push((gpu, drive, job, session)),
                Err(error) => self.could_not(
                    "all at the same time",
                    Some(gpu),
                    Some(drive),
                    cause(&error),
                    error.to_string(),
                ),
            }
        }
        let (root, grace) = (self.means.root, self.means.grace);
        let watched: Vec<_> =
            sessions.iter().map(|(gpu, drive, ..)| self.watched(Some(*gpu), Some(*drive))).collect();
        let holds: Vec<_> = sessions.iter().map(|(_, drive, ..)| self.holds(Some(*drive))).collect();
        let ran: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = sessions
                .iter_mut()
                .zip(&watched)
                .zip(&holds)
                .map(|(((_, _, job, session), watched), holds)| {
                    let file = session.worker.file();
                    let task = Task { engine: Engine::Cufile, file, holds: *holds, job: (*job).clone() };
                    scope.spawn(move || watch(root, watched, || session.worker.run(task, limit(job) + grace)))
                })
                .collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for ((gpu, drive, job, session), ran) in sessions.into_iter().zip(ran) {
            let what =
                What { kind: Kind::Cufile, purpose: Purpose::Together, gpu: Some(gpu), drive: Some(drive) };
            match ran {
                Ok((Ok(ran), states)) => {
                    // nvidia-fs counts for all pairs together.
                    let raw = RawLine {
                        number: 0,
                        ran,
                        cufile: session.cufile,
                        nvidia_fs: None,
                        mappings: None,
                        states,
                    };
                    self.keep(what, job, raw, Some(session.settings));
                    let _ = session.worker.close(CLOSE_LIMIT);
                }
                Ok((Err(error), _)) => {
                    self.could_not(
                        "all at the same time",
                        Some(gpu),
                        Some(drive),
                        cause(&error),
                        error.to_string(),
                    );
                }
                Err(_) => {
                    let why = "a thread of the benchmark panicked".into();
                    self.could_not("all at the same time", Some(gpu), Some(drive), Cause::Worker, why);
                }
            }
        }
    }
}
