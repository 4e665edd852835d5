//! Many reports as one table, and which machines deviate from the others. A report that cannot be read never costs the others
//! their rows.

pub mod column;
pub mod csv;
pub mod deviation;
pub mod jsonl;
mod light;
pub mod page;
pub mod prometheus;
pub mod row;
#[cfg(test)]
mod schema;
pub mod summary;

use crate::boot_contract::RUN_REPORT_JSON;
use crate::error::advised_line;
use crate::interrupt;
use crate::parallel;
use crate::progress::{Progress, Stage, Unit};
use crate::report::json::NotAReport;
use crate::report::model::folder_name;
use crate::report::same_run::{Fate, Known, fates};
use crate::report::source::{MAX_REPORT, RunRef, Source};
use anyhow::{Context as _, Result};
use deviation::{Deviation, Group};
use row::Row;
use std::collections::{BTreeMap, HashMap};

/// How many of one kind are named in a note.
const NAMED: usize = 3;

/// What many reports say together.
#[derive(Debug, Default)]
pub struct Fleet {
    /// One for each machine, or one for each run; ordered by machine, then by time.
    pub rows: Vec<Row>,
    /// Machines that are alike, the largest group first.
    pub groups: Vec<Group>,
    /// How machines differ from the others like them, by machine.
    pub deviations: Vec<Deviation>,
    /// How many machines there are.
    pub machines: usize,
    /// What whoever asked should know: copies, conflicts, runs without a report.
    pub notes: Vec<String>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

impl Fleet {
    /// The newest run of each machine, where all runs are rows.
    pub fn current(&self) -> Vec<Row> {
        newest(&self.rows).into_iter().map(|index| self.rows[index].clone()).collect()
    }
}

/// A run of a source.
struct Found<'a> {
    source: &'a Source,
    run: RunRef,
}

impl Found<'_> {
    fn place(&self) -> String {
        self.source.place(&self.run)
    }

    fn json(&self) -> Result<Option<Vec<u8>>> {
        self.source.read(&self.run, RUN_REPORT_JSON, MAX_REPORT)
    }
}

/// What came of reading one.
enum Read {
    Row(Box<Row>),
    /// A run that left no report.
    Without,
    /// A JSON file of somebody else's.
    Foreign,
    Problem(String),
}

/// Reads all reports of all sources. Of each machine the newest complete run is kept, or all runs.
///
/// # Errors
/// The user wants to stop.
pub fn collect(sources: &[Source], all_runs: bool, progress: &Progress) -> Result<Fleet> {
    let mut fleet = Fleet::default();
    let mut found = Vec::new();
    for source in sources {
        match source.runs() {
            Ok(listing) => {
                found.extend(listing.runs.into_iter().map(|run| Found { source, run }));
                fleet.problems.extend(listing.problems.iter().map(advised_line));
            }
            Err(error) => fleet.problems.push(advised_line(&error)),
        }
    }
    let stage = progress.stage("reading the reports", found.len() as u64, Unit::Steps);
    let read = read_all(&found, &stage);
    interrupt::check()?;
    drop(stage);
    let rows = sort_out(&found, read, &mut fleet);
    let rows = without_copies(&found, rows, &mut fleet)?;
    let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    name_machines(&mut rows);
    // By machine, then by time.
    rows.sort_by_cached_key(|row| {
        (row.machine.clone(), folder_name(row.started, &row.run_id), row.source.clone())
    });
    let newest = newest(&rows);
    fleet.machines = newest.len();
    let (mut current, mut others) = (Vec::new(), Vec::new());
    let mut wanted = newest.iter().copied().peekable();
    for (index, row) in rows.into_iter().enumerate() {
        let is_newest = wanted.next_if_eq(&index).is_some();
        if is_newest {
            current.push(row)
        } else if all_runs {
            others.push((index, row))
        }
    }
    let (groups, deviations) = deviation::find(&current);
    for deviation in &deviations {
        current[deviation.row].deviations.push(deviation.words());
    }
    let mut all: Vec<(usize, Row)> = newest.into_iter().zip(current).chain(others).collect();
    all.sort_by_key(|(index, _)| *index);
    fleet.rows = all.into_iter().map(|(_, row)| row).collect();
    (fleet.groups, fleet.deviations) = (groups, deviations);
    Ok(fleet)
}

