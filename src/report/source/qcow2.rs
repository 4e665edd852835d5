//! Reads a qcow2 image, as QEMU's "qcow2 image file format" (docs/interop/qcow2.rst) describes it: versions 2 and 3, clusters
//! compressed by deflate or zstd. Read-only, the active state only.
//!
//! The crates that read this format refuse zstd, and trust what the file says of its own size; and all that is needed here is
//! one look-up. What would need another file (a backing file, external data) or a repair first is refused with the command
//! that helps.

use crate::error::{Advise as _, hinted};
use crate::report::fat::ReadAt;
use anyhow::{Context as _, Result, ensure};
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::sync::Mutex;

/// What the file begins with.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// QEMU refuses larger clusters (MAX_CLUSTER_BITS in block/qcow2.h).
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// QEMU refuses a larger table of the first level (QCOW_MAX_L1_SIZE).
const MAX_L1: u64 = 32 << 20;
/// The host offset in an entry of either level.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// Decompressed clusters that are kept: a filesystem goes to and fro between its table, a directory and data.
const KEPT: usize = 4;
/// Version 3: the cluster reads as zeros, whatever it is mapped to.
const ZERO: u64 = 1;

/// What helps where an image is damaged or cut off.
pub(super) const DAMAGED: &str =
    "copy it again; `qemu-img check IMAGE` says what is damaged, and with `-r all` may repair a copy";
/// What helps where an image cannot be read in the form that it has.
const CONVERT: &str = "make a plain one of it, `qemu-img convert -O raw IMAGE PLAIN.img`, and name that";

/// Incompatible features.
mod feature {
    pub const CORRUPT: u64 = 1 << 1;
    pub const EXTERNAL_DATA: u64 = 1 << 2;
    pub const COMPRESSION_TYPE: u64 = 1 << 3;
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// The reference counts may be wrong, which is nothing to a reader.
    pub const DIRTY: u64 = 1;
    pub const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Deflate,
    Zstd,
}

/// A qcow2 image in `D`.
#[derive(Debug)]
pub struct Qcow2<D> {
    file: D,
    /// Bytes of the disk, and of the file.
    size: u64,
    len: u64,
    cluster_bits: u32,
    version: u32,
    compression: Compression,
    l1: Vec<u64>,
    /// The clusters that were read last, the latest at the end, each with the entry that it belongs to: a filesystem reads
    /// them in small pieces.
    last: Mutex<VecDeque<(u64, Vec<u8>)>>,
}

