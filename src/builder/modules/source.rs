//! Module sources as packages unpack them under `usr/src`, and our patches for them.

use crate::error::hinted;
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which recipe compiles a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// NVIDIA's open GPU kernel modules, of which nvidia.ko and nvidia-uvm.ko are built.
    NvidiaOpen,
    /// nvidia-fs.ko; needs [`Kind::NvidiaOpen`] before it.
    NvidiaFs,
}

impl Kind {
    /// What the source is called upstream; patches stand in `image/patches/<name>-<version>/`.
    pub fn source_name(self) -> &'static str {
        match self {
            Self::NvidiaOpen => "nvidia-open-gpu-kernel-modules",
            Self::NvidiaFs => "nvidia-fs",
        }
    }

    /// The version that the source in `dir` says it has; nothing if `dir` holds something else.
    fn version_in(self, dir: &Path) -> Option<String> {
        let read = |file: &str| fs_err::read_to_string(dir.join(file)).ok();
        match self {
            Self::NvidiaOpen => nvidia_version(&read("Kbuild")?),
            Self::NvidiaFs => nvidia_fs_version(&read("nvfs-vers.h")?),
        }
    }

    /// How many lines of progress compiling `dir` will bring. An estimate: what cannot be read counts nothing.
    pub(super) fn expected_steps(self, dir: &Path) -> u64 {
        let read = |file: &str| fs_err::read_to_string(dir.join(file)).unwrap_or_default();
        let steps = match self {
            Self::NvidiaOpen => {
                let kbuild = ["nvidia/nvidia", "nvidia-uvm/nvidia-uvm"]
                    .map(|stem| read(&format!("{stem}.Kbuild")) + &read(&format!("{stem}-sources.Kbuild")))
                    .concat();
                // The list of headers stands in one or the other, by version.
                nvidia_steps(&kbuild) + headers(&read("header-presence-tests.mk")) + headers(&read("Kbuild"))
            }
            Self::NvidiaFs => {
                read("configure").matches("compile_prog \"").count() + read("Makefile").matches(".o ").count()
            }
        };
        u64::try_from(steps).unwrap_or(u64::MAX)
    }
}

/// `ccflags-y += -DNV_VERSION_STRING=\"550.163.01\"`.
fn nvidia_version(kbuild: &str) -> Option<String> {
    let (_, rest) = kbuild.split_once("-DNV_VERSION_STRING=\\\"")?;
    Some(rest.split_once("\\\"")?.0.to_owned())
}

/// The three numbers that MODULE_VERSION is made of.
fn nvidia_fs_version(header: &str) -> Option<String> {
    let number = |part: &str| {
        let (_, rest) = header.split_once(&format!("#define NVFS_DRIVER_{part}_VERSION"))?;
        let word = rest.split_ascii_whitespace().next()?;
        word.bytes().all(|b| b.is_ascii_digit()).then_some(word)
    };
    Some([number("MAJOR")?, number("MINOR")?, number("PATCH")?].join("."))
}

/// Objects and questions to the kernel headers; several modules may ask the same, which is asked once.
fn nvidia_steps(kbuild: &str) -> usize {
    let added = kbuild.lines().filter_map(|line| line.split_once("+="));
    let steps =
        added.filter(|(name, value)| name.contains("_COMPILE_TESTS") || value.trim_end().ends_with(".c"));
    steps.map(|(_, value)| value.trim()).collect::<BTreeSet<_>>().len()
}

/// Headers that a Makefile lists, one a line.
fn headers(makefile: &str) -> usize {
    let listed = |line: &&str| {
        let line = line.trim_end_matches('\\').trim();
        line.ends_with(".h") && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b))
    };
    makefile.lines().filter(listed).count()
}

/// A patch against a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its file name; patches are applied in the order of their names.
    pub name: String,
    /// A unified diff, with paths to be taken from the source's folder with `-p1`.
    pub bytes: Vec<u8>,
}

/// A module source in the module-build root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSource {
    /// How it is compiled.
    pub kind: Kind,
    /// What the source is called: [`Kind::source_name`].
    pub name: String,
    /// The version that the source itself states.
    pub version: String,
    /// Where it is, relative to the root: `usr/src/nvidia-current-open-550.163.01`.
    pub dir: PathBuf,
    /// What is changed before it is compiled.
    pub patches: Vec<Patch>,
}

impl ModuleSource {
    /// Finds the one source of this kind under `root`/usr/src, and its patches under `patches`
    /// (`image/patches`). A folder of patches that does not exist means that there are none; one of `named` (file
    /// names, from the profile) that does not exist is an error.
    pub fn find(root: &Path, kind: Kind, patches: &Path, named: &[String]) -> Result<Self> {
        let name = kind.source_name();
        let src = root.join("usr/src");
        let mut found = Vec::new();
        for entry in fs_err::read_dir(&src).with_context(|| format!("looking for the source of {name}"))? {
            let path = entry?.path();
            if let Some(version) = kind.version_in(&path) {
                found.push((path, version));
            }
        }
        let (path, version) = match <[_; 1]>::try_from(found) {
            Ok([one]) => one,
            Err(found) if found.is_empty() => {
                return Err(hinted(
                    format!("no source of {name} under {}", src.display()),
                    "the profile's module-build packages must contain it (Debian: nvidia-open-kernel-dkms, nvidia-fs-dkms)",
                ));
            }
            Err(mut found) => {
                found.sort();
                let found: Vec<_> = found.iter().map(|(p, _)| p.display().to_string()).collect();
                bail!("more than one source of {name}: {}", found.join(", "));
            }
        };
        let patches = read_patches(&patches.join(format!("{name}-{version}")), named)
            .with_context(|| format!("reading the patches of {name} {version}"))?;
        let dir = path.strip_prefix(root).context("naming the source's folder")?.to_owned();
        Ok(Self { kind, name: name.to_owned(), version, dir, patches })
    }
}

