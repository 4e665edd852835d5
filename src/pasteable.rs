//! Command lines for people: what is shown can be pasted into a shell.

use std::ffi::OsStr;

/// A command line that a POSIX shell reads back as these words.
pub fn pasteable<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> String {
    let quoted = words.into_iter().map(|word| {
        let word = word.as_ref().to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%^".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The same with variables of its environment before it.
pub fn with_environment<'a>(
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    words: impl IntoIterator<Item = &'a str>,
) -> String {
    // A variable whose name is quoted would be the command.
    let variables = environment.into_iter().map(|(name, value)| format!("{name}={} ", pasteable([value])));
    variables.collect::<String>() + &pasteable(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_words_back() {
        let words = ["qemu", "", "a b", "it's", "$HOME", "file=/x,y"];
        assert_eq!(pasteable(words), r"qemu '' 'a b' 'it'\''s' '$HOME' file=/x,y");
        let script = format!("printf '%s\\n' {}", pasteable(&words[1..]));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "\na b\nit's\n$HOME\nfile=/x,y\n");
    }

    #[test]
    fn a_shell_reads_variables_before_the_words_back() {
        let line = with_environment([("A", "b c"), ("D", "")], ["sh", "-c", "echo \"$A.$D.\""]);
        assert_eq!(line, "A='b c' D='' sh -c 'echo \"$A.$D.\"'");
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "b c..\n");
    }
}
