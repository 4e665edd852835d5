//! `gdsboot smoke` and `gdsboot inspect` as programs, on images with a boot sector that plays the guest: it prints
//! prepared lines on the first serial port, copies a prepared report partition over the empty one through the BIOS, and
//! switches the machine off. QEMU and SeaBIOS are real; there is no kernel.
//!
//! QEMU is the program in `GDSBOOT_TEST_QEMU`, else the one that the Debian profile pins.

mod common;

use assert_cmd::Command;
use common::machine_without_expectations;
use gdsboot::boot_contract::REPORT_LABEL;
use gdsboot::report::gpt::{TYPE_BASIC_DATA, TYPE_ESP};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// 16-bit code at 0x7c00, at most 0x180 bytes; SeaBIOS gives the boot drive in DL.
const BOOT_CODE: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // DS = SS = 0, SP = 0x7c00
    0xfc, 0xfb, 0x88, 0x16, 0x00, 0x05, // cld; sti; [0x500] = DL
    0xbe, 0x80, 0x7d, 0xb4, 0x42, 0xcd, 0x13, // extended read, packet at 0x7d80: the text to 0x1000:0
    0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x31, 0xf6, // DS = 0x1000, SI = 0
    0xac, 0x84, 0xc0, 0x74, 0x12, 0x88, 0xc3, // next: lodsb; if 0 goto written; BL = AL
    0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xf8, // wait until COM1 takes a byte
    0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee, 0xeb, 0xe9, // send it; goto next
    0x31, 0xc0, 0x8e, 0xd8, 0x8a, 0x16, 0x00, 0x05, // written: DS = 0; DL = [0x500]
    0xbe, 0x90, 0x7d, 0xb4, 0x42, 0xcd,
    0x13, // extended read, packet at 0x7d90: the report partition to be
    0x8a, 0x16, 0x00, 0x05, // DL = [0x500]
    0xbe, 0xa0, 0x7d, 0xb8, 0x00, 0x43, 0xcd, 0x13, // extended write, packet at 0x7da0: to its place
    0x80, 0x3e, 0xb0, 0x7d, 0x00, 0x75, 0x07, // if [0x7db0] != 0 goto halt
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, // ACPI: PM1a control = SLP_EN, S5
    0xf4, 0xeb, 0xfd, // halt: hlt; goto halt
];

const SECTOR: usize = 512;
/// The report partition: what the BIOS moves with one call.
const REPORT_SECTORS: usize = 120;
const TEXT: (u64, usize) = (40, 16);
const REPORT_AFTERWARDS: u64 = 64;
const REPORT: u64 = 256;
const ESP: (u64, usize) = (512, 2048);

/// What the guest does.
#[derive(Clone, Default)]
struct Guest {
    /// What it prints, line by line.
    says: Vec<String>,
    /// The files on the report partition afterwards.
    writes: Vec<(&'static str, Vec<u8>)>,
    /// Does it stay on?
    hangs: bool,
}

fn fat(sectors: usize, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; sectors * SECTOR];
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat12)
        .bytes_per_cluster(512)
        .max_root_dir_entries(64);
    fatfs::format_volume(Cursor::new(&mut bytes), options).unwrap();
    {
        let fs = fatfs::FileSystem::new(Cursor::new(&mut bytes), fatfs::FsOptions::new()).unwrap();
        for (path, content) in files {
            let mut folder = fs.root_dir();
            let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
            for part in folders.split('/').filter(|part| !part.is_empty()) {
                folder = folder.create_dir(part).unwrap();
            }
            folder.create_file(name).unwrap().write_all(content).unwrap();
        }
    }
    bytes
}

