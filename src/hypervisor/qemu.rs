//! A command line of QEMU: text as in a shell script, or `/proc/PID/cmdline` (qemu-system-x86_64(1)).
//!
//! `-readconfig` files are not read. Proxmox' own (`pve-q35*.cfg`) is known: it makes four root ports.

use super::machine::{
    Cpu, Disk, Firmware, HOST, Kind, Machine, Passed, PlaceInGuest, Port, PortKind, ROOT_BUS, address, bytes,
};
use super::proxmox;
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;

/// Reads a command line.
///
/// # Errors
/// It has no QEMU in it, or ends within quotes.
pub fn parse(from: &str, text: &[u8]) -> Result<Machine> {
    let by_shell = !text.contains(&0);
    let (program, words) = if by_shell { of_script(text)? } else { of_process(text)? };
    let mut machine = Machine::new(Kind::Qemu, from);
    // Where nothing is said, the program's name decides (QEMU: system/vl.c, configure_accelerators).
    machine.accelerated = program.ends_with("kvm");
    machine.firmware = Some(Firmware::Bios);
    Parser { machine: &mut machine, is_accelerator_said: false, by_shell }.arguments(&words)?;
    Ok(machine)
}

/// Adds what Proxmox' `args` say to a machine, or libvirt's `<qemu:commandline>`. No shell reads these.
///
/// # Errors
/// They end within quotes.
pub fn add(machine: &mut Machine, args: &str) -> Result<()> {
    let words = shlex::split(args).context("the quotes are not closed")?;
    Parser { machine, is_accelerator_said: false, by_shell: false }.arguments(&words)
}

/// The words that stand for a QEMU: its names, and the script's variables that hold one, with the words that they hold.
#[derive(Default)]
struct Programs(BTreeMap<String, Vec<String>>);

impl Programs {
    /// The words that one stands for, a QEMU first; `None` where it is none.
    fn held(&self, word: &str) -> Option<Vec<String>> {
        let Some(variable) = word.strip_prefix('$') else {
            return is_program(word).then(|| vec![word.to_owned()]);
        };
        let name = variable.trim_start_matches('{').trim_end_matches('}');
        let (name, default) = name.split_once(":-").map_or((name, None), |(name, text)| (name, Some(text)));
        let held = self.0.get(name).cloned();
        held.or_else(|| default.filter(|text| is_program(text)).map(|text| vec![text.to_owned()]))
    }

    /// Where a QEMU stands in a command, and is given something to do: who looks for it, asks for its version or names it in
    /// passing gives it no option, and no disk where a command begins.
    fn started(&self, words: &[String]) -> Option<(usize, Vec<String>)> {
        let asks = ["-version", "--version", "-help", "--help", "-h"];
        words.iter().enumerate().find_map(|(at, word)| {
            let held = self.held(word)?;
            let begins = at.checked_sub(1).and_then(|before| words.get(before)).is_none_or(|before| {
                let before = before.as_str();
                let goes_on =
                    ["exec", "sudo", "nohup", "env", "setsid", "time", "then", "do", "else", "{", "!"];
                goes_on.contains(&before) || ends_command(before) || assignment(before).is_some()
            });
            let is_started = match words.get(at + 1).map(String::as_str) {
                Some(next) if next.starts_with('-') => !asks.contains(&next),
                Some(next) if is_variable(next) => true,
                Some(next) if begins && !ends_command(next) => true,
                _ => begins && held.len() > 1,
            };
            is_started.then_some((at, held))
        })
    }

    /// Notes the variables that a line sets to a QEMU.
    fn note(&mut self, words: &[String]) {
        for (name, value) in words.iter().filter_map(|word| assignment(word)) {
            let held: Vec<String> = match self.held(value) {
                Some(held) => held,
                None => value.split_ascii_whitespace().map(str::to_owned).collect(),
            };
            if held.first().is_some_and(|program| is_program(program)) {
                self.0.insert(name.to_owned(), held);
            }
        }
    }
}

fn is_program(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    let is_name = name.starts_with("qemu-system-") && !name.contains(char::is_whitespace);
    is_name || matches!(name, "qemu-kvm" | "kvm")
}

