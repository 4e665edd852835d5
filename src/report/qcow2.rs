//! Reads a disk out of a qcow2 file (QEMU: docs/interop/qcow2.rst, versions 2 and 3): what `gdsboot build --format qcow2`
//! wrote, and what a guest has written to it since. Nothing in the file is believed: every place is checked against the
//! file's length, and nothing is allocated but a cluster and the tables that the file really holds.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// The first bytes of such a file.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

const COMPRESSED: u64 = 1 << 62;
/// Bits 9 to 55 of an entry: where a table or a cluster is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// On the entry of a cluster, since version 3: it reads as zeros.
const ZERO: u64 = 1;
const SECTOR: u64 = 512;
/// Far more than any image has.
const MAX_SIZE: u64 = 1 << 40;
const MAX_TABLE: u64 = 32 << 20;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Deflate,
    Zstd,
}

/// An open qcow2 file.
#[derive(Debug)]
pub struct Qcow2 {
    file: File,
    length: u64,
    bits: u32,
    size: u64,
    method: Method,
    l1: Vec<u64>,
}

impl Qcow2 {
    /// Reads the header and the first table.
    ///
    /// # Errors
    /// It is not qcow2, is damaged, or uses what gdsboot cannot read: a backing file, an external data file, encryption,
    /// subclusters.
    pub fn open(file: File) -> Result<Self> {
        let length = file.metadata().context("finding its size")?.len();
        let mut header = [0; 112];
        let held = usize::try_from(length.min(112))?;
        file.read_exact_at(&mut header[..held], 0).context("reading its header")?;
        let number =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(number(at)) << 32 | u64::from(number(at + 4));
        ensure!(held >= 72 && header[..4] == MAGIC, "it is not qcow2");
        let version = number(4);
        ensure!(matches!(version, 2 | 3), "it is qcow2 of the unknown version {version}");
        ensure!(long(8) == 0, "it is the difference to a backing file, which is another file");
        let bits = number(20);
        ensure!((9..=21).contains(&bits), "its clusters claim 2^{bits} bytes");
        let size = long(24);
        ensure!(size <= MAX_SIZE, "it claims a disk of {size} bytes");
        ensure!(number(32) == 0, "it is encrypted");
        let (mut incompatible, mut method) = (0, Method::Deflate);
        if version == 3 {
            ensure!(held >= 104, "its header is cut off");
            incompatible = long(72);
            if incompatible & 8 != 0 && number(100) > 104 {
                method = match header[104] {
                    0 => Method::Deflate,
                    1 => Method::Zstd,
                    other => bail!("it is compressed by the unknown method {other}"),
                };
            }
        }
        // Bit 0: the reference counts are out of date, which nobody needs who only reads.
        ensure!(incompatible & 2 == 0, "QEMU has marked it as damaged");
        ensure!(
            incompatible & !0b1001 == 0,
            "it uses features of qcow2 that gdsboot cannot read ({incompatible:#x})"
        );
        let entries = u64::from(number(36));
        let (bytes, at) = (entries * 8, long(40));
        ensure!(
            bytes <= MAX_TABLE && at.checked_add(bytes).is_some_and(|end| end <= length),
            "it is cut off"
        );
        let mut table = vec![0; usize::try_from(bytes)?];
        file.read_exact_at(&mut table, at).context("reading its first table")?;
        let qcow2 = Self { file, length, bits, size, method, l1: numbers(&table) };
        let needed = size.div_ceil(qcow2.cluster()).div_ceil(qcow2.cluster() / 8);
        ensure!(entries >= needed, "its first table is too small for a disk of {size} bytes");
        Ok(qcow2)
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn cluster(&self) -> u64 {
        1 << self.bits
    }

    /// Writes the whole disk to the empty file `raw`; what is zero stays a hole.
    ///
    /// # Errors
    /// The file is damaged, or there is no room.
    pub fn expand(&self, raw: &File) -> Result<()> {
        raw.set_len(self.size).context("making room for the disk")?;
        let per_table = self.cluster() / 8;
        let mut left = self.size.div_ceil(self.cluster());
        // A file can name one cluster many times, and become larger than any disk; or one table, and never end.
        let mut most = (self.length / SECTOR).saturating_mul(64);
        let mut tables = self.length / self.cluster();
        for (number, entry) in (0..).zip(&self.l1) {
            let count = left.min(per_table);
            left -= count;
            if entry & OFFSET == 0 {
                continue;
            }
            tables = tables.checked_sub(1).context("it has more tables than clusters")?;
            let mut table = vec![0; usize::try_from(count * 8)?];
            self.read(&mut table, entry & OFFSET)?;
            for (place, entry) in (0..).zip(numbers(&table)) {
                let Some(bytes) = self.decode(entry)? else { continue };
                most = most.checked_sub(1).context("it holds the same data again and again")?;
                let at = (number * per_table + place) * self.cluster();
                let length = usize::try_from(self.cluster().min(self.size - at))?;
                if bytes.iter().any(|byte| *byte != 0) {
                    raw.write_all_at(&bytes[..length], at).context("writing the disk")?;
                }
            }
        }
        Ok(())
    }

    /// The cluster that an entry of a second table names; none where it reads as zeros.
    fn decode(&self, entry: u64) -> Result<Option<Vec<u8>>> {
        let mut cluster = vec![0; usize::try_from(self.cluster())?];
        if entry & COMPRESSED == 0 {
            if entry & OFFSET == 0 || entry & ZERO != 0 {
                return Ok(None);
            }
            self.read(&mut cluster, entry & OFFSET)?;
            return Ok(Some(cluster));
        }
        let shift = 62 - (self.bits - 8);
        let (at, sectors) = (entry & ((1 << shift) - 1), (entry & (COMPRESSED - 1)) >> shift);
        let end = ((at / SECTOR + sectors + 1) * SECTOR).min(self.length);
        let mut packed = vec![0; usize::try_from(end.checked_sub(at).context("it is cut off")?)?];
        self.read(&mut packed, at)?;
        // What follows the data up to the end of its sector means nothing.
        let done = match self.method {
            Method::Deflate => {
                let mut inflate = flate2::Decompress::new(false);
                inflate.decompress(&packed, &mut cluster, flate2::FlushDecompress::Finish).is_ok()
                    && inflate.total_out() == cluster.len() as u64
            }
            Method::Zstd => zstd::Decoder::new(&packed[..])
                .and_then(|mut decoder| std::io::Read::read_exact(&mut decoder, &mut cluster))
                .is_ok(),
        };
        ensure!(done, "the compressed cluster at byte {at} is damaged");
        Ok(Some(cluster))
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(bytes.len() as u64);
        ensure!(
            end.is_some_and(|end| end <= self.length),
            "it is cut off: it refers to byte {at} and has {}",
            self.length
        );
        self.file.read_exact_at(bytes, at).with_context(|| format!("reading {} bytes at {at}", bytes.len()))
    }
}

fn numbers(table: &[u8]) -> Vec<u64> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    table.chunks_exact(8).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::one_line;
    use std::process::Command;

