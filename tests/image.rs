//! The real thing: an image of Debian 13 with its real kernel and NVIDIA's real modules is built from the archive that
//! this host's apt uses, booted in QEMU, and its report is read back.

mod common;

use common::{
    Image, as_nobody, build, cache, folder, gdsboot, image, image_of, is_root, run, run_with_status, sha256,
    stderr, stdout, without_network,
};
use gdsboot::progress::Progress;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Boots the test image; the report of each boot.
fn smoke(arguments: &[&str]) -> Vec<Value> {
    smoke_of(image(), arguments)
}

fn smoke_of(image: &Image, arguments: &[&str]) -> Vec<Value> {
    let keep = tempfile::tempdir_in(folder()).unwrap();
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("smoke").arg(&image.path).arg("--lock").arg(&image.lock);
    command.args(["--json", "--capture", "--timeout-scale", "2", "--keep"]).arg(keep.path()).args(arguments);
    // A machine that was changed is not compared with what its file expects.
    let status = if arguments.contains(&"--disk") { 2 } else { 0 };
    let output = run_with_status(&mut command, status);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let boots = summary["boots"].as_array().unwrap().clone();
    for boot in &boots {
        check_capture(boot, image.profile == common::PROFILE);
    }
    boots
}

/// The capture that a boot left is judged elsewhere as the boot judged its machine. With `GDSBOOT_BLESS` it renews the
/// one in `tests/captures`.
fn check_capture(boot: &Value, bless: bool) {
    let kept = Path::new(boot["kept"].as_str().unwrap());
    let capture = kept.join("capture.tar.zst");
    let validator = env!("CARGO_BIN_EXE_gdsboot-validator");
    let mut command = std::process::Command::new(validator);
    let output = run(command.args(["check", "--json", "--root"]).arg(&capture));
    let judgement: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{}: {error}: {}", capture.display(), stderr(&output)));
    let findings = |value: &Value| -> Vec<String> {
        let words = |finding: &Value| format!("{} {}", finding["id"], finding["status"]);
        value["findings"].as_array().unwrap().iter().map(words).collect()
    };
    assert_eq!(findings(&judgement), findings(report(boot)), "{}", kept.display());
    let bytes = std::fs::metadata(&capture).unwrap().len();
    assert!(bytes < 1_000_000, "{}: {bytes} bytes", capture.display());
    let name = format!("{}.tar.zst", kept.file_name().unwrap().to_str().unwrap());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name);
    if bless && committed.exists() && std::env::var_os("GDSBOOT_BLESS").is_some() {
        std::fs::copy(&capture, &committed).unwrap();
    }
}

fn report(boot: &Value) -> &Value {
    &boot["reported"]["report"]
}

/// What a boot without a GPU must say, whatever it was booted from.
fn check_report(boot: &Value) {
    let report = report(boot);
    assert_eq!(report["verdict"], "INCOMPLETE", "{boot:#}");
    assert_eq!(report["complete"], true);
    assert_eq!(report["route"], "none");
    let text = report.to_string();
    // The module was accepted by this kernel: it ran, and found no GPU.
    assert!(text.contains("NVRM: No NVIDIA GPU found"), "{report:#}");
    assert!(!text.contains("disagrees about version") && !text.contains("Unknown symbol"), "{report:#}");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let schema = serde_json::from_slice(&fs_err::read(schema).unwrap()).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let complaints: Vec<String> = schema.iter_errors(report).map(|error| error.to_string()).collect();
    assert_eq!(complaints, [""; 0]);
}

/// The boot loader reads it, by the firmware's calls, into memory that a small machine has little of.
#[test]
fn the_validator_is_small() {
    const LIMIT: u64 = 6_000_000;
    let programs = gdsboot::builder::programs::find(&Progress::none()).unwrap();
    let bytes = std::fs::metadata(&programs.validator).unwrap().len();
    assert!(
        bytes <= LIMIT,
        "the validator has {bytes} bytes, more than {LIMIT}: see with `nm --size-sort` on a build without `strip` what \
        grew (often a type that serde reads or writes in a new way, or a dependency's feature), and raise the limit \
        only for what is worth it"
    );
}

