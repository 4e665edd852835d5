//! How long `gdsboot report collect` takes for 10,000 machines, and how much memory:
//!
//!   cargo bench --bench reports [-- MACHINES]
//!
//! Every report is a whole one, as the image writes it: the facts and findings of a guest with 4 GPUs and 8 NVMe drives, and
//! what the usual, quick benchmark measures there. The time goes with the bytes: with 8 GPUs and 16 drives there are 850 KB in a
//! report. Serial numbers, versions, verdicts and figures differ; some machines have other versions than
//! the most. They are read from where they were just written, so that the disk's own speed counts only as far as memory does
//! not hold them.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use gdsboot::bench::plan::{Part, Plan, Space, Thoroughness, Wish};
use gdsboot::bench::results::{Kind, Measurement, Purpose, Results};
use gdsboot::bench::route::{Outcome, Proof};
use gdsboot::bench::transfer::job::Job;
use gdsboot::bench::transfer::measurement::Figures;
use gdsboot::checks::context::side_of;
use gdsboot::checks::judge::judge;
use gdsboot::facts::{Facts, Root};
use gdsboot::report::model::{Report, folder_name};
use gdsboot::report::utc::Utc;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a reader of the table waits for without wondering.
const LIMIT: Duration = Duration::from_secs(10);
const GPUS: usize = 4;
const DRIVES: usize = 8;

fn main() {
    // Cargo adds an option of its own.
    let machines = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let reports = dir.path().join("reports");
    let bytes = write(&reports, machines);
    let out = dir.path().join("out");
    let mut times = Vec::new();
    for _ in 0..3 {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let status = Command::new(env!("CARGO_BIN_EXE_gdsboot"))
            .args(["--progress", "none", "report", "collect"])
            .arg(&reports)
            .arg("-o")
            .arg(&out)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        times.push((started.elapsed(), cpu_seconds() - cpu));
        assert!(status.success(), "{status}");
    }
    let rows = fs_err::read_to_string(out.join("fleet.jsonl")).unwrap().lines().count();
    assert_eq!(rows, machines);
    times.sort_by_key(|(elapsed, _)| *elapsed);
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
    let page = out.join("fleet.html").metadata().unwrap().len();
    println!(
        "{machines} reports of {} KB: four tables in {:.1?}, {:.1} s of CPU time (median of 3, {} CPUs), {memory} MiB at most, the \
         page has {:.1} MB",
        bytes / machines as u64 / 1000,
        times[1].0,
        times[1].1,
        std::thread::available_parallelism().unwrap(),
        page as f64 / 1e6
    );
    assert!(times[1].0 < LIMIT, "that is more than {LIMIT:?}");
}

/// What the programs that were run took so far, of all CPUs together.
fn cpu_seconds() -> f64 {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(used.user_time()) + seconds(used.system_time())
}

/// Writes the reports; returns how many bytes.
fn write(folder: &Path, machines: usize) -> u64 {
    let whole = serde_json::to_value(whole()).unwrap();
    let mut bytes = 0;
    for machine in 0..machines {
        let mut report = whole.clone();
        let id = format!("{:08x}", machine.wrapping_mul(2_654_435_761) as u32);
        let started = Utc(1_795_000_000 + machine as u64 * 60);
        vary(&mut report, machine, &id, started);
        let run = folder.join(format!("site-{}/{}", machine % 40, folder_name(started, &id)));
        fs_err::create_dir_all(&run).unwrap();
        let text = serde_json::to_vec_pretty(&report).unwrap();
        bytes += text.len() as u64;
        fs_err::write(run.join("report.json"), text).unwrap();
    }
    bytes
}

fn whole() -> Report {
    let dir = tempfile::tempdir().unwrap();
    synthetic::guest(dir.path(), GPUS, DRIVES);
    let facts = Facts::read(&Root::at(dir.path()));
    let judgement = judge(&facts, side_of(&facts), None, &[], "2026-11-24");
    Report::of_check(facts, Some(benchmark()), judgement, "00000000".into(), Utc(0))
}

