use super::*;
use crate::checks::check::Severity;
use crate::facts::nvidia::NvidiaGpu;
use crate::facts::pci::PciPath;
use crate::report::model::tests::sample;

fn compared(report: &Report) -> Compared<'_> {
    Compared { place: "a place".into(), report, samples: Samples::default() }
}

fn changes(before: &Report, after: &Report) -> Vec<Change> {
    diff(&compared(before), &compared(after)).changes
}

#[test]
fn a_run_is_the_same_as_itself() {
    let report = sample();
    let diff = diff(&compared(&report), &compared(&report));
    assert_eq!(diff.changes, []);
    assert!(lines(&diff).contains(&"Nothing changed.".to_owned()));
}

/// A run that measured something.
fn first() -> Report {
    let mut report = noise::at(10.0, 0.1);
    let Fact::Known { value: pci, .. } = &mut report.facts.pci else { panic!("no PCI") };
    for device in pci {
        let path = PciPath { root: "pci0000:00".into(), bridges: Vec::new() };
        device.path = Fact::known("x", path);
        device.numa_node = Fact::known("x", 0);
    }
    report
}

/// The same with something changed in every area.
fn changed() -> Report {
    let mut report = Report { benchmark: noise::at(7.0, 0.1).benchmark, ..first() };
    report.facts.platform.board = Fact::known("x", "0ABC".into());
    report.run_id = "99999999".into();
    report.gdsboot = "0.2.0".into();
    report.route = crate::bench::route::Route::Compat;
    let failed = report.findings.iter().position(|finding| finding.status == Status::Fail).unwrap();
    report.findings[failed].status = Status::Waived;
    report.findings[failed].severity = Severity::Minor;
    report.settings.capture = true;
    report.facts.kernel.release = Fact::known("x", "6.12.200".into());
    let image = match &mut report.facts.image {
        Fact::Known { value, .. } => value,
        other => panic!("{other:?}"),
    };
    image.packages.insert("bash".into(), "5.3".into());
    image.packages.extend((0..20).map(|n| (format!("new-{n}"), "1".to_owned())));
    let Fact::Known { value: pci, .. } = &mut report.facts.pci else { panic!("no PCI") };
    for device in pci.iter_mut() {
        match device.address.as_str() {
            "0000:00:04.0" => device.address = "0000:00:05.0".into(),
            "0000:01:00.0" => {
                device.link_width = Fact::known("x", 8);
                device.numa_node = Fact::known("x", 1);
                let path = PciPath { root: "pci0000:80".into(), bridges: Vec::new() };
                device.path = Fact::known("x", path);
            }
            _ => {}
        }
    }
    let Fact::Known { value: nvme, .. } = &mut report.facts.nvme else { panic!("no NVMe") };
    nvme[0].address = Fact::known("x", "0000:00:05.0".into());
    nvme[0].name = "nvme3".into();
    for measurement in &mut report.benchmark.as_mut().unwrap().measurements {
        measurement.drive = Some("nvme3".into());
    }
    nvme[0].firmware = Fact::known("x", "12.0".into());
    report
}

