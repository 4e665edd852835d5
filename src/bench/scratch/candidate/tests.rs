use super::*;
use crate::bench::scratch::signatures::Signature;
use crate::error::{Status, hint_of, one_line, status_of};
use std::path::Path;

pub(crate) fn disk() -> Disk {
    Disk {
        name: "nvme1n1".into(),
        number: "259:4".into(),
        serial: Some("S1".into()),
        wwid: Some("eui.1".into()),
        sequence: Some("9".into()),
        bytes: 40 << 20,
        block: 512,
        read_only: false,
        partitions: vec![],
        users: vec![],
    }
}

fn other() -> Disk {
    let (name, number) = ("nvme0n1".into(), "259:0".into());
    Disk { name, number, serial: Some("S0".into()), wwid: Some("eui.0".into()), ..disk() }
}

pub(crate) fn request() -> Request<'static> {
    Request { serial: "S1", wipe: None, keep: &[], seed: 5 }
}

#[test]
fn only_a_free_disk_with_exactly_that_serial_is_chosen() {
    let blank = request();
    let wipe = Request { wipe: Some("I-UNDERSTAND-S1"), ..blank };
    for request in [blank, wipe] {
        assert_eq!(choose(&[other(), disk()], &request).unwrap().name, "nvme1n1");
        // No name and no world-wide name is no other path.
        let nameless = Disk { serial: None, wwid: None, ..other() };
        let alone = Disk { wwid: None, ..disk() };
        assert_eq!(choose(&[nameless, alone], &request).unwrap().name, "nvme1n1");
    }
    let kept = |name: &str| vec![name.to_owned()];
    let (whole, part, elsewhere) = (kept("nvme1n1"), kept("nvme1n1p2"), kept("nvme0n1p2"));
    let booted = Disk { partitions: kept("nvme0n1p2"), ..other() };
    assert!(choose(&[booted, disk()], &Request { keep: &elsewhere, ..blank }).is_ok());
    let serial = |serial| Request { serial, ..blank };
    let text = |text| Request { wipe: Some(text), ..blank };
    let parts = || vec!["nvme1n1p1".to_owned(), "nvme1n1p2".to_owned()];
    type Case<'a> = (Vec<Disk>, Request<'a>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (vec![disk()], serial(""), "is no serial number"),
        (vec![Disk { serial: Some(String::new()), ..disk() }], serial(""), "is no serial number"),
        (vec![disk()], serial("S1 "), "is no serial number"),
        (vec![], blank, "no disk has the serial number \"S1\""),
        (vec![other()], blank, "no disk has the serial number \"S1\""),
        (vec![disk()], serial("S"), "no disk has"),
        (vec![disk()], serial("s1"), "no disk has"),
        (vec![disk()], serial("S11"), "no disk has"),
        // What was named is the beginning of another's number, and the other way round.
        (vec![Disk { serial: Some("S12".into()), ..disk() }], blank, "no disk has"),
        (vec![Disk { serial: Some("0S1".into()), ..disk() }], blank, "no disk has"),
        (vec![Disk { serial: None, ..disk() }], blank, "no disk has"),
        (vec![disk(), Disk { serial: Some("S1".into()), ..other() }], blank, "nvme0n1 has the same serial"),
        (vec![Disk { wwid: Some("eui.1".into()), ..other() }, disk()], blank, "nvme0n1 is the same disk"),
        (vec![disk()], Request { keep: &whole, ..blank }, "nvme1n1 is what this machine booted from"),
        (
            vec![Disk { partitions: parts(), ..disk() }],
            Request { keep: &part, ..blank },
            "nvme1n1p2 is what this machine booted from",
        ),
        (
            vec![other(), disk()],
            Request { keep: &elsewhere, ..blank },
            "nvme0n1p2, which has to be kept, is on no",
        ),
        (vec![Disk { partitions: parts(), ..disk() }], blank, "it has partitions: nvme1n1p1, nvme1n1p2"),
        (vec![Disk { users: vec!["md0 is made of nvme1n1".into()], ..disk() }], blank, "in use: md0 is made"),
        (vec![Disk { read_only: true, ..disk() }], blank, "it cannot be written to"),
        // Consent to wiping changes none of that, and is exact.
        (vec![Disk { partitions: parts(), ..disk() }], wipe, "it has partitions"),
        (vec![Disk { users: vec!["swap".into()], ..disk() }], wipe, "in use"),
        (vec![disk()], Request { keep: &whole, ..wipe }, "booted from"),
        (vec![disk(), Disk { serial: Some("S1".into()), ..other() }], wipe, "has the same serial"),
        (vec![disk()], text(""), "does not consent"),
        (vec![disk()], text("I-UNDERSTAND"), "does not consent"),
        (vec![disk()], text("I-UNDERSTAND-"), "does not consent"),
        (vec![disk()], text("I-UNDERSTAND-S"), "does not consent"),
        (vec![disk()], text("I-UNDERSTAND-S12"), "does not consent"),
        (vec![disk()], text("I-UNDERSTAND-S1 "), "does not consent"),
        (vec![disk()], text("i-understand-S1"), "does not consent"),
        (vec![disk()], text("wipe=I-UNDERSTAND-S1"), "does not consent"),
        (vec![other(), disk()], Request { serial: "S0", ..wipe }, "does not consent"),
    ];
    for (disks, request, said) in cases {
        let error = choose(&disks, &request).unwrap_err();
        assert!(one_line(&error).contains(said), "{request:?}: {error}");
        assert_eq!(status_of(&error), Status::Usage);
        assert!(hint_of(&error).is_some(), "{error}");
    }
}

