use super::*;
use crate::bench::gdsio::answer::VerifyAnswer;
use crate::bench::results::{GdsioVerified, GpuSeen};
use crate::bench::route::Route;
use crate::bench::testing::{STRICT, healthy};
use crate::bench::transfer::measurement::TransferError;
use crate::bench::worker::settings::{CufileSettings, Wanted};
use crate::bench::worker::{Failure, Verified};
use crate::checks::check::Answer;
use crate::checks::testing::{GPU_AT, NVME_AT, ask_bench};

fn bench() -> Results {
    healthy(GPU_AT, NVME_AT)
}

fn with(change: impl FnOnce(&mut Results)) -> Results {
    let mut bench = bench();
    change(&mut bench);
    bench
}

fn not(what: &str, cause: Cause, why: &str) -> NotDone {
    NotDone { what: what.into(), gpu: None, drive: None, cause, why: why.into() }
}

#[test]
fn nothing_fails_where_all_transfers_were_direct_and_right() {
    for check in CHECKS.iter().chain(crate::checks::throughput::CHECKS) {
        let outcome = ask_bench(check.id, &bench());
        assert!(matches!(outcome.answer, Answer::Pass | Answer::NotApplicable), "{}: {outcome:?}", check.id);
    }
}

#[test]
fn of_a_benchmark_that_found_nothing_nothing_is_said() {
    for check in CHECKS.iter().chain(crate::checks::throughput::CHECKS) {
        let outcome = ask_bench(check.id, &Results::default());
        let is_known = ["bench.complete", "bench.clock", "transfer.counters"].contains(&check.id);
        assert!(is_known || outcome.answer == Answer::NotApplicable, "{}: {outcome:?}", check.id);
    }
}

#[test]
fn gpus_that_do_not_open_say_why() {
    let none = |cause, why: &str| {
        let bench = with(|bench| {
            bench.gpus.clear();
            bench.not_done.push(not(OPENING_GPUS, cause, why));
        });
        ask_bench("transfer.gpu", &bench)
    };
    for (cause, why) in [
        (Cause::NoGpu, "libcuda works, and finds no GPU"),
        (Cause::NoGpu, "cuInit: CUDA_ERROR_SYSTEM_NOT_READY (802)"),
        (Cause::Library, "libcuda.so.1: cannot open shared object file: No such file or directory"),
        (Cause::Worker, "the DMA worker gave no answer in 120 s in cuInit"),
    ] {
        let outcome = none(cause, why);
        assert_eq!((outcome.answer, outcome.partial), (Answer::Fail, None), "{why}");
        assert!(outcome.why.contains(why) && !outcome.remedies.is_empty());
    }
    // A validator without its worker knows nothing of the machine.
    let alone = none(Cause::Library, "gdsboot-dma is not there, which alone talks to NVIDIA's libraries");
    assert_eq!(alone.answer, Answer::Unknown);
    let one_of_two =
        with(|bench| bench.not_done.push(not(OPENING_GPUS, Cause::NoGpu, "there is no GPU 7: 1 in all")));
    assert_eq!(ask_bench("transfer.gpu", &one_of_two).partial, Some(Severity::Major));
    assert_eq!(ask_bench("transfer.gpu", &Results { gpus: vec![], ..bench() }).answer, Answer::NotApplicable);
}

#[test]
fn workers_that_crash_or_hang_are_named_with_the_call() {
    let why = "the DMA worker crashed in cuFileRead: SIGSEGV";
    let bench = with(|bench| {
        let failed = not("the route", Cause::Worker, why);
        bench.not_done.push(NotDone { gpu: Some(GPU_AT.into()), drive: Some("nvme0n1".into()), ..failed });
        bench.not_done.push(not(
            "figures",
            Cause::Worker,
            "the DMA worker gave no answer in 63 s in cuFileRead",
        ));
    });
    let outcome = ask_bench("transfer.worker", &bench);
    assert_eq!(outcome.answer, Answer::Fail);
    assert_eq!(outcome.why, format!("{why} (and 1 more)"));
    assert_eq!(outcome.evidence[0].from, format!("{GPU_AT}, nvme0n1: the route"));
}

