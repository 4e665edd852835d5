//! gdsboot-validator as a plain command, and gdsboot-dma, as their users run them.

use assert_cmd::Command;
use gdsboot::facts::dma::DmaProbe;
use gdsboot::facts::{Fact, Facts};
use std::path::Path;

fn validator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"))
}

fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

#[test]
fn facts_of_a_captured_machine_are_that_machines() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "proc/sys/kernel/osrelease", "4.15.0-captured\n");
    file(dir.path(), "sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    file(dir.path(), "sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n");
    let output = validator().args(["facts", "--json", "--root"]).arg(dir.path()).assert().success();
    let facts: Facts = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(facts.kernel.release.value().unwrap(), "4.15.0-captured");
    assert!(facts.pci.value().unwrap()[0].is_nvidia_gpu());
    assert!(matches!(facts.cpu, Fact::Missing { .. }));
    let output = validator().args(["facts", "--root"]).arg(dir.path()).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(
        text.contains("4.15.0-captured") && text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn this_machine_can_be_read_by_anyone() {
    let output = validator().args(["facts", "--json"]).assert().success();
    let facts: Facts = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let release = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(facts.kernel.release.value().unwrap(), release.trim());
    assert!(facts.memory.value().unwrap().total > 0);
}

#[test]
fn a_root_that_is_no_folder_is_a_usage_error_with_a_hint() {
    let output = validator().args(["facts", "--root", "/nonexistent"]).assert().code(64);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        stderr.starts_with("gdsboot-validator: error: reading /nonexistent: not a folder\nhint: "),
        "{stderr}"
    );
}

#[test]
fn libraries_that_are_not_there_or_not_theirs_are_facts() {
    let dir = tempfile::tempdir().unwrap();
    // Any library will do that has none of NVIDIA's functions.
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap();
    let libc = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .find(|path| path.contains("/libc"));
    std::os::unix::fs::symlink(libc.unwrap(), dir.path().join("libcuda.so.1")).unwrap();
    fs_err::write(dir.path().join("libcufile.so.0"), "not a library").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gdsboot-dma"))
        .args(["probe", "--init"])
        .env("LD_LIBRARY_PATH", dir.path())
        .assert()
        .success();
    let probe = DmaProbe::parse(&String::from_utf8_lossy(&output.get_output().stdout)).unwrap();
    let cuda = probe.library("libcuda.so.1").unwrap();
    assert!(cuda.is_loaded());
    let calls: Vec<_> = cuda.calls.iter().map(|call| (call.function.as_str(), call.status)).collect();
    assert_eq!(calls, [("cuDriverGetVersion", None), ("cuInit", None)]);
    let cufile = probe.library("libcufile.so.0").unwrap();
    assert!(!cufile.is_loaded() && cufile.calls.is_empty());
}
