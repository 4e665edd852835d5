//! cuFile's libraries and settings, containers, and what only looks like Linux on a machine.

use super::good::{LOADED, rocky, texts, ubuntu};
use super::machine::{Log, Machine};
use super::printed::{cufile_log, gdscheck, gpu, nvidia_smi};

// https://github.com/NVIDIA/gds-nvidia-fs/issues/15's neighbour: a hand that forgot a comma.
#[test]
fn settings_that_do_not_parse() {
    let m = ubuntu();
    m.edit("etc/cufile.json", "\"allow_compat_mode\": true,", "\"allow_compat_mode\": true");
    m.file("root/cufile.log", &cufile_log(&["ERROR  0:199 error parsing config file: /etc/cufile.json"]));
    m.log(Log::Kmsg, LOADED).blames(&[&["cufile.config-readable"]], &[]);
}

#[test]
fn compat_mode_is_forced() {
    let m = rocky();
    m.edit("etc/cufile.json", "\"force_compat_mode\": false", "\"force_compat_mode\": true");
    m.edit("run/gdsboot/commands/gdscheck-0/stdout", "force_compat_mode : false", "force_compat_mode : true");
    m.edit(
        "run/gdsboot/commands/gdscheck-0/stdout",
        "NVMe               : Supported",
        "NVMe               : Unsupported",
    );
    m.blames(&[&["cufile.compat"]], &[]);
}

// https://github.com/rapidsai/kvikio/issues/508 quotes the list.
#[test]
fn nvme_on_the_denylist() {
    let m = ubuntu();
    m.edit("etc/cufile.json", "\"drivers\":  [ ]", "\"drivers\":  [ \"nvme\" ]");
    m.edit(
        "run/gdsboot/commands/gdscheck.py-0/stdout",
        "NVMe               : Supported",
        "NVMe               : Unsupported",
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["cufile.denylist"]], &[]);
}

#[test]
fn the_mount_on_the_denylist() {
    let m = ubuntu();
    m.edit("etc/cufile.json", "\"mounts\": [ ]", "\"mounts\": [ \"/data\" ]");
    m.ran(
        "gdsio -f /data/f -d 0 -w 4 -s 1G -i 1M -x 0 -I 0",
        255,
        "",
        "file register error: GPUDirect Storage not supported on current file filename:/data/f\n",
    );
    m.log(Log::Kmsg, LOADED).blames(&[&["cufile.denylist"]], &[]);
}

// https://github.com/rapidsai/kvikio/issues/508
#[test]
fn a_library_of_cufile_is_missing() {
    let m = rocky();
    m.without("run/gdsboot/commands/gdscheck-0");
    m.file(
        "home/fstrug/cufile.log",
        &cufile_log(&[
            "ERROR  0:140 unable to load,  liburcu-bp.so.6 ",
            "ERROR  0:140 unable to load,  liburcu-bp.so.1 ",
            "WARN   0:168 failed to open /proc/driver/nvidia-fs/devcount",
            "ERROR  cufio_core:1050 cuFile initialization failed",
        ]),
    );
    m.blames(&[&["gds.errors"]], &[]);
}

// https://github.com/wendylabsinc/WendyOS-Builder/pull/12
#[test]
fn cufile_itself_is_missing() {
    let m = ubuntu();
    m.ran_instead("gdscheck.py -p", 127, "", "/usr/local/cuda/gds/tools/gdscheck: error while loading shared libraries: libcufile.so.0: cannot open shared object file: No such file or directory\n");
    m.log(Log::Kmsg, LOADED).blames(&[&["cufile.release"]], &[]);
}

