//! GPUs and NVMe drives: which one of the first run is which of the second, and what is different about it.

use super::{Area, Aspect};
use crate::facts::Facts;
use crate::facts::pci::PciDevice;
use crate::report::layout::binary_size;
use crate::report::model::Report;
use std::collections::HashMap;

/// A GPU or a drive in one run.
#[derive(Debug, Default)]
struct Device {
    kind: &'static str,
    /// Its PCI address.
    address: String,
    /// Names that programs use: `nvme0`, `nvme0n1`.
    names: Vec<String>,
    /// What no other device has: a UUID, a serial number.
    identity: Option<String>,
    /// What a driver, or the drive itself, calls it.
    model: Option<String>,
    /// Its PCI ids, which need no driver.
    ids: Option<String>,
    /// What else is known of it.
    words: Vec<(&'static str, String)>,
}

/// What the devices of one run are called in the comparison.
#[derive(Debug, Default)]
pub struct Names {
    by_address: HashMap<String, String>,
    by_name: HashMap<String, String>,
}

impl Names {
    /// Of both runs. A device keeps the name that it has in the first.
    pub fn of(before: &Report, after: &Report) -> (Self, Self) {
        let (old, new) = (devices(&before.facts), devices(&after.facts));
        let (mut of_old, mut of_new) = (Self::default(), Self::default());
        old.iter().for_each(|device| of_old.take(device, name(device)));
        let mut taken = vec![false; old.len()];
        let mut matched: Vec<Option<usize>> = vec![None; new.len()];
        // Those that are known by their identity first: another device may stand at their old address.
        type Same = fn(&Device, &Device) -> bool;
        let by_identity: Same = |a, b| a.identity.is_some() && a.identity == b.identity;
        let by_address: Same = |a, b| {
            let may_be = a.identity.is_none() || b.identity.is_none();
            let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
            may_be && a.address == b.address && agree(&a.ids, &b.ids) && agree(&a.model, &b.model)
        };
        for same in [by_identity, by_address] {
            for (device, matched) in new.iter().zip(&mut matched) {
                let free = |(index, other): &(usize, &Device)| {
                    !taken[*index] && other.kind == device.kind && same(other, device)
                };
                if matched.is_none()
                    && let Some((index, _)) = old.iter().enumerate().find(free)
                {
                    *matched = Some(index);
                    taken[index] = true;
                }
            }
        }
        for (device, matched) in new.iter().zip(matched) {
            of_new.take(device, matched.map_or_else(|| name(device), |index| name(&old[index])));
        }
        (of_old, of_new)
    }

    fn take(&mut self, device: &Device, name: String) {
        for known in &device.names {
            self.by_name.insert(known.clone(), name.clone());
        }
        self.by_address.insert(device.address.clone(), name);
    }

    /// What the device at a PCI address is called.
    pub fn of_address<'a>(&'a self, address: &'a str) -> &'a str {
        self.by_address.get(address).map_or(address, String::as_str)
    }

