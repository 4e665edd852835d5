//! gdsboot's own programs for the image: the static validator and the dynamic worker.
//!
//! An installed gdsboot has them beside itself; one that runs from a checkout lets cargo build them, in a target folder of
//! their own and with the paths of this machine taken out, so that the same sources give the same bytes anywhere.

use crate::error::{hinted, usage};
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The one target; naming it keeps flags for the image away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Cargo's profile for them, in Cargo.toml.
const PROFILE: &str = "image";

/// Leaves out of zstd what packs best (lib/README.md there): captures become a tenth larger, the validator 150 kB smaller.
const SMALL_ZSTD: &str = "-DZSTD_EXCLUDE_GREEDY_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_LAZY_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_LAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR";

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The validator: static, so that it can be the first process of any system.
    pub validator: PathBuf,
    /// The worker: dynamic, so that it can load NVIDIA's libraries.
    pub dma: PathBuf,
}

/// The programs in a folder that the user named.
///
/// # Errors
/// One of them is not there; a validator that is not static.
pub fn named(folder: &Path) -> Result<Programs> {
    let programs = inside(folder);
    for program in [&programs.validator, &programs.dma] {
        if !program.is_file() {
            return Err(usage(
                format!("there is no program {}", program.display()),
                "the folder must hold gdsboot-validator and gdsboot-dma; without --programs they are built",
            ));
        }
    }
    if !is_static(&programs.validator)? {
        return Err(usage(
            format!("{} is not a static program", programs.validator.display()),
            format!(
                "build it with: cargo rustc --profile {PROFILE} --bin gdsboot-validator --target {TARGET} -- -C target-feature=+crt-static"
            ),
        ));
    }
    Ok(programs)
}

/// Finds the programs: beside this executable, else built from this checkout.
///
/// # Errors
/// No programs and no checkout; a failing build.
pub fn find(progress: &Progress) -> Result<Programs> {
    let exe = std::env::current_exe().context("finding this executable")?;
    if let Some(folder) = exe.parent() {
        let programs = inside(folder);
        // In cargo's own target folder there is a dynamic validator; that one is not for images.
        if programs.dma.exists() && programs.validator.exists() && is_static(&programs.validator)? {
            return Ok(programs);
        }
    }
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !checkout.join("Cargo.toml").exists() {
        return Err(hinted(
            "gdsboot-validator and gdsboot-dma are not beside this gdsboot",
            "install all three programs into one folder, or name theirs: --programs DIR",
        ));
    }
    build(checkout, progress)
}

fn inside(folder: &Path) -> Programs {
    Programs { validator: folder.join("gdsboot-validator"), dma: folder.join("gdsboot-dma") }
}

/// A program without an interpreter, as `PT_INTERP` says.
fn is_static(path: &Path) -> Result<bool> {
    let bytes = fs_err::read(path)?;
    let elf = goblin::elf::Elf::parse(&bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok(elf.interpreter.is_none())
}

fn build(checkout: &Path, progress: &Progress) -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let target = target_folder(checkout);
    let stage = progress.stage("building gdsboot's programs", 2, Unit::Steps);
    let run = |verb: &str, program: &str, last: &[&str]| -> Result<()> {
        let mut command = Command::new(&cargo);
        command
            .current_dir(checkout)
            .args([
                verb,
                "--quiet",
                "--profile",
                PROFILE,
                "--locked",
                "--no-default-features",
                "--bin",
                program,
            ])
            .args(["--target", TARGET, "--target-dir"])
            .arg(&target)
            .args(last)
            // An outer cargo's settings are for its own build.
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", remap(checkout))
            .env("CFLAGS_x86_64_unknown_linux_gnu", SMALL_ZSTD)
            .stdin(Stdio::null());
        let output = command.output().with_context(|| format!("running {}", cargo.to_string_lossy()))?;
        if !output.status.success() {
            return Err(hinted(
                format!("building {program} failed:\n{}", String::from_utf8_lossy(&output.stderr).trim()),
                "`cargo build` in the checkout shows it in full",
            ));
        }
        stage.advance(1);
        Ok(())
    };
    // Code and constants share pages: nothing lies between them in the file. Functions of the same code are one; who
    // compares their addresses (liblzma does) takes one for another that does the same. Rust's own linker, LLVM's, can that.
    let mut flags = vec![
        "--",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "link-arg=-Wl,-z,noseparate-code",
        "-C",
        "link-arg=-Wl,--icf=all",
    ];
    if has_relative_relocations() {
        flags.extend(["-C", "link-arg=-Wl,-z,pack-relative-relocs"]);
    }
    run("rustc", "gdsboot-validator", &flags)?;
    run("build", "gdsboot-dma", &[])?;
    let programs = inside(&target.join(TARGET).join(PROFILE));
    ensure!(is_static(&programs.validator)?, "{} came out dynamic", programs.validator.display());
    Ok(programs)
}

/// Does this system's glibc, which becomes a part of the static program, relocate it by DT_RELR, a bit for an address instead
/// of 24 bytes? It does since 2.36 (its NEWS); an older one would not start the program.
fn has_relative_relocations() -> bool {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    output.is_ok_and(|output| glibc(&String::from_utf8_lossy(&output.stdout)) >= Some((2, 36)))
}

/// The version in `glibc 2.36`.
fn glibc(said: &str) -> Option<(u32, u32)> {
    let (major, minor) = said.strip_prefix("glibc ")?.trim_end().split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// A folder of its own, so that an outer cargo's lock is not waited for. Where the checkout cannot be written to, the
/// user's own temporary space serves.
fn target_folder(checkout: &Path) -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from);
    let folder = base.join("programs");
    if fs_err::create_dir_all(&folder).is_ok()
        && nix::unistd::access(&folder, nix::unistd::AccessFlags::W_OK).is_ok()
    {
        return folder;
    }
    std::env::temp_dir().join(format!("gdsboot-programs-{}", nix::unistd::geteuid()))
}

/// Flags that replace this machine's paths in the programs by fixed ones.
fn remap(checkout: &Path) -> OsString {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cargo")));
    let mut flags = OsString::from("--remap-path-prefix=");
    flags.push(checkout);
    flags.push("=/gdsboot");
    if let Some(home) = home {
        flags.push(" --remap-path-prefix=");
        flags.push(home);
        flags.push("=/cargo");
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_glibc_is_read() {
        for (said, version) in [
            ("glibc 2.36\n", Some((2, 36))),
            ("glibc 2.4\n", Some((2, 4))),
            ("glibc 3.0.1\n", Some((3, 0))),
            ("musl 1.2\n", None),
            ("", None),
        ] {
            assert_eq!(glibc(said), version, "{said:?}");
        }
        assert!(glibc("glibc 2.4") < Some((2, 36)));
    }

    #[test]
    fn a_dynamic_validator_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["gdsboot-validator", "gdsboot-dma"] {
            fs_err::copy(std::env::current_exe().unwrap(), dir.path().join(name)).unwrap();
        }
        let error = named(dir.path()).unwrap_err();
        assert!(error.to_string().contains("not a static program"), "{error}");
    }
}
