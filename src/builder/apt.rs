//! apt, run in isolation: its own state, an almost empty status file, only the profile's sources, signatures checked.
//!
//! apt resolves better than anybody; what it must not do is look at the host. `Dir::*` point into a folder of ours, the
//! status file holds one imaginary package that provides what the profile declares as provided, and nothing is ever
//! installed: `install --print-uris` tells what would be.

use crate::error::{Advise as _, hinted};
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An archive as apt needs it.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The source's name in the profile.
    pub name: String,
    /// Its URL, without a trailing slash.
    pub url: String,
    /// Suites; `/` for a flat repository.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// The keyring that must have signed it.
    pub keyring: PathBuf,
    /// The archive's instant lies in the past by design, so an expired `Valid-Until` says nothing.
    pub is_snapshot: bool,
}

/// An isolated apt.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

/// A .deb that apt would install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where apt would get it.
    pub uri: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub arch: String,
}

impl Apt {
    /// Prepares a folder (which must exist and be empty) for apt.
    ///
    /// # Errors
    /// When there is no apt on this host.
    pub fn new(folder: &Path, archives: &[Archive], provided: &[String], preferences: &str) -> Result<Self> {
        ensure_apt()?;
        for dir in ["lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "log"] {
            fs_err::create_dir_all(folder.join(dir))?;
        }
        let folder = fs_err::canonicalize(folder)?;
        fs_err::write(folder.join("status"), status_file(provided))?;
        fs_err::write(folder.join("sources.list"), sources_list(archives))?;
        fs_err::write(folder.join("etc/preferences"), preferences)?;
        fs_err::write(folder.join("apt.conf"), configuration(&folder)?)?;
        Ok(Self { folder })
    }

    /// Replaces the pins.
    pub fn set_preferences(&self, preferences: &str) -> Result<()> {
        Ok(fs_err::write(self.folder.join("etc/preferences"), preferences)?)
    }

    /// Fetches and verifies the indexes.
    pub fn update(&self) -> Result<()> {
        let output = self.run("apt-get", &["update"])?;
        if output.success {
            return Ok(());
        }
        let complaints = complaints(&output.stderr);
        let (what, hint) = explain(&complaints);
        Err(hinted(format!("{what}:\n{complaints}"), hint))
    }

    /// What `install PACKAGES` would bring, without recommended packages.
    pub fn candidates(&self, packages: &[String]) -> Result<Vec<Candidate>> {
        let mut args = vec!["install", "--print-uris", "--yes", "--no-install-recommends", "--"];
        args.extend(packages.iter().map(String::as_str));
        let output = self.run("apt-get", &args)?;
        if !output.success {
            return Err(unsatisfiable(&output));
        }
        parse_print_uris(&output.stdout)
    }

    /// The version that apt would choose for a package, if it knows one.
    pub fn candidate_version(&self, package: &str) -> Result<Option<String>> {
        let output = self.run("apt-cache", &["policy", "--", package])?;
        let line = output.stdout.lines().find_map(|l| l.trim().strip_prefix("Candidate:"));
        Ok(line.map(|v| v.trim().to_owned()).filter(|v| v != "(none)"))
    }

    /// The index stanzas of exact versions, in any order; a version that several sources have comes several times.
    pub fn show(&self, packages: &[String]) -> Result<String> {
        let mut args = vec!["show", "--"];
        args.extend(packages.iter().map(String::as_str));
        let output = self.run("apt-cache", &args)?;
        ensure!(output.success, "asking apt for package details failed:\n{}", complaints(&output.stderr));
        Ok(output.stdout)
    }

