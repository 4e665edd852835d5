//! `gdsboot-dma run` as its parent sees it: started with settings of its own, asked with a deadline, and killed with all of
//! its process group where it crashes, hangs or says something that is no answer. Each of these is an error with its name
//! and the call that it happened in.

use super::settings::CufileSettings;
use super::{Answer, Cufile, Failure, Gpu, Line, Ran, Request, Task, VERSION};
use crate::program::{ENVIRONMENT, last_words, text};
use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, dup};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest line that is read: a job's samples are some 100 KiB.
const LONGEST: u64 = 16 << 20;
/// How long a process that closed its output, or was killed, may take to go.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub enum WorkerError {
    /// What was asked for could not be done; the worker goes on.
    Failed(Failure),
    /// A signal ended it.
    Crashed {
        /// The signal.
        signal: String,
        /// What it had called last.
        calling: Option<String>,
        /// What it had said on standard error.
        words: String,
    },
    /// It ended by itself.
    Exited {
        /// Its status.
        status: String,
        /// What it had called last.
        calling: Option<String>,
        /// What it had said on standard error.
        words: String,
    },
    /// It gave no answer in time, and was killed.
    Hung {
        /// The time.
        limit: Duration,
        /// What it had called last.
        calling: Option<String>,
        /// What it had said on standard error.
        words: String,
    },
    /// It said something that is no answer to what was asked.
    Nonsense {
        /// What is wrong with it.
        why: String,
    },
    /// It ended before: nothing can be asked of it any more.
    Gone,
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let during = |calling: &Option<String>| match calling {
            Some(function) => format!(" in {function}"),
            None => String::new(),
        };
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Crashed { signal, calling, words } => {
                write!(f, "the DMA worker crashed{}: {signal}{words}", during(calling))
            }
            Self::Exited { status, calling, words } => {
                write!(f, "the DMA worker ended{}: {status}{words}", during(calling))
            }
            Self::Hung { limit, calling, words } => {
                write!(f, "the DMA worker gave no answer in {} s{}{words}", limit.as_secs(), during(calling))
            }
            Self::Nonsense { why } => write!(f, "the DMA worker's answer is none: {why}"),
            Self::Gone => f.write_str("the DMA worker has ended"),
        }
    }
}

impl std::error::Error for WorkerError {}

/// A worker that was started.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    requests: Option<ChildStdin>,
    /// Its lines; the end where it closed its output.
    lines: Receiver<std::io::Result<Vec<u8>>>,
    stderr: File,
    file: RawFd,
    /// Its settings and cuFile's logs.
    folder: tempfile::TempDir,
    asked: u64,
    calling: Option<String>,
}

impl WorkerProcess {
    /// Starts `program run`. The worker gets `file`, and no other way to any drive; `environment` is put on top of
    /// [`ENVIRONMENT`], and nothing of this process's own is handed on: cuFile obeys variables before its settings.
    ///
    /// # Errors
    /// The program is not there, or there is no room for the settings.
    pub fn start(
        program: &Path,
        settings: CufileSettings,
        file: Option<&File>,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for the DMA worker")?;
        let config = folder.path().join("cufile.json");
        fs_err::write(&config, settings.json(folder.path()).to_string())?;
        let stderr = tempfile::tempfile().context("making a file for the DMA worker's words")?;
        // Unlike the file itself, a copy of its descriptor is inherited. It is gone from here after the start: no later
        // child gets it.
        let inherited = file.map(dup).transpose().context("handing a file to the DMA worker")?;
        let mut child = Command::new(program)
            .arg("run")
            .current_dir(folder.path())
            .env_clear()
            .envs(ENVIRONMENT)
            .env("CUFILE_ENV_PATH_JSON", &config)
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let stdout = child.stdout.take().context("the DMA worker has no output")?;
        let (sender, lines) = channel();
        std::thread::Builder::new().name("worker-answers".into()).spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                let read = stdout.by_ref().take(LONGEST).read_until(b'\n', &mut line);
                let line = match read {
                    Ok(0) => return,
                    Ok(_) => Ok(line),
                    Err(error) => Err(error),
                };
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        let requests = child.stdin.take();
        let file = inherited.as_ref().map_or(-1, |file| file.as_raw_fd());
        Ok(Self { child, requests, lines, stderr, file, folder, asked: 0, calling: None })
    }

    /// The number under which the worker knows the file that it was started with.
    pub fn file(&self) -> RawFd {
        self.file
    }

    /// Its process.
    pub fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Where cuFile writes its logs, until the worker is dropped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Describes all GPUs, in the order of their PCI addresses, and opens none.
    ///
    /// # Errors
    /// See [`WorkerError`]. No GPU at all is an empty list.
    pub fn list_gpus(&mut self, limit: Duration) -> Result<Vec<Gpu>, WorkerError> {
        match self.ask(Request::ListGpus, limit)? {
            Answer::Gpus { gpus } => Ok(gpus),
            other => Err(self.another(&other)),
        }
    }

