//! What proves a route and what does not.

use super::*;
use crate::bench::transfer::job::{Order, Until};
use crate::bench::transfer::measurement::{Samples, TransferError};
use crate::bench::worker::Verified;
use crate::bench::worker::settings::Wanted;
use crate::facts::Root;
use crate::facts::nvidia_fs::NvidiaFs;

const UUID: &str = "GPU-5a1db007-7369-6d75-6c61-746564677075";
const DIGITS: &str = "5a1db00773696d756c61746564677075";
const TRANSFERS: u64 = 64;
const MOVED: u64 = 64 << 20;

fn job(direction: Direction) -> Job {
    Job {
        direction,
        order: Order::Sequential,
        block: 1 << 20,
        depth: 1,
        threads: 1,
        range: 0..MOVED,
        until: Until::Once,
        seed: 1,
        verify: false,
    }
}

/// A task whose counters rose by nvfs, p2p and posix transfers, of right data.
fn ran(nvfs: u64, p2p: u64, posix: u64) -> Ran {
    let counters = |base: u64| Counters {
        layout: "5000 bytes".into(),
        gpus: [(DIGITS.to_owned(), {
            let reads =
                OpCounters { bytes: base, total: base, p2p: base, nvfs: base, posix: base, errors: 0 };
            GpuCounters { reads, writes: OpCounters::default() }
        })]
        .into(),
    };
    let (before, mut after) = (counters(1000), counters(1000));
    let reads = &mut after.gpus.get_mut(DIGITS).unwrap().reads;
    reads.nvfs += nvfs;
    reads.p2p += p2p;
    reads.posix += posix;
    reads.total += nvfs + p2p + posix;
    reads.bytes += (nvfs + p2p + posix) << 20;
    Ran {
        transfers: TRANSFERS,
        moved: MOVED,
        verified: Verified { blocks: 16, ..Verified::default() },
        before: Some(before),
        after: Some(after),
        ..Ran::default()
    }
}

/// The same with a library that does not count.
fn uncounted() -> Ran {
    Ran { before: None, after: None, ..ran(0, 0, 0) }
}

fn cufile(compat_allowed: bool, flags: &[&str]) -> Cufile {
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    Cufile { compat_allowed: Some(compat_allowed), p2p_flags: Some(flags), ..Cufile::default() }
}

/// `stats` of nvidia-fs.
fn stats(text: &str) -> Stats {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("proc/driver/nvidia-fs");
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::write(folder.join("stats"), text).unwrap();
    NvidiaFs::read(&Root::at(dir.path())).stats.value().unwrap().clone()
}

fn proof_of(ran: &Ran, compat: bool, cufile: &Cufile, nvidia_fs: Option<(&Stats, &Stats)>) -> Proof {
    let settings = CufileSettings { wanted: Wanted::Any, compat };
    let job = job(Direction::Read);
    prove(&Known {
        engine: Engine::Cufile,
        job: &job,
        gpu: UUID,
        ran,
        settings,
        cufile,
        nvidia_fs,
        mappings: None,
    })
}

fn with_compat(ran: &Ran) -> Proof {
    proof_of(ran, true, &cufile(true, &["NVFS"]), None)
}

