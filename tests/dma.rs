//! gdsboot-dma's worker and its parent, end to end, with libraries that imitate NVIDIA's over the CPU's memory
//! (qemu/simulated-cufile). Files are read and written past the page cache.

use gdsboot::bench::route::{Known, Outcome, Proof, Route, prove, refused};
mod simulated;

use gdsboot::bench::storage::Buffers;
use gdsboot::bench::transfer::job::{Direction, Job, Order, Until};
use gdsboot::bench::transfer::pattern::Pattern;
use gdsboot::bench::worker::process::{WorkerError, WorkerProcess};
use gdsboot::bench::worker::settings::{CufileSettings, Wanted};
use gdsboot::bench::worker::{Cufile, Engine, Gpu, Holds, Ran, Task};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const BYTES: u64 = 4 << 20;
const SEED: u64 = 11;

/// A machine: how its libraries behave, and what cuFile is told.
#[derive(Clone)]
struct Machine {
    behaviour: &'static str,
    old: bool,
    settings: CufileSettings,
    task: Task,
    /// Does the file hold the pattern?
    written: bool,
    /// Where it does not: does it hold nothing but zeros?
    blank: bool,
}

/// A machine whose libraries behave like this, compat mode allowed, that reads 64 blocks.
fn machine(behaviour: &'static str) -> Machine {
    let job = Job {
        direction: Direction::Read,
        order: Order::Sequential,
        block: 64 << 10,
        depth: 2,
        threads: 2,
        range: 0..BYTES,
        until: Until::Once,
        seed: SEED,
        verify: true,
    };
    Machine {
        behaviour,
        old: false,
        settings: CufileSettings { wanted: Wanted::Any, compat: true },
        task: Task { engine: Engine::Cufile, file: -1, holds: Holds::Pattern, job },
        written: true,
        blank: false,
    }
}

impl Machine {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn forbids_compat(self) -> Self {
        self.with(|machine| machine.settings.compat = false)
    }

    fn file(&self) -> File {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("data");
        let mut bytes = vec![0; BYTES as usize];
        match self.written {
            true => Pattern { seed: SEED }.fill(&mut bytes, 0),
            false if self.blank => {}
            false => bytes.iter_mut().zip(0_u64..).for_each(|(byte, n)| *byte = (n >> 9) as u8),
        }
        fs_err::write(&path, bytes).unwrap();
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap()
    }

    fn start(&self, file: &File) -> WorkerProcess {
        let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
        let folder = simulated::libraries(self.old).to_str().unwrap();
        let environment = [("LD_LIBRARY_PATH", folder), ("GDSBOOT_SIMULATED", self.behaviour)];
        WorkerProcess::start(program, self.settings, Some(file), &environment).unwrap()
    }

    fn open(&self, file: &File) -> Result<(WorkerProcess, Gpu, Cufile), WorkerError> {
        let mut worker = self.start(file);
        let gpu = worker.open_gpu(0, LIMIT)?;
        let cufile = worker.open_cufile(LIMIT)?;
        Ok((worker, gpu, cufile))
    }

    /// The whole conversation.
    fn run(&self) -> Result<(Ran, Proof), WorkerError> {
        let file = self.file();
        let (mut worker, gpu, cufile) = self.open(&file)?;
        let task = Task { file: worker.file(), ..self.task.clone() };
        let ran = worker.run(task, LIMIT)?;
        worker.close(LIMIT)?;
        let known = Known {
            engine: self.task.engine,
            job: &self.task.job,
            gpu: &gpu.uuid,
            ran: &ran,
            settings: self.settings,
            cufile: &cufile,
            nvidia_fs: None,
        };
        let proof = prove(&known);
        Ok((ran, proof))
    }

    fn proof(&self) -> Proof {
        self.run().unwrap().1
    }
}

