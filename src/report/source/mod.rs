//! Where reports are read from: an image, a qcow2 image, a stick, its report partition alone, a folder, a report file.
//! Everything is opened read-only and nothing is mounted, so that whoever may read it needs no other rights.

mod disk;
mod folder;
mod image;
mod opened;
pub mod qcow2;

#[cfg(test)]
pub(crate) use image::tests;
pub use image::{Image, MAX_REPORT, Run};
pub use opened::{Listing, RunRef, Source};
