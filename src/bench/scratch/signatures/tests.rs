use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Read as _;

const M: u64 = 1 << 20;

/// A disk that holds `fill` but for some bytes.
struct Disk {
    bytes: u64,
    fill: u8,
    written: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    fn blank(bytes: u64) -> Self {
        Self { bytes, fill: 0, written: Vec::new() }
    }

    fn with(mut self, at: u64, what: &[u8]) -> Self {
        self.written.push((at, what.to_vec()));
        self
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        into.fill(self.fill);
        for (at, what) in &self.written {
            for (n, byte) in what.iter().enumerate() {
                let place = (at + n as u64).checked_sub(offset).map(|n| n as usize);
                if let Some(here) = place.and_then(|place| into.get_mut(place)) {
                    *here = *byte;
                }
            }
        }
    }

    fn probe(&self, seed: u64) -> Probe {
        let mut last = 0;
        Probe::of(self.bytes, 512, seed, |offset, into| {
            assert!(offset >= last && offset % 512 == 0 && into.len() % 512 == 0);
            last = offset + into.len() as u64;
            assert!(last <= self.bytes);
            self.read(offset, into);
            Ok(())
        })
        .unwrap()
    }

    fn names(&self) -> Vec<(u64, String)> {
        self.probe(1).signatures.into_iter().map(|found| (found.at, found.name)).collect()
    }
}

#[test]
fn blank_is_all_zero_or_all_ones() {
    for bytes in [512, 4096, M, 16 * M, 16 * M + 512, 17 * M, 1 << 33] {
        for fill in [0, 0xff] {
            let probe = Disk { fill, ..Disk::blank(bytes) }.probe(0);
            assert_eq!((probe.data, probe.signatures.len()), (None, 0), "{bytes}");
        }
        assert_eq!(Disk { fill: 1, ..Disk::blank(bytes) }.probe(0).data, Some(0));
    }
    // What was written with zeros on a drive that returns ones was written.
    let mixed = Disk { fill: 0xff, ..Disk::blank(1 << 30) }.with((1 << 30) - 1, &[0]);
    assert_eq!(mixed.probe(0).data, Some((1 << 30) - 1));
    assert_eq!(Disk::blank(1 << 30).with(0, &[0xff]).probe(0).data, Some(1));
}

#[test]
fn the_places_are_spread_over_the_whole_disk() {
    for bytes in [16 * M + 512, 17 * M + 4096, 100 * M, 1 << 40, 16 << 40, 1 << 60] {
        let places = places(bytes, 7);
        assert_eq!((places[0].start, places[0].end), (0, END));
        assert_eq!(places.last().unwrap().end, bytes);
        assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "{bytes}");
        let gap = places.windows(2).map(|pair| pair[1].start - pair[0].end).max().unwrap();
        assert!(gap <= 2 * (bytes / PLACES) + CHUNK, "{bytes}: a gap of {gap}");
        assert!(places.len() < 600);
    }
    assert!(places(1 << 40, 1).len() > 500);
    assert_eq!(places(1 << 40, 1), places(1 << 40, 1));
    assert_ne!(places(1 << 40, 1), places(1 << 40, 2));
    for known in [64 * M, 1 << 30, 256 << 30] {
        assert!(places(1 << 40, 1).iter().any(|place| place.contains(&known)), "{known}");
    }
}

#[test]
fn impossible_disks_and_failing_reads_are_errors() {
    for (bytes, block) in [(0, 512), (M, 0), (M, 511), (M, 1 << 17), (M + 1, 512), (M + 512, 4096), (1, 512)]
    {
        assert!(Probe::of(bytes, block, 0, |_, _| Ok(())).is_err(), "{bytes} {block}");
    }
    let broken = |offset: u64, _: &mut [u8]| match offset {
        0..0x10_0000 => Ok(()),
        _ => Err(io::ErrorKind::Other.into()),
    };
    assert!(Probe::of(1 << 40, 512, 0, broken).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_byte_that_is_looked_at_is_found(
        bytes in (1..80 * M / 512).prop_map(|blocks| blocks * 512),
        seed: u64,
        place: prop::sample::Index,
        within: prop::sample::Index,
        byte in 1_u8..,
    ) {
        let places = places(bytes, seed);
        let place = place.get(&places);
        let at = place.start + within.index((place.end - place.start) as usize) as u64;
        let blank = Disk::blank(bytes).probe(seed);
        let probe = Disk::blank(bytes).with(at, &[byte]).probe(seed);
        // All ones from the first byte on would be blank, too: then the second one is data.
        prop_assert_eq!(probe.data, Some(if at == 0 && byte == 0xff { 1 } else { at }));
        prop_assert_ne!(probe.digest, blank.digest);
    }
}

/// The ends of the images in `tests/disks`.
fn images() -> BTreeMap<String, (u64, Vec<u8>, Vec<u8>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/disks/images.tar.zst");
    let mut archive = tar::Archive::new(zstd::Decoder::new(fs_err::File::open(path).unwrap()).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let (mut bytes, mut first, mut last) = (0, Vec::new(), Vec::new());
        loop {
            let before = last.len();
            let read = entry.by_ref().take(END).read_to_end(&mut last).unwrap() as u64;
            if read == 0 {
                break (name, (bytes, first, last));
            }
            bytes += read;
            if before == 0 {
                first = last.clone();
            }
            last.drain(..last.len().saturating_sub(END as usize));
        }
    });
    entries.collect()
}