#[test]
fn drives_that_leave_are_named() {
    let bench = with(|bench| {
        let lost = not("all that was left of it", Cause::Drive, "it can no longer be read: No such device");
        bench.not_done.push(NotDone { drive: Some("nvme1n1".into()), ..lost });
    });
    let outcome = ask_bench("transfer.drive", &bench);
    assert_eq!(outcome.why, "nvme1n1: it can no longer be read: No such device");
    assert_eq!((outcome.answer, outcome.partial), (Answer::Fail, Some(Severity::Major)));
}

#[test]
fn failures_tell_the_drive_s_own_from_those_of_the_way_to_the_gpu() {
    let fail = |bench: &mut Results, kind: Kind| {
        for m in bench.measurements.iter_mut().filter(|m| m.kind == kind) {
            m.errors = 3;
            let what = "Input/output error".into();
            m.first_error = Some(TransferError { offset: 4096, what, wrong_data: false });
        }
    };
    let route = ask_bench("transfer.errors", &with(|bench| fail(bench, Kind::Cufile)));
    assert_eq!(route.answer, Answer::Fail);
    assert!(
        route.why.contains("3 failed, the first at byte 4096: Input/output error (and in 5 more"),
        "{}",
        route.why
    );
    assert!(route.remedies[1].text.contains("the way to the GPU"));
    let both =
        with(|bench| [Kind::Storage, Kind::Cufile].map(|kind| fail(bench, kind)).into_iter().collect());
    assert!(ask_bench("transfer.errors", &both).remedies[1].text.contains("by itself"));
}

#[test]
fn wrong_data_fails_whatever_else_is_well() {
    let wrong = |bench: &mut Results, kind: Kind| {
        let first = Some("at byte 0: 0x00 instead of 0x01, as the CPU reads it".into());
        let m = bench.measurements.iter_mut().find(|m| m.kind == kind).unwrap();
        m.verified = Some(Verified { blocks: 16, wrong: 2, first, ..Verified::default() });
        (m.errors, m.first_error) = (2, Some(TransferError { wrong_data: true, ..TransferError::default() }));
    };
    let bench = with(|bench| wrong(bench, Kind::Cufile));
    let outcome = ask_bench("transfer.data", &bench);
    assert_eq!(outcome.answer, Answer::Fail);
    assert!(outcome.why.contains("2 of 16 blocks are wrong, at byte 0"), "{}", outcome.why);
    assert!(outcome.remedies.iter().any(|remedy| remedy.who == Who::Hypervisor));
    // It is no second finding.
    assert_eq!(ask_bench("transfer.errors", &bench).answer, Answer::Pass);
    assert_eq!(bench.proven(), None);
    let verify = with(|bench| {
        let lines = ["***FAIL Read md5sum Mismatch!!", "Data Verification Failed"];
        let answer = VerifyAnswer::parse(lines.into_iter());
        bench.gdsio_verified.push(GdsioVerified { answer, ..GdsioVerified::default() });
    });
    let outcome = ask_bench("transfer.data", &verify);
    assert_eq!(outcome.answer, Answer::Fail);
    assert!(outcome.why.contains("gdsio_verify says ***FAIL Read md5sum"), "{}", outcome.why);
    let bounce = ask_bench("transfer.data", &with(|bench| wrong(bench, Kind::Bounce)));
    assert!(bounce.remedies.iter().all(|remedy| remedy.who != Who::Hypervisor));
}

/// Makes the attempts of a pair come to something else.
fn turn(pair: &mut Pair, outcome: Proven, bounced: Option<f64>) {
    for attempt in &mut pair.attempts {
        attempt.proof = Proof {
            outcome,
            bounced,
            lacks: vec!["cuFile's counters were not read".into()],
            route: attempt.proof.route.filter(|_| outcome != Proven::Compat),
            ..Proof::default()
        };
    }
}

