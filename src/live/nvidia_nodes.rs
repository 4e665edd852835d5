//! The device nodes of NVIDIA's driver, which it leaves to a set-uid program or a udev rule (nvidia-modprobe's
//! numbering: major 195, minor 255 for nvidiactl, 254 for nvidia-modeset; nvidia-uvm's major is assigned).

use crate::facts::Root;
use crate::facts::nvidia::Nvidia;
use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// A character device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    path: String,
    major: u64,
    minor: u64,
}

/// Makes the nodes of what is in the kernel; those that are there stay. Returns how many there should be.
pub fn make(root: &Root) -> anyhow::Result<usize> {
    let devices = root.text("/proc/devices");
    let majors = devices.value().map_or("", String::as_str);
    let gpus = Nvidia::read(root).gpus;
    let minors: Vec<u32> =
        gpus.value().into_iter().flatten().filter_map(|gpu| gpu.minor.value().copied()).collect();
    let nodes = wanted(majors, &minors);
    for node in &nodes {
        let mode = Mode::from_bits_truncate(0o666);
        match mknod(node.path.as_str(), SFlag::S_IFCHR, mode, makedev(node.major, node.minor)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("making {}", node.path)),
        }
    }
    Ok(nodes.len())
}

/// What `/proc/devices` and the GPUs that the driver claims ask for.
fn wanted(devices: &str, minors: &[u32]) -> Vec<Node> {
    let characters = devices.split("Block devices:").next().unwrap_or_default();
    let major = |names: &[&str]| -> Option<u64> {
        let mut lines = characters.lines().filter_map(|line| line.trim().split_once(' '));
        lines.find(|(_, name)| names.contains(name))?.0.parse().ok()
    };
    let node = |name: String, major, minor| Node { path: format!("/dev/{name}"), major, minor };
    let mut nodes = Vec::new();
    // Older drivers register under one name, newer ones under two.
    if let Some(major) = major(&["nvidia", "nvidia-frontend"]) {
        nodes.push(node("nvidiactl".into(), major, 255));
        nodes.extend(minors.iter().map(|minor| node(format!("nvidia{minor}"), major, u64::from(*minor))));
    }
    if let Some(major) = major(&["nvidia-uvm"]) {
        nodes.push(node("nvidia-uvm".into(), major, 0));
        nodes.push(node("nvidia-uvm-tools".into(), major, 1));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_from_the_kernel() {
        let devices = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n511 nvidia-uvm\n\nBlock devices:\n254 virtblk\n";
        let shown: Vec<String> =
            wanted(devices, &[0, 3]).iter().map(|n| format!("{} {}:{}", n.path, n.major, n.minor)).collect();
        let expected = [
            "/dev/nvidiactl 195:255",
            "/dev/nvidia0 195:0",
            "/dev/nvidia3 195:3",
            "/dev/nvidia-uvm 511:0",
            "/dev/nvidia-uvm-tools 511:1",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn without_the_driver_there_are_none() {
        assert_eq!(wanted("Character devices:\n  1 mem\n\nBlock devices:\n195 nvidia\n", &[0]), []);
        assert_eq!(wanted("many nvidia\n", &[]), []);
        assert_eq!(wanted("", &[]), []);
    }
}
