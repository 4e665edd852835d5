//! The same work on many things, with all CPUs.

use crate::interrupt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// `work` of each number below `count`, in their order; `None` where it was not begun because the user wants to stop.
pub fn each<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<Option<T>> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || interrupt::requested() {
                return done;
            }
            done.push((index, work(index)));
        }
    };
    let mut all: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(count);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        for thread in threads {
            // A panic in a thread is this one's too.
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.into_iter().for_each(|(index, result)| all[index] = Some(result));
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_where_their_numbers_do() {
        let squares: Vec<usize> = each(1000, |n| n * n).into_iter().map(Option::unwrap).collect();
        assert!(squares.iter().enumerate().all(|(n, square)| *square == n * n));
        assert_eq!(each(0, |n| n), []);
    }
}
