//! A serial console as lines: bytes in, text out. Firmware and boot loaders paint screens with control sequences
//! (ECMA-48); a jump of the cursor ends a line as a line break does, everything else of that kind is dropped.

/// A longer line is cut into several.
const MAX_LINE: usize = 64 << 10;

/// Makes lines of bytes.
#[derive(Debug, Default)]
pub struct LineSplitter {
    line: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and a byte that announces one more, such as a character set.
    Skip,
    /// In a control sequence: ESC [ ...
    Sequence,
}

impl LineSplitter {
    /// Takes bytes; gives the lines that they complete, blank ones left out.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            let ends_line = match (self.state, *byte) {
                (State::Text, b'\n') => true,
                (State::Text, 0x1b) => {
                    self.state = State::Escape;
                    false
                }
                (State::Text, b'\t' | b' '..=0x7e | 0x80..) => {
                    self.line.push(*byte);
                    self.line.len() >= MAX_LINE
                }
                (State::Text, _) => false,
                (State::Escape, b'[') => {
                    self.state = State::Sequence;
                    false
                }
                (State::Escape, b'(' | b')' | b'#' | b' ') => {
                    self.state = State::Skip;
                    false
                }
                (State::Sequence, 0x20..=0x3f) => false,
                (State::Sequence, end) => {
                    self.state = State::Text;
                    // Cursor position, and erasing the screen.
                    matches!(end, b'H' | b'f' | b'J')
                }
                (State::Escape | State::Skip, _) => {
                    self.state = State::Text;
                    false
                }
            };
            if ends_line {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// What stands after the last line break, if it is not blank.
    pub fn finish(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        (!text.trim_start().is_empty()).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = splitter.push(bytes);
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_end_at_breaks_and_at_jumps_of_the_cursor() {
        assert_eq!(all(b"one\r\n\r\n  \ntwo\nthree"), ["one", "two", "three"]);
        assert_eq!(
            all(b"\x1b[2J\x1b[01;01H\x1b[0m\x1b[37mBdsDxe: loading\x1b[05;01Hnext"),
            ["BdsDxe: loading", "next"]
        );
        assert_eq!(all(b"\x1b(Ba\x1b7b\x07\x00c"), ["abc"]);
        assert_eq!(all("größe\n".as_bytes()), ["größe"]);
        assert_eq!(all(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = all(&[b'x'; MAX_LINE * 2 + 5]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, 5]);
    }

    proptest! {
        #[test]
        fn where_reads_are_cut_does_not_matter(bytes: Vec<u8>, at: prop::sample::Index) {
            let at = if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
            let mut splitter = LineSplitter::default();
            let mut lines = splitter.push(&bytes[..at]);
            lines.extend(splitter.push(&bytes[at..]));
            lines.extend(splitter.finish());
            let clean = lines.iter().all(|line| !line.chars().any(|c| c.is_ascii_control() && c != '\t'));
            prop_assert!(clean);
            prop_assert_eq!(lines, all(&bytes));
        }
    }
}
