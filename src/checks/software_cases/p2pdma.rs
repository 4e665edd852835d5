//! The kernel's PCI P2PDMA and its settings.

use super::good::{guest, workstation};
use super::machine::Log;
use super::printed::{cufile_json, cufile_log, gdscheck, gpu};

const READY: &[&str] = &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build"];
const UNSUPPORTED: (&str, &str) = ("NVMe P2PDMA        : Supported", "NVMe P2PDMA        : Unsupported");

// https://github.com/NVIDIA/gds-nvidia-fs/issues/75
#[test]
fn no_registry_keys() {
    let m = guest();
    m.edit("proc/driver/nvidia/params", "RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1;", "");
    m.without("etc/modprobe.d/nvidia-p2pdma.conf");
    m.edit("run/gdsboot/commands/gdscheck-0/stdout", UNSUPPORTED.0, UNSUPPORTED.1);
    m.file("root/cufile.log", &cufile_log(&[
        "TRACE  cufio-cuda:657 Allocated  65536  bytes on the GPU: 0  to check for P2PDMA Support",
        "INFO   cufio-cuda:663 Failed to get cuda p2p device address for ptr 0x7f5323e00000 length: 65536 errornum: 801",
        "DEBUG  cufio-drv:796 gpu attribute pci_p2pdma not supported errornum: 801 error:  CUDA_ERROR_NOT_SUPPORTED",
    ]));
    m.log(Log::Kmsg, READY).blames(&[&["p2pdma.registry-keys"]], &[]);
}

// The keys stand in modprobe.d and the initramfs was not renewed: https://github.com/heterodb/pg-strom/issues/913 step 4.
#[test]
fn registry_keys_not_in_the_initramfs() {
    let m = guest();
    m.edit("proc/driver/nvidia/params", "RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1;", "");
    m.files("sys/module/nvme_core/parameters", &[("multipath", "Y")]);
    m.edit("run/gdsboot/commands/gdscheck-0/stdout", UNSUPPORTED.0, UNSUPPORTED.1);
    m.log(Log::Journal, READY).blames(&[&["p2pdma.registry-keys"], &["p2pdma.multipath"]], &[]);
}

// https://github.com/LMCache/LMCache/issues/2539
#[test]
fn the_key_for_nvme_is_missing_from_1_16_on() {
    let m = workstation();
    m.file("etc/cufile.json", &cufile_json("true", "", "false"));
    m.edit("run/gdsboot/commands/gdscheck.py-0/stdout", "p2pdma, compat", "compat");
    m.edit(
        "run/gdsboot/commands/gdscheck.py-0/stdout",
        "block.nvme.use_pci_p2pdma : true",
        "block.nvme.use_pci_p2pdma : false",
    );
    m.ran(
        "python3 gds_test.py",
        1,
        "",
        "RuntimeError: cuFileHandleRegister failed (cuFile err=5008, cuda_err=0)\n",
    );
    m.blames(&[&["p2pdma.cufile-keys"]], &[]);
}

// https://github.com/aikitoria/open-gpu-kernel-modules/issues/15
#[test]
fn nothing_told_to_cufile() {
    let m = workstation();
    m.file("etc/cufile.json", &cufile_json("false", "false", "true"));
    m.edit("run/gdsboot/commands/gdscheck.py-0/stdout", "p2pdma, compat", "compat");
    m.edit("run/gdsboot/commands/gdscheck.py-0/stdout", "use_pci_p2pdma : true", "use_pci_p2pdma : false");
    m.blames(&[&["p2pdma.cufile-keys"]], &[]);
}

// https://github.com/heterodb/pg-strom/issues/913 step 2
#[test]
fn multipath_left_on() {
    let m = guest();
    m.files("sys/module/nvme_core/parameters", &[("multipath", "Y")]);
    m.without("etc/modprobe.d/nvme.conf");
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  cufio:340 cuFileHandleRegister error: GPUDirect Storage not supported on current file",
        ]),
    );
    m.log(Log::Kmsg, READY).blames(&[&["p2pdma.multipath"]], &[]);
}

