use super::*;
use crate::bench::scratch::candidate::tests::disk;
use crate::bench::scratch::testing::{Loop, Tree, WIPE, file};
use crate::error::hint_of;
use std::process::Command;

const GIB: u64 = 1 << 30;

fn wanted() -> Wanted {
    Wanted { serial: "S1".into(), wipe: None, keep: vec![], seed: 3, size: None }
}

#[test]
fn the_filesystem_is_as_large_as_its_file_needs() {
    let of = |bytes: u64, wanted| Layout::of(&Disk { bytes, ..disk() }, wanted);
    let layout = |filesystem, file| Layout { filesystem: filesystem * MIB, file: file * MIB };
    assert_eq!(of(1 << 40, None).unwrap(), layout(9 * 1024 + 512, 4096));
    assert_eq!(of(GIB, None).unwrap(), layout(1016, 338));
    assert_eq!(of(1 << 40, Some(16 << 20)).unwrap(), layout(1024 + 34, 16));
    assert_eq!(of(310 * MIB, None).unwrap(), layout(302, 82));
    for (bytes, wanted, said) in [
        (300 * MIB, None, "too small for an XFS"),
        (0, None, "too small for an XFS"),
        (GIB, Some(GIB), "no room for a temporary file of 1024 MiB"),
        (GIB, Some(u64::MAX), "no room for a temporary file"),
    ] {
        let error = of(bytes, wanted).unwrap_err();
        assert!(one_line(&error).contains(said) && hint_of(&error).is_some(), "{error}");
    }
}

/// A disk of 512 MiB on a loop device, where there is mkfs.xfs, a kernel with XFS, and root.
fn machine(folder: &Path, what: &[(u64, &[u8])]) -> Option<(Loop, Tree, PathBuf)> {
    let path = file(folder, "disk", GIB / 2, what);
    let has_xfs = std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\txfs"));
    let has_mkfs = Command::new("mkfs.xfs").arg("-V").output().is_ok();
    let device = if has_xfs && has_mkfs { Loop::new(&path) } else { None };
    let Some(device) = device else {
        eprintln!("skipped: root, losetup, mkfs.xfs and a kernel with XFS are needed");
        return None;
    };
    let tree = Tree::new(&device, GIB / 2);
    Some((device, tree, path))
}

fn no_countdown(_: &Disk, _: &Probe, _: u32) -> anyhow::Result<()> {
    panic!("a blank disk has nothing to count down for")
}

/// Writes into a file as the benchmark does.
fn use_it(made: &ScratchDisk) {
    let target = scratch::temporary(&made.folder, made.file_bytes).unwrap();
    let mut buffers = crate::bench::storage::Buffers::new(1, 1 << 20).unwrap();
    buffers.get_mut(0).fill(7);
    for at in (0..made.file_bytes).step_by(1 << 20) {
        target.file.write_all_at(buffers.get_mut(0), at).unwrap();
    }
}

#[test]
fn a_blank_disk_is_used_and_is_blank_afterwards() {
    for byte in [0, 0xff] {
        let dir = tempfile::tempdir().unwrap();
        let all = vec![byte; if byte == 0 { 1 } else { (GIB / 2) as usize }];
        let Some((_device, tree, path)) = machine(dir.path(), &[(0, &all)]) else { return };
        let folder = dir.path().join("scratch");
        let made = ScratchDisk::make(&tree, wanted(), &folder, &mut no_countdown).unwrap();
        assert_eq!((made.level, made.file_bytes), (Level::Blank, 168 * MIB));
        use_it(&made);
        // It is not blank now, and is not taken by anybody else.
        assert!(ScratchDisk::make(&tree, wanted(), &dir.path().join("other"), &mut no_countdown).is_err());
        let words = made.close(&tree).unwrap();
        assert_eq!(words, "nvme1n1 (S1) is blank: the 504 MiB that were used are overwritten");
        assert!(fs_err::read(&path).unwrap().iter().all(|is| *is == byte));
        // So it can be used again.
        let made = ScratchDisk::make(&tree, wanted(), &folder, &mut no_countdown).unwrap();
        made.close(&tree).unwrap();
        assert!(!folder.with_extension("img").exists());
    }
}