/// `NAME=VALUE` of a shell.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some((name, value))
}

/// Is it for the shell to say what stands here?
fn is_variable(word: &str) -> bool {
    word.starts_with(['$', '`'])
}

/// What a shell does with a program is none of its arguments, and where the next command begins.
fn ends_command(word: &str) -> bool {
    let is_redirection = word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('>');
    is_redirection || ["&", "&&", "|", "||", ";", "<"].contains(&word) || word.ends_with(';')
}

/// The program of `/proc/PID/cmdline`, and the words after it.
fn of_process(text: &[u8]) -> Result<(String, Vec<String>)> {
    let words = text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words = words.skip_while(|word| !is_program(word));
    let program = words.next().context("there is no qemu-system-x86_64 in it")?;
    Ok((program, words.collect()))
}

/// What a shell is within at a line's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    Single,
    Double,
}

impl Within {
    /// After one more line.
    fn after(self, line: &str) -> Self {
        let mut within = self;
        let mut in_word = within != Self::Nothing;
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            within = match (within, letter) {
                (Self::Nothing, '#') if !in_word => return within,
                (Self::Nothing, '\'') => Self::Single,
                (Self::Nothing, '"') => Self::Double,
                (Self::Single, '\'') | (Self::Double, '"') => Self::Nothing,
                (Self::Nothing | Self::Double, '\\') => {
                    letters.next();
                    within
                }
                _ => within,
            };
            in_word = within != Self::Nothing || !matches!(letter, ' ' | '\t' | '\n');
        }
        within
    }
}

/// The program that a script starts, and the words after it.
fn of_script(text: &[u8]) -> Result<(String, Vec<String>)> {
    let text = std::str::from_utf8(text).context("it is not text")?;
    let mut programs = Programs::default();
    let mut command = String::new();
    let mut within = Within::Nothing;
    for line in logical_lines(text) {
        // Quotes may go over several lines.
        let is_open = within != Within::Nothing;
        let names_one = |word: &str| {
            let word = word.trim_matches(['"', '\'', ';']);
            let word = assignment(word).map_or(word, |(_, value)| value.trim_matches(['"', '\'']));
            programs.held(word).is_some()
        };
        if !is_open && (line.trim_start().starts_with('#') || !line.split_ascii_whitespace().any(names_one)) {
            continue;
        }
        command.push_str(&line);
        within = within.after(&line);
        if within != Within::Nothing {
            command.push('\n');
            continue;
        }
        let words = shlex::split(&std::mem::take(&mut command)).unwrap_or_default();
        programs.note(&words);
        if let Some((at, held)) = programs.started(&words) {
            let arguments = words.into_iter().skip(at + 1).take_while(|word| !ends_command(word));
            let mut all = held.into_iter().chain(arguments);
            let program = all.next().unwrap_or_default();
            return Ok((program, all.collect()));
        }
    }
    ensure!(within == Within::Nothing, "its quotes are not closed: it is cut off");
    bail!("there is no qemu-system-x86_64 with options in it")
}

/// Lines, those that end with a backslash joined with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some(last) if goes_on => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
        goes_on = more;
    }
    lines
}

/// `a,b=c,,d` has the implied key's value `a` and `b` = `c,d`. A word alone is a switch that is on.
fn options(text: &str, implied: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ',' if letters.peek() == Some(&',') => {
                letters.next();
                parts.last_mut().unwrap_or(&mut String::new()).push(',');
            }
            ',' => parts.push(String::new()),
            other => {
                if let Some(part) = parts.last_mut() {
                    part.push(other);
                }
            }
        }
    }
    let parts = parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty());
    parts
        .map(|(at, part)| match part.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if at == 0 && !implied.is_empty() => (implied.to_owned(), part),
            None => (part, "on".to_owned()),
        })
        .collect()
}

fn get<'a>(options: &'a [(String, String)], key: &str) -> Option<&'a str> {
    options.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn is_on(word: &str) -> bool {
    matches!(word, "on" | "yes" | "true" | "1")
}

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

struct Parser<'a> {
    machine: &'a mut Machine,
    /// Was there an `-accel`?
    is_accelerator_said: bool,
    /// Does a shell put in what stands for it?
    by_shell: bool,
}