#[test]
fn what_a_disk_holds_is_named() {
    let probe = |data, signatures: &[(u64, &str)]| Probe {
        signatures: signatures.iter().map(|(at, name)| Signature { at: *at, name: (*name).into() }).collect(),
        data,
        looked_at: 1,
        digest: [0; 32],
    };
    let wipe = Request { wipe: Some("I-UNDERSTAND-S1"), ..request() };
    assert!(accept(&disk(), &probe(None, &[]), &request()).is_ok());
    for (probe, said) in [
        (probe(Some(70), &[]), "not touching nvme1n1 (S1): it holds data of an unknown kind at byte 70"),
        (probe(Some(3), &[(3, "NTFS"), (510, "MBR")]), "it holds NTFS at byte 3, MBR at byte 510"),
        (probe(None, &[(3, "NTFS")]), "it holds NTFS at byte 3"),
    ] {
        let error = accept(&disk(), &probe, &request()).unwrap_err();
        assert!(one_line(&error).contains(said) && hint_of(&error).is_some(), "{error}");
        assert!(accept(&disk(), &probe, &wipe).is_ok());
    }
}

/// A machine's files, with the disk `nvme1n1`.
pub(crate) fn machine(folder: &Path, number: &str, bytes: u64) {
    for (path, text) in [
        ("sys/block/nvme1n1/dev", format!("{number}\n")),
        ("sys/block/nvme1n1/size", format!("{}\n", bytes / 512)),
        ("sys/block/nvme1n1/ro", "0\n".into()),
        ("sys/block/nvme1n1/hidden", "0\n".into()),
        ("sys/block/nvme1n1/diskseq", "9\n".into()),
        ("sys/block/nvme1n1/wwid", "eui.1\n".into()),
        ("sys/block/nvme1n1/queue/logical_block_size", "512\n".into()),
        ("sys/block/nvme1n1/device/serial", "S1                  \n".into()),
        ("proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/root rw\n".into()),
        ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n".into()),
    ] {
        put(folder, path, &text);
    }
    for empty in ["holders", "slaves"] {
        fs_err::create_dir_all(folder.join("sys/block/nvme1n1").join(empty)).unwrap();
    }
}

fn put(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

#[test]
fn who_uses_a_disk_is_found() {
    let partition = [
        ("sys/block/nvme1n1/nvme1n1p1/partition", "1\n"),
        ("sys/block/nvme1n1/nvme1n1p1/dev", "259:5\n"),
        ("sys/block/nvme1n1/nvme1n1p1/holders/dm-0/x", ""),
    ];
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Files<'_>, &[&str]); 9] = [
        (&[], &[]),
        (
            &[("proc/self/mountinfo", "22 1 259:4 / /data rw - xfs /dev/x rw\n")],
            &["nvme1n1 is mounted at /data"],
        ),
        // In the mounts of another process, and a filesystem of several devices.
        (&[("proc/77/mountinfo", "9 1 259:4 / /in rw - xfs /dev/x rw\n")], &["nvme1n1 is mounted at /in"]),
        (
            &[("proc/77/mountinfo", "9 1 0:44 / /b rw - btrfs /dev/nvme1n1 rw\n"), ("proc/78/x", "")],
            &["nvme1n1 is mounted at /b"],
        ),
        (&[("proc/swaps", "F T\n/dev/nvme1n1 partition 1 2 3\n")], &["nvme1n1 is used by swap space"]),
        (&[("sys/block/nvme1n1/holders/md0/x", "")], &["md0 is made of nvme1n1"]),
        (&[("sys/block/nvme1n1/slaves/sda/x", "")], &["made of sda"]),
        (&[("sys/block/loop0/loop/backing_file", "/dev/nvme1n1\n")], &["nvme1n1 is used by loop0"]),
        (&partition, &["dm-0 is made of nvme1n1p1"]),
    ];
    for (files, users) in cases {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), "259:4", 40 << 20);
        files.iter().for_each(|(path, text)| put(dir.path(), path, text));
        let disks = read_all(&Root::at(dir.path())).unwrap();
        let [found] = disks.as_slice() else { panic!("{disks:?}") };
        assert_eq!(found.users, users, "{files:?}");
        if files.is_empty() {
            assert_eq!(*found, disk());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path(), "259:4", 40 << 20);
    partition.iter().for_each(|(path, text)| put(dir.path(), path, text));
    put(dir.path(), "proc/swaps", "F T\n/dev/nvme1n1p1 partition 1 2 3\n");
    put(dir.path(), "proc/77/mountinfo", "9 1 259:5 / /p rw - xfs /dev/x rw\n");
    let found = &read_all(&Root::at(dir.path())).unwrap()[0];
    assert_eq!(found.partitions, ["nvme1n1p1"]);
    assert_eq!(
        found.users,
        ["dm-0 is made of nvme1n1p1", "nvme1n1p1 is mounted at /p", "nvme1n1p1 is used by swap space"]
    );
}

