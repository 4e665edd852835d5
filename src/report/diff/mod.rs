//! What changed between two runs: verdict, findings, versions, settings, devices, topology, and performance where it changed
//! by more than noise.
//!
//! Each side becomes a list of named words ([`Aspect`]); what stands under the same name and is not the same is a change.
//! Names of devices are those of the first run, so that a device that moved is one that moved, and not two others.

mod devices;
mod performance;
mod text;

pub use performance::{CPU_LEAST, Samples};
pub use text::lines;

use super::findings::severity_word;
use super::model::Report;
use crate::checks::check::Status;
use crate::facts::Fact;
use crate::topology::Topology;
use crate::topology::p2pdma::P2pdma;
use devices::Names;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Display;

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The outcome.
    Verdict,
    /// What a check says.
    Findings,
    /// Which machine it is.
    Machine,
    /// Versions.
    Pins,
    /// What the run, the kernel and cuFile were told.
    Settings,
    /// GPUs and NVMe drives.
    Devices,
    /// How far devices are apart.
    Topology,
    /// What was measured.
    Performance,
}

/// Something that is not the same in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What it is about.
    pub area: Area,
    /// Its name.
    pub what: String,
    /// In the first run; `None` where it has none.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
    /// Why the second run says so; the first, where the second does not say it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// By how much a figure changed, in percent of the first run's. Whether that is more than noise goes by the mean of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// What would still have been noise, in percent of the mean of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_percent: Option<f64>,
}

/// One of the two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Where it was read.
    pub place: String,
    /// Which run it is.
    pub run_id: String,
    /// When it began.
    pub started: super::utc::Utc,
    /// Its verdict, and whether it is simulated.
    pub verdict: String,
    /// False where it was cut off: what it lacks was not reached.
    pub complete: bool,
}

/// Two runs, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// The first.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// What changed, by area.
    pub changes: Vec<Change>,
    /// Measurements that were compared, and are the same but for noise.
    pub within_noise: usize,
}

/// A run to be compared: where it was read, its report, and its raw samples where it has any.
#[derive(Debug)]
pub struct Compared<'a> {
    /// Where it was read.
    pub place: String,
    /// Its report.
    pub report: &'a Report,
    /// How much its measurements varied.
    pub samples: Samples,
}

/// Something by name, in one run.
struct Aspect {
    area: Area,
    what: String,
    value: String,
    /// The value where it is a size that is a little different each time: what is [`NEAR`] is the same.
    size: Option<f64>,
    why: Option<String>,
}

/// So much of a size comes and goes from one boot to the next: the kernel and the firmware take a little more or less.
const NEAR: f64 = 0.01;

impl Aspect {
    fn new(area: Area, what: impl Into<String>, value: impl Display) -> Self {
        Self { area, what: what.into(), value: value.to_string(), size: None, why: None }
    }

    fn is_the_same(&self, other: &Self) -> bool {
        let near = |(a, b): (f64, f64)| (a - b).abs() <= NEAR * a.max(b);
        self.value == other.value || self.size.zip(other.size).is_some_and(near)
    }
}

/// Compares two runs.
pub fn diff(before: &Compared<'_>, after: &Compared<'_>) -> Diff {
    let (old, new) = Names::of(before.report, after.report);
    let mut changes = compare(aspects(before.report, &old), aspects(after.report, &new));
    let (measured, within_noise) = performance::compare((before, &old), (after, &new));
    changes.extend(measured);
    changes.sort_by_key(|change| change.area);
    Diff { before: side(before), after: side(after), changes, within_noise }
}

fn side(run: &Compared<'_>) -> Side {
    let Compared { place, report, .. } = run;
    Side {
        place: place.clone(),
        run_id: report.run_id.clone(),
        started: report.started,
        verdict: report.verdict_words(),
        complete: report.complete,
    }
}

