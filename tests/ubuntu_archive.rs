//! The imitation of Ubuntu and of NVIDIA's repository: real apt-get resolves our profiles' packages against it, and each
//! of its traps catches whoever does not look out.

mod archive;

use archive::apt::{Apt, Planned, flat_line, ubuntu_line};
use archive::deb::{Compression, Deb, Kind};
use archive::real;
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

    /// Suites of Ubuntu's snapshot.
    fn of_ubuntu(&self, suites: &toml::Value) -> String {
        let (ubuntu, _) = self.ubuntu.write_keyrings(self.dir.path());
        let snapshot = self.source(0)["snapshot"].as_str().unwrap();
        let url = self.server.url(&format!("/ubuntu/{snapshot}"));
        strings(suites).iter().map(|suite| ubuntu_line(&ubuntu, &url, suite)).collect()
    }

    fn sources(&self) -> String {
        let (_, vendor) = self.ubuntu.write_keyrings(self.dir.path());
        self.of_ubuntu(&self.source(0)["suites"])
            + &flat_line(&vendor, &self.server.url(&self.ubuntu.cuda_path()))
    }

    /// An apt that knows what the profile says, updated.
    fn apt(&self, pins: &str) -> Apt {
        self.apt_of(&self.sources(), pins)
    }

    fn apt_of(&self, sources: &str, pins: &str) -> Apt {
        let apt = Apt::new(sources, pins);
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
    let emulator = strings(&bench.profile["emulator"]["packages"]);
    assert_eq!(version(&plan(&apt, &emulator), "qemu-system-x86"), Some("1:8.2.2+ds-0ubuntu1"), "too old");
    let later = bench.of_ubuntu(&bench.profile["emulator"]["suites"]["ubuntu"]);
    let later = plan(&bench.apt_of(&later, &bench.pins()), &emulator);
    assert_eq!(version(&later, "qemu-system-x86"), Some("1:10.2.1+ds-1ubuntu3"));

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

/// Debian's packages in miniature, with the paths that theirs have.
fn debian(folder: &Path) -> real::Debs {
    let hidden = "usr/lib/x86_64-linux-gnu/nvidia/current";
    let (k, driver) = ("6.12.1+deb13-amd64", "550.1.2-2");
    let ko = Compression::Xz.compress(b"\x7fELF module");
    let debs = [
        Deb::new(&format!("linux-image-{k}"), "6.12.1-1")
            .file(&format!("boot/vmlinuz-{k}"), "kernel")
            .file(&format!("boot/config-{k}"), "CONFIG_X=y\n")
            .file(&format!("usr/lib/modules/{k}/kernel/drivers/nvme/host/nvme.ko.xz"), ko.clone())
            .file(&format!("usr/lib/modules/{k}/kernel/sound/snd.ko.xz"), ko)
            .file(&format!("usr/lib/modules/{k}/modules.order"), "kernel/drivers/nvme/host/nvme.ko\n"),
        Deb::new("libcuda1", driver)
            .file(&format!("{hidden}/libcuda.so.550.1.2"), "cuda")
            .symlink(&format!("{hidden}/libcuda.so.1"), "libcuda.so.550.1.2"),
        Deb::new("libnvidia-ml1", driver).file(&format!("{hidden}/libnvidia-ml.so.550.1.2"), "ml"),
        Deb::new("libnvidia-ptxjitcompiler1", driver)
            .file(&format!("{hidden}/libnvidia-ptxjitcompiler.so.1"), "ptx"),
        Deb::new("libnvidia-cfg1", driver).file(&format!("{hidden}/libnvidia-cfg.so.1"), "cfg"),
        Deb::new("nvidia-smi", driver).program("usr/lib/nvidia/current/nvidia-smi", "smi"),
        Deb::new("firmware-nvidia-gsp", driver).file("usr/lib/firmware/nvidia/550.1.2/gsp_ga10x.bin", "gsp"),
        Deb::new("libcufile0", "1.9.1.3~12.4.1-2")
            .file("usr/lib/x86_64-linux-gnu/libcufile.so.1.9.1", "cufile"),
        Deb::new("gds-tools", "1.9.1.3~12.4.1-2").program("usr/libexec/gds/tools/gdsio", "gdsio"),
        Deb::new("shim-signed", "1.51").file("usr/lib/shim/shimx64.efi.signed", "shim"),
        Deb::new("shim-helpers-amd64-signed", "1").file("usr/lib/shim/mmx64.efi.signed", "mm"),
        Deb::new("grub-efi-amd64-signed", "1+2.12")
            .file("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "prefix /EFI/debian here"),
        Deb::new("kmod", "34.2-2").program("usr/bin/kmod", "kmod"),
    ];
    debs.iter()
        .map(|deb| {
            let path = folder.join(format!("{}.deb", deb.name()));
            std::fs::write(&path, deb.clone().compress(Compression::Xz).bytes()).unwrap();
            (deb.name().to_owned(), path)
        })
        .collect()
}

#[test]
fn debians_contents_are_found_under_ubuntus_names_and_paths() {
    let folder = tempfile::tempdir().unwrap();
    let compiled = real::Compiled {
        nvidia: vec![("nvidia".into(), b"\x7fELF nvidia".to_vec())],
        nvidia_fs: b"\x7fELF nvidia-fs".to_vec(),
    };
    let bench = Bench::new(real::spec(Spec::noble(), &debian(folder.path()), &compiled));
    let plan = plan(&bench.apt(&bench.pins()), &[bench.image(), bench.kernel()].concat());
    let (k, driver) = ("6.12.1+deb13-amd64", "550.1.2-0ubuntu0.24.04.1");
    assert_eq!(version(&plan, &format!("linux-image-{k}")), Some("6.12.1-1"));
    assert_eq!(version(&plan, "libnvidia-compute-580"), Some(driver));
    assert_eq!(version(&plan, "kmod"), Some("34.2-2"), "what is not taken apart is published as it is");

    let content = |name: &str, version: &str, path: &str| {
        let deb = fetch(&bench, name, version);
        let found = deb.data.into_iter().find(|entry| entry.path == format!("./{path}"));
        match found.unwrap_or_else(|| panic!("{name} has no {path}")).kind {
            Kind::File(bytes) => bytes.to_vec(),
            other => format!("{other:?}").into_bytes(),
        }
    };
    let modules = format!("lib/modules/{k}");
    let nvme = format!("{modules}/kernel/drivers/nvme/host/nvme.ko.zst");
    let nvme = content(&format!("linux-modules-{k}"), "6.12.1-1", &nvme);
    assert_eq!(Compression::decompress("nvme.ko.zst", &nvme), b"\x7fELF module");
    let nvidia = format!("{modules}/kernel/nvidia-580-open/nvidia.ko");
    let nvidia = content(&format!("linux-modules-nvidia-580-open-{k}"), "6.12.1-1+1", &nvidia);
    assert!(nvidia.starts_with(b"\x7fELF nvidia") && nvidia.ends_with(b"~Module signature appended~\n"));
    let libraries = "usr/lib/x86_64-linux-gnu";
    assert_eq!(content("libnvidia-compute-580", driver, &format!("{libraries}/libcuda.so.550.1.2")), b"cuda");
    assert_eq!(content("nvidia-utils-580", driver, "usr/bin/nvidia-smi"), b"smi");
    let firmware = "lib/firmware/nvidia/550.1.2/gsp_ga10x.bin";
    assert_eq!(content("nvidia-firmware-580-550.1.2", driver, firmware), b"gsp");
    let shim = content("shim-signed", "1.58+15.8-0ubuntu1", "usr/lib/shim/shimx64.efi.signed.latest");
    assert_eq!(shim, b"shim");
    let (version, path) = ("1.202.5+2.12-1ubuntu7.3", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed");
    assert_eq!(content("grub-efi-amd64-signed", version, path), b"prefix /EFI/ubuntu here");
    let tools = &bench.ubuntu.cuda["gds-tools-13-1_1.16.1.26-1_amd64.deb"].all();
    let tools = Deb::parse(&tools[..]);
    assert!(tools.data.iter().any(|entry| entry.path == "./usr/local/cuda-13.1/gds/tools/gdsio"));
    assert_eq!(tools.extra_members[0].0, "_gpgbuilder");
}
