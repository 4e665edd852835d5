//! What came out of a boot, and the judgement on it: a boot passes only with a complete report, an orderly power-off and
//! a QEMU that did not fail.

use super::argv::Accel;
use super::console::Console;
use super::machine::{Disk, Firmware};
use super::phases::Phases;
use super::wait::End;
use crate::error::{Status, one_line};
use crate::report::model::Report;
use crate::report::source::Run;
use anyhow::Result;
use serde::{Serialize, Serializer};
use std::path::PathBuf;
use std::time::Duration;

/// One boot of the image.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Name of the machine file.
    pub machine: String,
    /// What started the boot loader.
    pub firmware: Firmware,
    /// How the image was attached.
    pub disk: Disk,
    /// What executed the guest.
    pub accel: Accel,
    /// How long each part took.
    pub phases: Phases,
    /// The report, or why there is none that counts.
    #[serde(flatten, serialize_with = "report_or_failure")]
    pub result: Result<Reported, Failure>,
    /// What is worth knowing and no failure.
    pub notes: Vec<String>,
    /// QEMU's command line, for a POSIX shell.
    pub command: String,
    /// The folder with console.log and everything else, if it was kept.
    pub kept: Option<PathBuf>,
}

/// A complete report.
#[derive(Debug, Serialize)]
pub struct Reported {
    /// The run's folder on the report partition.
    pub run: String,
    /// The report.
    pub report: Box<Report>,
    /// The same for people, as the guest wrote it.
    #[serde(skip)]
    pub text: String,
}

/// Why a boot does not count as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// [`Status::Unavailable`] where QEMU failed, else [`Status::Fail`].
    #[serde(serialize_with = "status_number")]
    pub status: Status,
    /// What happened.
    pub what: String,
    /// The last lines of the console, or of QEMU where it failed.
    pub last_lines: Vec<String>,
}

fn report_or_failure<S: Serializer>(
    result: &Result<Reported, Failure>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Named<'a> {
        reported: Option<&'a Reported>,
        failure: Option<&'a Failure>,
    }
    Named { reported: result.as_ref().ok(), failure: result.as_ref().err() }.serialize(serializer)
}

fn status_number<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*status as u8)
}

impl Outcome {
    /// The exit status of this boot: its verdict's, or its failure's.
    pub fn status(&self) -> Status {
        match &self.result {
            Ok(reported) => reported.report.verdict.status(),
            Err(failure) => failure.status,
        }
    }

    /// `uefi, virtio-blk`.
    pub fn name(&self) -> String {
        format!("{}, {}", self.firmware, self.disk)
    }
}

/// The worst of several: a QEMU that failed is worse than any verdict (the others do not tell what it would have been),
/// then FAIL, INCOMPLETE, PASS.
pub fn worst(statuses: impl IntoIterator<Item = Status>) -> Status {
    let rank = |status: &Status| match status {
        Status::Pass => 0,
        Status::Incomplete => 1,
        Status::Fail => 2,
        Status::Usage | Status::Unavailable => 3,
        Status::Bug => 4,
    };
    statuses.into_iter().max_by_key(rank).unwrap_or(Status::Pass)
}

/// Judges a boot by how it ended, what the console said, and the run that was found on the report partition
/// afterwards.
pub fn judge(
    end: End,
    age: Duration,
    console: &Console,
    run: Result<Option<Run>>,
) -> Result<Reported, Failure> {
    if let End::Exited(status) = end
        && !status.success()
    {
        let said = console.qemu.back().map(|said| format!(": {said}")).unwrap_or_default();
        return Err(Failure {
            status: Status::Unavailable,
            what: format!("QEMU failed ({status}){said}"),
            last_lines: console.qemu.iter().cloned().collect(),
        });
    }
    let fail = |what: String| Failure {
        status: Status::Fail,
        what,
        last_lines: console.tail.iter().cloned().collect(),
    };
    let report = match run {
        Ok(Some(run)) => run.report().map(|report| (run.folder, report, run.text.unwrap_or_default())),
        Ok(None) => Err(anyhow::anyhow!("no run was begun on the report partition")),
        Err(e) => Err(e),
    };
    let (ending, orderly) = match (end, &console.dead_end) {
        (End::Exited(_), None) => ("the guest ended".to_owned(), true),
        (_, Some(words)) => (format!("the guest died: {words}"), false),
        (End::Deadline | End::Stopped, None) => {
            let (seconds, phase) = (age.as_secs_f64(), console.marks.reached());
            (format!("the guest had not ended after {seconds:.0} s, in the phase {phase}"), false)
        }
    };
    let (folder, report, text) = match report {
        Err(e) => return Err(fail(format!("{ending}; {}", one_line(&e)))),
        Ok((folder, ..)) if !orderly => return Err(fail(format!("{ending}; the run {folder} is complete"))),
        Ok(found) => found,
    };
    match console.verdict {
        Some((said, _)) if said != report.verdict => Err(fail(format!(
            "the console said {said}, the report of the run {folder} says {}",
            report.verdict
        ))),
        _ => Ok(Reported { run: folder, report: Box::new(report), text }),
    }
}
