//! Where reports are read from: an image, a qcow2 image, a stick, its report partition alone, a folder, a report file.
//! Everything is opened read-only and nothing is mounted, so that whoever may read it needs no other rights.

mod disk;
mod folder;
mod image;
pub mod qcow2;

#[cfg(test)]
pub(crate) use image::tests;
pub use image::{Image, Run};

pub use opened::{Listing, MAX_REPORT, RunRef, Source};

mod opened;
