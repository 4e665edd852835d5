//! The end of PID 1: nothing is left running or unwritten, and the machine goes off, restarts, or stays as it is.

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// How long programs may take to end when they are asked to.
const PATIENCE: Duration = Duration::from_millis(500);

/// Collects children that have ended, whoever started them.
pub fn reap() {
    while matches!(waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}

/// Ends every other process.
pub fn end_processes() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // PID 1 itself is never among "all".
        if kill(Pid::from_raw(-1), signal).is_err() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(WaitStatus::StillAlive) => break,
                Err(Errno::ECHILD) => return,
                _ => {}
            }
        }
    }
}

/// Switches the machine. Success does not return.
pub fn switch(mode: RebootMode) -> nix::Result<()> {
    nix::unistd::sync();
    reboot(mode).map(|never| match never {})
}

/// Stays for ever, as PID 1 must.
pub fn stay() -> ! {
    loop {
        reap();
        std::thread::sleep(Duration::from_secs(1));
    }
}
