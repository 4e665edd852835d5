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

#[test]
fn a_capture_of_this_machine_reads_back_as_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("machine.tar.zst");
    validator().arg("capture").arg(&file).arg("--hash-serials").assert().success();
    validator().arg("capture").arg(&file).assert().code(64);
    let facts = |root: &[&std::ffi::OsStr]| -> Facts {
        let output = validator().args(["facts", "--json"]).args(root).assert().success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    };
    let (here, there) = (facts(&[]), facts(&["--root".as_ref(), file.as_os_str()]));
    assert_eq!(here.kernel.release, there.kernel.release);
    assert_eq!(here.kernel.config, there.kernel.config);
    assert_eq!(here.kernel.symbols, there.kernel.symbols);
    assert_eq!(here.pci, there.pci);
    assert_eq!(here.modules, there.modules);
    assert_eq!(here.cpu, there.cpu);
    for root in [&[][..], &["--root".as_ref(), file.as_os_str()]] {
        let output = validator().args(["check", "--json"]).args(root).output().unwrap();
        let judgement: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        // There is no GPU here, and nothing was transferred.
        assert_eq!((judgement["verdict"].as_str(), output.status.code()), (Some("INCOMPLETE"), Some(2)));
    }
}

#[test]
fn captures_that_are_none_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.tar.zst");
    let mut evil = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    evil.append_link(&mut header, "sys", "/tmp").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    evil.append_data(&mut header, "sys/gdsboot-must-not-exist", &b"x\n"[..]).unwrap();
    let evil = zstd::encode_all(&evil.into_inner().unwrap()[..], 1).unwrap();
    for bytes in [&b"no archive"[..], &evil, &zstd::encode_all(&[][..], 1).unwrap()] {
        fs_err::write(&file, bytes).unwrap();
        validator().args(["check", "--root"]).arg(&file).assert().code(64);
    }
    assert!(!Path::new("/tmp/gdsboot-must-not-exist").exists());
}

#[test]
fn facts_are_judged_again_without_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("facts.json");
    let facts = validator().args(["facts", "--json"]).output().unwrap().stdout;
    fs_err::write(&file, &facts).unwrap();
    let again = validator().args(["judge", "--json"]).arg(&file).output().unwrap();
    let once = validator().args(["check", "--json"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&once.stdout));
    fs_err::write(&file, "{}").unwrap();
    let output = validator().arg("judge").arg(&file).assert().code(64);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("these are no facts"));
}

#[test]
fn what_check_prints_fits_the_published_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let schema = fs_err::read(folder.join("check.schema.json")).unwrap();
    let schema = jsonschema::draft202012::new(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let output = validator().args(["check", "--json"]).output().unwrap();
    let judgement: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let complaints: Vec<String> = schema.iter_errors(&judgement).map(|error| error.to_string()).collect();
    assert_eq!(complaints, [""; 0]);
}

#[test]
fn every_check_is_listed_and_explained() {
    let output = validator().arg("list").assert().success();
    let list = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    for line in list.lines() {
        let id = line.split_whitespace().next().unwrap();
        let output = validator().args(["explain", id]).assert().success();
        assert!(String::from_utf8_lossy(&output.get_output().stdout).starts_with(id));
    }
    validator().args(["explain", "nope.nope"]).assert().code(64);
}

#[test]
fn a_waived_failure_is_shown_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let waive = dir.path().join("w.toml");
    let text = "[[waive]]\nid = \"gpu.present\"\nuntil = \"2999-01-01\"\nby = \"A. Operator\"\nwhy = \"it comes on Monday\"\n";
    fs_err::write(&waive, text).unwrap();
    fs_err::create_dir_all(dir.path().join("machine/sys/bus/pci/devices")).unwrap();
    let check = || {
        let mut command = validator();
        command
            .args(["check", "--json", "--root"])
            .arg(dir.path().join("machine"))
            .arg("--waive")
            .arg(&waive);
        command
    };
    let output = check().assert().code(2);
    let judgement: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let finding =
        judgement["findings"].as_array().unwrap().iter().find(|f| f["id"] == "gpu.present").unwrap();
    assert_eq!(finding["status"], "waived");
    assert!(finding["why"].as_str().unwrap().contains("A. Operator (it comes on Monday)"), "{finding}");
    fs_err::write(&waive, text.replace("gpu.present", "gpu.presnet")).unwrap();
    let output = check().assert().code(64);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("there is no check \"gpu.presnet\"") && said.contains("hint: "), "{said}");
}
