//! The imitation of Ubuntu and of NVIDIA's repository: real apt-get resolves our profiles' packages against it, and each
//! of its traps catches whoever does not look out.

mod archive;

use archive::apt::{Apt, Planned, flat_line, ubuntu_line};
use archive::deb::{Compression, Deb, Kind};
use archive::server::Server;
use archive::ubuntu::{self, Flaw, Spec, Ubuntu};
use std::collections::BTreeSet;
use std::path::Path;

/// A published archive, its server, and the profile that is resolved against it.
struct Bench {
    dir: tempfile::TempDir,
    server: Server,
    ubuntu: Ubuntu,
    profile: toml::Table,
}

/// What a profile says about one set of packages.
fn strings(value: &toml::Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

impl Bench {
    fn new(spec: Spec) -> Self {
        let name = format!("image/profiles/ubuntu-{}.toml", spec.series.version);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let profile = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let ubuntu = ubuntu::publish(spec);
        let server = Server::start();
        ubuntu.mount(&server);
        Self { dir: tempfile::tempdir().unwrap(), server, ubuntu, profile }
    }

    fn source(&self, index: usize) -> &toml::Value {
        &self.profile["source"].as_array().unwrap()[index]
    }

    fn sources(&self) -> String {
        let (ubuntu, vendor) = self.ubuntu.write_keyrings(self.dir.path());
        let snapshot = self.source(0)["snapshot"].as_str().unwrap();
        let url = self.server.url(&format!("/ubuntu/{snapshot}"));
        let mut text = String::new();
        for suite in strings(&self.source(0)["suites"]) {
            text.push_str(&ubuntu_line(&ubuntu, &url, &suite));
        }
        text + &flat_line(&vendor, &self.server.url(&self.ubuntu.cuda_path()))
    }

    /// An apt that knows what the profile says, updated.
    fn apt(&self, pins: &str) -> Apt {
        let apt = Apt::new(&self.sources(), pins);
        apt.provide(&strings(&self.profile["provided"]));
        apt.update().expect_ok();
        apt
    }

    /// The pins that the profile's `only` stands for.
    fn pins(&self) -> String {
        let (label, only) = (self.source(1)["label"].as_str().unwrap(), strings(&self.source(1)["only"]));
        format!(
            "Package: {}\nPin: release l={label}\nPin-Priority: 500\n\n\
             Package: *\nPin: release l={label}\nPin-Priority: -1\n",
            only.join(" ")
        )
    }

    fn image(&self) -> Vec<String> {
        strings(&self.profile["image"]["packages"])
    }

    fn kernel(&self) -> Vec<String> {
        let packages = strings(&self.profile["kernel"]["packages"]);
        packages.iter().map(|name| name.replace("{release}", &self.ubuntu.spec.kernel.release)).collect()
    }
}

fn plan(apt: &Apt, packages: &[String]) -> Vec<Planned> {
    apt.plan(&packages.iter().map(String::as_str).collect::<Vec<_>>())
}

fn version<'a>(plan: &'a [Planned], name: &str) -> Option<&'a str> {
    plan.iter().find(|p| p.name == name).map(|p| p.version.as_str())
}

