//! The options of a command line, one after the other.

use super::drives::firmware;
use super::options::{get, is_on, keyed, options};
use super::script::is_variable;
use crate::hypervisor::machine::{Cpu, Machine, Port, PortKind, ROOT_BUS, bytes};
use crate::hypervisor::proxmox;
use anyhow::{Result, bail};

/// Options that say nothing about transfers, and whether they take a word.
const PLAIN: [(&str, bool); 62] = [
    ("boot", true),
    ("chardev", true),
    ("daemonize", false),
    ("display", true),
    ("k", true),
    ("mon", true),
    ("monitor", true),
    ("msg", true),
    ("name", true),
    ("net", true),
    ("netdev", true),
    ("nic", true),
    ("no-hpet", false),
    ("no-reboot", false),
    ("no-shutdown", false),
    ("nodefaults", false),
    ("no-user-config", false),
    ("nographic", false),
    ("pidfile", true),
    ("qmp", true),
    ("rtc", true),
    ("sandbox", true),
    ("serial", true),
    ("smp", true),
    ("spice", true),
    ("usb", false),
    ("usbdevice", true),
    ("vga", true),
    ("vnc", true),
    ("S", false),
    ("s", false),
    ("kernel", true),
    ("initrd", true),
    ("append", true),
    ("iscsi", true),
    ("watchdog", true),
    ("watchdog-action", true),
    ("runas", true),
    ("run-with", true),
    ("chroot", true),
    ("d", true),
    ("D", true),
    ("trace", true),
    ("action", true),
    ("audio", true),
    ("audiodev", true),
    ("soundhw", true),
    ("compat", true),
    ("debugcon", true),
    ("echr", true),
    ("enable-fips", false),
    ("fsdev", true),
    ("gdb", true),
    ("incoming", true),
    ("loadvm", true),
    ("L", true),
    ("no-acpi", false),
    ("only-migratable", false),
    ("parallel", true),
    ("set", true),
    ("snapshot", false),
    ("virtfs", true),
];

pub(super) struct Parser<'a> {
    pub(super) machine: &'a mut Machine,
    /// Was there an `-accel`?
    pub(super) is_accelerator_said: bool,
    /// Does a shell put in what stands for it?
    pub(super) by_shell: bool,
}

