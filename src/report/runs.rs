//! The runs in one or several sources: how each ended, and the one that is meant.

use super::json::{self, Head, NotAReport};
use super::layout::{WIDTH, clean, cut, wrap};
use super::model::{Report, Verdict};
use super::same_run::{Fate, Known, fates};
use super::source::{MAX_REPORT, RunRef, Source};
use crate::boot_contract::{RUN_REPORT_JSON, RUN_SAMPLES};
use crate::error::{Advise as _, Status, hint_of, hinted, one_line, usage};
use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// More than any benchmark's samples have.
const MAX_SAMPLES: u32 = 256 << 20;

/// A run and how it ended.
#[derive(Debug)]
pub struct Listed<'a> {
    /// Where it is.
    pub source: &'a Source,
    /// Which one it is there.
    pub run: RunRef,
    /// How it ended.
    pub end: End,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// With a report.
    Complete(Head),
    /// It was cut off after it had begun its report.
    Growing(Head),
    /// It was cut off before, and left these files.
    Without(Vec<String>),
    /// Its report cannot be read.
    Unreadable(anyhow::Error),
}

impl Listed<'_> {
    /// What stands at the top of its report, where it has one.
    pub fn head(&self) -> Option<&Head> {
        match &self.end {
            End::Complete(head) | End::Growing(head) => Some(head),
            End::Without(_) | End::Unreadable(_) => None,
        }
    }

    /// Its report, which may be one that was cut off.
    ///
    /// # Errors
    /// It has none, or it cannot be read.
    pub fn report(&self) -> Result<Report> {
        json::read(&self.json()?).with_context(|| format!("reading {}", self.place()))
    }

    /// The same, unparsed.
    ///
    /// # Errors
    /// It has none, or it cannot be read.
    pub fn json(&self) -> Result<Vec<u8>> {
        let json = self.source.read(&self.run, RUN_REPORT_JSON, MAX_REPORT)?;
        json.with_context(|| format!("{} has no {RUN_REPORT_JSON}", self.place()))
    }

    /// The raw samples of its benchmark, where it has any beside its report.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn samples(&self) -> Result<Option<Vec<u8>>> {
        self.source.read(&self.run, RUN_SAMPLES, MAX_SAMPLES)
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.source.place(&self.run)
    }

    /// A hash of what is in these files; none where one of them cannot be read.
    fn hash(&self, files: &[String]) -> Option<Vec<u8>> {
        let mut hash = Sha256::new();
        for file in files {
            let bytes = self.source.read(&self.run, file, MAX_SAMPLES).ok()??;
            // With its length, so that no two different ones run together.
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        Some(hash.finalize().to_vec())
    }

    /// How it ended, in a few words.
    pub fn words(&self) -> String {
        match &self.end {
            End::Complete(head) => head.verdict.to_string(),
            End::Growing(_) => "cut off; its report is unfinished".into(),
            End::Without(has) if has.is_empty() => "cut off; it left nothing".into(),
            End::Without(has) => format!("cut off; it left {}", has.join(", ")),
            End::Unreadable(error) => one_line(error),
        }
    }

    /// The verdict that programs end with: a run that was cut off has proven nothing.
    pub fn verdict(&self) -> Verdict {
        match &self.end {
            End::Complete(head) => head.verdict,
            _ => Verdict::Incomplete,
        }
    }

    /// The error of a report that cannot be read.
    pub fn unreadable(&self) -> Option<anyhow::Error> {
        let End::Unreadable(error) = &self.end else { return None };
        let hint = hint_of(error).unwrap_or("`gdsboot report show --list` lists the runs");
        Err::<(), _>(hinted(one_line(error), hint)).status(Status::Unavailable).err()
    }

    /// Sorts by time. gdsboot's own folder names are made of these two; what has no time comes first.
    fn key(&self) -> String {
        match self.head() {
            Some(head) => super::model::folder_name(head.started, &head.run_id),
            None if self.has_time() => self.run.last().to_owned(),
            None => format!(" {}", self.run.last()),
        }
    }

    /// Is it known when it began: by its report, or by a name such as `20261122T105600Z-1a2b3c4d`?
    fn has_time(&self) -> bool {
        let begins = |text: &str| {
            let form = b"00000000T000000Z";
            let is =
                |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
            text.len() >= form.len() && text.bytes().zip(form).all(is)
        };
        self.head().is_some() || begins(self.run.last())
    }
}

/// The runs of all sources, oldest first.
#[derive(Debug, Default)]
pub struct Catalogue<'a> {
    /// The runs; one that several sources have is listed once.
    pub runs: Vec<Listed<'a>>,
    /// Parts of the sources that could not be listed.
    pub problems: Vec<anyhow::Error>,
    /// What whoever asked should know: copies, files that are no reports.
    pub notes: Vec<String>,
}

