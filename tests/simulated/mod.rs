//! The libraries that imitate NVIDIA's (qemu/simulated-cufile), built for whole-program tests and measurements.

#![allow(dead_code, reason = "each that includes this module takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What all three are links to.
pub const LIBRARY: &str = "libgdsboot_simulated_cufile.so";
/// The names that programs load.
pub const NAMES: [&str; 3] = ["libcuda.so.1", "libcufile.so.0", "libnvidia-ml.so.1"];

/// Builds them with these arguments of cargo, in a folder `name` of their own; the folder with the three libraries.
pub fn build(name: &str, arguments: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("qemu/simulated-cufile/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--locked", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(&folder).args(arguments);
    let output = cargo.env_remove("CARGO_BUILD_TARGET").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = if arguments.contains(&"--release") { "release" } else { "debug" };
    let folder = folder.join(profile);
    link(Path::new(LIBRARY), &folder);
    folder
}

/// Puts the three names into a folder, as links.
pub fn link(library: &Path, folder: &Path) {
    for name in NAMES {
        let link = folder.join(name);
        // Another test may be loading it.
        if std::fs::read_link(&link).ok().as_deref() != Some(library) {
            let _ = fs_err::remove_file(&link);
            std::os::unix::fs::symlink(library, &link).unwrap();
        }
    }
}
