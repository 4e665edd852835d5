//! A root shell on every console, for whoever chose it in the boot menu. Nothing listens anywhere else.

use crate::program::ENVIRONMENT;
use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A shell that ends sooner found nobody at its console.
const SHORTEST: Duration = Duration::from_secs(2);

/// Runs a shell on each of `consoles` until one that was used is left, or none remains.
pub fn run(consoles: &[String]) -> anyhow::Result<()> {
    let mut shells = BTreeMap::new();
    let mut result = Ok(());
    for console in consoles {
        match start(console) {
            Ok(pid) => {
                shells.insert(pid, Instant::now());
            }
            Err(error) => result = Err(error),
        }
    }
    if shells.is_empty() {
        return result;
    }
    while !shells.is_empty() {
        // Every orphan of the machine ends here too.
        let pid = match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("waiting for the shell"),
        };
        if shells.remove(&pid).is_some_and(|started| started.elapsed() >= SHORTEST) {
            return Ok(());
        }
    }
    Ok(())
}

#[allow(unsafe_code, reason = "std cannot give a child a controlling terminal")]
fn start(console: &str) -> anyhow::Result<Pid> {
    let path = format!("/dev/{console}");
    let context = || format!("starting a shell on {path}");
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let term = if console == "tty0" { "linux" } else { "vt220" };
    let (input, output, error) = (open().with_context(context)?, open()?, open()?);
    let mut command = Command::new("/bin/bash");
    command
        .args(["--login"])
        .env_clear()
        .envs(ENVIRONMENT)
        .env("TERM", term)
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(error));
    // SAFETY: between fork and exec only setsid(2) and ioctl(2) are called, which are async-signal-safe, on descriptor
    // 0, which is the console by then. TIOCSCTTY takes an int (tty_ioctl(4)).
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            match libc::ioctl(0, libc::TIOCSCTTY, 1) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let child = command.spawn().with_context(context)?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}
