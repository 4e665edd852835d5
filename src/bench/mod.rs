//! The benchmark.
//!
//! | file | what it is about |
//! |---|---|
//! | [`plan`] | what is measured on a machine, and how long that takes |
//! | [`results`] | what came of it, as a report keeps it |
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

pub mod gdsio;
pub mod plan;
pub mod results;
pub mod route;
pub mod scratch;
pub mod storage;
pub mod table;
pub mod transfer;
pub mod worker;
pub mod workload;
