//! Machines on which nothing is wrong, which the other tests break.

use super::machine::{Log, Machine};
use super::printed::{cufile_json, gdscheck, gdscheck_16, gpu, nvidia_smi};

const INTEL: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) \
                     Xeon(R) Platinum 8462Y+\naddress sizes\t: 46 bits physical, 57 bits virtual\nflags\t\t: fpu vme \
                     de pse tsc msr vmx la57\n";
const AMD: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC \
                   9354 32-Core Processor\naddress sizes\t: 52 bits physical, 57 bits virtual\nflags\t\t: fpu vme de \
                   pse tsc msr svm\n";
const FULL: &str =
    "MemTotal:       527999056 kB\nMemFree:        511230012 kB\nMemAvailable:   509999056 kB\n";

/// The GPU's way on the bare-metal machines, all of which have a PCIe switch.
pub(super) const GPU: &str = "pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:00.0/0000:19:00.0";
const DATA: &str = "pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:01.0/0000:1a:00.0";
const BOOT: &str = "pci0000:6a/0000:6a:01.0/0000:6b:00.0";
const GPU_AT: &str = "0000:19:00.0";

/// What the kernel and its owner say about themselves.
fn kernel(m: &Machine, release: &str, command_line: &str, os: &str) {
    m.file(
        "proc/version",
        &format!("Linux version {release} (buildd@lcy02) (gcc 13.2.0) #1 SMP PREEMPT_DYNAMIC\n"),
    );
    m.file("proc/sys/kernel/osrelease", &format!("{release}\n"));
    m.file(
        "proc/cmdline",
        &format!("BOOT_IMAGE=/vmlinuz-{release} root=/dev/mapper/vg0-root ro {command_line}\n"),
    );
    m.file("etc/os-release", os);
    m.file("proc/meminfo", FULL);
    m.file("proc/mdstat", "Personalities : \nunused devices: <none>\n");
    m.ran(
        "uname -a",
        0,
        &format!("Linux gpu01 {release} #1 SMP PREEMPT_DYNAMIC x86_64 x86_64 x86_64 GNU/Linux\n"),
        "",
    );
}

/// The PCI tree of a server with two NVMe drives, the GPU and the data drive under one switch.
fn server(m: &Machine, gpu: &str, bridge: &str, port: &str) {
    m.pci("pci0000:00/0000:00:00.0", "060000", bridge, None);
    m.pci("pci0000:00/0000:00:1f.2", "010601", "8086:1ba2", Some("ahci"));
    m.pci("pci0000:16/0000:16:01.0", "060400", port, Some("pcieport"));
    m.pci("pci0000:16/0000:16:01.0/0000:17:00.0", "060400", "1000:c030", Some("pcieport"));
    m.pci("pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:00.0", "060400", "1000:c030", Some("pcieport"));
    m.pci("pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:01.0", "060400", "1000:c030", Some("pcieport"));
    m.pci(GPU, "030200", gpu, Some("nvidia"));
    m.pci(DATA, "010802", "144d:a80a", Some("nvme"));
    m.pci("pci0000:6a/0000:6a:01.0", "060400", port, Some("pcieport"));
    m.pci(BOOT, "010802", "1344:51c0", Some("nvme"));
    m.pci("pci0000:00/0000:00:1c.0", "060400", "8086:1bbf", Some("pcieport"));
    m.pci("pci0000:00/0000:00:1c.0/0000:03:00.0", "030000", "1a03:2000", Some("ast"));
    m.pci("pci0000:16/0000:16:03.0", "060400", port, Some("pcieport"));
    m.pci("pci0000:16/0000:16:03.0/0000:1e:00.0", "020700", "15b3:1021", Some("mlx5_core"));
    m.folder("sys/kernel/iommu_groups").folder("sys/class/iommu");
    for table in ["FACP", "APIC", "MCFG", "DMAR"] {
        m.file(&format!("sys/firmware/acpi/tables/{table}"), table);
    }
    m.files(
        "sys/class/dmi/id",
        &[("sys_vendor", "Dell Inc."), ("product_name", "PowerEdge R760xa"), ("bios_version", "2.4.4")],
    );
    m.nvme("nvme0", BOOT, "Micron_7450_MTFDKBA960TFR", 1_875_385_008);
    m.nvme("nvme1", DATA, "SAMSUNG MZWLR3T8HBLS-00007", 7_501_476_528);
    // The boot drive carries LVM, beside the clean data drive.
    m.above("dm-0", "253:0", &["nvme0n1"], &[("dm/name", "vg0-root"), ("dm/uuid", "LVM-3jWfOe")]);
}

