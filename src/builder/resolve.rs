//! profile -> lock: apt chooses versions, we write down what it chose.

use super::apt::{self, Apt, Archive};
use super::lock::{self, Lock, Package, Release};
use super::profile::{Profile, Source};
use super::{deb, mirror, pool::Pool};
use crate::error::{Advise as _, Status, hinted, usage};
use crate::interrupt;
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where each source of a profile is reached: its name -> URLs, the preferred one first.
pub type Mirrors = BTreeMap<String, Vec<String>>;

/// Finds every source's URLs: what the user said, else the profile's own, else the host's apt configuration.
///
/// `said` is `NAME=URL`, or a URL alone for the profile's first source.
///
/// # Errors
/// A name that the profile does not have, something that is not an http URL, a source that nobody knows a mirror for.
pub fn mirrors(profile: &Profile, said: &[String], etc_apt: &Path) -> Result<Mirrors> {
    let mut chosen: BTreeMap<&str, String> = BTreeMap::new();
    for item in said {
        let (name, url) = match item.split_once('=') {
            Some((name, url)) if !name.contains(':') => (name, url),
            _ => (profile.source[0].name.as_str(), item.as_str()),
        };
        let source = profile.source.iter().find(|s| s.name == name).ok_or_else(|| {
            let names: Vec<_> = profile.source.iter().map(|s| s.name.as_str()).collect();
            usage(
                format!("--mirror names the source {name:?}"),
                format!("{} has: {}", profile.name, names.join(", ")),
            )
        })?;
        if !(url.starts_with("http://") || url.starts_with("https://")) || url.contains(char::is_whitespace) {
            return Err(usage(format!("--mirror {item:?} is not a URL"), "it looks like http://host/debian"));
        }
        chosen.insert(&source.name, url.trim_end_matches('/').to_owned());
    }
    let host = mirror::of_host(etc_apt);
    let mut mirrors = Mirrors::new();
    for source in &profile.source {
        let urls = match (chosen.get(source.name.as_str()), &source.url, &source.host_mirror) {
            (Some(url), ..) => vec![at_snapshot(url, source)],
            (None, Some(url), _) => vec![at_snapshot(url.trim_end_matches('/'), source)],
            (None, None, Some(last)) => mirror::choose(&host, last, &source.name)?,
            (None, None, None) => Vec::new(),
        };
        mirrors.insert(source.name.clone(), urls);
    }
    Ok(mirrors)
}

fn at_snapshot(url: &str, source: &Source) -> String {
    url.replace("{snapshot}", source.snapshot.as_deref().unwrap_or_default())
}

/// Resolves a profile with apt, in a folder that may be thrown away afterwards.
///
/// # Errors
/// Whatever apt refuses, named; see [`super::apt`].
pub fn resolve(
    profile: &Profile,
    mirrors: &Mirrors,
    pool: &Pool,
    work: &Path,
    progress: &Progress,
) -> Result<Lock> {
    let compile = profile.modules.compile.as_ref();
    let steps = 5 + profile.overlay.len() as u64 + u64::from(compile.is_some());
    let stage = progress.stage("resolving packages", steps, Unit::Steps);
    let mut archives = Vec::new();
    for source in &profile.source {
        archives.push(Archive {
            name: source.name.clone(),
            url: mirrors.get(&source.name).and_then(|u| u.first()).cloned().unwrap_or_default(),
            suites: source.suites.clone(),
            components: source.components.clone(),
            keyring: keyring(source, mirrors, pool, work)?,
            is_snapshot: source.snapshot.is_some(),
        });
    }
    let fixed = preferences(profile, &BTreeMap::new());
    let apt = Apt::new(work, &archives, &profile.provided, &fixed)?;
    apt.update()?;
    stage.advance(1);
    // Pins that follow another package need that package's candidate first.
    let mut followed = BTreeMap::new();
    for package in profile.pin.iter().filter_map(|p| p.follow.as_deref()) {
        let version = apt.candidate_version(package)?.ok_or_else(|| {
            hinted(
                format!("a pin of the profile follows {package}, which the archive does not have"),
                "check the profile's suites and components",
            )
        })?;
        followed.insert(package.to_owned(), lock::upstream(&version).to_owned());
    }
    apt.set_preferences(&preferences(profile, &followed))?;

    let mut chosen = Chosen::new(&apt, &archives);
    let mut image = profile.image.packages.clone();
    image.extend(profile.kernel.packages.iter().cloned());
    let kernel = chosen.kernel(&image)?;
    for package in &mut image {
        *package = package.replace("{release}", &kernel);
    }
    chosen.add(lock::SET_IMAGE, &image)?;
    stage.advance(1);
    for (name, overlay) in &profile.overlay {
        interrupt::check()?;
        let mut with = image.clone();
        with.extend(overlay.packages.iter().cloned());
        chosen
            .add(&lock::overlay_set(name), &with)
            .with_context(|| format!("resolving the overlay {name}"))?;
        stage.advance(1);
    }
    if let Some(compile) = compile {
        let mut packages = compile.packages.clone();
        packages.push(compile.headers.replace("{release}", &kernel));
        chosen.add(lock::SET_BUILD, &packages).context("resolving the module-build root")?;
        stage.advance(1);
    }
    chosen.add(lock::SET_TOOLS, &profile.tools.packages).context("resolving the tools root")?;
    stage.advance(1);
    let of_emulator = "resolving the emulator's root";
    let (mut more_releases, mut more_packages) = (Vec::new(), Vec::new());
    if profile.emulator.suites.is_empty() {
        chosen.add(lock::SET_EMULATOR, &profile.emulator.packages).context(of_emulator)?;
    } else {
        let work = work.join("emulator");
        fs_err::create_dir(&work)?;
        (more_releases, more_packages) = emulator(profile, &archives, &work).context(of_emulator)?;
    }
    stage.advance(1);

    let mut release = releases(&apt, &archives)?;
    // What only boots an image does not date it.
    let epoch = release.iter().map(|r| r.date).max().unwrap_or_default();
    more_releases.retain(|more| !release.contains(more));
    release.append(&mut more_releases);
    let package = joined(chosen.describe()?, more_packages);
    stage.advance(1);
    Ok(Lock {
        version: lock::VERSION,
        profile: profile.name.clone(),
        resolve_key: profile.resolve_key(),
        epoch,
        kernel,
        release,
        package,
    })
}

