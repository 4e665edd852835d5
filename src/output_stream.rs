//! Standard output, for results.

use std::io::{self, ErrorKind, Write};

/// Where results are written. Whoever closes it (`gdsboot report show X | head`) has seen enough: what comes after that is
/// dropped, and the command goes on to its own end and status.
pub fn stdout() -> impl Write {
    UntilClosed { inner: io::stdout().lock(), is_closed: false }
}

struct UntilClosed<W> {
    inner: W,
    is_closed: bool,
}

impl<W: Write> UntilClosed<W> {
    fn or_closed<T>(&mut self, result: io::Result<T>, dropped: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(dropped)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for UntilClosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(bytes.len());
        }
        let written = self.inner.write(bytes);
        self.or_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.or_closed(flushed, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, pipe};

    fn closed() -> UntilClosed<io::PipeWriter> {
        let (reader, inner): (PipeReader, _) = pipe().unwrap();
        drop(reader);
        UntilClosed { inner, is_closed: false }
    }

    #[test]
    fn what_nobody_reads_is_dropped() {
        let mut out = closed();
        for _ in 0..2 {
            out.write_all(&[b'x'; 100_000]).unwrap();
            out.flush().unwrap();
        }
        assert!(out.is_closed);
    }

    #[test]
    fn other_errors_stay_errors() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut out = UntilClosed { inner: full, is_closed: false };
        assert_eq!(out.write_all(b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
