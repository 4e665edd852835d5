//! The libraries that imitate NVIDIA's (qemu/simulated-cufile), built for whole-program tests and measurements.

#![allow(dead_code, reason = "each that includes this module takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What all three are links to.
pub const LIBRARY: &str = "libgdsboot_simulated_cufile.so";
/// The names that programs load.
pub const NAMES: [&str; 3] = ["libcuda.so.1", "libcufile.so.0", "libnvidia-ml.so.1"];

/// A folder with the three libraries; `old` ones count nothing and lack what is newer.
pub fn libraries(old: bool) -> &'static Path {
    static FOLDERS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    FOLDERS[usize::from(old)].get_or_init(|| match old {
        true => build("simulated-old", &["--features", "old"]),
        false => build("simulated", &[]),
    })
}

/// A folder with the same, compiled for speed.
pub fn release() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build("simulated", &["--release"]))
}

/// Puts copies into a folder, for a machine that has nothing else.
pub fn put_into(folder: &Path) {
    fs_err::create_dir_all(folder).unwrap();
    fs_err::copy(libraries(false).join(LIBRARY), folder.join(LIBRARY)).unwrap();
    link(Path::new(LIBRARY), folder);
}

/// Builds them with these arguments of cargo, in a folder `name` of their own; the folder with the three libraries.
fn build(name: &str, arguments: &[&str]) -> PathBuf {
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
