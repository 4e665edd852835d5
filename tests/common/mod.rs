//! What the whole-program tests share: running gdsboot, and one image that is built once.

#![allow(dead_code, reason = "each test that includes this module takes what it needs")]

pub mod report_volume;
pub mod words;

use gdsboot::builder::cache::Cache;
use gdsboot::builder::image::{Place, unpacked_root};
use gdsboot::builder::lock::{Lock, SET_EMULATOR};
use gdsboot::builder::pool::Pool;
use gdsboot::builder::profile::Profile;
use gdsboot::builder::resolve;
use gdsboot::progress::Progress;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

/// The profile that most tests of real images build.
pub const PROFILE: &str = "debian-13";
/// The older one, a second complete stack.
pub const OLD_PROFILE: &str = "debian-12";

/// gdsboot, without progress bars.
pub fn gdsboot() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gdsboot"));
    command.args(["--progress", "plain"]);
    command
}

/// Runs to the end; a failure shows the command, the status and both streams.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("running {command:?}: {error}"))
}

/// Like [`run`], and the exit status must be this one.
pub fn run_with_status(command: &mut Command, status: i32) -> Output {
    let output = run(command);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{command:?}\n--- standard output\n{}\n--- standard error\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An image of [`PROFILE`], built from the archive that the host's apt uses.
#[derive(Debug)]
pub struct Image {
    /// Its profile.
    pub profile: String,
    /// The image.
    pub path: PathBuf,
    /// Its lock.
    pub lock: PathBuf,
    /// Where cargo's programs for it are.
    pub programs: PathBuf,
}

/// The folder in which tests of real images work: cargo's own for this purpose.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// The cache that the tests share, so that a second run finds what the first one made.
pub fn cache() -> PathBuf {
    std::env::var_os("GDSBOOT_CACHE").map_or_else(|| folder().join("cache"), PathBuf::from)
}

/// A build of the test image into `output`.
pub fn build(output: &Path, lock: &Path) -> Command {
    build_of(PROFILE, output, lock)
}

fn build_of(profile: &str, output: &Path, lock: &Path) -> Command {
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).args(["build", profile, "--lock"]).arg(lock).arg("-o").arg(output);
    command
}

/// Builds the image once per test program; others wait for it.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| image_of(PROFILE))
}

/// Builds the image of any profile that needs no archive but the host's.
pub fn image_of(profile: &str) -> Image {
    let image = Image {
        profile: profile.to_owned(),
        path: folder().join(format!("{profile}.img")),
        lock: lock_path(profile),
        programs: Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/programs/x86_64-unknown-linux-gnu/image"),
    };
    make_lock(profile, &image.lock);
    run_with_status(&mut build_of(profile, &image.path, &image.lock), 0);
    image
}

/// A test image's lock.
fn lock_path(profile: &str) -> PathBuf {
    folder().join(format!("{profile}.lock.toml"))
}

/// Mirrors move on: a lock of an earlier day may name what is gone, one of this run serves every test program.
fn make_lock(profile: &str, path: &Path) {
    let age = std::fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    if age.is_some_and(|age| age < Duration::from_secs(3600)) {
        return;
    }
    let mut lock = gdsboot();
    lock.arg("--cache").arg(cache()).args(["lock", profile, "--update", "--lock"]).arg(path);
    run_with_status(&mut lock, 0);
}

