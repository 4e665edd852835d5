//! A disk as qcow2, the format that QEMU, Proxmox and libvirt import and can write to (QEMU: docs/interop/qcow2.rst,
//! version 3).
//!
//! Clusters are compressed with deflate and not with zstd: every reader of qcow2 knows it, zstd wants QEMU 5.1, and what is
//! large on the disk, the squashfs, is zstd already. Clusters of zeros take no space. The bytes follow from the disk's, so they are written
//! here and not by a `qemu-img` of whatever version.
//!
//! The header, the L1 table, the data, those L2 tables that have an entry, the reference counts: in that order, in clusters.

use crate::extents::next_data;
use crate::interrupt;
use crate::progress::{Progress, Unit};
use anyhow::{Context as _, Result, ensure};
use flate2::{Compress, Compression, FlushCompress, Status};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of 8 bytes in a cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// Reference counts of 16 bits in a cluster.
const COUNTS: u64 = CLUSTER / 2;
/// On an entry of a table: exactly one reference, so it may be written in place.
const COPIED: u64 = 1 << 63;
/// On an entry of an L2 table: compressed.
const COMPRESSED: u64 = 1 << 62;
/// On the entry of a compressed cluster: where the number of further sectors begins.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
const SECTOR: u64 = 512;
/// QEMU inflates with a window of 4 KiB (block/qcow2-threads.c), so each piece of this size begins without a history.
const PIECE: usize = 4096;
/// Bytes of a header of version 3.
const HEADER: u32 = 104;

/// Writes the disk `raw` as qcow2 to the empty file `out`.
///
/// # Errors
/// Reading or writing fails.
pub fn write(raw: &File, out: &File, progress: &Progress) -> Result<()> {
    let size = raw.metadata().context("measuring the disk image")?.len();
    ensure!(size > 0 && size.is_multiple_of(SECTOR), "a disk of {size} bytes has no whole sectors");
    let stage = progress.stage("writing qcow2", size, Unit::Bytes);
    let clusters = size.div_ceil(CLUSTER);
    let tables = clusters.div_ceil(ENTRIES);
    ensure!(tables <= ENTRIES, "a disk of {size} bytes is too large for one L1 table cluster");

    // The header and the L1 table have a cluster each.
    let mut writer = Writer { out, next: 2, counts: vec![1; 2], pack: None };
    // A disk may be large and empty: only tables with an entry are kept.
    let mut l2: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut buffer = vec![0; CLUSTER as usize];
    let mut data = (0, 0);
    let mut cluster = 0;
    while cluster < clusters {
        interrupt::check()?;
        let start = cluster * CLUSTER;
        let length = CLUSTER.min(size - start);
        if data.1 <= start {
            data = next_data(raw, start, size)?.unwrap_or((size, size));
        }
        if data.0 >= start + length {
            let next = if data.0 >= size { clusters } else { data.0 / CLUSTER };
            stage.advance(size.min(next * CLUSTER) - start);
            cluster = next;
            continue;
        }
        buffer.fill(0);
        raw.read_exact_at(&mut buffer[..length as usize], start).context("reading the disk image")?;
        let entry = writer.cluster(&buffer)?;
        if entry != 0 {
            let table = l2.entry(usize::try_from(cluster / ENTRIES)?);
            table.or_insert_with(|| vec![0; ENTRIES as usize])[(cluster % ENTRIES) as usize] = entry;
        }
        stage.advance(length);
        cluster += 1;
    }
    writer.flush()?;
    let mut l1 = vec![0; usize::try_from(tables)?];
    for (table, entries) in l2 {
        let place = writer.whole(&bytes(&entries))?;
        l1[table] = place | COPIED;
    }
    writer.put(CLUSTER, &bytes(&l1))?;
    writer.finish(size, u32::try_from(tables)?)
}

/// A table as it is written.
fn bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

/// Hands out clusters of the file.
struct Writer<'a> {
    out: &'a File,
    /// The next free cluster.
    next: u64,
    /// References to each cluster so far.
    counts: Vec<u16>,
    /// The cluster that compressed ones are put into, and what is in it.
    pack: Option<(u64, Vec<u8>)>,
}

