//! Plain text in 80 columns: wrapping, and making what was read from a machine safe to show on a terminal.

/// The width of every rendering, in columns.
pub const WIDTH: usize = 80;

/// `text` without anything that a terminal would obey: control characters become `?`.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The same for text of several lines.
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Breaks `text` into lines of at most [`WIDTH`] columns: the first begins with `first`, the others with as many
/// spaces. A word that is too long is cut.
pub fn wrap(first: &str, text: &str) -> Vec<String> {
    wrap_in(WIDTH, first, text)
}

/// The same in lines of at most `width` columns, at least two.
pub fn wrap_in(width: usize, first: &str, text: &str) -> Vec<String> {
    let indent = first.chars().count().min(width / 2);
    let room = width.max(2) - indent;
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    let text = clean(text);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        let space = usize::from(length > 0);
        if length + space + word.len() > room && length > 0 {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            lines.push(word.iter().collect());
            word = rest;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        length += word.len();
        line.extend(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    let blank = " ".repeat(indent);
    let mut lead = first.to_owned();
    for line in &mut lines {
        *line = format!("{lead}{line}").trim_end().to_owned();
        lead.clone_from(&blank);
    }
    lines
}

/// At most `room` columns of `text`, the end replaced by `...` where it is longer.
pub fn cut(text: &str, room: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= room {
        return text;
    }
    let kept: String = text.chars().take(room.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// A size in binary units, as memory and PCI windows are sized: `16 MiB`, and in tenths where it is no whole number.
pub fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1024_u64;
    while unit + 1 < UNITS.len() && bytes >= scale * 1024 {
        scale *= 1024;
        unit += 1;
    }
    if bytes.is_multiple_of(scale) {
        format!("{} {}", bytes / scale, UNITS[unit])
    } else {
        format!("{:.1} {}", bytes as f64 / scale as f64, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hang_under_their_label() {
        let text = "word ".repeat(20);
        let lines = wrap(" 1. ", &text);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with(" 1. word") && lines[1].starts_with("    word"));
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn long_words_are_cut_and_empty_text_is_a_line() {
        let lines = wrap("  ", &format!("see {}", "x".repeat(200)));
        assert_eq!(lines.iter().map(|line| line.trim().len()).collect::<Vec<_>>(), [3, 78, 78, 44]);
        assert_eq!(wrap("label:", ""), ["label:"]);
        assert_eq!(wrap(&"l".repeat(100), "é é").len(), 1);
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}d"), "a?[2Jb?c?d");
        assert_eq!(clean_lines("a\x1b]0;x\u{7}\nb\r\n"), "a?]0;x?\nb?\n");
        assert_eq!(cut("abcdefgh", 6), "abc...");
    }

    #[test]
    fn sizes_in_binary_units() {
        assert_eq!(binary_size(512), "512 B");
        assert_eq!(binary_size(16 << 20), "16 MiB");
        assert_eq!(binary_size(3 << 29), "1.5 GiB");
        assert_eq!(binary_size(u64::MAX), "16384.0 PiB");
    }
}
