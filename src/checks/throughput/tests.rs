use super::*;
use crate::bench::results::{Drive, GdsioMeasured, GdsioVerified, Level, NotDone, WorkloadResult};
use crate::bench::testing::{healthy, measurement};
use crate::checks::check::Answer;
use crate::checks::testing::{GPU_AT, NVME_AT, ask_bench, ask_bench_on, edit, good};
use crate::facts::Fact;
use crate::facts::gdsio::{GdsioResult, GdsioRun};

fn bench() -> Results {
    healthy(GPU_AT, NVME_AT)
}

fn with(change: impl FnOnce(&mut Results)) -> Results {
    let mut bench = bench();
    change(&mut bench);
    bench
}

/// The figures of one kind of transfer of 1 MiB with a drive.
fn of<'a>(bench: &'a mut Results, kind: Kind, drive: &str) -> &'a mut Measurement {
    let found = bench
        .measurements
        .iter_mut()
        .find(|m| m.kind == kind && m.drive.as_deref() == Some(drive) && m.job.block == 1 << 20);
    found.unwrap()
}

fn fails(id: &str, bench: &Results) -> String {
    let outcome = ask_bench(id, bench);
    assert_eq!(outcome.answer, Answer::Fail, "{id}: {outcome:?}");
    assert!(!outcome.remedies.is_empty(), "{id}");
    outcome.why
}

#[test]
fn direct_transfers_are_held_against_the_bounce() {
    let good = ask_bench("bench.direct-slower", &bench());
    assert!(good.why.contains("0.006 instead of 0.061 CPU seconds per GiB"), "{}", good.why);
    let slow = with(|bench| of(bench, Kind::Cufile, "nvme0n1").figures.gib_per_second = 3.0);
    let why = fails("bench.direct-slower", &slow);
    assert!(why.contains("3.00 GiB/s direct, 6.20 GiB/s through memory"), "{why}");
}

#[test]
fn direct_transfers_are_held_against_the_pair_s_own_ceilings() {
    let slow = with(|bench| of(bench, Kind::Cufile, "nvme0n1").figures.gib_per_second = 4.0);
    assert!(fails("bench.ceiling", &slow).contains("4.00 of 6.50 GiB/s that the drive alone does"));
    let narrow = with(|bench| {
        for m in bench.measurements.iter_mut().filter(|m| m.kind == Kind::HostCopy) {
            m.figures.gib_per_second = 3.0;
        }
        of(bench, Kind::Cufile, "nvme0n1").figures.gib_per_second = 2.0;
    });
    assert!(fails("bench.ceiling", &narrow).contains("2.00 of 3.00 GiB/s that its link alone does"));
    // Far drives are another finding's.
    let far = with(|bench| of(bench, Kind::Cufile, "nvme1n1").figures.gib_per_second = 3.9);
    assert_eq!(ask_bench("bench.ceiling", &far).answer, Answer::Pass);
    let why = fails("bench.far", &far);
    assert!(why.contains("60 % of the drive's own speed at the distance SYS, 98 % at PIX"), "{why}");
    // A far drive that is slow by itself is not slow because it is far.
    let slow_drive = with(|bench| {
        of(bench, Kind::Cufile, "nvme1n1").figures.gib_per_second = 2.9;
        of(bench, Kind::Storage, "nvme1n1").figures.gib_per_second = 3.0;
    });
    assert_eq!(ask_bench("bench.far", &slow_drive).answer, Answer::Pass);
}

#[test]
fn links_are_looked_at_under_load() {
    let gpu = |change: fn(&mut LinkState)| {
        with(|bench| {
            for m in bench.measurements.iter_mut().filter(|m| m.gpu.is_some()) {
                change(m.state.gpu_link.as_mut().unwrap());
            }
        })
    };
    let narrow = gpu(|link| link.width = 8);
    assert!(fails("bench.link-under-load", &narrow).contains("32.0 GT/s x8 of 32.0 GT/s x16"));
    let slow = gpu(|link| link.speed = 8.0);
    // A guest does not see its slots.
    let guest = ask_bench("bench.link-under-load", &slow);
    assert_eq!(guest.answer, Answer::Note, "{guest:?}");
    let metal = |limit: Option<&str>| {
        let mut facts = good(Side::BareMetal);
        let port = {
            let places = Places::new(&facts);
            places.of(places.device(GPU_AT).unwrap()).unwrap().bridges.last().unwrap().clone()
        };
        if let Some(limit) = limit {
            edit(&mut facts, &port, |port| port.link_speed_max = Fact::known("max_link_speed", limit.into()));
        }
        ask_bench_on("bench.link-under-load", &slow, &facts, Side::BareMetal).answer
    };
    assert_eq!(metal(None), Answer::Fail);
    assert_eq!(metal(Some("32.0 GT/s PCIe")), Answer::Fail);
    assert_eq!(metal(Some("8.0 GT/s PCIe")), Answer::Note);
    // One look at an idle link is no evidence.
    let woken = with(|bench| bench.measurements[0].state.gpu_link.as_mut().unwrap().speed = 2.5);
    assert_eq!(ask_bench("bench.link-under-load", &woken).answer, Answer::Pass);
}

