use super::candidate::tests::{disk as sample, request};
use super::testing::{BYTES, Tree, WIPE, file, loops};
use super::*;
use crate::error::{hint_of, one_line};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn reading_never_makes_and_never_writes() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(for_reading(&missing).is_err() && !missing.exists());
    for path in [dir.path(), Path::new("/dev/null"), Path::new("/proc/self/mem")] {
        assert!(for_reading(path).is_err(), "{}", path.display());
    }
    let path = dir.path().join("data");
    fs_err::write(&path, [1; 4096]).unwrap();
    // Not every filesystem has O_DIRECT.
    if let Ok(target) = for_reading(&path) {
        assert_eq!((target.bytes, target.writable), (4096, false));
        assert!(target.file.write_at(&[2; 4096], 0).is_err());
    }
    assert_eq!(fs_err::read(&path).unwrap(), [1; 4096]);
}

#[test]
fn a_temporary_file_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    if let Ok(target) = temporary(dir.path(), 1 << 20) {
        assert_eq!((target.bytes, target.writable), (1 << 20, true));
        assert_eq!(target.file.metadata().unwrap().len(), 1 << 20);
    }
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    let error = temporary(dir.path(), u64::MAX).unwrap_err();
    assert!(crate::error::one_line(&error).contains("are more than half"), "{error:?}");
    assert!(temporary(Path::new("/nonexistent"), 1).is_err());
}

type Before<'a> = Box<dyn Fn(&Fake<'a>, &str) + 'a>;

/// A machine of files, which may be changed at each step.
struct Fake<'a> {
    disks: RefCell<Vec<Disk>>,
    /// What stands at a name: a file, and the number that its descriptor tells.
    nodes: RefCell<BTreeMap<String, (PathBuf, String)>>,
    /// Called before each step, with its name.
    before: Before<'a>,
    steps: RefCell<Vec<String>>,
}

impl Fake<'_> {
    fn step(&self, what: &str) {
        (self.before)(self, what);
        self.steps.borrow_mut().push(what.to_owned());
    }

    fn opened_for_writing(&self) -> bool {
        self.steps.borrow().iter().any(|step| step == "write")
    }

    fn swap(&self, path: &Path, number: &str) {
        self.nodes.borrow_mut().insert("nvme1n1".into(), (path.to_owned(), number.to_owned()));
    }
}

impl Machine for Fake<'_> {
    fn disks(&self) -> anyhow::Result<Vec<Disk>> {
        self.step("disks");
        Ok(self.disks.borrow().clone())
    }

    fn node(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.nodes.borrow().get(name).context("no such node")?.0.clone())
    }

    fn open(&self, name: &str, exclusive: bool) -> anyhow::Result<Opened> {
        self.step(if exclusive { "write" } else { "read" });
        let (path, number) = self.nodes.borrow().get(name).cloned().context("no such node")?;
        let mut file = OpenOptions::new().read(true).write(exclusive).open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Opened { file, number, bytes })
    }

    fn wait(&self) {
        self.step("wait");
    }
}

fn fake<'a>(path: &Path, before: impl Fn(&Fake<'_>, &str) + 'a) -> Fake<'a> {
    let fake = Fake {
        disks: vec![sample()].into(),
        nodes: RefCell::default(),
        before: Box::new(move |fake, step| before(fake, step)),
        steps: RefCell::default(),
    };
    fake.swap(path, "259:4");
    fake
}

fn no_countdown(_: &Disk, _: &Probe, _: u32) -> anyhow::Result<()> {
    panic!("a blank disk has nothing to count down for")
}

