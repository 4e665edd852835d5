//! Performance beyond noise.
//!
//! How much a measurement's throughput varies within its run is known where its raw samples are: bytes in each 100 ms. They
//! follow each other (caches fill, flash is erased), so that the error of their mean is taken from the means of ten batches
//! of them, and not from the samples alone ("batch means", as simulations do it). A change counts where it is larger than
//! three such errors of both runs together, and than [`FLOOR`]: temperatures, the place on the flash and the link's retraining
//! differ from run to run, and no run sees that of itself. Where samples are missing, or a measurement took less than 2.2 s,
//! which are too few of them (each of the quick plan's takes 1.5 s), [`UNSEEN`] stands for them. A change is measured by the
//! mean of both sides, so that a loss counts as the gain does that makes up for it.

use super::devices::Names;
use super::{Area, Change, Compared};
use crate::bench::results::{Measurement, Purpose};
use crate::bench::table;
use crate::bench::transfer::measurement::Figures;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// Less is never called a change of throughput, in percent.
const FLOOR: f64 = 5.0;
/// What is taken for noise where no samples say it, in percent.
const UNSEEN: f64 = 10.0;
/// The same for CPU time, which is counted in ticks.
const CPU: f64 = 20.0;
/// Less CPU time for each GiB is not told apart, in seconds.
pub const CPU_LEAST: f64 = 0.005;
/// The same for the latency that 99 of 100 transfers keep: it hangs on a few of them.
const TAIL: f64 = 30.0;
/// Batches of samples, and how many samples each must have.
const BATCHES: usize = 10;
const BATCH_LEAST: usize = 2;

/// How far the mean throughput of each measurement is uncertain, in percent, by its number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(HashMap<u32, f64>);

impl Samples {
    /// Reads `samples.jsonl`. Lines that say nothing are left out: they cost certainty, not the comparison.
    pub fn read(lines: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Line {
            number: u32,
            ran: Ran,
        }
        #[derive(Deserialize)]
        struct Ran {
            samples: Bytes,
        }
        #[derive(Deserialize)]
        struct Bytes {
            bytes: Vec<u64>,
        }
        let lines =
            lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        Self(lines.filter_map(|line| Some((line.number, error_percent(&line.ran.samples.bytes)?))).collect())
    }
}

/// The standard error of the mean, in percent of it, by batch means.
fn error_percent(samples: &[u64]) -> Option<f64> {
    // The first and the last are parts of 100 ms.
    let whole = samples.get(1..samples.len().checked_sub(1)?)?;
    let size = whole.len() / BATCHES;
    if size < BATCH_LEAST {
        return None;
    }
    let means: Vec<f64> = whole
        .chunks_exact(size)
        .take(BATCHES)
        .map(|batch| batch.iter().map(|bytes| *bytes as f64).sum::<f64>() / size as f64)
        .collect();
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean > 0.0).then(|| 100.0 * (variance / n).sqrt() / mean)
}

/// A measurement, as it is found again in another run.
fn key(measurement: &Measurement, names: &Names) -> String {
    let ends: Vec<&str> = [
        measurement.drive.as_deref().map(|drive| names.of_drive(drive)),
        measurement.gpu.as_deref().map(|gpu| names.of_address(gpu)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let what = match measurement.purpose {
        Purpose::Load => format!("{}, a load", measurement.kind.words()),
        _ => table::label(measurement),
    };
    let told = measurement
        .settings
        .map_or(String::new(), |settings| format!(" ({:?})", settings.wanted).to_lowercase());
    format!("{}: {what}{told}, {}", ends.join(" - "), measurement.job)
}

/// The measurements of a run whose figures count, by [`key`], each with the error of its throughput.
fn measured(run: &Compared<'_>, names: &Names) -> BTreeMap<String, Vec<(Figures, Option<f64>)>> {
    let mut all: BTreeMap<String, Vec<(Figures, Option<f64>)>> = BTreeMap::new();
    let measurements = run.report.benchmark.iter().flat_map(|bench| &bench.measurements);
    for measurement in measurements.filter(|measurement| measurement.counts()) {
        let error = run.samples.0.get(&measurement.number).copied();
        all.entry(key(measurement, names)).or_default().push((measurement.figures, error));
    }
    all
}

/// What changed by more than noise, and how many measurements did not.
pub fn compare(before: (&Compared<'_>, &Names), after: (&Compared<'_>, &Names)) -> (Vec<Change>, usize) {
    let (old, mut new) = (measured(before.0, before.1), measured(after.0, after.1));
    let (mut changes, mut same, mut lost) = (Vec::new(), 0, 0);
    for (key, old) in &old {
        let Some(new) = new.remove(key) else {
            lost += old.len();
            continue;
        };
        let found = change(key, old, &new);
        same += usize::from(found.is_empty());
        changes.extend(found);
    }
    let won: usize = new.values().map(Vec::len).sum();
    if lost + won > 0 {
        let count = |n: usize| Some(format!("{n}"));
        changes.push(Change {
            area: Area::Performance,
            what: "measurements that the other run does not have".into(),
            before: count(lost),
            after: count(won),
            why: None,
            percent: None,
            noise_percent: None,
        });
    }
    (changes, same)
}

/// The mean of a figure over all measurements of one kind.
fn mean(all: &[(Figures, Option<f64>)], figure: fn(&Figures) -> f64) -> f64 {
    all.iter().map(|(figures, _)| figure(figures)).sum::<f64>() / all.len() as f64
}

fn change(key: &str, old: &[(Figures, Option<f64>)], new: &[(Figures, Option<f64>)]) -> Vec<Change> {
    // Of several, the mean is less uncertain than each.
    let error = |all: &[(Figures, Option<f64>)]| {
        let squares: Option<f64> = all.iter().map(|(_, error)| error.map(|error| error * error)).sum();
        squares.map(|squares| squares.sqrt() / all.len() as f64)
    };
    let noise = match (error(old), error(new)) {
        (Some(old), Some(new)) => FLOOR.max(3.0 * old.hypot(new)),
        _ => UNSEEN,
    };
    let throughput: fn(&Figures) -> f64 = |figures| figures.gib_per_second;
    let cpu: fn(&Figures) -> f64 = |figures| figures.cpu_seconds_per_gib;
    let tail: fn(&Figures) -> f64 = |figures| figures.p99_us;
    let figures = [
        ("throughput", "GiB/s", throughput, noise, 0.0),
        ("CPU time", "s/GiB", cpu, CPU.max(noise), CPU_LEAST),
        ("latency of 99 %", "us", tail, TAIL.max(noise), 1.0),
    ];
    let mut changes = Vec::new();
    for (what, unit, figure, noise, least) in figures {
        let (old, new) = (mean(old, figure), mean(new, figure));
        // Of two that are nothing there is no mean; a change to or from nothing is one by 200 %.
        let is_change = 100.0 * (new - old).abs() / f64::midpoint(new, old) > noise;
        // A figure that was nothing has no percentage.
        let percent = 100.0 * (new - old) / old;
        if is_change && (new - old).abs() > least {
            changes.push(Change {
                area: Area::Performance,
                what: format!("{key}: {what}"),
                before: Some(format!("{} {unit}", digits(old))),
                after: Some(format!("{} {unit}", digits(new))),
                why: None,
                percent: percent.is_finite().then_some((percent * 10.0).round() / 10.0),
                noise_percent: Some((noise * 10.0).round() / 10.0),
            });
        }
    }
    changes
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}
