//! `gdsboot vm` as a program.

mod common;

use common::{gdsboot, qemu, run_with_status, stderr, stdout};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm").join(name)
}

/// Checks a fixture with a GPU of 128 GiB at 41:00.0 and a controller at 42:00.0.
fn check(name: &str, status: i32) -> String {
    let mut command = gdsboot();
    command.args(["vm", "check"]).arg(fixture(name));
    command.args(["--gpu", "41:00.0", "--nvme", "42:00.0", "--bar-size", "128G"]);
    // The same path wherever the repository is.
    stdout(&run_with_status(&mut command, status)).replace(&fixture("").display().to_string(), "")
}

/// The findings' statuses by their ids, of the same check.
fn statuses(name: &str, status: i32) -> BTreeMap<String, String> {
    let mut command = gdsboot();
    command.args(["vm", "check", "--json"]).arg(fixture(name));
    command.args(["--gpu", "41:00.0", "--nvme", "42:00.0", "--bar-size", "128G"]);
    let judgement: serde_json::Value =
        serde_json::from_str(&stdout(&run_with_status(&mut command, status))).unwrap();
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = judgement["findings"].as_array().unwrap().iter();
    findings.map(|finding| (word(finding, "id"), word(finding, "status"))).collect()
}

#[test]
fn a_configuration_of_proxmox() {
    insta::assert_snapshot!(check("100.conf", 1));
}

#[test]
fn a_command_line() {
    let mut command = gdsboot();
    command.args(["vm", "check", "--json"]).arg(fixture("start.sh"));
    let text = stdout(&run_with_status(&mut command, 2));
    // What is strange is named in full.
    assert!(text.contains("-zebra stripes") && text.contains("what the shell puts for $"), "{text}");
}

#[test]
fn domains() {
    let broken = statuses("broken.xml", 1);
    for id in ["vm.machine-type", "vm.emulator", "vm.balloon", "vm.hidden", "vm.memory-lock", "vm.nvme"] {
        assert_eq!(broken[id], "fail", "{id}: {broken:?}");
    }
    let good = statuses("good.xml", 2);
    assert!(good.values().all(|status| status != "fail" && status != "error"), "{good:?}");
    for id in ["vm.accepted", "vm.mmio-window", "vm.gpu", "vm.nvme", "vm.pcie", "vm.understood"] {
        assert_eq!(good[id], "pass", "{id}: {good:?}");
    }
    // libvirt keeps this name to itself.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reserved.xml");
    let entry =
        "<sysinfo type='fwcfg'><entry name='opt/ovmf/X-PciMmio64Mb'>524288</entry></sysinfo><devices>";
    let text = std::fs::read_to_string(fixture("good.xml")).unwrap().replacen("<devices>", entry, 1);
    std::fs::write(&path, text).unwrap();
    let refused = stdout(&run_with_status(gdsboot().args(["vm", "check"]).arg(&path), 1));
    assert!(refused.contains("vm.accepted") && refused.contains("libvirt refuses"), "{refused}");
}

#[test]
fn findings_as_json_have_the_form_of_every_judgement() {
    let mut command = gdsboot();
    command.args(["vm", "check", "--json"]).arg(fixture("good.xml"));
    let judgement: serde_json::Value =
        serde_json::from_str(&stdout(&run_with_status(&mut command, 2))).unwrap();
    let schema = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    jsonschema::validate(&schema, &judgement).unwrap();
    assert_eq!(judgement["verdict"], "INCOMPLETE");
}

