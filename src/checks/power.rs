//! What becomes of GPUs and NVMe controllers between two users: are they awake, and can they be reset?

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, Who};
use super::context::Context;
use super::devices::{if_failed, is_vfio};
use super::each::{Each, absent, each, unseen};
use super::host::is_a_strangers;
use super::said::{Line, find, with_lines};
use crate::facts::Fact;
use crate::facts::pci::PciDevice;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "device.power",
        title: "GPUs and NVMe controllers are awake",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Major,
        rationale: "A device that sleeps costs the first transfer some time, and some do not wake from D3cold: they then read \
                    as all ones.",
        references: &[
            "Documentation/ABI/testing/sysfs-bus-pci: power_state",
            "drivers/vfio/pci/vfio_pci_core.c: disable_idle_d3",
        ],
        covers: &["signature 10"],
        run: power,
    },
    Check {
        id: "host.reset-method",
        title: "the kernel can reset what is given away",
        sides: &[Side::Host],
        requires: &[],
        severity: Severity::Major,
        rationale: "A device that nothing resets comes to the next guest, or to the same guest at its second start, as the last \
                    one left it.",
        references: &[
            "Documentation/ABI/testing/sysfs-bus-pci: reset_method",
            "drivers/pci/pci.c: pci_reset_fn_methods",
        ],
        covers: &["signature 33"],
        run: reset_method,
    },
];

/// GPUs and NVMe controllers.
fn devices<'a>(context: &Context<'a>) -> Vec<&'a PciDevice> {
    [context.gpus(), context.nvmes()].concat()
}

fn is_given_away(device: &PciDevice) -> bool {
    device.driver.value().is_some_and(|driver| is_vfio(driver))
}

/// How kernels have worded it since 4.15.
const STUCK: &[&str] = &[
    "Refused to change power state, currently in D3",
    "can't change power state from D3*config space inaccessible",
    "change power state from D3cold to D0, device inaccessible",
];

fn power(context: &Context<'_>) -> Outcome {
    let all = devices(context);
    let stuck: Vec<Line<'_>> =
        find(context, STUCK).into_iter().filter(|line| !is_a_strangers(context, line.text)).collect();
    if !stuck.is_empty() {
        let outcome = Outcome::fail("a device did not wake from D3cold and cannot be reached")
            .remedy(Remedy::new(Who::Hardware, "switch the machine off and on: a restart may not be enough"))
            .remedy(keep_awake(context, all.first().map(|device| place(&device.address)).as_deref()));
        return with_lines(outcome, &stuck);
    }
    // Kernels before 5.11 show it of no device.
    let is_shown = |device: &&PciDevice| !matches!(device.power_state, Fact::Missing { .. });
    let shown: Vec<&PciDevice> = all.iter().copied().filter(is_shown).collect();
    if shown.is_empty() && !all.is_empty() {
        return Outcome::not_applicable("this kernel does not show power states");
    }
    let outcome = each(context, "GPU or NVMe controller", &shown, "awake", |device| {
        let control = device.power_control.value().map(|control| format!(", power/control {control}"));
        let control = control.unwrap_or_default();
        match &device.power_state {
            Fact::Known { value, .. } if value == "D0" => Each::Good,
            Fact::Known { value, .. } if value.starts_with("D3") => Each::Odd(match &device.driver {
                Fact::Known { value: driver, .. } if !is_vfio(driver) => {
                    format!(
                        "it sleeps ({value}{control}) until {driver} needs it, which costs the first transfer time"
                    )
                }
                _ => format!(
                    "it sleeps ({value}{control}) while nobody uses it; a few devices do not wake from that"
                ),
            }),
            Fact::Known { value, .. } => Each::Odd(format!("its power state is {value}{control}")),
            other => Each::Unseen(format!("its power state cannot be seen: {}", absent(other))),
        }
    });
    match outcome.answer {
        super::check::Answer::Note => {
            let first = outcome.evidence.first().map(|evidence| evidence.from.clone());
            outcome.remedy(keep_awake(context, first.as_deref()))
        }
        _ => outcome,
    }
}

/// A device's folder.
fn place(address: &str) -> String {
    format!("/sys/bus/pci/devices/{address}")
}

/// `device` is a device's folder.
fn keep_awake(context: &Context<'_>, device: Option<&str>) -> Remedy {
    if context.side == Side::Host {
        return Remedy::new(Who::Hypervisor, "if it does not wake, let vfio-pci keep idle devices awake")
            .command("echo 'options vfio-pci disable_idle_d3=1' > /etc/modprobe.d/vfio-power.conf")
            .command("update-initramfs -u -k all; reboot");
    }
    let remedy = Remedy::new(Who::Guest, "if it does not wake, keep it awake");
    match device {
        Some(device) => remedy.command(format!("echo on > {device}/power/control")),
        None => remedy,
    }
}