impl Guest {
    /// A guest that does all that is expected.
    fn good(verdict: &str) -> Self {
        let exit = match verdict {
            "PASS" => 0,
            "FAIL" => 1,
            _ => 2,
        };
        let event = |seq: u32, rest: Value| {
            let mut event = json!({"v": 1, "seq": seq, "up_ms": 1});
            event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            format!("gdsboot-event {event}")
        };
        let report = json!({
            "schema": 1, "gdsboot": "0.1.0", "run_id": "0a1b2c3d", "started": "2026-11-22T10:56:01Z",
            "finished": "2026-11-22T10:56:09Z", "complete": true, "verdict": verdict, "route": "none", "why": [],
            "settings": {"after": "poweroff", "after_from": "default", "complaints": []},
            "stages": [], "problems": [], "facts": {},
        });
        Self {
            says: vec![
                "\x1b[2Jgdsboot: loading the kernel".into(),
                "[    0.000000] Linux version 6.12 (fake)".into(),
                event(
                    0,
                    json!({"event": "init-started", "gdsboot": "0", "run_id": "0a1b2c3d", "kernel": "6.12"}),
                ),
                event(1, json!({"event": "stage-done", "stage": "modules", "ok": true, "ms": 1})),
                event(
                    2,
                    json!({"event": "verdict", "verdict": verdict, "route": "none", "exit_status": exit,
                           "run_id": "0a1b2c3d", "path": "reports/20261122T105601Z-0a1b2c3d"}),
                ),
            ],
            writes: vec![
                ("reports/20261122T105601Z-0a1b2c3d/STARTED", b"started\n".to_vec()),
                ("reports/20261122T105601Z-0a1b2c3d/report.json", report.to_string().into_bytes()),
                (
                    "reports/20261122T105601Z-0a1b2c3d/report.txt",
                    format!("GDSBOOT REPORT\n{verdict}: read by a person\n").into_bytes(),
                ),
            ],
            hangs: false,
        }
    }

    /// An image that plays this guest.
    fn image(&self, path: &Path) {
        let mut disk = Cursor::new(vec![0_u8; 4096 * SECTOR]);
        let mut gpt = gptman::GPT::new_from(&mut disk, SECTOR as u64, [7; 16]).unwrap();
        for (number, name, kind, start, sectors) in
            [(1, REPORT_LABEL, TYPE_BASIC_DATA, REPORT, REPORT_SECTORS), (2, "esp", TYPE_ESP, ESP.0, ESP.1)]
        {
            gpt[number] = gptman::GPTPartitionEntry {
                partition_type_guid: kind.to_bytes_le(),
                unique_partition_guid: [u8::try_from(number).unwrap(); 16],
                starting_lba: start,
                ending_lba: start + sectors as u64 - 1,
                attribute_bits: 0,
                partition_name: name.into(),
            };
        }
        gpt.write_into(&mut disk).unwrap();
        gptman::GPT::write_protective_mbr_into(&mut disk, SECTOR as u64).unwrap();
        let mut bytes = disk.into_inner();
        let mut put = |lba: u64, content: &[u8]| {
            let at = usize::try_from(lba).unwrap() * SECTOR;
            bytes[at..at + content.len()].copy_from_slice(content);
        };
        let text = self.says.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        assert!(text.len() < TEXT.1 * SECTOR);
        put(TEXT.0, text.as_bytes());
        put(REPORT, &fat(REPORT_SECTORS, &[("gdsboot.toml", b"# settings\n".to_vec())]));
        put(REPORT_AFTERWARDS, &fat(REPORT_SECTORS, &self.writes));
        let menu = "menuentry 'Validate' {\n linux /gdsboot/vmlinuz console=ttyS0\n}\n";
        let manifest = json!({
            "version": 1, "gdsboot": "0.1.0", "profile": "debian-13", "lock": "ab".repeat(32),
            "image_id": "0123456789abcdef", "kernel": "6.12.107", "driver": "550.163.01",
            "modules": {"nvidia": "compiled 550.163.01"}, "epoch": 1_790_000_000_u64,
            "packages": {"bash": "5.2.37-2", "kmod": "34.2-2"},
        });
        let esp = [
            ("EFI/debian/grub.cfg", menu.as_bytes().to_vec()),
            ("gdsboot/vmlinuz", b"not a kernel".to_vec()),
            ("gdsboot/manifest.json", manifest.to_string().into_bytes()),
        ];
        put(ESP.0, &fat(ESP.1, &esp));

        bytes[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
        let packet = |sectors: usize, segment: u16, lba: u64| {
            let mut packet = vec![16, 0];
            packet.extend(u16::try_from(sectors).unwrap().to_le_bytes());
            packet.extend([0, 0]);
            packet.extend(segment.to_le_bytes());
            packet.extend(lba.to_le_bytes());
            packet
        };
        bytes[0x180..0x190].copy_from_slice(&packet(TEXT.1, 0x1000, TEXT.0));
        bytes[0x190..0x1a0].copy_from_slice(&packet(REPORT_SECTORS, 0x2000, REPORT_AFTERWARDS));
        bytes[0x1a0..0x1b0].copy_from_slice(&packet(REPORT_SECTORS, 0x2000, REPORT));
        bytes[0x1b0] = u8::from(self.hangs);
        fs_err::write(path, bytes).unwrap();
    }
}

/// QEMU for these tests: the program in `GDSBOOT_TEST_QEMU`, else the one that the Debian profile pins.
fn qemu() -> PathBuf {
    std::env::var_os("GDSBOOT_TEST_QEMU").map_or_else(|| common::qemu().to_owned(), PathBuf::from)
}

fn gdsboot() -> Command {
    let mut command = Command::cargo_bin("gdsboot").unwrap();
    command.timeout(Duration::from_secs(120));
    command
}

struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    println!("{command:?}\nstatus {}\n--- stdout\n{}\n--- stderr\n{}", ran.status, ran.stdout, ran.stderr);
    ran
}

