//! Where the transfers of one thread go: the same for the same seed, so that a run can be repeated.

use super::job::{Job, Order, Until};

/// The offsets of one thread's transfers, in bytes from the beginning of the file or device.
#[derive(Clone, Debug)]
pub struct Offsets {
    /// The first block of this thread's part, and how many there are.
    first: u64,
    blocks: u64,
    start: u64,
    block: u64,
    order: Order,
    /// How many are left; endless where the clock ends the job.
    left: Option<u64>,
    next: u64,
    state: u64,
}

impl Offsets {
    /// Those of `thread`, which counts from 0. The job has been checked.
    pub fn new(job: &Job, thread: u32) -> Self {
        let (all, threads, thread) = (job.blocks(), u64::from(job.threads), u64::from(thread));
        let begin = |n: u64| (u128::from(all) * u128::from(n) / u128::from(threads)) as u64;
        let (first, end) = (begin(thread), begin(thread + 1));
        let (first, blocks) = match job.order {
            Order::Sequential => (first, end - first),
            Order::Random => (0, all),
        };
        Self {
            first,
            blocks,
            start: job.range.start,
            block: job.block.into(),
            order: job.order,
            left: (job.until == Until::Once).then_some(end - begin(thread)),
            next: 0,
            state: job.seed ^ (thread + 1).wrapping_mul(0xd1b5_4a32_d192_ed03),
        }
    }
}

impl Iterator for Offsets {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let number = match self.order {
            Order::Sequential => {
                let number = self.first + self.next;
                self.next = if self.next + 1 < self.blocks { self.next + 1 } else { 0 };
                number
            }
            // The upper half of a product is uniform enough for any number of blocks that fits a disk.
            Order::Random => ((u128::from(random(&mut self.state)) * u128::from(self.blocks)) >> 64) as u64,
        };
        Some(self.start + number * self.block)
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::job::Direction;
    use super::*;
    use std::collections::BTreeSet;

    fn job(order: Order, blocks: u64, threads: u32) -> Job {
        Job {
            direction: Direction::Read,
            order,
            block: 4096,
            depth: 1,
            threads,
            range: 8192..8192 + blocks * 4096 + 100,
            until: Until::Once,
            seed: 7,
            verify: false,
        }
    }

    #[test]
    fn sequential_threads_share_the_range_and_touch_each_block_once() {
        for (blocks, threads) in [(10, 3), (4, 4), (1000, 7)] {
            let job = job(Order::Sequential, blocks, threads);
            let all: Vec<u64> = (0..threads).flat_map(|thread| Offsets::new(&job, thread)).collect();
            let wanted: Vec<u64> = (0..blocks).map(|n| 8192 + n * 4096).collect();
            assert_eq!(all, wanted);
        }
    }

    #[test]
    fn random_offsets_are_blocks_of_the_range_and_repeat_with_the_seed() {
        let job = job(Order::Random, 1000, 2);
        let one: Vec<u64> = Offsets::new(&job, 0).collect();
        assert_eq!(one, Offsets::new(&job, 0).collect::<Vec<_>>());
        assert_ne!(one, Offsets::new(&job, 1).collect::<Vec<_>>());
        assert_eq!(one.len(), 500);
        assert!(one.iter().all(|at| (at - 8192) % 4096 == 0 && (8192..8192 + 1000 * 4096).contains(at)));
        let different: BTreeSet<_> = one.iter().collect();
        assert!(different.len() > 300, "{}", different.len());
    }

    #[test]
    fn a_timed_job_begins_again() {
        let timed = Job { until: Until::Seconds(1.0), ..job(Order::Sequential, 2, 1) };
        assert_eq!(Offsets::new(&timed, 0).take(5).collect::<Vec<_>>(), [8192, 12288, 8192, 12288, 8192]);
    }

    /// The first numbers for the seed 1234567 of the reference implementation (prng.di.unimi.it/splitmix64.c).
    #[test]
    fn the_generator_is_splitmix64() {
        let mut state = 1_234_567;
        let numbers: Vec<u64> = (0..3).map(|_| random(&mut state)).collect();
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
