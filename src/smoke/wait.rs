//! Waiting for a guest: the only loop that does. It ends when QEMU ends, when the deadline passes, when the watcher has
//! seen enough, or when the user interrupts.

use super::guest::{Guest, Line};
use crate::interrupt;
use anyhow::Result;
use std::process::ExitStatus;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// What the watcher wants after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Continue,
    /// Go on, with a new deadline, counted from the guest's start.
    Until(Duration),
    /// It has seen enough.
    Stop,
}

/// Why the waiting ended. In the last two cases the guest has been killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// QEMU ended by itself.
    Exited(ExitStatus),
    /// It was still running at the deadline.
    Deadline,
    /// The watcher asked to stop.
    Stopped,
}

/// Between two looks at whether QEMU or the user ended it.
const TURN: Duration = Duration::from_millis(20);
/// How long lines may still arrive after QEMU's end, if something else holds its output open.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Waits for `guest`, at most until `deadline` since its start, and shows each line to `watch`. An error of `watch`
/// ends the guest and is returned.
pub fn wait(
    guest: &mut Guest,
    mut deadline: Duration,
    watch: &mut dyn FnMut(&Line) -> Result<Next>,
) -> Result<End> {
    loop {
        interrupt::check()?;
        match guest.lines().recv_timeout(TURN) {
            Ok(line) => match watch(&line)? {
                Next::Continue => {}
                Next::Until(new) => deadline = new,
                Next::Stop => return stop(guest, End::Stopped, watch),
            },
            Err(RecvTimeoutError::Timeout) => {}
            // The output is closed and QEMU is about to end.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TURN),
        }
        if let Some(status) = guest.ended()? {
            return stop(guest, End::Exited(status), watch);
        }
        if guest.age() >= deadline {
            return stop(guest, End::Deadline, watch);
        }
    }
}

/// Ends the guest and shows what it said until then.
fn stop(guest: &mut Guest, end: End, watch: &mut dyn FnMut(&Line) -> Result<Next>) -> Result<End> {
    guest.kill()?;
    let limit = guest.age() + LAST_WORDS;
    while let Ok(line) = guest.lines().recv_timeout(limit.saturating_sub(guest.age())) {
        watch(&line)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smoke::emulator::tests::shell;
    use crate::smoke::guest::Speaker;
    use std::path::Path;
    use std::time::Instant;

    fn guest(script: &'static str) -> Guest {
        Guest::start(&shell(script), &[], Path::new("/")).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    fn said(script: &'static str, deadline: Duration, stop_at: &str) -> (End, Vec<String>) {
        let mut lines = Vec::new();
        let end = wait(&mut guest(script), deadline, &mut |line| {
            lines.push(match line.speaker {
                Speaker::Guest => line.text.clone(),
                Speaker::Qemu => format!("qemu: {}", line.text),
            });
            Ok(if line.text == stop_at { Next::Stop } else { Next::Continue })
        });
        (end.unwrap(), lines)
    }

    #[test]
    fn all_that_was_said_is_seen_before_the_end() {
        let (end, lines) = said("echo one; printf two; exit 3", LONG, "-");
        assert!(matches!(end, End::Exited(status) if status.code() == Some(3)), "{end:?}");
        assert_eq!(lines, ["one", "two"]);
        let (end, lines) = said("echo no such option >&2; exit 1", LONG, "-");
        assert!(matches!(end, End::Exited(status) if status.code() == Some(1)), "{end:?}");
        assert_eq!(lines, ["qemu: no such option"]);
    }

    #[test]
    fn the_deadline_ends_the_whole_group_and_keeps_the_last_words() {
        let begin = Instant::now();
        let (end, lines) = said("sleep 600 & printf prompt; wait", Duration::from_millis(300), "-");
        assert_eq!((end, lines), (End::Deadline, vec!["prompt".to_owned()]));
        // The sleep held the pipe: had it lived, the last words would have been awaited.
        assert!(begin.elapsed() < LAST_WORDS, "{:?}", begin.elapsed());
    }

    #[test]
    fn the_watcher_stops_it_and_moves_the_deadline() {
        let (end, _) = said("echo ready; sleep 600", LONG, "ready");
        assert_eq!(end, End::Stopped);
        let soon = Duration::from_millis(200);
        let end = wait(&mut guest("echo panic; sleep 600"), LONG, &mut |_| Ok(Next::Until(soon)));
        assert_eq!(end.unwrap(), End::Deadline);
    }

    #[test]
    fn a_guest_that_closes_its_output_is_still_waited_for() {
        let (end, _) = said("exec >&- 2>&-; sleep 0.2; exit 5", LONG, "-");
        assert!(matches!(end, End::Exited(status) if status.code() == Some(5)), "{end:?}");
    }

    #[test]
    fn an_error_of_the_watcher_ends_the_guest() {
        let mut guest = guest("echo one; sleep 600");
        let error = wait(&mut guest, LONG, &mut |_| anyhow::bail!("writing the log")).unwrap_err();
        assert_eq!(error.to_string(), "writing the log");
        drop(guest);
    }

    #[test]
    fn a_flood_is_not_stored() {
        let mut count = 0_u64;
        let end = wait(&mut guest("yes"), LONG, &mut |_| {
            count += 1;
            Ok(if count == 50_000 { Next::Stop } else { Next::Continue })
        });
        assert_eq!(end.unwrap(), End::Stopped);
        // What follows the stop is what the pipe and the queue hold.
        assert!(count < 100_000, "{count}");
    }
}