#[test]
fn boots_by_uefi_and_by_bios_and_reports() {
    let boots = smoke(&["--firmware", "both"]);
    assert_eq!(boots.len(), 2);
    for boot in &boots {
        check_report(boot);
        let facts = &report(boot)["facts"];
        let text = facts.to_string();
        for library in ["libcuda.so.550", "libcufile.so.1", "libnvidia-ml.so.550"] {
            assert!(text.contains(library), "{library} is not among the facts: {facts:#}");
        }
    }
}

/// Firmware that starts nothing unsigned starts the archive's shim, GRUB and kernel; the kernel then refuses modules that
/// were compiled here, and the report says why.
#[test]
fn under_secure_boot_the_unsigned_modules_are_refused() {
    let boots = smoke(&["--machine", "secure-boot"]);
    let report = report(&boots[0]);
    assert_eq!(report["verdict"], "INCOMPLETE");
    assert_eq!(report["facts"]["kernel"]["secure_boot"]["value"], true, "{:#}", report["facts"]["kernel"]);
    let text = report.to_string();
    assert!(text.contains("Secure Boot is on, and no key that it trusts has signed it"), "{report:#}");
    assert!(!text.contains("No NVIDIA GPU found"), "an unsigned module ran:\n{report:#}");
}

/// What Proxmox makes unless told otherwise.
#[test]
fn the_old_chipset_boots() {
    let boots = smoke(&["--machine", "i440fx"]);
    check_report(&boots[0]);
}

/// A second complete stack: another kernel, driver 535, nvidia-fs 2.13, and a virtio_pci that is a module.
#[test]
fn debian_12_boots_too() {
    let boots = smoke_of(&image_of(common::OLD_PROFILE), &["--firmware", "uefi"]);
    check_report(&boots[0]);
    let text = report(&boots[0])["facts"].to_string();
    for word in ["libcuda.so.535", "libcufile.so", "nvidia-fs"] {
        assert!(text.contains(word), "{word} is not among the facts: {text}");
    }
}

/// A stick is larger than the image. What it boots to is written to the larger report partition, and carried over when the
/// stick is written again.
#[test]
fn a_flashed_stick_boots_by_uefi_and_by_bios_and_keeps_its_reports() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let stick = dir.path().join("stick");
    fs_err::File::create(&stick).unwrap().set_len(1_100_000_256).unwrap();
    let flash = |stick: &Path, options: &[&str]| {
        let mut command = gdsboot();
        command.current_dir(&dir).arg("flash").arg(&image().path).arg(stick).args(options);
        stdout(&run_with_status(&mut command, 0))
    };
    let said = flash(&stick, &[]);
    assert!(said.contains("its partition GDSREPORT has 9") && said.contains("MB for reports"), "{said}");
    let keep = dir.path().join("kept");
    let mut smoke = gdsboot();
    smoke.arg("--cache").arg(cache()).arg("smoke").arg(&stick).arg("--lock").arg(&image().lock);
    smoke
        .args(["--json", "--timeout-scale", "2", "--firmware", "both", "--disk", "usb-storage", "--keep"])
        .arg(&keep);
    let summary: Value = serde_json::from_slice(&run_with_status(&mut smoke, 2).stdout).unwrap();
    let boots = summary["boots"].as_array().unwrap();
    assert_eq!(boots.len(), 2);
    for boot in boots {
        check_report(boot);
        let used = Path::new(boot["kept"].as_str().unwrap()).join("image.img");
        let runs = |stick: &Path| -> Vec<Value> {
            let output = run(gdsboot().arg("inspect").arg("--json").arg(stick));
            let inspection: Value = serde_json::from_slice(&output.stdout).unwrap();
            inspection["runs"].as_array().unwrap().clone()
        };
        let before = runs(&used);
        assert_eq!(before.len(), 1, "{before:#?}");
        let said = flash(&used, &["--keep-reports"]);
        assert!(said.contains("carried over 1 of the runs"), "{said}");
        assert_eq!(runs(&used), before);
    }
}

