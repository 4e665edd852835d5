//! The known failures, each by its own words, on machines that are captured folders: the whole way from files to findings.

use super::check::{Finding, Side, Status};
use super::context::side_of;
use super::judge::judge;
use crate::facts::{Facts, Root};

/// A captured machine: paths and what stands there.
type Files<'a> = Vec<(&'a str, String)>;

fn facts(files: &[(&str, String)]) -> Facts {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    Facts::read(&Root::at(dir.path()))
}

fn findings(files: &[(&str, String)]) -> Vec<Finding> {
    let facts = facts(files);
    judge(&facts, side_of(&facts), None, &[], "2026-11-24").findings
}

fn failed(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|f| f.status == Status::Fail).map(|f| f.id.as_str()).collect()
}

fn status(findings: &[Finding], id: &str) -> Status {
    findings.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no check {id}")).status
}

const KMSG: &str = "6,0,0,-;Linux version 6.8.0-79-generic (buildd@x) #79-Ubuntu SMP\n\
    6,1,900000,-;nvme nvme0: pci function 0000:02:00.0\n\
    6,2,910000,-;DMAR: IOMMU enabled\n\
    6,3,920000,-;pci 0000:00:1f.0: BAR 13 [io  size 0x1000]: can't assign; no space\n\
    6,4,930000,-;EXT4-fs (nvme0n1p2): mounted filesystem r/w with ordered data mode. Quota mode: none.\n\
    6,5,940000,-;NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05\n\
    6,6,950000,-;vfio_pci: add [1002:ffff[ffffffff:ffffffff]] class 0x000000/00000000\n";

/// A machine with a complete P2PDMA route.
fn p2pdma() -> Files<'static> {
    [
        ("proc/sys/kernel/osrelease", "6.8.0-79-generic\n"),
        ("proc/cmdline", "root=/dev/nvme0n1p2\n"),
        (
            "proc/modules",
            "nvidia_uvm 1 0 - Live 0x0 (OE)\nnvidia 1 1 nvidia_uvm, Live 0x0 (OE)\nnvme 1 1 - Live 0x0\nnvme_core 1 1 - Live 0x0\n",
        ),
        ("proc/kallsyms", "0000000000000000 T pci_p2pdma_add_resource\n"),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n",
        ),
        (
            "proc/driver/nvidia/params",
            "EnableMSI: 1\nRegistryDwords: \"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"\n",
        ),
        (
            "proc/driver/nvidia/gpus/0000:01:00.0/information",
            "Model: \t NVIDIA L40S\nGPU Firmware: \t 580.95.05\nDevice Minor: \t 0\n",
        ),
        ("sys/module/nvme_core/parameters/multipath", "N\n"),
        ("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
        ("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n"),
        (
            "sys/bus/pci/devices/0000:01:00.0/resource",
            "0x00000000a0000000 0x00000000a0ffffff 0x0000000000040200\n\
             0x0000380000000000 0x0000380fffffffff 0x000000000014220c\n",
        ),
        ("sys/bus/pci/devices/0000:02:00.0/vendor", "0x144d\n"),
        ("sys/bus/pci/devices/0000:02:00.0/class", "0x010802\n"),
        ("sys/block/nvme0n1/dev", "259:0\n"),
        ("sys/block/nvme0n1/nvme0n1p2/partition", "2\n"),
        ("sys/block/nvme0n1/nvme0n1p2/dev", "259:2\n"),
        ("sys/block/nvme1n1/dev", "259:3\n"),
        (
            "proc/self/mountinfo",
            "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n23 22 259:3 / /data rw - xfs /dev/nvme1n1 rw\n",
        ),
        (
            "etc/cufile.json",
            "{ // comment\n\"properties\": {\"allow_compat_mode\": true, \"use_pci_p2pdma\": true}, \"block\": {\"nvme\": \
             {\"use_pci_p2pdma\": true}} }\n",
        ),
        ("usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05", ""),
        ("dev/kmsg", KMSG),
    ]
    .into_iter()
    .map(|(path, text)| (path, text.to_owned()))
    .collect()
}

