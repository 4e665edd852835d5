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
}
