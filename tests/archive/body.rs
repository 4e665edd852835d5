//! What a server sends: bytes in memory, or a file too large to keep there.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that can be read from any offset. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// On disk, `len` bytes long.
    File {
        /// Where.
        path: Arc<PathBuf>,
        /// In bytes, as when the file was published.
        len: u64,
    },
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().into())
    }
}

impl Body {
    /// A file on disk.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let len = std::fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).len();
        Self::File { path: Arc::new(path), len }
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Up to `len` bytes from `offset`.
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let len = len.min(self.len().saturating_sub(offset));
        match self {
            Self::Bytes(bytes) => bytes[offset as usize..(offset + len) as usize].to_vec(),
            Self::File { path, .. } => {
                let mut file = std::fs::File::open(&**path).unwrap();
                file.seek(SeekFrom::Start(offset)).unwrap();
                let mut bytes = Vec::new();
                file.take(len).read_to_end(&mut bytes).unwrap();
                bytes
            }
        }
    }

    /// Everything.
    pub fn all(&self) -> Vec<u8> {
        self.read(0, self.len())
    }

    /// The same bytes, with the one at `at` turned over.
    pub fn altered(&self, at: u64) -> Self {
        let mut bytes = self.all();
        bytes[at as usize] ^= 0xff;
        bytes.into()
    }

    /// The first `len` bytes.
    pub fn truncated(&self, len: u64) -> Self {
        self.read(0, len).into()
    }
}
