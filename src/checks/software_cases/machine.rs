//! A folder that mirrors a machine, written bit by bit.

use crate::checks::check::{Finding, Status};
use crate::checks::context::side_of;
use crate::checks::judge::{Judgement, judge};
use crate::facts::{Facts, Root};
use crate::report::model::Verdict;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// How the owner saved the kernel's log.
#[derive(Clone, Copy)]
pub(super) enum Log {
    /// Records of `/dev/kmsg`.
    Kmsg,
    /// `dmesg > var/log/dmesg`.
    DmesgFile,
    /// `dmesg -T`, as a program's output.
    DmesgHuman,
    /// `/var/log/kern.log`, by rsyslog.
    Syslog,
    /// `journalctl -b`, as a program's output.
    Journal,
    /// `/var/log/messages`, without the kernel's own stamps.
    Messages,
}

/// Lines that every machine logs and that mean nothing.
const NOISE: &[&str] = &[
    "ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PC00.RP01._DSM.USRG], AE_NOT_FOUND (20230628/psargs-330)",
    "ACPI Error: Aborting method \\_SB.PC00.RP01._DSM due to previous error (AE_NOT_FOUND) (20230628/psparse-529)",
    "pci 0000:00:1f.4: BAR 13: can't assign io (size 0x0020)",
    "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:00:1c.0",
    "pcieport 0000:00:1c.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Transmitter ID)",
    "acpi PNP0A08:00: _OSC: platform does not support [LTR]",
    "i915: probe of 0000:00:02.0 failed with error -2",
    "EDAC i10nm: No hbm memory",
    "ipmi_si IPI0001:00: The BMC does not support setting the recv irq bit, compensating, but the BMC needs to be fixed.",
    "EXT4-fs (dm-0): mounted filesystem 0f2d7a4e-77c8-4b1d-9b4b-3b7d4b2d7a11 ro with ordered data mode. Quota mode: none.",
    "nvme nvme0: missing or invalid SUBNQN field.",
    "nvme nvme0: 32/0/0 default/read/poll queues",
    "spl: loading out-of-tree module taints kernel.",
    "systemd[1]: Failed to start casper-md5check.service - casper-md5check Verify Live ISO checksums.",
];

