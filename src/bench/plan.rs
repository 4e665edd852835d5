//! Which transfers a benchmark makes, and how long that takes.

use super::transfer::job::{Direction, Job, Order, Until};
use serde::{Deserialize, Serialize};

/// How thorough a benchmark is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Thoroughness {
    /// The few figures that tell a healthy drive from a sick one.
    #[default]
    Quick,
    /// Every size with one thread, some, and one for each CPU.
    Full,
}

/// The jobs on one drive, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What is measured.
    pub jobs: Vec<Job>,
    /// How long it takes, in seconds.
    pub seconds: f64,
}

/// How long each job of the quick plan takes, in seconds.
const QUICK_SECONDS: f64 = 4.0;
/// The same for the full plan.
const FULL_SECONDS: f64 = 8.0;
/// Transfers of 4 KiB under way for each thread.
const SMALL_DEPTH: u32 = 32;
/// Bytes under way for each thread in sequential order.
const BYTES_UNDER_WAY: u32 = 16 << 20;
/// Large transfers, in bytes.
const LARGE: [u32; 3] = [1 << 20, 4 << 20, 16 << 20];
const SMALL: u32 = 4096;

impl Plan {
    /// The plan for `bytes` of a drive or file; writes are planned where it is `writable`.
    pub fn new(thoroughness: Thoroughness, bytes: u64, writable: bool, cpus: u32, seed: u64) -> Self {
        let some = cpus.clamp(1, 4);
        let (threads, large, seconds) = match thoroughness {
            Thoroughness::Quick => (vec![some], &LARGE[..1], QUICK_SECONDS),
            Thoroughness::Full => {
                let mut threads = vec![1, some, cpus.max(1)];
                threads.dedup();
                (threads, &LARGE[..], FULL_SECONDS)
            }
        };
        // What is read must have been written: a file's holes never touch the drive.
        let directions = if writable { &[Direction::Write, Direction::Read][..] } else { &[Direction::Read] };
        let mut jobs = Vec::new();
        for &direction in directions {
            for &threads in &threads {
                let sizes =
                    large.iter().map(|size| (Order::Sequential, *size, (BYTES_UNDER_WAY / size).max(2)));
                for (order, block, depth) in sizes.chain([(Order::Random, SMALL, SMALL_DEPTH)]) {
                    let whole = bytes / u64::from(block) * u64::from(block);
                    let until = Until::Seconds(seconds);
                    let verify = false;
                    let job =
                        Job { direction, order, block, depth, threads, range: 0..whole, until, seed, verify };
                    // A drive that is smaller than a transfer for each thread has no such figure.
                    if job.check().is_ok() {
                        jobs.push(job);
                    }
                }
            }
        }
        if writable {
            jobs.splice(0..0, fill(bytes, seed));
        }
        Self { seconds: jobs.iter().filter_map(Job::limit).map(|limit| limit.as_secs_f64()).sum(), jobs }
    }
}

/// Writes all of a new file once, before anything is measured that it holds.
fn fill(bytes: u64, seed: u64) -> Option<Job> {
    let block = LARGE[0];
    let job = Job {
        direction: Direction::Write,
        order: Order::Sequential,
        block,
        depth: 8,
        threads: 1,
        range: 0..bytes / u64::from(block) * u64::from(block),
        until: Until::Once,
        seed,
        verify: false,
    };
    job.check().is_ok().then_some(job)
}