impl Parser<'_> {
    pub(super) fn arguments(&mut self, words: &[String]) -> Result<()> {
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name)) else {
                if self.by_shell && word.contains('$') {
                    self.leave_open(word);
                } else if self.machine.open.is_some() {
                    self.machine.unknown.push(word.to_owned());
                } else if !word.is_empty() {
                    // A word alone is the first disk (system/vl.c: drive_add).
                    self.disk("hda", "ide", false);
                }
                continue;
            };
            if let Some((_, takes)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
                let value = if *takes { words.next().unwrap_or("") } else { "" };
                if name == "name" {
                    let options = options(value, "guest");
                    self.machine.name = get(&options, "guest").map(str::to_owned);
                }
                if name == "set" {
                    self.set(value);
                }
                continue;
            }
            if matches!(name, "enable-kvm" | "mem-prealloc" | "no-balloon") {
                self.machine.accelerated |= name == "enable-kvm";
                continue;
            }
            // An option's value may begin with a dash only where the option is known.
            let value = match words.peek() {
                Some(next) if !next.starts_with('-') => words.next(),
                _ => None,
            };
            match value {
                Some(value) => self.option(name, value),
                None => self.machine.unknown.push(word.to_owned()),
            }
            if self.machine.passed.len() + self.machine.ports.len() + self.machine.disks.len() > 4096 {
                bail!("it has more devices than any machine");
            }
        }
        self.settle();
        Ok(())
    }

    /// What the shell puts here may be any option.
    fn leave_open(&mut self, word: &str) {
        self.machine.complaints.push(format!("what the shell puts for {word} is not known here"));
        self.machine.open.get_or_insert_with(|| word.to_owned());
    }

    fn option(&mut self, name: &str, value: &str) {
        if self.by_shell && is_variable(value) {
            self.leave_open(&format!("{value} (-{name})"));
        } else if self.by_shell && value.contains('$') {
            self.machine
                .complaints
                .push(format!("-{name} {value}: what the shell puts for $ is not known here"));
        }
        let machine = &mut *self.machine;
        match name {
            "machine" | "M" => {
                let options = options(value, "type");
                if let Some(board) = get(&options, "type") {
                    machine.board = board.to_owned();
                }
                if let Some(accelerator) = get(&options, "accel") {
                    machine.accelerated = accelerator.split(':').any(|accel| accel == "kvm");
                }
                if let Some(guard) = get(&options, "confidential-guest-support") {
                    machine.confidential = Some(guard.to_owned());
                }
            }
            "accel" => {
                // The first one counts, the others are for where it cannot be had.
                if !std::mem::replace(&mut self.is_accelerator_said, true) {
                    machine.accelerated = get(&options(value, "accel"), "accel") == Some("kvm");
                }
            }
            "cpu" => cpu(&mut machine.cpu, value),
            "m" => {
                let options = options(value, "size");
                machine.memory.bytes =
                    get(&options, "size").and_then(|size| bytes(size, 1 << 20)).or(machine.memory.bytes);
            }
            "mem-path" if value.contains("huge") => {
                machine.memory.hugepages = machine.memory.hugepages.or(Some(0));
            }
            "mem-path" | "numa" | "overcommit" | "add-fd" | "usb-host" => {}
            "balloon" => machine.memory.balloon = value != "none",
            "uuid" => machine.uuid = Some(value.to_ascii_lowercase()),
            "bios" => firmware(machine, value),
            "pflash" => firmware(machine, value),
            "fw_cfg" => {
                let options = options(value, "name");
                let name = get(&options, "name").unwrap_or("").to_owned();
                let text = get(&options, "string").or(get(&options, "file")).unwrap_or("").to_owned();
                machine.fw_cfg.push((name, text));
            }
            "smbios" => {
                let options = options(value, "file");
                match get(&options, "type") {
                    Some("1") => {
                        let uuid = get(&options, "uuid").map(str::to_ascii_lowercase);
                        machine.uuid = uuid.or(machine.uuid.take());
                    }
                    Some("11") => {
                        let strings = options.iter().filter(|(key, _)| key == "value");
                        machine.oem_strings.extend(strings.map(|(_, text)| text.clone()));
                    }
                    _ => {}
                }
            }
            "object" => self.object(value),
            "drive" => self.drive(&options(value, "file")),
            "blockdev" => {
                let options = keyed(value, "driver");
                let source = get(&options, "filename").or(get(&options, "file.filename")).unwrap_or("");
                if source.contains("OVMF") || source.contains("edk2") {
                    firmware(machine, source);
                }
            }
            "hda" | "hdb" | "hdc" | "hdd" | "cdrom" => self.disk(name, "ide", name == "cdrom"),
            "sd" | "mtdblock" | "fda" | "fdb" => {}
            "device" => self.device(&keyed(value, "driver")),
            "global" => {}
            // Proxmox' own option.
            "id" => machine.vmid = value.parse().ok(),
            "readconfig" => {
                let file = value.rsplit('/').next().unwrap_or(value);
                if file.starts_with("pve-q35") {
                    machine.ports.extend((1..=4).map(|n| Port {
                        id: format!("ich9-pcie-port-{n}"),
                        kind: PortKind::RootPort,
                        bus: ROOT_BUS.into(),
                        addr: format!("1c.{}", n - 1),
                    }));
                    machine.ports.extend(proxmox::conventional_buses());
                } else {
                    machine
                        .complaints
                        .push(format!("-readconfig {value} is not read: what it adds is missing here"));
                }
            }
            _ => machine.unknown.push(format!("-{name} {value}")),
        }
    }

    fn object(&mut self, value: &str) {
        let options = keyed(value, "qom-type");
        let kind = get(&options, "qom-type").unwrap_or("");
        let memory = &mut self.machine.memory;
        if kind.starts_with("memory-backend") {
            let path = get(&options, "mem-path").unwrap_or("");
            if get(&options, "hugetlb").is_some_and(is_on) || path.contains("huge") {
                let told = get(&options, "hugetlbsize").and_then(|size| bytes(size, 1));
                let by_path =
                    if path.contains("1048576kB") || path.contains("1G") { Some(1 << 30) } else { None };
                memory.hugepages = told.or(by_path).or(memory.hugepages).or(Some(0));
            }
            // The option may be repeated.
            let nodes =
                options.iter().filter(|(key, _)| key == "host-nodes").map(|(_, nodes)| nodes.as_str());
            if get(&options, "policy").is_some_and(|policy| policy != "default") {
                memory.bind(&nodes.collect::<Vec<_>>().join(","));
            }
        } else if kind.starts_with("sev") || kind.starts_with("tdx") {
            self.machine.confidential = Some(kind.to_owned());
        }
    }
}

/// The value of `-cpu`; of several the last one counts alone.
fn cpu(cpu: &mut Cpu, value: &str) {
    let mut parts = value.split(',');
    let model = parts.next().unwrap_or("").to_owned();
    *cpu = Cpu { model, written: std::mem::take(&mut cpu.written), ..Cpu::default() };
    for part in parts {
        match part.split_once('=').unwrap_or((part, "on")) {
            ("kvm", word) => cpu.hidden = !is_on(word),
            ("-kvm", _) => cpu.hidden = true,
            ("-hypervisor", _) => cpu.no_hypervisor = true,
            ("hypervisor", word) => cpu.no_hypervisor = !is_on(word),
            ("host-phys-bits", word) if is_on(word) => cpu.host_phys_bits = true,
            // The host's width is `host`'s own default; switched off it is QEMU's 40 bits.
            ("host-phys-bits", _) => cpu.phys_bits = cpu.phys_bits.or(Some(40)),
            ("phys-bits", bits) => cpu.phys_bits = bits.parse().ok().filter(|bits| *bits > 0),
            _ => cpu.flags.push(part.to_owned()),
        }
    }
}
