//! The report: what it says ([`model`]), how it is written for programs ([`json`]) and for people,
//! and what the console tells whoever watches it ([`events`]).

pub mod events;
pub mod json;
pub mod model;
pub mod utc;