impl Writer<'_> {
    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.out.write_all_at(bytes, at).context("writing the qcow2 file")
    }

    fn allocate(&mut self) -> u64 {
        self.next += 1;
        self.counts.push(0);
        self.next - 1
    }

    /// Writes a cluster as it is; where it stands.
    fn whole(&mut self, bytes: &[u8]) -> Result<u64> {
        let cluster = self.allocate();
        self.counts[cluster as usize] = 1;
        self.put(cluster * CLUSTER, bytes)?;
        Ok(cluster * CLUSTER)
    }

    /// Writes a cluster of the disk; its entry in the L2 table.
    fn cluster(&mut self, bytes: &[u8]) -> Result<u64> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(0);
        }
        let Some(packed) = deflate(bytes)? else {
            return Ok(self.whole(bytes)? | COPIED);
        };
        if self.pack.as_ref().is_none_or(|(_, pack)| pack.len() + packed.len() > CLUSTER as usize) {
            self.flush()?;
            self.pack = Some((self.allocate(), Vec::new()));
        }
        let (cluster, pack) = self.pack.as_mut().context("there is no cluster to put it into")?;
        let at = *cluster * CLUSTER + pack.len() as u64;
        pack.extend_from_slice(&packed);
        self.counts[*cluster as usize] += 1;
        let sectors = (at + packed.len() as u64 - 1) / SECTOR - at / SECTOR;
        Ok(COMPRESSED | (sectors << SECTORS_SHIFT) | at)
    }

    /// Writes the cluster with compressed ones, whole.
    fn flush(&mut self) -> Result<()> {
        let Some((cluster, mut pack)) = self.pack.take() else { return Ok(()) };
        pack.resize(CLUSTER as usize, 0);
        self.put(cluster * CLUSTER, &pack)
    }

    /// Writes the reference counts and the header.
    fn finish(&mut self, size: u64, tables: u32) -> Result<()> {
        // The counts count their own clusters too: the table of them, and the blocks that it points to.
        let mut blocks = 0;
        while blocks * COUNTS < self.next + 1 + blocks {
            blocks += 1;
        }
        ensure!(blocks <= ENTRIES, "the qcow2 file is too large for one refcount table cluster");
        let table = self.next;
        self.counts.resize(usize::try_from(table + 1 + blocks)?, 1);
        let pointers: Vec<u8> =
            (1..=blocks).flat_map(|block| ((table + block) * CLUSTER).to_be_bytes()).collect();
        self.put(table * CLUSTER, &pointers)?;
        let counts: Vec<u8> = self.counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        self.put((table + 1) * CLUSTER, &counts)?;

        let mut header = Vec::new();
        header.extend(b"QFI\xfb");
        header.extend(3u32.to_be_bytes());
        // No backing file: its offset and the length of its name.
        header.extend([0; 12]);
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(size.to_be_bytes());
        // Not encrypted.
        header.extend(0u32.to_be_bytes());
        header.extend(tables.to_be_bytes());
        header.extend(CLUSTER.to_be_bytes());
        header.extend((table * CLUSTER).to_be_bytes());
        header.extend(1u32.to_be_bytes());
        // No snapshots, and where they would be; no incompatible, compatible or automatically cleared features.
        header.extend([0; 12 + 24]);
        // Reference counts of 2^4 bits.
        header.extend(4u32.to_be_bytes());
        header.extend(HEADER.to_be_bytes());
        ensure!(header.len() == HEADER as usize, "the qcow2 header has {} bytes", header.len());
        self.put(0, &header)?;
        self.out.set_len((table + 1 + blocks) * CLUSTER).context("writing the qcow2 file")
    }
}

/// A cluster, deflated without header; none where that is hardly shorter. Most clusters are compressed already, so the first
/// and the last piece are tried before all of it is.
fn deflate(cluster: &[u8]) -> Result<Option<Vec<u8>>> {
    let ends = [&cluster[..PIECE], &cluster[cluster.len() - PIECE..]];
    let mut shrinks = false;
    for end in ends {
        shrinks |= pieces(end)?.len() < PIECE / 8 * 7;
    }
    if !shrinks {
        return Ok(None);
    }
    let packed = pieces(cluster)?;
    Ok((packed.len() < cluster.len() / 8 * 7).then_some(packed))
}

