//! The libraries that imitate NVIDIA's, built for tests.

#![allow(dead_code, reason = "each test that includes this module takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A folder with the three libraries; `old` ones count nothing and lack what is newer.
pub fn libraries(old: bool) -> &'static Path {
    static FOLDERS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    FOLDERS[usize::from(old)].get_or_init(|| match old {
        true => build("simulated-old", "debug", &["--features", "old"]),
        false => build("simulated", "debug", &[]),
    })
}

/// A folder with the same, compiled for speed.
pub fn release() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build("simulated", "release", &["--release"]))
}

fn build(target: &str, profile: &str, arguments: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("qemu/simulated-cufile/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--locked", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(&target).args(arguments);
    let output = cargo.env_remove("CARGO_BUILD_TARGET").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = target.join(profile);
    link(&folder);
    folder
}

const LIBRARY: &str = "libgdsboot_simulated_cufile.so";

/// Puts the library into a folder, under all three names.
pub fn put_into(folder: &Path) {
    fs_err::create_dir_all(folder).unwrap();
    fs_err::copy(libraries(false).join(LIBRARY), folder.join(LIBRARY)).unwrap();
    link(folder);
}

fn link(folder: &Path) {
    for name in ["libcuda.so.1", "libcufile.so.0", "libnvidia-ml.so.1"] {
        let _ = fs_err::remove_file(folder.join(name));
        std::os::unix::fs::symlink(LIBRARY, folder.join(name)).unwrap();
    }
}
