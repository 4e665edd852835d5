//! The real image with real drives in QEMU, asked to write to one of them: what it may write to is blank afterwards, and
//! what it may not is as it was.

mod common;

use common::{cache, folder, gdsboot, image, run_with_status};
use gdsboot::bench::transfer::pattern::Pattern;
use serde_json::Value;
use std::path::{Path, PathBuf};

const BYTES: usize = 512 << 20;

/// What a boot left behind.
struct Booted {
    _keep: tempfile::TempDir,
    folder: PathBuf,
    report: Value,
}

/// Boots with two drives, `gdsboot-512` with data and the blank `gdsboot-4096`, named after their blocks.
fn boot(name: &str, settings: &[(&str, &str)]) -> Booted {
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let mut text = "description = 'two NVMe drives'\nchipset = 'q35'\nfirmware = ['uefi']\ndisk = 'virtio-blk'\ncpus = 2\n\
                    memory-mib = 2048\n\
                    [[drive]]\nserial = 'gdsboot-512'\nsize-mib = 512\n\
                    [[drive]]\nserial = 'gdsboot-4096'\nsize-mib = 512\nblock = 4096\nholds = 'nothing'\n\
                    [fw-cfg]\n'opt/gdsboot/bench_seconds' = '0.5'\n"
        .to_owned();
    for (key, value) in settings {
        text += &format!("'opt/gdsboot/{key}' = '{value}'\n");
    }
    let machine = keep.path().join(format!("{name}.toml"));
    std::fs::write(&machine, text).unwrap();
    let image = image();
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("smoke").arg(&image.path).arg("--lock").arg(&image.lock);
    command.args(["--json", "--timeout-scale", "2", "--machine"]).arg(machine);
    command.arg("--keep").arg(keep.path().join("boots"));
    let output = run_with_status(&mut command, 2);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let boot = &summary["boots"][0];
    let folder = PathBuf::from(boot["kept"].as_str().unwrap());
    Booted { _keep: keep, folder, report: boot["reported"]["report"].clone() }
}

impl Booted {
    fn drive(&self, number: usize) -> Vec<u8> {
        std::fs::read(self.folder.join(format!("data{number}.img"))).unwrap()
    }

    /// The drive with data holds what it held.
    fn data_is_untouched(&self) {
        let data = self.drive(0);
        assert_eq!((data.len(), Pattern { seed: 0 }.check(&data, 0)), (BYTES, Ok(())));
    }

    fn is_blank(&self, number: usize) {
        assert!(self.drive(number).iter().all(|byte| *byte == 0), "drive {number} is not blank");
    }

    fn level_of_the_file(&self) -> &str {
        let drives = self.report["benchmark"]["drives"].as_array().unwrap();
        let files = |drive: &&Value| drive["name"].as_str().unwrap().starts_with("a file on nvme");
        drives.iter().find(files).unwrap_or_else(|| panic!("{:#}", self.report["benchmark"]))["level"]
            .as_str()
            .unwrap()
    }

    /// It was filled, and the run says what became of the disk.
    fn was_written(&self, words: &str) {
        let bench = &self.report["benchmark"];
        assert_eq!(self.report["problems"], Value::Array(vec![]), "{:#}", self.report["problems"]);
        let steps: Vec<&str> =
            bench["steps"].as_array().unwrap().iter().map(|step| step["what"].as_str().unwrap()).collect();
        assert!(steps.iter().any(|step| step.starts_with("fill a file on nvme")), "{steps:?}");
        assert!(steps.last().unwrap().contains(words), "{steps:?}");
        let failed = |measured: &&Value| !measured["first_error"].is_null();
        assert!(!bench["measurements"].as_array().unwrap().iter().any(|one| failed(&one)), "{bench:#}");
    }
}

fn console(folder: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.join("console.log")).unwrap()).into_owned()
}

#[test]
fn a_blank_drive_is_written_and_is_blank_again() {
    let booted = boot("blank", &[("scratch_serial", "gdsboot-4096")]);
    assert_eq!(booted.level_of_the_file(), "blank");
    booted.was_written("(gdsboot-4096) is blank");
    booted.is_blank(1);
    booted.data_is_untouched();
}

#[test]
fn a_wrong_consent_changes_nothing() {
    let wrong = [("scratch_serial", "gdsboot-512"), ("wipe", "I-UNDERSTAND-gdsboot-5")];
    let cases: [(&[_], &str); 2] = [
        (&wrong, "does not consent to wiping the disk gdsboot-512"),
        (&wrong[..1], "it holds data of an unknown kind"),
    ];
    for (settings, said) in cases {
        let booted = boot("wrong", settings);
        let not_done = &booted.report["benchmark"]["not_done"];
        assert!(not_done.to_string().contains(said), "{not_done:#}");
        booted.data_is_untouched();
        booted.is_blank(1);
    }
}

#[test]
fn a_consent_gives_up_the_data_of_that_drive_alone() {
    let consent = [("scratch_serial", "gdsboot-512"), ("wipe", "I-UNDERSTAND-gdsboot-512")];
    let booted = boot("consent", &consent);
    assert_eq!(booted.level_of_the_file(), "wiped");
    booted.was_written("(gdsboot-512) is blank");
    let said = console(&booted.folder);
    for left in 1..=10 {
        assert!(said.contains(&format!("IN {left} s. It holds: data of an unknown kind.")), "{left}: {said}");
    }
    booted.is_blank(0);
    booted.is_blank(1);
}
