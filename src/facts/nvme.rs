//! NVMe controllers and their namespaces, from `/sys/class/nvme` and `/sys/block` (drivers/nvme/host/sysfs.c).

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// One NVMe controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NvmeController {
    /// The kernel's name: `nvme0`.
    pub name: String,
    /// The model that the controller reports.
    pub model: Fact<String>,
    /// The serial number that the controller reports.
    pub serial: Fact<String>,
    /// Its firmware's revision.
    pub firmware: Fact<String>,
    /// `pcie`, `rdma`, `tcp`, `loop`.
    pub transport: Fact<String>,
    /// For `pcie`: the PCI address.
    pub address: Fact<String>,
    /// `live` when it can be used.
    pub controller_state: Fact<String>,
    /// Its NUMA node; -1 where that is not known.
    pub numa_node: Fact<i32>,
    /// Its namespaces.
    pub namespaces: Vec<NvmeNamespace>,
}

/// One namespace, a block device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NvmeNamespace {
    /// The block device's name: `nvme0n1`.
    pub name: String,
    /// Its size in bytes.
    pub bytes: Fact<u64>,
    /// Its logical block size in bytes.
    pub block_size: Fact<u32>,
    /// The world-wide name.
    pub wwid: Fact<String>,
}

impl NvmeController {
    /// Reads every controller, ordered by name. Missing where no nvme driver is in the kernel.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        const CLASS: &str = "/sys/class/nvme";
        root.list(CLASS).map(|names| {
            let controllers = names.iter().filter(|name| is_controller(name));
            controllers.map(|name| Self::read(root, &format!("{CLASS}/{name}"), name)).collect()
        })
    }

    fn read(root: &Root, folder: &str, name: &str) -> Self {
        let text = |file: &str| root.text(&format!("{folder}/{file}"));
        let inside = root.list(folder);
        let mut blocks: Vec<String> =
            inside.value().into_iter().flatten().filter_map(|entry| block_device(name, entry)).collect();
        blocks.dedup();
        Self {
            name: name.to_owned(),
            model: text("model"),
            serial: text("serial"),
            firmware: text("firmware_rev"),
            transport: text("transport"),
            address: text("address"),
            controller_state: text("state"),
            numa_node: text("numa_node").parse(|text| parse_number(&text)),
            namespaces: blocks.iter().map(|block| NvmeNamespace::read(root, block)).collect(),
        }
    }
}

impl NvmeNamespace {
    fn read(root: &Root, name: &str) -> Self {
        let path = |file: &str| format!("/sys/block/{name}/{file}");
        Self {
            name: name.to_owned(),
            bytes: root.parse(&path("size"), |text| {
                // In sectors of 512 bytes, whatever the device's own are.
                let sectors: u64 = parse_number(text)?;
                sectors.checked_mul(512).ok_or_else(|| format!("{sectors} sectors are too many"))
            }),
            block_size: root.parse(&path("queue/logical_block_size"), parse_number),
            wwid: root.text(&path("wwid")),
        }
    }
}

/// `nvme0`, not `nvme-fabrics`.
fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(is_digits)
}

/// The block device of an entry in a controller's folder: `nvme0n1` as it stands, and with native multipath `nvme2c0n1`
/// (a path, hidden) for `nvme2n1`, which its subsystem owns.
fn block_device(controller: &str, entry: &str) -> Option<String> {
    let rest = entry.strip_prefix("nvme")?;
    let (head, namespace) = rest.split_once('n')?;
    if !is_digits(namespace) {
        return None;
    }
    match head.split_once('c') {
        None if format!("nvme{head}") == controller => Some(entry.to_owned()),
        Some((subsystem, path)) if is_digits(subsystem) && is_digits(path) => {
            Some(format!("nvme{subsystem}n{namespace}"))
        }
        _ => None,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_with_and_without_multipath() {
        assert_eq!(block_device("nvme0", "nvme0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(block_device("nvme1", "nvme0c1n2").as_deref(), Some("nvme0n2"));
        for entry in ["nvme1n1", "nvme0n1p1", "ng0n1", "hwmon1", "nvme0c0", "nvmecn1", "power"] {
            assert_eq!(block_device("nvme0", entry), None, "{entry}");
        }
    }

    #[test]
    fn one_controller_of_a_machine() {
        let dir = tempfile::tempdir().unwrap();
        let controller = dir.path().join("sys/class/nvme/nvme0");
        fs_err::create_dir_all(controller.join("nvme0n1")).unwrap();
        fs_err::create_dir_all(dir.path().join("sys/class/nvme/nvme-fabrics")).unwrap();
        fs_err::write(controller.join("model"), "QEMU NVMe Ctrl                          \n").unwrap();
        fs_err::write(controller.join("address"), "0000:00:04.0\n").unwrap();
        let block = dir.path().join("sys/block/nvme0n1");
        fs_err::create_dir_all(&block).unwrap();
        fs_err::write(block.join("size"), "18446744073709551615\n").unwrap();
        let all = NvmeController::read_all(&Root::at(dir.path()));
        let [nvme] = all.value().unwrap().as_slice() else { panic!("one controller") };
        assert_eq!(nvme.model.value().unwrap(), "QEMU NVMe Ctrl");
        assert_eq!(nvme.address.value().unwrap(), "0000:00:04.0");
        assert_eq!(nvme.namespaces[0].name, "nvme0n1");
        assert!(matches!(nvme.namespaces[0].bytes, Fact::Malformed { .. }));
        assert!(matches!(nvme.namespaces[0].block_size, Fact::Missing { .. }));
    }
}
