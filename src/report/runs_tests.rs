use super::*;
use crate::error::status_of;
use crate::report::extract::{Extracted, extract_as, names};
use crate::report::model::tests::sample;
use crate::report::utc::Utc;
use std::path::Path;

/// Writes a report as an HTTP server would keep it.
fn loose(folder: &Path, name: &str, report: &Report) {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).unwrap();
    fs_err::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs_err::write(folder.join(name), bytes).unwrap();
}

fn at(hour: u64, id: &str) -> Report {
    Report { run_id: id.into(), started: Utc(1_795_000_000 + hour * 3600), ..sample() }
}

fn source(path: &Path) -> [Source; 1] {
    [Source::open(path).unwrap()]
}

#[test]
fn the_newest_complete_run_is_meant_where_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    loose(dir.path(), "z.json", &at(1, "aaaaaaaa"));
    loose(dir.path(), "a.json", &at(2, "bbbbbbbb"));
    loose(dir.path(), "m.json", &Report { complete: false, ..at(3, "cccccccc") });
    let sources = source(dir.path());
    let all = Catalogue::read(&sources).unwrap();
    let ids: Vec<&str> = all.runs.iter().map(|run| run.head().unwrap().run_id.as_str()).collect();
    assert_eq!(ids, ["aaaaaaaa", "bbbbbbbb", "cccccccc"]);
    let id = |wanted: Option<&str>| all.find(wanted).map(|run| run.head().unwrap().run_id.clone());
    assert_eq!(id(None).unwrap(), "bbbbbbbb");
    assert_eq!(id(Some("cccccccc")).unwrap(), "cccccccc");
    assert_eq!(id(Some("1")).unwrap(), "aaaaaaaa");
    assert_eq!(id(Some("z.json")).unwrap(), "aaaaaaaa");
    for (wanted, words) in
        [("0", "no run number 0"), ("4", "no run number 4"), ("12345678", "no run \"12345678\"")]
    {
        let error = id(Some(wanted)).unwrap_err();
        assert_eq!(status_of(&error), Status::Usage);
        assert!(one_line(&error).contains(words), "{error:#}");
        assert_eq!(hint_of(&error), Some("it has: cccccccc, bbbbbbbb, aaaaaaaa"));
    }
    assert_eq!(all.find(None).unwrap().verdict(), sample().verdict);
    assert_eq!(all.find(Some("3")).unwrap().verdict(), Verdict::Incomplete);
    let lines = all.lines().join("\n").replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(lines, @r"
          started               run       end
       1  2026-11-18T12:06:40Z  aaaaaaaa  FAIL
          DIR/z.json
       2  2026-11-18T13:06:40Z  bbbbbbbb  FAIL
          DIR/a.json
       3  2026-11-18T14:06:40Z  cccccccc  cut off; its report is unfinished
          DIR/m.json
    ");
}

#[test]
fn two_runs_of_one_id_are_one_where_they_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    loose(dir.path(), "a.json", &at(1, "aaaaaaaa"));
    loose(dir.path(), "site/b.json", &at(1, "aaaaaaaa"));
    let sources = source(dir.path());
    let all = Catalogue::read(&sources).unwrap();
    assert_eq!(all.runs.len(), 1);
    assert!(all.notes[0].ends_with("listed once"), "{:?}", all.notes);
    assert!(all.find(Some("aaaaaaaa")).is_ok());

    loose(dir.path(), "other/c.json", &at(5, "aaaaaaaa"));
    let all = Catalogue::read(&sources).unwrap();
    assert_eq!(all.runs.len(), 2);
    let error = all.find(Some("aaaaaaaa")).unwrap_err();
    assert!(one_line(&error).contains("2 different runs are called \"aaaaaaaa\": "), "{error:#}");
    assert!(all.find(Some("2")).is_ok());
}

/// Copies one run.
fn extract(run: &Listed<'_>, into: &Path) -> Result<Extracted> {
    extract_as(&names(&[run])[0], run, into)
}

/// A run that left no report.
fn cut_off(folder: &Path, name: &str, started: &str) {
    fs_err::create_dir_all(folder.join(name)).unwrap();
    fs_err::write(folder.join(name).join("STARTED"), started).unwrap();
}

