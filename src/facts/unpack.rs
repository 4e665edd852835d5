//! A captured machine as a `.tar.zst`, unpacked into a folder that [`Root::at`](super::Root::at) reads.

use anyhow::Context as _;
use std::io::Read;
use std::path::{Component, Path};

/// No capture unpacks to more.
const LIMIT: u64 = 2 << 30;

/// Unpacks a capture into a folder that is there. Nothing leaves the folder, whatever the archive says: see `tar::Entry::unpack_in`.
///
/// # Errors
/// It is no capture, or leads out of the folder.
pub fn unpack(file: &Path, folder: &Path) -> anyhow::Result<()> {
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
