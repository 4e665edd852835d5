//! `bench`: transfers between drives, memory and GPUs, measured and proven.

use anyhow::Context as _;
use clap::ValueEnum;
use gdsboot::bench::drive::Opened;
use gdsboot::bench::plan::{Plan, Thoroughness, Wish};
use gdsboot::bench::results::{Level, Measurement, NotDone, Purpose, RawLine, Results};
use gdsboot::bench::route::Route;
use gdsboot::bench::run::{self, JOB_GRACE, Listener, Means};
use gdsboot::bench::survey::{Survey, Worker};
use gdsboot::bench::transfer::job::{Direction, Job, parse_job, size};
use gdsboot::bench::workload::Workload;
use gdsboot::bench::workload::config::parse as parse_workloads;
use gdsboot::bench::{scratch, seed, table};
use gdsboot::boot_contract::{REPORT_PROGRAMS, RUN_DMA};
use gdsboot::checks::check::{Finding, Status as Found};
use gdsboot::checks::context::side_of;
use gdsboot::checks::judge::judge;
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::{Facts, Root};
use gdsboot::report::layout::wrap;
use gdsboot::report::model::{SIMULATED_WORDS, Verdict};
use gdsboot::report::utc::Utc;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Measure transfers, and prove which route they take
///
/// Each drive by itself, each GPU's link by itself, then drives and GPUs: through memory, and by cuFile, whose route is
/// proven by counters and whose data is compared. Without a GPU there is what drives can do by themselves. Drives and
/// files are opened for reading alone; only --scratch writes, into a temporary file that has no name and is gone at the
/// end. GPUs are reached through gdsboot-dma, which has to lie beside this program.
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
    /// A GPU by its number in the order of PCI addresses; without it all of them
    #[arg(long, value_name = "N")]
    gpu: Vec<u32>,
    /// Leave GPUs alone
    #[arg(long, conflicts_with = "gpu")]
    storage_only: bool,
    /// How thorough
    #[arg(long, value_enum, default_value = "quick", conflicts_with = "job")]
    plan: PlanName,
    /// How long each measurement takes, instead of the plan's own time
    #[arg(long, value_name = "SECONDS", conflicts_with = "job")]
    seconds: Option<f64>,
    /// A measurement of your own instead of a plan's, such as read,random,4K,4x32,10s (4 threads of 32 transfers)
    #[arg(long, value_name = "JOB")]
    job: Vec<String>,
    /// Run gdsio and gdsio_verify beside, which takes a --scratch folder; a full plan does it by itself
    #[arg(long)]
    gdsio: bool,
    /// A file with [[workload]] tables: programs of your own, and what they have to reach. They are given --scratch folders
    #[arg(long, value_name = "TOML")]
    workloads: Option<PathBuf>,
    /// A folder with NVIDIA's libraries, where the loader does not know it
    #[arg(long, value_name = "DIR")]
    library_path: Option<PathBuf>,
    /// Show what would be done, and how long that takes
    #[arg(long)]
    dry_run: bool,
    /// Print JSON with all raw samples
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlanName {
    /// Less than a minute for one GPU and one drive
    Quick,
    /// Every size, with few and with many threads; every pair
    Full,
}