/// What is in one list and not the same in the other, in the order of the second, then of the first.
fn compare(before: Vec<Aspect>, after: Vec<Aspect>) -> Vec<Change> {
    let mut left: BTreeMap<(Area, String), Aspect> = BTreeMap::new();
    let mut order = Vec::new();
    for aspect in before {
        let key = (aspect.area, aspect.what.clone());
        order.push(key.clone());
        left.insert(key, aspect);
    }
    let mut changes = Vec::new();
    for aspect in after {
        let old = left.remove(&(aspect.area, aspect.what.clone()));
        if old.as_ref().is_some_and(|old| old.is_the_same(&aspect)) {
            continue;
        }
        let Aspect { area, what, value, why, .. } = aspect;
        let before = old.map(|old| old.value);
        changes.push(Change {
            area,
            what,
            before,
            after: Some(value),
            why,
            percent: None,
            noise_percent: None,
        });
    }
    for key in order {
        let Some(Aspect { area, what, value, why, .. }) = left.remove(&key) else { continue };
        let before = Some(value);
        changes.push(Change { area, what, before, after: None, why, percent: None, noise_percent: None });
    }
    changes
}

fn aspects(report: &Report, names: &Names) -> Vec<Aspect> {
    let mut all = vec![
        Aspect::new(Area::Verdict, "verdict", report.verdict_words()),
        Aspect::new(Area::Verdict, "route", report.route),
    ];
    if !report.complete {
        all.push(Aspect::new(Area::Verdict, "end", "cut off"));
    }
    all.extend(findings(report));
    all.extend(machine(report));
    all.extend(pins(report));
    all.extend(settings(report));
    all.extend(devices::aspects(report, names));
    all.extend(topology(report, names));
    all
}

/// What passes or does not apply is as good as a check that this version does not have.
fn findings(report: &Report) -> impl Iterator<Item = Aspect> {
    let counts = report.findings.iter().filter(|f| !matches!(f.status, Status::Pass | Status::NotApplicable));
    counts.map(|finding| {
        let status = match finding.status {
            Status::Pass => "pass",
            Status::Fail => "fail",
            Status::Info => "note",
            Status::Skip => "skipped",
            Status::NotApplicable => "not applicable",
            Status::Unknown => "unknown",
            Status::Error => "the check broke",
            Status::Waived => "waived",
        };
        let weighs = matches!(finding.status, Status::Fail | Status::Error | Status::Waived);
        let value = match weighs {
            true => format!("{status} ({})", severity_word(finding.severity)),
            false => status.to_owned(),
        };
        Aspect { why: Some(finding.why.clone()), ..Aspect::new(Area::Findings, &finding.id, value) }
    })
}

fn known<T: Display>(area: Area, what: &str, fact: &Fact<T>) -> Option<Aspect> {
    fact.value().map(|value| Aspect::new(area, what, value))
}

fn machine(report: &Report) -> Vec<Aspect> {
    let platform = &report.facts.platform;
    let facts = [
        ("vendor", &platform.vendor),
        ("product", &platform.product),
        ("serial number", &platform.serial),
        ("UUID", &platform.uuid),
        ("board", &platform.board),
        ("hypervisor", &platform.hypervisor),
    ];
    let mut all: Vec<Aspect> =
        facts.into_iter().filter_map(|(what, fact)| known(Area::Machine, what, fact)).collect();
    if let Some(cpu) = report.facts.cpu.value() {
        all.push(Aspect::new(Area::Machine, "CPU", format!("{} ({} online)", cpu.model_name, cpu.online)));
    }
    if let Some(memory) = report.facts.memory.value() {
        let gib = memory.total as f64 / f64::from(1 << 30);
        let aspect = Aspect::new(Area::Machine, "memory", format!("{gib:.1} GiB"));
        all.push(Aspect { size: Some(gib), ..aspect });
    }
    all.extend(report.side.map(|side| Aspect::new(Area::Machine, "looked at as", format!("{side:?}"))));
    all
}

