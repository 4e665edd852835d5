//! Calls and transfers that fail, crash, hang, or print what they like.

use crate::machine::{BYTES, LIMIT, machine};
use gdsboot::bench::route::Outcome;
use gdsboot::bench::transfer::job::Direction;
use gdsboot::bench::worker::process::WorkerError;
use gdsboot::bench::worker::{Engine, Task};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

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

/// From a call that returns a `CUfileError_t` and from a transfer that returns a number below 0.
#[test]
fn every_error_number_of_cufile_arrives_with_its_name() {
    let mut said = String::new();
    for number in 5001..=5050 {
        let behaviour = format!("error=cuFileBatchIOSetUp:{number},error=cuFileRead:{number}").leak();
        let machine = machine(behaviour);
        let file = machine.file();
        let (mut worker, ..) = machine.open(&file).unwrap();
        let mut task = Task { file: worker.file(), ..machine.task.clone() };
        task.engine = Engine::CufileBatch;
        let WorkerError::Failed(call) = worker.run(task.clone(), LIMIT).unwrap_err() else { panic!() };
        assert_eq!(call.status, Some(number));
        (task.engine, task.job.threads, task.job.range) = (Engine::Cufile, 1, 0..task.job.block.into());
        let transfer = worker.run(task, LIMIT).unwrap().samples.errors[0].what.clone();
        let call = call.to_string();
        let name = call.strip_prefix("cuFileBatchIOSetUp: ").unwrap();
        assert_eq!(transfer.strip_prefix("cuFileRead: "), Some(name));
        writeln!(said, "{name}").unwrap();
    }
    insta::assert_snapshot!(said, @r"
    CU_FILE_DRIVER_NOT_INITIALIZED (5001)
    CU_FILE_DRIVER_INVALID_PROPS (5002)
    CU_FILE_DRIVER_UNSUPPORTED_LIMIT (5003)
    CU_FILE_DRIVER_VERSION_MISMATCH (5004)
    CU_FILE_DRIVER_VERSION_READ_ERROR (5005)
    CU_FILE_DRIVER_CLOSING (5006)
    CU_FILE_PLATFORM_NOT_SUPPORTED (5007)
    CU_FILE_IO_NOT_SUPPORTED (5008)
    CU_FILE_DEVICE_NOT_SUPPORTED (5009)
    CU_FILE_NVFS_DRIVER_ERROR (5010)
    CU_FILE_CUDA_DRIVER_ERROR (5011)
    CU_FILE_CUDA_POINTER_INVALID (5012)
    CU_FILE_CUDA_MEMORY_TYPE_INVALID (5013)
    CU_FILE_CUDA_POINTER_RANGE_ERROR (5014)
    CU_FILE_CUDA_CONTEXT_MISMATCH (5015)
    CU_FILE_INVALID_MAPPING_SIZE (5016)
    CU_FILE_INVALID_MAPPING_RANGE (5017)
    CU_FILE_INVALID_FILE_TYPE (5018)
    CU_FILE_INVALID_FILE_OPEN_FLAG (5019)
    CU_FILE_DIO_NOT_SET (5020)
    status 5021
    CU_FILE_INVALID_VALUE (5022)
    CU_FILE_MEMORY_ALREADY_REGISTERED (5023)
    CU_FILE_MEMORY_NOT_REGISTERED (5024)
    CU_FILE_PERMISSION_DENIED (5025)
    CU_FILE_DRIVER_ALREADY_OPEN (5026)
    CU_FILE_HANDLE_NOT_REGISTERED (5027)
    CU_FILE_HANDLE_ALREADY_REGISTERED (5028)
    CU_FILE_DEVICE_NOT_FOUND (5029)
    CU_FILE_INTERNAL_ERROR (5030)
    CU_FILE_GETNEWFD_FAILED (5031)
    status 5032
    CU_FILE_NVFS_SETUP_ERROR (5033)
    CU_FILE_IO_DISABLED (5034)
    CU_FILE_BATCH_SUBMIT_FAILED (5035)
    CU_FILE_GPU_MEMORY_PINNING_FAILED (5036)
    CU_FILE_BATCH_FULL (5037)
    CU_FILE_ASYNC_NOT_SUPPORTED (5038)
    CU_FILE_INTERNAL_BATCH_SETUP_ERROR (5039)
    CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR (5040)
    CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR (5041)
    CU_FILE_INTERNAL_BATCH_CANCEL_ERROR (5042)
    CU_FILE_NOMEM_ERROR (5043)
    CU_FILE_IO_ERROR (5044)
    CU_FILE_INTERNAL_BUF_REGISTER_ERROR (5045)
    CU_FILE_HASH_OPR_ERROR (5046)
    CU_FILE_INVALID_CONTEXT_ERROR (5047)
    CU_FILE_NVFS_INTERNAL_DRIVER_ERROR (5048)
    CU_FILE_BATCH_NOCOMPAT_ERROR (5049)
    CU_FILE_IO_MAX_ERROR (5050)
    ");
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
fn a_job_that_crashes_or_hangs_half_way_is_named_too() {
    for engine in [Engine::Cufile, Engine::CufileBatch, Engine::CufileStream] {
        let crashes = machine("route=nvfs,crash_after=40").with(|m| m.task.engine = engine);
        let error = crashes.run().unwrap_err();
        assert!(matches!(error, WorkerError::Crashed { .. }), "{engine:?}: {error}");
    }
    let whole = machine("route=nvfs,crash_after=64").proof();
    assert_eq!(whole.outcome, Outcome::Direct);
    let hangs = machine("route=nvfs,hang_after=40");
    let file = hangs.file();
    let (mut worker, ..) = hangs.open(&file).unwrap();
    let task = Task { file: worker.file(), ..hangs.task.clone() };
    let error = worker.run(task, Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.starts_with("the DMA worker gave no answer in 1 s in cuFileRead"), "{error}");
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