#[test]
fn what_was_sent_and_what_was_written_are_one_run() {
    let (kept, stick) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sent = at(2, "aaaaaaaa");
    let written = crate::report::same_run::tests::written(&sent);
    loose(kept.path(), "aaaaaaaa.json", &sent);
    loose(stick.path(), "reports/20261118T130640Z-aaaaaaaa/report.json", &written);
    loose(stick.path(), "old/report.json", &at(1, "bbbbbbbb"));
    let sources = [Source::open(kept.path()).unwrap(), Source::open(stick.path()).unwrap()];
    let all = Catalogue::read(&sources).unwrap();
    assert_eq!(all.runs.len(), 2);
    assert!(all.notes[0].ends_with("/reports/20261118T130640Z-aaaaaaaa: left out"), "{:?}", all.notes);
    assert_eq!(all.find(Some("aaaaaaaa")).unwrap().report().unwrap(), written);
    // The run is not compared with itself.
    let (before, after) = all.two(None).unwrap();
    assert_eq!([before, after].map(|run| run.head().unwrap().run_id.as_str()), ["bbbbbbbb", "aaaaaaaa"]);
}

#[test]
fn a_cut_off_run_in_two_places_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let name = "20261122T100000Z-aaaaaaaa";
    cut_off(dir.path(), &format!("a/{name}"), "a");
    cut_off(dir.path(), &format!("b/{name}"), "a");
    let sources = source(dir.path());
    let all = Catalogue::read(&sources).unwrap();
    assert_eq!((all.runs.len(), all.notes.len()), (1, 1), "{:?}", all.notes);
    assert!(all.find(Some("aaaaaaaa")).is_ok());
    cut_off(dir.path(), &format!("c/{name}"), "b");
    assert_eq!(Catalogue::read(&sources).unwrap().runs.len(), 2);
}

#[test]
fn a_newer_run_that_hung_is_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    loose(dir.path(), "z.json", &at(1, "aaaaaaaa"));
    loose(dir.path(), "a.json", &at(2, "bbbbbbbb"));
    cut_off(dir.path(), "20261118T120000Z-00000000", "before both");
    cut_off(dir.path(), "20261119T000000Z-cccccccc", "after both");
    loose(dir.path(), "m.json", &Report { complete: false, ..at(3, "dddddddd") });
    cut_off(dir.path(), "someday", "nobody knows");
    fs_err::write(dir.path().join("20261120T000000Z-eeeeeeee.json"), "{\"schema\":1,").unwrap();
    let sources = source(dir.path());
    let all = Catalogue::read(&sources).unwrap();
    let meant = all.find(None).unwrap();
    assert_eq!(meant.head().unwrap().run_id, "bbbbbbbb");
    let doubts = all.doubts(meant).join("\n").replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(doubts, @r"
    a run that may be newer, DIR/someday, was cut off; it left STARTED
    a newer run, DIR/m.json, was cut off; its report is unfinished
    a newer run, DIR/20261119T000000Z-cccccccc, was cut off; it left STARTED
    a newer run cannot be read: reading DIR/20261120T000000Z-eeeeeeee.json: reading the report's schema version: EOF while parsing a value at line 1 column 12
    ");
    assert_eq!(all.two(None).unwrap().1.head().unwrap().run_id, "bbbbbbbb");
}

