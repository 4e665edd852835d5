use super::*;
use crate::error::{hint_of, one_line};
use crate::report::source::{MAX_REPORT, Source};
use proptest::prelude::*;
use std::fs::File;
use std::path::Path;

/// What qemu-img made: see tests/qcow2.
pub(crate) fn images() -> tempfile::TempDir {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/qcow2/images.tar.zst");
    let dir = tempfile::tempdir().unwrap();
    let file = zstd::Decoder::new(fs_err::File::open(path).unwrap()).unwrap();
    tar::Archive::new(file).unpack(dir.path()).unwrap();
    dir
}

fn open(path: &Path) -> Result<Qcow2<File>> {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    Qcow2::open(file, len)
}

#[test]
fn every_form_reads_as_the_disk_it_was_made_of() {
    let dir = images();
    let raw = fs_err::read(dir.path().join("raw.img")).unwrap();
    for name in [
        "plain",
        "version-2",
        "deflate",
        "zstd",
        "small-clusters",
        "large-clusters",
        "preallocated",
        "snapshot",
        "zeros",
    ] {
        let path = dir.path().join(format!("{name}.qcow2"));
        let image = open(&path).unwrap();
        assert_eq!(image.size(), raw.len() as u64, "{name}");
        let mut read = vec![0xaa; raw.len()];
        image.read_exact_at(&mut read, 0).unwrap();
        assert!(read == raw, "{name}");
        // Across clusters, at odd places.
        let mut part = vec![0; 70_001];
        image.read_exact_at(&mut part, (1 << 20) - 33).unwrap();
        assert!(part == raw[(1 << 20) - 33..][..70_001], "{name}");
        assert!(image.read_exact_at(&mut part, raw.len() as u64 - 5).is_err(), "{name}");
        let source = Source::open(&path).unwrap();
        let runs = source.runs().unwrap().runs;
        assert_eq!(runs.len(), 2, "{name}");
        assert!(source.read(&runs[1], "report.json", MAX_REPORT).unwrap().is_some(), "{name}");
    }
}

#[test]
fn what_is_refused_says_why_and_what_helps() {
    let dir = images();
    for (name, words, hint) in [
        ("subclusters", "it has subclusters", "qemu-img convert"),
        ("backing", "a difference to a backing file", "qemu-img convert -O raw"),
        ("external", "its data lies in another file", "qemu-img convert"),
        ("encrypted", "it is encrypted", "qemu-img convert"),
        ("encrypted", "it is encrypted", "encrypt.key-secret="),
    ] {
        let error = open(&dir.path().join(format!("{name}.qcow2"))).unwrap_err();
        assert!(one_line(&error).contains(words), "{error:#}");
        assert!(hint_of(&error).unwrap().contains(hint), "{error:#}");
    }
}

#[test]
fn an_image_that_ends_too_early_is_named() {
    let dir = images();
    let path = dir.path().join("deflate.qcow2");
    let bytes = fs_err::read(&path).unwrap();
    // Compressed data lies behind the tables.
    fs_err::write(&path, &bytes[..bytes.len() - 8192]).unwrap();
    let error = Source::open(&path).and_then(|source| source.runs().map(|_| ())).unwrap_err();
    assert!(one_line(&error).contains("the qcow2 image is damaged: it ends before byte"), "{error:#}");
    fs_err::write(&path, &bytes[..100]).unwrap();
    let error = one_line(&open(&path).unwrap_err());
    assert!(error.contains("its table lies outside of its 100 bytes"), "{error}");
    fs_err::write(&path, &bytes[..40]).unwrap();
    assert!(one_line(&open(&path).unwrap_err()).contains("too few for a qcow2 header"));
}

