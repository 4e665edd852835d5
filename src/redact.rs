//! Hiding what must not be published. A pre-signed URL lets whoever has it write (its query holds the signature), and a URL
//! may hold a password; what a report, a capture or a screen shows of one has neither.

use crate::boot_contract::PARAM_REPORT_URL;
use std::ops::Range;

/// What stands where something was hidden.
const HIDDEN: &str = "REDACTED";

/// A URL without its query and without user name and password. What is no URL may be one that was mistyped: there,
/// whatever could be a password is hidden.
pub fn url(url: &str) -> String {
    let (front, query) = match url.find('?') {
        Some(at) => (&url[..at], format!("?{HIDDEN}")),
        None => (url, String::new()),
    };
    let is_scheme = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let Some((scheme, rest)) = front.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return match (url.contains('@'), front.rfind('@')) {
            (false, _) => format!("{front}{query}"),
            // A password may have any character, a question mark too.
            (true, Some(at)) if !url[front.len()..].contains('@') => {
                format!("{HIDDEN}@{}{query}", &front[at + 1..])
            }
            _ => HIDDEN.to_owned(),
        };
    };
    let authority = authority(rest);
    match authority.rfind('@') {
        Some(at) if is_host(&authority[at + 1..]) => {
            format!("{scheme}://{HIDDEN}@{}{query}", &rest[at + 1..])
        }
        None if is_host(authority) => format!("{front}{query}"),
        _ => format!("{scheme}://{HIDDEN}"),
    }
}

/// What stands between `://` and the path (RFC 3986, 3.2).
pub fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// `HOST`, `HOST:PORT` or `[IPv6]:PORT`. What is something else may be a user name and half of a password.
pub fn is_host(text: &str) -> bool {
    let after = match text.strip_prefix('[') {
        Some(six) => six.split_once(']').map(|(_, after)| after),
        None => Some(&text[text.find(':').unwrap_or(text.len())..]),
    };
    let is_port = |after: &str| {
        after.is_empty()
            || after.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
    };
    !text.is_empty() && !text.starts_with(':') && after.is_some_and(is_port)
}

/// A text in which a command line of the kernel or of QEMU may stand, with the report's URL hidden in each of its spellings:
/// `gdsboot.report_url=URL`, and the `name=opt/gdsboot/report_url,string=URL` of QEMU's fw_cfg. What is mistyped may be
/// that URL too, so the values of all parameters that begin with `gdsboot.` are treated as such.
pub fn command_line(text: &str) -> String {
    hide(text, false)
}

/// The same of one argument of a program, which may have spaces.
pub fn argument(word: &str) -> String {
    hide(word, true)
}

/// The same as [`command_line`] of bytes, which may hold anything else as well.
pub fn command_line_bytes(bytes: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&bytes);
    let hidden = hide(&text, false);
    // What is no text must not be damaged where there is nothing to hide.
    if hidden == text { bytes } else { hidden.into_bytes() }
}

fn hide(text: &str, is_one_word: bool) -> String {
    let normal = normal(text);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for start in values(&normal, is_one_word) {
        if start >= done {
            let (start, end) = value(text, start, is_one_word);
            out.push_str(&text[done..start]);
            out.push_str(&url(&text[start..end]));
            done = end;
        }
    }
    out.push_str(&text[done..]);
    out
}

/// In small letters and with `_` for `-`, as the kernel reads names of parameters; byte for byte as long.
fn normal(text: &str) -> String {
    text.to_ascii_lowercase().replace('-', "_")
}

/// Where values begin that may be the report's URL, in ascending order.
fn values(text: &str, is_one_word: bool) -> Vec<usize> {
    let url_key = PARAM_REPORT_URL.trim_start_matches("gdsboot.");
    let mut found = Vec::new();
    let is_fw_cfg = |at: usize, name: &str| text[word(text, at, is_one_word)].contains(name);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'=' {
            let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
            let before = text.as_bytes()[..at].iter().rposition(|byte| !is_key(byte));
            let key = &text[before.map_or(0, |before| before + 1)..at];
            let is_ours = key.contains("gdsboot.") || key.contains(url_key);
            if is_ours || key == "string" && is_fw_cfg(at, "gdsboot/") {
                found.push(at + 1);
            }
        } else if text.as_bytes()[at..].starts_with(url_key.as_bytes()) {
            // Whatever else stands between the key and its value.
            let after = at + url_key.len();
            let front = text[..at].strip_suffix(['.', '/', '_']);
            if front.is_some_and(|front| front.ends_with("gdsboot"))
                && let Some(other) = text[after..].chars().next()
                && other != '='
                && !(other == ',' && is_fw_cfg(at, "string="))
            {
                found.push(after + other.len_utf8());
            }
        }
    }
    found
}