#[test]
fn copies_to_the_gpu_are_held_against_its_link_and_what_is_published() {
    let copies = |rate: f64| {
        with(|bench| {
            for m in bench.measurements.iter_mut().filter(|m| m.kind == Kind::HostCopy) {
                m.figures.gib_per_second = rate;
            }
        })
    };
    assert!(fails("bench.gpu-link", &copies(20.0)).contains("20.0 GiB/s to the GPU, of 53"));
    assert_eq!(ask_bench("bench.gpu-link", &copies(42.0)).answer, Answer::Pass);
    // An SXM module is held against what its operators demand.
    let mut facts = good(Side::Guest);
    edit(&mut facts, GPU_AT, |gpu| gpu.device = Fact::known("device", crate::facts::pci::Id(0x2330)));
    let outcome = ask_bench_on("bench.gpu-link", &copies(42.0), &facts, Side::Guest);
    assert!(outcome.why.contains("44.7 are demanded (azurehpc-health-checks"), "{}", outcome.why);
}

#[test]
fn drives_are_held_against_what_is_published_of_their_model() {
    let slow = |rate: f64, link: Option<LinkState>| {
        with(|bench| {
            for m in bench.measurements.iter_mut().filter(|m| m.kind == Kind::Storage) {
                m.figures.gib_per_second = rate;
                if link.is_some() {
                    m.state.drive_link = link;
                }
            }
        })
    };
    let why = fails("bench.drive-speed", &slow(2.0, None));
    assert!(why.contains("reads 2.15 GB/s, where 6.2 are published for the Kioxia CD6 (heise.de"), "{why}");
    // A narrow link is another finding's.
    let narrow = LinkState { speed: 16.0, width: 1, speed_max: 16.0, width_max: 4 };
    assert_eq!(ask_bench("bench.drive-speed", &slow(1.7, Some(narrow))).answer, Answer::Pass);
    let unknown =
        with(|bench| bench.drives.iter_mut().for_each(|drive| drive.model = Some("A Drive".into())));
    assert_eq!(ask_bench("bench.drive-speed", &unknown).answer, Answer::NotApplicable);
}

#[test]
fn heat_is_a_finding_and_idleness_is_none() {
    let gpu = with(|bench| {
        bench.measurements[0].state.gpu_slowed = vec!["sw_power_cap".into(), "hw_thermal_slowdown".into()]
    });
    assert!(
        fails("bench.thermal", &gpu)
            .contains("slowed itself down at 41 degrees Celsius (hw_thermal_slowdown)")
    );
    let drive = with(|bench| of(bench, Kind::Storage, "nvme1n1").state.drive_celsius = Some(71.0));
    assert_eq!(
        fails("bench.thermal", &drive),
        "nvme1n1: the drive had 71 degrees Celsius, and warns from 70 on"
    );
    let cap = with(|bench| bench.measurements[0].state.gpu_slowed = vec!["sw_power_cap".into()]);
    assert_eq!(ask_bench("bench.thermal", &cap).answer, Answer::Pass);
}

#[test]
fn blank_drives_are_noted() {
    let blank = with(|bench| bench.drives[1].blank = Some(1.0));
    let outcome = ask_bench("bench.blank", &blank);
    assert_eq!(outcome.answer, Answer::Note);
    assert!(outcome.why.starts_with("100 % of nvme1n1 was never written"), "{}", outcome.why);
}

#[test]
fn scratch_space_that_could_not_be_had_is_said() {
    let refused = |cause, why: &str| {
        let what = SCRATCH.to_owned();
        with(|bench| {
            bench.not_done.push(NotDone {
                what,
                gpu: None,
                drive: Some("/mnt".into()),
                cause,
                why: why.into(),
            })
        })
    };
    for (cause, why) in [
        (Cause::Room, "making a temporary file of 4294967296 bytes in /mnt: No space left on device"),
        (Cause::Drive, "making a temporary file of 4294967296 bytes in /mnt: Read-only file system"),
        (Cause::Drive, "not touching nvme0n1 (S1): it holds GPT at byte 512"),
    ] {
        let bench = refused(cause, why);
        assert!(fails("bench.scratch", &bench).contains(why));
        // It is no lost drive.
        assert_eq!(ask_bench("transfer.drive", &bench).answer, Answer::Pass);
    }
    let had = with(|bench| bench.drives.push(Drive { level: Level::TemporaryFile, ..Drive::default() }));
    assert_eq!(ask_bench("bench.scratch", &had).answer, Answer::Pass);
}

