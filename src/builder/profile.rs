//! What to build: `image/profiles/*.toml`, compiled in, or a file that the user names.
//!
//! A profile is data: sources, packages, kernel, driver, what to leave out, what to link. It is parsed strictly; an
//! unknown key is an error with its line.

use crate::error::{Advise as _, Status, usage};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The profiles that come with gdsboot.
const BUILT_IN: [(&str, &str); 4] = [
    ("ubuntu-24.04", include_str!("../../image/profiles/ubuntu-24.04.toml")),
    ("ubuntu-22.04", include_str!("../../image/profiles/ubuntu-22.04.toml")),
    ("debian-13", include_str!("../../image/profiles/debian-13.toml")),
    ("debian-12", include_str!("../../image/profiles/debian-12.toml")),
];

/// A profile. See `image/profiles/README.md` for every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Its name, such as `debian-13`; from the file's name.
    #[serde(skip)]
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Where packages come from.
    pub source: Vec<Source>,
    /// Versions that apt would not choose by itself.
    #[serde(default)]
    pub pin: Vec<Pin>,
    /// Names (each may carry ` (= version)`) that dependencies may take as installed: what only maintainer scripts or a
    /// running system would need.
    #[serde(default)]
    pub provided: Vec<String>,
    /// The root that the image boots.
    pub image: Image,
    /// Packages that are added on request, by name of the overlay.
    #[serde(default)]
    pub overlay: BTreeMap<String, Overlay>,
    /// The kernel and how it is booted.
    pub kernel: Kernel,
    /// NVIDIA's kernel modules.
    pub modules: Modules,
    /// Shim and GRUB.
    pub boot: Boot,
    /// What builds the image: squashfs and GRUB tools, depmod, ldconfig; shim, signed GRUB and GRUB's BIOS modules.
    pub tools: PackageSet,
    /// What boots it in a virtual machine.
    pub emulator: Emulator,
}

/// One archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// What the lock and `--mirror NAME=URL` call it.
    pub name: String,
    /// Where it is. Absent: the host's apt configuration knows a mirror whose path ends in `/<host-mirror>`.
    #[serde(default)]
    pub url: Option<String>,
    /// The last part of the mirror's path in the host's apt configuration, such as `debian-security`.
    #[serde(default)]
    pub host_mirror: Option<String>,
    /// For archives with a snapshot service: `{snapshot}` in `url` stands for this instant, `YYYYMMDDThhmmssZ`.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Suites; `/` alone for a flat repository.
    pub suites: Vec<String>,
    /// Components; none for a flat repository.
    #[serde(default)]
    pub components: Vec<String>,
    /// Files on the host that may hold the archive's key, the first that exists is used.
    #[serde(default)]
    pub keyrings: Vec<String>,
    /// A package that holds the key, for hosts that do not have it.
    #[serde(default)]
    pub keyring_package: Option<KeyringPackage>,
    /// The `Label` of its Release file; needed where `only` is set.
    #[serde(default)]
    pub label: Option<String>,
    /// Of this archive only these packages may be taken (apt's name patterns); empty: all.
    #[serde(default)]
    pub only: Vec<String>,
}

/// A keyring inside a .deb whose hash is known beforehand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeyringPackage {
    /// Where the .deb is; may be relative to the source's URL.
    pub url: String,
    /// Its SHA-256, hex.
    pub sha256: String,
    /// The keyring's path in it.
    pub path: String,
}

/// An apt pin (apt_preferences(5)).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pin {
    /// Packages, as apt_preferences writes them (names, patterns, `src:name`).
    pub packages: String,
    /// `version ...`, `release ...` or `origin ...`.
    #[serde(default)]
    pub pin: Option<String>,
    /// Instead of `pin`: the upstream version of this package's candidate. Userland must equal the kernel module, and
    /// archives do not always move both together.
    #[serde(default)]
    pub follow: Option<String>,
    /// Priority; 1001 also allows a lower version than another source offers.
    pub priority: i32,
}

/// A set of packages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageSet {
    /// Package names.
    pub packages: Vec<String>,
}

/// What boots an image in a virtual machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Emulator {
    /// Package names.
    pub packages: Vec<String>,
    /// Suites that have these packages, by source, where the image's own have not: its QEMU may be too old for simulated
    /// GPUs. No other suites are asked then, and the image gets nothing from these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub suites: BTreeMap<String, Vec<String>>,
}

/// Packages on request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Overlay {
    /// One line for people.
    pub description: String,
    /// Package names.
    pub packages: Vec<String>,
}

