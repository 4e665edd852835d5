//! `gdsboot vm` as a program.

mod common;

use common::{gdsboot, run_with_status, stderr, stdout};
use std::path::{Path, PathBuf};

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
    let text = check("broken.xml", 1);
    for id in ["vm.machine-type", "vm.emulator", "vm.balloon", "vm.hidden", "vm.memory-lock", "vm.nvme"] {
        assert!(text.contains(id), "{id}: {text}");
    }
    check("good.xml", 2);
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
