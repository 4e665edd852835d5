//! The image sends its report to real servers: nginx, and an S3 server that checks signatures.

mod common;
mod servers;

use common::report_volume::Volume;
use common::{cache, folder, gdsboot, image, qemu, run_with_status};
use gdsboot::report::utc::Utc;
use serde_json::Value;
use servers::{certificates, free_port, nginx, presign, put_status, requests, s3};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A machine with a network card, and what its run is asked for.
fn machine(dir: &Path, settings: &[(&str, &str)]) -> PathBuf {
    let mut text = "description = 'a network card'\nchipset = 'q35'\nfirmware = ['bios']\ndisk = 'virtio-blk'\ncpus = 2\n\
                    memory-mib = 2048\nnetwork = true\n[fw-cfg]\n'opt/gdsboot/bench' = 'none'\n"
        .to_owned();
    for (key, value) in settings {
        text += &format!("'opt/gdsboot/{key}' = '{value}'\n");
    }
    let path = dir.join("network.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Boots an image; the boot's folder and what it left on the report partition.
fn boot(dir: &Path, image: &Path, settings: &[(&str, &str)]) -> (PathBuf, Value) {
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).arg("smoke").arg(image).args([
        "--json",
        "--capture",
        "--timeout-scale",
        "2",
    ]);
    command.arg("--qemu").arg(qemu()).arg("--machine").arg(machine(dir, settings));
    command.arg("--keep").arg(dir.join("boots"));
    let summary: Value = serde_json::from_slice(&run_with_status(&mut command, 2).stdout).unwrap();
    let boot = &summary["boots"][0];
    (PathBuf::from(boot["kept"].as_str().unwrap()), boot["reported"]["report"].clone())
}

/// What was sent is what was written, but for what became of sending it.
fn is_the_same(sent: &Path, written: &Value) {
    let mut sent: Value = serde_json::from_slice(&std::fs::read(sent).unwrap()).unwrap();
    let mut written = written.clone();
    assert!(sent.get("delivery").is_none() && written.get("delivery").is_some());
    for report in [&mut sent, &mut written] {
        for key in ["delivery", "stages", "problems", "finished"] {
            report.as_object_mut().unwrap().remove(key);
        }
    }
    assert_eq!(sent, written);
}

fn console(folder: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.join("console.log")).unwrap()).into_owned()
}

/// A copy of the image with files on its report partition, as a technician puts them there.
fn with_files(to: &Path, files: &[(&str, &[u8])]) {
    std::fs::copy(&image().path, to).unwrap();
    Volume::open(to).put(files);
}

/// A server that is busy at first. The address comes by DHCP.
#[test]
fn the_report_is_sent_again_until_it_is_taken() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let server = dir.path().join("server");
    let port = free_port();
    let busy = nginx(&server, port, false, "location / { return 503; }");
    let (boots, server_too) = (dir.path().to_owned(), server.clone());
    let watch = std::thread::spawn(move || {
        let begun = Instant::now();
        while requests(&server_too).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(600), "nothing was ever sent");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(busy);
        nginx(&server_too, port, false, "location / { dav_methods PUT; create_full_put_path on; }")
    });
    let url = format!("http://10.0.2.2:{port}/runs/{{folder}}.json");
    let (kept, report) = boot(&boots, &image().path, &[("report_url", &url)]);
    drop(watch.join().unwrap());

    let requests = requests(&server);
    let run_id = report["run_id"].as_str().unwrap();
    assert!(requests.len() >= 2 && requests[0].contains(" 503 "), "{requests:?}");
    assert!(requests.last().unwrap().contains(" 201 "), "{requests:?}");
    let of_this_run = |line: &String| {
        line.starts_with("PUT /runs/") && line.contains(&format!(" {run_id} application/json"))
    };
    assert!(requests.iter().all(of_this_run), "{requests:?}");
    let delivery = &report["delivery"];
    assert_eq!((&delivery["sent"], &delivery["status"]), (&true.into(), &201.into()), "{delivery:#}");
    assert!(delivery["tries"].as_u64().unwrap() as usize >= requests.len(), "{delivery:#}");
    assert_eq!(report["problems"], Value::Array(vec![]));
    let sent =
        std::fs::read_dir(server.join("files/runs")).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(sent.len(), 1, "one run is one file: {sent:?}");
    assert!(sent[0].to_str().unwrap().ends_with(&format!("-{run_id}.json")));
    is_the_same(&sent[0], &report);
    for words in ["the report was sent to http://10.0.2.2", "on the partition GDSREPORT; sent"] {
        assert!(console(&kept).contains(words), "{}", console(&kept));
    }
}

