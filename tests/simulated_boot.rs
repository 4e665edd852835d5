//! The benchmark in a virtual machine, from fw_cfg to the report partition, with libraries that imitate NVIDIA's: an
//! overlay lays them over an image that is otherwise the one of tests/image.rs. What a machine cannot show without a GPU,
//! how the worker is started, measured, watched and survived by PID 1, is seen here.

mod common;
mod simulated;

use common::{cache, folder, gdsboot, image, machine_without_expectations, run_with_status, stdout};
use gdsboot::bench::results::{Cause, Kind, Pair, Purpose, Results};
use gdsboot::bench::route::{Outcome, Route};
use gdsboot::boot_contract::{
    REPORT_RUNS, RUN_REPORT_HTML, RUN_REPORT_JSON, RUN_REPORT_JUNIT, RUN_REPORT_TEXT, RUN_SAMPLES,
};
use gdsboot::checks::check::{Finding, Status};
use gdsboot::report::json;
use gdsboot::report::model::{Report, SIMULATED, Verdict};
use gdsboot::report::source;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use tempfile::TempDir;

/// Where the root's libraries are.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// What a file of a run may have at most.
const MOST: u32 = 256 << 20;

/// The image with the imitations.
fn simulated_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let overlay = folder().join("simulated-overlay");
        simulated::put_into(&overlay.join(LIBRARIES));
        let path = folder().join(format!("{}-simulated.img", image().profile));
        run_with_status(common::build(&path, &image().lock).arg("--with").arg(&overlay), 0);
        path
    })
}

/// What a boot left.
struct Boot {
    report: Report,
    /// A copy of the run's folder.
    run: PathBuf,
    console: String,
    _keep: TempDir,
}

/// Boots an image in a machine: a name, or the text of a machine file.
fn boot(path: &Path, machine: Result<&str, &str>) -> Boot {
    // Each has all processors, so that a measurement of some tenths of a second is one.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let file = keep.path().join("machine.toml");
    let machine = match machine {
        Ok(name) => machine_without_expectations(name, keep.path()),
        Err(text) => {
            fs_err::write(&file, text).unwrap();
            file
        }
    };
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("smoke").arg(path).arg("--lock").arg(&image().lock);
    command.arg("--machine").arg(&machine).args(["--json", "--timeout-scale", "2", "--keep"]);
    command.arg(keep.path().join("boots"));
    // Without a GPU nothing is proven, whatever imitations do.
    let output = run_with_status(&mut command, 2);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [boot] = summary["boots"].as_array().unwrap().as_slice() else { panic!("{summary:#}") };
    let kept = Path::new(boot["kept"].as_str().unwrap());
    let name = boot["reported"]["run"].as_str().unwrap();
    let run = keep.path().join(name);
    copy_run(&kept.join("image.img"), name, &run);
    let report = json::read(&fs_err::read(run.join(RUN_REPORT_JSON)).unwrap()).unwrap();
    let console = String::from_utf8_lossy(&fs_err::read(kept.join("console.log")).unwrap()).into_owned();
    println!("{name}: {:#}", boot["phases"]);
    Boot { report, run, console, _keep: keep }
}

/// A machine whose imitations behave so, and whose drives have blocks of these sizes.
fn machine_file(behaviour: &str, blocks: &[u32]) -> String {
    let mut text = String::from(
        "description = 'a guest of this test'\nchipset = 'q35'\nfirmware = ['uefi']\ndisk = 'virtio-blk'\ncpus = 2\n\
         memory-mib = 2048\n",
    );
    for block in blocks {
        let _ = writeln!(text, "[[drive]]\nserial = 'gdsboot-{block}'\nsize-mib = 64\nblock = {block}");
    }
    text + &format!("[fw-cfg]\n'opt/gdsboot/bench_seconds' = '1'\n'opt/gdsboot-simulated' = '{behaviour}'\n")
}