fn reset_method(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let given: Vec<&PciDevice> =
        devices(context).into_iter().filter(|device| is_given_away(device)).collect();
    // The file is there only where there is a method; that another device has it tells that this kernel shows it.
    let shown = context.pci().iter().any(|device| device.reset_methods.value().is_some());
    let outcome = each(context, "GPU or NVMe controller", &given, "has a way to be reset", |device| {
        match &device.reset_methods {
            Fact::Known { value, .. } if !value.is_empty() => Each::Good,
            Fact::Known { .. } => Each::Bad(without_reset(context, device)),
            Fact::Missing { .. } if shown => Each::Bad(without_reset(context, device)),
            other => Each::Unseen(format!("whether it can be reset cannot be seen: {}", absent(other))),
        }
    });
    // VFIO may still reset the whole bus below a port, and a guest that is started once needs no reset.
    if_failed(outcome, |failed| {
        let evidence = failed.evidence;
        let first = evidence.first().map_or("", |evidence| evidence.from.as_str());
        let slot = first
            .rsplit('/')
            .next()
            .and_then(|address| address.rsplit_once('.'))
            .map_or("", |(slot, _)| slot);
        let note = Outcome::note(failed.why)
            .remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    "give all functions of the device to one guest, so that VFIO can reset them together",
                )
                .command(format!("qm set VMID -hostpci0 {slot},pcie=1")),
            )
            .remedy(
                Remedy::new(
                    Who::Hypervisor,
                    "see what the kernel can do, and restart the host where nothing helps",
                )
                .command(format!("cat {first}/reset_method")),
            );
        Outcome { evidence, ..note }
    })
}

fn without_reset(context: &Context<'_>, device: &PciDevice) -> String {
    let others =
        context.pci().iter().filter(|other| other.slot() == device.slot() && other.address != device.address);
    let others: Vec<&PciDevice> = others.collect();
    if others.is_empty() {
        return "no method resets it: a guest's second start gets it as the first one left it".into();
    }
    if others.iter().all(|other| is_given_away(other)) {
        return "nothing resets it alone, but all its functions are given away and can be reset together"
            .into();
    }
    "nothing resets it alone, and not all its functions are given away: a guest's second start gets it as the first one \
     left it"
        .into()
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer::{Fail, NotApplicable, Note, Pass, Unknown};
    use super::super::testing::*;
    use super::*;
    use crate::facts::kernel_log::KernelLog;
    use crate::facts::log_lines::LogLines;

    #[test]
    fn what_sleeps_is_noted_and_what_does_not_wake_fails() {
        let mut facts = good(Side::Host);
        assert_eq!(answer("device.power", &facts, Side::Host), Pass);
        edit(&mut facts, GPU_AT, |gpu| {
            gpu.power_state = Fact::known("power_state", "D3cold".into());
            gpu.power_control = Fact::known("control", "auto".into());
        });
        let outcome = ask("device.power", &facts, Side::Host);
        assert_eq!(outcome.answer, Note);
        assert!(outcome.why.contains("(D3cold, power/control auto) while nobody uses it"), "{}", outcome.why);
        assert!(outcome.remedies[0].commands[0].contains("disable_idle_d3=1"));
        edit(&mut facts, GPU_AT, |gpu| gpu.driver = Fact::known("driver", "nvidia".into()));
        let outcome = ask("device.power", &facts, Side::Guest);
        assert!(outcome.why.contains("until nvidia needs it"), "{}", outcome.why);
        assert_eq!(
            outcome.remedies[0].commands,
            ["echo on > /sys/bus/pci/devices/0000:06:00.0/power/control"]
        );
        edit(&mut facts, GPU_AT, |gpu| gpu.power_state = Fact::known("power_state", "error".into()));
        assert!(ask("device.power", &facts, Side::BareMetal).why.contains("its power state is error"));
        edit(&mut facts, GPU_AT, |gpu| gpu.power_state = Fact::Denied { from: "power_state".into() });
        assert_eq!(answer("device.power", &facts, Side::Host), Unknown);
        for address in [GPU_AT, NVME_AT] {
            edit(&mut facts, address, |d| d.power_state = Fact::Missing { from: "power_state".into() });
        }
        assert_eq!(answer("device.power", &facts, Side::Host), NotApplicable);
        let line =
            "vfio-pci 0000:06:00.0: Unable to change power state from D3cold to D0, device inaccessible";
        let log = LogLines { from: "/dev/kmsg".into(), lines: vec![line.into()], ..LogLines::default() };
        facts.kernel_log = Fact::known("/dev/kmsg", KernelLog { sources: vec![log] });
        assert_eq!(answer("device.power", &facts, Side::Host), Fail);
    }

    #[test]
    fn what_nothing_resets_is_noted_on_the_host() {
        let mut facts = good(Side::Host);
        assert_eq!(answer("host.reset-method", &facts, Side::Host), Pass);
        let missing = || Fact::Missing { from: "reset_method".into() };
        edit(&mut facts, GPU_AT, |gpu| gpu.reset_methods = missing());
        let outcome = ask("host.reset-method", &facts, Side::Host);
        assert_eq!(outcome.answer, Note);
        assert!(outcome.why.contains("second start gets it"), "{}", outcome.why);
        assert_eq!(outcome.remedies[0].commands, ["qm set VMID -hostpci0 0000:06:00,pcie=1"]);
        // A GPU's audio function: reset together, where it is given away too.
        add(&mut facts, 0x04_0300, "10de:22ba", "0000:00:1c.3/0000:04:00.0/0000:05:00.0/0000:06:00.1");
        assert!(ask("host.reset-method", &facts, Side::Host).why.contains("not all its functions"));
        edit(&mut facts, "0000:06:00.1", |audio| audio.driver = Fact::known("driver", "vfio-pci".into()));
        assert!(ask("host.reset-method", &facts, Side::Host).why.contains("can be reset together"));
        // A kernel that shows it for no device, and a device that stays.
        edit(&mut facts, NVME_AT, |nvme| nvme.reset_methods = missing());
        assert_eq!(answer("host.reset-method", &facts, Side::Host), Unknown);
        for address in [GPU_AT, NVME_AT] {
            edit(&mut facts, address, |device| device.driver = Fact::Missing { from: "driver".into() });
        }
        assert_eq!(answer("host.reset-method", &facts, Side::Host), NotApplicable);
    }
}
