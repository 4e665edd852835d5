//! The kernel of a tree: its image, and those of its modules that the image needs.
//!
//! A distribution's kernel brings thousands of modules. The profile names the kept ones by pattern; what they depend on is
//! kept with them. They are stored decompressed: squashfs compresses them again, and `finit_module` needs no decompressor
//! (a signature, where there is one, is at the end of the decompressed file).

use super::content::Content;
use super::module_info::{self, ModuleInfo};
use super::tree::{Kind, Node, Tree};
use crate::error::hinted;
use anyhow::{Context as _, Result, bail, ensure};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::collections::BTreeMap;

/// The largest module: nvidia.ko with debug information has some 250 MB.
const MODULE_LIMIT: usize = 512 << 20;

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    release: String,
    /// Canonical name -> the file's path below `usr/lib/modules/<release>`.
    available: BTreeMap<String, String>,
    /// The same for those that are kept, decompressed.
    kept: BTreeMap<String, Module>,
}

/// One kept module.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its path below `usr/lib/modules/<release>`, ending in `.ko`.
    pub path: String,
    /// The plain ELF file, signature included.
    pub bytes: std::sync::Arc<[u8]>,
    /// What it says of itself.
    pub info: ModuleInfo,
}

/// Where a tree's modules of a release are.
pub fn folder(release: &str) -> String {
    format!("usr/lib/modules/{release}")
}

/// Compiles the patterns of a profile: `*` does not cross `/`, `**` does.
///
/// # Errors
/// A malformed pattern.
pub fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.with_context(|| format!("reading the pattern {pattern:?} of the profile"))?);
    }
    set.build().context("reading the patterns of the profile")
}

/// Where several folders have a module of one name, the kernel's own tools prefer `updates` (depmod.d(5)).
fn rank(path: &str) -> u8 {
    match path.split('/').next() {
        Some("updates") => 0,
        Some("extra" | "ubuntu") => 1,
        _ => 2,
    }
}

impl Modules {
    /// Takes all modules of a kernel out of a tree. The tree keeps the index files that come with the kernel.
    pub fn take(tree: &mut Tree, release: &str) -> Result<(Self, BTreeMap<String, Content>)> {
        let base = folder(release);
        let mut files = BTreeMap::new();
        let mut available: BTreeMap<String, String> = BTreeMap::new();
        for (path, node) in tree.below(&base) {
            let Kind::File(content) = &node.kind else { continue };
            let relative = &path[base.len() + 1..];
            let Ok(name) = module_info::module_name(relative) else { continue };
            files.insert(relative.to_owned(), content.clone());
            let better = available.get(&name).is_none_or(|old: &String| {
                // A plain module beside its compressed self wins: it needs no decompressor.
                (rank(relative), !relative.ends_with(".ko"), relative)
                    < (rank(old), !old.ends_with(".ko"), old)
            });
            if better {
                available.insert(name, relative.to_owned());
            }
        }
        if available.is_empty() {
            return Err(hinted(
                format!("there are no modules for the kernel {release} in /{base}"),
                "the profile's kernel packages must bring the kernel's modules",
            ));
        }
        let is_index = |path: &str| {
            let name = path[base.len()..].trim_start_matches('/');
            matches!(name, "modules.order" | "modules.builtin" | "modules.builtin.modinfo")
        };
        tree.retain(|path, _| !path.starts_with(&format!("{base}/")) || is_index(path));
        Ok((Self { release: release.to_owned(), available, kept: BTreeMap::new() }, files))
    }

