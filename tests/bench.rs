//! `gdsboot-validator bench`, as its users run it: real files, past the page cache.

mod simulated;

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;

/// On a filesystem with O_DIRECT, which a temporary folder in memory is not.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"));
    command.arg("bench");
    command
}

/// What it prints, whose figures are those that its raw samples give.
fn printed(command: &mut Command) -> Value {
    let output = command.arg("--json").assert().code(2);
    let bytes = &output.get_output().stdout;
    let dir = folder();
    let path = dir.path().join("printed.json");
    fs_err::write(&path, bytes).unwrap();
    let said = recompute(&path, 0);
    assert!(said.ends_with("measurements are what their raw samples give\n"), "{said}");
    serde_json::from_slice(bytes).unwrap()
}

fn recompute(path: &Path, status: i32) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gdsboot")).arg("recompute").arg(path).assert().code(status);
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

/// The measurements of drives alone whose figures count.
fn measurements(command: &mut Command) -> Vec<Value> {
    let printed = printed(command);
    let all = printed["results"]["measurements"].as_array().unwrap().iter();
    let all: Vec<Value> = all.filter(|m| m["purpose"] == "figures").cloned().collect();
    for m in &all {
        let figure = |name: &str| m["figures"][name].as_f64().unwrap();
        assert!(figure("gib_per_second") > 0.0 && figure("p50_us") <= figure("p99_us"), "{m:#}");
        assert_eq!(m["errors"], 0, "{m:#}");
    }
    all
}

#[test]
fn a_file_is_read_and_stays_as_it_was() {
    let dir = folder();
    let path = dir.path().join("data");
    let bytes: Vec<u8> = (0..32_u32 << 20).map(|n| (n >> 12) as u8).collect();
    fs_err::write(&path, &bytes).unwrap();
    let mut command = bench();
    command.arg("--storage-only").arg("--file").arg(&path);
    command.args(["--job", "read,sequential,1M,2x4,0.3s", "--job", "read,random,4K,1x8,0.3s"]);
    let measured = measurements(&mut command);
    assert_eq!(measured.len(), 2);
    assert!(measured[1]["figures"]["iops"].as_f64().unwrap() > 1.0);
    assert!(fs_err::read(&path).unwrap() == bytes);
}

#[test]
fn a_temporary_file_is_written_and_read_and_gone() {
    let dir = folder();
    let mut command = bench();
    command.arg("--storage-only").arg("--scratch").arg(dir.path()).args(["--scratch-size", "32M"]);
    command.args(["--job", "write,random,64K,2x2,0.3s", "--job", "read,random,64K,2x2,0.3s"]);
    assert_eq!(measurements(&mut command).len(), 2);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_table_has_80_columns() {
    let dir = folder();
    let mut command = bench();
    command.arg("--storage-only").arg("--scratch").arg(dir.path()).args(["--scratch-size", "8M"]);
    let output = command.args(["--job", "write,sequential,1M,1x4,0.2s"]).assert().code(2);
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(text.contains("write sequential 1 MiB, 1 x 4"), "{text}");
    let long: Vec<_> = text.lines().filter(|line| !line.contains('/') && line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:?}");
}

/// Each step with figures, proofs, and at the end a verdict; imitations are named for what they are.
#[test]
fn with_libraries_from_a_folder_routes_are_proven() {
    let dir = folder();
    let libraries = dir.path().join("libraries");
    simulated::put_into(&libraries);
    fs_err::write(libraries.join("gdsboot-simulated.conf"), "route=p2pdma\n").unwrap();
    let workloads = dir.path().join("x.toml");
    let table = "[[workload]]\nname = 'copy'\ncommand = ['copy', '{file}']\nexpect = '^8192$'\n";
    fs_err::write(&workloads, table).unwrap();
    let program = dir.path().join("workloads/copy");
    fs_err::create_dir(program.parent().unwrap()).unwrap();
    fs_err::write(&program, "#!/bin/sh\nhead -c 8192 \"$1\" | wc -c\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&program, executable).unwrap();
    let mut command = bench();
    command.arg("--library-path").arg(&libraries);
    command.arg("--scratch").arg(dir.path()).args(["--scratch-size", "64M", "--seconds", "0.2"]);
    command.arg("--workloads").arg(&workloads);
    let output = command.assert().code(2);
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["bounce", "cuFile", "DIRECT by p2pdma", "imitate NVIDIA's", "INCOMPLETE", "copy: status 0"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let printed = printed(&mut command);
    assert_eq!((&printed["v"], &printed["results"]["simulated"]), (&2.into(), &true.into()));
    assert_eq!(printed["results"]["pairs"][0]["attempts"].as_array().unwrap().len(), 4);
    assert_eq!(printed["results"]["workloads"][0]["passed"], true, "{printed:#}");
    // A figure that was made better is found.
    let mut better = printed;
    let rate = &mut better["results"]["measurements"][3]["figures"]["gib_per_second"];
    *rate = (rate.as_f64().unwrap() * 2.0).into();
    let path = dir.path().join("better.json");
    fs_err::write(&path, better.to_string()).unwrap();
    let said = recompute(&path, 1);
    assert!(said.contains("figures.gib_per_second is "), "{said}");
    assert!(said.contains("1 things in "), "{said}");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let dir = folder();
    let mut command = bench();
    command.args(["--dry-run", "--storage-only", "--scratch"]).arg(dir.path()).args(["--scratch-size", "8M"]);
    let output = command.assert().code(2);
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(text.starts_with("0 GPUs, 1 drive, some "), "{text}");
    assert!(text.contains(" s  fill a temporary file in "), "{text}");
}

#[test]
fn mistakes_are_usage_errors_with_a_hint() {
    let dir = folder();
    let path = dir.path().join("data");
    fs_err::write(&path, [0; 8192]).unwrap();
    let data = path.to_str().unwrap();
    let missing = dir.path().join("missing");
    for (args, said) in [
        (vec!["--file", missing.to_str().unwrap()], "No such file or directory"),
        (vec!["--file", "/dev/null"], "neither a block device nor a file"),
        (vec!["--file", data, "--job", "read"], "has 1 words"),
        (vec!["--file", data, "--job", "write,random,4K,1x1,1s"], "is opened for reading alone"),
        (vec!["--file", data, "--job", "read,random,1M,1x1,1s"], "too few for 1 threads"),
        (vec!["--file", data, "--job", "read,random,1000,1x1,1s"], "a multiple of 512"),
        (vec!["--file", data, "--workloads", data], "reading workloads from"),
        (vec!["--file", data, "--workloads", missing.to_str().unwrap()], "No such file or directory"),
        (vec!["--file", data, "--seconds", "0"], "--seconds is not above 0"),
        (vec!["--disk", "sda"], "is no NVMe namespace"),
        (vec!["--disk", "nvme0n1/../sda"], "is no NVMe namespace"),
        (vec!["--scratch", data], "making a temporary file"),
        (vec!["--scratch", dir.path().to_str().unwrap(), "--scratch-size", "lots"], "is no size"),
        (vec!["--scratch", dir.path().to_str().unwrap(), "--scratch-size", "9999T"], "more than half"),
    ] {
        let output = bench().arg("--storage-only").args(&args).assert().code(64);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.contains(said) && stderr.contains("hint: "), "{args:?}: {stderr}");
    }
    assert!(!Path::new(&missing).exists());
    assert_eq!(fs_err::read(&path).unwrap(), [0; 8192]);
}