/// A folder for an image and everything else of one test.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gdsboot-test-").tempdir().unwrap()
}

/// Boots an image of `guest` by BIOS with these further arguments.
fn smoke(guest: &Guest, folder: &Path, arguments: &[&str]) -> Ran {
    let qemu = qemu();
    let image = folder.join("test.img");
    guest.image(&image);
    let before = Sha256::digest(fs_err::read(&image).unwrap());
    let mut command = gdsboot();
    command.arg("smoke").arg(&image).arg("--qemu").arg(qemu).args(arguments);
    if !arguments.contains(&"--update") {
        command.args(["--firmware", "bios"]);
    }
    if !arguments.contains(&"--machine") {
        command.arg("--machine").arg(machine_without_expectations("no-gpu", folder));
    }
    if !arguments.contains(&"--accel") {
        command.args(["--accel", "tcg"]);
    }
    let ran = ran(command.env("TMPDIR", folder));
    assert!(before == Sha256::digest(fs_err::read(&image).unwrap()), "the image was changed");
    ran
}

fn folders_left(folder: &Path) -> usize {
    let entries = fs_err::read_dir(folder).unwrap();
    entries
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("gdsboot-smoke-"))
        .count()
}

#[test]
fn the_verdict_of_the_report_is_the_exit_status() {
    for (verdict, status) in [("PASS", 0), ("FAIL", 1), ("INCOMPLETE", 2)] {
        let folder = folder();
        let ran = smoke(&Guest::good(verdict), folder.path(), &[]);
        assert_eq!(ran.status, status);
        assert!(ran.stdout.starts_with(&format!("GDSBOOT REPORT\n{verdict}: read by a person\n")));
        let line = format!("bios, virtio-blk: {verdict}, route none, run 20261122T105601Z-0a1b2c3d\n");
        assert!(ran.stdout.contains(&line));
        assert!(!ran.stdout.contains("unknown"));
        assert!(ran.stderr.contains("accelerator TCG: asked for"));
        assert_eq!(folders_left(folder.path()), 0);
    }
}

