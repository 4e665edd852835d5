//! What is published of devices, with where it stands: data, not code, see `published/*.toml`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;

/// The figures of drives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drives {
    /// The part of a published figure below which a drive is suspect, 0 to 1.
    pub share: f64,
    drive: Vec<Drive>,
}

/// A family of drives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// What the drive's model begins with, or has after its maker's name.
    pub model: String,
    /// What people call it.
    pub name: String,
    /// Sequential reads, in bytes per second.
    pub read: f64,
    /// Random reads of 4 KiB, per second.
    pub iops: f64,
    /// Where that is published.
    pub source: String,
}

/// The figures of GPUs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gpus {
    gpu: Vec<Gpu>,
}

/// A GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its PCI device id, four hexadecimal digits.
    pub device: String,
    /// Its product name.
    pub name: String,
    /// The least that it exchanges with pinned memory one way, in bytes per second.
    pub copy: f64,
    /// Where that is published.
    pub source: String,
}

static DRIVES: LazyLock<Drives> = LazyLock::new(|| table(include_str!("published/drives.toml")));
static GPUS: LazyLock<Gpus> = LazyLock::new(|| table(include_str!("published/gpus.toml")));

fn table<T: DeserializeOwned>(text: &str) -> T {
    let table: toml::Table = text.parse().expect("a test reads it");
    table.try_into().expect("a test reads it")
}

/// What is published of a drive of this model, and the part of it that is demanded.
pub fn drive(model: &str) -> Option<(&'static Drive, f64)> {
    let words = || model.split([' ', '-']);
    let found = DRIVES.drive.iter().find(|drive| words().any(|word| word.starts_with(&drive.model)))?;
    Some((found, DRIVES.share))
}

/// What is published of a GPU with this PCI device id.
pub fn gpu(device: &str) -> Option<&'static Gpu> {
    GPUS.gpu.iter().find(|gpu| gpu.device.eq_ignore_ascii_case(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_makes_sense_and_has_its_source() {
        assert!((0.3..1.0).contains(&DRIVES.share));
        for drive in &DRIVES.drive {
            assert!((1e9..40e9).contains(&drive.read) && (1e5..1e7).contains(&drive.iops), "{drive:?}");
            assert!(drive.source.len() > 20 && drive.model.len() >= 4, "{drive:?}");
        }
        for gpu in &GPUS.gpu {
            assert!((5e9..200e9).contains(&gpu.copy) && gpu.source.len() > 20, "{gpu:?}");
        }
    }

    #[test]
    fn drives_are_found_by_their_model() {
        assert_eq!(drive("SAMSUNG MZQL21T9HCJR-00A07").unwrap().0.name, "Samsung PM9A3 (U.2)");
        assert_eq!(drive("Micron_9550_MTFDLAL3T2TGK-1BK1DABYY").unwrap().0.name, "Micron 9550");
        assert_eq!(drive("KIOXIA KCMY1RUG1T92").unwrap().0.name, "Kioxia CM7");
        assert!(drive("QEMU NVMe Ctrl").is_none() && drive("").is_none());
        assert!(gpu("2330").is_some() && gpu("ffff").is_none());
    }
}
