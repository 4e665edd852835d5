//! The whole benchmark, from survey to findings, with libraries that imitate NVIDIA's (qemu/simulated-cufile): what it
//! says of machines that transfer directly, partly, not at all, wrongly, or break.

mod simulated;

use gdsboot::bench::drive::Opened;
use gdsboot::bench::plan::{Plan, Thoroughness, Wish};
use gdsboot::bench::recompute;
use gdsboot::bench::results::{Cause, Kind, Level, Measurement, NotDone, Purpose, RawLine, Results};
use gdsboot::bench::route::{Outcome, Route};
use gdsboot::bench::run::{self, Listener, Means};
use gdsboot::bench::scratch::{self, Target};
use gdsboot::bench::survey::{OPENING_GPUS, Survey, Worker};
use gdsboot::bench::transfer::pattern::Pattern;
use gdsboot::checks::check::{Finding, Side, Status};
use gdsboot::checks::judge::judge;
use gdsboot::facts::{Facts, Root};
use gdsboot::report::model::Verdict;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const BYTES: usize = 32 << 20;

/// A machine to be measured.
struct Machine {
    behaviour: &'static str,
    old: bool,
    /// Where the libraries are, where these are not the imitations.
    libraries: Option<PathBuf>,
    /// A temporary file instead of one that is only read.
    writable: bool,
    wish: Wish,
    grace: Duration,
    /// Called with the file's path when the first measurement is over.
    meanwhile: Option<fn(&Path)>,
    /// How many bytes the file has.
    bytes: usize,
}

/// What came of it.
struct Measured {
    results: Results,
    raw: Vec<RawLine>,
    findings: Vec<Finding>,
    verdict: Verdict,
}

fn machine(behaviour: &'static str) -> Machine {
    let wish = Wish {
        thoroughness: Thoroughness::Quick,
        own: Vec::new(),
        seconds: Some(0.1),
        cpus: 2,
        seed: 7,
        gdsio: false,
        workloads: Vec::new(),
    };
    let grace = Duration::from_secs(60);
    Machine {
        behaviour,
        old: false,
        libraries: None,
        writable: false,
        wish,
        grace,
        meanwhile: None,
        bytes: BYTES,
    }
}

struct Kept<'a> {
    raw: Vec<RawLine>,
    measured: usize,
    path: &'a Path,
    meanwhile: Option<fn(&Path)>,
}

impl Listener for Kept<'_> {
    fn begins(&mut self, _: &str, _: f64) {}

    fn measured(&mut self, _: &Measurement, raw: &RawLine) {
        self.raw.push(raw.clone());
        self.measured += 1;
        if let (1, Some(meanwhile)) = (self.measured, self.meanwhile) {
            meanwhile(self.path);
        }
    }

    fn ran(&mut self, _: &str, _: &str) {}

    fn not_done(&mut self, _: &NotDone) {}

    fn step_is_over(&mut self, _: &Results) {}
}

impl Machine {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn target(&self, path: &Path) -> Target {
        if self.writable {
            return scratch::temporary(path.parent().unwrap(), self.bytes as u64).unwrap();
        }
        let mut bytes = vec![0; self.bytes];
        Pattern { seed: 99 }.fill(&mut bytes, 0);
        fs_err::write(path, bytes).unwrap();
        scratch::for_reading(path).unwrap()
    }

    fn measure(&self) -> Measured {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("data");
        let libraries = self.libraries.clone().unwrap_or_else(|| simulated::libraries(self.old).to_owned());
        let environment =
            [("LD_LIBRARY_PATH", libraries.to_str().unwrap()), ("GDSBOOT_SIMULATED", self.behaviour)];
        let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
        let worker = Some(Worker { program, environment: &environment });
        let facts = Facts::default();
        let mut survey = Survey::default();
        survey.gpus(worker, &[]);
        let level = if self.writable { Level::TemporaryFile } else { Level::ReadOnly };
        let opened = Opened::new(&facts, "data", level, self.target(&path));
        let folder = self.writable.then(|| dir.path().to_owned());
        survey.drive("data", Ok(Opened { folder, ..opened }));
        survey.measure_distances(&facts);
        let plan = Plan::new(&self.wish, &survey.spaces(), &survey.addresses(), &survey.ranks());
        let (root, stop) = (Root::live(), AtomicBool::new(false));
        let means = Means {
            root: &root,
            worker,
            workloads: &self.wish.workloads,
            programs: Some(dir.path()),
            stop: &stop,
            grace: self.grace,
        };
        let mut kept = Kept { raw: Vec::new(), measured: 0, path: &path, meanwhile: self.meanwhile };
        let results = run::run(Thoroughness::Quick, &plan, &survey, &means, &mut kept);
        let judgement = judge(&facts, Side::BareMetal, Some(&results), &[], "2026-11-28");
        // What a report keeps is what was found, and each figure is that of its raw samples.
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
        let lines: Vec<String> = kept.raw.iter().map(|raw| serde_json::to_string(raw).unwrap()).collect();
        let read: Vec<RawLine> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(recompute::differences(&results, &read), [""; 0]);
        Measured { results, raw: kept.raw, findings: judgement.findings, verdict: judgement.verdict }
    }
}

