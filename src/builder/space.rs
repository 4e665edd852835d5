//! Free space, asked for before work begins.

use crate::error::hinted;
use crate::progress::bytes;
use anyhow::{Context as _, Result};
use std::path::Path;

/// Fails unless `need` bytes are free where `folder` lies.
pub fn require(folder: &Path, need: u64, what: &str) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(folder)
        .with_context(|| format!("asking for free space in {}", folder.display()))?;
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    if free >= need {
        return Ok(());
    }
    Err(hinted(
        format!("{what} needs {} in {}, where {} are free", bytes(need), folder.display(), bytes(free)),
        "make room, or choose another place: --cache DIR (or the variable GDSBOOT_CACHE) and -o FILE",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_said_before() {
        assert!(require(Path::new("/"), 1, "testing").is_ok());
        let error = require(Path::new("/"), u64::MAX, "testing").unwrap_err();
        assert!(error.to_string().starts_with("testing needs"), "{error}");
        assert!(crate::error::hint_of(&error).unwrap().contains("--cache"));
    }
}
