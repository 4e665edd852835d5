use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

/// A workload that is a line of shell, with further keys.
fn shell(script: &str, keys: &str) -> Workload {
    let text = format!("[[workload]]\nname = \"w\"\ncommand = ['/bin/sh', '-c', '''{script}''']\n{keys}");
    let (workloads, complaints) = config::parse(&text.parse().unwrap());
    assert_eq!(complaints, Vec::<String>::new());
    workloads.into_iter().next().unwrap()
}

fn ran(script: &str, keys: &str) -> WorkloadResult {
    run(&shell(script, keys), &Available::default(), None, &[])
}

#[test]
fn each_part_of_a_rule_is_kept_or_broken_with_numbers() {
    const FIGURE: &str = "figure = 'in ([^ ]+) s'\nunit = 's'\n";
    for (script, keys, passed, why, figure) in [
        ("true", "", true, "status 0", None),
        ("exit 3", "", false, "status 3 is not 0", None),
        ("exit 3", "status = 3", true, "status 3", None),
        ("true", "status = 3", false, "status 0 is not 3", None),
        ("kill -SEGV $$", "", false, "it crashed with SIGSEGV", None),
        ("echo we are ready now", "expect = 'r..dy'", true, "status 0, expect matches", None),
        ("echo a; echo ready; echo b", "expect = '^ready$'", true, "status 0, expect matches", None),
        ("printf 'ready\\r\\n'", "expect = '^ready$'", true, "status 0, expect matches", None),
        ("echo ready >&2", "expect = 'ready'", true, "status 0, expect matches", None),
        ("echo not yet", "expect = 'ready'", false, "nothing matches expect \"ready\"", None),
        ("echo in 2.5 s", FIGURE, true, "status 0, 2.5 s", Some(2.5)),
        (
            "echo in 9 s; echo in 2.5 s",
            &format!("{FIGURE}at_most = 3"),
            true,
            "status 0, 2.5 s is at most 3 s",
            Some(2.5),
        ),
        (
            "echo in 2.5 s; echo in 9 s",
            &format!("{FIGURE}at_most = 3"),
            false,
            "9 s is above at_most 3 s",
            Some(9.0),
        ),
        ("echo in 3 s", &format!("{FIGURE}at_most = 3"), true, "status 0, 3 s is at most 3 s", Some(3.0)),
        ("echo in 3 s", &format!("{FIGURE}at_least = 3"), true, "status 0, 3 s is at least 3 s", Some(3.0)),
        ("echo in 2.9 s", &format!("{FIGURE}at_least = 3"), false, "2.9 s is below at_least 3 s", Some(2.9)),
        (
            "echo in 4 s",
            &format!("{FIGURE}at_least = 3\nat_most = 5"),
            true,
            "status 0, 4 s is from 3 to 5 s",
            Some(4.0),
        ),
        (
            "echo in 6 s",
            &format!("{FIGURE}at_least = 3\nat_most = 5"),
            false,
            "6 s is above at_most 5 s",
            Some(6.0),
        ),
        ("echo in -1e3 s", FIGURE, true, "status 0, -1000 s", Some(-1000.0)),
        ("echo in some s", FIGURE, false, "the last match of figure is \"some\", which is no number", None),
        ("echo in nan s", FIGURE, false, "the last match of figure is \"nan\", which is no number", None),
        ("echo soon", FIGURE, false, "nothing matches figure \"in ([^ ]+) s\"", None),
        ("echo 7", "figure = '([0-9]+)'\nat_least = 8", false, "7 is below at_least 8", Some(7.0)),
        (
            "echo in 7 s; exit 1",
            &format!("{FIGURE}at_most = 3\nexpect = 'ready'"),
            false,
            "status 1 is not 0; nothing matches expect \"ready\"; 7 s is above at_most 3 s",
            Some(7.0),
        ),
    ] {
        let result = ran(script, keys);
        assert_eq!((result.passed, result.why.as_str(), result.figure), (passed, why, figure), "{script}");
        assert!(result.ran && result.seconds > 0.0, "{script}");
        assert_eq!(result.unit.is_some(), keys.contains("unit"));
    }
}