#[test]
fn what_the_tools_of_each_format_make_has_its_name() {
    let expected = BTreeMap::from([
        ("bcache", "0x1018 bcache"),
        ("btrfs", "0x10040 Btrfs"),
        ("exfat", "0x3 exFAT, 0x1fe a boot sector (MBR, FAT or NTFS), 0x1803 exFAT backup"),
        ("ext4", "0x438 ext2/ext3/ext4"),
        ("f2fs", "0x400 F2FS, 0x1400 F2FS"),
        ("fat16", "0x36 FAT16, 0x1fe a boot sector (MBR, FAT or NTFS)"),
        ("fat32", "0x52 FAT32, 0x1fe a boot sector (MBR, FAT or NTFS), 0xc52 FAT32 backup"),
        ("gpt", "0x1fe a boot sector (MBR, FAT or NTFS), 0x200 GPT, 0xfffe00 GPT backup"),
        ("iso9660", "0x8001 ISO9660"),
        ("jfs", "0x8000 JFS"),
        ("luks1", "0x0 LUKS1"),
        ("luks2", "0x0 LUKS2, 0x4000 LUKS2 second header"),
        ("lvm2", "0x200 LVM2"),
        ("nilfs2", "0x406 NILFS2, 0x81ff006 NILFS2 backup"),
        ("ntfs", "0x3 NTFS, 0x1fe a boot sector (MBR, FAT or NTFS), 0xfffe03 NTFS backup"),
        ("reiserfs", "0x10034 ReiserFS"),
        ("squashfs", "0x0 SquashFS"),
        ("swap", "0xff6 swap"),
        ("udf", "0x8001 UDF, 0x8801 UDF"),
        ("udf-4096", "0x8001 UDF, 0x9001 UDF (4096-byte sectors)"),
        ("verity", "0x0 dm-verity"),
        ("xfs", "0x0 XFS"),
    ]);
    let images = images();
    assert!(images.keys().eq(expected.keys()), "{:?}", images.keys());
    for (name, (bytes, first, last)) in images {
        let found = find(&Ends { first: &first, last: &last, bytes });
        let found: Vec<_> = found.iter().map(|found| format!("{:#x} {}", found.at, found.name)).collect();
        assert_eq!(found.join(", "), expected[&*name], "{name}");
    }
}