/// What the quick plan, which is the usual one, measures on such a machine.
fn benchmark() -> Results {
    let gpus: Vec<String> = (0..GPUS).map(|gpu| format!("0000:{:02x}:00.0", gpu + 1)).collect();
    let space = |drive| Space { name: format!("nvme{drive}n1"), bytes: 3 << 40, block: 512, writable: false };
    let drives: Vec<Space> = (0..DRIVES).map(space).collect();
    let wish = Wish {
        thoroughness: Thoroughness::Quick,
        own: Vec::new(),
        seconds: None,
        cpus: 64,
        seed: 1,
        gdsio: false,
        workloads: Vec::new(),
    };
    let mut measurements = Vec::new();
    let mut add = |kind, purpose, gpu: Option<usize>, drive: Option<usize>, job: &Job| {
        let mut measured = Measurement::new(measurements.len() as u32 + 1, kind, purpose, job.clone());
        measured.bytes = 100 << 30;
        measured.gpu = gpu.map(|gpu| gpus[gpu].clone());
        measured.drive = drive.map(|drive| drives[drive].name.clone());
        measured.figures =
            Figures { gib_per_second: 6.0, iops: 6000.0, p50_us: 90.0, p99_us: 300.0, ..Figures::default() };
        measured.proof =
            matches!(kind, Kind::Cufile).then(|| Proof { outcome: Outcome::Direct, ..Proof::default() });
        measurements.push(measured);
    };
    // Two drives stand beside each GPU.
    let ranks: Vec<Vec<u8>> =
        (0..GPUS).map(|gpu| (0..DRIVES).map(|drive| u8::from(drive / 2 != gpu)).collect()).collect();
    for step in Plan::new(&wish, &drives, &gpus, &ranks).steps {
        match step.part {
            Part::Storage { drive, jobs } => {
                jobs.iter().for_each(|job| add(Kind::Storage, Purpose::Figures, None, Some(drive), job));
            }
            Part::Link { gpu, jobs } => {
                jobs.iter().for_each(|job| add(Kind::HostCopy, Purpose::Figures, Some(gpu), None, job));
            }
            Part::Route { gpu, drive, jobs, .. } => {
                jobs.iter().for_each(|job| add(Kind::Cufile, Purpose::Proof, Some(gpu), Some(drive), job));
            }
            Part::Figures { gpu, drive, jobs, load } => {
                for (kind, job) in jobs.iter().flat_map(|job| [(Kind::Bounce, job), (Kind::Cufile, job)]) {
                    add(kind, Purpose::Figures, Some(gpu), Some(drive), job);
                }
                if let Some(load) = load {
                    add(Kind::Cufile, Purpose::Load, Some(gpu), Some(drive), &load.job);
                }
            }
            Part::Together { pairs, jobs } => {
                for (job, (gpu, drive)) in
                    jobs.iter().flat_map(|job| pairs.iter().map(move |pair| (job, *pair)))
                {
                    add(Kind::Cufile, Purpose::Together, Some(gpu), Some(drive), job);
                }
            }
            Part::Fill { .. } | Part::Gdsio { .. } | Part::Workload { .. } => {}
        }
    }
    Results { thoroughness: Thoroughness::Quick, measurements, ..Results::default() }
}

fn known(value: impl Into<Value>) -> Value {
    json!({"state": "known", "from": "/x", "value": value.into()})
}

fn vary(report: &mut Value, machine: usize, id: &str, started: Utc) {
    report["run_id"] = id.into();
    report["started"] = started.to_string().into();
    report["finished"] = Utc(started.0 + 600).to_string().into();
    let one_in = |n: usize| machine.is_multiple_of(n);
    report["verdict"] = if one_in(7) { "FAIL" } else { "PASS" }.into();
    let facts = &mut report["facts"];
    facts["platform"]["serial"] = known(format!("SN{machine:06}"));
    facts["platform"]["uuid"] = known(format!("4c4c4544-0000-1000-8000-{machine:012x}"));
    facts["platform"]["product"] = known(["DGX", "XE9680", "DL380"][machine % 3]);
    facts["nvidia"]["version"] = known(if one_in(97) { "570.172.08" } else { "580.95.05" });
    facts["kernel"]["release"] = known(if one_in(53) { "6.8.0-60-generic" } else { "6.8.0-79-generic" });
    for (n, measured) in report["benchmark"]["measurements"].as_array_mut().unwrap().iter_mut().enumerate() {
        // A few parts in a hundred, and one machine in 211 that is far slower.
        let noise = 1.0 + ((machine * 31 + n * 17) % 100) as f64 / 2000.0;
        let speed = if one_in(211) { 3.0 } else { 6.0 } * noise;
        measured["figures"]["gib_per_second"] = speed.into();
    }
}
