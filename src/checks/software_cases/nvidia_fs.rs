//! nvidia-fs and the nvme driver that must know it.

use super::good::{GPU, LOADED, rocky, texts, ubuntu};
use super::machine::{Log, Machine};
use super::printed::{cufile_log, gdscheck, gdscheck_16, gpu};

const NOT_REGISTERED: &str = "ERROR  cufio-fs:199 NVMe Driver not registered with nvidia-fs!!!";
const POSIX: &str = "NOTICE  cufio:294 cuFileHandleRegister GDS not supported or disabled by config, using cuFile posix \
                     read/write with compat mode enabled";

fn without_hook(m: &Machine) {
    m.cut("proc/kallsyms", "nvfs_dma_ops");
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/31
#[test]
fn rocky_8_with_its_own_nvme() {
    let m = rocky();
    without_hook(&m);
    m.file("proc/sys/kernel/osrelease", "4.18.0-477.27.1.el8_8.x86_64\n");
    m.file(
        "proc/version",
        "Linux version 4.18.0-477.27.1.el8_8.x86_64 (mockbuild@rocky) (gcc version 8.5.0) #1 SMP\n",
    );
    m.without("run/gdsboot/commands/uname-0").without("run/gdsboot/commands/ofed_info-0");
    m.without("run/gdsboot/commands/gdscheck-0");
    let found =
        gdscheck("1.7.1.12", Some("2.17"), None, "Unsupported", &gpu("NVIDIA A100 80GB PCIe", 131_072));
    m.ran("/usr/local/cuda-12.2/gds/tools/gdscheck -p", 0, &found, "");
    m.file("root/cufile.log", &cufile_log(&[NOT_REGISTERED, NOT_REGISTERED, POSIX]));
    m.log(Log::Messages, &["nvidia_fs: Initializing nvfs driver module"])
        .blames(&[&["nvme.patched", "route.possible"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/4: nothing but what was pasted.
#[test]
fn own_nvme_by_pasted_texts() {
    let m = texts();
    m.edit(
        "run/gdsboot/commands/gdscheck-0/stdout",
        " NVMe               : Supported",
        " NVMe               : Unsupported",
    );
    m.file(
        "cufile.log",
        &cufile_log(&[
            "NOTICE  cufio-rdma:175 nvidia_peermem.ko is not loaded. Disabling UserSpace RDMA access.",
            NOT_REGISTERED,
            POSIX,
        ]),
    );
    m.blames(&[&["nvme.patched"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/72
#[test]
fn generic_kernel_with_nvidia_fs_of_dkms() {
    let m = ubuntu();
    without_hook(&m);
    for path in
        ["proc/version", "proc/sys/kernel/osrelease", "proc/cmdline", "run/gdsboot/commands/uname-0/stdout"]
    {
        m.edit(path, "6.8.0-1024-nvidia", "6.8.0-88-generic");
    }
    let card = gpu("NVIDIA H100 PCIe", 131_072);
    m.ran_instead(
        "gdscheck.py -p",
        0,
        &gdscheck("1.15.1.6", Some("2.26"), Some("Unsupported"), "Unsupported", &card),
        "",
    );
    m.edit("sys/module/nvidia_fs/version", "2.24.2", "2.26.6");
    m.edit("proc/driver/nvidia-fs/version", "2.24", "2.26");
    m.log(
        Log::DmesgFile,
        &[
            "nvidia_fs: no symbol version for nvidia_p2p_dma_unmap_pages",
            "nvidia_fs: Initializing nvfs driver module",
            "nvidia_fs: registered correctly with major number 501",
            "max_peer_devs : 64 and max_pci_depth : 16",
        ],
    )
    .blames(&[&["nvme.patched"]], &["nvidia-fs.symbols"]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/77, before its owner patched nvme: GDS 1.16, compat off, all rows refuse.
#[test]
fn own_nvme_by_gdscheck_of_1_16() {
    let m = ubuntu();
    without_hook(&m);
    let found =
        gdscheck_16(Some("2.27"), "Unsupported", ("false", "false"), &gpu("NVIDIA H100 PCIe", 131_072));
    m.ran_instead(
        "gdscheck.py -p",
        0,
        &found.replace("compat_mode : true", "compat_mode : false").replace(": compat", ": Unsupported"),
        "",
    );
    m.edit("etc/cufile.json", "\"allow_compat_mode\": true", "\"allow_compat_mode\": false");
    m.edit("sys/module/nvidia_fs/version", "2.24.2", "2.27.3").edit(
        "proc/driver/nvidia-fs/version",
        "2.24",
        "2.27",
    );
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "INFO   cufio-cuda:571 Config doesn't support PCIP2PDMA",
            NOT_REGISTERED,
            "ERROR  cufio:297 cuFileHandleRegister error, file checks failed",
            "ERROR  cufio:339 cuFileHandleRegister error: GPUDirect Storage not supported on current file",
        ]),
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["nvme.patched"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/31: its log of two weeks also has `nvidia-fs.ko driver not loaded`.
#[test]
fn nvidia_fs_was_not_loaded_at_boot() {
    let m = ubuntu();
    m.unload("nvidia_fs");
    let found =
        gdscheck("1.13.1.3", None, Some("Unsupported"), "Unsupported", &gpu("NVIDIA H100 PCIe", 131_072));
    m.ran_instead("gdscheck.py -p", 0, &found, "");
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  cufio-drv:716 nvidia-fs.ko driver not loaded",
            "NOTICE  cufio-drv:720 running in compatible mode",
        ]),
    );
    m.log(Log::Journal, &LOADED[..5]).blames(&[&["nvidia-fs.loaded"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/87
#[test]
fn doca_nvme_speaks_another_version() {
    let m = rocky();
    let symbols = fs_err::read_to_string(m.path("proc/kallsyms")).unwrap();
    m.file("proc/kallsyms", &symbols.replace("nvme_v1_", "nvme_v2_"));
    m.ran_instead(
        "gdscheck -p",
        0,
        &gdscheck("1.11.1.6", Some("2.22"), None, "Unsupported", &gpu("NVIDIA A100 80GB PCIe", 131_072)),
        "",
    );
    m.file("tmp/cufile.log", &cufile_log(&[NOT_REGISTERED, POSIX]));
    m.blames(&[&["nvme.hook-version", "nvme.patched"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/50's subject: a kernel newer than nvidia-fs knows.
#[test]
fn nvidia_fs_older_than_the_kernel() {
    let m = ubuntu();
    for path in
        ["proc/version", "proc/sys/kernel/osrelease", "proc/cmdline", "run/gdsboot/commands/uname-0/stdout"]
    {
        m.edit(path, "6.8.0-1024-nvidia", "6.11.0-1016-nvidia");
    }
    let lines = [
        LOADED,
        &[
            "nvidia-fs:nvfs_mgroup_pin_shadow_pages:397 Unable to pin shadow buffer pages 1024 ret= -14",
            "nvidia-fs:nvfs_map:1505 Error nvfs_setup_shadow_buffer",
        ],
    ]
    .concat();
    m.log(Log::Syslog, &lines).blames(&[&["nvidia-fs.version"]], &[]);
}

// https://github.com/tinygrad/open-gpu-kernel-modules/issues/50
#[test]
fn a_geforce_may_not_be_mapped() {
    let m = ubuntu();
    m.file(&format!("sys/devices/{GPU}/device"), "0x2b85\n")
        .file(&format!("sys/devices/{GPU}/class"), "0x030000\n");
    m.edit("proc/driver/nvidia/gpus/0000:19:00.0/information", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 5090");
    m.edit("run/gdsboot/commands/nvidia-smi-0/stdout", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 5090");
    m.edit("run/gdsboot/commands/gdscheck.py-0/stdout", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 5090");
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  0:522 nvidia-fs MAP ioctl failed : ioctl_return: -22 ioctl_ret: -1",
            "ERROR  0:555 map failed",
            "ERROR  cufio-obj:156 error allocating nvfs handle, size: 2097152",
            "ERROR  cufio_core:1648 cuFileBufRegister error, object allocation failed",
        ]),
    );
    let lines =
        [LOADED, &["nvidia-fs:nvfs_pin_gpu_pages:1292 Error ret -22 invoking nvidia_p2p_get_pages"]].concat();
    m.log(Log::Kmsg, &lines).blames(&[&["gpu.product", "driver.product"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/34
#[test]
fn nvidia_fs_built_for_another_driver() {
    let m = ubuntu();
    m.unload("nvidia_fs").without("run/gdsboot/commands/gdscheck.py-0");
    m.ran("modprobe nvidia-fs", 1, "", "modprobe: ERROR: could not insert 'nvidia_fs': Unknown symbol in module, or unknown parameter (see dmesg)\n");
    let lines = [
        &LOADED[..5],
        &[
            "nvidia_fs: disagrees about version of symbol nvidia_p2p_dma_map_pages",
            "nvidia_fs: Unknown symbol nvidia_p2p_dma_map_pages (err -22)",
            "nvidia_fs: Unknown symbol nvidia_p2p_get_pages (err -22)",
        ],
    ]
    .concat();
    m.log(Log::DmesgFile, &lines).blames(&[&["nvidia-fs.symbols"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/48: the module never got built.
#[test]
fn dkms_could_not_build_nvidia_fs() {
    let m = ubuntu();
    m.unload("nvidia_fs").without("run/gdsboot/commands/gdscheck.py-0");
    m.ran(
        "dkms status",
        0,
        "nvidia-fs/2.14.14: added\nnvidia/570.124.06, 6.8.0-1024-nvidia, x86_64: installed\n",
        "",
    );
    m.ran(
        "modprobe nvidia-fs",
        1,
        "",
        "modprobe: FATAL: Module nvidia-fs not found in directory /lib/modules/6.8.0-1024-nvidia\n",
    );
    m.file("var/lib/dkms/nvidia-fs/2.14.14/build/make.log", "nvfs-dma.c:512:9: error: implicit declaration of function 'blk_rq_payload_bytes'\nmake[2]: *** [Makefile:1947: modules] Error 2\n");
    m.log(Log::Kmsg, &LOADED[..5]).blames(&[&["nvidia-fs.loaded"]], &[]);
}
