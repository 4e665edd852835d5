//! Running a program of the root with a time limit: in a process group of its own, its words kept in files or taken from a
//! pipe that nobody waits for the end of, so that neither a child that hangs nor a grandchild that keeps its output open can
//! hold the run up.

use crate::pasteable::pasteable;
use anyhow::{Context as _, anyhow, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{PipeReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The environment of every program: what a login would set, and nothing of the boot loader's.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
];

/// How much of a program's words is read.
const LIMIT: u64 = 1 << 20;
/// How long a killed program may take to go; one that sleeps in the kernel never does.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// What is taken from a pipe at a time: as much as it holds.
const PIPE: usize = 64 << 10;

/// A program that is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its path.
    pub program: &'a str,
    /// Its arguments.
    pub args: &'a [&'a str],
    /// What its environment has besides [`ENVIRONMENT`].
    pub environment: &'a [(&'a str, &'a str)],
    /// Where it stands; the folder for temporary files where nobody says.
    pub folder: Option<&'a Path>,
    /// When it is killed.
    pub limit: Duration,
    /// What is kept of its words.
    pub words: Words,
    /// May what it started go on after its end? Else that is killed.
    pub daemon: bool,
}

/// What is kept of a program's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// The beginning of each of its two outputs.
    Apart,
    /// The end of both together in the order in which they came, as standard output. What it prints takes no room, however
    /// much that is.
    Together,
}

/// What came of a program.
#[derive(Debug)]
pub struct Ended {
    /// How it ended; `None` where it was killed after its time.
    pub status: Option<ExitStatus>,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// What a program did that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

impl Run<'_> {
    /// Runs it and waits for its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn to_end(&self) -> anyhow::Result<Ended> {
        match self.words {
            Words::Apart => self.apart(),
            Words::Together => self.together(),
        }
        .with_context(|| format!("running {}", self.line()))
    }

    fn line(&self) -> String {
        pasteable(std::iter::once(&self.program).chain(self.args))
    }

    fn apart(&self) -> anyhow::Result<Ended> {
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let begun = Instant::now();
        let mut child = self.start(stdout.try_clone()?.into(), stderr.try_clone()?.into())?;
        let status = self.wait(&mut child, std::thread::sleep)?;
        let took = begun.elapsed();
        Ok(Ended { status, stdout: text(&mut stdout)?, stderr: text(&mut stderr)?, took })
    }

    fn together(&self) -> anyhow::Result<Ended> {
        let (reader, writer) = std::io::pipe()?;
        let mut tail = Tail::new(reader)?;
        let begun = Instant::now();
        let mut child = self.start(writer.try_clone()?.into(), writer.into())?;
        let status = self.wait(&mut child, |pause| tail.wait(pause))?;
        let took = begun.elapsed();
        Ok(Ended { status, stdout: tail.finish(), stderr: String::new(), took })
    }

    fn start(&self, stdout: Stdio, stderr: Stdio) -> anyhow::Result<Child> {
        let mut command = Command::new(self.program);
        // cuFile writes its log where it stands, and the image's root is read-only.
        let folder = self.folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        if folder.is_dir() {
            command.current_dir(folder);
        }
        command
            .args(self.args)
            .env_clear()
            .envs(ENVIRONMENT)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        Ok(command.spawn()?)
    }

    /// `None` where the child had to be killed. `pause` waits for a while, or shorter.
    fn wait(&self, child: &mut Child, mut pause: impl FnMut(Duration)) -> anyhow::Result<Option<ExitStatus>> {
        let group = Pid::from_raw(i32::try_from(child.id())?);
        let start = Instant::now();
        let mut longest = Duration::from_millis(1);
        let mut ended = false;
        while !ended && start.elapsed() < self.limit {
            // Its number stays its own until it is reaped, so that no other group can be hit.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            ended = waitid(Id::Pid(group), flags)? != WaitStatus::StillAlive;
            if !ended {
                pause(longest);
                longest = (longest * 2).min(PAUSE);
            }
        }
        if !(ended && self.daemon) {
            // Its end in this very moment is as good.
            let _ = killpg(group, Signal::SIGKILL);
        }
        if ended {
            return Ok(Some(child.wait()?));
        }
        let killed = Instant::now();
        while child.try_wait()?.is_none() && killed.elapsed() < LAST_BREATH {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }
}

/// The end of what comes through a pipe.
struct Tail {
    pipe: PipeReader,
    closed: bool,
    bytes: Vec<u8>,
    part: Vec<u8>,
}

impl Tail {
    fn new(pipe: PipeReader) -> anyhow::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { pipe, closed: false, bytes: Vec::new(), part: vec![0; PIPE] })
    }

    /// Takes what is there, or comes within `pause`.
    fn wait(&mut self, pause: Duration) {
        if self.closed {
            return std::thread::sleep(pause);
        }
        let milliseconds = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        // What cannot be asked for is found by reading.
        let _ = poll(&mut [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)], milliseconds);
        self.take();
    }

    /// Takes what is there; whether that was anything.
    fn take(&mut self) -> bool {
        match self.pipe.read(&mut self.part) {
            Ok(0) => self.closed = true,
            Ok(count) => {
                self.bytes.extend_from_slice(&self.part[..count]);
                let limit = LIMIT as usize;
                if self.bytes.len() > 2 * limit {
                    self.bytes.drain(..self.bytes.len() - limit);
                }
                return true;
            }
            Err(error) => {
                use std::io::ErrorKind::{Interrupted, WouldBlock};
                self.closed = !matches!(error.kind(), WouldBlock | Interrupted);
            }
        }
        false
    }

    /// What the pipe still holds is taken, and no more: somebody who went his own way may write for ever.
    fn finish(mut self) -> String {
        for _ in 0..LIMIT as usize / PIPE {
            if !self.take() {
                break;
            }
        }
        let from = self.bytes.len().saturating_sub(LIMIT as usize);
        String::from_utf8_lossy(&self.bytes[from..]).into_owned()
    }
}

/// How a program ended, in a few words: `status 3`, `SIGSEGV`; no status is that of one that was killed after `limit`.
pub fn ending(status: Option<ExitStatus>, limit: Duration) -> String {
    let Some(status) = status else { return format!("killed after {} s", limit.as_secs()) };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(number)) => {
            Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
        }
        (None, None) => status.to_string(),
    }
}

/// Runs `program` with `args` and waits for its end; after `limit` it is killed, which is an error. What it started may go
/// on.
pub fn run(program: &str, args: &[&str], limit: Duration) -> anyhow::Result<Finished> {
    let run = Run { program, args, environment: &[], folder: None, limit, words: Words::Apart, daemon: true };
    let Ended { status, stdout, stderr, .. } = run.to_end()?;
    match status {
        Some(status) => Ok(Finished { status, stdout, stderr }),
        None => Err(anyhow!("{}{}", ending(None, limit), last_words(&stderr)))
            .with_context(|| format!("running {}", run.line())),
    }
}

/// Runs a program whose status must be 0.
pub fn run_ok(program: &str, args: &[&str], limit: Duration) -> anyhow::Result<Finished> {
    let finished = run(program, args, limit)?;
    if !finished.status.success() {
        let command = pasteable(std::iter::once(&program).chain(args));
        bail!("running {command}: {}{}", finished.status, last_words(&finished.stderr));
    }
    Ok(finished)
}

pub(crate) fn text(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last line of a program's complaints, as the end of a message.
pub(crate) fn last_words(stderr: &str) -> String {
    stderr
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(|line| format!(": {line}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