#[test]
fn the_same_bytes_boot_from_every_kind_of_disk() {
    let disks = ["virtio-blk", "virtio-scsi", "nvme", "usb-storage", "sata"];
    let boots = smoke(&["--firmware", "uefi,bios", "--disk", &disks.join(",")]);
    assert_eq!(boots.len(), 2 * disks.len());
    boots.iter().for_each(check_report);
}

/// As an operator boots it in a VM without a boot loader.
#[test]
fn qemu_can_load_its_kernel_itself() {
    let boots = smoke(&["--firmware", "direct", "--disk", "virtio-blk"]);
    check_report(&boots[0]);
    let command = boots[0]["command"].as_str().unwrap();
    assert!(command.contains(" -kernel ") && command.contains(" -initrd "), "{command}");
}

#[test]
fn a_second_build_has_the_same_bytes_and_a_third_has_nothing_to_do() {
    let image = image();
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let other = dir.path().join("other.img");
    run_with_status(&mut build(&other, &image.lock), 0);
    assert_eq!(sha256(&other), sha256(&image.path));
    let before = Instant::now();
    let output = run_with_status(&mut build(&other, &image.lock), 0);
    assert!(stdout(&output).contains("already current"), "{}", stdout(&output));
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
}

/// From an empty cache but for the pool and the compiled modules, without a network, and as another user if possible:
/// the same bytes.
#[test]
fn offline_in_another_cache_as_another_user_the_bytes_are_the_same() {
    let image = image();
    let dir = tempfile::Builder::new().prefix("gdsboot-test-").tempdir().unwrap();
    let other_cache = dir.path().join("cache");
    for part in ["pool", "modules"] {
        let status = std::process::Command::new("cp")
            .arg("-r")
            .arg(cache().join(part))
            .arg(make(&other_cache).join(part))
            .status()
            .unwrap();
        assert!(status.success());
    }
    for name in ["gdsboot-validator", "gdsboot-dma"] {
        std::fs::copy(image.programs.join(name), make(&dir.path().join("programs")).join(name)).unwrap();
    }
    std::fs::copy(env!("CARGO_BIN_EXE_gdsboot"), dir.path().join("gdsboot")).unwrap();
    let lock = dir.path().join("lock.toml");
    std::fs::copy(&image.lock, &lock).unwrap();
    let output = dir.path().join("image.img");
    let mut command = std::process::Command::new(dir.path().join("gdsboot"));
    command.args(["--progress", "plain", "--cache"]).arg(&other_cache).args([
        "build",
        common::PROFILE,
        "--offline",
    ]);
    command
        .arg("--lock")
        .arg(&lock)
        .arg("-o")
        .arg(&output)
        .arg("--programs")
        .arg(dir.path().join("programs"));
    let mut command = if is_root() {
        let status = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(dir.path()).status();
        assert!(status.unwrap().success());
        as_nobody(&command, dir.path())
    } else {
        command
    };
    command.current_dir(dir.path());
    let mut alone = without_network(&command);
    alone.env("HOME", dir.path()).env("TMPDIR", dir.path()).current_dir(dir.path());
    run_with_status(&mut alone, 0);
    assert_eq!(sha256(&output), sha256(&image.path));
}

fn make(path: &Path) -> &Path {
    std::fs::create_dir_all(path).unwrap();
    path
}

