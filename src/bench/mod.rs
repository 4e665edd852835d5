//! The benchmark: what transfers are made ([`job`]), how bytes travel between a drive and the CPU's memory ([`storage`]),
//! what came of it ([`measurement`]), and what is written and found again ([`pattern`]).
//!
//! Nothing in here opens a file for writing but [`scratch`].

pub mod job;
pub mod measurement;
pub mod offsets;
pub mod pattern;
pub mod plan;
mod ring;
pub mod scratch;
pub mod storage;
pub mod table;
