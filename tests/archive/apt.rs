//! The host's own apt-get, with nothing of the host's: the judge of whether the archive is one.

use std::path::PathBuf;
use std::process::Command;

/// An isolated apt: its own sources, state, cache and preferences, an empty status file.
#[derive(Debug)]
pub struct Apt {
    dir: tempfile::TempDir,
}

/// What apt-get said.
#[derive(Debug)]
pub struct Said {
    /// Whether it was satisfied.
    pub ok: bool,
    /// Both streams.
    pub text: String,
}

impl Said {
    /// It must have gone well.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert!(self.ok, "apt-get failed:\n{}", self.text);
        self.text
    }

    /// It must have failed and said `reason`.
    #[track_caller]
    pub fn expect_failure(self, reason: &str) {
        assert!(!self.ok, "apt-get was content:\n{}", self.text);
        assert!(self.text.contains(reason), "apt-get failed, but not with {reason:?}:\n{}", self.text);
    }
}

/// A file that apt would download.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Package name.
    pub name: String,
    /// Version, epoch included.
    pub version: String,
    /// Where from.
    pub url: String,
}

impl Apt {
    /// Sources in the one-line form, and preferences (may be empty).
    pub fn new(sources: &str, preferences: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for sub in ["lists/partial", "archives/partial", "log"] {
            std::fs::create_dir_all(root.join(sub)).unwrap();
        }
        std::fs::write(root.join("sources.list"), sources).unwrap();
        std::fs::write(root.join("preferences"), preferences).unwrap();
        std::fs::write(root.join("status"), "").unwrap();
        let at = root.display();
        let conf = format!(
            r#"Dir::State "{at}"; Dir::State::lists "{at}/lists"; Dir::State::status "{at}/status";
Dir::State::extended_states "{at}/extended_states";
Dir::Cache "{at}"; Dir::Cache::archives "{at}/archives"; Dir::Log "{at}/log";
Dir::Etc "{at}"; Dir::Etc::main "/dev/null"; Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{at}/sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{at}/preferences"; Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null"; Dir::Etc::trustedparts "/dev/null"; Dir::Etc::netrc "/dev/null";
APT::Architecture "amd64"; APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root"; APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none"; Acquire::Retries "0"; Acquire::http::Proxy "DIRECT";
Acquire::http::Timeout "3"; Acquire::Check-Valid-Until "true";
APT::Get::Never-Include-Phased-Updates "false"; APT::Get::Always-Include-Phased-Updates "true";
"#
        );
        std::fs::write(root.join("apt.conf"), conf).unwrap();
        Self { dir }
    }

    /// Takes these as installed, each `name` or `name (= version)`.
    pub fn provide(&self, names: &[String]) {
        let status = format!(
            "Package: provided\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\
             Maintainer: test\nDescription: test\nProvides: {}\n\n",
            names.join(", ")
        );
        std::fs::write(self.dir.path().join("status"), status).unwrap();
    }

    /// Where its files are.
    pub fn root(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Runs `apt-get` with these arguments.
    pub fn get(&self, arguments: &[&str]) -> Said {
        let output = Command::new("apt-get")
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C")
            .env("APT_CONFIG", self.dir.path().join("apt.conf"))
            .current_dir(self.dir.path())
            .output()
            .expect("apt-get is what these tests are about");
        let streams = [output.stdout, output.stderr].concat();
        Said { ok: output.status.success(), text: String::from_utf8_lossy(&streams).into_owned() }
    }

    /// `apt-get update`.
    pub fn update(&self) -> Said {
        self.get(&["update", "-q"])
    }

    /// What `apt-get install` of these packages would download.
    #[track_caller]
    pub fn plan(&self, packages: &[&str]) -> Vec<Planned> {
        let text = self.get(&[&["install", "-y", "-qq", "--print-uris"], packages].concat()).expect_ok();
        let mut planned = Vec::new();
        for line in text.lines().filter(|line| line.starts_with('\'')) {
            let (url, rest) = line[1..].split_once("' ").unwrap();
            let file = rest.split(' ').next().unwrap().replace("%3a", ":");
            let mut parts = file.split('_');
            let (name, version) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
            planned.push(Planned { name, version, url: url.to_owned() });
        }
        planned
    }
}

/// One line of sources for an Ubuntu suite, with all four components.
pub fn ubuntu_line(keyring: &std::path::Path, url: &str, suite: &str) -> String {
    format!(
        "deb [arch=amd64 signed-by={}] {url} {suite} main restricted universe multiverse\n",
        keyring.display()
    )
}

/// One line of sources for a flat repository; `url` ends in a slash.
pub fn flat_line(keyring: &std::path::Path, url: &str) -> String {
    format!("deb [arch=amd64 signed-by={}] {url} /\n", keyring.display())
}
