//! What is on a disk, judged by its two ends and places between them. Reads nothing by itself and opens nothing.
//!
//! Whether a disk is blank does not depend on any name below: it is blank where every byte that was looked at is 0, or
//! every one is 0xff, as drives return what was never written or was discarded. All else is data. The names only tell
//! people what they would have lost.

use crate::bench::transfer::offsets::random;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io;
use std::iter::once;
use std::ops::Range;

/// How much of each end is looked at: LUKS2 keeps its second header up to 4 MiB from the start.
pub const END: u64 = 8 << 20;
/// How much is looked at in each place between the ends.
pub const CHUNK: u64 = 64 << 10;
/// In how many places, the known ones apart.
pub const PLACES: u64 = 512;

/// Where second copies lie, in bytes from the start: Btrfs (`BTRFS_SUPER_MIRROR_SHIFT` in fs/btrfs/disk-io.h), ext4's first
/// backup with blocks of 4 KiB, NTFS' file table, BlueStore's labels (`bdev_label_positions`).
const KNOWN: [u64; 8] = [64 << 20, 128 << 20, 1 << 30, 3 << 30, 10 << 30, 100 << 30, 256 << 30, 1000 << 30];

/// Something with a name that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// Where it stands, in bytes from the start of the disk.
    pub at: u64,
    /// What it is.
    pub name: String,
}

/// What was found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What has a name, by place.
    pub signatures: Vec<Signature>,
    /// The first byte that was looked at and is not blank; `None` where all of them are.
    pub data: Option<u64>,
    /// How many bytes were looked at.
    pub looked_at: u64,
    /// SHA-256 of them: two looks at the same disk are equal.
    pub digest: [u8; 32],
}

impl Probe {
    /// Looks at a disk of `bytes` with logical blocks of `block` bytes. `read` fills a buffer from an offset; both are
    /// multiples of the block. The same `seed` looks at the same places.
    ///
    /// # Errors
    /// A read failed, or no disk has such blocks or such a size.
    pub fn of(
        bytes: u64,
        block: u32,
        seed: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let block = u64::from(block);
        if !block.is_power_of_two()
            || !(512..=CHUNK).contains(&block)
            || bytes == 0
            || !bytes.is_multiple_of(block)
        {
            let what = format!("a disk of {bytes} bytes with logical blocks of {block}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let (mut digest, mut data, mut blank, mut looked_at) = (Sha256::new(), None, None, 0);
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for place in places(bytes, seed) {
            let mut buffer = vec![0; (place.end - place.start) as usize];
            for (chunk, at) in buffer.chunks_mut(CHUNK as usize).zip((place.start..).step_by(CHUNK as usize))
            {
                read(at, chunk)?;
                let blank = *blank.get_or_insert(if chunk[0] == 0xff { 0xff } else { 0 });
                if data.is_none() {
                    data = chunk.iter().position(|byte| *byte != blank).map(|n| at + n as u64);
                }
            }
            digest.update(&buffer);
            looked_at += buffer.len() as u64;
            if place.start == 0 {
                first = buffer.clone();
            }
            if place.end == bytes {
                last = buffer;
            }
        }
        let signatures = find(&Ends { first: &first, last: &last, bytes });
        Ok(Self { signatures, data, looked_at, digest: digest.finalize().into() })
    }
}

/// What is looked at, in order, without overlaps: the ends, the known places, and one place in each of [`PLACES`] equal
/// parts of what is between, chosen by `seed`.
fn places(bytes: u64, seed: u64) -> Vec<Range<u64>> {
    if bytes <= 2 * END {
        return Vec::from_iter(once(0..bytes));
    }
    let tail = bytes - END;
    let chunks = (tail - END) / CHUNK;
    let mut state = seed;
    let spread = (0..PLACES).map(|n| {
        let part = |n: u64| (u128::from(chunks) * u128::from(n) / u128::from(PLACES)) as u64;
        let (begin, room) = (part(n), (part(n + 1) - part(n)).max(1));
        END + (begin + random(&mut state) % room) * CHUNK
    });
    // XFS and NTFS keep copies at quarters and halves.
    let parts = (1..8).map(|n| bytes / 8 * n);
    let mut starts: Vec<u64> = spread.chain(KNOWN).chain(parts).map(|at| at / CHUNK * CHUNK).collect();
    starts.retain(|at| (END..tail).contains(at));
    starts.sort_unstable();
    starts.dedup();
    let between = starts.into_iter().map(|at| at..(at + CHUNK).min(tail));
    once(0..END).chain(between).chain(once(tail..bytes)).collect()
}

/// The first and the last bytes of a disk of `bytes`; they may overlap, or both be the whole disk.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// From its start on.
    pub first: &'a [u8],
    /// Up to its end.
    pub last: &'a [u8],
    /// The disk's size.
    pub bytes: u64,
}

impl Ends<'_> {
    fn at(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let slice = |bytes: &'_ [u8], offset: u64| -> Option<Range<usize>> {
            let start = usize::try_from(offset).ok()?;
            let range = start..start.checked_add(length)?;
            (range.end <= bytes.len()).then_some(range)
        };
        if let Some(range) = slice(self.first, offset) {
            return self.first.get(range);
        }
        let tail = self.bytes.checked_sub(self.last.len() as u64)?;
        self.last.get(slice(self.last, offset.checked_sub(tail)?)?)
    }

    fn has(&self, offset: u64, magic: &[u8]) -> bool {
        self.at(offset, magic.len()) == Some(magic)
    }

    /// An offset of `back` bytes before the end.
    fn end(&self, back: u64) -> Option<u64> {
        self.bytes.checked_sub(back)
    }
}