/// What `bench --json` prints.
#[derive(Debug, Serialize)]
struct Printed {
    v: u32,
    verdict: Verdict,
    route: Route,
    results: Results,
    /// What is wrong, and what it is not.
    findings: Vec<Finding>,
    /// What the figures are computed from.
    raw: Vec<RawLine>,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<Status> {
    let facts = Facts::read(&Root::live());
    let wish = wish(args)?;
    let mut survey = Survey::default();
    for opened in targets(args, &facts)? {
        fits(&wish, &opened)?;
        let name = opened.drive.name.clone();
        survey.drive(&name, Ok(opened));
    }
    let program = worker();
    let path = args.library_path.as_ref().map(|path| path.display().to_string());
    let environment: Vec<(&str, &str)> = path.iter().map(|path| ("LD_LIBRARY_PATH", path.as_str())).collect();
    let worker = program.as_deref().map(|program| Worker { program, environment: &environment });
    if !args.storage_only {
        survey.gpus(worker, &args.gpu);
    }
    survey.measure_distances(&facts);
    let plan = Plan::new(&wish, &survey.spaces(), &survey.addresses(), &survey.ranks());
    let is_quiet = args.json && !args.dry_run;
    let mut teller = Teller { is_quiet, raw: Vec::new(), last: None, failed: None };
    teller.say(&plan.headline(survey.gpus.len(), survey.drives.len()));
    if args.dry_run {
        for line in plan.lines(&survey.spaces(), &survey.addresses()) {
            teller.say(&line);
        }
        return teller.failed.map_or(Ok(Status::Incomplete), Err);
    }
    let (root, stop) = (Root::live(), AtomicBool::new(false));
    let programs = args.workloads.as_deref().map(|file| file.with_file_name(REPORT_PROGRAMS));
    let means = Means {
        root: &root,
        worker,
        workloads: &wish.workloads,
        programs: programs.as_deref(),
        stop: &stop,
        grace: JOB_GRACE,
    };
    let results = run::run(wish.thoroughness, &plan, &survey, &means, &mut teller);
    let mut facts = facts;
    facts.read_again(&root);
    let judgement = judge(&facts, side_of(&facts), Some(&results), &[], &Utc::now().day());
    let status = match judgement.verdict {
        // A drive that fails is a failure whatever else there is.
        Verdict::Incomplete if results.measurements.iter().any(|m| m.errors > 0) => Status::Fail,
        verdict => verdict.status(),
    };
    let is_ours =
        |finding: &&Finding| finding.id.starts_with("transfer.") || finding.id.starts_with("bench.");
    let findings: Vec<Finding> = judgement.findings.iter().filter(is_ours).cloned().collect();
    if args.json {
        let (verdict, route) = (judgement.verdict, judgement.route);
        super::print_json(&Printed { v: 2, verdict, route, results, findings, raw: teller.raw })?;
        return Ok(status);
    }
    teller.conclude(&results, &findings, &format!("{}, route {}", judgement.verdict, judgement.route));
    teller.failed.map_or(Ok(status), Err)
}

/// Prints what happens.
struct Teller {
    is_quiet: bool,
    raw: Vec<RawLine>,
    /// The job whose figures stand last.
    last: Option<Job>,
    failed: Option<anyhow::Error>,
}

impl Teller {
    fn say(&mut self, line: &str) {
        if !self.is_quiet && self.failed.is_none() {
            self.failed = super::print(format!("{line}\n").as_bytes()).err();
        }
    }

    fn conclude(&mut self, results: &Results, findings: &[Finding], verdict: &str) {
        self.say("");
        for pair in &results.pairs {
            let distance =
                pair.distance.as_deref().map_or(String::new(), |distance| format!(" ({distance})"));
            let words = gdsboot::report::benchmark::outcome_words(pair);
            wrap("", &format!("{} and {}{distance}: {words}", pair.drive, pair.gpu))
                .iter()
                .for_each(|line| self.say(line));
        }
        for finding in
            findings.iter().filter(|finding| matches!(finding.status, Found::Fail | Found::Unknown))
        {
            wrap("- ", &format!("{} [{}]", finding.why, finding.id)).iter().for_each(|line| self.say(line));
        }
        if results.simulated {
            wrap("", SIMULATED_WORDS).iter().for_each(|line| self.say(line));
        }
        self.say(verdict);
    }
}

impl Listener for Teller {
    fn begins(&mut self, what: &str, seconds: f64) {
        self.say(&format!("\n{what} (some {seconds:.0} s)"));
        self.last = None;
    }

    fn measured(&mut self, measurement: &Measurement, raw: &RawLine) {
        self.raw.push(raw.clone());
        if measurement.purpose == Purpose::WarmUp && measurement.errors == 0 {
            return;
        }
        if self.last.is_none() {
            self.say(&table::heading());
        }
        if self.last.as_ref() != Some(&measurement.job) {
            self.say(&measurement.job.to_string());
            self.last = Some(measurement.job.clone());
        }
        for line in table::lines(&format!("  {}", table::label(measurement)), measurement) {
            self.say(&line);
        }
    }

    fn ran(&mut self, program: &str, outcome: &str) {
        wrap(&format!("{program}: "), outcome).iter().for_each(|line| self.say(line));
    }