impl Parser<'_> {
    fn arguments(&mut self, words: &[String]) -> Result<()> {
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

    fn disk(&mut self, name: &str, interface: &str, cdrom: bool) {
        self.machine.disks.push(Disk { name: name.to_owned(), interface: interface.to_owned(), cdrom });
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
            let nodes = options.iter().filter(|(key, _)| key == "host-nodes");
            if get(&options, "policy").is_some_and(|policy| policy != "default") {
                nodes.for_each(|(_, nodes)| memory.bind(nodes));
            }
        } else if kind.starts_with("sev") || kind.starts_with("tdx") {
            self.machine.confidential = Some(kind.to_owned());
        }
    }

    fn drive(&mut self, options: &[(String, String)]) {
        let interface = get(options, "if").unwrap_or("ide").to_owned();
        let id = get(options, "id").unwrap_or("").to_owned();
        if interface == "pflash" {
            return firmware(self.machine, get(options, "file").unwrap_or(""));
        }
        if interface == "none" {
            return;
        }
        let cdrom = get(options, "media") == Some("cdrom");
        let name = if id.is_empty() { interface.clone() } else { id };
        self.machine.disks.push(Disk { name, interface, cdrom });
    }

    fn device(&mut self, options: &[(String, String)]) {
        let driver = get(options, "driver").unwrap_or("").to_owned();
        let id = get(options, "id").unwrap_or("").to_owned();
        let bus = get(options, "bus").unwrap_or("").to_owned();
        let addr = slot(get(options, "addr").unwrap_or(""));
        let kind = match driver.as_str() {
            "pcie-root-port" | "ioh3420" => Some(PortKind::RootPort),
            "x3130-upstream" => Some(PortKind::Upstream),
            "xio3130-downstream" => Some(PortKind::Downstream),
            "pxb-pcie" => Some(PortKind::Expander),
            "i82801b11-bridge" | "pci-bridge" | "pcie-pci-bridge" | "pxb" => Some(PortKind::Conventional),
            _ => None,
        };
        if let Some(kind) = kind {
            let bus = if bus.is_empty() { ROOT_BUS.to_owned() } else { bus };
            return self.machine.ports.push(Port { id, kind, bus, addr });
        }
        if driver.starts_with("vfio-pci") || driver == "vfio-user-pci" {
            return self.passed(options, id, bus, addr);
        }
        let machine = &mut *self.machine;
        match driver.as_str() {
            driver if driver.starts_with("virtio-balloon") => machine.memory.balloon = true,
            "intel-iommu" | "amd-iommu" => machine.viommu = Some(driver),
            driver if driver.starts_with("virtio-iommu") => machine.viommu = Some(driver.to_owned()),
            driver => {
                let interface = match driver {
                    "nvme" | "nvme-ns" => "nvme",
                    driver if driver.starts_with("virtio-blk") => "virtio",
                    "scsi-hd" | "scsi-block" | "scsi-cd" => "scsi",
                    "ide-hd" | "ide-cd" => "sata",
                    "usb-storage" | "usb-uas" => "usb",
                    _ => return,
                };
                let drive = get(options, "drive").unwrap_or("");
                let name = if id.is_empty() { drive.to_owned() } else { id };
                machine.disks.push(Disk {
                    name,
                    interface: interface.into(),
                    cdrom: driver.ends_with("-cd"),
                });
            }
        }
    }

    fn passed(&mut self, options: &[(String, String)], id: String, bus: String, addr: String) {
        let told = get(options, "host").map(str::to_owned).or_else(|| {
            get(options, "sysfsdev").map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
        });
        let host = told.as_deref().and_then(address);
        let machine = &mut *self.machine;
        let mut mediated = None;
        let mut by_shell = None;
        if let (None, Some(told)) = (&host, &told) {
            if told.len() == 36 && told.matches('-').count() == 4 {
                mediated = Some(told.clone());
            } else if self.by_shell && told.contains(['$', '`']) {
                by_shell = Some((HOST.to_owned(), told.clone()));
            } else {
                machine.complaints.push(format!("{told:?} is no PCI address"));
            }
        }
        let own = ["driver", "id", "bus", "addr", HOST, "sysfsdev", "rombar", "x-vga", "iommufd"];
        let rest = options.iter().filter(|(key, _)| !own.contains(&key.as_str()));
        let name = if id.is_empty() { format!("vfio-pci {}", told.as_deref().unwrap_or("?")) } else { id };
        machine.passed.push(Passed {
            name,
            hosts: host.into_iter().collect(),
            mapping: None,
            mediated,
            // Settled when all ports are known.
            place: PlaceInGuest::Unknown(bus),
            addr,
            display: get(options, "x-vga").is_some_and(is_on),
            iommufd: get(options, "iommufd").is_some(),
            properties: rest.cloned().chain(by_shell).collect::<BTreeMap<_, _>>(),
            written: String::new(),
        });
    }

    /// `-set device.ID.KEY=VALUE`.
    fn set(&mut self, value: &str) {
        let parts = value.split_once('=').and_then(|(name, value)| {
            let (id, key) = name.strip_prefix("device.")?.rsplit_once('.')?;
            Some((id.to_owned(), key.to_owned(), value.to_owned()))
        });
        let Some((id, key, value)) = parts else { return };
        // Proxmox' functions are called hostpci0.0.
        let is_meant = |passed: &&mut Passed| {
            passed.name == id || id.strip_prefix(&passed.name).is_some_and(|r| r.starts_with('.'))
        };
        for passed in self.machine.passed.iter_mut().filter(is_meant) {
            passed.properties.insert(key.clone(), value.clone());
        }
    }

    /// What a device's bus is, now that all ports are known.
    fn settle(&mut self) {
        let is_q35 = self.machine.is_q35();
        let kind = |id: &str| self.machine.ports.iter().find(|port| port.id == id).map(|port| port.kind);
        let places: Vec<PlaceInGuest> = self
            .machine
            .passed
            .iter()
            .map(|passed| match &passed.place {
                PlaceInGuest::Unknown(bus) => match (bus.as_str(), kind(bus)) {
                    (_, Some(PortKind::Conventional)) => PlaceInGuest::Conventional,
                    (_, Some(_)) => PlaceInGuest::Port(bus.clone()),
                    ("" | ROOT_BUS, None) if is_q35 => PlaceInGuest::RootBus,
                    ("", None) => PlaceInGuest::Conventional,
                    (bus, None) if bus.starts_with("pci.") => PlaceInGuest::Conventional,
                    (bus, None) => PlaceInGuest::Unknown(bus.to_owned()),
                },
                known => known.clone(),
            })
            .collect();
        for (passed, place) in self.machine.passed.iter_mut().zip(places) {
            passed.place = place;
        }
    }
}

