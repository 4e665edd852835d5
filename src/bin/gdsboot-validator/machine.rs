//! Which machine is looked at: this one, or a folder that mirrors another.

use anyhow::Context as _;
use gdsboot::bench::results::Results;
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::hosted::HostedVm;
use gdsboot::facts::unpack::unpack;
use gdsboot::facts::{Facts, Root};
use std::path::PathBuf;

/// Which machine to read.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// Read a capture instead of this machine: a folder that mirrors a machine's absolute paths, or a .tar.zst of one
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Take along the configuration of this virtual machine of Proxmox, for `gdsboot vm join`
    #[arg(long, value_name = "VMID")]
    vm: Option<u32>,
}

impl Machine {
    /// Reads it.
    pub fn facts(&self) -> anyhow::Result<Facts> {
        Ok(self.read()?.0)
    }

    /// Reads it, and what a benchmark left there.
    pub fn read(&self) -> anyhow::Result<(Facts, Option<Results>)> {
        let read = |root: Root| {
            let mut facts = Facts::read(&root);
            if let Some(vmid) = self.vm {
                facts.hosted = HostedVm::read(&root, vmid);
                if facts.hosted.value().is_none() {
                    let message = format!("virtual machine {vmid}: {}", facts.hosted.map(|_| ""));
                    return Err(usage(message, "name one that `qm list` shows on this node, and be root"));
                }
            }
            Ok((facts, Results::left_by_run(&root)))
        };
        if self.root.is_dir() {
            return read(Root::at(&self.root));
        }
        let hint = "name a folder that mirrors a machine, a capture's .tar.zst, or leave --root away";
        if !self.root.is_file() {
            return Err(usage(format!("reading {}: not a folder", self.root.display()), hint));
        }
        let folder = tempfile::tempdir().context("making a folder for the capture")?;
        unpack(&self.root, folder.path())
            .with_context(|| format!("reading {}", self.root.display()))
            .hint(hint)
            .status(Status::Usage)?;
        read(Root::at(folder.path()))
    }
}
