//! Which route is proven, and which is not.

use crate::machine::{BYTES, machine};
use gdsboot::bench::route::{Outcome, Route, refused};
use gdsboot::bench::transfer::job::{Direction, Job, Order, Until};
use gdsboot::bench::worker::Engine;
use gdsboot::bench::worker::process::WorkerError;
use gdsboot::bench::worker::settings::Wanted;

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