/// Copies a run's folder from the report partition.
fn copy_run(image: &Path, name: &str, to: &Path) {
    let image = source::Image::open(image).unwrap();
    let fat = image.filesystem(image.report_partition().unwrap()).unwrap();
    let from = format!("{REPORT_RUNS}/{name}");
    fs_err::create_dir(to).unwrap();
    for entry in fat.list(&from).unwrap() {
        let bytes = fat.read(&format!("{from}/{}", entry.name), MOST).unwrap().unwrap();
        fs_err::write(to.join(entry.name), bytes).unwrap();
    }
}

impl Boot {
    fn simulated(behaviour: &str, blocks: &[u32]) -> Self {
        let booted = boot(simulated_image(), Err(&machine_file(behaviour, blocks)));
        booted.says_that_it_is_simulated();
        booted.is_what_its_samples_give();
        booted
    }

    fn bench(&self) -> &Results {
        self.report.benchmark.as_ref().unwrap()
    }

    fn finding(&self, id: &str) -> &Finding {
        self.report.findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("{id}"))
    }

    fn expect(&self, expected: &[(&str, Status)]) {
        for (id, status) in expected {
            let finding = self.finding(id);
            assert_eq!(finding.status, *status, "{finding:#?}");
        }
    }

    fn file(&self, name: &str) -> String {
        fs_err::read_to_string(self.run.join(name)).unwrap()
    }

    /// All forms of the report, the screen and the events say so first.
    fn says_that_it_is_simulated(&self) {
        assert!(self.report.is_simulated() && self.bench().simulated);
        assert_eq!((self.report.verdict, self.report.complete), (Verdict::Incomplete, true));
        let text = self.file(RUN_REPORT_TEXT);
        assert!(text.lines().nth(2).unwrap().contains(SIMULATED), "{text}");
        assert!(text.trim_end().lines().rev().take(2).any(|line| line.contains(SIMULATED)), "{text}");
        assert!(self.file(RUN_REPORT_HTML).contains("class=\"simulated\">SIMULATED"));
        let junit = self.file(RUN_REPORT_JUNIT);
        assert!(junit.contains("<testsuites name=\"gdsboot INCOMPLETE SIMULATED\""), "{junit}");
        let value: Value = serde_json::from_str(&self.file(RUN_REPORT_JSON)).unwrap();
        assert_eq!(value["benchmark"]["simulated"], true);
        assert!(self.console.contains("Route: none  SIMULATED"), "{}", self.console);
        assert!(self.console.contains("\"simulated\":true"), "{}", self.console);
    }

    /// The raw samples lie beside the report, and each figure is computed from them.
    fn is_what_its_samples_give(&self) {
        let count = self.bench().measurements.len();
        assert!(count > 0 && self.file(RUN_SAMPLES).lines().count() == count);
        let output = run_with_status(gdsboot().arg("recompute").arg(&self.run), 0);
        let expected = format!("{count} measurements are what their raw samples give\n");
        assert_eq!(stdout(&output), expected);
    }

    /// The figures of one kind, by the block size of the drive.
    fn figures(&self, kind: Kind) -> BTreeSet<u32> {
        let figures =
            self.bench().measurements.iter().filter(|m| (m.kind, m.purpose) == (kind, Purpose::Figures));
        let mut found = BTreeSet::new();
        for m in figures {
            assert!(m.figures.gib_per_second > 0.0 && m.errors == 0, "{m:#?}");
            let drive = self.bench().drives.iter().find(|drive| Some(&drive.name) == m.drive.as_ref());
            found.extend(drive.map(|drive| drive.block));
        }
        found
    }

    /// What was not done and why, those of one cause.
    fn not_done(&self, cause: Cause) -> Vec<String> {
        let found = self.bench().not_done.iter().filter(|not| not.cause == cause);
        found.map(|not| format!("{}: {}", not.what, not.why)).collect()
    }
}

fn name(pair: &Pair) -> (&str, &str) {
    (&pair.gpu, &pair.drive)
}

