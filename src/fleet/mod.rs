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
use crate::error::one_line;
use crate::interrupt;
use crate::progress::{Progress, Stage, Unit};
use crate::report::json::NotAReport;
use crate::report::model::folder_name;
use crate::report::source::{MAX_REPORT, RunRef, Source};
use anyhow::Result;
use deviation::{Deviation, Group};
use row::Row;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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
                fleet.problems.extend(listing.problems.iter().map(one_line));
            }
            Err(error) => fleet.problems.push(one_line(&error)),
        }
    }
    let stage = progress.stage("reading the reports", found.len() as u64, Unit::Steps);
    let read = read_all(&found, &stage);
    interrupt::check()?;
    drop(stage);
    let rows = sort_out(&found, read, &mut fleet);
    let rows = without_copies(&found, rows, &mut fleet);
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
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(found.len().max(1));
    let work = || {
        let mut done = Vec::new();
        while let Some(index) =
            Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < found.len())
        {
            if interrupt::requested() {
                break;
            }
            done.push((index, read(&found[index])));
            stage.advance(1);
        }
        done
    };
    let mut all: Vec<Read> = found.iter().map(|_| Read::Problem("it was not read".into())).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            // A panic in a thread is this one's too.
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.into_iter().for_each(|(index, read)| all[index] = read);
        }
    });
    all
}

fn read(found: &Found<'_>) -> Read {
    let bytes = match found.json() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Read::Without,
        Err(error) => return Read::Problem(one_line(&error)),
    };
    match Row::read(&bytes, &found.place()) {
        Ok(row) => Read::Row(Box::new(row)),
        Err(error) if error.is::<NotAReport>() && found.run.is_loose() => Read::Foreign,
        Err(error) => {
            let hint = crate::error::hint_of(&error).map_or(String::new(), |hint| format!(" ({hint})"));
            Read::Problem(format!("{}: {}{hint}", found.place(), one_line(&error)))
        }
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

/// One report that is there twice is counted once; two that differ and bear one run's id are both kept, and named.
fn without_copies(found: &[Found<'_>], rows: Vec<(usize, Row)>, fleet: &mut Fleet) -> Vec<(usize, Row)> {
    let mut kept: Vec<(usize, Row)> = Vec::new();
    let mut by_run: HashMap<String, Vec<usize>> = HashMap::new();
    let (mut copies, mut earlier, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in rows {
        let same_run = by_run.entry(row.run_id.clone()).or_default();
        let is_copy = |kept_at: &&usize| {
            let (other, other_row): &(usize, Row) = &kept[**kept_at];
            let alike = Row { source: row.source.clone(), ..other_row.clone() } == row;
            alike && matches!((found[*other].json(), found[index].json()), (Ok(a), Ok(b)) if a == b)
        };
        // A report that grew: what was sent or copied before the run had ended.
        let same_start = |kept_at: &&usize| kept[**kept_at].1.started == row.started;
        let grew = |kept_at: &&usize| same_start(kept_at) && kept[**kept_at].1.complete != row.complete;
        if let Some(kept_at) = same_run.iter().find(is_copy) {
            copies.push(format!("{} and {}", kept[*kept_at].1.source, row.source));
        } else if let Some(kept_at) = same_run.iter().find(grew).copied() {
            earlier.push(if row.complete { kept[kept_at].1.source.clone() } else { row.source.clone() });
            if row.complete {
                kept[kept_at] = (index, row);
            }
        } else {
            if let Some(kept_at) = same_run.first() {
                conflicts.push(format!("{}: {} and {}", row.run_id, kept[*kept_at].1.source, row.source));
            }
            same_run.push(kept.len());
            kept.push((index, row));
        }
    }
    let twice = ("report is there twice and counted once", "reports are there twice and counted once");
    note(fleet, twice, &copies);
    let old = (
        "report is an earlier state of one that is there whole, and left out",
        "reports are earlier states of others that are there whole, and left out",
    );
    note(fleet, old, &earlier);
    let bear = (
        "CONFLICT: two different reports bear one run's id, and both are kept",
        "CONFLICTS: different reports bear one run's id, and all are kept",
    );
    note(fleet, bear, &conflicts);
    kept
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