#[test]
fn counters_that_rise_by_all_that_moved_name_the_route() {
    let proof = with_compat(&ran(64, 0, 0));
    assert_eq!((proof.outcome, proof.route, proof.bounced), (Outcome::Direct, Some(Route::Nvfs), Some(0.0)));
    assert_eq!(proof.shares, [Share { route: Route::Nvfs, transfers: 64, bytes: MOVED }]);
    assert_eq!(proof.lacks, [""; 0]);
    assert!(proof.is_direct());
    insta::assert_json_snapshot!(proof.evidence, @r#"
    [
      "cuFile counted 64 transfers of 67108864 bytes for GPU-5a1db007-7369-6d75-6c61-746564677075: 64 nvfs, 0 p2pdma, 0 posix",
      "the data of 16 blocks is right"
    ]
    "#);
    let proof = with_compat(&ran(0, 70, 0));
    assert_eq!((proof.outcome, proof.route), (Outcome::Direct, Some(Route::P2pdma)));
    let proof = with_compat(&ran(40, 24, 0));
    assert_eq!((proof.outcome, proof.route, proof.shares.len()), (Outcome::Direct, Some(Route::Nvfs), 2));
}

/// A drive where nothing was ever written: each block looks like every other.
#[test]
fn blocks_of_one_byte_are_weaker_evidence_and_said_to_be() {
    let said = |uniform: u64| {
        let verified = Verified { blocks: 16, uniform, ..Verified::default() };
        let proof = with_compat(&Ran { verified, ..ran(64, 0, 0) });
        assert_eq!(proof.outcome, Outcome::Direct);
        proof.evidence[1].clone()
    };
    assert_eq!(said(15), "the data of 16 blocks is right");
    assert_eq!(
        said(16),
        "the data of 16 blocks is right, but each holds one and the same byte throughout: data at the wrong place would \
         not be noticed"
    );
}

#[test]
fn what_the_cpu_copied_is_named_even_where_it_was_forbidden() {
    for allowed in [true, false] {
        let all = proof_of(&ran(0, 0, 64), allowed, &cufile(allowed, &["NVFS"]), None);
        assert_eq!((all.outcome, all.route, all.bounced), (Outcome::Compat, None, Some(1.0)));
        let some = proof_of(&ran(48, 0, 16), allowed, &cufile(allowed, &["NVFS"]), None);
        assert_eq!((some.outcome, some.route), (Outcome::Mixed, Some(Route::Nvfs)));
        assert_eq!(some.bounced, Some(0.25));
        assert_eq!(some.shares[1], Share { route: Route::Compat, transfers: 16, bytes: 16 << 20 });
        assert!(!all.is_direct() && !some.is_direct());
    }
}

#[test]
fn nothing_is_proven_without_right_data() {
    let whole = ran(64, 0, 0);
    let failed = Samples {
        error_count: 1,
        errors: vec![TransferError { what: "cuFileRead: EIO".into(), ..TransferError::default() }],
        ..Samples::default()
    };
    for (ran, why) in [
        (Ran { verified: Verified::default(), ..whole.clone() }, "no data was compared"),
        (
            Ran {
                verified: Verified {
                    blocks: 16,
                    wrong: 1,
                    first: Some("at byte 0".into()),
                    ..Verified::default()
                },
                ..whole.clone()
            },
            "the data of 1 of 16 blocks is wrong: at byte 0",
        ),
        (
            Ran {
                verified: Verified { blocks: 15, first: Some("pread: EIO".into()), ..Verified::default() },
                ..whole.clone()
            },
            "the data could not be compared: pread: EIO",
        ),
        (Ran { samples: failed, ..whole.clone() }, "1 transfers failed: cuFileRead: EIO"),
        (Ran { transfers: 0, ..whole.clone() }, "nothing was transferred"),
    ] {
        for allowed in [true, false] {
            let proof = proof_of(&ran, allowed, &cufile(allowed, &["NVFS"]), None);
            assert_eq!((proof.outcome, proof.route), (Outcome::Unproven, None), "{why}");
            assert!(proof.lacks.iter().any(|lack| lack == why), "{:?}", proof.lacks);
        }
    }
}

#[test]
fn counters_that_do_not_account_for_everything_prove_nothing() {
    for (change, why) in [
        ((|ran| *ran = self::ran(0, 0, 0)) as fn(&mut Ran), "account for 0 of 64 transfers"),
        (|ran| *ran = self::ran(63, 0, 0), "account for 63 of 64 transfers"),
        (|ran| ran.moved += 1, "67108864 of 67108865 bytes"),
        (|ran| std::mem::swap(&mut ran.before, &mut ran.after), "went backwards"),
        (|ran| ran.before = None, "were not read"),
        (|ran| ran.after = None, "were not read"),
    ] {
        let mut changed = ran(64, 0, 0);
        change(&mut changed);
        let proof = with_compat(&changed);
        assert_eq!((proof.outcome, proof.route), (Outcome::Unproven, None), "{why}");
        assert!(proof.lacks.iter().any(|lack| lack.contains(why)), "{:?}", proof.lacks);
    }
}

/// Reads are no writes.
#[test]
fn the_other_direction_s_counters_prove_nothing() {
    let settings = CufileSettings { wanted: Wanted::Any, compat: true };
    let (job, ran, cufile) = (job(Direction::Write), ran(64, 0, 0), cufile(true, &["NVFS"]));
    let known = Known {
        engine: Engine::Cufile,
        job: &job,
        gpu: UUID,
        ran: &ran,
        settings,
        cufile: &cufile,
        nvidia_fs: None,
        mappings: None,
    };
    assert_eq!(prove(&known).outcome, Outcome::Unproven);
    for engine in [Engine::Bounce, Engine::HostCopy] {
        let proof = prove(&Known { engine, ..known });
        assert_eq!(proof.lacks, ["the transfers were not made by cuFile"]);
    }
}

#[test]
fn counters_of_no_known_gpu_are_all_added() {
    let settings = CufileSettings { wanted: Wanted::Any, compat: true };
    let (job, ran, cufile) = (job(Direction::Read), ran(64, 0, 0), cufile(true, &[]));
    let known = |gpu| Known {
        engine: Engine::Cufile,
        job: &job,
        gpu,
        ran: &ran,
        settings,
        cufile: &cufile,
        nvidia_fs: None,
        mappings: None,
    };
    let proof = prove(&known("GPU-00000000-0000-0000-0000-000000000000"));
    assert_eq!(proof.outcome, Outcome::Direct);
    assert!(proof.evidence[0].contains("for all GPUs"), "{:?}", proof.evidence);
}

#[test]
fn success_with_compat_mode_forbidden_is_a_direct_route() {
    for (flags, wanted) in [
        (&["NVFS"][..], Some(Route::Nvfs)),
        (&["PCI_P2PDMA"], Some(Route::P2pdma)),
        (&["PCI_P2PDMA", "DMABUF"], Some(Route::P2pdma)),
        (&["C2C"], Some(Route::C2c)),
        // Which one it was is not known.
        (&["PCI_P2PDMA", "NVFS"], None),
        (&[], None),
    ] {
        let proof = proof_of(&uncounted(), false, &cufile(false, flags), None);
        assert_eq!((proof.outcome, proof.route), (Outcome::Direct, wanted), "{flags:?}");
        assert!(proof.evidence.contains(&"it succeeded with compat mode forbidden".to_owned()));
    }
    // Counters that lack some of the transfers still name the route.
    let proof = proof_of(&ran(0, 10, 0), false, &cufile(false, &["NVFS"]), None);
    assert_eq!((proof.outcome, proof.route), (Outcome::Direct, Some(Route::P2pdma)));
}

#[test]
fn forbidding_proves_nothing_where_cufile_does_not_obey() {
    for (cufile, why) in [
        (cufile(true, &["NVFS"]), "cuFile says that it is allowed"),
        (Cufile { compat_allowed: None, ..cufile(false, &["NVFS"]) }, "does not say whether"),
    ] {
        let proof = proof_of(&uncounted(), false, &cufile, None);
        assert_eq!(proof.outcome, Outcome::Unproven);
        assert!(proof.lacks.iter().any(|lack| lack.contains(why)), "{:?}", proof.lacks);
    }
    // What was asked for is not what forbids.
    let settings = CufileSettings { wanted: Wanted::Compat, compat: false };
    let (job, ran, cufile) = (job(Direction::Read), uncounted(), cufile(false, &["NVFS"]));
    let known = Known {
        engine: Engine::Cufile,
        job: &job,
        gpu: UUID,
        ran: &ran,
        settings,
        cufile: &cufile,
        nvidia_fs: None,
        mappings: None,
    };
    assert_eq!(prove(&known).outcome, Outcome::Unproven);
}

#[test]
fn a_refusal_is_compat_only_where_the_same_works_with_compat() {
    let refusal = |status| Failure {
        function: Some("cuFileHandleRegister".into()),
        status: Some(status),
        ..Failure::default()
    };
    let works = uncounted();
    for status in [5008, 5034] {
        let proof = refused(&refusal(status), Some(&works), false);
        assert_eq!((proof.outcome, proof.route, &proof.lacks[..]), (Outcome::Compat, None, &[][..]));
    }
    for (status, allowed) in [(5008, None), (5008, Some(&Ran::default())), (5030, Some(&works)), (0, None)] {
        let proof = refused(&refusal(status), allowed, false);
        assert_eq!((proof.outcome, proof.lacks.len()), (Outcome::Unproven, 1));
    }
}

const COUNTING: &str = "IO stats: Enabled, peer IO stats: Enabled\n";

#[test]
fn nvidia_fs_s_counters_prove_its_route() {
    let before = stats(&format!("{COUNTING}Reads\t: n=100 ok=100 err=0 readMiB=100\n"));
    for (text, outcome) in [
        ("Reads\t: n=164 ok=164 err=0 readMiB=164\n", Outcome::Direct),
        ("Reads\t: n=300 ok=300 err=0\n", Outcome::Direct),
        ("Reads\t: n=163 ok=163 err=0 readMiB=164\n", Outcome::Unproven),
        ("Reads\t: n=164 ok=164 err=0 readMiB=163\n", Outcome::Unproven),
        ("Reads\t: n=164 ok=100 err=64 readMiB=164\n", Outcome::Unproven),
        ("Reads\t: n=10 ok=10 err=0 readMiB=10\n", Outcome::Unproven),
        ("Writes\t: n=164 ok=164 err=0 writeMiB=164\n", Outcome::Unproven),
    ] {
        let after = stats(&format!("{COUNTING}{text}"));
        let proof = proof_of(&uncounted(), true, &cufile(true, &[]), Some((&before, &after)));
        assert_eq!(proof.outcome, outcome, "{text}: {:?}", proof.lacks);
        assert_eq!(proof.route, (outcome == Outcome::Direct).then_some(Route::Nvfs));
    }
}

#[test]
fn nvidia_fs_s_counters_are_this_pair_s_where_it_mapped_the_gpu_for_the_drive() {
    let before = stats(&format!("{COUNTING}Reads\t: n=100 ok=100 err=0 readMiB=100\n"));
    let after = stats(&format!("{COUNTING}Reads\t: n=164 ok=164 err=0 readMiB=164\n"));
    let settings = CufileSettings { wanted: Wanted::Any, compat: true };
    let (job, ran, cufile) = (job(Direction::Read), uncounted(), cufile(true, &[]));
    let prove = |after: &Stats, mappings| {
        let nvidia_fs = Some((&before, after));
        let engine = Engine::Cufile;
        prove(&Known {
            engine,
            job: &job,
            gpu: UUID,
            ran: &ran,
            settings,
            cufile: &cufile,
            nvidia_fs,
            mappings,
        })
    };
    let proof = prove(&after, Some((5, 69)));
    assert_eq!(proof.outcome, Outcome::Direct);
    assert!(
        proof.evidence[0].ends_with("mapped memory of this GPU for this drive 64 times (np2p)"),
        "{proof:?}"
    );
    let proof = prove(&after, Some((5, 5)));
    assert_eq!(proof.outcome, Outcome::Unproven);
    assert!(
        proof.lacks.iter().any(|lack| lack.contains("mapped no memory of this GPU for this drive")),
        "{proof:?}"
    );
    // Where peers are not counted, no mapping says nothing.
    let uncounting = Stats { counting_peers: Some(false), ..after };
    assert_eq!(prove(&uncounting, Some((5, 5))).outcome, Outcome::Direct);
}

#[test]
fn what_is_no_proof_proves_nothing() {
    let before = stats(
        "IO stats: Disabled, peer IO stats: Disabled\nActive Process: 0\nReads : err=0 io_state_err=0\n\
         Bar1-map : n=1 ok=1 err=0\nOps : Read=0 Write=0 BatchIO=0\n",
    );
    let after = stats(
        "IO stats: Disabled, peer IO stats: Disabled\nActive Process: 1\nReads : err=0 io_state_err=0\n\
         Bar1-map : n=9000 ok=9000 err=0\nOps : Read=9000 Write=0 BatchIO=0\n",
    );
    let mut fast = uncounted();
    // 100 GiB/s, which no CPU copies.
    fast.samples = Samples { seconds: 0.000_625, bytes: vec![MOVED], ..Samples::default() };
    let proof = proof_of(&fast, true, &cufile(true, &["NVFS", "PCI_P2PDMA"]), Some((&before, &after)));
    assert_eq!((proof.outcome, proof.route, proof.bounced), (Outcome::Unproven, None, None));
    insta::assert_json_snapshot!(proof.lacks, @r#"
    [
      "cuFile's counters were not read",
      "nvidia-fs does not count transfers (rw_stats_enabled=0)",
      "compat mode was allowed"
    ]
    "#);
}

#[test]
fn an_imitation_proves_nothing_about_a_machine() {
    let imitation = Cufile { simulated: true, ..cufile(true, &["NVFS"]) };
    let proof = proof_of(&ran(64, 0, 0), true, &imitation, None);
    assert!(proof.outcome == Outcome::Direct && proof.simulated && !proof.is_direct());
}