/// A copy of no-gpu that expects this, and its path.
fn expecting(verdict: &str, findings: &str, folder: &Path, name: &str) -> String {
    let path = machine_without_expectations("no-gpu", folder);
    let text = fs_err::read_to_string(&path).unwrap();
    let text = text.replace("\"uefi\", ", "");
    let expect = format!("[expect]\nverdict = '{verdict}'\nroute = 'none'\nsimulated = false\n");
    let path = folder.join(format!("{name}.toml"));
    fs_err::write(&path, format!("{text}{expect}\n[expect.findings.unknown]\n{findings}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_machine_that_says_what_to_expect_decides_the_exit_status() {
    let folder = folder();
    let (right, wrong) = (folder.path().join("a"), folder.path().join("b"));
    [&right, &wrong].iter().for_each(|dir| fs_err::create_dir(dir).unwrap());
    let right = expecting("INCOMPLETE", "", &right, "right");
    let wrong = expecting("PASS", "fail = ['gpu.present']", &wrong, "wrong");
    let junit = folder.path().join("junit.xml");
    let junit = junit.to_str().unwrap();
    let guest = Guest::good("INCOMPLETE");
    let good = smoke(&guest, folder.path(), &["--machine", &right, "--junit", junit]);
    assert_eq!(good.status, 0);
    assert!(good.stdout.contains(
        "right, bios, virtio-blk: INCOMPLETE, route none, run 20261122T105601Z-0a1b2c3d, as expected\n"
    ));
    assert!(fs_err::read_to_string(junit).unwrap().contains("failures=\"0\" errors=\"0\""));
    let both = ["--machine", &right, &wrong, "--jobs", "2", "--junit", junit];
    let bad = smoke(&guest, folder.path(), &both);
    assert_eq!(bad.status, 1);
    assert!(bad.stdout.contains("0a1b2c3d, NOT AS EXPECTED\n"));
    assert!(bad.stdout.contains("  not as expected: verdict: expected PASS, found INCOMPLETE\n"));
    assert!(
        bad.stdout.contains("  not as expected: finding gpu.present: expected fail, and there is none\n")
    );
    let xml = fs_err::read_to_string(junit).unwrap();
    assert!(xml.contains("classname=\"gdsboot.wrong\"") && xml.contains("failures=\"1\" errors=\"0\""));
    // Another machine than the file's is not judged by it.
    let other = smoke(&guest, folder.path(), &["--machine", &wrong, "--disk", "sata"]);
    assert_eq!(other.status, 2);

    let updated = smoke(&guest, folder.path(), &["--machine", &wrong, "--update"]);
    assert_eq!(updated.status, 0);
    assert!(
        updated.stdout.contains("not as expected: verdict: expected PASS"),
        "the difference is shown first"
    );
    assert!(updated.stderr.contains("wrong.toml: rewritten by 1 boot"));
    assert_eq!(smoke(&guest, folder.path(), &["--machine", &wrong]).status, 0);
    assert!(smoke(&guest, folder.path(), &["--machine", &wrong, "--update"]).stderr.contains("already so"));
    // What another machine reports is not written down as this one's.
    let other = smoke(&guest, folder.path(), &["--machine", &wrong, "--update", "--disk", "sata"]);
    assert_eq!(other.status, 64);
    let built_in = smoke(&guest, folder.path(), &["--machine", "no-gpu", "--update"]);
    assert_eq!(built_in.status, 64);
    assert!(built_in.stderr.contains("hint: name the file: --machine qemu/machines/no-gpu.toml"));
}

#[test]
fn every_attachment_boots() {
    for disk in ["virtio-scsi", "nvme", "usb-storage", "sata"] {
        let folder = folder();
        let ran = smoke(&Guest::good("INCOMPLETE"), folder.path(), &["--disk", disk]);
        assert_eq!(ran.status, 2, "{disk}");
        assert!(ran.stdout.contains(&format!("bios, {disk}: INCOMPLETE")));
    }
}

#[test]
fn the_old_chipset_boots() {
    let folder = folder();
    let machine = machine_without_expectations("i440fx", folder.path());
    let ran = smoke(&Guest::good("INCOMPLETE"), folder.path(), &["--machine", machine.to_str().unwrap()]);
    assert_eq!(ran.status, 2);
    assert!(ran.stdout.contains("bios, virtio-scsi: INCOMPLETE"));
}

#[test]
fn json_has_phases_report_and_command() {
    let folder = folder();
    let kept = folder.path().join("kept");
    let arguments = ["--json", "--keep", kept.to_str().unwrap()];
    let ran = smoke(&Guest::good("INCOMPLETE"), folder.path(), &arguments);
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    let boot = &value["boots"][0];
    assert_eq!((&value["status"], &value["accel"]["accel"]), (&json!(2), &json!("tcg")));
    assert_eq!(boot["reported"]["report"]["run_id"], "0a1b2c3d");
    assert_eq!(boot["failure"], Value::Null);
    assert!(boot["phases"]["firmware"].as_f64().unwrap() > 0.0);
    assert!(boot["phases"]["power_off"].as_f64().is_some());
    let folder = Path::new(boot["kept"].as_str().unwrap());
    assert_eq!(folder, kept.join("no-gpu-bios-virtio-blk"));
    let log = fs_err::read_to_string(folder.join("console.log")).unwrap();
    assert!(log.contains("] gdsboot: loading the kernel\n"));
    let command = fs_err::read_to_string(folder.join("command")).unwrap();
    assert_eq!(command.trim_end(), boot["command"].as_str().unwrap());
    assert!(fs_err::read_to_string(folder.join("report.txt")).unwrap().starts_with("GDSBOOT REPORT"));
    let inspected = ran_inspect(&folder.join("image.img"), &[]);
    assert!(inspected.stdout.contains("  20261122T105601Z-0a1b2c3d: INCOMPLETE\n"));

    let again = smoke(&Guest::good("INCOMPLETE"), kept.parent().unwrap(), &arguments);
    assert_eq!(again.status, 64);
    assert!(again.stderr.contains("hint: --keep never overwrites"));
}

#[test]
fn an_end_without_a_complete_report_is_a_failure_with_what_is_needed_to_go_on() {
    let folder = folder();
    let mut guest = Guest::good("PASS");
    guest.says.truncate(3);
    guest.writes.truncate(1);
    let ran = smoke(&guest, folder.path(), &[]);
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains(
        "bios, virtio-blk: no verdict: the guest ended; the run 20261122T105601Z-0a1b2c3d was cut off: it has \
         STARTED and no report\n"
    ));
    assert!(ran.stdout.contains("    [    0.000000] Linux version 6.12 (fake)\n"));
    assert!(ran.stdout.contains("  note: the console never showed a verdict\n"));
    assert!(ran.stdout.contains("unknown"));
    assert_eq!(folders_left(folder.path()), 1);
    let command = ran.stdout.lines().find_map(|line| line.strip_prefix("  to see it again: ")).unwrap();
    let again = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("gdsboot: loading the kernel"));
}