impl<D: ReadAt> Qcow2<D> {
    /// Reads the header and the first level's table of an image in a file of `len` bytes.
    ///
    /// # Errors
    /// It is none, is damaged, needs other files, is encrypted, or uses a feature that is not supported.
    pub fn open(file: D, len: u64) -> Result<Self> {
        let mut head = [0; 112];
        let have = usize::try_from(len).unwrap_or(usize::MAX).min(head.len());
        if have < 72 {
            return Err(hinted(
                format!("it is truncated: {len} bytes are too few for a qcow2 header"),
                DAMAGED,
            ));
        }
        file.read_exact_at(&mut head[..have], 0).context("reading its qcow2 header")?;
        ensure!(head[..4] == MAGIC, "it is no qcow2 image");
        let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));

        let version = u32_at(4);
        if !matches!(version, 2 | 3) {
            return Err(hinted(format!("qcow2 version {version} is not supported: 2 and 3 are"), CONVERT));
        }
        if u64_at(8) != 0 {
            return Err(hinted(
                "it is a difference to a backing file, which is not followed",
                "make one file of both, `qemu-img convert -O raw IMAGE WHOLE.img`, and name that",
            ));
        }
        let features = if version == 3 { u64_at(72) } else { 0 };
        refuse(features, u32_at(32))?;
        let cluster_bits = u32_at(20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(hinted(format!("its clusters claim 2^{cluster_bits} bytes"), DAMAGED));
        }
        let compression = match (features & feature::COMPRESSION_TYPE != 0, head[104]) {
            (false, _) | (true, 0) => Compression::Deflate,
            (true, 1) => Compression::Zstd,
            (true, other) => {
                let what = format!("it is compressed in a way that is not supported: type {other}");
                return Err(hinted(what, CONVERT));
            }
        };

        let (size, l1_size, l1_offset) = (u64_at(24), u64::from(u32_at(36)), u64_at(40));
        // An entry of the first level stands for a cluster full of 8-byte entries of the second.
        let needed = size.div_ceil(1 << (2 * cluster_bits - 3));
        if l1_size < needed {
            return Err(hinted(
                format!("its table has {l1_size} entries where {size} bytes need {needed}"),
                DAMAGED,
            ));
        }
        let l1_end = l1_offset.checked_add(needed * 8).filter(|end| *end <= len && needed * 8 <= MAX_L1);
        if l1_end.is_none() {
            return Err(hinted(
                format!("it is truncated or damaged: its table lies outside of its {len} bytes"),
                DAMAGED,
            ));
        }
        let mut raw = vec![0; usize::try_from(needed * 8)?];
        file.read_exact_at(&mut raw, l1_offset).context("reading its table").hint(DAMAGED)?;
        let entry = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("chunks of eight"));
        let l1 = raw.chunks_exact(8).map(entry).collect();
        let last = Mutex::default();
        Ok(Self { file, size, len, cluster_bits, version, compression, l1, last })
    }

    /// Bytes of the disk that it holds.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The entry of the second level for the cluster at the disk's byte `at`; 0 where there is none.
    fn entry(&self, at: u64) -> io::Result<u64> {
        let cluster = at >> self.cluster_bits;
        let table_bits = self.cluster_bits - 3;
        let l1 = usize::try_from(cluster >> table_bits).ok().and_then(|index| self.l1.get(index));
        let table = l1.copied().unwrap_or(0) & OFFSET;
        if table == 0 {
            return Ok(0);
        }
        if !table.is_multiple_of(self.cluster_size()) {
            return Err(damaged(format!("a table begins at byte {table}, in the middle of a cluster")));
        }
        let mut raw = [0; 8];
        let index = cluster & ((1 << table_bits) - 1);
        self.file.read_exact_at(&mut raw, table + index * 8).map_err(|e| outside(&e, table))?;
        Ok(u64::from_be_bytes(raw))
    }

    /// Fills `part` from byte `inside` of the cluster that `entry` stands for.
    fn read_cluster(&self, entry: u64, inside: u64, part: &mut [u8]) -> io::Result<()> {
        if entry & COMPRESSED != 0 {
            return self.read_compressed(entry, inside, part);
        }
        let host = entry & OFFSET;
        if host == 0 || (self.version == 3 && entry & ZERO != 0) {
            part.fill(0);
            return Ok(());
        }
        if !host.is_multiple_of(self.cluster_size()) {
            return Err(damaged(format!("a cluster begins at byte {host}, in the middle of another")));
        }
        self.file.read_exact_at(part, host + inside).map_err(|e| outside(&e, host))
    }

    fn read_compressed(&self, entry: u64, inside: u64, part: &mut [u8]) -> io::Result<()> {
        // Nothing is kept half-written under this lock.
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = match last.iter().position(|(of, _)| *of == entry).and_then(|at| last.remove(at)) {
            Some(found) => found,
            None => (entry, self.decompress(entry)?),
        };
        let inside = usize::try_from(inside).map_err(io::Error::other)?;
        part.copy_from_slice(&found.1[inside..inside + part.len()]);
        if last.len() >= KEPT {
            last.pop_front();
        }
        last.push_back(found);
        Ok(())
    }

    /// The descriptor has the host offset in its lower bits, and above them the number of 512-byte sectors, less one, that
    /// the data reaches into. The file may end within the last of them.
    fn decompress(&self, entry: u64) -> io::Result<Vec<u8>> {
        let split = 62 - (self.cluster_bits - 8);
        let host = entry & ((1 << split) - 1);
        let sectors = ((entry & (COMPRESSED - 1)) >> split) + 1;
        let bytes = sectors * 512 - (host & 511);
        let there = bytes.min(self.len.saturating_sub(host));
        let mut raw = vec![0; usize::try_from(there).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut raw, host).map_err(|e| outside(&e, host))?;
        let mut cluster = vec![0; 1 << self.cluster_bits];
        let unpacked = match self.compression {
            Compression::Deflate => {
                flate2::read::DeflateDecoder::new(raw.as_slice()).read_exact(&mut cluster)
            }
            Compression::Zstd => zstd::stream::read::Decoder::with_buffer(raw.as_slice())
                .and_then(|decoder| decoder.single_frame().read_exact(&mut cluster)),
        };
        unpacked.map_err(|e| match there == bytes {
            true => damaged(format!("the compressed cluster at byte {host}: {e}")),
            false => {
                damaged(format!("it ends before byte {}, where a compressed cluster does", host + bytes))
            }
        })?;
        Ok(cluster)
    }
}

impl<D: ReadAt> ReadAt for Qcow2<D> {
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buf.is_empty() {
            let inside = offset & (self.cluster_size() - 1);
            let room = usize::try_from(self.cluster_size() - inside).map_err(io::Error::other)?;
            let (part, rest) = buf.split_at_mut(room.min(buf.len()));
            self.read_cluster(self.entry(offset)?, inside, part)?;
            offset += part.len() as u64;
            buf = rest;
        }
        Ok(())
    }
}

fn refuse(features: u64, encryption: u32) -> Result<()> {
    if encryption != 0 {
        return Err(hinted(
            "it is encrypted",
            "make a plain one of it with its passphrase in the file KEY, `qemu-img convert --object \
             secret,id=key,file=KEY --image-opts driver=qcow2,file.filename=IMAGE,encrypt.key-secret=key -O raw \
             PLAIN.img`, and name that",
        ));
    }
    if features & feature::CORRUPT != 0 {
        return Err(hinted(
            "it is marked as corrupt",
            "`qemu-img check -r all IMAGE` on a copy may repair it",
        ));
    }
    if features & feature::EXTERNAL_DATA != 0 {
        return Err(hinted("its data lies in another file", CONVERT));
    }
    if features & feature::EXTENDED_L2 != 0 {
        return Err(hinted("it has subclusters, which are not supported", CONVERT));
    }
    let unknown = features & !feature::KNOWN;
    if unknown != 0 {
        return Err(hinted(format!("it has features that are not known here: {unknown:#x}"), CONVERT));
    }
    Ok(())
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the qcow2 image is damaged: {what}"))
}

/// Says where an image was to be read; one that ends before that was cut off.
fn outside(error: &io::Error, at: u64) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            damaged(format!("it ends before byte {at}, where a cluster should be"))
        }
        kind => io::Error::new(kind, format!("reading byte {at} of the qcow2 image: {error}")),
    }
}

#[cfg(test)]
#[path = "qcow2_tests.rs"]
pub(crate) mod tests;
