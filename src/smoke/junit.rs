//! The boots as JUnit XML, for CI systems: one test case per boot.

use super::Summary;
use super::outcome::Outcome;
use crate::error::Status;
use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::io::Write;
use std::time::Duration;

/// Writes the document. A boot that is not as its machine file expects, or whose verdict is FAIL, is a `failure`; one that
/// QEMU did not make is an `error`, so that infrastructure is not mistaken for a verdict.
///
/// # Errors
/// It cannot be written.
pub fn write(summary: &Summary, out: &mut dyn Write) -> Result<()> {
    let mut suite = TestSuite::new("gdsboot smoke");
    suite.add_test_cases(summary.boots.iter().map(case));
    let mut xml = Report::new("gdsboot smoke");
    xml.add_test_suite(suite);
    let text = xml.to_string().context("writing the boots as JUnit XML")?;
    out.write_all(text.as_bytes()).context("writing the boots as JUnit XML")
}

fn case(boot: &Outcome) -> TestCase {
    let status = match (boot.status(), &boot.result) {
        (Status::Unavailable | Status::Usage | Status::Bug, result) => {
            let what = result.as_ref().err().map_or("QEMU failed", |failure| failure.what.as_str());
            non_success(NonSuccessKind::Error, what, boot)
        }
        (Status::Fail, Err(failure)) => non_success(NonSuccessKind::Failure, &failure.what, boot),
        (Status::Fail, Ok(reported)) => {
            let differences = boot.differences.as_deref().unwrap_or_default().join("; ");
            let verdict = format!("the verdict is {}", reported.said.verdict_words());
            let what = if differences.is_empty() { verdict } else { differences };
            non_success(NonSuccessKind::Failure, &what, boot)
        }
        (Status::Pass | Status::Incomplete, _) => TestCaseStatus::success(),
    };
    let mut case = TestCase::new(format!("{}, {}", boot.firmware, boot.disk), status);
    case.set_classname(format!("gdsboot.{}", boot.machine));
    if let Some(seconds) = boot.phases.to_verdict {
        case.set_time(Duration::from_secs_f64(seconds));
    }
    case
}

fn non_success(kind: NonSuccessKind, what: &str, boot: &Outcome) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    let last = boot.result.as_ref().err().map(|failure| failure.last_lines.join("\n")).unwrap_or_default();
    let again = boot.command.as_ref().map(|command| format!("\nto see it again: {command}"));
    status.set_message(what).set_description(format!("{what}\n{last}{}", again.unwrap_or_default()));
    status
}