#[test]
fn a_route_is_proven_for_every_pair_or_it_is_said_for_which() {
    let all = ask_bench("transfer.route", &bench());
    assert_eq!(all.why, "2 of 2 pairs move data by DMA: nvfs");
    assert_eq!(bench().proven(), Some(Route::Nvfs));

    let far_bounces = with(|bench| turn(&mut bench.pairs[1], Proven::Compat, Some(1.0)));
    let outcome = ask_bench("transfer.route", &far_bounces);
    assert_eq!((outcome.answer, outcome.partial), (Answer::Fail, Some(Severity::Minor)));
    assert_eq!(
        outcome.why,
        format!("the CPU copies the data between {GPU_AT} and nvme1n1; 1 of 2 pairs are direct")
    );
    // Every GPU has a drive that it reaches.
    assert_eq!(far_bounces.proven(), Some(Route::Nvfs));

    let none = with(|bench| bench.pairs.iter_mut().for_each(|pair| turn(pair, Proven::Compat, Some(1.0))));
    let outcome = ask_bench("transfer.route", &none);
    assert_eq!((outcome.answer, outcome.partial), (Answer::Fail, None));
    assert_eq!((none.proven(), none.bounced()), (None, Route::Compat));

    let cut_off = with(|bench| {
        let mut other = bench.gpus[0].gpu.clone();
        other.pci = "0000:aa:00.0".into();
        bench.gpus.push(GpuSeen { index: 1, gpu: other, cufile: None });
        bench.pairs[1].gpu = "0000:aa:00.0".into();
        turn(&mut bench.pairs[1], Proven::Compat, Some(1.0));
    });
    let outcome = ask_bench("transfer.route", &cut_off);
    assert_eq!((outcome.partial, cut_off.proven()), (Some(Severity::Major), None));
    assert!(outcome.why.starts_with("1 GPUs have no direct drive"), "{}", outcome.why);
}

#[test]
fn partly_bounced_is_said_with_its_fraction() {
    let mixed = with(|bench| bench.pairs.iter_mut().for_each(|pair| turn(pair, Proven::Mixed, Some(0.25))));
    let outcome = ask_bench("transfer.route", &mixed);
    assert_eq!(outcome.answer, Answer::Fail);
    assert!(outcome.why.ends_with("partly nvfs (25.0 % by the CPU)"), "{}", outcome.why);

    let small_ones = with(|bench| {
        let m =
            bench.measurements.iter_mut().find(|m| m.kind == Kind::Cufile && m.job.block == 4096).unwrap();
        m.proof = Some(Proof { outcome: Proven::Compat, bounced: Some(1.0), ..Proof::default() });
    });
    let outcome = ask_bench("transfer.route", &small_ones);
    assert_eq!((outcome.answer, outcome.partial), (Answer::Fail, Some(Severity::Minor)));
    assert!(outcome.why.contains("cuFile of read random 4 KiB, 4 x 32"), "{}", outcome.why);
}

#[test]
fn what_is_not_proven_is_not_known() {
    let unproven = with(|bench| bench.pairs.iter_mut().for_each(|pair| turn(pair, Proven::Unproven, None)));
    let outcome = ask_bench("transfer.route", &unproven);
    assert_eq!(outcome.answer, Answer::Unknown);
    assert!(outcome.why.ends_with("cuFile's counters were not read"), "{}", outcome.why);
    assert_eq!((unproven.proven(), unproven.bounced()), (None, Route::None));
    // Of two attempts the one that proves more counts.
    let second = with(|bench| {
        let better = bench.pairs[0].attempts[0].clone();
        turn(&mut bench.pairs[0], Proven::Compat, None);
        bench.pairs[0].attempts[0].error =
            Some("cuFileHandleRegister: CU_FILE_IO_NOT_SUPPORTED (5008)".into());
        let settings = CufileSettings { wanted: Wanted::P2pdma, ..STRICT };
        bench.pairs[0].attempts.push(Attempt { settings, ..better });
    });
    assert_eq!(ask_bench("transfer.route", &second).answer, Answer::Pass);
}

#[test]
fn a_library_that_does_not_count_is_a_note() {
    let mute = with(|bench| {
        let cufile = bench.gpus[0].cufile.as_mut().unwrap();
        (cufile.counts, cufile.version) = (false, Some("1.9.1".into()));
        let function = Some("cuFileSetStatsLevel".into());
        let text = "the library has no such function".into();
        cufile.failures.push(Failure { function, text, missing: true, ..Failure::default() });
    });
    let outcome = ask_bench("transfer.counters", &mute);
    assert_eq!(outcome.answer, Answer::Note);
    assert!(
        outcome.why.contains("libcufile 1.9.1 does not count routes (cuFileSetStatsLevel: "),
        "{}",
        outcome.why
    );
}

#[test]
fn imitations_prove_nothing() {
    let simulated = with(|bench| bench.simulated = true);
    assert_eq!((simulated.proven(), simulated.bounced()), (None, Route::None));
}
