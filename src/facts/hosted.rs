//! A virtual machine of this Proxmox: its configuration and its process, as text. Whoever joins a guest's report with the
//! host's reads them (`gdsboot vm join`).

use super::{Fact, Root};
use crate::redact;
use serde::{Deserialize, Serialize};

/// A virtual machine as its host has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HostedVm {
    /// Proxmox' number of it.
    pub vmid: u32,
    /// Its file in `/etc/pve/qemu-server`, without notes, passwords and keys: those are nobody's business.
    pub conf: String,
    /// The resource mappings, `/etc/pve/mapping/pci.cfg`.
    pub mappings: Fact<String>,
    /// The name of this node of the cluster: a mapping has devices of several.
    pub node: Fact<String>,
    /// The words of the QEMU that runs it; missing where none does.
    pub command_line: Fact<Vec<String>>,
}

impl HostedVm {
    /// Reads it; missing where this node has no such machine.
    pub fn read(root: &Root, vmid: u32) -> Fact<Self> {
        let pid = root.parse(&format!("/var/run/qemu-server/{vmid}.pid"), |text| {
            text.trim().parse::<u32>().map_err(|why| why.to_string())
        });
        let command_line = match &pid {
            Fact::Known { value: pid, .. } => root.bytes(&format!("/proc/{pid}/cmdline")).map(|bytes| {
                let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
                words.map(|word| redact::argument(&String::from_utf8_lossy(word))).collect()
            }),
            other => other.clone().map(|_| Vec::new()),
        };
        root.text(&format!("/etc/pve/qemu-server/{vmid}.conf")).map(|conf| Self {
            vmid,
            conf: redact::command_line(&without_secrets(&conf)),
            mappings: root.text("/etc/pve/mapping/pci.cfg"),
            node: node(root),
            command_line,
        })
    }
}

/// The name of this node: `/etc/pve/local` leads to its folder; else it is the host's name without its domain, as Proxmox has it.
pub fn node(root: &Root) -> Fact<String> {
    match root.link_name("/etc/pve/local") {
        Fact::Known { value, from } => Fact::Known { value, from },
        _ => {
            root.text("/proc/sys/kernel/hostname").map(|name| name.split('.').next().unwrap_or("").to_owned())
        }
    }
}

/// Leaves out notes and what cloud-init is given.
fn without_secrets(conf: &str) -> String {
    let is_private = |line: &&str| {
        ["#", "cipassword:", "sshkeys:", "description:"].iter().any(|key| line.starts_with(key))
    };
    conf.lines().filter(|line| !is_private(line)).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_and_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in [
            ("etc/pve/qemu-server/100.conf", &b"#secret\nname: a\ncipassword: $5$x\nargs: -fw_cfg name=opt/gdsboot/report_url,string=https://s3/k?sIg -x\n"[..]),
            ("var/run/qemu-server/100.pid", b"4711\n"),
            ("proc/4711/cmdline", b"/usr/bin/kvm\0-id\x00100\0-fw_cfg\0name=opt/gdsboot/report_url,string=https://s3/k?sIg\0"),
            ("proc/sys/kernel/hostname", b"pve.example.org\n"),
        ] {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        }
        let root = Root::at(dir.path());
        let vm = HostedVm::read(&root, 100);
        let vm = vm.value().unwrap();
        assert_eq!(vm.vmid, 100);
        assert!(
            vm.conf.starts_with("name: a\nargs: -fw_cfg name=opt/gdsboot/report_url,string=https://s3/k?"),
            "{}",
            vm.conf
        );
        assert!(vm.conf.ends_with(" -x\n") && !vm.conf.contains("sIg"), "{}", vm.conf);
        // Whoever has the URL can write there.
        let words = vm.command_line.value().unwrap();
        assert_eq!(words[..4], ["/usr/bin/kvm", "-id", "100", "-fw_cfg"]);
        assert!(words[4].contains("https://s3/k?") && !words[4].contains("sIg"), "{words:?}");
        assert_eq!(vm.node.value().map(String::as_str), Some("pve"));
        std::os::unix::fs::symlink("nodes/other", dir.path().join("etc/pve/local")).unwrap();
        fs_err::create_dir_all(dir.path().join("etc/pve/nodes/other")).unwrap();
        assert_eq!(node(&root).value().map(String::as_str), Some("other"));
        assert!(matches!(vm.mappings, Fact::Missing { .. }));
        assert!(matches!(HostedVm::read(&root, 101), Fact::Missing { .. }));
    }
}
