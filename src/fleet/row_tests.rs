use super::*;
use crate::bench::plan::Thoroughness;
use crate::bench::results::{Measurement, Purpose, Results};
use crate::bench::route::{Outcome, Proof, Route};
use crate::bench::transfer::job::parse_job;
use crate::error::{hint_of, one_line};
use crate::facts::nvidia::NvidiaGpu;
use crate::facts::pci::PciPath;
use crate::facts::pci_config::PciConfig;
use crate::facts::{Fact, dma};
use crate::fleet::column::{COLUMNS, Cell, Kind as ColumnKind};
use crate::report::model::Report;
use crate::report::model::tests::sample;

pub(crate) fn bytes(report: &Report) -> Vec<u8> {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).unwrap();
    bytes
}

/// A report with something in every column.
pub(crate) fn full() -> Report {
    let mut report = sample();
    let known = |text: &str| Fact::known("x", text.to_owned());
    let platform = &mut report.facts.platform;
    platform.serial = known(" SN-1 ");
    platform.uuid = known("4C4C4544-0000-1000-8000-000000000001");
    platform.board = known("0ABC");
    platform.hypervisor = known("KVMKVMKVM");
    report.facts.nvidia.version = known("580.95.05");
    report.facts.nvidia.driver = known("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05");
    let gpu =
        NvidiaGpu { address: "0000:01:00.0".into(), model: known("NVIDIA H100"), ..NvidiaGpu::default() };
    report.facts.nvidia.gpus = Fact::known("x", vec![gpu]);
    report.facts.nvidia_fs.version = known("2.27.3");
    let Fact::Known { value: pci, .. } = &mut report.facts.pci else { panic!("no PCI") };
    for device in pci {
        device.path = Fact::known("x", PciPath { root: "pci0000:00".into(), bridges: Vec::new() });
        device.link_width = Fact::known("x", 16);
    }
    let measured = |number, kind, gib: f64, outcome: Option<Outcome>| {
        let mut m = Measurement::new(
            number,
            kind,
            Purpose::Figures,
            parse_job("read,sequential,1M,4x16,1s").unwrap(),
        );
        m.bytes = 1;
        m.figures = Figures {
            gib_per_second: gib,
            cpu_seconds_per_gib: gib / 100.0,
            p99_us: 7.5,
            ..Figures::default()
        };
        m.proof = outcome.map(|outcome| Proof { outcome, ..Proof::default() });
        m
    };
    report.benchmark = Some(Results {
        thoroughness: Thoroughness::Quick,
        measurements: vec![
            measured(1, Kind::Storage, 7.0, None),
            measured(2, Kind::HostCopy, 20.0, None),
            measured(3, Kind::Bounce, 5.0, None),
            measured(4, Kind::Cufile, 6.0, Some(Outcome::Direct)),
            // The load is the fastest, and another job.
            Measurement {
                purpose: Purpose::Load,
                job: parse_job("read,sequential,4M,4x2,1s").unwrap(),
                ..measured(5, Kind::Cufile, 6.5, Some(Outcome::Direct))
            },
            // cuFile fell back: that is no direct figure, however fast.
            measured(6, Kind::Cufile, 9.0, Some(Outcome::Compat)),
        ],
        gpus: vec![crate::bench::results::GpuSeen {
            cufile: Some(crate::bench::worker::Cufile {
                version: Some("1.16.1".into()),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Results::default()
    });
    report.route = Route::Nvfs;
    report
}

#[test]
fn every_column_is_filled_from_a_whole_report() {
    let mut row = Row::read(&bytes(&full()), "stick.img#run").unwrap();
    row.deviations.push("x".into());
    for column in COLUMNS {
        let cell = (column.of)(&row);
        let fits = match column.kind {
            ColumnKind::Text => matches!(cell, Cell::Text(_)),
            ColumnKind::Time => matches!(cell, Cell::Time(_)),
            ColumnKind::Flag => matches!(cell, Cell::Flag(_)),
            ColumnKind::Count => matches!(cell, Cell::Count(_)),
            ColumnKind::Number => matches!(cell, Cell::Number(_)),
            ColumnKind::List => matches!(&cell, Cell::List(texts) if !texts.is_empty()),
        };
        assert!(fits, "{}: {cell:?}", column.name);
    }
    assert_eq!((row.machine.as_str(), row.serial.as_deref()), ("SN-1", Some("SN-1")));
    assert_eq!(row.uuid.as_deref(), Some("4c4c4544-0000-1000-8000-000000000001"));
    assert_eq!((row.direct_gib_s, row.bounce_gib_s, row.storage_gib_s), (Some(6.5), Some(5.0), Some(7.0)));
    assert_eq!((row.direct_cpu_s_per_gib, row.bounce_cpu_s_per_gib), (Some(0.06), Some(0.05)));
    assert_eq!(
        (row.gpu_models.as_slice(), row.topology.as_slice()),
        (&["NVIDIA H100".to_owned()][..], &["1 PHB".to_owned()][..])
    );
    assert_eq!(
        (row.driver_open, row.cufile.as_deref(), row.cuda.as_deref()),
        (Some(true), Some("1.16.1"), Some("12.4"))
    );
    assert_eq!(
        row.cause.as_deref(),
        full().findings.iter().find(|f| f.status == Status::Fail).map(|f| f.id.as_str())
    );
}

/// Which measurement was the fastest is chance; latency and CPU time come from one job, of as many pairs as there are.
#[test]
fn latency_and_cpu_time_come_from_one_job() {
    let mut report = full();
    let bench = report.benchmark.as_mut().unwrap();
    let direct = bench.measurements[3].clone();
    let mut add = |job: &str, gib: f64, purpose: Purpose| {
        let mut m = Measurement { purpose, job: parse_job(job).unwrap(), ..direct.clone() };
        m.figures.gib_per_second = gib;
        (m.figures.cpu_seconds_per_gib, m.figures.p99_us) = (gib / 100.0, gib);
        bench.measurements.push(m);
    };
    add("read,sequential,1M,4x16,1s", 4.0, Purpose::Figures);
    add("read,sequential,1M,4x16,1s", 5.0, Purpose::Figures);
    let others = ["read,sequential,1M,32x16,1s", "read,sequential,1M,1x16,1s", "read,random,4K,4x32,1s"];
    others.into_iter().for_each(|job| add(job, 8.0, Purpose::Figures));
    add("read,sequential,1M,4x16,1s", 9.0, Purpose::Together);
    let row = Row::read(&bytes(&report), "x").unwrap();
    assert_eq!(
        (row.direct_gib_s, row.direct_cpu_s_per_gib, row.direct_p99_us),
        (Some(9.0), Some(0.05), Some(5.0))
    );
    assert_eq!(row.thoroughness, Some(Thoroughness::Quick));
}

#[test]
fn drives_stand_in_the_order_of_their_addresses() {
    let mut report = full();
    let Fact::Known { value: nvme, .. } = &mut report.facts.nvme else { panic!("no NVMe") };
    let first = nvme[0].clone();
    for (name, address, model) in [("nvme10", "0000:00:03.0", "B"), ("nvme2", "0000:00:02.0", "A")] {
        let mut drive = first.clone();
        drive.name = name.into();
        drive.address = Fact::known("x", address.into());
        drive.model = Fact::known("x", model.into());
        nvme.push(drive);
    }
    assert_eq!(Row::read(&bytes(&report), "x").unwrap().nvme_models, ["A", "B", "QEMU NVMe Ctrl"]);
}

/// 64 MiB of `{}` would be gigabytes.
#[test]
fn no_report_claims_more_than_a_machine_has() {
    let text = bytes(&full());
    let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let mut with = |functions: Vec<serde_json::Value>| {
        value["facts"]["pci"]["value"] = functions.into();
        Row::read(value.to_string().as_bytes(), "x")
    };
    let nothing = |n| vec![serde_json::json!({}); n];
    assert!(with(nothing(light::MOST)).is_ok());
    let error = with(nothing(light::MOST + 1)).unwrap_err();
    assert!(one_line(&error).contains("a list has more than 16384 items"), "{error:#}");
    let known = |value: &str| serde_json::json!({"state": "known", "from": "x", "value": value});
    let device =
        |vendor: &str, class: &str| serde_json::json!({"vendor": known(vendor), "class": known(class)});
    let pairs = |n| [vec![device("10de", "030200"); n], vec![device("144d", "010802"); n]].concat();
    let started = std::time::Instant::now();
    assert_eq!(with(pairs(200)).unwrap().topology, ["40000 ?"]);
    let row = with(pairs(8000)).unwrap();
    assert_eq!((row.gpu_models.len(), row.topology.len()), (8000, 0));
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

/// The light reading agrees with the whole one.
#[test]
fn a_row_is_what_the_report_says() {
    let report = full();
    let row = Row::read(&bytes(&report), "x").unwrap();
    assert_eq!(row.verdict, Some(report.verdict));
    assert_eq!(row.simulated, report.is_simulated());
    let mut simulated = report.clone();
    let library = dma::Library { name: "libcuda.so.1".into(), simulated: true, ..dma::Library::default() };
    simulated.facts.dma = Fact::known("x", dma::DmaProbe { v: 1, libraries: vec![library] });
    assert!(simulated.is_simulated());
    assert!(Row::read(&bytes(&simulated), "x").unwrap().simulated);
    let mut simulated = report.clone();
    let Fact::Known { value: pci, .. } = &mut simulated.facts.pci else { panic!("no PCI") };
    pci[0].config = Fact::known("x", PciConfig { simulated: true, ..PciConfig::default() });
    assert!(simulated.is_simulated());
    assert!(Row::read(&bytes(&simulated), "x").unwrap().simulated);
    let words: Vec<String> = crate::topology::Topology::of(&report.facts)
        .storage()
        .map(|pair| format!("1 {}", pair.nvidia_smi.unwrap()))
        .collect();
    assert_eq!(row.topology, words);
}

#[test]
fn what_is_no_serial_number_names_no_machine() {
    let mut report = full();
    let mut machine = |serial: &str, id: &str| {
        report.facts.platform.serial = Fact::known("x", serial.to_owned());
        report.facts.platform.uuid = Fact::known("x", id.to_owned());
        Row::read(&bytes(&report), "x").unwrap().machine
    };
    let uuid = "4c4c4544-0000-1000-8000-000000000001";
    for none in ["To Be Filled By O.E.M.", "Default string", "0", "00000000", "", "  ", "0123456789"] {
        assert_eq!(machine(none, uuid), uuid, "{none:?}");
    }
    for none in ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", NO_UUID] {
        assert_eq!(machine("", none), "drive gdsboot-1", "{none:?}");
    }
    report.facts.nvme = Fact::not_read("x");
    assert_eq!(Row::read(&bytes(&report), "x").unwrap().machine, format!("run {}", report.run_id));
}

#[test]
fn what_cannot_be_read_is_named() {
    let error = |text: &str| Row::read(text.as_bytes(), "x").unwrap_err();
    assert!(one_line(&error("{\"schema\":1")).contains("EOF"));
    assert!(error("[]").is::<crate::report::json::NotAReport>());
    assert!(error("{\"name\":\"x\"}").is::<crate::report::json::NotAReport>());
    let newer = error("{\"schema\":7,\"run_id\":[],\"gdsboot\":\"3.1\"}");
    assert!(one_line(&newer).contains("its schema 7 is newer than 1: gdsboot 3.1 wrote it"));
    assert!(hint_of(&newer).unwrap().contains("gdsboot 3.1 or a newer one"));
    assert!(one_line(&error("{\"schema\":1,\"run_id\":\"x\"}")).contains("missing field"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(flips in proptest::collection::vec((0_usize..20_000, proptest::prelude::any::<u8>()), 1..6)) {
        static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut text = WHOLE.get_or_init(|| bytes(&full())).clone();
        let len = text.len();
        for (at, value) in flips {
            text[at % len] = value;
        }
        let _ = Row::read(&text, "x");
    }
}