#[track_caller]
fn check_profile(bench: &Bench) {
    let spec = &bench.ubuntu.spec;
    let k = &spec.kernel.release;
    let apt = bench.apt(&bench.pins());
    let image = plan(&apt, &[bench.image(), bench.kernel()].concat());
    let kernels: Vec<_> = image.iter().filter(|p| p.name.starts_with("linux-image-")).collect();
    assert_eq!(kernels.len(), 1, "{kernels:?}");
    assert_eq!(kernels[0].name, format!("linux-image-{k}"), "signed, and of the release that has modules");
    for name in ["linux-modules", "linux-modules-nvidia-580-open", "linux-modules-nvidia-fs"] {
        assert!(version(&image, &format!("{name}-{k}")).is_some(), "{name}");
    }
    let modules = version(&image, &format!("linux-modules-nvidia-580-open-{k}")).unwrap();
    assert_eq!(modules, format!("{}+1", spec.kernel.version));
    assert!(image.iter().all(|p| !p.name.starts_with("linux-objects")));
    let driver = format!("{}-0ubuntu0.{}.1", spec.driver, spec.series.version);
    for name in ["libnvidia-compute-580", "nvidia-kernel-common-580", "nvidia-utils-580"] {
        assert_eq!(version(&image, name), Some(driver.as_str()), "{name}");
    }
    assert!(version(&image, &format!("nvidia-firmware-580-{}", spec.driver)).is_some());
    assert_eq!(version(&image, "libcufile-13-1"), Some(format!("{}-1", spec.cufile).as_str()));
    assert!(version(&image, "libcufile-13-2").is_none());
    assert_eq!(version(&image, "base-files"), Some("13ubuntu10.3"));
    assert_eq!(
        version(&image, "util-linux"),
        Some("2.39.3-9ubuntu6.3"),
        "phased updates are taken or left for all"
    );
    assert_eq!(version(&image, "nvme-cli"), Some("2.8-1build1"), "nothing comes from backports");

    let with_hgx = strings(&bench.profile["overlay"]["hgx"]["packages"]);
    let with_hgx = plan(&apt, &[bench.image(), bench.kernel(), with_hgx].concat());
    assert_eq!(version(&with_hgx, "nvidia-fabricmanager-580"), Some(driver.as_str()));
    plan(
        &apt,
        &[bench.image(), bench.kernel(), strings(&bench.profile["overlay"]["debug"]["packages"])].concat(),
    );

    let tools = plan(&apt, &strings(&bench.profile["tools"]["packages"]));
    let grub = version(&tools, "grub-efi-amd64-signed").unwrap();
    let sbat = bench.profile["boot"]["grub-sbat"].as_integer().unwrap();
    assert!(generation(bench, "grub-efi-amd64-signed", grub) >= sbat, "{grub}");
    assert!(version(&tools, "shim-signed").is_some());
    plan(&apt, &strings(&bench.profile["emulator"]["packages"]));

    let live = bench.server.requests("/ubuntu/");
    assert!(
        live.iter().all(|request| !request.path.starts_with("/ubuntu/dists/")),
        "the live archive was asked"
    );
    assert!(bench.server.requests("backports").is_empty());
}

/// The .deb of this version, wherever the snapshot has it.
fn fetch(bench: &Bench, name: &str, version: &str) -> Deb {
    let at = bench.ubuntu.spec.published.plus(1).id();
    let release = format!("{at}/dists/{}", bench.ubuntu.spec.series.codename);
    for pocket in ["", "-updates"] {
        for component in ["main", "restricted"] {
            let path = format!("{release}{pocket}/{component}/binary-amd64/Packages.xz");
            let index = bench.ubuntu.history.find(&path).unwrap().0.all();
            let text = String::from_utf8(Compression::decompress("Packages.xz", &index)).unwrap();
            let stanza = text.split("\n\n").find(|stanza| {
                stanza.starts_with(&format!("Package: {name}\n"))
                    && stanza.contains(&format!("\nVersion: {version}\n"))
            });
            let Some(stanza) = stanza else { continue };
            let filename = stanza.lines().find_map(|line| line.strip_prefix("Filename: ")).unwrap();
            let deb = bench.ubuntu.history.find(&format!("{at}/{filename}")).unwrap().0.all();
            return Deb::parse(&deb[..]);
        }
    }
    panic!("{name} {version} is nowhere");
}

