//! The report: what it says ([`model`]), how it is written for programs ([`json`]) and for people ([`text`], [`screen`]),
//! what the console tells whoever watches it ([`events`]), and reading it back from a disk image ([`source`])
//! without mounting anything and without being root.

pub mod benchmark;
pub mod events;
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
#[cfg(feature = "builder")]
pub mod qcow2;
pub mod qr;
#[cfg(test)]
mod schema;
pub mod screen;
#[cfg(feature = "builder")]
pub mod source;
pub mod text;
pub mod topology;
pub mod utc;