    /// The signed Release files that apt verified: file name and content.
    pub fn release_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in fs_err::read_dir(self.folder.join("lists"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with("_InRelease") || name.ends_with("_Release") {
                files.push((name, fs_err::read(entry.path())?));
            }
        }
        files.sort();
        Ok(files)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        let output = Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .envs(proxy_environment())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {program}"))?;
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Is apt here?
pub fn ensure_apt() -> Result<()> {
    for program in ["/usr/bin/apt-get", "/usr/bin/apt-cache", "/usr/bin/apt-config"] {
        if !Path::new(program).exists() {
            return Err(hinted(
                format!("{program} is missing: packages are resolved by apt itself"),
                "run gdsboot on a Debian or Ubuntu host (a container will do), or build elsewhere with `--offline` and \
                 a lock and pool that were made on one",
            ));
        }
    }
    Ok(())
}

/// The variables by which a user names a proxy.
fn proxy_environment() -> Vec<(String, String)> {
    let names =
        ["http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy"];
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// The proxy and credential settings of the host's own apt, which an isolated apt needs as well.
fn host_settings() -> Result<Vec<(String, String)>> {
    let output = Command::new("/usr/bin/apt-config")
        .args(["dump", "--format", "%f %v%n"])
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("running apt-config")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = |key: &str| {
        let key = key.to_ascii_lowercase();
        (key.starts_with("acquire::http::proxy") || key.starts_with("acquire::https::proxy"))
            || key.starts_with("acquire::https::ca")
    };
    let pairs = text.lines().filter_map(|l| l.split_once(' '));
    Ok(pairs
        .filter(|(key, value)| wanted(key) && !value.is_empty())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

fn configuration(folder: &Path) -> Result<String> {
    let folder = folder.to_str().context("the cache folder's path is not UTF-8")?;
    ensure!(!folder.contains('"'), "the cache folder's path holds a quotation mark");
    let mut text = String::new();
    let mut set = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} \"{value}\";");
    };
    set("Dir", folder);
    set("Dir::State", folder);
    set("Dir::State::lists", &format!("{folder}/lists"));
    set("Dir::State::status", &format!("{folder}/status"));
    set("Dir::State::extended_states", &format!("{folder}/extended_states"));
    set("Dir::Cache", &format!("{folder}/cache"));
    set("Dir::Etc", &format!("{folder}/etc"));
    set("Dir::Etc::sourcelist", &format!("{folder}/sources.list"));
    set("Dir::Etc::sourceparts", "/dev/null");
    set("Dir::Etc::preferences", &format!("{folder}/etc/preferences"));
    set("Dir::Etc::trusted", "/dev/null");
    set("Dir::Etc::trustedparts", "/dev/null");
    set("Dir::Etc::netrc", "/etc/apt/auth.conf");
    set("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d");
    set("Dir::Log", &format!("{folder}/log"));
    set("Dir::Bin::methods", "/usr/lib/apt/methods");
    set("APT::Architecture", "amd64");
    set("APT::Architectures", "amd64");
    // The lists belong to us; apt's own unprivileged user could not write there.
    set("APT::Sandbox::User", "");
    set("APT::Install-Recommends", "false");
    set("APT::Install-Suggests", "false");
    // Phasing depends on the machine's id: the same lock must come out everywhere.
    set("APT::Get::Always-Include-Phased-Updates", "true");
    set("APT::Get::AllowUnauthenticated", "false");
    set("APT::Update::Error-Mode", "any");
    set("Acquire::AllowInsecureRepositories", "false");
    set("Acquire::AllowWeakRepositories", "false");
    set("Acquire::AllowDowngradeToInsecureRepositories", "false");
    set("Acquire::Languages", "none");
    set("Acquire::GzipIndexes", "false");
    set("Acquire::Retries", "3");
    set("Acquire::http::Timeout", "30");
    set("Acquire::https::Timeout", "30");
    set("Acquire::PDiffs", "false");
    for (key, value) in host_settings()? {
        if !value.contains('"') {
            set(&key, &value);
        }
    }
    Ok(text)
}

fn sources_list(archives: &[Archive]) -> String {
    let mut text = String::new();
    for archive in archives {
        for suite in &archive.suites {
            let check = if archive.is_snapshot { " check-valid-until=no" } else { "" };
            let _ = writeln!(
                text,
                "deb [arch=amd64 signed-by={}{check}] {}/ {suite} {}",
                archive.keyring.display(),
                archive.url,
                archive.components.join(" ")
            );
        }
    }
    text
}

fn status_file(provided: &[String]) -> String {
    if provided.is_empty() {
        return String::new();
    }
    format!(
        "Package: gdsboot-provided\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\
         Maintainer: gdsboot\nDescription: what the image does without\nProvides: {}\n\n",
        provided.join(", ")
    )
}

/// The lines in which apt complains.
fn complaints(stderr: &str) -> String {
    let lines: Vec<_> = stderr.lines().filter(|l| l.starts_with("E:") || l.starts_with("W:")).collect();
    if lines.is_empty() { stderr.trim().to_owned() } else { lines.join("\n") }
}

/// What apt's complaints about an archive mean, and what helps.
fn explain(complaints: &str) -> (&'static str, &'static str) {
    let has = |words: &[&str]| words.iter().any(|w| complaints.contains(w));
    if has(&["is expired", "is not valid yet", "no longer valid", "Release file for"]) {
        (
            "an archive's Release file is expired",
            "its mirror is stale (or this host's clock is wrong): name another, --mirror NAME=URL",
        )
    } else if has(&[
        "NO_PUBKEY",
        "BADSIG",
        "GPG error",
        "EXPKEYSIG",
        "is not signed",
        "invalid signature",
        "not signed by",
    ]) {
        (
            "an archive's Release file is not signed by the key that the profile trusts",
            "if the archive changed its key, update the keyring package on this host; otherwise do not trust this mirror",
        )
    } else if has(&["Hash Sum mismatch", "unexpected size", "Undetermined Error", "Hashes of expected"]) {
        (
            "an archive's index does not match its signed Release file",
            "the mirror is in the middle of an update, or was altered: try again in some minutes, or another mirror",
        )
    } else if has(&[
        "Clearsigned file isn't valid",
        "NOSPLIT",
        "does the network require authentication",
        "Malformed",
    ]) {
        (
            "an archive answered with something that is not an archive (often a login page)",
            "open its URL in a browser; a proxy or a captive portal may be in between",
        )
    } else if has(&["404", "does not have a Release file"]) {
        (
            "an archive does not have what the profile names",
            "check the mirror's URL and the suites in the profile",
        )
    } else {
        (
            "an archive cannot be reached",
            "check the network and the mirror, or name another: --mirror NAME=URL",
        )
    }
}

fn unsatisfiable(output: &Output) -> anyhow::Error {
    let details: Vec<_> = output
        .stdout
        .lines()
        .skip_while(|l| !l.starts_with("The following packages have unmet dependencies"))
        .take(12)
        .collect();
    let complaints = complaints(&output.stderr);
    let text =
        if details.is_empty() { complaints.clone() } else { format!("{}\n{complaints}", details.join("\n")) };
    let hint = if complaints.contains("Unable to locate package")
        || complaints.contains("has no installation candidate")
    {
        "the archive does not have that name: check the profile's packages, suites and components"
    } else {
        "two packages of the profile need versions that the archive does not have together: see `pin` in the profile"
    };
    hinted(format!("apt cannot satisfy the profile's packages:\n{text}"), hint)
}

/// Parses the lines `'URI' file size hash` of `apt-get --print-uris`.
///
/// # Errors
/// A file name that is not `name_version_arch.deb`.
pub fn parse_print_uris(text: &str) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix('\'') else { continue };
        let Some((uri, rest)) = rest.split_once('\'') else { continue };
        let file = rest.split_whitespace().next().unwrap_or_default();
        let stem = file.strip_suffix(".deb").unwrap_or_default();
        let parts: Vec<_> = stem.split('_').collect();
        let [name, version, arch] = parts[..] else { bail!("apt names an odd file: {line}") };
        candidates.push(Candidate {
            uri: uri.to_owned(),
            name: percent_decode(name),
            version: percent_decode(version),
            arch: arch.to_owned(),
        });
    }
    Ok(candidates)
}

