//! What a caller spends between its transfers: its own work, without the drive's.

use crate::behaviour::behaviour;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

static OUTSIDE: AtomicU64 = AtomicU64::new(0);
static FIRST: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Whose calls are counted: the first one's.
static CALLER: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    fn pthread_self() -> usize;
}

/// The CPU's clock, which reads no memory: nothing is warmed up for the caller.
fn now() -> u64 {
    // SAFETY: every x86-64 has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Makes a transfer, and adds up what passed before it.
pub fn around<T>(transfer: impl FnOnce() -> T) -> T {
    if behaviour().between.is_none() {
        return transfer();
    }
    let begun = now();
    // SAFETY: it takes nothing.
    let caller = unsafe { pthread_self() };
    match CALLS.load(Relaxed) {
        0 => {
            FIRST.store(begun, Relaxed);
            CALLER.store(caller, Relaxed);
        }
        _ if CALLER.load(Relaxed) != caller => return transfer(),
        _ => OUTSIDE.store(OUTSIDE.load(Relaxed) + begun.saturating_sub(LAST.load(Relaxed)), Relaxed),
    }
    CALLS.store(CALLS.load(Relaxed) + 1, Relaxed);
    let made = transfer();
    LAST.store(now(), Relaxed);
    made
}

/// Says what was added up, and begins anew.
pub fn say() {
    let Some(path) = &behaviour().between else { return };
    let (outside, calls) = (OUTSIDE.swap(0, Relaxed), CALLS.swap(0, Relaxed));
    let all = LAST.load(Relaxed) - FIRST.load(Relaxed);
    if calls > 0 {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("between=FILE");
        writeln!(file, "{outside} {all} {calls}").expect("between=FILE");
    }
}
