//! The machine around the kernel: what its firmware calls it, and which hypervisor it says it runs under.

use super::commands::CommandOutput;
use super::cpu::Cpu;
use super::log_lines::LogLines;
use super::{Fact, Root, smbios};
use serde::{Deserialize, Serialize};

/// The machine as its firmware and its CPU describe it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Platform {
    /// Who built it.
    pub vendor: Fact<String>,
    /// Its product name.
    pub product: Fact<String>,
    /// Its product version; QEMU puts the machine type here.
    pub version: Fact<String>,
    /// Its serial number; only root may read it.
    pub serial: Fact<String>,
    /// Its UUID; only root may read it.
    pub uuid: Fact<String>,
    /// The main board.
    pub board: Fact<String>,
    /// The firmware's vendor.
    pub firmware_vendor: Fact<String>,
    /// The firmware's version.
    pub firmware_version: Fact<String>,
    /// The firmware's date.
    pub firmware_date: Fact<String>,
    /// What the hypervisor calls itself in CPUID leaf 0x4000_0000; missing where the CPU reports no hypervisor.
    pub hypervisor: Fact<String>,
    /// What the hypervisor tells of the host's topology, in SMBIOS OEM strings; missing where it tells nothing.
    pub told: Fact<Vec<String>>,
}

impl Platform {
    /// Reads all of it.
    pub fn read(root: &Root) -> Self {
        let dmi = |name: &str| root.text(&format!("/sys/class/dmi/id/{name}"));
        Self {
            vendor: dmi("sys_vendor"),
            product: dmi("product_name"),
            version: dmi("product_version"),
            serial: dmi("product_serial"),
            uuid: dmi("product_uuid"),
            board: dmi("board_name"),
            firmware_vendor: dmi("bios_vendor"),
            firmware_version: dmi("bios_version"),
            firmware_date: dmi("bios_date"),
            hypervisor: read_hypervisor(root),
            told: smbios::from_host(root),
        }
    }

    /// Takes what the machine's own files do not say from programs (dmidecode, systemd-detect-virt, lscpu) and from what
    /// the kernel logged of the firmware's names and of the hypervisor. On a physical CPU nobody is believed who tells of a
    /// hypervisor: a host's capture may hold its guest's log.
    pub fn or_told(mut self, commands: &[CommandOutput], kernel_log: &[LogLines], cpu: Option<&Cpu>) -> Self {
        let is_physical = cpu.is_some_and(|cpu| !cpu.vendor.is_empty() && !cpu.hypervisor_flag);
        fn fill(fact: &mut Fact<String>, from: &str, told: &str) {
            if fact.value().is_none() && !told.is_empty() {
                *fact = Fact::known(from, told.to_owned());
            }
        }
        let asked = self.hypervisor.clone();
        for command in commands {
            let from = command.from.as_str();
            let value = |line: &'_ String, label: &str| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == label).then(|| value.trim().to_owned())
            };
            match command.program() {
                "dmidecode" => {
                    let lines = command.stdout.iter().skip_while(|line| line.trim() != "System Information");
                    let section: Vec<&String> =
                        lines.skip(1).take_while(|line| line.starts_with([' ', '\t'])).collect();
                    let told = |label| section.iter().find_map(|line| value(line, label)).unwrap_or_default();
                    fill(&mut self.vendor, from, &told("Manufacturer"));
                    fill(&mut self.product, from, &told("Product Name"));
                    fill(&mut self.version, from, &told("Version"));
                }
                "systemd-detect-virt" => match command.stdout.first().map_or("", |line| line.trim()) {
                    // Containers are told of as well; they say nothing of the machine.
                    name @ ("kvm" | "vmware" | "microsoft" | "xen" | "oracle" | "amazon" | "google"
                    | "bhyve") => {
                        fill(&mut self.hypervisor, from, name);
                    }
                    // QEMU without hardware virtualisation.
                    "qemu" => fill(&mut self.hypervisor, from, "TCGTCGTCGTCG"),
                    _ => {}
                },
                "lscpu" => {
                    let told = command.stdout.iter().find_map(|line| value(line, "Hypervisor vendor"));
                    fill(&mut self.hypervisor, from, &told.unwrap_or_default());
                }
                _ => {}
            }
        }
        for (from, line) in kernel_log.iter().flat_map(|log| log.lines.iter().map(|line| (&log.from, line))) {
            if let Some((_, name)) = line.split_once("Hypervisor detected: ") {
                fill(&mut self.hypervisor, from, name.trim());
            } else if let Some((_, names)) = line.split_once(" DMI: ") {
                // Vendor and product stand together: `QEMU Standard PC (Q35 + ICH9, 2009), BIOS ...`.
                let names = names.rsplit_once(", BIOS").map_or(names, |(names, _)| names);
                if let Some(vendor) = VENDORS.iter().find(|vendor| names.starts_with(**vendor)) {
                    fill(&mut self.vendor, from, vendor);
                }
                fill(&mut self.product, from, names);
            }
        }
        if is_physical {
            self.hypervisor = asked;
        }
        self
    }
}

/// Makers of virtual machines, as firmware calls them.
const VENDORS: [&str; 8] = [
    "QEMU",
    "VMware, Inc.",
    "Microsoft Corporation",
    "Xen",
    "Amazon EC2",
    "Google",
    "KubeVirt",
    "innotek GmbH",
];

/// The name of the leaf, as the fact's source.
const LEAF: &str = "cpuid 0x40000000";
/// Where a capture keeps what the CPU said; empty where it reports no hypervisor.
pub const CAPTURED_HYPERVISOR: &str = "/run/gdsboot/hypervisor";