/// Undoes `%3a` and the like.
pub fn percent_decode(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Parses the `Date` of a Release file into seconds since 1970 UTC: RFC 2822 with `UTC`, `GMT`, `Z` or a numeric zone;
/// Launchpad pads the hour with a blank (`Tue, 03 Dec 2024  6:00:43 UTC`).
pub fn parse_date(text: &str) -> Option<u64> {
    let rest = text.trim();
    let rest = rest.split_once(',').map_or(rest, |(_, r)| r);
    let words: Vec<_> = rest.split_whitespace().collect();
    let [day, month, year, time, zone @ ..] = &words[..] else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(months.iter().position(|m| m == month)?).ok()? + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<i64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hour, minute, second] = clock[..] else { return None };
    let in_range = (1..=31).contains(&day) && (1970..=9999).contains(&year);
    if !in_range || !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
        return None;
    }
    let offset = match zone {
        [] | ["UTC" | "GMT" | "Z"] => 0,
        [zone] => {
            let digits: i64 = zone.get(1..)?.parse().ok()?;
            let seconds = (digits / 100 * 60 + digits % 100) * 60;
            match zone.as_bytes()[0] {
                b'+' => seconds,
                b'-' => -seconds,
                _ => return None,
            }
        }
        _ => return None,
    };
    // Days since 1970 of a date in the proleptic Gregorian calendar; years begin in March, so leap days come last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