fn pins(report: &Report) -> Vec<Aspect> {
    let facts = &report.facts;
    let mut all = vec![Aspect::new(Area::Pins, "gdsboot", &report.gdsboot)];
    let mut pin = |what: &str, value: Option<&str>| {
        all.extend(value.map(|value| Aspect::new(Area::Pins, what, value)));
    };
    pin("kernel", facts.kernel.release.value().map(String::as_str));
    pin("driver", facts.nvidia.version.value().map(String::as_str));
    pin("driver's kind", facts.nvidia.is_open().map(|open| if open { "open" } else { "proprietary" }));
    pin("nvidia-fs", facts.nvidia_fs.version.value().map(String::as_str));
    pin("cuFile", cufile(report));
    let cuda = report
        .benchmark
        .iter()
        .flat_map(|bench| &bench.gpus)
        .find_map(|seen| seen.gpu.cuda_version.as_deref());
    let asked = || facts.dma.value()?.library("libcuda.so.1")?.value_of("cuDriverGetVersion");
    pin("CUDA", cuda.or_else(asked));
    pin("firmware", facts.platform.firmware_version.value().map(String::as_str));
    pin("firmware's date", facts.platform.firmware_date.value().map(String::as_str));
    if let Some(image) = facts.image.value() {
        pin("image", Some(&image.image_id));
        pin("profile", Some(&[std::slice::from_ref(&image.profile), &image.overlays].concat().join(" + ")));
        image.modules.iter().for_each(|(name, made)| pin(&format!("module {name}"), Some(made)));
        image.packages.iter().for_each(|(name, version)| pin(&format!("package {name}"), Some(version)));
    }
    all
}

/// libcufile's version: as it says itself, or from its file's name.
fn cufile(report: &Report) -> Option<&str> {
    let gpus = report.benchmark.iter().flat_map(|bench| &bench.gpus);
    let said = gpus.filter_map(|seen| seen.cufile.as_ref()?.version.as_deref()).next();
    let libraries = report.facts.libraries.value().into_iter().flatten();
    let named = libraries.filter(|library| library.name == "libcufile" && library.version.contains('.'));
    said.or_else(|| named.map(|library| library.version.as_str()).next())
}

fn settings(report: &Report) -> Vec<Aspect> {
    let mut all = Vec::new();
    let mut leaves = |prefix: &str, value: serde_json::Result<Value>| {
        if let Ok(value) = value {
            flatten(prefix, &value, &mut |name, leaf| all.push(Aspect::new(Area::Settings, name, leaf)));
        }
    };
    leaves("", serde_json::to_value(&report.settings));
    if let Some(cufile) = report.facts.cufile.value() {
        leaves("cufile.json", serde_json::to_value(cufile));
    }
    if let Some(parameters) = report.facts.nvidia_fs.parameters.value() {
        leaves("nvidia-fs", serde_json::to_value(parameters));
    }
    let line = report.facts.kernel.command_line.value().map_or("", String::as_str);
    for word in line.split_ascii_whitespace() {
        // Which image it is stands among the pins.
        if !word.starts_with("gdsboot.root") && !word.starts_with("gdsboot.report=") {
            all.push(Aspect::new(Area::Settings, format!("kernel parameter {word}"), "given"));
        }
    }
    all
}

/// Hands over every value that has no others in it, with its path; what is null or empty is not set.
fn flatten(name: &str, value: &Value, take: &mut dyn FnMut(&str, String)) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                flatten(&name, value, take);
            }
        }
        Value::Array(values) if values.is_empty() => {}
        Value::String(text) => take(name, text.clone()),
        other => take(name, other.to_string()),
    }
}

fn topology(report: &Report, names: &Names) -> Vec<Aspect> {
    let mut all = Vec::new();
    for pair in Topology::of(&report.facts).pairs {
        let between = format!("{} - {}", names.of_address(&pair.gpu), names.of_address(&pair.peer));
        let mut word = |who: &str, value: Option<String>| {
            all.extend(value.map(|value| Aspect::new(Area::Topology, format!("{between}, {who}"), value)));
        };
        word("nvidia-smi", pair.nvidia_smi.map(|label| label.to_string()));
        word("NCCL", pair.nccl.map(|label| label.to_string()));
        word("nvidia-fs", pair.nvfs.map(|distance| distance.distance.to_string()));
        word("nvidia-fs itself", pair.nvfs_says.map(|distance| distance.to_string()));
        let p2pdma = match pair.p2pdma {
            P2pdma::Direct => "direct",
            P2pdma::ThroughHostBridge { .. } => "through the host bridge",
            P2pdma::Refused { .. } => "refused",
            P2pdma::Unknown { .. } => "unknown",
        };
        word("kernel p2pdma", Some(p2pdma.to_owned()));
    }
    all
}

#[cfg(test)]
mod tests;