#[test]
fn a_blank_disk_is_handed_out_whole_and_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "disk", BYTES, &[]);
    let fake = fake(&path, |_, _| ());
    let target = disk(&fake, &request(), &mut no_countdown).unwrap();
    assert_eq!((target.disk.bytes, target.probe.data), (BYTES, None));
    assert_eq!(*fake.steps.borrow(), ["disks", "read", "write", "disks"]);
    assert!(fs_err::read(&path).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn data_is_never_opened_for_writing_without_consent() {
    let dir = tempfile::tempdir().unwrap();
    for (at, what, said) in [
        (0, &b"XFSB"[..], "it holds XFS at byte 0"),
        (BYTES - 512, b"EFI PART", "it holds GPT backup at byte 41942528"),
        (BYTES / 2, b"x", "it holds data of an unknown kind at byte 20971520"),
    ] {
        let path = file(dir.path(), "disk", BYTES, &[(at, what)]);
        let fake = fake(&path, |_, _| ());
        let error = disk(&fake, &request(), &mut no_countdown).unwrap_err();
        assert!(one_line(&error).contains(said) && hint_of(&error).is_some(), "{error}");
        assert!(!fake.opened_for_writing());
    }
}

#[test]
fn data_is_given_up_after_a_countdown_that_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "disk", BYTES, &[(0, b"XFSB")]);
    let wipe = Request { wipe: WIPE, ..request() };
    let machine = fake(&path, |_, _| ());
    let mut seen = Vec::new();
    let target = disk(&machine, &wipe, &mut |disk, probe, left| {
        assert_eq!((&*disk.name, &*probe.signatures[0].name), ("nvme1n1", "XFS"));
        seen.push(left);
        Ok(())
    });
    assert_eq!(target.unwrap().probe.data, Some(0));
    assert!(seen.into_iter().eq((1..=COUNTDOWN).rev()));
    assert_eq!(machine.steps.borrow().iter().filter(|step| *step == "wait").count(), COUNTDOWN as usize);
    assert!(fs_err::read(&path).unwrap().starts_with(b"XFSB"));

    let machine = fake(&path, |_, _| ());
    let error = disk(&machine, &wipe, &mut |_, _, left| {
        ensure!(left > 3, "stopped");
        Ok(())
    });
    assert_eq!(one_line(&error.unwrap_err()), "stopped");
    assert!(!machine.opened_for_writing());

    let machine = fake(&path, |_, _| ());
    let wrong = Request { wipe: Some("I-UNDERSTAND-S12"), ..request() };
    assert!(disk(&machine, &wrong, &mut |_, _, _| panic!("no consent, no countdown")).is_err());
    assert_eq!(*machine.steps.borrow(), ["disks"]);
}

#[test]
fn a_disk_that_changes_between_the_looks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blank = file(dir.path(), "blank", BYTES, &[]);
    let data = file(dir.path(), "data", BYTES, &[(0, b"XFSB")]);
    let more = file(dir.path(), "more", BYTES, &[(0, b"XFSB"), (BYTES / 2, b"x")]);
    let larger = file(dir.path(), "larger", BYTES + 512, &[]);
    type Change<'a> = Box<dyn Fn(&Fake<'_>) + 'a>;
    let disks = |change: fn(&mut Disk)| -> Change<'_> {
        Box::new(move |fake| change(&mut fake.disks.borrow_mut()[0]))
    };
    let cases: Vec<(&str, Option<&str>, &Path, Change<'_>, &str)> = vec![
        ("write", None, &blank, Box::new(|fake| fake.swap(&data, "259:4")), "changed while"),
        ("write", WIPE, &data, Box::new(|fake| fake.swap(&more, "259:4")), "changed while"),
        ("wait", WIPE, &data, Box::new(|fake| fake.swap(&blank, "259:4")), "changed while"),
        ("write", None, &blank, Box::new(|fake| fake.swap(&blank, "259:9")), "is device 259:9"),
        ("read", None, &blank, Box::new(|fake| fake.swap(&blank, "259:9")), "is device 259:9"),
        ("write", None, &blank, Box::new(|fake| fake.swap(&larger, "259:4")), "of 41943552 bytes, not"),
        ("write", None, &blank, disks(|disk| disk.serial = Some("S12".into())), "no disk has the serial"),
        ("write", None, &blank, disks(|disk| disk.sequence = Some("10".into())), "changed while"),
        ("write", None, &blank, disks(|disk| disk.wwid = None), "changed while"),
        ("write", None, &blank, disks(|disk| disk.name = "nvme2n1".into()), "changed while"),
        ("write", None, &blank, disks(|disk| disk.number = "259:8".into()), "changed while"),
        ("write", None, &blank, disks(|disk| disk.bytes *= 2), "changed while"),
        ("write", None, &blank, disks(|disk| disk.users = vec!["mounted".into()]), "in use: mounted"),
        ("write", WIPE, &data, disks(|disk| disk.partitions = vec!["p1".into()]), "it has partitions"),
        ("wait", WIPE, &data, Box::new(|fake| fake.disks.borrow_mut().push(sample())), "has the same serial"),
        ("write", None, &blank, Box::new(|fake| fake.disks.borrow_mut().clear()), "no disk has the serial"),
    ];
    for (number, (step, wipe, path, change, said)) in cases.into_iter().enumerate() {
        let machine = fake(path, |fake, now| {
            if now == step {
                change(fake);
                fake.steps.borrow_mut().push("changed".into());
            }
        });
        let request = Request { wipe, ..request() };
        let error = disk(&machine, &request, &mut |_, _, _| Ok(())).unwrap_err();
        assert!(one_line(&error).contains(said), "case {number}: {error:?}");
        assert!(hint_of(&error).is_some(), "case {number}: {error:?}");
        assert!(machine.steps.borrow().iter().any(|step| step == "changed"));
    }
    assert!(fs_err::read(&data).unwrap().starts_with(b"XFSB"));
}