#[test]
fn data_stays_without_consent_and_is_lost_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let what: [(u64, &[u8]); 3] = [(0, b"XFSB"), (512, b"EFI PART"), (GIB / 2 - 512, b"EFI PART")];
    let Some((_device, tree, path)) = machine(dir.path(), &what) else { return };
    let before = fs_err::read(&path).unwrap();
    let folder = dir.path().join("scratch");
    for wipe in [None, Some("I-UNDERSTAND-S"), Some("wipe=I-UNDERSTAND-S1")] {
        let wanted = Wanted { wipe: wipe.map(str::to_owned), ..wanted() };
        let error = ScratchDisk::make(&tree, wanted, &folder, &mut no_countdown).unwrap_err();
        assert!(hint_of(&error).is_some(), "{error:?}");
        assert!(fs_err::read(&path).unwrap() == before && !folder.exists());
    }
    let consent = Wanted { wipe: WIPE.map(str::to_owned), ..wanted() };
    let mut seconds = 0;
    let mut countdown = |_: &Disk, probe: &Probe, _: u32| {
        assert_eq!(probe.signatures[0].name, "XFS");
        seconds += 1;
        Ok(())
    };
    let made = ScratchDisk::make(&tree, consent, &folder, &mut countdown).unwrap();
    assert_eq!((made.level, seconds), (Level::Wiped, scratch::COUNTDOWN));
    use_it(&made);
    assert!(made.close(&tree).unwrap().contains("is blank"));
    assert!(fs_err::read(&path).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn what_somebody_else_put_there_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let Some((device, tree, path)) = machine(dir.path(), &[]) else { return };
    let folder = dir.path().join("scratch");
    let made = ScratchDisk::make(&tree, wanted(), &folder, &mut no_countdown).unwrap();
    // Tests beside this one start programs, see below.
    repeat(&tree, || Ok(umount2(&folder, MntFlags::empty())?)).unwrap();
    let mkfs = || program::run_ok("mkfs.xfs", &["-q", "-f", &device.0], MKFS_LIMIT);
    (0..TRIES)
        .find(|_| {
            mkfs().is_ok() || {
                tree.wait();
                false
            }
        })
        .expect("mkfs.xfs never had the disk");
    let before = fs_err::read(&path).unwrap();
    let error = made.take_back(&tree).unwrap_err();
    assert!(one_line(&error).contains("changed while"), "{error:?}");
    assert!(fs_err::read(&path).unwrap() == before);
}

#[test]
fn a_disk_that_is_still_used_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_device, tree, _)) = machine(dir.path(), &[]) else { return };
    let folder = dir.path().join("scratch");
    let made = ScratchDisk::make(&tree, wanted(), &folder, &mut no_countdown).unwrap();
    let open = File::create(folder.join("open")).unwrap();
    let error = made.close(&tree).unwrap_err();
    let text = one_line(&error);
    assert!(
        text.contains("may still hold")
            && text.contains("busy")
            && text.contains("blkdiscard -z /dev/nvme1n1"),
        "{text}"
    );
    drop(open);
    made.close(&tree).unwrap();
}

/// A program that is being started has a copy of every open file for a moment, also of the disk that is claimed.
#[test]
fn programs_that_are_started_meanwhile_do_no_harm() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let Some((_device, tree, _)) = machine(dir.path(), &[]) else { return };
    let stop = AtomicBool::new(false);
    let all = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = Command::new("true").status();
                // Tests beside this one want their disks back, too.
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let one = || -> anyhow::Result<String> {
            ScratchDisk::make(&tree, wanted(), &dir.path().join("scratch"), &mut no_countdown)?.close(&tree)
        };
        let all: Vec<_> = (0..4).map(|_| one()).collect();
        stop.store(true, Ordering::Relaxed);
        all
    });
    for result in all {
        assert!(result.as_ref().is_ok_and(|words| words.contains("is blank")), "{result:?}");
    }
}
