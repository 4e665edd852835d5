//! Sending the report: an HTTP PUT by the root's curl, tried again as long as that can help and there is time, always with
//! the same bytes. A pre-signed URL of S3 or MinIO takes just that.

use super::network::{self, Plan};
use super::scratch::with_hint;
use crate::error::hinted;
use crate::facts::Root;
use crate::program::{self, ending};
use crate::redact;
use crate::report::model::Delivery;
use anyhow::{Context as _, Result};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const CURL: &str = "/usr/bin/curl";
/// How long all of it may take where nobody says how long.
const USUAL_SECONDS: u32 = 120;
/// How often it is tried at most.
const TRIES: u32 = 6;
/// The wait after the first try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// One try, at most. What a report has is sent in less over any network.
const LONGEST_TRY: Duration = Duration::from_secs(30);
/// How long curl may overrun the time it was given.
const GRACE: Duration = Duration::from_secs(2);
/// No answer is read further.
const ANSWER_LIMIT: usize = 64 << 10;

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
    /// Whom alone to trust, a PEM file; `None` trusts the public authorities.
    pub ca: Option<&'a Path>,
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
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.rsplit('@').next().is_none_or(str::is_empty) {
        return Err("is no http or https address: it names no host");
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

/// Sends it. Whatever happens, what became of it is told, and no more time is spent than was allowed.
pub fn send(root: &Root, parcel: &Parcel<'_>, say: &mut dyn FnMut(&str)) -> Delivery {
    let begun = Instant::now();
    let allowed = Duration::from_secs(parcel.seconds.unwrap_or(USUAL_SECONDS).into());
    let deadline = begun + allowed;
    let url = expand(parcel.url, parcel.run_id, parcel.folder);
    let mut delivery =
        Delivery { url: redact::url(&url), sent: false, tries: 0, seconds: 0.0, status: None, error: None };
    say(&format!("sending the report to {}", delivery.url));
    let ready = network::bring_up(root, parcel.net, deadline, say).and_then(|()| prepare(parcel, &url));
    match ready {
        Ok(config) => {
            let put = |limit: Duration| put(&config, limit);
            retry(&mut delivery, deadline, put, std::thread::sleep, say);
        }
        Err(error) => delivery.error = Some(with_hint(&error)),
    }
    delivery.seconds = begun.elapsed().as_secs_f64();
    delivery
}

/// What one try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tried {
    /// The receiver has it.
    Sent(u16),
    /// It did not work, and may work later.
    Later(Option<u16>, String),
    /// It did not work, and will not.
    Never(Option<u16>, String),
}

/// Tries until it is sent, cannot be sent, or time is up. `put` is given how long it may take.
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
        delivery.tries += 1;
        let (status, error, may_help) = match put(left.min(LONGEST_TRY)) {
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
fn prepare(parcel: &Parcel<'_>, url: &str) -> Result<String> {
    let folder = network::folder()?;
    let report = folder.join("report.json");
    fs_err::write(&report, parcel.report)?;
    let config = folder.join("curl.conf");
    let mut file =
        fs_err::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&config)?;
    let text = curl_config(url, &report, &folder.join("answer"), parcel.run_id, parcel.ca);
    file.write_all(text.as_bytes()).context("writing curl's configuration")?;
    Ok(config.to_string_lossy().into_owned())
}

/// curl's configuration file (curl(1), `--config`). S3 signs no header that is not named in the URL, and these never are.
fn curl_config(url: &str, report: &Path, answer: &Path, run_id: &str, ca: Option<&Path>) -> String {
    let mut lines = vec![
        ("url", url.to_owned()),
        ("upload-file", report.display().to_string()),
        ("output", answer.display().to_string()),
        ("header", "Content-Type: application/json".into()),
        // Some servers answer this wait-for-me with an error, and a report is small.
        ("header", "Expect:".into()),
        ("header", format!("X-Gdsboot-Run-Id: {run_id}")),
        ("user-agent", format!("gdsboot/{}", env!("CARGO_PKG_VERSION"))),
        ("write-out", "%{http_code}".into()),
        ("proto", "=http,https".into()),
        ("connect-timeout", "10".into()),
    ];
    lines.extend(ca.map(|ca| ("cacert", ca.display().to_string())));
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let lines = lines.iter().map(|(key, value)| format!("{key} = \"{}\"\n", quote(value)));
    // Braces and brackets are the URL's own; a proxy of the environment is nobody's here.
    lines.chain(["globoff\nsilent\nshow-error\nnoproxy = \"*\"\n".to_owned()]).collect()
}

fn put(config: &str, limit: Duration) -> Tried {
    let answer = Path::new("/").join(crate::boot_contract::RUN_NETWORK).join("answer");
    let _ = std::fs::remove_file(&answer);
    let seconds = limit.as_secs().max(1).to_string();
    // curl must see --disable first, or it reads a configuration of its own.
    let args = ["--disable", "--max-time", &seconds, "--config", config];
    match program::run(CURL, &args, limit + GRACE) {
        Ok(finished) => {
            let answer = std::fs::read(&answer).unwrap_or_default();
            let answer = String::from_utf8_lossy(&answer[..answer.len().min(ANSWER_LIMIT)]).into_owned();
            match finished.status.code() {
                Some(0) => of_status(finished.stdout.trim(), &answer),
                Some(code) => of_exit(code, finished.stderr.trim()),
                None => Tried::Later(None, format!("curl: {}", ending(Some(finished.status), limit))),
            }
        }
        Err(error) => Tried::Later(None, crate::error::one_line(&error)),
    }
}