/// The open driver, loaded.
fn driver(m: &Machine, version: &str, gpu: &str, address: &str) {
    m.module("nvidia_uvm", "", None);
    m.module("nvidia", "nvidia_uvm", Some(version));
    let built = "Release Build  (dvs-builder@U22-I3-B17-02-5)  Wed Feb 12 22:56:04 UTC 2025";
    m.file("proc/driver/nvidia/version", &format!("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  {built}\nGCC version:  gcc version 13.2.0\n"));
    m.file("proc/driver/nvidia/params", "ResmanDebugLevel: 4294967295\nRmLogonRC: 1\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\nEnableStreamMemOPs: 0\nRegistryDwords: \"\"\nRegistryDwordsPerDevice: \"\"\n");
    m.file(
        &format!("proc/driver/nvidia/gpus/{address}/information"),
        &format!("Model: \t\t {gpu}\nIRQ:   \t\t 214\nGPU UUID: \t GPU-0e5bc1a5-3b53-8d42-9c1f-f2a2a7b3c001\nVideo BIOS: \t 96.00.5e.00.03\nBus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t {address}\nDevice Minor: \t 0\nGPU Firmware: \t {version}\nGPU Excluded:\t No\n"),
    );
    m.ran("modinfo nvidia", 0, &format!("filename:       /lib/modules/updates/dkms/nvidia.ko\nversion:        {version}\nlicense:        Dual MIT/GPL\nfirmware:       nvidia/{version}/gsp_ga10x.bin\n"), "");
    m.file(&format!("usr/lib/x86_64-linux-gnu/libcuda.so.{version}"), "");
    m.file(&format!("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}"), "");
}

/// nvidia-fs, loaded, and an nvme driver that knows it.
fn nvfs(m: &Machine, version: &str, gds: &str) {
    m.module("nvidia_fs", "", Some(version));
    m.edit("proc/modules", "nvidia 253952 1 nvidia_uvm,", "nvidia 253952 2 nvidia_fs,nvidia_uvm,");
    let short = version.rsplit_once('.').unwrap().0;
    m.file("proc/driver/nvidia-fs/version", &format!("version: {short}\n"));
    m.file("proc/driver/nvidia-fs/devcount", "1\n").file("proc/driver/nvidia-fs/bridges", "");
    m.file("proc/driver/nvidia-fs/stats", &format!("GDS Version: {gds} \nNVFS statistics(ver: 4.0)\nNVFS Driver(version: {version})\nMellanox PeerDirect Supported: True\nIO stats: Disabled, peer IO stats: Disabled\nLogging level: info\n\nActive Shadow-Buffer (MiB): 0\nActive Process: 0\nReads\t\t\t\t: err=0 io_state_err=0\nSparse Reads\t\t\t: n=0 io=0 holes=0 pages=0 \nWrites\t\t\t\t: err=0 io_state_err=0 pg-cache=0 pg-cache-fail=0 pg-cache-eio=0\nMmap\t\t\t\t: n=0 ok=0 err=0 munmap=0\nBar1-map\t\t\t: n=0 ok=0 err=0 free=0 callbacks=0 active=0 delay-frees=0\nError\t\t\t\t: cpu-gpu-pages=0 sg-ext=0 dma-map=0 dma-ref=0\nOps\t\t\t\t: Read=0 Write=0 BatchIO=0\n"));
}