    /// Opens a GPU.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn open_gpu(&mut self, index: u32, limit: Duration) -> Result<Gpu, WorkerError> {
        match self.ask(Request::OpenGpu { index }, limit)? {
            Answer::Gpu(gpu) => Ok(gpu),
            other => Err(self.another(&other)),
        }
    }

    /// Opens cuFile.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn open_cufile(&mut self, limit: Duration) -> Result<Cufile, WorkerError> {
        match self.ask(Request::OpenCufile, limit)? {
            Answer::Cufile(cufile) => Ok(cufile),
            other => Err(self.another(&other)),
        }
    }

    /// Makes a task's transfers.
    ///
    /// # Errors
    /// See [`WorkerError`]. Transfers that fail are in the samples.
    pub fn run(&mut self, task: Task, limit: Duration) -> Result<Ran, WorkerError> {
        match self.ask(Request::Run(task), limit)? {
            Answer::Ran(ran) => Ok(*ran),
            other => Err(self.another(&other)),
        }
    }

    /// Closes everything and waits for its end.
    ///
    /// # Errors
    /// See [`WorkerError`]; it is gone in any case.
    pub fn close(mut self, limit: Duration) -> Result<(), WorkerError> {
        match self.ask(Request::Close, limit)? {
            Answer::Closed => {}
            other => return Err(self.another(&other)),
        }
        self.requests = None;
        match self.wait(limit) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.ended(status)),
            None => Err(self.hung(limit)),
        }
    }

    fn ask(&mut self, request: Request, limit: Duration) -> Result<Answer, WorkerError> {
        self.asked += 1;
        self.calling = None;
        let body = Line { v: VERSION, id: self.asked, body: request };
        let mut line = serde_json::to_vec(&body)
            .map_err(|error| WorkerError::Nonsense { why: format!("the request: {error}") })?;
        line.push(b'\n');
        let Some(requests) = &mut self.requests else { return Err(WorkerError::Gone) };
        // Where it cannot be written, the worker has ended, and its lines end too.
        let _ = requests.write_all(&line);
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => return Err(self.nonsense(format!("reading it: {error}"))),
                Err(RecvTimeoutError::Timeout) => return Err(self.hung(limit)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(match self.wait(LAST_BREATH) {
                        Some(status) => self.ended(status),
                        None => self.hung(LAST_BREATH),
                    });
                }
            };
            // The last line of a worker that was killed while it wrote is cut short; its end says more.
            if line.last() != Some(&b'\n') && (line.len() as u64) < LONGEST {
                continue;
            }
            match read(&line, self.asked) {
                Ok(Answer::Calling { function }) => self.calling = Some(function),
                Ok(Answer::Failed(failure)) => return Err(WorkerError::Failed(failure)),
                Ok(answer) => return Ok(answer),
                Err(why) => return Err(self.nonsense(why)),
            }
        }
    }

    fn another(&mut self, answer: &Answer) -> WorkerError {
        let mut why = format!("it answers something else: {answer:?}");
        why.truncate(why.char_indices().nth(200).map_or(why.len(), |(at, _)| at));
        self.nonsense(why)
    }

    fn nonsense(&mut self, why: String) -> WorkerError {
        self.kill();
        WorkerError::Nonsense { why }
    }

    fn hung(&mut self, limit: Duration) -> WorkerError {
        self.kill();
        WorkerError::Hung { limit, calling: self.calling.take(), words: self.words() }
    }

    fn ended(&mut self, status: ExitStatus) -> WorkerError {
        // Programs that it started are no use without it.
        self.kill();
        let (calling, words) = (self.calling.take(), self.words());
        match status.signal() {
            Some(number) => {
                let signal = Signal::try_from(number);
                let signal = signal.map_or_else(|_| format!("signal {number}"), |signal| signal.to_string());
                WorkerError::Crashed { signal, calling, words }
            }
            None => WorkerError::Exited { status: status.to_string(), calling, words },
        }
    }

    fn words(&mut self) -> String {
        text(&mut self.stderr).map(|words| last_words(&words)).unwrap_or_default()
    }

    /// `None` where it has not ended in time.
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }

    fn kill(&mut self) {
        self.requests = None;
        // It leads a group of its own.
        let _ = killpg(self.process(), Signal::SIGKILL);
        // One that sleeps in the kernel does not go, and is not waited for.
        self.wait(LAST_BREATH);
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // What has been waited for is gone, and its number may be another's by now.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.kill();
        }
    }
}

/// Reads an answer to the request of this number.
fn read(line: &[u8], asked: u64) -> Result<Answer, String> {
    // By way of a tree, as facts and reports are read, so that the code for it exists once.
    let parsed = serde_json::from_slice(line).and_then(serde_json::from_value::<Line<Answer>>);
    let line: Line<Answer> = parsed.map_err(|error| {
        let begin: String = String::from_utf8_lossy(line).trim_end().chars().take(80).collect();
        format!("{error}: {begin:?}")
    })?;
    if line.v != VERSION {
        return Err(format!("its version is {}, not {VERSION}", line.v));
    }
    if line.id != asked {
        return Err(format!("it answers request {}, not {asked}", line.id));
    }
    Ok(line.body)
}

#[cfg(test)]
mod tests;
