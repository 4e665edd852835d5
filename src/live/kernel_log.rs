//! The kernel's log while the run goes on: what was logged since the last look, from `/dev/kmsg`.

use crate::facts::kmsg::{self, Next, Record};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

/// How many lines of one look are kept: the first half and the last half of what was logged.
const KEPT: usize = 60;

/// A place in the log.
#[derive(Debug)]
pub struct KernelLog {
    /// `None` where the log cannot be read; then there are no lines.
    file: Option<File>,
}

impl KernelLog {
    /// Begins at the log's end as it is now.
    pub fn open() -> Self {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok();
        let mut log = Self { file };
        log.skip();
        log
    }

    /// Forgets what was logged until now.
    pub fn skip(&mut self) {
        if let Some(file) = &mut self.file {
            let _ = file.seek(SeekFrom::End(0));
        }
    }

    /// What the kernel (and no program) logged since the last look.
    pub fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(file) = &mut self.file else { return lines };
        loop {
            match kmsg::next(file) {
                Ok(Next::Record(record)) => {
                    let record = String::from_utf8_lossy(&record);
                    lines.extend(
                        Record::parse(&record).filter(|record| record.facility == 0).map(|r| r.shown()),
                    );
                }
                Ok(Next::Overwritten) => {}
                Ok(Next::End) | Err(_) => break,
            }
        }
        shorten(lines)
    }
}

fn shorten(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > KEPT {
        let left_out = lines.len() - KEPT;
        let end = lines.split_off(lines.len() - KEPT / 2);
        lines.truncate(KEPT / 2);
        lines.push(format!("... {left_out} lines left out ..."));
        lines.extend(end);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_both_ends() {
        let lines = shorten((0..1000).map(|n| n.to_string()).collect());
        assert_eq!(lines.len(), KEPT + 1);
        assert_eq!((lines[0].as_str(), lines[KEPT].as_str()), ("0", "999"));
        assert_eq!(lines[KEPT / 2], "... 940 lines left out ...");
        assert_eq!(shorten(vec!["a".into()]), ["a"]);
    }
}
