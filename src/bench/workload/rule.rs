//! What makes a workload pass, and how a run is judged by it.

use super::end_of;
use crate::program::ending;
use regex_lite::Regex;
use std::process::ExitStatus;
use std::time::Duration;

/// How much of its output, from the end, is looked at.
const JUDGED: usize = 256 << 10;
/// How much of a text is shown in a sentence, in characters.
const SHOWN: usize = 60;

/// What makes a workload pass.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The status that it ends with.
    pub status: i32,
    /// What its output matches.
    pub expect: Option<Regex>,
    /// A figure of its output.
    pub figure: Option<Figure>,
}

/// A figure, and its bounds.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Where it stands: the pattern's only group.
    pub pattern: Regex,
    /// The least that it may be.
    pub at_least: Option<f64>,
    /// The most.
    pub at_most: Option<f64>,
    /// What is said behind it.
    pub unit: Option<String>,
}

/// What a rule says of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// Was every part kept?
    pub passed: bool,
    /// The parts that were broken; where none was, those that were kept.
    pub why: String,
    /// The figure, where there is one.
    pub figure: Option<f64>,
}

/// One part of a rule: in which words it was kept, or broken.
type Part = Result<String, String>;

impl Rule {
    /// Judges a run that ended with `status`, or was killed after `limit`, and printed `output`.
    pub fn judge(&self, status: Option<ExitStatus>, limit: Duration, output: &str) -> Judgement {
        let output = end_of(output, JUDGED);
        let mut parts = vec![self.status(status, limit)];
        if let Some(expect) = &self.expect {
            parts.push(match expect.is_match(output) {
                true => Ok("expect matches".into()),
                false => Err(format!("nothing matches expect {:?}", shown(expect.as_str()))),
            });
        }
        let mut number = None;
        if let Some(figure) = &self.figure {
            let read = figure.read(output);
            number = read.as_ref().ok().copied();
            parts.push(read.and_then(|number| figure.judge(number)));
        }
        let broken: Vec<&str> =
            parts.iter().filter_map(|part| part.as_ref().err().map(String::as_str)).collect();
        let kept = parts.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
        let passed = broken.is_empty();
        let why = if passed { kept } else { broken.join("; ") };
        Judgement { passed, why, figure: number }
    }

    fn status(&self, status: Option<ExitStatus>, limit: Duration) -> Part {
        let how = ending(status, limit);
        match status.map(|status| status.code()) {
            None => Err(format!("{how} (timeout_s)")),
            Some(None) => Err(format!("it crashed with {how}")),
            Some(Some(code)) if code == self.status => Ok(how),
            Some(Some(_)) => Err(format!("{how} is not {}", self.status)),
        }
    }
}

impl Figure {
    fn read(&self, output: &str) -> Result<f64, String> {
        let pattern = shown(self.pattern.as_str());
        let Some(last) = self.pattern.captures_iter(output).last() else {
            return Err(format!("nothing matches figure {pattern:?}"));
        };
        let text = last.get(1).map_or("", |group| group.as_str());
        let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| format!("the last match of figure is {:?}, which is no number", shown(text)))
    }

    fn judge(&self, number: f64) -> Part {
        let unit = self.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
        let said = format!("{number}{unit}");
        match (self.at_least, self.at_most) {
            (Some(least), _) if number < least => Err(format!("{said} is below at_least {least}{unit}")),
            (_, Some(most)) if number > most => Err(format!("{said} is above at_most {most}{unit}")),
            (Some(least), Some(most)) => Ok(format!("{said} is from {least} to {most}{unit}")),
            (Some(least), None) => Ok(format!("{said} is at least {least}{unit}")),
            (None, Some(most)) => Ok(format!("{said} is at most {most}{unit}")),
            (None, None) => Ok(said),
        }
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
