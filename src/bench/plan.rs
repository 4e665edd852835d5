//! What is measured on a machine, in which order, and how long that takes. Pure: what there is goes in, steps come out.
//!
//! Every GPU is measured with the drive that is nearest to it, and one that is farther away; the other pairs of a quick plan
//! are only tried as far as it takes to know the route of each kind of distance, and of each drive. Drives, links and
//! pairs are measured by the same jobs, so that their figures can be compared.

mod pairs;

use super::results::{Cause, NotDone};
use super::transfer::job::{Direction, Job, Order, Until};
use super::workload::Workload;
use pairs::Pairs;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How thorough a benchmark is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Thoroughness {
    /// No transfers.
    None,
    /// The few figures that tell a healthy machine from a sick one: less than a minute for one GPU and one drive.
    #[default]
    Quick,
    /// Every size with one thread, some, and many; every pair.
    Full,
}

impl Thoroughness {
    /// Reads `none`, `quick` or `full`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Quick, Self::Full].into_iter().find(|known| known.word() == word)
    }

    /// The word that [`Thoroughness::parse`] reads.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How thorough.
    pub thoroughness: Thoroughness,
    /// Measurements instead of the plan's own, whose range and seed do not matter.
    pub own: Vec<Job>,
    /// How long each measurement takes, in seconds, where that is not the plan's own.
    pub seconds: Option<f64>,
    /// The machine's CPUs.
    pub cpus: u32,
    /// What random orders and the pattern are made from.
    pub seed: u64,
    /// Are NVIDIA's own tools run beside, where something may be written?
    pub gdsio: bool,
    /// Programs of the operator's own, which come last.
    pub workloads: Vec<Workload>,
}

/// A drive or a file, as far as a plan depends on it.
#[derive(Clone, Debug)]
pub struct Space {
    /// What it is called.
    pub name: String,
    /// Bytes that may be touched.
    pub bytes: u64,
    /// Transfers are multiples of so many bytes.
    pub block: u32,
    /// May it be written to?
    pub writable: bool,
}

/// A part of a benchmark. GPUs and drives are numbers of the lists that the plan was made from.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A new file is written once: what is read must have been written, because holes never touch the drive.
    Fill {
        /// The drive.
        drive: usize,
        /// The transfers.
        job: Job,
    },
    /// The drive alone.
    Storage {
        /// The drive.
        drive: usize,
        /// The transfers.
        jobs: Vec<Job>,
    },
    /// The GPU's link alone; the first job wakes it up.
    Link {
        /// The GPU.
        gpu: usize,
        /// The transfers.
        jobs: Vec<Job>,
    },
    /// Which route a pair's transfers take: each way of asking cuFile where that is `thorough`, else those that are likely.
    Route {
        /// The GPU.
        gpu: usize,
        /// The drive.
        drive: usize,
        /// Transfers whose data is compared.
        jobs: Vec<Job>,
        /// Is every route tried, what cuFile does by itself, and how it counts what it is told to copy?
        thorough: bool,
    },
    /// A pair's figures, each by a bounce through the CPU's memory and by cuFile.
    Figures {
        /// The GPU.
        gpu: usize,
        /// The drive.
        drive: usize,
        /// The transfers.
        jobs: Vec<Job>,
        /// At the end a model-sized part of the drive is read once, by cuFile.
        load: Option<Load>,
    },
    /// Pairs at the same time.
    Together {
        /// GPUs and drives.
        pairs: Vec<(usize, usize)>,
        /// The transfers of each, on its own drive.
        jobs: Vec<Job>,
    },
    /// gdsio and gdsio_verify beside the figures of a pair.
    Gdsio {
        /// The GPU.
        gpu: usize,
        /// The drive.
        drive: usize,
        /// The transfers.
        job: Job,
    },
    /// A program of the operator's own.
    Workload {
        /// Which one of the wish's.
        number: usize,
        /// What the operator calls it.
        name: String,
    },
}

