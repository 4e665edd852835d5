//! The lock: a profile resolved. Every .deb by version, size, SHA-256 and source; every archive by the hash of its
//! signed Release file.
//!
//! Paths are relative to their source, so a lock holds no mirror's name and works with any mirror of the same archive.

use crate::error::{Advise as _, hinted};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

/// Format version of lock files.
pub const VERSION: u32 = 1;

/// The set of packages that makes the image's root.
pub const SET_IMAGE: &str = "image";
/// The set that compiles kernel modules.
pub const SET_BUILD: &str = "build";
/// The set that makes images.
pub const SET_TOOLS: &str = "tools";
/// The set that boots them.
pub const SET_EMULATOR: &str = "emulator";

/// The set that an overlay adds to the image's.
pub fn overlay_set(name: &str) -> String {
    format!("overlay-{name}")
}

/// A resolved profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Format version: [`VERSION`].
    pub version: u32,
    /// The profile's name.
    pub profile: String,
    /// What the profile asked for, hashed ([`super::profile::Profile::resolve_key`]).
    pub resolve_key: String,
    /// The newest Release file's date, seconds since 1970 UTC; everything in the image is dated to it. Suites that only
    /// the emulator comes from do not count.
    pub epoch: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The archives.
    pub release: Vec<Release>,
    /// The packages, sorted by name and version.
    pub package: Vec<Package>,
}

/// One suite of one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Release {
    /// The source's name in the profile.
    pub source: String,
    /// The suite.
    pub suite: String,
    /// The `Date` field, seconds since 1970 UTC.
    pub date: u64,
    /// SHA-256 of the signed file, hex.
    pub sha256: String,
}

/// One .deb.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version, with epoch and revision.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// The source that has it.
    pub source: String,
    /// Its path below the source's URL.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, hex.
    pub sha256: String,
    /// The sets that it belongs to.
    pub sets: BTreeSet<String>,
}

impl Package {
    /// The version without epoch and Debian revision: `1:2.19.7~12.4.1-2` -> `2.19.7~12.4.1`.
    pub fn upstream_version(&self) -> &str {
        upstream(&self.version)
    }
}