/// Options as pairs, or as a JSON object.
fn keyed(value: &str, implied: &str) -> Vec<(String, String)> {
    if !value.trim_start().starts_with('{') {
        return options(value, implied);
    }
    let Ok(serde_json::Value::Object(map)) = serde_json::from_str(value) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (key, value) in map {
        match value {
            serde_json::Value::String(text) => pairs.push((key, text)),
            serde_json::Value::Bool(on) => pairs.push((key, if on { "on" } else { "off" }.into())),
            serde_json::Value::Object(inner) => {
                for (name, value) in inner {
                    pairs.push((format!("{key}.{name}"), value.as_str().unwrap_or("").to_owned()));
                }
            }
            // A number is slot and function in one.
            serde_json::Value::Number(number) if key == "addr" => {
                let devfn = number.as_u64().unwrap_or(0);
                pairs.push((key, format!("{:x}.{:x}", devfn >> 3, devfn & 7)));
            }
            // An option that may be repeated.
            serde_json::Value::Array(items) => {
                let text =
                    |item: serde_json::Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                pairs.extend(items.into_iter().map(|item| (key.clone(), text(item))));
            }
            other => pairs.push((key, other.to_string())),
        }
    }
    pairs
}

/// `0x1c.0` is `1c.0`, and so is `1c`: QEMU reads hexadecimal numbers (`set_pci_devfn`).
fn slot(text: &str) -> String {
    let (device, function) = text.split_once('.').unwrap_or((text, "0"));
    let function = function.trim_start_matches("0x");
    let device = match device.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => u8::from_str_radix(device, 16).ok(),
    };
    device.map_or(String::new(), |device| format!("{device:02x}.{function}"))
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