/// A read of as much as a model has.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The transfers; fewer where the pair turned out to be slow.
    pub job: Job,
    /// How long it may take, in seconds.
    pub seconds: f64,
}

/// A part with the time that it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub part: Part,
    /// How long that takes, in seconds.
    pub seconds: f64,
}

/// What is done, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What is left out, and why.
    pub left_out: Vec<NotDone>,
}

/// How long a measurement takes, in seconds.
const QUICK_SECONDS: f64 = 1.5;
const FULL_SECONDS: f64 = 8.0;
/// What a DMA worker needs until it can transfer, in seconds: libcuda and cuFile open the GPU.
const START: f64 = 3.0;
/// How many settings of cuFile are tried on a pair: each route by itself, and what cuFile chooses.
const ATTEMPTS: f64 = 3.0;
/// How long the model-sized read may take, in seconds.
const LOAD_SECONDS: f64 = 5.0;
/// A slow drive writes so many bytes in a second.
const SLOW_WRITES: f64 = 1e9;
/// Transfers of 4 KiB under way for each thread.
const SMALL_DEPTH: u32 = 32;
/// Bytes under way for each thread in sequential order.
const BYTES_UNDER_WAY: u32 = 16 << 20;
/// Large transfers, in bytes.
const LARGE: [u32; 3] = [1 << 20, 4 << 20, 16 << 20];
const SMALL: u32 = 4096;
/// More threads measure the scheduler.
const MOST_THREADS: u32 = 32;
/// What is loaded at once: a model of 16 GiB, and one of 64.
const QUICK_LOAD: u64 = 16 << 30;
const FULL_LOAD: u64 = 64 << 30;
/// Where a drive is parted into what is read and what is written.
const EDGE: u64 = 16 << 20;

/// What a drive or a pair is measured by.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    /// The measurements.
    pub jobs: Vec<Job>,
    /// Those that do not fit.
    pub too_large: Vec<Job>,
}

impl Wish {
    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(match self.thoroughness {
            Thoroughness::None => 0.0,
            Thoroughness::Quick => QUICK_SECONDS,
            Thoroughness::Full => FULL_SECONDS,
        })
    }

    fn job(&self, direction: Direction, order: Order, block: u32, threads: u32, depth: u32) -> Job {
        let until = Until::Seconds(self.seconds());
        let (range, seed) = (0..0, self.seed);
        Job { direction, order, block, depth, threads, range, until, seed, verify: false }
    }

    /// The measurements of a drive.
    pub fn jobs(&self, space: &Space) -> Jobs {
        let some = self.cpus.clamp(1, 4);
        let (threads, large) = match self.thoroughness {
            Thoroughness::None => return Jobs::default(),
            Thoroughness::Quick => (vec![some], &LARGE[..1]),
            Thoroughness::Full => {
                let mut threads = vec![1, some, self.cpus.clamp(1, MOST_THREADS)];
                threads.dedup();
                (threads, &LARGE[..])
            }
        };
        let mut found = Jobs::default();
        let mut add = |job: Job| match space.fit(job.clone()) {
            Some(job) => found.jobs.push(job),
            None => found.too_large.push(job),
        };
        if !self.own.is_empty() {
            let own = self.own.iter().filter(|job| job.direction == Direction::Read || space.writable);
            own.for_each(|job| add(Job { seed: self.seed, ..job.clone() }));
            return found;
        }
        for direction in [Direction::Read, Direction::Write] {
            if direction == Direction::Write && !space.writable {
                continue;
            }
            for &threads in &threads {
                let sizes =
                    large.iter().map(|size| (Order::Sequential, *size, (BYTES_UNDER_WAY / size).max(2)));
                for (order, block, depth) in sizes.chain([(Order::Random, SMALL, SMALL_DEPTH)]) {
                    add(self.job(direction, order, block, threads, depth));
                }
            }
        }
        found
    }

    /// Transfers all over a drive whose data is compared.
    fn proving(&self, space: &Space) -> Vec<Job> {
        let seconds = (self.seconds() / 2.0).min(2.0);
        let jobs =
            [(Direction::Read, LARGE[0], 2), (Direction::Read, SMALL, 2), (Direction::Write, LARGE[0], 2)];
        let jobs = jobs.into_iter().filter(|(direction, ..)| *direction == Direction::Read || space.writable);
        jobs.filter_map(|(direction, block, depth)| {
            let job = self.job(direction, Order::Random, block, 2, depth);
            space.fit(Job { until: Until::Seconds(seconds), verify: true, ..job })
        })
        .collect()
    }
}

