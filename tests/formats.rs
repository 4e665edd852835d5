//! The other formats of the real image, booted: qcow2, a read-only disk with a separate report disk, an ISO by UEFI and by
//! BIOS with and without one.

mod common;

use common::report_volume::Volume;
use common::{
    build, cache, folder, gdsboot, image, program, run, run_with_status, sha256, stderr, stdout, unpacked,
};
use gdsboot::bench::transfer::pattern::Pattern;
use gdsboot::builder::format::qcow2;
use gdsboot::progress::Progress;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The test image in another format, twice, so that it is seen to be the same.
fn built(format: &str, dir: &Path) -> std::path::PathBuf {
    let paths = ["first", "second"].map(|name| dir.join(format!("{name}.{format}")));
    for path in &paths {
        run_with_status(build(path, &image().lock).args(["--format", format]), 0);
    }
    assert_eq!(sha256(&paths[0]), sha256(&paths[1]), "two builds of {format} differ");
    let [first, second] = paths;
    std::fs::remove_file(second).unwrap();
    first
}

fn smoke(image_path: &Path, keep: &Path, arguments: &[&str], status: i32) -> Value {
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("smoke").arg(image_path).arg("--lock").arg(&image().lock);
    command.args(["--json", "--timeout-scale", "2", "--keep"]).arg(keep).args(arguments);
    let output = run_with_status(&mut command, status);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    summary["boots"][0].clone()
}

fn inspect(path: &Path) -> Value {
    serde_json::from_slice(&run_with_status(gdsboot().arg("inspect").arg("--json").arg(path), 0).stdout)
        .unwrap()
}

fn console(boot: &Value) -> String {
    let kept = Path::new(boot["kept"].as_str().unwrap());
    String::from_utf8_lossy(&std::fs::read(kept.join("console.log")).unwrap()).into_owned()
}

/// QEMU's own tool, as the archive has it.
fn qemu_img(arguments: &[&str], files: &[&Path]) -> String {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| unpacked("qemu-utils", &["qemu-utils"]));
    let output = run_with_status(program(root, "usr/bin/qemu-img").args(arguments).args(files), 0);
    stdout(&output)
}

/// Zeros as holes and as data, text, noise, and an end within a cluster.
#[test]
fn qemu_img_reads_back_any_disk() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let paths = ["disk.img", "disk.qcow2"].map(|name| dir.path().join(name));
    let [raw, qcow2] = paths.each_ref().map(|path| File::create_new(path).unwrap());
    let size = (700 << 20) + 512 * 3;
    raw.set_len(size).unwrap();
    let text: Vec<u8> = (0..40_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let mut noise = vec![0; 300 << 10];
    Pattern { seed: 1 }.fill(&mut noise, 0);
    let pieces = [
        (&text[..], 512),
        (&noise, 5 << 20),
        (&[0; 100_000], 9 << 20),
        (&noise[..70_000], (513 << 20) - 40_000),
        (&text[..20_000], 600 << 20),
        (b"the end", size - 7),
    ];
    pieces.iter().for_each(|(bytes, at)| raw.write_all_at(bytes, *at).unwrap());
    let raw = File::open(&paths[0]).unwrap();
    qcow2::write(&raw, &qcow2, &Progress::none()).unwrap();
    let [raw, qcow2] = paths.each_ref().map(PathBuf::as_path);
    let said = qemu_img(&["check", "-f", "qcow2"], &[qcow2]);
    assert!(said.contains("No errors were found"), "{said}");
    let said = qemu_img(&["compare", "-f", "raw", "-F", "qcow2"], &[raw, qcow2]);
    assert!(said.contains("identical"), "{said}");
    let info: Value =
        serde_json::from_str(&qemu_img(&["info", "--output=json", "-f", "qcow2"], &[qcow2])).unwrap();
    assert_eq!(info["virtual-size"], size);
    let data = &info["format-specific"]["data"];
    assert_eq!((&data["compat"], &data["compression-type"]), (&"1.1".into(), &"zlib".into()));
    assert_eq!(data["corrupt"], false);
    // 440 KB of text, a little of it twice, and 380 KB of noise.
    let bytes = std::fs::metadata(qcow2).unwrap().len();
    assert!(bytes < 1_200_000, "{bytes} bytes");
}

/// What is empty on a large disk takes no room in the file, tables included.
#[test]
fn a_report_disk_of_a_terabyte_is_a_small_qcow2() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let path = dir.path().join("report.qcow2");
    let mut split = gdsboot();
    split.args(["split-report", "--size", "1T", "--format", "qcow2", "-o"]).arg(&path);
    run_with_status(&mut split, 0);
    let said = qemu_img(&["check", "-f", "qcow2"], &[&path]);
    assert!(said.contains("No errors were found"), "{said}");
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes < 2 << 20, "{bytes} bytes");
    assert_eq!(inspect(&path)["runs"], Value::Array(Vec::new()));
}

#[test]
fn qcow2_is_the_same_disk_and_its_report_partition_is_written_to() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let qcow2 = built("qcow2", dir.path());
    let said = qemu_img(&["check", "-f", "qcow2"], &[&qcow2]);
    assert!(said.contains("No errors were found"), "{said}");
    let said = qemu_img(&["compare", "-f", "raw", "-F", "qcow2"], &[&image().path, &qcow2]);
    assert!(said.contains("Images are identical"), "{said}");
    let before = sha256(&qcow2);
    let boot = smoke(&qcow2, &dir.path().join("kept"), &["--firmware", "uefi", "--disk", "virtio-scsi"], 2);
    assert_eq!(boot["reported"]["report"]["verdict"], "INCOMPLETE", "{boot:#}");
    assert_eq!(sha256(&qcow2), before, "the image itself is never written to");
    // QEMU's own tool sees the run where gdsboot sees it.
    let used = Path::new(boot["kept"].as_str().unwrap()).join("image.qcow2");
    assert!(qemu_img(&["check", "-f", "qcow2"], &[&used]).contains("No errors were found"));
    let raw = dir.path().join("used.img");
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &[&used, &raw]);
    assert_eq!(inspect(&raw)["runs"], inspect(&used)["runs"]);
    assert_eq!(inspect(&used)["runs"].as_array().unwrap().len(), 1);
    let output = run_with_status(gdsboot().arg("flash").arg(&qcow2).arg("/dev/null"), 64);
    let said = stderr(&output);
    assert!(said.contains("is a qcow2 file") && said.contains("hint: build the disk image"), "{said}");
}