impl<'a> Catalogue<'a> {
    /// Lists the runs of all sources.
    ///
    /// # Errors
    /// One of them cannot be listed at all.
    pub fn read(sources: &'a [Source]) -> Result<Self> {
        let mut all = Self::default();
        let mut not_reports = 0;
        for source in sources {
            let listing = source.runs()?;
            all.problems.extend(listing.problems);
            let is_one = listing.runs.len() == 1;
            for run in listing.runs {
                crate::interrupt::check()?;
                let end = end_of(source, &run);
                let foreign = matches!(&end, End::Unreadable(error) if error.is::<NotAReport>());
                if foreign && run.is_loose() && !is_one {
                    not_reports += 1;
                } else {
                    all.runs.push(Listed { source, run, end });
                }
            }
        }
        if not_reports > 0 {
            all.notes.push(match not_reports {
                1 => "1 file is JSON and no report of gdsboot".into(),
                _ => format!("{not_reports} files are JSON and no reports of gdsboot"),
            });
        }
        all.runs.sort_by_cached_key(Listed::key);
        all.leave_out_copies()?;
        Ok(all)
    }

    /// A run that is there twice is one run, also where one of the two is an earlier state of it.
    fn leave_out_copies(&mut self) -> Result<()> {
        let numbered = self.runs.iter().enumerate();
        let (places, known): (Vec<usize>, Vec<Known<'_>>) = numbered
            .filter_map(|(at, run)| {
                let head = run.head()?;
                Some((at, Known { run_id: &head.run_id, started: head.started, complete: head.complete }))
            })
            .unzip();
        let found = fates(&known, &|number| self.runs[places[number]].json())?;
        let mut left_out = vec![false; self.runs.len()];
        for (number, fate) in found.into_iter().enumerate() {
            let (run, of) =
                (self.runs[places[number]].place(), |other: usize| self.runs[places[other]].place());
            self.notes.extend(match fate {
                Fate::CopyOf(other) => {
                    Some(format!("{run} is the same report as {}: listed once", of(other)))
                }
                Fate::EarlierThan(other) => {
                    Some(format!("{run} is an earlier state of {}: left out", of(other)))
                }
                Fate::Kept | Fate::ConflictsWith(_) => None,
            });
            left_out[places[number]] = !fate.is_kept();
        }
        for (at, other) in self.cut_off_copies()? {
            left_out[at] = true;
            let (run, other) = (self.runs[at].place(), self.runs[other].place());
            self.notes.push(format!("{run} is the same run as {other}: listed once"));
        }
        let mut left_out = left_out.into_iter();
        self.runs.retain(|_| left_out.next() == Some(false));
        Ok(())
    }

    /// The runs without a report that are there twice, each with the one that it is a copy of: their names are the same, and
    /// the bytes of all their files.
    fn cut_off_copies(&self) -> Result<Vec<(usize, usize)>> {
        let cut_off = || {
            self.runs.iter().enumerate().filter_map(|(at, run)| match &run.end {
                End::Without(files) => Some((at, run, (run.run.last(), files.as_slice()))),
                _ => None,
            })
        };
        let mut counts: HashMap<(&str, &[String]), usize> = HashMap::new();
        cut_off().for_each(|(.., key)| *counts.entry(key).or_default() += 1);
        let mut known = HashMap::new();
        let mut copies = Vec::new();
        for (at, run, key) in cut_off().filter(|(.., key)| counts[key] > 1) {
            crate::interrupt::check()?;
            let Some(hash) = run.hash(key.1) else { continue };
            let first = *known.entry((key, hash)).or_insert(at);
            if first != at {
                copies.push((at, first));
            }
        }
        Ok(copies)
    }

    /// The run that is meant: by its id, its folder's name or its number in [`Catalogue::lines`]; the newest complete one
    /// where nothing is said, or the newest that has anything where none is complete.
    ///
    /// # Errors
    /// [`Status::Usage`] where there is none, or several.
    pub fn find(&self, wanted: Option<&str>) -> Result<&Listed<'a>> {
        let Some(wanted) = wanted else { return self.newest() };
        // A run's id has eight digits, all of which may be decimal.
        if let Some(number) = wanted.parse::<usize>().ok().filter(|_| wanted.len() < 8) {
            let run = number.checked_sub(1).and_then(|index| self.runs.get(index));
            return run.ok_or_else(|| usage(format!("there is no run number {number}"), self.hint()));
        }
        let named = |run: &&Listed<'a>| {
            run.head().is_some_and(|head| head.run_id == wanted)
                || run.run.name == wanted
                || run.run.last() == wanted
                || run.run.last().rsplit_once('-').is_some_and(|(_, id)| id == wanted)
        };
        let found: Vec<&Listed<'a>> = self.runs.iter().filter(named).collect();
        match found.as_slice() {
            [run] => Ok(run),
            [] => Err(usage(format!("there is no run {wanted:?}"), self.hint())),
            several => {
                let places: Vec<String> = several.iter().map(|run| run.place()).collect();
                Err(usage(
                    format!("{} different runs are called {wanted:?}: {}", several.len(), places.join(", ")),
                    "name one by its number, as `gdsboot report show --list` prints them",
                ))
            }
        }
    }

    /// Two runs to be compared: the one that is meant, as [`Catalogue::find`] takes it, and the complete one before it.
    ///
    /// # Errors
    /// [`Status::Usage`] where there are no two.
    pub fn two(&self, wanted: Option<&str>) -> Result<(&Listed<'a>, &Listed<'a>)> {
        let after = self.find(wanted)?;
        let before = self.runs.iter().take_while(|run| !std::ptr::eq(*run, after));
        let before = before.filter(|run| matches!(run.end, End::Complete(_))).last();
        let before = before.ok_or_else(|| {
            usage(
                "no complete run is older than the one that is meant, to compare it with",
                "name two: diff SOURCE#RUN SOURCE#RUN",
            )
        })?;
        Ok((before, after))
    }

    fn newest(&self) -> Result<&Listed<'a>> {
        let complete = |run: &&Listed<'a>| matches!(run.end, End::Complete(_));
        let anything = |run: &&Listed<'a>| matches!(run.end, End::Growing(_) | End::Without(_));
        let newest = |wanted: &dyn Fn(&&Listed<'a>) -> bool| self.runs.iter().rev().find(|run| wanted(run));
        if let Some(run) = newest(&complete).or_else(|| newest(&anything)) {
            return Ok(run);
        }
        Err(self.runs.last().and_then(Listed::unreadable).unwrap_or_else(|| {
            usage("there is no run in it", "boot the image; each boot leaves a run on its report partition")
        }))
    }

    /// What speaks against taking `meant` for the newest run, a line for each: newer ones that did not come to their end or
    /// cannot be read, and such ones of which nobody knows when they began.
    pub fn doubts(&self, meant: &Listed<'a>) -> Vec<String> {
        let key = meant.key();
        let mut lines = Vec::new();
        for run in self.runs.iter().filter(|run| !std::ptr::eq(*run, meant)) {
            let which = match run.has_time() {
                true if run.key() > key => "a newer run",
                true => continue,
                false => "a run that may be newer",
            };
            lines.extend(match &run.end {
                End::Complete(_) => None,
                End::Growing(_) | End::Without(_) => {
                    Some(format!("{which}, {}, was {}", run.place(), run.words()))
                }
                End::Unreadable(_) => Some(format!("{which} cannot be read: {}", run.words())),
            });
        }
        lines
    }

    fn hint(&self) -> String {
        let ids: Vec<&str> =
            self.runs.iter().rev().filter_map(|run| Some(run.head()?.run_id.as_str())).collect();
        match ids.is_empty() {
            true => "`gdsboot report show --list` lists the runs".into(),
            false => format!("it has: {}", clean(&ids[..ids.len().min(8)].join(", "))),
        }
    }

    /// The list for people, a heading first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:>4}  {:<20}  {:<8}  end", "", "started", "run")];
        for (number, run) in (1..).zip(&self.runs) {
            let (started, id) =
                run.head().map_or(("-".into(), "-"), |h| (h.started.to_string(), h.run_id.as_str()));
            let first = format!("{number:>4}  {started:<20}  {:<8}  ", cut(id, 8));
            lines.extend(wrap(&first, &run.words()));
            lines.push(cut(&format!("{:6}{}", "", run.place()), WIDTH));
        }
        lines
    }
}

fn end_of(source: &Source, run: &RunRef) -> End {
    let json = match source.read(run, RUN_REPORT_JSON, MAX_REPORT) {
        // Empty is a file whose writer lost its power before it had anything in it.
        Ok(Some(json)) if !json.is_empty() => json,
        Ok(_) => return source.files(run).map_or_else(End::Unreadable, End::Without),
        Err(error) => return End::Unreadable(error),
    };
    match json::head(&json) {
        Ok(head) if head.complete => End::Complete(head),
        Ok(head) => End::Growing(head),
        Err(error) => End::Unreadable(error.context(format!("reading {}", source.place(run)))),
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
