//! Which machine is looked at: this one, or a folder that mirrors another.

use gdsboot::error::usage;
use gdsboot::facts::{Facts, Root};
use std::path::PathBuf;

/// Which machine to read.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// Read a folder that mirrors a machine's absolute paths, instead of this machine
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Machine {
    /// Reads it.
    pub fn facts(&self) -> anyhow::Result<Facts> {
        if !self.root.is_dir() {
            let hint = "name a folder that mirrors a machine, or leave --root away";
            return Err(usage(format!("reading {}: not a folder", self.root.display()), hint));
        }
        Ok(Facts::read(&Root::at(&self.root)))
    }
}