#[test]
fn direct_transfers_are_proven_for_each_gpu_and_each_drive() {
    let boot = Boot::simulated("route=nvfs gpus=2", &[512, 4096]);
    let bench = boot.bench();
    // The kernel numbers drives in the order in which they answer.
    let blocks: BTreeSet<u32> = bench.drives.iter().map(|drive| drive.block).collect();
    assert_eq!((bench.gpus.len(), blocks), (2, BTreeSet::from([512, 4096])));
    let pairs: BTreeSet<_> = bench.pairs.iter().map(name).collect();
    let all = bench
        .gpus
        .iter()
        .flat_map(|seen| bench.drives.iter().map(|drive| (seen.gpu.pci.as_str(), drive.name.as_str())));
    let mut tried = 0;
    for pair in all {
        // A quick plan tries one pair of each distance, and says which ones it leaves out.
        let left_out = bench.not_done.iter().any(|not| {
            (not.gpu.as_deref(), not.drive.as_deref()) == (Some(pair.0), Some(pair.1))
                && not.cause == Cause::Time
        });
        assert!(pairs.contains(&pair) != left_out, "{pair:?}: {:#?}", bench.not_done);
        tried += usize::from(!left_out);
    }
    assert!(tried >= 2, "{pairs:?}");
    for pair in &bench.pairs {
        assert_eq!(pair.outcome(), Outcome::Direct, "{pair:#?}");
        let best = pair.best().unwrap();
        assert_eq!(best.proof.route, Some(Route::Nvfs), "{pair:#?}");
        let [share] = best.proof.shares.as_slice() else { panic!("{:#?}", best.proof) };
        let moved: u64 = bench
            .measurements
            .iter()
            .filter(|m| best.measurements.contains(&m.number))
            .map(|m| m.bytes)
            .sum();
        // What was under way at the end of a measurement is counted and is no part of its figures.
        assert!(share.route == Route::Nvfs && moved > 0 && share.bytes >= moved, "{moved}: {share:?}");
    }
    assert!(bench.pairs.iter().any(Pair::is_controlled), "{:#?}", bench.pairs);
    for kind in [Kind::Storage, Kind::Bounce, Kind::Cufile] {
        assert_eq!(boot.figures(kind), BTreeSet::from([512, 4096]), "{kind:?}");
    }
    let links = bench.measurements.iter().filter(|m| m.kind == Kind::HostCopy);
    let links: BTreeSet<_> = links.filter_map(|m| m.gpu.as_deref()).collect();
    assert_eq!(links.len(), 2);
    // What GPUs were opened for transfers is judged, though the bus has none.
    boot.expect(&[
        ("gpu.present", Status::Fail),
        ("transfer.gpu", Status::Pass),
        ("transfer.worker", Status::Pass),
        ("transfer.drive", Status::Pass),
        ("transfer.errors", Status::Pass),
        ("transfer.data", Status::Pass),
        ("transfer.route", Status::Pass),
        ("transfer.counters", Status::Pass),
    ]);
    // Imitations prove nothing.
    assert_eq!((bench.proven(), boot.report.route), (None, Route::None));
}

#[test]
fn copies_by_the_cpu_and_wrong_data_are_seen() {
    let boot = Boot::simulated("route=compat corrupt=5", &[512]);
    let [pair] = boot.bench().pairs.as_slice() else { panic!("{:#?}", boot.bench().pairs) };
    assert_ne!(pair.outcome(), Outcome::Direct, "{pair:#?}");
    let refused = pair.attempts.iter().filter_map(|attempt| attempt.error.as_deref());
    assert_eq!(refused.filter(|error| error.contains("CU_FILE_IO_NOT_SUPPORTED (5008)")).count(), 2);
    boot.expect(&[
        ("transfer.data", Status::Fail),
        ("transfer.errors", Status::Pass),
        ("transfer.worker", Status::Pass),
    ]);
    assert!(boot.finding("transfer.data").why.starts_with("wrong data arrived"));
    assert_ne!(boot.finding("transfer.route").status, Status::Pass);
    assert!(boot.bench().has_wrong_data());
    // The drive alone is right, and so is the bounce.
    assert_eq!(boot.figures(Kind::Storage), BTreeSet::from([512]));
    assert_eq!(boot.figures(Kind::Bounce), BTreeSet::from([512]));
}

