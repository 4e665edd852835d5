//! Several boots at a time, within the memory and the cores that are there.

use super::machine::Machine;
use crate::interrupt;
use anyhow::Result;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a boot takes from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its guest's memory, and QEMU's own, in MiB.
    pub memory_mib: u64,
    /// Its CPUs.
    pub cpus: u64,
}

/// What QEMU takes besides the guest's memory, in MiB; translated code is up to 1 GiB of it.
const QEMU_MIB: u64 = 1280;

impl Need {
    /// What a machine takes.
    pub fn of(machine: &Machine) -> Self {
        Self { memory_mib: u64::from(machine.memory_mib) + QEMU_MIB, cpus: machine.cpus.into() }
    }
}

/// What is not taken yet.
#[derive(Clone, Copy, Debug)]
struct Free {
    memory_mib: u64,
    cpus: u64,
    jobs: usize,
}

impl Free {
    /// What this host has.
    fn of_host(jobs: Option<usize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_mib(&text));
        Self {
            memory_mib: memory.unwrap_or(0),
            cpus: cores as u64,
            // Who says how many has counted the cores.
            jobs: jobs.unwrap_or(usize::MAX),
        }
    }

    fn has(&self, need: Need, counts_cores: bool) -> bool {
        self.jobs > 0 && self.memory_mib >= need.memory_mib && (!counts_cores || self.cpus >= need.cpus)
    }

    fn take(&mut self, need: Need) {
        self.jobs -= 1;
        self.memory_mib = self.memory_mib.saturating_sub(need.memory_mib);
        self.cpus = self.cpus.saturating_sub(need.cpus);
    }
}

/// `MemAvailable` of /proc/meminfo, in MiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}

/// Runs `work` for each of `needs`, in their order where one has to wait, and gives the results in their order. One that needs
/// more than the host has runs alone. After the first error nothing more is begun.
///
/// # Errors
/// The first error.
pub fn run<T: Send>(
    needs: &[Need],
    jobs: Option<usize>,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    run_within(Free::of_host(jobs), jobs.is_none(), needs, work)
}

fn run_within<T: Send>(
    all: Free,
    counts_cores: bool,
    needs: &[Need],
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    // How many run, and what is free.
    let state = Mutex::new((0_usize, all));
    let changed = Condvar::new();
    let results: Mutex<Vec<Option<Result<T>>>> = Mutex::new(needs.iter().map(|_| None).collect());
    let (state, changed, results, work) = (&state, &changed, &results, &work);
    std::thread::scope(|scope| {
        for (n, need) in needs.iter().copied().enumerate() {
            let mut now = locked(state);
            while now.0 > 0 && !now.1.has(need, counts_cores) {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            }
            let failed = locked(results).iter().flatten().any(Result::is_err);
            if failed || interrupt::requested() {
                break;
            }
            let before = now.1;
            now.0 += 1;
            now.1.jobs = now.1.jobs.max(1);
            now.1.take(need);
            let taken = Free {
                memory_mib: before.memory_mib - now.1.memory_mib,
                cpus: before.cpus - now.1.cpus,
                jobs: 1,
            };
            drop(now);
            scope.spawn(move || {
                let given = GiveBack { state, changed, taken };
                let result = work(n);
                locked(results)[n] = Some(result);
                drop(given);
            });
        }
    });
    interrupt::check()?;
    let results = std::mem::take(&mut *locked(results));
    // Those that were not begun come after the one that failed.
    let (begun, rest): (Vec<_>, Vec<_>) = results.into_iter().partition(Option::is_some);
    let begun = begun.into_iter().flatten().collect::<Result<Vec<T>>>()?;
    anyhow::ensure!(rest.is_empty(), "a boot panicked");
    Ok(begun)
}

/// Gives back what a boot took, however it ends.
struct GiveBack<'a> {
    state: &'a Mutex<(usize, Free)>,
    changed: &'a Condvar,
    taken: Free,
}

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        let mut now = locked(self.state);
        now.0 -= 1;
        now.1.memory_mib += self.taken.memory_mib;
        now.1.cpus += self.taken.cpus;
        now.1.jobs = now.1.jobs.saturating_add(self.taken.jobs);
        self.changed.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const NEED: Need = Need { memory_mib: 100, cpus: 2 };

    /// How many ran at a time, of six.
    fn most(all: Free, counts_cores: bool) -> usize {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done = run_within(all, counts_cores, &[NEED; 6], |n| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(n)
        });
        assert_eq!(done.unwrap(), [0, 1, 2, 3, 4, 5]);
        most.into_inner()
    }

    #[test]
    fn no_more_run_than_there_is_room_for() {
        let all = Free { memory_mib: 10_000, cpus: 100, jobs: 100 };
        assert!(most(all, true) > 1);
        assert_eq!(most(Free { memory_mib: 250, ..all }, true), 2);
        assert_eq!(most(Free { cpus: 5, ..all }, true), 2);
        assert_eq!(most(Free { jobs: 1, ..all }, true), 1);
        assert_eq!(
            most(Free { jobs: 3, cpus: 1, ..all }, false),
            3,
            "who says how many has counted the cores"
        );
        assert_eq!(most(Free { memory_mib: 1, cpus: 1, jobs: 9 }, true), 1, "what is too large runs alone");
    }

    #[test]
    fn after_an_error_nothing_more_is_begun() {
        let begun = AtomicUsize::new(0);
        let all = Free { memory_mib: 100, cpus: 2, jobs: 1 };
        let result = run_within(all, true, &[NEED; 4], |n| {
            begun.fetch_add(1, Ordering::SeqCst);
            anyhow::ensure!(n != 1, "the second failed");
            Ok(n)
        });
        assert_eq!(result.unwrap_err().to_string(), "the second failed");
        assert_eq!(begun.into_inner(), 2);
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available_mib("MemTotal: 1 kB\nMemAvailable:   24576000 kB\n"), Some(24_000));
        assert_eq!(available_mib("MemTotal: 1 kB\n"), None);
    }
}
