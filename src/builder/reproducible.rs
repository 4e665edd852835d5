//! `build --check-reproducible`: the same image built twice from nothing but the pool, compared layer by layer.

use super::cache::Cache;
use super::image::{self, Inputs, Place};
use super::output::Output;
use super::pool;
use crate::error::{Advise as _, Status};
use anyhow::{Context as _, Result};
use std::path::Path;

/// Builds twice, in two empty caches, and compares.
///
/// # Errors
/// When anything differs; the error names the first layer, and within the root the first path.
pub fn check(inputs: &Inputs<'_>, place: &Place<'_>) -> Result<()> {
    let work = place.cache.work()?;
    let mut hashes = Vec::new();
    for round in ["first", "second"] {
        place.progress.note(format!("checking reproducibility: the {round} build"));
        let folder = work.path().join(round);
        fs_err::create_dir(&folder)?;
        let cache = Cache::open(Some(&folder.join("cache")))?;
        let output = Output::new(&folder.join("image"))?;
        let place =
            Place { pool: place.pool, mirrors: place.mirrors, cache: &cache, progress: place.progress };
        image::build(inputs, &place, &output)?;
        hashes.push(pool::hash_of(fs_err::File::open(output.path())?.file())?);
    }
    if hashes[0] == hashes[1] {
        place.progress.note(format!("reproducible: both builds have SHA-256 {}", hashes[0]));
        return Ok(());
    }
    let difference = first_difference(&work.path().join("first/cache"), &work.path().join("second/cache"))?;
    Err(anyhow::anyhow!("two builds of the same inputs differ: {difference}")).status(Status::Bug)
}

/// The layers in the order in which they are made, each a folder of the cache.
const LAYERS: [(&str, &str); 4] = [
    ("modules", "the compiled kernel modules"),
    ("images", "the root"),
    ("boot", "the boot loaders"),
    ("roots", "the unpacked tools"),
];

fn first_difference(a: &Path, b: &Path) -> Result<String> {
    for (folder, what) in LAYERS {
        let (first, second) = (files(&a.join(folder))?, files(&b.join(folder))?);
        for name in &second {
            if !first.contains(name) {
                return Ok(format!("{what}: {name} is only in the second"));
            }
        }
        for name in &first {
            let (left, right) = (a.join(folder).join(name), b.join(folder).join(name));
            if !second.contains(name) {
                return Ok(format!("{what}: {name} is only in the first"));
            }
            if fs_err::read(&left)? == fs_err::read(&right)? {
                continue;
            }
            // It names the path within the root.
            if name.ends_with("listing.txt") {
                let (left, right) = (fs_err::read_to_string(&left)?, fs_err::read_to_string(&right)?);
                if let Some((l, r)) = left.lines().zip(right.lines()).find(|(l, r)| l != r) {
                    return Ok(format!("{what}: {l:?} against {r:?}"));
                }
            }
            return Ok(format!("{what}: {name}"));
        }
    }
    Ok("the disk image: every layer is the same, and what lays them out differs".to_owned())
}

/// All files below a folder, relative, those first that say most of a difference; none if there is no such folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(dir) = todo.pop() {
        if !dir.exists() {
            continue;
        }
        for entry in fs_err::read_dir(&dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(folder).context("listing a layer")?;
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    let rank = |name: &str| match name.rsplit('/').next() {
        // Every path of the root with its hash.
        Some("listing.txt") => 0,
        // Repeats the hash of what stands beside it.
        Some("info.json") => 2,
        _ => 1,
    };
    found.sort_by_key(|name| (rank(name), name.clone()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_and_path_that_differ_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for (side, listing, squashfs) in
            [("a", "x /usr/a\nx /usr/b\n", "1"), ("b", "x /usr/a\ny /usr/b\n", "2")]
        {
            let entry = dir.path().join(side).join("images/k");
            fs_err::create_dir_all(&entry).unwrap();
            fs_err::write(entry.join("listing.txt"), listing).unwrap();
            fs_err::write(entry.join("root.squashfs"), squashfs).unwrap();
            // It holds the hash of the squashfs, and so differs whenever that does.
            fs_err::write(entry.join("info.json"), squashfs).unwrap();
        }
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(first_difference(&a, &b).unwrap(), "the root: \"x /usr/b\" against \"y /usr/b\"");
        fs_err::write(b.join("images/k/listing.txt"), "x /usr/a\nx /usr/b\n").unwrap();
        assert_eq!(first_difference(&a, &b).unwrap(), "the root: k/root.squashfs");
        for name in ["root.squashfs", "info.json"] {
            fs_err::write(b.join("images/k").join(name), "1").unwrap();
        }
        fs_err::write(b.join("images/k/new"), "1").unwrap();
        assert_eq!(first_difference(&a, &b).unwrap(), "the root: k/new is only in the second");
        fs_err::remove_file(b.join("images/k/new")).unwrap();
        assert!(first_difference(&a, &b).unwrap().starts_with("the disk image"));
    }
}
