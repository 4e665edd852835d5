//! What arrives is compared, and wrong data is never a proof.

use crate::machine::{BYTES, Content, LIMIT, machine};
use gdsboot::bench::route::Outcome;
use gdsboot::bench::storage::Buffers;
use gdsboot::bench::transfer::job::{Direction, Job};
use gdsboot::bench::transfer::pattern::Pattern;
use gdsboot::bench::worker::{Engine, Holds, Task};
use std::os::unix::fs::FileExt as _;

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
    let unknown =
        machine("route=nvfs").with(|m| (m.content, m.task.holds) = (Content::Steps, Holds::Anything));
    let (ran, proof) = unknown.run().unwrap();
    assert_eq!((proof.outcome, ran.verified.blocks), (Outcome::Direct, 64));
    let (ran, proof) = unknown.clone().with(|m| m.behaviour = "route=nvfs,corrupt=9").run().unwrap();
    assert_eq!((proof.outcome, ran.verified.wrong), (Outcome::Unproven, 7));
    let (_, proof) = unknown.with(|m| m.task.holds = Holds::Pattern).run().unwrap();
    assert_eq!(proof.outcome, Outcome::Unproven);
}

/// A drive where nothing was ever written.
#[test]
fn blocks_of_one_byte_are_counted_and_the_proof_says_so() {
    for (zeros_from, uniform, said) in [
        (0, 64, "the data of 64 blocks is right, but each holds one and the same byte throughout"),
        (1024, 63, "the data of 64 blocks is right"),
    ] {
        let zeros = machine("route=nvfs").with(|m| {
            (m.content, m.task.holds) = (Content::Zeros(zeros_from), Holds::Anything);
        });
        let (ran, proof) = zeros.run().unwrap();
        assert_eq!((ran.verified.blocks, ran.verified.uniform), (64, uniform));
        assert_eq!(proof.outcome, Outcome::Direct);
        let evidence = proof.evidence.iter().find(|evidence| evidence.starts_with("the data")).unwrap();
        assert_eq!(evidence.split(": data at").next(), Some(said));
    }
    let (pattern, _) = machine("route=nvfs").run().unwrap();
    assert_eq!((pattern.verified.blocks, pattern.verified.uniform), (64, 0));
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
                m.content = if direction == Direction::Read { Content::Pattern } else { Content::Steps };
            });
            for machine in [machine.clone(), machine.forbids_compat()] {
                let (ran, proof) = machine.run().unwrap();
                assert!(ran.verified.wrong > 0, "{behaviour}: {:?}", ran.verified);
                if verify {
                    assert_eq!(ran.verified.blocks, 64, "{behaviour}: {:?}", ran.verified);
                }
                assert_eq!((proof.outcome, proof.route), (Outcome::Unproven, None), "{behaviour}");
            }
        }
    }
}