/// A machine with a complete nvidia-fs route, and no settings for the other.
fn nvfs() -> Files<'static> {
    let mut files = p2pdma();
    with(
        &mut files,
        "proc/modules",
        "nvidia_fs 1 0 - Live 0x0 (OE)\nnvidia_uvm 1 0 - Live 0x0 (OE)\nnvidia 1 1 - Live 0x0 (OE)\nnvme 1 1 - Live 0x0\n",
    );
    with(
        &mut files,
        "proc/kallsyms",
        "0 T pci_p2pdma_add_resource\n0 T nvme_v1_register_nvfs_dma_ops\t[nvme]\n",
    );
    with(&mut files, "sys/module/nvidia_fs/version", "2.26.6\n");
    with(&mut files, "proc/driver/nvidia-fs/version", "version: 2.26\n");
    with(&mut files, "proc/driver/nvidia/params", "RegistryDwords: \"\"\n");
    with(&mut files, "sys/module/nvme_core/parameters/multipath", "Y\n");
    with(&mut files, "etc/cufile.json", "{\"properties\": {\"allow_compat_mode\": false}}");
    files
}

fn with<'a>(files: &mut Files<'a>, path: &'a str, text: &str) {
    files.retain(|(known, _)| *known != path);
    files.push((path, text.to_owned()));
}

#[test]
fn clean_machines_have_nothing_to_mend() {
    for files in [p2pdma(), nvfs()] {
        let all = findings(&files);
        assert_eq!(failed(&all), [""; 0]);
        let broken: Vec<_> = all.iter().filter(|f| f.status == Status::Error).collect();
        assert_eq!(broken, Vec::<&Finding>::new());
    }
    let all = findings(&p2pdma());
    assert_eq!(status(&all, "p2pdma.registry-keys"), Status::Pass);
    assert_eq!(status(&all, "nvme.patched"), Status::Info);
    let all = findings(&nvfs());
    assert_eq!(status(&all, "nvme.patched"), Status::Pass);
    assert_eq!(status(&all, "p2pdma.multipath"), Status::Info);
}

#[test]
fn a_machine_of_which_nothing_is_seen_has_nothing_to_mend_either() {
    let all = findings(&[("etc/hostname", "x".to_owned())]);
    assert_eq!(failed(&all), [""; 0]);
    for id in [
        "driver.loaded",
        "route.possible",
        "p2pdma.multipath",
        "gpu.xid",
        "gds.platform",
        "storage.filesystem",
    ] {
        assert_eq!(status(&all, id), Status::Unknown, "{id}");
    }
}

