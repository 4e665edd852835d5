//! The benchmark.
//!
//! | file | what it is about |
//! |---|---|
//! | [`survey`], [`drive`] | what there is to be measured |
//! | [`plan`] | what is measured, and how long that takes |
//! | [`run`] | the plan, carried out |
//! | [`state`] | temperatures and links meanwhile |
//! | [`results`] | what came of it, as a report keeps it |
//! | `recompute` | the same once more, from the raw samples |
//! | [`route`] | what proves which route bytes took |
//! | [`transfer`] | one job: which transfers, their samples, what is written and found again |
//! | [`storage`] | transfers between a drive and the CPU's memory |
//! | [`worker`] | transfers between a drive and a GPU's memory, by a program of its own |
//! | [`gdsio`] | what NVIDIA's own tools say, for people who know their numbers |
//! | [`workload`] | programs of the operator's own, and whether they keep his rules |
//! | [`scratch`] | where anything may be written |
//! | [`table`] | figures as lines of text |
//!
//! Nothing in here opens a drive or a file of it for writing but [`scratch`]; other people's programs may, and are given
//! nothing but what [`scratch`] made.

pub mod drive;
pub mod gdsio;
pub mod plan;
#[cfg(feature = "builder")]
pub mod recompute;
pub mod results;
pub mod route;
pub mod run;
pub mod scratch;
pub mod state;
pub mod storage;
pub mod survey;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod transfer;
pub mod worker;
pub mod workload;

/// Another one for each run: an earlier run's data is no proof.
pub fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}
