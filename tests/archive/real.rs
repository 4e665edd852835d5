//! The Ubuntu-shaped archive with real contents: Debian's packages and modules compiled for its kernel, taken apart and
//! packed again as Ubuntu and NVIDIA package them. What comes out boots.
//!
//! | Ubuntu's or NVIDIA's package | from Debian's |
//! |---|---|
//! | `linux-image-K`, `linux-modules-K` | `linux-image-K`; `.ko.xz` becomes `.ko.zst` |
//! | `linux-modules-nvidia-<branch>-open-K`, `linux-modules-nvidia-fs-K` | compiled modules, with a signature |
//! | `libnvidia-compute-<branch>` | `libcuda1`, `libnvidia-ml1`, `libnvidia-ptxjitcompiler1` |
//! | `libnvidia-cfg1-<branch>`, `nvidia-utils-<branch>` | `libnvidia-cfg1`, `nvidia-smi` |
//! | `nvidia-firmware-<branch>-V` | `firmware-nvidia-gsp` |
//! | `libcufile-<cuda>`, `gds-tools-<cuda>` | `libcufile0`, `gds-tools` |
//! | `shim-signed`, `grub-efi-amd64-signed` | the same and `shim-helpers-amd64-signed`, at Ubuntu's paths |
//!
//! Everything else is published as it is.

use super::artefacts;
use super::body::Body;
use super::deb::{Compression, Deb, Entry, Kind};
use super::repository::Package;
use super::stanza::Stanza;
use super::ubuntu::{Kernel, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Debian's packages: name -> the .deb.
pub type Debs = BTreeMap<String, PathBuf>;

/// Modules compiled for Debian's kernel, neither compressed nor signed.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// NVIDIA's modules: `nvidia`, `nvidia-uvm`, ... and their bytes.
    pub nvidia: Vec<(String, Vec<u8>)>,
    /// nvidia-fs.
    pub nvidia_fs: Vec<u8>,
}

/// Packages whose contents go elsewhere, and their like: Debian's own are not published.
const TAKEN_APART: &[&str] = &[
    "libcuda1",
    "libnvidia-ml1",
    "libnvidia-ptxjitcompiler1",
    "libnvidia-cfg1",
    "nvidia-smi",
    "firmware-nvidia-gsp",
    "libcufile0",
    "gds-tools",
    "shim-signed",
    "shim-helpers-amd64-signed",
    "grub-efi-amd64-signed",
];

/// Folders of modules that no image of ours uses, and that Ubuntu has in `linux-modules-extra-K`: packing them again would
/// take most of the time.
const EXTRA: &[&str] = &[
    "kernel/sound/",
    "kernel/drivers/gpu/drm/amd/",
    "kernel/drivers/gpu/drm/i915/",
    "kernel/drivers/gpu/drm/nouveau/",
    "kernel/drivers/gpu/drm/radeon/",
    "kernel/drivers/gpu/drm/xe/",
    "kernel/drivers/iio/",
    "kernel/drivers/infiniband/hw/",
    "kernel/drivers/media/",
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/wireless/",
    "kernel/drivers/staging/",
    "kernel/net/",
];