/// The upstream part of a Debian version.
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    /// Malformed, another format version.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&fs_err::read_to_string(path)?, path)
    }

    /// The same from text; `path` is for messages.
    ///
    /// # Errors
    /// Malformed, another format version.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let renew = "renew it: gdsboot lock --update PROFILE";
        let table: toml::Table =
            text.parse().with_context(|| format!("reading the lock {}", path.display())).hint(renew)?;
        let version = table.get("version").and_then(toml::Value::as_integer);
        if version != Some(VERSION.into()) {
            return Err(hinted(
                format!(
                    "the lock {} has format version {} and this gdsboot reads {VERSION}",
                    path.display(),
                    version.map_or("none".to_owned(), |v| v.to_string())
                ),
                renew,
            ));
        }
        let lock: Self = toml::from_str(text)
            .with_context(|| format!("reading the lock {}", path.display()))
            .hint(renew)?;
        for package in &lock.package {
            let plain = !package.path.starts_with('/') && !package.path.split('/').any(|p| p == "..");
            ensure!(plain, "the lock {} names the path {:?}", path.display(), package.path);
            let hex = package.sha256.len() == 64 && package.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            ensure!(hex, "the lock {} has a bad hash for {}", path.display(), package.name);
        }
        Ok(lock)
    }

    /// Writes a lock: a temporary file, then a rename.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::from(
            "# Made by `gdsboot lock`; renewed by `gdsboot lock --update`. Paths are relative to each source's mirror.\n",
        );
        text.push_str(&toml::to_string(self).context("formatting the lock")?);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let mut temp = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("creating a file in {}", folder.display()))?;
        temp.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temp.as_file().set_permissions(mode).with_context(|| format!("writing {}", path.display()))?;
        temp.as_file().sync_all().with_context(|| format!("writing {}", path.display()))?;
        temp.persist(path).with_context(|| format!("writing {}", path.display())).map(drop)
    }

    /// The lock's meaning as a hash, whatever the file looks like.
    pub fn key(&self) -> String {
        // Plain data always serialises.
        hex::encode(Sha256::digest(serde_json::to_vec(self).unwrap_or_default()))
    }

    /// The packages of some sets, each once, in the lock's order.
    pub fn packages<'a>(&'a self, sets: &'a [String]) -> impl Iterator<Item = &'a Package> {
        self.package.iter().filter(move |p| sets.iter().any(|s| p.sets.contains(s)))
    }

    /// The one package of this name in a set.
    pub fn find(&self, set: &str, name: &str) -> Option<&Package> {
        self.package.iter().find(|p| p.name == name && p.sets.contains(set))
    }

    /// A hash over the packages of some sets: what an unpacked root depends on.
    pub fn set_key(&self, sets: &[String]) -> String {
        let mut hash = Sha256::new();
        for package in self.packages(sets) {
            hash.update(format!("{} {} {}\n", package.name, package.version, package.sha256));
        }
        hex::encode(hash.finalize())
    }

    /// What changed from `self` to `newer`, a line for each package, `name old -> new`.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let index = |lock: &Self| -> BTreeMap<String, BTreeSet<String>> {
            let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for p in &lock.package {
                map.entry(p.name.clone()).or_default().insert(p.version.clone());
            }
            map
        };
        let (old, new) = (index(self), index(newer));
        let join = |versions: &BTreeSet<String>| versions.iter().cloned().collect::<Vec<_>>().join(", ");
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let mut lines: Vec<String> = names
            .into_iter()
            .filter_map(|name| match (old.get(name), new.get(name)) {
                (Some(a), Some(b)) if a == b => None,
                (Some(a), Some(b)) => Some(format!("{name} {} -> {}", join(a), join(b))),
                (Some(a), None) => Some(format!("{name} {} -> gone", join(a))),
                (None, Some(b)) => Some(format!("{name} new: {}", join(b))),
                (None, None) => None,
            })
            .collect();
        let hashes = |lock: &Self| -> BTreeMap<(String, String), String> {
            lock.package.iter().map(|p| ((p.name.clone(), p.version.clone()), p.sha256.clone())).collect()
        };
        let new_hashes = hashes(newer);
        for ((name, version), sha256) in hashes(self) {
            if new_hashes.get(&(name.clone(), version.clone())).is_some_and(|new| *new != sha256) {
                lines.push(format!("{name} {version} has other content under the same version"));
            }
        }
        if lines.is_empty() && self.resolve_key != newer.resolve_key {
            lines.push("the profile asks for something else, with the same packages as a result".to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, sets: &[&str]) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            source: "debian".into(),
            path: format!("pool/{name}.deb"),
            size: 1,
            sha256: "0".repeat(64),
            sets: sets.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    fn lock() -> Lock {
        Lock {
            version: VERSION,
            profile: "p".into(),
            resolve_key: "k".into(),
            epoch: 1,
            kernel: "6.1".into(),
            release: vec![],
            package: vec![
                package("a", "1:2.19.7~12.4.1-2", &["image", "tools"]),
                package("b", "1-1", &["build"]),
            ],
        }
    }

    #[test]
    fn a_lock_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        lock().write(&path).unwrap();
        let read = Lock::read(&path).unwrap();
        assert_eq!(read, lock());
        assert_eq!(read.key(), lock().key());
        assert_eq!(read.find("tools", "a").unwrap().upstream_version(), "2.19.7~12.4.1");
        assert_eq!(read.packages(&["build".into()]).count(), 1);
    }

    #[test]
    fn bad_locks_are_refused_with_the_command_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        let mut evil = lock();
        evil.package[0].path = "../../etc/passwd".into();
        evil.write(&path).unwrap();
        assert!(Lock::read(&path).is_err());
        for text in ["version = 9\n", "version = ", ""] {
            fs_err::write(&path, text).unwrap();
            let error = Lock::read(&path).unwrap_err();
            assert!(crate::error::hint_of(&error).unwrap().contains("lock --update"), "{text:?}");
        }
    }

    #[test]
    fn changes_are_listed() {
        let mut newer = lock();
        newer.package[0].version = "3".into();
        newer.package[1].sha256 = "1".repeat(64);
        newer.package.push(package("c", "1", &["image"]));
        insta::assert_snapshot!(lock().changes(&newer).join("\n"), @r"
        a 1:2.19.7~12.4.1-2 -> 3
        c new: 1
        b 1-1 has other content under the same version
        ");
        assert!(lock().changes(&lock()).is_empty());
    }
}