impl Space {
    /// What is read, and what is written: never the same bytes, so that what is read is what was filled in.
    fn range(&self, direction: Direction) -> Range<u64> {
        let bytes = self.bytes / u64::from(self.block.max(1)) * u64::from(self.block.max(1));
        if !self.writable {
            return 0..bytes;
        }
        // The smaller part is written; a small file has smaller edges.
        let unit = EDGE.min((bytes / 64).next_power_of_two().max(SMALL.into()));
        let edge = bytes / 4 * 3 / unit * unit;
        match direction {
            Direction::Read => 0..edge,
            Direction::Write => edge..bytes,
        }
    }

    /// The job on this drive, where it fits.
    fn fit(&self, job: Job) -> Option<Job> {
        let block = u64::from(job.block);
        let range = self.range(job.direction);
        let range = range.start..range.start + (range.end - range.start) / block * block;
        let job = Job { range, ..job };
        (block.is_multiple_of(u64::from(self.block.max(1))) && job.check().is_ok()).then_some(job)
    }
}

impl Space {
    /// Writes once what is going to be read, where nothing has been written.
    fn fill(&self, wish: &Wish) -> Option<Job> {
        let range = self.range(Direction::Read);
        let block = [LARGE[0], SMALL].into_iter().find(|block| range.end >= u64::from(*block))?;
        let range = 0..range.end / u64::from(block) * u64::from(block);
        let job = wish.job(Direction::Write, Order::Sequential, block, 1, 8);
        let job = Job { range, until: Until::Once, verify: true, ..job };
        (self.writable && job.check().is_ok()).then_some(job)
    }
}

/// The distances of a machine: for each GPU one rank for each drive, the smaller the nearer. Ranks that are equal are the
/// same kind of distance.
pub type Ranks = [Vec<u8>];

impl Plan {
    /// The plan for `drives` and GPUs, whose PCI addresses are `gpus`.
    pub fn new(wish: &Wish, drives: &[Space], gpus: &[String], ranks: &Ranks) -> Self {
        let mut plan = Self::default();
        if wish.thoroughness == Thoroughness::None {
            return plan;
        }
        let jobs: Vec<Jobs> = drives.iter().map(|drive| wish.jobs(drive)).collect();
        for (drive, (space, jobs)) in drives.iter().zip(&jobs).enumerate() {
            plan.drive(wish, drive, space, jobs);
        }
        for gpu in 0..ranks.len() {
            plan.link(wish, gpu);
        }
        if !drives.is_empty() {
            plan.pairs(wish, drives, &jobs, gpus, ranks);
        }
        for (number, workload) in wish.workloads.iter().enumerate() {
            let part = Part::Workload { number, name: workload.name.clone() };
            plan.add(part, workload.timeout.as_secs_f64());
        }
        plan
    }

    fn pairs(&mut self, wish: &Wish, drives: &[Space], jobs: &[Jobs], gpus: &[String], ranks: &Ranks) {
        let pairs = Pairs::new(wish.thoroughness, drives.len(), ranks);
        for &(gpu, drive) in &pairs.all {
            let thorough = pairs.measured.contains(&(gpu, drive));
            let route = wish.proving(&drives[drive]);
            let attempt = START + seconds_of(&route);
            let control = START + seconds_of(route.get(..1).unwrap_or_default());
            let seconds = if thorough { attempt * ATTEMPTS + control } else { attempt };
            self.add(Part::Route { gpu, drive, jobs: route, thorough }, seconds);
            if thorough {
                self.pair(wish, (gpu, drive), &drives[drive], &jobs[drive].jobs);
                self.gdsio(wish, (gpu, drive), gpus, &drives[drive]);
            }
        }
        self.together(wish, drives, &pairs);
        self.left_out.extend(pairs.left_out.iter().map(|&(gpu, drive)| NotDone {
            what: "the route".into(),
            gpu: gpus.get(gpu).cloned(),
            drive: Some(drives[drive].name.clone()),
            cause: Cause::Time,
            why: "a quick plan tries one pair of each distance; the full one tries all".into(),
        }));
    }

