//! Filesystems, RAID, device-mapper and the drives.

use super::good::{LOADED, guest, rocky, texts, ubuntu, workstation};
use super::machine::{Log, Machine};
use super::printed::cufile_log;

const DATA: &str = "/dev/nvme1n1 /data xfs rw,noatime,attr2,inode64,logbufs=8,logbsize=32k,noquota 0 0";
const REFUSED: &str =
    "ERROR  cufio:340 cuFileHandleRegister error: GPUDirect Storage not supported on current file";

/// Mounts something else on /data.
fn data(m: &Machine, mount: &str) {
    m.edit("proc/mounts", DATA, mount);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/15
#[test]
fn ext4_that_does_not_say_ordered() {
    let m = ubuntu();
    data(&m, "/dev/nvme1n1 /data ext4 rw,relatime 0 0");
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  cufio-fs:79 mount option not found in mount table data device: /dev/nvme1n1",
            REFUSED,
        ]),
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["storage.filesystem"]], &[]);
}

// The same by the log alone.
#[test]
fn ext4_by_the_words_of_cufile() {
    let m = texts();
    m.file("cufile.log", &cufile_log(&["ERROR  cufio-fs:87 EXT4 journal options not found in mount table for device,can't verify data=ordered mode journalling", "NOTICE  cufio:294 cuFileHandleRegister GDS not supported or disabled by config, using cuFile posix read/write with compat mode enabled"]));
    m.blames(&[&["storage.filesystem"]], &[]);
}