#[test]
fn a_worker_that_hangs_and_crashes_does_not_end_the_run() {
    // A crash in what a link alone does, and one hang, which costs the minute that a job is given.
    let boot = Boot::simulated("route=nvfs crash=cuMemcpyDtoHAsync_v2 hang=cuFileReadAsync", &[4096]);
    let said = boot.not_done(Cause::Worker);
    let [crashed, hung] = said.as_slice() else { panic!("{said:?}") };
    assert!(crashed.contains("crashed in cuMemcpyDtoHAsync_v2: SIGSEGV"), "{crashed}");
    assert!(hung.contains("gave no answer") && hung.contains("cuFileReadAsync"), "{hung}");
    boot.expect(&[
        ("transfer.worker", Status::Fail),
        ("transfer.route", Status::Pass),
        ("transfer.data", Status::Pass),
    ]);
    assert_eq!(boot.figures(Kind::Storage), BTreeSet::from([4096]));
    assert_eq!(boot.figures(Kind::Cufile), BTreeSet::from([4096]));
}

/// Nothing of the imitations is on the image without that overlay, and without a GPU drives are what is measured.
#[test]
fn an_image_without_the_overlay_measures_drives_alone() {
    let listing = listing(&image().path);
    assert!(listing.lines().any(|line| line.ends_with("/libcufile.so.0")), "{listing}");
    assert_eq!(listing.lines().filter(|line| line.contains("simulated")).collect::<Vec<_>>(), [""; 0]);
    let overlaid = self::listing(simulated_image());
    assert!(overlaid.lines().any(|line| line.ends_with(simulated::LIBRARY)), "{overlaid}");

    let boot = boot(&image().path, Ok("drives"));
    boot.is_what_its_samples_give();
    let (report, bench) = (&boot.report, boot.bench());
    assert!(!report.is_simulated() && !boot.file(RUN_REPORT_TEXT).contains(SIMULATED));
    assert!(!boot.console.contains(SIMULATED), "{}", boot.console);
    assert_eq!((report.verdict, report.route, report.complete), (Verdict::Incomplete, Route::None, true));
    let why = &boot.finding("gpu.present").why;
    assert!(why.starts_with("no NVIDIA GPU is visible") && report.why.contains(why), "{:?}", report.why);
    assert_eq!(boot.figures(Kind::Storage), BTreeSet::from([512, 4096]));
    assert!(bench.gpus.is_empty() && bench.pairs.is_empty());
    assert!(bench.measurements.iter().all(|m| m.kind == Kind::Storage), "{:#?}", bench.measurements);
    boot.expect(&[
        ("nvme.present", Status::Pass),
        ("transfer.drive", Status::Pass),
        ("transfer.errors", Status::Pass),
    ]);
    // One of them holds nothing, and that is said.
    let mut blank: Vec<_> = bench.drives.iter().map(|drive| (drive.block, drive.blank)).collect();
    blank.sort_by_key(|(block, _)| *block);
    assert_eq!(blank, [(512, Some(0.0)), (4096, Some(1.0))]);
    boot.expect(&[("bench.blank", Status::Info)]);
}

/// All paths of an image's root, as its build listed them.
fn listing(path: &Path) -> String {
    let menu = source::Image::open(path).unwrap().menu().unwrap();
    let of_image = |folder: &Path| {
        let info: Value = serde_json::from_slice(&fs_err::read(folder.join("info.json")).unwrap()).unwrap();
        menu[0].arguments.contains(info["sha256"].as_str().unwrap())
    };
    let mut roots = fs_err::read_dir(cache().join("images")).unwrap().map(|entry| entry.unwrap().path());
    let root = roots.find(|folder| of_image(folder)).unwrap();
    fs_err::read_to_string(root.join("listing.txt")).unwrap()
}
