//! The benchmark: what transfers are made ([`job`]), how bytes travel between a drive and the CPU's memory ([`storage`])
//! or a GPU's ([`worker`], [`worker_process`]), what came of it ([`measurement`]), what is written and found again
//! ([`pattern`]), what proves which route the bytes took ([`route`]), and which disk nobody would miss ([`candidate`],
//! [`signatures`]).
//!
//! Nothing in here opens a drive or a file of it for writing but [`scratch`].

pub mod candidate;
pub mod cufile_errors;
pub mod cufile_settings;
pub mod cufile_stats;
pub mod job;
pub mod measurement;
pub mod offsets;
pub mod pattern;
pub mod plan;
pub mod results;
mod ring;
pub mod route;
pub mod scratch;
pub mod signatures;
pub mod storage;
pub mod table;
pub mod threads;
pub mod worker;
pub mod worker_process;

pub use ring::Buffers;