/// What `publish` needs to serve `template`'s names with the contents of `debs` and `compiled`.
pub fn spec(template: Spec, debs: &Debs, compiled: &Compiled) -> Spec {
    let (release, kernel) = debs
        .iter()
        .find_map(|(name, path)| {
            let release = name.strip_prefix("linux-image-")?;
            release.starts_with(|c: char| c.is_ascii_digit()).then_some((release, path))
        })
        .expect("one of Debian's packages is a kernel");
    let read = |name: &str| {
        Deb::read(debs.get(name).unwrap_or_else(|| panic!("{name} is not among Debian's packages")))
    };
    let kernel = Deb::read(kernel);
    let cuda = read("libcuda1");
    let driver = cuda.version().split_once('-').map_or(cuda.version(), |(upstream, _)| upstream).to_owned();

    let mut spec = Spec {
        kernel: Kernel { release: release.to_owned(), version: kernel.version().to_owned() },
        newer: Kernel { release: format!("{release}-newer"), version: format!("{}.1", kernel.version()) },
        driver: driver.clone(),
        ..template
    };
    let (branch, k) = (spec.branch.clone(), release);
    let mut put = |name: String, entries: Vec<Entry>| {
        assert!(!entries.is_empty(), "{name} would be empty");
        spec.files.insert(name, entries);
    };

    let (image, modules) = split_kernel(kernel, k, spec.module_suffix);
    put(format!("linux-image-{k}"), image);
    put(format!("linux-modules-{k}"), modules);
    let module = |path: String, bytes: &[u8], suffix: &str| {
        let signed = artefacts::sign_module(bytes);
        let bytes = if suffix == ".ko.zst" { Compression::Zstd.compress(&signed) } else { signed };
        Entry::new(&format!("lib/modules/{k}/{path}{suffix}"), Kind::File(bytes.into()))
    };
    put(
        format!("linux-modules-nvidia-{branch}-open-{k}"),
        compiled
            .nvidia
            .iter()
            .map(|(name, bytes)| module(format!("kernel/nvidia-{branch}-open/{name}"), bytes, ".ko"))
            .collect(),
    );
    let fs = module("ubuntu/nvidia-fs/nvidia-fs".into(), &compiled.nvidia_fs, spec.module_suffix);
    put(format!("linux-modules-nvidia-fs-{k}"), vec![fs]);

    // Debian keeps the driver's files aside, for update-alternatives.
    let unhide = |name: &str| {
        let libraries = "usr/lib/x86_64-linux-gnu/";
        let moved = read(name).move_files(|path| {
            let file = path.strip_prefix(libraries)?.strip_prefix("nvidia/current/")?;
            Some(format!("{libraries}{file}"))
        });
        moved.data
    };
    let compute = ["libcuda1", "libnvidia-ml1", "libnvidia-ptxjitcompiler1"];
    put(format!("libnvidia-compute-{branch}"), compute.iter().flat_map(|name| unhide(name)).collect());
    put(format!("libnvidia-cfg1-{branch}"), unhide("libnvidia-cfg1"));
    let smi = read("nvidia-smi").move_files(|path| {
        (path == "usr/lib/nvidia/current/nvidia-smi").then(|| "usr/bin/nvidia-smi".to_owned())
    });
    put(format!("nvidia-utils-{branch}"), smi.data);
    let firmware = read("firmware-nvidia-gsp")
        .move_files(|path| path.ends_with(".bin").then(|| path.trim_start_matches("usr/").to_owned()));
    put(format!("nvidia-firmware-{branch}-{driver}"), firmware.data);

    let (series, root) = (spec.cuda.clone(), format!("usr/local/cuda-{}", spec.cuda.replace('-', ".")));
    let libraries = format!("{root}/targets/x86_64-linux/lib");
    let mut cufile = read("libcufile0")
        .move_files(|path| {
            path.contains("/libcufile.so").then(|| path.replace("usr/lib/x86_64-linux-gnu", &libraries))
        })
        .data;
    let text = |path: String, text: String| Entry::new(&path, Kind::File(text.into_bytes().into()));
    cufile.push(text(
        format!("{root}/gds/cufile.json"),
        "{ \"properties\": { \"allow_compat_mode\": true } }\n".into(),
    ));
    cufile.push(text(format!("etc/ld.so.conf.d/gds-{series}.conf"), format!("/{libraries}\n")));
    spec.files.insert(format!("libcufile-{series}"), cufile);
    let tools = read("gds-tools").move_files(|path| {
        path.strip_prefix("usr/libexec/gds/tools/").map(|name| format!("{root}/gds/tools/{name}"))
    });
    spec.files.insert(format!("gds-tools-{series}"), tools.data);

    spec.files.insert("shim-signed".into(), shim(read("shim-signed"), read("shim-helpers-amd64-signed")));
    spec.files.insert("grub-efi-amd64-signed".into(), grub(read("grub-efi-amd64-signed")));
    let taken = |name: &str| TAKEN_APART.contains(&name) || name.starts_with("linux-image-");
    spec.more = debs.iter().filter(|(name, _)| !taken(name)).map(|(_, path)| as_it_is(path)).collect();
    spec
}

