//! `gdsboot-validator bench`, as its users run it: real files, past the page cache.

use assert_cmd::Command;
use gdsboot::bench::transfer::measurement::{Figures, Samples};
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

/// The jobs of the first target, each with figures that its raw samples give.
fn jobs(command: &mut Command) -> Vec<Value> {
    let output = command.arg("--json").assert().code(2);
    let results: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let jobs = results["targets"][0]["jobs"].as_array().unwrap().clone();
    for job in &jobs {
        let samples: Samples = serde_json::from_value(job["samples"].clone()).unwrap();
        let figures: Figures = serde_json::from_value(job["figures"].clone()).unwrap();
        assert_eq!(samples.figures(), figures);
        assert!(figures.gib_per_second > 0.0 && figures.p50_us <= figures.p99_us, "{job:#}");
        assert_eq!(samples.error_count, 0, "{job:#}");
    }
    jobs
}

#[test]
fn a_file_is_read_and_stays_as_it_was() {
    let dir = folder();
    let path = dir.path().join("data");
    let bytes: Vec<u8> = (0..32_u32 << 20).map(|n| (n >> 12) as u8).collect();
    fs_err::write(&path, &bytes).unwrap();
    let mut command = bench();
    command.arg("--file").arg(&path);
    command.args(["--job", "read,sequential,1M,2x4,0.3s", "--job", "read,random,4K,1x8,0.3s"]);
    let jobs = jobs(&mut command);
    assert_eq!(jobs.len(), 2);
    assert!(jobs[1]["figures"]["iops"].as_f64().unwrap() > 1.0);
    assert!(fs_err::read(&path).unwrap() == bytes);
}

#[test]
fn a_temporary_file_is_written_and_read_and_gone() {
    let dir = folder();
    let mut command = bench();
    command.arg("--scratch").arg(dir.path()).args(["--scratch-size", "32M"]);
    command.args(["--job", "write,random,64K,2x2,0.3s", "--job", "read,random,64K,2x2,0.3s"]);
    assert_eq!(jobs(&mut command).len(), 2);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_table_has_80_columns() {
    let dir = folder();
    let mut command = bench();
    command.arg("--scratch").arg(dir.path()).args(["--scratch-size", "8M"]);
    let output = command.args(["--job", "write,sequential,1M,1x4,0.2s"]).assert().code(2);
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(text.contains("write sequential 1 MiB, 1 x 4"), "{text}");
    let long: Vec<_> = text.lines().filter(|line| !line.contains('/') && line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:?}");
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
        (vec!["--disk", "sda"], "is no NVMe namespace"),
        (vec!["--disk", "nvme0n1/../sda"], "is no NVMe namespace"),
        (vec!["--scratch", data], "making a temporary file"),
        (vec!["--scratch", dir.path().to_str().unwrap(), "--scratch-size", "lots"], "is no size"),
        (vec!["--scratch", dir.path().to_str().unwrap(), "--scratch-size", "9999T"], "more than half"),
    ] {
        let output = bench().args(&args).assert().code(64);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.contains(said) && stderr.contains("hint: "), "{args:?}: {stderr}");
    }
    assert!(!Path::new(&missing).exists());
    assert_eq!(fs_err::read(&path).unwrap(), [0; 8192]);
}
