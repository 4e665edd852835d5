//! The log of one boot: every line with the time at which it was seen, in seconds since QEMU's start.

use super::guest::{Line, Speaker};
use anyhow::{Context as _, Result};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// A guest that never stops talking does not fill the disk.
const LIMIT: u64 = 64 << 20;

/// A log file that is being written.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: BufWriter<fs_err::File>,
    written: u64,
}

impl Log {
    /// Begins a log.
    pub fn create(path: &Path) -> Result<Self> {
        let file = fs_err::File::create(path).context("beginning the log")?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), written: 0 })
    }

    /// Appends a line; what goes past the limit is left out, and the log says so.
    pub fn add(&mut self, line: &Line) -> Result<()> {
        if self.written >= LIMIT {
            return Ok(());
        }
        let speaker = match line.speaker {
            Speaker::Guest => "",
            Speaker::Qemu => "qemu: ",
        };
        let mut text = format!("[{:9.3}] {speaker}{}\n", line.at.as_secs_f64(), line.text);
        self.written += text.len() as u64;
        if self.written >= LIMIT {
            text.push_str("the rest was left out: the log has reached its limit\n");
        }
        self.write(text.as_bytes())
    }

    /// Appends a line of gdsboot's own.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.write(format!("gdsboot: {text}\n").as_bytes())
    }

    /// Writes out what is buffered.
    pub fn close(mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("writing {}", self.path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_carry_time_and_speaker_and_end_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut log = Log::create(&path).unwrap();
        let at = Duration::from_millis(3412);
        log.add(&Line { at, speaker: Speaker::Guest, text: "hello".into() }).unwrap();
        log.add(&Line { at, speaker: Speaker::Qemu, text: "warning".into() }).unwrap();
        log.written = LIMIT - 1;
        for _ in 0..3 {
            log.add(&Line { at, speaker: Speaker::Guest, text: "last".into() }).unwrap();
        }
        log.close().unwrap();
        assert_eq!(
            fs_err::read_to_string(path).unwrap(),
            "[    3.412] hello\n[    3.412] qemu: warning\n[    3.412] last\n\
             the rest was left out: the log has reached its limit\n"
        );
    }
}
