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
    /// Where the machine says what to expect, how the report differs from it; nothing where it does not.
    pub differences: Option<Vec<String>>,
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

/// A status as its number.
pub(super) fn status_number<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*status as u8)
}

impl Outcome {
    /// The exit status of this boot: its failure's, else whether it is as the machine file expects, else its verdict's.
    pub fn status(&self) -> Status {
        match (&self.result, &self.differences) {
            (Err(failure), _) => failure.status,
            (Ok(_), Some(differences)) if differences.is_empty() => Status::Pass,
            (Ok(_), Some(_)) => Status::Fail,
            (Ok(reported), None) => reported.report.verdict.status(),
        }
    }

    /// `no-gpu, uefi, virtio-blk`.
    pub fn name(&self) -> String {
        format!("{}, {}, {}", self.machine, self.firmware, self.disk)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::route::Route;
    use crate::report::model::Verdict;
    use crate::report::model::tests::sample;
    use crate::smoke::guest::{Line, Speaker};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    const AGE: Duration = Duration::from_secs(200);

    fn exited(raw: i32) -> End {
        End::Exited(ExitStatus::from_raw(raw))
    }

    fn run(verdict: Verdict, complete: bool) -> Result<Option<Run>> {
        let mut json = Vec::new();
        crate::report::json::write(&Report { verdict, complete, ..sample() }, &mut json)?;
        let (folder, started) = ("r".to_owned(), Some("s".to_owned()));
        Ok(Some(Run {
            folder,
            started,
            json: Some(json),
            text: Some("the report".into()),
            capture: None,
            samples: None,
        }))
    }

    fn console(lines: &[(Speaker, &str)]) -> Console {
        let mut console = Console::default();
        for (speaker, text) in lines {
            console.add(&Line { at: Duration::from_secs(1), speaker: *speaker, text: (*text).to_owned() });
        }
        console
    }

    fn failure(end: End, console: &Console, run: Result<Option<Run>>) -> (Status, String) {
        let failure = judge(end, AGE, console, run).unwrap_err();
        (failure.status, failure.what)
    }

    #[test]
    fn a_complete_report_and_an_orderly_end_count() {
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Incomplete] {
            let reported = judge(exited(0), AGE, &Console::default(), run(verdict, true)).unwrap();
            assert_eq!((reported.report.verdict, reported.report.route), (verdict, Route::None));
            assert_eq!((reported.run.as_str(), reported.text.as_str()), ("r", "the report"));
        }
    }

    #[test]
    fn a_qemu_that_failed_is_never_a_verdict() {
        let console = console(&[(Speaker::Qemu, "qemu: could not set up host forwarding")]);
        let expected = "QEMU failed (exit status: 1): qemu: could not set up host forwarding";
        let judged = failure(exited(1 << 8), &console, run(Verdict::Pass, true));
        assert_eq!(judged, (Status::Unavailable, expected.into()));
        let (status, what) = failure(exited(11), &Console::default(), Ok(None));
        assert_eq!(status, Status::Unavailable);
        assert!(what.starts_with("QEMU failed (signal: 11"), "{what}");
    }

    #[test]
    fn everything_else_says_what_happened_and_how_far_the_run_came() {
        let quiet = Console::default();
        let panic = console(&[(Speaker::Guest, "[    1.000000] Kernel panic - not syncing: No init found")]);
        let cases = [
            (exited(0), &quiet, Ok(None), "the guest ended; no run was begun on the report partition"),
            (
                exited(0),
                &quiet,
                run(Verdict::Pass, false),
                "the guest ended; the run r was cut off: its last stage in the report is",
            ),
            (
                exited(0),
                &quiet,
                Err(anyhow::anyhow!("reading partition 1: it has no FAT filesystem")),
                "the guest ended; reading partition 1: it has no FAT filesystem",
            ),
            (
                exited(0),
                &panic,
                Ok(None),
                "the guest died: Kernel panic - not syncing: No init found; no run was begun",
            ),
            (
                End::Deadline,
                &panic,
                run(Verdict::Pass, true),
                "the guest died: Kernel panic - not syncing: No init found; the run r is complete",
            ),
            (
                End::Deadline,
                &quiet,
                run(Verdict::Pass, true),
                "the guest had not ended after 200 s, in the phase firmware; the run r is complete",
            ),
        ];
        for (end, console, run, expected) in cases {
            let (status, what) = failure(end, console, run);
            assert_eq!(status, Status::Fail);
            assert!(what.starts_with(expected), "{what}");
        }
    }

    #[test]
    fn console_and_report_must_agree() {
        let line = r#"gdsboot-event {"v":1,"seq":0,"up_ms":1,"event":"verdict","verdict":"PASS","route":"nvfs","exit_status":0,"run_id":"0a1b2c3d","path":"reports/r"}"#;
        let console = console(&[(Speaker::Guest, line)]);
        assert!(judge(exited(0), AGE, &console, run(Verdict::Pass, true)).is_ok());
        let (_, what) = failure(exited(0), &console, run(Verdict::Fail, true));
        assert_eq!(what, "the console said PASS, the report of the run r says FAIL");
    }

    #[test]
    fn the_worst_wins() {
        use Status::{Fail, Incomplete, Pass, Unavailable};
        assert_eq!(worst([Pass, Incomplete, Pass]), Incomplete);
        assert_eq!(worst([Incomplete, Fail]), Fail);
        assert_eq!(worst([Unavailable, Fail, Pass]), Unavailable);
        assert_eq!(worst([Pass]), Pass);
    }
}
