//! How OVMF is told the size of its window, in a configuration that says other things already.

use crate::hypervisor::window::FW_CFG;
use crate::pasteable::pasteable;

/// Proxmox' command: `args` as they are, with this entry in place of one that is there. QEMU refuses a name twice.
pub fn for_proxmox(args: Option<&str>, mib: u64) -> String {
    let said = args.unwrap_or("");
    // Arguments that nobody can read cannot be written once more.
    let Some(words) = shlex::split(said) else { return String::new() };
    let mut kept: Vec<String> = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let is_entry = |value: &String| {
            value.split(',').any(|part| part == FW_CFG || part.strip_prefix("name=") == Some(FW_CFG))
        };
        if word.trim_start_matches('-') == "fw_cfg" && words.peek().is_some_and(is_entry) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.extend(["-fw_cfg".to_owned(), format!("name={FW_CFG},string={mib}")]);
    format!("qm set VMID -args {}", pasteable([pasteable(kept)]))
}

/// libvirt's elements: `<sysinfo>` refuses this name (qemu_validate.c, `qemuValidateDomainDefSysinfo`).
pub fn for_libvirt(mib: u64) -> String {
    format!(
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ...>...<qemu:commandline><qemu:arg value='-fw_cfg'/>\
         <qemu:arg value='name={FW_CFG},string={mib}'/></qemu:commandline></domain>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_args_say_already_is_kept() {
        let line = for_proxmox(None, 1024);
        assert_eq!(line, format!("qm set VMID -args '-fw_cfg name={FW_CFG},string=1024'"));
        let args =
            format!("-device 'vfio-pci,host=41:00.0' -fw_cfg {FW_CFG},string=1 -smbios 'type=11,value=a;b'");
        let words = shlex::split(&for_proxmox(Some(&args), 1024)).unwrap();
        let args = shlex::split(words.last().unwrap()).unwrap();
        let entry = format!("name={FW_CFG},string=1024");
        assert_eq!(
            args,
            ["-device", "vfio-pci,host=41:00.0", "-smbios", "type=11,value=a;b", "-fw_cfg", &entry]
        );
        assert_eq!(for_proxmox(Some("-device 'x"), 1024), "");
    }
}