/// apt as `doctor` sees it.
pub fn version() -> Result<String> {
    ensure_apt()?;
    let output =
        Command::new("/usr/bin/apt-get").arg("--version").env_clear().output().context("running apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned).context("apt-get --version printed nothing").hint("reinstall apt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print_uris_is_parsed() {
        let text = "Reading package lists...\n\
            'http://m.invalid/debian/pool/main/l/linux/linux-image-6.12.117%2bdeb13-amd64_6.12.117-1_amd64.deb' \
            linux-image-6.12.117+deb13-amd64_6.12.117-1_amd64.deb 108488460 SHA256:00\n\
            'http://m.invalid/debian/pool/main/p/procps/procps_4.0.4-9_amd64.deb' procps_2%3a4.0.4-9_amd64.deb 882088 SHA256:11\n";
        let parsed = parse_print_uris(text).unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[0].name, "linux-image-6.12.117+deb13-amd64");
        assert_eq!((parsed[1].version.as_str(), parsed[1].arch.as_str()), ("2:4.0.4-9", "amd64"));
        assert!(parse_print_uris("'x' odd.deb 1 MD5Sum:0").is_err());
    }

    #[test]
    fn dates_of_every_archive_are_read() {
        assert_eq!(parse_date("Tue, 03 Dec 2024  6:00:43 UTC"), Some(1_733_205_643));
        assert_eq!(parse_date("Thu, 25 Apr 2024 15:10:33 UTC"), Some(1_714_057_833));
        assert_eq!(parse_date("Thu, 25 Apr 2024 15:10:33 +0000"), Some(1_714_057_833));
        assert_eq!(parse_date("Thu, 25 Apr 2024 17:10:33 +0200"), Some(1_714_057_833));
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        for bad in [
            "",
            "yesterday",
            "Thu, 25 Foo 2024 15:10:33 UTC",
            "Thu, 25 Apr 2024 25:10:33 UTC",
            "1 Jan 1970 0:0:0 X",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn complaints_are_named() {
        let cases = [
            (
                "E: Release file for http://m.invalid/x is expired (invalid since 3d). Updates will not be applied.",
                "expired",
            ),
            ("W: GPG error: http://m.invalid x InRelease: ... NO_PUBKEY 00", "not signed"),
            ("E: The repository 'http://m.invalid x InRelease' is not signed.", "not signed"),
            ("E: Failed to fetch http://m.invalid/x  Hash Sum mismatch", "does not match"),
            (
                "E: Clearsigned file isn't valid, got 'NOSPLIT' (does the network require authentication?)",
                "not an archive",
            ),
            ("E: The repository 'http://m.invalid x Release' does not have a Release file.", "does not have"),
            ("E: Failed to fetch http://127.0.0.1:1/x  Could not connect", "reached"),
        ];
        for (complaint, word) in cases {
            assert!(explain(complaint).0.contains(word), "{complaint} -> {}", explain(complaint).0);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}") {
            let _ = parse_print_uris(&text);
            parse_date(&text);
            percent_decode(&text);
        }
    }
}
