//! The Ubuntu profiles, end to end as far as packages go: the program itself resolves and fetches them from an archive of
//! Ubuntu's shape, and stops with a reason where the archive is not what it should be.

mod archive;

use archive::server::{Fault, Server};
use archive::ubuntu::{self, Flaw, Spec, Ubuntu};
use std::path::{Path, PathBuf};
use std::process::Output;

/// A published archive, its server, and a folder with a profile that trusts its keys.
struct Bench {
    dir: tempfile::TempDir,
    server: Server,
    ubuntu: Ubuntu,
    profile: PathBuf,
}

/// What a profile's own keyring paths become.
fn with_keyrings(profile: &str, ubuntu: &Path, vendor: &Path) -> String {
    let replaced = profile
        .replace("/usr/share/keyrings/ubuntu-archive-keyring.gpg", &ubuntu.display().to_string())
        .replacen("/usr/share/keyrings/cuda-archive-keyring.gpg", &vendor.display().to_string(), 1);
    assert_ne!(replaced, profile);
    replaced
}

impl Bench {
    fn new(spec: Spec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("ubuntu-{}.toml", spec.series.version);
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("image/profiles").join(&name));
        let ubuntu = ubuntu::publish(spec);
        let server = Server::start();
        ubuntu.mount(&server);
        let (key, vendor) = ubuntu.write_keyrings(dir.path());
        let profile = dir.path().join(name);
        std::fs::write(&profile, with_keyrings(&text.unwrap(), &key, &vendor)).unwrap();
        Self { dir, server, ubuntu, profile }
    }

    /// Runs gdsboot with a cache of its own and both archives on loopback.
    fn run(&self, arguments: &[&str]) -> Output {
        let cuda = self.server.url(&self.ubuntu.cuda_path());
        assert_cmd::Command::cargo_bin("gdsboot")
            .unwrap()
            .current_dir(self.dir.path())
            .arg(arguments[0])
            .arg("--cache")
            .arg(self.dir.path().join("cache"))
            .args(["--mirror", &format!("cuda={cuda}")])
            .args(["--mirror", &format!("ubuntu={}", self.server.url("/ubuntu/{snapshot}"))])
            .args(&arguments[1..])
            .arg(&self.profile)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "gdsboot {arguments:?} failed:\n{text}");
        text
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], reasons: &[&str]) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success(), "gdsboot {arguments:?} was content:\n{text}");
        for reason in reasons {
            assert!(text.contains(reason), "gdsboot {arguments:?} failed, but not with {reason:?}:\n{text}");
        }
    }

    fn lock(&self) -> toml::Table {
        let name = self.profile.file_name().unwrap();
        std::fs::read_to_string(self.dir.path().join("locks").join(name)).unwrap().parse().unwrap()
    }
}

/// Name -> version of a lock's packages in one set.
fn packages(lock: &toml::Table, set: &str) -> std::collections::BTreeMap<String, String> {
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["sets"].as_array().unwrap().iter().any(|s| s.as_str() == Some(set)))
        .map(|package| (text(&package["name"]), text(&package["version"])))
        .collect()
}

fn check(spec: Spec) {
    let bench = Bench::new(spec);
    bench.succeeds(&["lock"]);
    let (lock, spec) = (bench.lock(), &bench.ubuntu.spec);
    let k = &spec.kernel.release;
    assert_eq!(lock["kernel"].as_str(), Some(k.as_str()));
    let image = packages(&lock, "image");
    let kernels: Vec<_> = image.keys().filter(|name| name.starts_with("linux-image")).collect();
    assert_eq!(kernels, [&format!("linux-image-{k}")]);
    for name in ["linux-modules", "linux-modules-nvidia-580-open", "linux-modules-nvidia-fs"] {
        assert!(image.contains_key(&format!("{name}-{k}")), "{name}");
    }
    let driver = format!("{}-0ubuntu0.{}.1", spec.driver, spec.series.version);
    assert_eq!(image.get("libnvidia-compute-580"), Some(&driver));
    assert_eq!(image.get("libcufile-13-1"), Some(&format!("{}-1", spec.cufile)));
    let cuda: Vec<_> = lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["source"].as_str() == Some("cuda"))
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        cuda,
        [
            "cuda-toolkit-13-1-config-common",
            "cuda-toolkit-13-config-common",
            "cuda-toolkit-config-common",
            "gds-tools-13-1",
            "libcufile-13-1"
        ],
        "of NVIDIA's repository only cuFile is taken"
    );
    assert_eq!(packages(&lock, "overlay-hgx").get("nvidia-fabricmanager-580"), Some(&driver));
    assert!(packages(&lock, "tools").contains_key("shim-signed"));
    // QEMU is of a later series, with its own libraries; the image has none of them, nor their date.
    let emulator = packages(&lock, "emulator");
    assert_eq!(emulator.get("qemu-system-x86").map(String::as_str), Some("1:10.2.1+ds-1ubuntu3"));
    assert_ne!(emulator["libc6"], image["libc6"]);
    assert!(emulator.contains_key("ovmf-generic") && !image.contains_key("ovmf-generic"));
    let releases = lock["release"].as_array().unwrap();
    let dates = |later: bool| {
        let of = |release: &&toml::Value| release["suite"].as_str().unwrap().starts_with("resolute") == later;
        releases.iter().filter(of).map(|release| release["date"].as_integer().unwrap()).max().unwrap()
    };
    assert_eq!(lock["epoch"].as_integer().unwrap(), dates(false));
    assert!(dates(true) > dates(false));

    bench.succeeds(&["fetch"]);
    assert!(
        bench.server.requests("/ubuntu/dists/").is_empty()
            && bench.server.requests("/ubuntu/pool/").is_empty()
    );
    // Everything is in the pool now, and nothing is asked for again.
    bench.server.forget_requests();
    bench.succeeds(&["fetch", "--offline"]);
    assert!(bench.server.requests("/").is_empty());
    assert!(bench.succeeds(&["lock", "--check"]).contains("is current"));
}

