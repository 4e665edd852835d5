//! Kernel, driver, nvidia-fs, libraries.

use super::check::Check;

/// The checks of this file.
pub const CHECKS: &[Check] = &[];
