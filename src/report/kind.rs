//! What kind of file an image is, by its first bytes and never by its name.

use super::source::qcow2;
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// A kind of image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A disk as it is, or anything that is none of the others.
    Raw,
    /// qcow2.
    Qcow2,
    /// ISO 9660, for a CD-ROM drive.
    Iso,
}

/// Where ISO 9660 has its first volume descriptor (ECMA-119, 8.1), and the identifier in it.
const ISO: (u64, [u8; 5]) = (32_769, *b"CD001");

impl Kind {
    /// Looks at a file. One that cannot be read is raw: whoever reads it next says why.
    pub fn of(file: &File) -> Self {
        let begins = |at, expected: &[u8]| {
            let mut bytes = vec![0; expected.len()];
            file.read_exact_at(&mut bytes, at).is_ok() && bytes == expected
        };
        if begins(0, &qcow2::MAGIC) {
            Self::Qcow2
        } else if begins(ISO.0, &ISO.1) {
            Self::Iso
        } else {
            Self::Raw
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_bytes() {
        let kind = |at, bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, at).unwrap();
            Kind::of(&file)
        };
        assert_eq!(kind(0, b"QFI\xfb"), Kind::Qcow2);
        assert_eq!(kind(32_768, b"\x01CD001"), Kind::Iso);
        assert_eq!(kind(512, b"EFI PART"), Kind::Raw);
        assert_eq!(kind(0, b""), Kind::Raw);
    }
}
