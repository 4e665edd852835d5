//! Which mirrors the host uses, read from its apt configuration: sources.list(5) in both of its formats.
//!
//! Profiles of archives without a fixed home (Debian) name only the last part of a mirror's path; the host's
//! administrator has already chosen the rest.

use super::deb;
use crate::error::hinted;
use anyhow::Result;
use std::path::Path;

/// The archive URLs (without a trailing slash) that sources.list(5) text names, in order. One-line format.
pub fn parse_one_line(text: &str) -> Vec<String> {
    let mut urls = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb\t")) else { continue };
        let mut rest = rest.trim_start();
        if rest.starts_with('[') {
            let Some((_, after)) = rest.split_once(']') else { continue };
            rest = after.trim_start();
        }
        if let Some(url) = rest.split_whitespace().next() {
            push_url(&mut urls, url);
        }
    }
    urls
}

/// The same for the deb822 format (`*.sources`).
pub fn parse_deb822(text: &str) -> Vec<String> {
    let mut urls = Vec::new();
    let mut stanza = String::new();
    let mut flush = |stanza: &mut String| {
        let fields = deb::stanza(stanza);
        let get = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let enabled = !matches!(get("enabled").to_ascii_lowercase().as_str(), "no" | "false" | "0" | "off");
        if enabled && get("types").split_whitespace().any(|t| t == "deb") {
            for url in get("uris").split_whitespace() {
                push_url(&mut urls, url);
            }
        }
        stanza.clear();
    };
    for line in text.lines() {
        if line.trim().is_empty() {
            flush(&mut stanza);
        } else {
            stanza.push_str(line);
            stanza.push('\n');
        }
    }
    flush(&mut stanza);
    urls
}

fn push_url(urls: &mut Vec<String>, url: &str) {
    let url = url.trim_end_matches('/');
    if (url.starts_with("http://") || url.starts_with("https://")) && !urls.iter().any(|u| u == url) {
        urls.push(url.to_owned());
    }
}

/// All mirrors in the host's configuration below `etc_apt` (normally `/etc/apt`). Files that cannot be read are passed
/// over: they are the host's business.
pub fn of_host(etc_apt: &Path) -> Vec<String> {
    let mut urls = Vec::new();
    if let Ok(text) = fs_err::read_to_string(etc_apt.join("sources.list")) {
        urls.extend(parse_one_line(&text));
    }
    let mut files: Vec<_> = fs_err::read_dir(etc_apt.join("sources.list.d"))
        .map(|entries| entries.filter_map(|e| e.ok().map(|e| e.path().to_owned())).collect())
        .unwrap_or_default();
    files.sort();
    for path in files {
        let Ok(text) = fs_err::read_to_string(&path) else { continue };
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => urls.extend(parse_one_line(&text)),
            Some("sources") => urls.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    urls
}

/// The mirrors among `urls` whose path ends in `/<last>`.
///
/// # Errors
/// When there is none; the hint names `--mirror`.
pub fn choose(urls: &[String], last: &str, source: &str) -> Result<Vec<String>> {
    let matching = |suffix: &str| -> Vec<String> {
        urls.iter().filter(|u| u.rsplit('/').next() == Some(suffix)).cloned().collect()
    };
    let found = matching(last);
    if !found.is_empty() {
        return Ok(found);
    }
    // A host that has the main archive and no security archive: mirrors keep the two side by side.
    if let Some((family, _)) = last.split_once('-') {
        let beside: Vec<_> = matching(family)
            .iter()
            .filter_map(|u| u.rsplit_once('/').map(|(base, _)| format!("{base}/{last}")))
            .collect();
        if !beside.is_empty() {
            return Ok(beside);
        }
    }
    Err(hinted(
        format!(
            "no mirror is known for the source {source:?}: the host's apt configuration names none that ends in /{last}"
        ),
        format!("name one: --mirror {source}=http://MIRROR/{last}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let one_line = "# deb http://off.invalid/debian x main\n\
                        deb [signed-by=/k.gpg arch=amd64] http://a.invalid/debian/ trixie main # comment\n\
                        deb-src http://src.invalid/debian trixie main\n\
                        deb cdrom:[x]/ trixie main\ndeb [broken http://b.invalid/debian\n";
        assert_eq!(parse_one_line(one_line), ["http://a.invalid/debian"]);
        let deb822 = "Types: deb\n# note\nURIs: http://a.invalid/debian\n https://b.invalid/debian/\nSuites: trixie\n\n\
                      Types: deb-src\nURIs: http://c.invalid/debian\n\nTypes: deb\nEnabled: no\nURIs: http://d.invalid/debian\n";
        assert_eq!(parse_deb822(deb822), ["http://a.invalid/debian", "https://b.invalid/debian"]);
    }

    #[test]
    fn the_security_archive_is_looked_for_beside_the_main_one() {
        let urls = ["http://a.invalid/debian".to_owned()];
        assert_eq!(choose(&urls, "debian", "debian").unwrap(), ["http://a.invalid/debian"]);
        assert_eq!(
            choose(&urls, "debian-security", "security").unwrap(),
            ["http://a.invalid/debian-security"]
        );
        let error = choose(&[], "debian", "debian").unwrap_err();
        assert!(crate::error::hint_of(&error).unwrap().contains("--mirror debian="));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}") {
            parse_one_line(&text);
            parse_deb822(&text);
        }
    }
}