/// nvme and, with or without the hook, the kernel's symbols.
fn symbols(m: &Machine, hook: bool, p2pdma: bool) {
    m.module("nvme_core", "nvme", Some("1.0")).module("nvme", "", Some("1.0"));
    m.module("xfs", "", None).module("raid0", "", None).module("ast", "", None);
    m.files("sys/module/nvme_core/parameters", &[("multipath", "Y"), ("io_timeout", "30")]);
    let mut text = String::from(
        "0000000000000000 T startup_64\n0000000000000000 T __x64_sys_read\n0000000000000000 t nvme_queue_rq\t[nvme]\n0000000000000000 t nvme_setup_prp_list\t[nvme]\n",
    );
    if hook {
        text += "0000000000000000 T nvme_v1_register_nvfs_dma_ops\t[nvme]\n0000000000000000 T nvme_v1_unregister_nvfs_dma_ops\t[nvme]\n";
    }
    if p2pdma {
        text += "0000000000000000 T pci_p2pdma_add_resource\n0000000000000000 d p2pdma_pgmap_ops\n";
    }
    m.file("proc/kallsyms", &text);
}

const MOUNTS: &str = "sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n/dev/mapper/vg0-root / ext4 rw,relatime 0 0\ntmpfs /run tmpfs rw,nosuid,nodev,size=52799908k,mode=755 0 0\n/dev/nvme0n1p1 /boot/efi vfat rw,relatime,fmask=0022 0 0\n/dev/nvme1n1 /data xfs rw,noatime,attr2,inode64,logbufs=8,logbsize=32k,noquota 0 0\n";

const UBUNTU_24: &str =
    "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n";
const ROCKY_9: &str = "NAME=\"Rocky Linux\"\nVERSION=\"9.5 (Blue Onyx)\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.5\"\n";

/// Bare metal, Ubuntu's `linux-nvidia` kernel, an H100 and nvidia-fs.
pub(super) fn ubuntu() -> Machine {
    let m = Machine::new();
    kernel(&m, "6.8.0-1024-nvidia", "iommu=off console=tty0 console=ttyS0,115200n8", UBUNTU_24);
    m.file("proc/cpuinfo", INTEL).file("proc/mounts", MOUNTS);
    server(&m, "10de:2331", "8086:09a2", "8086:352a");
    symbols(&m, true, true);
    driver(&m, "570.124.06", "NVIDIA H100 PCIe", GPU_AT);
    nvfs(&m, "2.24.2", "1.13.1.3");
    m.file("etc/cufile.json", &cufile_json("false", "", "true"));
    let found = gdscheck(
        "1.13.1.3",
        Some("2.24"),
        Some("Unsupported"),
        "Supported",
        &gpu("NVIDIA H100 PCIe", 131_072),
    );
    m.ran("/usr/local/cuda/gds/tools/gdscheck.py -p", 0, &found, "");
    m.ran("nvidia-smi", 0, &nvidia_smi("570.124.06", "12.8", "NVIDIA H100 PCIe", "0000:19:00.0"), "");
    m
}

/// The driver's usual lines on [`ubuntu`].
pub(super) const LOADED: &[&str] = &[
    "nvidia: loading out-of-tree module taints kernel.",
    "nvidia-nvlink: Nvlink Core is being initialized, major device number 509",
    "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs-builder@U22-I3-B17-02-5)",
    "nvidia_uvm: module uses symbols nvUvmInterfaceDisableAccessCntr from proprietary module nvidia, inheriting taint.",
    "nvidia-uvm: Loaded the UVM driver, major device number 507.",
    "nvidia_fs: Initializing nvfs driver module",
    "nvidia_fs: registered correctly with major number 505",
];

