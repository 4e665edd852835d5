//! One try to send the report by the root's curl: what it is told, and what its end means for trying again.

use crate::boot_contract::RUN_NETWORK;
use crate::program::{self, ending};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

const SHELL: &str = "/bin/sh";
const CURL: &str = "/usr/bin/curl";
/// One try, at least: curl counts in seconds.
pub const SHORTEST_TRY: Duration = Duration::from_secs(1);
/// How long curl may overrun the time it was given, where there is so much.
pub const GRACE: Duration = Duration::from_secs(2);
/// No answer is kept or read further.
const ANSWER_LIMIT: u64 = 64 << 10;
/// A command that can make no file larger than that: an answer may be endless, and `/run` is memory. Its write fails then, and
/// it goes on. `ulimit -f` counts in 512 bytes (POSIX).
const LIMITED: &str = "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"";

/// What one try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The receiver has it.
    Sent(u16),
    /// It did not work, and may work later.
    Later(Option<u16>, String),
    /// It did not work, and will not.
    Never(Option<u16>, String),
}

/// curl's configuration file (curl(1), `--config`). S3 signs no header that is not named in the URL, and these never are.
pub fn config(url: &str, report: &Path, answer: &Path, run_id: &str, ca: Option<&Path>) -> String {
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

/// One try, which ends within `limit`.
pub fn put(config: &str, limit: Duration) -> Tried {
    let answer = Path::new("/").join(RUN_NETWORK).join("answer");
    let _ = std::fs::remove_file(&answer);
    let seconds = limit.saturating_sub(GRACE).max(SHORTEST_TRY).as_secs().to_string();
    // curl must see --disable first, or it reads a configuration of its own.
    let arguments = ["-c", LIMITED, CURL, "--disable", "--max-time", &seconds, "--config", config];
    match program::run(SHELL, &arguments, limit) {
        Ok(finished) => match finished.status.code() {
            Some(code) => of_end(code, finished.stdout.trim(), finished.stderr.trim(), &beginning(&answer)),
            None => Tried::Later(None, format!("curl: {}", ending(Some(finished.status), limit))),
        },
        Err(error) => Tried::Later(None, crate::error::one_line(&error)),
    }
}

/// As much of the answer as is read.
fn beginning(answer: &Path) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(answer).and_then(|file| file.take(ANSWER_LIMIT).read_to_end(&mut bytes));
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}

/// What curl's end means: its exit status, the HTTP status that it wrote, its words and the answer's.
fn of_end(code: i32, status: &str, stderr: &str, answer: &str) -> Tried {
    match code {
        0 => of_status(status, answer),
        // The answer is longer than what is kept of it; that it came is what matters.
        23 if status.parse::<u16>().is_ok_and(|status| status > 0) => of_status(status, answer),
        _ => of_exit(code, stderr),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_curl_is_told() {
        let text = config(
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

    #[test]
    fn an_endless_answer_takes_no_room_and_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answer");
        let to = format!("of={}", file.display());
        let arguments = ["-c", LIMITED, "dd", "if=/dev/zero", &to, "bs=1000", "count=1000"];
        let finished = program::run(SHELL, &arguments, Duration::from_secs(60)).unwrap();
        // Its write failed, and no signal ended it.
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert_eq!(fs_err::metadata(&file).unwrap().len(), ANSWER_LIMIT);
        fs_err::write(&file, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(beginning(&file).len() as u64, ANSWER_LIMIT);
        assert_eq!(beginning(&dir.path().join("none")), "");
        let write_error = "curl: (23) Failure writing output to destination";
        assert_eq!(of_end(23, "201", write_error, "x"), Tried::Sent(201));
        assert!(matches!(of_end(23, "503", write_error, "x"), Tried::Later(Some(503), _)));
        assert_eq!(of_end(23, "000", write_error, ""), Tried::Later(None, write_error.into()));
        assert_eq!(of_end(28, "200", "slow", ""), of_exit(28, "slow"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}") {
            let _ = said(&text);
            let _ = of_status(&text, &text);
        }
    }
}
