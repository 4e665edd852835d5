//! Files that are packed as their names say: modules, and logs that were rotated away.

use anyhow::Context as _;
use std::io::{Read, Write as _};

/// More memory than `xz -9` asks for is asked by none but damaged and hostile files.
const XZ_MEMORY: u64 = 128 << 20;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// `.gz`
    Gzip,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
}

impl Packing {
    /// By a file's name.
    pub fn of(path: &str) -> Self {
        match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("gz") => Self::Gzip,
            Some("xz") => Self::Xz,
            Some("zst") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The bytes as they were before they were packed. How many there are is the caller's to bound.
    pub fn reader<'a>(self, file: impl Read + 'a) -> anyhow::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(file),
            // Several members in a row are one file, as for gzip itself.
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Self::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).context("unpacking xz")?;
                Box::new(liblzma::read::XzDecoder::new_stream(file, stream))
            }
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(file).context("unpacking zstd")?),
        })
    }

    /// Packs bytes.
    pub fn pack(self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut packed = Vec::new();
        match self {
            Self::None => packed.extend(bytes),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::default());
                encoder.write_all(bytes).and_then(|()| encoder.try_finish()).context("packing gzip")?;
            }
            Self::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(&mut packed, 6);
                encoder.write_all(bytes).and_then(|()| encoder.try_finish()).context("packing xz")?;
            }
            Self::Zstd => packed = zstd::encode_all(bytes, 3).context("packing zstd")?,
        }
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [(&str, Packing); 4] = [
        ("a.ko", Packing::None),
        ("a.gz", Packing::Gzip),
        ("kern.log.2.xz", Packing::Xz),
        ("a.zst", Packing::Zstd),
    ];

    fn unpacked(packing: Packing, packed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        packing.reader(packed)?.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_is_no_packed_file_is_an_error() {
        for (name, packing) in ALL {
            assert_eq!(Packing::of(name), packing);
            let unpacked = unpacked(packing, b"neither");
            assert_eq!(unpacked.is_ok(), packing == Packing::None, "{name}");
        }
    }

    #[test]
    fn a_small_file_that_unpacks_to_much_is_bounded_by_its_reader() {
        for (name, packing) in ALL {
            let bomb = packing.pack(&vec![0; 4 << 20]).unwrap();
            assert_eq!(unpacked(packing, &bomb).unwrap().len(), 1 << 20, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..2000), n in 0..4usize) {
            let packing = ALL[n].1;
            prop_assert_eq!(unpacked(packing, &packing.pack(&bytes).unwrap()).unwrap(), bytes);
        }
    }
}
