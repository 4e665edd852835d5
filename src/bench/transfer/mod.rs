//! One job of transfers, however they are made: what is to be transferred ([`job`]), where each transfer goes ([`offsets`]),
//! what is written and must be found again ([`pattern`]), the threads around it ([`threads`]), and the samples that
//! every figure is computed from ([`measurement`]).

pub mod job;
pub mod measurement;
pub mod offsets;
pub mod pattern;
pub mod threads;
