//! What is to be transferred.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Which way bytes go, seen from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the drive.
    Read,
    /// To the drive.
    Write,
}

/// In which order the blocks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// One after the other; each thread has a part of the range for itself.
    Sequential,
    /// Uniformly at random over the whole range, some more than once.
    Random,
}

/// When a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// After so many seconds; a sequential job begins again at the end of its range.
    Seconds(f64),
    /// When each block was taken once. In random order: as many blocks as there are.
    Once,
}

/// Transfers of one size and kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Job {
    /// Which way.
    pub direction: Direction,
    /// In which order.
    pub order: Order,
    /// Bytes of each transfer: a multiple of the drive's logical block.
    pub block: u32,
    /// Transfers under way at a time, for each thread.
    pub depth: u32,
    /// Threads.
    pub threads: u32,
    /// The part of the file or device that is touched, in bytes.
    pub range: Range<u64>,
    /// When it ends.
    pub until: Until,
    /// What the random order and the pattern are made from.
    pub seed: u64,
    /// Is every byte that was read compared with the pattern, and what a GPU wrote read back by the CPU?
    pub verify: bool,
}

impl Job {
    /// The blocks in the range.
    pub fn blocks(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start) / u64::from(self.block.max(1))
    }

    /// Is it one that can be run? The error says what is wrong with it.
    ///
    /// # Errors
    /// A size that is nothing or not a multiple of 512, a range that holds no block, or less than one block for a thread.
    pub fn check(&self) -> Result<(), String> {
        let Self { block, depth, threads, range, .. } = self;
        if *block == 0 || block % 512 != 0 || *block > 1 << 30 {
            return Err(format!("transfers of {block} bytes: a multiple of 512, at most 1 GiB"));
        }
        if *depth == 0 || *threads == 0 || *depth > 4096 || *threads > 1024 {
            return Err(format!("{threads} threads of {depth} transfers: 1 to 1024 of 1 to 4096"));
        }
        if range.start % 512 != 0 || self.blocks() < u64::from(*threads) {
            return Err(format!(
                "{} bytes from {} on: too few for {threads} threads of {block} bytes",
                range.end.saturating_sub(range.start),
                range.start
            ));
        }
        Ok(())
    }

    /// When transfers are no longer begun; `None` where blocks are counted instead.
    pub fn limit(&self) -> Option<Duration> {
        match self.until {
            Until::Seconds(seconds) => Some(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            Until::Once => None,
        }
    }
}

impl fmt::Display for Job {
    /// `read sequential 1 MiB, 4 x 8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        let order = match self.order {
            Order::Sequential => "sequential",
            Order::Random => "random",
        };
        let (size, unit) = match self.block {
            block if block % (1 << 20) == 0 => (block >> 20, "MiB"),
            block if block % (1 << 10) == 0 => (block >> 10, "KiB"),
            block => (block, "bytes"),
        };
        write!(f, "{direction} {order} {size} {unit}, {} x {}", self.threads, self.depth)
    }
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

    /// A job that can be run.
    pub fn job() -> Job {
        Job {
            direction: Direction::Read,
            order: Order::Sequential,
            block: 1 << 20,
            depth: 8,
            threads: 4,
            range: 0..1 << 30,
            until: Until::Once,
            seed: 1,
            verify: false,
        }
    }

    #[test]
    fn a_job_that_cannot_be_run_says_why() {
        assert_eq!(job().check(), Ok(()));
        for (change, why) in [
            ((|job| job.block = 0) as fn(&mut Job), "transfers of 0 bytes"),
            (|job| job.block = 1000, "multiple of 512"),
            (|job| job.depth = 0, "4 threads of 0 transfers"),
            (|job| job.threads = 5000, "5000 threads"),
            (|job| job.range = 0..3 << 20, "too few for 4 threads"),
            (|job| job.range = 100..1 << 30, "bytes from 100 on"),
            (|job| job.range.end = 0, "too few"),
        ] {
            let mut wrong = job();
            change(&mut wrong);
            let error = wrong.check().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_job_in_a_few_words() {
        assert_eq!(job().to_string(), "read sequential 1 MiB, 4 x 8");
        let small = Job { block: 4096, order: Order::Random, direction: Direction::Write, ..job() };
        assert_eq!(small.to_string(), "write random 4 KiB, 4 x 8");
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