/// The image's root.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Package names.
    pub packages: Vec<String>,
    /// Paths that are left out (globs: `*` does not cross `/`, `**` does).
    #[serde(default)]
    pub drop: Vec<String>,
    /// Paths that are kept although `drop` names them.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Links that maintainer scripts would have made: path -> target. A `*` in the target is the one entry that matches.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Groups that maintainer scripts would have made: name -> id.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
    /// zstd level of the squashfs, 1 to 22; absent: sqfstar's own, 15. Before squashfs-tools 4.6, sqfstar takes the level
    /// for the name of its output, so there it must be absent.
    #[serde(default)]
    pub compression: Option<u32>,
}

/// The kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// Kernel packages, resolved and unpacked with the image's own. Where modules are prebuilt, name their metapackages here: the
    /// kernel follows from them, so that a newer kernel without modules is never taken. `{release}` is the kernel's release.
    pub packages: Vec<String>,
    /// Parameters besides those that gdsboot sets.
    pub command_line: String,
    /// Modules to keep (globs below `lib/modules/<release>/`); what they depend on is kept too.
    pub modules: Vec<String>,
    /// Modules that the initramfs loads to find its disk, in this order; missing ones are taken as built in.
    pub initramfs: Vec<String>,
    /// Network cards' modules: kept where the kernel has them, loaded only where the report is to be sent or the root comes
    /// over the network. In an initramfs only for that, in this order.
    #[serde(default)]
    pub network: Vec<String>,
}

/// NVIDIA's modules.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Modules {
    /// Modules that the validator loads, in this order.
    pub load: Vec<String>,
    /// Compiled from packaged source. Absent: prebuilt ones come with the kernel's packages.
    #[serde(default)]
    pub compile: Option<Compile>,
    /// Prebuilt modules must carry a signature.
    #[serde(default)]
    pub signed: bool,
}

/// How modules are compiled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Compile {
    /// The build root's packages: compiler, make, and the sources.
    pub packages: Vec<String>,
    /// The headers' package; `{release}` is the kernel's release.
    pub headers: String,
    /// The sources, in the order in which to compile them: `nvidia-open`, `nvidia-fs`. The packages bring them.
    pub sources: Vec<super::modules::Kind>,
}

/// Shim and GRUB.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// Where the signed GRUB looks for its configuration: `EFI/<vendor>`.
    pub vendor: String,
    /// The lowest SBAT generation of GRUB that current machines accept.
    pub grub_sbat: u32,
    /// Seconds that the menu waits.
    #[serde(default = "default_timeout")]
    pub timeout: u32,
}

fn default_timeout() -> u32 {
    2
}

impl Profile {
    /// The profile called `name`, or the one in the file that `name` is the path of (it must end in `.toml`).
    ///
    /// # Errors
    /// No such profile; a malformed one, with file, line and column.
    pub fn load(name: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
            return Self::parse(name, text, &format!("image/profiles/{name}.toml"));
        }
        let path = Path::new(name);
        if path.extension().is_some_and(|e| e == "toml") {
            let text = fs_err::read_to_string(path)
                .hint("a profile is one of the names in `gdsboot build --help`, or a .toml file")
                .status(Status::Usage)?;
            let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            return Self::parse(&stem, &text, name);
        }
        let names: Vec<_> = BUILT_IN.iter().map(|(n, _)| *n).collect();
        Err(usage(
            format!("there is no profile {name:?}"),
            format!("the profiles are {}; a path that ends in .toml names one of your own", names.join(", ")),
        ))
    }

    /// Parses a profile; `origin` is named in errors.
    pub fn parse(name: &str, text: &str, origin: &str) -> Result<Self> {
        let mut profile: Self = toml::from_str(text)
            .with_context(|| format!("reading the profile {origin}"))
            .hint("every key is described in image/profiles/README.md")
            .status(Status::Usage)?;
        profile.name = name.to_owned();
        profile.validate().with_context(|| format!("reading the profile {origin}")).status(Status::Usage)?;
        Ok(profile)
    }

    fn validate(&self) -> Result<()> {
        ensure!(!self.source.is_empty(), "it has no source");
        for source in &self.source {
            let name = &source.name;
            ensure!(
                source.url.is_some() != source.host_mirror.is_some(),
                "the source {name} needs either `url` or `host-mirror`"
            );
            ensure!(!source.suites.is_empty(), "the source {name} has no suites");
            ensure!(
                source.keyring_package.is_some() || !source.keyrings.is_empty(),
                "the source {name} has no key: name `keyrings` or a `keyring-package`"
            );
            ensure!(
                source.only.is_empty() || source.label.is_some(),
                "the source {name} needs `label` for its `only` to take effect"
            );
            let templated = source.url.as_ref().is_some_and(|u| u.contains("{snapshot}"));
            ensure!(
                templated == source.snapshot.is_some(),
                "the source {name} needs `snapshot` exactly if its url holds {{snapshot}}"
            );
        }
        for pin in &self.pin {
            ensure!(
                pin.pin.is_some() != pin.follow.is_some(),
                "the pin of {} needs either `pin` or `follow`",
                pin.packages
            );
        }
        for (name, suites) in &self.emulator.suites {
            let is_source = self.source.iter().any(|source| source.name == *name);
            ensure!(is_source, "`emulator.suites` names the source {name:?}, which it does not have");
            ensure!(!suites.is_empty(), "`emulator.suites` has no suites of the source {name}");
        }
        ensure!(
            self.image.compression.is_none_or(|level| (1..=22).contains(&level)),
            "`compression` is 1 to 22"
        );
        Ok(())
    }

    /// Identifies what resolving depends on: sources, pins, package names. A lock made from another value is stale.
    pub fn resolve_key(&self) -> String {
        let mut set = vec![
            serde_json::to_value(&self.source),
            serde_json::to_value(&self.pin),
            serde_json::to_value(&self.provided),
            serde_json::to_value(&self.image.packages),
            serde_json::to_value(&self.overlay),
            serde_json::to_value(&self.kernel.packages),
            serde_json::to_value(&self.tools),
            serde_json::to_value(&self.emulator),
        ];
        set.push(serde_json::to_value(&self.modules.compile));
        let mut hash = Sha256::new();
        for value in set {
            // Serialising plain data into a value cannot fail.
            hash.update(value.unwrap_or_default().to_string());
        }
        hex::encode(hash.finalize())
    }

    /// Refuses overlays that the profile does not have.
    pub fn check_overlays(&self, overlays: &[String]) -> Result<()> {
        for name in overlays {
            if !self.overlay.contains_key(name) {
                let known: Vec<_> = self.overlay.keys().map(String::as_str).collect();
                return Err(usage(
                    format!("the profile {} has no overlay {name:?}", self.name),
                    if known.is_empty() {
                        "it has none".to_owned()
                    } else {
                        format!("it has: {}", known.join(", "))
                    },
                ));
            }
        }
        Ok(())
    }
}

