//! Captures that are hostile, or merely odd: nothing may break or hang, and nothing may pass.

use super::good::ubuntu;
use super::machine::Machine;
use crate::report::model::Verdict;
use std::os::unix::fs::symlink;

/// Paths of which some reader wants the text.
const TEXTS: &[&str] = &[
    "proc/version",
    "proc/cmdline",
    "proc/modules",
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/mounts",
    "proc/mdstat",
    "proc/kallsyms",
    "proc/driver/nvidia/version",
    "proc/driver/nvidia/params",
    "proc/driver/nvidia-fs/stats",
    "etc/cufile.json",
    "etc/os-release",
    "dev/kmsg",
    "var/log/dmesg",
    "sys/module/nvme_core/parameters/multipath",
    "run/gdsboot/commands/nvidia-smi-0/stdout",
    "run/gdsboot/commands/nvidia-smi-0/argv",
    "sys/devices/pci0000:6a/0000:6a:01.0/0000:6b:00.0/config",
    "sys/devices/pci0000:6a/0000:6a:01.0/0000:6b:00.0/class",
];

fn put(m: &Machine, path: &str, write: impl Fn(&std::path::Path)) {
    let at = m.path(path);
    fs_err::create_dir_all(at.parent().unwrap()).unwrap();
    let _ = fs_err::remove_file(&at);
    write(&at);
}

#[track_caller]
fn is_not_passed(m: &Machine) {
    let judgement = m.judged();
    assert_ne!(judgement.verdict, Verdict::Pass);
    let broken = judgement.findings.iter().find(|f| f.status == crate::checks::check::Status::Error);
    assert_eq!(broken, None);
}

#[test]
fn folders_where_files_should_be() {
    let m = ubuntu();
    for path in TEXTS {
        put(&m, path, |at| fs_err::create_dir(at).unwrap());
    }
    is_not_passed(&m);
}

#[test]
fn links_in_circles_and_out_of_the_capture() {
    for target in ["kmsg", "../../../../../../../../../../dev/zero", ".", "/dev/zero", "/proc/self/root"] {
        let m = ubuntu();
        for path in TEXTS {
            put(&m, path, |at| symlink(target, at).unwrap());
        }
        for folder in [
            "sys/class/nvme/nvme9",
            "sys/block/nvme9n1",
            "sys/bus/pci/devices/0000:ff:00.0",
            "run/gdsboot/commands/loop-0",
        ] {
            put(&m, folder, |at| symlink("..", at).unwrap());
        }
        put(&m, "var/log/loop", |at| symlink(".", at).unwrap());
        put(&m, "home/bob/again", |at| symlink("../..", at).unwrap());
        is_not_passed(&m);
    }
}

#[test]
fn garbage_in_every_file() {
    let mut state = 0x2545_f491_u32;
    let garbage: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    })
    .take(70_000)
    .collect();
    for bytes in [
        &garbage[..],
        b"",
        b"\0",
        b"\n\n\n",
        b"\xff\xff\xff\xff",
        b"{{{{{{{{[[[[[[[",
        b"0x",
        b"-1",
        b"99999999999999999999999999",
    ] {
        let m = ubuntu();
        for path in TEXTS {
            put(&m, path, |at| fs_err::write(at, bytes).unwrap());
        }
        is_not_passed(&m);
    }
}

#[test]
fn huge_files() {
    let m = ubuntu();
    // Sparse: nothing of it is on disk, all of it would be in memory.
    for path in [
        "proc/modules",
        "proc/mounts",
        "etc/cufile.json",
        "run/gdsboot/commands/nvidia-smi-0/stdout",
        "dev/kmsg",
    ] {
        put(&m, path, |at| fs_err::File::create(at).unwrap().set_len(20 << 30).unwrap());
    }
    let started = std::time::Instant::now();
    is_not_passed(&m);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn settings_nested_without_end() {
    let m = ubuntu();
    m.file("etc/cufile.json", &"{\"a\":[".repeat(100_000));
    is_not_passed(&m);
}

#[test]
fn pipes_and_sockets() {
    let m = ubuntu();
    for path in ["dev/kmsg", "var/log/kern.log", "etc/cufile.json", "proc/modules"] {
        put(&m, path, make_pipe);
    }
    is_not_passed(&m);
}

/// A pipe that nobody writes to; who opens it to read waits for ever.
fn make_pipe(at: &std::path::Path) {
    assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
}
