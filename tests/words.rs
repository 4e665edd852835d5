//! What NVIDIA's programs say on machines that stop them, in their own words: the parsers understand all of it, and the
//! checks draw the right conclusions. `tests/words/README.md` tells how the words are renewed.

mod common;

use common::words::{self, MACHINES};
use gdsboot::checks::check::{Finding, Status};
use gdsboot::checks::context::side_of;
use gdsboot::checks::judge::judge;
use gdsboot::facts::nvidia_smi::NvidiaSmi;
use gdsboot::facts::{Facts, Root};
use std::collections::BTreeSet;
use std::path::Path;

fn findings(root: &Path) -> Vec<Finding> {
    let facts = Facts::read(&Root::at(root));
    judge(&facts, side_of(&facts), None, &[], "2026-12-01").findings
}

fn with(findings: &[Finding], status: Status) -> BTreeSet<&str> {
    findings.iter().filter(|finding| finding.status == status).map(|finding| finding.id.as_str()).collect()
}

fn finding<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.id == id).unwrap()
}

/// Those of a machine's words that stand in folders or files of these names.
fn only(machine: &str, names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in words::kept(machine) {
        if names.iter().any(|name| path.contains(name)) {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        }
    }
    root
}

/// What is no complaint that is known would be lost.
#[test]
fn every_line_is_a_complaint_that_is_known() {
    for machine in MACHINES {
        let facts = Facts::read(&Root::at(words::folder(machine)));
        let commands = facts.commands.value().unwrap();
        let programs: Vec<&str> = commands.iter().map(|command| command.program()).collect();
        assert_eq!(programs, ["gdscheck", "nvidia-smi", "nvidia-smi", "nvidia-smi"], "{machine}");
        let smi = facts.nvidia_smi.value().unwrap();
        let gdscheck = facts.gdscheck.value().unwrap();
        for command in commands {
            let known = if command.program() == "gdscheck" { &gdscheck.errors } else { &smi.errors };
            let said = command.stdout.iter().chain(&command.stderr).map(|line| line.trim());
            let said: Vec<&str> = said.filter(|line| !line.is_empty()).collect();
            assert!(!said.is_empty(), "{machine}: {}", command.from);
            for line in said {
                assert!(known.iter().any(|complaint| complaint == line), "{machine}: {line:?}");
            }
            assert!(command.status.value().is_some_and(|status| *status != 0), "{machine}: {command:?}");
        }
        // And nothing is read into them.
        let complaints =
            NvidiaSmi { from: smi.from.clone(), errors: smi.errors.clone(), ..NvidiaSmi::default() };
        assert_eq!(*smi, complaints, "{machine}");
        assert!(!gdscheck.looked(), "{machine}: {gdscheck:?}");
    }
}

/// One cause each, from which all else follows.
#[test]
fn the_words_alone_name_the_cause() {
    let nothing = tempfile::tempdir().unwrap();
    let nothing = findings(nothing.path());
    for machine in MACHINES {
        let cause = if machine == "switch" { "driver.rm-init" } else { "driver.loaded" };
        let all = findings(&words::folder(machine));
        let failed = &with(&all, Status::Fail) - &with(&nothing, Status::Fail);
        assert_eq!(failed, BTreeSet::from([cause]), "{machine}");
        for id in ["driver.cuda", "driver.userland", "driver.uvm", "gds.platform", "gds.errors"] {
            let found = finding(&all, id);
            assert_eq!(
                (found.status, found.because.as_deref()),
                (Status::Skip, Some(cause)),
                "{machine}: {id}"
            );
        }
        let word = if machine == "switch" { "No devices were found" } else { "couldn't communicate" };
        let evidence = &finding(&all, cause).evidence;
        assert!(evidence.iter().any(|evidence| evidence.text.contains(word)), "{machine}: {evidence:#?}");
    }
}

/// gdscheck has no opinion of what it did not come to.
#[test]
fn a_program_that_failed_proves_nothing_good() {
    let nothing = tempfile::tempdir().unwrap();
    let nothing = findings(nothing.path());
    for machine in MACHINES {
        let all = findings(&words::folder(machine));
        let passed = &with(&all, Status::Pass) - &with(&nothing, Status::Pass);
        // cuFile's log is there, so that it could be written.
        let logged = words::kept(machine).contains_key("tmp/cufile.log");
        let expected = if logged { BTreeSet::from(["cufile.logging"]) } else { BTreeSet::new() };
        assert_eq!(passed, expected, "{machine}");
    }
}

#[test]
fn gdscheck_alone_says_that_cuda_does_not_start() {
    for (machine, word) in [("no-gpu", "CUDA_ERROR_NO_DEVICE"), ("switch", "CUDA_ERROR_UNKNOWN")] {
        for names in [&["gdscheck"][..], &["cufile.log", "gdscheck"]] {
            let all = findings(only(machine, names).path());
            let cuda = finding(&all, "driver.cuda");
            assert_eq!(cuda.status, Status::Fail, "{machine}: {cuda:#?}");
            assert!(
                cuda.evidence.iter().any(|evidence| evidence.text.contains(word)),
                "{machine}: {cuda:#?}"
            );
            for id in ["gds.platform", "gds.errors"] {
                let found = finding(&all, id);
                assert_eq!(found.because.as_deref(), Some("driver.cuda"), "{machine}: {found:#?}");
            }
        }
    }
}

/// The words are public: no place of the host that captured them.
#[test]
fn the_words_hold_nothing_of_the_host_that_captured_them() {
    for machine in MACHINES {
        let words = words::kept(machine);
        assert!(!words.is_empty(), "{machine}");
        for (path, bytes) in words {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.len() < 4096, "{machine}: {path}");
            for word in ["http", "/home/", "/work/", "/root/", ".cache", "UUID", "GPU-"] {
                assert!(!text.contains(word), "{machine}: {path}: {word}");
            }
        }
    }
}
