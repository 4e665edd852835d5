//! The report: what it says ([`model`]), how it is written for programs ([`json`]) and for people ([`text`], [`screen`]),
//! and what the console tells whoever watches it ([`events`]).

pub mod events;
pub mod json;
mod layout;
pub mod model;
pub mod screen;
pub mod text;
pub mod utc;
