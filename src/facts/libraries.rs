//! NVIDIA's user-space libraries as they lie in library folders: the version stands in the file's name.

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// A library file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct InstalledLibrary {
    /// Its absolute path on the machine.
    pub path: String,
    /// `libcuda`, `libnvidia-ml`, `libcufile`.
    pub name: String,
    /// What follows `.so.`: `580.95.05`.
    pub version: String,
}

const FOLDERS: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
];

const NAMES: &[&str] = &["libcuda", "libnvidia-ml", "libcufile"];

impl InstalledLibrary {
    /// Finds all whose name has a version of two numbers or more. Missing where no library folder can be listed.
    pub fn read_all(root: &Root) -> Fact<Vec<Self>> {
        let mut found: Vec<Self> = Vec::new();
        let mut listed = false;
        for folder in FOLDERS {
            let names = root.list(folder);
            listed |= names.value().is_some();
            for library in names.value().into_iter().flatten().filter_map(|name| Self::parse(folder, name)) {
                // `/lib` is `/usr/lib` on most machines.
                if !found
                    .iter()
                    .any(|known| (&known.name, &known.version) == (&library.name, &library.version))
                {
                    found.push(library);
                }
            }
        }
        if listed {
            Fact::known("library folders", found)
        } else {
            Fact::Missing { from: "library folders".into() }
        }
    }

    fn parse(folder: &str, file: &str) -> Option<Self> {
        let (name, version) = file.split_once(".so.")?;
        let is_version = version.contains('.') && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        (NAMES.contains(&name) && is_version).then(|| Self {
            path: format!("{folder}/{file}"),
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_version_count() {
        let version = |file| InstalledLibrary::parse("/x", file).map(|library| library.version);
        assert_eq!(version("libcuda.so.580.95.05").as_deref(), Some("580.95.05"));
        assert_eq!(version("libcufile.so.1.16.1").as_deref(), Some("1.16.1"));
        for file in ["libcuda.so.1", "libcuda.so", "libcudart.so.13.0.1", "libcuda.so.x.y", ""] {
            assert_eq!(version(file), None, "{file}");
        }
    }
}
