//! A running QEMU: what it says, line by line, and its end. Whatever happens to gdsboot, no QEMU is left behind: a
//! dropped guest is killed with its process group, and the kernel kills it when gdsboot dies.

use super::emulator::Emulator;
use super::serial::LineSplitter;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The guest, on its serial console.
    Guest,
    /// QEMU itself, on its standard error.
    Qemu,
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its end was seen, since the start.
    pub at: Duration,
    /// Who said it.
    pub speaker: Speaker,
    /// The text, without its end.
    pub text: String,
}

/// A QEMU that was started.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    started: Instant,
    lines: Receiver<Line>,
    status: Option<ExitStatus>,
}

/// Lines that wait for the reader; a guest that says more has to wait too.
const QUEUE: usize = 1024;

impl Guest {
    /// Starts QEMU.
    pub fn start(emulator: &Emulator, arguments: &[OsString], folder: &Path) -> Result<Self> {
        let started = Instant::now();
        let (sender, lines) = sync_channel(QUEUE);
        let mut child = emulator.spawn(arguments, folder)?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let guest = Self { child, started, lines, status: None };
        let (Some(stdout), Some(stderr)) = pipes else {
            anyhow::bail!("starting QEMU: its output is not a pipe");
        };
        read_lines(stdout, Speaker::Guest, started, sender.clone())?;
        read_lines(stderr, Speaker::Qemu, started, sender)?;
        Ok(guest)
    }

    /// The time since the start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What was said. Disconnected once QEMU has closed its output.
    pub fn lines(&self) -> &Receiver<Line> {
        &self.lines
    }

    /// How QEMU ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("waiting for QEMU")?;
        }
        Ok(self.status)
    }

    /// Kills QEMU and whatever it started, and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // Until the leader has been waited for, its number cannot belong to another group.
        if self.ended()?.is_none() {
            if let Ok(pid) = i32::try_from(self.child.id()) {
                // It may have ended in this moment.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            self.status = Some(self.child.wait().context("waiting for QEMU")?);
        }
        self.status.context("waiting for QEMU")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn read_lines(
    mut pipe: impl Read + Send + 'static,
    speaker: Speaker,
    started: Instant,
    sender: SyncSender<Line>,
) -> Result<()> {
    let read = move || {
        let mut splitter = LineSplitter::default();
        let mut buffer = vec![0; 16 << 10];
        loop {
            // A read error on a pipe of ours means as much as its end.
            let count = pipe.read(&mut buffer).unwrap_or(0);
            let mut lines = splitter.push(&buffer[..count]);
            if count == 0 {
                lines.extend(splitter.finish());
            }
            for text in lines {
                if sender.send(Line { at: started.elapsed(), speaker, text }).is_err() {
                    return;
                }
            }
            if count == 0 {
                return;
            }
        }
    };
    std::thread::Builder::new().name("serial".into()).spawn(read).context("starting a thread")?;
    Ok(())
}