/// A pre-signed URL of a server that checks it, behind TLS by an authority of the operator's own; an address by hand, with a
/// gateway outside of the network. Nothing that the run leaves holds the signature.
#[test]
fn a_presigned_url_is_used_as_it_is_and_shown_nowhere() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let (server, objects) = (dir.path().join("server"), dir.path().join("objects"));
    certificates(&server);
    let s3 = s3(&objects, free_port());
    let pass = format!(
        "location / {{ proxy_pass http://127.0.0.1:{}; proxy_set_header Host $http_host; }}",
        s3.port
    );
    let tls = nginx(&server, free_port(), true, &pass);
    let url = presign("https", &format!("10.0.2.2:{}", tls.port), "/reports/run.json", Utc::now().0);
    let signature = url.rsplit('=').next().unwrap().to_owned();

    // The server really checks: one digit of the signature changed, and it refuses.
    let local = presign("http", &format!("127.0.0.1:{}", s3.port), "/reports/x", Utc::now().0);
    let (front, last) = local.split_at(local.len() - 1);
    let wrong = format!("{front}{}", if last == "0" { "1" } else { "0" });
    assert_eq!(put_status(&wrong, &server.join("ca.pem")), "403");
    assert_eq!(put_status(&local, &server.join("ca.pem")), "200");

    let settings = format!(
        "report_url = \"{url}\"\r\nreport_ca = \"ca.pem\"\r\nnet = \"any,10.0.2.77/255.255.255.255,10.0.2.2,10.0.2.3\"\r\n"
    );
    let ca = std::fs::read(server.join("ca.pem")).unwrap();
    let stick = dir.path().join("stick.img");
    with_files(&stick, &[("gdsboot.toml", settings.as_bytes()), ("ca.pem", &ca)]);
    let (kept, report) = boot(dir.path(), &stick, &[]);
    let delivery = &report["delivery"];
    assert_eq!((&delivery["sent"], &delivery["tries"]), (&true.into(), &1.into()), "{delivery:#}");
    assert!(delivery["url"].as_str().unwrap().ends_with("/reports/run.json?REDACTED"), "{delivery:#}");
    is_the_same(&objects.join("reports/run.json"), &report);
    assert_eq!(requests(&server).len(), 1);
    for name in ["report.json", "report.txt", "console.log"] {
        let text = String::from_utf8_lossy(&std::fs::read(kept.join(name)).unwrap()).into_owned();
        assert!(text.contains("REDACTED") && !text.contains(&signature), "{name}");
    }
    let capture = zstd::decode_all(std::fs::File::open(kept.join("capture.tar.zst")).unwrap()).unwrap();
    assert!(!String::from_utf8_lossy(&capture).contains(&signature));
}

/// Nobody listens: the run ends in its time, says so, and its report and verdict are what they would have been.
#[test]
fn nobody_to_send_to_costs_no_more_than_was_allowed() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let url = format!("http://10.0.2.2:{}/x?secret", free_port());
    let (kept, report) = boot(dir.path(), &image().path, &[("report_url", &url), ("report_seconds", "20")]);
    let delivery = &report["delivery"];
    assert_eq!(delivery["sent"], false);
    assert!(
        delivery["seconds"].as_f64().unwrap() < 24.0 && delivery["tries"].as_u64().unwrap() > 1,
        "{delivery:#}"
    );
    let problem = report["problems"][0]["what"].as_str().unwrap();
    for word in ["NOT sent to http://10.0.2.2:", "?REDACTED", "nobody listens there"] {
        assert!(problem.contains(word), "{problem}");
    }
    assert_eq!((&report["verdict"], &report["complete"]), (&"INCOMPLETE".into(), &true.into()));
    assert!(report["why"].to_string().contains("GPU"), "{:#}", report["why"]);
    assert!(console(&kept).contains("on the partition GDSREPORT; NOT"), "{}", console(&kept));
}

