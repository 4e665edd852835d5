//! A set of packages becomes one tree: every .deb of the set, verified again, read in parallel, merged by name.

use super::deb::{self, Control};
use super::lock::{Lock, Package};
use super::pool::{self, Pool};
use super::tree::{Kind, Tree};
use crate::error::hinted;
use crate::interrupt;
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a set of packages unpacks to.
#[derive(Debug)]
pub struct Unpacked {
    /// The merged tree.
    pub tree: Tree,
    /// The packages, in the lock's order.
    pub packages: Vec<Installed>,
}

/// One package of a tree.
#[derive(Debug)]
pub struct Installed {
    /// What it says of itself.
    pub control: Control,
    /// The paths that it brought, as they are in the tree.
    pub paths: Vec<String>,
}

/// Which paths of a package are wanted.
pub type Keep<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// Folders that are links into `usr` in every release that we build. Packages ship paths through them.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Unpacks some sets of a lock.
///
/// `spool` is a folder for the bytes; they live in files without a name until the tree is dropped.
///
/// # Errors
/// A .deb that is not what the lock names (content, package, version); one that is malformed; two packages that ship the
/// same path and neither replaces the other.
pub fn unpack(
    pool: &Pool,
    lock: &Lock,
    sets: &[String],
    spool: &Path,
    keep: Keep<'_>,
    progress: &Progress,
) -> Result<Unpacked> {
    let packages: Vec<&Package> = lock.packages(sets).collect();
    let stage = progress.stage("unpacking packages", packages.iter().map(|p| p.size).sum(), Unit::Bytes);
    let mut order: Vec<usize> = (0..packages.len()).collect();
    // The largest first: the last to finish decides.
    order.sort_by_key(|&i| std::cmp::Reverse(packages[i].size));
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<deb::Package>>>> =
        Mutex::new(packages.iter().map(|_| None).collect());
    let failed = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if failed.load(Ordering::Relaxed) || interrupt::requested() {
                        return;
                    }
                    let result = read_one(pool, lock, packages[i], spool, keep);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    stage.advance(packages[i].size);
                    if let Ok(mut results) = results.lock() {
                        results[i] = Some(result);
                    }
                }
            });
        }
    });
    interrupt::check()?;
    let mut read = Vec::new();
    let mut unfinished = false;
    for result in results.into_inner().unwrap_or_default() {
        match result {
            Some(result) => read.push(result?),
            None => unfinished = true,
        }
    }
    ensure!(!unfinished, "unpacking stopped before its end");
    merge(read)
}

fn read_one(
    pool: &Pool,
    lock: &Lock,
    package: &Package,
    spool: &Path,
    keep: Keep<'_>,
) -> Result<deb::Package> {
    let path = pool.path(&package.sha256);
    let file = fs_err::File::open(&path).with_context(|| format!("opening {} in the pool", package.name))?;
    let hash = pool::hash_of(file.file())?;
    if hash != package.sha256 {
        // Out of the way, so that the next run fetches it again.
        let _ = fs_err::remove_file(&path);
        return Err(hinted(
            format!(
                "the pool's copy of {} {} was altered (its SHA-256 is {hash})",
                package.name, package.version
            ),
            format!("it was removed; fetch it again: gdsboot fetch {}", lock.profile),
        ));
    }
    let read = deb::read(&path, spool, keep)?;
    let control = &read.control;
    if (&control.package, &control.version, &control.architecture)
        != (&package.name, &package.version, &package.arch)
    {
        return Err(hinted(
            format!(
                "the package at {} is {} {} for {} and not {} {} for {}, which the lock names",
                package.path,
                control.package,
                control.version,
                control.architecture,
                package.name,
                package.version,
                package.arch
            ),
            format!("the archive's index and its files disagree; gdsboot lock --update {}", lock.profile),
        ));
    }
    Ok(read)
}

fn merge(packages: Vec<deb::Package>) -> Result<Unpacked> {
    let mut tree = Tree::new();
    for name in MERGED {
        tree.insert_directory(&format!("usr/{name}"))?;
        tree.insert_link(name, format!("usr/{name}"))?;
    }
    let replaces: HashMap<String, Vec<String>> =
        packages.iter().map(|p| (p.control.package.clone(), p.control.replaces.clone())).collect();
    let replaced_by = |old: &str, new: &str| replaces.get(new).is_some_and(|r| r.iter().any(|n| n == old));
    let mut owners: HashMap<String, String> = HashMap::new();
    let mut installed = Vec::new();
    for package in packages {
        let name = package.control.package.clone();
        let mut paths = Vec::new();
        for (path, node) in package.entries {
            interrupt::check()?;
            let is_directory = matches!(node.kind, Kind::Directory);
            if !is_directory {
                let real = tree.resolve_parent(&path).with_context(|| format!("unpacking {name}"))?;
                if let Some(owner) = owners.get(&real) {
                    let same = same_link(tree.get(&real).map(|n| &n.kind), &node.kind);
                    if replaced_by(&name, owner) || same {
                        continue;
                    }
                    ensure!(
                        replaced_by(owner, &name),
                        "the packages {owner} and {name} both ship {path} and neither replaces the other"
                    );
                }
            }
            let real = tree.insert(&path, node).with_context(|| format!("unpacking {name}"))?;
            if !is_directory {
                owners.insert(real.clone(), name.clone());
            }
            if !real.is_empty() {
                paths.push(real);
            }
        }
        installed.push(Installed { control: package.control, paths });
    }
    Ok(Unpacked { tree, packages: installed })
}

fn same_link(old: Option<&Kind>, new: &Kind) -> bool {
    matches!((old, new), (Some(Kind::Symlink(a)), Kind::Symlink(b)) if a == b)
}