#[test]
fn a_workload_that_hangs_is_killed_with_all_that_it_started() {
    let begun = Instant::now();
    let result =
        ran("sleep 60 & echo in 5 s; sleep 60", "timeout_s = 1\nfigure = 'in ([0-9]+)'\nat_most = 9");
    assert_eq!((result.ran, result.passed), (true, false));
    assert_eq!(result.why, "killed after 1 s (timeout_s)");
    assert_eq!((result.figure, result.output.as_str()), (Some(5.0), "in 5 s\n"));
    assert!(result.seconds >= 1.0 && begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn of_a_long_output_the_last_4_kib_are_kept_and_more_is_judged() {
    let result = ran(
        "echo in 7 s; i=0; while [ $i -lt 1000 ]; do echo \u{e9}\u{e9}\u{e9}\u{e9}$i; i=$((i+1)); done",
        "figure = 'in ([0-9]+) s'",
    );
    assert_eq!((result.passed, result.figure), (true, Some(7.0)));
    assert!(result.output.len() <= 4096 && result.output.len() > 4090, "{}", result.output.len());
    assert!(result.output.ends_with("\u{e9}999\n"));
}

#[test]
fn placeholders_stand_for_what_there_is() {
    let available = Available {
        file: Some("/mnt/a b".into()),
        files: vec!["/mnt/a b".into(), "/mnt/{gpu}".into()],
        folder: Some("/mnt".into()),
        gpu: Some(1),
        gpus: vec![0, 1],
    };
    let filled = |word: &str| fill(&[word.to_owned()], &available).unwrap();
    for (word, expected) in [
        ("{file}", &["/mnt/a b"][..]),
        ("--file={file}", &["--file=/mnt/a b"]),
        // What a value holds is no placeholder.
        ("{files}", &["/mnt/a b", "/mnt/{gpu}"]),
        ("--files={files}", &["--files=/mnt/a b,/mnt/{gpu}"]),
        ("{folder}/x{gpu}", &["/mnt/x1"]),
        ("{gpus}", &["0,1"]),
        ("{{gpu}}", &["{1}"]),
        ("{print $1} {GPU} {gpu", &["{print $1} {GPU} {gpu"]),
        ("\u{e9}{\u{e9}}", &["\u{e9}{\u{e9}}"]),
    ] {
        assert_eq!(filled(word), expected);
    }
    let mut workload = shell("echo $0 $1 $CUDA_DEVICE_ORDER $A; pwd", "");
    workload.command.extend(["{gpu}".into(), "{folder}".into()]);
    let result = run(&workload, &available, None, &[("A", "b c")]);
    assert!(result.output.starts_with("1 /mnt PCI_BUS_ID b c\n/"), "{}", result.output);
    let line =
        "CUDA_DEVICE_ORDER=PCI_BUS_ID A='b c' /bin/sh -c 'echo $0 $1 $CUDA_DEVICE_ORDER $A; pwd' 1 /mnt";
    assert_eq!(result.command, line);
    // Its folder is gone.
    assert!(!Path::new(result.output.lines().nth(1).unwrap()).exists());
}

#[test]
fn a_placeholder_without_a_value_keeps_the_workload_from_running() {
    for (placeholder, why) in [
        ("{file}", "not run: there is no scratch file, which {file} stands for"),
        ("{files}", "not run: there is no scratch file, which {files} stands for"),
        ("{folder}", "not run: there is no folder on a filesystem that is tested, which {folder} stands for"),
        ("{gpu}", "not run: there is no GPU, which {gpu} stands for"),
        ("{gpus}", "not run: there is no GPU, which {gpus} stands for"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let mut workload = shell(&format!("echo > {}", mark.display()), "");
        workload.command.push(placeholder.into());
        let result = run(&workload, &Available::default(), None, &[]);
        assert_eq!((result.ran, result.passed, result.why.as_str()), (false, false, why));
        assert!(!mark.exists());
    }
    assert_eq!(PLACEHOLDERS.len(), 5);
}

#[test]
fn a_program_is_found_by_its_path_or_among_the_operator_s() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("good", "#!/bin/sh\necho \"$1\"\n", 0o755);
    write("notepad", "#!/bin/sh\r\necho x\r\n", 0o755);
    write("lost", "#!/nonexistent/sh\n", 0o755);
    write("text", "hello\n", 0o755);
    write("closed", "#!/bin/sh\n", 0o644);
    let result = |program: &str, programs: Option<&Path>| {
        let mut workload = shell("", "");
        workload.command = vec![program.into(), "it ran".into()];
        loop {
            let result = run(&workload, &Available::default(), programs, &[]);
            // A child that another test's thread has just forked may still hold the script open.
            if !result.why.contains("Text file busy") {
                return result;
            }
        }
    };
    let folder = Some(dir.path());
    assert_eq!(result("good", folder).output, "it ran\n");
    assert_eq!(result(dir.path().join("good").to_str().unwrap(), None).output, "it ran\n");
    let by_path = "a program of the system is named by its absolute path";
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (program, programs, why) in [
        ("sh", folder, format!("there is no sh among the operator's programs; {by_path}")),
        ("good", None, format!("there is no folder with a program good; {by_path}")),
        ("/nonexistent/x", folder, "there is no program /nonexistent/x".into()),
        (
            "notepad",
            folder,
            format!(
                "{}: its first line ends as lines end on Windows: save it with Unix line ends",
                at("notepad")
            ),
        ),
        ("lost", folder, format!("{}: the interpreter or the loader that it names is not there", at("lost"))),
        ("text", folder, format!("{}: it is neither a program nor a script that begins with #!", at("text"))),
        (
            "closed",
            folder,
            format!("{}: it may not be executed, or its filesystem is mounted noexec", at("closed")),
        ),
    ] {
        let result = result(program, programs);
        assert_eq!((result.ran, result.why), (false, format!("not run: {why}")), "{program}");
    }
}
