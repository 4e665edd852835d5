//! NVIDIA's kernel modules as they describe themselves under `/proc/driver`.

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// What NVIDIA's kernel modules say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nvidia {
    /// The driver's own line: open or proprietary, version, build. Missing where it is not loaded.
    pub driver: Fact<String>,
    /// The GPUs that the driver claims.
    pub gpus: Fact<Vec<NvidiaGpu>>,
    /// nvidia-fs's version line. Missing where it is not loaded.
    pub nvidia_fs: Fact<String>,
    /// The storage drivers that are hooked into nvidia-fs now.
    pub nvidia_fs_modules: Fact<String>,
}

/// A GPU that the driver claims.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NvidiaGpu {
    /// Its PCI address.
    pub address: String,
    /// Its name, as in `NVIDIA H100 PCIe`.
    pub model: Fact<String>,
    /// The minor number of its device node.
    pub minor: Fact<u32>,
}

impl Nvidia {
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
                }
            };
            names.iter().map(gpu).collect()
        });
        let first_line =
            |path: &str| root.parse(path, |text| Ok(text.lines().next().unwrap_or("").to_owned()));
        Self {
            driver: first_line("/proc/driver/nvidia/version"),
            gpus,
            nvidia_fs: first_line("/proc/driver/nvidia-fs/version"),
            nvidia_fs_modules: root.text("/proc/driver/nvidia-fs/modules"),
        }
    }
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