fn pieces(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut deflate = Compress::new(Compression::new(6), false);
    // What cannot be compressed grows by 5 bytes for each block and each flush.
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 16 + 1024);
    let last = bytes.len().div_ceil(PIECE);
    for (number, piece) in (1..).zip(bytes.chunks(PIECE)) {
        let flush = if number == last { FlushCompress::Finish } else { FlushCompress::Full };
        let before = deflate.total_in();
        let status = deflate.compress_vec(piece, &mut out, flush).context("compressing a cluster")?;
        let is_done = number != last || status == Status::StreamEnd;
        ensure!(
            is_done && deflate.total_in() - before == piece.len() as u64 && out.len() < out.capacity(),
            "compressing a cluster: it did not come to its end"
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with everything in it: zeros as holes and as data, text, noise, and an end within a cluster.
    fn disk() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |bytes: &[u8], at| file.as_file().write_all_at(bytes, at).unwrap();
        file.as_file().set_len((700 << 20) + 512 * 3).unwrap();
        let text: Vec<u8> = (0..40_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        write(&text, 512);
        write(&noise(300_000, 1), 5 << 20);
        write(&[0; 100_000], 9 << 20);
        write(&noise(70_000, 2), (513 << 20) - 40_000);
        write(&text[..20_000], 600 << 20);
        write(b"the end", (700 << 20) + 512 * 3 - 7);
        file
    }

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(4096)];
        crate::bench::transfer::pattern::Pattern { seed }.fill(&mut bytes, 0);
        bytes.truncate(length);
        bytes
    }

    fn written(raw: &File) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".qcow2").tempfile().unwrap();
        write(raw, file.as_file(), &Progress::none()).unwrap();
        file
    }

    #[test]
    fn the_same_disk_gives_the_same_bytes_however_its_zeros_are_stored() {
        let raw = disk();
        let (first, second) = (written(raw.as_file()), written(raw.as_file()));
        assert!(fs_err::read(first.path()).unwrap() == fs_err::read(second.path()).unwrap());
        let dense = tempfile::tempfile().unwrap();
        let sparse = tempfile::tempfile().unwrap();
        for file in [&dense, &sparse] {
            file.set_len(1 << 20).unwrap();
            file.write_all_at(b"x", 300_000).unwrap();
        }
        dense.write_all_at(&[0; 200_000], 0).unwrap();
        assert!(
            fs_err::read(written(&dense).path()).unwrap() == fs_err::read(written(&sparse).path()).unwrap()
        );
    }

    #[test]
    fn a_large_empty_disk_is_a_small_file() {
        let raw = tempfile::tempfile().unwrap();
        raw.set_len(1 << 40).unwrap();
        raw.write_all_at(b"x", 900 << 30).unwrap();
        // Header, L1 table, data, one L2 table, the reference counts' table and one block of them.
        assert_eq!(written(&raw).as_file().metadata().unwrap().len(), 6 * CLUSTER);
    }

    #[test]
    fn compressed_pieces_know_nothing_of_each_other() {
        let piece = noise(PIECE, 3);
        let twice = [piece.clone(), piece].concat();
        // With a history the second would be a few bytes.
        assert!(pieces(&twice).unwrap().len() > 2 * PIECE);
        let text = b"abcdefgh".repeat(8192);
        let packed = deflate(&text).unwrap().unwrap();
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&packed[..]), &mut back).unwrap();
        assert!(back == text && packed.len() < 2000, "{} bytes", packed.len());
        assert_eq!(deflate(&noise(CLUSTER as usize, 4)).unwrap(), None);
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for size in [0, 511] {
            let raw = tempfile::tempfile().unwrap();
            raw.set_len(size).unwrap();
            assert!(write(&raw, &tempfile::tempfile().unwrap(), &Progress::none()).is_err(), "{size}");
        }
    }
}