    /// Keeps the modules that match, the named ones, and all that they depend on. A module that merely matches and
    /// depends on one that the kernel's packages do not bring (Ubuntu has those in `linux-modules-extra`) could never be
    /// loaded, and is left out.
    ///
    /// # Errors
    /// A named module that could never be loaded.
    pub fn keep(
        &mut self,
        files: &BTreeMap<String, Content>,
        patterns: &GlobSet,
        names: &[String],
    ) -> Result<()> {
        let matching = self.available.iter().filter(|(_, path)| patterns.is_match(plain_path(path)));
        let mut todo: Vec<String> = matching.map(|(name, _)| name.clone()).collect();
        todo.extend(names.iter().map(|n| module_info::canonical_name(n).into_owned()));
        todo.retain(|name| self.available.contains_key(name));
        while let Some(name) = todo.pop() {
            if self.kept.contains_key(&name) {
                continue;
            }
            let Some(path) = self.available.get(&name) else { continue };
            let content = files.get(path).with_context(|| format!("losing the module {path}"))?;
            let bytes = content.read().with_context(|| format!("reading the module {path}"))?;
            let plain = module_info::decompress(path, &bytes, MODULE_LIMIT)
                .with_context(|| format!("decompressing the module {path}"))?
                .into_owned();
            self.insert(plain_path(path).to_owned(), plain)?;
            if let Some(module) = self.kept.get(&name) {
                todo.extend(module.info.depends.iter().map(|d| module_info::canonical_name(d).into_owned()));
            }
        }
        self.drop_incomplete(names)
    }

    fn drop_incomplete(&mut self, names: &[String]) -> Result<()> {
        loop {
            let lacking = self.kept.iter().find_map(|(name, module)| {
                let lacks = |d: &&String| !self.kept.contains_key(module_info::canonical_name(d).as_ref());
                Some((name.clone(), module.info.depends.iter().find(lacks)?.clone()))
            });
            let Some((name, lacks)) = lacking else { return Ok(()) };
            if names.iter().any(|n| module_info::canonical_name(n) == name) {
                bail!(
                    "the module {name} depends on {lacks}, which the kernel {} does not have",
                    self.release
                );
            }
            self.kept.remove(&name);
        }
    }

    /// Adds a module that does not come from the kernel's packages. It must be made for this kernel.
    pub fn insert(&mut self, path: String, bytes: Vec<u8>) -> Result<()> {
        let info = ModuleInfo::parse(&bytes).with_context(|| format!("reading the module {path}"))?;
        ensure!(
            info.kernel_release() == self.release,
            "the module {path} is made for the kernel {} and not for {}",
            info.kernel_release(),
            self.release
        );
        let name = module_info::module_name(&path)?;
        self.available.insert(name.clone(), path.clone());
        self.kept.insert(name, Module { path, bytes: bytes.into(), info });
        Ok(())
    }

    /// A kept module by name.
    pub fn get(&self, name: &str) -> Option<&Module> {
        self.kept.get(module_info::canonical_name(name).as_ref())
    }

    /// The kept ones.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.kept.iter().map(|(name, module)| (name.as_str(), module))
    }

    /// The wanted ones and what they depend on, in the order in which to load them. A name that the kernel does not have
    /// as a module is passed over: it is built in, or the kernel does without.
    pub fn load_order(&self, wanted: &[String]) -> Result<Vec<&Module>> {
        let depends: BTreeMap<String, Vec<String>> =
            self.kept.iter().map(|(name, m)| (name.clone(), m.info.depends.clone())).collect();
        let wanted: Vec<String> =
            wanted.iter().map(|n| module_info::canonical_name(n).into_owned()).collect();
        let present = wanted.iter().map(String::as_str).filter(|n| depends.contains_key(*n));
        let order = module_info::load_order(&depends, present)?;
        Ok(order.into_iter().filter_map(|name| self.kept.get(name)).collect())
    }

    /// Puts the kept modules into a tree.
    pub fn write_to(&self, tree: &mut Tree) -> Result<()> {
        let base = folder(&self.release);
        for module in self.kept.values() {
            let kind = Kind::File(Content::Bytes(module.bytes.clone()));
            tree.insert(&format!("{base}/{}", module.path), Node { kind, mode: 0o644, uid: 0, gid: 0 })?;
        }
        Ok(())
    }
}

/// `x.ko.zst` -> `x.ko`.
fn plain_path(path: &str) -> &str {
    path.find(".ko.").map_or(path, |at| &path[..at + 3])
}

/// The kernel image of a release, whatever its mode (Ubuntu ships it 0600).
pub fn image(tree: &Tree, release: &str) -> Result<Content> {
    let path = format!("boot/vmlinuz-{release}");
    tree.file(&path).cloned().with_context(|| format!("looking for the kernel image /{path}"))
}