#[test]
fn a_disk_that_a_process_has_open_is_in_use() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path(), "259:4", 40 << 20);
    put(dir.path(), "proc/77/comm", "qemu\n");
    let file = dir.path().join("proc/77/fd/3");
    fs_err::create_dir_all(file.parent().unwrap()).unwrap();
    if let Err(error) = mknod(&file, SFlag::S_IFBLK, Mode::S_IRUSR, makedev(259, 4)) {
        return eprintln!("skipped: making a device node: {error}");
    }
    let disks = read_all(&Root::at(dir.path())).unwrap();
    assert_eq!(disks[0].users, ["nvme1n1 is open in process 77 (qemu)"]);
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_free_disk() {
    for (gone, said) in [
        ("sys/block/nvme1n1/holders", "holders is missing"),
        ("sys/block/nvme1n1/slaves", "slaves is missing"),
        ("sys/block/nvme1n1/ro", "ro is missing"),
        ("sys/block/nvme1n1/size", "size is missing"),
        ("sys/block/nvme1n1/dev", "dev is missing"),
        ("sys/block/nvme1n1/queue", "logical_block_size is missing"),
        ("proc/self", "/proc/self/mountinfo is missing"),
        ("sys/block", "/sys/block is missing"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), "259:4", 40 << 20);
        let path = dir.path().join(gone);
        if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) }.unwrap();
        let error = read_all(&Root::at(dir.path())).unwrap_err();
        assert!(one_line(&error).contains(said), "{error}");
    }
    for (path, text) in [
        ("sys/block/nvme1n1/size", "many\n"),
        ("sys/block/nvme1n1/size", "99999999999999999\n"),
        ("sys/block/nvme1n1/size", "99999999999999999999\n"),
        ("sys/block/nvme1n1/queue/logical_block_size", "-1\n"),
        ("proc/self/mountinfo", "x\n"),
        ("proc/77/mountinfo", "x\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), "259:4", 40 << 20);
        put(dir.path(), path, text);
        let all = read_all(&Root::at(dir.path()));
        assert!(all.is_err(), "{path}: {all:?}");
    }
    for (path, text) in [("sys/block/nvme1n1/hidden", "1\n"), ("sys/block/nvme1n1/device/serial", "\n")] {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), "259:4", 40 << 20);
        put(dir.path(), path, text);
        let all = read_all(&Root::at(dir.path())).unwrap();
        assert!(choose(&all, &request()).is_err(), "{path}");
    }
}

#[test]
fn the_disk_of_this_machine_s_root_is_in_use() {
    let Ok(disks) = read_all(&Root::live()) else {
        return eprintln!("skipped: this machine's disks cannot be read");
    };
    let root = number(std::fs::metadata("/").unwrap().dev());
    for disk in disks.iter().filter(|disk| disk.number == root) {
        assert!(disk.users.iter().any(|user| user.ends_with("is mounted at /")), "{disk:?}");
    }
}

/// What a USB stick's driver cannot answer is no reason not to know its neighbours.
#[test]
fn a_disk_without_a_world_wide_name_is_one_among_others() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path(), "259:4", 40 << 20);
    let folder = dir.path().join("sys/block/nvme1n1");
    fs_err::remove_file(folder.join("wwid")).unwrap();
    // Opening a socket is the same error, ENXIO.
    std::os::unix::net::UnixListener::bind(folder.join("device/wwid")).unwrap();
    let disks = read_all(&Root::at(dir.path())).unwrap();
    assert_eq!((disks.len(), disks[0].wwid.as_deref(), disks[0].serial.as_deref()), (1, None, Some("S1")));
}