/// Every `*.patch` in `dir`, sorted by name.
fn read_patches(dir: &Path, named: &[String]) -> Result<Vec<Patch>> {
    let mut patches = Vec::new();
    if dir.is_dir() {
        for entry in fs_err::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "patch") {
                let name =
                    path.file_name().and_then(|n| n.to_str()).context("a patch's name is not UTF-8")?;
                patches.push(Patch { name: name.to_owned(), bytes: fs_err::read(&path)? });
            }
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    for name in named {
        ensure!(
            patches.iter().any(|p| p.name == *name),
            "the profile names {name}, which is not in {}",
            dir.display()
        );
    }
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    const KBUILD: &str = "ccflags-y += -D__KERNEL__\nccflags-y += -DNV_VERSION_STRING=\\\"550.163.01\\\"\n";
    const VERSIONS: &str = "#define NVFS_DRIVER_MAJOR_VERSION   2 //2-bytes\n\n#define NVFS_DRIVER_MINOR_VERSION   13 //2\n\
        // template for build version\n#define NVFS_DRIVER_PATCH_VERSION  5\n";

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "usr/src/linux-headers-6.1/Kbuild", "obj-y :=\n");
        write(root.path(), "usr/src/nvidia-current-open-550.163.01/Kbuild", KBUILD);
        // Debian 12 calls the folder by two of the three numbers.
        write(root.path(), "usr/src/nvidia-fs-2.13/nvfs-vers.h", VERSIONS);
        root
    }

    #[test]
    fn sources_are_found_by_what_they_say_of_themselves() {
        let root = root();
        let patches = root.path().join("patches");
        let source = ModuleSource::find(root.path(), Kind::NvidiaFs, &patches, &[]).unwrap();
        let expected = ModuleSource {
            kind: Kind::NvidiaFs,
            name: "nvidia-fs".into(),
            version: "2.13.5".into(),
            dir: "usr/src/nvidia-fs-2.13".into(),
            patches: vec![],
        };
        assert_eq!(source, expected);
        let source = ModuleSource::find(root.path(), Kind::NvidiaOpen, &patches, &[]).unwrap();
        assert_eq!(
            (source.version.as_str(), source.dir.to_str().unwrap()),
            ("550.163.01", "usr/src/nvidia-current-open-550.163.01")
        );
    }

    #[test]
    fn none_and_two_sources_are_errors() {
        let root = root();
        let find = || ModuleSource::find(root.path(), Kind::NvidiaOpen, Path::new("/none"), &[]).unwrap_err();
        write(root.path(), "usr/src/nvidia-550.163.01/Kbuild", KBUILD);
        assert!(find().to_string().starts_with("more than one source of nvidia-open-gpu-kernel-modules: "));
        for dir in ["nvidia-550.163.01", "nvidia-current-open-550.163.01"] {
            fs_err::remove_dir_all(root.path().join("usr/src").join(dir)).unwrap();
        }
        let error = find();
        assert!(
            error.to_string().starts_with("no source of nvidia-open-gpu-kernel-modules under "),
            "{error}"
        );
        assert!(crate::error::hint_of(&error).unwrap().contains("nvidia-open-kernel-dkms"));
    }

    #[test]
    fn patches_come_in_the_order_of_their_names() {
        let root = root();
        let patches = root.path().join("patches");
        write(&patches, "nvidia-fs-2.13.5/02-b.patch", "b");
        write(&patches, "nvidia-fs-2.13.5/01-a.patch", "a");
        write(&patches, "nvidia-fs-2.13.5/README", "not a patch");
        write(&patches, "nvidia-fs-2.13.6/01-other.patch", "for another version");
        let find = |named: &[&str]| {
            let named: Vec<_> = named.iter().map(|&n| n.to_owned()).collect();
            ModuleSource::find(root.path(), Kind::NvidiaFs, &patches, &named)
        };
        let names: Vec<_> = find(&["02-b.patch"]).unwrap().patches.into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["01-a.patch", "02-b.patch"]);
        let error = format!("{:#}", find(&["01-other.patch"]).unwrap_err());
        assert!(
            error.starts_with("reading the patches of nvidia-fs 2.13.5: the profile names 01-other.patch"),
            "{error}"
        );
    }

    #[test]
    fn a_version_that_is_no_number_is_not_taken() {
        assert_eq!(nvidia_fs_version("#define NVFS_DRIVER_MAJOR_VERSION (2 + x)"), None);
        assert_eq!(nvidia_version("-DNV_VERSION_STRING=\\\"unfinished"), None);
    }

    #[test]
    fn a_question_asked_twice_is_one_step() {
        let kbuild = "NVIDIA_SOURCES += nvidia/nv.c\nNV_CONFTEST_TYPE_COMPILE_TESTS += vm_fault_t\n\
            NV_CONFTEST_TYPE_COMPILE_TESTS += vm_fault_t\nNVIDIA_CFLAGS += -DX\n";
        assert_eq!(nvidia_steps(kbuild), 2);
        let list =
            "NV_HEADER_PRESENCE_TESTS = \\\n  asm/system.h \\\n  drm/drmP.h\n$(obj)/conftest/macros.h: x.h\n";
        assert_eq!(headers(list), 2);
    }
}
