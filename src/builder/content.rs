//! Bytes that go onto the disk: already in memory, or still in a file.

use anyhow::{Context as _, Result};
use std::io::{Cursor, Read};
use std::path::PathBuf;

/// What a file or a partition will hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of this file; it must not change between planning and writing.
    File(PathBuf),
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) => {
                let metadata = fs_err::metadata(path).context("measuring what goes onto the disk")?;
                anyhow::ensure!(metadata.is_file(), "{} is not a regular file", path.display());
                Ok(metadata.len())
            }
        }
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from the start.
    pub fn open(&self) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(Cursor::new(bytes)),
            Self::File(path) => {
                Box::new(fs_err::File::open(path).context("opening what goes onto the disk")?)
            }
        })
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes())
    }
}

impl From<PathBuf> for Content {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}
