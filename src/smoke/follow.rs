//! One QEMU from its start to its end: its console, its deadlines, and what is done to it at moments of the boot.

use super::argv::Accel;
use super::console::Console;
use super::emulator::Emulator;
use super::fault::Moment;
use super::guest::{Guest, Line};
use super::log::Log;
use super::monitor::Monitor;
use super::wait::{End, Next, wait};
use crate::progress::Stage;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// When to give up on a guest, since QEMU's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the kernel speaks.
    pub kernel: Duration,
    /// Until QEMU ends.
    pub end: Duration,
    /// Between words such as "Kernel panic" and the end: time for the lines that explain them.
    pub last_words: Duration,
}

impl Deadlines {
    /// TCG executes a guest some ten times slower; a third of a boot is firmware and loader.
    /// Where there is no serial port, the kernel is never heard.
    pub fn new(accel: Accel, scale: f64, has_serial_port: bool) -> Self {
        let seconds = match accel {
            Accel::Kvm => 120.0,
            Accel::Tcg => 600.0,
        } * scale;
        let limit = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let kernel = limit(if has_serial_port { seconds / 3.0 } else { seconds });
        Self { kernel, end: limit(seconds), last_words: limit(seconds / 60.0) }
    }
}

/// Something that is done to a running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Its power fails.
    CutPower,
    /// A device is pulled out; QEMU's name of it.
    Unplug(String),
}

impl Deed {
    fn by(&self, monitor: &Monitor) -> Result<()> {
        match self {
            Self::CutPower => monitor.quit(),
            Self::Unplug(device) => monitor.unplug(device),
        }
    }
}

/// How a QEMU is started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// QEMU.
    pub emulator: &'a Emulator,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// What it may write to.
    pub folder: &'a Path,
    /// Its monitor, where the arguments attach one.
    pub monitor: Option<&'a Monitor>,
    /// When to give up.
    pub deadlines: Deadlines,
}

/// What became of it.
#[derive(Debug)]
pub struct Watched {
    /// How it ended.
    pub end: End,
    /// How long after its start.
    pub age: Duration,
    /// What it said.
    pub console: Console,
    /// What was to be done and was not, and why.
    pub undone: Vec<String>,
}

impl Start<'_> {
    /// Starts QEMU and waits for its end. Each deed is done once, at its moment.
    ///
    /// # Errors
    /// It cannot be started, the log cannot be written, or the user interrupts.
    pub fn watch(&self, deeds: &[(&Moment, Deed)], log: &mut Log, stage: &Stage) -> Result<Watched> {
        let mut console = Console::default();
        let mut guest = Guest::start(self.emulator, self.arguments, self.folder)?;
        let mut begun: Vec<Option<Doing>> = deeds.iter().map(|_| None).collect();
        let end = wait(&mut guest, self.deadlines.kernel, &mut |line| {
            log.add(line)?;
            for ((moment, deed), doing) in deeds.iter().zip(&mut begun) {
                if doing.is_none() && moment.is_marked_by(line) {
                    *doing = Some(Doing::begin(deed.clone(), moment.delay, self.monitor)?);
                }
            }
            let next = follow(&mut console, line, &self.deadlines);
            stage.message(console.marks.reached());
            Ok(next)
        });
        let results: Vec<Option<Result<()>>> = begun.into_iter().map(|doing| doing.map(Doing::end)).collect();
        let end = end?;
        let age = guest.age();
        if let End::Exited(_) = end {
            console.marks.exit = Some(age);
        }
        let undone = deeds.iter().zip(results).filter_map(|((moment, _), result)| match result {
            None => Some(format!("the moment {moment} never came")),
            Some(Err(error)) => Some(format!("at {moment}: {error:#}")),
            Some(Ok(())) => None,
        });
        Ok(Watched { end, age, undone: undone.collect(), console })
    }
}

/// A deed whose moment has come. Dropped before its delay is over, it is not done.
#[derive(Debug)]
struct Doing {
    ended: Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Doing {
    fn begin(deed: Deed, delay: Duration, monitor: Option<&Monitor>) -> Result<Self> {
        let monitor = monitor.context("finding QEMU's monitor")?.clone();
        let (ended, guest) = channel();
        let work = move || wait_for(&guest, delay).and_then(|()| deed.by(&monitor));
        let thread = std::thread::Builder::new().name("deed".into()).spawn(work);
        Ok(Self { ended, thread: thread.context("starting a thread")? })
    }

    /// The guest has ended: what is still to be done is not.
    fn end(self) -> Result<()> {
        drop(self.ended);
        self.thread.join().map_err(|_| anyhow::anyhow!("its thread panicked"))?
    }
}

/// Waits, unless the guest ends before.
fn wait_for(guest: &Receiver<()>, delay: Duration) -> Result<()> {
    match guest.recv_timeout(delay) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        _ => anyhow::bail!("the guest ended before"),
    }
}

/// Shows a line to the console and tells how long to wait after it.
fn follow(console: &mut Console, line: &Line, deadlines: &Deadlines) -> Next {
    let was_dead = console.dead_end.is_some();
    let had_kernel = console.marks.kernel.is_some() || console.marks.validator.is_some();
    console.add(line);
    if console.dead_end.is_some() {
        return if was_dead {
            Next::Continue
        } else {
            Next::Until(line.at.saturating_add(deadlines.last_words).min(deadlines.end))
        };
    }
    let has_kernel = console.marks.kernel.is_some() || console.marks.validator.is_some();
    if has_kernel && !had_kernel { Next::Until(deadlines.end) } else { Next::Continue }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smoke::guest::Speaker;

    fn next(lines: &[&str]) -> Vec<Next> {
        let deadlines = Deadlines::new(Accel::Tcg, 1.0, true);
        let mut console = Console::default();
        let line = |n, text: &str| Line {
            at: Duration::from_secs(n),
            speaker: Speaker::Guest,
            text: text.to_owned(),
        };
        (1..).zip(lines).map(|(n, text)| follow(&mut console, &line(n, text), &deadlines)).collect()
    }

    #[test]
    fn the_kernel_gets_more_time_and_a_panic_little() {
        let until = |seconds| Next::Until(Duration::from_secs(seconds));
        assert_eq!(
            next(&[
                "SeaBIOS",
                "[    0.000000] x",
                "[    0.100000] y",
                "Kernel panic - not syncing: z",
                "trace"
            ]),
            [Next::Continue, until(600), Next::Continue, until(14), Next::Continue]
        );
    }

    #[test]
    fn deadlines_scale_with_accelerator_and_wish() {
        let seconds = |accel, scale| Deadlines::new(accel, scale, true).end.as_secs();
        assert_eq!(seconds(Accel::Kvm, 1.0), 120);
        assert_eq!(seconds(Accel::Tcg, 0.5), 300);
        assert_eq!(Deadlines::new(Accel::Tcg, f64::MAX, true).end, Duration::MAX);
        let silent = Deadlines::new(Accel::Kvm, 1.0, false);
        assert_eq!(silent.kernel, silent.end, "nothing is heard");
    }

    #[test]
    fn a_deed_waits_and_is_left_undone_where_the_guest_ends_before() {
        let (sender, guest) = channel::<()>();
        wait_for(&guest, Duration::from_millis(10)).unwrap();
        drop(sender);
        let error = wait_for(&guest, Duration::from_secs(600)).unwrap_err();
        assert_eq!(error.to_string(), "the guest ended before");
    }
}
