//! Disks for tests: loop devices over files, on a tree that makes an NVMe drive of one.

use super::candidate::tests::machine;
use super::{Disk, Live, Machine, Opened, candidate};
use crate::facts::Root;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The size of the disk of most tests.
pub const BYTES: u64 = 40 << 20;
/// Its consent.
pub const WIPE: Option<&str> = Some("I-UNDERSTAND-S1");

/// A file of zeros with something at some places.
pub fn file(folder: &Path, name: &str, bytes: u64, what: &[(u64, &[u8])]) -> PathBuf {
    let path = folder.join(name);
    let file = File::create(&path).unwrap();
    file.set_len(bytes).unwrap();
    what.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    path
}

/// A loop device over a file of ours.
pub struct Loop(pub String);

impl Loop {
    pub fn new(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let node = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && node.starts_with("/dev/loop")).then_some(Self(node))
    }

    pub fn number(&self) -> u64 {
        std::fs::metadata(&self.0).unwrap().rdev()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// The live machine's opener on a tree that gives a loop device a drive's name and serial number; a second takes 100 ms.
pub struct Tree(Live, tempfile::TempDir);

impl Tree {
    pub fn new(device: &Loop, bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), &candidate::number(device.number()), bytes);
        fs_err::create_dir(dir.path().join("dev")).unwrap();
        let tree = Self(Live::new(Root::at(dir.path())), dir);
        tree.put(device);
        tree
    }

    pub fn put(&self, device: &Loop) {
        use nix::sys::stat::{Mode, SFlag, mknod};
        let path = self.1.path().join("dev/nvme1n1");
        let _ = std::fs::remove_file(&path);
        mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, device.number()).unwrap();
    }
}

impl Machine for Tree {
    fn disks(&self) -> anyhow::Result<Vec<Disk>> {
        self.0.disks()
    }

    fn node(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.0.node(name)
    }

    fn open(&self, name: &str, exclusive: bool) -> anyhow::Result<Opened> {
        self.0.open(name, exclusive)
    }

    fn wait(&self) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Two loop devices, or why there are none.
pub fn loops(folder: &Path, first: &[(u64, &[u8])]) -> Option<(Loop, Loop)> {
    let one = Loop::new(&file(folder, "one", BYTES, first));
    let two = Loop::new(&file(folder, "two", BYTES, &[(BYTES - 1, b"x")]));
    let both = one.zip(two);
    if both.is_none() {
        eprintln!("skipped: loop devices need root and losetup");
    }
    both
}
