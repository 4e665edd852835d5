//! Packages that must not be believed: whatever a .deb holds, reading it either gives a tree or an error with its reason,
//! and nothing outside the work folder is ever touched.

mod archive;

use archive::deb::Compression;
use archive::hash::sha256;
use archive::hostile;
use gdsboot::builder::lock::{Lock, Package, SET_IMAGE};
use gdsboot::builder::pool::Pool;
use gdsboot::builder::unpack::{Unpacked, unpack};
use gdsboot::error::one_line;
use gdsboot::progress::{Mode, Progress};
use std::time::{Duration, Instant};

/// Unpacks a .deb that the lock knows by its right hash, so that only its insides can be wrong.
fn read(bytes: &[u8]) -> anyhow::Result<Unpacked> {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(&dir.path().join("pool"), true).unwrap();
    let hash = sha256(bytes);
    let path = pool.path(&hash);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    let package = Package {
        name: hostile::NAME.into(),
        version: hostile::VERSION.into(),
        arch: "amd64".into(),
        source: "test".into(),
        path: "odd.deb".into(),
        size: bytes.len() as u64,
        sha256: hash,
        sets: [SET_IMAGE.into()].into(),
    };
    let lock = Lock {
        version: 1,
        profile: "test".into(),
        resolve_key: String::new(),
        epoch: 0,
        kernel: String::new(),
        release: Vec::new(),
        package: vec![package],
    };
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let result = unpack(&pool, &lock, &[SET_IMAGE.into()], &spool, &|_| true, &Progress::new(Mode::None));
    let around: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(around.len(), 2, "something was written outside: {around:?}");
    result
}

#[test]
fn hostile_packages_are_refused_with_a_reason() {
    let mut believed = Vec::new();
    for case in hostile::refused() {
        match read(&case.bytes) {
            Ok(_) => believed.push(case.title),
            Err(error) => {
                let text = one_line(&error);
                assert!(text.len() > 20, "{}: {text:?} is no reason", case.title);
                println!("{}: {text}", case.title);
            }
        }
    }
    assert!(believed.is_empty(), "believed: {believed:#?}");
}

#[test]
fn odd_packages_are_read() {
    for case in hostile::accepted() {
        let unpacked = read(&case.bytes).unwrap_or_else(|e| panic!("{}: {}", case.title, one_line(&e)));
        let content = unpacked.tree.file("usr/share/odd/file").unwrap().read().unwrap();
        assert_eq!(content, b"content", "{}", case.title);
    }
}

#[test]
fn bombs_are_defused_before_they_fill_the_disk() {
    // The honest one is small, so that a reader that believes it does no harm either.
    for (what, bomb) in [
        ("a liar of 64 GiB", hostile::bomb(Compression::Zstd, 64, false)),
        ("a liar of 64 GiB in xz", hostile::bomb(Compression::Xz, 64, false)),
        ("an honest one of 2 GiB", hostile::bomb(Compression::Zstd, 2, true)),
    ] {
        let start = Instant::now();
        let result = read(&bomb);
        let spent = start.elapsed();
        assert!(result.is_err(), "{what} ({} bytes) was unpacked", bomb.len());
        assert!(spent < Duration::from_secs(20), "{what}: it took {spent:?}");
    }
}
