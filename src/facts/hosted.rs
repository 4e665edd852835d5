//! A virtual machine of this Proxmox: its configuration as text. Whoever joins a guest's report with the
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
    /// Its file in `/etc/pve/qemu-server`, without notes, passwords, keys and where reports are sent: those are nobody's business.
    pub conf: String,
    /// The resource mappings, `/etc/pve/mapping/pci.cfg`.
    pub mappings: Fact<String>,
}

impl HostedVm {
    /// Reads it; missing where this node has no such machine.
    pub fn read(root: &Root, vmid: u32) -> Fact<Self> {
        root.text(&format!("/etc/pve/qemu-server/{vmid}.conf")).map(|conf| Self {
            vmid,
            conf: redact::command_line(&without_secrets(&conf)),
            mappings: root.text("/etc/pve/mapping/pci.cfg"),
        })
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
        let path = dir.path().join("etc/pve/qemu-server/100.conf");
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let conf = "#secret\nname: a\ncipassword: $5$x\n\
                    args: -fw_cfg name=opt/gdsboot/report_url,string=https://a/b?X-Amz-Signature=top\n";
        fs_err::write(path, conf).unwrap();
        let root = Root::at(dir.path());
        let vm = HostedVm::read(&root, 100);
        let vm = vm.value().unwrap();
        assert_eq!(vm.vmid, 100);
        assert!(
            vm.conf.starts_with("name: a\nargs: -fw_cfg name=opt/gdsboot/report_url,string=https://a/b"),
            "{}",
            vm.conf
        );
        let said = format!("{vm:?}");
        assert!(!said.contains("top") && !said.contains("secret") && !said.contains("$5$x"), "{said}");
        assert!(matches!(vm.mappings, Fact::Missing { .. }));
        assert!(matches!(HostedVm::read(&root, 101), Fact::Missing { .. }));
    }
}