#[test]
fn a_machine_of_proxmox_by_its_number() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put("etc/pve/qemu-server/100.conf", &std::fs::read(fixture("100.conf")).unwrap());
    put("etc/pve/mapping/pci.cfg", b"gpu\n\tmap id=10de:2331,node=pve,path=0000:41:00.0\n");
    for (address, vendor, class) in [("41", "0x10de", "0x030200"), ("42", "0x144d", "0x010802")] {
        for (file, text) in [("vendor", vendor), ("class", class), ("device", "0x2331")] {
            put(&format!("sys/bus/pci/devices/0000:{address}:00.0/{file}"), text.as_bytes());
        }
    }
    let check = |vmid: &str, status| {
        let mut command = gdsboot();
        run_with_status(command.args(["vm", "check", vmid, "--root"]).arg(root.path()), status)
    };
    let text = stdout(&check("100", 1));
    assert!(text.contains("passed through: hostpci0") && text.contains("passed through: hostpci1"), "{text}");
    let missing = stderr(&check("101", 64));
    assert!(missing.contains("no virtual machine 101") && missing.contains("this node has 100"), "{missing}");
}

#[test]
fn what_is_no_configuration_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("good.xml")).unwrap();
    let cases: [(&str, &[u8], &[&str], &str); 9] = [
        ("empty", b"", &[], "it is empty"),
        ("binary", b"\x7fELF\x02\x01\x01", &[], "no configuration that is known"),
        ("bytes", b"\xff\xfe\x00\x01", &["--as", "proxmox"], "it is not text"),
        ("cut.xml", &whole[..whole.len() / 2], &[], "reading XML"),
        ("bomb.xml", &std::fs::read(fixture("bomb.xml")).unwrap(), &[], "DTD"),
        ("other.xml", b"<network/>", &[], "<network>"),
        ("cut.sh", b"qemu-system-x86_64 -name 'a", &[], "cut off"),
        ("wrong", b"name: a\n", &["--as", "libvirt"], "configuration of libvirt"),
        ("none.conf", b"hello: world\n", &[], "no line that Proxmox"),
    ];
    for (name, bytes, arguments, words) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let output = run_with_status(gdsboot().args(["vm", "check"]).arg(&path).args(arguments), 64);
        let text = stderr(&output);
        assert!(text.contains(words) && text.contains("hint: "), "{name}: {text}");
    }
    let good = fixture("good.xml");
    for arguments in
        [["--gpu", "41"], ["--bar-size", "3G"], ["--host", "/nonexistent"], ["--root", "/nonexistent"]]
    {
        let output = run_with_status(gdsboot().args(["vm", "check"]).arg(&good).args(arguments), 64);
        assert!(stderr(&output).contains("hint: "), "{arguments:?}");
    }
}

/// Plans a machine with two GPUs and two controllers into a folder, and gives the file of the configuration.
fn plan(kind: &str, tree: &str, folder: &Path) -> PathBuf {
    let mut command = gdsboot();
    command.args(["vm", "plan", "--for", kind, "--topology", tree, "--memory", "6G", "--bar-size", "64G"]);
    let empty = folder.join("another-machine");
    std::fs::create_dir(&empty).unwrap();
    command.arg("--root").arg(empty);
    command.args(["--gpu", "41:00.0", "--gpu", "42:00.0", "--nvme", "43:00.0", "--nvme", "44:00.0", "-o"]);
    let written = stdout(&run_with_status(command.arg(folder.join("plan")), 0));
    PathBuf::from(written.lines().last().unwrap().strip_prefix("wrote ").unwrap())
}

/// The words of a planned command line as this machine can start it: emulated in place of real, and small.
fn startable(words: Vec<String>, folder: &Path) -> Vec<String> {
    let file = |name: &str, bytes: u64| {
        let path = folder.join(name);
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path.display().to_string()
    };
    let (code, vars, image) =
        (file("code.fd", 4 << 20), file("vars.fd", 4 << 20), file("image.img", 1 << 20));
    let replaced = words.into_iter().map(|word| {
        let word = match word.strip_prefix("vfio-pci,host=") {
            Some(rest) => format!("nvme,serial={}", rest.replacen(':', "-", 2)),
            None => word,
        };
        word.replace("hugetlb=on,hugetlbsize=1024M,prealloc=on", "share=on")
            .replace("accel=kvm", "accel=tcg")
            .replace("host,host-phys-bits=on", "max")
            .replace("file=OVMF_CODE_4M.fd", &format!("file={code}"))
            .replace("file=OVMF_VARS_4M.fd", &format!("file={vars}"))
            .replace("file=/var/lib/gdsboot/gdsboot.img", &format!("file={image}"))
            .replace("stdio,id=serial,signal=off", "null,id=serial")
    });
    replaced.collect()
}

