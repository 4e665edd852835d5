//! From what a user names to a machine: a file, or the number of a virtual machine of this Proxmox.

use super::machine::{Kind, MOST_DEVICES, Machine};
use super::proxmox::{self, FOLDER, MAPPINGS, Mappings};
use super::{libvirt, qemu};
use crate::error::{Advise as _, Status, usage};
use crate::facts::hosted;
use crate::facts::{Fact, Facts, Root};
use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::path::Path;

/// More than any configuration has.
const LIMIT: u64 = 4 << 20;

/// Whose configuration it looks like: XML begins with `<`, a command line has a QEMU in it or NUL between its words, and
/// Proxmox' lines are `key: value`.
pub fn recognise(bytes: &[u8]) -> Option<Kind> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 16)]);
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if text.starts_with('<') {
        return Some(Kind::Libvirt);
    }
    let is_key = |key: &str| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let has_qemu = ["qemu-system-", "qemu-kvm"].iter().any(|name| text.contains(name)) || bytes.contains(&0);
    if first.is_some_and(|line| line.split_once(':').is_some_and(|(key, _)| is_key(key)))
        && !bytes.contains(&0)
    {
        return Some(Kind::Proxmox);
    }
    let is_kvm = first.is_some_and(|line| {
        line.split_ascii_whitespace().next().is_some_and(|word| word == "kvm" || word.ends_with("/kvm"))
    });
    (has_qemu || is_kvm).then_some(Kind::Qemu)
}

/// Reads a configuration that is in memory.
///
/// # Errors
/// It is none; [`Status::Usage`].
pub fn read(from: &str, bytes: &[u8], kind: Option<Kind>, mappings: &Mappings) -> Result<Machine> {
    let Some(kind) = kind.or_else(|| recognise(bytes)) else {
        let what =
            if bytes.is_empty() { "it is empty" } else { "it looks like no configuration that is known" };
        return Err(usage(
            format!("reading {from}: {what}"),
            "name a file of /etc/pve/qemu-server, what `virsh dumpxml` printed, or a QEMU command line; --as says which it is",
        ));
    };
    let parsed = match kind {
        Kind::Proxmox => proxmox::parse(from, bytes, mappings),
        Kind::Libvirt => libvirt::parse(from, bytes),
        Kind::Qemu => qemu::parse(from, bytes),
    };
    let is_possible = |machine: Machine| {
        anyhow::ensure!(machine.passed.len() <= MOST_DEVICES, "it passes more devices than any machine has");
        Ok(machine)
    };
    parsed
        .and_then(is_possible)
        .with_context(|| format!("reading {from} as a configuration of {kind}"))
        .hint("say what it is with --as proxmox, libvirt or qemu")
        .status(Status::Usage)
}

/// Reads what a user named: digits alone are a virtual machine of the Proxmox at `root`. Resource mappings are those of the
/// `host` that was handed in, else those at `root`.
///
/// # Errors
/// There is no such thing, or it is no configuration; [`Status::Usage`].
pub fn load(target: &str, kind: Option<Kind>, root: &Root, host: Option<&Facts>) -> Result<Machine> {
    let mappings = match (host, root.text(MAPPINGS)) {
        (Some(host), _) => Mappings::of_host(host),
        (None, Fact::Known { value, .. }) => {
            Mappings::parse(&value, hosted::node(root).value().map(String::as_str))
        }
        (None, _) => Mappings::default(),
    };
    if is_vmid(target) {
        return load_vmid(target, root, &mappings);
    }
    let path = Path::new(target);
    let read_file = || -> Result<Vec<u8>> {
        let file = std::fs::File::open(path)?;
        anyhow::ensure!(!file.metadata()?.is_dir(), "it is a directory");
        let mut bytes = Vec::new();
        file.take(LIMIT + 1).read_to_end(&mut bytes)?;
        anyhow::ensure!(bytes.len() as u64 <= LIMIT, "it is longer than {LIMIT} bytes");
        Ok(bytes)
    };
    let bytes = read_file()
        .with_context(|| format!("reading {target}"))
        .hint("name a configuration's file, or the number of a virtual machine of this Proxmox")
        .status(Status::Usage)?;
    read(target, &bytes, kind, &mappings)
}