#[test]
fn every_area_is_told_in_words() {
    let (before, after) = (first(), changed());
    let diff = diff(&compared(&before), &compared(&after));
    let text = lines(&diff).join("\n");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for words in [
        "route: ",
        "-> waived (",
        "gdsboot: 0.1.0 -> 0.2.0",
        "kernel: 6.12.117+deb13-amd64 -> 6.12.200",
        "package bash: 5.2.37-2 -> 5.3",
        "9 more packages: see --json",
        "capture: false -> true",
        "NVMe nvme0 (gdsboot-1), address: 0000:00:04.0 -> 0000:00:05.0",
        "NVMe nvme0 (gdsboot-1), firmware: 11.1.3 -> 12.0",
        "link width: x16 -> x8",
        "+ board: 0ABC",
        "NVMe nvme0 (gdsboot-1), nvidia-smi: PHB -> SYS",
        "throughput: 10.00 GiB/s -> 7.00 GiB/s (-30.0 %, noise 10.0 %)",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    for area in [
        Area::Verdict,
        Area::Findings,
        Area::Machine,
        Area::Pins,
        Area::Settings,
        Area::Devices,
        Area::Topology,
        Area::Performance,
    ] {
        assert!(diff.changes.iter().any(|change| change.area == area), "{area:?} is not in\n{text}");
    }
    assert!(!text.contains("nvme3"), "a drive keeps its name: {text}");
    let json = serde_json::to_value(&diff).unwrap();
    assert_eq!(json["changes"].as_array().unwrap().len(), diff.changes.len());
}

#[test]
fn devices_come_and_go() {
    let (mut one, two) = (sample(), sample());
    let Fact::Known { value: nvme, .. } = &mut one.facts.nvme else { panic!("no NVMe") };
    nvme.clear();
    let came = changes(&one, &two);
    assert!(came.iter().any(|change| change.area == Area::Devices
        && change.what == "NVMe nvme0 (gdsboot-1)"
        && change.before.is_none()
        && change.after.as_deref() == Some("QEMU NVMe Ctrl")));
    let went = changes(&two, &one);
    assert!(went.iter().any(|change| change.what == "NVMe nvme0 (gdsboot-1)" && change.after.is_none()));
    // Another drive in the same place is another drive.
    let mut other = sample();
    let Fact::Known { value: nvme, .. } = &mut other.facts.nvme else { panic!("no NVMe") };
    nvme[0].serial = Fact::known("x", "other".into());
    let swapped = changes(&two, &other);
    assert!(swapped.iter().any(|change| change.what == "NVMe nvme0 (gdsboot-1)" && change.after.is_none()));
    assert!(swapped.iter().any(|change| change.what == "NVMe nvme0 (other)" && change.before.is_none()));
}

/// The driver tells a GPU's name and UUID; without it, the GPU is still the same.
#[test]
fn a_gpu_without_its_driver_is_the_same_gpu() {
    let mut before = noise::at(10.0, 0.1);
    let gpu = NvidiaGpu {
        address: "0000:01:00.0".into(),
        model: Fact::known("x", "NVIDIA H100".into()),
        uuid: Fact::known("x", "GPU-0a1b2c3d-1111-2222-3333-444455556666".into()),
        ..NvidiaGpu::default()
    };
    before.facts.nvidia.gpus = Fact::known("x", vec![gpu]);
    let mut after = before.clone();
    after.facts.nvidia.gpus = Fact::not_read("x");
    for (one, two, to) in [(&before, &after, "10de:2331"), (&after, &before, "NVIDIA H100")] {
        let found = changes(one, two);
        let what: Vec<&str> = found.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(found.len(), 1, "it has the same pairs and measurements: {what:?}");
        assert_eq!(found[0].after.as_deref(), Some(to));
    }
    // Another GPU in its place is another one.
    let Fact::Known { value: pci, .. } = &mut after.facts.pci else { panic!("no PCI") };
    let gpu = pci.iter_mut().find(|device| device.address == "0000:01:00.0").unwrap();
    gpu.device = Fact::known("x", crate::facts::pci::Id(0x27b8));
    let found = changes(&before, &after);
    assert!(
        found
            .iter()
            .any(|change| change.what == "GPU 0000:01:00.0 (0a1b2c3d-1111-22)" && change.after.is_none())
    );
}

#[test]
fn memory_comes_and_goes_a_little() {
    let with = |mib: u64| {
        let mut report = sample();
        let Fact::Known { value, .. } = &mut report.facts.memory else { panic!("no memory") };
        value.total = mib << 20;
        report
    };
    // On both sides of half a GiB.
    assert_eq!(changes(&with(128_511), &with(128_513)), []);
    assert_eq!(changes(&with(128_000), &with(128_600)), []);
    let found = changes(&with(131_072), &with(122_880));
    assert_eq!(
        (found[0].before.as_deref(), found[0].after.as_deref()),
        (Some("128.0 GiB"), Some("120.0 GiB")),
        "{found:?}"
    );
}

mod noise {
    use super::*;
    use crate::bench::results::{Kind, Measurement, Purpose, Results};
    use crate::bench::transfer::job::parse_job;
    use crate::bench::transfer::measurement::Figures;

    pub(super) fn at(gib_per_second: f64, cpu_seconds_per_gib: f64) -> Report {
        let job = parse_job("read,sequential,1M,4x8,10s").unwrap();
        let mut measurement = Measurement::new(3, Kind::Bounce, Purpose::Figures, job);
        measurement.bytes = 1 << 30;
        measurement.gpu = Some("0000:01:00.0".into());
        measurement.drive = Some("nvme0n1".into());
        measurement.figures =
            Figures { gib_per_second, cpu_seconds_per_gib, p99_us: 100.0, ..Figures::default() };
        Report {
            benchmark: Some(Results { measurements: vec![measurement], ..Results::default() }),
            ..sample()
        }
    }

    fn samples(amplitude: f64) -> Samples {
        // A slow wave: its neighbours are alike, so that the samples alone would claim too much.
        let bytes: Vec<u64> =
            (0..102).map(|n| (1e8 * (1.0 + amplitude * (f64::from(n) / 12.0).sin())) as u64).collect();
        Samples::read(
            format!("{{\"number\":3,\"ran\":{{\"samples\":{{\"bytes\":{bytes:?}}}}}}}\nnot a line\n")
                .as_bytes(),
        )
    }

    fn compare(before: f64, after: f64, samples: &Samples) -> Diff {
        let (before, after) = (at(before, 0.1), at(after, 0.1));
        let with = |report| Compared { samples: samples.clone(), ..compared(report) };
        diff(&with(&before), &with(&after))
    }

    #[test]
    fn only_what_is_beyond_it_is_a_change() {
        let steady = samples(0.01);
        let slower = compare(10.0, 9.3, &steady);
        assert_eq!(slower.changes.len(), 1, "{:?}", slower.changes);
        let change = &slower.changes[0];
        assert_eq!(change.percent, Some(-7.0));
        assert_eq!(change.noise_percent, Some(FLOOR_WORDS));
        assert!(change.what.contains("NVMe nvme0 (gdsboot-1) - GPU 0000:01:00.0: bounce"), "{}", change.what);
        assert_eq!(compare(10.0, 9.6, &steady).within_noise, 1);
        // The same change in a restless run, and where nothing is known of it.
        assert_eq!(compare(10.0, 9.3, &samples(0.4)).changes, []);
        // The samples alone would claim 5.8 %, where their batches say 18.7 %.
        assert_eq!(compare(10.0, 9.3, &samples(0.2)).changes, []);
        assert_eq!(compare(10.0, 9.3, &Samples::default()).changes, []);
        assert_eq!(compare(10.0, 8.8, &Samples::default()).changes.len(), 1);
    }

    #[test]
    fn a_loss_counts_as_the_gain_that_makes_up_for_it() {
        let unseen = Samples::default();
        assert_eq!(compare(10.0, 9.05, &unseen).changes, []);
        assert_eq!(compare(9.05, 10.0, &unseen).changes, []);
        for (before, after, percent) in [(10.0, 9.0, -10.0), (9.0, 10.0, 11.1), (10.0, 0.0, -100.0)] {
            assert_eq!(compare(before, after, &unseen).changes[0].percent, Some(percent));
        }
        assert_eq!(compare(0.0, 1.0, &unseen).changes[0].percent, None);
        assert_eq!(compare(0.0, 0.0, &unseen).changes, []);
    }

    /// What is more than ten whole batches is left out, and does not shift the estimate.
    #[test]
    fn there_are_ten_batches() {
        let error = |tail: &[u64]| {
            let mut bytes = vec![0];
            bytes.extend((0..20).map(|n| 100 + n / 2 % 2));
            bytes.extend(tail);
            bytes.push(0);
            let line = format!("{{\"number\":3,\"ran\":{{\"samples\":{{\"bytes\":{bytes:?}}}}}}}");
            Samples::read(line.as_bytes())
        };
        assert_ne!(error(&[]), Samples::default());
        assert_eq!(error(&[]), error(&[900; 9]));
    }

    /// A quick plan's measurement has 15 samples.
    #[test]
    fn what_took_less_than_2_2_s_says_nothing_of_noise() {
        let read = |samples: usize| {
            let bytes = vec![100_u64; samples];
            Samples::read(
                format!("{{\"number\":3,\"ran\":{{\"samples\":{{\"bytes\":{bytes:?}}}}}}}").as_bytes(),
            )
        };
        assert_eq!(read(15), Samples::default());
        assert_eq!(read(21), Samples::default());
        assert_ne!(read(22), Samples::default());
    }

    const FLOOR_WORDS: f64 = 5.0;

    #[test]
    fn cpu_time_counts_as_well() {
        let (before, after) = (at(10.0, 0.100), at(10.0, 0.150));
        let found = changes(&before, &after);
        assert!(found[0].what.ends_with("CPU time"), "{found:?}");
        assert_eq!(found[0].percent, Some(50.0));
        assert_eq!(changes(&at(10.0, 0.001), &at(10.0, 0.004)), [], "less than is told apart");
    }

    #[test]
    fn what_one_run_lacks_is_counted() {
        let without = Report { benchmark: None, ..sample() };
        let found = changes(&at(10.0, 0.1), &without);
        assert_eq!(
            (found[0].before.as_deref(), found[0].after.as_deref()),
            (Some("1"), Some("0")),
            "{found:?}"
        );
    }

    #[test]
    fn short_or_senseless_samples_say_nothing() {
        for text in [
            "",
            "{}",
            "{\"number\":1,\"ran\":{\"samples\":{\"bytes\":[]}}}",
            "{\"number\":1,\"ran\":{\"samples\":{\"bytes\":[0,0,0]}}}",
        ] {
            assert_eq!(Samples::read(text.as_bytes()), Samples::default());
        }
        let zeros = format!("{{\"number\":1,\"ran\":{{\"samples\":{{\"bytes\":{:?}}}}}}}", vec![0; 100]);
        assert_eq!(Samples::read(zeros.as_bytes()), Samples::default());
    }
}
