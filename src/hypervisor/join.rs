//! A guest's report and its host's, joined into one judgement: what the guest could not see, the host answers; what both see,
//! is compared. Reports that do not belong together are refused.

mod devices;
mod merge;
mod of_guest;
mod render;
#[cfg(test)]
mod tests;

use super::context::{Context, Hints};
use super::known::Known;
use super::machine::Machine;
use super::proxmox::{self, Mappings};
use super::{judge as vm_judge, qemu, source};
use crate::checks::check::Side;
use crate::checks::context::side_of;
use crate::checks::judge::{self, Judgement};
use crate::checks::waiver;
use crate::error::usage;
use crate::facts::Facts;
use anyhow::{Context as _, Result};
use devices::Matched;
use serde::Serialize;

pub use render::text;

/// A guest and its host, judged together.
#[derive(Clone, Debug, Serialize)]
pub struct Joined {
    /// The judgement, in the form of every other.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// What was joined.
    pub joined: Together,
}

/// What belongs together, and how that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Together {
    /// The UUID that both have; `None` where one of them does not say.
    pub uuid: Option<String>,
    /// The guest's devices and the host's.
    pub devices: Vec<Matched>,
    /// The pairs of a GPU and a controller.
    pub pairs: Vec<PairSeen>,
    /// What makes it less sure that they belong together.
    pub warnings: Vec<String>,
}

/// A pair as both sides see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PairSeen {
    /// The GPU's address in the guest.
    pub gpu: String,
    /// The controller's address in the guest.
    pub nvme: String,
    /// The guest's word; `?` where it cannot be seen.
    pub guest: String,
    /// The host's word.
    pub host: String,
}

/// The configuration of the guest, from what the host's report carries.
///
/// # Errors
/// It carries none, or one that cannot be read.
pub fn machine_of(host: &Known) -> Result<Machine> {
    let Some(vm) = host.facts.hosted.value() else {
        return Err(usage(
            format!("{} carries no virtual machine's configuration", host.from),
            "make it with `gdsboot-validator check --side host --vm VMID --report host.json`, or name the configuration with --config",
        ));
    };
    let mappings = Mappings::of_host(&host.facts);
    let from = format!("{}/{}.conf", proxmox::FOLDER, vm.vmid);
    source::read(&from, vm.conf.as_bytes(), Some(super::machine::Kind::Proxmox), &mappings)
        .with_context(|| format!("reading {}", host.from))
}

/// Joins them. `today` is the day on which waivers count, those of both reports, `YYYY-MM-DD`.
///
/// # Errors
/// They do not belong together: the reasons, all of them; [`crate::error::Status::Usage`].
pub fn join(guest: &Known, host: &Known, machine: &Machine, today: &str) -> Result<Joined> {
    let hints = Hints::default();
    let context = Context::new(machine, Some(&host.facts), &hints);
    let mut together = Together::default();
    let mut reasons = sides(guest, host);
    if reasons.is_empty() {
        reasons.extend(uuids(&guest.facts, machine, &mut together));
        reasons.extend(devices::matched(&guest.facts, &context, &mut together));
    }
    if !reasons.is_empty() {
        return Err(usage(
            format!("{} and {} do not belong together: {}", guest.from, host.from, reasons.join("; ")),
            "name the report of a guest, then the report of the host that it ran on, of one configuration",
        ));
    }
    times(guest, host, &mut together);
    changed(&host.facts, machine, &mut together);
    devices::pairs(&guest.facts, &context, &mut together);
    let of_guest = judge::judge(&guest.facts, Side::Guest, guest.bench.as_ref(), &guest.waive, today);
    let own = of_guest::reduced(&host.facts, machine, &together);
    let of_host = judge::judge(&own, Side::Host, None, &host.waive, today);
    let mut of_machine = vm_judge::findings(&context);
    for waivers in [&guest.waive, &host.waive] {
        waiver::apply(&mut of_machine, waivers, today);
    }
    let proven = guest.bench.as_ref().and_then(|bench| bench.proven());
    let findings = merge::merge(of_guest.findings, of_host.findings, of_machine, &together, proven.is_some());
    let verdict = if of_guest.simulated { of_guest.verdict } else { judge::verdict(&findings, proven) };
    let judgement = Judgement { verdict, findings, ..of_guest };
    Ok(Joined { judgement, joined: together })
}

/// Does the process that runs have the devices of the configuration? Proxmox keeps changes for the next start.
fn changed(host: &Facts, machine: &Machine, together: &mut Together) {
    let Some(words) = host.hosted.value().and_then(|vm| vm.command_line.value()) else { return };
    let Ok(running) = qemu::parse("its process", words.join("\0").as_bytes()) else { return };
    let missing = |machine: &Machine, other: &Machine| {
        let is_there = |address: &String| {
            let mut hosts = machine.passed.iter().flat_map(|passed| &passed.hosts);
            hosts.any(|host| address.starts_with(host.as_str()) || host.starts_with(address.as_str()))
        };
        // A mapping has alternatives, of which one is taken; a share of a device is not called by the device's address.
        let whole =
            other.passed.iter().filter(|passed| passed.mediated.is_none() && !passed.hosts.is_empty());
        whole
            .filter(|passed| !passed.hosts.iter().any(is_there))
            .find_map(|passed| passed.hosts.first().cloned())
    };
    if let Some(address) = missing(machine, &running).or_else(|| missing(&running, machine)) {
        together.warnings.push(format!(
            "the process that runs and the configuration have other devices ({address}): it was changed since the start"
        ));
    }
}

/// Is each what it is named as?
fn sides(guest: &Known, host: &Known) -> Vec<String> {
    let mut reasons = Vec::new();
    if side_of(&guest.facts) != Side::Guest {
        reasons.push(format!("{} is of no virtual machine", guest.from));
    }
    if side_of(&host.facts) == Side::Guest {
        reasons.push(format!("{} is of a virtual machine and of no hypervisor", host.from));
    }
    reasons
}

fn uuids(guest: &Facts, machine: &Machine, together: &mut Together) -> Option<String> {
    let own = guest.platform.uuid.value().map(|uuid| uuid.to_ascii_lowercase());
    match (own, &machine.uuid) {
        (Some(own), Some(configured)) if own == *configured => {
            together.uuid = Some(own);
            None
        }
        (Some(own), Some(configured)) => Some(format!(
            "the guest's UUID is {own}, and the configuration of {} has {configured}",
            machine.from
        )),
        (None, _) => {
            together.warnings.push("the guest's report has no UUID, which only root may read: they are joined by their devices alone".into());
            None
        }
        (_, None) => {
            together
                .warnings
                .push("the configuration has no UUID: they are joined by their devices alone".into());
            None
        }
    }
}

/// Reports of one run are made within a day, in seconds.
const APART: i64 = 24 * 3600;

fn times(guest: &Known, host: &Known, together: &mut Together) {
    let (Some(a), Some(b)) = (guest.at, host.at) else { return };
    let (a, b) = (i64::try_from(a.0).unwrap_or(i64::MAX), i64::try_from(b.0).unwrap_or(i64::MAX));
    let apart = a.saturating_sub(b).saturating_abs();
    if apart > APART {
        let days = apart / APART;
        together.warnings.push(format!(
            "the reports were made {days} days apart by the machines' clocks: what is in the machine may have changed"
        ));
    }
}