/// The emulator's packages from suites of their own, and those suites.
fn emulator(profile: &Profile, archives: &[Archive], work: &Path) -> Result<(Vec<Release>, Vec<Package>)> {
    let suites = &profile.emulator.suites;
    let archives: Vec<Archive> = archives
        .iter()
        .filter_map(|archive| Some(Archive { suites: suites.get(&archive.name)?.clone(), ..archive.clone() }))
        .collect();
    let apt = Apt::new(work, &archives, &profile.provided, &preferences(profile, &BTreeMap::new()))?;
    apt.update()?;
    let mut chosen = Chosen::new(&apt, &archives);
    chosen.add(lock::SET_EMULATOR, &profile.emulator.packages)?;
    Ok((releases(&apt, &archives)?, chosen.describe()?))
}

/// All packages, sorted; a .deb that is in both lists is there once, with the sets of both.
fn joined(mut packages: Vec<Package>, more: Vec<Package>) -> Vec<Package> {
    packages.extend(more);
    packages.sort();
    packages.dedup_by(|next, kept| {
        let is_same = (&next.source, &next.path, &next.sha256) == (&kept.source, &kept.path, &kept.sha256);
        if is_same {
            kept.sets.append(&mut next.sets);
        }
        is_same
    });
    packages
}

/// A file with the key that signs a source: one that the host has, else one from a package whose hash is known.
fn keyring(source: &Source, mirrors: &Mirrors, pool: &Pool, work: &Path) -> Result<PathBuf> {
    if let Some(found) = source.keyrings.iter().map(Path::new).find(|p| p.exists()) {
        return Ok(found.to_owned());
    }
    let Some(package) = &source.keyring_package else {
        return Err(hinted(
            format!("this host has no key for the source {}: looked for {}", source.name, source.keyrings.join(", ")),
            "install the archive's keyring package (debian-archive-keyring, ubuntu-keyring), or copy the file there",
        ))
        .status(Status::Unavailable);
    };
    let base = mirrors.get(&source.name).and_then(|u| u.first()).cloned().unwrap_or_default();
    let url =
        if package.url.contains("://") { package.url.clone() } else { format!("{base}/{}", package.url) };
    let path = pool
        .fetch_url(&url, &package.sha256)
        .with_context(|| format!("fetching the key of the source {}", source.name))?;
    let unpacked = deb::read(&path, work, &|p| p == package.path)?;
    let mut tree = super::tree::Tree::new();
    for (path, node) in unpacked.entries {
        tree.insert(&path, node)?;
    }
    let content = tree.file(&package.path).with_context(|| format!("looking for the key in {url}"))?;
    let to = work.join(format!("keyring-{}.gpg", source.name));
    fs_err::write(&to, content.read().with_context(|| format!("reading {}", package.path))?)?;
    Ok(fs_err::canonicalize(to)?)
}

