//! Two things wrong at once, neither of which follows from the other.

use super::driver::dead;
use super::good::{LOADED, guest, rocky, ubuntu, workstation};
use super::machine::Log;
use super::printed::cufile_json;

#[test]
fn unsigned_modules_and_data_on_a_logical_volume() {
    let m = ubuntu();
    dead(&m, "gdscheck.py");
    m.above("dm-1", "253:1", &["nvme1n1"], &[("dm/name", "vgdata-scratch"), ("dm/uuid", "LVM-9Jk2")]);
    m.edit("proc/mounts", "/dev/nvme1n1 /data", "/dev/mapper/vgdata-scratch /data");
    m.log(Log::Kmsg, &["Loading of unsigned module is rejected"]);
    m.blames(
        &[&["kernel.module-signature"], &["storage.device-mapper"]],
        &["gpu.driver", "kernel.secure-boot"],
    );
}

#[test]
fn own_nvme_and_ext4_without_ordered() {
    let m = rocky();
    m.cut("proc/kallsyms", "nvfs_dma_ops");
    m.edit(
        "proc/mounts",
        "/dev/nvme1n1 /data xfs rw,noatime,attr2,inode64,logbufs=8,logbsize=32k,noquota",
        "/dev/nvme1n1 /data ext4 rw,relatime",
    );
    m.edit(
        "run/gdsboot/commands/gdscheck-0/stdout",
        "NVMe               : Supported",
        "NVMe               : Unsupported",
    );
    m.blames(&[&["nvme.patched", "route.possible"], &["storage.filesystem"]], &[]);
}

#[test]
fn multipath_on_and_nvme_not_asked_for() {
    let m = workstation();
    m.files("sys/module/nvme_core/parameters", &[("multipath", "Y")]);
    m.file("etc/cufile.json", &cufile_json("true", "", "true"));
    m.edit("run/gdsboot/commands/gdscheck.py-0/stdout", "p2pdma, compat", "compat");
    m.edit(
        "run/gdsboot/commands/gdscheck.py-0/stdout",
        "block.nvme.use_pci_p2pdma : true",
        "block.nvme.use_pci_p2pdma : false",
    );
    m.blames(&[&["p2pdma.multipath"], &["p2pdma.cufile-keys"]], &[]);
}

#[test]
fn libraries_renewed_and_a_dying_drive() {
    let m = ubuntu();
    m.ran_instead(
        "nvidia-smi",
        18,
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.133\n",
        "",
    );
    m.without("run/gdsboot/commands/gdscheck.py-0");
    let lines = [
        LOADED,
        &[
            "NVRM: API mismatch: the client has the version 570.133.20, but",
            "NVRM: this kernel module has the version 570.124.06.  Please",
            "nvme nvme1: I/O tag 22 (2016) opcode 0x2 (I/O Cmd) QID 14 timeout, reset controller",
            "nvme nvme1: Disabling device after reset failure: -19",
        ],
    ]
    .concat();
    m.log(Log::Journal, &lines).blames(&[&["driver.userland"], &["storage.health"]], &[]);
}

#[test]
fn no_registry_keys_and_striped_drives_in_a_guest() {
    let m = guest();
    m.edit("proc/driver/nvidia/params", "RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1;", "");
    m.above("md0", "9:0", &["nvme0n1"], &[("md/level", "raid0")]);
    m.edit("proc/mounts", "/dev/nvme0n1 /mnt", "/dev/md0 /mnt");
    m.file("proc/mdstat", "Personalities : [raid0] \nmd0 : active raid0 nvme1n1[1] nvme0n1[0]\n      7501212672 blocks super 1.2 512k chunks\n\nunused devices: <none>\n");
    m.blames(&[&["p2pdma.registry-keys"], &["storage.raid"]], &["gds.platform"]);
}
