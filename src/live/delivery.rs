//! Sending the report: an HTTP PUT by the root's curl, tried again as long as that can help and there is time, always with
//! the same bytes. A pre-signed URL of S3 or MinIO takes just that.

use super::curl::{self, GRACE, SHORTEST_TRY, Tried};
use super::network::{self, Plan};
use super::scratch::with_hint;
use crate::error::hinted;
use crate::facts::Root;
use crate::redact;
use crate::report::model::Delivery;
use anyhow::{Context as _, Result};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long all of it may take where nobody says how long.
const USUAL_SECONDS: u32 = 120;
/// How often it is tried at most.
const TRIES: u32 = 6;
/// The wait after the first try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// One try, at most. What a report has is sent in less over any network.
const LONGEST_TRY: Duration = Duration::from_secs(30);

/// What is sent, and where.
#[derive(Debug)]
pub struct Parcel<'a> {
    /// The URL, secrets and placeholders and all.
    pub url: &'a str,
    /// The run's id.
    pub run_id: &'a str,
    /// The name of the run's folder.
    pub folder: &'a str,
    /// `report.json`.
    pub report: &'a [u8],
    /// Whom alone to trust, a PEM file on the report partition; `None` trusts the public authorities.
    pub ca: Option<&'a str>,
    /// Where the report partition is mounted, where there is one.
    pub partition: Option<&'a Path>,
    /// How to get an address.
    pub net: &'a Plan,
    /// How long all of it may take, in seconds; `None` is the usual time.
    pub seconds: Option<u32>,
}

/// Is this a URL that a report can be sent to?
///
/// # Errors
/// What is wrong with it, as the end of a sentence; the URL itself is not quoted.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    let lower = url.get(..8).unwrap_or(url).to_ascii_lowercase();
    let rest = if lower.starts_with("http://") {
        &url[7..]
    } else if lower.starts_with("https://") {
        &url[8..]
    } else {
        return Err("is no http or https address");
    };
    let host = redact::authority(rest).rsplit('@').next().unwrap_or_default();
    if host.is_empty() {
        return Err("is no http or https address: it names no host");
    }
    if !redact::is_host(host) {
        return Err(
            "is no http or https address: its port is no number (in a password, / ? # are written as %xx)",
        );
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("has a space or a character that must be written as %xx");
    }
    Ok(())
}

/// `{run_id}` and `{folder}` in a URL become this run's. Signed ones have no braces, and stay as they are.
fn expand(url: &str, run_id: &str, folder: &str) -> String {
    url.replace("{run_id}", run_id).replace("{folder}", folder)
}

/// Sends it. Whatever happens, what became of it is told. No more time is spent than was allowed, but for a program that does
/// not end when it is killed (2 s).
pub fn send(root: &Root, parcel: &Parcel<'_>, say: &mut dyn FnMut(&str)) -> Delivery {
    let begun = Instant::now();
    let allowed = Duration::from_secs(parcel.seconds.unwrap_or(USUAL_SECONDS).into());
    let deadline = begun + allowed;
    let url = expand(parcel.url, parcel.run_id, parcel.folder);
    let mut delivery = nothing_sent(&url);
    say(&format!("sending the report to {}", delivery.url));
    // What is missing on the report partition is known before the network is waited for.
    let ca = parcel.ca.map(|name| ca_file(parcel.partition, name)).transpose();
    let ready = ca.and_then(|ca| {
        network::bring_up(root, parcel.net, deadline, say)?;
        prepare(parcel, &url, ca.as_deref())
    });
    match ready {
        Ok(config) => {
            let put = |limit: Duration| curl::put(&config, limit);
            retry(&mut delivery, deadline, put, std::thread::sleep, say);
        }
        Err(error) => delivery.error = Some(with_hint(&error)),
    }
    delivery.seconds = begun.elapsed().as_secs_f64();
    delivery
}

/// What became of a report that is not sent, for this reason.
pub fn not_sent(url: &str, why: impl Into<String>) -> Delivery {
    Delivery { error: Some(why.into()), ..nothing_sent(url) }
}

fn nothing_sent(url: &str) -> Delivery {
    Delivery { url: redact::url(url), sent: false, tries: 0, seconds: 0.0, status: None, error: None }
}

/// Tries until it is sent, cannot be sent, or time is up. `put` is given how long it may take, at least a second.
fn retry(
    delivery: &mut Delivery,
    deadline: Instant,
    mut put: impl FnMut(Duration) -> Tried,
    mut sleep: impl FnMut(Duration),
    say: &mut dyn FnMut(&str),
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < SHORTEST_TRY {
            let late = "no time was left to send it; allow more: report_seconds";
            delivery.error.get_or_insert_with(|| late.into());
            return;
        }
        delivery.tries += 1;
        let (status, error, may_help) = match put(left.min(LONGEST_TRY + GRACE)) {
            Tried::Sent(status) => {
                (delivery.sent, delivery.status, delivery.error) = (true, Some(status), None);
                return;
            }
            Tried::Later(status, error) => (status, error, true),
            Tried::Never(status, error) => (status, error, false),
        };
        say(&format!("sending the report: try {}: {error}", delivery.tries));
        (delivery.status, delivery.error) = (status, Some(error));
        let left = deadline.saturating_duration_since(Instant::now());
        if !may_help || delivery.tries >= TRIES || left <= pause + GRACE {
            return;
        }
        sleep(pause);
        pause *= 2;
    }
}