    /// 3 MiB with text, noise that no method shortens, and holes.
    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 3 << 20];
        let text: Vec<u8> = (0..20_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        disk[1000..1000 + text.len()].copy_from_slice(&text);
        crate::bench::transfer::pattern::Pattern { seed: 1 }.fill(&mut disk[1 << 20..(1 << 20) + 204_800], 0);
        *disk.last_mut().unwrap() = 1;
        disk
    }

    /// What `qemu-img convert` makes of it.
    fn converted(disk: &[u8], options: &[&str]) -> tempfile::NamedTempFile {
        let raw = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(raw.path(), disk).unwrap();
        let qcow2 = tempfile::NamedTempFile::new().unwrap();
        let output = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args(options)
            .args([raw.path(), qcow2.path()])
            .output()
            .expect("qemu-img (Debian's package qemu-utils) is needed for this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        qcow2
    }

    fn expanded(file: &tempfile::NamedTempFile) -> Result<Vec<u8>> {
        let raw = tempfile::NamedTempFile::new().unwrap();
        Qcow2::open(file.reopen().unwrap())?.expand(raw.as_file())?;
        Ok(fs_err::read(raw.path()).unwrap())
    }

    #[test]
    fn what_qemu_img_writes_is_read() {
        let disk = disk();
        for options in [
            &[][..],
            &["-c"],
            &["-c", "-o", "compression_type=zstd"],
            &["-o", "compat=0.10"],
            &["-c", "-o", "cluster_size=4096"],
            &["-o", "cluster_size=2097152"],
        ] {
            assert!(expanded(&converted(&disk, options)).unwrap() == disk, "{options:?}");
        }
    }

    #[test]
    fn what_gdsboot_writes_is_read() {
        let disk = disk();
        let (raw, qcow2) = (tempfile::tempfile().unwrap(), tempfile::NamedTempFile::new().unwrap());
        raw.write_all_at(&disk, 0).unwrap();
        let progress = crate::progress::Progress::none();
        crate::builder::format::qcow2::write(&raw, qcow2.as_file(), &progress).unwrap();
        assert!(expanded(&qcow2).unwrap() == disk);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let disk = disk();
        let good = fs_err::read(converted(&disk, &["-c"]).path()).unwrap();
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let file = tempfile::NamedTempFile::new().unwrap();
            fs_err::write(file.path(), bytes).unwrap();
            one_line(&expanded(&file).unwrap_err())
        };
        assert_eq!(refused(&|b| b.truncate(20)), "it is not qcow2");
        assert_eq!(refused(&|b| b[0] = 0), "it is not qcow2");
        assert_eq!(refused(&|b| b[7] = 4), "it is qcow2 of the unknown version 4");
        assert!(refused(&|b| b[15] = 1).contains("backing file"));
        assert!(refused(&|b| b[35] = 1).contains("encrypted"));
        assert!(refused(&|b| b[79] = 2).contains("damaged"));
        assert!(refused(&|b| b[79] = 16).contains("features"));
        assert!(refused(&|b| b[24] = 1).contains("a disk of"));
        assert!(refused(&|b| b.truncate(1 << 17)).contains("it is cut off"));
        let l1 = u64::from_be_bytes(good[40..48].try_into().unwrap()) as usize;
        assert!(refused(&|b| b[l1 + 2] = 0xff).contains("it is cut off"));
    }
}
