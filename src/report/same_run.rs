//! Which reports are of one run: copies of each other, or earlier states of one.
//!
//! A report grows while its run goes on; what is whole is sent, and written once more with what became of sending it. Whoever
//! gathers what was sent and what was written has one run twice, and not two. Two reports are states of one run where its id
//! and its beginning are the same, and one of them is unfinished or all else is the same but for [`LATER`]. Of these the one
//! that tells of its delivery is kept, else the one that was finished later. Anything else that bears a known run's id is a
//! conflict, and stays.

use super::utc::Utc;
use crate::{interrupt, parallel};
use anyhow::{Context as _, Result};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// What the run itself still changes in a report that is whole.
const LATER: [&str; 4] = ["delivery", "stages", "problems", "finished"];

/// What is known of a report before its bytes are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// [`super::model::Report::run_id`].
    pub run_id: &'a str,
    /// [`super::model::Report::started`].
    pub started: Utc,
    /// [`super::model::Report::complete`].
    pub complete: bool,
}

/// What a report is beside the others of its run. The numbers are those of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the run's.
    Kept,
    /// The same, byte for byte.
    CopyOf(usize),
    /// A state of the run before that one.
    EarlierThan(usize),
    /// It bears the run's id as that one does, and is no state of it. It is kept.
    ConflictsWith(usize),
}

impl Fate {
    /// Is it kept?
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Kept | Self::ConflictsWith(_))
    }
}

type Hash = [u8; 32];

/// What is compared of a report. Hashes, as there may be many, and large ones.
struct Content {
    whole: Hash,
    /// All but [`LATER`], as it is written.
    rest: Hash,
    /// The larger, the later: does it tell of its delivery, when was it finished, how long is it?
    age: (bool, Utc, usize),
}

/// Says of each report what it is. Only the bytes of those that share a run's id and beginning are read; what cannot be read
/// is like no other.
///
/// # Errors
/// The user wants to stop.
pub fn fates(reports: &[Known<'_>], bytes: &(dyn Fn(usize) -> Result<Vec<u8>> + Sync)) -> Result<Vec<Fate>> {
    let mut runs: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut starts: HashMap<(&str, u64), usize> = HashMap::new();
    for (index, report) in reports.iter().enumerate() {
        runs.entry(report.run_id).or_default().push(index);
        *starts.entry((report.run_id, report.started.0)).or_default() += 1;
    }
    let several = |report: &Known<'_>| starts[&(report.run_id, report.started.0)] > 1;
    let wanted: Vec<usize> = (0..reports.len()).filter(|index| several(&reports[*index])).collect();
    let read = parallel::each(wanted.len(), |at| bytes(wanted[at]).and_then(|bytes| content(&bytes)));
    interrupt::check()?;
    let contents: HashMap<usize, Content> =
        wanted.iter().zip(read).filter_map(|(index, read)| Some((*index, read?.ok()?))).collect();

    let mut fates = vec![Fate::Kept; reports.len()];
    let mut meanings = Meanings { bytes, known: HashMap::new() };
    for mut members in runs.into_values().filter(|members| members.len() > 1) {
        // Whole ones first: what becomes of the others does not depend on where they lie.
        members.sort_by_key(|index| !reports[*index].complete);
        let mut kept: Vec<usize> = Vec::new();
        for new in members {
            interrupt::check()?;
            let of_start = |at: &usize| reports[kept[*at]].started == reports[new].started;
            let found = (0..kept.len()).filter(of_start).find_map(|at| {
                let one = (kept[at], reports[kept[at]].complete, contents.get(&kept[at]));
                let two = (new, reports[new].complete, contents.get(&new));
                Some((at, relation(one, two, &mut meanings)?))
            });
            match found {
                None => {
                    fates[new] = kept.first().map_or(Fate::Kept, |first| Fate::ConflictsWith(*first));
                    kept.push(new);
                }
                Some((at, Relation::Copy)) => fates[new] = Fate::CopyOf(kept[at]),
                Some((at, Relation::Earlier)) => fates[new] = Fate::EarlierThan(kept[at]),
                Some((at, Relation::Later)) => {
                    let old = std::mem::replace(&mut kept[at], new);
                    fates[new] = std::mem::replace(&mut fates[old], Fate::EarlierThan(new));
                }
            }
        }
    }
    Ok(fates)
}

/// What a report is to one that is kept.
enum Relation {
    Copy,
    Earlier,
    Later,
}

/// Of two of one run's id and beginning: number, completeness and content of each. The first is kept until now.
fn relation(
    (one, one_complete, one_content): (usize, bool, Option<&Content>),
    (two, two_complete, two_content): (usize, bool, Option<&Content>),
    meanings: &mut Meanings<'_>,
) -> Option<Relation> {
    if one_complete && !two_complete {
        return Some(Relation::Earlier);
    }
    let (one_content, two_content) = (one_content?, two_content?);
    if one_content.whole == two_content.whole {
        return Some(Relation::Copy);
    }
    // What is unfinished grows in every part.
    let is_state = !one_complete || one_content.rest == two_content.rest || meanings.agree(one, two);
    let later = if two_content.age > one_content.age { Relation::Later } else { Relation::Earlier };
    is_state.then_some(later)
}

/// Reports that are the same but for how they are written: what a server or a program laid out anew.
struct Meanings<'a> {
    bytes: &'a (dyn Fn(usize) -> Result<Vec<u8>> + Sync),
    known: HashMap<usize, Option<Hash>>,
}