impl Measured {
    fn finding(&self, id: &str) -> &Finding {
        self.findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("{id}"))
    }

    fn status(&self, id: &str) -> Status {
        self.finding(id).status
    }

    fn of(&self, kind: Kind, purpose: Purpose) -> Vec<&Measurement> {
        self.results.measurements.iter().filter(|m| (m.kind, m.purpose) == (kind, purpose)).collect()
    }

    /// What was not done and why, those of one cause.
    fn not_done(&self, cause: Cause) -> Vec<String> {
        let found = self.results.not_done.iter().filter(|not| not.cause == cause);
        found.map(|not| format!("{}: {}", not.what, not.why)).collect()
    }
}

#[test]
fn a_direct_route_is_proven_and_everything_is_measured_beside_it() {
    for (behaviour, route) in [("route=nvfs", Route::Nvfs), ("route=p2pdma", Route::P2pdma)] {
        let measured = machine(behaviour).measure();
        let results = &measured.results;
        let [pair] = results.pairs.as_slice() else { panic!("{:?}", results.pairs) };
        assert_eq!((pair.outcome(), pair.attempts.len()), (Outcome::Direct, 4), "{pair:#?}");
        assert!(pair.is_controlled(), "{pair:#?}");
        assert_eq!(pair.best().unwrap().proof.route, Some(route));
        for kind in
            [Kind::Storage, Kind::HostCopy, Kind::Bounce, Kind::Cufile, Kind::CufileBatch, Kind::CufileStream]
        {
            let figures = measured.of(kind, Purpose::Figures);
            assert!(!figures.is_empty(), "{kind:?}");
            for m in figures {
                assert!(m.figures.gib_per_second > 0.0 && m.errors == 0, "{m:?}");
                assert_eq!(m.proof.is_some(), m.settings.is_some());
            }
        }
        assert_eq!(measured.of(Kind::Cufile, Purpose::Load).len(), 1);
        assert_eq!(measured.raw.len(), results.measurements.len());
        assert!(results.steps.len() >= 4 && results.planned_seconds > 0.0, "{:?}", results.steps);
        for id in
            ["transfer.route", "transfer.data", "transfer.errors", "transfer.worker", "transfer.counters"]
        {
            assert_eq!(measured.status(id), Status::Pass, "{id}: {}", measured.finding(id).why);
        }
        // Imitations prove nothing about a machine.
        assert!(results.simulated);
        assert_eq!((results.proven(), measured.verdict), (None, Verdict::Incomplete));
    }
}

#[test]
fn what_is_written_is_what_is_read_and_each_has_its_own_part_of_the_file() {
    let measured = machine("route=nvfs").with(|m| m.writable = true).measure();
    assert_eq!(measured.of(Kind::Storage, Purpose::Fill).len(), 1);
    assert_eq!(measured.of(Kind::Storage, Purpose::Figures).len(), 4);
    assert_eq!(measured.of(Kind::Cufile, Purpose::Figures).len(), 4);
    for m in measured.results.measurements.iter().filter(|m| m.gpu.is_some()) {
        let verified = m.verified.as_ref().unwrap();
        assert!(verified.blocks > 0 && verified.wrong == 0 && verified.first.is_none(), "{m:?}");
    }
    assert_eq!(measured.status("transfer.route"), Status::Pass);
    assert_eq!(measured.status("bench.scratch"), Status::Pass);
}

