//! From packages to the files of a repository: `Packages`, `Release`, signatures, by-hash, pool.
//!
//! Three publishers are imitated, field by field: Launchpad (Ubuntu), dak (Debian), and the flat one behind NVIDIA's CUDA
//! repository. Paths in a [`Tree`] are relative to what a sources line names.

use super::body::Body;
use super::date::Instant;
use super::deb::{Compression, Deb};
use super::hash;
use super::sign::Key;
use super::stanza::Stanza;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Path -> what is served there.
pub type Tree = BTreeMap<String, Body>;

/// A package as a repository lists it.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its stanza, without the fields that say where it is and what it hashes to.
    pub stanza: Stanza,
    /// The .deb.
    pub body: Body,
    /// `main`, `restricted`, `universe`, `multiverse`.
    pub component: &'static str,
    hashes: Arc<[(&'static str, String)]>,
}

impl Package {
    /// Lists `deb` in `main`.
    pub fn new(deb: &Deb) -> Self {
        Self::of(deb.finished_control(), deb.bytes().into())
    }

    /// Lists a .deb that exists, in `main`, under what its control says.
    pub fn of(stanza: Stanza, body: Body) -> Self {
        let bytes = body.all();
        let hashes = [
            ("MD5sum", hash::md5(&bytes)),
            ("SHA1", hash::sha1(&bytes)),
            ("SHA256", hash::sha256(&bytes)),
            ("SHA512", hash::sha512(&bytes)),
        ];
        Self { stanza, body, component: "main", hashes: hashes.into() }
    }

    /// In another component.
    pub fn component(mut self, component: &'static str) -> Self {
        self.component = component;
        self
    }

    /// With a field that only the index has, such as `Phased-Update-Percentage`, or with one that differs from the
    /// package's own control.
    pub fn index_field(mut self, name: &str, value: &str) -> Self {
        self.stanza.set(name, value);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.stanza.need("Package")
    }

    /// Its version.
    pub fn version(&self) -> &str {
        self.stanza.need("Version")
    }

    /// Its file's name: the version without its epoch.
    pub fn file_name(&self) -> String {
        let version = self.version();
        let version = version.split_once(':').map_or(version, |(_, rest)| rest);
        format!("{}_{version}_{}.deb", self.name(), self.stanza.need("Architecture"))
    }

    /// Where a pool has it: by component and by the name of its **source**.
    pub fn pool_path(&self) -> String {
        let source = self.stanza.get("Source").unwrap_or(self.name());
        let source = source.split_once(' ').map_or(source, |(name, _)| name);
        let prefix = if source.starts_with("lib") { &source[..4] } else { &source[..1] };
        format!("pool/{}/{prefix}/{source}/{}", self.component, self.file_name())
    }

    /// Its paragraph in `Packages`, in the publisher's order.
    fn paragraph(&self, filename: &str) -> String {
        let mut stanza = self.stanza.ordered(&["Package", "Architecture", "Version"]);
        stanza.set("Filename", filename).set("Size", self.body.len().to_string().as_str());
        for (name, hash) in self.hashes.iter() {
            stanza.set(name, hash.as_str());
        }
        let last = ["Description", "Task", "Phased-Update-Percentage"];
        for name in last {
            if let Some(value) = stanza.get(name).map(str::to_owned) {
                stanza.set(name, None).set(name, value.as_str());
            }
        }
        stanza.to_string()
    }
}

/// Who signs a `Release`.
#[derive(Clone, Debug)]
pub enum Signer {
    /// This key, with both `InRelease` and `Release.gpg`.
    Key(Arc<Key>),
    /// Nobody: there is only a `Release`.
    Nobody,
}

/// One suite, or one flat repository, as it is at one publication.
#[derive(Clone, Debug)]
pub struct Suite {
    /// `noble-updates`, `trixie`; empty for a flat repository.
    pub name: String,
    /// Everything above `MD5Sum` in its Release.
    pub head: Stanza,
    /// Everything below the hashes.
    pub tail: Stanza,
    /// What it lists.
    pub packages: Vec<Package>,
    /// In the order of Release.
    pub components: Vec<&'static str>,
    /// Who signs it.
    pub signer: Signer,
    /// Whether `by-hash/SHA256/...` is served, and for Release itself as well.
    pub by_hash: bool,
}

/// The pockets of an Ubuntu series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pocket {
    /// The release itself, frozen on the day it came out.
    Release,
    /// `-updates`.
    Updates,
    /// `-security`.
    Security,
    /// `-backports`: never installed from unless asked.
    Backports,
    /// `-proposed`: as `-backports`.
    Proposed,
}

