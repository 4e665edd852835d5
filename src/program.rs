//! Running a program of the root with a time limit: in a process group of its own, its words kept in files, so that
//! neither a child that hangs nor a grandchild that keeps a pipe open can hold the run up.

use crate::pasteable::pasteable;
use anyhow::{Context as _, anyhow, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
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

/// What a program did.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

/// Runs `program` with `args` and waits for its end; after `limit` it is killed, which is an error.
pub fn run(program: &str, args: &[&str], limit: Duration) -> anyhow::Result<Finished> {
    let context = || format!("running {}", pasteable(std::iter::once(&program).chain(args)));
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = Command::new(program);
    // cuFile writes its log where it stands, and the image's root is read-only.
    let folder = std::env::temp_dir();
    if folder.is_dir() {
        command.current_dir(folder);
    }
    let mut child = command
        .args(args)
        .env_clear()
        .envs(ENVIRONMENT)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(context)?;
    let status = wait(&mut child, limit)?;
    let stderr = text(&mut stderr)?;
    match status {
        Some(status) => Ok(Finished { status, stdout: text(&mut stdout)?, stderr }),
        None => {
            Err(anyhow!("killed after {} s{}", limit.as_secs(), last_words(&stderr))).with_context(context)
        }
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

/// `None` where the child had to be killed.
fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    let group = Pid::from_raw(i32::try_from(child.id())?);
    // Its end in this very moment is as good.
    let _ = killpg(group, Signal::SIGKILL);
    let killed = Instant::now();
    while child.try_wait()?.is_none() && killed.elapsed() < LAST_BREATH {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(None)
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
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn words_and_status_are_kept() {
        let finished = run("/bin/sh", &["-c", "echo out; echo err >&2; exit 3"], LONG).unwrap();
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.status.code(), Some(3));
        let error = run_ok("/bin/sh", &["-c", "echo why >&2; exit 3"], LONG).unwrap_err().to_string();
        assert_eq!(error, "running /bin/sh -c 'echo why >&2; exit 3': exit status: 3: why");
    }

    #[test]
    fn a_hanging_program_is_killed_with_its_children() {
        let start = Instant::now();
        let error =
            run("/bin/sh", &["-c", "echo stuck >&2; sleep 60 & sleep 60"], Duration::from_millis(300));
        let error = crate::error::one_line(&error.unwrap_err());
        assert!(error.ends_with("killed after 0 s: stuck"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_does_not_matter() {
        let start = Instant::now();
        let finished = run_ok("/bin/sh", &["-c", "sleep 5 & echo done"], LONG).unwrap();
        assert_eq!(finished.stdout, "done\n");
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = run("/nonexistent/program", &[], LONG).unwrap_err();
        assert!(crate::error::one_line(&error).starts_with("running /nonexistent/program: No such file"));
    }
}
