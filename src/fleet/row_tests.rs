use super::*;
use crate::bench::plan::Thoroughness;
use crate::bench::results::{Measurement, Purpose, Results};
use crate::bench::route::{Outcome, Proof, Route};
use crate::bench::transfer::job::parse_job;
use crate::error::{hint_of, one_line};
use crate::facts::nvidia::NvidiaGpu;
use crate::facts::pci::PciPath;
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
        let mut m =
            Measurement::new(number, kind, Purpose::Figures, parse_job("read,random,1M,1x1,1s").unwrap());
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
            measured(5, Kind::Cufile, 6.5, Some(Outcome::Direct)),
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
    assert_eq!(row.direct_cpu_s_per_gib, Some(0.065));
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