/// The generation of `grub` in the SBAT of a package's grubx64.
fn generation(bench: &Bench, name: &str, version: &str) -> i64 {
    let deb = fetch(bench, name, version);
    let entry = deb.data.iter().find(|entry| entry.path.ends_with("/grubx64.efi.signed")).unwrap();
    let Kind::File(bytes) = &entry.kind else { panic!("not a file") };
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find(|line| line.starts_with("grub,")).unwrap();
    line.split(',').nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_profile_of_24_04_resolves_to_the_kernel_that_has_modules() {
    check_profile(&Bench::new(Spec::noble()));
}

#[test]
fn the_profile_of_22_04_resolves_to_the_kernel_that_has_modules() {
    check_profile(&Bench::new(Spec::jammy()));
}

#[test]
fn traps_catch_whoever_does_not_look_out() {
    let bench = Bench::new(Spec::noble());
    let spec = &bench.ubuntu.spec;
    let apt = bench.apt(&bench.pins());
    let kernels = |packages: &[&str]| -> BTreeSet<String> {
        let plan = apt.plan(packages);
        plan.into_iter().map(|p| p.name).filter(|name| name.starts_with("linux-image-6")).collect()
    };
    let (k, newer) = (&spec.kernel.release, &spec.newer.release);
    let both = BTreeSet::from([format!("linux-image-{k}"), format!("linux-image-{newer}")]);
    let (gpu, fs) = ("linux-modules-nvidia-580-open-nvidia-6.17", "linux-modules-nvidia-fs-nvidia-6.17");
    assert_eq!(kernels(&[gpu, fs]), both, "nvidia-fs follows the newest kernel, the GPU's modules do not");
    assert_eq!(kernels(&["linux-nvidia-6.17"]), BTreeSet::from([format!("linux-image-{newer}")]));
    let vanished = format!("linux-modules-nvidia-580-open-{newer}");
    apt.get(&["install", "-y", "-q", "--print-uris", &vanished]).expect_failure("Unable to locate package");

    let old = apt.plan(&["linux-modules-nvidia-590-open-nvidia-6.17", "libnvidia-compute-590"]);
    assert!(version(&old, "libnvidia-compute-595").is_some(), "590 is a way to 595");

    // Without pins NVIDIA's driver wins and takes the place of Ubuntu's, which alone fits the signed modules.
    let unpinned = bench.apt("").plan(&["libnvidia-compute-580", "kmod"]);
    assert!(unpinned.iter().any(|p| p.name == "libnvidia-compute-580" && p.url.contains("/compute/cuda/")));
    assert_eq!(version(&unpinned, "kmod"), Some("999-1"));

    // The same paths, signed in one package and not in the other.
    let modules = |name: &str| {
        let deb = fetch(&bench, &format!("{name}-{k}"), &format!("{}+1", spec.kernel.version));
        let entry = deb.data.into_iter().find(|entry| entry.path.ends_with("-open/nvidia.ko")).unwrap();
        let Kind::File(bytes) = entry.kind else { panic!("not a file") };
        (entry.path, bytes.ends_with(b"~Module signature appended~\n"))
    };
    let path = format!("./lib/modules/{k}/kernel/nvidia-580-open/nvidia.ko");
    assert_eq!(modules("linux-modules-nvidia-580-open"), (path.clone(), true));
    assert_eq!(modules("linux-objects-nvidia-580-open"), (path, false));

    let kernel = fetch(&bench, &format!("linux-image-{k}"), &spec.kernel.version);
    let vmlinuz = kernel.data.iter().find(|entry| entry.path.contains("vmlinuz")).unwrap();
    assert_eq!(vmlinuz.mode, 0o600);
    assert_eq!(kernel.data_compression, Compression::None);
    let tree = fetch(&bench, &format!("linux-modules-{k}"), &spec.kernel.version);
    let indexes: BTreeSet<_> = tree
        .data
        .iter()
        .filter_map(|entry| entry.path.rsplit('/').next())
        .filter(|name| name.starts_with("modules."))
        .collect();
    assert_eq!(indexes, BTreeSet::from(["modules.builtin", "modules.builtin.modinfo", "modules.order"]));
    assert!(tree.data.iter().any(|entry| entry.path.ends_with("/nvme.ko.zst")));

    assert_eq!(generation(&bench, "grub-efi-amd64-signed", "1.202+2.12-1ubuntu7"), 4);
    let shim = fetch(&bench, "shim-signed", "1.58+15.8-0ubuntu1");
    let names: BTreeSet<_> = shim.data.iter().filter_map(|entry| entry.path.rsplit('/').next()).collect();
    assert!(names.contains("shimx64.efi.signed.latest") && !names.contains("shimx64.efi.signed"));
    let base = fetch(&bench, "base-files", "13ubuntu10.3");
    assert!(
        base.data.iter().any(|e| e.path == "./lib" && matches!(&e.kind, Kind::Symlink(t) if t == "usr/lib"))
    );
    assert!(base.data.iter().any(|e| e.path == "./lib.usr-is-merged/"));
}

#[test]
fn the_toy_build_joins_parts_and_signature() {
    let bench = Bench::new(Spec::noble());
    let spec = &bench.ubuntu.spec;
    let k = &spec.kernel.release;
    let dir = tempfile::tempdir().unwrap();
    for name in ["linux-objects-nvidia-580", "linux-signatures-nvidia"] {
        let deb = fetch(&bench, &format!("{name}-{k}"), &format!("{}+1", spec.kernel.version));
        let path = dir.path().join("one.deb");
        std::fs::write(&path, deb.bytes()).unwrap();
        let status = std::process::Command::new("dpkg-deb").arg("-x").arg(&path).arg(dir.path()).status();
        assert!(status.unwrap().success());
    }
    let folder = dir.path().join(format!("lib/modules/{k}/kernel/nvidia-580"));
    assert!(!folder.join("nvidia.ko").exists());
    let build =
        || std::process::Command::new("sh").arg("./BUILD").current_dir(folder.join("bits")).output().unwrap();
    let output = build();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("nvidia.ko: OK"));
    let module = std::fs::read(folder.join("nvidia.ko")).unwrap();
    assert!(module.starts_with(b"\x7fELF") && module.ends_with(b"~Module signature appended~\n"));
    // Another linker, other bytes: the signature would not fit.
    std::fs::write(folder.join("bits/nvidia/nvidia.mod.o"), "other").unwrap();
    assert!(!build().status.success());
}