#[test]
fn a_real_blank_device_is_written_and_is_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Some((device, _)) = loops(dir.path(), &[]) else { return };
    let tree = Tree::new(&device, BYTES);
    let target = disk(&tree, &request(), &mut no_countdown).unwrap();
    assert_eq!((target.disk.bytes, target.probe.data), (BYTES, None));
    let error = disk(&tree, &request(), &mut no_countdown).unwrap_err();
    assert!(one_line(&error).contains("Device or resource busy"), "{error:?}");
    let mut buffers = Buffers::new(1, 4096).unwrap();
    buffers.get_mut(0).fill(7);
    target.file.write_all_at(buffers.get_mut(0), BYTES / 2).unwrap();
    drop(target);
    // Now it holds something.
    for seed in 0..3 {
        let error = disk(&tree, &Request { seed, ..request() }, &mut no_countdown).unwrap_err();
        assert!(one_line(&error).contains("data of an unknown kind at byte 20971520"), "{error:?}");
    }
}

#[test]
fn a_real_device_that_is_swapped_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some((device, other)) = loops(dir.path(), &[(0, b"XFSB")]) else { return };
    let tree = Tree::new(&device, BYTES);
    let error = disk(&tree, &request(), &mut no_countdown).unwrap_err();
    assert!(one_line(&error).contains("XFS at byte 0"), "{error:?}");
    let wipe = Request { wipe: WIPE, ..request() };
    let error = disk(&tree, &wipe, &mut |_, _, _| {
        tree.put(&other);
        Ok(())
    });
    let error = one_line(&error.unwrap_err());
    assert!(error.contains(&format!("is device {}", candidate::number(other.number()))), "{error}");
    tree.put(&device);
    assert!(disk(&tree, &wipe, &mut |_, _, _| Ok(())).is_ok());
}

#[test]
fn the_kernel_refuses_a_mounted_device_that_nobody_saw() {
    let dir = tempfile::tempdir().unwrap();
    let Some((device, _)) = loops(dir.path(), &[]) else { return };
    let at = dir.path().join("mounted");
    fs_err::create_dir(&at).unwrap();
    let made =
        Command::new("mkfs.ext4").args(["-q", &device.0]).status().is_ok_and(|status| status.success());
    let mounted = made && Command::new("mount").arg(&device.0).arg(&at).status().is_ok_and(|s| s.success());
    if !mounted {
        return eprintln!("skipped: mkfs.ext4 and mount are needed");
    }
    // The tree says nothing of the mount.
    let tree = Tree::new(&device, BYTES);
    let wiped = disk(&tree, &Request { wipe: WIPE, ..request() }, &mut |_, _, _| Ok(()));
    let unmounted = Command::new("umount").arg(&at).status().unwrap();
    assert!(unmounted.success());
    let error = wiped.unwrap_err();
    assert!(one_line(&error).contains("Device or resource busy"), "{error:?}");
    assert!(hint_of(&error).unwrap().contains("somebody uses"));
}