/// The word at a byte, between blanks and control characters.
fn word(text: &str, at: usize, is_one_word: bool) -> Range<usize> {
    let is_blank = |byte: &u8| *byte <= b' ' && !is_one_word;
    let start = text.as_bytes()[..at].iter().rposition(is_blank).map_or(0, |blank| blank + 1);
    let end = text.as_bytes()[at..].iter().position(is_blank).map_or(text.len(), |blank| at + blank);
    start..end
}

/// The value that begins at `start`, without its quotes.
fn value(text: &str, start: usize, is_one_word: bool) -> (usize, usize) {
    let word = word(text, start, is_one_word);
    let quote = |at: usize| text[at..].chars().next().filter(|c| !is_one_word && matches!(c, '"' | '\''));
    // `key="a b"`, `"key=a b"` and `key=a b`: quotes keep spaces together.
    let own = quote(start);
    let start = start + own.map_or(0, char::len_utf8);
    let end = match own.or_else(|| quote(word.start)) {
        Some(quote) => text[start..].find([quote, '\n']).map_or(text.len(), |end| start + end),
        None => word.end,
    };
    // QEMU's -smbios type=11 has several values, and a comma in one of them is doubled.
    let is_list = text[word.start..start].contains("type=11");
    let mut commas = text[start..end].match_indices(",value=").map(|(at, _)| start + at);
    let next = commas.find(|at| is_list && !text[..*at].ends_with(','));
    (start, next.unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries_and_passwords_are_hidden() {
        for (plain, shown) in [
            ("http://10.0.2.2:8080/a/b.json", "http://10.0.2.2:8080/a/b.json"),
            ("https://s3/b/k?X-Amz-Signature=abc", "https://s3/b/k?REDACTED"),
            ("https://me:pass@host/x@y?z", "https://REDACTED@host/x@y?REDACTED"),
            ("https://me:p@ss@host", "https://REDACTED@host"),
            ("https://[fd00::1]:8443/x?s", "https://[fd00::1]:8443/x?REDACTED"),
            // What is mistyped.
            ("me:secret@reports.example/x", "REDACTED@reports.example/x"),
            ("https:/me:secret@h/x?s", "REDACTED@h/x?REDACTED"),
            ("me:se?cret@h/x", "REDACTED"),
            ("h/x?to=a@b&sig=secret", "REDACTED"),
            ("https://me:pa/ss@host/x", "https://REDACTED"),
            ("https://me:pa?ss@host/x", "https://REDACTED"),
            ("https://me:p@host:pa/ss@host/x", "https://REDACTED"),
            ("me:secret@h/https://x", "REDACTED@h/https://x"),
            ("nonsense?secret", "nonsense?REDACTED"),
            ("", ""),
        ] {
            assert_eq!(url(plain), shown);
        }
    }

    #[test]
    fn command_lines_keep_everything_else() {
        let line = "a gdsboot.report_url=https://s3/k?sig b gdsboot.report_url=\"http://u:p@h/x y?s\" c\n";
        assert_eq!(
            command_line(line),
            "a gdsboot.report_url=https://s3/k?REDACTED b gdsboot.report_url=\"http://REDACTED@h/x y?REDACTED\" c\n"
        );
        assert_eq!(command_line("gdsboot.report_url"), "gdsboot.report_url");
        assert_eq!(command_line("gdsboot.report_url="), "gdsboot.report_url=");
        assert_eq!(
            command_line("gdsboot.report_url\u{fffd}\u{fffd} b"),
            "gdsboot.report_url\u{fffd}\u{fffd} b"
        );
        assert_eq!(command_line_bytes(b"\xff no url".to_vec()), b"\xff no url");
        let log = b"5,1,2,-;Kernel command line: quiet gdsboot.report_url=http://h/k?sig\nnext\n".to_vec();
        assert!(String::from_utf8(command_line_bytes(log)).unwrap().ends_with("http://h/k?REDACTED\nnext\n"));
    }

    #[test]
    fn every_spelling_is_known() {
        for (plain, shown) in [
            ("gdsboot.report-url=https://h/k?sig b", "gdsboot.report-url=https://h/k?REDACTED b"),
            ("GDSBOOT.Report_URL=https://h/k?sig b", "GDSBOOT.Report_URL=https://h/k?REDACTED b"),
            ("gdsboot.reprot_url=https://h/k?sig b", "gdsboot.reprot_url=https://h/k?REDACTED b"),
            ("report_url=me:secret@h/k b", "report_url=REDACTED@h/k b"),
            ("gdsboot.report_url:https://h/k?sig b", "gdsboot.report_url:https://h/k?REDACTED b"),
            ("\"gdsboot.report_url=http://h/x y?s\" c", "\"gdsboot.report_url=http://h/x y?REDACTED\" c"),
            (
                "-fw_cfg name=opt/gdsboot/report_url,string=https://u:p@h/k?s -x",
                "-fw_cfg name=opt/gdsboot/report_url,string=https://REDACTED@h/k?REDACTED -x",
            ),
            (
                "-fw_cfg string=https://h/k?s,name=opt/gdsboot/report_url -x",
                "-fw_cfg string=https://h/k?REDACTED -x",
            ),
            (
                "args: -fw_cfg 'name=opt/gdsboot/report-url,string=https://h/x y?s' -x",
                "args: -fw_cfg 'name=opt/gdsboot/report-url,string=https://h/x y?REDACTED' -x",
            ),
            (
                "<entry name='opt/gdsboot/report_url'>https://h/k?s</entry>",
                "<entry name='opt/gdsboot/report_url'>https://h/k?REDACTED",
            ),
            (
                "-smbios type=11,value=gdsboot.report_url=https://h/k?a,,value=s,value=gdsboot.host=pair;distance=PIX -x",
                "-smbios type=11,value=gdsboot.report_url=https://h/k?REDACTED,value=gdsboot.host=pair;distance=PIX -x",
            ),
            // What is not ours stays as it is.
            ("-fw_cfg name=opt/other,string=https://h/k?s", "-fw_cfg name=opt/other,string=https://h/k?s"),
            ("gdsboot.net=any,10.0.0.1/8 root=UUID=1?2", "gdsboot.net=any,10.0.0.1/8 root=UUID=1?2"),
        ] {
            assert_eq!(command_line(plain), shown);
        }
        assert_eq!(
            argument("name=opt/gdsboot/report_url,string=https://me:a b@h/x y?s"),
            "name=opt/gdsboot/report_url,string=https://REDACTED@h/x y?REDACTED"
        );
        assert_eq!(
            argument("string=http://h/a b?s,name=opt/gdsboot/report_url"),
            "string=http://h/a b?REDACTED"
        );
        // Bytes that are no text stay as they are where there is nothing to hide.
        let raw = b"\xff\x0bgdsboot.host=pair;distance=PIX\0\0".to_vec();
        assert_eq!(command_line_bytes(raw.clone()), raw);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_secret_is_left(
            before in ".{0,20}",
            key in "gdsboot[.]report[-_]url=|gdsboot[.][a-z]{1,9}=|name=opt/gdsboot/report[-_]url,string=",
            scheme in "(https?:(//|/)?)?",
            user in "(([a-z]{1,5}:)?sEcReT@)?",
            path in "[a-z/]{0,10}",
            after in "( .{0,20})?",
        ) {
            let line = format!("{before} {key}{scheme}{user}h/{path}?sEcReT{after}");
            prop_assume!(!before.contains("sEcReT") && !after.contains("sEcReT"));
            let hidden = command_line(&line);
            prop_assert!(!hidden.contains("sEcReT"), "{line} became {hidden}");
            prop_assert!(!argument(&line).contains("sEcReT"));
            url(&before);
            command_line(&before);
            argument(&before);
        }
    }
}
