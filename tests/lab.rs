//! The lab: every machine that gdsboot brings boots the image that a user gets, with the real drivers, and reports what its
//! file says, also where something goes wrong meanwhile; a machine that was changed does not.
//!
//! `cargo test --test lab -- --ignored` boots all of them with the image of debian-12 as well.

mod common;

use common::{
    Image, OLD_PROFILE, PROFILE, cache, folder, gdsboot, image, image_of, run, run_with_status, stderr,
    stdout, words,
};
use gdsboot::smoke::machine::Machine;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn smoke(machines: &[&str], keep: &Path, status: i32) -> (Value, String) {
    smoke_with(image(), &[], machines, keep, status)
}

fn smoke_with(
    booted: &Image,
    options: &[&str],
    machines: &[&str],
    keep: &Path,
    status: i32,
) -> (Value, String) {
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("smoke").arg(&booted.path);
    command
        .arg("--lock")
        .arg(&booted.lock)
        .args(["--json", "--timeout-scale", "2", "--keep"])
        .arg(keep)
        .args(options);
    command.arg("--machine").args(machines);
    let output = run_with_status(&mut command, status);
    (serde_json::from_slice(stdout(&output).as_bytes()).unwrap(), stderr(&output))
}

/// What a machine file expects of the test image: findings with their status, and pairs with what they are called.
fn expected(name: &str) -> BTreeSet<(String, String)> {
    let expected = Machine::load(name).unwrap().expect.unwrap_or_else(|| panic!("{name} expects nothing"));
    let findings =
        expected.findings.get(PROFILE).unwrap_or_else(|| panic!("{name} says nothing of {PROFILE}"));
    let findings =
        findings.iter().flat_map(|(status, ids)| ids.iter().map(|id| (id.clone(), status.clone())));
    let pairs = expected.pairs;
    findings.chain(pairs).collect()
}

/// What a run must find on one machine it must find on no other. `no-gpu` is what the others are changes of.
#[test]
fn every_machine_expects_something_that_no_other_does() {
    for name in Machine::built_in().filter(|name| *name != "no-gpu") {
        let others: BTreeSet<_> =
            Machine::built_in().filter(|other| *other != name).flat_map(expected).collect();
        let own: Vec<_> = expected(name).difference(&others).cloned().collect();
        println!("{name}: {own:?}");
        assert!(!own.is_empty(), "{name}");
    }
}

#[test]
fn every_machine_reports_what_its_file_says() {
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let (summary, said) = smoke(&["all"], keep.path(), 0);
    let boots = summary["boots"].as_array().unwrap();
    assert!(boots.len() > Machine::built_in().count(), "some are booted by UEFI and by BIOS");
    for boot in boots {
        let name = boot["machine"].as_str().unwrap();
        assert_eq!(boot["differences"], Value::Array(Vec::new()), "{boot:#}\n{said}");
        let report = &boot["reported"]["report"];
        let machine = Machine::load(name).unwrap();
        let has_gpu = !machine.gpus.is_empty();
        let has_pairs = machine.expect.is_some_and(|expected| !expected.pairs.is_empty());
        // Simulation is never mistaken for hardware.
        let text =
            std::fs::read_to_string(Path::new(boot["kept"].as_str().unwrap()).join("report.txt")).unwrap();
        assert_eq!(text.lines().next().unwrap().contains("INCOMPLETE (SIMULATED)"), has_gpu, "{text}");
        // nvidia-fs and the validator find the same distances.
        let distance =
            report["findings"].as_array().unwrap().iter().find(|f| f["id"] == "topology.peer-distance");
        let loaded = report["facts"]["nvidia_fs"]["peers"]["state"] == "known";
        let status = distance.unwrap()["status"].as_str().unwrap();
        assert!(status != "fail" && (!(loaded && has_pairs) || status == "pass"), "{name}: {distance:#?}");
    }
}

/// Drives that fail or are pulled out, a report partition that is full, a power that fails, and so on.
#[test]
fn whatever_goes_wrong_is_reported_as_its_file_says() {
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let (summary, said) = smoke(&["faults"], keep.path(), 0);
    let boots = summary["boots"].as_array().unwrap();
    assert!(boots.len() >= Machine::with_faults().count());
    for boot in boots {
        assert_eq!(boot["differences"], Value::Array(Vec::new()), "{boot:#}\n{said}");
        let notes = boot["notes"].to_string();
        if boot["machine"] == "power-cuts" {
            // All that are named, and one after every single write of a boot.
            assert_eq!(notes.matches("power cut at ").count(), 10, "{notes}");
            let replayed = boot["notes"][0].as_str().unwrap();
            let number: u32 = replayed.split(' ').find_map(|word| word.parse().ok()).unwrap();
            assert!(number > 50 && replayed.ends_with("nothing is lost"), "{replayed}");
        }
        let kept = Path::new(boot["kept"].as_str().unwrap());
        let text = std::fs::read_to_string(kept.join("report.txt")).unwrap();
        let is_title = |line: &str| line.starts_with("gdsboot report ") && line.contains(" INCOMPLETE");
        assert!(text.lines().any(is_title), "{text}");
    }
}

