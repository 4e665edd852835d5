//! `bench`: what drives can do by themselves, measured; the ceiling of every route to a GPU.

use anyhow::Context as _;
use clap::ValueEnum;
use gdsboot::bench::plan::{Plan, Thoroughness, parse_job, size};
use gdsboot::bench::scratch::{self, Target};
use gdsboot::bench::transfer::job::{Direction, Job};
use gdsboot::bench::transfer::measurement::{Figures, Samples};
use gdsboot::bench::{storage, table};
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::Root;
use gdsboot::facts::block::BlockDevice;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Measure what drives can do: throughput, latency, and the CPU's part in it
///
/// Storage only: between the drive and the CPU's memory, past the page cache. No route to a GPU is tried, so that the exit
/// status is 2, INCOMPLETE, or 1 where transfers failed. Drives and files are opened for reading alone; only --scratch
/// writes, into a temporary file that has no name and is gone at the end.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// An NVMe namespace to read, such as nvme0n1; without any target all of them
    #[arg(long, value_name = "NVME")]
    disk: Vec<String>,
    /// A file to read
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// A folder for a temporary file that is written and read
    #[arg(long, value_name = "DIR")]
    scratch: Vec<PathBuf>,
    /// How large the temporary file is
    #[arg(long, value_name = "SIZE", default_value = "4G")]
    scratch_size: String,
    /// How thorough
    #[arg(long, value_enum, default_value = "quick", conflicts_with = "job")]
    plan: PlanName,
    /// A measurement of your own instead of a plan's, such as read,random,4K,4x32,10s (4 threads of 32 transfers)
    #[arg(long, value_name = "JOB")]
    job: Vec<String>,
    /// Print JSON with all raw samples
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlanName {
    /// Seconds for each drive
    Quick,
    /// Every size, with few and with many threads
    Full,
}

/// What `bench --json` prints.
#[derive(Debug, Serialize)]
struct Results {
    v: u32,
    /// What was planned, in seconds.
    planned_seconds: f64,
    /// What it took.
    seconds: f64,
    targets: Vec<TargetResults>,
}

#[derive(Debug, Serialize)]
struct TargetResults {
    target: String,
    bytes: u64,
    jobs: Vec<JobResult>,
}

#[derive(Debug, Serialize)]
struct JobResult {
    job: Job,
    figures: Figures,
    samples: Samples,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<Status> {
    let begun = Instant::now();
    let seed = seed();
    let jobs: Vec<Job> = args
        .job
        .iter()
        .map(|text| {
            parse_job(text).map_err(|why| usage(why, "a job is DIRECTION,ORDER,SIZE,THREADSxDEPTH,SECONDSs"))
        })
        .collect::<anyhow::Result<_>>()?;
    let cpus =
        std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    let mut planned = Vec::new();
    for (name, target) in targets(args)? {
        let plan = if jobs.is_empty() {
            let thoroughness = match args.plan {
                PlanName::Quick => Thoroughness::Quick,
                PlanName::Full => Thoroughness::Full,
            };
            Plan::new(thoroughness, target.bytes, target.writable, cpus, seed)
        } else {
            own(&jobs, &name, &target, seed)?
        };
        planned.push((name, target, plan));
    }
    let planned_seconds: f64 = planned.iter().map(|(_, _, plan)| plan.seconds).sum();
    let say = |line: &str| if args.json { Ok(()) } else { super::print(format!("{line}\n").as_bytes()) };
    say(&format!("storage only: {} targets, some {planned_seconds:.0} s", planned.len()))?;
    let mut results = Results { v: 1, planned_seconds, seconds: 0.0, targets: Vec::new() };
    for (name, target, plan) in planned {
        say(&format!("\n{name}, {:.1} GiB", target.bytes as f64 / f64::from(1 << 30)))?;
        say(&table::heading())?;
        let mut done = Vec::new();
        for job in plan.jobs {
            let samples = storage::run(&target.file, &job, &AtomicBool::new(false))
                .with_context(|| format!("measuring {name}: {job}"))?;
            for line in table::lines(&job, &samples) {
                say(&line)?;
            }
            done.push(JobResult { job, figures: samples.figures(), samples });
        }
        results.targets.push(TargetResults { target: name, bytes: target.bytes, jobs: done });
    }
    results.seconds = begun.elapsed().as_secs_f64();
    if args.json {
        super::print_json(&results)?;
    }
    let mut all = results.targets.iter().flat_map(|target| &target.jobs);
    Ok(if all.any(|job| job.samples.error_count > 0) { Status::Fail } else { Status::Incomplete })
}

/// What is measured, open.
fn targets(args: &BenchArgs) -> anyhow::Result<Vec<(String, Target)>> {
    let mut targets = Vec::new();
    let mut disks = args.disk.clone();
    if disks.is_empty() && args.file.is_empty() && args.scratch.is_empty() {
        let found = BlockDevice::read_all(&Root::live());
        let namespaces = found.value().into_iter().flatten().filter(|device| device.name.starts_with("nvme"));
        disks = namespaces.map(|device| device.name.clone()).collect();
        if disks.is_empty() {
            return Err(usage(
                "there is no NVMe drive to measure",
                "name another drive's file with --file, or a folder on it with --scratch",
            ));
        }
    }
    for disk in disks {
        let name = disk.strip_prefix("/dev/").unwrap_or(&disk);
        if !name.starts_with("nvme") || name.contains('/') {
            return Err(usage(
                format!("{disk:?} is no NVMe namespace"),
                "name one such as nvme0n1, see lsblk",
            ));
        }
        let path = Path::new("/dev").join(name);
        targets.push((path.display().to_string(), scratch::for_reading(&path)?));
    }
    for file in &args.file {
        targets.push((file.display().to_string(), scratch::for_reading(file)?));
    }
    for folder in &args.scratch {
        let bytes = size(&args.scratch_size)
            .ok_or_else(|| usage(format!("{:?} is no size", args.scratch_size), "a size is 4G or 512M"))?;
        targets
            .push((format!("a temporary file in {}", folder.display()), scratch::temporary(folder, bytes)?));
    }
    Ok(targets)
}

/// The user's own jobs on a target.
fn own(jobs: &[Job], name: &str, target: &Target, seed: u64) -> anyhow::Result<Plan> {
    let mut own = Vec::new();
    for job in jobs {
        if job.direction == Direction::Write && !target.writable {
            return Err(usage(
                format!("{name} is opened for reading alone"),
                "write to a --scratch folder's file",
            ));
        }
        let block = u64::from(job.block.max(1));
        let job = Job { range: 0..target.bytes / block * block, seed, ..job.clone() };
        let hint =
            "a job is DIRECTION,ORDER,SIZE,THREADSxDEPTH,SECONDSs, with at least one SIZE for each thread";
        job.check()
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("measuring {name}, {} bytes", target.bytes))
            .hint(hint)
            .status(Status::Usage)?;
        own.push(job);
    }
    Ok(Plan { seconds: own.iter().filter_map(Job::limit).map(|limit| limit.as_secs_f64()).sum(), jobs: own })
}

/// Another one for each run.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}