#[test]
fn ubuntu_24_04_is_locked_and_fetched() {
    check(Spec::noble());
}

#[test]
fn ubuntu_22_04_is_locked_and_fetched() {
    check(Spec::jammy());
}

#[test]
fn flawed_archives_stop_the_lock() {
    let bench = Bench::new(Spec::noble().flaw(Flaw::NoNvidiaFs));
    bench.fails(&["lock"], &["linux-modules-nvidia-fs-6.17.0-1031-nvidia"]);
    let bench = Bench::new(Spec::noble().flaw(Flaw::ModulesVanished));
    bench.fails(&["lock"], &["linux-modules-nvidia-580-open"]);
    let bench = Bench::new(Spec::noble().flaw(Flaw::DriverAhead));
    bench.fails(&["lock"], &["nvidia-kernel-common-580"]);
    let bench = Bench::new(Spec::noble().flaw(Flaw::NoCufile));
    bench.fails(&["lock"], &["libcufile-13-1"]);
}

#[test]
fn downloads_are_resumed_and_verified() {
    let bench = Bench::new(Spec::noble());
    bench.succeeds(&["lock"]);
    bench.server.fault_times("nvidia-firmware", Fault::CloseAfter(500), 1);
    bench.server.fault_times("linux-image-6.17", Fault::Status(503), 1);
    bench.succeeds(&["fetch"]);
    let resumed = bench.server.requests("nvidia-firmware");
    assert!(resumed.iter().any(|request| request.range.is_some()), "{resumed:?}");

    let bench = Bench::new(Spec::noble());
    bench.succeeds(&["lock"]);
    bench.server.fault("nvidia-firmware", Fault::Alter(300));
    bench.fails(&["fetch"], &["nvidia-firmware"]);
    bench.server.heal();
    bench.server.fault("nvidia-firmware", Fault::Html);
    bench.fails(&["fetch"], &["nvidia-firmware"]);
    bench.server.heal();
    bench.succeeds(&["fetch"]);
}

#[test]
fn a_host_without_nvidias_key_takes_it_from_a_package_of_known_hash() {
    let bench = Bench::new(Spec::noble());
    let text = std::fs::read_to_string(&bench.profile).unwrap();
    let vendor = bench.dir.path().join("cuda-archive-keyring.gpg");
    std::fs::remove_file(&vendor).unwrap();
    // The hash in the profile is that of NVIDIA's own package, which this one is not.
    bench.fails(&["lock"], &["cuda-keyring_1.1-1_all.deb"]);
    let package = bench.ubuntu.cuda["cuda-keyring_1.1-1_all.deb"].all();
    let known = text.lines().find(|line| line.starts_with("sha256 = ")).unwrap();
    let own = format!("sha256 = \"{}\"", archive::hash::sha256(&package));
    std::fs::write(&bench.profile, text.replace(known, &own)).unwrap();
    bench.succeeds(&["lock"]);
}

#[test]
fn a_live_archive_that_moved_on_is_named_with_what_helps() {
    let bench = Bench::new(Spec::noble());
    let live = bench.server.url("/ubuntu");
    bench.succeeds(&["lock", "--mirror", &format!("ubuntu={live}")]);
    bench.ubuntu.move_on();
    bench.fails(&["fetch", "--mirror", &format!("ubuntu={live}")], &["nvidia", "--update"]);
}

#[test]
fn an_archive_signed_by_a_stranger_is_refused() {
    let bench = Bench::new(Spec::noble());
    archive::sign::Key::generate("stranger")
        .write_keyring(&bench.dir.path().join("ubuntu-archive-keyring.gpg"));
    bench.fails(&["lock"], &["not signed"]);
    assert!(!bench.dir.path().join("locks").exists(), "half a lock was left");
}