#[test]
fn flawed_archives_are_flawed() {
    let gpu = "linux-modules-nvidia-580-open-nvidia-6.17";
    let install = |flaw, packages: &[&str]| {
        let bench = Bench::new(Spec::noble().flaw(flaw));
        let apt = bench.apt(&bench.pins());
        apt.get(&[&["install", "-y", "-q", "--print-uris"], packages].concat())
    };
    install(Flaw::DriverAhead, &[gpu]).expect_failure("nvidia-kernel-common-580");
    install(Flaw::ModulesVanished, &[gpu]).expect_failure("unmet dependencies");
    let fs = "linux-modules-nvidia-fs-6.17.0-1031-nvidia";
    install(Flaw::NoNvidiaFs, &[gpu, fs]).expect_failure("Unable to locate package");
    install(Flaw::NoCufile, &["libcufile-13-1"]).expect_failure("Unable to locate package");

    let bench = Bench::new(Spec::noble().flaw(Flaw::OldGrubOnly));
    let tools = bench.apt(&bench.pins()).plan(&["grub-efi-amd64-signed"]);
    let grub = version(&tools, "grub-efi-amd64-signed").unwrap();
    assert_eq!(generation(&bench, "grub-efi-amd64-signed", grub), 4);

    let bench = Bench::new(Spec::noble().flaw(Flaw::UnsignedModules));
    let spec = &bench.ubuntu.spec;
    let name = format!("linux-modules-nvidia-580-open-{}", spec.kernel.release);
    let deb = fetch(&bench, &name, &format!("{}+1", spec.kernel.version));
    for entry in deb.data.iter().filter(|entry| entry.path.ends_with(".ko")) {
        let Kind::File(bytes) = &entry.kind else { panic!("not a file") };
        assert!(!bytes.ends_with(b"~Module signature appended~\n"), "{}", entry.path);
    }
}

#[test]
fn nine_days_later_everything_is_newer() {
    let bench = Bench::new(Spec::noble());
    let (keyring, _) = bench.ubuntu.write_keyrings(bench.dir.path());
    let plan_at = |path: &str| {
        let line = ubuntu_line(&keyring, &bench.server.url(path), "noble-updates");
        let apt = Apt::new(&line, "");
        apt.provide(&strings(&bench.profile["provided"]));
        apt.provide(
            &[
                "libc6 (= 999)",
                "kmod (= 999)",
                "libpciaccess0 (= 999)",
                "linux-base (= 999)",
                "wireless-regdb",
            ]
            .map(String::from),
        );
        apt.update().expect_ok();
        apt.plan(&["linux-modules-nvidia-580-open-nvidia-6.17"])
    };
    let at = &bench.ubuntu.spec.published;
    let now = plan_at(&format!("/ubuntu/{}", at.plus(8 * 86_400).id()));
    assert!(version(&now, "linux-image-6.17.0-1031-nvidia").is_some());
    let later = plan_at(&format!("/ubuntu/{}", at.plus(9 * 86_400).id()));
    assert!(version(&later, "linux-image-6.17.0-1032-nvidia").is_some());
    assert_eq!(version(&later, "nvidia-kernel-common-580"), Some("580.173.03-0ubuntu0.24.04.1"));
    // What the first lock named is gone from the live pool.
    let old = now.iter().find(|p| p.name.starts_with("linux-modules-nvidia-580-open-6")).unwrap();
    let path = old.url.split_once("Z/").unwrap().1;
    assert!(bench.ubuntu.history.find(path).is_none());
}
