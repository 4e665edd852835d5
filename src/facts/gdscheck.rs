//! What NVIDIA's `gdscheck -p` printed. Rows come and go with its releases and its rulers change their length, so each line
//! is read by its label alone. Its exit status says nothing: `gdscheck.py` always ends with 0.

use super::commands::CommandOutput;
use super::log_lines::LogLines;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An answer of gdscheck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Gdscheck {
    /// Where its output stands.
    pub from: String,
    /// `GDS release version`.
    pub release: Option<String>,
    /// The version of nvidia-fs; none where it is not loaded.
    pub nvidia_fs: Option<String>,
    /// The least version of nvidia-fs that this release wants.
    pub nvidia_fs_minimum: Option<String>,
    /// Which routes there are for each kind of storage: the label, and its words in lower case, such as `supported` (to
    /// 1.15) or `nvfs`, `compat` (from 1.16).
    pub drivers: BTreeMap<String, Vec<String>>,
    /// cuFile's settings, such as `properties.use_pci_p2pdma`, and its variables of the environment, such as
    /// `CUFILE_FORCE_COMPAT_MODE`.
    pub settings: BTreeMap<String, String>,
    /// The GPUs.
    pub gpus: Vec<GdscheckGpu>,
    /// `disabled`, or `Pass-through or enabled`.
    pub iommu: Option<String>,
    /// Switches that redirect peers' requests to the root complex.
    pub acs: Vec<String>,
    /// Its opinion of the driver.
    pub driver: Option<String>,
    /// Its verdict on GPU and platform; it says nothing of the storage.
    pub verified: Option<bool>,
    /// Its complaints.
    pub errors: Vec<String>,
}

/// A GPU as gdscheck sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GdscheckGpu {
    /// The whole line.
    pub line: String,
    /// Its name.
    pub name: String,
    /// The size of BAR1 in MiB.
    pub bar1_mib: Option<u64>,
    /// Can it do GPUDirect Storage?
    pub supports: bool,
}

/// Words of complaints. The first ones come from CUDA, the rest from cuFile.
const ERRORS: &[&str] = &[
    "cuInit Failed",
    "CUDA_ERROR_",
    "CUDA Driver API error",
    "cuFile initialization failed",
    "Platform verification error",
    "Platform has been denied",
    "CPU Architecture not Supported",
    "No GPUs detected",
    "does not have any supported GPU",
    "error opening log file",
    "error while loading shared libraries",
    "undefined symbol",
];

impl Gdscheck {
    /// Reads the last answer among the outputs of programs.
    pub fn find(commands: &[CommandOutput]) -> Option<Self> {
        commands.iter().filter(|command| command.program().starts_with("gdscheck")).rev().find_map(
            |command| {
                let lines = command.stdout.iter().chain(&command.stderr).map(String::as_str);
                let answer = Self::parse(&command.from, lines);
                (answer != Self { from: command.from.clone(), ..Self::default() }).then_some(answer)
            },
        )
    }

    /// Did it look at the machine? Where CUDA does not start, all that it prints is complaints.
    pub fn looked(&self) -> bool {
        let complaints = Self { from: self.from.clone(), errors: self.errors.clone(), ..Self::default() };
        *self != complaints
    }

    /// Reads the last answer among logs: its owner may have kept it in a file of any name.
    pub fn find_in_logs(logs: &[LogLines]) -> Option<Self> {
        let is_answer = |log: &&LogLines| log.lines.iter().any(|line| line.contains("GDS release version"));
        let log = logs.iter().rev().find(is_answer)?;
        Some(Self::parse(&log.from, log.lines.iter().map(String::as_str)))
    }

