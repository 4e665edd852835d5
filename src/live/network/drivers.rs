//! The drivers of network cards, loaded by modprobe(8) of the root: it knows which module a device wants, and what that
//! wants first. Where there is no root yet, the initramfs has loaded its own.

use crate::facts::Root;
use crate::program::{Run, Words};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};

const MODPROBE: &str = "/usr/sbin/modprobe";
/// A large driver with many queues takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads the driver of every network card that has none, as long as there is time.
///
/// # Errors
/// modprobe cannot be run. A driver that is not on the image, or that does not come to its end, is no error: there may be
/// another card.
pub fn load(root: &Root, deadline: Instant) -> Result<()> {
    if !Path::new(MODPROBE).exists() {
        return Ok(());
    }
    // A virtio card is a PCI device first; only its driver shows what it is.
    for bus in ["pci", "virtio"] {
        for alias in wanted(root, bus) {
            let left = deadline.saturating_duration_since(Instant::now());
            ask_for(MODPROBE, &alias, left.min(PATIENCE))?;
        }
    }
    Ok(())
}

/// Has one driver loaded, whatever becomes of it.
fn ask_for(program: &str, alias: &str, limit: Duration) -> Result<()> {
    let args = ["-q", "--", alias];
    let run = Run {
        program,
        args: &args,
        environment: &[],
        folder: None,
        limit,
        words: Words::Apart,
        daemon: true,
    };
    run.to_end().map(|_| ())
}

/// What the network cards of a bus that have no driver call themselves (`modalias` of sysfs).
fn wanted(root: &Root, bus: &str) -> Vec<String> {
    let folder = format!("/sys/bus/{bus}/devices");
    let devices = root.list(&folder);
    let devices = devices.value().into_iter().flatten();
    let mut aliases: Vec<String> = devices
        .filter_map(|device| {
            let word = |file: &str| root.text(&format!("{folder}/{device}/{file}")).value().cloned();
            if root.exists(&format!("{folder}/{device}/driver")) {
                return None;
            }
            let alias = word("modalias")?;
            // PCI: base class 2 is "network controller", subclass 0 Ethernet. virtio: device 1 is a network card.
            let is_card = match bus {
                "pci" => word("class")?.starts_with("0x0200"),
                _ => alias.starts_with("virtio:d00000001v"),
            };
            is_card.then_some(alias)
        })
        .collect();
    aliases.sort();
    aliases.dedup();
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cards_without_a_driver_want_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = dir.path().join("sys/bus").join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        for (device, class, alias) in [
            ("0000:00:03.0", "0x020000\n", "pci:v00008086d000010D3sv*\n"),
            ("0000:00:04.0", "0x020000\n", "pci:v00008086d000010D3sv*\n"),
            ("0000:00:05.0", "0x010802\n", "pci:v00001B36d00000010sv*\n"),
            ("0000:00:06.0", "0x020000\n", "pci:busy\n"),
        ] {
            file(&format!("pci/devices/{device}/class"), class);
            file(&format!("pci/devices/{device}/modalias"), alias);
        }
        file("pci/devices/0000:00:06.0/driver/x", "");
        file("virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n");
        file("virtio/devices/virtio1/modalias", "virtio:d00000002v00001AF4\n");
        let root = Root::at(dir.path());
        assert_eq!(wanted(&root, "pci"), ["pci:v00008086d000010D3sv*"]);
        assert_eq!(wanted(&root, "virtio"), ["virtio:d00000001v00001AF4"]);
    }

    #[test]
    fn a_driver_that_hangs_does_not_cost_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let nobody_writes = dir.path().join("pipe");
        nix::unistd::mkfifo(&nobody_writes, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let limit = Duration::from_millis(50);
        ask_for("tail", nobody_writes.to_str().unwrap(), limit).unwrap();
        ask_for("tail", "no/such/driver", limit).unwrap();
        let error = ask_for("no/such/modprobe", "x", limit).unwrap_err();
        assert!(format!("{error:#}").starts_with("running no/such/modprobe"), "{error:#}");
    }
}
