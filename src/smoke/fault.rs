//! What a machine file lets go wrong while it is booted, and when.

use super::console::is_kernel_line;
use super::guest::{Line, Speaker};
use crate::boot_contract::LOADER_MARK;
use crate::report::events::{Event, What};
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// What is wrong with the partition that reports are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportPartition {
    /// The disk has none.
    Missing,
    /// It takes no file.
    Full,
    /// It has [`NEARLY_FULL`] bytes left: the run begins on it, and its report does not fit.
    NearlyFull,
    /// The disk cannot be written to.
    ReadOnly,
}

/// Room for the run's folder and `STARTED`, not for a report.
pub const NEARLY_FULL: u64 = 16 << 10;

/// Where a boot has got to, by what its console shows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    /// The boot menu loads the kernel.
    Loader,
    /// The kernel's first line.
    Kernel,
    /// A step of the run begins; its name, as in the report.
    Stage(String),
    /// The verdict is on the console.
    Verdict,
}

/// A moment of a boot, `loader`, `kernel`, `verdict`, or the name of a step of the run, when it begins; with `+200ms`, so much
/// later. Milliseconds are the host's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Moment {
    mark: Mark,
    /// How long after the mark.
    pub delay: Duration,
}

/// Longer than any step takes.
const LONGEST_DELAY: u64 = 600_000;

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || {
            format!(
                "{text:?} is no moment: loader, kernel, verdict, or a step of the run such as write-report; with +200ms \
                 so much later"
            )
        };
        let (name, delay) = match text.split_once('+') {
            None => (text.as_str(), 0),
            Some((name, delay)) => {
                let delay = delay.strip_suffix("ms").and_then(|number| number.parse().ok());
                (name, delay.filter(|delay| *delay <= LONGEST_DELAY).ok_or_else(refuse)?)
            }
        };
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let mark = match name {
            "loader" => Mark::Loader,
            "kernel" => Mark::Kernel,
            "verdict" => Mark::Verdict,
            stage if is_name(stage) => Mark::Stage(stage.to_owned()),
            _ => return Err(refuse()),
        };
        Ok(Self { mark, delay: Duration::from_millis(delay) })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.mark {
            Mark::Loader => "loader",
            Mark::Kernel => "kernel",
            Mark::Verdict => "verdict",
            Mark::Stage(stage) => stage,
        })?;
        match self.delay.as_millis() {
            0 => Ok(()),
            ms => write!(f, "+{ms}ms"),
        }
    }
}

impl Moment {
    /// Is this the line that marks it?
    pub fn is_marked_by(&self, line: &Line) -> bool {
        if line.speaker != Speaker::Guest {
            return false;
        }
        match &self.mark {
            Mark::Loader => line.text.contains(LOADER_MARK),
            Mark::Kernel => is_kernel_line(&line.text),
            Mark::Stage(name) => matches!(event(line), Some(What::StageStarted { stage }) if stage == *name),
            Mark::Verdict => matches!(event(line), Some(What::Verdict { .. })),
        }
    }
}

fn event(line: &Line) -> Option<What> {
    Some(Event::parse(&line.text)?.ok()?.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Moment {
        Moment::try_from(text.to_owned()).unwrap()
    }

    fn line(text: &str) -> Line {
        Line { at: Duration::ZERO, speaker: Speaker::Guest, text: text.to_owned() }
    }

    #[test]
    fn moments_are_words_of_the_console() {
        let lines = [
            ("loader", "\u{1b}[2Jgdsboot: loading the kernel"),
            ("kernel", "[    0.000000] Linux version 6.12"),
            (
                "write-report+20ms",
                r#"[    1.000000] x gdsboot-event {"v":1,"seq":0,"up_ms":1,"event":"stage-started","stage":"write-report"}"#,
            ),
            (
                "verdict",
                r#"gdsboot-event {"v":1,"seq":1,"up_ms":1,"event":"verdict","verdict":"PASS","route":"nvfs","exit_status":0,"run_id":"a","path":null}"#,
            ),
        ];
        for (text, _) in lines {
            assert_eq!(moment(text).to_string(), text);
            let marked: Vec<&str> = lines
                .iter()
                .filter(|(_, said)| moment(text).is_marked_by(&line(said)))
                .map(|(text, _)| *text)
                .collect();
            // printk's time stands before every line of the kernel's.
            let expected = if text == "kernel" { vec!["kernel", "write-report+20ms"] } else { vec![text] };
            assert_eq!(marked, expected);
        }
        assert_eq!(moment("write-report+20ms").delay, Duration::from_millis(20));
        let done = r#"gdsboot-event {"v":1,"seq":0,"up_ms":1,"event":"stage-done","stage":"facts","ok":true,"ms":1}"#;
        assert!(!moment("facts").is_marked_by(&line(done)));
        let qemu = Line { speaker: Speaker::Qemu, ..line("gdsboot: loading the kernel") };
        assert!(!moment("loader").is_marked_by(&qemu));
    }

    #[test]
    fn other_words_are_refused() {
        for text in ["", "Kernel", "facts+", "facts+1s", "facts+-1ms", "facts+600001ms", "a b"] {
            let error = Moment::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains("is no moment: loader"), "{error}");
        }
    }
}