/// Bare metal, Rocky Linux, AMD, an A100, MLNX_OFED's nvme and nvidia-fs.
pub(super) fn rocky() -> Machine {
    let m = Machine::new();
    kernel(&m, "5.14.0-503.33.1.el9_5.x86_64", "amd_iommu=off crashkernel=1G-4G:192M", ROCKY_9);
    m.file("proc/cpuinfo", AMD).file("proc/mounts", MOUNTS);
    server(&m, "10de:20b5", "1022:14a4", "1022:14ab");
    symbols(&m, true, false);
    driver(&m, "560.35.03", "NVIDIA A100 80GB PCIe", GPU_AT);
    nvfs(&m, "2.22.3", "1.11.1.6");
    m.file("etc/cufile.json", &cufile_json("false", "", "true"));
    let found = gdscheck("1.11.1.6", Some("2.22"), None, "Supported", &gpu("NVIDIA A100 80GB PCIe", 131_072));
    m.ran("/usr/local/cuda-12.6/gds/tools/gdscheck -p", 0, &found, "");
    m.ran("ofed_info -s", 0, "MLNX_OFED_LINUX-24.10-0.7.0.0:\n", "");
    m.ran("nvidia-smi", 0, &nvidia_smi("560.35.03", "12.6", "NVIDIA A100 80GB PCIe", "0000:19:00.0"), "");
    m
}

/// A virtual machine on AMD with an L40S and a drive under one emulated switch, set up for P2PDMA, no nvidia-fs.
pub(super) fn guest() -> Machine {
    let m = Machine::new();
    kernel(&m, "6.8.0-79-generic", "console=ttyS0", UBUNTU_24);
    m.file("proc/cpuinfo", &AMD.replace("svm", "svm hypervisor"));
    m.file("proc/mounts", "/dev/vda1 / ext4 rw,relatime,discard 0 0\n/dev/nvme0n1 /mnt xfs rw,relatime,attr2,inode64,noquota 0 0\n");
    let (up, gpu_at, nvme_at) =
        ("pci0000:00/0000:00:1c.0/0000:01:00.0", "0000:02:00.0/0000:03:00.0", "0000:02:01.0/0000:04:00.0");
    m.pci("pci0000:00/0000:00:00.0", "060000", "8086:29c0", None);
    m.pci("pci0000:00/0000:00:01.0", "030000", "1234:1111", Some("bochs-drm"));
    m.pci("pci0000:00/0000:00:02.0", "010000", "1af4:1048", Some("virtio-pci"));
    m.pci("pci0000:00/0000:00:1c.0", "060400", "1b36:000c", Some("pcieport"));
    m.pci(up, "060400", "104c:8232", Some("pcieport"));
    m.pci(&format!("{up}/0000:02:00.0"), "060400", "104c:8233", Some("pcieport"));
    m.pci(&format!("{up}/0000:02:01.0"), "060400", "104c:8233", Some("pcieport"));
    m.pci(&format!("{up}/{gpu_at}"), "030200", "10de:26b9", Some("nvidia"));
    m.pci(&format!("{up}/{nvme_at}"), "010802", "144d:a80a", Some("nvme"));
    m.nvme("nvme0", &format!("{up}/{nvme_at}"), "SAMSUNG MZWLR3T8HBLS-00007", 7_501_476_528);
    m.folder("sys/kernel/iommu_groups").folder("sys/class/iommu");
    m.files(
        "sys/class/dmi/id",
        &[("sys_vendor", "QEMU"), ("product_name", "Standard PC (Q35 + ICH9, 2009)")],
    );
    symbols(&m, false, true);
    m.files("sys/module/nvme_core/parameters", &[("multipath", "N")]);
    driver(&m, "580.65.06", "NVIDIA L40S", "0000:03:00.0");
    m.edit(
        "proc/driver/nvidia/params",
        "RegistryDwords: \"\"",
        "RegistryDwords: \"RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1;\"",
    );
    m.file("etc/modprobe.d/nvme.conf", "options nvme_core multipath=N\n");
    m.file(
        "etc/modprobe.d/nvidia-p2pdma.conf",
        "options nvidia NVreg_RegistryDwords=\"RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1;\"\n",
    );
    m.file("etc/cufile.json", &cufile_json("true", "", "true"));
    let found = gdscheck("1.15.0.42", None, Some("Supported"), "Unsupported", &gpu("NVIDIA L40S", 65_536));
    let found = found.replace("use_pci_p2pdma : false", "use_pci_p2pdma : true");
    m.ran("gdscheck -p", 0, &found, "");
    m.ran("nvidia-smi", 0, &nvidia_smi("580.65.06", "13.0", "NVIDIA L40S", "0000:03:00.0"), "");
    m
}