/// Is it the number of a virtual machine?
pub fn is_vmid(target: &str) -> bool {
    !target.is_empty() && target.len() <= 9 && target.bytes().all(|byte| byte.is_ascii_digit())
}

fn load_vmid(vmid: &str, root: &Root, mappings: &Mappings) -> Result<Machine> {
    let path = format!("{FOLDER}/{vmid}.conf");
    match root.bytes(&path) {
        Fact::Known { value, .. } => read(&path, &value, Some(Kind::Proxmox), mappings),
        Fact::Missing { .. } => {
            let all = root.list(FOLDER);
            let mut there: Vec<&str> =
                all.value().into_iter().flatten().filter_map(|name| name.strip_suffix(".conf")).collect();
            there.sort_by_key(|vmid| vmid.parse::<u32>().unwrap_or(u32::MAX));
            let hint = match there.as_slice() {
                [] => format!(
                    "this machine has no {FOLDER}: run it on the Proxmox node that has the machine, or name a file"
                ),
                some => format!("this node has {}; a machine of another node is there", some.join(", ")),
            };
            Err(usage(format!("there is no virtual machine {vmid}: {path} does not exist"), hint))
        }
        other => Err(usage(format!("reading {path}: {}", other.map(|_| "")), "run it as root")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{hint_of, one_line, status_of};

    #[test]
    fn kinds_are_told_by_their_content() {
        let cases: [(&[u8], Option<Kind>); 8] = [
            (b"# x\nboot: order=scsi0\nargs: qemu-system-x86_64\n", Some(Kind::Proxmox)),
            (b"\n <domain/>", Some(Kind::Libvirt)),
            (b"#!/bin/sh\nFOO=1\nqemu-system-x86_64 -M q35", Some(Kind::Qemu)),
            (b"/usr/bin/kvm\0-id\x00100\0", Some(Kind::Qemu)),
            (b"kvm -m 4G", Some(Kind::Qemu)),
            (b"", None),
            (b"hello", None),
            (b"\xff\xfe\xfd", None),
        ];
        for (bytes, kind) in cases {
            assert_eq!(recognise(bytes), kind, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn no_machine_passes_so_many_devices() {
        let line = "hostpci0: 41:00.0\n".repeat(MOST_DEVICES + 1);
        let why = read("1.conf", line.as_bytes(), None, &Mappings::default()).unwrap_err();
        assert_eq!(status_of(&why), Status::Usage);
        assert!(one_line(&why).contains("more devices") && hint_of(&why).is_some(), "{why:#}");
        let line = "hostpci0: 41:00.0\n".repeat(MOST_DEVICES);
        assert!(read("1.conf", line.as_bytes(), None, &Mappings::default()).is_ok());
    }

    #[test]
    fn a_machine_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let error = load("100", None, &root, None).unwrap_err();
        assert!(one_line(&error).contains("no virtual machine 100"));
        assert!(hint_of(&error).unwrap().contains("name a file"));
        let folder = dir.path().join("etc/pve/qemu-server");
        fs_err::create_dir_all(&folder).unwrap();
        fs_err::write(folder.join("101.conf"), "name: a\n").unwrap();
        let error = load("100", None, &root, None).unwrap_err();
        assert_eq!(status_of(&error), Status::Usage);
        assert!(hint_of(&error).unwrap().contains("101"));
        assert_eq!(load("101", None, &root, None).unwrap().vmid, Some(101));
        for nothing in ["/nonexistent", "/"] {
            assert_eq!(status_of(&load(nothing, None, &root, None).unwrap_err()), Status::Usage);
        }
    }
}