#[test]
fn ext4_that_journals_data() {
    let m = rocky();
    data(&m, "/dev/nvme1n1 /data ext4 rw,noatime,data=journal 0 0");
    m.log(Log::Messages, &["EXT4-fs (nvme1n1): mounted filesystem with journalled data mode. Opts: data=journal. Quota mode: none."]);
    m.blames(&[&["storage.filesystem"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/62
#[test]
fn data_on_a_logical_volume() {
    let m = ubuntu();
    m.above("dm-1", "253:1", &["nvme1n1"], &[("dm/name", "vgdata-scratch"), ("dm/uuid", "LVM-9Jk2")]);
    data(&m, "/dev/mapper/vgdata-scratch /data xfs rw,relatime,attr2,inode64 0 0");
    m.file(
        "data/cufile.log",
        &cufile_log(&[
            "ERROR  cufio-fs:268 Unsupported block device: /dev/dm-1",
            "ERROR  cufio-fs:68 mount options not specified for device in mount table /dev/dm-1",
            REFUSED,
        ]),
    );
    m.log(Log::DmesgFile, LOADED).blames(&[&["storage.device-mapper"]], &[]);
}

// The same with LUKS, by a plain user of the P2PDMA route.
#[test]
fn data_on_an_encrypted_drive() {
    let m = workstation();
    m.above("dm-1", "253:1", &["nvme1n1"], &[("dm/name", "luks-data"), ("dm/uuid", "CRYPT-LUKS2-77")]);
    data(&m, "/dev/mapper/luks-data /data ext4 rw,relatime,data=ordered 0 0");
    m.blames(&[&["storage.device-mapper"]], &[]);
}

// https://github.com/heterodb/pg-strom/issues/913
#[test]
fn striped_drives_under_p2pdma() {
    let m = guest();
    let up = "pci0000:00/0000:00:1c.0/0000:01:00.0/0000:02:02.0";
    m.pci(up, "060400", "104c:8233", Some("pcieport"));
    m.pci(&format!("{up}/0000:05:00.0"), "010802", "144d:a80a", Some("nvme"));
    m.nvme("nvme1", &format!("{up}/0000:05:00.0"), "SAMSUNG MZWLR3T8HBLS-00007", 7_501_476_528);
    m.above("md0", "9:0", &["nvme0n1", "nvme1n1"], &[("md/level", "raid0"), ("md/raid_disks", "2")]);
    m.file("proc/mdstat", "Personalities : [raid0] \nmd0 : active raid0 nvme1n1[1] nvme0n1[0]\n      7501212672 blocks super 1.2 512k chunks\n      \nunused devices: <none>\n");
    m.edit("proc/mounts", "/dev/nvme0n1 /mnt", "/dev/md0 /mnt");
    m.log(Log::Kmsg, &[]).blames(&[&["storage.raid"]], &[]);
}

#[test]
fn drives_in_raid_5() {
    let m = rocky();
    m.above("md127", "9:127", &["nvme1n1"], &[("md/level", "raid5"), ("md/raid_disks", "3")]);
    m.file("proc/mdstat", "Personalities : [raid6] [raid5] [raid4] \nmd127 : active raid5 nvme3n1[3] nvme2n1[1] nvme1n1[0]\n      7501212672 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/3] [UUU]\n\nunused devices: <none>\n");
    data(&m, "/dev/md127 /data xfs rw,relatime 0 0");
    m.blames(&[&["storage.raid"]], &[]);
}

// https://github.com/concourse/concourse/issues/1045 has the filesystem; cuFile takes it in compat mode alone.
#[test]
fn data_on_btrfs() {
    let m = rocky();
    data(&m, "/dev/nvme1n1 /data btrfs rw,relatime,ssd,space_cache=v2,subvolid=5,subvol=/ 0 0");
    m.blames(&[&["storage.filesystem"]], &[]);
}

#[test]
fn data_on_zfs() {
    let m = ubuntu();
    // ZFS makes two partitions on a drive that it is given whole.
    for (number, part) in [("1", "nvme1n1p1"), ("9", "nvme1n1p9")] {
        let folder = format!("{}/{part}", "sys/block/nvme1n1");
        m.files(
            &folder,
            &[("partition", number), ("size", "7501457408"), ("start", "2048"), ("dev", "259:7")],
        );
    }
    data(&m, "tank/scratch /data zfs rw,relatime,xattr,posixacl 0 0");
    m.module("zfs", "", Some("2.2.2-0ubuntu9.1"));
    m.log(Log::Journal, LOADED).blames(&[&["storage.filesystem"]], &[]);
}

// https://github.com/snu-csl/nvmevirt/issues/44 and the kernel's words for a drive that is gone.
#[test]
fn a_drive_that_gave_up() {
    let m = rocky();
    m.edit(
        "sys/devices/pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:01.0/0000:1a:00.0/nvme/nvme1/state",
        "live",
        "dead",
    );
    m.log(Log::Messages, &[
        "nvme nvme1: I/O tag 22 (2016) opcode 0x2 (I/O Cmd) QID 14 timeout, aborting req_op:READ(0) size:1048576",
        "nvme nvme1: I/O tag 22 (2016) opcode 0x2 (I/O Cmd) QID 14 timeout, reset controller",
        "nvme nvme1: Device not ready; aborting reset, CSTS=0x1",
        "nvme nvme1: Disabling device after reset failure: -19",
        "Buffer I/O error on dev nvme1n1, logical block 0, async page read",
        "XFS (nvme1n1): log I/O error -5",
        "XFS (nvme1n1): Filesystem has been shut down due to log error (0x2).",
    ]).blames(&[&["storage.health", "storage.state"]], &[]);
}

// Read errors of the medium: https://github.com/containerd/containerd/issues/5665 has the kernel's words.
#[test]
fn a_drive_with_bad_blocks() {
    let m = ubuntu();
    data(&m, "/dev/nvme1n1 /data ext4 ro,relatime,data=ordered 0 0");
    m.log(Log::Syslog, &[
        "critical medium error, dev nvme1n1, sector 2381848 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "EXT4-fs error (device nvme1n1): ext4_journal_check_start:84: comm gdsio: Detected aborted journal",
        "EXT4-fs (nvme1n1): Remounting filesystem read-only",
    ]).blames(&[&["storage.health", "storage.read-only"]], &["storage.health", "storage.read-only"]);
}