/// The descriptor counts whole sectors; nobody has to write the last of them whole.
#[test]
fn an_image_may_end_with_the_last_byte_that_is_used() {
    let dir = images();
    let raw = fs_err::read(dir.path().join("raw.img")).unwrap();
    for name in ["deflate", "zstd"] {
        let mut bytes = fs_err::read(dir.path().join(format!("{name}.qcow2"))).unwrap();
        let padded = bytes.len();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        assert_ne!(bytes.len() % 512, 0, "{name} has {padded} bytes");
        let len = bytes.len() as u64;
        let image = Qcow2::open(bytes.clone(), len).unwrap();
        let mut read = vec![0xaa; raw.len()];
        image.read_exact_at(&mut read, 0).unwrap();
        assert!(read == raw, "{name}");
        // With less than that, it is damaged; the last few bytes are the compression's own.
        bytes.truncate(bytes.len() - 16);
        let image = Qcow2::open(bytes, len - 16).unwrap();
        let error = image.read_exact_at(&mut read, 0).unwrap_err().to_string();
        assert!(error.contains("it ends before byte") && error.contains("compressed cluster"), "{error}");
    }
}

#[test]
fn every_error_about_an_image_says_what_helps() {
    let whole = fs_err::read(images().path().join("zstd.qcow2")).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = whole.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    for (image, words, hint) in [
        (whole[..60].to_vec(), "too few for a qcow2 header", "copy it again"),
        (with(4, &[0, 0, 0, 9]), "version 9 is not supported", "qemu-img convert"),
        (with(20, &[0, 0, 0, 40]), "claim 2^40 bytes", "qemu-img check"),
        (with(104, &[7]), "not supported: type 7", "qemu-img convert"),
        (with(36, &[0, 0, 0, 0]), "its table has 0 entries", "qemu-img check"),
        (with(40, &[0xff; 8]), "its table lies outside", "qemu-img check"),
        (with(72, &[0x40]), "features that are not known here", "qemu-img convert"),
    ] {
        let len = image.len() as u64;
        let error = Qcow2::open(image, len).unwrap_err();
        assert!(one_line(&error).contains(words), "{words:?}: {error:#}");
        assert!(hint_of(&error).unwrap().contains(hint), "{error:#}");
    }
}

/// Counts what is read in pieces that are larger than an entry of a table.
struct Counting(Vec<u8>, std::cell::Cell<usize>);

impl ReadAt for Counting {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.set(self.1.get() + usize::from(buf.len() > 8));
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn a_cluster_is_not_decompressed_at_every_turn() {
    let dir = images();
    let bytes = fs_err::read(dir.path().join("deflate.qcow2")).unwrap();
    let raw = fs_err::read(dir.path().join("raw.img")).unwrap();
    let len = bytes.len() as u64;
    let image = Qcow2::open(Counting(bytes, std::cell::Cell::new(0)), len).unwrap();
    let before = image.file.1.get();
    // A filesystem's table, and what it is the table of: clusters that hold something.
    let full = |at: &usize| raw[*at..at + (1 << image.cluster_bits)].iter().any(|byte| *byte != 0);
    let some: Vec<usize> = (0..raw.len()).step_by(1 << image.cluster_bits).filter(full).take(3).collect();
    assert_eq!(some.len(), 3);
    let mut part = [0; 16];
    for _ in 0..50 {
        for at in &some {
            image.read_exact_at(&mut part, *at as u64).unwrap();
            assert_eq!(part, raw[*at..at + 16]);
        }
    }
    assert_eq!(image.file.1.get() - before, 3);
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let part = at.checked_add(buf.len()).and_then(|end| self.get(at..end));
        part.map(|part| buf.copy_from_slice(part)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(flips in prop::collection::vec((0_usize..4096, any::<u8>()), 1..12)) {
        static SMALL: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut bytes =
            SMALL.get_or_init(|| fs_err::read(images().path().join("small-clusters.qcow2")).unwrap()).clone();
        for (at, value) in flips {
            bytes[at] = value;
        }
        let len = bytes.len() as u64;
        if let Ok(image) = Qcow2::open(bytes, len) {
            let mut buf = vec![0; 4096];
            for at in (0..image.size()).step_by(1 << 18).take(64) {
                let _ = image.read_exact_at(&mut buf, at);
            }
        }
    }
}