    fn add(&mut self, part: Part, seconds: f64) {
        self.steps.push(Step { part, seconds });
    }

    fn drive(&mut self, wish: &Wish, drive: usize, space: &Space, jobs: &Jobs) {
        if let Some(job) = space.fill(wish) {
            let seconds = (job.range.end - job.range.start) as f64 / SLOW_WRITES;
            self.add(Part::Fill { drive, job }, seconds);
        }
        if !jobs.jobs.is_empty() {
            self.add(Part::Storage { drive, jobs: jobs.jobs.clone() }, seconds_of(&jobs.jobs));
        }
        self.left_out.extend(jobs.too_large.iter().map(|job| NotDone {
            what: job.to_string(),
            gpu: None,
            drive: Some(space.name.clone()),
            cause: Cause::Size,
            why: format!(
                "{} bytes are too few for {} threads of {} bytes",
                space.bytes, job.threads, job.block
            ),
        }));
    }

    fn link(&mut self, wish: &Wish, gpu: usize) {
        // No file is touched: the range only says which block of the pattern is copied.
        let job = |direction, seconds| Job {
            range: 0..1 << 30,
            until: Until::Seconds(seconds),
            ..wish.job(direction, Order::Sequential, LARGE[2], 2, 1)
        };
        let seconds = wish.seconds();
        let jobs = vec![
            job(Direction::Read, seconds / 2.0),
            job(Direction::Read, seconds),
            job(Direction::Write, seconds),
        ];
        let total = START + seconds_of(&jobs);
        self.add(Part::Link { gpu, jobs }, total);
    }

    /// The figures of a pair: each job by a bounce and by cuFile, small and large ones also in cuFile's other ways.
    fn pair(&mut self, wish: &Wish, (gpu, drive): (usize, usize), space: &Space, jobs: &[Job]) {
        if jobs.is_empty() {
            return;
        }
        let most = if wish.thoroughness == Thoroughness::Full { FULL_LOAD } else { QUICK_LOAD };
        let block = LARGE[1];
        let load = space
            .fit(Job { until: Until::Once, ..wish.job(Direction::Read, Order::Sequential, block, 4, 2) });
        let load = load.map(|job| Load {
            job: Job { range: 0..job.range.end.min(most) / u64::from(block) * u64::from(block), ..job },
            seconds: wish.seconds.map_or(LOAD_SECONDS, |seconds| seconds * 3.0),
        });
        let ways = |job: &Job| (2 + usize::from(has_other_ways(job))) as f64;
        let transfers: f64 = jobs.iter().map(|job| ways(job) * seconds_of(std::slice::from_ref(job))).sum();
        let seconds = START + transfers + load.as_ref().map_or(0.0, |load| load.seconds);
        self.add(Part::Figures { gpu, drive, jobs: jobs.to_vec(), load }, seconds);
    }