#[test]
fn copies_by_the_cpu_are_seen_whatever_the_library_says() {
    let all = machine("route=compat").measure();
    let pair = &all.results.pairs[0];
    assert_eq!(pair.outcome(), Outcome::Compat, "{pair:#?}");
    // Refused where copies were forbidden, made where they were allowed.
    assert_eq!(pair.attempts.iter().filter(|attempt| attempt.error.is_some()).count(), 2);
    let finding = all.finding("transfer.route");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.why.contains("CU_FILE_IO_NOT_SUPPORTED (5008)"), "{}", finding.why);

    let lies = machine("route=nvfs,unforced=1").measure();
    assert_eq!(lies.results.pairs[0].outcome(), Outcome::Unproven, "{:#?}", lies.results.pairs);
    assert_eq!(lies.status("transfer.route"), Status::Unknown);
    let why = &lies.finding("transfer.route").why;
    assert!(why.contains("counted as direct what it had been told to copy by the CPU"), "{why}");

    let some = machine("route=p2pdma,bounce=4").measure();
    assert_eq!(some.results.pairs[0].outcome(), Outcome::Mixed);
    let finding = some.finding("transfer.route");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.why.contains("partly p2pdma (2"), "{}", finding.why);

    // A library from before it counted, which may fall back: what it refuses without that is what proves it.
    let old = machine("route=compat").with(|m| m.old = true).measure();
    assert_eq!(old.results.pairs[0].outcome(), Outcome::Compat, "{:#?}", old.results.pairs);
    let old = machine("route=nvfs").with(|m| m.old = true).measure();
    let best = old.results.pairs[0].best().unwrap().clone();
    assert_eq!((best.proof.outcome, best.proof.route), (Outcome::Direct, Some(Route::Nvfs)), "{best:#?}");
    assert_eq!(old.status("transfer.counters"), Status::Info);
    // What an old library cannot do is left out, and said.
    let left_out = old.not_done(Cause::Library);
    assert!(left_out.iter().any(|why| why.contains("cuFileReadAsync")), "{left_out:?}");
}

#[test]
fn programs_of_the_operator_s_get_what_there_is_and_nothing_that_may_only_be_read() {
    let table = r#"
        [[workload]]
        name = "load"
        command = ["/bin/sh", "-c", "echo GPU $0 of $1; head -c 4096 $2 >$3/copy && echo loaded $(stat -c %s $3/copy) bytes", "{gpu}", "{gpus}", "{file}", "{folder}"]
        expect = "GPU 0 of 0,1$"
        figure = "loaded (\\d+) bytes"
        at_least = 4096

        [[workload]]
        name = "too slow"
        command = ["/bin/sh", "-c", "echo 3.5 GiB/s"]
        figure = "([0-9.]+) GiB/s"
        at_least = 5
    "#;
    let (workloads, complaints) = gdsboot::bench::workload::config::parse(&table.parse().unwrap());
    assert_eq!(complaints, [""; 0]);
    let with = |writable| {
        let workloads = workloads.clone();
        let machine =
            machine("route=nvfs,gpus=2").with(|m| (m.wish.workloads, m.writable) = (workloads, writable));
        // gdsio has as many threads as others have transfers under way, each with a part of the file.
        machine.with(|m| (m.wish.gdsio, m.bytes) = (true, 2 * BYTES)).measure()
    };
    let written = with(true);
    let ran = &written.results.workloads;
    assert_eq!((ran[0].passed, ran[0].figure), (true, Some(4096.0)), "{:?}", ran[0]);
    assert_eq!((ran[1].ran, ran[1].passed), (true, false));
    assert_eq!(written.status("bench.workloads"), Status::Fail);
    assert!(written.results.steps.last().unwrap().what.starts_with("workload"));
    // NVIDIA's tools are not for imitations.
    let refused = written.not_done(Cause::Refused);
    assert!(
        refused.iter().any(|why| why.starts_with("gdsio: imitation libraries are in use")),
        "{refused:?}"
    );
    let read = with(false);
    assert_eq!(read.results.workloads[0].why, "not run: there is no scratch file, which {file} stands for");
    let refused = read.not_done(Cause::Refused);
    assert!(
        refused.iter().any(|why| why.starts_with("gdsio: it opens what it reads by itself")),
        "{refused:?}"
    );
}

#[test]
fn wrong_data_fails() {
    for (behaviour, writable) in [("route=nvfs,corrupt=5", false), ("route=p2pdma,lost=5", true)] {
        let measured = machine(behaviour).with(|m| m.writable = writable).measure();
        let finding = measured.finding("transfer.data");
        assert_eq!(finding.status, Status::Fail, "{behaviour}");
        assert!(finding.why.starts_with("wrong data arrived"), "{}", finding.why);
        assert_ne!(measured.status("transfer.route"), Status::Pass, "{behaviour}");
        assert!(measured.results.has_wrong_data());
    }
}

#[test]
fn transfers_that_fail_are_told_from_a_drive_that_fails() {
    let measured = machine("route=nvfs,error=cuFileRead:5044").measure();
    let finding = measured.finding("transfer.errors");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.why.contains("CU_FILE_IO_ERROR (5044)"), "{}", finding.why);
    assert!(finding.remedy[1].text.contains("the way to the GPU"));
    // The rest went on.
    assert!(!measured.of(Kind::Bounce, Purpose::Figures).is_empty());
    assert_eq!(measured.not_done(Cause::Drive), [""; 0]);
}

