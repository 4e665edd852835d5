//! The image's root: what the packages ship, less what nothing uses, plus what maintainer scripts would have done.
//!
//! Each thing that a script would have done has a function here that is called after it; nothing else is done.

use super::kernel::{self, Modules};
use super::overlay::Overlays;
use super::profile::Profile;
use super::sandbox::Sandbox;
use super::tree::{Kind, Tree};
use super::unpack::{Installed, Unpacked};
use super::{elf, kernel::globs};
use crate::boot_contract as contract;
use crate::error::hinted;
use anyhow::{Context as _, Result, ensure};
use globset::GlobSet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// The profile's trimming rules.
#[derive(Debug)]
pub struct Trim {
    drop: GlobSet,
    keep: GlobSet,
}

impl Trim {
    /// Compiles the rules.
    pub fn new(profile: &Profile) -> Result<Self> {
        Ok(Self { drop: globs(&profile.image.drop)?, keep: globs(&profile.image.keep)? })
    }

    /// Is the file at this path wanted? Paths below a merged folder are judged by their real name.
    pub fn wants(&self, path: &str) -> bool {
        let real;
        let path = match path.split_once('/') {
            Some(("bin" | "sbin" | "lib" | "lib64", _)) => {
                real = format!("usr/{path}");
                &real
            }
            _ => path,
        };
        !self.drop.is_match(path) || self.keep.is_match(path)
    }
}

/// What a root is finished with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// What is laid over the packages' files.
    pub overlays: &'a Overlays,
    /// The kernel's release.
    pub release: &'a str,
    /// The kernel modules that are kept.
    pub modules: &'a Modules,
}

/// Finishes the root in place. `tools` runs depmod and ldconfig; `work` is an empty folder.
pub fn finish(unpacked: &mut Unpacked, parts: &Parts<'_>, tools: &Sandbox, work: &Path) -> Result<()> {
    let Parts { profile, overlays, release, modules } = parts;
    let tree = &mut unpacked.tree;
    tree.remove("boot");
    modules.write_to(tree)?;
    folders(tree)?;
    links(tree, profile)?;
    lay(tree, profile, overlays)?;
    indexes(tree, release, tools, work)?;
    package_database(tree, &unpacked.packages)?;
    let load: String = profile.modules.load.iter().map(|m| format!("{m}\n")).collect();
    tree.insert_file(contract::ROOT_MODULES, load.into_bytes())?;
    drop_empty_folders(tree, profile)?;
    libraries(tree)
}

/// Lays the overlays over what maintainer scripts would have made: their files win.
fn lay(tree: &mut Tree, profile: &Profile, overlays: &Overlays) -> Result<()> {
    users(tree, profile)?;
    identity(tree)?;
    overlays.lay(tree)?;
    certificates(tree, overlays.bring(BUNDLE))
}

/// The mount points that the running system needs.
fn folders(tree: &mut Tree) -> Result<()> {
    for folder in ["dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib", "var/log", "var/tmp"]
    {
        tree.insert_directory(folder)?;
    }
    if tree.get("var/run").is_none() {
        tree.insert_link("var/run", "/run")?;
    }
    Ok(())
}

/// The links that update-alternatives and the like would have made.
fn links(tree: &mut Tree, profile: &Profile) -> Result<()> {
    for (path, target) in &profile.image.links {
        let target = single(tree, target).with_context(|| format!("making the link {path}"))?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let absolute = match target.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{folder}/{target}"),
        };
        ensure!(
            tree.resolve(&absolute).is_ok_and(|real| tree.get(&real).is_some()),
            "the link {path} of the profile leads to {target}, which does not exist"
        );
        tree.insert_link(path, target)?;
    }
    Ok(())
}

/// Replaces a `*` in an absolute path by the one entry that matches.
fn single(tree: &Tree, target: &str) -> Result<String> {
    if !target.contains('*') {
        return Ok(target.to_owned());
    }
    let pattern = globs(&[target.trim_start_matches('/').to_owned()])?;
    let found: Vec<_> = tree.iter().map(|(p, _)| p).filter(|p| pattern.is_match(p)).collect();
    match found[..] {
        [one] => Ok(format!("/{one}")),
        _ => Err(hinted(
            format!("{target} matches {} entries and not one", found.len()),
            "correct `image.links` in the profile",
        )),
    }
}

