//! What a guest's console said, as far as it matters here: the marks between the phases, the validator's events, the
//! words that mean that nothing more will come, and the last lines for whoever has to find out why.
//!
//! The kernel may write into the middle of the validator's line, so a missing or damaged event is not a failure: the
//! report on the partition is what counts.

use super::guest::{Line, Speaker};
use super::phases::Marks;
use crate::bench::route::Route;
use crate::boot_contract::LOADER_MARK;
use crate::report::events::{Event, TEXT_BEGIN, TEXT_END, What};
use crate::report::model::Verdict;
use std::collections::VecDeque;

/// Lines that are kept for an error message.
const TAIL: usize = 25;
/// The step of a run that loads NVIDIA's modules.
const MODULES: &str = "modules";
/// More than any report's text has.
const LONGEST_TEXT: usize = 4 << 20;

/// The console of one boot.
#[derive(Debug, Default)]
pub struct Console {
    /// The marks that were seen.
    pub marks: Marks,
    /// The verdict, and the run's folder relative to the report partition's root.
    pub verdict: Option<(Verdict, Option<String>)>,
    /// The run, by the validator's first event.
    pub run_id: Option<String>,
    /// Why the guest will not get any further, in its own words.
    pub dead_end: Option<String>,
    /// Events that could not be read, and gaps in their numbers.
    pub lost_events: u32,
    /// What went wrong in the run itself, `stage: what`.
    pub problems: Vec<String>,
    /// What the verdict's event says besides: the route, and whether anything was simulated.
    pub route: Option<(Route, bool)>,
    /// The report's whole text, where it was shown because no disk took it.
    pub text: Option<String>,
    /// What QEMU itself said, its last lines.
    pub qemu: VecDeque<String>,
    /// The guest's last lines.
    pub tail: VecDeque<String>,
    next_event: u32,
    /// The text so far.
    shown: Option<String>,
}

impl Console {
    /// Takes a line.
    pub fn add(&mut self, line: &Line) {
        if line.speaker == Speaker::Qemu {
            push(&mut self.qemu, &line.text);
            return;
        }
        push(&mut self.tail, &line.text);
        let at = Some(line.at);
        if self.marks.loader.is_none() && line.text.contains(LOADER_MARK) {
            self.marks.loader = at;
        }
        if self.marks.kernel.is_none() && is_kernel_line(&line.text) {
            self.marks.kernel = at;
        }
        if self.dead_end.is_none() {
            self.dead_end = dead_end(&line.text).map(str::to_owned);
        }
        self.text_line(&line.text);
        match Event::parse(&line.text) {
            None => {}
            Some(Err(_)) => self.marks.validator = self.marks.validator.or(at),
            Some(Ok(event)) => {
                self.marks.validator = self.marks.validator.or(at);
                self.event(line, event);
            }
        }
    }

    fn event(&mut self, line: &Line, event: Event) {
        self.lost_events += event.seq.saturating_sub(self.next_event);
        self.next_event = event.seq.saturating_add(1);
        match event.what {
            What::InitStarted { run_id, .. } => self.run_id = Some(run_id),
            What::StageDone { stage, .. } if stage == MODULES => self.marks.modules = Some(line.at),
            What::Problem { stage, what } => self.problems.push(format!("{stage}: {what}")),
            What::Verdict { verdict, path, run_id, route, simulated, .. } => {
                self.marks.verdict = Some(line.at);
                self.route = Some((route, simulated));
                self.run_id = Some(run_id);
                self.verdict = Some((verdict, path));
            }
            _ => {}
        }
    }
}

impl Console {
    /// Takes a line of the report's text.
    fn text_line(&mut self, line: &str) {
        if line.contains(TEXT_BEGIN) {
            self.shown = Some(String::new());
        } else if line.contains(TEXT_END) {
            self.text = self.shown.take().or(self.text.take());
        } else if let Some(shown) = &mut self.shown
            && shown.len() < LONGEST_TEXT
        {
            shown.push_str(line);
            shown.push('\n');
        }
    }
}

fn push(lines: &mut VecDeque<String>, text: &str) {
    if lines.len() == TAIL {
        lines.pop_front();
    }
    lines.push_back(text.to_owned());
}

/// Is this the kernel's? Its EFI stub speaks before the first time stamp (drivers/firmware/efi/libstub).
pub fn is_kernel_line(text: &str) -> bool {
    text.contains("Linux version ") || text.starts_with("EFI stub: ") || has_kernel_time(text)
}

