//! One rule over several devices: one that breaks it fails the check, one that cannot be seen leaves it open.

use super::check::{Answer, Outcome, Remedy, Severity, Who};
use super::context::Context;
use crate::facts::Fact;
use crate::facts::pci::{NVIDIA, PciDevice};
use std::cell::Cell;
use std::collections::BTreeSet;

/// What a rule says of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Each {
    /// All is as it should be.
    Good,
    /// It is not, and what is there instead.
    Bad(String),
    /// Nothing to mend, but worth knowing.
    Odd(String),
    /// It cannot be seen.
    Unseen(String),
}

/// Why nothing can be said of any device, where that is so.
pub fn unseen(context: &Context<'_>) -> Option<Outcome> {
    match &context.facts.pci {
        Fact::Known { .. } => None,
        other => {
            Some(Outcome::unknown(format!("PCI devices cannot be seen: {}", other.as_ref().map(|_| ""))))
        }
    }
}

/// Judges every device. `name` is what one of them is called, `good` what is to be said when all are well.
pub fn each(
    context: &Context<'_>,
    name: &str,
    devices: &[&PciDevice],
    good: &str,
    judge: impl Fn(&PciDevice) -> Each,
) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    if devices.is_empty() {
        return Outcome::not_applicable(format!("there is no {name}"));
    }
    let (mut bad, mut odd, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for device in devices {
        let address = &device.address;
        match judge(device) {
            Each::Good => {}
            Each::Bad(why) => bad.push((address, why)),
            Each::Odd(why) => odd.push((address, why)),
            Each::Unseen(why) => unseen.push((address, why)),
        }
    }
    let (outcome, told): (fn(String) -> Outcome, _) = if !bad.is_empty() {
        (Outcome::fail, bad)
    } else if !unseen.is_empty() {
        (Outcome::unknown, unseen)
    } else if !odd.is_empty() {
        (Outcome::note, odd)
    } else {
        return Outcome::pass(format!("{good}, {} of {}", devices.len(), devices.len()));
    };
    // One sentence: the first in full, the others by number; all of them are in the evidence.
    let more = match told.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let mut outcome = outcome(format!("{name} {}: {}{more}", told[0].0, told[0].1));
    for (address, why) in told {
        outcome = outcome.evidence(format!("/sys/bus/pci/devices/{address}"), why);
    }
    outcome
}

/// The same for devices that do without each other: where one of them is well, the failure of the rest weighs only
/// `lighter`.
pub fn each_alone(
    context: &Context<'_>,
    name: &str,
    devices: &[&PciDevice],
    good: &str,
    lighter: Severity,
    judge: impl Fn(&PciDevice) -> Each,
) -> Outcome {
    let is_one_well = Cell::new(false);
    let outcome = each(context, name, devices, good, |device| {
        let judged = judge(device);
        is_one_well.set(is_one_well.get() || judged == Each::Good);
        judged
    });
    if outcome.answer == Answer::Fail && is_one_well.get() { outcome.partial(lighter) } else { outcome }
}

/// Gives the GPUs to vfio-pci from the start, with all their functions: those that are seen, else those that the command
/// finds where it is run. NVSwitches are bridges and are not meant.
pub fn to_vfio(context: &Context<'_>, text: &str) -> Remedy {
    let gpus = context.gpus();
    let of_gpus = context.pci().iter().filter(|device| {
        device.vendor.value() == Some(&NVIDIA)
            && device.device.value().is_some()
            && gpus.iter().any(|gpu| gpu.slot() == device.slot())
    });
    let ids: BTreeSet<String> = of_gpus.map(PciDevice::ids).collect();
    let ids = if ids.is_empty() {
        format!("$(lspci -n -d {NVIDIA}: | awk '$2 !~ /^06/ {{print $3}}' | sort -u | paste -sd,)")
    } else {
        ids.into_iter().collect::<Vec<_>>().join(",")
    };
    Remedy::new(Who::Hypervisor, text)
        .command(format!("echo \"options vfio-pci ids={ids}\" > /etc/modprobe.d/vfio.conf"))
        .command("echo 'softdep nvidia pre: vfio-pci' >> /etc/modprobe.d/vfio.conf")
        .command("echo 'softdep nouveau pre: vfio-pci' >> /etc/modprobe.d/vfio.conf")
        .command("echo 'softdep snd_hda_intel pre: vfio-pci' >> /etc/modprobe.d/vfio.conf")
        .command("update-initramfs -u -k all && reboot")
}

/// A size as people say it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0x4000_0000.. if bytes & 0x3fff_ffff == 0 => format!("{} GiB", bytes >> 30),
        0x4000_0000.. => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

/// Why a fact has no value, for a sentence.
pub fn absent<T>(fact: &Fact<T>) -> String {
    fact.as_ref().map(|_| "known").to_string()
}
