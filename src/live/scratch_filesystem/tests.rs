use super::*;
use crate::bench::scratch;
use crate::bench::scratch::candidate::tests::disk;
use crate::bench::scratch::testing::{Loop, Tree, file};
use crate::error::{hint_of, one_line};
use std::process::Command;

const UUID: &str = "0123abcd-4567-89ab-cdef-0123456789ab";

#[test]
fn only_a_free_filesystem_that_is_the_only_one_is_chosen() {
    let wanted = Uuid::parse_str(UUID).unwrap();
    let found = |disk| Found { disk, name: "nvme1n1p1", kind: "xfs" };
    let free = Disk { partitions: vec!["nvme1n1p1".into(), "nvme1n1p2".into()], ..disk() };
    assert_eq!(choose(&[found(&free)], &wanted, &["vda".into()]).unwrap().name, "nvme1n1p1");
    let used = Disk { users: vec!["nvme1n1p2 is mounted at /".into()], ..free.clone() };
    let read_only = Disk { read_only: true, ..free.clone() };
    let boot = ["nvme1n1".to_owned()];
    let report = ["nvme1n1p2".to_owned()];
    let cases: [(&[&Disk], &[String], &str); 6] = [
        (&[], &[], "no disk or partition holds an ext4 or XFS with the UUID 0123abcd-"),
        (&[&free, &free], &[], "nvme1n1p1 and nvme1n1p1 have the UUID"),
        (&[&used], &[], "in use: nvme1n1p2 is mounted at /"),
        (&[&read_only], &[], "cannot be written to"),
        (&[&free], &boot, "nvme1n1 is what this machine booted from"),
        (&[&free], &report, "nvme1n1p2 is what this machine booted from"),
    ];
    for (disks, keep, said) in cases {
        let all: Vec<Found<'_>> = disks.iter().map(|disk| found(disk)).collect();
        let error = choose(&all, &wanted, keep).unwrap_err();
        assert!(one_line(&error).contains(said) && hint_of(&error).is_some(), "{error}");
    }
}

#[test]
fn a_real_filesystem_is_mounted_and_left_as_it_was() {
    for (kind, program, uuid) in [("xfs", "mkfs.xfs", "-muuid="), ("ext4", "mkfs.ext4", "-U")] {
        let dir = tempfile::tempdir().unwrap();
        // XFS refuses the same one twice: tests that run beside this one have others.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let id = id.trim();
        let device = Loop::new(&file(dir.path(), "disk", 512 << 20, &[]));
        let made = device.as_ref().is_some_and(|device| {
            let uuid = format!("{uuid}{id}");
            Command::new(program).args(["-q", &uuid, &device.0]).status().is_ok_and(|status| status.success())
        });
        let Some(device) = device.filter(|_| made) else {
            eprintln!("skipped: root, losetup and {program} are needed");
            continue;
        };
        let tree = Tree::new(&device, 512 << 20);
        let folder = dir.path().join("mounted");
        let error = ScratchFilesystem::mount(&tree, id, &["nvme1n1".into()], None, &folder).unwrap_err();
        assert!(one_line(&error).contains("booted from"), "{error}");
        let mounted = ScratchFilesystem::mount(&tree, &id.to_uppercase(), &[], None, &folder).unwrap();
        assert_eq!((mounted.name.as_str(), mounted.disk.as_str()), ("nvme1n1", "nvme1n1"));
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let at = folder.to_str().unwrap();
        let line = table.lines().find(|line| line.contains(at)).unwrap();
        assert!(line.contains(kind) && line.contains("nosuid,nodev,noexec"), "{line}");
        let target = scratch::temporary(&folder, mounted.file_bytes).unwrap();
        assert!(mounted.file_bytes > 100 << 20);
        drop(target);
        mounted.close(&tree).unwrap();
        let error = ScratchFilesystem::mount(&tree, "1234-ABCD", &[], None, &folder).unwrap_err();
        assert!(one_line(&error).contains("no UUID"), "{error}");
    }
}