/// Boots by iPXE from the network, with no disk at all: the script by TFTP, the rest by HTTP. What the console said.
fn netboot(dir: &Path, tftp: &Path) -> String {
    let mut qemu = std::process::Command::new(qemu());
    qemu.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35"]);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048M"]);
    qemu.arg("-netdev").arg(format!("user,id=net,tftp={},bootfile=start.ipxe", tftp.display()));
    qemu.args(["-device", "virtio-net-pci,netdev=net,bootindex=0", "-device", "VGA"]);
    qemu.args(["-serial", "stdio", "-fw_cfg", "name=opt/gdsboot/bench,string=none"]);
    let log = dir.join("console.log");
    let output = std::fs::File::create(&log).unwrap();
    qemu.stdin(std::process::Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = qemu.spawn().unwrap();
    let begun = Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > Duration::from_secs(300) => break None,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let console = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    assert!(ended.is_some_and(|status| status.success()), "{console}");
    console
}

/// A netboot folder of the image's profile.
fn netboot_folder(to: &Path, report_url: &str) {
    let mut command = gdsboot();
    command.arg("--cache").arg(cache()).args(["build", common::PROFILE, "--format", "netboot", "--lock"]);
    command.arg(&image().lock).arg("-o").arg(to).args(["--report-url", report_url]);
    run_with_status(&mut command, 0);
}

/// Nothing but a network: kernel, initramfs and root come from a web server, and the report goes back to it. Then the root on
/// the server is damaged, and is not used.
#[test]
fn a_machine_without_a_disk_boots_from_the_network_and_reports_there() {
    let dir = tempfile::tempdir_in(folder()).unwrap();
    let (server, tftp) = (dir.path().join("server"), dir.path().join("tftp"));
    std::fs::create_dir_all(server.join("files")).unwrap();
    std::fs::create_dir_all(&tftp).unwrap();
    let port = free_port();
    netboot_folder(&server.join("files/gdsboot"), &format!("http://10.0.2.2:{port}/reports/{{folder}}.json"));
    let start = |first: &str| {
        let script = format!("#!ipxe\n{first}\nchain http://10.0.2.2:{port}/gdsboot/boot.ipxe\n");
        std::fs::write(tftp.join("start.ipxe"), script).unwrap();
    };
    start("");
    let web = nginx(&server, port, false, "location /reports/ { dav_methods PUT; create_full_put_path on; }");

    let console = netboot(dir.path(), &tftp);
    let reports: Vec<_> = std::fs::read_dir(server.join("files/reports"))
        .unwrap_or_else(|error| panic!("{error}\n{console}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(reports.len(), 1, "{console}");
    let report: Value = serde_json::from_slice(&std::fs::read(&reports[0]).unwrap()).unwrap();
    assert_eq!((&report["verdict"], &report["complete"]), (&"INCOMPLETE".into(), &true.into()), "{report:#}");
    assert_eq!(report["problems"], Value::Array(vec![]), "{:#}", report["problems"]);
    assert!(report.to_string().contains("NVRM: No NVIDIA GPU found"), "{report:#}");
    let stages: Vec<&str> =
        report["stages"].as_array().unwrap().iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert!(stages.contains(&"fetch-root") && stages.contains(&"verify-root"), "{stages:?}");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(server.join("files/gdsboot/manifest.json")).unwrap()).unwrap();
    assert_eq!(report["facts"]["image"]["value"]["image_id"], manifest["image_id"]);
    assert!(console.contains("sent to http://10.0.2.2"), "{console}");

    let root = server.join("files/gdsboot/root.squashfs");
    let mut bytes = std::fs::read(&root).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&root, bytes).unwrap();
    // Else it would stay as it is, so that somebody can read the screen.
    start("set gdsboot_args gdsboot.after=poweroff");
    let console = netboot(dir.path(), &tftp);
    for words in [
        "/gdsboot/root.squashfs gave has the SHA-256",
        "sha256sum -c SHA256SUMS",
        "INCOMPLETE",
        "NOT sent to",
    ] {
        assert!(console.contains(words), "{words}:\n{console}");
    }
    assert!(!console.contains("NVRM:"), "a damaged root was used:\n{console}");
    drop(web);
}
