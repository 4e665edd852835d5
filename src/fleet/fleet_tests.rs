use super::row::tests::{bytes, full};
use super::*;
use crate::report::model::{Report, Verdict};
use crate::report::utc::Utc;
use std::path::Path;

fn put(folder: &Path, name: &str, report: &Report) {
    fs_err::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs_err::write(folder.join(name), bytes(report)).unwrap();
}

fn run(machine: &str, hour: u64, id: &str) -> Report {
    let mut report = full();
    report.run_id = id.into();
    report.started = Utc(1_795_000_000 + hour * 3600);
    report.facts.platform.serial = crate::facts::Fact::known("x", machine.into());
    report.facts.platform.uuid = crate::facts::Fact::not_read("x");
    report
}

fn gathered(folder: &Path, all_runs: bool) -> Fleet {
    collect(&[Source::open(folder).unwrap()], all_runs, &Progress::none()).unwrap()
}

fn ids(fleet: &Fleet) -> Vec<&str> {
    fleet.rows.iter().map(|row| row.run_id.as_str()).collect()
}

#[test]
fn of_each_machine_the_newest_complete_run() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "a.json", &run("M1", 1, "aaaaaaaa"));
    put(dir.path(), "site/20261118T140640Z-bbbbbbbb/report.json", &run("M1", 2, "bbbbbbbb"));
    put(dir.path(), "c.json", &Report { complete: false, ..run("M1", 3, "cccccccc") });
    put(dir.path(), "d.json", &Report { complete: false, ..run("M2", 1, "dddddddd") });
    let fleet = gathered(dir.path(), false);
    assert_eq!(ids(&fleet), ["bbbbbbbb", "dddddddd"]);
    assert_eq!((fleet.machines, fleet.rows[1].complete), (2, false));
    let all = gathered(dir.path(), true);
    assert_eq!(ids(&all), ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"]);
    assert_eq!((all.machines, all.current().len()), (2, 2));
    assert!(all.problems.is_empty() && all.notes.is_empty(), "{all:?}");
}

#[test]
fn what_cannot_be_read_costs_nobody_else_a_row() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "good.json", &run("M1", 1, "aaaaaaaa"));
    fs_err::write(dir.path().join("cut.json"), &bytes(&full())[..500]).unwrap();
    fs_err::write(dir.path().join("newer.json"), "{\"schema\":3,\"run_id\":1,\"gdsboot\":\"4.0.0\"}")
        .unwrap();
    fs_err::write(dir.path().join("package.json"), "{\"name\":\"x\"}").unwrap();
    fs_err::create_dir_all(dir.path().join("20261118T140640Z-eeeeeeee")).unwrap();
    fs_err::write(dir.path().join("20261118T140640Z-eeeeeeee/STARTED"), "x").unwrap();
    let fleet = gathered(dir.path(), false);
    assert_eq!(ids(&fleet), ["aaaaaaaa"]);
    assert_eq!(fleet.problems.len(), 2, "{:?}", fleet.problems);
    assert!(fleet.problems[0].contains("cut.json: ") && fleet.problems[0].contains("EOF"));
    let newer = &fleet.problems[1];
    assert!(
        newer.contains("newer.json: ") && newer.contains("read it with gdsboot 4.0.0 or a newer one"),
        "{newer}"
    );
    assert_eq!(fleet.notes.len(), 2, "{:?}", fleet.notes);
    assert!(fleet.notes[0].starts_with("1 run was cut off before its first report: "));
    assert!(fleet.notes[1].starts_with("1 file is JSON and no report of gdsboot: "));
}

#[test]
fn one_run_twice_is_one_and_two_of_one_id_are_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "a.json", &run("M1", 1, "aaaaaaaa"));
    put(dir.path(), "b/a.json", &run("M1", 1, "aaaaaaaa"));
    put(dir.path(), "early/a.json", &Report { complete: false, ..run("M1", 1, "aaaaaaaa") });
    let fleet = gathered(dir.path(), true);
    assert_eq!(ids(&fleet), ["aaaaaaaa"]);
    assert!(fleet.rows[0].complete);
    assert!(fleet.notes[0].starts_with("1 report is there twice and counted once: "), "{:?}", fleet.notes);
    let early = "1 report is an earlier state of another, and left out: ";
    assert!(
        fleet.notes[1].starts_with(early) && fleet.notes[1].ends_with("early/a.json"),
        "{:?}",
        fleet.notes
    );
    put(dir.path(), "z.json", &run("M2", 5, "aaaaaaaa"));
    // The same figures in every column, and another content.
    let mut other = run("M1", 1, "aaaaaaaa");
    other.facts.kernel.version = crate::facts::Fact::known("x", "another".into());
    put(dir.path(), "other.json", &other);
    let fleet = gathered(dir.path(), true);
    assert_eq!(fleet.rows.len(), 3);
    let conflicts = fleet.notes.iter().find(|note| note.contains("CONFLICTS")).unwrap();
    assert!(conflicts.starts_with("2 CONFLICTS: different reports bear one run's id"), "{conflicts}");
}

#[test]
fn what_was_sent_and_what_was_written_are_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let sent = run("M1", 1, "aaaaaaaa");
    let written = crate::report::same_run::tests::written(&sent);
    put(dir.path(), "sent/aaaaaaaa.json", &sent);
    put(dir.path(), "stick/20261118T120640Z-aaaaaaaa/report.json", &written);
    // What was copied while it went on: which file comes first says nothing.
    put(dir.path(), "a-early.json", &Report { complete: false, ..sent.clone() });
    put(dir.path(), "b-early.json", &Report { complete: false, stages: Vec::new(), ..sent.clone() });
    let fleet = gathered(dir.path(), true);
    assert_eq!(ids(&fleet), ["aaaaaaaa"]);
    assert_eq!(fleet.rows[0].finished, written.finished);
    assert_eq!(fleet.notes.len(), 1, "{:?}", fleet.notes);
    assert!(fleet.notes[0].starts_with("3 reports are earlier states of others"), "{:?}", fleet.notes);
}