fn read_hypervisor(root: &Root) -> Fact<String> {
    if root.is_live() {
        return ask_cpu();
    }
    match root.text(CAPTURED_HYPERVISOR) {
        Fact::Known { value, .. } if value.is_empty() => Fact::Missing { from: LEAF.into() },
        Fact::Known { value, .. } => Fact::known(LEAF, value),
        _ => Fact::not_read("only a live CPU can be asked by cpuid"),
    }
}

#[cfg(target_arch = "x86_64")]
fn ask_cpu() -> Fact<String> {
    use std::arch::x86_64::__cpuid;
    // Leaf 1, ECX bit 31: reserved for hypervisors, 0 on every physical CPU.
    if __cpuid(1).ecx >> 31 & 1 == 0 {
        return Fact::Missing { from: LEAF.into() };
    }
    let leaf = __cpuid(0x4000_0000);
    Fact::known(LEAF, signature(leaf.ebx, leaf.ecx, leaf.edx))
}

#[cfg(not(target_arch = "x86_64"))]
fn ask_cpu() -> Fact<String> {
    Fact::not_read("this CPU has no cpuid")
}

/// Twelve bytes of text in three registers; what cannot be printed is shown as `?`.
fn signature(ebx: u32, ecx: u32, edx: u32) -> String {
    let bytes = [ebx, ecx, edx].into_iter().flat_map(u32::to_le_bytes);
    let text: String = bytes
        .map(|b| if b == 0 || b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' })
        .collect();
    text.trim_matches(['\0', ' ']).replace('\0', "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_text_in_three_registers() {
        assert_eq!(signature(0x4b4d_564b, 0x564b_4d56, 0x0000_004d), "KVMKVMKVM");
        assert_eq!(signature(0x5447_4354, 0x4354_4743, 0x4743_5447), "TCGTCGTCGTCG");
        assert_eq!(signature(0, 0, 0), "");
        assert_eq!(signature(0x4b4d_56ff, 0, 0x0000_0041), "?VMK????A");
    }

    #[test]
    fn programs_and_the_kernel_log_tell_of_the_machine() {
        let command = |program: &str, text: &str| CommandOutput {
            from: program.to_owned(),
            argv: vec![program.to_owned()],
            stdout: text.lines().map(str::to_owned).collect(),
            ..CommandOutput::default()
        };
        let dmidecode = "Handle 0x0000\nBIOS Information\n\tVendor: SeaBIOS\n\nSystem Information\n\tManufacturer: QEMU\n\t\
                         Product Name: Standard PC (Q35 + ICH9, 2009)\n\tVersion: pc-q35-8.1\n\nChassis Information\n\tManufacturer: x\n";
        let told = Platform::default().or_told(&[command("dmidecode", dmidecode)], &[], None);
        assert_eq!(told.vendor.value().unwrap(), "QEMU");
        assert_eq!(told.version.value().unwrap(), "pc-q35-8.1");
        let hypervisor = |program: &str, text: &str| {
            Platform::default().or_told(&[command(program, text)], &[], None).hypervisor.value().cloned()
        };
        assert_eq!(hypervisor("systemd-detect-virt", "kvm\n").unwrap(), "kvm");
        assert_eq!(hypervisor("systemd-detect-virt", "qemu\n").unwrap(), "TCGTCGTCGTCG");
        assert_eq!(hypervisor("lscpu", "Hypervisor vendor:     KVM\n").unwrap(), "KVM");
        for nothing in ["none\n", "docker\n", ""] {
            assert_eq!(hypervisor("systemd-detect-virt", nothing), None);
        }
        let log = LogLines {
            from: "dmesg".into(),
            lines: vec![
                "[    0.0] DMI: QEMU Standard PC (i440FX + PIIX, 1996), BIOS rel-1.16.3 04/01/2014".into(),
                "[    0.0] Hypervisor detected: KVM".into(),
            ],
            ..LogLines::default()
        };
        let told = Platform::default().or_told(&[], std::slice::from_ref(&log), None);
        assert_eq!(
            (told.vendor.value().unwrap().as_str(), told.hypervisor.value().unwrap().as_str()),
            ("QEMU", "KVM")
        );
        // What the machine's own files say stands.
        let own = Platform { vendor: Fact::known("sys_vendor", "Dell Inc.".into()), ..Platform::default() };
        let cpu = Cpu { vendor: "GenuineIntel".into(), ..Cpu::default() };
        let own = own.or_told(&[], &[log], Some(&cpu));
        assert_eq!((own.vendor.value().unwrap().as_str(), own.hypervisor.value()), ("Dell Inc.", None));
    }

    #[test]
    fn a_captured_machine_is_not_asked_by_cpuid() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("sys/class/dmi/id")).unwrap();
        fs_err::write(dir.path().join("sys/class/dmi/id/sys_vendor"), "QEMU\n").unwrap();
        let platform = Platform::read(&Root::at(dir.path()));
        assert_eq!(platform.vendor.value().unwrap(), "QEMU");
        assert!(matches!(platform.hypervisor, Fact::NotRead { .. }));
        let captured = |text: &str| {
            fs_err::create_dir_all(dir.path().join("run/gdsboot")).unwrap();
            fs_err::write(dir.path().join(&CAPTURED_HYPERVISOR[1..]), text).unwrap();
            Platform::read(&Root::at(dir.path())).hypervisor
        };
        assert_eq!(captured("KVMKVMKVM\n"), Fact::known(LEAF, "KVMKVMKVM".into()));
        assert_eq!(captured(""), Fact::Missing { from: LEAF.into() });
        assert_eq!(platform.serial, Fact::Missing { from: "/sys/class/dmi/id/product_serial".into() });
    }
}
