//! `gdsboot doctor`: is everything here that a build needs? Asked before anything is done, and answered with remedies.

use super::cache::Cache;
use super::profile::Profile;
use super::{apt, resolve, sandbox};
use crate::error::{hint_of, one_line};
use crate::progress::bytes;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// Is it as it must be?
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What helps, where something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A build with an empty cache downloads some 0.5 GB, and unpacks and writes some 2.5 GB more.
const SPACE_NEEDED: u64 = 3_000_000_000;

/// Looks at everything that a build of this profile needs.
pub fn examine(profile: &Profile, mirrors: &[String], cache: Result<&Cache, anyhow::Error>) -> Vec<Finding> {
    let mut findings = vec![
        finding("apt", apt::version()),
        finding("sandbox", sandbox::available().map(str::to_owned)),
        finding("cache", cache.and_then(space)),
        finding(
            "mirrors",
            resolve::mirrors(profile, mirrors, Path::new("/etc/apt")).map(|m| {
                let lines: Vec<_> =
                    m.iter().map(|(name, urls)| format!("{name}: {}", urls.join(", "))).collect();
                lines.join("; ")
            }),
        ),
        kvm(Path::new("/dev/kvm")),
    ];
    for source in &profile.source {
        let present = source.keyrings.iter().find(|k| Path::new(k).exists());
        findings.push(match (present, &source.keyring_package) {
            (Some(path), _) => good(format!("key of {}", source.name), path.clone()),
            (None, Some(package)) => {
                good(format!("key of {}", source.name), format!("fetched from {}", package.url))
            }
            (None, None) => Finding {
                what: format!("key of {}", source.name),
                ok: false,
                found: format!("none of {}", source.keyrings.join(", ")),
                remedy: Some(
                    "apt-get install debian-archive-keyring (Debian) or ubuntu-keyring (Ubuntu)".into(),
                ),
            },
        });
    }
    findings
}

fn good(what: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding { what: what.into(), ok: true, found: found.into(), remedy: None }
}

fn finding(what: &str, result: Result<String>) -> Finding {
    match result {
        Ok(found) => good(what, found),
        Err(error) => Finding {
            what: what.into(),
            ok: false,
            found: one_line(&error),
            remedy: hint_of(&error).map(str::to_owned),
        },
    }
}

fn space(cache: &Cache) -> Result<String> {
    super::space::require(cache.folder(), SPACE_NEEDED, "a build with an empty cache")?;
    Ok(format!("{}, with at least {} free", cache.folder().display(), bytes(SPACE_NEEDED)))
}

/// KVM is never necessary, and an open device proves nothing: `smoke` boots a guest to find out.
fn kvm(device: &Path) -> Finding {
    let found = match fs_err::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => "may work; `smoke` proves it by booting a guest, and takes TCG otherwise",
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "not here; `smoke` takes TCG, which is slower",
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            "may not be opened by this user (as root: usermod -aG kvm USER); `smoke` takes TCG, which is slower"
        }
        Err(_) => "cannot be opened; `smoke` takes TCG, which is slower",
    };
    good("KVM", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_a_remedy() {
        let mut profile = Profile::load("debian-13").unwrap();
        profile.source[0].keyrings = vec!["/nonexistent.gpg".into()];
        let findings = examine(
            &profile,
            &["nope=http://x.invalid".into()],
            Err(crate::error::hinted("no room", "make some")),
        );
        for finding in findings.iter().filter(|f| !f.ok) {
            assert!(finding.remedy.is_some(), "{finding:?}");
        }
        let bad: Vec<_> = findings.iter().filter(|f| !f.ok).map(|f| f.what.as_str()).collect();
        assert!(["cache", "mirrors", "key of debian"].iter().all(|w| bad.contains(w)), "{bad:?}");
        assert!(kvm(Path::new("/nonexistent")).found.contains("TCG"));
    }
}
