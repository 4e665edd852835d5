//! How long the validator takes to read and to judge a guest with 8 GPUs and 16 NVMe drives: `cargo bench`.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use gdsboot::checks::context::side_of;
use gdsboot::checks::judge::judge;
use gdsboot::facts::{Facts, Root};
use std::time::{Duration, Instant};

const ROUNDS: usize = 10;
/// What a user does not notice.
const LIMIT: Duration = Duration::from_secs(1);

fn main() {
    let dir = tempfile::tempdir().unwrap();
    synthetic::guest(dir.path(), 8, 16);
    let mut times = Vec::new();
    let mut findings = 0;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let facts = Facts::read(&Root::at(dir.path()));
        let read = started.elapsed();
        let judgement = judge(&facts, side_of(&facts), None, &[], "2026-11-24");
        findings = judgement.findings.len();
        times.push((started.elapsed(), read));
    }
    times.sort();
    let (all, read) = times[ROUNDS / 2];
    println!("8 GPUs, 16 NVMe: {findings} findings in {all:.1?} (reading {read:.1?}), median of {ROUNDS}");
    assert!(all < LIMIT, "that is more than {LIMIT:?}");
}
