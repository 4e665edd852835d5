//! Workers that give no answer, or one that is none.

use super::*;
use crate::bench::worker::settings::Wanted;
use std::os::unix::fs::PermissionsExt as _;

const SETTINGS: CufileSettings = CufileSettings { wanted: Wanted::Any, compat: false };

/// A worker that is a shell script.
fn script(folder: &Path, text: &str) -> WorkerProcess {
    let path = folder.join("worker");
    fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    loop {
        match WorkerProcess::start(&path, SETTINGS, None, &[]) {
            // A child that another test's thread has just forked may still hold the script open.
            Err(error) if format!("{error:#}").contains("Text file busy") => {}
            started => return started.unwrap(),
        }
    }
}

#[test]
fn every_way_to_give_no_answer_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let answer = |id: u64| format!(r#"{{"v":1,"id":{id},"body":{{"answer":"closed"}}}}"#);
    let calling = r#"echo '{"v":1,"id":1,"body":{"answer":"calling","function":"cuInit"}}'"#;
    for (text, wanted) in [
        (format!("read x; {calling}; kill -SEGV $$"), "crashed in cuInit: SIGSEGV"),
        (format!("read x; {calling}; echo bad luck >&2; exit 3"), "ended in cuInit: exit status: 3"),
        ("exit 0".to_owned(), "ended: exit status: 0"),
        (format!("read x; {calling}; sleep 60"), "gave no answer in 0 s in cuInit"),
        ("read x; exec >&-; sleep 60".to_owned(), "gave no answer in 2 s"),
        ("read x; echo hello; sleep 60".to_owned(), "is none: expected value at line 1 column 1: \"hello\""),
        (format!("read x; echo '{}'; sleep 60", answer(7)), "it answers request 7, not 1"),
        (format!("read x; echo '{}'; sleep 60", answer(1)), "it answers something else: Closed"),
        (format!("read x; echo '{}'", answer(1).replace("\"v\":1", "\"v\":2")), "its version is 2, not 1"),
        ("read x; printf '{\"v\":1'; kill -KILL $$".to_owned(), "crashed: SIGKILL"),
    ] {
        let mut worker = script(dir.path(), &text);
        let begun = Instant::now();
        let error = worker.open_cufile(Duration::from_millis(900)).unwrap_err();
        assert!(error.to_string().contains(wanted), "{text}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        // Nothing more can be asked of it, and it is not there any more.
        assert!(worker.open_cufile(Duration::from_secs(1)).is_err());
        assert!(worker.child.try_wait().unwrap().is_some(), "{text}");
    }
    let mut worker = script(dir.path(), "read x; echo bad luck >&2; exit 3");
    let error = worker.open_gpu(0, Duration::from_secs(10)).unwrap_err().to_string();
    assert!(error.contains("bad luck"), "{error}");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = WorkerProcess::start(Path::new("/nonexistent/x"), SETTINGS, None, &[]).unwrap_err();
    assert!(format!("{error:#}").starts_with("starting /nonexistent/x: "), "{error:#}");
}