#[test]
fn an_end_without_any_run_is_a_failure() {
    let folder = folder();
    let ran = smoke(&Guest::default(), folder.path(), &[]);
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("no verdict: the guest ended; no run was begun on the report partition\n"));
}

#[test]
fn a_panic_ends_the_wait() {
    let folder = folder();
    let mut guest = Guest { hangs: true, ..Guest::default() };
    guest.says = vec![
        "[    0.000000] Linux version 6.12 (fake)".into(),
        "[    0.900000] Kernel panic - not syncing: VFS: Unable to mount root fs".into(),
    ];
    let begin = Instant::now();
    let ran = smoke(&guest, folder.path(), &["--timeout-scale", "0.1"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stdout
            .contains("the guest died: Kernel panic - not syncing: VFS: Unable to mount root fs; no run")
    );
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn a_hang_ends_at_the_deadline() {
    let folder = folder();
    let mut guest = Guest { hangs: true, ..Guest::good("PASS") };
    guest.says.truncate(1);
    let ran = smoke(&guest, folder.path(), &["--timeout-scale", "0.04"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("the guest had not ended after 8 s, in the phase "));
}

#[test]
fn a_kernel_that_does_not_boot_under_kvm_means_tcg_and_says_why() {
    let folder = folder();
    let ran = smoke(&Guest::good("INCOMPLETE"), folder.path(), &["--accel", "auto"]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("accelerator TCG: KVM cannot be used: "));
    let forced = smoke(&Guest::good("INCOMPLETE"), folder.path(), &["--accel", "kvm"]);
    assert_eq!(forced.status, 69);
    assert!(forced.stderr.contains("hint: "));
}

/// Writes a shell script that stands in for QEMU. Another process does the writing: were the file open here while
/// another test starts a program, that program would hold it open too, and the kernel refuses to execute what is open
/// for writing.
fn program(path: &Path, script: &str) {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod +x \"$0\"";
    let status = std::process::Command::new("sh").args(["-c", write]).arg(path).arg(script).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_qemu_that_fails_is_not_a_verdict() {
    let folder = folder();
    let image = folder.path().join("test.img");
    Guest::good("PASS").image(&image);
    let run = |script: &str| {
        let qemu = folder.path().join("qemu");
        program(&qemu, script);
        let arguments = ["--firmware", "bios", "--accel", "tcg", "--qemu"];
        ran(gdsboot().arg("smoke").arg(&image).args(arguments).arg(qemu).env("TMPDIR", folder.path()))
    };
    let version = "[ \"$1\" = --version ] && echo QEMU 11 && exit";
    let failed = run(&format!("{version}\necho 'qemu: -device nvme: broken' >&2; exit 1"));
    assert_eq!(failed.status, 69);
    assert!(failed.stdout.contains("no verdict: QEMU failed (exit status: 1): qemu: -device nvme: broken\n"));
    let no_version = run("echo 'error while loading shared libraries' >&2; exit 127");
    assert_eq!(no_version.status, 69);
    assert!(no_version.stderr.contains("exit status: 127: error while loading shared libraries\nhint: "));
}

#[test]
fn a_boot_that_cannot_be_tried_costs_no_other() {
    let folder = folder();
    let (none, xml) = (folder.path().join("none"), folder.path().join("boots.xml"));
    let options =
        ["--firmware", "uefi", "--firmware-dir", none.to_str().unwrap(), "--junit", xml.to_str().unwrap()];
    let ran = smoke(&Guest::good("PASS"), folder.path(), &options);
    assert_eq!(ran.status, 69);
    let untried = "uefi, virtio-blk: no verdict: it could not be booted: finding the UEFI firmware";
    assert!(ran.stdout.contains(untried) && ran.stdout.contains("hint: install the package ovmf"));
    assert!(ran.stdout.contains("bios, virtio-blk: PASS, route none, run "));
    let xml = fs_err::read_to_string(xml).unwrap();
    assert!(xml.contains("tests=\"2\"") && xml.contains("errors=\"1\""), "{xml}");
    assert_eq!(folders_left(folder.path()), 0);
}

/// Starts gdsboot on a QEMU that never ends, ends gdsboot by `signal`, and tells whether that QEMU lives on.
fn survives(signal: nix::sys::signal::Signal) -> bool {
    let folder = folder();
    let (image, qemu, pid_file) =
        (folder.path().join("test.img"), folder.path().join("qemu"), folder.path().join("pid"));
    Guest::good("PASS").image(&image);
    program(
        &qemu,
        &format!(
            "[ \"$1\" = --version ] && echo QEMU 11 && exit\necho $$ > {0}.new && mv {0}.new {0}\nexec sleep 300",
            pid_file.display()
        ),
    );
    let mut gdsboot = std::process::Command::new(env!("CARGO_BIN_EXE_gdsboot"))
        .args(["smoke", "--firmware", "bios", "--accel", "tcg", "--qemu"])
        .args([&qemu, &image])
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while !pid_file.exists() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    let qemu = nix::unistd::Pid::from_raw(fs_err::read_to_string(&pid_file).unwrap().trim().parse().unwrap());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(gdsboot.id()).unwrap()), signal).unwrap();
    gdsboot.wait().unwrap();
    let limit = Instant::now() + Duration::from_secs(5);
    // A zombie that nobody has waited for yet is dead enough: its command line is empty.
    let lives = || fs_err::read(format!("/proc/{qemu}/cmdline")).is_ok_and(|cmdline| !cmdline.is_empty());
    while lives() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    if signal != nix::sys::signal::Signal::SIGKILL {
        assert_eq!(folders_left(folder.path()), 0);
    }
    lives()
}

#[test]
fn no_qemu_outlives_gdsboot() {
    assert!(!survives(nix::sys::signal::Signal::SIGINT));
    assert!(!survives(nix::sys::signal::Signal::SIGTERM));
    assert!(!survives(nix::sys::signal::Signal::SIGKILL));
}

#[test]
fn bad_operands_are_usage_errors_with_hints() {
    let folder = folder();
    let text = folder.path().join("text");
    fs_err::write(&text, "not an image\n").unwrap();
    let short = folder.path().join("short.img");
    Guest::good("PASS").image(&short);
    std::fs::File::options().write(true).open(&short).unwrap().set_len(1 << 20).unwrap();
    for (operand, expected) in [
        ("/nonexistent.img", "opening the image /nonexistent.img: No such file or directory"),
        ("/", "/ is a directory"),
        ("/dev/null", "/dev/null is a device, not an image file"),
        (text.to_str().unwrap(), "too few for a partition table"),
        (
            short.to_str().unwrap(),
            "it is truncated: its partition table describes 2097152 bytes, it has 1048576",
        ),
    ] {
        for command in ["smoke", "inspect"] {
            let ran = ran(gdsboot().args([command, operand]));
            assert_eq!((ran.status, ran.stdout.as_str()), (64, ""));
            assert!(ran.stderr.contains(expected) && ran.stderr.contains("\nhint: "));
        }
    }
    for arguments in [["--machine", "nope"], ["--timeout-scale", "0"], ["--disk", "floppy"]] {
        assert_eq!(ran(gdsboot().args(["smoke", "x.img"]).args(arguments)).status, 64);
    }
}

fn ran_inspect(image: &Path, arguments: &[&str]) -> Ran {
    ran(gdsboot().arg("inspect").arg(image).args(arguments))
}

#[test]
fn inspect_shows_partitions_pins_and_files() {
    let folder = folder();
    let image = folder.path().join("test.img");
    Guest::good("PASS").image(&image);
    let shown = ran_inspect(&image, &["--packages"]);
    assert_eq!(shown.status, 0);
    let (_, rest) = shown.stdout.split_once('\n').unwrap();
    assert_eq!(
        rest,
        "\
disk GUID 07070707-0707-0707-0707-070707070707

  #  name           type                   start       size  PARTUUID
  1  GDSREPORT      basic data          131.1 kB    61.4 kB  01010101-0101-0101-0101-010101010101
  2  esp            EFI system          262.1 kB     1.0 MB  02020202-0202-0202-0202-020202020202

image      0123456789abcdef
profile    debian-13
lock       abababababababababababababababababababababababababababababababab
gdsboot    0.1.0
dated      2026-09-21T14:13:20Z
kernel     6.12.107
driver     550.163.01
module     nvidia compiled 550.163.01
packages   2
  bash 5.2.37-2
  kmod 34.2-2

on the ESP
        63 B  EFI/debian/grub.cfg
       308 B  gdsboot/manifest.json
        12 B  gdsboot/vmlinuz

boot menu
  Validate: gdsboot/vmlinuz console=ttyS0

no runs on the report partition
"
    );
    let value: Value = serde_json::from_str(&ran_inspect(&image, &["--json"]).stdout).unwrap();
    assert_eq!(value["table"]["partitions"][1]["guid"], "02020202-0202-0202-0202-020202020202");
    assert_eq!(value["manifest"]["packages"]["kmod"], "34.2-2");
    assert_eq!(value["problems"], json!([]));
}

#[test]
fn inspect_says_what_it_cannot_read_and_shows_the_rest() {
    let folder = folder();
    let image = folder.path().join("test.img");
    Guest::good("PASS").image(&image);
    let mut bytes = fs_err::read(&image).unwrap();
    let esp = usize::try_from(ESP.0).unwrap() * SECTOR;
    bytes[esp..esp + SECTOR].fill(0);
    fs_err::write(&image, bytes).unwrap();
    let shown = ran_inspect(&image, &[]);
    assert_eq!(shown.status, 0);
    assert!(shown.stdout.contains("  1  GDSREPORT"));
    let problem = format!("problem: reading partition 2 of {}: it has no FAT filesystem\n", image.display());
    assert!(shown.stdout.contains(&problem));
}