    /// What a drive is called that programs call `name`.
    pub fn of_drive<'a>(&'a self, name: &'a str) -> &'a str {
        self.by_name.get(name).map_or(name, String::as_str)
    }
}

/// The name that programs use, and the identity's beginning: a drive's number changes with the slots of others.
fn name(device: &Device) -> String {
    let first = device.names.first().unwrap_or(&device.address);
    let identity =
        device.identity.as_deref().map_or("", |identity| identity.strip_prefix("GPU-").unwrap_or(identity));
    let short: String = identity.chars().take(16).collect();
    match short.is_empty() {
        true => format!("{} {first}", device.kind),
        false => format!("{} {first} ({short})", device.kind),
    }
}

fn devices(facts: &Facts) -> Vec<Device> {
    let mut all = Vec::new();
    let driver = facts.nvidia.gpus.value().map_or(&[][..], Vec::as_slice);
    for pci in facts.pci.value().into_iter().flatten().filter(|device| device.is_nvidia_gpu()) {
        let more = driver.iter().find(|gpu| gpu.address.eq_ignore_ascii_case(&pci.address));
        let uuid = more.and_then(|gpu| gpu.uuid.value()).filter(|uuid| !uuid.contains('?'));
        let mut device = Device {
            kind: "GPU",
            address: pci.address.clone(),
            names: Vec::new(),
            identity: uuid.cloned(),
            model: more.and_then(|gpu| gpu.model.value().cloned()),
            ids: Some(pci.ids()),
            words: of_pci(pci),
        };
        let firmware = more.and_then(|gpu| gpu.firmware.value()).filter(|version| *version != "N/A");
        device.words.extend(firmware.map(|version| ("GSP firmware", version.clone())));
        let bios = more.and_then(|gpu| gpu.video_bios.value()).filter(|version| !version.contains('?'));
        device.words.extend(bios.map(|version| ("video BIOS", version.clone())));
        all.push(device);
    }
    for nvme in facts.nvme.value().into_iter().flatten() {
        let Some(address) = nvme.address.value() else { continue };
        let pci = facts.pci.value().into_iter().flatten().find(|device| device.address == *address);
        let mut names = vec![nvme.name.clone()];
        names.extend(nvme.namespaces.iter().map(|namespace| namespace.name.clone()));
        let mut device = Device {
            kind: "NVMe",
            address: address.clone(),
            names,
            identity: nvme
                .serial
                .value()
                .map(|serial| serial.trim().to_owned())
                .filter(|serial| !serial.is_empty()),
            model: nvme.model.value().map(|model| model.trim().to_owned()),
            ids: pci.map(PciDevice::ids),
            words: pci.map(of_pci).unwrap_or_default(),
        };
        device.words.extend(nvme.firmware.value().map(|version| ("firmware", version.trim().to_owned())));
        let bytes: u64 = nvme.namespaces.iter().filter_map(|namespace| namespace.bytes.value()).sum();
        device.words.push(("namespaces", format!("{}, {}", nvme.namespaces.len(), binary_size(bytes))));
        device.words.extend(nvme.controller_state.value().map(|state| ("state", state.clone())));
        all.push(device);
    }
    all
}

/// The speed of a link now says little: idle devices lower it. Its width does not change by itself.
fn of_pci(pci: &PciDevice) -> Vec<(&'static str, String)> {
    let mut words = Vec::new();
    let mut word = |what, value: Option<String>| words.extend(value.map(|value| (what, value)));
    word("driver", pci.driver.value().cloned());
    word("link width", pci.link_width.value().map(|width| format!("x{width}")));
    word("most link width", pci.link_width_max.value().map(|width| format!("x{width}")));
    word("most link speed", pci.link_speed_max.value().cloned());
    word("NUMA node", pci.numa_node.value().map(ToString::to_string));
    word("IOMMU group", pci.iommu_group.value().map(ToString::to_string));
    let bars = pci.bars.value().into_iter().flatten().filter(|bar| bar.size > 0);
    let bars: Vec<String> = bars.map(|bar| format!("BAR{} {}", bar.index, binary_size(bar.size))).collect();
    word("BARs", (!bars.is_empty()).then(|| bars.join(", ")));
    words
}

/// All that is known of a run's devices.
pub fn aspects(report: &Report, names: &Names) -> Vec<Aspect> {
    let mut all = Vec::new();
    for device in devices(&report.facts) {
        let name = names.of_address(&device.address);
        let mut push = |what: &str, value: &str| all.push(Aspect::new(Area::Devices, what, value));
        push(name, device.model.as_deref().or(device.ids.as_deref()).unwrap_or("present"));
        push(&format!("{name}, address"), &device.address);
        for (what, value) in &device.words {
            push(&format!("{name}, {what}"), value);
        }
    }
    // Links at their fastest, which the benchmark saw.
    for measurement in report.benchmark.iter().flat_map(|bench| &bench.measurements) {
        let gpu = measurement.gpu.as_deref().map(|gpu| names.of_address(gpu));
        let drive = measurement.drive.as_deref().map(|drive| names.of_drive(drive));
        let links = [(gpu, measurement.state.gpu_link), (drive, measurement.state.drive_link)];
        for (name, link) in links.into_iter().filter_map(|(name, link)| Some((name?, link?))) {
            let what = format!("{name}, link under load");
            // The first measurements may have woken it up.
            let value = format!("{} GT/s x{}", link.speed, link.width);
            match all.iter_mut().find(|aspect| aspect.what == what) {
                Some(aspect) => aspect.value = value,
                None => all.push(Aspect::new(Area::Devices, what, value)),
            }
        }
    }
    all
}