    /// Reads an answer.
    pub fn parse<'a>(from: &str, lines: impl Iterator<Item = &'a str>) -> Self {
        let mut answer = Self { from: from.to_owned(), ..Self::default() };
        let mut in_drivers = false;
        for line in lines.map(str::trim) {
            if line.ends_with(':') && line.to_uppercase() == line {
                in_drivers = line == "DRIVER CONFIGURATION:";
                continue;
            }
            answer.take(line, in_drivers);
        }
        answer
    }

    fn take(&mut self, line: &str, in_drivers: bool) {
        if ERRORS.iter().any(|error| line.contains(error)) {
            self.errors.push(line.to_owned());
            return;
        }
        if line.starts_with("GPU index ") || line.starts_with("GPU ") && line.contains("GDS") {
            self.gpus.push(GdscheckGpu::parse(line));
        } else if let Some(switch) = line.strip_prefix("Found ACS enabled for switch ") {
            self.acs.push(switch.trim().to_owned());
        } else if line.starts_with("Platform verification succeeded") {
            self.verified = Some(true);
        } else if line.starts_with("Platform verification failed") {
            self.verified = Some(false);
            self.errors.push(line.to_owned());
        }
        let word_after = |label: &str| {
            let rest = line.split_once(label)?.1.trim_start().trim_start_matches(':');
            rest.split_ascii_whitespace().next().map(str::to_owned)
        };
        if line.starts_with("GDS release version") {
            self.release = word_after("GDS release version");
        }
        if line.starts_with("nvidia_fs version") {
            self.nvidia_fs = word_after("nvidia_fs version");
        }
        if line.contains("nvidia_fs minimum version") {
            self.nvidia_fs_minimum = word_after("nvidia_fs minimum version");
        }
        let Some((label, value)) = line.split_once(':') else { return };
        let (label, value) = (label.trim(), value.trim());
        match label {
            "IOMMU" => self.iommu = Some(value.to_owned()),
            "Nvidia Driver Info Status" => self.driver = Some(value.to_owned()),
            _ if is_setting(label) || label.starts_with("CUFILE_") => {
                self.settings.insert(label.to_owned(), value.to_owned());
            }
            // Rows of sub-systems begin with dashes and speak of parts, not of routes.
            // Owners quote single rows, so those for NVMe are known without their section.
            _ if (in_drivers || matches!(label, "NVMe" | "NVMe P2PDMA")) && !label.starts_with('-') => {
                let words = value.split([',', ' ']).map(str::to_ascii_lowercase);
                let words = words.filter(|word| !word.is_empty()).collect();
                self.drivers.insert(label.to_owned(), words);
            }
            _ => {}
        }
    }

    /// The direct routes to local NVMe drives; `None` where it has no row for them. To 1.15 the words are `supported` in
    /// two rows, from 1.16 names of routes in one.
    pub fn nvme_routes(&self) -> Option<Vec<&'static str>> {
        let row = |label: &str| self.drivers.get(label);
        let has = |words: Option<&Vec<String>>, word: &str| {
            words.is_some_and(|words| words.iter().any(|found| found == word))
        };
        let nvme = row("NVMe");
        let p2pdma = row("NVMe P2PDMA");
        if nvme.is_none() && p2pdma.is_none() {
            return None;
        }
        let mut routes = Vec::new();
        if has(nvme, "nvfs") || has(nvme, "supported") {
            routes.push("nvfs");
        }
        if has(nvme, "p2pdma") || has(p2pdma, "supported") {
            routes.push("p2pdma");
        }
        if has(nvme, "c2c") {
            routes.push("c2c");
        }
        Some(routes)
    }

    /// A setting that is `true` or `false`.
    pub fn switch(&self, name: &str) -> Option<bool> {
        match self.settings.get(name)?.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }
}

/// `properties.use_pci_p2pdma`: words joined by dots.
fn is_setting(label: &str) -> bool {
    label.contains('.') && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
}

