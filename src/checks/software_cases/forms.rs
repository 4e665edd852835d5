//! Faults of the other files in other forms: another program's words, another distribution's, less of the machine.

use super::good::{GPU, LOADED, guest, rocky, texts, ubuntu, workstation};
use super::machine::Log;
use super::printed::{cufile_log, gdscheck, gdscheck_cuda, gpu};

// Only gdscheck tells: nvidia-fs answers, and no NVMe drive is registered with it. The symbols were not captured.
#[test]
fn own_nvme_by_gdscheck_alone() {
    let m = ubuntu();
    m.without("proc/kallsyms");
    m.edit(
        "run/gdsboot/commands/gdscheck.py-0/stdout",
        "NVMe               : Supported",
        "NVMe               : Unsupported",
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["nvme.patched"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/41's neighbour: a module of the kernel before the update.
#[test]
fn nvidia_fs_of_another_kernel() {
    let m = rocky();
    m.unload("nvidia_fs").without("run/gdsboot/commands/gdscheck-0");
    m.ran("modprobe nvidia_fs", 1, "", "modprobe: ERROR: could not insert 'nvidia_fs': Exec format error\n");
    m.log(Log::Messages, &["nvidia_fs: version magic '5.14.0-427.13.1.el9_4.x86_64 SMP preempt mod_unload modversions ' should be '5.14.0-503.33.1.el9_5.x86_64 SMP preempt mod_unload modversions '"]);
    m.blames(&[&["nvidia-fs.loaded", "nvidia-fs.symbols"]], &[]);
}

#[test]
fn uvm_missing_by_lsmod() {
    let m = texts();
    m.ran_instead("lsmod", 0, "Module                  Size  Used by\nnvidia_fs             294912  0\nnvidia              11554816  1 nvidia_fs\nnvme                   77824  3\n", "");
    let (out, err) = gdscheck_cuda("CUDA_ERROR_UNKNOWN");
    m.ran_instead("gdscheck -p", 255, &out, &err);
    m.ran(
        "modprobe nvidia-uvm",
        1,
        "",
        "modprobe: FATAL: Module nvidia-uvm not found in directory /lib/modules/6.8.0-60-generic\n",
    );
    m.blames(&[&["driver.uvm"]], &[]);
}

#[test]
fn proprietary_driver_by_lsmod_and_modinfo() {
    let m = texts();
    m.without("run/gdsboot/commands/gdscheck-0");
    m.ran("modinfo -F license nvidia", 0, "NVIDIA\n", "");
    m.ran("modprobe nvidia_fs", 1, "", "modprobe: ERROR: could not insert 'nvidia_fs': Unknown symbol in module, or unknown parameter (see dmesg)\n");
    m.ran_instead("lsmod", 0, "Module                  Size  Used by\nnvidia_uvm           2076672  0\nnvidia              61554816  1 nvidia_uvm\nnvme                   77824  3\n", "");
    m.blames(&[&["driver.open"]], &[]);
}

// https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446's end: memory errors, and nvidia-smi asks for a reset.
#[test]
fn a_gpu_that_wants_a_reset() {
    let m = ubuntu();
    m.ran_instead(
        "nvidia-smi",
        15,
        "Unable to determine the device handle for GPU0: 0000:19:00.0: GPU requires reset\n",
        "",
    );
    m.without("run/gdsboot/commands/gdscheck.py-0");
    let lines = [LOADED, &[
        "NVRM: Xid (PCI:0000:19:00): 48, pid=2914, name=python3, An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer at partition 3, subpartition 0.",
        "NVRM: Xid (PCI:0000:19:00): 95, pid=2914, name=python3, Uncontained: FBHUB. RST: Yes, D-RST: No",
    ]].concat();
    m.log(Log::Journal, &lines).blames(&[&["gpu.xid"]], &[]);
}

// Two drives of one cheap make, of which the kernel takes one.
#[test]
fn drives_with_the_same_identity() {
    let m = rocky();
    m.without("sys/block/nvme1n1").without("sys/class/block/nvme1n1");
    m.cut("proc/mounts", "/data");
    m.log(Log::Messages, &["nvme nvme1: globally duplicate IDs for nsid 1"])
        .blames(&[&["storage.health"]], &[]);
}

#[test]
fn data_behind_bcache() {
    let m = ubuntu();
    m.above("bcache0", "252:0", &["nvme1n1"], &[]);
    m.edit("proc/mounts", "/dev/nvme1n1 /data", "/dev/bcache0 /data");
    m.log(Log::Kmsg, LOADED).blames(&[&["storage.device-mapper"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/70 printed it: a variable of the environment wins over the file.
#[test]
fn compat_mode_forced_by_the_environment() {
    let m = ubuntu();
    m.edit(
        "run/gdsboot/commands/gdscheck.py-0/stdout",
        " ENVIRONMENT:\n ============\n",
        " ENVIRONMENT:\n ============\n CUFILE_FORCE_COMPAT_MODE : true\n",
    );
    m.edit(
        "run/gdsboot/commands/gdscheck.py-0/stdout",
        "NVMe               : Supported",
        "NVMe               : Unsupported",
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["cufile.compat"]], &[]);
}

#[test]
fn gpu_closed_to_programs() {
    let m = rocky();
    let card = "NVIDIA A100 80GB PCIe NO GDS SUPPORT - Reason: compute_mode=prohibited";
    m.ran_instead("gdscheck -p", 0, &gdscheck("1.20.0.107", Some("2.30"), None, "nvfs, compat", card), "");
    m.edit("run/gdsboot/commands/nvidia-smi-0/stdout", "Default |", "Prohibited |");
    m.blames(&[&["driver.cuda", "gds.platform"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/75 with the second log of the thread.
#[test]
fn p2pdma_keys_that_were_mistyped() {
    let m = guest();
    m.edit("proc/driver/nvidia/params", "RMForceStaticBar1=1;", "RMForceStaticBar=1;");
    m.edit(
        "run/gdsboot/commands/gdscheck-0/stdout",
        "NVMe P2PDMA        : Supported",
        "NVMe P2PDMA        : Unsupported",
    );
    m.log(
        Log::Syslog,
        &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build"],
    );
    m.blames(&[&["p2pdma.registry-keys"]], &[]);
}

#[test]
fn power_cable_forgotten() {
    let m = ubuntu();
    m.ran_instead("nvidia-smi", 8, "No devices were found\n", "");
    m.without("run/gdsboot/commands/gdscheck.py-0").without("proc/driver/nvidia/gpus");
    let lines = [
        LOADED,
        &[
            "NVRM: GPU 0000:19:00.0: GPU does not have the necessary power cables connected.",
            "NVRM: GPU 0000:19:00.0: RmInitAdapter failed! (0x24:0x1c:1436)",
            "NVRM: GPU 0000:19:00.0: rm_init_adapter failed, device minor number 0",
        ],
    ]
    .concat();
    m.log(Log::Kmsg, &lines).blames(&[&["driver.rm-init", "gpu.power"]], &[]);
}

// The owner set everything up for P2PDMA and then chose drives for the work that a mirror holds.
#[test]
fn data_on_a_mirror_under_p2pdma() {
    let m = workstation();
    m.above("md0", "9:0", &["nvme1n1"], &[("md/level", "raid1")]);
    m.edit("proc/mounts", "/dev/nvme1n1 /data", "/dev/md0 /data");
    m.blames(&[&["storage.raid"]], &[]);
}

// Left from the day when the GPU belonged to a virtual machine.
#[test]
fn the_driver_is_blacklisted() {
    let m = ubuntu();
    super::driver::dead(&m, "gdscheck.py");
    m.file(
        "etc/modprobe.d/blacklist-nvidia.conf",
        "blacklist nvidia\nblacklist nvidia_uvm\ninstall nvidia /bin/false\n",
    );
    m.log(Log::Journal, &[]).blames(&[&["driver.loaded"]], &[]);
}

// A later kernel with nvidia-fs of the branch before: https://github.com/NVIDIA/gds-nvidia-fs/pull/82 brought it.
#[test]
fn nvidia_fs_before_6_17() {
    let m = ubuntu();
    for path in
        ["proc/version", "proc/sys/kernel/osrelease", "proc/cmdline", "run/gdsboot/commands/uname-0/stdout"]
    {
        m.edit(path, "6.8.0-1024-nvidia", "6.17.0-1008-nvidia");
    }
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  0:522 nvidia-fs MAP ioctl failed : ioctl_return: -14 ioctl_ret: -1",
            "ERROR  0:555 map failed",
        ]),
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["nvidia-fs.version"]], &[]);
}

// https://github.com/NVIDIA/gds-nvidia-fs/issues/11: what people write down of such a machine is this.
#[test]
fn nothing_but_two_lines() {
    let m = super::machine::Machine::new();
    m.file(
        "gdscheck.txt",
        &gdscheck("1.15.1.6", Some("2.26"), Some("Unsupported"), "Unsupported", &gpu("NVIDIA H20", 131_072)),
    );
    m.file("notes.txt", "H20, Ubuntu 24.04, kernel 6.8.0-88-generic, open driver 580.95.05\n");
    m.blames(&[&["nvme.patched"]], &[]);
}

#[test]
fn the_gpu_is_gone_from_the_bus() {
    let m = ubuntu();
    super::driver::dead(&m, "gdscheck.py");
    m.without(&format!("sys/devices/{GPU}")).without("sys/bus/pci/devices/0000:19:00.0");
    m.log(
        Log::Kmsg,
        &[
            "NVRM: No NVIDIA GPU found.",
            "pcieport 0000:18:00.0: pciehp: Slot(4): Link Down",
            "pcieport 0000:18:00.0: pciehp: Slot(4): Card not present",
        ],
    );
    m.blames(&[&["gpu.present"]], &[]);
}

#[test]
fn windows_subsystem_by_two_commands() {
    let m = super::machine::Machine::new();
    m.ran("uname -a", 0, "Linux DESKTOP-7Q 5.15.167.4-microsoft-standard-WSL2 #1 SMP Tue Nov 5 00:21:55 UTC 2024 x86_64 GNU/Linux\n", "");
    m.ran("lsmod", 0, "Module                  Size  Used by\n", "");
    m.blames(&[&["platform.wsl"]], &[]);
}

// https://github.com/rapidsai/kvikio/issues/140
#[test]
fn cufile_missing_by_the_words_of_python() {
    let m = texts();
    m.ran("python benchmarks/single-node-io.py", 1, "", "Traceback (most recent call last):\n  File \"benchmarks/single-node-io.py\", line 401, in <module>\nRuntimeError: libcufile.so.1: cannot open shared object file: No such file or directory\n");
    m.blames(&[&["cufile.release"]], &[]);
}

#[test]
fn data_on_a_striped_logical_volume() {
    let m = rocky();
    let part = "sys/devices/pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:01.0/0000:1a:00.0/nvme/nvme1/nvme1n1/nvme1n1p1";
    m.files(part, &[("partition", "1"), ("size", "7501457408"), ("start", "2048"), ("dev", "259:5")]);
    let real = "sys/devices/virtual/block/dm-3";
    m.block(real, "253:3", 7_501_455_360).files(real, &[("dm/name", "data-stripe"), ("dm/uuid", "LVM-5fQe")]);
    m.link("sys/devices/virtual/block/dm-3/slaves/nvme1n1p1", "sys/block/nvme1n1/nvme1n1p1");
    m.edit("proc/mounts", "/dev/nvme1n1 /data", "/dev/mapper/data-stripe /data");
    m.log(Log::Messages, &[]).blames(&[&["storage.device-mapper"]], &[]);
}

// The same kernel, driver and settings as on `guest`; only cuFile was started by a service with other settings.
#[test]
fn forced_compat_by_the_log_alone() {
    let m = guest();
    m.without("run/gdsboot/commands/gdscheck-0");
    m.file("srv/app/cufile.log", &cufile_log(&["NOTICE  cufio-drv:735 forcing cufile into compatible mode"]));
    m.blames(&[&["cufile.compat"]], &[]);
}

#[test]
fn secure_boot_by_dmesg_of_ubuntu() {
    let m = ubuntu();
    super::driver::dead(&m, "gdscheck.py");
    m.log(
        Log::DmesgHuman,
        &[
            "secureboot: Secure boot enabled",
            "Kernel is locked down from EFI Secure Boot mode; see man kernel_lockdown.7",
            "Lockdown: systemd-modules: unsigned module loading is restricted; see man kernel_lockdown.7",
        ],
    );
    m.blames(&[&["kernel.module-signature"]], &[]);
}

// A kernel without a name for the flavour, and no symbols for a plain user (kptr_restrict leaves the names).
#[test]
fn old_driver_and_nvidia_fs_on_debian() {
    let m = ubuntu();
    for path in [
        "proc/driver/nvidia/version",
        "sys/module/nvidia/version",
        "run/gdsboot/commands/nvidia-smi-0/stdout",
        "run/gdsboot/commands/modinfo-0/stdout",
    ] {
        m.edit(path, "570.124.06", "525.147.05");
    }
    for library in ["libcuda", "libnvidia-ml"] {
        m.without(&format!("usr/lib/x86_64-linux-gnu/{library}.so.570.124.06"));
        m.file(&format!("usr/lib/x86_64-linux-gnu/{library}.so.525.147.05"), "");
    }
    m.log(
        Log::Syslog,
        &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  525.147.05  Release Build"],
    );
    m.blames(&[&["driver.branch"]], &[]);
}

#[test]
fn p2pdma_refused_by_the_kernel_at_the_first_transfer() {
    let m = workstation();
    m.edit("run/gdsboot/commands/gdscheck.py-0/stdout", "p2pdma, compat", "compat");
    m.without("run/gdsboot/commands/dmesg-0");
    m.log(Log::Kmsg, &[
        "nvme 0000:1a:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:19:00.0) do not share an upstream bridge or whitelisted host bridge",
    ]);
    m.blames(&[&["p2pdma.topology", "topology.p2pdma"]], &[]);
}

#[test]
fn modules_of_another_kernel_after_an_update() {
    let m = rocky();
    super::driver::dead(&m, "gdscheck");
    m.ran("modprobe nvidia", 1, "", "modprobe: ERROR: could not insert 'nvidia': Exec format error\n");
    m.log(Log::Messages, &["nvidia: version magic '5.14.0-427.13.1.el9_4.x86_64 SMP preempt mod_unload modversions ' should be '5.14.0-503.33.1.el9_5.x86_64 SMP preempt mod_unload modversions '"]);
    m.blames(&[&["driver.loaded"]], &[]);
}

#[test]
fn libraries_from_a_container_image() {
    let m = ubuntu();
    let (out, err) = gdscheck_cuda("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH");
    m.ran_instead("gdscheck.py -p", 0, &out, &err);
    m.file("usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15", "");
    m.log(Log::Kmsg, LOADED).blames(&[&["driver.userland", "driver.cuda"]], &[]);
}
