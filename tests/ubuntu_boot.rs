//! Images of the Ubuntu profiles, built from an archive of Ubuntu's and NVIDIA's shape whose contents are real: Debian's
//! packages and the modules that the Debian profile compiles, packed again as Ubuntu packages them. They boot, and their
//! prebuilt, signed modules load as far as they do without a GPU.

mod archive;
mod common;

use archive::real::{self, Compiled, Debs};
use archive::server::Server;
use archive::ubuntu::{self, Spec};
use common::{cache, gdsboot, image, run_with_status, stderr, stdout};
use gdsboot::builder::lock::Lock;
use gdsboot::builder::module_info::ModuleInfo;
use gdsboot::builder::pool::Pool;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The modules that the build of the Debian image left in the cache.
fn compiled(kernel: &str) -> Compiled {
    let entries = std::fs::read_dir(cache().join("modules")).unwrap().map(|e| e.unwrap().path());
    let is_for_kernel = |folder: &PathBuf| {
        let module = std::fs::read(folder.join("nvidia-fs.ko")).unwrap_or_default();
        ModuleInfo::parse(&module).is_ok_and(|info| info.kernel_release() == kernel)
    };
    let mut folders: Vec<PathBuf> = entries.filter(is_for_kernel).collect();
    // The newest is the one that the image was just built with.
    folders.sort_by_key(|p| std::fs::metadata(p).unwrap().modified().unwrap());
    let folder = folders.pop().expect("the image's modules were compiled");
    let read = |name: &str| std::fs::read(folder.join(format!("{name}.ko"))).unwrap();
    let nvidia = ["nvidia", "nvidia-uvm"].map(|name| (name.to_owned(), read(name))).to_vec();
    Compiled { nvidia, nvidia_fs: read("nvidia-fs") }
}

#[test]
fn ubuntu_24_04_with_real_contents_boots_and_reports() {
    boots_and_reports(Spec::noble(), "both", 2);
}

#[test]
fn ubuntu_22_04_with_real_contents_boots_and_reports() {
    boots_and_reports(Spec::jammy(), "uefi", 1);
}

fn boots_and_reports(spec: Spec, firmware: &str, boots: usize) {
    let name = format!("ubuntu-{}.toml", spec.series.version);
    let debian = image();
    let lock = Lock::read(&debian.lock).unwrap();
    let pool = Pool::open(&cache().join("pool"), true).unwrap();
    let debs: Debs = lock
        .package
        .iter()
        .filter(|p| pool.has(&p.sha256))
        .map(|p| (p.name.clone(), pool.path(&p.sha256)))
        .collect();
    let ubuntu = ubuntu::publish(real::spec(spec, &debs, &compiled(&lock.kernel)));
    let server = Server::start();
    ubuntu.mount(&server);

    let dir = tempfile::tempdir_in(common::folder()).unwrap();
    let (key, vendor) = ubuntu.write_keyrings(dir.path());
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/profiles");
    let text = std::fs::read_to_string(profiles.join(&name)).unwrap();
    let text = text
        .replace("/usr/share/keyrings/ubuntu-archive-keyring.gpg", &key.display().to_string())
        .replacen("/usr/share/keyrings/cuda-archive-keyring.gpg", &vendor.display().to_string(), 1);
    let profile = dir.path().join(name);
    std::fs::write(&profile, text).unwrap();

    let output = dir.path().join("ubuntu.img");
    let mut command = gdsboot();
    command.arg("--cache").arg(dir.path().join("cache")).arg("try").arg(&profile).arg("-o").arg(&output);
    command.args(["--mirror", &format!("ubuntu={}", server.url("/ubuntu/{snapshot}"))]);
    command.args(["--mirror", &format!("cuda={}", server.url(&ubuntu.cuda_path()))]);
    command.arg("--programs").arg(&debian.programs).arg("--lock").arg(dir.path().join("lock.toml"));
    command.args(["--json", "--firmware", firmware, "--timeout-scale", "2"]);
    let done = run_with_status(&mut command, 2);
    let (said, json) = stdout(&done).split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(said.contains("ubuntu.img"), "{said}\n{}", stderr(&done));
    let summary: Value = serde_json::from_str(&json).unwrap();
    let booted = summary["boots"].as_array().unwrap();
    assert_eq!(booted.len(), boots);
    for boot in booted {
        let report = &boot["reported"]["report"];
        assert_eq!(report["verdict"], "INCOMPLETE", "{boot:#}");
        let image = report["facts"]["image"].to_string();
        assert!(image.contains("prebuilt, signed"), "{image}");
        let text = report.to_string();
        assert!(text.contains("NVRM: No NVIDIA GPU found"), "{report:#}");
        assert!(!text.contains("disagrees about version"), "{report:#}");
    }
    // Its own QEMU is too old for simulated GPUs; the one that the profile brings is not.
    let mut command = gdsboot();
    command.arg("--cache").arg(dir.path().join("cache")).arg("smoke").arg(&output).arg("--offline");
    command.arg("--lock").arg(dir.path().join("lock.toml")).arg("--emulator").arg(&profile);
    command.args(["--json", "--timeout-scale", "2", "--machine", "switch"]);
    let done = run_with_status(&mut command, 0);
    let summary: Value = serde_json::from_slice(stdout(&done).as_bytes()).unwrap();
    let boot = &summary["boots"][0];
    assert_eq!(
        (&boot["machine"], &boot["differences"]),
        (&"switch".into(), &Value::Array(Vec::new())),
        "{boot:#}"
    );
    // Only the snapshot was asked, never the live archive.
    assert!(server.requests("/ubuntu/dists/").is_empty() && server.requests("/ubuntu/pool/").is_empty());
}