/// A package that is published as it is; only its control is read.
pub fn as_it_is(path: &Path) -> Package {
    Package::of(control(path), Body::file(path))
}

/// A .deb's control, without its data.
pub fn control(path: &Path) -> Stanza {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut archive = ar::Archive::new(std::io::BufReader::new(file));
    let mut members = Vec::new();
    while let Some(member) = archive.next_entry() {
        let mut member = member.unwrap();
        let name = String::from_utf8(member.header().identifier().to_vec()).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        let is_control = name.starts_with("control.tar");
        members.push((name.trim_end_matches('/').to_owned(), bytes));
        if is_control {
            break;
        }
    }
    Deb::parse(&super::deb::ar(&members)[..]).control
}

/// Debian's kernel as Ubuntu's two packages.
fn split_kernel(kernel: Deb, k: &str, suffix: &str) -> (Vec<Entry>, Vec<Entry>) {
    let (mut image, mut modules) = (Vec::new(), Vec::new());
    for mut entry in kernel.data {
        let path = entry.path.trim_start_matches("./").to_owned();
        let Kind::File(bytes) = &entry.kind else { continue };
        if path == format!("boot/vmlinuz-{k}") {
            entry.mode = 0o600;
            image.push(entry);
        } else if path.starts_with("boot/") {
            modules.push(entry);
        } else if let Some((_, rest)) = path.split_once(&format!("lib/modules/{k}/")) {
            if EXTRA.iter().any(|folder| rest.starts_with(folder)) {
                continue;
            }
            let mut rest = rest.to_owned();
            if let Some((stem, _)) =
                rest.split_once(".ko").map(|(stem, end)| (stem.to_owned(), end.to_owned()))
            {
                let plain = Compression::decompress(&rest, bytes);
                let bytes = if suffix == ".ko.zst" { Compression::Zstd.compress(&plain) } else { plain };
                entry.kind = Kind::File(bytes.into());
                rest = format!("{stem}{suffix}");
            }
            entry.path = format!("./lib/modules/{k}/{rest}");
            modules.push(entry);
        }
    }
    (image, modules)
}

/// Debian's shim under Ubuntu's names.
fn shim(shim: Deb, helpers: Deb) -> Vec<Entry> {
    let names = [
        ("shimx64.efi.signed", "shimx64.efi.signed.latest"),
        ("mmx64.efi.signed", "mmx64.efi"),
        ("fbx64.efi.signed", "fbx64.efi"),
    ];
    let mut entries = shim.data;
    entries.extend(helpers.data);
    entries.retain_mut(|entry| {
        let Some((_, name)) = entry.path.rsplit_once('/') else { return false };
        let Some((_, ubuntu)) = names.iter().find(|(debian, _)| *debian == name) else { return false };
        entry.path = format!("./usr/lib/shim/{ubuntu}");
        true
    });
    entries
}

/// Debian's GRUB, looking for its configuration where Ubuntu's does. The names are of one length; the signature is lost,
/// which matters to nobody without Secure Boot.
fn grub(grub: Deb) -> Vec<Entry> {
    let mut entries = grub.data;
    entries.retain(|entry| entry.path.contains("x86_64-efi-signed/") && matches!(entry.kind, Kind::File(_)));
    for entry in &mut entries {
        let Kind::File(bytes) = &mut entry.kind else { continue };
        let mut patched = bytes.to_vec();
        let (from, to) = (b"/EFI/debian", b"/EFI/ubuntu");
        let places: Vec<_> =
            patched.windows(from.len()).enumerate().filter(|(_, w)| w == from).map(|(at, _)| at).collect();
        for at in places {
            patched[at..at + to.len()].copy_from_slice(to);
        }
        *bytes = patched.into();
    }
    entries
}
