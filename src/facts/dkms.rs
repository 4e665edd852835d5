//! Kernel modules that DKMS builds on the machine: `/var/lib/dkms/<module>/<version>/<kernel>/` (dkms(8)).

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// Where DKMS keeps what it builds.
const FOLDER: &str = "/var/lib/dkms";

/// Folders beside the kernels' own: the link to the source, and the build that is under way or failed.
const NO_KERNELS: [&str; 3] = ["source", "build", "original_module"];

/// What DKMS has to do with the running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Dkms {
    /// NVIDIA's modules among those that it builds.
    pub modules: Fact<Vec<DkmsModule>>,
    /// Are the running kernel's headers there? Not read where a capture has only a link to them.
    pub headers: Fact<bool>,
}

/// A module in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DkmsModule {
    /// DKMS's name of it: `nvidia`, `nvidia-current`, `nvidia-fs`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The kernels that it was built for.
    pub kernels: Vec<String>,
}

impl Dkms {
    /// Reads it for the kernel `release`.
    pub fn read(root: &Root, release: &str) -> Self {
        Self { modules: read_modules(root), headers: read_headers(root, release) }
    }
}

fn read_modules(root: &Root) -> Fact<Vec<DkmsModule>> {
    root.list(FOLDER).map(|names| {
        let mut modules = Vec::new();
        for name in names.into_iter().filter(|name| name.starts_with("nvidia")) {
            let versions = root.list(&format!("{FOLDER}/{name}"));
            let versions = versions.value().into_iter().flatten();
            // `kernel-<release>-<arch>` are links to what is installed.
            for version in versions.filter(|version| !version.starts_with("kernel-")) {
                let inside = root.list(&format!("{FOLDER}/{name}/{version}"));
                let kernels = inside.value().cloned().unwrap_or_default();
                let kernels =
                    kernels.into_iter().filter(|entry| !NO_KERNELS.contains(&entry.as_str())).collect();
                modules.push(DkmsModule { name: name.clone(), version: version.clone(), kernels });
            }
        }
        modules
    })
}

fn read_headers(root: &Root, release: &str) -> Fact<bool> {
    let folder = format!("/lib/modules/{release}");
    let build = format!("{folder}/build");
    let known = root.list(&folder);
    match known.value() {
        _ if root.exists(&format!("{build}/Makefile")) || root.exists(&build) => Fact::known(build, true),
        // Where the headers themselves may just not have been taken along.
        Some(names) if names.iter().any(|name| name == "build") && !root.is_live() => {
            Fact::not_read(format!("{build} leads out of what was captured"))
        }
        Some(_) => Fact::known(build, false),
        None => known.map(|_| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_built_for_which_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |path: &str| fs_err::create_dir_all(dir.path().join(path)).unwrap();
        folder("var/lib/dkms/nvidia/580.95.05/6.8.0-79-generic/x86_64/module");
        folder("var/lib/dkms/nvidia/580.95.05/build");
        folder("var/lib/dkms/nvidia-fs/2.27.3/source");
        folder("var/lib/dkms/nvidia/kernel-6.8.0-79-generic-x86_64");
        folder("var/lib/dkms/zfs/2.2.2");
        folder("lib/modules/6.8.0-85-generic/kernel");
        let root = Root::at(dir.path());
        let dkms = Dkms::read(&root, "6.8.0-85-generic");
        let module = |name: &str, version: &str, kernels: &[&str]| DkmsModule {
            name: name.into(),
            version: version.into(),
            kernels: kernels.iter().map(|kernel| (*kernel).to_owned()).collect(),
        };
        assert_eq!(
            dkms.modules.value().unwrap(),
            &[module("nvidia", "580.95.05", &["6.8.0-79-generic"]), module("nvidia-fs", "2.27.3", &[])]
        );
        assert_eq!(dkms.headers.value(), Some(&false));
        symlink("/usr/src/linux-headers", dir.path().join("lib/modules/6.8.0-85-generic/build")).unwrap();
        assert!(matches!(Dkms::read(&root, "6.8.0-85-generic").headers, Fact::NotRead { .. }));
        folder("usr/src/linux-headers");
        assert_eq!(Dkms::read(&root, "6.8.0-85-generic").headers.value(), Some(&true));
        assert!(matches!(Dkms::read(&root, "5.4.0").headers, Fact::Missing { .. }));
    }
}