// https://github.com/aikitoria/open-gpu-kernel-modules/issues/17
#[test]
fn ubuntu_22_with_its_first_kernel() {
    let m = guest();
    for path in
        ["proc/version", "proc/sys/kernel/osrelease", "proc/cmdline", "run/gdsboot/commands/uname-0/stdout"]
    {
        m.edit(path, "6.8.0-79-generic", "5.15.0-127-generic");
    }
    m.cut("proc/kallsyms", "p2pdma");
    m.file(
        "boot/config-5.15.0-127-generic",
        "CONFIG_PCI=y\n# CONFIG_PCI_P2PDMA is not set\nCONFIG_ZONE_DEVICE=y\n",
    );
    m.edit("run/gdsboot/commands/gdscheck-0/stdout", UNSUPPORTED.0, UNSUPPORTED.1);
    m.file("root/cufile.log", &cufile_log(&["INFO   cufio-drv:812 Kernel does not support PCIP2PDMA"]));
    m.log(Log::Kmsg, READY).blames(&[&["route.possible", "p2pdma.kernel"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/77
#[test]
fn write_combining_against_uncached() {
    let m = guest();
    m.edit("proc/driver/nvidia/params", "RmForceDisableIomapWC=1;", "");
    let conflict = "x86/PAT: gdsio:21281 map pfn RAM range req write-combining for [mem 0x202000000000-0x2020001fffff], got uncached-minus";
    let clash = "x86/PAT: gdsio:21281 conflicting memory types 202000000000-202000200000 write-combining<->uncached-minus";
    m.log(Log::DmesgFile, &[READY, &[conflict, clash]].concat());
    m.blames(&[&["p2pdma.write-combining", "p2pdma.registry-keys"]], &[]);
}

// https://github.com/tinygrad/open-gpu-kernel-modules/issues/23: Resizable BAR is off in the firmware.
#[test]
fn bar1_smaller_than_memory() {
    let m = guest();
    let gpu = "sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/0000:02:00.0/0000:03:00.0";
    m.edit(
        &format!("{gpu}/resource"),
        "0x0000203fffffffff",
        "0x000020000fffffff".replace("20000f", "20200f").as_str(),
    );
    m.edit("run/gdsboot/commands/gdscheck-0/stdout", "65536", "256");
    m.edit("run/gdsboot/commands/gdscheck-0/stdout", UNSUPPORTED.0, UNSUPPORTED.1);
    let lines = [READY, &["NVRM: kbusEnableStaticBar1Mapping_TU102: BAR1 size 268435456 is not large enough to map FB size48305799168 to force static BAR1", "NVRM: GPU0 nvAssertOkFailedNoLog: Assertion failed: Invalid state [NV_ERR_INVALID_STATE] (0x00000040) returned from kbusEnableStaticBar1Mapping_HAL"]].concat();
    m.log(Log::Kmsg, &lines).blames(&[&["gpu.bar1-p2pdma", "p2pdma.static-bar1"]], &["gpu.bar1-size"]);
}

// https://github.com/ai-dynamo/nixl/issues/1063
#[test]
fn p2pdma_asked_of_a_network_drive() {
    let m = guest();
    m.file(
        "proc/mounts",
        "/dev/vda1 / ext4 rw,relatime,discard 0 0\n/dev/nvme1n1 /mnt_nvmf xfs rw,relatime,attr2 0 0\n",
    );
    m.files(
        "sys/devices/virtual/nvme-fabrics/ctl/nvme1",
        &[
            ("model", "Linux"),
            ("serial", "0a1b2c"),
            ("transport", "rdma"),
            ("address", "traddr=10.0.0.2,trsvcid=4420"),
            ("state", "live"),
        ],
    );
    m.link("sys/class/nvme/nvme1", "sys/devices/virtual/nvme-fabrics/ctl/nvme1");
    m.block("sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1", "259:3", 7_000_000);
    m.module("nvme_rdma", "", None).module("nvme_fabrics", "nvme_rdma", None);
    m.ran("./cufile_sample_001 /mnt_nvmf/test/reg1G 0", 1, "opening file /mnt_nvmf/test/reg1G\nregistering device memory of size :131072\nwriting from device memory\nwrite failed : Input/output error\nderegistering device memory\n", "");
    m.log(Log::Kmsg, READY).blames(&[&["p2pdma.fabrics"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/70's release notes: cuFile before 1.13 knows no P2PDMA.
#[test]
fn cufile_too_old_for_p2pdma() {
    let m = guest();
    let found = gdscheck("1.11.1.6", None, None, "Unsupported", &gpu("NVIDIA L40S", 65_536));
    m.ran_instead("gdscheck -p", 0, &found, "");
    m.file("usr/local/cuda-12.6/targets/x86_64-linux/lib/libcufile.so.1.11.1", "");
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  cufio-drv:716 nvidia-fs.ko driver not loaded",
            "NOTICE  cufio-drv:720 running in compatible mode",
        ]),
    );
    m.log(Log::Kmsg, READY).blames(&[&["cufile.release"]], &[]);
}