/// Bare metal, a workstation set up for P2PDMA, captured by a plain user.
pub(super) fn workstation() -> Machine {
    let m = Machine::new();
    kernel(&m, "6.14.0-37-generic", "amd_iommu=off quiet splash", UBUNTU_24);
    m.file("proc/cpuinfo", AMD).file("proc/mounts", MOUNTS);
    server(&m, "10de:26b1", "1022:14a4", "1022:14ab");
    symbols(&m, false, true);
    m.files("sys/module/nvme_core/parameters", &[("multipath", "N")]);
    driver(&m, "590.48.01", "NVIDIA RTX 6000 Ada Generation", GPU_AT);
    m.edit(
        "proc/driver/nvidia/params",
        "RegistryDwords: \"\"",
        "RegistryDwords: \"RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1\"",
    );
    m.file("etc/cufile.json", &cufile_json("true", "true", "true"));
    let card = gpu("NVIDIA RTX 6000 Ada Generation", 65_536);
    m.ran("gdscheck.py -p", 0, &gdscheck_16(None, "p2pdma, compat", ("true", "true"), &card), "");
    m.ran(
        "nvidia-smi",
        0,
        &nvidia_smi("590.48.01", "13.1", "NVIDIA RTX 6000 Ada Gene...", "0000:19:00.0"),
        "",
    );
    // A plain user reads the first 64 bytes of configuration space, and no kernel log.
    for device in fs_err::read_dir(m.path("sys/bus/pci/devices")).unwrap() {
        let config = device.unwrap().path().join("config");
        let bytes = fs_err::read(&config).unwrap();
        fs_err::write(config, &bytes[..64]).unwrap();
    }
    m.ran("dmesg", 1, "", "dmesg: read kernel buffer failed: Operation not permitted\n");
    m
}

/// What an owner pasted: texts alone.
pub(super) fn texts() -> Machine {
    let m = Machine::new();
    let found = gdscheck(
        "1.14.0.30",
        Some("2.25"),
        Some("Unsupported"),
        "Supported",
        &gpu("NVIDIA RTX 6000 Ada Generation", 65_536),
    );
    m.ran("gdscheck -p", 0, &found, "");
    m.ran(
        "nvidia-smi",
        0,
        &nvidia_smi("575.57.08", "12.9", "NVIDIA RTX 6000 Ada Gene...", "0000:41:00.0"),
        "",
    );
    m.ran("uname -r", 0, "6.8.0-60-generic\n", "");
    m.ran("lsmod", 0, "Module                  Size  Used by\nnvidia_fs             294912  0\nnvidia_uvm           2076672  0\nnvidia              11554816  2 nvidia_uvm,nvidia_fs\nnvme                   77824  3\nnvme_core             212992  4 nvme\n", "");
    m.ran("lspci -nn", 0, "00:00.0 Host bridge [0600]: Advanced Micro Devices, Inc. [AMD] Device [1022:14a4]\n41:00.0 VGA compatible controller [0300]: NVIDIA Corporation AD102GL [RTX 6000 Ada Generation] [10de:26b1] (rev a1)\n82:00.0 Non-Volatile memory controller [0108]: Samsung Electronics Co Ltd NVMe SSD Controller PM9A1/PM9A3/980PRO [144d:a80a]\n", "");
    m
}