#[test]
fn a_newer_schema_and_damage_are_named_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    loose(dir.path(), "good.json", &at(1, "aaaaaaaa"));
    fs_err::write(dir.path().join("newer.json"), r#"{"schema":2,"gdsboot":"9.1.0","run_id":7,"facts":[]}"#)
        .unwrap();
    fs_err::write(dir.path().join("cut.json"), r#"{"schema":1,"gdsb"#).unwrap();
    fs_err::write(dir.path().join("package.json"), r#"{"name":"x"}"#).unwrap();
    let sources = source(dir.path());
    let all = Catalogue::read(&sources).unwrap();
    assert_eq!(all.runs.len(), 3);
    assert_eq!(all.notes, ["1 file is JSON and no report of gdsboot"]);
    let good = all.find(None).unwrap();
    assert_eq!(good.head().unwrap().run_id, "aaaaaaaa");
    // Nothing says when these began.
    let newer = all.doubts(good);
    assert_eq!(newer.len(), 2, "{newer:?}");
    assert!(
        newer.iter().all(|words| words.starts_with("a run that may be newer cannot be read: ")),
        "{newer:?}"
    );
    assert!(newer.iter().any(|words| words.contains("its schema 2 is newer than 1: gdsboot 9.1.0 wrote it")));

    let one = source(&dir.path().join("newer.json"));
    let all = Catalogue::read(&one).unwrap();
    let error = all.find(None).unwrap_err();
    assert_eq!(status_of(&error), Status::Unavailable);
    assert!(hint_of(&error).unwrap().starts_with("read it with gdsboot 9.1.0 or a newer one"));
    let other = source(&dir.path().join("package.json"));
    let error = Catalogue::read(&other).unwrap().find(None).map(|_| ()).unwrap_err();
    assert!(one_line(&error).contains("it is no report of gdsboot"), "{error:#}");
}

#[test]
fn a_run_that_left_no_report_says_what_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("reports/20261122T100000Z-aaaaaaaa");
    fs_err::create_dir_all(&run).unwrap();
    fs_err::write(run.join("STARTED"), "a").unwrap();
    let sources = source(dir.path());
    let all = Catalogue::read(&sources).unwrap();
    let run = all.find(None).unwrap();
    assert_eq!(run.words(), "cut off; it left STARTED");
    assert_eq!(all.find(Some("aaaaaaaa")).unwrap().run, run.run);
    let empty = tempfile::tempdir().unwrap();
    let error =
        Catalogue::read(&source(empty.path())).map(|all| all.find(None).map(|_| ()).unwrap_err()).unwrap();
    assert_eq!(one_line(&error), "there is no run in it");
}

#[test]
fn extracting_overwrites_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let report = at(1, "aaaaaaaa");
    loose(from.path(), "run/report.json", &report);
    fs_err::create_dir_all(from.path().join("run/workloads")).unwrap();
    fs_err::write(from.path().join("run/workloads/a.txt"), "output").unwrap();
    let sources = source(from.path());
    let all = Catalogue::read(&sources).unwrap();
    let run = all.find(None).unwrap();
    let target = to.path().join("run");
    assert_eq!(extract(run, to.path()).unwrap(), Extracted::Copied(target.clone(), 2));
    assert_eq!(fs_err::read(target.join("workloads/a.txt")).unwrap(), b"output");
    assert_eq!(extract(run, to.path()).unwrap(), Extracted::AlreadyThere(target.clone()));
    fs_err::write(target.join("workloads/a.txt"), "edited").unwrap();
    let error = extract(run, to.path()).unwrap_err();
    assert!(one_line(&error).contains("is not the same; it was left as it is"), "{error:#}");
    assert_eq!(fs_err::read(target.join("workloads/a.txt")).unwrap(), b"edited");
    assert_eq!(fs_err::read_dir(to.path()).unwrap().count(), 1, "nothing half-written is left");

    // A report without a folder gets one by time and id.
    let one = source(&from.path().join("run/report.json"));
    let all = Catalogue::read(&one).unwrap();
    let name = crate::report::model::folder_name(report.started, "aaaaaaaa");
    assert_eq!(
        extract(all.find(None).unwrap(), to.path()).unwrap(),
        Extracted::Copied(to.path().join(name), 1)
    );
}

#[test]
fn runs_whose_folders_have_one_name_get_others() {
    let dir = tempfile::tempdir().unwrap();
    loose(dir.path(), "a/run/report.json", &at(1, "aaaaaaaa"));
    loose(dir.path(), "b/run/report.json", &at(2, "bbbbbbbb"));
    loose(dir.path(), "b/other/report.json", &at(3, "cccccccc"));
    let sources =
        [Source::open(&dir.path().join("a")).unwrap(), Source::open(&dir.path().join("b")).unwrap()];
    let all = Catalogue::read(&sources).unwrap();
    let runs: Vec<&Listed<'_>> = all.runs.iter().collect();
    assert_eq!(names(&runs), ["20261118T120640Z-aaaaaaaa", "20261118T130640Z-bbbbbbbb", "other"]);
    assert_eq!(names(&runs[1..]), ["run", "other"]);
}

#[test]
fn a_name_that_leads_out_of_the_folder_is_refused() {
    for id in ["../../x", "x/../../y", "a\u{1b}[2J", "..", ""] {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        loose(from.path(), "a.json", &at(1, id));
        let sources = source(&from.path().join("a.json"));
        let all = Catalogue::read(&sources).unwrap();
        let extracted = extract(all.find(None).unwrap(), to.path());
        match id {
            // Behind the time, these are harmless.
            ".." | "" => assert!(extracted.is_ok()),
            _ => assert!(one_line(&extracted.unwrap_err()).contains("is no name for a folder"), "{id:?}"),
        }
    }
    // What only a forged directory has: the reader's own tests show that it hands such names over.
    let mut fat = crate::report::fat::tests::filesystem(
        1 << 20,
        fatfs::FatType::Fat12,
        &[("reports/r/ABCDEFGH", b"a")],
    );
    let at = fat.windows(11).position(|bytes| bytes == b"ABCDEFGH   ").unwrap();
    fat[at..at + 11].copy_from_slice(b"../../XY   ");
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("fat.img"), fat).unwrap();
    let sources = source(&dir.path().join("fat.img"));
    let all = Catalogue::read(&sources).unwrap();
    let error = extract(&all.runs[0], dir.path()).unwrap_err();
    assert!(one_line(&error).contains("which is no name to write a file under"), "{error:#}");
}