#[test]
fn a_worker_that_crashes_or_hangs_costs_only_what_it_did() {
    let crashed = machine("route=nvfs,crash=cuFileRead").measure();
    let finding = crashed.finding("transfer.worker");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.why.contains("crashed in cuFileRead: SIG"), "{}", finding.why);
    // Drives and links were measured all the same.
    assert_eq!(crashed.of(Kind::Storage, Purpose::Figures).len(), 2);
    assert_eq!(crashed.of(Kind::HostCopy, Purpose::Figures).len(), 2);

    let hung = machine("route=nvfs,hang=cuFileRead").with(|m| m.grace = Duration::from_secs(6)).measure();
    let said = hung.not_done(Cause::Worker);
    assert!(said[0].contains("gave no answer") && said[0].contains("cuFileRead"), "{said:?}");
    // After two of them nobody waits for a third.
    assert!(said.iter().filter(|why| why.contains("gave no answer")).count() <= 2, "{said:?}");
    assert_eq!(hung.status("transfer.worker"), Status::Fail);
    let ended = machine("route=nvfs,exit=cuFileDriverOpen").measure();
    assert!(ended.not_done(Cause::Worker)[0].contains("ended in cuFileDriverOpen"));
}

#[test]
fn without_a_gpu_there_are_the_drives() {
    for (behaviour, why) in [
        ("error=cuInit:100", "cuInit: CUDA_ERROR_NO_DEVICE (100)"),
        ("error=cuInit:802", "cuInit: CUDA_ERROR_SYSTEM_NOT_READY (802)"),
    ] {
        let measured = machine(behaviour).measure();
        assert_eq!(measured.not_done(Cause::NoGpu), [format!("{OPENING_GPUS}: {why}")]);
        assert_eq!(measured.of(Kind::Storage, Purpose::Figures).len(), 2);
        let finding = measured.finding("transfer.gpu");
        assert_eq!((finding.status, finding.why.contains(why)), (Status::Fail, true), "{}", finding.why);
    }
    let empty = tempfile::tempdir().unwrap();
    fs_err::write(empty.path().join("libcuda.so.1"), "not a library").unwrap();
    let measured = machine("").with(|m| m.libraries = Some(empty.path().to_owned())).measure();
    let said = measured.not_done(Cause::Library);
    assert!(said[0].contains("libcuda.so.1: file too short"), "{said:?}");
    assert_eq!(measured.status("transfer.gpu"), Status::Fail);
}

#[test]
fn a_drive_that_goes_is_a_finding_and_not_the_end() {
    // What a drive does that leaves the bus: from now on nothing can be read.
    let truncate: fn(&Path) =
        |path| fs_err::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    let measured = machine("route=nvfs").with(|m| m.meanwhile = Some(truncate)).measure();
    let said = measured.not_done(Cause::Drive);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("all that was left of it: it can no longer be read"), "{said:?}");
    assert_eq!(measured.status("transfer.errors"), Status::Fail);
    assert_eq!(measured.of(Kind::HostCopy, Purpose::Figures).len(), 2);
}

#[test]
fn a_small_drive_is_measured_as_far_as_it_goes() {
    let measured = machine("route=nvfs").with(|m| m.bytes = 1 << 20).measure();
    let left_out = measured.not_done(Cause::Size);
    assert!(
        left_out[0].starts_with("read sequential 1 MiB, 2 x 16: 1048576 bytes are too few"),
        "{left_out:?}"
    );
    assert_eq!(measured.of(Kind::Storage, Purpose::Figures).len(), 1);
    assert_eq!(measured.status("bench.complete"), Status::Info);
    assert_eq!(measured.status("transfer.route"), Status::Pass);
}

#[test]
fn scratch_space_that_cannot_be_had_is_a_finding() {
    let facts = Facts::default();
    let dir = tempfile::tempdir().unwrap();
    let mut survey = Survey::default();
    let missing = dir.path().join("missing");
    for (folder, bytes) in [(dir.path(), 1 << 60), (missing.as_path(), 1 << 20)] {
        let name = folder.display().to_string();
        let target = scratch::temporary(folder, bytes);
        survey.scratch(&name, target.map(|target| Opened::new(&facts, &name, Level::TemporaryFile, target)));
    }
    let causes: Vec<Cause> = survey.not_done.iter().map(|not| not.cause).collect();
    assert_eq!(causes, [Cause::Room, Cause::Drive]);
    let results = Results { not_done: survey.not_done, ..Results::default() };
    let judgement = judge(&facts, Side::BareMetal, Some(&results), &[], "2026-11-28");
    let finding = judgement.findings.iter().find(|finding| finding.id == "bench.scratch").unwrap();
    assert_eq!(finding.status, Status::Fail);
    assert!(
        finding.why.contains("are more than half of") && finding.why.ends_with("(and 1 more)"),
        "{}",
        finding.why
    );
}