/// The image cannot be written to; the report, and the settings, are on the disk beside it, which wins over the image's own.
#[test]
fn a_read_only_image_reports_to_a_separate_disk() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let (report, settings) = (dir.path().join("report.qcow2"), dir.path().join("mine.toml"));
    std::fs::write(&settings, "capture = true\n").unwrap();
    let mut split = gdsboot();
    split.args(["split-report", "--format", "qcow2", "-o"]).arg(&report).arg("--settings").arg(&settings);
    run_with_status(&mut split, 0);
    let output = run_with_status(&mut split, 64);
    assert!(stderr(&output).contains("exists, and what is in it would be lost"), "{}", stderr(&output));
    let keep = dir.path().join("kept");
    let arguments = ["--firmware", "bios", "--read-only", "--report-disk", report.to_str().unwrap()];
    let boot = smoke(&image().path, &keep, &arguments, 2);
    assert_eq!(boot["reported"]["report"]["settings"]["capture"], true, "{boot:#}");
    let kept = Path::new(boot["kept"].as_str().unwrap());
    assert!(kept.join("capture.tar.zst").exists());
    let said = console(&boot);
    assert!(said.contains("the report goes to vdb1 (a separate report disk)"), "{said}");
    assert!(said.contains("GDSREPORT of vdb"), "{said}");
    assert_eq!(sha256(&kept.join("image.img")), sha256(&image().path), "it was attached read-only");
    assert_eq!(inspect(&kept.join("report.qcow2"))["runs"].as_array().unwrap().len(), 1);
    assert_eq!(inspect(&report)["runs"], Value::Array(Vec::new()), "the report disk is copied");
}

/// The disk beside the image can be mounted and takes no file: the report goes to the image's own partition.
#[test]
fn a_report_disk_that_is_full_does_not_cost_the_report() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let report = dir.path().join("full.img");
    run_with_status(gdsboot().args(["split-report", "--size", "36M", "-o"]).arg(&report), 0);
    Volume::open(&report).fill();
    let keep = dir.path().join("kept");
    let arguments = ["--firmware", "bios", "--report-disk", report.to_str().unwrap()];
    let boot = smoke(&image().path, &keep, &arguments, 2);
    assert_eq!(boot["reported"]["verdict"], "INCOMPLETE", "{boot:#}");
    let said = console(&boot);
    assert!(said.contains("vdb1 (a separate report disk): ") && said.contains("No space left"), "{said}");
    assert!(said.contains("(the image's own partition)"), "{said}");
    let kept = Path::new(boot["kept"].as_str().unwrap());
    assert_eq!(inspect(&kept.join("image.img"))["runs"].as_array().unwrap().len(), 1);
    assert_eq!(inspect(&kept.join("report.img"))["runs"], Value::Array(Vec::new()));
    let show = run(gdsboot().args(["report", "show", "--format", "json"]).arg(kept.join("image.img")));
    let shown: Value = serde_json::from_slice(&show.stdout).unwrap();
    assert_eq!(shown["complete"], true, "{said}");
}

#[test]
fn an_iso_boots_as_a_cdrom_and_reports_to_a_stick_or_to_the_screen() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let iso = built("iso", dir.path());
    let inspection = run_with_status(gdsboot().arg("inspect").arg(&iso), 0);
    let text = stdout(&inspection);
    assert!(text.contains("ISO 9660 and disk of") && text.contains("debian-13"), "{text}");
    assert!(text.contains("its reports go to another disk") && !text.contains("problem"), "{text}");

    let boot = smoke(&iso, &dir.path().join("with"), &["--firmware", "uefi", "--disk", "usb-cdrom"], 2);
    assert_eq!(boot["reported"]["report"]["verdict"], "INCOMPLETE", "{boot:#}");
    let said = console(&boot);
    assert!(said.contains("(a separate report disk)") && said.contains("GDSREPORT of sd"), "{said}");

    let arguments = ["--firmware", "bios", "--disk", "sata-cdrom", "--report-disk", "none"];
    let boot = smoke(&iso, &dir.path().join("without"), &arguments, 1);
    let said = console(&boot);
    assert!(said.contains("Report: nowhere: no GDSREPORT can be"), "{said}");
    assert!(
        said.contains("-----END GDSBOOT REPORT-----") && said.contains("\"verdict\":\"INCOMPLETE\""),
        "{said}"
    );
    assert!(
        said.contains(
            "no disk has a partition GDSREPORT, and none without GPT a FAT filesystem with that label"
        ),
        "{said}"
    );

    let output = run_with_status(gdsboot().arg("flash").arg(&iso).arg("/dev/null"), 64);
    assert!(stderr(&output).contains("is an ISO for CD-ROM drives"), "{}", stderr(&output));
    let mut as_cdrom = gdsboot();
    as_cdrom.arg("smoke").arg(&image().path).args(["--disk", "usb-cdrom", "--qemu", "qemu-system-x86_64"]);
    let output = run(&mut as_cdrom);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("is no ISO, and no CD-ROM drive takes it"), "{}", stderr(&output));
}
