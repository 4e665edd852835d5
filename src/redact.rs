//! Hiding what must not be published. A pre-signed URL lets whoever has it write (its query holds the signature), and a URL
//! may hold a password; what a report, a capture or a screen shows of one has neither.

use crate::boot_contract::PARAM_REPORT_URL;

/// What stands where something was hidden.
const HIDDEN: &str = "REDACTED";

/// A URL without its query and without user name and password.
pub fn url(url: &str) -> String {
    let (front, query) = match url.find('?') {
        Some(at) => (&url[..at], format!("?{HIDDEN}")),
        None => (url, String::new()),
    };
    let Some((scheme, rest)) = front.split_once("://") else { return format!("{front}{query}") };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{HIDDEN}@{}{query}", &rest[at + 1..]),
        None => format!("{front}{query}"),
    }
}

/// A text in which a kernel command line may stand, with the report's URL hidden.
pub fn command_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PARAM_REPORT_URL) {
        let (before, found) = rest.split_at(at + PARAM_REPORT_URL.len());
        out.push_str(before);
        // `key="a b"` and `key=a b`: quotes keep spaces together.
        let quoted = found.starts_with("=\"");
        let ends = |c: char| if quoted { c == '"' || c == '\n' } else { c.is_whitespace() || c == '\0' };
        let start = if quoted { 2 } else { found.chars().next().map_or(0, char::len_utf8) };
        let end = found[start..].find(ends).map_or(found.len(), |at| start + at);
        out.push_str(&found[..start]);
        out.push_str(&url(&found[start..end]));
        rest = &found[end..];
    }
    out + rest
}

/// The same of bytes, which may hold anything else as well.
pub fn command_line_bytes(bytes: Vec<u8>) -> Vec<u8> {
    let name = PARAM_REPORT_URL.as_bytes();
    if !bytes.windows(name.len()).any(|window| window == name) {
        return bytes;
    }
    command_line(&String::from_utf8_lossy(&bytes)).into_bytes()
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

    proptest! {
        #[test]
        fn nothing_panics_and_no_secret_is_left(before in ".{0,20}", path in "[a-z/]{0,10}", after in "( .{0,20})?") {
            let line = format!("{before} gdsboot.report_url=http://h/{path}?sEcReT{after}");
            let hidden = command_line(&line);
            prop_assert!(!hidden.contains("sEcReT") || before.contains("sEcReT") || after.contains("sEcReT"));
            url(&before);
            command_line(&before);
        }
    }
}
