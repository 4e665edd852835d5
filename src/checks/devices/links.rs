//! The links of GPUs and NVMe controllers: their lanes, their speed, their errors.

use super::if_failed;
use crate::checks::check::{Answer, Outcome, Remedy, Side, Who};
use crate::checks::context::Context;
use crate::checks::each::{Each, absent, each};
use crate::checks::said::{Line, repeated, with_lines};
use crate::facts::Fact;
use crate::facts::pci::PciDevice;
use crate::topology::place::Places;

/// The generation of a link that the kernel words as `32.0 GT/s PCIe`, in tenths of GT/s.
pub(super) fn tenths(speed: &str) -> Option<u32> {
    let (whole, tenth) = speed.split_whitespace().next()?.split_once('.')?;
    whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenth.parse().ok()?)
}

/// Links are judged by the device's own words. A guest's port is made up, so that it is no measure there.
pub(super) fn link(context: &Context<'_>, name: &str, devices: &[&PciDevice], judge_speed: bool) -> Outcome {
    let places = Places::new(context.facts);
    let outcome = each(context, name, devices, "full width", |device| {
        let (Some(&now), Some(&most)) = (device.link_width.value(), device.link_width_max.value()) else {
            return Each::Unseen(format!("its link: {}", absent(&device.link_width)));
        };
        // 0 is no link, and 255 what a device that is gone answers.
        if now == 0 || most == 0 || now > 32 || most > 32 {
            return Each::Unseen(format!("its link says x{now} of x{most}"));
        }
        let port = match context.side {
            Side::Guest => None,
            _ => places.of(device).and_then(|place| places.device(place.bridges.last()?)),
        };
        let port_width = port.and_then(|port| port.link_width_max.value()).copied().filter(|w| *w > 0);
        if now < most.min(port_width.unwrap_or(most)) {
            return Each::Bad(format!("its link has {now} lanes of {most}"));
        }
        let speed = |fact: &Fact<String>| fact.value().and_then(|text| tenths(text));
        let most_speed = speed(&device.link_speed_max);
        let possible =
            [most_speed, port.and_then(|port| speed(&port.link_speed_max))].into_iter().flatten().min();
        let slow = speed(&device.link_speed).zip(possible).is_some_and(|(now, possible)| now < possible);
        let words = || format!("its link runs at {} of {}", device.link_speed, device.link_speed_max);
        if slow && judge_speed && context.side != Side::Guest {
            Each::Bad(words())
        } else if slow && judge_speed {
            Each::Odd(format!("{}, which may be the slot's limit", words()))
        } else if slow {
            Each::Odd(format!("{}; an idle GPU lowers its speed", words()))
        } else if now < most {
            Each::Odd(format!("its slot has {now} lanes, the device {most}"))
        } else {
            Each::Good
        }
    });
    if_failed(outcome, |outcome| {
        outcome
            .remedy(Remedy::new(
                Who::Hardware,
                "reseat the device, check the riser and its cables, and use a slot with all lanes",
            ))
            .remedy(Remedy::new(Who::Bios, "check the slot's bifurcation and link speed settings"))
    })
}

/// So many errors that the link repaired are no accident.
const STORM: u64 = 1000;
/// So many lines of them in a log, where the kernel's counters are not there; it does not log each of them.
const STORM_LINES: u64 = 50;

pub(super) fn aer_counters(context: &Context<'_>) -> Outcome {
    let devices: Vec<&PciDevice> = context.gpus().into_iter().chain(context.nvmes()).collect();
    let outcome = each(context, "device", &devices, "no errors", |device| match &device.aer {
        Fact::Known { value, .. }
            if value.fatal.saturating_add(value.nonfatal) == 0 && value.correctable >= STORM =>
        {
            Each::Bad(format!(
                "its link had to repair {} errors since the kernel started{}",
                value.correctable,
                value
                    .named
                    .iter()
                    .max_by_key(|(_, count)| *count)
                    .map_or_else(String::new, |(name, count)| { format!(", {count} of them {name}") })
            ))
        }
        Fact::Known { value, .. } if value.fatal.saturating_add(value.nonfatal) > 0 => Each::Bad(format!(
            "{} fatal and {} other uncorrectable errors since the kernel started",
            value.fatal, value.nonfatal
        )),
        Fact::Known { value, .. } if value.correctable > 0 => {
            Each::Odd(format!("{} errors that the link repaired", value.correctable))
        }
        Fact::Known { .. } => Each::Good,
        Fact::Missing { .. } if device.config.value().is_some_and(|c| c.sees_capabilities() && !c.aer) => {
            Each::Odd("it does not report errors".into())
        }
        other => Each::Unseen(format!("its error counters: {}", absent(other))),
    });
    let (said, times) = link_errors(context, &devices);
    let is_lost = said.iter().any(|line| line.text.contains("severity=Uncorrect"));
    let outcome = if outcome.answer != Answer::Fail && (is_lost || times >= STORM_LINES) {
        Outcome::fail(format!("the kernel logged {times} errors on the links of GPUs or NVMe controllers"))
    } else {
        outcome
    };
    let outcome = with_lines(outcome, &said);
    if_failed(outcome, |outcome| {
        outcome.expected("0 errors").remedy(Remedy::new(
            Who::Hardware,
            "reseat the device, check riser and cables, and try a slower link in the firmware's settings",
        ))
    })
}

/// What the kernel logged of errors on the devices' links or on the ports above them, and how often.
fn link_errors<'a>(context: &Context<'a>, devices: &[&PciDevice]) -> (Vec<Line<'a>>, u64) {
    let places = Places::new(context.facts);
    let above = devices.iter().filter_map(|device| places.of(device)?.bridges.last().cloned());
    let ours: Vec<String> = devices.iter().map(|device| device.address.clone()).chain(above).collect();
    repeated(context, &["PCIe Bus Error: severity="], |text| {
        ours.iter().any(|address| text.contains(address.as_str()))
            || (devices.is_empty() && (text.contains("nvidia ") || text.contains("nvme ")))
    })
}
