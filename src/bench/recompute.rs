//! Computes a benchmark's figures once more, from the raw samples that are saved next to them.

use super::results::{Pair, RawLine, Results};
use super::route::Proof;
use super::table;
use crate::boot_contract::{RUN_REPORT_JSON, RUN_SAMPLES};
use crate::error::{Advise as _, Status};
use crate::report::json;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Text and back may change the last bit of a number.
const LAST_BIT: f64 = 1e-12;

/// Reads results and raw samples: from a run's folder, or from what `gdsboot-validator bench --json` printed.
///
/// # Errors
/// They are not there, or are not what gdsboot writes; a run whose report has no benchmark.
pub fn read(path: &Path) -> anyhow::Result<(Results, Vec<RawLine>)> {
    let read = || if path.is_dir() { read_folder(path) } else { read_printed(path) };
    read()
        .with_context(|| format!("reading a benchmark from {}", path.display()))
        .hint(format!(
            "name a run's folder with {RUN_REPORT_JSON} and {RUN_SAMPLES}, or a file that gdsboot-validator bench --json \
             printed"
        ))
        .status(Status::Usage)
}

fn read_folder(folder: &Path) -> anyhow::Result<(Results, Vec<RawLine>)> {
    let report = json::read(&fs_err::read(folder.join(RUN_REPORT_JSON))?)?;
    let results = report.benchmark.context("the report has no benchmark")?;
    let text = fs_err::read_to_string(folder.join(RUN_SAMPLES))?;
    let line = |(number, line): (usize, &str)| -> anyhow::Result<RawLine> {
        serde_json::from_str(line).with_context(|| format!("{RUN_SAMPLES}, line {number}"))
    };
    Ok((results, (1..).zip(text.lines()).map(line).collect::<Result<_, _>>()?))
}

fn read_printed(path: &Path) -> anyhow::Result<(Results, Vec<RawLine>)> {
    #[derive(Deserialize)]
    struct Printed {
        results: Results,
        raw: Vec<RawLine>,
    }
    let Printed { results, raw } = serde_json::from_slice(&fs_err::read(path)?)?;
    Ok((results, raw))
}

/// What differs. The measurements' numbers tell which samples are theirs.
pub fn differences(results: &Results, raw: &[RawLine]) -> Vec<String> {
    let mut found = Vec::new();
    for measurement in &results.measurements {
        let name = format!(
            "measurement {} ({}, {})",
            measurement.number,
            table::label(measurement),
            measurement.job
        );
        let Some(raw) = raw.iter().find(|raw| raw.number == measurement.number) else {
            found.push(format!("{name} has no raw samples"));
            continue;
        };
        let seen = results.gpus.iter().find(|seen| Some(&seen.gpu.pci) == measurement.gpu.as_ref());
        let again = measurement.clone().computed(raw, seen.map(|seen| seen.gpu.uuid.as_str()));
        found.extend(difference(measurement, &again).map(|difference| format!("{name}: {difference}")));
    }
    for pair in &results.pairs {
        let mut again = pair.attempts.clone();
        for attempt in again.iter_mut().filter(|attempt| attempt.error.is_none()) {
            let measured = results.measurements.iter().filter(|m| attempt.measurements.contains(&m.number));
            let proofs: Vec<_> =
                measured.filter_map(|m| Some((m.job.to_string(), m.proof.clone()?))).collect();
            attempt.proof = Proof::together(&proofs);
        }
        Pair::doubt(&mut again);
        let difference = difference(&pair.attempts, &again);
        found.extend(difference.map(|difference| format!("{} and {}: {difference}", pair.drive, pair.gpu)));
    }
    found
}

/// The first thing in which what was reported is not what its samples give.
fn difference<T: Serialize>(reported: &T, again: &T) -> Option<String> {
    let value = |value| serde_json::to_value(value).unwrap_or_default();
    let (place, reported, again) = first_difference("", &value(reported), &value(again))?;
    Some(format!("{place} is {reported}, and its samples give {again}"))
}

fn first_difference(place: &str, one: &Value, other: &Value) -> Option<(String, Value, Value)> {
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    let is_same = match (one, other) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            return a.iter().find_map(|(name, value)| {
                first_difference(&below(name), value, b.get(name).unwrap_or(&Value::Null))
            });
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            return pairs.into_iter().find_map(|(n, (a, b))| first_difference(&below(&n.to_string()), a, b));
        }
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= LAST_BIT * a.abs().max(b.abs()),
            _ => a == b,
        },
        _ => one == other,
    };
    (!is_same).then(|| (place.to_owned(), one.clone(), other.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Kind, Measurement, Purpose};
    use crate::bench::transfer::job::{Job, Until};
    use crate::bench::transfer::measurement::Recorder;
    use crate::bench::worker::Ran;

    /// A measurement of three transfers with its samples.
    fn measured() -> (Results, Vec<RawLine>) {
        let job = Job {
            until: Until::Once,
            ..crate::bench::testing::healthy("a", "b").measurements[0].job.clone()
        };
        let mut recorder = Recorder::new();
        for nanoseconds in [1_000_000, 2_000_000, 40_000_000] {
            recorder.transfer(job.block.into(), nanoseconds, nanoseconds);
        }
        let samples = recorder.finish("x", 0.043, 0.01);
        let raw = RawLine {
            number: 1,
            ran: Ran { samples, ..Ran::default() },
            cufile: None,
            nvidia_fs: None,
            mappings: None,
            states: vec![],
        };
        let measurement = Measurement::new(1, Kind::Storage, Purpose::Figures, job).computed(&raw, None);
        (Results { measurements: vec![measurement], ..Results::default() }, vec![raw])
    }

    #[test]
    fn what_was_changed_is_found() {
        let (results, raw) = measured();
        assert_eq!(differences(&results, &raw), [""; 0]);
        let mut better = results.clone();
        better.measurements[0].figures.gib_per_second *= 1.01;
        let [found] = differences(&better, &raw).try_into().unwrap();
        assert!(found.contains("figures.gib_per_second is "), "{found}");
        assert!(found.contains(", and its samples give "), "{found}");
        let mut fewer = results.clone();
        fewer.measurements[0].errors = 1;
        assert!(differences(&fewer, &raw)[0].ends_with("errors is 1, and its samples give 0"));
        assert!(differences(&results, &[])[0].ends_with("has no raw samples"));
        let mut last_bit = results;
        last_bit.measurements[0].seconds = last_bit.measurements[0].seconds.next_up();
        assert_eq!(differences(&last_bit, &raw), [""; 0]);
    }

    #[test]
    fn what_is_no_benchmark_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let error = crate::error::one_line(&read(dir.path()).unwrap_err());
        assert!(error.contains("reading a benchmark from"), "{error}");
        let file = dir.path().join("x.json");
        fs_err::write(&file, "{}").unwrap();
        let error = crate::error::one_line(&read(&file).unwrap_err());
        assert!(error.contains("missing field `results`"), "{error}");
    }
}