/// Reads the reports with all CPUs. What is not read because the user wants to stop is a problem.
fn read_all(found: &[Found<'_>], stage: &Stage) -> Vec<Read> {
    let read = parallel::each(found.len(), |index| {
        let read = read(&found[index]);
        stage.advance(1);
        read
    });
    read.into_iter().map(|read| read.unwrap_or_else(|| Read::Problem("it was not read".into()))).collect()
}

fn read(found: &Found<'_>) -> Read {
    let bytes = match found.json() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Read::Without,
        Err(error) => return Read::Problem(advised_line(&error)),
    };
    match Row::read(&bytes, &found.place()) {
        Ok(row) => Read::Row(Box::new(row)),
        Err(error) if error.is::<NotAReport>() && found.run.is_loose() => Read::Foreign,
        Err(error) => Read::Problem(format!("{}: {}", found.place(), advised_line(&error))),
    }
}

/// Keeps the rows, each with its index in `found`, and says what became of the others.
fn sort_out(found: &[Found<'_>], read: Vec<Read>, fleet: &mut Fleet) -> Vec<(usize, Row)> {
    let (mut rows, mut without, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    for (index, read) in read.into_iter().enumerate() {
        match read {
            Read::Row(row) => rows.push((index, *row)),
            Read::Without => without.push(found[index].place()),
            Read::Foreign => foreign.push(found[index].place()),
            Read::Problem(what) => fleet.problems.push(what),
        }
    }
    note(
        fleet,
        ("run was cut off before its first report", "runs were cut off before their first report"),
        &without,
    );
    note(
        fleet,
        ("file is JSON and no report of gdsboot", "files are JSON and no reports of gdsboot"),
        &foreign,
    );
    rows
}

/// One line about several of a kind; none where there are none.
fn note(fleet: &mut Fleet, what: (&str, &str), named: &[String]) {
    if !named.is_empty() {
        let first = named.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if named.len() > NAMED { ", ..." } else { "" };
        let what = if named.len() == 1 { what.0 } else { what.1 };
        fleet.notes.push(format!("{} {what}: {first}{more}", named.len()));
    }
}

/// A run that is there twice is counted once, in its last state; two reports that differ and bear one run's id are both kept,
/// and named.
fn without_copies(
    found: &[Found<'_>],
    rows: Vec<(usize, Row)>,
    fleet: &mut Fleet,
) -> Result<Vec<(usize, Row)>> {
    let reports = rows.iter().map(|(_, row)| {
        let Row { run_id, started, complete, .. } = row;
        Known { run_id, started: *started, complete: *complete }
    });
    let reports: Vec<Known<'_>> = reports.collect();
    let fates = fates(&reports, &|number| found[rows[number].0].json()?.context("it is gone"))?;
    let (mut copies, mut earlier, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
    for ((_, row), fate) in rows.iter().zip(&fates) {
        let source = |other: usize| &rows[other].1.source;
        match *fate {
            Fate::Kept => {}
            Fate::CopyOf(other) => copies.push(format!("{} and {}", source(other), row.source)),
            Fate::EarlierThan(_) => earlier.push(row.source.clone()),
            Fate::ConflictsWith(other) => {
                conflicts.push(format!("{}: {} and {}", row.run_id, source(other), row.source));
            }
        }
    }
    let twice = ("report is there twice and counted once", "reports are there twice and counted once");
    note(fleet, twice, &copies);
    let old = (
        "report is an earlier state of another, and left out",
        "reports are earlier states of others, and left out",
    );
    note(fleet, old, &earlier);
    let bear = (
        "CONFLICT: two different reports bear one run's id, and both are kept",
        "CONFLICTS: different reports bear one run's id, and all are kept",
    );
    note(fleet, bear, &conflicts);
    Ok(rows.into_iter().zip(fates).filter(|(_, fate)| fate.is_kept()).map(|(row, _)| row).collect())
}

/// Two machines may bear one serial number; then their UUIDs tell them apart.
fn name_machines(rows: &mut [Row]) {
    let mut uuids: HashMap<&str, Vec<&str>> = HashMap::new();
    for row in rows.iter() {
        let known = uuids.entry(&row.machine).or_default();
        if let Some(uuid) = row.uuid.as_deref().filter(|uuid| !known.contains(uuid)) {
            known.push(uuid);
        }
    }
    let several: Vec<String> = uuids
        .into_iter()
        .filter(|(_, uuids)| uuids.len() > 1)
        .map(|(machine, _)| machine.to_owned())
        .collect();
    for row in rows.iter_mut().filter(|row| several.contains(&row.machine)) {
        if let Some(uuid) = &row.uuid {
            row.machine = format!("{}/{uuid}", row.machine);
        }
    }
}

/// The index of each machine's newest complete run, or of its newest where none is complete, in the order of `rows`.
fn newest(rows: &[Row]) -> Vec<usize> {
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let known = newest.entry(&row.machine).or_insert(index);
        if row.complete || !rows[*known].complete {
            *known = index;
        }
    }
    newest.into_values().collect()
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