/// base-passwd's postinst copies its master files; other packages add groups of their own.
fn users(tree: &mut Tree, profile: &Profile) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = tree.file(&format!("usr/share/base-passwd/{name}.master"))?.read()?;
        let mut text = String::from_utf8(master).with_context(|| format!("reading {name}.master"))?;
        if name == "group" {
            for (group, id) in &profile.image.groups {
                let _ = writeln!(text, "{group}:x:{id}:");
            }
        }
        tree.insert_file(&format!("etc/{name}"), text.into_bytes())?;
    }
    Ok(())
}

/// The machine has no name of its own and no id: nothing in the image may differ from one build to the next.
fn identity(tree: &mut Tree) -> Result<()> {
    tree.insert_file("etc/hostname", b"gdsboot\n".to_vec())?;
    tree.insert_file("etc/hosts", b"127.0.0.1 localhost gdsboot\n::1 localhost\n".to_vec())?;
    tree.insert_file("etc/machine-id", Vec::new())?;
    // Who answers for names is known once there is a network.
    tree.insert_link("etc/resolv.conf", format!("/{}", contract::RUN_RESOLV_CONF))?;
    tree.insert_link("etc/mtab", "/proc/self/mounts")
}

/// Whom curl trusts.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// update-ca-certificates, which the postinst of ca-certificates runs: all of the certificates in one file. An overlay's own
/// in `usr/local/share/ca-certificates/*.crt` are taken too, as that program does. Where an overlay brings the file, nobody is
/// trusted but those in it, and its own.
fn certificates(tree: &mut Tree, is_brought: bool) -> Result<()> {
    const FOLDERS: [&str; 2] = ["usr/share/ca-certificates", "usr/local/share/ca-certificates"];
    let mut bundle = Vec::new();
    let mut add = |bytes: Vec<u8>| {
        bundle.extend(bytes);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    };
    let mut found = Vec::new();
    for folder in if is_brought { &FOLDERS[1..] } else { &FOLDERS } {
        for (path, node) in tree.below(folder) {
            let Kind::File(content) = &node.kind else { continue };
            if path.ends_with(".crt") {
                found.push(content.read().with_context(|| format!("reading {path}"))?);
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    if is_brought {
        add(tree.file(BUNDLE)?.read().with_context(|| format!("reading {BUNDLE}"))?);
    }
    found.into_iter().for_each(add);
    tree.insert_file(BUNDLE, bundle)
}

/// `depmod` and `ldconfig`, run over a folder that holds modules and libraries alone.
fn indexes(tree: &mut Tree, release: &str, tools: &Sandbox, work: &Path) -> Result<()> {
    let modules = kernel::folder(release);
    let is_library = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.contains(".so") && !path.starts_with("usr/share/")
    };
    let mut part = tree.clone();
    part.retain(|path, node| {
        let is_config = path == "etc/ld.so.conf" || path.starts_with("etc/ld.so.conf.d/");
        let is_merged = matches!(path, "bin" | "sbin" | "lib" | "lib64");
        is_config
            || is_merged
            || is_library(path) && !matches!(node.kind, Kind::Directory)
            || path.starts_with(&modules)
    });
    for folder in ["etc", "usr/bin", "usr/sbin", "usr/lib64", "var/cache/ldconfig"] {
        part.insert_directory(folder)?;
    }
    let staging = work.join("indexes");
    fs_err::create_dir(&staging)?;
    part.write_to(&staging)?;
    let tools = tools.clone().bind(&staging, "/image", true);
    tools
        .command("/usr/sbin/depmod")
        .args(["-b", "/image", release])
        .run()
        .context("indexing kernel modules")?;
    tools
        .command("/usr/sbin/ldconfig")
        .args(["-X", "-r", "/image"])
        .run()
        .context("indexing shared libraries")?;
    for entry in fs_err::read_dir(staging.join(&modules))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("modules.") && entry.file_type()?.is_file() {
            tree.insert_file(&format!("{modules}/{name}"), fs_err::read(entry.path())?)?;
        }
    }
    tree.insert_file("etc/ld.so.cache", fs_err::read(staging.join("etc/ld.so.cache"))?)
}

/// dpkg's status and file lists, as scanners read them.
fn package_database(tree: &mut Tree, packages: &[Installed]) -> Result<()> {
    let mut status = String::new();
    for package in packages {
        let control = &package.control;
        let mut lines = control.text.lines();
        if let Some(first) = lines.next() {
            let _ = writeln!(status, "{first}\nStatus: install ok installed");
        }
        for line in lines {
            let _ = writeln!(status, "{line}");
        }
        status.push('\n');
        let kept: BTreeSet<_> = package.paths.iter().filter(|p| tree.get(p).is_some()).collect();
        let list: String = kept.iter().map(|p| format!("/{p}\n")).collect();
        tree.insert_file(&format!("var/lib/dpkg/info/{}.list", control.package), list.into_bytes())?;
    }
    tree.insert_file("var/lib/dpkg/status", status.into_bytes())
}

/// Folders that trimming emptied say nothing; those that the profile keeps, and mount points, stay.
fn drop_empty_folders(tree: &mut Tree, profile: &Profile) -> Result<()> {
    let drop = globs(&profile.image.drop)?;
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (path, node) in tree.iter() {
        if !matches!(node.kind, Kind::Directory) {
            for (slash, _) in path.match_indices('/') {
                used.insert(path[..slash].to_owned());
            }
        }
    }
    let emptied =
        |path: &str| !used.contains(path) && (drop.is_match(path) || drop.is_match(format!("{path}/x")));
    let paths: Vec<String> = tree
        .iter()
        .filter(|(p, n)| matches!(n.kind, Kind::Directory) && emptied(p))
        .map(|(p, _)| p.to_owned())
        .collect();
    for path in paths {
        tree.remove(&path);
    }
    Ok(())
}

/// Every ELF file finds its libraries, or the build stops.
fn libraries(tree: &Tree) -> Result<()> {
    let missing = elf::missing(tree)?;
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = missing
        .iter()
        .map(|(library, files)| {
            let files: Vec<_> = files.iter().take(3).map(|f| format!("/{f}")).collect();
            format!("  {library}, needed by {}", files.join(", "))
        })
        .collect();
    Err(hinted(
        format!("programs in the image would not find their libraries:\n{}", lines.join("\n")),
        "`image.drop` in the profile leaves out too much (or too little: drop the program as well), or a package is missing",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::deb;

    #[test]
    fn trimming_judges_by_the_real_path() {
        let mut profile = Profile::load("debian-13").unwrap();
        profile.image.drop = vec!["usr/share/doc/**".into(), "usr/lib/udev/hwdb.d/**".into()];
        profile.image.keep = vec!["usr/share/doc/*/copyright".into()];
        let trim = Trim::new(&profile).unwrap();
        assert!(!trim.wants("usr/share/doc/x/changelog.gz"));
        assert!(trim.wants("usr/share/doc/x/copyright"));
        assert!(!trim.wants("lib/udev/hwdb.d/20.hwdb"));
        assert!(trim.wants("lib/x"));
    }

    #[test]
    fn the_package_database_is_what_dpkg_reads() {
        let mut tree = Tree::new();
        tree.insert_file("usr/bin/a", Vec::new()).unwrap();
        let text = "Package: a\nVersion: 1-2\nArchitecture: amd64\nDescription: x\n more\n";
        let packages = [Installed {
            control: deb::parse_control(text).unwrap(),
            paths: vec!["usr/bin/a".into(), "usr/share/doc/a".into()],
        }];
        package_database(&mut tree, &packages).unwrap();
        let status = String::from_utf8(tree.file("var/lib/dpkg/status").unwrap().read().unwrap()).unwrap();
        insta::assert_snapshot!(status, @r"
        Package: a
        Status: install ok installed
        Version: 1-2
        Architecture: amd64
        Description: x
         more
        ");
        assert_eq!(tree.file("var/lib/dpkg/info/a.list").unwrap().read().unwrap(), b"/usr/bin/a\n");
    }

    #[test]
    fn certificates_are_one_file() {
        let mut tree = Tree::new();
        certificates(&mut tree, false).unwrap();
        assert!(tree.is_empty());
        for (path, text) in [
            ("usr/share/ca-certificates/mozilla/b.crt", "B"),
            ("usr/share/ca-certificates/mozilla/a.crt", "A\n"),
            ("usr/share/ca-certificates/mozilla/README", "no"),
            ("usr/local/share/ca-certificates/own.crt", "C"),
        ] {
            tree.insert_file(path, text.as_bytes().to_vec()).unwrap();
        }
        certificates(&mut tree, false).unwrap();
        assert_eq!(tree.file(BUNDLE).unwrap().read().unwrap(), b"A\nB\nC\n");
    }

    #[test]
    fn what_an_overlay_brings_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::load("debian-13").unwrap();
        // What an overlay has, and whom the image trusts then.
        for (name, files, trusted) in [
            (
                "names",
                &[("etc/resolv.conf", "nameserver 192.0.2.1\n"), ("etc/hosts", "mine"), ("etc/group", "g")][..],
                "A\n",
            ),
            ("bundle", &[(BUNDLE, "MINE\n")], "MINE\n"),
            ("local", &[("usr/local/share/ca-certificates/own.crt", "OWN")], "A\nOWN\n"),
            ("both", &[(BUNDLE, "MINE"), ("usr/local/share/ca-certificates/own.crt", "OWN")], "MINE\nOWN\n"),
        ] {
            let mut tree = Tree::new();
            for (path, text) in [
                ("usr/share/base-passwd/passwd.master", "root"),
                ("usr/share/base-passwd/group.master", "root"),
                ("usr/share/ca-certificates/mozilla/a.crt", "A"),
                (BUNDLE, "of a package"),
            ] {
                tree.insert_file(path, text.as_bytes().to_vec()).unwrap();
            }
            let folder = dir.path().join(name);
            for (path, text) in files {
                fs_err::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
                fs_err::write(folder.join(path), text).unwrap();
            }
            let overlays = Overlays::new(&[folder.to_str().unwrap().to_owned()]).unwrap();
            lay(&mut tree, &profile, &overlays).unwrap();
            let text = |path: &str| String::from_utf8(tree.file(path).unwrap().read().unwrap()).unwrap();
            for (path, brought) in files.iter().filter(|(path, _)| *path != BUNDLE) {
                assert_eq!(text(path), *brought, "{name}");
            }
            assert_eq!(text(BUNDLE), trusted, "{name}");
            assert_eq!(text("etc/hostname"), "gdsboot\n");
        }
    }

    #[test]
    fn no_profile_has_udev_rename_network_interfaces() {
        for (name, _) in crate::builder::profile::built_in() {
            let trim = Trim::new(&Profile::load(name).unwrap()).unwrap();
            for path in ["udev/rules.d/80-net-setup-link.rules", "systemd/network/99-default.link"] {
                assert!(
                    !trim.wants(&format!("usr/lib/{path}")) && !trim.wants(&format!("lib/{path}")),
                    "{name}"
                );
            }
            assert!(trim.wants("usr/lib/udev/rules.d/60-block.rules"), "{name}");
        }
    }

    #[test]
    fn links_must_lead_somewhere() {
        let mut profile = Profile::load("debian-13").unwrap();
        let mut tree = Tree::new();
        tree.insert_file("usr/lib/nvidia/v550/libcuda.so.1", Vec::new()).unwrap();
        profile.image.links =
            [("usr/lib/libcuda.so.1".to_owned(), "/usr/lib/nvidia/*/libcuda.so.1".to_owned())].into();
        links(&mut tree, &profile).unwrap();
        assert!(tree.file("usr/lib/libcuda.so.1").is_ok());
        profile.image.links = [("usr/lib/y".to_owned(), "nowhere".to_owned())].into();
        assert!(links(&mut tree, &profile).unwrap_err().to_string().contains("nowhere"));
    }
}