    fn not_done(&mut self, not: &NotDone) {
        wrap("not done: ", &format!("{}: {}", not.what, not.why)).iter().for_each(|line| self.say(line));
    }

    fn step_is_over(&mut self, _: &Results) {}
}

fn wish(args: &BenchArgs) -> anyhow::Result<Wish> {
    let hint = "a job is DIRECTION,ORDER,SIZE,THREADSxDEPTH,SECONDSs";
    let own = args.job.iter().map(|text| parse_job(text).map_err(|why| usage(why, hint)));
    if args.seconds.is_some_and(|seconds| !(seconds > 0.0 && seconds <= 3600.0)) {
        return Err(usage(
            "--seconds is not above 0, or more than 3600",
            "say how long each measurement takes",
        ));
    }
    Ok(Wish {
        thoroughness: match args.plan {
            PlanName::Quick => Thoroughness::Quick,
            PlanName::Full => Thoroughness::Full,
        },
        own: own.collect::<anyhow::Result<_>>()?,
        seconds: args.seconds,
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        seed: seed(),
        gdsio: args.gdsio || matches!(args.plan, PlanName::Full),
        workloads: args.workloads.as_deref().map_or(Ok(Vec::new()), workloads)?,
    })
}

/// The workloads of a file, all of them or none.
fn workloads(path: &Path) -> anyhow::Result<Vec<Workload>> {
    let read = || -> anyhow::Result<Vec<Workload>> {
        let table: toml::Table = fs_err::read_to_string(path)?.parse()?;
        let (workloads, complaints) = parse_workloads(&table);
        anyhow::ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        anyhow::ensure!(!workloads.is_empty(), "there is no [[workload]] in it");
        Ok(workloads)
    };
    read()
        .with_context(|| format!("reading workloads from {}", path.display()))
        .hint("a workload is a table [[workload]] with name and command, as in the gdsboot.toml of an image")
        .status(Status::Usage)
}

/// The DMA worker: beside this program, or where the image has it.
fn worker() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("gdsboot-dma")));
    let image = Path::new("/").join(RUN_DMA);
    beside.into_iter().chain([image]).find(|path| path.is_file())
}

/// What is measured, open.
fn targets(args: &BenchArgs, facts: &Facts) -> anyhow::Result<Vec<Opened>> {
    let mut targets = Vec::new();
    let for_reading = |name: &str, path: &Path| -> anyhow::Result<Opened> {
        Ok(Opened::new(facts, name, Level::ReadOnly, scratch::for_reading(path)?))
    };
    let mut disks = args.disk.clone();
    if disks.is_empty() && args.file.is_empty() && args.scratch.is_empty() {
        let found =
            facts.block.value().into_iter().flatten().filter(|device| device.name.starts_with("nvme"));
        disks = found.map(|device| device.name.clone()).collect();
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
        targets.push(for_reading(name, &Path::new("/dev").join(name))?);
    }
    for file in &args.file {
        targets.push(for_reading(&file.display().to_string(), file)?);
    }
    for folder in &args.scratch {
        let bytes = size(&args.scratch_size)
            .ok_or_else(|| usage(format!("{:?} is no size", args.scratch_size), "a size is 4G or 512M"))?;
        let name = format!("a temporary file in {}", folder.display());
        targets.push(Opened::temporary(facts, &name, Level::TemporaryFile, folder, bytes)?);
    }
    Ok(targets)
}

/// Can the user's own jobs be made on a target?
fn fits(wish: &Wish, opened: &Opened) -> anyhow::Result<()> {
    let (name, target) = (&opened.drive.name, &opened.target);
    for job in &wish.own {
        if job.direction == Direction::Write && !target.writable {
            return Err(usage(
                format!("{name} is opened for reading alone"),
                "write to a --scratch folder's file",
            ));
        }
        let whole = Job { range: 0..target.bytes, ..job.clone() };
        whole
            .check()
            .map_err(|why| anyhow::anyhow!("measuring {name}, {} bytes: {why}", target.bytes))
            .hint("a job is DIRECTION,ORDER,SIZE,THREADSxDEPTH,SECONDSs, with at least one SIZE for each thread")
            .status(Status::Usage)?;
    }
    Ok(())
}