    fn gdsio(&mut self, wish: &Wish, (gpu, drive): (usize, usize), gpus: &[String], space: &Space) {
        if !wish.gdsio {
            return;
        }
        // gdsio has one transfer under way for each thread: as many together as in the figures that it stands beside.
        let threads = wish.cpus.clamp(1, 4) * (BYTES_UNDER_WAY / LARGE[0]);
        let job = wish.job(Direction::Read, Order::Sequential, LARGE[0], threads, 1);
        let left_out = |cause, why| NotDone {
            what: "gdsio".into(),
            gpu: gpus.get(gpu).cloned(),
            drive: Some(space.name.clone()),
            cause,
            why,
        };
        if !space.writable {
            let why = "it opens what it reads by itself, and nothing would keep it from writing where nothing may be written";
            self.left_out.push(left_out(Cause::Refused, why.into()));
        } else if let Some(job) = space.fit(job) {
            // gdsio starts anew for each of three ways, and gdsio_verify once.
            self.add(Part::Gdsio { gpu, drive, job }, 4.0 * (START + wish.seconds().max(1.0)));
        } else {
            self.left_out.push(left_out(Cause::Size, format!("{} bytes are too few", space.bytes)));
        }
    }

    fn together(&mut self, wish: &Wish, drives: &[Space], pairs: &Pairs) {
        if pairs.together.len() < 2 {
            return;
        }
        let some = wish.cpus.clamp(1, 4);
        let job = wish.job(Direction::Read, Order::Sequential, LARGE[0], some, BYTES_UNDER_WAY / LARGE[0]);
        let fitting: Vec<_> = pairs
            .together
            .iter()
            .filter_map(|pair| Some((*pair, drives[pair.1].fit(job.clone())?)))
            .collect();
        let (pairs, jobs): (Vec<_>, Vec<_>) = fitting.into_iter().unzip();
        if pairs.len() >= 2 {
            self.add(Part::Together { pairs, jobs }, START + wish.seconds());
        }
    }

    /// How much is measured, and how long that takes: `1 GPU, 2 drives, some 61 s`.
    pub fn headline(&self, gpus: usize, drives: usize) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        format!("{}, {}, some {:.0} s", count(gpus, "GPU"), count(drives, "drive"), self.seconds())
    }

    /// What is done and what is left out, a line each, for people. `gpus` are PCI addresses.
    pub fn lines(&self, drives: &[Space], gpus: &[String]) -> Vec<String> {
        let steps = self
            .steps
            .iter()
            .map(|step| format!("{:>6.0} s  {}", step.seconds, step.part.words(drives, gpus)));
        let left_out = self.left_out.iter().map(|not| {
            let about: Vec<&str> = [&not.gpu, &not.drive].into_iter().flatten().map(String::as_str).collect();
            format!("       -  {} ({}): {}", not.what, about.join(", "), not.why)
        });
        steps.chain(left_out).collect()
    }

    /// How long all of it takes, in seconds.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }
}

impl Part {
    /// What it is, for people. `gpus` are PCI addresses.
    pub fn words(&self, drives: &[Space], gpus: &[String]) -> String {
        let gpu = |gpu: &usize| format!("GPU {}", gpus.get(*gpu).map_or("?", String::as_str));
        let drive = |drive: &usize| drives.get(*drive).map_or("?", |space| space.name.as_str());
        match self {
            Self::Fill { drive: d, .. } => format!("fill {}", drive(d)),
            Self::Storage { drive: d, .. } => format!("{} alone", drive(d)),
            Self::Link { gpu: g, .. } => format!("{} alone", gpu(g)),
            Self::Route { gpu: g, drive: d, .. } => format!("route between {} and {}", drive(d), gpu(g)),
            Self::Figures { gpu: g, drive: d, .. } => format!("{} with {}", drive(d), gpu(g)),
            Self::Together { pairs, .. } => format!("{} pairs at the same time", pairs.len()),
            Self::Gdsio { gpu: g, drive: d, .. } => format!("gdsio: {} with {}", drive(d), gpu(g)),
            Self::Workload { name, .. } => format!("workload {name}"),
        }
    }
}

/// Is a job also made by cuFile's batches (small ones) or streams (large ones)? Once for each size is enough.
pub fn has_other_ways(job: &Job) -> bool {
    job.direction == Direction::Read && (job.block == SMALL || job.block == LARGE[0])
}

fn seconds_of(jobs: &[Job]) -> f64 {
    jobs.iter().filter_map(Job::limit).map(|limit| limit.as_secs_f64()).sum()
}

#[cfg(test)]
mod tests;
