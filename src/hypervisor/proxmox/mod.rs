//! A virtual machine's file of Proxmox VE, `/etc/pve/qemu-server/VMID.conf` (qm.conf(5)), and the resource mappings of
//! `/etc/pve/mapping/pci.cfg`.
//!
//! Only what counts now is judged: the part before the first `[section]`. `[PENDING]` is what the next start changes; any
//! other section is a snapshot.

mod devices;
mod keys;
mod mappings;
mod nodes;
mod options;
#[cfg(test)]
mod tests;

use super::machine::{Disk, Firmware, Kind, Machine, bytes};
use super::qemu;
use anyhow::{Result, ensure};
use devices::{hostpci, place};
use keys::{MORE, NUMBERED, PLAIN};
use nodes::Nodes;
use options::{is_on, pairs, value};

pub use devices::conventional_buses;
pub use mappings::Mappings;
pub use nodes::MOST_NODES;

/// Where the files are.
pub const FOLDER: &str = "/etc/pve/qemu-server";
/// Where the resource mappings are.
pub const MAPPINGS: &str = "/etc/pve/mapping/pci.cfg";

/// Reads a file.
///
/// # Errors
/// It is no text, or has none of Proxmox' keys.
pub fn parse(from: &str, text: &[u8], mappings: &Mappings) -> Result<Machine> {
    let Ok(text) = std::str::from_utf8(text) else { anyhow::bail!("it is not text") };
    ensure!(!text.contains('\0'), "it is not text: it has NUL bytes");
    let mut machine = Machine::new(Kind::Proxmox, from);
    let stem = from.rsplit('/').next().and_then(|name| name.strip_suffix(".conf"));
    machine.vmid = stem.and_then(|stem| stem.parse().ok());
    // What Proxmox does where nothing is said.
    machine.board = "pc".into();
    machine.firmware = Some(Firmware::Bios);
    machine.memory.balloon = true;
    machine.memory.bytes = Some(512 << 20);
    let mut args = None;
    let mut section = String::new();
    let mut known = 0;
    let mut nodes = Nodes::default();
    machine.mappings_read = mappings.is_read;
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if name != "PENDING" && !name.starts_with("special:") {
                machine.snapshots.push(name.to_owned());
            }
            section = name.to_owned();
            continue;
        }
        let Some((key, text)) = line.split_once(':').map(|(key, text)| (key.trim(), text.trim())) else {
            if section.is_empty() {
                machine.complaints.push(format!("{line:?} is no line of the form key: value"));
            }
            continue;
        };
        match section.as_str() {
            "" => {}
            "PENDING" => {
                let deleted = |key: &str| (key.to_owned(), String::new());
                match key {
                    "delete" => machine
                        .pending
                        .extend(text.split(',').map(|key| deleted(key.trim_start_matches('!')))),
                    key => machine.pending.push((key.to_owned(), text.to_owned())),
                }
                continue;
            }
            _ => continue,
        }
        nodes.note(key, text);
        if key == "args" {
            args = Some(text.to_owned());
            known += 1;
        } else if set(&mut machine, key, text, mappings) {
            known += 1;
        } else {
            machine.unknown.push(format!("{key}: {text}"));
        }
    }
    ensure!(known > 0, "it has no line that Proxmox' configurations have");
    place(&mut machine);
    nodes.apply(&mut machine);
    // With x-vga Proxmox hides KVM, unless the CPU's own line says otherwise (PCI.pm, CPUConfig.pm).
    let is_said = value(&pairs(&machine.cpu.written, "cputype"), "hidden").is_some();
    machine.cpu.hidden |= !is_said && machine.passed.iter().any(|passed| passed.display);
    if let Some(args) = &args
        && let Err(why) = qemu::add(&mut machine, args)
    {
        machine.complaints.push(format!("args: {why}: they are not looked at"));
    }
    machine.args = args;
    Ok(machine)
}

/// Takes one line; false where its key is unknown.
fn set(machine: &mut Machine, key: &str, text: &str, mappings: &Mappings) -> bool {
    let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &key[stem.len()..];
    match (key, stem) {
        ("name", _) => machine.name = Some(text.to_owned()),
        ("machine", _) => {
            let options = pairs(text, "type");
            machine.board = value(&options, "type").unwrap_or("pc").to_owned();
            machine.viommu = value(&options, "viommu").map(str::to_owned);
        }
        ("bios", _) => {
            machine.firmware = match text {
                "ovmf" => Some(Firmware::Uefi),
                "seabios" => Some(Firmware::Bios),
                _ => None,
            }
        }
        ("efidisk0", _) => machine.secure_boot = is_on(value(&pairs(text, "file"), "pre-enrolled-keys")),
        ("kvm", _) => machine.accelerated = text != "0",
        ("cpu", _) => cpu(machine, text),
        ("memory", _) => {
            let options = pairs(text, "current");
            let size = value(&options, "current").and_then(|size| bytes(size, 1 << 20));
            match size {
                Some(size) => machine.memory.bytes = Some(size),
                None => machine.complaints.push(format!("memory: {text:?} is no number of MiB")),
            }
        }
        ("balloon", _) => machine.memory.balloon = text != "0",
        ("hugepages", _) => {
            machine.memory.hugepages = match text {
                "any" => Some(0),
                size => bytes(size, 1 << 20),
            }
        }
        ("numa", _) => {}
        ("smbios1", _) => {
            let uuid = pairs(text, "")
                .iter()
                .find(|(key, _)| key == "uuid")
                .map(|(_, uuid)| uuid.to_ascii_lowercase());
            machine.uuid = uuid;
        }
        ("amd_sev" | "amd-sev", _) => machine.confidential = Some(format!("AMD SEV ({text})")),
        ("intel-tdx", _) => machine.confidential = Some("Intel TDX".into()),
        // Whoever notes the nodes reads them.
        (_, "numa") if number.parse().is_ok_and(|number: usize| number < MOST_NODES) => {}
        (_, "hostpci") if !number.is_empty() => {
            let passed = hostpci(machine, key, text, mappings);
            machine.passed.push(passed);
        }
        (_, "virtio" | "scsi" | "sata" | "ide") if !number.is_empty() => {
            let options = pairs(text, "file");
            machine.disks.push(Disk {
                name: key.to_owned(),
                interface: stem.to_owned(),
                cdrom: value(&options, "media") == Some("cdrom"),
            });
        }
        (_, stem) if NUMBERED.contains(&stem) && !number.is_empty() => {}
        _ => return PLAIN.contains(&key) || MORE.contains(&key),
    }
    true
}

/// `host,hidden=1,flags=+aes;-pcid,phys-bits=host`.
fn cpu(machine: &mut Machine, text: &str) {
    let options = pairs(text, "cputype");
    let cpu = &mut machine.cpu;
    text.clone_into(&mut cpu.written);
    cpu.model = value(&options, "cputype").unwrap_or("").to_owned();
    cpu.hidden = is_on(value(&options, "hidden"));
    match value(&options, "phys-bits") {
        Some("host") => cpu.host_phys_bits = true,
        Some(bits) => cpu.phys_bits = bits.parse().ok(),
        None => {}
    }
    let flags = value(&options, "flags").unwrap_or("");
    cpu.flags = flags.split(';').filter(|flag| !flag.is_empty()).map(str::to_owned).collect();
}