/// The signature's number, what is said, and the check that answers; with `Info` it notes, else it fails.
const SIGNATURES: &[(u32, &str, &str, Status)] = &[
    (
        1,
        "modprobe: ERROR: could not insert 'nvidia_fs': Key was rejected by service",
        "kernel.module-signature",
        Status::Fail,
    ),
    (1, "Loading of unsigned module is rejected", "kernel.module-signature", Status::Fail),
    (
        1,
        "modprobe: ERROR: could not insert 'nvidia': Required key not available",
        "kernel.module-signature",
        Status::Fail,
    ),
    (
        1,
        "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
        "kernel.module-signature",
        Status::Info,
    ),
    (
        2,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.",
        "driver.loaded",
        Status::Fail,
    ),
    (3, "NVRM: No NVIDIA PCI devices found.", "driver.no-device", Status::Fail),
    (3, "NVRM: No NVIDIA GPU found.", "driver.no-device", Status::Fail),
    (4, "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:", "driver.bar", Status::Fail),
    (4, "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)", "driver.bar", Status::Fail),
    (
        4,
        "pci 0000:01:00.0: BAR 1 [mem size 0x1000000000 64bit pref]: can't assign; no space",
        "driver.bar",
        Status::Fail,
    ),
    (5, "NVRM: The NVIDIA probe routine was not called for 1 device(s).", "driver.nouveau", Status::Fail),
    (5, "NVRM: This can occur when another driver was loaded and", "driver.nouveau", Status::Fail),
    (6, "NVRM: The NVIDIA probe routine failed for 1 device(s).", "driver.probe", Status::Fail),
    (6, "NVRM: None of the NVIDIA devices were initialized.", "driver.probe", Status::Fail),
    (6, "nvidia 0000:01:00.0: probe with driver nvidia failed with error -1", "driver.probe", Status::Fail),
    (
        7,
        "qemu-system-x86_64: -device vfio-pci,host=01:00.0: vfio 0000:01:00.0: group 14 is not viable",
        "host.group-viable",
        Status::Fail,
    ),
    (
        8,
        "nvidia 0000:01:00.0: Direct firmware load for nvidia/580.126.09/gsp_ga10x.bin failed with error -2",
        "driver.gsp-firmware",
        Status::Fail,
    ),
    (
        8,
        "NVRM: _kgspFwContainerVerifyVersion: GSP firmware image version mismatch: got version 550.163.01, expected version 580.142",
        "driver.gsp-firmware",
        Status::Fail,
    ),
    (8, "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0xffff:2014)", "driver.rm-init", Status::Fail),
    (
        9,
        "NVRM: _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
        "gpu.wedged",
        Status::Fail,
    ),
    (
        10,
        "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "gpu.fell-off",
        Status::Fail,
    ),
    (
        11,
        "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP!",
        "gpu.xid",
        Status::Fail,
    ),
    (11, "NVRM: Xid (PCI:0000:9b:00): 43, pid=1, name=x, Ch 00000008", "gpu.xid", Status::Info),
    (12, "Failed to initialize NVML: Driver/library version mismatch", "driver.userland", Status::Fail),
    (12, "NVRM: API mismatch: the client has the version 590.44.01, but", "driver.userland", Status::Fail),
    (
        13,
        "NVRM: installed in this system is not supported by open nvidia.ko because it does not include the required GPU System Processor (GSP).",
        "driver.gpu-supported",
        Status::Fail,
    ),
    (14, "cuInit Failed, error CUDA_ERROR_SYSTEM_NOT_READY", "driver.fabric-manager", Status::Fail),
    (15, " cuInit Failed, error CUDA_ERROR_NO_DEVICE", "driver.cuda", Status::Fail),
    (
        16,
        "nvidia-uvm: uvm_pmm_gpu.c:3176 devmem_alloc_pagemap[pid:1] request_free_mem_region() err -34",
        "driver.uvm-memory",
        Status::Fail,
    ),
    (17, "ERROR  cufio-fs:199 NVMe Driver not registered with nvidia-fs!!!", "nvme.patched", Status::Fail),
    (18, "nvidia_fs: Unknown symbol nvidia_p2p_get_pages (err -2)", "nvidia-fs.symbols", Status::Fail),
    (18, "nvidia_fs: no symbol version for nvidia_p2p_dma_unmap_pages", "nvidia-fs.symbols", Status::Fail),
    (
        19,
        "nvidia-fs:nvfs_mgroup_pin_shadow_pages:397 Unable to pin shadow buffer pages 1024 ret= -14",
        "nvidia-fs.version",
        Status::Fail,
    ),
    (
        20,
        "nvidia-fs:nvfs_pin_gpu_pages:1292 Error ret -22 invoking nvidia_p2p_get_pages",
        "driver.product",
        Status::Fail,
    ),
    (21, "ERROR  cufio:1 Kernel does not support PCIP2PDMA", "p2pdma.kernel", Status::Fail),
    (
        22,
        "INFO   cufio-cuda:663 Failed to get cuda p2p device address for ptr 0x7f5323e00000 length: 65536 errornum: 801",
        "p2pdma.registry-keys",
        Status::Fail,
    ),
    (
        22,
        "NVRM: BAR1 size 268435456 is not large enough to map FB size48318382080 to force static BAR1",
        "p2pdma.static-bar1",
        Status::Fail,
    ),
    (
        23,
        "nvme 0000:02:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:01:00.0) do not share an upstream bridge or whitelisted host bridge",
        "p2pdma.topology",
        Status::Fail,
    ),
    (
        23,
        "nvme 0000:02:00.0: ACS redirect is set between the client and provider (0000:01:00.0)",
        "p2pdma.topology",
        Status::Fail,
    ),
    (
        24,
        "x86/PAT: gdsio:123 conflicting memory types 380000000000-381000000000 write-combining<->uncached-minus",
        "p2pdma.write-combining",
        Status::Fail,
    ),
    (
        25,
        "ERROR  cufio-fs:1 EXT4 journal options not found in mount table for device,can't verify data=ordered mode journalling",
        "storage.filesystem",
        Status::Fail,
    ),
    (26, "ERROR  cufio-fs:268 Unsupported block device: /dev/dm-0", "storage.device-mapper", Status::Fail),
    (27, "ERROR cuFileHandleRegister failed for fd 3 err=5008", "gds.errors", Status::Fail),
    (28, "nvme gds: write failed : Input/output error", "p2pdma.fabrics", Status::Fail),
    (
        29,
        "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x380000000000 [fault reason 0x05] PTE Write access is not set",
        "host.iommu-faults",
        Status::Fail,
    ),
    (
        29,
        "nvme 0000:02:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0014 address=0x380000000000 flags=0x0020]",
        "host.iommu-faults",
        Status::Fail,
    ),
    (
        30,
        "nvme nvme4: I/O tag 22 (2016) opcode 0x2 (I/O Cmd) QID 0 timeout, reset controller",
        "storage.health",
        Status::Fail,
    ),
    (30, "nvme nvme4: Disabling device after reset failure: -19", "storage.health", Status::Fail),
    (31, "EXT4-fs (nvme0n1): Remounting filesystem read-only", "storage.read-only", Status::Fail),
    (
        32,
        "nvidia: Windows has stopped this device because it has reported problems. (Code 43)",
        "driver.code-43",
        Status::Info,
    ),
    (33, "vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up", "host.vfio-reset", Status::Fail),
    (34, "qemu-system-x86_64: VFIO_MAP_DMA failed: Cannot allocate memory", "host.memory-lock", Status::Fail),
    (
        34,
        "qemu: vfio_container_dma_map(0x55, 0x0, 0x80000000, 0x7f) = -12 (Cannot allocate memory)",
        "host.memory-lock",
        Status::Fail,
    ),
    (
        35,
        "IoType: READ XferType: GPUD Threads: 1 DataSetSize: 0/4(KiB) Throughput: -0.000001 GiB/sec, ops: 0 total_time -1575.299689 secs",
        "gds.gdsio",
        Status::Info,
    ),
    (36, "nvidia-uvm: Unable to initialse PCI P2PDMA pages", "p2pdma.memory", Status::Fail),
    (
        37,
        "warn: error opening log file: Permission denied, logging will be disabled",
        "cufile.logging",
        Status::Fail,
    ),
];