#[test]
fn the_gpu_and_cufile_say_what_they_are() {
    let machine = machine("route=p2pdma");
    let file = machine.file();
    let (worker, gpu, cufile) = machine.open(&file).unwrap();
    worker.close(LIMIT).unwrap();
    insta::assert_json_snapshot!(gpu, @r#"
    {
      "name": "Simulated GPU",
      "uuid": "GPU-5a1db007-7369-6d75-6c61-746564677075",
      "pci": "0000:c1:00.0",
      "memory": 51539607552,
      "bar1": 68719476736,
      "cuda_version": "13.1",
      "driver_version": "590.44.01",
      "failures": [],
      "simulated": true
    }
    "#);
    insta::assert_json_snapshot!(cufile, @r#"
    {
      "version": "1.16.1",
      "nvidia_fs": "2.27",
      "compat_allowed": true,
      "p2p_flags": [
        "PCI_P2PDMA"
      ],
      "counts": true,
      "failures": [],
      "simulated": true
    }
    "#);
}

#[test]
fn both_direct_routes_are_proven_in_every_layout_of_counters() {
    for (behaviour, route) in [
        ("route=nvfs,stats=old", Route::Nvfs),
        ("route=nvfs,stats=new", Route::Nvfs),
        ("route=p2pdma,stats=partial", Route::P2pdma),
        ("route=p2pdma,anonymous=1", Route::P2pdma),
    ] {
        for engine in [Engine::Cufile, Engine::CufileBatch, Engine::CufileStream] {
            let (ran, proof) = machine(behaviour).with(|m| m.task.engine = engine).run().unwrap();
            assert_eq!(
                (proof.outcome, proof.route),
                (Outcome::Direct, Some(route)),
                "{behaviour}: {proof:?}"
            );
            assert_eq!((ran.transfers, ran.moved, ran.samples.transfers()), (64, BYTES, 64));
            assert_eq!((ran.verified.blocks, ran.samples.error_count), (64, 0));
            // An imitation proves nothing about a machine.
            assert!(proof.simulated && !proof.is_direct());
        }
    }
}

#[test]
fn a_timed_job_has_figures_and_a_sample_of_its_blocks_is_compared() {
    let timed =
        |job: &mut Job| (job.until, job.verify, job.order) = (Until::Seconds(0.3), false, Order::Random);
    for engine in
        [Engine::Cufile, Engine::CufileBatch, Engine::CufileStream, Engine::Bounce, Engine::HostCopy]
    {
        for direction in [Direction::Read, Direction::Write] {
            let machine = machine("route=nvfs").with(|m| {
                timed(&mut m.task.job);
                (m.task.engine, m.task.job.direction) = (engine, direction);
            });
            let (ran, proof) = machine.run().unwrap();
            let figures = ran.samples.figures();
            assert!(figures.gib_per_second > 0.0 && ran.samples.seconds >= 0.3, "{engine:?}: {figures:?}");
            assert_eq!((ran.verified.blocks, ran.verified.wrong), (16, 0), "{engine:?}: {ran:?}");
            assert_eq!(ran.transfers, ran.samples.transfers() + 16);
            let wanted = if engine.is_cufile() { Outcome::Direct } else { Outcome::Unproven };
            assert_eq!(proof.outcome, wanted, "{engine:?}: {proof:?}");
        }
    }
}

#[test]
fn what_is_written_from_the_gpu_is_found_in_the_file() {
    for engine in [Engine::Cufile, Engine::CufileBatch, Engine::CufileStream, Engine::Bounce] {
        let machine = machine("route=nvfs").with(|m| {
            (m.task.engine, m.task.job.direction, m.task.job.seed) = (engine, Direction::Write, 99);
        });
        let file = machine.file();
        let (mut worker, ..) = machine.open(&file).unwrap();
        let write = Task { file: worker.file(), ..machine.task.clone() };
        let read = Job { direction: Direction::Read, ..write.job.clone() };
        assert_eq!(worker.run(write.clone(), LIMIT).unwrap().samples.errors, []);
        let again = worker.run(Task { job: read, ..write }, LIMIT).unwrap();
        assert_eq!((again.verified.blocks, again.samples.error_count), (64, 0), "{engine:?}: {again:?}");
        worker.close(LIMIT).unwrap();
        let mut aligned = Buffers::new(1, BYTES as usize).unwrap();
        file.read_exact_at(aligned.get_mut(0), 0).unwrap();
        assert_eq!(Pattern { seed: 99 }.check(aligned.get_mut(0), 0), Ok(()));
    }
}

/// A raw namespace that is only read: what it holds is what the CPU reads there.
#[test]
fn a_drive_of_unknown_content_is_compared_with_what_the_cpu_reads() {
    let unknown = machine("route=nvfs").with(|m| (m.written, m.task.holds) = (false, Holds::Anything));
    let (ran, proof) = unknown.run().unwrap();
    assert_eq!((proof.outcome, ran.verified.blocks), (Outcome::Direct, 64));
    let (ran, proof) = unknown.clone().with(|m| m.behaviour = "route=nvfs,corrupt=9").run().unwrap();
    assert_eq!((proof.outcome, ran.verified.wrong), (Outcome::Unproven, 7));
    let (_, proof) = unknown.with(|m| m.task.holds = Holds::Pattern).run().unwrap();
    assert_eq!(proof.outcome, Outcome::Unproven);
}

#[test]
fn a_silent_fall_back_is_seen() {
    let all = machine("route=compat").proof();
    assert_eq!((all.outcome, all.bounced), (Outcome::Compat, Some(1.0)));
    let some = machine("route=p2pdma,bounce=4").proof();
    assert_eq!((some.outcome, some.route), (Outcome::Mixed, Some(Route::P2pdma)));
    assert_eq!(some.bounced, Some(0.25));
    let asked = machine("route=nvfs").with(|m| m.settings.wanted = Wanted::Compat).proof();
    assert_eq!(asked.outcome, Outcome::Compat);
    // A library from before it counted: nothing is proven while it may fall back.
    let old = machine("route=compat").with(|m| m.old = true).proof();
    assert_eq!((old.outcome, old.route), (Outcome::Unproven, None));
    let uncounted = machine("route=nvfs,uncounted=4").proof();
    assert_eq!(uncounted.outcome, Outcome::Unproven, "{uncounted:?}");
    let strange = machine("route=nvfs,stats=strange").proof();
    assert_eq!(strange.outcome, Outcome::Unproven, "{strange:?}");
}

#[test]
fn without_compat_mode_there_is_a_direct_route_or_a_refusal() {
    let old = machine("route=nvfs").with(|m| m.old = true);
    let proof = old.clone().forbids_compat().proof();
    assert_eq!((proof.outcome, proof.route), (Outcome::Direct, None), "{proof:?}");
    let named = machine("route=p2pdma,error=cuFileStatsStart:5030").forbids_compat().proof();
    assert_eq!((named.outcome, named.route), (Outcome::Direct, Some(Route::P2pdma)), "{named:?}");

    let none = machine("route=compat");
    let WorkerError::Failed(failure) = none.clone().forbids_compat().run().unwrap_err() else { panic!() };
    assert_eq!(failure.to_string(), "cuFileHandleRegister: CU_FILE_IO_NOT_SUPPORTED (5008)");
    let (allowed, _) = none.run().unwrap();
    assert_eq!(refused(&failure, Some(&allowed), true).outcome, Outcome::Compat);
}

#[test]
fn wrong_data_is_never_a_proof() {
    for engine in [Engine::Cufile, Engine::CufileBatch, Engine::CufileStream] {
        for (behaviour, direction, verify) in [
            ("route=nvfs,corrupt=64", Direction::Read, true),
            ("route=nvfs,lost=64", Direction::Read, true),
            ("route=nvfs,corrupt=2", Direction::Read, false),
            ("route=nvfs,lost=2", Direction::Read, false),
            ("route=p2pdma,corrupt=2", Direction::Write, false),
            ("route=p2pdma,lost=2", Direction::Write, true),
        ] {
            let machine = machine(behaviour).with(|m| {
                (m.task.engine, m.task.job.direction, m.task.job.verify) = (engine, direction, verify);
                // The file holds another run's data.
                m.written = direction == Direction::Read;
            });
            for machine in [machine.clone(), machine.forbids_compat()] {
                let (ran, proof) = machine.run().unwrap();
                assert!(ran.verified.wrong > 0, "{behaviour}: {:?}", ran.verified);
                assert_eq!((proof.outcome, proof.route), (Outcome::Unproven, None), "{behaviour}");
            }
        }
    }
}

#[test]
fn transfers_that_fail_are_errors_with_their_names() {
    for (behaviour, said) in [
        ("route=nvfs,short=4", "32768 of 65536 bytes"),
        ("route=nvfs,error=cuFileRead:5044", "cuFileRead: CU_FILE_IO_ERROR (5044)"),
        ("route=nvfs,error=cuFileRead:-5", "cuFileRead: Input/output error"),
        ("route=nvfs,error=cuFileRead:5999", "cuFileRead: status 5999"),
    ] {
        let (ran, proof) = machine(behaviour).run().unwrap();
        assert_eq!(ran.samples.errors[0].what, said);
        assert_eq!(proof.outcome, Outcome::Unproven, "{behaviour}");
    }
    let (ran, proof) = machine("route=nvfs,error=cuFileRead:5044")
        .with(|m| m.task.engine = Engine::CufileBatch)
        .run()
        .unwrap();
    assert!(ran.samples.errors[0].what.ends_with("ended with CUfileStatus_t 0x40"), "{ran:?}");
    assert_eq!(proof.outcome, Outcome::Unproven);
}

#[test]
fn calls_that_fail_are_errors_with_their_names() {
    for (behaviour, said) in [
        ("error=cuInit:100", "cuInit: CUDA_ERROR_NO_DEVICE (100)"),
        ("error=cuInit:802", "cuInit: CUDA_ERROR_SYSTEM_NOT_READY (802)"),
        ("error=cuMemAlloc_v2:2", "cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY (2)"),
        ("error=cuFileDriverOpen:5001", "cuFileDriverOpen: CU_FILE_DRIVER_NOT_INITIALIZED (5001)"),
        ("error=cuFileHandleRegister:5018", "cuFileHandleRegister: CU_FILE_INVALID_FILE_TYPE (5018)"),
        ("error=cuFileBufRegister:5036", "cuFileBufRegister: CU_FILE_GPU_MEMORY_PINNING_FAILED (5036)"),
    ] {
        let error = machine(behaviour).run().unwrap_err();
        assert!(matches!(error, WorkerError::Failed(_)), "{behaviour}: {error:?}");
        assert_eq!(error.to_string(), said);
    }
    // Without NVML and the counters it goes on, and says so.
    let machine = machine("route=nvfs,error=nvmlInit_v2:9");
    let file = machine.file();
    let (_worker, gpu, _) = machine.open(&file).unwrap();
    assert_eq!((gpu.bar1, gpu.failures[0].to_string()), (None, "nvmlInit_v2: status 9".to_owned()));
}

#[test]
fn functions_that_a_library_lacks_are_facts() {
    let machine = machine("route=nvfs").with(|m| m.old = true);
    let file = machine.file();
    let (_worker, _, cufile) = machine.open(&file).unwrap();
    let missing: Vec<_> = cufile.failures.iter().filter_map(|failure| failure.function.as_deref()).collect();
    assert_eq!(missing, ["cuFileGetVersion", "cuFileDriverGetP2PFlags", "cuFileSetStatsLevel"]);
    assert!(cufile.failures.iter().all(|failure| failure.missing));
    assert_eq!((cufile.version, cufile.p2p_flags, cufile.counts), (None, None, false));
}

#[test]
fn libraries_that_are_not_there_are_an_error_with_the_loader_s_words() {
    let file = machine("").file();
    let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("libcuda.so.1"), "not a library").unwrap();
    let path = [("LD_LIBRARY_PATH", dir.path().to_str().unwrap())];
    let mut worker = WorkerProcess::start(program, machine("").settings, Some(&file), &path).unwrap();
    let error = worker.open_gpu(0, LIMIT).unwrap_err().to_string();
    assert!(error.starts_with("libcuda.so.1: ") && error.contains("libcuda.so.1: file too short"), "{error}");
    // It goes on, and knows what it lacks.
    let error = worker.open_cufile(LIMIT).unwrap_err().to_string();
    assert_eq!(error, "no GPU was opened");
    let task = Task { file: worker.file(), ..machine("").task };
    assert_eq!(worker.run(task, LIMIT).unwrap_err().to_string(), "no GPU was opened");
    worker.close(LIMIT).unwrap();
}

#[test]
fn crashes_and_ends_name_the_call_they_happened_in() {
    for function in ["cuInit", "cuFileDriverOpen", "cuFileBufRegister", "cuFileRead", "cuFileDriverClose"] {
        for (behaviour, said) in [("crash", "crashed in"), ("exit", "ended in")] {
            let behaviour: &'static str = format!("route=nvfs,{behaviour}={function}").leak();
            let error = machine(behaviour).run().unwrap_err().to_string();
            assert!(error.contains(&format!("{said} {function}: ")), "{behaviour}: {error}");
        }
    }
}

#[test]
fn a_call_that_hangs_is_killed_and_named() {
    for (function, opened) in [("cuInit", false), ("cuFileRead", true)] {
        let behaviour: &'static str = format!("route=nvfs,hang={function}").leak();
        let machine = machine(behaviour);
        let file = machine.file();
        let begun = Instant::now();
        let limit = Duration::from_secs(2);
        let mut worker = machine.start(&file);
        let error = match opened {
            false => worker.open_gpu(0, limit).unwrap_err(),
            true => {
                worker.open_gpu(0, LIMIT).unwrap();
                worker.open_cufile(LIMIT).unwrap();
                let task = Task { file: worker.file(), ..machine.task.clone() };
                worker.run(task, limit).unwrap_err()
            }
        };
        assert!(
            error.to_string().starts_with(&format!("the DMA worker gave no answer in 2 s in {function}")),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(matches!(worker.close(LIMIT), Err(WorkerError::Gone)));
    }
}

/// Even where it looks like an answer.
#[test]
fn what_libraries_print_is_no_answer() {
    for function in ["cuInit", "cuFileDriverOpen", "cuFileRead"] {
        let behaviour: &'static str = format!("route=nvfs,print={function}").leak();
        assert_eq!(machine(behaviour).proof().outcome, Outcome::Direct);
    }
}

#[test]
fn files_that_cannot_be_transferred_directly_are_refused() {
    let machine = machine("route=nvfs");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("data");
    fs_err::write(&path, vec![0; BYTES as usize]).unwrap();
    let file = File::open(&path).unwrap();
    let (mut worker, ..) = machine.open(&file).unwrap();
    for (number, said) in [(worker.file(), "without O_DIRECT"), (0, "descriptor 0"), (999, "descriptor 999")]
    {
        let error = worker.run(Task { file: number, ..machine.task.clone() }, LIMIT).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let mut wrong = machine.task.clone();
    (wrong.engine, wrong.job.block) = (Engine::HostCopy, 1000);
    let error = worker.run(wrong, LIMIT).unwrap_err().to_string();
    assert!(error.contains("a multiple of 512"), "{error}");
    // Opened for reading alone: nothing can be written to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    for engine in [Engine::Cufile, Engine::Bounce] {
        let (mut worker, ..) = machine.open(&file).unwrap();
        let mut task = Task { engine, file: worker.file(), ..machine.task.clone() };
        task.job.direction = Direction::Write;
        let ran = worker.run(task, LIMIT).unwrap();
        assert!(ran.transfers == 0 && ran.samples.errors[0].what.contains("Bad file descriptor"), "{ran:?}");
    }
    assert!(fs_err::read(&path).unwrap() == vec![0; BYTES as usize]);
}

#[test]
fn all_gpus_are_listed_and_each_has_its_own_counters() {
    let machine = machine("gpus=3,pci=0000:01:00.0/0000:41:00.0/0000:81:00.0,route=nvfs");
    let file = machine.file();
    let mut worker = machine.start(&file);
    let gpus = worker.list_gpus(LIMIT).unwrap();
    let addresses: Vec<_> = gpus.iter().map(|gpu| gpu.pci.as_str()).collect();
    assert_eq!(addresses, ["0000:01:00.0", "0000:41:00.0", "0000:81:00.0"]);
    assert!(gpus.iter().all(|gpu| gpu.simulated && gpu.bar1.is_some()) && gpus[0].uuid != gpus[1].uuid);
    // The same worker goes on with one of them.
    let gpu = worker.open_gpu(1, LIMIT).unwrap();
    assert_eq!(gpu, gpus[1]);
    worker.open_cufile(LIMIT).unwrap();
    let ran = worker.run(Task { file: worker.file(), ..machine.task.clone() }, LIMIT).unwrap();
    let digits = gpu.uuid.trim_start_matches("GPU-").replace('-', "");
    assert_eq!(ran.after.unwrap().gpus.keys().collect::<Vec<_>>(), [&digits]);
    let error = machine.start(&file).open_gpu(3, LIMIT).unwrap_err().to_string();
    assert_eq!(error, "there is no GPU 3: 3 in all");
    let none = self::machine("gpus=0");
    assert_eq!(none.start(&file).list_gpus(LIMIT).unwrap(), []);
    let error = self::machine("error=cuInit:100").start(&file).list_gpus(LIMIT).unwrap_err().to_string();
    assert_eq!(error, "cuInit: CUDA_ERROR_NO_DEVICE (100)");
}

#[test]
fn streams_fail_like_everything_else() {
    let stream = |behaviour| machine(behaviour).with(|m| m.task.engine = Engine::CufileStream);
    for (behaviour, said) in [
        ("route=nvfs,short=4", "32768 of 65536 bytes"),
        ("route=nvfs,error=cuFileReadAsync:5030", "cuFileReadAsync: CU_FILE_INTERNAL_ERROR (5030)"),
        ("route=nvfs,error=cuFileRead:5044", "cuFileReadAsync: CU_FILE_IO_ERROR (5044)"),
        ("route=nvfs,error=cuFileRead:-5", "cuFileReadAsync: the transfer failed"),
    ] {
        let (ran, proof) = stream(behaviour).run().unwrap();
        assert_eq!(ran.samples.errors[0].what, said);
        assert_eq!(proof.outcome, Outcome::Unproven, "{behaviour}");
    }
    // Without the registration it goes on.
    let (_, proof) = stream("route=nvfs,error=cuFileStreamRegister:5030").run().unwrap();
    assert_eq!(proof.outcome, Outcome::Direct);
    let error = stream("route=nvfs").with(|m| m.old = true).run().unwrap_err();
    let WorkerError::Failed(failure) = error else { panic!("{error:?}") };
    assert!(failure.missing && failure.function.as_deref() == Some("cuFileReadAsync"), "{failure:?}");
}

#[test]
fn the_gpu_is_looked_at_while_it_works() {
    let timed = |job: &mut Job| (job.until, job.verify) = (Until::Seconds(1.5), false);
    for old in [false, true] {
        let machine = machine("route=nvfs,celsius=83,slowed=105").with(|m| {
            timed(&mut m.task.job);
            m.old = old;
        });
        let (ran, _) = machine.run().unwrap();
        assert_eq!(ran.gpu_states.len(), 2, "{:?}", ran.gpu_states);
        let state = &ran.gpu_states[1];
        assert_eq!(state.celsius, Some(83));
        assert_eq!(state.slowed, ["hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown"]);
        assert!((1000..1500).contains(&state.at_ms), "{state:?}");
    }
    // Where NVML hangs or says nothing, the job does not.
    let short = |job: &mut Job| (job.until, job.verify) = (Until::Seconds(0.3), false);
    for behaviour in
        ["route=nvfs,hang=nvmlDeviceGetTemperature", "route=nvfs,error=nvmlDeviceGetHandleByPciBusId_v2:6"]
    {
        let (ran, proof) = machine(behaviour).with(|m| short(&mut m.task.job)).run().unwrap();
        assert_eq!((ran.gpu_states, proof.outcome), (vec![], Outcome::Direct), "{behaviour}");
    }
}

#[test]
fn blocks_of_one_byte_are_no_full_proof_of_their_place() {
    let blank =
        machine("route=nvfs").with(|m| (m.written, m.blank, m.task.holds) = (false, true, Holds::Anything));
    let (ran, proof) = blank.run().unwrap();
    assert_eq!((ran.verified.blocks, ran.verified.uniform), (64, 64));
    assert!(proof.evidence.iter().any(|said| said.contains("data from another place would not be noticed")));
    let (ran, _) = blank.with(|m| m.blank = false).run().unwrap();
    assert_eq!(ran.verified.uniform, 0);
}

#[test]
fn transfers_that_hang_or_crash_later_are_named_too() {
    for engine in [Engine::Cufile, Engine::CufileBatch, Engine::CufileStream] {
        let crashed = machine("route=nvfs,crash_after=20").with(|m| m.task.engine = engine);
        let error = crashed.run().unwrap_err().to_string();
        assert!(error.contains("crashed in cuFile"), "{engine:?}: {error}");
    }
    let hung = machine("route=nvfs,hang_after=20");
    let file = hung.file();
    let (mut worker, ..) = hung.open(&file).unwrap();
    let task = Task { file: worker.file(), ..hung.task.clone() };
    let error = worker.run(task, Duration::from_secs(2)).unwrap_err().to_string();
    assert!(error.contains("gave no answer in 2 s in cuFileRead"), "{error}");
}

/// As the out-of-memory killer does it.
#[test]
fn a_worker_that_is_killed_is_a_crash_with_its_signal() {
    let machine = machine("route=nvfs,slow=cuFileRead:2000");
    let file = machine.file();
    let (mut worker, ..) = machine.open(&file).unwrap();
    let mut task = Task { file: worker.file(), ..machine.task.clone() };
    (task.job.until, task.job.verify) = (Until::Seconds(20.0), false);
    let process = worker.process();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    let error = worker.run(task, LIMIT).unwrap_err().to_string();
    killer.join().unwrap();
    assert!(error.starts_with("the DMA worker crashed in cuFileRead: SIGKILL"), "{error}");
}

#[test]
fn the_imitations_are_told_how_to_behave_by_a_file_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    simulated::put_into(folder.path());
    fs_err::write(
        folder.path().join("gdsboot-simulated.conf"),
        "gpus=2\nroute=p2pdma error=cuFileRead:5044\n",
    )
    .unwrap();
    let file = machine("").file();
    let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let environment = [("LD_LIBRARY_PATH", folder.path().to_str().unwrap())];
    let mut worker = WorkerProcess::start(program, machine("").settings, Some(&file), &environment).unwrap();
    assert_eq!(worker.list_gpus(LIMIT).unwrap().len(), 2);
    worker.open_gpu(0, LIMIT).unwrap();
    worker.open_cufile(LIMIT).unwrap();
    let ran = worker.run(Task { file: worker.file(), ..machine("").task }, LIMIT).unwrap();
    assert_eq!(ran.samples.errors[0].what, "cuFileRead: CU_FILE_IO_ERROR (5044)");
}

/// cufile.h: CUfileOpError.
#[test]
fn every_error_of_cufile_arrives_with_its_name() {
    for status in (5001..=5049).filter(|status| ![5021, 5032].contains(status)) {
        let behaviour: &'static str = format!("route=nvfs,error=cuFileHandleRegister:{status}").leak();
        let WorkerError::Failed(failure) = machine(behaviour).run().unwrap_err() else { panic!("{status}") };
        assert_eq!(failure.status, Some(status));
        let name = failure.name.as_deref().unwrap_or_else(|| panic!("{status} has no name"));
        assert!(name.starts_with("CU_FILE_"), "{name}");
    }
}

#[test]
fn the_probe_says_that_libraries_are_imitations() {
    let mut probe = std::process::Command::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let output = probe.arg("probe").env("LD_LIBRARY_PATH", simulated::libraries(false)).output().unwrap();
    let probe = gdsboot::facts::dma::DmaProbe::parse(&String::from_utf8_lossy(&output.stdout)).unwrap();
    assert!(probe.libraries.iter().all(|library| library.simulated && library.error.is_none()), "{probe:?}");
}