/// The pins as apt_preferences(5).
fn preferences(profile: &Profile, followed: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for pin in &profile.pin {
        let rule = match (&pin.pin, &pin.follow) {
            (Some(rule), _) => rule.clone(),
            (None, Some(package)) => match followed.get(package) {
                Some(version) => format!("version /^([0-9]+:)?{}([-+~].*)?$/", regex_escape(version)),
                None => continue,
            },
            (None, None) => continue,
        };
        let _ = writeln!(text, "Package: {}\nPin: {rule}\nPin-Priority: {}\n", pin.packages, pin.priority);
    }
    for source in &profile.source {
        let Some(label) = source.label.as_ref().filter(|_| !source.only.is_empty()) else { continue };
        let only = source.only.join(" ");
        let _ = writeln!(text, "Package: {only}\nPin: release l={label}\nPin-Priority: 500\n");
        let _ = writeln!(text, "Package: *\nPin: release l={label}\nPin-Priority: -1\n");
    }
    text
}

fn regex_escape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("[{c}]") }).collect()
}

/// What apt chose so far.
struct Chosen<'a> {
    apt: &'a Apt,
    archives: &'a [Archive],
    /// (name, version, arch) -> sets.
    packages: BTreeMap<(String, String, String), BTreeSet<String>>,
    uris: HashMap<(String, String, String), String>,
}

impl<'a> Chosen<'a> {
    fn new(apt: &'a Apt, archives: &'a [Archive]) -> Self {
        Self { apt, archives, packages: BTreeMap::new(), uris: HashMap::new() }
    }

    fn add(&mut self, set: &str, packages: &[String]) -> Result<()> {
        for candidate in self.apt.candidates(packages)? {
            let key = (candidate.name, candidate.version, candidate.arch);
            self.packages.entry(key.clone()).or_default().insert(set.to_owned());
            self.uris.insert(key, candidate.uri);
        }
        Ok(())
    }

    /// The release of the one kernel that these packages bring: `linux-image-<release>` whose release begins with a
    /// digit (metapackages are called `linux-image-amd64` and the like). Names that hold `{release}` follow from it.
    fn kernel(&self, packages: &[String]) -> Result<String> {
        let leading: Vec<_> = packages.iter().filter(|p| !p.contains("{release}")).cloned().collect();
        let release = |name: &str| -> Option<String> {
            let rest =
                name.strip_prefix("linux-image-unsigned-").or_else(|| name.strip_prefix("linux-image-"))?;
            rest.starts_with(|c: char| c.is_ascii_digit()).then(|| rest.to_owned())
        };
        let candidates = self.apt.candidates(&leading)?;
        let found: BTreeSet<_> = candidates.iter().filter_map(|c| release(&c.name)).collect();
        let found: Vec<_> = found.into_iter().collect();
        match &found[..] {
            [one] => Ok(one.clone()),
            [] => Err(hinted(
                "the profile's kernel packages bring no kernel",
                "one of `kernel.packages` must depend on a linux-image-<release>",
            )),
            several => Err(hinted(
                format!("the profile's kernel packages bring several kernels: {}", several.join(", ")),
                "name packages of one kernel only in `kernel.packages`",
            )),
        }
    }

    /// Sizes, hashes and paths of everything that was chosen, from the verified indexes.
    fn describe(&self) -> Result<Vec<Package>> {
        let wanted: Vec<_> = self
            .packages
            .keys()
            .map(|(name, version, arch)| match arch.as_str() {
                "all" => format!("{name}={version}"),
                arch => format!("{name}:{arch}={version}"),
            })
            .collect();
        let mut details: HashMap<(String, String, String), Vec<HashMap<String, String>>> = HashMap::new();
        for stanza in self.apt.show(&wanted)?.split("\n\n") {
            let fields = deb::stanza(stanza);
            let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
            let key = (get("package"), get("version"), get("architecture"));
            details.entry(key).or_default().push(fields);
        }
        let mut packages = Vec::new();
        for (key, sets) in &self.packages {
            let (name, version, arch) = key;
            let uri = apt::percent_decode(self.uris.get(key).map(String::as_str).unwrap_or_default());
            let stanzas = details.get(key).map(Vec::as_slice).unwrap_or_default();
            // The same version may stand in several sources; the one that apt would fetch from counts.
            let found = stanzas.iter().find_map(|fields| {
                let path = fields.get("filename")?.trim_start_matches("./").to_owned();
                let archive = self
                    .archives
                    .iter()
                    .find(|a| uri == format!("{}/{path}", a.url) || uri == format!("{}/./{path}", a.url))?;
                Some((fields, path, archive))
            });
            let (fields, path, archive) =
                found.with_context(|| format!("apt does not describe {name} {version}"))?;
            let sha256 = fields.get("sha256").cloned().unwrap_or_default();
            ensure!(sha256.len() == 64, "the archive gives no SHA-256 for {name} {version}");
            packages.push(Package {
                name: name.clone(),
                version: version.clone(),
                arch: arch.clone(),
                source: archive.name.clone(),
                path,
                size: fields.get("size").and_then(|s| s.parse().ok()).context("the archive gives no size")?,
                sha256: sha256.to_ascii_lowercase(),
                sets: sets.clone(),
            });
        }
        Ok(packages)
    }
}

