//! Ctrl-C and SIGTERM: long work asks [`check`] and unwinds as an ordinary error, so that every temporary file is
//! removed by its owner. Programs that gdsboot started live in process groups of their own (so that the terminal's
//! Ctrl-C does not reach them first) and are killed by whoever waits for them.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler; a second signal ends the process at once.
pub fn install() {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    // Failing to install leaves the default action, which also ends the process.
    let _ = ctrlc::set_handler(handler);
}

/// Has the user asked to stop?
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Fails once the user has asked to stop.
pub fn check() -> anyhow::Result<()> {
    anyhow::ensure!(!requested(), "interrupted");
    Ok(())
}