/// A machine being written down.
pub(super) struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A file with its folders; one that is there is written anew.
    pub(super) fn bytes(&self, path: &str, bytes: &[u8]) -> &Self {
        let path = self.path(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
        self
    }

    pub(super) fn file(&self, path: &str, text: &str) -> &Self {
        self.bytes(path, text.as_bytes())
    }

    /// Several files of one folder.
    pub(super) fn files(&self, folder: &str, files: &[(&str, &str)]) -> &Self {
        for (name, text) in files {
            self.file(&format!("{folder}/{name}"), &format!("{text}\n"));
        }
        self
    }

    pub(super) fn folder(&self, path: &str) -> &Self {
        fs_err::create_dir_all(self.path(path)).unwrap();
        self
    }

    /// A link to a path of the same machine.
    pub(super) fn link(&self, path: &str, to: &str) -> &Self {
        let at = self.path(path);
        fs_err::create_dir_all(at.parent().unwrap()).unwrap();
        let up = "../".repeat(path.split('/').count() - 1);
        let _ = fs_err::remove_file(&at);
        symlink(format!("{up}{to}"), at).unwrap();
        self
    }

    /// What the owner could not read, or does not have.
    pub(super) fn without(&self, path: &str) -> &Self {
        let at = self.path(path);
        if at.is_dir() && !at.is_symlink() {
            fs_err::remove_dir_all(at).unwrap();
        } else {
            fs_err::remove_file(at).unwrap();
        }
        self
    }

    /// Changes words in a file that is there.
    pub(super) fn edit(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = fs_err::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "{from} in {path}");
        self.file(path, &text.replace(from, to))
    }

    /// The lines of a file that do not hold a word.
    pub(super) fn cut(&self, path: &str, word: &str) -> &Self {
        let text = fs_err::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(word), "{word} in {path}");
        let kept: String =
            text.lines().filter(|line| !line.contains(word)).map(|line| format!("{line}\n")).collect();
        self.file(path, &kept)
    }

    /// What a program printed.
    pub(super) fn ran(&self, line: &str, status: i32, stdout: &str, stderr: &str) -> &Self {
        let program = line.split_whitespace().next().unwrap().rsplit('/').next().unwrap();
        let number =
            (0..).find(|n| !self.path(&format!("run/gdsboot/commands/{program}-{n}")).exists()).unwrap();
        let argv: String = line.split_whitespace().map(|word| format!("{word}\n")).collect();
        let folder = format!("run/gdsboot/commands/{program}-{number}");
        self.file(&format!("{folder}/argv"), &argv);
        self.file(&format!("{folder}/stdout"), stdout);
        self.file(&format!("{folder}/stderr"), stderr);
        self.file(&format!("{folder}/status"), &format!("{status}\n"))
    }

    /// The same program printed something else.
    pub(super) fn ran_instead(&self, line: &str, status: i32, stdout: &str, stderr: &str) -> &Self {
        let program = line.split_whitespace().next().unwrap().rsplit('/').next().unwrap();
        self.without(&format!("run/gdsboot/commands/{program}-0"));
        self.ran(line, status, stdout, stderr)
    }

    /// The kernel's log: what every machine says, then these lines.
    pub(super) fn log(&self, form: Log, lines: &[&str]) -> &Self {
        let mut text = String::new();
        for (number, line) in NOISE.iter().chain(lines).enumerate() {
            let (n, line) = (number + 1, line.trim_end());
            let _ = match form {
                Log::Kmsg => writeln!(text, "6,{n},{n}042000,-;{line}"),
                Log::DmesgFile => writeln!(text, "[{n:5}.042000] {line}"),
                Log::DmesgHuman => writeln!(text, "[Fri Nov 20 04:{:02}:{:02} 2026] {line}", n / 60, n % 60),
                Log::Syslog => writeln!(
                    text,
                    "Nov 20 04:{:02}:{:02} gpu01 kernel: [{n:5}.042000] {line}",
                    n / 60,
                    n % 60
                ),
                Log::Journal | Log::Messages => {
                    // Services speak for themselves.
                    let own = line.starts_with("systemd")
                        || line.starts_with("nv-fabricmanager")
                        || line.starts_with("dkms");
                    let who = if own { "" } else { "kernel: " };
                    writeln!(text, "Nov 20 04:{:02}:{:02} gpu01 {who}{line}", n / 60, n % 60)
                }
            };
        }
        match form {
            Log::Kmsg => self.file("dev/kmsg", &text),
            Log::DmesgFile => self.file("var/log/dmesg", &text),
            Log::DmesgHuman => self.ran("dmesg -T", 0, &text, ""),
            Log::Syslog => self.file("var/log/kern.log", &text),
            Log::Journal => self.ran("journalctl -b --no-pager", 0, &text, ""),
            Log::Messages => self.file("var/log/messages", &text),
        }
    }

    /// One PCI function. `way` goes down from the root complex; the last part is its address.
    pub(super) fn pci(&self, way: &str, class: &str, ids: &str, driver: Option<&str>) -> &Self {
        let address = way.rsplit('/').next().unwrap();
        let (vendor, device) = ids.split_once(':').unwrap();
        let real = format!("sys/devices/{way}");
        let bridge = class.starts_with("0604");
        let (width, speed) = if class.starts_with("03") { ("16", "32.0") } else { ("4", "16.0") };
        self.files(
            &real,
            &[
                ("class", &format!("0x{class}")),
                ("vendor", &format!("0x{vendor}")),
                ("device", &format!("0x{device}")),
                ("numa_node", "0"),
                ("current_link_speed", &format!("{speed} GT/s PCIe")),
                ("max_link_speed", &format!("{speed} GT/s PCIe")),
                ("current_link_width", width),
                ("max_link_width", width),
                (
                    "aer_dev_correctable",
                    "RxErr 0\nBadTLP 1\nBadDLLP 0\nRollover 0\nTimeout 0\nNonFatalErr 0\nTOTAL_ERR_COR 1",
                ),
                ("aer_dev_fatal", "Undefined 0\nDLP 0\nTOTAL_ERR_FATAL 0"),
                ("aer_dev_nonfatal", "Undefined 0\nDLP 0\nTOTAL_ERR_NONFATAL 0"),
            ],
        );
        let bars = if class == "030200" || (class == "030000" && vendor == "10de") {
            // 16 MiB of registers, BAR1 of 128 GiB, BAR3 of 32 MiB.
            "0x00000000c4000000 0x00000000c4ffffff 0x0000000000040200\n\
             0x0000202000000000 0x0000203fffffffff 0x000000000014220c\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x0000204000000000 0x0000204001ffffff 0x000000000014220c\n"
        } else {
            "0x00000000c5000000 0x00000000c5003fff 0x0000000000140204\n"
        };
        self.file(&format!("{real}/resource"), bars);
        self.bytes(&format!("{real}/config"), &config(vendor, device, class, bridge));
        if let Some(driver) = driver {
            self.folder(&format!("sys/bus/pci/drivers/{driver}"));
            self.link(&format!("{real}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        }
        self.link(&format!("sys/bus/pci/devices/{address}"), &real)
    }

    /// An NVMe drive of one namespace, where a PCI function already is.
    pub(super) fn nvme(&self, name: &str, way: &str, model: &str, sectors: u64) -> &Self {
        let address = way.rsplit('/').next().unwrap();
        let real = format!("sys/devices/{way}/nvme/{name}");
        self.files(
            &real,
            &[
                ("model", model),
                ("serial", &format!("S6EUNX0W{}", &name[4..])),
                ("firmware_rev", "GDC5602Q"),
                ("transport", "pcie"),
                ("address", address),
                ("state", "live"),
                ("numa_node", "0"),
                ("cntrltype", "io"),
            ],
        );
        self.link(&format!("sys/class/nvme/{name}"), &real);
        self.block(&format!("{real}/{name}n1"), "259:1", sectors)
    }

    /// A block device in sysfs.
    pub(super) fn block(&self, real: &str, number: &str, sectors: u64) -> &Self {
        let name = real.rsplit('/').next().unwrap();
        self.files(
            real,
            &[
                ("size", &sectors.to_string()),
                ("dev", number),
                ("ro", "0"),
                ("removable", "0"),
                ("queue/rotational", "0"),
                ("queue/logical_block_size", "512"),
                ("queue/physical_block_size", "4096"),
            ],
        );
        self.folder(&format!("{real}/holders")).folder(&format!("{real}/slaves"));
        self.link(&format!("sys/block/{name}"), real);
        self.link(&format!("sys/class/block/{name}"), real)
    }

    /// A device-mapper or md device above others.
    pub(super) fn above(&self, name: &str, number: &str, below: &[&str], own: &[(&str, &str)]) -> &Self {
        let real = format!("sys/devices/virtual/block/{name}");
        self.block(&real, number, 7_000_000_000).files(&real, own);
        for below in below {
            let to = fs_err::read_link(self.path(&format!("sys/block/{below}"))).unwrap();
            let to = to.to_str().unwrap().trim_start_matches("../").to_owned();
            self.link(&format!("{real}/slaves/{below}"), &to);
            self.link(&format!("{to}/holders/{name}"), &real);
        }
        self
    }

    /// A module that is in the kernel.
    pub(super) fn module(&self, name: &str, users: &str, version: Option<&str>) -> &Self {
        let modules = fs_err::read_to_string(self.path("proc/modules")).unwrap_or_default();
        let count = users.split(',').filter(|user| !user.is_empty()).count();
        let users = if users.is_empty() { "-".to_owned() } else { format!("{users},") };
        let taint = if ["nvidia", "nvidia_uvm", "nvidia_fs", "nvidia_modeset"].contains(&name) {
            " (OE)"
        } else {
            ""
        };
        let line = format!("{name} 253952 {count} {users} Live 0x0000000000000000{taint}\n");
        self.file("proc/modules", &format!("{modules}{line}"));
        self.files(&format!("sys/module/{name}"), &[("initstate", "live"), ("refcnt", &count.to_string())]);
        if let Some(version) = version {
            self.files(&format!("sys/module/{name}"), &[("version", version)]);
        }
        self
    }

    /// Takes a module out again, and what only it shows.
    pub(super) fn unload(&self, name: &str) -> &Self {
        self.cut("proc/modules", &format!("{name} "));
        let modules = fs_err::read_to_string(self.path("proc/modules")).unwrap();
        self.file("proc/modules", &modules.replace(&format!("{name},"), ""));
        self.without(&format!("sys/module/{name}"));
        let folder = match name {
            "nvidia" => "proc/driver/nvidia",
            "nvidia_fs" => "proc/driver/nvidia-fs",
            _ => return self,
        };
        if self.path(folder).exists() {
            self.without(folder);
        }
        self
    }

    pub(super) fn judged(&self) -> Judgement {
        let facts = Facts::read(&Root::at(self.dir.path()));
        judge(&facts, side_of(&facts), None, &[], "2026-11-24")
    }

    /// One of each group of ids must fail among the first three findings, and of all others only `also` may.
    #[track_caller]
    pub(super) fn blames(&self, causes: &[&[&str]], also: &[&str]) {
        let judgement = self.judged();
        let told = told(&judgement.findings);
        assert_ne!(judgement.verdict, Verdict::Pass, "a false PASS\n{told}");
        for group in causes {
            let first = judgement.findings.iter().take(3);
            let found = first.filter(|f| f.status == Status::Fail).any(|f| group.contains(&f.id.as_str()));
            assert!(found, "MISSED {group:?}\n{told}");
        }
        let failed = judgement.findings.iter().filter(|f| f.status == Status::Fail);
        let others: Vec<&str> = failed
            .map(|f| f.id.as_str())
            .filter(|id| !also.contains(id) && !causes.iter().any(|group| group.contains(id)))
            .collect();
        assert!(others.is_empty(), "FALSE {others:?}\n{told}");
    }

    /// Nothing fails, and nothing was proven either.
    #[track_caller]
    pub(super) fn is_fine(&self) {
        let judgement = self.judged();
        let told = told(&judgement.findings);
        assert_eq!(judgement.verdict, Verdict::Incomplete, "{told}");
        assert!(!judgement.findings.iter().any(|f| f.status == Status::Fail), "FALSE\n{told}");
    }
}

/// What was found, for who reads a failed test.
fn told(findings: &[Finding]) -> String {
    let telling = findings.iter().filter(|f| !matches!(f.status, Status::Pass | Status::NotApplicable));
    telling
        .map(|f| format!("{:?} {} {} {}\n", f.status, f.id, f.because.as_deref().unwrap_or(""), f.why))
        .collect()
}

/// Configuration space as root reads it: the header, the PCI Express capability, and ACS with nothing switched on.
fn config(vendor: &str, device: &str, class: &str, bridge: bool) -> Vec<u8> {
    let hex = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let mut bytes = vec![0u8; 4096];
    bytes[0..2].copy_from_slice(&u16::try_from(hex(vendor)).unwrap().to_le_bytes());
    bytes[2..4].copy_from_slice(&u16::try_from(hex(device)).unwrap().to_le_bytes());
    bytes[4..8].copy_from_slice(&0x0010_0406_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&((hex(class) << 8) | 0xa1).to_le_bytes());
    bytes[0x0e] = u8::from(bridge);
    bytes[0x34] = 0x60;
    bytes[0x60] = 0x10;
    let kind: u8 = if bridge { 0x42 } else { 0x02 };
    bytes[0x62] = kind;
    if bridge {
        bytes[0x100..0x104].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
        bytes[0x104] = 0x1f;
    }
    bytes
}
