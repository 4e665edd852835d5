//! The kernel log as records: `prio,seq,usec,flags[,...];text` (Documentation/ABI/testing/dev-kmsg).

use std::io::{self, ErrorKind, Read};

/// The longest record that the kernel hands out (kernel/printk/internal.h, `PRINTKRB_RECORD_MAX` and its dictionary).
const LONGEST: usize = 8192;

/// What reading on in `/dev/kmsg` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A record with its dictionary, as the kernel wrote it.
    Record(Vec<u8>),
    /// Records that were overwritten before they could be read; the next ones follow.
    Overwritten,
    /// All that there is until now.
    End,
}

/// Reads on in `/dev/kmsg`, which was opened without blocking: one read is one record.
///
/// # Errors
/// Where the kernel refuses to go on.
pub fn next(log: &mut impl Read) -> io::Result<Next> {
    let mut record = [0; LONGEST];
    loop {
        return match log.read(&mut record) {
            Ok(0) => Ok(Next::End),
            Ok(length) => Ok(Next::Record(record[..length].to_vec())),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::BrokenPipe => Ok(Next::Overwritten),
                ErrorKind::WouldBlock => Ok(Next::End),
                _ => Err(error),
            },
        };
    }
}

/// One record of the kernel log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// 0 for the kernel itself; anything else was written by a program.
    pub facility: u32,
    /// Counts the records of a boot.
    pub seq: u64,
    /// Microseconds since the kernel started.
    pub usec: u64,
    /// The message.
    pub text: String,
}

impl Record {
    /// Reads one record; `None` where it is not one. Continuation lines (` KEY=value`) are not part of the message.
    pub fn parse(record: &str) -> Option<Self> {
        let (head, rest) = record.split_once(';')?;
        let mut fields = head.split(',');
        let prefix: u32 = fields.next()?.parse().ok()?;
        let seq = fields.next()?.parse().ok()?;
        let usec = fields.next()?.parse().ok()?;
        let text = unescape(rest.lines().next().unwrap_or_default());
        Some(Self { level: (prefix & 7) as u8, facility: prefix >> 3, seq, usec, text })
    }

    /// The record as `dmesg` shows it: `[    4.210000] text`.
    pub fn shown(&self) -> String {
        format!("[{:5}.{:06}] {}", self.usec / 1_000_000, self.usec % 1_000_000, self.text)
    }
}

/// The kernel writes what cannot be printed as `\x1b`, and a backslash as `\x5c`; what cannot be printed stays so.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 2..at + 4).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) if byte == b'\\' || byte.is_ascii_graphic() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push_str("\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_a_dictionary() {
        let record =
            "3,912,4210000,-;NVRM: No NVIDIA GPU found.\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n";
        let record = Record::parse(record).unwrap();
        assert_eq!((record.level, record.facility, record.seq, record.usec), (3, 0, 912, 4_210_000));
        assert_eq!(record.shown(), "[    4.210000] NVRM: No NVIDIA GPU found.");
    }

    #[test]
    fn escapes_of_what_can_be_printed_are_undone() {
        assert_eq!(unescape(r"C:\x5cx \x1b[31m \xc3\xa9 \x"), r"C:\x \x1b[31m \xc3\xa9 \x");
    }

    #[test]
    fn anything_else_is_no_record() {
        for text in ["", "hello", "3,1;x", "a,1,2,-;x", "-1,1,2,-;x"] {
            assert_eq!(Record::parse(text), None, "{text}");
        }
    }
}
