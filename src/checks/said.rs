//! What the kernel, programs and libraries said: the same words may stand in the kernel log, in a library's own log or in a
//! program's output, depending on what was captured, so all of them are searched together.

use super::check::Outcome;
use super::context::Context;
use crate::facts::gdscheck::Gdscheck;
use crate::facts::log_lines::LogLines;
use crate::facts::modules::ModuleLoad;
use std::collections::HashSet;

/// How many lines are shown as evidence.
const SHOWN: usize = 4;

/// A line, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The file's absolute path, or the module whose loading was watched.
    pub from: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// Every line of everything that was kept.
pub fn lines<'a>(context: &Context<'a>) -> impl Iterator<Item = Line<'a>> + use<'a> {
    let facts = context.facts;
    let kernel = facts.kernel_log.value().into_iter().flat_map(|log| &log.sources);
    let logs = kernel.chain(facts.logs.value().into_iter().flatten());
    let logs =
        logs.flat_map(|log: &LogLines| log.lines.iter().map(|line| (log.from.as_str(), line.as_str())));
    let loads = facts.module_loads.value().into_iter().flatten();
    let loads = loads.flat_map(|load: &ModuleLoad| {
        load.kernel_lines.iter().map(|line| (load.name.as_str(), line.as_str()))
    });
    // What a program printed of the kernel log may be the kernel log that was read.
    let taken = facts.kernel_log.value().map_or(&[][..], |log| log.sources.as_slice());
    let commands = facts.commands.value().into_iter().flatten();
    let commands = commands.flat_map(|command| {
        let log = command.kernel_log.iter().filter(|log| taken.iter().all(|known| known.from != log.from));
        let printed = command.stdout.iter().chain(&command.stderr).chain(log.flat_map(|log| &log.lines));
        printed.map(|line| (command.from.as_str(), line.as_str()))
    });
    logs.chain(loads).chain(commands).map(|(from, text)| Line { from, text })
}

/// The lines that match one of `patterns`: pieces of text between `*` that must occur in their order, in capital or small
/// letters. Each text once, wherever it stands.
pub fn find<'a>(context: &Context<'a>, patterns: &[&str]) -> Vec<Line<'a>> {
    let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let mut seen = HashSet::new();
    lines(context)
        .filter(|line| {
            let text = line.text.to_ascii_lowercase();
            patterns.iter().any(|pattern| matches(&text, pattern))
        })
        .filter(|line| seen.insert(line.text))
        .collect()
}

/// The lines that match one of `patterns` and are `ours`, and how often they came: a text that came again and again was kept
/// only so often.
pub fn repeated<'a>(
    context: &Context<'a>,
    patterns: &[&str],
    ours: impl Fn(&str) -> bool,
) -> (Vec<Line<'a>>, u64) {
    let said: Vec<Line<'a>> = find(context, patterns).into_iter().filter(|line| ours(line.text)).collect();
    let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let facts = context.facts;
    let kernel = facts.kernel_log.value().into_iter().flat_map(|log| &log.sources);
    let again = kernel.chain(facts.logs.value().into_iter().flatten()).flat_map(|log| &log.repeated);
    let again = again.filter(|(text, _)| {
        let lower = text.to_ascii_lowercase();
        ours(text) && patterns.iter().any(|pattern| matches(&lower, pattern))
    });
    let times = again.fold(said.len() as u64, |times, (_, more)| times.saturating_add(*more));
    (said, times)
}

fn matches(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|piece| match rest.split_once(piece) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Puts lines under an outcome, the first few of them.
pub fn with_lines(outcome: Outcome, lines: &[Line<'_>]) -> Outcome {
    lines.iter().take(SHOWN).fold(outcome, |outcome, line| outcome.evidence(line.from, line.text))
}

/// Why it cannot be said that the kernel did not say something; `None` where its whole log was seen.
pub fn kernel_log_unseen(context: &Context<'_>) -> Option<String> {
    match context.facts.kernel_log.value() {
        Some(log) => log.incomplete().map(|why| format!("the kernel log is not complete: {why}")),
        None => {
            let absent = context.facts.kernel_log.as_ref().map(|_| "");
            Some(format!("the kernel log cannot be seen: {absent}"))
        }
    }
}

/// Fails where one of `patterns` was said; passes only where the whole kernel log was seen.
pub fn judge_kernel_log(
    context: &Context<'_>,
    patterns: &[&str],
    silent: &str,
    failed: impl FnOnce() -> Outcome,
) -> Outcome {
    let said = find(context, patterns);
    if !said.is_empty() {
        return with_lines(failed(), &said);
    }
    silence(context, silent)
}

/// What silence of the kernel log means.
pub fn silence(context: &Context<'_>, silent: &str) -> Outcome {
    match kernel_log_unseen(context) {
        None => Outcome::pass(silent),
        Some(why) => Outcome::unknown(why),
    }
}

/// Was anything of cuFile's own words seen? Only then does its silence mean something. A gdscheck that ended at CUDA never
/// came to it.
pub fn heard_cufile(context: &Context<'_>) -> bool {
    let facts = context.facts;
    facts.gdscheck.value().is_some_and(Gdscheck::looked)
        || facts
            .logs
            .value()
            .into_iter()
            .flatten()
            .any(|log| log.from.rsplit('/').next().is_some_and(|name| name.starts_with("cufile")))
}

/// Numbers of a version: `580.95.05` -> 580, 95, 5. Empty where there is none at the beginning.
pub fn numbers(version: &str) -> Vec<u32> {
    let plain = version.trim_start_matches('v');
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    plain[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

/// Is a version at least `least`? Numbers that it does not tell count as enough. `None` where it tells none.
pub fn at_least(version: &str, least: &[u32]) -> Option<bool> {
    let numbers = numbers(version);
    let told = numbers.len().min(least.len());
    (told > 0).then(|| numbers[..told] >= least[..told])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_occur_in_their_order() {
        assert!(matches("dmar: [dma write] fault addr 0", "dmar:*fault addr"));
        assert!(!matches("fault addr dmar:", "dmar:*fault addr"));
        assert!(!matches("", "x"));
    }

    #[test]
    fn versions_are_compared_as_far_as_they_are_told() {
        assert_eq!(numbers("6.8.0-79-generic"), [6, 8, 0]);
        assert_eq!(numbers("x"), [0; 0]);
        assert_eq!(at_least("2.27", &[2, 26, 6]), Some(true));
        assert_eq!(at_least("2.26", &[2, 26, 6]), Some(true));
        assert_eq!(at_least("2.25.7", &[2, 26, 6]), Some(false));
        assert_eq!(at_least("99999999999", &[1]), None);
        assert_eq!(at_least("", &[1]), None);
    }
}
