//! The run as it goes on: its stages, what went wrong in them, and the consoles that are told.
//!
//! A stage that fails or panics is a problem in the report, never the end of the run.

use super::console::Consoles;
use crate::error::one_line;
use crate::facts::Root;
use crate::report::events::What;
use crate::report::model::{Problem, Stage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Words and place of the panic that is being unwound.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Keeps a panic's words for [`Journal::stage`] instead of printing them.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let words = info.payload_as_str().unwrap_or("a panic without words");
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{words}{place}"));
    }));
}

/// The words of the last panic.
pub fn take_panic() -> String {
    let words = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    words.unwrap_or_else(|| "a panic without words".into())
}

/// The run as it goes on.
#[derive(Debug)]
pub struct Journal {
    /// Whoever watches.
    pub consoles: Consoles,
    /// What was done.
    pub stages: Vec<Stage>,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// The stage that panics, for tests.
    break_in: Option<String>,
}

impl Journal {
    /// Opens the consoles.
    pub fn open(root: &Root, break_in: Option<String>) -> Self {
        Self { consoles: Consoles::open(root), stages: Vec::new(), problems: Vec::new(), break_in }
    }

    /// Does a piece of work under a name. `None` where it failed or panicked; the problem is noted.
    pub fn stage<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> Option<T> {
        self.consoles.event(What::StageStarted { stage: name.into() });
        let start = Instant::now();
        let problems = self.problems.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            if self.break_in.as_deref() == Some(name) {
                panic!("this stage was told to panic by the kernel command line");
            }
            work(self)
        }));
        let value = match result {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.problem(name, one_line(&error));
                None
            }
            Err(_) => {
                self.panic(name, take_panic());
                None
            }
        };
        let elapsed = start.elapsed();
        let ok = value.is_some() && self.problems.len() == problems;
        self.stages.push(Stage { name: name.into(), seconds: elapsed.as_secs_f64(), ok });
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.consoles.event(What::StageDone { stage: name.into(), ok, ms });
        value
    }

    /// Notes that something went wrong, and goes on.
    pub fn problem(&mut self, stage: &str, what: String) {
        self.consoles.say(&format!("{stage}: {what}"));
        self.consoles.event(What::Problem { stage: stage.into(), what: what.clone() });
        self.problems.push(Problem { stage: stage.into(), what, panic: false });
    }

    /// Notes a panic, and goes on.
    pub fn panic(&mut self, stage: &str, what: String) {
        self.consoles.say(&format!("{stage}: a bug in gdsboot: {what}"));
        self.consoles.event(What::Panic { stage: stage.into(), what: what.clone() });
        self.problems.push(Problem { stage: stage.into(), what, panic: true });
    }

    /// What went wrong last.
    pub fn last_problem(&self) -> Option<&Problem> {
        self.problems.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(break_in: Option<&str>) -> Journal {
        Journal {
            consoles: Consoles::default(),
            stages: vec![],
            problems: vec![],
            break_in: break_in.map(str::to_owned),
        }
    }

    #[test]
    fn a_stage_that_fails_is_a_problem_and_the_next_goes_on() {
        let mut journal = journal(None);
        assert_eq!(journal.stage("one", |_| anyhow::Ok(1)), Some(1));
        assert_eq!(journal.stage("two", |_| Err::<(), _>(anyhow::anyhow!("no").context("doing it"))), None);
        let half = journal.stage("three", |journal| {
            journal.problem("three", "half of it".into());
            Ok(())
        });
        assert_eq!(half, Some(()));
        let ok: Vec<_> = journal.stages.iter().map(|stage| (stage.name.as_str(), stage.ok)).collect();
        assert_eq!(ok, [("one", true), ("two", false), ("three", false)]);
        assert_eq!(
            journal.problems[0],
            Problem { stage: "two".into(), what: "doing it: no".into(), panic: false }
        );
    }

    #[test]
    fn a_panic_is_caught_and_noted() {
        let mut journal = journal(Some("told"));
        let empty: Vec<u8> = Vec::new();
        assert_eq!(journal.stage("untold", |_| Ok(empty[usize::from(empty.is_empty())])), None);
        assert_eq!(journal.stage("told", |_| Ok(())), None);
        assert_eq!(journal.stage("after", |_| Ok(())), Some(()));
        assert_eq!(journal.problems.iter().filter(|problem| problem.panic).count(), 2);
        assert_eq!(journal.last_problem().unwrap().stage, "told");
    }
}
