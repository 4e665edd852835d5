//! The runs in one or several sources: how each ended, and the one that is meant.

use super::json::{self, Head, NotAReport};
use super::layout::{WIDTH, clean, cut, wrap};
use super::model::{Report, Verdict};
use super::source::{MAX_REPORT, RunRef, Source};
use crate::boot_contract::{RUN_REPORT_JSON, RUN_SAMPLES};
use crate::error::{Advise as _, Status, hint_of, hinted, one_line, usage};
use anyhow::{Context as _, Result};

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

    /// Sorts by time. gdsboot's own folder names are made of these two.
    fn key(&self) -> String {
        match self.head() {
            Some(head) => super::model::folder_name(head.started, &head.run_id),
            None => self.run.last().to_owned(),
        }
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
            all.notes.push(format!("{not_reports} JSON files are no reports of gdsboot"));
        }
        all.runs.sort_by_cached_key(Listed::key);
        all.leave_out_copies()?;
        Ok(all)
    }

    /// A report that is there twice is one run.
    fn leave_out_copies(&mut self) -> Result<()> {
        let mut kept: Vec<Listed<'a>> = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            // Sorted by time and id, copies stand side by side.
            let same =
                kept.iter().rev().take_while(|other| other.head().is_some() && other.head() == run.head());
            let mut copy_of = None;
            for other in same {
                if other.json()? == run.json()? {
                    copy_of = Some(other.place());
                }
            }
            match copy_of {
                Some(other) => {
                    self.notes.push(format!("{} is the same report as {other}: listed once", run.place()));
                }
                None => kept.push(run),
            }
        }
        self.runs = kept;
        Ok(())
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
        match self.runs.last() {
            Some(Listed { end: End::Unreadable(error), .. }) => {
                let hint = hint_of(error).unwrap_or("`gdsboot report show --list` lists the runs");
                Err(hinted(one_line(error), hint)).status(Status::Unavailable)
            }
            _ => Err(usage(
                "there is no run in it",
                "boot the image; each boot leaves a run on its report partition",
            )),
        }
    }

    /// The runs after `listed` that may be the ones that are meant, were they readable.
    pub fn newer_unreadable<'c>(&'c self, listed: &'c Listed<'a>) -> impl Iterator<Item = &'c Listed<'a>> {
        let after = self.runs.iter().skip_while(|run| !std::ptr::eq(*run, listed)).skip(1);
        after.filter(|run| matches!(run.end, End::Unreadable(_)))
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
        Ok(Some(json)) => json,
        Ok(None) => return source.files(run).map_or_else(End::Unreadable, End::Without),
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
