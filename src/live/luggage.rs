//! What travels in the initramfs and is needed after it: gdsboot's own programs and the manifest. They are laid into
//! `/run`, which moves along into the root.

use crate::boot_contract::{
    INITRAMFS_DMA, INITRAMFS_INIT, INITRAMFS_MANIFEST, RUN_DMA, RUN_MANIFEST, RUN_VALIDATOR,
};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::path::Path;

/// From the initramfs into `/run`. Modes are kept.
pub fn unpack() -> Result<()> {
    let pairs =
        [(INITRAMFS_INIT, RUN_VALIDATOR), (INITRAMFS_DMA, RUN_DMA), (INITRAMFS_MANIFEST, RUN_MANIFEST)];
    for (from, to) in pairs {
        let (from, to) = (Path::new("/").join(from), Path::new("/").join(to));
        if let Some(folder) = to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::copy(&from, &to)?;
    }
    Ok(())
}

/// Leaves what this run alone can know below `/run`, for a capture and for the validator in the shell.
pub fn leave(path: &str, fact: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(fact).with_context(|| format!("writing /{path}"))?;
    Ok(fs_err::write(Path::new("/").join(path), text)?)
}
