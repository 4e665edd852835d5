//! Bytes that go into a root or onto the disk: in memory, or still in a file.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// What a file will hold. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A part of an open file.
    Slice {
        /// The file; nobody writes to it any more.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Content {
    /// The whole of a regular file on disk.
    pub fn of_file(path: &Path) -> Result<Self> {
        let file = fs_err::File::open(path)?.into_file();
        let metadata = file.metadata().with_context(|| format!("reading {}", path.display()))?;
        ensure!(metadata.is_file(), "{} is not a regular file", path.display());
        Ok(Self::Slice { file: Arc::new(file), offset: 0, len: metadata.len() })
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice { len, .. } => *len,
        }
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reader from the first byte.
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, position: 0 }
    }

    /// All bytes in memory.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).unwrap_or_default());
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The first `n` bytes, or fewer if there are not so many.
    pub fn head(&self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(n);
        self.reader().take(n as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

/// Reads a [`Content`].
#[derive(Debug)]
pub struct ContentReader<'a> {
    content: &'a Content,
    position: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.content.len().saturating_sub(self.position);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let n = match self.content {
            Content::Bytes(bytes) => {
                // The position never exceeds the length, which is a usize.
                let start = self.position as usize;
                buf[..want].copy_from_slice(&bytes[start..start + want]);
                want
            }
            Content::Slice { file, offset, .. } => file.read_at(&mut buf[..want], offset + self.position)?,
        };
        if n == 0 && want > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a file changed while it was read: it is shorter than it was",
            ));
        }
        self.position += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.efi");
        let error = Content::of_file(&missing).unwrap_err().to_string();
        assert!(error.contains(missing.to_str().unwrap()), "{error}");
        let error = Content::of_file(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not a regular file"), "{error}");
    }

    #[test]
    fn a_file_that_shrank_is_an_error_and_not_a_short_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs_err::write(&path, b"0123456789").unwrap();
        let content = Content::of_file(&path).unwrap();
        assert_eq!((content.len(), content.head(3).unwrap()), (10, b"012".to_vec()));
        fs_err::write(&path, b"01").unwrap();
        assert_eq!(content.read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
