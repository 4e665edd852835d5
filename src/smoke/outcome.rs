//! What came out of a boot, and the judgement on it: a boot passes only with a complete report, an orderly power-off and
//! a QEMU that did not fail.

use super::argv::Accel;
use super::console::Console;
use super::expectation::Place;
use super::machine::{Disk, Firmware};
use super::phases::Phases;
use super::wait::End;
use crate::bench::route::Route;
use crate::error::{Status, one_line};
use crate::report::model::{Report, Verdict, verdict_words};
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
    /// QEMU's command line, for a POSIX shell; none where it did not come to that.
    pub command: Option<String>,
    /// The folder with console.log and everything else, if it was kept.
    pub kept: Option<PathBuf>,
}

/// A complete report.
#[derive(Debug, Serialize)]
pub struct Reported {
    /// The run's folder on the report partition; none where no disk took the report.
    pub run: Option<String>,
    /// What it says, in short.
    #[serde(flatten)]
    pub said: Said,
    /// The report; none where its text on the serial line is all there is.
    pub report: Option<Box<Report>>,
    /// The same for people, as the guest wrote it.
    #[serde(skip)]
    pub text: String,
}

/// What a run says of itself, in its report or on its console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// What was found.
    pub verdict: Verdict,
    /// What was proven.
    pub route: Route,
    /// Did devices or libraries that imitate NVIDIA's take part?
    pub simulated: bool,
    /// What went wrong in the run itself, `stage: what`.
    #[serde(skip)]
    pub problems: Vec<String>,
}

impl Said {
    /// By a report.
    pub fn by(report: &Report) -> Self {
        let problems = report.problems.iter().map(|problem| format!("{}: {}", problem.stage, problem.what));
        Self {
            verdict: report.verdict,
            route: report.route,
            simulated: report.is_simulated(),
            problems: problems.collect(),
        }
    }

    /// The verdict, and whether it is about something simulated.
    pub fn verdict_words(&self) -> String {
        verdict_words(self.verdict, self.simulated)
    }
}

impl Reported {
    /// Where the report is.
    pub fn place(&self) -> Place {
        if self.report.is_some() { Place::Partition } else { Place::SerialLine }
    }

    /// That of the serial line, where all of it was seen.
    fn on_serial_line(console: &Console) -> Option<Self> {
        let ((verdict, _), (route, simulated)) = console.verdict.as_ref().zip(console.route)?;
        let said = Said { verdict: *verdict, route, simulated, problems: console.problems.clone() };
        Some(Self { run: None, said, report: None, text: console.text.clone()? })
    }
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
            (Ok(reported), None) => reported.said.verdict.status(),
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

/// What Linux panics with where no timer interrupt comes while it waits for one (arch/x86/kernel/apic/io_apic.c): QEMU did not get
/// the host's CPU.
const STARVED: &str = "IO-APIC + timer doesn't work";

/// Judges a boot by how it ended, what the console said, and the run that was found on the report partition
/// afterwards. Only where the machine is expected to have no place for a report, `expected`, does that on the serial line count.
pub fn judge(
    end: End,
    age: Duration,
    console: &Console,
    run: Result<Option<Run>>,
    expected: Place,
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
    let is_starved = console.dead_end.as_ref().is_some_and(|words| words.contains(STARVED));
    let fail = |what: String| Failure {
        status: if is_starved { Status::Unavailable } else { Status::Fail },
        what: if is_starved {
            format!("{what}; this host was too busy to emulate a timer: boot it again")
        } else {
            what
        },
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
    let on_serial_line = if expected == Place::SerialLine { Reported::on_serial_line(console) } else { None };
    let (folder, report, text) = match report {
        Err(_) if orderly && let Some(reported) = on_serial_line => return Ok(reported),
        Err(e) => return Err(fail(format!("{ending}; {}", one_line(&e)))),
        Ok((folder, ..)) if !orderly => return Err(fail(format!("{ending}; the run {folder} is complete"))),
        Ok(found) => found,
    };
    match console.verdict {
        Some((said, _)) if said != report.verdict => Err(fail(format!(
            "the console said {said}, the report of the run {folder} says {}",
            report.verdict
        ))),
        _ => {
            Ok(Reported { run: Some(folder), said: Said::by(&report), report: Some(Box::new(report)), text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let failure = judge(end, AGE, console, run, Place::Partition).unwrap_err();
        (failure.status, failure.what)
    }

    #[test]
    fn a_complete_report_and_an_orderly_end_count() {
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Incomplete] {
            let reported =
                judge(exited(0), AGE, &Console::default(), run(verdict, true), Place::Partition).unwrap();
            assert_eq!((reported.said.verdict, reported.said.route), (verdict, Route::None));
            assert_eq!((reported.run.as_deref(), reported.text.as_str()), (Some("r"), "the report"));
            assert_eq!(reported.place(), Place::Partition);
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
        let starved = "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug";
        let (status, what) = failure(exited(0), &self::console(&[(Speaker::Guest, starved)]), Ok(None));
        assert_eq!(status, Status::Unavailable);
        assert!(what.contains("this host was too busy"), "{what}");
    }

    #[test]
    fn console_and_report_must_agree() {
        let line = r#"gdsboot-event {"v":1,"seq":0,"up_ms":1,"event":"verdict","verdict":"PASS","route":"nvfs","exit_status":0,"run_id":"0a1b2c3d","path":"reports/r"}"#;
        let console = console(&[(Speaker::Guest, line)]);
        assert!(judge(exited(0), AGE, &console, run(Verdict::Pass, true), Place::Partition).is_ok());
        let (_, what) = failure(exited(0), &console, run(Verdict::Fail, true));
        assert_eq!(what, "the console said PASS, the report of the run r says FAIL");
    }

    #[test]
    fn the_serial_line_counts_where_it_is_expected_to() {
        let verdict = r#"gdsboot-event {"v":1,"seq":1,"up_ms":1,"event":"verdict","verdict":"INCOMPLETE","route":"none","simulated":true,"exit_status":2,"run_id":"a","path":null}"#;
        let problem = r#"gdsboot-event {"v":1,"seq":0,"up_ms":1,"event":"problem","stage":"report-partition","what":"it is full"}"#;
        let lines = [
            problem,
            "-----BEGIN GDSBOOT REPORT-----",
            "gdsboot report",
            "",
            "-----END GDSBOOT REPORT-----",
            verdict,
        ];
        let said = console(&lines.map(|line| (Speaker::Guest, line)));
        let reported = judge(exited(0), AGE, &said, Ok(None), Place::SerialLine).unwrap();
        assert_eq!(
            (reported.place(), reported.run, reported.text.as_str()),
            (Place::SerialLine, None, "gdsboot report\n\n")
        );
        let expected = Said {
            verdict: Verdict::Incomplete,
            route: Route::None,
            simulated: true,
            problems: vec!["report-partition: it is full".into()],
        };
        assert_eq!(reported.said, expected);
        assert!(judge(exited(0), AGE, &said, Ok(None), Place::Partition).is_err());
        assert!(judge(End::Deadline, AGE, &said, Ok(None), Place::SerialLine).is_err());
        // A report on a disk is the better one, and a text without an end is none.
        let reported =
            judge(exited(0), AGE, &said, run(Verdict::Incomplete, true), Place::SerialLine).unwrap();
        assert_eq!(reported.place(), Place::Partition);
        let cut = console(&[lines[1], lines[2], verdict].map(|line| (Speaker::Guest, line)));
        assert!(judge(exited(0), AGE, &cut, Ok(None), Place::SerialLine).is_err());
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