/// Lays out what is sent and curl's configuration. The URL is a secret, and an argument could be seen by anybody.
fn prepare(parcel: &Parcel<'_>, url: &str, ca: Option<&Path>) -> Result<String> {
    let folder = network::folder()?;
    let report = folder.join("report.json");
    fs_err::write(&report, parcel.report)?;
    let config = folder.join("curl.conf");
    let mut file =
        fs_err::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&config)?;
    let text = curl::config(url, &report, &folder.join("answer"), parcel.run_id, ca);
    file.write_all(text.as_bytes()).context("writing curl's configuration")?;
    Ok(config.to_string_lossy().into_owned())
}

/// The report partition's file with the certificates to trust.
///
/// # Errors
/// It is not there, or there is no such partition.
fn ca_file(partition: Option<&Path>, name: &str) -> Result<std::path::PathBuf> {
    let hint = "put the file on the partition GDSREPORT, beside gdsboot.toml";
    let partition =
        partition.ok_or_else(|| hinted(format!("report_ca = {name}: there is no report partition"), hint))?;
    let path = partition.join(name);
    if !path.is_file() {
        return Err(hinted(
            format!("report_ca = {name}: there is no such file on the report partition"),
            hint,
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        for good in [
            "http://10.0.2.2:8080/r/{folder}.json",
            "HTTPS://s3/b/k?X-Amz-Signature=1&x=%2F",
            "https://u:p@h",
            "http://[fd00::1]:80/x",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "s3://b/k",
            "http://",
            "https:///x",
            "http://u@/x",
            "http://h/a b",
            "http://h/ü",
            "http://h/\n",
            "me:secret@reports.example/x",
            "https:/me:secret@h/x",
            "https://me:pa/ss@host/x",
            "https://me:pa?ss@host/x",
            "https://h:80x/",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert_eq!(expand("http://h/{folder}/{run_id}?{x}", "0a", "T-0a"), "http://h/T-0a/0a?{x}");
    }

    fn tried(answers: Vec<Tried>, seconds: u64) -> (Delivery, Vec<u64>) {
        let mut delivery = Delivery {
            url: "http://h".into(),
            sent: false,
            tries: 0,
            seconds: 0.0,
            status: None,
            error: None,
        };
        let mut pauses = Vec::new();
        let mut answers = answers.into_iter();
        let put = |_| answers.next().expect("it was tried once too often");
        let deadline = Instant::now() + Duration::from_secs(seconds);
        retry(&mut delivery, deadline, put, |pause| pauses.push(pause.as_secs()), &mut |_| {});
        (delivery, pauses)
    }

    #[test]
    fn it_is_tried_again_where_that_may_help() {
        let later = || Tried::Later(Some(503), "busy".into());
        let (delivery, pauses) = tried(vec![later(), later(), Tried::Sent(201)], 100);
        assert_eq!(
            (delivery.sent, delivery.tries, delivery.status, delivery.error),
            (true, 3, Some(201), None)
        );
        assert_eq!(pauses, [1, 2]);
        let (delivery, pauses) = tried(vec![Tried::Never(Some(404), "no".into())], 100);
        assert_eq!((delivery.sent, delivery.tries, delivery.error.as_deref()), (false, 1, Some("no")));
        assert_eq!(pauses, [0; 0]);
        let (delivery, pauses) = tried(vec![later(); 6], 100);
        assert_eq!((delivery.tries, pauses.as_slice()), (6, &[1, 2, 4, 8, 16][..]));
        // Not with less than a second.
        let (delivery, pauses) = tried(vec![], 0);
        assert_eq!((delivery.tries, pauses.as_slice()), (0, &[][..]));
        assert!(delivery.error.unwrap().contains("report_seconds"));
        let (delivery, pauses) = tried(vec![later()], 3);
        assert_eq!((delivery.tries, pauses.as_slice()), (1, &[][..]));
        assert_eq!(delivery.words(), "NOT sent to http://h (1 try, 0 s): busy");
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        // Before anything else is done, and in what became of sending.
        let parcel = Parcel {
            url: "https://me:word@h/{folder}?sig",
            run_id: "0a1b2c3d",
            folder: "T-0a1b2c3d",
            report: b"{}",
            ca: Some("ca.pem"),
            partition: None,
            net: &Plan::Dhcp,
            seconds: Some(1),
        };
        let delivery = send(&Root::at(dir.path()), &parcel, &mut |_| {});
        assert_eq!((delivery.sent, delivery.tries), (false, 0));
        assert_eq!(delivery.url, "https://REDACTED@h/T-0a1b2c3d?REDACTED");
        assert!(
            delivery.error.unwrap().starts_with("report_ca = ca.pem: there is no report partition; put ")
        );
        assert!(ca_file(None, "ca.pem").unwrap_err().to_string().contains("no report partition"));
        assert!(ca_file(Some(dir.path()), "ca.pem").unwrap_err().to_string().contains("report_ca = ca.pem"));
        fs_err::write(dir.path().join("ca.pem"), "").unwrap();
        assert!(ca_file(Some(dir.path()), "ca.pem").is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}") {
            let _ = check_url(&text);
            expand(&text, "a", "b");
        }
    }
}