impl Meanings<'_> {
    fn agree(&mut self, one: usize, two: usize) -> bool {
        let [one, two] = [one, two].map(|index| {
            let read = || (self.bytes)(index).ok().and_then(|bytes| meaning(&bytes));
            *self.known.entry(index).or_insert_with(read)
        });
        one.is_some() && one == two
    }
}

/// A hash of all but [`LATER`] that does not depend on layout and order.
fn meaning(bytes: &[u8]) -> Option<Hash> {
    let Value::Object(mut fields) = serde_json::from_slice(bytes).ok()? else { return None };
    fields.retain(|name, _| !LATER.contains(&name.as_str()));
    let mut value = Value::Object(fields);
    value.sort_all_objects();
    Some(Sha256::digest(serde_json::to_vec(&value).ok()?).into())
}

fn content(bytes: &[u8]) -> Result<Content> {
    let mut rest = Sha256::new();
    let (mut delivered, mut finished) = (false, Utc::default());
    for (name, value) in fields(bytes).context("it is no JSON object")? {
        match name {
            b"delivery" => delivered = value != b"null",
            b"finished" => finished = serde_json::from_slice(value).unwrap_or_default(),
            b"stages" | b"problems" => {}
            _ => {
                // With their lengths, so that no two different ones run together.
                for part in [name, value] {
                    rest.update((part.len() as u64).to_le_bytes());
                    rest.update(part);
                }
            }
        }
    }
    Ok(Content {
        whole: Sha256::digest(bytes).into(),
        rest: rest.finalize().into(),
        age: (delivered, finished, bytes.len()),
    })
}

/// The fields of a JSON object, each with its value as it is written. Nothing is built, and what is no JSON may come out as
/// anything: whoever asks has read it before.
fn fields(text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut all = Vec::new();
    let mut depth = 0_usize;
    let (mut name, mut begin): (Option<&[u8]>, usize) = (None, 0);
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let open = at + 1;
                at = open;
                while *text.get(at)? != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if depth == 1 && name.is_none() {
                    name = Some(&text[open..at]);
                }
            }
            b':' if depth == 1 && begin == 0 => begin = at + 1,
            b'{' | b'[' => depth += 1,
            byte @ (b',' | b'}' | b']') => {
                if depth == 1
                    && let Some(name) = name.take()
                {
                    all.push((name, text[std::mem::take(&mut begin)..at].trim_ascii()));
                }
                if byte != b',' {
                    depth = depth.checked_sub(1)?;
                }
            }
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then_some(all)
}

#[cfg(test)]
#[path = "same_run_tests.rs"]
pub(crate) mod tests;