impl GdscheckGpu {
    /// `GPU index 0 NVIDIA L40S bar:1 bar size (MiB):65536 supports GDS, IOMMU State: Disabled`
    fn parse(line: &str) -> Self {
        let name = line.strip_prefix("GPU index ").and_then(|rest| rest.split_once(' ')).map_or("", |r| r.1);
        let name = name.split(" bar:").next().unwrap_or(name).trim();
        let digits = |rest: &str| rest.trim().split(|c: char| !c.is_ascii_digit()).next().map(str::to_owned);
        let bar1 = line.split_once("bar size (MiB):").and_then(|(_, rest)| digits(rest)?.parse().ok());
        let refuses = ["compat mode", "Not Supported", "NO GDS SUPPORT", "no native GDS"];
        Self {
            line: line.to_owned(),
            name: name.to_owned(),
            bar1_mib: bar1,
            supports: line.contains("supports GDS") && !refuses.iter().any(|words| line.contains(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Gdscheck {
        Gdscheck::parse("x", text.lines())
    }

    #[test]
    fn release_1_15_with_p2pdma() {
        let answer = parse(
            " GDS release version: 1.15.0.42\n libcufile version: 2.12\n Platform: x86_64\n =====================\n \
             DRIVER CONFIGURATION:\n =====================\n NVMe P2PDMA        : Supported\n NVMe               : \
             Unsupported\n --rdma devices        : Not configured\n =====================\n CUFILE CONFIGURATION:\n \
             properties.use_pci_p2pdma : true\n fs.lustre.posix_gds_min_kb: 0\n GPU INFO:\n GPU index 0 NVIDIA L40S \
             bar:1 bar size (MiB):65536 supports GDS, IOMMU State: Disabled\n PLATFORM INFO:\n IOMMU: disabled\n \
             Nvidia Driver Info Status: Supported(Nvidia Open Driver Installed)\n Platform: Standard PC (Q35 + ICH9, \
             2009), Arch: x86_64(Linux 6.8.0-79-generic)\n Platform verification succeeded\n",
        );
        assert_eq!(answer.release.as_deref(), Some("1.15.0.42"));
        assert_eq!(answer.nvidia_fs, None);
        assert_eq!(answer.nvme_routes().unwrap(), ["p2pdma"]);
        assert_eq!(answer.switch("properties.use_pci_p2pdma"), Some(true));
        assert_eq!(answer.settings["fs.lustre.posix_gds_min_kb"], "0");
        assert_eq!((answer.gpus[0].name.as_str(), answer.gpus[0].bar1_mib), ("NVIDIA L40S", Some(65536)));
        assert!(answer.gpus[0].supports && answer.verified == Some(true) && answer.errors.is_empty());
        assert_eq!(answer.drivers.len(), 2);
    }

    #[test]
    fn release_1_16_names_routes() {
        let answer = parse(
            " GDS release version: 1.16.1.26\n nvidia_fs version:  2.27 nvidia_fs minimum version: 2.12\n \
             DRIVER CONFIGURATION:\n NVMe : c2c, nvfs, compat\n NVMeOF : p2pdma, compat\n PLATFORM INFO:\n Found ACS \
             enabled for switch 0000:40:01.1\n",
        );
        assert_eq!(answer.nvidia_fs.as_deref(), Some("2.27"));
        assert_eq!(answer.nvidia_fs_minimum.as_deref(), Some("2.12"));
        assert_eq!(answer.nvme_routes().unwrap(), ["nvfs", "c2c"]);
        assert_eq!(answer.acs, ["0000:40:01.1"]);
        let none: Vec<&str> = vec![];
        assert_eq!(parse("DRIVER CONFIGURATION:\n NVMe : compat\n").nvme_routes(), Some(none));
    }

    #[test]
    fn complaints_without_a_gpu() {
        let answer = parse(
            " cuInit Failed, error CUDA_ERROR_NO_DEVICE\n cuFile initialization failed\n Platform verification error :\n\
             CUDA Driver API error\n",
        );
        assert_eq!(answer.errors.len(), 4);
        assert_eq!(answer.nvme_routes(), None);
    }

    proptest! {
        #[test]
        fn anything_is_read(text in "(GPU index |NVMe ?:|DRIVER CONFIGURATION:|bar size \\(MiB\\):|\\PC|\n){0,30}") {
            parse(&text);
        }
    }
}
