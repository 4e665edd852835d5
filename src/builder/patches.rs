//! The patches that module sources need before they compile: `image/patches/<source>-<version>/NN-name.patch`, compiled
//! in, so that an installed gdsboot has them.

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Folder, file name, unified diff.
const PATCHES: [(&str, &str, &str); 2] = [
    (
        "nvidia-open-gpu-kernel-modules-535.261.03",
        "01-pci-resize-resource-exclude-bars.patch",
        include_str!(
            "../../image/patches/nvidia-open-gpu-kernel-modules-535.261.03/01-pci-resize-resource-exclude-bars.patch"
        ),
    ),
    (
        "nvidia-open-gpu-kernel-modules-550.163.01",
        "01-pci-resize-resource-exclude-bars.patch",
        include_str!(
            "../../image/patches/nvidia-open-gpu-kernel-modules-550.163.01/01-pci-resize-resource-exclude-bars.patch"
        ),
    ),
];

/// Changes whenever a patch does.
pub fn key() -> String {
    let mut hash = Sha256::new();
    for (folder, name, text) in PATCHES {
        hash.update(format!("{folder}/{name} {}\n{text}", text.len()));
    }
    hex::encode(hash.finalize())
}

/// Lays them out below a folder, as they are in the checkout.
pub fn write_to(folder: &Path) -> Result<()> {
    for (source, name, text) in PATCHES {
        fs_err::create_dir_all(folder.join(source))?;
        fs_err::write(folder.join(source).join(name), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_of_the_checkout_is_compiled_in() {
        let mut found = Vec::new();
        for folder in fs_err::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/image/patches")).unwrap() {
            let folder = folder.unwrap();
            if folder.file_type().unwrap().is_dir() {
                for file in fs_err::read_dir(folder.path()).unwrap() {
                    let name = file.unwrap().file_name().into_string().unwrap();
                    found.push((folder.file_name().into_string().unwrap(), name));
                }
            }
        }
        found.sort();
        let mut compiled: Vec<_> =
            PATCHES.iter().map(|(a, b, _)| ((*a).to_owned(), (*b).to_owned())).collect();
        compiled.sort();
        assert_eq!(found, compiled);
    }
}