#[test]
fn killed_in_the_middle_and_run_again() {
    let image = image();
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let output = dir.path().join("x.img");
    let fresh = dir.path().join("cache");
    for part in ["pool", "modules"] {
        std::os::unix::fs::symlink(cache().join(part), make(&fresh).join(part)).unwrap();
    }
    let command = |output: &Path| {
        let mut command = gdsboot();
        command.arg("--cache").arg(&fresh).args(["build", common::PROFILE, "--lock"]).arg(&image.lock);
        command.arg("-o").arg(output);
        command
    };
    let mut child = command(&output).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    // In the middle: something is being unpacked or compressed, and there is no result yet.
    while std::fs::read_dir(fresh.join("work")).map_or(0, Iterator::count) == 0 {
        assert!(started.elapsed() < Duration::from_secs(120), "the build never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!output.exists());
    run_with_status(&mut command(&output), 0);
    assert_eq!(sha256(&output), sha256(&image.path));
    assert_eq!(std::fs::read_dir(fresh.join("work")).unwrap().count(), 0, "temporary folders are left");
}

#[test]
fn ctrl_c_leaves_nothing_half_written() {
    let image = image();
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let fresh = dir.path().join("cache");
    for part in ["pool", "modules"] {
        std::os::unix::fs::symlink(cache().join(part), make(&fresh).join(part)).unwrap();
    }
    let mut command = gdsboot();
    command.arg("--cache").arg(&fresh).args(["build", common::PROFILE, "--lock"]).arg(&image.lock);
    command.arg("-o").arg(dir.path().join("x.img")).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let started = Instant::now();
    while std::fs::read_dir(fresh.join("work")).map_or(0, Iterator::count) == 0 {
        assert!(started.elapsed() < Duration::from_secs(120), "the build never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(700));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(fresh.join("work")).unwrap().count(), 0, "temporary folders are left");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["cache"]);
}

#[test]
fn two_builds_in_one_cache_wait_for_each_other() {
    let image = image();
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let fresh = dir.path().join("cache");
    for part in ["pool", "modules"] {
        std::os::unix::fs::symlink(cache().join(part), make(&fresh).join(part)).unwrap();
    }
    let spawn = |name: &str| {
        let mut command = gdsboot();
        command.arg("--cache").arg(&fresh).args(["build", common::PROFILE, "--lock"]).arg(&image.lock);
        command.arg("-o").arg(dir.path().join(name)).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let (first, second) = (spawn("a.img"), spawn("b.img"));
    let outputs = [first.wait_with_output().unwrap(), second.wait_with_output().unwrap()];
    let said: Vec<_> = outputs.iter().map(stderr).collect();
    assert!(outputs.iter().all(|o| o.status.success()), "{said:?}");
    assert!(said.iter().any(|s| s.contains("waiting for another gdsboot")), "{said:?}");
    assert_eq!(sha256(&dir.path().join("a.img")), sha256(&dir.path().join("b.img")));
}

#[test]
fn an_altered_package_in_the_pool_stops_the_build_and_is_removed() {
    let image = image();
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let lock = gdsboot::builder::lock::Lock::read(&image.lock).unwrap();
    let fresh = dir.path().join("cache");
    let pool = gdsboot::builder::pool::Pool::open(&fresh.join("pool"), true).unwrap();
    let shared = gdsboot::builder::pool::Pool::open(&cache().join("pool"), true).unwrap();
    for package in &lock.package {
        let to = pool.path(&package.sha256);
        make(to.parent().unwrap());
        std::os::unix::fs::symlink(shared.path(&package.sha256), to).unwrap();
    }
    std::os::unix::fs::symlink(cache().join("modules"), fresh.join("modules")).unwrap();
    let victim = lock.find("image", "bash").unwrap();
    let path = pool.path(&victim.sha256);
    let mut bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut command = gdsboot();
    command
        .arg("--cache")
        .arg(&fresh)
        .args(["build", common::PROFILE, "--offline", "--lock"])
        .arg(&image.lock);
    command.arg("-o").arg(dir.path().join("x.img"));
    let output = run_with_status(&mut command, 69);
    let said = stderr(&output);
    assert!(said.contains("bash") && said.contains("was altered") && said.contains("hint:"), "{said}");
    assert!(!path.exists() && !dir.path().join("x.img").exists());
    // Now it is missing, and offline says so.
    let said = stderr(&run_with_status(&mut command, 69));
    assert!(said.contains("--offline") && said.contains("bash") && said.contains("gdsboot fetch"), "{said}");
}

#[test]
fn inspect_tells_what_is_on_the_image() {
    let image = image();
    let output = run_with_status(gdsboot().arg("inspect").arg(&image.path).arg("--packages"), 0);
    let text = stdout(&output);
    for word in ["GDSREPORT", "debian-13", "nvidia-fs", "gds-tools", "libcufile0", "550.163.01"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    let size = std::fs::metadata(&image.path).unwrap().len();
    assert!(size <= 320_000_000, "the image has {size} bytes");
}

#[test]
fn doctor_finds_this_host_able() {
    let output = run(gdsboot().arg("--cache").arg(cache()).args(["doctor", common::PROFILE]));
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}
