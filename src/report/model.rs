//! What a report says. One value; every form of it that people or programs read is rendered from this.

use super::utc::Utc;
use crate::bench::plan::Thoroughness;
use crate::bench::results::Results;
use crate::bench::route::Route;
use crate::checks::check::{Finding, Severity, Side, Status as FindingStatus};
use crate::checks::judge::{Judgement, is_simulated};
use crate::checks::waiver::Waiver;
use crate::error::Status;
use crate::facts::{Facts, Root};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of [`Report`]'s form that this gdsboot writes. Readers refuse newer ones.
pub const SCHEMA: u32 = 1;

/// One run of the validator on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// gdsboot's version that wrote this.
    pub gdsboot: String,
    /// Identifies the run: 8 hex digits, random.
    pub run_id: String,
    /// When the validator started, by the machine's clock.
    pub started: Utc,
    /// When the verdict was reached, by the machine's clock.
    pub finished: Utc,
    /// False in what is written while the run goes on: what a hang or a power cut leaves behind.
    pub complete: bool,
    /// What was found.
    pub verdict: Verdict,
    /// How bytes really travelled, where that was proven.
    pub route: Route,
    /// Why the verdict is what it is, causes first; empty for a [`Verdict::Pass`].
    pub why: Vec<String>,
    /// From which side the machine was looked at.
    #[serde(default)]
    pub side: Option<Side>,
    /// What the checks found, causes first; empty where the run did not come so far.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What the run was asked to do, and by whom.
    pub settings: Settings,
    /// The steps of the run, in order.
    pub stages: Vec<Stage>,
    /// What went wrong in the run itself, in order; never a judgement on the machine.
    pub problems: Vec<Problem>,
    /// What became of sending the report. What is sent itself cannot say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// What the benchmark found, where there was one.
    #[serde(default)]
    pub benchmark: Option<Results>,
    /// What was read from the machine.
    pub facts: Facts,
}

impl Report {
    /// Did libraries that only imitate NVIDIA's take part, or is a device simulated? Then it says nothing about the machine,
    /// and every form of it says that first.
    pub fn is_simulated(&self) -> bool {
        is_simulated(&self.facts, self.benchmark.as_ref())
    }

    /// The verdict in a line about this run: `FAIL`, or `INCOMPLETE (SIMULATED)`.
    pub fn verdict_words(&self) -> String {
        verdict_words(self.verdict, self.is_simulated())
    }

    /// The report of a check that was no run of the image: begun and ended at `now`.
    pub fn of_check(
        facts: Facts,
        benchmark: Option<Results>,
        judgement: Judgement,
        run_id: String,
        now: Utc,
    ) -> Self {
        Self {
            schema: SCHEMA,
            gdsboot: env!("CARGO_PKG_VERSION").into(),
            run_id,
            started: now,
            finished: now,
            complete: true,
            verdict: judgement.verdict,
            route: judgement.route,
            why: reasons(&judgement.findings),
            side: Some(judgement.side),
            findings: judgement.findings,
            settings: Settings::default(),
            stages: Vec::new(),
            problems: Vec::new(),
            delivery: None,
            benchmark,
            facts,
        }
    }
}

/// What stands over every page of a report of imitations.
pub const SIMULATED: &str = "SIMULATED";

/// A verdict in a line about its run: `FAIL`, or `INCOMPLETE (SIMULATED)`.
pub fn verdict_words(verdict: Verdict, simulated: bool) -> String {
    let mark = if simulated { format!(" ({SIMULATED})") } else { String::new() };
    format!("{verdict}{mark}")
}

/// The same in a sentence.
pub const SIMULATED_WORDS: &str = "SIMULATED: devices or libraries that imitate NVIDIA's took part; nothing here says \
     anything about this machine";

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// A direct route was proven.
    Pass,
    /// Something must be mended.
    Fail,
    /// Nothing was proven: a prerequisite is missing or cannot be seen from here.
    Incomplete,
}

impl Verdict {
    /// The exit status of every program that ends with this verdict.
    pub fn status(self) -> Status {
        match self {
            Self::Pass => Status::Pass,
            Self::Fail => Status::Fail,
            Self::Incomplete => Status::Incomplete,
        }
    }

    /// `PASS`, `FAIL` or `INCOMPLETE`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Incomplete => "INCOMPLETE",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What happens when the report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// The machine is powered off.
    #[default]
    Poweroff,
    /// The machine starts again.
    Reboot,
    /// The verdict stays on the screen until somebody switches the machine off.
    Hold,
    /// A root shell on the console; its end powers the machine off.
    Shell,
}

