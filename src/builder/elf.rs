//! Does every program and library in a tree still find its libraries?
//!
//! Trimming is data, and data can be wrong; this check is what makes it safe. The search follows ld.so(8): `DT_RPATH`
//! (where there is no `DT_RUNPATH`), `DT_RUNPATH`, the folders of ld.so.conf, the default folders.

use super::tree::{Kind, Tree};
use anyhow::{Context as _, Result};
use goblin::elf::Elf;
use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC};
use std::collections::{BTreeMap, BTreeSet};

/// The folders that glibc on x86-64 searches when nothing else says otherwise.
const DEFAULT_FOLDERS: [&str; 4] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib"];

/// What an ELF file needs at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `PT_INTERP`.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`, in order.
    pub libraries: Vec<String>,
    /// `DT_RUNPATH`, else `DT_RPATH`, split at colons.
    pub folders: Vec<String>,
}

/// Parses a dynamic ELF file for x86-64.
///
/// Returns `None` for anything else: no ELF, another machine, relocatable (kernel modules), static.
///
/// # Errors
/// An ELF file that contradicts itself.
pub fn parse(bytes: &[u8]) -> Result<Option<Needs>> {
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let header = Elf::parse_header(bytes).context("reading an ELF header")?;
    if header.e_machine != EM_X86_64 || !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Ok(None);
    }
    let elf = Elf::parse(bytes).context("reading an ELF file")?;
    if elf.dynamic.is_none() {
        return Ok(None);
    }
    let folders = if elf.runpaths.is_empty() { &elf.rpaths } else { &elf.runpaths };
    Ok(Some(Needs {
        interpreter: elf.interpreter.map(str::to_owned),
        libraries: elf.libraries.iter().map(|l| (*l).to_owned()).collect(),
        folders: folders
            .iter()
            .flat_map(|f| f.split(':'))
            .filter(|f| !f.is_empty())
            .map(str::to_owned)
            .collect(),
    }))
}

/// Every library that some file in the tree needs and does not find: library -> the files that need it.
pub fn missing(tree: &Tree) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let configured = configured_folders(tree);
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let Kind::File(content) = &node.kind else { continue };
        if path.starts_with("usr/lib/modules/") || path.starts_with("usr/lib/firmware/") {
            continue;
        }
        if content.head(4).with_context(|| format!("reading {path}"))? != b"\x7fELF" {
            continue;
        }
        let bytes = content.read().with_context(|| format!("reading {path}"))?;
        let Some(needs) = parse(&bytes).with_context(|| format!("checking {path}"))? else { continue };
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let own = needs
            .folders
            .iter()
            .map(|f| f.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", &format!("/{folder}")));
        let folders: Vec<String> = own
            .chain(configured.iter().cloned())
            .chain(DEFAULT_FOLDERS.iter().map(|f| (*f).to_owned()))
            .collect();
        let found = |library: &str| {
            if library.contains('/') {
                return exists(tree, library);
            }
            folders.iter().any(|folder| exists(tree, &format!("{folder}/{library}")))
        };
        let wanted = needs.libraries.iter().chain(&needs.interpreter);
        for library in wanted.filter(|l| !found(l)) {
            missing.entry(library.clone()).or_default().insert(path.to_owned());
        }
    }
    Ok(missing)
}

/// A file at a path as the running system would write it: absolute, with `..` in it perhaps.
fn exists(tree: &Tree, path: &str) -> bool {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    tree.file(&parts.join("/")).is_ok()
}

/// The folders that ld.so.conf and the files it includes name.
fn configured_folders(tree: &Tree) -> Vec<String> {
    let mut texts = Vec::new();
    let read = |path: &str| tree.file(path).ok().and_then(|c| c.read().ok());
    texts.extend(read("etc/ld.so.conf"));
    for (path, _) in tree.below("etc/ld.so.conf.d").filter(|(p, _)| p.ends_with(".conf")) {
        texts.extend(read(path));
    }
    let mut folders = Vec::new();
    for text in texts {
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('/') {
                folders.push(line.to_owned());
            }
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_bytes() -> Vec<u8> {
        fs_err::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn this_test_needs_libc_and_an_interpreter() {
        let needs = parse(&own_bytes()).unwrap().unwrap();
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{needs:?}");
        assert_eq!(needs.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    }

    #[test]
    fn what_is_missing_is_named_with_who_needs_it() {
        let needs = parse(&own_bytes()).unwrap().unwrap();
        let mut tree = Tree::new();
        tree.insert_program("usr/bin/tool", own_bytes()).unwrap();
        tree.insert_file("lib64/ld-linux-x86-64.so.2", Vec::new()).unwrap();
        tree.insert_file("etc/ld.so.conf.d/x.conf", b"/opt/lib # here\n".to_vec()).unwrap();
        for library in needs.libraries.iter().filter(|l| *l != "libc.so.6") {
            tree.insert_file(&format!("opt/lib/{library}"), Vec::new()).unwrap();
        }
        let missing = missing(&tree).unwrap();
        assert_eq!(missing.keys().collect::<Vec<_>>(), ["libc.so.6"]);
        assert_eq!(missing["libc.so.6"].iter().collect::<Vec<_>>(), ["usr/bin/tool"]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(cut in 0usize..4096, flip in 0usize..4096, value: u8) {
            static OWN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bytes = OWN.get_or_init(own_bytes)[..4096.max(cut)].to_vec();
            bytes[flip] = value;
            bytes.truncate(cut);
            let _ = parse(&bytes);
        }
    }
}