/// Where a magic stands.
#[derive(Clone, Copy)]
enum Place {
    /// So many bytes from the start.
    Start(u64),
    /// So many bytes before the end.
    End(u64),
    /// The same, where the disk ends with its last whole piece of so many bytes.
    WholeEnd(u64, u64),
}
use Place::{End, Start, WholeEnd};

/// A name, what stands there, and where.
type Magic = (&'static str, &'static [u8], Place);

const K: u64 = 1 << 10;
const SECTOR: u64 = 512;

/// One line for each format and place, after each format's own description: the kernel's header or the library that writes
/// it (named at the end of the line), and the list of places that util-linux keeps in libblkid/src/superblocks.
#[rustfmt::skip]
const MAGICS: &[Magic] = &[
    // Partition tables: block/partitions/*.c; UEFI specification 5.3.
    ("a boot sector (MBR, FAT or NTFS)", b"\x55\xaa", Start(0x1fe)),
    ("GPT", b"EFI PART", Start(SECTOR)),
    ("GPT (4096-byte sectors)", b"EFI PART", Start(4 * K)),
    ("GPT backup", b"EFI PART", End(SECTOR)),
    ("GPT backup (4096-byte sectors)", b"EFI PART", End(4 * K)),
    ("Apple partition map", b"ER\x02\x00", Start(0)),
    ("BSD disklabel", b"\x57\x45\x56\x82", Start(SECTOR)),
    ("Sun disklabel", b"\xda\xbe", Start(0x1fc)),
    ("Windows dynamic disk", b"PRIVHEAD", Start(6 * SECTOR)),              // block/partitions/ldm.h
    ("Windows dynamic disk", b"PRIVHEAD", End(SECTOR)),
    // Filesystems.
    ("ext2/ext3/ext4", b"\x53\xef", Start(0x438)),                         // fs/ext4/ext4.h
    ("XFS", b"XFSB", Start(0)),                                            // fs/xfs/libxfs/xfs_format.h
    ("XFS log", b"\xfe\xed\xba\xbe", Start(0)),
    ("Btrfs", b"_BHRfS_M", Start(0x1_0040)),                               // include/uapi/linux/btrfs_tree.h
    ("F2FS", b"\x10\x20\xf5\xf2", Start(0x400)),                           // include/linux/f2fs_fs.h
    ("F2FS", b"\x10\x20\xf5\xf2", Start(0x1400)),
    ("NTFS", b"NTFS    ", Start(3)),                                       // fs/ntfs3/ntfs_fs.h
    ("NTFS backup", b"NTFS    ", End(SECTOR - 3)),
    ("NTFS backup", b"NTFS    ", End(4 * K - 3)),
    ("BitLocker", b"-FVE-FS-", Start(3)),
    ("exFAT", b"EXFAT   ", Start(3)),                                      // fs/exfat/exfat_raw.h
    ("exFAT backup", b"EXFAT   ", Start(12 * SECTOR + 3)),
    ("FAT12", b"FAT12   ", Start(0x36)),                                   // fs/fat, Microsoft's FAT specification
    ("FAT16", b"FAT16   ", Start(0x36)),
    ("FAT32", b"FAT32   ", Start(0x52)),
    ("FAT32 backup", b"FAT32   ", Start(6 * SECTOR + 0x52)),
    ("ReFS", b"\0\0\0ReFS\0", Start(0)),
    ("ISO9660", b"CD001", Start(0x8001)),                                  // ECMA-119
    ("UDF", b"BEA01", Start(0x8001)),                                      // ECMA-167
    ("UDF", b"NSR02", Start(0x8801)),
    ("UDF", b"NSR03", Start(0x8801)),
    ("UDF (4096-byte sectors)", b"NSR03", Start(0x9001)),
    ("UDF (4096-byte sectors)", b"NSR02", Start(0x9001)),
    ("APFS", b"NXSB", Start(0x20)),                                        // Apple File System Reference
    ("HFS+", b"H+", Start(0x400)),                                         // fs/hfsplus/hfsplus_raw.h
    ("HFSX", b"HX", Start(0x400)),
    ("HFS", b"BD", Start(0x400)),
    ("HFS+ backup", b"H+", End(0x400)),
    ("HFSX backup", b"HX", End(0x400)),
    ("JFS", b"JFS1", Start(0x8000)),                                       // fs/jfs/jfs_superblock.h
    ("ReiserFS", b"ReIsEr", Start(0x1_0034)),
    ("ReiserFS", b"ReIsEr", Start(0x2034)),
    ("Reiser4", b"ReIsEr4", Start(0x1_0000)),
    ("NILFS2", b"\x34\x34", Start(0x406)),                                 // include/uapi/linux/nilfs2_ondisk.h
    ("NILFS2 backup", b"\x34\x34", WholeEnd(4 * K, 4 * K - 6)),
    ("GFS2", b"\x01\x16\x19\x70", Start(0x1_0000)),                        // include/uapi/linux/gfs2_ondisk.h
    ("OCFS2", b"OCFSV2", Start(0x400)),                                    // fs/ocfs2/ocfs2_fs.h
    ("OCFS2", b"OCFSV2", Start(0x800)),
    ("OCFS2", b"OCFSV2", Start(0x1000)),
    ("OCFS2", b"OCFSV2", Start(0x2000)),
    ("SquashFS", b"hsqs", Start(0)),                                       // fs/squashfs/squashfs_fs.h
    ("EROFS", b"\xe2\xe1\xf5\xe0", Start(0x400)),                          // fs/erofs/erofs_fs.h
    ("zonefs", b"SFOZ", Start(0)),                                         // fs/zonefs/zonefs.h
    ("VMFS", b"\x0d\xd0\x01\xc0", Start(1 << 20)),
    ("VMFS", b"\x5e\xf1\xab\x2f", Start(2 << 20)),
    // Encryption: cryptsetup's on-disk formats.
    ("LUKS1", b"LUKS\xba\xbe\x00\x01", Start(0)),
    ("LUKS2", b"LUKS\xba\xbe\x00\x02", Start(0)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x4000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x8000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x1_0000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x2_0000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x4_0000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x8_0000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x10_0000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x20_0000)),
    ("LUKS2 second header", b"SKUL\xba\xbe", Start(0x40_0000)),
    // Volumes and caches.
    ("LVM2", b"LABELONE", Start(0)),                                       // lvm2: lib/label/label.h
    ("LVM2", b"LABELONE", Start(SECTOR)),
    ("LVM2", b"LABELONE", Start(2 * SECTOR)),
    ("LVM2", b"LABELONE", Start(3 * SECTOR)),
    ("LVM1", b"HM\x01\x00", Start(0)),
    ("LVM1", b"HM\x02\x00", Start(0)),
    ("Stratis", b"!Stra0tis\x86\xff\x02^\x41rh", Start(0x204)),            // stratisd: backstore/blockdev
    ("Stratis", b"!Stra0tis\x86\xff\x02^\x41rh", Start(0x1204)),
    ("VDO", b"dmvdo001", Start(0)),                                        // drivers/md/dm-vdo/encodings.c
    ("bcache", b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", Start(0x1018)), // drivers/md/bcache
    ("bcachefs", b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", Start(0x1018)), // bcachefs_format.h
    ("dm-integrity", b"integrt\0", Start(0)),                              // drivers/md/dm-integrity.c
    ("dm-verity", b"verity\0\0", Start(0)),
    ("dm-cache, dm-thin or dm-era", b"\xa3\x01\x00\x00", Start(0x20)),
    ("Ceph BlueStore", b"bluestore block device", Start(0)),               // ceph: src/os/bluestore
    ("DRBD", b"\x83\x74\x02\x6b", WholeEnd(4 * K, 4 * K - 60)),            // drivers/block/drbd/drbd_int.h, drbd_main.c
    ("DRBD", b"\x83\x74\x02\x6c", WholeEnd(4 * K, 4 * K - 60)),
    ("DRBD", b"\x83\x74\x02\x6d", WholeEnd(4 * K, 4 * K - 60)),
    ("DRBD", b"\x83\x74\x02\x6e", WholeEnd(4 * K, 4 * K - 60)),
    ("Oracle ASM", b"ORCLDISK", Start(0x20)),
    ("SPDK blobstore", b"SPDKBLOB", Start(0)),                             // spdk: lib/blob/blobstore.h
    ("QCOW2", b"QFI\xfb", Start(0)),
    // RAID: drivers/md/md.c, include/uapi/linux/raid/md_p.h, mdadm's super-*.c.
    ("MD RAID 1.1", b"\xfc\x4e\x2b\xa9\x01\0\0\0", Start(0)),
    ("MD RAID 1.2", b"\xfc\x4e\x2b\xa9\x01\0\0\0", Start(4 * K)),
    ("MD RAID 1.0", b"\xfc\x4e\x2b\xa9\x01\0\0\0", WholeEnd(4 * K, 8 * K)),
    ("MD RAID 0.90", b"\xfc\x4e\x2b\xa9\0\0\0\0\x5a\0\0\0", WholeEnd(64 * K, 64 * K)),
    ("MD RAID 0.90 (big-endian)", b"\xa9\x2b\x4e\xfc\0\0\0\0\0\0\0\x5a", WholeEnd(64 * K, 64 * K)),
    ("Intel RAID (IMSM)", b"Intel Raid ISM Cfg Sig. ", End(2 * SECTOR)),   // mdadm: super-intel.c
    ("Intel RAID (IMSM)", b"Intel Raid ISM Cfg Sig. ", End(8 * K)),
    ("DDF RAID", b"\xde\x11\xde\x11", End(SECTOR)),                        // SNIA DDF; mdadm: super-ddf.c
    ("DDF RAID", b"\xde\x11\xde\x11", End(257 * SECTOR)),
    ("DDF RAID", b"\xde\x11\xde\x11", End(4 * K)),
    // Fake RAID of mainboards: dmraid's lib/format/ataraid.
    ("Adaptec RAID", b"\x37\xfc\x4d\x1e", End(SECTOR)),
    ("Highpoint RAID", b"\xf0\x16\x78\x5a", Start(0x1220)),
    ("Highpoint RAID", b"\xfd\x16\x78\x5a", Start(0x1220)),
    ("Highpoint RAID", b"\xf3\x16\x78\x5a", End(11 * SECTOR)),
    ("Highpoint RAID", b"\xfd\x16\x78\x5a", End(11 * SECTOR)),
    ("JMicron RAID", b"JM", End(SECTOR)),
    ("LSI RAID", b"$XIDE$", End(SECTOR)),
    ("NVIDIA RAID", b"NVIDIA", End(2 * SECTOR)),
    ("Silicon Image RAID", b"\x00\x00\x00\x2f", End(SECTOR - 0x60)),
    ("VIA RAID", b"\x55\xaa", End(SECTOR)),
];

/// The identifier of the XFS whose first block this is (`sb_uuid` in fs/xfs/libxfs/xfs_format.h).
pub fn xfs_uuid(first: &[u8]) -> Option<&[u8; 16]> {
    first.strip_prefix(b"XFSB").and_then(|_| first.get(32..48)?.try_into().ok())
}

/// The identifier of the ext4 whose first 2 KiB these are, or none of an older kind that gdsboot does not take: one with
/// neither a journal nor extents (`s_uuid`, `EXT4_FEATURE_*` in fs/ext4/ext4.h).
pub fn ext4_uuid(first: &[u8]) -> Option<&[u8; 16]> {
    let block = first.get(1024..2048)?;
    let flags = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
    let is_ext4 = block.get(0x38..0x3a)? == b"\x53\xef" && flags(0x5c)? & 4 != 0 && flags(0x60)? & 0x40 != 0;
    is_ext4.then(|| block.get(0x68..0x78)?.try_into().ok()).flatten()
}

/// What stands at the end of the first page of swap space (mm/swapfile.c, kernel/power/swap.c).
const SWAP: [(&str, &[u8]); 7] = [
    ("swap", b"SWAPSPACE2"),
    ("swap (old)", b"SWAP-SPACE"),
    ("a hibernated system", b"S1SUSPEND\0"),
    ("a hibernated system", b"S2SUSPEND\0"),
    ("a hibernated system", b"ULSUSPEND\0"),
    ("a hibernated system", b"LINHIB0001"),
    ("a hibernated system", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"),
];
/// Pages of all architectures.
const PAGES: [u64; 5] = [4 * K, 8 * K, 16 * K, 32 * K, 64 * K];

/// Promise's RAID begins at one of these sectors before the end (dmraid: pdc.h).
const PROMISE: [u64; 13] = [16, 63, 255, 256, 399, 591, 675, 735, 911, 951, 974, 991, 3087];

/// Four labels of 256 KiB (OpenZFS: include/sys/vdev_impl.h); each has pairs of names from 16 KiB on and a ring of
/// überblocks from 128 KiB on.
const ZFS_LABEL: u64 = 256 * K;
const UBERBLOCKS: Range<u64> = 128 * K..ZFS_LABEL;

/// Names what stands at either end of a disk, ordered by place. What has no name is not found here.
pub fn find(ends: &Ends<'_>) -> Vec<Signature> {
    let mut found = Vec::new();
    let mut see = |name: &str, at: u64| found.push(Signature { at, name: name.to_owned() });
    for (name, magic, place) in MAGICS {
        let at = match *place {
            Start(at) => Some(at),
            End(back) => ends.end(back),
            WholeEnd(piece, back) => (ends.bytes / piece * piece).checked_sub(back),
        };
        if let Some(at) = at.filter(|at| ends.has(*at, magic)) {
            see(name, at);
        }
    }
    for page in PAGES {
        for (name, magic) in SWAP {
            if ends.has(page - 10, magic) {
                see(name, page - 10);
            }
        }
    }
    for at in PROMISE.iter().filter_map(|sectors| ends.end(sectors * SECTOR)) {
        if ends.has(at, b"Promise Technology, Inc.") {
            see("Promise RAID", at);
        }
    }
    let whole = ends.bytes / ZFS_LABEL * ZFS_LABEL;
    let labels = [Some(0), Some(ZFS_LABEL), whole.checked_sub(2 * ZFS_LABEL), whole.checked_sub(ZFS_LABEL)];
    for label in labels.into_iter().flatten() {
        // The smallest überblock has 1 KiB.
        let is_zfs = UBERBLOCKS.step_by(K as usize).any(|uber| {
            let magic = 0x00ba_b10c_u64;
            ends.has(label + uber, &magic.to_le_bytes()) || ends.has(label + uber, &magic.to_be_bytes())
        });
        if is_zfs {
            see("ZFS", label);
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests;