/// Does it begin with printk's time: `[    0.000000] `?
fn has_kernel_time(text: &str) -> bool {
    let time =
        text.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map(|(time, _)| time.trim_start());
    let Some((seconds, fraction)) = time.and_then(|time| time.split_once('.')) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits(seconds) && fraction.len() == 6 && digits(fraction)
}

/// The words that mean that nothing more will come: of the kernel (kernel/panic.c), and of OVMF with nothing to boot.
fn dead_end(text: &str) -> Option<&str> {
    let words = [
        "Kernel panic - not syncing",
        "BdsDxe: No bootable option or device was found",
        "UEFI Interactive Shell v",
    ];
    words.iter().find_map(|words| text.find(words)).map(|at| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for (n, text) in (1..).zip(lines) {
            let at = Duration::from_secs(n);
            console.add(&Line { at, speaker: Speaker::Guest, text: (*text).to_owned() });
        }
        console
    }

    const INIT: &str = r#"gdsboot-event {"v":1,"seq":0,"up_ms":900,"event":"init-started","gdsboot":"0.1.0","run_id":"0a1b2c3d","kernel":"6.12"}"#;
    const VERDICT: &str = r#"gdsboot-event {"v":1,"seq":3,"up_ms":1900,"event":"verdict","verdict":"INCOMPLETE","route":"none","exit_status":2,"run_id":"0a1b2c3d","path":"reports/r"}"#;

    #[test]
    fn a_boot_leaves_its_marks() {
        let console = console(&[
            "BdsDxe: starting Boot0001",
            "gdsboot: loading the kernel",
            "[    0.000000] Linux version 6.12",
            INIT,
            r#"gdsboot-event {"v":1,"seq":1,"up_ms":950,"event":"stage-done","stage":"modules","ok":true,"ms":5}"#,
            VERDICT,
            "[    2.000000] reboot: Power down",
        ]);
        let seconds = |n| Some(Duration::from_secs(n));
        let marks = Marks {
            loader: seconds(2),
            kernel: seconds(3),
            validator: seconds(4),
            modules: seconds(5),
            verdict: seconds(6),
            exit: None,
        };
        assert_eq!(console.marks, marks);
        assert_eq!(console.verdict, Some((Verdict::Incomplete, Some("reports/r".into()))));
        assert_eq!(console.run_id.as_deref(), Some("0a1b2c3d"));
        assert_eq!(console.lost_events, 1);
        assert_eq!(console.dead_end, None);
    }

    #[test]
    fn a_damaged_event_still_shows_that_the_validator_runs() {
        let console = console(&["gdsboot-event {\"v\":1,\"se[    1.0"]);
        assert!(console.marks.validator.is_some());
        assert_eq!(console.run_id, None);
    }

    #[test]
    fn dead_ends_are_recognised_in_their_own_words() {
        for (line, words) in [
            (
                "[    1.000000] Kernel panic - not syncing: VFS: Unable to mount root fs",
                "Kernel panic - not syncing: VFS: Unable to mount root fs",
            ),
            (
                "BdsDxe: No bootable option or device was found.",
                "BdsDxe: No bootable option or device was found.",
            ),
            ("UEFI Interactive Shell v2.2", "UEFI Interactive Shell v2.2"),
        ] {
            assert_eq!(console(&["x", line, "later"]).dead_end.as_deref(), Some(words));
        }
    }

    #[test]
    fn kernel_lines() {
        for line in ["[    0.000000] x", "[12345.678901] x", "EFI stub: Loaded initrd", "Linux version 6.1"] {
            assert!(is_kernel_line(line), "{line}");
        }
        for line in ["[ OK ] Started", "[0.5] x", "[    0.000000]", "BdsDxe: x", "[é.000000] x", ""] {
            assert!(!is_kernel_line(line), "{line}");
        }
    }

    #[test]
    fn the_tail_is_short_and_qemu_speaks_apart() {
        let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let mut console = console(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let text = "Kernel panic - not syncing: said by QEMU".to_owned();
        console.add(&Line { at: Duration::ZERO, speaker: Speaker::Qemu, text });
        assert_eq!(console.tail.len(), TAIL);
        assert_eq!(console.tail.back().map(String::as_str), Some("99"));
        assert_eq!((console.qemu.len(), console.dead_end), (1, None));
    }
}
