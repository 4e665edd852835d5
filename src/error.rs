//! Errors for people: what happened (the chain), what to do next (the hint), and the exit status that goes with it.
//!
//! Everything fallible returns [`anyhow::Result`]; a hint or a status rides along in the chain and is found again by
//! [`hint_of`] and [`status_of`], however much context was added above it.

use crate::report::layout::clean_lines;
use std::fmt;
use std::process::ExitCode;

/// The exit statuses of every gdsboot program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The route was proven.
    Pass = 0,
    /// Something must be mended.
    Fail = 1,
    /// Nothing was proven: a prerequisite is missing or cannot be seen from here.
    Incomplete = 2,
    /// The command line or a file that the user wrote is wrong (`EX_USAGE`).
    Usage = 64,
    /// Something that the tool needs is missing or failed (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A bug in gdsboot (`EX_SOFTWARE`).
    Bug = 70,
}

/// An error that carries advice: a hint for the next step, an exit status, or both.
#[derive(Debug)]
struct Advised {
    inner: anyhow::Error,
    hint: Option<String>,
    status: Option<Status>,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `inner` prints itself as this link of the chain, so the chain goes on below it.
        self.inner.source()
    }
}

/// Adds advice to a failing result without adding a link to the printed chain.
pub trait Advise<T> {
    /// Says what the user can do next. A hint that is already there, nearer to the cause, stays the one that is shown.
    fn hint(self, hint: impl fmt::Display) -> anyhow::Result<T>;
    /// Sets the exit status. The outermost one wins.
    fn status(self, status: Status) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn hint(self, hint: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|e| Advised { inner: e.into(), hint: Some(hint.to_string()), status: None }.into())
    }

    fn status(self, status: Status) -> anyhow::Result<T> {
        self.map_err(|e| Advised { inner: e.into(), hint: None, status: Some(status) }.into())
    }
}

/// An error made of a message and a hint.
pub fn hinted(message: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
    Advised { inner: anyhow::anyhow!("{message}"), hint: Some(hint.to_string()), status: None }.into()
}

/// An error in what the user asked for: [`Status::Usage`], with a hint.
pub fn usage(message: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
    let inner = anyhow::anyhow!("{message}");
    Advised { inner, hint: Some(hint.to_string()), status: Some(Status::Usage) }.into()
}

/// Every piece of advice in `error`'s chain, outermost first.
fn advice(error: &anyhow::Error) -> Vec<&Advised> {
    let mut found = Vec::new();
    let mut todo = vec![error];
    while let Some(e) = todo.pop() {
        for link in e.chain() {
            if let Some(advised) = link.downcast_ref::<Advised>() {
                found.push(advised);
                todo.push(&advised.inner);
                break;
            }
        }
    }
    found
}

/// The hint that is nearest to the cause.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    advice(error).into_iter().rev().find_map(|a| a.hint.as_deref())
}

/// The exit status of `error`; [`Status::Unavailable`] where nobody said otherwise.
pub fn status_of(error: &anyhow::Error) -> Status {
    advice(error).into_iter().find_map(|a| a.status).unwrap_or(Status::Unavailable)
}

/// The chain on one line, as the programs print it after `error: `.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for link in error.chain() {
        // A parser's message ends with a line break.
        let link = link.to_string().trim_end().to_owned();
        // A wrapped error often repeats its source's text; say it once.
        if text.ends_with(&link) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&link);
    }
    text
}

/// The same with the hint behind it, where there is one: for an error among several.
pub fn advised_line(error: &anyhow::Error) -> String {
    let hint = hint_of(error).map_or(String::new(), |hint| format!(" ({hint})"));
    format!("{}{hint}", one_line(error))
}

/// Reads the command line. What is wrong with it, or the help that was asked for, is printed.
///
/// # Errors
/// The exit status where the program is not to run.
pub fn arguments<A: clap::Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| {
        // Whoever closed the pipe needs no help.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { Status::Usage } else { Status::Pass } as u8)
    })
}

/// Ends a program: prints the error with its hint, where there is one, without anything that a terminal would obey.
pub fn exit(program: &str, result: anyhow::Result<Status>) -> ExitCode {
    let status = result.unwrap_or_else(|error| {
        eprintln!("{program}: error: {}", clean_lines(&one_line(&error)));
        if let Some(hint) = hint_of(&error) {
            eprintln!("hint: {}", clean_lines(hint));
        }
        status_of(&error)
    });
    ExitCode::from(status as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn advice_survives_context_and_does_not_show_in_the_chain() {
        let error = std::fs::read("/nonexistent")
            .context("reading /nonexistent")
            .hint("make it")
            .status(Status::Usage)
            .context("doing it")
            .unwrap_err();
        assert_eq!(
            one_line(&error),
            "doing it: reading /nonexistent: No such file or directory (os error 2)"
        );
        assert_eq!(hint_of(&error), Some("make it"));
        assert_eq!(status_of(&error), Status::Usage);
    }

    #[test]
    fn the_hint_nearest_to_the_cause_wins() {
        let error = Err::<(), _>(hinted("inner", "near")).hint("far").unwrap_err();
        assert_eq!(hint_of(&error), Some("near"));
        assert_eq!(status_of(&error), Status::Unavailable);
    }
}
