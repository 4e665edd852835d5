//! Where reports are read from: an image, a qcow2 image, a stick, its report partition alone, a folder, a report file.
//! Everything is opened read-only and nothing is mounted, so that whoever may read it needs no other rights.

#[cfg(feature = "builder")]
mod disk;
#[cfg(feature = "builder")]
mod folder;
mod image;
#[cfg(feature = "builder")]
pub mod qcow2;

#[cfg(all(test, feature = "builder"))]
pub(crate) use image::tests;
pub use image::{Image, Run};

#[cfg(feature = "builder")]
pub use opened::{Listing, MAX_REPORT, RunRef, Source};

#[cfg(feature = "builder")]
mod opened;