impl After {
    /// Reads one of `poweroff`, `reboot`, `hold`, `shell`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Poweroff, Self::Reboot, Self::Hold, Self::Shell].into_iter().find(|a| a.word() == word)
    }

    /// The word that [`After::parse`] reads.
    pub fn word(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
            Self::Hold => "hold",
            Self::Shell => "shell",
        }
    }
}

/// What the run was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Settings {
    /// What happens when the report is written.
    pub after: After,
    /// Where [`Settings::after`] was said; `default` where nobody said anything.
    pub after_from: String,
    /// Does the run leave a capture of the machine beside its report?
    #[serde(default)]
    pub capture: bool,
    /// How thorough the benchmark is.
    #[serde(default)]
    pub bench: Thoroughness,
    /// How long each of its measurements takes, in seconds, where that is not its plan's own.
    #[serde(default)]
    pub bench_seconds: Option<f64>,
    /// Are NVIDIA's own tools run beside it? Where nobody says so, only beside a full one.
    #[serde(default)]
    pub gdsio: Option<bool>,
    /// The serial number of a disk that may be written to.
    #[serde(default)]
    pub scratch_serial: Option<String>,
    /// The UUID of a filesystem on which a temporary file may be made.
    #[serde(default)]
    pub scratch_filesystem: Option<String>,
    /// How large that file, or the one on the disk, is in bytes.
    #[serde(default)]
    pub scratch_size: Option<u64>,
    /// The consent to lose what is on the disk, as it was given.
    #[serde(default)]
    pub wipe: Option<String>,
    /// Where the report is sent, without what is secret in the URL.
    #[serde(default)]
    pub report_url: Option<String>,
    /// How long sending it may take at most, in seconds, where that is not the usual time.
    #[serde(default)]
    pub report_seconds: Option<u32>,
    /// A file on the report partition with the certificates (PEM) that the report's receiver is trusted by; nobody else is
    /// trusted then.
    #[serde(default)]
    pub report_ca: Option<String>,
    /// How the machine gets an address, as it was said; by DHCP where nobody says so.
    #[serde(default)]
    pub net: Option<String>,
    /// Findings that somebody decided to live with.
    #[serde(default)]
    pub waive: Vec<Waiver>,
    /// What was said and not understood: unknown keys, malformed files, words that mean nothing.
    pub complaints: Vec<String>,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stage {
    /// What was done, such as `verify-root`.
    pub name: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Did it do all that it should?
    pub ok: bool,
}

/// What went wrong in the run itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// The [`Stage`] in which it happened.
    pub stage: String,
    /// The error's chain, or the panic's words and place.
    pub what: String,
    /// A panic is a bug in gdsboot; anything else is the machine's or the image's.
    pub panic: bool,
}

/// What became of sending the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Delivery {
    /// Where to, without what is secret in the URL.
    pub url: String,
    /// Did the receiver say that it has it?
    pub sent: bool,
    /// How often it was tried, always with the same bytes.
    pub tries: u32,
    /// How long all of it took, the network's coming up included, in seconds.
    pub seconds: f64,
    /// What the last try's receiver answered: an HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// Why it was not sent, and what to do.
    #[serde(default)]
    pub error: Option<String>,
}

impl Delivery {
    /// In a sentence.
    pub fn words(&self) -> String {
        let tries = if self.tries == 1 { "1 try".to_owned() } else { format!("{} tries", self.tries) };
        let spent = format!("{tries}, {:.0} s", self.seconds);
        match &self.error {
            None => format!("sent to {} ({spent})", self.url),
            Some(error) => format!("NOT sent to {} ({spent}): {error}", self.url),
        }
    }
}

/// The reasons for a verdict: what failed, causes first, without what only costs speed.
pub fn reasons(findings: &[Finding]) -> Vec<String> {
    let matters = |f: &&Finding| {
        matches!(f.status, FindingStatus::Fail | FindingStatus::Error) && f.severity <= Severity::Major
    };
    findings.iter().filter(matters).map(|f| f.why.clone()).collect()
}

/// Eight random hex digits; a kernel that has none to give leaves the time to tell runs apart.
pub fn new_run_id(root: &Root) -> String {
    let uuid = root.text("/proc/sys/kernel/random/uuid");
    uuid.value().and_then(|uuid| uuid.get(..8)).unwrap_or("00000000").to_owned()
}