/// Starts QEMU without letting the guest run, and gives for each NVMe controller how many bridges it hangs below.
fn bridges_above(words: &[String]) -> Vec<usize> {
    let mut child = Command::new(qemu())
        .args(words)
        .args(["-S", "-display", "none", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asked = child.stdin.take().unwrap();
    let commands = r#"{"execute": "qmp_capabilities"}
{"execute": "human-monitor-command", "arguments": {"command-line": "info qtree"}}
{"execute": "quit"}
"#;
    // QEMU that refuses its arguments is gone before it reads.
    let _ = asked.write_all(commands.as_bytes());
    let answers: Vec<serde_json::Value> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{words:?}", String::from_utf8_lossy(&output.stderr));
    let tree = answers.iter().find_map(|answer| answer["return"].as_str());
    let tree = tree.unwrap_or_else(|| panic!("no answer: {answers:?}"));
    // Each device stands deeper than what it hangs on.
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut found = Vec::new();
    for line in tree.lines() {
        let Some(name) = line.trim_start().strip_prefix("dev: ") else { continue };
        let depth = line.len() - line.trim_start().len();
        let name = name.split(',').next().unwrap();
        above.retain(|(other, _)| *other < depth);
        if name == "nvme" {
            let bridges = ["pcie-root-port", "x3130-upstream", "xio3130-downstream"];
            found.push(above.iter().filter(|(_, name)| bridges.contains(name)).count());
        }
        above.push((depth, name));
    }
    found
}

#[test]
fn qemu_accepts_what_is_planned() {
    for (tree, bridges) in [("ports", 1), ("switch", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let script = std::fs::read_to_string(plan("qemu", tree, folder.path())).unwrap();
        let (_, line) = script.split_once("exec qemu-system-x86_64 ").unwrap();
        let words = shlex::split(&line.replace("\\\n", " ")).unwrap();
        assert_eq!(bridges_above(&startable(words, folder.path())), [bridges; 4], "{tree}");
    }
    // What Proxmox hands on as it is, beside what it writes itself.
    let folder = tempfile::tempdir().unwrap();
    let conf = std::fs::read_to_string(plan("proxmox", "switch", folder.path())).unwrap();
    let args = conf.lines().find_map(|line| line.strip_prefix("args: ")).unwrap();
    let words = ["-machine", "q35,accel=tcg", "-nodefaults", "-m", "256M"].map(str::to_owned);
    let words = [words.to_vec(), startable(shlex::split(args).unwrap(), folder.path())].concat();
    assert_eq!(bridges_above(&words), [3; 4]);
}

#[test]
fn what_cannot_be_planned_is_refused_with_a_hint() {
    // Whatever has these addresses on the machine that tests.
    let empty = tempfile::tempdir().unwrap();
    let base = ["vm", "plan", "--for", "qemu", "--root", empty.path().to_str().unwrap()];
    let cases: [(&[&str], &str); 9] = [
        (&["--bar-size", "64G"], "at least one GPU"),
        (&["--gpu", "41:00.0", "--nvme", "42:00.0", "--host", "/nonexistent"], "/nonexistent"),
        (&["--gpu", "x", "--nvme", "42:00.0", "--bar-size", "64G"], "no PCI address"),
        (&["--gpu", "1:0.0", "--nvme", "2:0.0", "--bar-size", "64G", "--memory", "7M"], "--memory"),
        (&["--gpu", "1:0.0", "--nvme", "2:0.0", "--bar-size", "64G", "--name", "a b"], "--name"),
        (&["--gpu", "1:0.0", "--nvme", "2:0.0", "--bar-size", "64G", "--uuid", "1"], "--uuid"),
        (&["--gpu", "1:0.0", "--nvme", "1:0.0", "--bar-size", "64G"], "as --gpu and as --nvme"),
        (&["--gpu", "1:0.0", "--nvme", "2:0.0", "--bar-size", "64G", "--memory", "1G"], "bookkeeping"),
        (
            &["--gpu", "1:0.0", "--nvme", "2:0.0", "--bar-size", "64G", "-o", "/dev/null/x"],
            "making the folder",
        ),
    ];
    for (arguments, words) in cases {
        let output = run_with_status(gdsboot().args(base).args(arguments), 64);
        let text = stderr(&output);
        assert!(text.contains(words) && text.contains("hint: "), "{arguments:?}: {text}");
    }
}

#[test]
fn what_a_hypervisor_would_refuse_is_refused_before() {
    let empty = tempfile::tempdir().unwrap();
    let plan = |kind: &str, arguments: &[&str], status| {
        let mut command = gdsboot();
        command.args(["vm", "plan", "--gpu", "1:0.0", "--nvme", "2:0.0", "--bar-size", "64G", "--for", kind]);
        run_with_status(command.arg("--root").arg(empty.path()).args(arguments), status)
    };
    for name in ["a_b", "a..b", "-a", "a-", "a.", ".a", ""] {
        let text = stderr(&plan("proxmox", &[&format!("--name={name}")], 64));
        assert!(text.contains("no name of a machine") && text.contains("hint: "), "{name}: {text}");
    }
    for (kind, arguments, words) in [
        ("proxmox", ["--image", "gdsboot.img"], "no relative path"),
        ("libvirt", ["--image", "gdsboot.img"], "no relative path"),
        ("proxmox", ["--image", "/a,b.img"], "no commas"),
        ("proxmox", ["--storage", "_x"], "no name of a storage"),
        ("libvirt", ["--cpus", "256"], "more than 255"),
    ] {
        let text = stderr(&plan(kind, &arguments, 64));
        assert!(text.contains(words) && text.contains("hint: "), "{kind}: {text}");
    }
    plan("proxmox", &["--image", "local:import/gdsboot.img"], 0);
    plan("qemu", &["--image", "gdsboot.img", "--cpus", "256"], 0);
    // Two dashes end a comment of XML.
    let xml = stdout(&plan("libvirt", &["--name", "a--b"], 0));
    let comment = xml.split_once("<!--").unwrap().1.split_once("-->").unwrap();
    assert!(!comment.0.contains("--") && comment.1.contains("<name>a--b</name>"), "{xml}");
    let path = empty.path().join("a--b.xml");
    std::fs::write(&path, &xml).unwrap();
    run_with_status(gdsboot().args(["vm", "check"]).arg(&path), 2);
}

#[test]
fn the_size_of_a_window_hides_nothing_that_the_host_uses() {
    let host = machine(
        "0000:00:01.0/0000:41:00.0",
        "0000:00:01.1/0000:42:00.0",
        &[
            ("proc/self/mountinfo", b"1 0 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n"),
            ("sys/class/nvme/nvme0/address", b"0000:42:00.0"),
            ("sys/class/nvme/nvme0/transport", b"pcie"),
            ("sys/class/nvme/nvme0/nvme0n1/size", b"100"),
            ("sys/block/nvme0n1/size", b"100"),
        ],
    );
    let plan = |nvme: &str, status| {
        let mut command = gdsboot();
        command.args(["vm", "plan", "--for", "qemu", "--topology", "switch", "--bar-size", "128G"]);
        command.args(["--gpu", "41:00.0", "--nvme", nvme, "--root"]);
        stderr(&run_with_status(command.arg(host.path()), status))
    };
    let used = plan("42:00.0", 64);
    assert!(used.contains("/dev/nvme0n1p2 is mounted at /") && used.contains("hint: "), "{used}");
    // The machine that has the GPU is the host.
    let gone = plan("43:00.0", 64);
    assert!(gone.contains("no device 0000:43:00.0") && gone.contains("for another one --host"), "{gone}");
    std::fs::write(host.path().join("proc/self/mountinfo"), "").unwrap();
    plan("42:00.0", 0);
}

#[test]
fn a_mapping_is_looked_up_where_the_host_is() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("100.conf");
    std::fs::write(&conf, "machine: q35\nhostpci0: mapping=gpu,pcie=1\nhostpci1: 42:00.0,pcie=1\n").unwrap();
    let mapping = b"gpu\n\tmap node=other,path=0000:99:00.0\n\tmap node=pve,path=0000:41:00.0\n";
    let host = machine(
        "0000:00:01.0/0000:41:00.0",
        "0000:00:01.1/0000:42:00.0",
        &[
            ("etc/pve/qemu-server/100.conf", &std::fs::read(&conf).unwrap()),
            ("etc/pve/mapping/pci.cfg", mapping),
            ("proc/sys/kernel/hostname", b"pve"),
        ],
    );
    let report = folder.path().join("host.json");
    let facts = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"));
        let command = command.args(["facts", "--json"]).args(arguments).arg("--root").arg(host.path());
        std::fs::write(&report, run_with_status(command, 0).stdout).unwrap();
    };
    let status = || {
        let mut command = gdsboot();
        command.args(["vm", "check", "--json"]).arg(&conf).arg("--host").arg(&report);
        let judgement: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let findings = judgement["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["id"] == "vm.devices").unwrap()["status"].clone()
    };
    facts(&["--vm", "100"]);
    assert_eq!(status(), "pass");
    // Facts without the machine have no mappings: nobody knows.
    facts(&[]);
    assert_eq!(status(), "unknown");
}

/// A machine as a folder: a GPU and a controller at these ways from the host bridge, and what else it has.
fn machine(gpu: &str, nvme: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let folder = root.path().join("sys/bus/pci/devices");
    std::fs::create_dir_all(&folder).unwrap();
    for (way, vendor, device, class) in
        [(gpu, "0x10de", "0x2331", "0x030200"), (nvme, "0x144d", "0xa80a", "0x010802")]
    {
        let mut above = "sys/devices/pci0000:00".to_owned();
        for address in way.split('/') {
            above = format!("{above}/{address}");
            let is_last = way.ends_with(address);
            let (vendor, device, class) =
                if is_last { (vendor, device, class) } else { ("0x1b36", "0x000c", "0x060400") };
            for (file, text) in [("vendor", vendor), ("device", device), ("class", class), ("numa_node", "0")]
            {
                put(&format!("{above}/{file}"), text.as_bytes());
            }
            let _ = std::os::unix::fs::symlink(format!("../../../../{above}"), folder.join(address));
        }
    }
    put("proc/sys/kernel/osrelease", b"6.8.12-4-pve");
    put("proc/cpuinfo", b"processor : 0\nvendor_id : GenuineIntel\ncpu family : 6\n");
    for (path, bytes) in files {
        put(path, bytes);
    }
    root
}

#[test]
fn a_guest_and_its_host_are_joined() {
    let conf = b"machine: q35\nbios: ovmf\ncpu: host\nballoon: 0\nmemory: 65536\nscsi0: a:b\nhostpci0: 0000:41:00,pcie=1\n\
                 hostpci1: 0000:42:00.0,pcie=1\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\n";
    let guest = machine(
        "0000:00:1c.0/0000:01:00.0",
        "0000:00:1c.1/0000:02:00.0",
        &[
            ("sys/class/dmi/id/sys_vendor", b"QEMU\n"),
            ("sys/class/dmi/id/product_uuid", b"11111111-2222-3333-4444-555555555555\n"),
            ("run/gdsboot/hypervisor", b"KVMKVMKVM"),
            (
                "sys/firmware/dmi/entries/11-0/raw",
                b"\x0b\x05\0\0\x01gdsboot.host=pair;distance=PIX;gpu=a;nvme=b\0\0",
            ),
        ],
    );
    let up = "0000:00:01.0/0000:3f:00.0";
    let host = machine(
        &format!("{up}/0000:40:00.0/0000:41:00.0"),
        &format!("{up}/0000:40:01.0/0000:42:00.0"),
        &[
            ("etc/pve/qemu-server/100.conf", conf),
            ("var/run/qemu-server/100.pid", b"7"),
            ("proc/7/cmdline", b"/usr/bin/kvm\0-id\x00100\0"),
        ],
    );
    // As it is done on the hypervisor.
    let reports = tempfile::tempdir().unwrap();
    let validator = |arguments: &[&str], root: &Path, status| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"));
        run_with_status(command.args(arguments).arg("--root").arg(root), status)
    };
    let report = reports.path().join("host.json");
    let report = report.to_str().unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"))
        .args(["check", "--side", "host", "--vm", "100", "--report", report, "--root"])
        .arg(host.path())
        .output()
        .unwrap();
    assert!(matches!(checked.status.code(), Some(1 | 2)), "{}", stderr(&checked));
    let facts = reports.path().join("guest.json");
    std::fs::write(&facts, validator(&["facts", "--json"], guest.path(), 0).stdout).unwrap();
    let join = |guest: &Path, host: &Path, status| {
        run_with_status(gdsboot().args(["vm", "join"]).arg(guest).arg(host), status)
    };
    let text = stdout(&join(&facts, Path::new(report), 1));
    for words in [
        "UUID 11111111-2222-3333-4444-555555555555 on both sides",
        "GPU 0000:01:00.0 and NVMe 0000:02:00.0: guest PHB, host PIX",
        "the host has them below one switch (PIX)",
        "gdsboot vm plan --topology switch --gpu 0000:41:00",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // What the host told its guest is among the guest's findings.
    let mut check = Command::new(env!("CARGO_BIN_EXE_gdsboot-validator"));
    let checked = check.args(["check", "--json", "--root"]).arg(guest.path()).output().unwrap();
    assert!(stdout(&checked).contains("gdsboot.host=pair;distance=PIX"), "{}", stdout(&checked));
    // Captures, as JSON, with the configuration beside them.
    let conf = reports.path().join("100.conf");
    std::fs::copy(host.path().join("etc/pve/qemu-server/100.conf"), &conf).unwrap();
    let mut command = gdsboot();
    command.args(["vm", "join", "--json"]).args([guest.path(), host.path()]).arg("--config").arg(&conf);
    let joined: serde_json::Value = serde_json::from_str(&stdout(&run_with_status(&mut command, 1))).unwrap();
    assert_eq!(joined["verdict"], "FAIL");
    assert_eq!(joined["joined"]["devices"][0]["host"], "0000:41:00.0");
    // What does not belong together.
    let swapped = stderr(&join(Path::new(report), &facts, 64));
    assert!(swapped.contains("carries no virtual machine"), "{swapped}");
    let without = stderr(&join(&facts, host.path(), 64));
    assert!(without.contains("--vm VMID"), "{without}");
    std::fs::write(&conf, b"machine: q35\nsmbios1: uuid=99999999-2222-3333-4444-555555555555\n").unwrap();
    let mut command = gdsboot();
    command.args(["vm", "join"]).args([guest.path(), host.path()]).arg("--config").arg(&conf);
    let other = stderr(&run_with_status(&mut command, 64));
    assert!(other.contains("do not belong together") && other.contains("UUID"), "{other}");
    let missing = stderr(&validator(&["facts", "--vm", "101"], host.path(), 64));
    assert!(missing.contains("virtual machine 101"), "{missing}");
}
