use super::*;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn words_and_status_are_kept() {
    let finished = run("/bin/sh", &["-c", "echo out; echo err >&2; exit 3"], LONG).unwrap();
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(finished.status.code(), Some(3));
    let error = run_ok("/bin/sh", &["-c", "echo why >&2; exit 3"], LONG).unwrap_err().to_string();
    assert_eq!(error, "running /bin/sh -c 'echo why >&2; exit 3': exit status: 3: why");
}

#[test]
fn a_hanging_program_is_killed_with_its_children() {
    let start = Instant::now();
    let error = run("/bin/sh", &["-c", "echo stuck >&2; sleep 60 & sleep 60"], Duration::from_millis(300));
    let error = crate::error::one_line(&error.unwrap_err());
    assert!(error.ends_with("killed after 0 s: stuck"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_grandchild_that_keeps_the_output_open_does_not_matter() {
    let start = Instant::now();
    let finished = run_ok("/bin/sh", &["-c", "sleep 5 & echo done"], LONG).unwrap();
    assert_eq!(finished.stdout, "done\n");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_missing_program_is_an_error() {
    let error = run("/nonexistent/program", &[], LONG).unwrap_err();
    assert!(crate::error::one_line(&error).starts_with("running /nonexistent/program: No such file"));
}

fn shell(script: &str, limit: Duration, words: Words) -> Ended {
    let args = ["-c", script];
    let environment = [("WORD", "a b")];
    let folder = Some(Path::new("/"));
    let run = Run {
        program: "/bin/sh",
        args: &args,
        environment: &environment,
        folder,
        limit,
        words,
        daemon: false,
    };
    run.to_end().unwrap()
}

#[test]
fn a_program_has_the_environment_and_the_folder_that_it_is_given() {
    for words in [Words::Apart, Words::Together] {
        let ended = shell("echo \"$WORD $HOME\"; pwd", LONG, words);
        assert_eq!(ended.stdout, "a b /root\n/\n");
    }
}

#[test]
fn what_a_killed_program_had_said_is_kept() {
    for words in [Words::Apart, Words::Together] {
        let limit = Duration::from_secs(1);
        let ended = shell("echo begun; exec sleep 60", limit, words);
        assert_eq!((ended.status, ended.stdout.as_str()), (None, "begun\n"));
        assert!(ended.took >= limit && ended.took < Duration::from_secs(10));
        assert_eq!(ending(ended.status, Duration::from_secs(7)), "killed after 7 s");
    }
}

#[test]
fn both_outputs_together_stand_in_their_order() {
    let ended = shell("echo a; echo b >&2; echo c", LONG, Words::Together);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("a\nb\nc\n", ""));
}

#[test]
fn of_a_long_output_the_end_is_kept() {
    let ended = shell("yes 0123456789 | head -c 5000000; echo end", LONG, Words::Together);
    assert_eq!(ended.stdout.len(), LIMIT as usize);
    assert!(ended.stdout.ends_with("end\n"), "{:?}", &ended.stdout[ended.stdout.len() - 20..]);
}

#[test]
fn a_program_that_closes_its_output_or_prints_for_ever_is_waited_for_all_the_same() {
    let ended = shell("exec >&- 2>&-; sleep 0.2; exit 4", LONG, Words::Together);
    assert_eq!(ending(ended.status, LONG), "status 4");
    let ended = shell("yes", Duration::from_millis(300), Words::Together);
    assert_eq!(ended.status, None);
    assert!(ended.took < Duration::from_secs(10));
}

#[test]
fn how_a_program_ended_is_said_in_few_words() {
    for (script, expected) in [("exit 0", "status 0"), ("kill -SEGV $$", "SIGSEGV")] {
        assert_eq!(ending(shell(script, LONG, Words::Apart).status, LONG), expected);
    }
}

#[test]
fn what_a_program_left_running_is_killed_unless_it_may_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late");
    let script = format!("(sleep 0.5; echo > {}) & exit 0", file.display());
    shell(&script, LONG, Words::Together);
    std::thread::sleep(Duration::from_millis(900));
    assert!(!file.exists());
    run_ok("/bin/sh", &["-c", &script], LONG).unwrap();
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }
}