impl Pocket {
    /// What follows the series' name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Release => "",
            Self::Updates => "-updates",
            Self::Security => "-security",
            Self::Backports => "-backports",
            Self::Proposed => "-proposed",
        }
    }
}

/// An Ubuntu series' names.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// `noble`.
    pub codename: &'static str,
    /// `24.04`.
    pub version: &'static str,
    /// The release pocket's date for all time.
    pub frozen: Instant,
}

/// A suite as Launchpad publishes it: no `Valid-Until`, `Date` with a space-padded hour, `Acquire-By-Hash: yes`.
pub fn launchpad(
    series: &Series,
    pocket: Pocket,
    date: Instant,
    packages: Vec<Package>,
    key: &Arc<Key>,
) -> Suite {
    let name = format!("{}{}", series.codename, pocket.suffix());
    let mut capital = series.codename.to_owned();
    capital[..1].make_ascii_uppercase();
    let description = match pocket {
        Pocket::Release => format!("Ubuntu {capital} {}", series.version),
        Pocket::Updates => format!("Ubuntu {capital} Updates"),
        Pocket::Security => format!("Ubuntu {capital} Security"),
        Pocket::Backports => format!("Ubuntu {capital} Backports"),
        Pocket::Proposed => format!("Ubuntu {capital} Proposed"),
    };
    let mut head = Stanza::new();
    head.set("Origin", "Ubuntu").set("Label", "Ubuntu").set("Suite", name.as_str());
    let date = if pocket == Pocket::Release {
        series.frozen
    } else {
        // Nothing that resolves here may follow this: the profile's own URLs are snapshots already.
        head.set("Snapshots", "https://snapshot.example.invalid/ubuntu/@SNAPSHOTID@/");
        date
    };
    head.set("Version", series.version)
        .set("Codename", series.codename)
        .set("Date", date.launchpad().as_str())
        .set("Architectures", "amd64 arm64 armhf i386 ppc64el riscv64 s390x")
        .set("Components", "main restricted universe multiverse")
        .set("Description", description.as_str());
    if matches!(pocket, Pocket::Backports | Pocket::Proposed) {
        head.set("NotAutomatic", "yes").set("ButAutomaticUpgrades", "yes");
    }
    let mut tail = Stanza::new();
    tail.set("Acquire-By-Hash", "yes");
    let components = vec!["main", "restricted", "universe", "multiverse"];
    Suite { name, head, tail, packages, components, signer: Signer::Key(key.clone()), by_hash: true }
}

/// A suite as Debian publishes it. `valid_until` is what a mirror that fell asleep is recognised by.
pub fn dak(
    codename: &str,
    date: Instant,
    valid_until: Option<Instant>,
    packages: Vec<Package>,
    key: &Arc<Key>,
) -> Suite {
    let mut head = Stanza::new();
    head.set("Origin", "Debian")
        .set("Label", "Debian")
        .set("Suite", "stable")
        .set("Version", "13.1")
        .set("Codename", codename)
        .set("Date", date.debian().as_str());
    if let Some(until) = valid_until {
        head.set("Valid-Until", until.debian().as_str());
    }
    head.set("Acquire-By-Hash", "yes")
        .set("No-Support-for-Architecture-all", "Packages")
        .set("Architectures", "all amd64 arm64")
        .set("Components", "main contrib non-free-firmware non-free")
        .set("Description", "Debian test archive");
    let components = vec!["main", "contrib", "non-free-firmware", "non-free"];
    let signer = Signer::Key(key.clone());
    Suite {
        name: codename.to_owned(),
        head,
        tail: Stanza::new(),
        packages,
        components,
        signer,
        by_hash: true,
    }
}

