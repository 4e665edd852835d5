//! Which machine is looked at: this one, or a folder that mirrors another.

use anyhow::Context as _;
use gdsboot::bench::results::Results;
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::{Facts, Root};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Which machine to read.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// Read a capture instead of this machine: a folder that mirrors a machine's absolute paths, or a .tar.zst of one
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Machine {
    /// Reads it.
    pub fn facts(&self) -> anyhow::Result<Facts> {
        Ok(self.read()?.0)
    }

    /// Reads it, and what a benchmark left there.
    pub fn read(&self) -> anyhow::Result<(Facts, Option<Results>)> {
        let read = |root: Root| (Facts::read(&root), Results::left_by_run(&root));
        if self.root.is_dir() {
            return Ok(read(Root::at(&self.root)));
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
        Ok(read(Root::at(folder.path())))
    }
}

/// No capture unpacks to more.
const LIMIT: u64 = 2 << 30;

/// Unpacks a capture. Nothing leaves the folder, whatever the archive says: see `tar::Entry::unpack_in`.
fn unpack(file: &Path, folder: &Path) -> anyhow::Result<()> {
    let packed = zstd::Decoder::new(std::fs::File::open(file)?)?;
    let mut tar = tar::Archive::new(packed.take(LIMIT));
    let mut count = 0;
    for entry in tar.entries()? {
        let mut entry = entry?;
        // A machine's links lead anywhere; they are followed inside the folder, by the reader.
        if entry.header().entry_type().is_symlink() {
            link(&entry, folder)?;
        } else if entry.header().entry_type().is_file() || entry.header().entry_type().is_dir() {
            entry.set_preserve_permissions(false);
            entry.unpack_in(folder)?;
        }
        count += 1;
    }
    anyhow::ensure!(count > 0, "it is empty");
    Ok(())
}

/// A link whose own place is inside the folder and not below another link.
fn link(entry: &tar::Entry<'_, impl Read>, folder: &Path) -> anyhow::Result<()> {
    let path = entry.path()?;
    let target = entry.link_name()?.context("a link without a target")?;
    anyhow::ensure!(
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)),
        "it has the path {}",
        path.display()
    );
    let mut parent = folder.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        let is_link = std::fs::symlink_metadata(&parent).is_ok_and(|m| m.is_symlink());
        anyhow::ensure!(!is_link, "its path {} leads through a link", path.display());
    }
    std::fs::create_dir_all(&parent)?;
    std::os::unix::fs::symlink(target, folder.join(path))?;
    Ok(())
}
