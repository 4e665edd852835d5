//! The kernel parameters that are ours, from `/proc/cmdline`. The kernel's own rules hold: words are parted by spaces,
//! double quotes keep spaces together (lib/cmdline.c, `next_arg`), and what follows ` -- ` is not for us.

use super::settings;
use crate::boot_contract::{
    PARAM_BREAK, PARAM_REPORT, PARAM_ROOT, PARAM_ROOT_SHA256, PARAM_ROOT_SIZE, PARAM_ROOT_URL,
};
use std::fmt;

/// Where the root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootPlace {
    /// The partition with this PARTUUID, lower case.
    Partition(String),
    /// A file on the ISO with this volume identifier.
    Iso(String),
    /// A file on a web server.
    Url(String),
}

impl fmt::Display for RootPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(uuid) => write!(f, "partition {uuid}"),
            Self::Iso(volume) => write!(f, "volume {volume}"),
            Self::Url(url) => write!(f, "file {url}"),
        }
    }
}

/// What the boot loader said. Later words win, as in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Where the root is.
    pub root: Option<RootPlace>,
    /// How many bytes of it are the squashfs.
    pub root_size: Option<u64>,
    /// Their SHA-256, 64 lower-case hex digits.
    pub root_sha256: Option<String>,
    /// The report partition's PARTUUID, lower case.
    pub report: Option<String>,
    /// Settings as they were written, key (without `gdsboot.`) and value, in their order.
    pub settings: Vec<(String, String)>,
    /// The stage that panics.
    pub break_in: Option<String>,
    /// What was said and not understood.
    pub complaints: Vec<String>,
}

impl Params {
    /// Reads a command line. Never fails: what makes no sense is a complaint.
    pub fn parse(command_line: &str) -> Self {
        let mut params = Self::default();
        for word in words(command_line) {
            if word == "--" {
                break;
            }
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            if key.starts_with("gdsboot.") {
                params.take(key, value.trim_matches('"'));
            }
        }
        params
    }

    fn take(&mut self, key: &str, value: &str) {
        let complaint = match key {
            PARAM_ROOT => match partuuid(value).map(RootPlace::Partition).or_else(|| iso(value)) {
                Some(place) => return self.root = Some(place),
                None => "is neither PARTUUID=<uuid> nor ISO9660=<volume>",
            },
            PARAM_REPORT => match partuuid(value) {
                Some(uuid) => return self.report = Some(uuid),
                None => "is not PARTUUID=<uuid>",
            },
            PARAM_ROOT_SIZE => match value.parse() {
                Ok(size) if size > 0 => return self.root_size = Some(size),
                _ => "is not a number of bytes",
            },
            PARAM_ROOT_SHA256 => {
                let hash = value.to_ascii_lowercase();
                if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return self.root_sha256 = Some(hash);
                }
                "is not 64 hex digits"
            }
            PARAM_ROOT_URL => return self.root = Some(RootPlace::Url(value.to_owned())),
            PARAM_BREAK => return self.break_in = Some(value.to_owned()),
            _ => match key.strip_prefix("gdsboot.").filter(|key| settings::KEYS.contains(key)) {
                Some(key) => return self.settings.push((key.to_owned(), value.to_owned())),
                None => "is not known",
            },
        };
        // What is mistyped may be a secret all the same.
        let word = crate::redact::argument(&format!("{key}={value}"));
        self.complaints.push(format!("kernel command line: {word} {complaint}"));
    }
}

/// `PARTUUID=11111111-2222-3333-4444-555555555555`.
fn partuuid(value: &str) -> Option<String> {
    let uuid = value.strip_prefix("PARTUUID=")?.to_ascii_lowercase();
    let groups: Vec<&str> = uuid.split('-').collect();
    let shape = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
    let is_hex = groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
    (shape && is_hex).then_some(uuid)
}

/// `ISO9660=GDSBOOT_0123456789ABCDEF`.
fn iso(value: &str) -> Option<RootPlace> {
    let volume = value.strip_prefix("ISO9660=")?;
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let is_identifier = (1..=32).contains(&volume.len()) && volume.bytes().all(is_plain);
    is_identifier.then(|| RootPlace::Iso(volume.to_owned()))
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        if c.is_whitespace() && !quoted {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            quoted ^= c == '"';
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_command_line() {
        let hash = "AB".repeat(32);
        let line = format!(
            "BOOT_IMAGE=/vmlinuz console=tty0 gdsboot.root=PARTUUID=AAAAAAAA-0000-1111-2222-333333333333 \
             gdsboot.root-size=4096 gdsboot.root-sha256={hash} gdsboot.after=\"hold\" gdsboot.after=shell \
             gdsboot.report=PARTUUID=bbbbbbbb-0000-1111-2222-333333333333\n"
        );
        let expected = Params {
            root: Some(RootPlace::Partition("aaaaaaaa-0000-1111-2222-333333333333".into())),
            root_size: Some(4096),
            root_sha256: Some("ab".repeat(32)),
            report: Some("bbbbbbbb-0000-1111-2222-333333333333".into()),
            settings: vec![("after".into(), "hold".into()), ("after".into(), "shell".into())],
            ..Params::default()
        };
        assert_eq!(Params::parse(&line), expected);
    }

    #[test]
    fn a_root_on_an_iso() {
        let root = |value: &str| Params::parse(&format!("gdsboot.root={value}")).root;
        let place = RootPlace::Iso("GDSBOOT_0123456789ABCDEF".into());
        assert_eq!(root("ISO9660=GDSBOOT_0123456789ABCDEF"), Some(place));
        for bad in ["ISO9660=", "ISO9660=a", "ISO9660=A/B", "ISO9660=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(root(bad), None, "{bad}");
        }
    }

    #[test]
    fn nonsense_is_a_complaint_and_other_words_are_not_ours() {
        let line = "quiet gdsboot.root=/dev/sda1 gdsboot.root=PARTUUID=é gdsboot.root-size=-1 gdsboot.root-sha256=12 \
                    gdsboot.colour=\"light blue\" gdsboot -- gdsboot.after=hold";
        let params = Params::parse(line);
        assert_eq!(params.complaints.len(), 5, "{:?}", params.complaints);
        assert_eq!(params.complaints[4], "kernel command line: gdsboot.colour=light blue is not known");
        assert_eq!(Params { complaints: vec![], ..params }, Params::default());
        let mistyped = Params::parse("gdsboot.report-url=me:word@h/x").complaints;
        assert_eq!(mistyped, ["kernel command line: gdsboot.report-url=REDACTED@h/x is not known"]);
        // The first `=` may be the URL's own.
        let mistyped = Params::parse("gdsboot.report_url:https://me:word@h/x?a=word").complaints;
        assert_eq!(
            mistyped,
            ["kernel command line: gdsboot.report_url:https://REDACTED@h/x?REDACTED is not known"]
        );
        assert_eq!(Params::parse(""), Params::default());
    }
}