/// What a firmware's file name says of it.
fn firmware(machine: &mut Machine, file: &str) {
    let name = file.rsplit('/').next().unwrap_or(file);
    if name.contains("OVMF") || name.contains("edk2") || file.contains("OVMF") || file.contains("edk2") {
        machine.firmware = Some(Firmware::Uefi);
        machine.secure_boot |= name.contains(".ms.") || name.contains("secboot") && name.contains("VARS");
    } else if machine.firmware != Some(Firmware::Uefi) && !name.to_ascii_lowercase().contains("vars") {
        machine.firmware = if name.contains("bios") { Some(Firmware::Bios) } else { Some(Firmware::Uefi) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"#!/bin/sh
# starts qemu-system-x86_64
set -e
exec qemu-system-x86_64 -name 'gds "a"' -machine q35,accel=kvm -cpu host,kvm=off,phys-bits=46 \
  -m 64G -bios /usr/share/OVMF/OVMF_CODE_4M.fd \
  -object memory-backend-file,id=m0,size=64G,mem-path=/dev/hugepages-1G,host-nodes=0-1,policy=bind \
  -device pcie-root-port,id=rp0,bus=pcie.0,addr=0x1c.0,chassis=1 \
  -device x3130-upstream,id=up,bus=rp0 -device xio3130-downstream,id=d0,bus=up,chassis=2 \
  -device vfio-pci,host=41:00.0,bus=d0,x-nv-gpudirect-clique=0,rombar=0 \
  -device '{"driver":"vfio-pci","host":"0000:42:00.0","id":"nv","bus":"rp9"}' \
  -drive file=/a,,b.img,if=none,id=image,format=raw -device virtio-blk-pci,drive=image \
  -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144 -smbios type=11,value=gdsboot.after=hold \
  -uuid 11111111-2222-3333-4444-ABCDEF000000 -zebra stripes -device virtio-balloon
echo done
"#;

    #[test]
    fn a_script() {
        let machine = parse("x.sh", SCRIPT.as_bytes()).unwrap();
        assert!(machine.is_q35() && machine.accelerated && machine.cpu.is_host() && machine.cpu.hidden);
        assert_eq!((machine.cpu.phys_bits, machine.memory.bytes), (Some(46), Some(64 << 30)));
        assert_eq!(
            (machine.memory.hugepages, machine.memory.host_nodes.as_slice()),
            (Some(1 << 30), &[0, 1][..])
        );
        assert_eq!(machine.firmware, Some(Firmware::Uefi));
        assert_eq!(machine.name.as_deref(), Some("gds \"a\""));
        assert_eq!(machine.uuid.as_deref(), Some("11111111-2222-3333-4444-abcdef000000"));
        let [gpu, nvme] = machine.passed.as_slice() else { panic!("two devices") };
        assert_eq!(gpu.hosts, ["0000:41:00.0"]);
        assert_eq!(
            machine.ports_above(gpu).unwrap().iter().map(|p| p.id.as_str()).collect::<Vec<_>>(),
            ["rp0", "up", "d0"]
        );
        assert_eq!(gpu.properties["x-nv-gpudirect-clique"], "0");
        assert_eq!(nvme.place, PlaceInGuest::Unknown("rp9".into()));
        assert_eq!(machine.disks[0].interface, "virtio");
        assert_eq!(machine.told("opt/ovmf/X-PciMmio64Mb"), Some("262144"));
        assert_eq!(machine.oem_strings, ["gdsboot.after=hold"]);
        assert_eq!(machine.unknown, ["-zebra stripes"]);
        assert!(machine.memory.balloon);
    }

    #[test]
    fn what_the_kernel_shows_of_a_process() {
        let line = b"/usr/bin/kvm\0-id\x00100\0-machine\0type=q35+pve0\0-readconfig\0/usr/share/qemu-server/pve-q35-4.0.cfg\0\
                     -device\0vfio-pci,host=0000:01:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0\0";
        let machine = parse("/proc/1/cmdline", line).unwrap();
        assert_eq!(machine.passed[0].place, PlaceInGuest::Port("ich9-pcie-port-1".into()));
        assert_eq!((machine.vmid, machine.unknown.len()), (Some(100), 0));
        // Called kvm, it takes KVM by itself.
        assert!(machine.accelerated);
        let accelerated = |line: &str| parse("x", line.as_bytes()).unwrap().accelerated;
        assert!(!accelerated("kvm -accel tcg") && accelerated("qemu-system-x86_64 -accel kvm -accel tcg"));
        assert!(!accelerated("qemu-system-x86_64 -m 1G") && accelerated("qemu-system-x86_64 -enable-kvm"));
        let other = parse("x", b"qemu-kvm\0-readconfig\0/etc/x.cfg\0").unwrap();
        assert!(other.complaints[0].contains("/etc/x.cfg"));
    }

    #[test]
    fn lines_that_are_cut_or_none() {
        let why = |text: &[u8]| format!("{:#}", parse("x", text).unwrap_err());
        assert!(why(b"qemu-system-x86_64 -name 'a").contains("cut off"));
        assert!(why(b"").contains("no qemu-system"));
        assert!(why(b"ls -l").contains("no qemu-system"));
        assert!(why(b"\xff\xfe").contains("not text"));
        assert!(parse("x", b"qemu-system-x86_64 -device").is_ok());
    }

    #[test]
    fn the_command_is_the_one_that_has_options() {
        let board = |script: &str| {
            let machine = parse("x", script.as_bytes()).unwrap_or_else(|why| panic!("{script}: {why:#}"));
            (machine.board, machine.open)
        };
        for before in [
            "command -v qemu-system-x86_64 >/dev/null || exit 1\n",
            "QEMU=/usr/bin/qemu-system-x86_64\n",
            "export QEMU='/usr/bin/qemu-system-x86_64'\n",
            "qemu-system-x86_64 --version\n",
            "echo starting qemu-system-x86_64\n",
        ] {
            let script = format!("{before}exec qemu-system-x86_64 -machine q35\n");
            assert_eq!(board(&script), ("q35".into(), None), "{before}");
        }
        assert_eq!(board("QEMU=/opt/qemu-system-x86_64\n\"$QEMU\" -M q35\n").0, "q35");
        assert_eq!(board("QEMU=/opt/qemu-system-x86_64; exec ${QEMU} -M q35").0, "q35");
        for word in ["${ARGS[@]}", "$@", "$MACHINE"] {
            let (_, open) = board(&format!("ARGS=(-M q35)\nqemu-system-x86_64 \"{word}\"\n"));
            assert_eq!(open.as_deref(), Some(word));
        }
        assert_eq!(board("qemu-system-x86_64 -M $BOARD").1.as_deref(), Some("$BOARD (-M)"));
        for nothing in ["command -v qemu-system-x86_64\n", "QEMU=qemu-system-x86_64\n"] {
            let why = parse("x", nothing.as_bytes()).unwrap_err().to_string();
            assert!(why.contains("no qemu-system-x86_64 with options"), "{nothing}: {why}");
        }
    }

    #[test]
    fn what_a_variable_of_the_script_holds() {
        let read =
            |script: &str| parse("x", script.as_bytes()).unwrap_or_else(|why| panic!("{script}: {why:#}"));
        // Called kvm, it takes KVM by itself, by whatever name the script has for it.
        assert!(read("QEMU=/usr/bin/kvm\n\"$QEMU\" -M q35\n").accelerated);
        assert!(!read("kvm=/usr/bin/qemu-system-x86_64\n$kvm -M q35\n").accelerated);
        let options = read("QEMU=\"qemu-system-x86_64 -enable-kvm\"\n$QEMU -M q35\n");
        assert!(options.accelerated && options.is_q35());
        assert!(read("QEMU='/usr/bin/kvm -M q35'\nexec $QEMU\n").is_q35());
        for default in ["\"${QEMU:-qemu-system-x86_64}\" -M q35\n", "Q=${Q:-/usr/bin/kvm}\n$Q -M q35\n"] {
            assert!(read(default).is_q35(), "{default}");
        }
    }

    #[test]
    fn a_word_alone_is_a_disk() {
        let disks = |line: &str| {
            let machine = parse("x", line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why:#}"));
            (
                machine.disks.iter().map(|disk| disk.name.clone()).collect::<Vec<_>>().join(" "),
                machine.unknown,
            )
        };
        assert_eq!(disks("sudo qemu-system-x86_64 disk.img -m 4G >/dev/null -x y"), ("hda".into(), vec![]));
        assert_eq!(disks("qemu-system-x86_64 -m 4G -hdc a.img -hdd b.img -sd c.img").0, "hdc hdd");
        for passing in
            ["apt-get install qemu-system-x86_64 ovmf -y", "qemu-system-x86_64 >/dev/null", "ls kvm a"]
        {
            assert!(parse("x", passing.as_bytes()).is_err(), "{passing}");
        }
    }

    #[test]
    fn a_shell_puts_in_nothing_where_there_is_none() {
        let gpu = parse("x", b"qemu-system-x86_64 -device vfio-pci,host=$GPU,id=gpu").unwrap();
        assert_eq!((gpu.open, gpu.passed[0].hosts.len()), (None, 0));
        assert_eq!(gpu.passed[0].properties[HOST], "$GPU");
        let process = parse("x", b"kvm\0$X\0-M\0$Y\0-device\0vfio-pci,host=$Z\0;\0-smp\x004\0").unwrap();
        assert_eq!((process.open, process.board.as_str(), process.unknown.len()), (None, "$Y", 0));
        assert!(process.passed[0].properties.is_empty() && process.complaints[0].contains("no PCI address"));
        let mut machine = Machine::new(Kind::Proxmox, "x");
        add(&mut machine, "-fw_cfg name=a,string=$b -M '$c'").unwrap();
        assert!(machine.open.is_none() && machine.complaints.is_empty());
    }

    #[test]
    fn of_several_cpus_the_last_one_counts() {
        let last = parse("x", b"qemu-system-x86_64 -cpu EPYC,kvm=off,phys-bits=40,+x -cpu host").unwrap().cpu;
        assert_eq!(last, Cpu { model: "host".into(), ..Cpu::default() });
    }

    #[test]
    fn quotes_that_are_open_cost_no_more_than_their_length() {
        let begun = std::time::Instant::now();
        for line in ["\n", "\"\n", "it's\n", "QEMU=kvm\n"] {
            let text = format!("qemu-system-x86_64 -name '{}", line.repeat((1 << 21) / line.len()));
            let _ = parse("x", text.as_bytes());
        }
        let many: String = (0..100_000).map(|n| format!("Q{n}=qemu-system-x86_64\n")).collect();
        assert!(parse("x", many.as_bytes()).is_err());
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
        // Quotes over lines, a comment with one, and one that a backslash takes.
        let text =
            "qemu-system-x86_64 --version # don't\nqemu-system-x86_64 -name 'a\n\"' -append it\\'s -M q35\n";
        assert!(parse("x", text.as_bytes()).unwrap().is_q35());
    }

    #[test]
    fn json_has_lists_and_numbers() {
        let line = r#"qemu-system-x86_64 -M q35 -object '{"qom-type":"memory-backend-ram","policy":"bind","host-nodes":[1,3]}' -device '{"driver":"pcie-root-port","id":"a","addr":28}' -cpu host,-hypervisor"#;
        let machine = parse("x", line.as_bytes()).unwrap();
        assert_eq!(machine.memory.host_nodes, [1, 3]);
        // 28 is device 3, function 4.
        assert_eq!(machine.ports[0].addr, "03.4");
        assert!(machine.cpu.no_hypervisor && !machine.cpu.hidden);
    }

    #[test]
    fn words_and_commas() {
        assert_eq!(
            options("a,b=c,,d,e", "x"),
            [("x", "a"), ("b", "c,d"), ("e", "on")].map(|(k, v)| (k.into(), v.into()))
        );
        assert_eq!((slot("0x1c.2"), slot("0x0"), slot("")), ("1c.2".into(), "00.0".into(), String::new()));
        assert_eq!((slot("1c"), slot("28")), ("1c.0".into(), "28.0".into()));
    }
}