#[test]
fn what_was_left_out_and_a_clock_that_was_set_are_noted() {
    let small = with(|bench| {
        bench.not_done.push(NotDone {
            what: "read sequential 16 MiB, 4 x 2".into(),
            gpu: None,
            drive: Some("nvme0n1".into()),
            cause: Cause::Size,
            why: "1048576 bytes are too few for 4 threads of 16777216 bytes".into(),
        });
    });
    let outcome = ask_bench("bench.complete", &small);
    assert_eq!(outcome.answer, Answer::Note);
    assert!(
        outcome.why.starts_with("left out: read sequential 16 MiB, 4 x 2 (nvme0n1), because 1048576 bytes"),
        "{}",
        outcome.why
    );
    assert!(ask_bench("bench.complete", &bench()).why.ends_with("planned 51 s, took 47 s"));
    // A figure of 0 is no figure.
    let mut idle = bench();
    idle.measurements[0].bytes = 0;
    let outcome = ask_bench("bench.complete", &idle);
    assert!(matches!(outcome.answer, Answer::Note) && outcome.why.starts_with("1 of "), "{}", outcome.why);
    let set = ask_bench("bench.clock", &with(|bench| bench.clock_set_seconds = -3600.0));
    assert_eq!(set.answer, Answer::Note);
    assert!(set.why.contains("set by -3600 s"), "{}", set.why);
}

#[test]
fn gdsio_stands_beside() {
    let run = |throughput: f64, error: Option<&str>| {
        let result = GdsioResult {
            io_type: "READ".into(),
            xfer_type: "GPUD".into(),
            throughput: Some(throughput),
            ..GdsioResult::default()
        };
        with(|bench| {
            bench.gdsio.push(GdsioMeasured {
                gpu: GPU_AT.into(),
                drive: "nvme0n1".into(),
                command: "gdsio -f x".into(),
                run: GdsioRun { results: vec![result], ..GdsioRun::default() },
                error: error.map(str::to_owned),
                ..GdsioMeasured::default()
            });
        })
    };
    assert_eq!(ask_bench("bench.gdsio", &run(6.0, None)).answer, Answer::Pass);
    let apart = ask_bench("bench.gdsio", &run(2.0, None));
    assert_eq!(apart.answer, Answer::Note);
    assert!(apart.why.contains("2.00 GiB/s where this benchmark measured 6.40"), "{}", apart.why);
    let killed = ask_bench("bench.gdsio", &run(6.0, Some("killed after 30 s")));
    assert_eq!(
        (killed.answer, killed.why.as_str()),
        (Answer::Note, "gdsio gave no figures: killed after 30 s")
    );
    let verified = |error: Option<&str>| {
        with(|bench| {
            let verified =
                GdsioVerified { bytes: 1 << 28, error: error.map(str::to_owned), ..Default::default() };
            bench.gdsio_verified.push(verified);
        })
    };
    assert_eq!(ask_bench("bench.gdsio", &verified(None)).answer, Answer::Pass);
    let killed = ask_bench("bench.gdsio", &verified(Some("killed after 165 s")));
    assert_eq!(killed.why, "gdsio_verify compared nothing: killed after 165 s");
}

#[test]
fn the_operator_s_rules_count() {
    let ran = |ran: bool, passed: bool| {
        with(|bench| {
            let why = "Throughput 3.1 GiB/s is below 5".into();
            bench.workloads.push(WorkloadResult {
                name: "wake".into(),
                ran,
                passed,
                why,
                ..WorkloadResult::default()
            });
        })
    };
    assert_eq!(fails("bench.workloads", &ran(true, false)), "wake: Throughput 3.1 GiB/s is below 5");
    assert_eq!(ask_bench("bench.workloads", &ran(true, true)).answer, Answer::Pass);
    // What was missing is another check's failure.
    assert_eq!(ask_bench("bench.workloads", &ran(false, false)).answer, Answer::Unknown);
}

#[test]
fn figures_that_do_not_count_are_not_judged() {
    let warm_up = with(|bench| {
        bench.measurements.retain(|m| m.kind != Kind::HostCopy);
        let m = measurement(Kind::HostCopy, Some(GPU_AT), None, 1 << 24, 1.0);
        bench.measurements.push(Measurement { purpose: Purpose::WarmUp, ..m });
    });
    assert_eq!(ask_bench("bench.gpu-link", &warm_up).answer, Answer::NotApplicable);
}

#[test]
fn under_an_emulator_no_speed_is_judged() {
    let mut facts = good(Side::Guest);
    facts.platform.hypervisor = Fact::known("cpuid", "TCGTCGTCGTCG".into());
    let slow = with(|bench| of(bench, Kind::Cufile, "nvme0n1").figures.gib_per_second = 0.1);
    for id in ["bench.direct-slower", "bench.ceiling", "bench.far", "bench.gpu-link", "bench.drive-speed"] {
        assert_eq!(ask_bench_on(id, &slow, &facts, Side::Guest).answer, Answer::NotApplicable, "{id}");
    }
}