/// Formats whose tools are not at hand: as their descriptions say, on a disk whose size is no round number.
#[test]
fn what_is_made_by_hand_has_its_name() {
    const BYTES: u64 = 33 * M + 3 * 512;
    let sector = |back: u64| BYTES - back * 512;
    let md = |minor: u8| [&0xa92b_4efc_u32.to_le_bytes()[..], &[minor, 0, 0, 0]].concat();
    let md_090 = [&md(0)[..], &[90, 0, 0, 0]].concat();
    let uber = 0x00ba_b10c_u64;
    let cases: &[(&str, u64, &[u8])] = &[
        ("MD RAID 0.90", (BYTES & !0xffff) - 0x1_0000, &md_090),
        ("MD RAID 1.0", ((BYTES / 512 - 16) & !7) * 512, &md(1)),
        ("MD RAID 1.1", 0, &md(1)),
        ("MD RAID 1.2", 4096, &md(1)),
        ("Intel RAID (IMSM)", sector(2), b"Intel Raid ISM Cfg Sig. 1.3.00\0\0"),
        ("DDF RAID", sector(1), &0xde11_de11_u32.to_be_bytes()),
        ("DDF RAID", sector(257), &0xde11_de11_u32.to_be_bytes()),
        ("ZFS", 128 << 10, &uber.to_le_bytes()),
        ("ZFS", (128 << 10) + 7 * 1024, &uber.to_be_bytes()),
        ("ZFS", (256 << 10) + (255 << 10), &uber.to_le_bytes()),
        ("ZFS", 33 * M - (512 << 10) + (140 << 10), &uber.to_le_bytes()),
        ("ZFS", 33 * M - (256 << 10) + (160 << 10), &uber.to_be_bytes()),
        ("bcachefs", 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
        ("Ceph BlueStore", 0, b"bluestore block device\n1b4e28ba-2fa1-11d2-883f-0016d3cca427\n"),
        ("DRBD", BYTES / 4096 * 4096 - 4096 + 60, &(0x8374_0267_u32 + 4).to_be_bytes()),
        ("DRBD", BYTES / 4096 * 4096 - 4096 + 60, &(0x8374_0267_u32 + 6).to_be_bytes()),
        ("VMFS", M, &0xc001_d00d_u32.to_le_bytes()),
        ("VMFS", 2 * M, &0x2fab_f15e_u32.to_le_bytes()),
        ("VDO", 0, b"dmvdo001"),
        ("ReFS", 3, b"ReFS"),
        ("APFS", 32, b"NXSB"),
        ("HFS+", 1024, b"H+\0\x04"),
        ("HFS+ backup", BYTES - 1024, b"H+\0\x04"),
        ("HFSX", 1024, b"HX\0\x05"),
        ("BitLocker", 3, b"-FVE-FS-"),
        ("a hibernated system", 4086, b"S1SUSPEND\0"),
        ("a hibernated system", 65526, b"LINHIB0001"),
        ("swap", 16374, b"SWAPSPACE2"),
        ("Promise RAID", sector(63), b"Promise Technology, Inc."),
        ("Promise RAID", sector(3087), b"Promise Technology, Inc."),
        ("LSI RAID", sector(1), b"$XIDE$"),
        ("Adaptec RAID", sector(1), &0x37fc_4d1e_u32.to_be_bytes()),
        ("Silicon Image RAID", sector(1) + 0x60, &0x2f00_0000_u32.to_le_bytes()),
        ("NVIDIA RAID", sector(2), b"NVIDIA"),
        ("JMicron RAID", sector(1), b"JM"),
        ("VIA RAID", sector(1), b"\x55\xaa"),
        ("Highpoint RAID", 9 * 512 + 32, &0x5a78_16f0_u32.to_le_bytes()),
        ("Highpoint RAID", sector(11), &0x5a78_16f3_u32.to_le_bytes()),
        ("GPT (4096-byte sectors)", 4096, b"EFI PART"),
        ("GPT backup", sector(1), b"EFI PART"),
        ("GPT backup (4096-byte sectors)", BYTES - 4096, b"EFI PART"),
        ("a boot sector (MBR, FAT or NTFS)", 510, b"\x55\xaa"),
        ("LVM2", 0, b"LABELONE"),
        ("LVM2", 3 * 512, b"LABELONE"),
        ("LUKS2 second header", 4 * M, b"SKUL\xba\xbe\0\x02"),
        ("FAT12", 0x36, b"FAT12   "),
        ("NTFS backup", sector(1) + 3, b"NTFS    "),
        ("Stratis", 0x204, b"!Stra0tis\x86\xff\x02^Arh"),
        ("dm-integrity", 0, b"integrt"),
        ("SPDK blobstore", 0, b"SPDKBLOB"),
    ];
    for (name, at, bytes) in cases {
        let disk = Disk::blank(BYTES).with(*at, bytes);
        let names = disk.names();
        assert!(names.len() == 1 && names[0].1 == *name, "{name} at {at:#x}: {names:?}");
        assert!(disk.probe(1).data.is_some());
    }
}

#[test]
fn every_line_of_the_table_is_found_and_none_lies_beyond_the_ends() {
    const BYTES: u64 = 40 * M;
    for (name, magic, place) in MAGICS {
        let at = match *place {
            Start(at) => at,
            End(back) => BYTES - back,
            WholeEnd(piece, back) => BYTES / piece * piece - back,
        };
        let names = Disk::blank(BYTES).with(at, magic).names();
        assert!(names.contains(&(at, (*name).to_owned())), "{name}: {names:?}");
        assert!(magic.iter().any(|byte| *byte != 0), "{name}");
    }
}
