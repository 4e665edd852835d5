//! NVIDIA's kernel modules as they describe themselves under `/proc/driver`.

use super::nvidia_fs::parameters;
use super::{Fact, Root};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What NVIDIA's kernel modules say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Nvidia {
    /// The driver's own line: open or proprietary, version, build. Missing where it is not loaded.
    pub driver: Fact<String>,
    /// The GPUs that the driver claims.
    pub gpus: Fact<Vec<NvidiaGpu>>,
    /// nvidia-fs's version line. Missing where it is not loaded.
    pub nvidia_fs: Fact<String>,
    /// The storage drivers that are hooked into nvidia-fs now; it lists them only while a program has it open.
    pub nvidia_fs_modules: Fact<String>,
    /// The driver's version alone, from its own line or from `/sys/module/nvidia/version`: `580.95.05`.
    pub version: Fact<String>,
    /// The settings that the driver took, `/proc/driver/nvidia/params`: `RegistryDwords` and others.
    pub params: Fact<BTreeMap<String, String>>,
    /// The parameters of the module, which may read empty although they were set.
    pub module_parameters: Fact<BTreeMap<String, String>>,
}

/// A GPU that the driver claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NvidiaGpu {
    /// Its PCI address.
    pub address: String,
    /// Its name, as in `NVIDIA H100 PCIe`.
    pub model: Fact<String>,
    /// The minor number of its device node.
    pub minor: Fact<u32>,
    /// Its identity; question marks until the driver has started it.
    #[serde(default)]
    pub uuid: Fact<String>,
    /// The version of the GSP's firmware; `N/A` while it does not run.
    #[serde(default)]
    pub firmware: Fact<String>,
    /// The version of its video BIOS.
    #[serde(default)]
    pub video_bios: Fact<String>,
    /// Was it left out on purpose (`NVreg_ExcludedGpus`)?
    #[serde(default)]
    pub excluded: Fact<bool>,
}

impl Nvidia {
    /// Are the kernel modules the open ones? `None` where their line does not say, or cannot be seen.
    pub fn is_open(&self) -> Option<bool> {
        let line = self.driver.value()?;
        line.contains("NVRM version").then(|| line.contains("Open Kernel Module"))
    }

    /// Reads all of it.
    pub fn read(root: &Root) -> Self {
        const GPUS: &str = "/proc/driver/nvidia/gpus";
        let gpus = root.list(GPUS).map(|names| {
            let gpu = |address: &String| {
                let path = format!("{GPUS}/{address}/information");
                NvidiaGpu {
                    address: address.clone(),
                    model: root.parse(&path, |text| label(text, "Model")),
                    minor: root.parse(&path, |text| {
                        let minor = label(text, "Device Minor")?;
                        minor.parse().map_err(|_| format!("device minor {minor:?} is not a number"))
                    }),
                    uuid: root.parse(&path, |text| label(text, "GPU UUID")),
                    firmware: root.parse(&path, |text| label(text, "GPU Firmware")),
                    video_bios: root.parse(&path, |text| label(text, "Video BIOS")),
                    excluded: root.parse(&path, |text| label(text, "GPU Excluded").map(|word| word == "Yes")),
                }
            };
            names.iter().map(gpu).collect()
        });
        let first_line =
            |path: &str| root.parse(path, |text| Ok(text.lines().next().unwrap_or("").to_owned()));
        let driver = first_line("/proc/driver/nvidia/version");
        let version = match driver.clone().parse(|line| version_in(&line).ok_or("no version")) {
            known @ Fact::Known { .. } => known,
            other => match root.text("/sys/module/nvidia/version") {
                known @ Fact::Known { .. } => known,
                _ => other,
            },
        };
        Self {
            version,
            params: root.text("/proc/driver/nvidia/params").map(|text| parse_params(&text)),
            module_parameters: parameters(root, "nvidia"),
            driver,
            gpus,
            nvidia_fs: first_line("/proc/driver/nvidia-fs/version"),
            nvidia_fs_modules: root.text("/proc/driver/nvidia-fs/modules"),
        }
    }
}

/// The word that looks like `580.95.05` in the driver's own line.
fn version_in(line: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        let digits = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        digits && parts.len() >= 2 && parts[0].len() == 3
    };
    line.split_ascii_whitespace().find(is_version).map(str::to_owned)
}

/// Lines of `name: value`, the value in quotes where it is words.
fn parse_params(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned())).collect()
}

/// What follows `name:` in lines of `label: value`.
fn label(text: &str, name: &str) -> Result<String, String> {
    let found = text.lines().find_map(|line| {
        let (label, value) = line.split_once(':')?;
        (label.trim() == name).then(|| value.trim().to_owned())
    });
    found.ok_or_else(|| format!("no line {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_open_and_proprietary_modules() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)";
        let closed =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024";
        assert_eq!(version_in(open).as_deref(), Some("580.95.05"));
        assert_eq!(version_in(closed).as_deref(), Some("550.54.14"));
        assert_eq!(version_in("NVRM version: 1.2 ..."), None);
        let of = |line: &str| Nvidia { driver: Fact::known("x", line.into()), ..Nvidia::default() }.is_open();
        assert_eq!((of(open), of(closed), of("simulated")), (Some(true), Some(false), None));
    }

    #[test]
    fn settings_that_the_driver_took() {
        let params = parse_params("EnableMSI: 1\nRegistryDwords: \"RMForceStaticBar1=1;\"\nnonsense\n");
        assert_eq!(params["RegistryDwords"], "RMForceStaticBar1=1;");
        assert_eq!(params.len(), 2);
    }

    #[test]
    fn a_gpu_that_the_driver_claims() {
        let dir = tempfile::tempdir().unwrap();
        let gpu = dir.path().join("proc/driver/nvidia/gpus/0000:03:00.0");
        fs_err::create_dir_all(&gpu).unwrap();
        let text =
            "Model: \t\t NVIDIA H100 PCIe\nIRQ:   \t\t 0\nGPU UUID: \t GPU-????????\nDevice Minor: \t x\n";
        fs_err::write(gpu.join("information"), text).unwrap();
        let nvidia = Nvidia::read(&Root::at(dir.path()));
        let gpu = &nvidia.gpus.value().unwrap()[0];
        assert_eq!(gpu.model.value().unwrap(), "NVIDIA H100 PCIe");
        assert!(matches!(gpu.minor, Fact::Malformed { .. }));
        assert!(matches!(nvidia.nvidia_fs, Fact::Missing { .. }));
    }
}