/// A QEMU for tests that bring images of their own: the one that the profile pins, started by a script through its own
/// dynamic loader, so that it needs no sandbox and is found at one path.
pub fn qemu() -> &'static Path {
    static QEMU: OnceLock<PathBuf> = OnceLock::new();
    QEMU.get_or_init(|| {
        let path = lock_path(PROFILE);
        make_lock(PROFILE, &path);
        let root = emulator_root(PROFILE, &path);
        let (root, libraries) = (root.display(), format!("{}/usr/lib/x86_64-linux-gnu", root.display()));
        let script = format!(
            "#!/bin/sh\nexport QEMU_MODULE_DIR={libraries}/qemu\n\
             exec {root}/lib64/ld-linux-x86-64.so.2 --library-path {libraries} {root}/usr/bin/qemu-system-x86_64 \
             -L {root}/usr/share/seabios -L {root}/usr/share/qemu -L {root}/usr/lib/ipxe/qemu \"$@\"\n"
        );
        let path = folder().join("qemu-system-x86_64");
        let mut temp = tempfile::NamedTempFile::new_in(folder()).unwrap();
        temp.write_all(script.as_bytes()).unwrap();
        temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // Closed before it is executed: a file that is open for writing is "busy".
        temp.into_temp_path().persist(&path).unwrap();
        path
    })
}

/// A root with packages of the profile's archive for the tests alone, unpacked by gdsboot's own builder: a host needs none
/// of them. `name` is that of its lock.
pub fn unpacked(name: &str, packages: &[&str]) -> PathBuf {
    let text = include_str!("../../image/profiles/debian-13.toml");
    let (front, _) = text.split_once("[emulator]").unwrap();
    // The profile holds some of them back from its image.
    let held = packages.iter().map(|package| format!("\"{package} (= 999)\", "));
    let front = held.fold(front.to_owned(), |front, held| front.replace(&held, ""));
    let text = format!("{front}[emulator]\npackages = {packages:?}\n");
    let (profile, lock) = (folder().join(format!("{name}.toml")), folder().join(format!("{name}.lock.toml")));
    std::fs::write(&profile, text).unwrap();
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("lock").arg(&profile).args(["--update", "--lock"]).arg(&lock);
    run_with_status(&mut command, 0);
    emulator_root(profile.to_str().unwrap(), &lock)
}

fn emulator_root(profile: &str, lock: &Path) -> PathBuf {
    let lock = Lock::read(lock).unwrap();
    let profile = Profile::load(profile).unwrap();
    let cache = Cache::open(Some(&cache())).unwrap();
    let pool = Pool::open(&cache.pool(), false).unwrap();
    let mirrors = resolve::mirrors(&profile, &[], Path::new("/etc/apt")).unwrap();
    let progress = Progress::none();
    let place = Place { pool: &pool, mirrors: &mirrors, cache: &cache, progress: &progress };
    unpacked_root(&lock, SET_EMULATOR, &place).unwrap()
}

/// A program of an unpacked root, run by its own dynamic loader: no sandbox, and nothing of the host's.
pub fn program(root: &Path, path: &str) -> Command {
    let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu")).arg(root.join(path));
    command
}

/// A copy in `dir` of a machine that gdsboot brings, under its name and without what it expects: a boot in it ends with the
/// verdict's own status.
pub fn machine_without_expectations(name: &str, dir: &Path) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("qemu/machines/{name}.toml"));
    let text = std::fs::read_to_string(file).unwrap();
    let path = dir.join(format!("{name}.toml"));
    std::fs::write(&path, text.split("[expect]").next().unwrap()).unwrap();
    path
}

/// SHA-256 of a file, hex.
pub fn sha256(path: &Path) -> String {
    gdsboot::builder::pool::hash_of(&std::fs::File::open(path).unwrap()).unwrap()
}

/// Is this test run by root?
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The same command in a network namespace of its own, in which there are no routes and not even a loopback.
pub fn without_network(command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.arg(if is_root() { "--net" } else { "-rn" }).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped
}

/// The same command as the user `nobody`, if root runs the tests.
pub fn as_nobody(command: &Command, home: &Path) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    wrapped.arg(command.get_program()).args(command.get_args()).env("HOME", home).env("TMPDIR", home);
    wrapped
}

/// Does some text contain all of these words?
pub fn contains_all<S: AsRef<OsStr>>(text: &str, words: &[S]) -> bool {
    words.iter().all(|w| text.contains(&*w.as_ref().to_string_lossy()))
}