/// Reads a job as people write it: `read,random,4K,4x32,10s`. The range and the seed are the caller's.
///
/// # Errors
/// Which word is wrong, and what it may be.
pub fn parse_job(text: &str) -> Result<Job, String> {
    let words: Vec<&str> = text.split(',').collect();
    let [direction, order, block, shape, seconds] = words[..] else {
        return Err(format!("{text:?} has {} words, not 5 as in read,random,4K,4x32,10s", words.len()));
    };
    let direction = match direction {
        "read" => Direction::Read,
        "write" => Direction::Write,
        _ => return Err(format!("{direction:?} is neither read nor write")),
    };
    let order = match order {
        "sequential" => Order::Sequential,
        "random" => Order::Random,
        _ => return Err(format!("{order:?} is neither sequential nor random")),
    };
    let block = size(block).and_then(|bytes| u32::try_from(bytes).ok());
    let block = block.ok_or_else(|| format!("{:?} is no size such as 4K or 1M", words[2]))?;
    let parsed =
        shape.split_once('x').and_then(|(threads, depth)| Some((threads.parse().ok()?, depth.parse().ok()?)));
    let (threads, depth) = parsed.ok_or_else(|| format!("{shape:?} is no THREADSxDEPTH such as 4x32"))?;
    let number = seconds.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
    let seconds = number.filter(|s| *s > 0.0 && *s <= 86_400.0);
    let seconds = seconds.ok_or_else(|| format!("{:?} is no time such as 10s, a day at most", words[4]))?;
    let until = Until::Seconds(seconds);
    Ok(Job { direction, order, block, depth, threads, range: 0..0, until, seed: 0, verify: false })
}

/// `4K`, `16M`, `2G` or a number of bytes; powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_plan_is_short_and_writes_only_where_it_may() {
        let plan = Plan::new(Thoroughness::Quick, 1 << 40, false, 16, 1);
        let jobs: Vec<String> = plan.jobs.iter().map(Job::to_string).collect();
        assert_eq!(jobs, ["read sequential 1 MiB, 4 x 16", "read random 4 KiB, 4 x 32"]);
        assert!((plan.seconds - 8.0).abs() < 1e-9);
        let plan = Plan::new(Thoroughness::Quick, 1 << 30, true, 1, 1);
        let jobs: Vec<String> = plan.jobs.iter().map(Job::to_string).collect();
        assert_eq!(
            jobs,
            [
                "write sequential 1 MiB, 1 x 8",
                "write sequential 1 MiB, 1 x 16",
                "write random 4 KiB, 1 x 32",
                "read sequential 1 MiB, 1 x 16",
                "read random 4 KiB, 1 x 32"
            ]
        );
    }

    #[test]
    fn a_full_plan_has_every_size_with_few_and_many_threads() {
        let plan = Plan::new(Thoroughness::Full, 1 << 40, false, 64, 1);
        assert_eq!(plan.jobs.len(), 12);
        assert!(plan.jobs.iter().all(|job| job.check().is_ok() && job.direction == Direction::Read));
        assert_eq!(plan.jobs[2].to_string(), "read sequential 16 MiB, 1 x 2");
        assert_eq!(plan.jobs[11].to_string(), "read random 4 KiB, 64 x 32");
    }

    #[test]
    fn a_tiny_drive_has_a_smaller_plan() {
        for bytes in [0, 4095, 4096, 1 << 20, 20 << 20] {
            let plan = Plan::new(Thoroughness::Full, bytes, true, 8, 1);
            for job in &plan.jobs {
                assert_eq!(job.check(), Ok(()));
                assert!(job.range.end <= bytes);
            }
        }
        assert_eq!(Plan::new(Thoroughness::Full, 4095, true, 8, 1).jobs, []);
    }

    #[test]
    fn a_job_as_people_write_it() {
        let job = parse_job("read,random,4K,4x32,10s").unwrap();
        assert_eq!(job.to_string(), "read random 4 KiB, 4 x 32");
        assert_eq!(job.until, Until::Seconds(10.0));
        for (text, why) in [
            ("read", "has 1 words"),
            ("scan,random,4K,4x32,10s", "neither read nor write"),
            ("read,mixed,4K,4x32,10s", "neither sequential nor random"),
            ("read,random,4Q,4x32,10s", "no size"),
            ("read,random,99999999999G,4x32,10s", "no size"),
            ("read,random,4K,432,10s", "no THREADSxDEPTH"),
            ("read,random,4K,4x32,10", "no time"),
            ("read,random,4K,4x32,NaNs", "no time"),
            ("read,random,4K,4x32,-1s", "no time"),
        ] {
            let error = parse_job(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
