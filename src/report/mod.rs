//! The report: what it says ([`model`]), how it is written for programs ([`json`]) and for people,
//! what the console tells whoever watches it ([`events`]), and reading it back from a disk image ([`source`])
//! without mounting anything and without being root.

pub mod events;
pub mod fat;
pub mod gpt;
pub mod json;
pub mod menu;
pub mod model;
pub mod source;
pub mod utc;