/// The names of the profiles that come with gdsboot, with their descriptions.
pub fn built_in() -> Vec<(&'static str, String)> {
    let describe = |text: &str| {
        let table: Option<toml::Table> = text.parse().ok();
        table.and_then(|t| t.get("description")?.as_str().map(str::to_owned)).unwrap_or_default()
    };
    BUILT_IN.iter().map(|(name, text)| (*name, describe(text))).collect()
}

/// The profile for a host that named none: its own family, from the text of os-release(5).
pub fn for_host(os_release: &str) -> &'static str {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
            .map(|v| v.trim().trim_matches('"'))
    };
    match value("ID") {
        Some("debian") => "debian-13",
        _ => "ubuntu-24.04",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_valid() {
        for (name, description) in built_in() {
            let profile = Profile::load(name).unwrap();
            assert!(!description.is_empty(), "{name}");
            assert_eq!(profile.resolve_key().len(), 64);
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = include_str!("../../image/profiles/debian-13.toml");
        let bad = text.replacen("[kernel]", "[kernel]\ncolour = \"blue\"", 1);
        let line = bad.lines().position(|l| l.starts_with("colour")).unwrap() + 1;
        let error = crate::error::one_line(&Profile::parse("x", &bad, "x.toml").unwrap_err());
        assert!(error.contains("colour") && error.contains(&format!("line {line}")), "{error}");
    }

    #[test]
    fn the_emulators_suites_are_those_of_a_source() {
        let text = include_str!("../../image/profiles/debian-13.toml");
        let with = |suites: &str| Profile::parse("x", &format!("{text}suites = {suites}\n"), "x.toml");
        let profile = with("{ debian = [\"sid\"] }").unwrap();
        assert_ne!(profile.resolve_key(), Profile::load("debian-13").unwrap().resolve_key());
        for (bad, what) in
            [("{ debain = [\"sid\"] }", "debain"), ("{ debian = [] }", "no suites of the source debian")]
        {
            let error = with(bad).unwrap_err();
            assert!(crate::error::one_line(&error).contains(what), "{error:#}");
            assert_eq!(crate::error::status_of(&error), Status::Usage);
        }
    }

    #[test]
    fn an_unknown_profile_lists_the_known_ones() {
        let error = Profile::load("debian-99").unwrap_err();
        assert_eq!(crate::error::status_of(&error), Status::Usage);
        assert!(crate::error::hint_of(&error).unwrap().contains("debian-13"));
    }

    #[test]
    fn hosts_get_their_own_family() {
        assert_eq!(for_host("ID=debian\nVERSION_ID=\"12\"\n"), "debian-13");
        assert_eq!(for_host("ID=ubuntu\nID_LIKE=debian\n"), "ubuntu-24.04");
        assert_eq!(for_host("ID=\"fedora\"\n"), "ubuntu-24.04");
        assert_eq!(for_host(""), "ubuntu-24.04");
    }
}
