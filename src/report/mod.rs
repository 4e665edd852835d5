//! The report: what it says ([`model`]), how it is written for programs ([`json`]) and for people ([`text`], [`screen`]),
//! what the console tells whoever watches it ([`events`]), and reading it back from wherever it is
//! ([`source`]) without mounting anything and without being root.

pub mod benchmark;
#[cfg(feature = "builder")]
pub mod diff;
pub mod events;
#[cfg(feature = "builder")]
pub mod extract;
pub mod fat;
pub mod findings;
pub mod gpt;
pub mod html;
pub mod json;
pub mod junit;
#[cfg(feature = "builder")]
pub mod kind;
pub mod layout;
pub mod menu;
pub mod model;
pub mod qr;
#[cfg(feature = "builder")]
pub mod runs;
#[cfg(feature = "builder")]
pub mod same_run;
#[cfg(test)]
mod schema;
pub mod screen;
#[cfg(feature = "builder")]
pub mod source;
pub mod text;
pub mod topology;
pub mod utc;