/// What an HTTP status means for sending it again (RFC 9110, 15; RFC 6585).
fn of_status(written: &str, answer: &str) -> Tried {
    let Ok(status) = written.parse::<u16>() else {
        return Tried::Later(None, "the server's answer has no status".into());
    };
    let said = said(answer).map(|said| format!(" ({said})")).unwrap_or_default();
    let words = format!("the server answered {status}{said}");
    match status {
        200..=299 => Tried::Sent(status),
        408 | 429 | 500..=599 => Tried::Later(Some(status), words),
        403 => Tried::Never(
            Some(status),
            format!(
                "{words}; a pre-signed URL must be for PUT, of this very address, and not have run out by this machine's clock and the server's"
            ),
        ),
        300..=399 => {
            Tried::Never(Some(status), format!("{words}, another address; name that one in report_url"))
        }
        _ => Tried::Never(Some(status), format!("{words}; see report_url and the server's log")),
    }
}

/// `<Code>` and `<Message>` of S3's error. The rest may quote what was signed.
fn said(answer: &str) -> Option<String> {
    let field = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        let text = rest.split_once('<')?.0;
        Some(text.chars().filter(|c| !c.is_control()).take(120).collect::<String>())
    };
    let code = field("Code")?;
    Some(match field("Message") {
        Some(message) => format!("{code}: {message}"),
        None => code,
    })
}

/// What curl's exit status means for trying again (curl(1), EXIT CODES).
fn of_exit(code: i32, stderr: &str) -> Tried {
    let line = stderr.lines().last().filter(|line| !line.is_empty());
    let words = line.map_or_else(|| format!("curl: status {code}"), str::to_owned);
    match code {
        6 => Tried::Later(None, format!("{words}; see the name in report_url, and the name server in net")),
        7 => Tried::Later(None, format!("{words}; nobody listens there, or a firewall forbids it")),
        28 => Tried::Later(None, format!("{words}; the server or the way to it is slow or dead")),
        51 | 60 => Tried::Never(
            None,
            format!(
                "{words}; the server's certificate must be of this name and of an authority that is trusted (report_ca), and this machine's clock right"
            ),
        ),
        1 | 2 | 3 | 26 | 58 | 77 | 126 | 127 => Tried::Never(None, words),
        _ => Tried::Later(None, words),
    }
}

/// The report partition's file with the certificates to trust.
///
/// # Errors
/// It is not there, or there is no such partition.
pub fn ca_file(partition: Option<&Path>, name: &str) -> Result<std::path::PathBuf> {
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
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert_eq!(expand("http://h/{folder}/{run_id}?{x}", "0a", "T-0a"), "http://h/T-0a/0a?{x}");
    }

    #[test]
    fn what_curl_is_told() {
        let text = curl_config(
            "https://h/\"k\\?s",
            Path::new("/r.json"),
            Path::new("/a"),
            "0a1b2c3d",
            Some(Path::new("/ca.pem")),
        );
        assert!(text.starts_with("url = \"https://h/\\\"k\\\\?s\"\nupload-file = \"/r.json\"\n"), "{text}");
        assert!(
            text.contains("header = \"X-Gdsboot-Run-Id: 0a1b2c3d\"\n")
                && text.contains("cacert = \"/ca.pem\"\n")
        );
        assert!(!text.to_lowercase().contains("x-amz-"));
    }

    #[test]
    fn statuses_and_exits() {
        assert_eq!(of_status("200", ""), Tried::Sent(200));
        assert_eq!(of_status("204", ""), Tried::Sent(204));
        for later in ["408", "429", "500", "503", "000x"] {
            assert!(matches!(of_status(later, ""), Tried::Later(..)), "{later}");
        }
        for never in ["301", "400", "403", "404", "405", "411", "000"] {
            assert!(matches!(of_status(never, ""), Tried::Never(..)), "{never}");
        }
        let answer = "<Error><Code>SignatureDoesNotMatch</Code><Message>no\nway</Message><StringToSign>s3cret</StringToSign>";
        let Tried::Never(Some(403), words) = of_status("403", answer) else { panic!() };
        assert!(
            words.contains("403 (SignatureDoesNotMatch: noway);") && !words.contains("s3cret"),
            "{words}"
        );
        assert_eq!(said("<Code>"), None);
        let words = |tried| match tried {
            Tried::Later(None, words) => words,
            other => panic!("{other:?}"),
        };
        assert!(words(of_exit(7, "curl: (7) Failed to connect to h port 9")).starts_with("curl: (7) Failed"));
        assert_eq!(words(of_exit(55, "")), "curl: status 55");
        assert!(matches!(of_exit(60, "curl: (60) SSL"), Tried::Never(..)));
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
        let (delivery, pauses) = tried(vec![later()], 3);
        assert_eq!((delivery.tries, pauses.as_slice()), (1, &[][..]));
        assert_eq!(delivery.words(), "NOT sent to http://h (1 try, 0 s): busy");
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ca_file(None, "ca.pem").unwrap_err().to_string().contains("no report partition"));
        assert!(ca_file(Some(dir.path()), "ca.pem").unwrap_err().to_string().contains("report_ca = ca.pem"));
        fs_err::write(dir.path().join("ca.pem"), "").unwrap();
        assert!(ca_file(Some(dir.path()), "ca.pem").is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}") {
            let _ = check_url(&text);
            let _ = said(&text);
            let _ = of_status(&text, &text);
            expand(&text, "a", "b");
        }
    }
}
