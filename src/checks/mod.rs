//! Judges facts. Pure: no I/O, the same answer for the same facts on any machine.

pub mod prerequisites;