/// Words alone, in a text that is all there is of a machine.
#[test]
fn each_signature_is_found_in_a_log_that_is_all_there_is() {
    let mut wrong = Vec::new();
    for (number, text, id, expected) in SIGNATURES {
        for path in ["var/log/dmesg", "cufile.log"] {
            let all = findings(&[(path, format!("{text}\n"))]);
            let first = failed(&all);
            let place = first.iter().position(|failed| failed == id);
            let good = status(&all, id) == *expected
                && (*expected != Status::Fail || place.is_some_and(|at| at < 3));
            if !good || first.len() > 2 {
                wrong.push(format!("{number} {path}: {id} is {:?}, failed: {first:?}", status(&all, id)));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_a_program_printed_is_heard_too() {
    for (_, text, id, expected) in SIGNATURES {
        let all = findings(&[("run/gdsboot/commands/x-1/stderr", format!("{text}\n"))]);
        assert_eq!(status(&all, id), *expected, "{text}");
    }
}

#[test]
fn every_signature_has_a_check() {
    for number in 1..=38 {
        let name = format!("signature {number}");
        assert!(super::all().any(|check| check.covers.contains(&name.as_str())), "{name}");
    }
}

#[test]
fn a_hook_that_nobody_looks_for() {
    let mut files = nvfs();
    with(&mut files, "proc/kallsyms", "0 T nvme_v2_register_nvfs_dma_ops\t[nvme]\n");
    let all = findings(&files);
    assert_eq!(failed(&all), ["nvme.hook-version"]);
    with(&mut files, "sys/module/nvidia_fs/version", "2.28.4\n");
    assert_eq!(failed(&findings(&files)), [""; 0]);
}

#[test]
fn one_piece_of_p2pdma_that_is_missing_is_one_finding() {
    let broken = |path: &'static str, text: &str| {
        let mut files = p2pdma();
        with(&mut files, path, text);
        failed(&findings(&files)).join(" ")
    };
    assert_eq!(broken("sys/module/nvme_core/parameters/multipath", "Y\n"), "p2pdma.multipath");
    assert_eq!(broken("proc/driver/nvidia/params", "RegistryDwords: \"\"\n"), "p2pdma.registry-keys");
    assert_eq!(
        broken("etc/cufile.json", "{\"properties\": {\"use_pci_p2pdma\": false}}"),
        "p2pdma.cufile-keys"
    );
    assert_eq!(broken("etc/cufile.json", "{"), "cufile.config-readable");
    assert_eq!(broken("proc/kallsyms", "0 T nothing\n"), "route.possible");
    assert_eq!(broken("proc/sys/kernel/osrelease", "5.15.0-100-generic\n"), "route.possible");
    assert_eq!(
        broken(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  x\n"
        ),
        "driver.open"
    );
    assert_eq!(
        broken("proc/self/mountinfo", "23 22 259:3 / /data rw - ext4 /dev/nvme1n1 rw\n"),
        "storage.filesystem"
    );
    assert_eq!(broken("usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05", ""), "");
}

#[test]
fn one_piece_of_nvidia_fs_that_is_missing_is_one_finding() {
    let broken = |path: &'static str, text: &str| {
        let mut files = nvfs();
        with(&mut files, path, text);
        failed(&findings(&files)).join(" ")
    };
    assert_eq!(broken("proc/kallsyms", "0 T pci_p2pdma_add_resource\n"), "nvme.patched");
    assert_eq!(broken("proc/kallsyms", "0 T nothing\n"), "route.possible");
    assert_eq!(
        broken(
            "proc/modules",
            "nvidia_uvm 1 0 - Live 0x0 (OE)\nnvidia 1 1 - Live 0x0 (OE)\nnvme 1 1 - Live 0x0\n"
        ),
        "nvidia-fs.loaded"
    );
    assert_eq!(broken("sys/module/nvidia_fs/version", "2.18.0\n"), "nvidia-fs.version");
    assert_eq!(broken("etc/cufile.json", "{\"properties\": {\"force_compat_mode\": true}}"), "cufile.compat");
}

#[test]
fn refused_modules_are_one_finding() {
    let mut files = p2pdma();
    with(&mut files, "proc/modules", "nvme 1 1 - Live 0x0\n");
    files.retain(|(path, _)| !path.starts_with("proc/driver"));
    with(&mut files, "dev/kmsg", &format!("{KMSG}3,7,9600000,-;Loading of unsigned module is rejected\n"));
    let all = findings(&files);
    assert_eq!(failed(&all), ["kernel.module-signature"]);
    let loaded = all.iter().find(|f| f.id == "driver.loaded").unwrap();
    assert_eq!((loaded.status, loaded.because.as_deref()), (Status::Skip, Some("kernel.module-signature")));
    with(&mut files, "dev/kmsg", KMSG);
    assert_eq!(failed(&findings(&files)), ["driver.loaded"]);
}

#[test]
fn gdscheck_alone() {
    let answer = |row: &str| {
        let text = format!(
            " GDS release version: 1.16.0.49\n nvidia_fs minimum version: 2.12\n =====\n DRIVER CONFIGURATION:\n =====\n NVMe \
             : {row}\n GPU INFO:\n GPU index 0 NVIDIA L40S bar:1 bar size (MiB):65536 supports GDS, IOMMU State: \
             Disabled\n Platform verification succeeded\n"
        );
        findings(&[("run/gdsboot/commands/gdscheck-1/stdout", text)])
    };
    assert_eq!(failed(&answer("compat")), ["gds.platform"]);
    assert_eq!(failed(&answer("nvfs, compat")), [""; 0]);
    assert_eq!(failed(&answer("p2pdma, compat")), [""; 0]);
}

#[test]
fn a_data_disk_on_device_mapper() {
    let mut files = p2pdma();
    with(&mut files, "sys/block/dm-0/dev", "252:0\n");
    with(&mut files, "sys/block/dm-0/dm/uuid", "LVM-abc\n");
    with(&mut files, "sys/block/dm-0/slaves/nvme1n1/x", "");
    with(&mut files, "proc/self/mountinfo", "23 22 252:0 / /data rw - xfs /dev/mapper/vg-data rw\n");
    assert_eq!(failed(&findings(&files)), ["storage.device-mapper"]);
    with(&mut files, "proc/self/mountinfo", "23 22 252:0 / / rw - ext4 /dev/mapper/vg-root rw\n");
    assert_eq!(failed(&findings(&files)), [""; 0], "the system's own filesystem is not transferred");
}

#[test]
fn a_hypervisor_need_not_have_the_driver() {
    let mut files = p2pdma();
    files.retain(|(path, _)| !path.contains("driver/nvidia") && !path.starts_with("etc"));
    with(&mut files, "proc/modules", "vfio_pci 1 0 - Live 0x0\nnvme 1 1 - Live 0x0\n");
    with(&mut files, "proc/sys/kernel/osrelease", "6.8.12-4-pve\n");
    let facts = facts(&files);
    assert_eq!(side_of(&facts), Side::Host);
    let all = judge(&facts, Side::Host, None, &[], "2026-11-24").findings;
    assert_eq!(failed(&all), [""; 0]);
    assert_eq!(status(&all, "driver.loaded"), Status::NotApplicable);
    assert_eq!(status(&all, "host.iommu-faults"), Status::Pass);
}

#[test]
fn a_guest_asks_its_host() {
    let all = judge(&facts(&p2pdma()), Side::Guest, None, &[], "2026-11-24").findings;
    let fault = all.iter().find(|f| f.id == "host.iommu-faults").unwrap();
    assert_eq!(fault.status, Status::Unknown);
    assert!(!fault.remedy[0].commands.is_empty());
}

#[test]
fn hostile_machines_break_no_check() {
    let noise =
        "\u{1b}[31mNVRM: Xid (\u{0}: , nvme_v_register err=5008 5008 BAR Throughput: - not ready after FLR\n"
            .repeat(2000);
    for path in [
        "dev/kmsg",
        "cufile.log",
        "proc/modules",
        "proc/driver/nvidia/params",
        "proc/self/mountinfo",
        "etc/cufile.json",
    ] {
        let mut files = p2pdma();
        with(&mut files, path, &noise);
        let broken: Vec<String> =
            findings(&files).into_iter().filter(|f| f.status == Status::Error).map(|f| f.why).collect();
        assert_eq!(broken, Vec::<String>::new(), "{path}");
    }
}

/// Words on a machine where all else is in order: only what its present state refutes is not believed.
#[test]
fn signatures_on_a_whole_machine() {
    let mut wrong = Vec::new();
    for (number, text, id, expected) in SIGNATURES {
        let mut files = p2pdma();
        with(&mut files, "dev/kmsg", &format!("{KMSG}3,7,9600000,-;{text}\n"));
        let all = findings(&files);
        let refuted = matches!(number, 3 | 4 | 6 | 8 | 17 | 18 | 21);
        let now = status(&all, id);
        let good = now == *expected || (refuted && matches!(now, Status::Info | Status::Pass));
        if !good || failed(&all).len() > 2 {
            wrong.push(format!("{number}: {id} is {:?}, failed: {:?}", status(&all, id), failed(&all)));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn one_gpu_of_two_that_does_not_start() {
    let mut files = p2pdma();
    with(&mut files, "sys/bus/pci/devices/0000:03:00.0/vendor", "0x10de\n");
    with(&mut files, "sys/bus/pci/devices/0000:03:00.0/class", "0x030200\n");
    let line = "NVRM: GPU 0000:03:00.0: RmInitAdapter failed! (0x62:0xffff:2014)";
    with(&mut files, "dev/kmsg", &format!("{KMSG}3,7,9600000,-;{line}\n"));
    assert_eq!(failed(&findings(&files)), ["driver.rm-init"]);
}

#[test]
fn a_printed_kernel_log_is_heard_once() {
    let line = "[    9.600000] NVRM: Xid (PCI:0000:01:00): 48, pid=1, DBE";
    let all = findings(&[("run/gdsboot/commands/dmesg-1/stdout", format!("{line}\n"))]);
    let xid = all.iter().find(|f| f.id == "gpu.xid").unwrap();
    assert_eq!((xid.status, xid.evidence.len()), (Status::Fail, 1));
}

#[test]
fn libraries_of_another_version_than_the_modules() {
    let mut files = p2pdma();
    files.retain(|(path, _)| !path.starts_with("usr/lib"));
    with(&mut files, "usr/lib/x86_64-linux-gnu/libcuda.so.590.44.01", "");
    assert_eq!(failed(&findings(&files)), ["driver.userland"]);
}

#[test]
fn another_driver_on_the_gpu_is_one_finding() {
    let mut files = p2pdma();
    files.retain(|(path, _)| !path.starts_with("proc/driver"));
    with(&mut files, "proc/modules", "nouveau 1 1 - Live 0x0\nnvme 1 1 - Live 0x0\n");
    with(
        &mut files,
        "dev/kmsg",
        &format!("{KMSG}3,7,9600000,-;NVRM: The NVIDIA probe routine was not called for 1 device(s).\n"),
    );
    assert_eq!(failed(&findings(&files)), ["driver.nouveau"]);
}

/// The same words on a machine of the other route, seen from a guest.
#[test]
fn signatures_in_a_guest_with_nvidia_fs() {
    let mut wrong = Vec::new();
    for (number, text, _, _) in SIGNATURES {
        let mut files = nvfs();
        with(&mut files, "dev/kmsg", &format!("{KMSG}3,7,9600000,-;{text}\n"));
        let all = judge(&facts(&files), Side::Guest, None, &[], "2026-11-24").findings;
        // What speaks of P2PDMA, and what the present state refutes, is nothing to mend here.
        let silent = matches!(number, 1 | 3 | 4 | 6 | 8 | 11 | 18 | 21..=23 | 28 | 32 | 35 | 36);
        if failed(&all).len() > 2 || (failed(&all).is_empty() && !silent) {
            wrong.push(format!("{number}: {:?}", failed(&all)));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