fn debian_12_reports_what_the_files_say(machines: &str) {
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let (summary, said) = smoke_with(old_image(), &[], &[machines], keep.path(), 0);
    for boot in summary["boots"].as_array().unwrap() {
        assert_eq!(boot["differences"], Value::Array(Vec::new()), "{boot:#}\n{said}");
        let report = &boot["reported"]["report"];
        assert!(
            report.is_null() || report["facts"]["image"]["value"]["profile"] == OLD_PROFILE,
            "{report:#}"
        );
    }
}

/// Built once.
fn old_image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| image_of(OLD_PROFILE))
}

#[test]
#[ignore = "the same for the older profile, which takes minutes more; .ci/run asks for it"]
fn every_machine_of_debian_12_reports_what_its_file_says() {
    debian_12_reports_what_the_files_say("all");
}

#[test]
#[ignore = "the same for the older profile, which takes minutes more; .ci/run asks for it"]
fn whatever_goes_wrong_with_debian_12_is_reported_as_its_file_says() {
    debian_12_reports_what_the_files_say("faults");
}

/// What NVIDIA's programs say on machines that stop them in different ways. With `GDSBOOT_BLESS` it is kept anew.
#[test]
fn programs_say_the_words_that_are_kept() {
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let (summary, _) =
        smoke_with(image(), &["--capture", "--firmware", "uefi"], &words::MACHINES, keep.path(), 0);
    let boots = summary["boots"].as_array().unwrap();
    assert_eq!(boots.len(), words::MACHINES.len());
    for boot in boots {
        let name = boot["machine"].as_str().unwrap();
        let capture = Path::new(boot["kept"].as_str().unwrap()).join("capture.tar.zst");
        let said = words::captured(&capture);
        if std::env::var_os("GDSBOOT_BLESS").is_some() {
            words::keep(name, &said);
        }
        assert_eq!(words::steady(&said), words::steady(&words::kept(name)), "{name}");
        // Without a driver they are asked for the capture alone, which changes no finding.
        let mut validator = std::process::Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"));
        let judged = run(validator.args(["check", "--json", "--root"]).arg(&capture));
        let judged: Value = serde_json::from_slice(&judged.stdout).unwrap();
        let findings = |report: &Value| -> Vec<String> {
            let findings = report["findings"].as_array().unwrap().iter();
            findings.map(|finding| format!("{} {}", finding["id"], finding["status"])).collect()
        };
        assert_eq!(findings(&judged), findings(&boot["reported"]["report"]), "{name}");
    }
}

#[test]
fn a_machine_that_was_changed_is_noticed() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let read = |file: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("qemu").join(file)).unwrap()
    };
    let (switches, full) = (read("machines/two-switches.toml"), read("faults/report-full.toml"));
    let changed = |text: &str, name: &str, from: &str, to: &str| -> PathBuf {
        assert!(text.contains(from), "{from}");
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        path
    };
    let drive = "behind = \"lower\"";
    let machines = [
        ("moved", changed(&switches, "moved", drive, "behind = \"upper\""), "pair "),
        (
            "virtual",
            changed(&switches, "virtual", drive, "kind = \"virtio-blk\""),
            "finding nvme.present: expected pass, is fail",
        ),
        (
            "small",
            changed(&switches, "small", "[[gpu]]\n", "[[gpu]]\nbar1 = \"64M\"\n"),
            "finding gpu.bar1-size: expected pass, is fail",
        ),
        (
            "mended",
            changed(&full, "mended", "report-partition = \"full\"\n", ""),
            "report: expected serial-line, found partition",
        ),
    ];
    let paths: Vec<&str> = machines.iter().map(|(_, path, _)| path.to_str().unwrap()).collect();
    let (summary, _) = smoke(&paths, &dir.path().join("kept"), 1);
    for (name, _, difference) in machines {
        let boot = summary["boots"].as_array().unwrap().iter().find(|boot| boot["machine"] == name).unwrap();
        let differences = boot["differences"].as_array().unwrap();
        assert!(
            differences.iter().any(|d| d.as_str().unwrap().starts_with(difference)),
            "{name}: {differences:#?}"
        );
    }
}