/// The instant and the run that a run's folder is called after: `<UTC as YYYYMMDDThhmmssZ>-<run id>`.
pub fn folder_name(started: Utc, run_id: &str) -> String {
    format!("{}-{run_id}", started.compact())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checks::judge::judge;
    use crate::facts::Root;
    use crate::facts::dma::{Call, DmaProbe, Library};
    use crate::facts::modules::{LoadOutcome, ModuleLoad};
    use crate::facts::{Fact, kernel};
    use std::path::Path;

    /// A machine as a folder, read like any other: QEMU with a GPU function that has no driver, and an NVMe.
    fn machine(dir: &Path) {
        let file = |path: &str, text: &str| {
            let path = dir.join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        file("sys/class/dmi/id/sys_vendor", "QEMU\n");
        file("sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)\n");
        file("sys/class/dmi/id/product_version", "pc-q35-11.1\n");
        file("sys/class/dmi/id/bios_vendor", "EFI Development Kit II / OVMF\n");
        file("sys/class/dmi/id/bios_version", "2026.02\n");
        file("sys/class/dmi/id/bios_date", "02/01/2026\n");
        file("proc/sys/kernel/osrelease", "6.12.117+deb13-amd64\n");
        file("proc/sys/kernel/tainted", "12288\n");
        file(
            "proc/cmdline",
            "console=tty0 console=ttyS0,115200 gdsboot.root=PARTUUID=11111111-2222-3333-4444-555555555555\n",
        );
        file("proc/kallsyms", "0000000000000000 T nvme_core_init\t[nvme_core]\n");
        file("proc/meminfo", "MemTotal: 2014028 kB\n");
        file(
            "proc/cpuinfo",
            "processor : 0\nmodel name : QEMU TCG CPU version 2.5+\nphysical id : 0\nprocessor : 1\n",
        );
        file("proc/modules", "nvme 65536 0 - Live 0x0000000000000000\n");
        fs_err::create_dir_all(dir.join("sys/firmware/efi")).unwrap();
        let pci = "sys/bus/pci/devices";
        for (address, id, class) in [
            ("0000:00:00.0", ["0x8086", "0x29c0"], "0x060000"),
            ("0000:00:04.0", ["0x1b36", "0x0010"], "0x010802"),
            ("0000:01:00.0", ["0x10de", "0x2331"], "0x030200"),
        ] {
            file(&format!("{pci}/{address}/vendor"), id[0]);
            file(&format!("{pci}/{address}/device"), id[1]);
            file(&format!("{pci}/{address}/class"), class);
            file(&format!("{pci}/{address}/numa_node"), "-1");
        }
        file(&format!("{pci}/0000:01:00.0/current_link_speed"), "32.0 GT/s PCIe\n");
        file(&format!("{pci}/0000:01:00.0/current_link_width"), "16\n");
        file(&format!("{pci}/0000:01:00.0/max_link_speed"), "32.0 GT/s PCIe\n");
        file(&format!("{pci}/0000:01:00.0/max_link_width"), "16\n");
        let bars = "0x81000000 0x81ffffff 0x40200\n0x2000000000 0x2fffffffff 0x14220c\n0x0 0x0 0x0\n";
        file(&format!("{pci}/0000:01:00.0/resource"), bars);
        for device in ["0000:00:00.0", "0000:00:04.0"] {
            file(&format!("{pci}/{device}/resource"), "");
        }
        std::os::unix::fs::symlink("../../../drivers/nvme", dir.join(pci).join("0000:00:04.0/driver"))
            .unwrap();
        let nvme = "sys/class/nvme/nvme0";
        for (name, text) in [
            ("model", "QEMU NVMe Ctrl"),
            ("serial", "gdsboot-1"),
            ("firmware_rev", "11.1.3"),
            ("transport", "pcie"),
            ("address", "0000:00:04.0"),
            ("state", "live"),
        ] {
            file(&format!("{nvme}/{name}"), text);
        }
        fs_err::create_dir_all(dir.join(nvme).join("nvme0n1")).unwrap();
        file("sys/block/nvme0n1/size", "2097152\n");
        file("sys/block/nvme0n1/queue/logical_block_size", "512\n");
    }

    /// A report with something in every section.
    pub(crate) fn sample() -> Report {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path());
        let mut facts = Facts::read(&Root::at(dir.path()));
        let manifest = r#"{"version":1,"gdsboot":"0.1.0","profile":"debian-13","lock":"a1b2","image_id":"00112233aabbccdd",
            "kernel":"6.12.117+deb13-amd64","driver":"550.163.01","modules":{"nvidia":"compiled 550.163.01"},
            "epoch":1790000000,"packages":{"bash":"5.2.37-2"}}"#;
        facts.image = Fact::known("the image", serde_json::from_str(manifest).unwrap());
        let refused =
            LoadOutcome::Refused { errno: 19, name: "ENODEV".into(), text: "No such device".into() };
        let line = "[    4.210000] NVRM: No NVIDIA GPU found.".to_owned();
        let load = |name: &str, outcome, kernel_lines| ModuleLoad {
            name: name.into(),
            path: Some(format!("/usr/lib/modules/6.12.117+deb13-amd64/updates/{name}.ko")),
            outcome,
            ms: 210,
            kernel_lines,
        };
        let needs = LoadOutcome::Dependency { needs: "nvidia".into() };
        facts.module_loads = Fact::known(
            "finit_module",
            vec![load("nvidia", refused, vec![line]), load("nvidia-fs", needs, vec![])],
        );
        facts.nvme_module_hooks = Fact::known("/usr/lib/modules/6.12.117+deb13-amd64/kernel/nvme.ko", vec![]);
        facts.kernel.symbols = Fact::known("/proc/kallsyms", kernel::Symbols::default());
        let call = |function: &str, status, value: Option<&str>| Call {
            function: function.into(),
            status,
            value: value.map(str::to_owned),
        };
        facts.dma = Fact::known(
            "gdsboot-dma probe",
            DmaProbe {
                v: 1,
                libraries: vec![
                    Library {
                        name: "libcuda.so.1".into(),
                        path: Some("/usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01".into()),
                        error: None,
                        calls: vec![call("cuDriverGetVersion", Some(0), Some("12.4"))],
                        ..Library::default()
                    },
                    Library {
                        name: "libcufile.so.0".into(),
                        path: None,
                        error: Some(
                            "libcufile.so.0: cannot open shared object file: No such file or directory"
                                .into(),
                        ),
                        ..Library::default()
                    },
                    Library {
                        name: "libnvidia-ml.so.1".into(),
                        path: None,
                        error: None,
                        calls: vec![
                            call("nvmlInit_v2", Some(9), None),
                            call("nvmlSystemGetDriverVersion", None, None),
                        ],
                        ..Library::default()
                    },
                ],
            },
        );
        let judgement = judge(&facts, Side::Guest, None, &[], "2026-11-22");
        Report {
            schema: SCHEMA,
            gdsboot: "0.1.0".into(),
            run_id: "0a1b2c3d".into(),
            started: Utc(1_795_344_961),
            finished: Utc(1_795_344_974),
            complete: true,
            verdict: judgement.verdict,
            route: Route::None,
            why: reasons(&judgement.findings),
            side: Some(judgement.side),
            findings: judgement.findings,
            settings: Settings {
                after_from: "default".into(),
                complaints: vec!["gdsboot.toml: line 3: unknown key `colour`".into()],
                ..Settings::default()
            },
            stages: vec![
                Stage { name: "verify-root".into(), seconds: 2.5, ok: true },
                Stage { name: "start-udev".into(), seconds: 0.04, ok: false },
            ],
            problems: vec![Problem {
                stage: "start-udev".into(),
                what: "running udevadm settle: killed after 10 s".into(),
                panic: false,
            }],
            delivery: None,
            benchmark: None,
            facts,
        }
    }

    #[test]
    fn json_says_all_of_it() {
        let report = sample();
        let mut bytes = Vec::new();
        crate::report::json::write(&report, &mut bytes).unwrap();
        assert_eq!(crate::report::json::read(&bytes).unwrap(), report);
        let newer = String::from_utf8(bytes).unwrap().replacen("\"schema\": 1", "\"schema\": 2", 1);
        let error = crate::report::json::read(newer.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
        assert!(crate::report::json::read(b"{}").is_err());
    }

    #[test]
    fn a_verdict_of_imitations_is_named_so() {
        let report = sample();
        assert_eq!(report.verdict_words(), report.verdict.word());
        let benchmark = Some(Results { simulated: true, ..Results::default() });
        let simulated = Report { verdict: Verdict::Incomplete, benchmark, ..report };
        assert_eq!(simulated.verdict_words(), "INCOMPLETE (SIMULATED)");
    }

    #[test]
    fn words_of_after() {
        for after in [After::Poweroff, After::Reboot, After::Hold, After::Shell] {
            assert_eq!(After::parse(after.word()), Some(after));
            assert_eq!(serde_json::to_string(&after).unwrap(), format!("\"{}\"", after.word()));
        }
        assert_eq!(After::parse("Poweroff"), None);
    }
}