/// A flat repository as NVIDIA publishes it: `Architecture` in the singular and not in Debian's spelling, no Suite, no
/// Codename, no Components, no by-hash.
pub fn cuda(date: Instant, packages: Vec<Package>, key: &Arc<Key>) -> Suite {
    let mut head = Stanza::new();
    head.set("Origin", "NVIDIA")
        .set("Label", "NVIDIA CUDA")
        .set("Architecture", "x86_64")
        .set("Date", date.rfc2822().as_str());
    let mut tail = Stanza::new();
    tail.set("Acquire-By-Hash", "no");
    let signer = Signer::Key(key.clone());
    Suite { name: String::new(), head, tail, packages, components: Vec::new(), signer, by_hash: false }
}

impl Suite {
    /// Whether it is a flat repository.
    pub fn is_flat(&self) -> bool {
        self.components.is_empty()
    }

    /// Signed by somebody else, or by nobody.
    pub fn signed_by(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }

    /// Every file of it: indexes, Release and the pool.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let base = if self.is_flat() { String::new() } else { format!("dists/{}/", self.name) };
        // Path below `base`, bytes, whether it is served and not only listed.
        let mut indexes: Vec<(String, Vec<u8>, bool)> = Vec::new();
        if self.is_flat() {
            let mut text = String::new();
            for package in &self.packages {
                let name = format!("./{}", package.file_name());
                text.push_str(&package.paragraph(&name));
                text.push('\n');
                tree.insert(package.file_name(), package.body.clone());
            }
            let gz = Compression::Gzip.compress(text.as_bytes());
            indexes.push(("Packages".into(), text.into_bytes(), true));
            indexes.push(("Packages.gz".into(), gz, true));
        }
        for component in &self.components {
            let mut text = String::new();
            for package in self.packages.iter().filter(|p| p.component == *component) {
                text.push_str(&package.paragraph(&package.pool_path()));
                text.push('\n');
                tree.insert(package.pool_path(), package.body.clone());
            }
            let dir = format!("{component}/binary-amd64");
            let gz = Compression::Gzip.compress(text.as_bytes());
            let xz = Compression::Xz.compress(text.as_bytes());
            // The plain file is listed because a compressed form of it exists, but not served.
            indexes.push((format!("{dir}/Packages"), text.into_bytes(), false));
            indexes.push((format!("{dir}/Packages.gz"), gz, true));
            indexes.push((format!("{dir}/Packages.xz"), xz, true));
            let suite = self.head.get("Suite").unwrap_or_default();
            let (origin, label) = (self.head.need("Origin"), self.head.need("Label"));
            let release = format!(
                "Archive: {suite}\nOrigin: {origin}\nLabel: {label}\nComponent: {component}\nArchitecture: amd64\n"
            );
            indexes.push((format!("{dir}/Release"), release.into_bytes(), true));
        }

        let release = self.release(&indexes);
        let mut serve = |path: &str, bytes: Vec<u8>| {
            if self.by_hash {
                let (dir, _) = path.rsplit_once('/').unwrap_or_default();
                let slash = if dir.is_empty() { "" } else { "/" };
                let sum = hash::sha256(&bytes);
                tree.insert(format!("{base}{dir}{slash}by-hash/SHA256/{sum}"), bytes.clone().into());
            }
            tree.insert(format!("{base}{path}"), bytes.into());
        };
        for (path, bytes, served) in indexes {
            if served {
                serve(&path, bytes);
            }
        }
        if let Signer::Key(key) = &self.signer {
            serve("InRelease", key.cleartext(&release));
            serve("Release.gpg", key.detached(&release));
        }
        serve("Release", release.into_bytes());
        tree
    }

    fn release(&self, indexes: &[(String, Vec<u8>, bool)]) -> String {
        type Hash = fn(&[u8]) -> String;
        let hashes: [(&str, Hash); 3] =
            [("MD5Sum", hash::md5), ("SHA1", hash::sha1), ("SHA256", hash::sha256)];
        let mut text = self.head.to_string();
        for (name, hash) in hashes {
            text.push_str(&format!("{name}:\n"));
            for (path, bytes, _) in indexes {
                text.push_str(&format!(" {} {:>16} {path}\n", hash(bytes), bytes.len()));
            }
        }
        text.push_str(&self.tail.to_string());
        text
    }
}

/// Alters one byte of every file whose path contains `part`, after everything was signed. Returns how many there were.
pub fn alter(tree: &mut Tree, part: &str) -> usize {
    let mut altered = 0;
    for (_, body) in tree.iter_mut().filter(|(path, _)| path.contains(part)) {
        *body = body.altered(body.len() / 2);
        altered += 1;
    }
    altered
}