#[test]
fn machines_that_bear_one_serial_number_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=2 {
        let mut report = run("SAME", n, &format!("{n:08}"));
        report.facts.platform.uuid =
            crate::facts::Fact::known("x", format!("4c4c4544-0000-1000-8000-00000000000{n}"));
        put(dir.path(), &format!("{n}.json"), &report);
    }
    let fleet = gathered(dir.path(), false);
    let names: Vec<&str> = fleet.rows.iter().map(|row| row.machine.as_str()).collect();
    assert_eq!(
        names,
        ["SAME/4c4c4544-0000-1000-8000-000000000001", "SAME/4c4c4544-0000-1000-8000-000000000002"]
    );
}

/// Some machines, one of which has an old driver and an evil name.
fn sample() -> (tempfile::TempDir, Fleet) {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..6 {
        put(dir.path(), &format!("{n}.json"), &run(&format!("M{n}"), n, &format!("{n:08}")));
    }
    let mut evil = run("=cmd|' /C calc'!A0", 7, "77777777");
    evil.facts.nvidia.version =
        crate::facts::Fact::known("x", "</script><script>alert(1)</script>\"\n\\".into());
    evil.verdict = Verdict::Fail;
    put(dir.path(), "evil.json", &evil);
    let fleet = gathered(dir.path(), false);
    (dir, fleet)
}

fn text(write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn csv_quotes_and_computes_nothing() {
    let (_dir, fleet) = sample();
    let csv = text(|out| csv::write(&fleet.rows, out));
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    let heading: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(heading.len(), column::COLUMNS.len());
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 7);
    let at = |name: &str| heading.iter().position(|column| column == name).unwrap();
    let evil = rows.iter().find(|row| &row[at("run_id")] == "77777777").unwrap();
    assert_eq!(&evil[at("machine")], "'=cmd|' /C calc'!A0");
    assert_eq!(&evil[at("driver")], "</script><script>alert(1)</script>\"\n\\");
    assert_eq!(&evil[at("direct_gib_s")], "6.5");
}

#[test]
fn json_lines_have_every_column() {
    let (_dir, fleet) = sample();
    let lines = text(|out| jsonl::write(&fleet.rows, out));
    assert_eq!(lines.lines().count(), 7);
    for line in lines.lines() {
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert!(row.keys().eq(column::COLUMNS.iter().map(|column| column.name)));
        assert!(row["gpu_models"].is_array() && row["direct_gib_s"].is_f64() && row["complete"].is_boolean());
    }
}

#[test]
fn metrics_are_well_formed() {
    let (_dir, mut fleet) = sample();
    let twice = fleet.rows[0].failed[0].clone();
    fleet.rows[0].failed.push(twice);
    let metrics = text(|out| prometheus::write(&fleet.rows, out));
    assert!(metrics.contains("gdsboot_verdict{machine=\"M0\",verdict=\"FAIL\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("gdsboot_read_bytes_per_second{machine=\"M0\",path=\"direct\"} 6979321856\n"),
        "{metrics}"
    );
    assert!(metrics.contains("driver=\"</script><script>alert(1)</script>\\\"\\n\\\\\""), "{metrics}");
    let mut series: Vec<&str> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
    for line in &series {
        let (name, value) = line.rsplit_once("} ").unwrap();
        assert!(name.starts_with("gdsboot_") && value.parse::<f64>().is_ok(), "{line}");
    }
    series.sort_unstable();
    series.dedup_by_key(|line| line.rsplit_once("} ").unwrap().0);
    assert_eq!(
        series.len(),
        metrics.lines().filter(|line| !line.starts_with('#')).count(),
        "no series is there twice"
    );
}

#[test]
fn the_page_runs_no_script_but_its_own() {
    let (_dir, fleet) = sample();
    let page = text(|out| page::write(&fleet, Utc(0), out));
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own");
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("alert(1)</script>"));
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains(" src="),
        "nothing from elsewhere"
    );
    let hash = {
        use base64::Engine as _;
        use sha2::Digest as _;
        let script = page.rsplit_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
        base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(script))
    };
    assert!(page.contains(&format!("script-src 'sha256-{hash}'")));
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["rows"].as_array().unwrap().len(), 7);
    assert!(data["rows"][0].as_array().unwrap().iter().any(|cell| cell == "=cmd|' /C calc'!A0"));
}

#[test]
fn the_summary_says_who_deviates() {
    let (_dir, fleet) = sample();
    let lines = summary::lines(&fleet);
    assert!(lines.iter().all(|line| line.chars().count() <= 80 && !line.contains('\u{1b}')), "{lines:?}");
    assert_eq!(lines[0], "7 machines, 7 rows: 0 PASS, 7 FAIL, 0 INCOMPLETE");
    let text = lines.join("\n");
    assert!(
        text.contains("=cmd|' /C calc'!A0 deviates (Standard PC (Q35 + ICH9, 2009), 1 x NVIDIA H100)"),
        "{text}"
    );
    assert!(text.contains("  - driver: </script>"), "{text}");
    assert!(text.contains("usual: 580.95.05 (6 of 7)"), "{text}");
}