// https://github.com/rapidsai/kvikio/issues/283
#[test]
fn a_container_without_device_nodes() {
    let m = ubuntu();
    m.file(".dockerenv", "");
    m.file("proc/1/cgroup", "0::/\n");
    m.file("proc/mounts", "overlay / overlay rw,relatime,lowerdir=/var/lib/docker/overlay2/l/A,upperdir=/var/lib/docker/overlay2/b/diff,workdir=/var/lib/docker/overlay2/b/work 0 0\n/dev/nvme1n1 /data xfs rw,noatime 0 0\n/dev/mapper/vg0-root /etc/hosts ext4 rw,relatime 0 0\n");
    m.ran("ls /dev", 0, "core\nfd\nfull\nmqueue\nnull\nnvidia-uvm\nnvidia-uvm-tools\nnvidia0\nnvidiactl\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n", "");
    m.ran_instead(
        "gdscheck.py -p",
        0,
        &gdscheck("1.13.1.3", None, Some("Unsupported"), "Unsupported", &gpu("NVIDIA H100 PCIe", 131_072)),
        "",
    );
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  cufio-drv:716 nvidia-fs.ko driver not loaded",
            "NOTICE  cufio-drv:720 running in compatible mode",
        ]),
    );
    m.blames(&[&["nvidia-fs.device-nodes"]], &[]);
}

// https://github.com/rapidsai/cucim/pull/106
#[test]
fn windows_subsystem_for_linux() {
    let m = Machine::new();
    let release = "5.15.167.4-microsoft-standard-WSL2";
    m.file("proc/version", &format!("Linux version {release} (root@f9c826d3017f) (gcc (GCC) 11.2.0) #1 SMP Tue Nov 5 00:21:55 UTC 2024\n"));
    m.file("proc/sys/kernel/osrelease", &format!("{release}\n"));
    m.file(
        "proc/cmdline",
        "initrd=\\initrd.img WSL_ROOT_INIT=1 panic=-1 nr_cpus=32 hv_utils.timesync_implicit=1 console=hvc0\n",
    );
    m.file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: 13th Gen Intel(R) Core(TM) i9\nflags\t\t: fpu hypervisor\n");
    m.file("proc/modules", "").file("proc/mounts", "/dev/sdc / ext4 rw,relatime,discard,errors=remount-ro,data=ordered 0 0\nnone /usr/lib/wsl/drivers 9p ro,dirsync 0 0\nC:\\134 /mnt/c 9p rw,dirsync 0 0\n");
    m.pci("pci5582:00/5582:00:00.0", "010000", "1af4:1043", Some("virtio-pci"));
    m.pci("pci7b11:00/7b11:00:00.0", "030200", "1414:008e", Some("dxgkrnl"));
    m.file("usr/lib/wsl/lib/libcuda.so.1.1", "");
    m.ran("nvidia-smi", 0, &nvidia_smi("581.15", "13.0", "NVIDIA RTX 6000 Ada Gene...", "0000:01:00.0"), "");
    m.file(
        "root/cufile.log",
        &cufile_log(&[
            "ERROR  cufio-drv:716 nvidia-fs.ko driver not loaded",
            "NOTICE  cufio-drv:720 running in compatible mode",
        ]),
    );
    m.blames(&[&["platform.wsl"]], &[]);
}

// https://github.com/gpustack/gpustack/issues/1254
#[test]
fn cufile_newer_than_the_driver() {
    let m = texts();
    m.ran_instead(
        "gdscheck -p",
        255,
        " cuInit Failed, error CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE\n cuFile initialization failed\n",
        " Platform verification error :\nCUDA Driver API error\n",
    );
    m.file(
        "cufile.log",
        &cufile_log(&[
            "ERROR  cufio_core:955 cuInit Failed, error CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        ]),
    );
    m.blames(&[&["driver.cuda", "driver.userland"]], &[]);
}

#[test]
fn files_opened_without_o_direct() {
    let m = rocky();
    m.file(
        "scratch/cufile.log",
        &cufile_log(&[
            "ERROR  cufio:302 cuFileHandleRegister error: fd direct IO not set",
            "ERROR  cufio:340 cuFileHandleRegister error: file descriptor is not opened with O_DIRECT",
        ]),
    );
    m.blames(&[&["storage.o-direct", "gds.errors"]], &[]);
}