#[test]
fn ubuntu_with_nvidia_fs() {
    ubuntu().log(Log::Kmsg, LOADED).is_fine();
}

#[test]
fn rocky_with_mellanox_nvme() {
    rocky()
        .log(
            Log::Messages,
            &["nouveau: module blacklisted", "nvidia-fs: registered correctly with major number 505"],
        )
        .is_fine();
}

#[test]
fn guest_with_p2pdma() {
    let lines = ["nvidia 0000:03:00.0: added peer-to-peer DMA memory 0x202000000000-0x203fffffffff"];
    guest().log(Log::Journal, &lines).is_fine();
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/78 has such a machine.
#[test]
fn workstation_seen_by_a_plain_user() {
    workstation().is_fine();
}

#[test]
fn pasted_texts_alone() {
    texts()
        .log(
            Log::DmesgFile,
            &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build"],
        )
        .is_fine();
}

// The system on a mirror of two drives, with the data on a third; P2PDMA, which takes no array.
#[test]
fn the_system_on_a_mirror() {
    let m = workstation();
    m.pci("pci0000:6a/0000:6a:02.0", "060400", "1022:14ab", Some("pcieport"));
    m.pci("pci0000:6a/0000:6a:02.0/0000:6c:00.0", "010802", "1344:51c0", Some("nvme"));
    m.nvme("nvme2", "pci0000:6a/0000:6a:02.0/0000:6c:00.0", "Micron_7450_MTFDKBA960TFR", 1_875_385_008);
    m.without("sys/block/dm-0").without("sys/block/nvme0n1/holders/dm-0");
    m.above("md127", "9:127", &["nvme0n1", "nvme2n1"], &[("md/level", "raid1"), ("md/raid_disks", "2")]);
    m.above("dm-0", "253:0", &["md127"], &[("dm/name", "vg0-root"), ("dm/uuid", "LVM-3jWfOe")]);
    m.is_fine();
}

// Complaints about disks that have nothing to do with it, and modules that DKMS built without Secure Boot.
#[test]
fn a_bad_usb_stick_and_modules_of_dkms() {
    let lines = [LOADED, &[
        "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
        "critical medium error, dev sdb, sector 7744 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
        "Buffer I/O error on dev sdb, logical block 968, async page read",
        "EXT4-fs (sdb1): Remounting filesystem read-only",
        "I/O error, dev sdb, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "DMAR: IOMMU disabled",
        "nvme nvme0: failed to set APST feature (2)",
        "nvme nvme1: Shutdown timeout set to 10 seconds",
        "nvidia-nvlink: Unregistered Nvlink Core, major device number 509",
        "NVRM: Persistence mode is deprecated and will be removed in a future release. Please use nvidia-persistenced instead.",
        "NVRM: Xid (PCI:0000:19:00): 13, pid=4242, name=python3, Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0): Out Of Range Address",
        "pci 0000:3b:00.0: VF BAR 2 [mem size 0x00800000 64bit pref]: can't assign; no space",
        "pci 0000:19:00.0: BAR 9: no space for [mem size 0x2000000000 64bit pref]",
    ]].concat();
    ubuntu().log(Log::Journal, &lines).is_fine();
    texts().log(Log::DmesgHuman, &lines).is_fine();
}

// Secure Boot is on, and all modules are the distribution's own.
#[test]
fn secure_boot_with_signed_modules() {
    let m = ubuntu();
    m.bytes("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", &[6, 0, 0, 0, 1]);
    m.file("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    let lines = [
        &[
            "Kernel is locked down from EFI Secure Boot; see man kernel_lockdown.7",
            "Lockdown: swapper/0: hibernation is restricted; see man kernel_lockdown.7",
        ],
        LOADED,
    ]
    .concat();
    m.log(Log::DmesgFile, &lines).is_fine();
}

// The log of cuFile reaches back to the day before nvidia-fs was set up; gdscheck has the present.
#[test]
fn complaints_of_another_day() {
    let m = ubuntu();
    m.ran("gdsio -f /data/f -d 0 -w 4 -s 1G -i 1M -x 0 -I 0", 0, "IoType: READ XferType: GPUD Threads: 4 DataSetSize: 1048576/1048576(KiB) IOSize: 1024(KiB) Throughput: 6.524658 GiB/sec, Avg_Latency: 598.685498 usecs ops: 1024 total_time 0.153265 secs\n", "");
    m.log(Log::Kmsg, LOADED).is_fine();
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/48 again: nvidia-fs never got built, and P2PDMA is used instead.
#[test]
fn what_is_left_of_nvidia_fs_beside_p2pdma() {
    let m = workstation();
    m.folder("var/lib/dkms/nvidia-fs/2.14.14/source").folder("var/lib/dkms/nvidia-fs/2.14.14/build");
    m.folder("var/lib/dkms/nvidia/590.48.01/6.14.0-37-generic/x86_64");
    m.is_fine();
}

// DPDK takes a network card by vfio-pci, as a hypervisor takes what it gives away.
#[test]
fn a_network_card_in_the_hands_of_dpdk() {
    let m = ubuntu();
    let card = "sys/devices/pci0000:16/0000:16:03.0/0000:1e:00.0";
    m.file(&format!("{card}/class"), "0x020000\n").folder("sys/bus/pci/drivers/vfio-pci");
    m.link(&format!("{card}/driver"), "sys/bus/pci/drivers/vfio-pci");
    m.log(Log::Kmsg, LOADED).is_fine();
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/57 speaks of Grace: neither nvidia-fs nor P2PDMA, the GPU's memory is the
// CPU's.
#[test]
fn grace_and_hopper() {
    let m = Machine::new();
    kernel(&m, "6.8.0-1024-nvidia-64k", "iommu.passthrough=1 init_on_alloc=0", UBUNTU_24);
    m.file(
        "proc/version",
        "Linux version 6.8.0-1024-nvidia-64k (buildd@bos03-arm64-074) (aarch64-linux-gnu-gcc-13) #1 SMP\n",
    );
    m.file("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd evtstrm aes\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f\n");
    m.file("proc/mounts", MOUNTS);
    m.pci("pci0009:00/0009:00:00.0", "060400", "10de:22b1", Some("pcieport"));
    m.pci("pci0009:00/0009:00:00.0/0009:01:00.0", "030200", "10de:2342", Some("nvidia"));
    m.pci("pci0004:00/0004:00:00.0", "060400", "10de:22b2", Some("pcieport"));
    m.pci("pci0004:00/0004:00:00.0/0004:01:00.0", "010802", "144d:a80a", Some("nvme"));
    m.nvme("nvme1", "pci0004:00/0004:00:00.0/0004:01:00.0", "SAMSUNG MZTL21T9HCJR-00A07", 3_750_748_848);
    symbols(&m, false, true);
    driver(&m, "580.95.05", "NVIDIA GH200 480GB", "0009:01:00.0");
    m.file("etc/cufile.json", &cufile_json("false", "", "true"));
    let found = gdscheck_16(
        None,
        "c2c, compat",
        ("false", "false"),
        "NVIDIA GH200 480GB  supports GDS, IOMMU State: Pass-through or Enabled",
    );
    m.ran("gdscheck -p", 0, &found.replace("x86_64", "aarch64"), "");
    m.log(Log::Kmsg, &["nvidia 0009:01:00.0: enabling device (0140 -> 0142)"]).blames(&[], &[]);
}
