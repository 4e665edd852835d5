//! NVIDIA's driver, its firmware, and the kernel's trust in it.

use super::good::{GPU, LOADED, guest, rocky, texts, ubuntu};
use super::machine::{Log, Machine};
use super::printed::{cufile_log, gdscheck_cuda};

const NO_DRIVER: &str = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the \
                         latest NVIDIA driver is installed and running.\n\n";

/// The driver's modules are not in the kernel; programs say what follows from that.
pub(super) fn dead(m: &Machine, tool: &str) {
    for module in ["nvidia_fs", "nvidia_uvm", "nvidia"] {
        m.unload(module);
    }
    m.without(&format!("sys/devices/{GPU}/driver"));
    m.ran_instead("nvidia-smi", 9, NO_DRIVER, "");
    cuda_says(m, tool, "CUDA_ERROR_NO_DEVICE");
}

/// gdscheck gets no further than CUDA.
fn cuda_says(m: &Machine, tool: &str, error: &str) {
    let (out, err) = gdscheck_cuda(error);
    m.ran_instead(&format!("{tool} -p"), if tool.ends_with(".py") { 0 } else { 255 }, &out, &err);
}

/// The driver is there, and starts no GPU.
fn no_gpu_starts(m: &Machine, tool: &str) {
    m.ran_instead("nvidia-smi", 6, "No devices were found\n", "");
    cuda_says(m, tool, "CUDA_ERROR_NO_DEVICE");
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/41
#[test]
fn rocky_with_the_proprietary_driver() {
    let m = rocky();
    m.unload("nvidia_fs");
    m.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16 21:39:15 UTC 2024\nGCC version:  gcc version 11.5.0 (Red Hat 11.5.0-2)\n");
    m.without("run/gdsboot/commands/modinfo-0");
    m.ran_instead(
        "gdscheck -p",
        0,
        &super::printed::gdscheck(
            "1.11.1.6",
            None,
            None,
            "Unsupported",
            &super::printed::gpu("NVIDIA A100 80GB PCIe", 131_072),
        ),
        "",
    );
    let mut lines =
        vec!["NVRM: loading NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16 21:39:15 UTC 2024"];
    for _ in 0..2 {
        lines.push("nvidia_fs: module using GPL-only symbols uses symbols from proprietary module nvidia.");
        lines.push("nvidia_fs: Unknown symbol nvidia_p2p_dma_unmap_pages (err -2)");
        lines.push("nvidia_fs: Unknown symbol nvidia_p2p_get_pages (err -2)");
    }
    m.log(Log::Messages, &lines).blames(&[&["driver.open"]], &[]);
}

// The same by `modinfo` alone: nothing of /proc/driver could be copied.
#[test]
fn proprietary_driver_by_modinfo() {
    let m = ubuntu();
    m.unload("nvidia_fs").without("proc/driver/nvidia");
    // lsmod's columns, not the kernel's.
    m.without("proc/modules");
    m.ran_instead("modinfo nvidia", 0, "filename:       /lib/modules/6.8.0-1024-nvidia/updates/dkms/nvidia.ko.zst\nversion:        570.124.06\nlicense:        NVIDIA\n", "");
    m.without("run/gdsboot/commands/gdscheck.py-0");
    m.blames(&[&["driver.open"]], &["nvidia-fs.loaded"]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/965, in an initramfs without the firmware.
#[test]
fn firmware_missing_from_the_initramfs() {
    let m = ubuntu();
    no_gpu_starts(&m, "gdscheck.py");
    m.without("proc/driver/nvidia/gpus");
    let lines = [LOADED, &[
        "nvidia 0000:19:00.0: Direct firmware load for nvidia/570.124.06/gsp_ga10x.bin failed with error -2",
        "NVRM: RmFetchGspRmImages: No firmware image found",
        "NVRM: GPU 0000:19:00.0: RmInitAdapter failed! (0x61:0x56:1697)",
        "NVRM: GPU 0000:19:00.0: rm_init_adapter failed, device minor number 0",
    ]].concat();
    m.log(Log::DmesgFile, &lines).blames(&[&["driver.gsp-firmware"]], &[]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/1230
#[test]
fn a_gpu_that_was_not_reset() {
    let m = rocky();
    no_gpu_starts(&m, "gdscheck");
    m.log(
        Log::Journal,
        &[
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  560.35.03",
            "NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
            "NVRM: GPU0 _kgspBootGspRm: (the GPU is likely in a bad state and may need to be reset)",
            "NVRM: GPU0 RmInitAdapter: Cannot initialize GSP firmware RM",
            "NVRM: GPU 0000:19:00.0: RmInitAdapter failed! (0x62:0x40:2168)",
            "NVRM: GPU 0000:19:00.0: rm_init_adapter failed, device minor number 0",
        ],
    )
    .blames(&[&["gpu.wedged"]], &[]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/789
#[test]
fn firmware_does_not_start() {
    let m = texts();
    m.without("run/gdsboot/commands/gdscheck-0");
    m.ran_instead("nvidia-smi", 6, "No devices were found\n", "");
    m.log(Log::DmesgHuman, &[
        "NVRM: gpuWaitForGfwBootComplete_TU102: failed to wait for GFW_BOOT: (progress 0x3)",
        "NVRM: kgspWaitForGfwBootOk_TU102: failed to wait for GFW boot complete: 0x65 VBIOS version 94.02.59.00.05",
        "NVRM: RmInitAdapter: Cannot initialize GSP firmware RM",
        "NVRM: GPU 0000:41:00.0: RmInitAdapter failed! (0x62:0x65:1792)",
    ]).blames(&[&["driver.rm-init"]], &[]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446
#[test]
fn firmware_hangs_later() {
    let m = rocky();
    m.log(Log::DmesgHuman, &[
        "NVRM: Xid (PCI:0000:19:00): 119, pid=1346198, name=nvidia-smi, Timeout waiting for RPC from GSP! Expected function 103 (GSP_RM_ALLOC) (0x80 0x38).",
        "NVRM: Xid (PCI:0000:19:00): 119, pid=1346198, name=nvidia-smi, Timeout waiting for RPC from GSP! Expected function 76 (GSP_RM_CONTROL) (0x2080014b 0x5).",
    ]).blames(&[&["gpu.xid"]], &[]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446, read from the syslog of another day's capture.
#[test]
fn gpu_fell_off_the_bus() {
    let m = ubuntu();
    m.ran_instead(
        "nvidia-smi",
        15,
        "Unable to determine the device handle for GPU0: 0000:19:00.0: Unknown Error\n",
        "",
    );
    m.bytes(&format!("sys/devices/{GPU}/config"), &[0xff; 64]);
    cuda_says(&m, "gdscheck.py", "CUDA_ERROR_UNKNOWN");
    let lines = [LOADED, &[
        "NVRM: Xid (PCI:0000:19:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: GPU 0000:19:00.0: GPU has fallen off the bus.",
        "NVRM: GPU 0000:19:00.0: GPU serial number is 1653922004561.",
        "NVRM: Xid (PCI:0000:19:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
        "NVRM: krcRcAndNotifyAllChannels_IMPL: RC all channels for critical error 79.",
    ]].concat();
    m.log(Log::Syslog, &lines).blames(&[&["gpu.fell-off", "gpu.responds"]], &[]);
}

// https://github.com/zzzhouuu/truenas-nvidia-drivers/issues/20
#[test]
fn a_tesla_p4_under_the_open_modules() {
    let m = ubuntu();
    m.file(&format!("sys/devices/{GPU}/device"), "0x1bb3\n");
    m.without("proc/driver/nvidia/gpus");
    no_gpu_starts(&m, "gdscheck.py");
    let lines = [
        LOADED,
        &[
            "NVRM: The NVIDIA GPU 0000:19:00.0 (PCI ID: 10de:1bb3)",
            "NVRM: installed in this system is not supported by open",
            "NVRM: nvidia.ko because it does not include the required GPU",
            "NVRM: System Processor (GSP).",
            "NVRM: GPU 0000:19:00.0: RmInitAdapter failed! (0x24:0x72:1603)",
            "NVRM: GPU 0000:19:00.0: rm_init_adapter failed, device minor number 0",
        ],
    ]
    .concat();
    m.log(Log::DmesgFile, &lines).blames(&[&["gpu.generation", "driver.gpu-supported"]], &[]);
}

// https://github.com/anomixer/proxmox-vgpu-installer/issues/29
#[test]
fn a_tesla_p100_under_a_driver_that_dropped_it() {
    let m = texts();
    m.without("run/gdsboot/commands/gdscheck-0").without("run/gdsboot/commands/lspci-0");
    m.ran_instead("nvidia-smi", 9, NO_DRIVER, "");
    m.log(
        Log::DmesgHuman,
        &[
            "NVRM: The NVIDIA Tesla P100-PCIE-16GB GPU installed in this system is",
            "NVRM:  supported through the NVIDIA 580.xx Legacy drivers. Please",
            "NVRM:  visit http://www.nvidia.com/object/unix.html for more",
            "NVRM:  information.  The 595.71.03 NVIDIA driver will ignore",
            "NVRM:  this GPU.  Continuing probe...",
            "NVRM: ignoring the legacy GPU 0000:41:00.0",
            "NVRM: None of the NVIDIA devices were initialized.",
        ],
    )
    .blames(&[&["driver.gpu-supported", "gpu.generation"]], &[]);
}

// https://github.com/lyulyul/shine-cluster/issues/30
#[test]
fn libraries_renewed_without_a_reboot() {
    let m = ubuntu();
    m.ran_instead(
        "nvidia-smi",
        18,
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.133\n",
        "",
    );
    for library in ["libcuda", "libnvidia-ml"] {
        m.without(&format!("usr/lib/x86_64-linux-gnu/{library}.so.570.124.06"));
        m.file(&format!("usr/lib/x86_64-linux-gnu/{library}.so.570.133.20"), "");
    }
    cuda_says(&m, "gdscheck.py", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH");
    m.file("var/log/apt/history.log", "Start-Date: 2026-11-19  06:50:54\nCommandline: /usr/bin/unattended-upgrade\nUpgrade: libnvidia-compute-570:amd64 (570.124.06-0ubuntu1, 570.133.20-0ubuntu1)\nEnd-Date: 2026-11-19  06:50:54\n");
    let lines = [
        LOADED,
        &[
            "NVRM: API mismatch: the client has the version 570.133.20, but",
            "NVRM: this kernel module has the version 570.124.06.  Please",
            "NVRM: make sure that this kernel module and all NVIDIA driver",
            "NVRM: components have the same version.",
        ],
    ]
    .concat();
    m.log(Log::Kmsg, &lines).blames(&[&["driver.userland"]], &[]);
}

// https://github.com/oddmario/NVIDIA-Ubuntu-Driver-Guide/issues/4, by a plain user: no log, no library names.
#[test]
fn libraries_renewed_by_the_words_of_nvidia_smi() {
    let m = texts();
    m.without("run/gdsboot/commands/gdscheck-0");
    m.ran_instead(
        "nvidia-smi",
        18,
        "",
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.107\n",
    );
    m.blames(&[&["driver.userland"]], &[]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/441
#[test]
fn no_module_for_the_new_kernel() {
    let m = ubuntu();
    dead(&m, "gdscheck.py");
    m.file(
        "lib/modules/6.8.0-1024-nvidia/modules.dep",
        "kernel/drivers/nvme/host/nvme.ko.zst: kernel/drivers/nvme/host/nvme-core.ko.zst\n",
    );
    m.file("lib/modules/6.8.0-1021-nvidia/updates/dkms/nvidia.ko.zst", "");
    m.ran(
        "modprobe nvidia",
        1,
        "",
        "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.8.0-1024-nvidia\n",
    );
    m.ran("dkms status", 0, "nvidia/570.124.06, 6.8.0-1021-nvidia, x86_64: installed\n", "");
    m.log(Log::Kmsg, &[]).blames(&[&["driver.loaded"]], &["gpu.driver"]);
}

// https://github.com/NVIDIA/gpu-driver-container/issues/44
#[test]
fn rocky_with_secure_boot_and_modules_of_dkms() {
    let m = rocky();
    dead(&m, "gdscheck");
    m.file("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    m.ran("mokutil --sb-state", 0, "SecureBoot enabled\n", "");
    m.ran(
        "modprobe nvidia",
        1,
        "",
        "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\n",
    );
    m.log(
        Log::Messages,
        &[
            "Kernel is locked down from EFI Secure Boot; see man kernel_lockdown.7",
            "Loading of module with unavailable key is rejected",
            "systemd-modules-load[812]: Failed to insert module 'nvidia': Key was rejected by service",
        ],
    )
    .blames(&[&["kernel.module-signature"]], &["gpu.driver", "kernel.secure-boot"]);
}

// https://github.com/secureblue/secureblue/issues/1043: nvidia's modules are signed, nvidia-fs' is not.
#[test]
fn secure_boot_refuses_nvidia_fs_alone() {
    let m = ubuntu();
    m.unload("nvidia_fs").without("run/gdsboot/commands/gdscheck.py-0");
    m.ran(
        "modprobe nvidia-fs",
        1,
        "",
        "modprobe: ERROR: could not insert 'nvidia_fs': Required key not available\n",
    );
    m.log(
        Log::Journal,
        &[
            "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7",
            "systemd-modules-load[701]: Failed to insert module 'nvidia_fs': Required key not available",
        ],
    )
    .blames(&[&["kernel.module-signature"]], &["kernel.secure-boot"]);
}

// https://github.com/Oneflow-Inc/oneflow/issues/3106
#[test]
fn nouveau_was_first() {
    let m = ubuntu();
    dead(&m, "gdscheck.py");
    m.folder("sys/bus/pci/drivers/nouveau")
        .link(&format!("sys/devices/{GPU}/driver"), "sys/bus/pci/drivers/nouveau");
    m.module("nouveau", "", None);
    m.log(
        Log::DmesgFile,
        &[
            "nouveau 0000:19:00.0: NVIDIA GH100 (180000a1)",
            "nouveau 0000:19:00.0: unknown chipset (180000a1)",
            "NVRM: GPU 0000:19:00.0 is already bound to nouveau.",
            "NVRM: The NVIDIA probe routine was not called for 1 device(s).",
            "NVRM: This can occur when another driver was loaded and ",
            "NVRM: obtained ownership of the NVIDIA device(s).",
            "NVRM: No NVIDIA devices probed.",
            "nvidia-nvlink: Unregistered Nvlink Core, major device number 509",
        ],
    )
    .blames(&[&["driver.nouveau", "gpu.driver"]], &[]);
}

// https://github.com/dstackai/dstack/issues/2348
#[test]
fn fabric_manager_of_another_version() {
    let m = ubuntu();
    m.file(&format!("sys/devices/{GPU}/device"), "0x2330\n");
    m.pci("pci0000:16/0000:16:05.0", "060400", "8086:352a", Some("pcieport"));
    m.pci("pci0000:16/0000:16:05.0/0000:21:00.0", "068000", "10de:22a3", Some("nvidia-nvswitch"));
    cuda_says(&m, "gdscheck.py", "CUDA_ERROR_SYSTEM_NOT_READY");
    m.log(Log::Journal, &[
        "systemd[1]: Starting nvidia-fabricmanager.service - NVIDIA fabric manager service...",
        "nv-fabricmanager[1507]: fabric manager NVIDIA GPU driver interface version 570.86.15 don't match with driver version 570.124.06. Please update with matching NVIDIA driver package.",
        "systemd[1]: nvidia-fabricmanager.service: Control process exited, code=exited, status=1/FAILURE",
        "systemd[1]: Failed to start nvidia-fabricmanager.service - NVIDIA fabric manager service.",
    ]).blames(&[&["driver.fabric-manager"]], &[]);
}

// https://github.com/aws-samples/aws-deep-learning-ami-ubuntu-dcv-desktop/issues/33
#[test]
fn fabric_manager_not_installed() {
    let m = ubuntu();
    m.file(&format!("sys/devices/{GPU}/device"), "0x2330\n");
    cuda_says(&m, "gdscheck.py", "CUDA_ERROR_SYSTEM_NOT_READY");
    m.ran("nvidia-smi -q -i 0", 0, "==============NVSMI LOG==============\n\nDriver Version                            : 570.124.06\nAttached GPUs                             : 8\nGPU 00000000:19:00.0\n    Product Name                          : NVIDIA H100 80GB HBM3\n    Fabric\n        State                             : In Progress\n        Status                            : N/A\n        CliqueId                          : N/A\n", "");
    m.ran(
        "systemctl status nvidia-fabricmanager",
        4,
        "",
        "Unit nvidia-fabricmanager.service could not be found.\n",
    );
    m.file(
        "home/ubuntu/cufile.log",
        &cufile_log(&[
            "ERROR  cufio_core:955 cuInit Failed, error CUDA_ERROR_SYSTEM_NOT_READY",
            "ERROR  cufio_core:1050 cuFile initialization failed",
        ]),
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["driver.fabric-manager"]], &[]);
}

// https://github.com/wilicc/gpu-burn/issues/133
#[test]
fn no_room_for_uvm_under_kaslr() {
    let m = ubuntu();
    cuda_says(&m, "gdscheck.py", "CUDA_ERROR_OUT_OF_MEMORY");
    let lines = [
        LOADED,
        &["nvidia-uvm: uvm_pmm_gpu.c:3176 devmem_alloc_pagemap[pid:2154] request_free_mem_region() err -34"],
    ]
    .concat();
    m.log(Log::DmesgHuman, &lines).blames(&[&["driver.uvm-memory"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/75 with the driver that Rocky's users had: open, but before P2PDMA.
#[test]
fn a_driver_before_p2pdma() {
    let m = guest();
    for path in ["proc/driver/nvidia/version", "sys/module/nvidia/version"] {
        m.edit(path, "580.65.06", "550.163.01");
    }
    m.edit("run/gdsboot/commands/modinfo-0/stdout", "580.65.06", "550.163.01");
    m.edit("run/gdsboot/commands/nvidia-smi-0/stdout", "580.65.06", "550.163.01");
    for library in ["libcuda", "libnvidia-ml"] {
        m.without(&format!("usr/lib/x86_64-linux-gnu/{library}.so.580.65.06"));
        m.file(&format!("usr/lib/x86_64-linux-gnu/{library}.so.550.163.01"), "");
    }
    m.edit(
        "run/gdsboot/commands/gdscheck-0/stdout",
        "NVMe P2PDMA        : Supported",
        "NVMe P2PDMA        : Unsupported",
    );
    m.log(Log::Kmsg, &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build"]);
    m.blames(&[&["driver.branch"]], &[]);
}

// A minimal image without nvidia-uvm, as the lsmod of
// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/326 shows it.
#[test]
fn uvm_not_loaded() {
    let m = ubuntu();
    m.unload("nvidia_uvm");
    m.edit("proc/modules", "nvidia 253952 2 nvidia_fs,", "nvidia 253952 1 nvidia_fs,");
    cuda_says(&m, "gdscheck.py", "CUDA_ERROR_UNKNOWN");
    m.log(Log::Kmsg, &LOADED[..3]).blames(&[&["driver.uvm"]], &[]);
}

// https://github.com/NVIDIA/nvidia-docker/issues/1648: device nodes that the user may not open.
#[test]
fn device_nodes_of_root_alone() {
    let m = texts();
    m.ran_instead("nvidia-smi", 4, "Failed to initialize NVML: Insufficient Permissions\n", "");
    m.ran("ls -l /dev/nvidia0 /dev/nvidiactl /dev/nvidia-uvm", 0, "crw-rw---- 1 root video 195,   0 Nov 20 04:01 /dev/nvidia0\ncrw-rw---- 1 root video 195, 255 Nov 20 04:01 /dev/nvidiactl\ncrw-rw---- 1 root video 507,   0 Nov 20 04:01 /dev/nvidia-uvm\n", "");
    m.ran("id", 0, "uid=1001(bob) gid=1001(bob) groups=1001(bob)\n", "");
    cuda_says(&m, "gdscheck", "CUDA_ERROR_NO_DEVICE");
    m.log(
        Log::DmesgFile,
        &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build"],
    );
    m.blames(&[&["driver.cuda"]], &[]);
}
