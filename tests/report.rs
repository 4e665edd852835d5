//! `gdsboot report` as its users run it.

mod common;

use common::{gdsboot, run_with_status, stderr, stdout};
use std::path::Path;
use std::process::Command;

/// A disk with two runs, one of them cut off, as a file and in every form of qcow2: see tests/qcow2.
fn images() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = zstd::Decoder::new(fs_err::File::open("tests/qcow2/images.tar.zst").unwrap()).unwrap();
    tar::Archive::new(file).unpack(dir.path()).unwrap();
    dir
}

fn report(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = gdsboot();
    command.current_dir(folder).arg("report").args(arguments);
    command
}

#[test]
fn show_ends_with_the_verdict_and_takes_any_source() {
    let dir = images();
    for source in ["raw.img", "zstd.qcow2"] {
        let text = stdout(&run_with_status(&mut report(dir.path(), &["show", source]), 1));
        assert!(text.starts_with("gdsboot report") && text.contains("NVIDIA"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    let list = stdout(&run_with_status(&mut report(dir.path(), &["show", "--list", "raw.img"]), 0));
    assert!(list.contains("raw.img#20261122T110000Z-bbbbbbbb"), "{list}");
    assert!(list.contains("cut off; it left STARTED"), "{list}");
    let cut = run_with_status(&mut report(dir.path(), &["show", "raw.img", "--run", "1"]), 2);
    assert!(
        stdout(&cut).contains("was cut off before its first report. It left:\n  STARTED"),
        "{}",
        stdout(&cut)
    );
    for (format, begins) in [("json", "{\n  \"schema\": 1"), ("html", "<!doctype html>"), ("junit", "<?xml")]
    {
        let text =
            stdout(&run_with_status(&mut report(dir.path(), &["show", "raw.img", "--format", format]), 1));
        assert!(text.to_lowercase().starts_with(&begins.to_lowercase()), "{format}: {text}");
    }
}

#[test]
fn extract_copies_every_file_once() {
    let dir = images();
    let arguments = ["extract", "deflate.qcow2", "-o", "out", "--all"];
    let said = stdout(&run_with_status(&mut report(dir.path(), &arguments), 0));
    assert!(said.contains("out/20261122T100000Z-aaaaaaaa: 1 files"), "{said}");
    assert!(said.contains("out/20261122T110000Z-bbbbbbbb: 3 files"), "{said}");
    let again = stdout(&run_with_status(&mut report(dir.path(), &arguments), 0));
    assert_eq!(again.matches("were there already").count(), 2, "{again}");
    // What was extracted is a source.
    let json = stdout(&run_with_status(&mut report(dir.path(), &["show", "out", "--format", "json"]), 1));
    let extracted = dir.path().join("out/20261122T110000Z-bbbbbbbb/report.json");
    assert_eq!(json.as_bytes(), fs_err::read(extracted).unwrap());
    fs_err::write(dir.path().join("out/20261122T100000Z-aaaaaaaa/STARTED"), "edited").unwrap();
    let other = run_with_status(&mut report(dir.path(), &arguments), 69);
    assert!(stderr(&other).contains("is not the same; it was left as it is"), "{}", stderr(&other));
}

#[test]
fn what_cannot_be_read_is_named_with_a_hint() {
    let dir = images();
    let whole = fs_err::read(dir.path().join("raw.img")).unwrap();
    fs_err::write(dir.path().join("cut.img"), &whole[..1 << 20]).unwrap();
    let mut broken = whole.clone();
    broken[(1 << 20) + 13] = 3;
    fs_err::write(dir.path().join("broken.img"), broken).unwrap();
    fs_err::write(dir.path().join("zeros.img"), vec![0; 1 << 20]).unwrap();
    fs_err::write(dir.path().join("newer.json"), r#"{"schema":9,"gdsboot":"7.0.0","run_id":"x"}"#).unwrap();
    for (source, status, words) in [
        ("cut.img", 64, "cut.img: it is truncated: its partition table describes 4194304 bytes"),
        ("broken.img", 69, "reading partition 1 of broken.img: its clusters claim 3 sectors"),
        ("zeros.img", 64, "zeros.img has neither a GUID partition table nor a FAT filesystem: nothing"),
        ("backing.qcow2", 64, "it is a difference to a backing file"),
        ("newer.json", 69, "its schema 9 is newer than 1: gdsboot 7.0.0 wrote it"),
        ("missing", 64, "missing: No such file or directory"),
        ("/dev/null", 64, "/dev/null is neither a file, a disk nor a folder"),
    ] {
        for command in [&["show", source][..], &["extract", source, "-o", "out"]] {
            let output = run_with_status(&mut report(dir.path(), command), status);
            let said = stderr(&output);
            assert!(said.contains(words), "{words:?} is not in:\n{said}");
            assert!(said.contains("hint: "), "{said}");
            assert_eq!(stdout(&output), "");
        }
    }
    assert!(!dir.path().join("out").exists(), "nothing is made where nothing is extracted");
}

#[test]
fn a_report_that_cannot_be_read_was_not_cut_off() {
    let dir = images();
    fs_err::create_dir(dir.path().join("site")).unwrap();
    let newer = r#"{"schema":9,"gdsboot":"7.0.0","run_id":"x"}"#;
    fs_err::write(dir.path().join("site/20261130T000000Z-cccccccc.json"), newer).unwrap();
    edited(dir.path(), "site/good.json", |_| {});
    for format in ["text", "json"] {
        let arguments = ["show", "site", "--run", "2", "--format", format];
        let output = run_with_status(&mut report(dir.path(), &arguments), 69);
        let said = stderr(&output);
        assert!(said.contains("its schema 9 is newer than 1") && !said.contains("cut off"), "{said}");
        assert!(said.contains("hint: read it with gdsboot 7.0.0"), "{said}");
        assert_eq!(stdout(&output), "");
    }
    // Nobody is told of an older one without a word.
    let shown = run_with_status(&mut report(dir.path(), &["show", "site"]), 1);
    assert!(stderr(&shown).contains("a newer run cannot be read: "), "{}", stderr(&shown));
    let named = run_with_status(&mut report(dir.path(), &["show", "site", "--run", "0a1b2c3d"]), 1);
    assert!(!stderr(&named).contains("newer run"), "{}", stderr(&named));
}

#[test]
fn a_newer_run_that_hung_is_told_of() {
    let dir = images();
    edited(dir.path(), "site/one.json", |_| {});
    edited(dir.path(), "site/two.json", |value| {
        value["run_id"] = "cccccccc".into();
        value["started"] = "2026-11-23T00:00:00Z".into();
    });
    fs_err::create_dir(dir.path().join("site/20261124T000000Z-dddddddd")).unwrap();
    fs_err::write(dir.path().join("site/20261124T000000Z-dddddddd/STARTED"), "x").unwrap();
    let words = "a newer run, site/20261124T000000Z-dddddddd, was cut off; it left STARTED";
    for (arguments, status) in [
        (&["show", "site"][..], 1),
        (&["diff", "site"], 0),
        (&["diff", "raw.img", "site"], 0),
        (&["extract", "site", "-o", "out"], 0),
    ] {
        let output = run_with_status(&mut report(dir.path(), arguments), status);
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
}

/// What a report or a disk says must not be obeyed by a terminal.
#[test]
fn a_terminal_is_told_nothing_by_strangers() {
    let dir = images();
    fs_err::create_dir(dir.path().join("site")).unwrap();
    let evil = r#"{"schema":9,"run_id":1,"gdsboot":"\u001b]0;x\u0007"}"#;
    fs_err::write(dir.path().join("evil.json"), evil).unwrap();
    for (name, why) in [("site/a.json", "a"), ("site/b.json", "b")] {
        edited(dir.path(), name, |value| {
            value["run_id"] = "\u{1b}[2J\u{7}".into();
            value["why"] = serde_json::json!([why]);
        });
    }
    fs_err::create_dir(dir.path().join("cut\u{1b}[2J")).unwrap();
    fs_err::write(dir.path().join("cut\u{1b}[2J/STARTED"), "x").unwrap();
    fs_err::write(dir.path().join("cut\u{1b}[2J/\u{1b}]0;y"), "x").unwrap();
    let quiet = |output: std::process::Output, words: &str| {
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{said:?}");
    };
    quiet(run_with_status(&mut report(dir.path(), &["show", "evil.json"]), 69), "gdsboot ?]0;x? wrote it");
    quiet(run_with_status(&mut report(dir.path(), &["collect", "site"]), 0), "CONFLICT");
    quiet(run_with_status(&mut report(dir.path(), &["show", "cut\u{1b}[2J"]), 2), "  ?]0;y\n");
}

#[test]
fn a_good_table_is_not_overwritten_by_nothing() {
    let dir = images();
    fs_err::create_dir(dir.path().join("empty")).unwrap();
    fs_err::write(dir.path().join("fleet.csv"), "good").unwrap();
    fs_err::write(dir.path().join("broken.json"), "{").unwrap();
    for (source, status, words) in [
        ("empty", 64, "looking into empty: there is no report in it"),
        ("broken.json", 69, "looking into broken.json: no report could be read, and nothing was written"),
    ] {
        let output =
            run_with_status(&mut report(dir.path(), &["collect", source, "-o", "fleet.csv"]), status);
        assert!(stderr(&output).contains(words) && stderr(&output).contains("hint: "), "{}", stderr(&output));
        assert_eq!(fs_err::read(dir.path().join("fleet.csv")).unwrap(), b"good");
        let output =
            run_with_status(&mut report(dir.path(), &["collect", source, "--format", "csv"]), status);
        assert_eq!(stdout(&output), "");
    }
    // The hints of several sources are not lost.
    let output = run_with_status(&mut report(dir.path(), &["collect", "raw.img", "backing.qcow2"]), 69);
    assert!(stderr(&output).contains("(make one file of both, `qemu-img convert"), "{}", stderr(&output));
}

/// Writes a copy of an image's report that says something else.
fn edited(folder: &Path, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
    let text = stdout(&run_with_status(&mut report(folder, &["show", "raw.img", "--format", "json"]), 1));
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    edit(&mut value);
    fs_err::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs_err::write(folder.join(name), value.to_string()).unwrap();
}

#[test]
fn diff_ends_as_diff_does() {
    let dir = images();
    let same = run_with_status(
        &mut report(dir.path(), &["diff", "raw.img", "zstd.qcow2#20261122T110000Z-bbbbbbbb"]),
        0,
    );
    assert!(stdout(&same).contains("Nothing changed."), "{}", stdout(&same));
    edited(dir.path(), "site/one.json", |_| {});
    edited(dir.path(), "site/two.json", |value| {
        value["run_id"] = "cccccccc".into();
        value["started"] = "2026-11-23T00:00:00Z".into();
        value["facts"]["kernel"]["release"]["value"] = "6.12.200".into();
    });
    let changed = stdout(&run_with_status(&mut report(dir.path(), &["diff", "site"]), 1));
    assert!(
        changed.contains("Versions\n--------\n  ~ kernel: 6.12.117+deb13-amd64 -> 6.12.200\n"),
        "{changed}"
    );
    let json =
        stdout(&run_with_status(&mut report(dir.path(), &["diff", "raw.img", "site#cccccccc", "--json"]), 1));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["changes"][0]["area"], "pins");
    let one = run_with_status(&mut report(dir.path(), &["diff", "raw.img"]), 64);
    assert!(stderr(&one).contains("no complete run is older than"), "{}", stderr(&one));
}

#[test]
fn collect_makes_tables_of_what_can_be_read() {
    let dir = images();
    for n in 0..5 {
        edited(dir.path(), &format!("site/{n}.json"), |value| {
            value["run_id"] = format!("0000000{n}").into();
            value["facts"]["platform"]["serial"] =
                serde_json::json!({"state":"known","from":"x","value":format!("SN{n}")});
            if n == 3 {
                value["facts"]["kernel"]["release"]["value"] = "6.1.0".into();
            }
        });
    }
    let summary = stdout(&run_with_status(&mut report(dir.path(), &["collect", "site"]), 0));
    assert!(summary.starts_with("5 machines, 5 rows: 0 PASS, 5 FAIL, 0 INCOMPLETE\n"), "{summary}");
    assert!(
        summary.contains("SN3 deviates")
            && summary.contains("- kernel: 6.1.0; usual: 6.12.117+deb13-amd64 (4 of 5)")
    );

    let said = run_with_status(
        &mut report(dir.path(), &["collect", "site", "zstd.qcow2", "zeros.img", "-o", "out"]),
        69,
    );
    assert!(stderr(&said).contains("problem: opening zeros.img"), "{}", stderr(&said));
    assert!(stderr(&said).contains("1 run was cut off before its first report"), "{}", stderr(&said));
    let tables = ["fleet.csv", "fleet.jsonl", "fleet.html", "fleet.prom"]
        .map(|name| dir.path().join("out").join(name));
    for table in &tables {
        assert!(fs_err::read_to_string(table).unwrap().contains("SN3"), "{}", table.display());
    }
    assert_eq!(fs_err::read_to_string(&tables[1]).unwrap().lines().count(), 6);

    let csv = run_with_status(&mut report(dir.path(), &["collect", "site", "--format", "csv"]), 0);
    assert_eq!(stdout(&csv).lines().count(), 6);
    assert!(stderr(&csv).contains("SN3 deviates"));
    run_with_status(&mut report(dir.path(), &["collect", "site", "-o", "one.jsonl"]), 0);
    assert_eq!(fs_err::read_to_string(dir.path().join("one.jsonl")).unwrap().lines().count(), 5);
    for (arguments, words) in [
        (&["collect", "site", "--format", "csv,html"][..], "several forms do not fit on standard output"),
        (
            &["collect", "site", "--format", "csv,html", "-o", "x.csv"],
            "several forms do not fit into the file x.csv",
        ),
        (&["collect", "site", "--format", "csv", "-o", "no/such/x.csv"], "looking for the output's folder"),
        (&["collect", "zeros.img"], "zeros.img: No such file"),
    ] {
        let refused = run_with_status(&mut report(dir.path(), arguments), 64);
        assert!(
            stderr(&refused).contains(words) && stderr(&refused).contains("hint: "),
            "{}",
            stderr(&refused)
        );
    }
    let row =
        stdout(&run_with_status(&mut report(dir.path(), &["show", "site/3.json", "--format", "jsonl"]), 1));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&row).unwrap()["machine"], "SN3");
    let metrics = stdout(&run_with_status(
        &mut report(dir.path(), &["show", "site/3.json", "--format", "prometheus"]),
        1,
    ));
    assert!(metrics.contains("gdsboot_verdict{machine=\"SN3\",verdict=\"FAIL\"} 1\n"), "{metrics}");
}
