//! The machine around the kernel: what its firmware calls it, and which hypervisor it says it runs under.

use super::{Fact, Root};
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
        }
    }
}

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