/// The Release files that apt verified, by source and suite.
fn releases(apt: &Apt, archives: &[Archive]) -> Result<Vec<Release>> {
    let files = apt.release_files()?;
    let mut releases = Vec::new();
    for archive in archives {
        for suite in &archive.suites {
            let stem = list_name(&archive.url, suite);
            let found = files.iter().find(|(name, _)| {
                apt::percent_decode(name) == format!("{stem}_InRelease")
                    || apt::percent_decode(name) == format!("{stem}_Release")
            });
            let (_, bytes) =
                found.with_context(|| format!("apt kept no Release file for {} {suite}", archive.name))?;
            let text = String::from_utf8_lossy(bytes);
            let date = text.lines().find_map(|l| l.strip_prefix("Date:")).and_then(apt::parse_date);
            releases.push(Release {
                source: archive.name.clone(),
                suite: suite.clone(),
                date: date
                    .with_context(|| format!("the Release file of {} {suite} has no Date", archive.name))?,
                sha256: hex::encode(Sha256::digest(bytes)),
            });
        }
    }
    Ok(releases)
}

/// How apt names a suite's files in its lists folder (`URItoFileName`, apt-pkg/contrib/strutl.cc): the URL without its
/// scheme and credentials, slashes as underscores.
fn list_name(url: &str, suite: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let base = if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") };
    let full = match suite {
        "/" => base,
        suite => format!("{base}/dists/{suite}"),
    };
    full.replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_names_are_those_of_apt() {
        assert_eq!(list_name("http://m.invalid/debian", "trixie"), "m.invalid_debian_dists_trixie");
        assert_eq!(list_name("http://u:p@m.invalid:8/a/b", "/"), "m.invalid:8_a_b");
    }

    #[test]
    fn a_package_of_two_lists_has_the_sets_of_both() {
        let package = |name: &str, sets: &[&str]| Package {
            name: name.into(),
            version: "1".into(),
            arch: "all".into(),
            source: "debian".into(),
            path: format!("pool/{name}.deb"),
            size: 1,
            sha256: "0".repeat(64),
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        };
        let all = joined(
            vec![package("b", &["image"]), package("a", &["tools", "image"])],
            vec![package("c", &["emulator"]), package("a", &["emulator"])],
        );
        assert_eq!(
            all,
            [
                package("a", &["emulator", "image", "tools"]),
                package("b", &["image"]),
                package("c", &["emulator"])
            ]
        );
    }

    #[test]
    fn said_mirrors_win_and_are_checked() {
        let profile = Profile::load("debian-13").unwrap();
        let etc = tempfile::tempdir().unwrap();
        fs_err::write(etc.path().join("sources.list"), "deb http://a.invalid/debian x main\n").unwrap();
        let none = mirrors(&profile, &[], etc.path()).unwrap();
        assert_eq!(none["security"], ["http://a.invalid/debian-security"]);
        let said = ["http://b.invalid/debian/".to_owned(), "security=http://c.invalid/sec".to_owned()];
        let both = mirrors(&profile, &said, etc.path()).unwrap();
        assert_eq!(
            (both["debian"][0].as_str(), both["security"][0].as_str()),
            ("http://b.invalid/debian", "http://c.invalid/sec")
        );
        for bad in ["nope=http://x.invalid", "debian=ftp://x.invalid", "hello"] {
            let error = mirrors(&profile, &[bad.to_owned()], etc.path()).unwrap_err();
            assert_eq!(crate::error::status_of(&error), Status::Usage, "{bad}");
        }
    }
}
