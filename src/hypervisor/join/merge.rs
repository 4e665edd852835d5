//! One list of findings from three: the guest's checks, the host's, and the configuration's rules.

use super::Together;
use crate::checks::check::{Evidence, Finding, Severity, Status};
use crate::checks::judge::sort;

/// The host's checks whose silence answers the guest's question whether the host has anything to say.
const MESSAGES: [&str; 4] =
    ["host.group-viable", "host.memory-lock", "host.bar-mapping", "host.iommu-faults"];
/// What the ids of checks begin with that look at GPUs and drives as whoever works with them sees them. Errors on their links are
/// not among these: the real ports count them, and those are the host's.
const OF_DEVICES: [&str; 4] = ["gpu.", "nvme.", "storage.", "device."];
const HOST_MESSAGES: &str = "vm.host-messages";

/// Is something said by it?
fn is_told(status: Status) -> bool {
    matches!(status, Status::Pass | Status::Fail | Status::Info | Status::Waived)
}

/// Puts them together: what the guest left open is answered, and what fails on one side fails. Where transfers by DMA were
/// proven, what the host and the configuration lack costs speed at most.
pub fn merge(
    guest: Vec<Finding>,
    mut host: Vec<Finding>,
    mut machine: Vec<Finding>,
    together: &Together,
    is_proven: bool,
) -> Vec<Finding> {
    seen_together(&mut machine, together);
    if is_proven {
        for finding in host.iter_mut().chain(&mut machine).filter(|finding| finding.status == Status::Fail) {
            finding.severity = finding.severity.max(Severity::Minor);
        }
    }
    let mut merged: Vec<Finding> = Vec::new();
    for finding in guest {
        let take = |findings: &mut Vec<Finding>| {
            let at = findings.iter().position(|other| other.id == finding.id)?;
            Some(findings.remove(at))
        };
        let configured = take(&mut machine);
        let seen = host.iter().find(|other| other.id == finding.id);
        merged.push(answered(finding, configured, seen));
    }
    // What only the configuration or only the host can show.
    let is_new = |finding: &Finding, merged: &[Finding]| !merged.iter().any(|other| other.id == finding.id);
    for finding in machine {
        if is_new(&finding, &merged) {
            merged.push(Finding { why: format!("the configuration: {}", finding.why), ..finding });
        }
    }
    for finding in host {
        if is_new(&finding, &merged) && !OF_DEVICES.iter().any(|kind| finding.id.starts_with(kind)) {
            merged.push(Finding { why: format!("on the host: {}", finding.why), ..finding });
        }
    }
    consequence(&mut merged, "topology.p2pdma", "vm.topology");
    messages(&mut merged);
    sort(&mut merged);
    merged
}

/// A guest's finding with what the configuration and the host say of the same.
fn answered(guest: Finding, configured: Option<Finding>, host: Option<&Finding>) -> Finding {
    let told = |other: &Finding| is_told(other.status);
    if let Some(configured) = configured.filter(told) {
        let is_worse = configured.status == Status::Fail && guest.status != Status::Fail;
        // Whether something was proven in spite of it is the guest's to say.
        let is_open = matches!(guest.status, Status::Unknown | Status::NotApplicable | Status::Info);
        if is_open || (is_worse && guest.status != Status::Pass) {
            let mut evidence = configured.evidence;
            evidence.extend(guest.evidence);
            return Finding { why: format!("the configuration: {}", configured.why), evidence, ..configured };
        }
        return guest;
    }
    // The guest's own devices are judged by the guest: the host has given them away.
    let is_device = OF_DEVICES.iter().any(|kind| guest.id.starts_with(kind));
    let is_open = matches!(guest.status, Status::Unknown | Status::NotApplicable) && !is_device;
    match host.filter(|host| is_open && told(host)) {
        Some(host) => Finding { why: format!("on the host: {}", host.why), ..host.clone() },
        None => guest,
    }
}

/// The rule on the tree, by what both sides really see.
fn seen_together(machine: &mut [Finding], together: &Together) {
    let Some(finding) = machine.iter_mut().find(|finding| finding.id == "vm.topology") else { return };
    let is_near = |word: &str| matches!(word, "PIX" | "PXB");
    let words = |pair: &super::PairSeen| format!("guest {}, host {}", pair.guest, pair.host);
    let evidence = together
        .pairs
        .iter()
        .map(|pair| Evidence::new(format!("{} and {}", pair.gpu, pair.nvme), words(pair)));
    finding.evidence.extend(evidence);
    let apart =
        together.pairs.iter().find(|pair| is_near(&pair.host) && !is_near(&pair.guest) && pair.guest != "?");
    if let (Some(pair), Status::Fail) = (apart, finding.status) {
        finding.why = format!(
            "the guest sees {} for {} and {}; the host has them below one switch ({})",
            pair.guest, pair.gpu, pair.nvme, pair.host
        );
    }
    let changed = apart.is_none() && finding.status == Status::Fail && !together.pairs.is_empty();
    if changed {
        finding.why = format!(
            "{}; the guest that was seen had another tree: the configuration was changed since",
            finding.why
        );
    }
}

/// What the guest saw fail follows from what the host shows: one cause is one line.
fn consequence(findings: &mut [Finding], id: &str, cause: &str) {
    let fails = |f: &Finding| f.status == Status::Fail;
    if findings.iter().any(|f| f.id == cause && fails(f))
        && let Some(finding) = findings.iter_mut().find(|f| f.id == id && fails(f))
    {
        finding.status = Status::Skip;
        finding.because = Some(cause.to_owned());
    }
}

/// Has the host anything to say against transfers? Its own checks have looked.
fn messages(findings: &mut [Finding]) {
    let of: Vec<(String, Status)> = findings
        .iter()
        .filter(|finding| MESSAGES.contains(&finding.id.as_str()))
        .map(|finding| (finding.id.clone(), finding.status))
        .collect();
    let Some(open) = findings.iter_mut().find(|f| f.id == HOST_MESSAGES && f.status == Status::Unknown)
    else {
        return;
    };
    if let Some((id, _)) = of.iter().find(|(_, status)| *status == Status::Fail) {
        open.status = Status::Skip;
        open.because = Some(id.clone());
    } else if of.len() == MESSAGES.len() && of.iter().all(|(_, status)| *status == Status::Pass) {
        open.status = Status::Pass;
        open.why = "on the host: its log says nothing against transfers between the devices".into();
        open.remedy.clear();
    }
}
