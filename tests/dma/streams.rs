//! Transfers on CUDA's streams. Their data, both ways, is among what data.rs and routes.rs compare for every engine.

use crate::machine::{LIMIT, Machine, machine};
use gdsboot::bench::route::{Outcome, Route};
use gdsboot::bench::transfer::job::Direction;
use gdsboot::bench::worker::process::WorkerError;
use gdsboot::bench::worker::{Engine, Task};

fn streams(behaviour: &'static str) -> Machine {
    machine(behaviour).with(|m| m.task.engine = Engine::CufileStream)
}

#[test]
fn any_depth_makes_all_transfers_once() {
    // The deepest is made with fewer streams, and five do not divide what a thread has to do.
    for depth in [1, 5, 32, 4096] {
        for direction in [Direction::Read, Direction::Write] {
            let deep = streams("route=p2pdma")
                .with(|m| (m.task.job.depth, m.task.job.direction) = (depth, direction));
            let (ran, proof) = deep.run().unwrap();
            assert_eq!((proof.outcome, proof.route), (Outcome::Direct, Some(Route::P2pdma)), "{proof:?}");
            assert_eq!((ran.samples.transfers(), ran.samples.error_count), (64, 0), "{depth}: {ran:?}");
            assert_eq!(ran.samples.engine, "cuFile streams");
        }
    }
}

/// The imitation refuses what is not as it was promised when the stream was registered. No data moves here: a drive may
/// refuse so small a part of its blocks.
#[test]
fn cufile_is_promised_pages_only_where_there_are_some() {
    for (block, start) in [(512, 0), (4096, 512), (4096, 8192)] {
        let small = streams("route=nvfs,lost=1").with(|m| {
            let job = &mut m.task.job;
            (job.block, job.range, job.verify) = (block, start..start + 64 * u64::from(block), false);
        });
        let (ran, _) = small.run().unwrap();
        assert_eq!((ran.samples.transfers(), ran.samples.error_count), (64, 0), "{ran:?}");
    }
}

#[test]
fn transfers_that_fail_are_errors_with_their_names() {
    for (behaviour, direction, said) in [
        ("route=nvfs,short=4", Direction::Read, "32768 of 65536 bytes"),
        (
            "error=cuFileReadAsync:5038",
            Direction::Read,
            "cuFileReadAsync: CU_FILE_ASYNC_NOT_SUPPORTED (5038)",
        ),
        (
            "error=cuFileWriteAsync:5038",
            Direction::Write,
            "cuFileWriteAsync: CU_FILE_ASYNC_NOT_SUPPORTED (5038)",
        ),
        ("error=cuFileRead:5044", Direction::Read, "cuFileReadAsync: CU_FILE_IO_ERROR (5044)"),
        ("error=cuFileWrite:-28", Direction::Write, "cuFileWriteAsync: -1, an error outside of cuFile"),
    ] {
        let (ran, proof) = streams(behaviour).with(|m| m.task.job.direction = direction).run().unwrap();
        assert_eq!(ran.samples.errors[0].what, said);
        assert_eq!(proof.outcome, Outcome::Unproven, "{behaviour}");
    }
    let error = streams("error=cuFileStreamRegister:5022").run().unwrap_err().to_string();
    assert_eq!(error, "cuFileStreamRegister: CU_FILE_INVALID_VALUE (5022)");
}

/// The library may still write to memory that would be given back.
#[test]
fn a_stream_that_cannot_be_waited_for_ends_the_worker() {
    let error = streams("route=nvfs,error=cuStreamSynchronize:700").run().unwrap_err();
    let WorkerError::Crashed { signal, calling, words } = error else { panic!("{error}") };
    assert_eq!((signal.as_str(), calling.as_deref()), ("SIGABRT", Some("cuFileReadAsync")));
    assert!(words.contains("cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS (700)"), "{words}");
}

#[test]
fn a_library_without_streams_says_that_they_are_missing() {
    let old = streams("route=nvfs").with(|m| m.old = true);
    let file = old.file();
    let (mut worker, ..) = old.open(&file).unwrap();
    for (direction, function) in
        [(Direction::Read, "cuFileReadAsync"), (Direction::Write, "cuFileWriteAsync")]
    {
        let mut task = Task { file: worker.file(), ..old.task.clone() };
        task.job.direction = direction;
        let WorkerError::Failed(failure) = worker.run(task, LIMIT).unwrap_err() else { panic!() };
        assert_eq!((failure.function.as_deref(), failure.missing), (Some(function), true));
        assert_eq!(failure.to_string(), format!("{function}: the library has no such function"));
    }
    // The worker goes on, and other ways are still there.
    let task = Task { engine: Engine::Cufile, file: worker.file(), ..old.task.clone() };
    assert_eq!(worker.run(task, LIMIT).unwrap().samples.error_count, 0);
    worker.close(LIMIT).unwrap();
}
